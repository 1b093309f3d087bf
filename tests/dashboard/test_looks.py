"""Since you last looked: what a visit is, and what has changed since the one before."""

from datetime import timedelta

import pytest
from django.contrib.auth.models import User

from dashboard import looks
from dashboard.access import Rights
from dashboard.looks import Since
from dashboard.models import Look
from dashboard.spans import hour_of
from ingest.models import LocationHour
from tests.dashboard import rows
from tests.dashboard.rows import NOW

pytestmark = pytest.mark.django_db
ALL = Rights(everything=True)
DAY = timedelta(days=1)


@pytest.fixture
def anna() -> int:
    return User.objects.create_user("anna").pk


def over(ref: str) -> int:
    """A location that HighLevel counts over."""
    pk = rows.location(ref).pk
    LocationHour.objects.create(
        location_id=pk, hour=hour_of(NOW) - 2, sent=900, bounced=90, hard=90
    )
    return pk


def test_the_first_visit_has_nothing_to_compare_with(anna: int) -> None:
    assert looks.since_last(anna, ALL, now=NOW) is None
    looks.note(anna, ALL, now=NOW)
    assert looks.since_last(anna, ALL, now=NOW) is None


def test_what_came_and_what_went_since_the_visit_before(anna: int) -> None:
    gone = over("gone")
    looks.note(anna, ALL, now=NOW - DAY / 24)
    LocationHour.objects.filter(location_id=gone).update(bounced=0, hard=0)
    over("new")
    assert looks.since_last(anna, ALL, now=NOW) == Since(NOW - DAY / 24, new=1, closed=1)


def test_a_visit_goes_on_while_one_looks_again_soon(anna: int) -> None:
    looks.note(anna, ALL, now=NOW - DAY / 24)
    over("new")
    for minutes in (0, 10, 25):
        now = NOW + timedelta(minutes=minutes)
        found = looks.since_last(anna, ALL, now=now)
        assert found == Since(NOW - DAY / 24, new=1, closed=0)
        looks.note(anna, ALL, now=now)
    assert Look.objects.get().before_at == NOW - DAY / 24


def test_it_is_written_once_a_minute(anna: int) -> None:
    looks.note(anna, ALL, now=NOW)
    looks.note(anna, ALL, now=NOW + timedelta(seconds=59))
    assert Look.objects.get().seen_at == NOW
    looks.note(anna, ALL, now=NOW + timedelta(seconds=60))
    assert Look.objects.get().seen_at == NOW + timedelta(seconds=60)


def test_only_what_one_may_see_is_compared(anna: int) -> None:
    mine, _ = over("mine"), over("other")
    looks.note(anna, ALL, now=NOW - DAY / 24)
    now_only = Rights(location_ids=frozenset({mine}))
    assert looks.since_last(anna, now_only, now=NOW) == Since(NOW - DAY / 24, new=0, closed=0)
