"""Classifying: real-looking replies, the provider's own codes, and who wins where they differ."""

from typing import Any

import pytest

from ingest.classify import class_of, classify
from ingest.normalize import Detail, NormalizedEvent
from ingest.vocabulary import FAILURES, BounceClass, Category, EventKind


def failure(kind: EventKind = EventKind.BOUNCED, /, **detail: Any) -> NormalizedEvent:
    return NormalizedEvent(
        kind=kind,
        key=bytes(16),
        content=0,
        location_ref="L1",
        occurred_at=0,
        message_id="m",
        recipient="a@example.com",
        detail=Detail(**detail),
    )


REPLIES = [
    # Words win over codes that mean anything, or the opposite.
    ((550, "5.1.1", "The email account that you tried to reach does not exist."), 1),
    ((550, "5.1.10", "RESOLVER.ADR.RecipientNotFound; Recipient not found by SMTP address"), 1),
    ((550, "5.4.1", "Recipient address rejected: Access denied. AS(201806281)"), 1),
    ((554, "", "delivery error: dd This user doesn't have a yahoo.com account (a@yahoo.com)"), 1),
    ((550, "5.7.1", "No such user here"), 1),
    ((550, "", "<a.b@example.com>: Recipient address rejected: User unknown in table"), 1),
    ((550, "5.2.1", "The email account that you tried to reach is disabled."), 2),
    ((554, "", "30 Sorry, your message cannot be delivered. This mailbox is disabled"), 2),
    ((452, "4.2.2", "The recipient's inbox is out of storage space."), 4),
    ((552, "5.1.1", "Mailbox full: user has exceeded quota"), 4),
    ((450, "4.2.1", "The user you are trying to contact is receiving mail at a rate that"), 5),
    ((550, "5.2.1", "The user you are trying to contact is receiving mail too quickly"), 5),
    ((421, "4.7.0", "Too many connections from your host"), 5),
    ((451, "4.7.1", "Greylisted, please try again in 300 seconds"), 6),
    ((450, "", "blocked using grey.rbl: graylisting in action"), 6),
    ((451, "4.3.0", "Error: open resolver; see https://www.spamhaus.org/returnc/pub"), 8),
    ((552, "5.3.4", "Message size exceeds fixed maximum message size"), 9),
    ((550, "5.7.1", "[198.51.100.7] Our system has detected this is likely unsolicited mail"), 10),
    ((554, "5.7.1", "Message contains a virus"), 10),
    ((550, "5.7.1", "very low reputation of the sending domain"), 11),
    ((550, "5.7.1", "Service unavailable; Client host [198.51.100.7] blocked using Spamhaus"), 11),
    ((550, "", "Mailbox unavailable. Your IP address 198.51.100.7 is blacklisted"), 11),
    ((550, "5.7.1", "messages from [198.51.100.7] weren't sent (S3140)"), 11),
    ((421, "4.7.0", "[TSS04] Messages temporarily deferred"), 11),
    ((550, "5.7.26", "This mail has been blocked because the sender is unauthenticated"), 12),
    ((550, "5.7.515", "Access denied, sending domain doesn't meet the required level"), 12),
    ((550, "", "Sender verify failed"), 12),
    ((550, "5.7.1", "rejected, see https://example.com/spam/virus"), 13),
    ((530, "5.7.0", "Must issue a STARTTLS command first"), 14),
    ((550, "5.7.1", "Relay access denied"), 3),
    ((451, "", "Connection timed out"), 7),
    # Codes, where the words say nothing.
    ((550, "5.1.1", "no"), 1),
    ((550, "5.7.13", "no"), 2),
    ((550, "4.2.2", "no"), 4),
    ((550, "5.7.606", "no"), 11),
    ((550, "5.7.133", "no"), 13),
    ((451, "4.4.317", "no"), 14),
    ((501, "5.5.4", "no"), 15),
    ((550, "5.6.0", "no"), 15),
    ((551, "", "no"), 1),
    ((421, "", "no"), 8),
    ((500, "", "no"), 15),
    ((556, "", "no"), 3),
    # And an honest answer where nothing does.
    ((550, "", "no"), 17),
    ((554, "5.9.99", "no"), 17),
    ((None, "", ""), 17),
]


@pytest.mark.parametrize(("reply", "category"), REPLIES, ids=range(len(REPLIES)))
def test_reply(reply: tuple[int | None, str, str], category: int) -> None:
    code, enhanced, message = reply
    event = failure(code=code, enhanced=enhanced, message=message)
    assert classify(event)[0] is Category(category)


@pytest.mark.parametrize(
    ("detail", "category"),
    [
        ({"code": 498, "message": "No MX for example.com"}, Category.DNS_ROUTING),
        ({"code": 499, "description": "unable to connect to MX servers"}, Category.CONNECTION),
        ({"code": 680}, Category.CONNECTION),
        ({"reason": "greylisted", "code": 451, "message": "blacklist"}, Category.GREYLISTED),
        ({"reason": "espblock", "code": 421}, Category.REPUTATION_BLOCK),
        ({"reason": "espblock", "message": "DMARC policy"}, Category.AUTHENTICATION),
        ({"reason": "old", "code": 602, "description": "Too old"}, Category.CONNECTION),
        ({"reason": "old", "code": 602, "message": "over quota"}, Category.MAILBOX_FULL),
        ({"reason": "old", "code": 602, "enhanced": "4.3.1"}, Category.SERVER_ERROR),
        ({"reason": "generic", "code": 602}, Category.CONNECTION),
        ({"reason": "bounce", "code": 550, "enhanced": "5.1.1"}, Category.INVALID_RECIPIENT),
    ],
)
def test_mailguns_own_words(detail: dict[str, Any], category: Category) -> None:
    assert classify(failure(**detail))[0] is category


@pytest.mark.parametrize("kind", [kind for kind in EventKind if kind not in FAILURES])
def test_only_failures_have_a_category(kind: EventKind) -> None:
    event = failure(kind, code=550, message="no such user")
    assert classify(event) == (Category.NONE, BounceClass.NONE)


def test_a_suppressed_one_is_suppressed_whatever_its_words() -> None:
    event = failure(EventKind.SUPPRESSED, code=605, message="no such user")
    assert classify(event) == (Category.SUPPRESSED, BounceClass.SUPPRESSED)


@pytest.mark.parametrize(
    ("kind", "detail", "bounce_class"),
    [
        (EventKind.BOUNCED, {"enhanced": "5.1.2"}, BounceClass.HARD),
        (EventKind.BOUNCED, {"enhanced": "5.1.10"}, BounceClass.HARD),
        (EventKind.BOUNCED, {"code": 556}, BounceClass.HARD),
        (
            EventKind.BOUNCED,
            {"code": 550, "message": "Host not found (NXDOMAIN)"},
            BounceClass.HARD,
        ),
        (EventKind.DEFERRED, {"enhanced": "4.1.2"}, BounceClass.SOFT),
        (EventKind.BOUNCED, {"code": 498}, BounceClass.SOFT),
        (EventKind.BOUNCED, {"code": 550, "message": "Relaying denied"}, BounceClass.SOFT),
        (EventKind.BOUNCED, {"enhanced": "5.1.1"}, BounceClass.HARD),
        (EventKind.DEFERRED, {"enhanced": "4.2.2"}, BounceClass.SOFT),
        (EventKind.BOUNCED, {"enhanced": "5.7.10"}, BounceClass.SOFT),
        (EventKind.BOUNCED, {"enhanced": "5.5.2"}, BounceClass.SOFT),
        (EventKind.BOUNCED, {"enhanced": "5.7.1"}, BounceClass.BLOCK),
        (EventKind.BOUNCED, {}, BounceClass.UNDETERMINED),
    ],
)
def test_class(kind: EventKind, detail: dict[str, Any], bounce_class: BounceClass) -> None:
    assert classify(failure(kind, **detail))[1] is bounce_class


def test_every_category_has_a_class() -> None:
    assert class_of(Category.NONE) is BounceClass.NONE
    assert {class_of(category) for category in Category} == set(BounceClass)


def test_long_texts_are_quick() -> None:
    event = failure(message="user account mailbox address " * 70, description="a" * 2000)
    assert classify(event)[0] is Category.UNCLASSIFIED
