"""The chart of a page's range by the hour or the day: volume, failures, HighLevel's band, marks."""

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from dashboard.charts import Step, step_chart
from dashboard.failing import list_url
from dashboard.filters import Filter
from dashboard.lists import list_filter
from dashboard.marks import CROSSED_LEAST, WINDOW, marks_of
from dashboard.pages.page import Asked, Region
from dashboard.pages.subject import by_sending
from dashboard.rate_tables import named_rows
from dashboard.rates import Counts, summed
from dashboard.sources import count
from dashboard.spans import HOUR, key_of, span_of
from dashboard.tallies import Question

HOURLY_MOST = timedelta(days=7, hours=1)  # up to here by the hour, beyond by the day
DAYS_MOST = 400  # newer days are shown, and it is said
LISTED = ("sent", "delivered", "hard", "block", "deferred", "complained")


class Row(NamedTuple):
    """A step as a row of the table under the chart, with the lists of what it counts."""

    step: Step
    links: Mapping[str, str]


def _load(asked: Asked) -> dict[str, Any]:
    hourly, steps, counts, cut = _steps(asked)
    marks = marks_of(asked.filter, asked.rights, now=asked.now)
    shown = [mark for mark in marks if steps and steps[0].at <= mark.at <= steps[-1].until]
    chart = step_chart(steps, [(mark.at, mark.text) for mark in shown], hourly=hourly)
    lists = _Lists(by_sending(asked))
    return {
        "chart": chart,
        "rows": [Row(step, lists.of(step, each)) for step, each in zip(steps, counts, strict=True)],
        "marks": [(number, mark) for number, mark in enumerate(shown, start=1)],
        "end": steps[-1].until if steps else None,
        "hourly": hourly,
        "step_seconds": 3600 if hourly else 86400,
        "cut": cut,
        "sent": sum(step.sent for step in steps),
        "least": CROSSED_LEAST,
    }


class _Lists:
    """The lists of what steps count: of each count the address is made once, but for the times."""

    def __init__(self, filter: Filter) -> None:
        self._filter = filter
        far = replace(filter, range="", since=_FROM, to=_TO)
        self._urls = {name: list_url(list_filter(far, "", "", name)) for name in LISTED}

    def of(self, step: Step, counts: Counts) -> dict[str, str]:
        """By the names of counts, where anything was counted."""
        since = max(step.at, self._filter.start) if self._filter.start else step.at
        until = min(step.until, self._filter.until) if self._filter.until else step.until
        return {
            name: url.replace(_FROM_TEXT, _iso(since)).replace(_TO_TEXT, _iso(until))
            for name, url in self._urls.items()
            if getattr(counts, name)
        }


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


# Moments that no filter has: their places are taken by those of each step.
_FROM, _TO = datetime(1975, 3, 1, 1, 2, 3, tzinfo=UTC), datetime(1976, 4, 2, 2, 3, 4, tzinfo=UTC)
_FROM_TEXT, _TO_TEXT = _iso(_FROM), _iso(_TO)


# --- What was counted, step by step ----------------------------------------------------------


def _steps(asked: Asked) -> tuple[bool, list[Step], list[Counts], bool]:
    """Whether they are hours, the steps, what each counted, and whether older ones are cut."""
    filter = by_sending(asked)
    end = min(filter.end or asked.now, asked.now + HOUR)
    hourly = filter.start is not None and end - filter.start <= HOURLY_MOST
    by = "hour" if hourly else "day"
    counted = _counted(asked, filter, by)
    first = filter.start or _oldest(counted, by, filter) or end
    edges = list(_edges(first, end, by, filter))
    cut = len(edges) > DAYS_MOST
    edges = edges[-DAYS_MOST:]
    counts = [counted.get(_key(start, by, filter), Counts()) for start, _ in edges]
    if hourly:  # of the hours before only the band knows
        earlier = list(_edges(first - WINDOW * HOUR, first, by, filter))[-WINDOW:]
        before = [counted.get(_key(start, by, filter), Counts()) for start, _ in earlier]
        counts = _within(filter, edges, counts, asked)
    else:
        before = []
    bands = _bands(before, counts, hourly=hourly)
    steps = [_step(edge, each, band) for edge, each, band in zip(edges, counts, bands, strict=True)]
    return hourly, steps, counts, cut


def _counted(asked: Asked, filter: Filter, by: str) -> dict[str, Counts]:
    """By the keys of hours or days; hours from a day before the range on."""
    if by == "hour" and filter.start:
        start = _floored(filter.start) - WINDOW * HOUR
        filter = replace(filter, range="", since=start, to=filter.until)
    question = Question(filter.at(asked.now), asked.rights, by)
    return {row.key: row.counts for row in named_rows(question, count(question)[0])}


def _within(
    filter: Filter, edges: list[tuple[datetime, datetime]], counts: list[Counts], asked: Asked
) -> list[Counts]:
    """The first hour may begin before the range does: it counts what lies within alone."""
    if filter.start is None or not edges or edges[0][0] >= filter.start:
        return counts
    until = edges[0][1].astimezone(UTC)
    until = min(until, filter.until) if filter.until else until
    own = Question(replace(filter, range="", since=filter.start, to=until), asked.rights, "hour")
    return [Counts(*count(own)[0].total), *counts[1:]]


def _floored(moment: datetime) -> datetime:
    return moment.replace(minute=0, second=0, microsecond=0)


def _oldest(counted: Mapping[str, Counts], by: str, filter: Filter) -> datetime | None:
    return span_of(min(counted), by, filter.zone)[0] if counted else None


def _edges(
    first: datetime, end: datetime, by: str, filter: Filter
) -> Iterator[tuple[datetime, datetime]]:
    """The beginnings and ends of local hours or days, from the one that a moment lies in on."""
    at = span_of(_key(first, by, filter), by, filter.zone)[0]
    while at < end:
        until = span_of(_key(at, by, filter), by, filter.zone)[1] if by == "day" else at + HOUR
        yield at.astimezone(filter.zone), until.astimezone(filter.zone)
        at = until


def _key(moment: datetime, by: str, filter: Filter) -> str:
    return key_of(int(moment.timestamp()) // 900, by, filter.zone)


type _Band = tuple[float | None, float | None]


def _bands(before: list[Counts], counts: list[Counts], *, hourly: bool) -> Iterator[_Band]:
    """The band of HighLevel's hard-bounce rate over the 24 hours, or the day, of each step."""
    window = deque(before, maxlen=WINDOW if hourly else 1)
    for each in counts:
        window.append(each)
        total = summed([Counts(), *window])
        low, high = total.hl_hard_low, total.hl_hard_high
        enough = high.denominator >= CROSSED_LEAST
        yield (low.value, high.value) if enough else (None, None)


def _step(edge: tuple[datetime, datetime], counts: Counts, band: _Band) -> Step:
    return Step(
        at=edge[0],
        until=edge[1],
        sent=counts.sent,
        delivered=counts.delivered,
        hard=counts.hard,
        block=counts.block,
        soft=counts.soft + counts.undetermined,
        deferred=counts.deferred,
        complained=counts.complained,
        low=band[0],
        high=band[1],
    )


TIMELINE = Region("timeline", "dashboard/location/_timeline.html", _load, every=15)
