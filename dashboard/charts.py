"""Geometry of the charts: numbers in, SVG paths and tick positions out. No Django, no markup.

Panels are drawn in a box as many units wide as there are minutes and ``HEIGHT`` high, stretched
to whatever width the page has; so nothing here knows pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

HEIGHT = 100
_GAP, _WIDTH = 0.14, ".72"  # of a minute: beside its bar on the left, and the bar
_STEPS = (2, 4, 6, 8, 10)


@dataclass(frozen=True, slots=True)
class Minute:
    """How many events of each kind happened in the minute that begins at ``at``."""

    at: datetime
    delivered: int = 0
    deferred: int = 0
    bounced: int = 0
    complained: int = 0


@dataclass(frozen=True, slots=True)
class Tick:
    """A time on the axis, at a percentage of the width."""

    label: str
    x: str
    minor: bool


@dataclass(frozen=True, slots=True)
class MinuteChart:
    """Everything that the template draws. Paths are in the box of ``width`` × ``HEIGHT``."""

    minutes: Sequence[Minute]
    width: int
    volume_top: int
    failure_top: int
    delivered: str
    bounced: str
    deferred: str
    complained: str
    ticks: list[Tick]
    summary: str

    @property
    def volume_scale(self) -> tuple[int, int, int]:
        """Labels of the volume axis, from the top down."""
        return self.volume_top, self.volume_top // 2, 0

    @property
    def failure_scale(self) -> tuple[int, int, int]:
        """Labels of the failure axis, from the top down."""
        return self.failure_top, self.failure_top // 2, 0


def ceiling(highest: int) -> int:
    """The round, even top of an axis that holds ``highest``: 2, 4, 6, 8, 10, 20, 40 and so on.

    Few steps, so that the axis does not twitch with every event.
    """
    power = 1
    while True:
        for step in _STEPS:
            if step * power >= highest:
                return step * power
        power *= 10


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def bars(bottoms: Sequence[int], values: Sequence[int], *, top: int) -> str:
    """One path of a bar a minute, standing on ``bottoms``; zero values draw nothing."""
    parts = []
    for i, (bottom, value) in enumerate(zip(bottoms, values, strict=True)):
        if value:
            y0, y1 = (HEIGHT - HEIGHT * n / top for n in (bottom, bottom + value))
            parts.append(f"M{_number(i + _GAP)} {_number(y0)}V{_number(y1)}h{_WIDTH}V{_number(y0)}")
    return "".join(parts)


def dots(heights: Sequence[int], values: Sequence[int], *, top: int) -> str:
    """One path of a dot above each minute with a value: strokes of no length with round ends."""
    return "".join(
        f"M{_number(i + 0.5)} {_number(HEIGHT - HEIGHT * height / top)}h.001"
        for i, (height, value) in enumerate(zip(heights, values, strict=True))
        if value
    )


def _ticks(minutes: Sequence[Minute]) -> list[Tick]:
    """Every ten minutes by the clock, clear of "now" at the end.

    Those not on the half hour, or near the end, give way on narrow screens.
    """
    return [
        Tick(
            label=minute.at.strftime("%H:%M"),
            x=f"{_number(100 * i / len(minutes))}%",
            minor=minute.at.minute % 30 != 0 or i > len(minutes) - 17,
        )
        for i, minute in enumerate(minutes)
        if minute.at.minute % 10 == 0 and i <= len(minutes) - 7
    ]


def _summary(minutes: Sequence[Minute]) -> str:
    def total(name: str) -> str:
        return f"{sum(getattr(minute, name) for minute in minutes):,} {name}"

    parts = ", ".join(total(name) for name in ("delivered", "deferred", "bounced", "complained"))
    return f"In the last {len(minutes)} minutes: {parts}."


def minute_chart(minutes: Sequence[Minute]) -> MinuteChart:
    """The chart of the last minutes: volume, and beneath it failures on a scale of their own.

    ``minutes`` is in order and without holes; the last one is still running.
    """
    failures = [minute.deferred + minute.bounced for minute in minutes]
    heights = [n + minute.complained for n, minute in zip(failures, minutes, strict=True)]
    volume_top = ceiling(max((minute.delivered for minute in minutes), default=0))
    failure_top = ceiling(max(heights, default=0))
    bounced = [minute.bounced for minute in minutes]
    zeros = [0] * len(minutes)
    return MinuteChart(
        minutes=minutes,
        width=len(minutes),
        volume_top=volume_top,
        failure_top=failure_top,
        delivered=bars(zeros, [minute.delivered for minute in minutes], top=volume_top),
        bounced=bars(zeros, bounced, top=failure_top),
        deferred=bars(bounced, [minute.deferred for minute in minutes], top=failure_top),
        complained=dots(heights, [minute.complained for minute in minutes], top=failure_top),
        ticks=_ticks(minutes),
        summary=_summary(minutes),
    )
