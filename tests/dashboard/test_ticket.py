"""The text for a postmaster ticket: everything that is asked for, and nobody's address."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest

from dashboard.masking import hidden
from dashboard.ticket import Reply, Ticket, ticket_text

AT = datetime(2026, 11, 22, 10, 14, 7, 900_000, tzinfo=UTC)
REPLY = Reply(
    at=AT,
    said="550 5.7.1 <jane.doe@outlook.com>: [203.0.113.5] is on our\r\nblock list (S3150)",
    recipient="jane.doe@outlook.com",
    ip="203.0.113.5",
    pool="shared-b",
    mx="mx.outlook.com",
    message_id="m1@mg.example.com",
)
TICKET = Ticket(
    provider="Outlook",
    reason="550 5.7.1 ‹ip› is on our block list (s3150)",
    permanent=180,
    temporary=32,
    start=AT - timedelta(hours=1),
    end=AT + timedelta(hours=4),
    first_at=AT,
    last_at=AT + timedelta(hours=3),
    attempts=12_310,
    locations=37,
    ips=[("203.0.113.5", 200), ("203.0.113.6", 12)],
    pools=[("shared-b", 212)],
    sending_domains=[("mg.example.com", 212)],
    tried=["Sent from 2 IPs, all of them refused."],
    replies=[REPLY],
)


def test_it_has_everything_that_a_postmaster_asks_for() -> None:
    text = ticket_text(TICKET)
    for told in (
        "Outlook refuses our mail: 212 refusals since 2026-11-22 10:14:07 UTC",
        "Reply: 550 5.7.1 ‹ip› is on our block list (s3150)",
        "First seen: 2026-11-22 10:14:07 UTC",
        "Last seen: 2026-11-22 13:14:07 UTC",
        "Volume: 180 permanent, 32 temporary, from 2026-11-22 09:14:07 UTC until",
        "Share: 1.7 % of 12,310 attempts at Outlook",
        "Sending IPs: 203.0.113.5 (200), 203.0.113.6 (12)",
        "IP pools: shared-b (212)",
        "Sending domains: mg.example.com (212)",
        "Senders: 37 of our customers",
        "- Sent from 2 IPs, all of them refused.",
        "1. 2026-11-22 10:14:07 UTC from 203.0.113.5 (pool shared-b) to mx.outlook.com",
        "Message-ID: <m1@mg.example.com>",
    ):
        assert told in text


def test_recipients_are_masked_wherever_they_stand() -> None:
    text = ticket_text(TICKET)
    assert "jane.doe" not in text
    assert "Recipient: j•••@outlook.com" in text
    assert "Reply (permanent): 550 5.7.1 <j•••@outlook.com>: [203.0.113.5] is on our block" in text


@pytest.mark.parametrize(
    "said",
    ["to=jane@x.org", "<jane@x.org>", "'jane@x.org'", "mailto:jane@x.org;", "JANE@X.ORG not found"],
)
def test_no_wording_hides_an_address_from_the_mask(said: str) -> None:
    assert "jane@" not in hidden(said).lower()


def test_what_servers_say_starts_no_line_of_its_own() -> None:
    hostile = replace(REPLY, said="550 no\nSubject: pay here\r\n\r\n2. all is well")
    lines = ticket_text(replace(TICKET, replies=[hostile])).splitlines()
    assert not any(line.startswith(("Subject: pay", "2. all")) for line in lines)


def test_times_are_utc_whatever_zone_they_come_in() -> None:
    chicago = AT.astimezone(timezone(timedelta(hours=-6)))
    assert "First seen: 2026-11-22 10:14:07 UTC" in ticket_text(replace(TICKET, first_at=chicago))


def test_an_hour_is_not_printed_as_a_second() -> None:
    hour = AT.replace(minute=0, second=0)
    text = ticket_text(replace(TICKET, first_at=hour, first_exact=False))
    assert "First seen: in the hour from 2026-11-22 10:00 UTC" in text


def test_what_is_not_known_is_left_out() -> None:
    bare = Ticket("", "450 later", 0, 1, None, AT, AT, AT)
    text = ticket_text(bare)
    assert "The receiving server refuses our mail: 1 refusal since" in text
    for name in ("Share:", "Sending IPs:", "IP pools:", "Senders:", "Tried", "replies"):
        assert name not in text


def test_a_long_list_says_how_much_more_there_is() -> None:
    ips = [(f"203.0.113.{n}", 20 - n) for n in range(11)]
    assert "203.0.113.7 (13) and 3 more" in ticket_text(replace(TICKET, ips=ips))
