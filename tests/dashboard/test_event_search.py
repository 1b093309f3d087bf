"""What the database finds holds every event that matches, whichever way it looks for it."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qsl

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from dashboard import event_search
from dashboard.access import Rights
from dashboard.event_search import EventSearch, beginnings
from dashboard.filters import Filter, parse
from dashboard.queries import event_rows
from ingest.models import EventHour, Location
from ingest.normalize import Detail
from ingest.vocabulary import FLEET_LOCATION, Category, Dimension, EventKind, Flag, Outcome
from tests.dashboard import rows
from tests.dashboard.rows import NOW

pytestmark = pytest.mark.django_db
EVERYTHING = Rights(everything=True)
EVER = 2**40


def asked(query: str) -> Filter:
    return parse(parse_qsl(query), now=NOW)


def found(query: str, rights: Rights = EVERYTHING) -> list[int]:
    return EventSearch(asked(query), rights).cursors(0, EVER, 1_000)


@pytest.fixture
def stored() -> list[int]:
    """Events of several deliveries and of none; their cursors."""
    reason = rows.reason("slow down", category=Category.RATE_LIMITED)
    tried = [(Dimension.IP, "192.0.2.2")]
    one = rows.delivery(1, ip="192.0.2.1", tried=tried, tags=("a",), flags=Flag.DEFERRED, code=550)
    two = rows.delivery(2, location_ref="other", recipient="ann@one.example", campaign="c")
    old = rows.delivery(3, sent_at=NOW - timedelta(days=40), outcome=Outcome.BOUNCED)
    refused: dict[str, Any] = {
        "reason": reason,
        "category": Category.RATE_LIMITED,
        "code": 421,
        "bounce_class": 2,
    }
    made = [
        rows.event(one, kind=EventKind.DEFERRED, detail=Detail(ip="192.0.2.2"), **refused),
        rows.event(one, detail=Detail(ip="192.0.2.1")),
        rows.event(two),
        rows.event(old, kind=EventKind.BOUNCED, reason=rows.reason("no user")),
        rows.event(kind=EventKind.OPENED, detail=Detail(recipient="ann@one.example")),
        rows.event(old, kind=EventKind.COMPLAINED, occurred_at=NOW),
    ]
    # Its own time could not be read: its key tells nothing, and it happened when it came.
    made[1].key = bytes(4) + made[1].key[4:]
    made[1].save()
    return [event.pk for event in made]


QUERIES = (
    "", "tag=a", "tag=-a", "q=ann", "q=@one.example", "q=ann&tag=-a", "campaign=c", "ip=192.0.2.1",
    "ip=192.0.2.2", "ip=192.0.2.2&outcome=moved", "ip=-192.0.2.2", "outcome=bounced", "code=550",
    "range=1h", "range=24h&outcome=-bounced", "range=30d&clock=sent", "to=2026-11-22T10:00Z",
    "from=2026-11-22T10:30Z", "is=deferred", "location=loc", "location=-loc&q=ann",
    "company=(none)", "reason=R", "reason=R&ip=192.0.2.2", "reason=R&ip=192.0.2.1",
    "reason=R&class=soft&code=421",
    "reason=R&category=rate_limited&provider=(none)", "reason=R&outcome=delivered", "reason=-R",
    "reason=(none)", "reason=R&tag=b", "reason=-R&ip=192.0.2.1",
)  # fmt: skip


@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize("few", [0, 50_000])
def test_all_that_match_are_found(
    stored: list[int], query: str, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_search, "FEW_EVENTS", few - 1)
    monkeypatch.setattr(event_search, "FEW_DELIVERIES", few - 1)
    query = query.replace("R", str(rows.reason("slow down").pk))
    filter = asked(query)
    ids = filter.location_ids(EVERYTHING)
    everywhere = event_rows(after=0, limit=100)
    expected = [
        row.cursor
        for row in everywhere
        if filter.matches(row) and (ids is None or row.location_id in ids)
    ]
    assert set(expected) <= set(found(query))


def test_what_the_database_can_tell_is_not_left_to_us(stored: list[int]) -> None:
    assert found("outcome=bounced") == [stored[3], stored[4], stored[5]]  # one has no delivery
    assert found("range=1h&location=loc") == [stored[0], stored[1], stored[4], stored[5]]
    assert found(f"reason={rows.reason('no user').pk}") == [stored[3]]
    assert found("campaign=c&location=other") == [stored[2]]


def first(query: str) -> int | None:
    """How many events are looked through at first; ``None``: all."""
    return EventSearch(asked(query), EVERYTHING).first


def test_few_deliveries_are_looked_through_at_once(
    stored: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (first("q=ann"), first("tag=a")) == (None, None)
    assert (first(""), first("location=loc")) == (event_search.FIRST, event_search.FIRST)
    assert first("range=24h&clock=sent") == event_search.FIRST
    assert first("reason=5") == event_search.FIRST_OF_REASON
    monkeypatch.setattr(event_search, "FEW_DELIVERIES", 1)
    assert (first("tag=a"), first("tag=-a")) == (None, event_search.FIRST)


def test_little_time_is_looked_through_at_once(stored: list[int]) -> None:
    assert first("range=1h") is None
    hour = int(NOW.timestamp()) // 3600
    EventHour.objects.create(
        location_id=FLEET_LOCATION, hour=hour, provider_id=1, kind=2, events=10**6
    )
    assert first("range=1h") == event_search.FIRST
    assert first("from=2026-11-22T11:00Z") is None
    assert first("range=1h&location=loc") is None
    assert first("range=1h&clock=sent") == event_search.FIRST


@pytest.fixture
def fresh() -> Iterator[None]:
    """Nothing known of where stretches of time begin, before and after."""
    beginnings.clear()
    yield
    beginnings.clear()


def test_what_is_older_than_the_time_asked_for_is_passed_over(
    fresh: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_search, "STRETCH", 2)
    hours = [5, 4, 6, 2, 3, 1, 0]
    made = [
        rows.event(rows.delivery(n, sent_at=NOW - timedelta(hours=hour))).pk
        for n, hour in enumerate(hours)
    ]
    newest = made[-1]
    beginnings.learn(0, made[0] - 1)  # ids need not begin at 1
    for ago, first in ((7, 0), (5, 0), (4, 1), (3, 3), (2, 3), (1, 5), (0, 6)):
        assert beginnings.before(NOW - timedelta(hours=ago), newest) == made[first] - 1
    assert beginnings.before(NOW + timedelta(hours=2), newest) == newest


def test_where_a_time_begins_is_looked_up_once(
    fresh: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_search, "STRETCH", 2)
    old = NOW - timedelta(hours=9)
    made = [rows.event(rows.delivery(n, sent_at=old)).pk for n in range(8)]
    made.append(rows.event(rows.delivery(9)).pk)
    beginnings.learn(0, made[0] - 1)
    with CaptureQueriesContext(connection) as first:
        assert beginnings.before(NOW, made[-1]) == made[-2]
    with CaptureQueriesContext(connection) as again:
        assert beginnings.before(NOW, made[-1]) == made[-2]
    assert len(first) > len(again) == 1
    # Later events change nothing, and a later hour begins no earlier.
    newest = rows.event(rows.delivery(10, sent_at=NOW + timedelta(hours=1))).pk
    assert beginnings.before(NOW, newest) == made[-2]
    assert beginnings.before(NOW + timedelta(hours=1), newest) == newest - 1


def test_a_search_that_is_cut_short_goes_on_the_next_time(
    fresh: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_search, "SHORT_CUT", 0)
    monkeypatch.setattr(event_search, "STRETCH", 2)
    made = [rows.event(rows.delivery(n, sent_at=NOW - timedelta(hours=9))).pk for n in range(5)]
    start = made[0] - 1
    beginnings.learn(0, start)
    steps = [beginnings.before(NOW, made[-1]) - start for _ in range(4)]
    assert steps == [2, 4, 5, 5]


def test_only_what_may_be_seen_is_found(stored: list[int]) -> None:
    other = Rights(location_ids=frozenset({Location.objects.get(ref="other").pk}))
    for query in ("", "q=ann", "range=1h"):
        assert found(query, other) == [stored[2]]
    assert found("range=1h", Rights()) == []


def test_cursors_come_in_order_between_two_of_them(stored: list[int]) -> None:
    search = EventSearch(asked("q=ann"), EVERYTHING)
    assert search.cursors(0, EVER, 10) == [stored[2], stored[4]]
    assert search.cursors(0, EVER, 1) == [stored[2]]
    assert search.cursors(stored[2], EVER, 10) == [stored[4]]
    assert search.cursors(0, stored[3], 10) == [stored[2]]
