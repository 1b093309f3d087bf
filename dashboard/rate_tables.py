"""Counts and rates of a filter, in all and by group: from the counters where they can answer."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from django.db.models import Count, F, Func, IntegerField, Q, QuerySet, Sum
from django.db.models.lookups import GreaterThan

from dashboard.access import Rights, restrict
from dashboard.filters import Filter, FilterError, campaign_ids, value_ids
from dashboard.queries import UNNAMED, names_of
from dashboard.rates import SORTS, Counts, in_order, summed
from ingest.fold import contribution, load_facts
from ingest.models import Delivery, HourlyCount, Location, LocationHour, tag_ids
from ingest.vocabulary import MEASURES, NONE_KEY, Category, Dimension, Flag

HOUR = timedelta(hours=1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
VALUE_FIELDS = {
    "campaign": (Dimension.CAMPAIGN, "campaign_id"),
    "provider": (Dimension.PROVIDER, "provider_id"),
    "domain": (Dimension.DOMAIN, "domain_id"),
    "sending_domain": (Dimension.SENDING_DOMAIN, "sending_domain_id"),
}
BY_TIME = ("hour", "day")
BY = ("location", "tag", *VALUE_FIELDS, "category", *BY_TIME)
BY_LATER = ("ip", "pool")
REST_KEY = "(rest)"
MAX_ROWS = 1_000
_PLACES = frozenset({"location", "company"})
_ROLLED_UP = {"campaign": Dimension.CAMPAIGN, "tag": Dimension.TAG}

type Tally = defaultdict[Any, list[int]]
"""Measures by group: an id, a category, or a quarter of an hour since 1970."""
type Span = tuple[datetime | None, datetime | None]
"""From a moment that is in to one that is out; ``None`` is open."""


class RatesRow(NamedTuple):
    """One group: its key in filters, the name to show, and what was counted."""

    key: str
    label: str
    counts: Counts


class RatesTable(NamedTuple):
    """Counts of a filter, in all and by group. Where ``overlap``, rows add up to more than all.

    ``parts``: the rows are parts of one whole, and their rates divide by those of ``total``.
    """

    by: str
    total: Counts
    rows: list[RatesRow]
    overlap: bool
    parts: bool
    start: datetime | None
    end: datetime | None

    def as_json(self) -> dict[str, Any]:
        """The contract's answer, ready for JSON."""
        whole = self.total if self.parts else None
        return {
            "by": self.by,
            "from": self.start and self.start.isoformat(),
            "to": self.end and self.end.isoformat(),
            "clock": "sent",
            "overlap": self.overlap,
            "total": self.total.as_json(),
            "rows": [
                {"key": key, "label": label, **counts.as_json(whole)}
                for key, label, counts in self.rows
            ],
        }


def rates(
    filter: Filter, rights: Rights, *, by: str, limit: int = 50, sort: str = "", now: datetime
) -> RatesTable:
    """Counts and rates of the deliveries that match and may be seen, grouped.

    Whole hours of at most one stored dimension come from the counters, all else from the
    deliveries: the two are equal. ``sort`` is a count, a rate or ``key``, ``-`` in front for the
    greatest first; without it the most mail comes first, hours and days in their order. What is
    past ``limit`` is added up in a last row ``(rest)``. Raises ``FilterError`` for what cannot be
    asked, ``Http404`` for a location that may not be seen.
    """
    _check_asked(filter, by, limit, sort)
    filter.check_locations(rights)
    counting = _Counting(filter.at(now), rights, by)
    total = counting.total()
    rows = counting.rows()
    if by in BY_TIME and sort in ("", "key", "-key"):
        rows = rows[::-1] if sort == "-key" else rows
    else:
        rows = in_order(rows, sort or "-sent")
    if len(rows) > limit:
        rest = summed(row.counts for row in rows[limit:])
        rows = [*rows[:limit], RatesRow(REST_KEY, REST_KEY, rest)]
    return RatesTable(
        by, total, rows, by == "tag", by == "category", counting.filter.start, counting.filter.end
    )


def _check_asked(filter: Filter, by: str, limit: int, sort: str) -> None:
    if by in BY_LATER:
        raise FilterError(f"by={by} is not available yet.")
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


class _Counting:
    """One question for rates on its way through the tables."""

    def __init__(self, filter: Filter, rights: Rights, by: str) -> None:
        self.filter, self.rights, self.by = filter, rights, by
        self.groups: Tally = defaultdict(lambda: [0] * len(MEASURES))
        self.whole: Counts | None = None  # where the groups do not add up to it
        self.locations = filter.location_ids(rights)
        if not self._from_counters():
            self._add_deliveries([(filter.start, filter.until)])

    # - Whole hours, from the counters

    def _from_counters(self) -> bool:
        """Answer from the counters, the hours that the bounds split from the deliveries.

        False, with nothing counted, where the counters cannot answer.
        """
        counters = self._counters()
        if counters is None:
            return False
        start, until = self.filter.start, self.filter.until
        first, last = start and _hour_after(start), until and _hour_before(until)
        if first and last and first >= last:
            return False
        group = {"location": "location_id", "hour": "hour", "day": "hour"}.get(self.by, "value_id")
        split = self._add_hours(_in_hours(counters, first, last), group)
        if self.by == "tag":
            hours = _in_hours(self._in_places(LocationHour.objects.all()), first, last)
            self.whole = Counts(*(n or 0 for n in hours.aggregate(**_SUMS).values()))
        edges = [(start, first), (last, until)]
        self._add_deliveries([(a, b) for a, b in edges if a and b and a < b] + split)
        return True

    def _counters(self) -> QuerySet[Any] | None:
        """The counter rows that make up the answer, before the bounds of time."""
        named = self.filter.names - _PLACES
        by_value = self.by not in ("location", *BY_TIME)
        if not named and not by_value:
            return self._in_places(LocationHour.objects.all())
        wanted = named | ({self.by} if by_value else set())
        if len(wanted) > 1 or not wanted <= _ROLLED_UP.keys():
            return None
        (name,) = wanted
        counters = self._in_places(HourlyCount.objects.filter(dimension=_ROLLED_UP[name]))
        if name == "campaign":
            return self._of_campaigns(counters)
        return self._of_tag(counters) if named else counters

    def _of_campaigns(self, counters: QuerySet[Any]) -> QuerySet[Any]:
        """A mail has one campaign, so those of several campaigns add up."""
        if wanted := self.filter.values("campaign"):
            counters = counters.filter(value_id__in=campaign_ids(wanted))
        if excluded := self.filter.values("campaign", excluded=True):
            counters = counters.exclude(value_id__in=campaign_ids(excluded))
        return counters

    def _of_tag(self, counters: QuerySet[Any]) -> QuerySet[Any] | None:
        """A mail has many tags: only those of a single one can be read off."""
        wanted = self.filter.values("tag")
        excluded = self.filter.values("tag", excluded=True)
        if self.by == "tag" or excluded or len(wanted) != 1:
            return None
        return counters.filter(value_id__in=value_ids(Dimension.TAG, wanted))

    def _in_places(self, counters: QuerySet[Any]) -> QuerySet[Any]:
        if self.locations is None:
            return counters
        return counters.filter(location_id__in=self.locations)

    def _add_hours(self, counters: QuerySet[Any], group: str) -> list[Span]:
        """Add whole hours. Returns those that the asked zone's hours or days split."""
        split = []
        # Aggregates inside values_list() would be grouped by the primary key.
        for key, *measures in counters.order_by().values_list(group).annotate(**_SUMS):
            if group != "hour":
                _add(self.groups[key], measures)
            elif self._is_split(key):
                split.append((EPOCH + key * HOUR, EPOCH + (key + 1) * HOUR))
            else:
                _add(self.groups[key * 4], measures)
        return _joined(split)

    def _is_split(self, hour: int) -> bool:
        """Whether an hour belongs to two hours or days of the asked zone."""
        keys = {_time_key(hour * 4 + quarter, self.by, self.filter.zone) for quarter in range(4)}
        return len(keys) > 1

    # - Anything, from the deliveries

    def _add_deliveries(self, spans: Sequence[Span]) -> None:
        if not spans:
            return
        timeless = replace(self.filter, range="", since=None, to=None)
        deliveries = restrict(timeless.apply(Delivery.objects.all()), self.rights)
        deliveries = deliveries.filter(_in_spans(spans))
        group = _GROUPS[self.by]
        counted = deliveries.order_by().values_list(group, "outcome", "flags", "bounce_class")
        whole = [0] * len(MEASURES)
        for key, outcome, flags, bounce_class, n in counted.annotate(n=Count("pk")):
            measures = [n * one for one in contribution(outcome, flags, bounce_class)]
            _add(whole, measures)
            for part in (tag_ids(key) or _NO_TAGS) if self.by == "tag" else [key]:
                _add(self.groups[part], measures)
        if self.by in ("tag", "category"):
            self.whole = (self.whole or Counts()) + Counts(*whole)
        if self.by == "category":
            self._count_deferrals(deliveries)

    def _count_deferrals(self, deliveries: QuerySet[Delivery]) -> None:
        """Deferred counts the categories of the temporary failures, bounced that of the final."""
        deferred = deliveries.filter(GreaterThan(F("flags").bitand(Flag.DEFERRED), 0))
        column = MEASURES.index("deferred")
        for measures in self.groups.values():
            measures[column] = 0
        for facts in deferred.order_by().values_list("facts", flat=True).iterator(2_000):
            for category in load_facts(facts).deferral_categories:
                self.groups[category][column] += 1

    # - The answer

    def total(self) -> Counts:
        """All that was asked for, each delivery once."""
        if self.whole is not None:
            return self.whole
        return summed(Counts(*measures) for measures in self.groups.values())

    def rows(self) -> list[RatesRow]:
        """One row a group that counted anything; hours and days in their order."""
        counted = {key: Counts(*m) for key, m in self.groups.items() if any(m)}
        if self.by in BY_TIME:
            return _time_rows(counted, self.by, self.filter.zone)
        if self.by == "location":
            return list(_location_rows(counted))
        if self.by == "category":
            return [_category_row(key, counts) for key, counts in counted.items() if key]
        return _value_rows(counted)


_NO_TAGS = [0]  # beside the id of the empty value, which the counters use
_SUMS = {f"{measure}_sum": Sum(measure) for measure in MEASURES}


class _Quarter(Func):
    """The quarter of an hour since 1970 that a time lies in: no zone splits one."""

    output_field = IntegerField()

    def as_sqlite(self, compiler: Any, connection: Any, **extra: Any) -> Any:
        template = "CAST(strftime('%%%%s', %(expressions)s) AS INTEGER) / 900"
        return self.as_sql(compiler, connection, template=template, **extra)

    def as_postgresql(self, compiler: Any, connection: Any, **extra: Any) -> Any:
        template = "floor(extract(epoch FROM %(expressions)s) / 900)::int"
        return self.as_sql(compiler, connection, template=template, **extra)


_GROUPS: dict[str, Any] = {
    "location": "location_id",
    "tag": "tags",
    "category": "category",
    **{by: field for by, (_, field) in VALUE_FIELDS.items()},
    **{by: _Quarter("sent_at") for by in BY_TIME},
}


def _add(measures: list[int], more: Sequence[int]) -> None:
    for i, n in enumerate(more):
        measures[i] += n


def _hour_before(moment: datetime) -> datetime:
    return moment.replace(minute=0, second=0, microsecond=0)


def _hour_after(moment: datetime) -> datetime:
    whole = _hour_before(moment)
    return whole if whole == moment else whole + HOUR


def _in_hours(
    counters: QuerySet[Any], first: datetime | None, last: datetime | None
) -> QuerySet[Any]:
    if first:
        counters = counters.filter(hour__gte=(first - EPOCH) // HOUR)
    if last:
        counters = counters.filter(hour__lt=(last - EPOCH) // HOUR)
    return counters


def _joined(hours: Iterable[Span]) -> list[Span]:
    """Hours that follow each other, as one span."""
    spans: list[Span] = []
    for start, until in sorted(hours, key=lambda span: span[0] or EPOCH):
        if spans and spans[-1][1] == start:
            spans[-1] = (spans[-1][0], until)
        else:
            spans.append((start, until))
    return spans


def _in_spans(spans: Iterable[Span]) -> Q:
    condition = Q()
    for start, until in spans:
        span = Q(sent_at__gte=start) if start else Q()
        condition |= span & Q(sent_at__lt=until) if until else span
    return condition


def _time_key(quarter: int, by: str, zone: ZoneInfo) -> str:
    local = datetime.fromtimestamp(quarter * 900, zone)
    if by == "day":
        return local.date().isoformat()
    return local.replace(minute=0, second=0).isoformat()


def _time_rows(counted: Mapping[int, Counts], by: str, zone: ZoneInfo) -> list[RatesRow]:
    ordered = sorted(counted.items())
    grouped = groupby(ordered, key=lambda item: _time_key(item[0], by, zone))
    return [RatesRow(key, key, summed(counts for _, counts in some)) for key, some in grouped]


def _location_rows(counted: Mapping[int, Counts]) -> Iterator[RatesRow]:
    named = Location.objects.filter(pk__in=counted).values_list("pk", "ref", "name")
    return (RatesRow(ref, name or ref, counted[pk]) for pk, ref, name in named)


def _category_row(category: int, counts: Counts) -> RatesRow:
    word = Category(category).word
    return RatesRow(word, word.replace("_", " "), counts)


def _value_rows(counted: Mapping[int, Counts]) -> list[RatesRow]:
    """Rows of values by their ids. Both 0 and the empty value's id are "has none"."""
    named = names_of(counted.keys())
    rows: dict[str, RatesRow] = {}
    for pk, counts in counted.items():
        text, label = named.get(pk, UNNAMED)
        key = text or NONE_KEY
        before = rows[key].counts if key in rows else Counts()
        rows[key] = RatesRow(key, label or key, before + counts)
    return list(rows.values())
