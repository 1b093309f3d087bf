"""Seconds to delivery: between which times, and what a part of a sample did not exceed."""

import pytest

from dashboard.pages.speed import quantile, seconds
from ingest.fold import Facts
from ingest.vocabulary import EventKind

SECOND = 1_000_000


def test_seconds_are_from_queued_to_the_receiving_server() -> None:
    first = {EventKind.ACCEPTED: 10 * SECOND, EventKind.DELIVERED: 14 * SECOND}
    assert seconds(Facts(first={int(kind): at for kind, at in first.items()})) == 4.0


@pytest.mark.parametrize(
    "first",
    [
        {},
        {EventKind.ACCEPTED: 5},
        {EventKind.DELIVERED: 5},
        {EventKind.ACCEPTED: 9, EventKind.DELIVERED: 5},
    ],
)
def test_what_does_not_say_both_times_has_none(first: dict[int, int]) -> None:
    assert seconds(Facts(first=first)) is None


def test_a_quantile_is_one_of_the_values() -> None:
    assert quantile([], 0.5) is None
    assert quantile([3.0], 0.95) == 3.0
    assert quantile([float(n) for n in range(100)], 0.95) == 95.0
