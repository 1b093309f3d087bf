"""Stretches of time: whole hours since 1970 for the counters, what is left for the deliveries."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from django.db.models import Func, IntegerField, Q

HOUR = timedelta(hours=1)
QUARTER = timedelta(minutes=15)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_A_DAY_AND_MORE = 4 * 26  # quarters: no local day is longer

type Span = tuple[datetime | None, datetime | None]
"""From a moment that is in to one that is out; ``None`` is open."""


class Hours(NamedTuple):
    """Whole hours from ``first`` (in) to ``last`` (out); ``None`` is open."""

    first: int | None
    last: int | None

    def conditions(self) -> dict[str, int]:
        """As conditions on a counter's ``hour``."""
        found = {"hour__gte": self.first, "hour__lt": self.last}
        return {name: hour for name, hour in found.items() if hour is not None}

    @property
    def many(self) -> int | None:
        """How many hours they are; ``None`` without bounds."""
        if self.first is None or self.last is None:
            return None
        return self.last - self.first


def whole_hours(start: datetime | None, until: datetime | None) -> tuple[Hours | None, list[Span]]:
    """The whole hours between two bounds, and the parts of hours at the edges."""
    first = None if start is None else _hour_after(start)
    last = None if until is None else hour_of(until)
    if first is not None and last is not None and first >= last:
        return None, [(start, until)] if start is None or until is None or start < until else []
    edges = []
    if start is not None and first is not None and start < moment_of(first):
        edges.append((start, moment_of(first)))
    if until is not None and last is not None and moment_of(last) < until:
        edges.append((moment_of(last), until))
    return Hours(first, last), list[Span](edges)


def hour_of(moment: datetime) -> int:
    """The hour since 1970 that a moment lies in."""
    return (moment - EPOCH) // HOUR


def moment_of(hour: int) -> datetime:
    """When an hour since 1970 begins."""
    return EPOCH + hour * HOUR


def micros_of(moment: datetime) -> int:
    """Microseconds since 1970."""
    return (moment - EPOCH) // timedelta(microseconds=1)


def _hour_after(moment: datetime) -> int:
    return -((EPOCH - moment) // HOUR)


def joined(hours: Iterable[int]) -> list[Span]:
    """Hours as spans, those that follow each other as one."""
    spans: list[Span] = []
    for hour in sorted(hours):
        if spans and spans[-1][1] == moment_of(hour):
            spans[-1] = (spans[-1][0], moment_of(hour + 1))
        else:
            spans.append((moment_of(hour), moment_of(hour + 1)))
    return spans


def in_spans(spans: Iterable[Span], field: str = "sent_at") -> Q:
    """The condition that a time lies in any of the spans; in none of no spans."""
    condition = Q(pk__in=[])
    for start, until in spans:
        if start is None and until is None:
            return Q()
        bounds = {f"{field}__gte": start, f"{field}__lt": until}
        condition |= Q(**{name: moment for name, moment in bounds.items() if moment})
    return condition


# --- Hours and days of a zone --------------------------------------------------------------


class Quarter(Func):
    """The quarter of an hour since 1970 that a time lies in: no zone splits one.

    With ``step``, the first of so many quarters that follow each other.
    """

    output_field = IntegerField()

    def __init__(self, field: Any, step: int = 1) -> None:
        super().__init__(field)
        self._step = step

    def as_sqlite(self, compiler: Any, connection: Any, **extra: Any) -> Any:
        seconds = "CAST(strftime('%%%%s', substr(%(expressions)s, 1, 19)) AS INTEGER)"
        return self.as_sql(compiler, connection, template=self._stepped(seconds), **extra)

    def as_postgresql(self, compiler: Any, connection: Any, **extra: Any) -> Any:
        seconds = "floor(extract(epoch FROM %(expressions)s))::int"
        return self.as_sql(compiler, connection, template=self._stepped(seconds), **extra)

    def _stepped(self, seconds: str) -> str:
        return f"{seconds} / {900 * self._step} * {self._step}"


def step_of(by: str, zone: ZoneInfo, start: datetime | None, end: datetime | None) -> int:
    """How many quarters always lie in the same hour or day of a zone, for ``Quarter`` to take.

    ``end`` need not be exact: what happens within a year after it is looked at too.
    """
    if zone.key == "UTC":
        return 24 * 4 if by == "day" else 4
    if start is None or end is None:
        return 1
    days = range((end - start).days + 367)
    offsets = ((start + timedelta(days=day)).astimezone(zone).utcoffset() for day in days)
    return 4 if all(offset is not None and not offset % HOUR for offset in offsets) else 1


def key_of(quarter: int, by: str, zone: ZoneInfo) -> str:
    """The key of the local hour or day that a quarter since 1970 lies in."""
    local = datetime.fromtimestamp(quarter * 900, zone)
    if by == "day":
        return local.date().isoformat()
    return local.replace(minute=0, second=0).isoformat()


def is_split(hour: int, by: str, zone: ZoneInfo) -> bool:
    """Whether an hour since 1970 belongs to two hours or days of a zone."""
    return len({key_of(4 * hour + quarter, by, zone) for quarter in range(4)}) > 1


def span_of(key: str, by: str, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """When the local hour or day with this key begins and ends. Raises ``ValueError``."""
    begin = datetime.fromisoformat(key)
    begin = begin.replace(tzinfo=begin.tzinfo or zone)
    at = int(begin.timestamp()) // 900
    around = range(at - _A_DAY_AND_MORE, at + _A_DAY_AND_MORE)
    of = [quarter for quarter in around if key_of(quarter, by, zone) == key]
    if not of:
        raise ValueError(key)
    return EPOCH + of[0] * QUARTER, EPOCH + (of[-1] + 1) * QUARTER


def clipped(span: Span, start: datetime | None, until: datetime | None) -> Span:
    """What of a span lies between two bounds."""
    begins = [moment for moment in (span[0], start) if moment]
    ends = [moment for moment in (span[1], until) if moment]
    return max(begins, default=None), min(ends, default=None)
