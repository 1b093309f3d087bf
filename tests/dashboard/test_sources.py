"""Which source answers, and since when its answer is whole."""

from datetime import UTC, datetime, timedelta

import pytest

from dashboard.access import Rights
from dashboard.filters import parse
from dashboard.sources import complete_from, count
from dashboard.spans import Span, hour_of
from dashboard.tallies import Question
from tests.dashboard import rows
from tests.dashboard.rows import NOW

pytestmark = pytest.mark.django_db
DAYS_FROM = datetime(2024, 6, 1, tzinfo=UTC)
KEPT_FROM = NOW - timedelta(days=3)


def question(query: str, by: str = "location") -> Question:
    params = [tuple(p.split("=", 1)) for p in query.split("&") if p]
    return Question(parse(params, now=NOW), Rights(everything=True), by)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("query", "by", "since"),
    [
        ("from=2024-01-01", "location", None),
        ("from=2024-01-01", "day", None),
        ("from=2024-01-01", "hour", DAYS_FROM),
        ("from=2024-01-01&tz=America/Chicago", "day", DAYS_FROM),
        ("from=2024-01-01T05:00Z", "provider", datetime(2024, 1, 2, tzinfo=UTC)),
        ("from=2024-07-01T05:00Z", "hour", None),
        ("", "location", None),
        ("", "hour", DAYS_FROM),
        ("range=90d", "hour", None),
    ],
)
def test_hours_that_are_kept_as_days_cannot_be_told_apart(
    query: str, by: str, since: datetime | None
) -> None:
    with rows.horizon(days_hour=hour_of(DAYS_FROM)):
        assert complete_from(question(query, by), []) == since


def test_without_a_horizon_everything_is_whole() -> None:
    with rows.horizon(days_hour=0):
        assert complete_from(question("", "hour"), [(None, None)]) is None


@pytest.mark.parametrize(
    ("needed", "is_whole"),
    [
        ([], True),
        ([(NOW - timedelta(days=1), None)], True),
        ([(NOW - timedelta(days=4), NOW)], False),
        ([(None, NOW)], False),
        ([(NOW - timedelta(days=1), None), (NOW - timedelta(days=4), NOW)], False),
    ],
)
def test_what_was_needed_and_is_gone_is_said(needed: list[Span], is_whole: bool) -> None:
    hour = hour_of(KEPT_FROM)
    with rows.horizon(deliveries_hour=hour, events_hour=hour + 5):
        found = complete_from(question("range=7d"), needed)
        of_events = complete_from(question("range=7d"), needed, of_events=True)
    assert (found is None) is (of_events is None) is is_whole
    if found and of_events:
        assert found == KEPT_FROM.replace(minute=0)
        assert of_events - found == timedelta(hours=5)


def test_edges_of_hours_are_counted_from_deliveries_beside_the_counters() -> None:
    for minutes in (1, 29, 31, 61, 119, 121):
        rows.delivery(minutes, sent_at=NOW.replace(minute=0) + timedelta(minutes=minutes))
    # No counters are kept by these rows: only what the two split hours hold is found.
    tally, needed = count(question("from=2026-11-22T10:30Z&to=2026-11-22T12:30Z"))
    start = datetime(2026, 11, 22, 10, 30, tzinfo=UTC)
    half = timedelta(minutes=30)
    assert needed == [(start, start + half), (start + 3 * half, start + 4 * half)]
    assert tally.total[0] == 2
    whole, needed = count(question("from=2026-11-22T10:30Z&to=2026-11-22T12:30Z"), counters=False)
    assert (needed, whole.total[0]) == ([(start, start + 4 * half)], 4)
