"""Retention: what is old goes in bounded steps, and nothing else."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest

from ingest.models import Horizon, Location, MinuteCount
from ingest.retention import HORIZON_AGE, MINUTES_KEPT, STEP, Kept, horizon, prune_minutes

NOW_MINUTE = 29_833_333
NOW = NOW_MINUTE * 60_000_000


def count(*ages: int) -> None:
    location = Location.objects.create(ref="loc")
    MinuteCount.objects.bulk_create(
        MinuteCount(location=location, minute=NOW_MINUTE - age, kind=2, events=1) for age in ages
    )


@pytest.mark.django_db
def test_minutes_are_kept_for_48_hours() -> None:
    count(0, MINUTES_KEPT - 1, MINUTES_KEPT, MINUTES_KEPT + 1)
    assert prune_minutes(now=NOW) == 2
    assert prune_minutes(now=NOW) == 0
    left = MinuteCount.objects.values_list("minute", flat=True)
    assert sorted(NOW_MINUTE - minute for minute in left) == [0, MINUTES_KEPT - 1]


@pytest.mark.django_db
def test_a_long_absence_is_caught_up_in_steps() -> None:
    count(*(MINUTES_KEPT + age for age in range(3 * STEP)))
    assert prune_minutes(now=NOW) == STEP + 1
    while prune_minutes(now=NOW):
        pass
    assert MinuteCount.objects.count() == 0


@pytest.fixture(autouse=True)
def _know_nothing() -> Iterator[None]:
    horizon.clear()
    yield
    horizon.clear()


@pytest.mark.django_db
def test_without_a_row_nothing_has_gone() -> None:
    assert horizon(NOW) == Kept(0, 0, 0, 0, 0)


@pytest.mark.django_db
def test_the_horizon_is_read_at_most_once_a_second(
    django_assert_num_queries: Callable[[int], AbstractContextManager[object]],
) -> None:
    assert horizon(NOW).deliveries_hour == 0
    Horizon.objects.create(deliveries_hour=7, events_cursor=6, events_hour=5, days_hour=4)
    with django_assert_num_queries(0):
        assert horizon(NOW + HORIZON_AGE - 1).deliveries_hour == 0
    with django_assert_num_queries(1):
        assert horizon(NOW + HORIZON_AGE) == Kept(7, 6, 5, 0, 4)
    with django_assert_num_queries(0):
        assert horizon(NOW + HORIZON_AGE + 1).events_cursor == 6


@pytest.mark.django_db
def test_a_clock_that_was_put_back_does_not_hold_the_horizon() -> None:
    assert horizon(NOW).deliveries_hour == 0
    Horizon.objects.create(deliveries_hour=7)
    assert horizon(NOW - 3_600_000_000).deliveries_hour == 7


@pytest.mark.django_db
def test_a_cleared_horizon_is_read_again() -> None:
    assert horizon(NOW).deliveries_hour == 0
    Horizon.objects.create(deliveries_hour=7)
    horizon.clear()
    assert horizon(NOW).deliveries_hour == 7
