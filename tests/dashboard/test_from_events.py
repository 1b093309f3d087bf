"""Rates by the events' own clock: counters of events, and events, say the same."""

from collections import Counter, defaultdict
from datetime import UTC, datetime
from itertools import product
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from dashboard import rate_tables
from dashboard.access import Rights
from dashboard.filters import Filter, FilterError, parse
from dashboard.from_events import count_events
from dashboard.rates import Counts
from dashboard.tallies import BY, Question
from ingest.models import Event
from ingest.vocabulary import EventKind
from tests.dashboard import lives

pytestmark = pytest.mark.django_db
EVERYTHING = Rights(everything=True)
END = datetime(2026, 9, 28, 14, 20, tzinfo=UTC)
FILTERS = (
    "", "location=a", "location=-a", "company=acme", "provider=Gmail", "provider=-Gmail",
    "provider=Gmail&location=b",
)  # fmt: skip
TIMES = (
    "", "range=24h", "range=7d&tz=Asia/Kolkata", "tz=Asia/Kathmandu",
    "from=2026-09-21T14:13:20.000001Z&to=2026-09-24T09:41Z",
)  # fmt: skip


@pytest.fixture
def mail() -> None:
    lives.write(lives.lives())


def asked(query: str) -> Filter:
    params = [tuple(p.split("=", 1)) for p in f"clock=event&{query}".split("&") if p]
    return parse(params, now=END)  # type: ignore[arg-type]


def table(query: str, by: str) -> rate_tables.RatesTable:
    return rate_tables.rates(asked(query), EVERYTHING, by=by, limit=1_000, now=END)


def kinds(filter: Filter) -> Counter[EventKind]:
    """Events of each kind that were in the bounds, one after the other."""
    return Counter(
        EventKind(event.kind)
        for event in Event.objects.filter(filter.event_bounds())
        if not event.is_test
    )


@pytest.mark.parametrize("times", TIMES)
def test_counts_are_of_the_events_in_the_time(mail: None, times: str) -> None:
    found, by_kind = table(times, "location").total, kinds(asked(times))
    assert found.delivered == by_kind[EventKind.DELIVERED]
    assert found.bounced == by_kind[EventKind.BOUNCED]
    assert found.bounced == found.hard + found.soft + found.block + found.undetermined
    assert found.sent == found.settled == found.delivered + found.bounced
    assert (found.in_flight, found.reached) == (0, found.delivered)
    for kind in ("deferred", "complained", "opened", "clicked", "unsubscribed", "suppressed"):
        assert getattr(found, kind) == by_kind[EventKind[kind.upper()]], kind
    assert found.visible_reached <= found.reached
    assert found.visible_complained <= found.complained


@pytest.mark.parametrize("by", ["location", "company", "provider", "hour", "day"])
def test_counters_and_events_say_the_same(mail: None, by: str) -> None:
    for query, times in product(FILTERS, TIMES):
        question = Question(asked(f"{query}&{times}"), EVERYTHING, by)
        fast, _ = count_events(question)
        slow, _ = count_events(question, counters=False)
        assert fast.total == slow.total, (query, times)
        assert named(question, fast) == named(question, slow), (query, times)


def named(question: Question, tally: Any) -> dict[str, Counts]:
    return {row.key: row.counts for row in rate_tables.named_rows(question, tally)}


@pytest.mark.parametrize("by", BY)
def test_events_can_be_counted_by_everything(mail: None, by: str) -> None:
    for query in ("", "tag=t1", "campaign=w1&outcome=bounced", "class=hard", "code=550&tag=-t2"):
        found = table(query, by)
        assert found.as_json()["clock"] == "event"
        of_rows = sum(row.counts.sent for row in found.rows)
        assert of_rows == found.total.sent or by in ("tag", "category")


def test_of_a_category_are_the_events_that_say_so(mail: None) -> None:
    expected: dict[str, int] = defaultdict(int)
    for event in Event.objects.filter(kind=EventKind.DEFERRED):
        if not event.is_test:
            expected[event.get_category_display().replace(" ", "_")] += 1
    found = {row.key: row.counts.deferred for row in table("", "category").rows}
    assert {key: n for key, n in found.items() if n} == expected


def test_whole_hours_come_from_the_counters_of_events(mail: None) -> None:
    with CaptureQueriesContext(connection) as made:
        table("range=24h&provider=Gmail", "hour")
    assert not any('FROM "ingest_event"' in query["sql"] for query in made)


@pytest.mark.parametrize("options", [{"sort": "risk"}, {"compare": "week"}, {"judge": True}])
def test_risks_and_comparisons_go_by_the_time_of_sending(options: dict[str, Any]) -> None:
    with pytest.raises(FilterError, match="leave out clock=event"):
        rate_tables.rates(asked(""), EVERYTHING, by="location", now=END, **options)
