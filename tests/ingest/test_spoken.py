"""Recipients' names in replies: taken out of refusals, unless they are everybody's words."""

import pytest

from ingest.fingerprint import fingerprint
from ingest.fold import why_of
from ingest.normalize import Detail
from ingest.spoken import unnamed_fingerprint
from tests.ingest.events import event


def said(text: str, recipient: str) -> str:
    return unnamed_fingerprint(Detail(code=550, message=text), recipient)


@pytest.mark.parametrize(
    "text",
    [
        "5.1.1 {} is unknown",
        "User '{}' not found",
        "5.1.1 <{}@example.com>: no {} here",
        "{}: mailbox unavailable; ask {}.",
        "no mailbox here: {}",
    ],
)
def test_a_refusal_is_the_same_whomever_it_met(text: str) -> None:
    found = {
        said(text.replace("{}", name), f"{name.lower()}@example.com")
        for name in ("zebulon.q", "Max", "ana-maria")
    }
    assert len(found) == 1
    assert "max" not in found.pop()


@pytest.mark.parametrize(
    ("text", "recipient"),
    [
        ("user unknown", "user@example.com"),
        ("see https://support.google.com/mail", "support@example.com"),
        ("a mailbox is full", "a@example.com"),
        ("maximum size", "max@example.com"),
        ("no such user", ""),
        ("no such user", "odd"),
    ],
)
def test_what_is_said_of_everybody_is_no_name(text: str, recipient: str) -> None:
    assert said(text, recipient) == fingerprint(Detail(code=550, message=text))


def test_events_tell_their_recipient() -> None:
    mails = (("jane@example.org", "jane"), ("zoe@example.org", "zoe"))
    reasons = {
        why_of(event("bounced", recipient=to, detail={"code": 550, "message": f"no {name} here"}))
        for to, name in mails
    }
    assert len({why.reason for why in reasons}) == 1
