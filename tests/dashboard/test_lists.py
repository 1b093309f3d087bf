"""Every number of a table of rates has a list of deliveries behind it, exactly as long."""

from datetime import UTC, datetime

import pytest

from dashboard import conditions, rate_tables
from dashboard.access import Rights
from dashboard.filters import Filter, parse
from dashboard.lists import LISTED_BY, list_filter
from dashboard.rates import COUNTS, Counts
from dashboard.tallies import BY
from ingest.counted_values import decisions
from ingest.models import Delivery, Reason
from tests.dashboard import lives

EVERYTHING = Rights(everything=True)
END = datetime(2026, 9, 26, 14, 20, tzinfo=UTC)
FILTERS = (
    "",
    "range=7d&tz=Asia/Kolkata",
    "from=2026-09-21T14:13:20.000001Z&to=2026-09-24T09:41Z&tz=Australia/Lord_Howe",
    "location=a&step=-s1",
    "tag=t1&tag=t2",
    "tag=-t1&campaign=w1",
    "ip=192.0.2.1",
    "ip=-192.0.2.1&pool=p",
    "mx=mx1&mx=mx2&code=-550",
    "pool=q&class=hard",
    "pool=p&is=deferred",
    "category=invalid_recipient",
    "category=greylisted&provider=Gmail",
    "category=rate_limited&pool=q",
    "category=-mailbox_full&outcome=bounced&outcome=delivered",
    "is=-late&is=-deferred",
)


def asked(query: str) -> Filter:
    return parse([tuple(p.split("=", 1)) for p in query.split("&") if p], now=END)  # type: ignore[misc]


def listed(filter: Filter) -> int:
    return filter.apply(Delivery.objects.all()).count()


def check(filter: Filter, by: str) -> None:
    """Compare each cell of a table with the list behind it; the total in one table only."""
    table = rate_tables.rates(filter, EVERYTHING, by=by, limit=1_000, now=END)
    rows: list[tuple[str, Counts]] = [(row.key, row.counts) for row in table.rows]
    for key, counts in [*rows, *([("", table.total)] if by == "location" else [])]:
        for count in COUNTS:
            behind = list_filter(filter, by, key, count)
            where = filter.canonical(), key, count, behind and behind.canonical()
            if behind is not None:
                assert listed(behind) == getattr(counts, count), where
            elif not filter.values("is"):
                assert getattr(counts, count) == 0, where


def half(number: int, engine: str) -> slice:
    """Every second one; on the other engine the others: a cell takes its database milliseconds."""
    return slice((number + (engine == "postgresql")) % 2, None, 2)


@pytest.mark.django_db
@pytest.mark.parametrize("by", BY)
def test_every_cell_counts_what_its_list_holds(by: str, engine: str) -> None:
    lives.write(lives.lives(120))
    # There are many hours.
    for query in (FILTERS[::4] if by == "hour" else FILTERS)[half(BY.index(by), engine)]:
        check(asked(query), by)


@pytest.mark.django_db
@pytest.mark.parametrize("by", ["location", "category", "ip", "provider"])
def test_reasons_too_have_their_lists(by: str, engine: str) -> None:
    lives.write(lives.lives(80))
    reasons = list(Reason.objects.order_by("digest").values_list("pk", flat=True))
    assert len(reasons) > 3
    for reason in reasons[half(BY.index(by), engine)]:
        check(asked(f"reason={reason}"), by)
        check(asked(f"reason=-{reason}&pool=q"), by)


@pytest.mark.django_db
@pytest.mark.parametrize("by", ["campaign", "step", "tag", "ip", "provider"])
def test_what_shares_a_row_is_listed_by_it(monkeypatch: pytest.MonkeyPatch, by: str) -> None:
    monkeypatch.setattr(decisions, "limit", 1)
    monkeypatch.setattr(conditions, "MOST_VALUES", 1)
    lives.write(lives.lives(80))
    for query in ("location=a", "location=b&campaign=(other)", "location=b&tag=(other)&is=-late"):
        check(asked(query), by)


def test_every_count_has_a_list() -> None:
    assert LISTED_BY.keys() == set(COUNTS)


def test_the_rest_and_counts_of_events_have_none() -> None:
    assert list_filter(asked(""), "tag", "(rest)", "sent") is None
    assert list_filter(asked("clock=event"), "tag", "t1", "sent") is None


def test_a_list_narrows_what_was_asked() -> None:
    filter = asked("outcome=bounced&outcome=test&tag=t1&tag=t2&range=24h&tz=Asia/Kolkata")
    behind = list_filter(filter, "tag", "t1", "settled")
    assert behind is not None
    assert behind.canonical() == "outcome=bounced&tag=t1&range=24h&tz=Asia/Kolkata"
    assert list_filter(filter, "tag", "t1", "suppressed") is None
    of_a_day = list_filter(filter, "day", "2026-09-26", "bounced")
    assert of_a_day is not None
    assert of_a_day.canonical() == (
        "outcome=bounced&tag=t1&tag=t2"
        "&from=2026-09-25T18:30:00Z&to=2026-09-26T18:30:00Z&tz=Asia/Kolkata"
    )


def test_flags_are_any_of_their_words_so_two_cannot_be_asked_for() -> None:
    assert list_filter(asked("is=late"), "", "", "complained") is None
    same = list_filter(asked("is=late"), "", "", "late_bounced")
    assert same == asked("is=late")
