"""Counts and rates of a filter, in all and by group: from the counters where they can answer."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from typing import Any
from zoneinfo import ZoneInfo

from dashboard.access import Rights
from dashboard.comparison import Earlier, earlier
from dashboard.dispersions import TOTAL, dispersions, priors, row_dispersions
from dashboard.filters import Filter, FilterError
from dashboard.from_events import count_events
from dashboard.queries import UNNAMED, names_of
from dashboard.rates import SORTS, Counts, in_order, measures_of, remainder, summed
from dashboard.riskiest import Judgement, Judges, judged_whole, judges_of
from dashboard.sources import complete_from, count
from dashboard.spans import key_of
from dashboard.tallies import (
    BY,
    BY_TIME,
    DIMENSIONS,
    OVERLAPPING,
    PLACES,
    REST_KEY,
    Leading,
    Question,
    Tally,
    ids_of,
)
from ingest.models import Location
from ingest.vocabulary import MEASURES, NONE_KEY, Category

RISK = "risk"
MAX_ROWS = 1_000
FEW = 200  # rows past the limit that are not worth a thought
LEADING = 200  # rows of which it is worth to find out first which they are


@dataclass(frozen=True)
class RatesRow:
    """One group: its key in filters, the name to show, and what was counted.

    ``groups`` are the ids (or quarters of hours) behind it, ``phis`` the dispersions of its
    rates. ``before`` is what an earlier period had counted when it was as old.
    """

    key: str
    label: str
    counts: Counts
    groups: tuple[int, ...] = ()
    phis: Mapping[str, float] = field(default_factory=dict)
    before: Counts | None = None
    judgement: Judgement | None = None

    def as_json(self, whole: Counts | None, whole_before: Counts | None) -> dict[str, Any]:
        """The contract's row. With ``whole``, rates divide by its denominators."""
        row: dict[str, Any] = {"key": self.key, "label": self.label}
        row |= self.counts.as_json(whole, self.phis)
        if self.before is not None:
            row["before"] = self.before.as_json(whole_before, self.phis)
        if self.judgement is not None:
            row["judgement"] = self.judgement.as_json()
        return row


@dataclass(frozen=True)
class RatesTable:
    """Counts of a filter, in all and by group. Where ``overlap``, rows add up to more than all.

    ``whole`` is the row of all mail. ``parts``: the rows are parts of one whole, and their rates
    divide by its. ``complete_from``: where the answer goes further back than the deliveries it
    needs are kept. ``compared``: the earlier period, if it was asked for.
    """

    by: str
    whole: RatesRow
    rows: list[RatesRow]
    overlap: bool
    parts: bool
    start: datetime | None
    end: datetime | None
    clock: str = "sent"
    complete_from: datetime | None = None
    compared: Earlier | None = None

    @property
    def total(self) -> Counts:
        """What was counted in all."""
        return self.whole.counts

    def as_json(self) -> dict[str, Any]:
        """The contract's answer, ready for JSON."""
        whole, before = (self.total, self.whole.before) if self.parts else (None, None)
        return {
            "by": self.by,
            "from": _iso(self.start),
            "to": _iso(self.end),
            "complete_from": _iso(self.complete_from),
            "clock": self.clock,
            "overlap": self.overlap,
            **({"compared": self.compared.as_json()} if self.compared else {}),
            "total": self.whole.as_json(None, None),
            "rows": [row.as_json(whole, before) for row in self.rows],
        }


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


def rates(
    filter: Filter,
    rights: Rights,
    *,
    by: str,
    limit: int = 50,
    sort: str = "",
    judge: bool = False,
    compare: str = "",
    now: datetime,
) -> RatesTable:
    """Counts and rates of the deliveries that match and may be seen, grouped.

    Whole hours of at most one value of one dimension come from the counters, all else from the
    deliveries: the two are equal. ``sort`` is a count, a rate or ``key``, ``-`` in front for the
    greatest first, or for locations ``risk``: the riskiest first; without it the most mail comes
    first, hours and days in their order. What is past ``limit`` is added up in a last row
    ``(rest)``. ``judge`` adds judgements to the total and to locations, ``compare`` what the period
    before ("previous") or a week before ("week") had counted when it was as old.
    ``clock=event`` counts events where they happened: see ``from_events``. Raises ``FilterError``
    for what cannot be asked, ``Http404`` for a location that may not be seen.
    """
    _check_asked(filter, by, limit, sort)
    _check_clock(filter, sort, compare, judge=judge)
    filter.check_locations(rights)
    question = Question(filter.at(now), rights, by)
    order = _Order(by, sort, limit, now)
    by_events = filter.clock == "event"
    leading = None if compare else order.leading
    if by_events:
        tally, needed = count_events(question)
    else:
        tally, needed = count(question, leading=leading, in_quarters=False)
    whole, rows = _shown(question, tally, order)
    if judge:
        whole, rows = _judged(question, whole, rows, order)
    before = earlier(question, compare, now=now) if compare else None
    if before:
        whole, rows = replace(whole, before=before.total), _compared(before, rows)
        needed = needed + before.needed
    return RatesTable(
        by=by,
        whole=whole,
        rows=rows,
        overlap=by in OVERLAPPING,
        parts=by == "category",
        start=question.start,
        end=question.filter.end,
        clock=filter.clock or "sent",
        complete_from=complete_from(question, needed, of_events=by_events),
        compared=before,
    )


def location_rows(filter: Filter, rights: Rights, *, now: datetime) -> dict[int, RatesRow]:
    """The rows of ``rates`` by location, without names, order and total, by their ids."""
    question = Question(filter.at(now), rights, "location")
    if filter.clock == "event":
        counted = count_events(question)[0].counted()
        phis = dict.fromkeys(map(str, counted), priors())
    else:
        counted = count(question)[0].counted()
        phis = row_dispersions(question, {str(pk): [pk] for pk in counted}, now)
    return {
        pk: RatesRow(str(pk), "", counts, (pk,), phis=phis[str(pk)])
        for pk, counts in counted.items()
    }


def _compared(before: Earlier, rows: list[RatesRow]) -> list[RatesRow]:
    """With what was counted before; the rest has what no other row has."""
    if before.question.by in BY_TIME:
        return [replace(row, before=before.of_time(row.key)) for row in rows]
    counted = {row.key: row.counts for row in named_rows(before.question, before.tally)}
    found = [replace(row, before=counted.pop(row.key, Counts())) for row in rows]
    if found and found[-1].key == REST_KEY:
        found[-1] = replace(found[-1], before=Counts() + summed(counted.values()))
    return found


class _Order:
    """The order of a table's rows, and how many of them are shown."""

    def __init__(self, by: str, sort: str, limit: int, now: datetime) -> None:
        self.by, self.sort, self.limit, self.now = by, sort, limit, now
        self.among: Collection[int] = ()

    @cached_property
    def judges(self) -> Judges:
        """Of the locations ``among`` which the table's rows are, for their order and judgements."""
        return judges_of(self.among, now=self.now)

    def of(self, rows: list[RatesRow]) -> list[RatesRow]:
        """All rows, in their order."""
        if self.sort == RISK:
            return sorted(rows, key=lambda row: self.judges.sort_key(row.groups[0], row.label))
        return _ordered(rows, self.by, self.sort)

    @cached_property
    def leading(self) -> Leading | None:
        """To count only the locations that are shown, where that spares anything."""
        if self.by != "location" or self.limit > LEADING:
            return None
        measures = () if self.sort in (RISK, "key", "-key") else measures_of(self.sort or "-sent")
        return Leading(measures, self._first)

    def _first(self, known: Mapping[int, Sequence[int]]) -> list[int]:
        """The locations to count: the first ones, and those of which it is not known if they are.

        ``known`` has what the order goes by, and 0 for all else.
        """
        self.among = known.keys()
        if len(known) <= self.limit:
            return [*known]
        tally = Tally()
        for pk, measures in known.items():
            tally.add(pk, measures)
        rows = self.of(_place_rows(tally.counted(), self.by))
        return [
            *(row.groups[0] for row in rows[: self.limit]),
            *(pk for pk, measures in known.items() if not any(measures)),
        ]


def _shown(question: Question, tally: Tally, order: _Order) -> tuple[RatesRow, list[RatesRow]]:
    """The total and the rows that are shown, in their order, with their dispersions."""
    whole = RatesRow(TOTAL, TOTAL, Counts(*tally.total))
    order.among = order.among or tally.groups.keys()
    rest = _set_aside(question, tally, order.sort or "-sent", order.limit)
    rows = order.of(named_rows(question, tally))
    if tally.led:
        rest = remainder(whole.counts, (row.counts for row in rows))
    return _widened(question, whole, _cut(rows, order.limit, rest), order.now)


def _check_asked(filter: Filter, by: str, limit: int, sort: str) -> None:
    if by not in BY:
        raise FilterError(f"by is one of {', '.join(BY)}.")
    if sort == RISK and by != "location":
        raise FilterError("sort=risk is for by=location.")
    if sort not in ("", RISK) and sort.removeprefix("-") not in SORTS:
        raise FilterError("sort is the name of a count or a rate, or key, with or without a “-”.")
    if not 1 <= limit <= MAX_ROWS:
        raise FilterError(f"limit is a number from 1 to {MAX_ROWS:,}.")
    if "q" in filter.names:
        raise FilterError("q searches deliveries and events; rates cannot be asked with it.")


def _check_clock(filter: Filter, sort: str, compare: str, *, judge: bool) -> None:
    if filter.clock == "event" and (sort == RISK or compare or judge):
        raise FilterError("Risks and comparisons go by the time of sending: leave out clock=event.")


def _widened(
    question: Question, whole: RatesRow, rows: list[RatesRow], now: datetime
) -> tuple[RatesRow, list[RatesRow]]:
    """With the dispersions of the total and of the rows; the rest has that of the total."""
    groups = {row.key: row.groups for row in rows if row.groups}
    if question.filter.clock == "event":
        phis = {TOTAL: priors()}
    else:
        phis = dispersions(question, groups, now)
    widened = [replace(row, phis=phis.get(row.key, phis[TOTAL])) for row in rows]
    return replace(whole, phis=phis[TOTAL]), widened


def _judged(
    question: Question, whole: RatesRow, rows: list[RatesRow], order: _Order
) -> tuple[RatesRow, list[RatesRow]]:
    """With the judgements of the total and of locations."""
    of = judged_whole(question.locations, whole.counts, whole.phis, now=order.now)
    whole = replace(whole, judgement=of)
    if question.by != "location":
        return whole, rows
    found = [
        replace(row, judgement=order.judges.judgement(row.groups[0], row.counts, row.phis))
        if row.groups
        else row
        for row in rows
    ]
    return whole, found


# --- Rows ----------------------------------------------------------------------------------


def _ordered(rows: list[RatesRow], by: str, sort: str) -> list[RatesRow]:
    if by in BY_TIME and sort in ("", "key", "-key"):
        return rows[::-1] if sort == "-key" else rows
    by_key = {row.key: row for row in rows}
    named = [(row.key, row.label, row.counts) for row in rows]
    return [by_key[key] for key, _, _ in in_order(named, sort or "-sent")]


def _cut(rows: list[RatesRow], limit: int, rest: Counts) -> list[RatesRow]:
    """The first rows, and all others as one, with what was set aside before."""
    if len(rows) <= limit and not rest:
        return rows
    others = summed([rest, *(row.counts for row in rows[limit:])])
    return [*rows[:limit], RatesRow(REST_KEY, REST_KEY, others)]


def _set_aside(question: Question, tally: Tally, sort: str, limit: int) -> Counts:
    """Take out groups that are past the limit for certain, before they get names; their sum.

    A month of the whole fleet has some hundred thousand campaigns and domains.
    """
    name, descending = sort.removeprefix("-"), sort.startswith("-")
    by_value = question.by in DIMENSIONS and question.by != "category"
    if not by_value or name not in MEASURES or len(tally.groups) <= limit + FEW:
        return Counts()
    _join_none(question, tally)
    at = MEASURES.index(name)
    known = sorted((measures[at] for measures in tally.groups.values()), reverse=descending)
    last = known[min(limit, len(known) - 1)]
    past = [
        key
        for key, measures in tally.groups.items()
        if (measures[at] < last if descending else measures[at] > last)
    ]
    gone = [tally.groups.pop(key) for key in past]
    return Counts(*(sum(column) for column in zip(*gone, strict=True)))


def _join_none(question: Question, tally: Tally) -> None:
    """What has no value may stand under two ids: 0, and the empty value's."""
    empty = next((pk for pk in ids_of(question.by, [NONE_KEY]) if pk), 0)
    if empty and 0 in tally.groups:
        tally.add(empty, tally.groups.pop(0))


def named_rows(question: Question, tally: Tally) -> list[RatesRow]:
    """One row a group that counted anything; hours and days in their order."""
    counted = tally.counted()
    if question.by in BY_TIME:
        return _time_rows(counted, question.by, question.filter.zone)
    if question.by in PLACES:
        return _place_rows(counted, question.by)
    if question.by == "category":
        return [_category_row(key, counts) for key, counts in counted.items() if key]
    named = names_of(counted.keys())
    known = ((pk, named.get(pk, UNNAMED)) for pk in counted)
    return _merged((pk, value.text or NONE_KEY, value.label, counted[pk]) for pk, value in known)


def _time_rows(counted: Mapping[int, Counts], by: str, zone: ZoneInfo) -> list[RatesRow]:
    ordered = ((quarter, key_of(quarter, by, zone)) for quarter in sorted(counted))
    return _merged((quarter, key, key, counted[quarter]) for quarter, key in ordered)


def _place_rows(counted: Mapping[int, Counts], by: str) -> list[RatesRow]:
    fields = ("ref", "name") if by == "location" else ("company_ref", "company_name")
    found = Location.objects.order_by("pk").values_list("pk", *fields)
    if len(counted) <= FEW:  # a long list of ids takes longer than all of the table
        found = found.filter(pk__in=counted)
    named = ((pk, ref, name) for pk, ref, name in found if pk in counted)
    return _merged((pk, ref or NONE_KEY, name, counted[pk]) for pk, ref, name in named)


def _category_row(category: int, counts: Counts) -> RatesRow:
    word = Category(category).word
    return RatesRow(word, word.replace("_", " "), counts, (category,))


def _merged(groups: Iterable[tuple[int, str, str, Counts]]) -> list[RatesRow]:
    """Rows of (id, key, label, counts), those of one key as one. "Has none" has two ids."""
    rows: dict[str, RatesRow] = {}
    for pk, key, label, counts in groups:
        row = RatesRow(key, label, counts, (pk,))
        if before := rows.get(key):
            row = RatesRow(key, before.label or label, before.counts + counts, (*before.groups, pk))
        rows[key] = row
    return [row if row.label else replace(row, label=row.key) for row in rows.values()]
