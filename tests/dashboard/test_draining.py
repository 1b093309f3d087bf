"""Is a refusal going on: steps of time, where they lead, and the mail that was put off."""

from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl

import pytest

from dashboard.draining import Direction, direction, passed, steps_of
from dashboard.filters import Filter, parse
from dashboard.spans import hour_of

NOW = datetime(2026, 11, 22, 10, 30, tzinfo=UTC)
HOUR = timedelta(hours=1)


def asked(query: str) -> Filter:
    return parse(parse_qsl(query), now=NOW)


@pytest.mark.parametrize(
    ("query", "length", "many"),
    [
        ("range=24h", HOUR, 25),
        ("range=7d", 6 * HOUR, 30),
        ("range=30d", 24 * HOUR, 31),
        ("range=90d", 7 * 24 * HOUR, 13),
        ("from=2026-11-22T09:10Z&to=2026-11-22T09:20Z", HOUR, 1),
    ],
)
def test_a_time_is_few_equal_steps(query: str, length: timedelta, many: int) -> None:
    steps = steps_of(asked(query), most=48)
    assert steps.length == length
    assert many - 1 <= steps.many <= many + 1
    start, end = asked(query).start, asked(query).end
    assert start
    assert end
    assert steps.first <= start
    assert end <= steps.end


def test_days_begin_at_midnight_of_the_zone() -> None:
    steps = steps_of(asked("range=30d&tz=America/Chicago"), most=48)
    assert {start.hour for start in steps.starts[-5:]} == {6}


def test_without_a_beginning_it_begins_with_the_first_refusal() -> None:
    to = asked("to=2026-11-22T10:00Z")
    assert steps_of(to, most=48).many == 1
    assert steps_of(to, most=48, earliest=NOW - 5 * HOUR).many == 6


def test_every_hour_counts_in_one_step() -> None:
    steps = steps_of(asked("range=7d"), most=48)
    hours = {hour_of(NOW) - n: 1 for n in range(7 * 24)} | {hour_of(NOW) + 1: 5}
    assert sum(steps.gathered(hours)) == 7 * 24 + 5


@pytest.mark.parametrize(
    ("counts", "told"),
    [
        ([20] * 24, Direction.STEADY),
        ([20] * 21 + [90] * 3, Direction.RISING),
        ([60] * 21 + [4] * 3, Direction.FALLING),
        ([60] * 21 + [0] * 3, Direction.STOPPED),
        ([10] * 21 + [0] * 3, Direction.STOPPED),
        ([10] * 21 + [1] * 3, Direction.STEADY),
        ([20] * 21 + [30] * 3, Direction.STEADY),
        ([0] * 23 + [9], Direction.UNTOLD),
        ([0] * 24, Direction.UNTOLD),
        ([1, 0, 0, 0, 1], Direction.UNTOLD),
        ([50, 50, 50], Direction.UNTOLD),
    ],
)
def test_the_newest_steps_are_compared_with_those_before(counts: list[int], told: str) -> None:
    assert direction(counts) == told


def test_a_step_that_has_just_begun_is_no_fall() -> None:
    assert direction([60] * 23 + [0], running=0.0) is Direction.STEADY
    steps = steps_of(asked("range=24h"), most=48)
    assert passed(steps, NOW) == 0.5
