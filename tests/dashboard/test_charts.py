"""The geometry of charts: what is high, what is low, and what is not drawn at all."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboard.charts import (
    HEIGHT,
    GaugeBand,
    Minute,
    Step,
    bars,
    ceiling,
    dots,
    gauge_band,
    minute_chart,
    step_chart,
)

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def hour(**counts: dict[int, int]) -> list[Minute]:
    """Sixty minutes up to 12:07, with counts by kind and index."""
    start = NOON + timedelta(minutes=8 - 60)
    return [
        Minute(start + timedelta(minutes=i), **{kind: n.get(i, 0) for kind, n in counts.items()})
        for i in range(60)
    ]


@pytest.mark.parametrize(
    ("highest", "top"),
    [(0, 2), (1, 2), (2, 2), (3, 4), (9, 10), (10, 10), (11, 20), (60, 60), (61, 80), (801, 1000)],
)
def test_an_axis_ends_at_a_round_even_number(highest: int, top: int) -> None:
    assert ceiling(highest) == top


@given(st.integers(0, 10**9))
def test_an_axis_holds_its_highest_value_and_wastes_less_than_half(highest: int) -> None:
    top = ceiling(highest)
    assert highest <= top
    assert top % 2 == 0
    assert top == 2 or top <= 2 * highest


def test_bars_stand_on_what_lies_beneath_them() -> None:
    assert bars([0, 2], [4, 2], top=4) == "M0.14 100V0h.72V100M1.14 50V0h.72V50"


def test_nothing_is_drawn_for_nothing() -> None:
    assert bars([0, 0], [0, 0], top=2) == ""
    assert dots([3, 3], [0, 0], top=4) == ""


def test_a_dot_sits_at_the_top_of_its_minute() -> None:
    assert dots([0, 3], [0, 1], top=4) == "M1.5 25h.001"


def test_failures_have_a_scale_of_their_own() -> None:
    chart = minute_chart(hour(delivered={5: 9_000}, bounced={5: 1}))
    assert chart.volume_scale == (10_000, 5_000, 0)
    assert chart.failure_scale == (2, 1, 0)
    assert f"V{HEIGHT // 2}h" in chart.bounced


def test_failures_are_stacked_and_complaints_are_dots_on_top() -> None:
    chart = minute_chart(hour(bounced={0: 1}, deferred={0: 2}, complained={0: 1}))
    assert chart.failure_top == 4
    assert chart.bounced == "M0.14 100V75h.72V100"
    assert chart.deferred == "M0.14 75V25h.72V75"
    assert chart.complained == "M0.5 0h.001"


def test_ticks_are_at_round_times_and_leave_room_for_now() -> None:
    ticks = minute_chart(hour()).ticks
    assert [tick.label for tick in ticks] == ["11:10", "11:20", "11:30", "11:40", "11:50", "12:00"]
    assert [tick.minor for tick in ticks] == [True, True, False, True, True, True]
    assert ticks[0].x == "3.33%"


def test_the_summary_tells_the_hour_in_words() -> None:
    chart = minute_chart(hour(delivered={1: 1_200, 2: 34}, complained={3: 2}))
    assert chart.summary == (
        "In the last 60 minutes: 1,234 delivered, 0 deferred, 0 bounced, 2 complained."
    )


# --- Steps -----------------------------------------------------------------------------------


def steps(count: int, **counts: dict[int, int]) -> list[Step]:
    """Hours from noon on, with counts by kind and index."""
    starts = [NOON + timedelta(hours=i) for i in range(count)]
    return [
        Step(at, at + timedelta(hours=1), **{kind: n.get(i, 0) for kind, n in counts.items()})
        for i, at in enumerate(starts)
    ]


def test_classes_are_stacked_on_a_scale_of_their_own() -> None:
    made = steps(2, sent={0: 900}, delivered={0: 880}, hard={0: 2}, block={0: 1}, soft={0: 1})
    chart = step_chart(made, [], hourly=True)
    assert (chart.volume_top, chart.failure_top) == (1000, 4)
    assert chart.hard == "M0.14 100V50h.72V100"
    assert chart.block == "M0.14 50V25h.72V50"
    assert chart.soft == "M0.14 25V0h.72V25"


def test_the_lines_stand_where_the_rates_are() -> None:
    chart = step_chart(steps(2), [], hourly=True)
    assert chart.rate_top == 0.06
    assert [(line.kind, line.y) for line in chart.lines] == [("stop", "16.67"), ("warn", "50")]
    high = [replace(step, low=0.05, high=0.15) for step in steps(1)]
    assert step_chart(high, [], hourly=True).rate_top == 0.2


def test_marks_that_would_lie_on_each_other_share_a_flag() -> None:
    marks = [(NOON + timedelta(hours=h), text) for h, text in ((1, "a"), (1.2, "b"), (30, "c"))]
    flags = step_chart(steps(48), marks, hourly=True).flags
    assert [(flag.label, flag.texts) for flag in flags] == [("1–2", ("a", "b")), ("3", ("c",))]
    assert flags[1].x == "62.5%"


def test_a_chart_of_nothing_draws_nothing() -> None:
    chart = step_chart([], [(NOON, "a")], hourly=False)
    assert (chart.delivered, chart.band, chart.ticks) == ("", "", [])


@pytest.mark.parametrize(
    ("low", "high", "drawn"),
    [
        (0.03, 0.045, GaugeBand("50%", "25%", beyond=False)),
        (0.0, 0.0, GaugeBand("0%", "1%", beyond=False)),
        (0.05, 0.2, GaugeBand("83.33%", "16.67%", beyond=True)),
        (0.5, 0.6, GaugeBand("99%", "1%", beyond=True)),
    ],
)
def test_a_band_is_seen_wherever_it_lies(low: float, high: float, drawn: GaugeBand) -> None:
    assert gauge_band(low, high) == drawn
