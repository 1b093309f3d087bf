"""An earlier period counts what it had counted then: at the age that the asked one has now."""

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dashboard import comparison, rate_tables
from dashboard.access import Rights
from dashboard.comparison import as_of
from dashboard.filters import Filter, FilterError, parse
from dashboard.rates import Counts
from dashboard.tallies import BY
from ingest.fold import Facts, absorb, judge
from ingest.normalize import NormalizedEvent
from ingest.vocabulary import EventKind, Flag, Outcome
from tests.dashboard import lives
from tests.ingest.events import SECOND, START, event

EVERYTHING = Rights(everything=True)
THEN = datetime(2026, 9, 23, 14, 20, tzinfo=UTC)
KINDS = ("accepted", "delivered", "delivered", "deferred", "bounced", "complained", "opened")
FILTERS = (
    "", "location=a", "tag=t1", "campaign=w1&provider=Gmail", "tag=-t1", "outcome=delivered",
    "is=complained", "class=hard",
)  # fmt: skip


def asked(query: str, now: datetime = THEN) -> Filter:
    return parse([tuple(p.split("=", 1)) for p in query.split("&") if p], now=now)  # type: ignore[misc]


def history(seed: int) -> list[NormalizedEvent]:
    """Lives whose events agree on everything but what happened, and bounce at most once."""
    chance = random.Random(seed)
    made = []
    for number in range(120):
        of = {
            "location_ref": chance.choice("abc"),
            "message_id": f"m{number}",
            "tags": frozenset(chance.sample(["t1", "t2"], chance.randrange(3))),
            "provider": chance.choice(["Gmail", "Yahoo"]),
            "campaign": chance.choice(["workflow:w1", "bulk:w2"]),
            "campaign_rank": 2,
            "detail": {**chance.choice(lives.REPLIES), "pool": chance.choice("pq")},
        }
        at = chance.uniform(0, 7 * lives.DAY)
        kinds = [chance.choice(KINDS[:5]), *chance.sample(KINDS, chance.randrange(4))]
        for kind in kinds if kinds.count("bounced") < 2 else kinds[:1]:
            made.append(event(kind, at, **of))
            at += chance.choice([60, lives.HOUR, lives.DAY, 3 * lives.DAY])
    return made


def happened(events: list[NormalizedEvent], until: datetime) -> list[NormalizedEvent]:
    return [e for e in events if e.occurred_at <= until.timestamp() * 1_000_000]


def table(query: str, by: str, now: datetime, **options: Any) -> rate_tables.RatesTable:
    filter = asked(query, now)
    return rate_tables.rates(filter, EVERYTHING, by=by, limit=1_000, now=now, **options)


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("range", "compare", "shift", "seed"),
    [
        ("24h", "previous", timedelta(days=1), 3),
        ("7d", "previous", timedelta(days=7), 11),
        ("24h", "week", timedelta(days=7), 12),
    ],
)
def test_the_past_counts_as_it_did_when_it_was_now(
    range: str, compare: str, shift: timedelta, seed: int
) -> None:
    events = history(seed)
    # Through which pool a mail went is known with its first attempt: that is as of today.
    bys = [by for by in BY if by not in ("hour", "day", "ip", "pool")]
    asked_for = [(f"{query}&range={range}", by) for query in FILTERS for by in bys]
    lives.write(happened(events, THEN))
    as_it_was = {one: table(*one, THEN) for one in asked_for}
    lives.write(events)
    for one in asked_for:
        found = table(*one, THEN + shift, compare=compare)
        assert found.compared is not None
        assert found.compared.is_exact
        assert found.whole.before == as_it_was[one].total, one
        rows = {row.key: row.before for row in found.rows}
        expected = {row.key: row.counts for row in as_it_was[one].rows}
        assert {key: expected.get(key, Counts()) for key in rows} == rows, one


@pytest.mark.django_db
def test_of_much_mail_bounces_and_complaints_count_as_they_did(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(comparison, "EXACT_MOST", 0)
    events = history(seed=5)
    lives.write(happened(events, THEN))
    as_it_was = table("range=24h", "location", THEN).total
    lives.write(events)
    found = table("range=24h", "location", THEN + timedelta(days=1), compare="previous")
    assert found.compared is not None
    assert not found.compared.is_exact
    assert found.whole.before is not None
    for name in ("bounced", "hard", "block", "complained", "late_bounced", "recovered"):
        assert getattr(found.whole.before, name) == getattr(as_it_was, name), name


@pytest.mark.django_db
def test_hours_and_days_are_compared_with_those_before() -> None:
    events = history(seed=4)
    lives.write(events)
    late = THEN + timedelta(days=7)
    for by in ("hour", "day"):
        query = "from=2026-09-22T00:30Z&to=2026-09-23T00:30Z&tz=Asia/Kolkata"
        found = table(query, by, late, compare="previous")
        before = {row.key: row.before for row in found.rows}
        assert all(counts is not None for counts in before.values())
        assert found.whole.before is not None
        assert sum(counts.sent for counts in before.values() if counts) <= found.whole.before.sent


@pytest.mark.django_db
def test_the_rest_is_compared_with_what_no_other_row_had() -> None:
    lives.write(history(seed=6))
    now = THEN + timedelta(days=2)
    whole = table("range=24h", "campaign", now, compare="previous")
    cut = rate_tables.rates(
        asked("range=24h", now), EVERYTHING, by="campaign", limit=1, compare="previous", now=now
    )
    assert [row.key for row in cut.rows][1:] == ["(rest)"]
    befores = [row.before.sent for row in cut.rows if row.before]
    assert sum(befores) == whole.whole.before.sent if whole.whole.before else 0


@pytest.mark.django_db
@pytest.mark.parametrize("query", ["", "from=2026-09-22", "to=2026-09-22"])
def test_a_comparison_needs_bounds(query: str) -> None:
    with pytest.raises(FilterError, match="compare needs a range"):
        table(query, "tag", THEN, compare="previous")


@pytest.mark.django_db
def test_a_comparison_with_anything_else_is_refused() -> None:
    with pytest.raises(FilterError, match="compare is one of"):
        table("range=24h", "tag", THEN, compare="christmas")


# --- Facts as they were ----------------------------------------------------------------------


def facts(*events: NormalizedEvent) -> Facts:
    found = Facts()
    for one in events:
        absorb(found, one)
    return found


def at(seconds: float) -> int:
    return START + int(seconds * SECOND)


def test_what_came_later_had_not_happened() -> None:
    known = facts(event("delivered", 10), event("complained", 500), event("bounced", 900))
    stood = [as_of(known, at(seconds)) for seconds in (0, 10, 600, 900)]
    assert stood[0] is None
    outcomes = [judge(found).outcome for found in stood[1:] if found]
    assert outcomes == [Outcome.DELIVERED, Outcome.DELIVERED, Outcome.BOUNCED]
    flags = [judge(found).flags for found in stood[1:] if found]
    assert [bool(flag & Flag.COMPLAINED) for flag in flags] == [False, True, True]
    assert [bool(flag & Flag.LATE) for flag in flags] == [False, False, True]


def test_all_of_the_past_is_what_is_known() -> None:
    known = facts(
        event("deferred", 1), event("bounced", 5, detail={"code": 550}), event("delivered", 9)
    )
    assert as_of(known, at(9)) == known


def test_a_refusal_of_later_tells_nothing_of_before() -> None:
    known = facts(event("deferred", 1), event("bounced", 5, detail={"code": 550}))
    then = as_of(known, at(2))
    assert then is not None
    assert then.failure is None
    assert judge(then).outcome is Outcome.DEFERRED


def test_of_several_bounces_the_last_one_tells_why() -> None:
    known = facts(event("bounced", 5, detail={"code": 550}), event("bounced", 50))
    then = as_of(known, at(6))
    assert then is not None
    assert then.failure == known.failure
    assert then.last_bounced == known.first[EventKind.BOUNCED]
