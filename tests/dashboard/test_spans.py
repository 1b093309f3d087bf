"""Whole hours and what is left over; hours and days of zones that are not whole hours from UTC."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboard.spans import (
    EPOCH,
    HOUR,
    QUARTER,
    Hours,
    Quarter,
    clipped,
    hour_of,
    is_split,
    joined,
    key_of,
    moment_of,
    span_of,
    step_of,
    whole_hours,
)
from ingest.models import Delivery
from tests.dashboard import rows

ZONES = (
    "UTC", "America/Chicago", "Asia/Kolkata", "Asia/Kathmandu", "Australia/Lord_Howe",
    "America/St_Johns", "Pacific/Chatham", "America/Havana", "Africa/Cairo", "Asia/Beirut",
)  # fmt: skip
moments = st.datetimes(datetime(2016, 1, 1), datetime(2030, 1, 1)).map(
    lambda moment: moment.replace(tzinfo=UTC)
)
quarters = st.integers(46 * 365 * 96, 60 * 365 * 96)


@given(st.none() | moments, st.none() | moments)
def test_hours_and_edges_make_up_the_time_without_overlap(
    start: datetime | None, until: datetime | None
) -> None:
    if start and until and start > until:
        start, until = until, start
    hours, edges = whole_hours(start, until)
    assert all(a and b and a < b and b - a < 2 * HOUR for a, b in edges)
    length = sum(((b - a) for a, b in edges if a and b), timedelta())
    if hours is None:
        assert start is not None
        assert until is not None
        assert length == until - start
    elif hours.many is not None and start and until:
        assert length + hours.many * HOUR == until - start
        assert all(b <= moment_of(hours.first or 0) or a >= moment_of(hours.last or 0)
                   for a, b in edges if a and b)  # fmt: skip
    else:
        assert hours.first is None or hours.last is None


def test_whole_hours_need_no_edges() -> None:
    start = datetime(2026, 9, 21, 14, tzinfo=UTC)
    first = hour_of(start)
    assert whole_hours(start, start + 3 * HOUR) == (Hours(first, first + 3), [])
    assert whole_hours(start, start) == (None, [])
    assert whole_hours(start, None) == (Hours(first, None), [])
    assert whole_hours(None, None) == (Hours(None, None), [])
    within = start + timedelta(minutes=5), start + timedelta(minutes=9)
    assert whole_hours(*within) == (None, [within])


def test_hours_that_follow_each_other_are_one_span() -> None:
    assert joined([5, 3, 4, 9]) == [(moment_of(3), moment_of(6)), (moment_of(9), moment_of(10))]
    assert joined([]) == []


@pytest.mark.parametrize("zone", ZONES)
@given(quarter=quarters, by=st.sampled_from(["hour", "day"]))
def test_a_quarter_lies_in_the_span_of_its_key(zone: str, quarter: int, by: str) -> None:
    of = ZoneInfo(zone)
    key = key_of(quarter, by, of)
    start, until = span_of(key, by, of)
    assert start <= EPOCH + quarter * QUARTER < until
    for at in range((start - EPOCH) // QUARTER, (until - EPOCH) // QUARTER):
        assert key_of(at, by, of) == key
    assert until - start <= (timedelta(hours=2) if by == "hour" else timedelta(hours=25))


@pytest.mark.parametrize(
    ("zone", "by", "split"),
    [
        ("UTC", "hour", False),
        ("America/Chicago", "day", False),
        ("Asia/Kolkata", "hour", True),
        ("Asia/Kathmandu", "hour", True),
    ],
)
def test_zones_off_the_hour_split_hours(zone: str, by: str, split: bool) -> None:
    hours = range(494_000, 494_024)
    assert any(is_split(hour, by, ZoneInfo(zone)) for hour in hours) is split


def test_an_hour_that_comes_twice_has_two_keys() -> None:
    chicago = ZoneInfo("America/Chicago")
    fall = int(datetime(2026, 11, 1, 6, tzinfo=UTC).timestamp()) // 900
    keys = [key_of(fall + 4 * hour, "hour", chicago) for hour in (0, 1)]
    assert keys == ["2026-11-01T01:00:00-05:00", "2026-11-01T01:00:00-06:00"]


def test_a_day_of_a_changing_clock_has_23_or_25_hours() -> None:
    chicago = ZoneInfo("America/Chicago")
    lengths = [
        until - start
        for day in ("2026-03-08", "2026-03-09", "2026-11-01")
        for start, until in [span_of(day, "day", chicago)]
    ]
    assert lengths == [timedelta(hours=hours) for hours in (23, 24, 25)]


@given(quarters, st.integers(0, 90 * 96), st.sampled_from(ZONES), st.sampled_from(("hour", "day")))
def test_quarters_of_one_step_are_in_the_same_hour_or_day(
    first: int, ago: int, name: str, by: str
) -> None:
    zone, start = ZoneInfo(name), EPOCH + first * QUARTER
    step = step_of(by, zone, start, start + timedelta(days=90))
    begin = (first + ago) // step * step
    keys = {key_of(quarter, by, zone) for quarter in range(begin, begin + step)}
    assert len(keys) == 1


def test_steps_are_as_long_as_a_zone_allows() -> None:
    start, end = moment_of(498_000), moment_of(498_720)
    steps = {
        name: (
            step_of("hour", ZoneInfo(name), start, end),
            step_of("day", ZoneInfo(name), None, end),
        )
        for name in ("UTC", "America/Chicago", "Asia/Kolkata")
    }
    assert steps == {"UTC": (4, 96), "America/Chicago": (4, 1), "Asia/Kolkata": (1, 1)}


def test_spans_are_clipped_to_bounds() -> None:
    start, until = moment_of(10), moment_of(20)
    assert clipped((start, until), None, None) == (start, until)
    assert clipped((start, until), moment_of(12), moment_of(30)) == (moment_of(12), until)
    assert clipped((None, until), moment_of(12), moment_of(15)) == (moment_of(12), moment_of(15))


@pytest.mark.django_db
def test_a_moment_before_the_hour_is_still_that_hour() -> None:
    """SQLite's own clock knows milliseconds only, and would round them up into the next hour."""
    rows.delivery(sent_at=rows.NOW.replace(minute=59, second=59, microsecond=999_700))
    (quarter,) = Delivery.objects.values_list(Quarter("sent_at"), flat=True)
    assert quarter == hour_of(rows.NOW) * 4 + 3
    (hour,) = Delivery.objects.values_list(Quarter("sent_at", 4), flat=True)
    assert hour == hour_of(rows.NOW) * 4
    (day,) = Delivery.objects.values_list(Quarter("sent_at", 96), flat=True)
    assert day == hour_of(rows.NOW) // 24 * 96
