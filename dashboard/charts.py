"""Geometry of the charts: numbers in, SVG paths and tick positions out. No Django, no markup.

Panels are drawn in a box as many units wide as there are minutes and ``HEIGHT`` high, stretched
to whatever width the page has; so nothing here knows pixels.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, tzinfo

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
    flags: list["Flag"] = field(default_factory=list)

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
        if minute.at.minute % 10 == 0 and i <= len(minutes) - 8
    ]


def _summary(minutes: Sequence[Minute]) -> str:
    def total(name: str) -> str:
        return f"{sum(getattr(minute, name) for minute in minutes):,} {name}"

    parts = ", ".join(total(name) for name in ("delivered", "deferred", "bounced", "complained"))
    return f"In the last {len(minutes)} minutes: {parts}."


def minute_chart(
    minutes: Sequence[Minute], marks: Sequence[tuple[datetime, str]] = ()
) -> MinuteChart:
    """The chart of the last minutes: volume, and beneath it failures on a scale of their own.

    ``minutes`` is in order and without holes; the last one is still running. ``marks`` are (when,
    what) in their order.
    """
    first = minutes[0].at if minutes else None
    places = [(at - first) / timedelta(minutes=1) for at, _ in marks] if first else []
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
        flags=_flags(places, [text for _, text in marks], len(minutes)),
    )


# --- Steps of any length: minutes, hours, days -------------------------------------------------

_SPACINGS = (1 / 6, 0.5, 1, 2, 3, 6, 12, 24, 48, 7 * 24, 14 * 24, 28 * 24)  # hours between ticks
_MOST_TICKS = 9


def clock_ticks(starts: Sequence[datetime], length: timedelta, zone: tzinfo) -> list[Tick]:
    """Round times of a zone on the axis of equal steps: at most nine, every other one minor.

    From a day on they are dates.
    """
    hours = max(1, len(starts)) * length / timedelta(hours=1)
    spacing = next((s for s in _SPACINGS if hours / s <= _MOST_TICKS), _SPACINGS[-1])
    at = [i for i, start in enumerate(starts) if _is_round(start.astimezone(zone), spacing, length)]
    form = "%-d %b" if spacing >= 24 else "%H:%M"
    return [
        Tick(
            label=starts[i].astimezone(zone).strftime(form),
            x=f"{_number(100 * i / len(starts))}%",
            minor=n % 2 == 1,
        )
        for n, i in enumerate(at)
        if i <= 0.93 * len(starts)
    ]


def _is_round(local: datetime, spacing: float, length: timedelta) -> bool:
    """Whether the first step that begins at or after a round time begins here."""
    minutes = round(spacing * 60)
    since = local.hour * 60 + local.minute
    if minutes >= 24 * 60:
        since += local.toordinal() * 24 * 60
    return since % minutes < max(1, length // timedelta(minutes=1)) and (
        length < timedelta(days=1) or minutes >= 24 * 60
    )


@dataclass(frozen=True, slots=True)
class RefusalChart:
    """Attempts that were refused, and those that got through after it, in equal steps.

    Paths are in the box of ``width`` × ``HEIGHT``; each panel has a scale of its own.
    """

    width: int
    failure_top: int
    delivered_top: int
    bounced: str
    deferred: str
    delivered: str
    ticks: list[Tick]

    @property
    def failure_scale(self) -> tuple[int, int, int]:
        """Labels of the axis of refusals, from the top down."""
        return self.failure_top, self.failure_top // 2, 0

    @property
    def delivered_scale(self) -> tuple[int, int, int]:
        """Labels of the axis of what got through, from the top down."""
        return self.delivered_top, self.delivered_top // 2, 0


def refusal_chart(
    bounced: Sequence[int], deferred: Sequence[int], delivered: Sequence[int], ticks: list[Tick]
) -> RefusalChart:
    """The chart of one refusal: bounced, on it deferred, and apart what was delivered after it."""
    top = ceiling(max((b + d for b, d in zip(bounced, deferred, strict=True)), default=0))
    delivered_top = ceiling(max(delivered, default=0))
    zeros = [0] * len(bounced)
    return RefusalChart(
        width=len(bounced),
        failure_top=top,
        delivered_top=delivered_top,
        bounced=bars(zeros, bounced, top=top),
        deferred=bars(bounced, deferred, top=top),
        delivered=bars(zeros, delivered, top=delivered_top),
        ticks=ticks,
    )


# --- By the hour or the day ------------------------------------------------------------------

LINE_WARNS, LINE_STOPS = 0.03, 0.05
_RATE_TOPS = (0.06, 0.1, 0.2, 0.5, 1.0)
_NEAR = 0.03  # of the width: flags that are closer than this share one


@dataclass(frozen=True, slots=True)
class Step:
    """What was sent in an hour or a day, by what has become of it.

    ``low`` to ``high`` is the band of HighLevel's hard-bounce rate over the 24 hours (or the day)
    that end with the step; ``None`` where there is too little mail to draw one.
    """

    at: datetime
    until: datetime
    sent: int = 0
    delivered: int = 0
    hard: int = 0
    block: int = 0
    soft: int = 0  # all other bounces
    deferred: int = 0
    complained: int = 0
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Flag:
    """One or several marks at one place: ``label`` is their number, or the first and the last."""

    label: str
    x: str  # per cent of the width
    at: str  # in the box of the chart
    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Line:
    """A named threshold, in the box of the chart and in per cent of the height."""

    name: str
    kind: str
    y: str


@dataclass(frozen=True, slots=True)
class StepChart:
    """Everything that the template draws. Paths are in the box of ``width`` × ``HEIGHT``."""

    steps: Sequence[Step]
    width: int
    volume_top: int
    failure_top: int
    rate_top: float
    delivered: str
    hard: str
    block: str
    soft: str
    deferred: str
    complained: str
    band: str
    lines: list[Line]
    flags: list[Flag]
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

    @property
    def rate_scale(self) -> tuple[str, str, str]:
        """Labels of the rate axis, from the top down."""
        top = 100 * self.rate_top
        return f"{top:g} %", f"{top / 2:g} %", "0"


def step_chart(
    steps: Sequence[Step], marks: Sequence[tuple[datetime, str]], *, hourly: bool
) -> StepChart:
    """Delivered mail, failures on a scale of their own, and the band beside HighLevel's lines.

    ``steps`` are in order and without holes; ``marks`` are (when, what) in their order.
    """
    hard, block, soft = ([getattr(step, kind) for step in steps] for kind in _STACKED)
    on_hard = [a + b for a, b in zip(hard, block, strict=True)]
    heights = [a + b for a, b in zip(on_hard, soft, strict=True)]
    complained = [step.complained for step in steps]
    deferred = [step.deferred for step in steps]
    delivered = [step.delivered for step in steps]
    dotted = [a + b for a, b in zip(heights, complained, strict=True)]
    volume_top = ceiling(max(delivered, default=0))
    failure_top = ceiling(max([*dotted, *deferred], default=0))
    rate_top = _rate_top(step.high for step in steps)
    zeros = [0] * len(steps)
    return StepChart(
        steps=steps,
        width=len(steps),
        volume_top=volume_top,
        failure_top=failure_top,
        rate_top=rate_top,
        delivered=bars(zeros, delivered, top=volume_top),
        hard=bars(zeros, hard, top=failure_top),
        block=bars(hard, block, top=failure_top),
        soft=bars(on_hard, soft, top=failure_top),
        deferred=levels(deferred, top=failure_top),
        complained=dots(heights, complained, top=failure_top),
        band=_band(steps, rate_top),
        lines=_lines(rate_top),
        flags=_flags(
            [position(steps, at) for at, _ in marks], [text for _, text in marks], len(steps)
        ),
        ticks=_step_ticks(steps, hourly=hourly),
        summary=_steps_summary(steps),
    )


_STACKED = ("hard", "block", "soft")


def levels(values: Sequence[int], *, top: int) -> str:
    """One path of a level line a step, where there is a value."""
    return "".join(
        f"M{_number(i + _GAP)} {_number(HEIGHT - HEIGHT * value / top)}h{_WIDTH}"
        for i, value in enumerate(values)
        if value
    )


def _rate_top(rates: Iterable[float | None]) -> float:
    highest = max((rate for rate in rates if rate is not None), default=0.0)
    return next((top for top in _RATE_TOPS if highest <= top), 1.0)


def _band(steps: Sequence[Step], top: float) -> str:
    """A box a step from the low edge to the high one; never so thin that it is not seen."""
    parts = []
    for i, step in enumerate(steps):
        if step.low is not None and step.high is not None:
            y0, y1 = (HEIGHT - HEIGHT * rate / top for rate in (step.low, step.high))
            parts.append(f"M{i} {_number(y0)}V{_number(min(y1, y0 - 1.5))}h1V{_number(y0)}z")
    return "".join(parts)


def _lines(top: float) -> list[Line]:
    known = (
        ("HighLevel stops: 5 %", "stop", LINE_STOPS),
        ("warns: 3 %", "warn", LINE_WARNS),
    )
    return [Line(name, kind, _number(HEIGHT - HEIGHT * line / top)) for name, kind, line in known]


def _flags(places: Sequence[float], texts: Sequence[str], width: int) -> list[Flag]:
    """Marks in a chart of this width, those that would lie on each other as one."""
    groups: list[tuple[float, list[int]]] = []
    for number, x in enumerate(places, start=1):
        if groups and x - groups[-1][0] < _NEAR * width:
            groups[-1][1].append(number)
        else:
            groups.append((x, [number]))
    return [
        Flag(
            label=str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]}–{numbers[-1]}",
            x=f"{_number(100 * x / max(1, width))}%",
            at=_number(x),
            texts=tuple(texts[number - 1] for number in numbers),
        )
        for x, numbers in groups
    ]


def position(steps: Sequence[Step], at: datetime) -> float:
    """Where a moment lies in the box of the chart: 0 to its width."""
    for i, step in enumerate(steps):
        if at < step.until:
            return i + max(0.0, (at - step.at) / (step.until - step.at))
    return float(len(steps))


def _step_ticks(steps: Sequence[Step], *, hourly: bool) -> list[Tick]:
    length = timedelta(hours=1) if hourly else timedelta(days=1)
    zone = steps[0].at.tzinfo if steps else None
    return clock_ticks([step.at for step in steps], length, zone) if zone else []


def _steps_summary(steps: Sequence[Step]) -> str:
    def total(*names: str) -> int:
        return sum(getattr(step, name) for step in steps for name in names)

    return (
        f"{total('sent'):,} sent: {total('delivered'):,} delivered, {total(*_STACKED):,} bounced"
        f" ({total('hard'):,} hard, {total('block'):,} blocked, {total('soft'):,} other),"
        f" {total('deferred'):,} deferred at least once, {total('complained'):,} complained."
    )


# --- Gauges ----------------------------------------------------------------------------------

GAUGE_TOP = 0.06


@dataclass(frozen=True, slots=True)
class GaugeBand:
    """A band on a scale from 0 to ``GAUGE_TOP``, in per cent of its width.

    ``beyond``: it goes on past the right edge.
    """

    x: str
    width: str
    beyond: bool


def gauge_band(low: float | None, high: float | None) -> GaugeBand | None:
    """Where a band is drawn, at least one per cent wide; ``None`` for no data."""
    if low is None or high is None:
        return None
    start, end = (100 * min(edge, GAUGE_TOP) / GAUGE_TOP for edge in (low, high))
    start = min(start, 99.0)
    return GaugeBand(f"{_number(start)}%", f"{_number(max(1.0, end - start))}%", high > GAUGE_TOP)
