"""Retention: what is old goes in bounded steps, and nothing else."""

import pytest

from ingest.models import Location, MinuteCount
from ingest.retention import MINUTES_KEPT, STEP, prune_minutes

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
