"""Refusals by reason, provider, pool, location and hour: from the counters, or from the events.

The counters (``ReasonHour``) know whole hours, and location, company, provider, pool and reason.
Hours that the bounds split, and every other filter, are answered from the events together with
their deliveries; the two say the same.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

from django.core.exceptions import EmptyResultSet
from django.db import connection
from django.db.models import (
    Count,
    Max,
    Min,
    Q,
    QuerySet,
    Subquery,
    Sum,
)
from django.db.models.functions import Coalesce

from dashboard.access import Rights
from dashboard.conditions import value_ids
from dashboard.filters import Filter, FilterError
from dashboard.spans import Hours, Quarter, Span, hour_of, in_spans, whole_hours
from dashboard.words import ATTEMPT_NAMES, VALUE_NAMES
from ingest.models import Event, Location, ReasonHour, Value
from ingest.vocabulary import NONE_KEY, OTHER_KEY, BounceClass, Category, Dimension, EventKind

KINDS = {
    "deferred": EventKind.DEFERRED,
    "bounced": EventKind.BOUNCED,
    "suppressed": EventKind.SUPPRESSED,
}
# The counters know these; any other name is asked of events and deliveries.
_COUNTED = frozenset({"location", "company", "provider", "pool", "category", "class", "reason"})
# Before it lie the keys of events whose own time could not be read, or used: those have happened
# when they were received. Of one dated over a day ahead the key lies ahead, too: where the bounds
# have an end, it is not found among events.
UNDATED = hour_of(datetime(2015, 1, 1, tzinfo=UTC)).to_bytes(4)


# --- What is asked ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Asked:
    """A filter and rights, as conditions on counters and on events; of ``only`` these reasons."""

    filter: Filter
    rights: Rights
    only: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.filter.clock == "sent":
            raise FilterError("Refusals are counted when they happened: clock=sent has none.")
        self.filter.check_locations(self.rights)

    def of(self, reasons: Iterable[int]) -> "Asked":
        """The same of these reasons alone."""
        return replace(self, only=tuple(reasons))

    @cached_property
    def locations(self) -> frozenset[int] | None:
        """Primary keys of the locations asked for that may be seen; ``None`` means all."""
        return self.filter.location_ids(self.rights)

    @property
    def in_counters(self) -> bool:
        """Whether the counters know all that is asked for, but for hours that are split."""
        ways = {t.value for t in self.filter.terms if t.name in ("provider", "pool")}
        return self.filter.names <= _COUNTED and OTHER_KEY not in ways

    @cached_property
    def sources(self) -> tuple[Hours | None, list[Span]]:
        """Whole hours to take from the counters, and stretches of time to take from events."""
        start, until = self.filter.start, self.filter.until
        return whole_hours(start, until) if self.in_counters else (None, [(start, until)])

    def counted(self, hours: Hours) -> "QuerySet[ReasonHour]":
        """The counters' rows of whole hours."""
        rows = ReasonHour.objects.filter(*self._own(), **hours.conditions())
        return self._narrowed(rows.filter(*self._of_counters()))

    def refusals(self, spans: Sequence[Span]) -> "QuerySet[Event]":
        """The refusals in stretches of time."""
        rows = self._narrowed(Event.objects.filter(*self._own(), reason__isnull=False))
        rows = rows.filter(*self._of_events(), in_spans(spans, "occurred_at"))
        return rows.filter(is_test=False)

    def happened(self, spans: Sequence[Span]) -> "list[QuerySet[Event]]":
        """The same by their keys: dated ones and, apart from them, the undated."""
        rows = self.refusals(spans)
        starts, ends = [start for start, _ in spans], [end for _, end in spans]
        if None in starts:
            return [rows]
        dated = Q(key__gte=_key(min(start for start in starts if start)))
        if None not in ends:
            dated &= Q(key__lt=_key(max(end for end in ends if end) + timedelta(hours=1)))
        rows = self._by_location(rows)
        return [rows.filter(dated), rows.filter(key__lt=UNDATED)]

    def _narrowed[M: (ReasonHour, Event)](self, rows: "QuerySet[M]") -> "QuerySet[M]":
        if self.locations is not None:
            rows = rows.filter(location_id__in=self.locations)
        return rows if self.only is None else rows.filter(reason_id__in=self.only)

    def _by_location(self, rows: "QuerySet[Event]") -> "QuerySet[Event]":
        """By every location in turn: so an index that begins with it finds events by their time."""
        if self.locations is not None:
            return rows
        return rows.filter(location_id__in=Location.objects.values("id"))

    def _own(self) -> list[Q]:
        """What is asked of the refusal itself; its category is the one that its row shows."""
        return self._all(_OF_REASONS, lambda name, values: _OF_REASONS[name](values))

    def _of_counters(self) -> list[Q]:
        """Provider and pool, as the counters have them."""
        return self._all(
            ("provider", "pool"), lambda name, values: Q(**{f"{name}_id__in": _ids(name, values)})
        )

    def _of_events(self) -> list[Q]:
        """Provider, IP, pool, MX and code as the event says; all else of its delivery."""
        conditions = self._all(_OF_EVENTS, _of_event)
        others = tuple(term for term in self.filter.terms if term.name not in _ANSWERED_HERE)
        if others:
            conditions += replace(self.filter, terms=others).conditions("delivery__")
            conditions.append(Q(delivery__isnull=False))
        return conditions

    def _all(self, names: Iterable[str], make: Callable[[str, Sequence[str]], Q]) -> list[Q]:
        """A condition for each of the names that the filter has, turned around if excluded."""
        found = []
        for name in names:
            if values := self.filter.values(name):
                found.append(make(name, values))
            if values := self.filter.values(name, excluded=True):
                found.append(~make(name, values))
        return found


def _of_reason(values: Sequence[str]) -> Q:
    return Q(reason_id__in=[int(value) for value in values if value != NONE_KEY])


def _of_category(values: Sequence[str]) -> Q:
    found = [0 if value == NONE_KEY else Category.from_word(value) for value in values]
    return Q(reason__category__in=found)


def _of_class(values: Sequence[str]) -> Q:
    found = [0 if value == NONE_KEY else BounceClass.from_word(value) for value in values]
    return Q(reason__bounce_class__in=found)


_OF_REASONS = {"reason": _of_reason, "category": _of_category, "class": _of_class}
_OF_EVENTS = ("provider", "code", *ATTEMPT_NAMES)
_ANSWERED_HERE = frozenset({"location", "company", *_OF_REASONS, *_OF_EVENTS})


def _ids(name: str, values: Sequence[str]) -> list[int]:
    return value_ids(VALUE_NAMES[name], values)


def _of_event(name: str, values: Sequence[str]) -> Q:
    """What an event says of itself."""
    if OTHER_KEY in values:
        raise FilterError(f"Refusals cannot be asked for by {name}={OTHER_KEY}.")
    if name == "provider":
        return Q(provider_id__in=_ids(name, values))
    if name == "code":
        coded = Q(code__in=[int(value) for value in values if value != NONE_KEY])
        return coded | Q(code=None) if NONE_KEY in values else coded
    through = Q(**{f"{name}_id__in": _ids(name, values)})
    return through | Q(**{name: None}) if NONE_KEY in values else through


def _key(moment: datetime) -> bytes:
    """Where the keys of events of this hour begin."""
    return hour_of(moment).to_bytes(4)


# --- Hits: how often a refusal met a location's mail at a provider, through a pool -----------


_NO_POOL = Subquery(Value.objects.filter(dimension=Dimension.POOL, text="").values("id")[:1])


def _counter_hits(rows: "QuerySet[ReasonHour]", keys: Sequence[str]) -> "QuerySet[Any, Any]":
    sums = {name: Coalesce(Sum("events", filter=Q(kind=kind)), 0) for name, kind in KINDS.items()}
    hours = {"first_hour": Min("hour"), "last_hour": Max("hour")}
    return rows.order_by().values_list(*keys).annotate(**hours, **sums)


def _event_hits(rows: "QuerySet[Event]", keys: Sequence[str]) -> "QuerySet[Any, Any]":
    counts = {name: Count("id", filter=Q(kind=kind)) for name, kind in KINDS.items()}
    rows = rows.annotate(hour=Quarter("occurred_at") / 4)
    if "pool_id" in keys:
        rows = rows.annotate(through=Coalesce("pool_id", _NO_POOL))
        keys = ["through" if key == "pool_id" else key for key in keys]
    hours = {"first_hour": Min("hour"), "last_hour": Max("hour")}
    return rows.order_by().values_list(*keys).annotate(**hours, **counts)


def _hits(asked: Asked, *keys: str) -> tuple[str, list[Any]]:
    """A ``WITH hit``: keys, first and last hour, counts. The same keys may be in several rows."""
    hours, spans = asked.sources
    parts = [_counter_hits(asked.counted(hours), keys)] if hours is not None else []
    if spans:
        parts += [_event_hits(rows, keys) for rows in asked.happened(spans)]
    written = []
    for part in parts:
        with suppress(EmptyResultSet):
            written.append(part.query.sql_with_params())
    columns = (*keys, "first_hour", "last_hour", *KINDS)
    nothing = f"SELECT {', '.join(['0'] * len(columns))} WHERE 1 = 0"
    texts = [nothing, *(f"SELECT * FROM ({text}) AS part" for text, _ in written)]  # noqa: S608
    params = [value for _, values in written for value in values]
    return f"WITH hit ({', '.join(columns)}) AS ({' UNION ALL '.join(texts)}) ", params


def fetch_hits(asked: Asked, keys: Sequence[str], select: str) -> list[tuple[Any, ...]]:
    """Rows of a question to the table ``hit``: keys, first_hour, last_hour and ``KINDS``.

    The same keys may be in several of its rows.
    """
    hits, params = _hits(asked, *keys)
    with connection.cursor() as cursor:
        cursor.execute(hits + select, params)
        return list(cursor.fetchall())
