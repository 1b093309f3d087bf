"""Classifying: real-looking replies, the provider's own codes, and who wins where they differ."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.classify import BUILT_IN, Classification, class_of, classify_failure
from ingest.fold import why_of
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
    # Words of few servers, in families.
    ((550, "5.1.1", "Your address a@b.example is not subscribed to that group"), 13),
    ((550, "", "Closed mailing list, posts by members only"), 13),
    ((421, "", "Recipient not in route list"), 1),
    ((550, "", "unable to validate recipient"), 1),
    ((554, "", "unresolvable address: <a@b.example>; nosuchuser"), 1),
    ((550, "", "account has extended inactivity, new mail is not accepted"), 2),
    ((552, "", "Account(s) <a@b.example> does not have enough space"), 4),
    ((421, "", "Too many concurrent SMTP connections from this IP address"), 5),
    ((421, "", "tachypo.example out of connection slots"), 5),
    ((554, "", "bizsmtp Connection refused from 198.51.100.7"), 11),
    ((550, "", "no longer accepts connections from dynamically assigned IP addresses"), 11),
    ((550, "", "Sorry, no access for this ip"), 11),
    ((550, "5.7.0", "HELO argument [mail.b.example] is missing a DNS entry"), 12),
    ((550, "", "Domain may not exist or DNS check failed"), 12),
    ((451, "", "From:domain must resolve"), 12),
    ((553, "", "From address not verified"), 12),
    ((554, "", "rejected by DCC"), 10),
    ((552, "", "Your received: header counts exceeds the maximum"), 3),
    ((550, "", "RCPT address has non-existant domain b.example"), 3),
    ((451, "4.5.0", "Temporary MTA failure on relaying"), 8),
    ((550, "", "This message does not comply with required standards"), 15),
    ((550, "5.2.1", "Mailbox unavailable. It does not accept mails from this sender"), 13),
    ((550, "5.7.1", "Unconfigured Sending Domain <app.b.example>"), 12),
    ((550, "5.7.1", "Recipient address rejected: see http://www.openspf.org/Why?s=mfrom"), 12),
    ((554, "", "SPAM or junk mail threshold exceeded"), 10),
    # Whole families, each by a wording that no rule was written from.
    ((550, "", "user unknown or over quota"), 1),
    ((552, "", "This mail is larger than the space left to the user"), 4),
    ((451, "4.7.1", "Throttling quota exceeded"), 5),
    ((550, "", "Postmaster verification failed while checking <a@b.example>: User unknown"), 12),
    ((451, "4.4.3", "Could not verify the recipient at this time"), 8),
    ((451, "", "Unable to scan for viruses"), 8),
    ((550, "", "Your newsletter was rejected as bulk"), 10),
    ((552, "", "We take no encrypted zip files"), 10),
    ((550, "", "denied due to spamming"), 11),
    ((550, "", "recipient is on the blocklist"), 13),
    ((550, "", "Local senders only"), 13),
    ((553, "5.7.1", "<a@b.example>: Sender address rejected: not owned by user"), 13),
    ((550, "", "null senders are not accepted by this list"), 13),
    ((550, "", "Destination domain was not found in DNS"), 3),
    ((554, "", "forwarded more often than the maximum"), 3),
    ((501, "", "<a>: mailbox address must include a domain"), 1),
    ((550, "", "We don't have any such user"), 1),
    ((550, "", "username is not known"), 1),
    ((553, "", "not in my table of valid users"), 1),
    ((550, "", "a is not an active mailbox here"), 2),
    ((552, "", "A header line is too long"), 15),
    ((550, "", "message does not conform to the standard"), 15),
    ((421, "", "session was open too long"), 7),
    ((550, "5.7.1", "no matching TLSA record"), 14),
    # Words too general to stand against a code that says more.
    ((543, "", "reject by mta-1"), 13),
    ((550, "5.2.1", "reject by mta-1"), 2),
    ((550, "", "The account cannot take part any more"), 1),
    ((550, "", "suspicious"), 13),
    ((550, "", "This alias is not known"), 1),
    ((550, "", "the domain cannot be used here"), 3),
    ((550, "", "at 100 % of capacity"), 4),
    ((550, "", "more than the limit"), 5),
    ((550, "", "The line hung up on us"), 7),
    ((550, "", "a problem of stage two"), 8),
    ((550, "", "you may be an impersonator"), 12),
    ((550, "", "what a strange character"), 15),
    ((554, "", "Transaction failed"), 17),
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
    assert why_of(event)[0] == Category(category)


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
    assert why_of(failure(**detail))[0] == category


def test_unknown_or_full_is_full_while_it_is_tried_again() -> None:
    event = failure(EventKind.DEFERRED, code=450, message="user unknown or mailbox full")
    assert why_of(event)[:2] == (Category.MAILBOX_FULL, BounceClass.SOFT)


@pytest.mark.parametrize("kind", [kind for kind in EventKind if kind not in FAILURES])
def test_only_failures_have_a_category(kind: EventKind) -> None:
    event = failure(kind, code=550, message="no such user")
    assert why_of(event)[:2] == (Category.NONE, BounceClass.NONE)


def test_a_suppressed_one_is_suppressed_whatever_its_words() -> None:
    event = failure(EventKind.SUPPRESSED, code=605, message="no such user")
    assert why_of(event)[:2] == (Category.SUPPRESSED, BounceClass.SUPPRESSED)


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
    assert why_of(failure(kind, **detail))[1] == bounce_class


def test_every_category_has_a_class() -> None:
    assert class_of(Category.NONE) is BounceClass.NONE
    assert {class_of(category) for category in Category} == set(BounceClass)


def test_long_texts_are_quick() -> None:
    event = failure(message="user account mailbox address " * 70, description="a" * 2000)
    assert why_of(event)[0] == Category.UNCLASSIFIED


def why(text: str = "", kind: EventKind = EventKind.BOUNCED, **detail: Any) -> Classification:
    return classify_failure(kind, Detail(message=text, **detail), "")


def test_only_failures_are_classified() -> None:
    assert why("550 no such user", EventKind.DELIVERED) == Classification()
    assert Classification().category is Category.NONE


@pytest.mark.parametrize(
    ("text", "scope", "fix_by"),
    [
        ("550 5.1.1 User unknown", "recipient", "client_list"),
        ("550 5.1.2 Host unknown", "recipient_domain", "client_list"),
        ("550 Relay access denied", "recipient_domain", "receiver"),
        ("550 5.7.1 Not sent (S3150)", "ip_pool", "highlevel"),
        ("550 very low reputation of the sending domain", "sending_domain", "client_list"),
        ("550 5.7.26 DMARC failed", "sending_domain", "client_dns"),
        ("550 5.7.25 no PTR record", "ip_pool", "highlevel"),
        ("554 Spam detected", "content", "content"),
        ("552 Message too large", "message", "content"),
        ("550 Envelope blocked - User Entry", "receiver", "client_list"),
        ("550 5.7.133 no", "receiver", "receiver"),
        ("552 Mailbox full", "recipient", "wait"),
        ("550 no", "", ""),
    ],
)
def test_whom_to_call(text: str, scope: str, fix_by: str) -> None:
    found = why(text)
    assert (found.scope, found.fix_by) == (scope, fix_by)


@pytest.mark.parametrize(
    ("text", "reason", "counted"),
    [
        ("550 Your IP is blacklisted", "bounce", 2),
        ("554 Spam detected", "bounce", 2),
        ("550 DMARC failed", "bounce", 2),
        ("550 User unknown", "espblock", 2),
        ("550 no", "espblock", 2),
        ("550 Administrative prohibition", "bounce", 1),
        ("550 Envelope blocked - User Entry", "espblock", 1),
        ("550 5.7.1 a1-2b - gcdp", "bounce", 1),
        ("550 User unknown", "bounce", 0),
        ("421 Too many connections", "generic", 0),
        ("554 blocked using zen.spamhaus.org; Error: open resolver", "bounce", 0),
    ],
)
def test_how_highlevel_may_count_it(text: str, reason: str, counted: int) -> None:
    assert why(text, reason=reason).hl == counted


def test_retries_used_up_keep_the_last_replys_category() -> None:
    found = why("452 4.2.2 Mailbox full", reason="old", code=602)
    assert (found.category, found.expired) == (Category.MAILBOX_FULL, True)
    assert why("", reason="old").category is Category.CONNECTION
    assert why("", code=602).expired
    assert not why("452 4.2.2 Mailbox full").expired


@pytest.mark.parametrize(
    ("text", "kind", "bounce_class"),
    [
        ("550 NXDOMAIN", EventKind.BOUNCED, BounceClass.HARD),
        ("550 5.1.10 Recipient address has null MX", EventKind.BOUNCED, BounceClass.HARD),
        ("450 4.4.3 Host not found", EventKind.DEFERRED, BounceClass.SOFT),
        ("450 NXDOMAIN", EventKind.DEFERRED, BounceClass.SOFT),
        ("554 5.4.6 Too many hops", EventKind.BOUNCED, BounceClass.SOFT),
        ("550 STARTTLS required", EventKind.BOUNCED, BounceClass.SOFT),
        ("503 Bad sequence of commands", EventKind.BOUNCED, BounceClass.SOFT),
    ],
)
def test_class_of_a_reply(text: str, kind: EventKind, bounce_class: BounceClass) -> None:
    assert why(text, kind).bounce_class is bounce_class


@pytest.mark.parametrize(
    ("kind", "rule"), [(EventKind.DEFERRED, "espblock-temporary"), (EventKind.BOUNCED, "espblock")]
)
def test_a_block_that_says_nothing(kind: EventKind, rule: str) -> None:
    found = why("no", kind, reason="espblock")
    assert found.rule == rule
    assert found.category is (
        Category.RATE_LIMITED if kind is EventKind.DEFERRED else Category.REPUTATION_BLOCK
    )


@pytest.mark.parametrize(
    ("code", "rule"),
    [
        (605, "suppressed-605"),
        (625, "suppressed-625"),
        (550, "suppressed-0"),
        (None, "suppressed-0"),
    ],
)
def test_suppressed_mail_names_the_reason(code: int | None, rule: str) -> None:
    found = why("no such user", EventKind.SUPPRESSED, code=code)
    assert (found.category, found.rule) == (Category.SUPPRESSED, rule)


def test_codes_are_read_from_the_text_where_the_payload_has_none() -> None:
    assert why("550 5.2.1 no").rule == "enhanced-2.1"
    assert why("550 5.2.1 no", enhanced="5.7.13").rule == "enhanced-7.13"
    assert why("421 no").rule == "basic-421"
    assert why("no").rule == "unclassified"


def test_the_description_counts_too() -> None:
    assert why("550 no", description="mailbox full").category is Category.MAILBOX_FULL


def test_the_provider_decides_where_a_code_has_two_meanings() -> None:
    detail = Detail(code=550, enhanced="5.1.10")
    microsoft = classify_failure(EventKind.BOUNCED, detail, "Outlook 365")
    assert microsoft.rule == "ms-no-recipient-code"
    assert classify_failure(EventKind.BOUNCED, detail, "").rule == "domain-gone-code"
    detail = Detail(code=421, enhanced="4.7.30")
    gmail = classify_failure(EventKind.DEFERRED, detail, "Gmail")
    assert gmail.category is Category.AUTHENTICATION
    other = classify_failure(EventKind.DEFERRED, detail, "Other")
    assert other.category is Category.TLS


def test_the_same_reply_to_others_is_the_same() -> None:
    one = why("550 5.1.1 <ana@a.example>: User unknown in table [mx1.a.example]")
    other = why("550-5.1.1 <bob@b.example>: User\n550 5.1.1 unknown in table [mx7.b.example]")
    assert one == other


@given(st.text(max_size=300), st.sampled_from(list(EventKind)), st.integers(200, 699))
def test_any_reply_has_an_answer(text: str, kind: EventKind, code: int) -> None:
    found = why(text, kind, code=code)
    assert (found.category is Category.NONE) is (kind not in FAILURES)
    assert found.category is Category.NONE or BUILT_IN.explain(found.rule).means
