"""Random lives of mail, written by the recorder: for tests that compare whole tables."""

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Any

from ingest import record
from ingest.ids import ids
from ingest.normalize import NormalizedEvent
from ingest.vocabulary import EventKind
from tests.ingest.events import START, event

HOUR = 3_600
DAY = 24 * HOUR
BEGAN = datetime.fromtimestamp(START / 1_000_000, UTC)
KINDS = [kind.word for kind in EventKind]
REPLIES = (
    {"code": 550, "enhanced": "5.1.1", "message": "no such user"},
    {"code": 552, "enhanced": "5.2.2", "message": "mailbox full"},
    {"code": 550, "enhanced": "5.7.1", "message": "blocked using a block list"},
    {"code": 421, "enhanced": "4.7.0", "message": "try again later"},
    {"code": 451, "enhanced": "4.7.1", "message": "greylisted"},
    {"code": 605, "message": "Not delivering to previously bounced address"},
    {"code": 500, "message": "?"},
)


def lives(number: int = 160, *, seed: int = 7, days: int = 5) -> list[NormalizedEvent]:
    """Events of so many messages over some days, in no order: 3 locations, few of all else."""
    chance = random.Random(seed)
    made = [event for n in range(number) for event in _life(chance, n, days)]
    chance.shuffle(made)
    return made


def _life(chance: random.Random, number: int, days: int) -> list[NormalizedEvent]:
    # Some in one hour, some on both sides of midnight in Kolkata, most anywhere.
    at = chance.choice([0, 4.1 * HOUR, 4.4 * HOUR, *[chance.uniform(0, days * DAY)] * 4])
    kinds = ["accepted", "delivered", "deferred", "deferred", "bounced", *KINDS]
    of = _message(chance, number)
    made = []
    for step in range(chance.randrange(1, 6)):
        at += chance.choice([90, 90, 3 * HOUR, DAY])
        way = {"ip": chance.choice(["192.0.2.1", "192.0.2.2", ""]), "pool": chance.choice("pq")}
        detail = {**chance.choice(REPLIES), **way, "mx": chance.choice(["mx1", "mx2"])}
        key = key_of(at - step, f"{number}.{step}")
        made.append(event(chance.choice(kinds), at - step, key=key, detail=detail, **of))
    return made


def key_of(at: float, name: str) -> bytes:
    """A key as the provider's events have it: it begins with the hour."""
    hour = int(START / 1_000_000 + at) // HOUR
    return hour.to_bytes(4) + blake2b(name.encode(), digest_size=12).digest()


def _message(chance: random.Random, number: int) -> dict[str, Any]:
    where = chance.choice(["a", "b", "c"])
    of: dict[str, Any] = {
        "location_ref": where,
        "company_ref": "" if where == "c" else "acme",
        "message_id": f"m{number}",
        "recipient": chance.choice(["jane@example.org", "bob@example.com"]),
        "tags": frozenset(chance.sample(["t1", "t2", "t3"], chance.randrange(4))),
        "provider": chance.choice(["Gmail", "Outlook", "Yahoo", ""]),
        "sending_domain": chance.choice(["mg.example.com", ""]),
        "test": chance.random() < 0.05,
    }
    if campaign := chance.choice(["", "workflow:w1", "bulk:w2"]):
        of |= {"campaign": campaign, "campaign_rank": 2, "step": chance.choice(["", "s1", "s2"])}
    return of


def write(events: Sequence[NormalizedEvent], *, after: timedelta = timedelta(days=30)) -> None:
    """Let the recorder store events, received so long after the first could happen."""
    forget()
    received = START + after // timedelta(microseconds=1)
    items = [record.Item(result=life, body=b"{}", received_at=received) for life in events]
    record.write_batch(items, now=received)
    forget()


def forget() -> None:
    """Let the recorder know nothing of what another test had stored."""
    ids.clear()
