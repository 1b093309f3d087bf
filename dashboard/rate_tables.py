"""Counts and rates of a filter, in all and by group: from the counters where they can answer."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from dashboard.access import Rights
from dashboard.filters import Filter, FilterError
from dashboard.from_counters import can_count, count_hours
from dashboard.from_deliveries import count_deliveries
from dashboard.queries import UNNAMED, names_of
from dashboard.rates import SORTS, Counts, in_order, summed
from dashboard.spans import Span, key_of, moment_of, whole_hours
from dashboard.tallies import BY, BY_TIME, OVERLAPPING, REST_KEY, Question, Tally
from ingest.models import Location
from ingest.retention import horizon
from ingest.vocabulary import NONE_KEY, Category

MAX_ROWS = 1_000


class RatesRow(NamedTuple):
    """One group: its key in filters, the name to show, and what was counted."""

    key: str
    label: str
    counts: Counts


@dataclass(frozen=True)
class RatesTable:
    """Counts of a filter, in all and by group. Where ``overlap``, rows add up to more than all.

    ``parts``: the rows are parts of one whole, and their rates divide by those of ``total``.
    ``complete_from``: where the answer goes further back than the deliveries it needs are kept.
    """

    by: str
    total: Counts
    rows: list[RatesRow]
    overlap: bool
    parts: bool
    start: datetime | None
    end: datetime | None
    clock: str = "sent"
    complete_from: datetime | None = None

    def as_json(self) -> dict[str, Any]:
        """The contract's answer, ready for JSON."""
        whole = self.total if self.parts else None
        return {
            "by": self.by,
            "from": _iso(self.start),
            "to": _iso(self.end),
            "complete_from": _iso(self.complete_from),
            "clock": self.clock,
            "overlap": self.overlap,
            "total": self.total.as_json(),
            "rows": [
                {"key": key, "label": label, **counts.as_json(whole)}
                for key, label, counts in self.rows
            ],
        }


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


def rates(
    filter: Filter, rights: Rights, *, by: str, limit: int = 50, sort: str = "", now: datetime
) -> RatesTable:
    """Counts and rates of the deliveries that match and may be seen, grouped.

    Whole hours of at most one value of one dimension come from the counters, all else from the
    deliveries: the two are equal. ``sort`` is a count, a rate or ``key``, ``-`` in front for the
    greatest first; without it the most mail comes first, hours and days in their order. What is
    past ``limit`` is added up in a last row ``(rest)``. Raises ``FilterError`` for what cannot be
    asked, ``Http404`` for a location that may not be seen.
    """
    _check_asked(filter, by, limit, sort)
    filter.check_locations(rights)
    question = Question(filter.at(now), rights, by)
    tally, needed = count(question)
    rows = _ordered(named_rows(question, tally), by, sort)
    return RatesTable(
        by=by,
        total=Counts(*tally.total),
        rows=_cut(rows, limit),
        overlap=by in OVERLAPPING,
        parts=by == "category",
        start=question.start,
        end=question.filter.end,
        complete_from=_complete_from(needed),
    )


def _check_asked(filter: Filter, by: str, limit: int, sort: str) -> None:
    if by not in BY:
        raise FilterError(f"by is one of {', '.join(BY)}.")
    if sort and sort.removeprefix("-") not in SORTS:
        raise FilterError("sort is the name of a count or a rate, or key, with or without a “-”.")
    if not 1 <= limit <= MAX_ROWS:
        raise FilterError(f"limit is a number from 1 to {MAX_ROWS:,}.")
    if "q" in filter.names:
        raise FilterError("q searches deliveries and events; rates cannot be asked with it.")
    if filter.clock == "event":
        raise FilterError("clock=event is not available yet for deliveries and rates.")


# --- Counting ------------------------------------------------------------------------------


def count(question: Question, *, counters: bool = True) -> tuple[Tally, list[Span]]:
    """What was counted, and the stretches of time that the deliveries were needed for.

    Without ``counters`` everything comes from the deliveries: slower, and the same.
    """
    tally = Tally()
    hours, spans = whole_hours(question.start, question.until)
    if hours is not None:
        if counters and can_count(question):
            spans = spans + count_hours(question, hours, tally)
        else:
            spans = [(question.start, question.until)]
    count_deliveries(question, spans, tally)
    return tally, spans


def _complete_from(needed: Iterable[Span]) -> datetime | None:
    """Since when deliveries are kept, if any were needed from before."""
    starts = [start for start, _ in needed]
    if not starts:
        return None
    kept_from = horizon().deliveries_hour
    if not kept_from:
        return None
    since = moment_of(kept_from)
    return since if any(start is None or start < since for start in starts) else None


# --- Rows ----------------------------------------------------------------------------------


def _ordered(rows: list[RatesRow], by: str, sort: str) -> list[RatesRow]:
    if by in BY_TIME and sort in ("", "key", "-key"):
        return rows[::-1] if sort == "-key" else rows
    return in_order(rows, sort or "-sent")


def _cut(rows: list[RatesRow], limit: int) -> list[RatesRow]:
    if len(rows) <= limit:
        return rows
    rest = summed(row.counts for row in rows[limit:])
    return [*rows[:limit], RatesRow(REST_KEY, REST_KEY, rest)]


def named_rows(question: Question, tally: Tally) -> list[RatesRow]:
    """One row a group that counted anything; hours and days in their order."""
    counted = tally.counted()
    if question.by in BY_TIME:
        return _time_rows(counted, question.by, question.filter.zone)
    if question.by == "location":
        return _location_rows(counted)
    if question.by == "company":
        return _company_rows(counted)
    if question.by == "category":
        return [_category_row(key, counts) for key, counts in counted.items() if key]
    return _value_rows(counted)


def _time_rows(counted: Mapping[int, Counts], by: str, zone: ZoneInfo) -> list[RatesRow]:
    ordered = sorted(counted.items())
    grouped = groupby(ordered, key=lambda item: key_of(item[0], by, zone))
    return [RatesRow(key, key, summed(counts for _, counts in some)) for key, some in grouped]


def _location_rows(counted: Mapping[int, Counts]) -> list[RatesRow]:
    named = Location.objects.filter(pk__in=counted).values_list("pk", "ref", "name")
    return [RatesRow(ref, name or ref, counted[pk]) for pk, ref, name in named]


def _company_rows(counted: Mapping[int, Counts]) -> list[RatesRow]:
    found = Location.objects.filter(pk__in=counted).order_by("pk")
    rows: dict[str, RatesRow] = {}
    for pk, ref, name in found.values_list("pk", "company_ref", "company_name"):
        key = ref or NONE_KEY
        _, label, before = rows.get(key, RatesRow(key, "", Counts()))
        rows[key] = RatesRow(key, label or name, before + counted[pk])
    return [row._replace(label=row.label or row.key) for row in rows.values()]


def _category_row(category: int, counts: Counts) -> RatesRow:
    word = Category(category).word
    return RatesRow(word, word.replace("_", " "), counts)


def _value_rows(counted: Mapping[int, Counts]) -> list[RatesRow]:
    """Rows of values by their ids. Both 0 and the empty value's id are "has none"."""
    named = names_of(counted.keys())
    rows: dict[str, RatesRow] = {}
    for pk, counts in counted.items():
        known = named.get(pk, UNNAMED)
        key = known.text or NONE_KEY
        before = rows[key].counts if key in rows else Counts()
        rows[key] = RatesRow(key, known.label or key, before + counts)
    return list(rows.values())
