"""Why mail is refused: each refusal once, where it comes from, how far it reaches, what to do.

Refusals count in the hour in which they happened. Location, company, provider, pool, category,
class and reason are answered from the counters (``ReasonHour``); hours that the bounds split, and
every other filter, from the events together with their deliveries.

Who sees only some locations gets everything from these alone: also when a refusal was first seen,
which is otherwise known to the microsecond (``ReasonProvider``) and here to the hour.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, NamedTuple

import msgspec
import orjson
from django.core.exceptions import EmptyResultSet
from django.db import connection
from django.db.models import (
    CharField,
    Count,
    Func,
    Max,
    Min,
    OuterRef,
    Q,
    QuerySet,
    Subquery,
    Sum,
)
from django.db.models.functions import Coalesce
from django.http import Http404

from dashboard.access import Rights, restrict
from dashboard.conditions import value_ids
from dashboard.filters import Filter, FilterError
from dashboard.queries import Named, events_complete_from, names_of
from dashboard.spans import Hours, Quarter, Span, hour_of, in_spans, moment_of, whole_hours
from dashboard.words import ATTEMPT_NAMES, VALUE_NAMES
from ingest.classify import Rule
from ingest.models import (
    CountedValue,
    Event,
    HourlyCount,
    Location,
    LocationHour,
    Reason,
    ReasonHour,
    ReasonProvider,
    Value,
)
from ingest.normalize import Detail
from ingest.operator_rules import current
from ingest.vocabulary import NONE_KEY, OTHER_KEY, BounceClass, Category, Dimension, EventKind

SORTS = ("-count", "-last_seen", "first_seen")
SAMPLES = 5
NEW = timedelta(hours=24)
# A refusal is laid to the provider, or to the pool, that this share of it came from or through.
MOSTLY = 0.9
# The counters know these; any other name is asked of events and deliveries.
_COUNTED = frozenset({"location", "company", "provider", "pool", "category", "class", "reason"})
_KINDS = {
    "deferred": EventKind.DEFERRED,
    "bounced": EventKind.BOUNCED,
    "suppressed": EventKind.SUPPRESSED,
}
_UNDATED = (1).to_bytes(4)  # before it lie the keys of events that bore no time of their own


# --- What is asked ---------------------------------------------------------------------------


@dataclass(frozen=True)
class _Asked:
    """A filter and rights, as conditions on counters and on events; of ``only`` these reasons."""

    filter: Filter
    rights: Rights
    only: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.filter.clock == "sent":
            raise FilterError("Refusals are counted when they happened: clock=sent has none.")
        self.filter.check_locations(self.rights)

    def of(self, reasons: Iterable[int]) -> "_Asked":
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
        return rows.exclude(detail__contains='"test":true')

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
        return [rows.filter(dated), rows.filter(key__lt=_UNDATED)]

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
    return _any(_in_detail(name, value) for value in values)


def _in_detail(name: str, value: str) -> Q:
    """IP, pool and MX stand in the detail's JSON, in which no other text can look like this."""
    if value == NONE_KEY:
        return ~Q(detail__contains=f'"{name}":"')
    return Q(detail__contains=f'"{name}":{orjson.dumps(value).decode()}')


def _key(moment: datetime) -> bytes:
    """Where the keys of events of this hour begin."""
    return hour_of(moment).to_bytes(4)


def _any(conditions: Iterable[Q]) -> Q:
    whole = Q(pk__in=[])
    for condition in conditions:
        whole |= condition
    return whole


# --- Hits: how often a refusal met a location's mail at a provider, through a pool -----------


class _PoolOf(Func):
    """The pool that an event's detail names; "" if none."""

    output_field = CharField()

    def as_sqlite(self, compiler: Any, connection: Any, **extra: Any) -> Any:
        template = "coalesce(json_extract(%(expressions)s, '$.pool'), '')"
        return self.as_sql(compiler, connection, template=template, **extra)

    def as_postgresql(self, compiler: Any, connection: Any, **extra: Any) -> Any:
        template = "coalesce((%(expressions)s)::json ->> 'pool', '')"
        return self.as_sql(compiler, connection, template=template, **extra)


_POOL_ID = Subquery(
    Value.objects.filter(dimension=Dimension.POOL, text=OuterRef("pool_text")).values("id")[:1]
)


def _counter_hits(rows: "QuerySet[ReasonHour]", keys: Sequence[str]) -> "QuerySet[Any, Any]":
    sums = {name: Coalesce(Sum("events", filter=Q(kind=kind)), 0) for name, kind in _KINDS.items()}
    hours = {"first_hour": Min("hour"), "last_hour": Max("hour")}
    return rows.order_by().values_list(*keys).annotate(**hours, **sums)


def _event_hits(rows: "QuerySet[Event]", keys: Sequence[str]) -> "QuerySet[Any, Any]":
    counts = {name: Count("id", filter=Q(kind=kind)) for name, kind in _KINDS.items()}
    rows = rows.annotate(hour=Quarter("occurred_at") / 4)
    if "pool_id" in keys:
        rows = rows.annotate(pool_text=_PoolOf("detail")).annotate(pool_id=_POOL_ID)
    hours = {"first_hour": Min("hour"), "last_hour": Max("hour")}
    return rows.order_by().values_list(*keys).annotate(**hours, **counts)


def _hits(asked: _Asked, *keys: str) -> tuple[str, list[Any]]:
    """A ``WITH hit``: keys, first and last hour, counts. The same keys may be in several rows."""
    hours, spans = asked.sources
    parts = [_counter_hits(asked.counted(hours), keys)] if hours is not None else []
    if spans:
        parts += [_event_hits(rows, keys) for rows in asked.happened(spans)]
    written = []
    for part in parts:
        with suppress(EmptyResultSet):
            written.append(part.query.sql_with_params())
    columns = (*keys, "first_hour", "last_hour", *_KINDS)
    nothing = f"SELECT {', '.join(['0'] * len(columns))} WHERE 1 = 0"
    texts = [nothing, *(f"SELECT * FROM ({text}) AS part" for text, _ in written)]  # noqa: S608
    params = [value for _, values in written for value in values]
    return f"WITH hit ({', '.join(columns)}) AS ({' UNION ALL '.join(texts)}) ", params


def _fetch(asked: _Asked, keys: Sequence[str], select: str) -> list[tuple[Any, ...]]:
    hits, params = _hits(asked, *keys)
    with connection.cursor() as cursor:
        cursor.execute(hits + select, params)
        return list(cursor.fetchall())


class Part(NamedTuple):
    """How often a refusal came: at all, from a provider, or through a pool; in hours since 1970."""

    deferred: int = 0
    bounced: int = 0
    suppressed: int = 0
    first_hour: int = 0
    last_hour: int = 0
    locations: int = 0

    @property
    def events(self) -> int:
        """All of them."""
        return self.deferred + self.bounced + self.suppressed


type _Ways = dict[tuple[int | None, int | None], Part]
"""By provider and pool; ``None`` is any."""


class _Found(NamedTuple):
    """What was found of each reason, and some (location, hour) of the newest, one a location."""

    ways: dict[int, _Ways]
    newest: dict[int, list[tuple[int, int]]]


_SUMS = ", ".join(f"sum({name})" for name in _KINDS)
_PART = f"{_SUMS}, min(first_hour), max(last_hour), count(DISTINCT location_id)"
_NEWEST = """
SELECT reason_id, -2, location_id, place, hour, 0, 0, 0, 0 FROM (
    SELECT reason_id, location_id, max(last_hour) AS hour, row_number() OVER (
        PARTITION BY reason_id ORDER BY max(last_hour) DESC, location_id
    ) AS place FROM hit GROUP BY 1, 2
) AS newest WHERE place <= {each}
"""


def _find(asked: _Asked, each: int) -> _Found:
    """What is failing, where, through what and how much: one query."""
    selects = [
        f"SELECT reason_id, {provider}, {pool}, {_PART} FROM hit GROUP BY 1, 2, 3"  # noqa: S608
        for provider in ("-1", "provider_id")
        for pool in ("-1", "pool_id")
    ]
    selects.append(_NEWEST.format(each=each))
    keys = ("reason_id", "provider_id", "pool_id", "location_id")
    found = _Found(defaultdict(dict), defaultdict(list))
    for row in _fetch(asked, keys, " UNION ALL ".join(selects)):
        reason, provider, pool, *numbers = map(int, row)
        if provider == -2:
            found.newest[reason].append((pool, numbers[1]))
        else:
            way = tuple(None if value == -1 else value for value in (provider, pool))
            found.ways[reason][way[0], way[1]] = Part(*numbers)
    return found


# --- How far it reaches ----------------------------------------------------------------------


class Reach(NamedTuple):
    """Whom a refusal met, of those who sent mail that could have met it."""

    scope: str  # "one location", "one pool", "all mail at <provider>" or "mixed"
    locations: int
    of: int
    provider: str  # "" = not one alone
    pool: str
    sentence: str

    def as_json(self) -> dict[str, Any]:
        """Ready for JSON."""
        return self._asdict() | {"provider": self.provider or None, "pool": self.pool or None}


def _blamed(ways: _Ways) -> tuple[int | None, int | None]:
    """The provider, and the pool, that most of a refusal came from."""
    total = ways[None, None].events
    providers = {p: part for (p, pool), part in ways.items() if p is not None and pool is None}
    pools = {pool: part for (p, pool), part in ways.items() if pool is not None and p is None}
    return _mostly(providers, total), _mostly(pools, total)


def _mostly(parts: Mapping[int, Part], total: int) -> int | None:
    return next((value for value, part in parts.items() if part.events >= MOSTLY * total), None)


class _Senders:
    """Which locations sent mail to a provider, or through a pool, in the hours asked for."""

    def __init__(self, asked: _Asked, values: Collection[tuple[Dimension, int]]) -> None:
        start, until = asked.filter.start, asked.filter.until
        self._hours = {"hour__gte": hour_of(start)} if start else {}
        self._hours |= {"hour__lte": hour_of(until)} if until else {}
        self._locations = asked.locations
        self._by: dict[int, set[int]] = defaultdict(set)
        for dimension in (Dimension.PROVIDER, Dimension.POOL):
            self._find(dimension, [value for of, value in values if of is dimension])

    def _find(self, dimension: Dimension, values: Collection[int]) -> None:
        # That a location has ever had a value is known at once; of these pairs each is looked up
        # alone (no join): the first row that an index leads to will do.
        ever = self._in_places(CountedValue.objects.filter(value_id__in=values))
        counted = HourlyCount.objects.filter(
            location_id=OuterRef("location_id"), value_id=OuterRef("value_id"),
            dimension=dimension, sent__gt=0, **self._hours,
        )  # fmt: skip
        pairs = ever.annotate(hour=Subquery(counted.values("hour")[:1])).filter(hour__isnull=False)
        for value, location in pairs.values_list("value_id", "location_id") if values else ():
            self._by[value].add(location)

    def _in_places[M: (CountedValue, Location)](
        self, rows: "QuerySet[M]", field: str = "location_id"
    ) -> "QuerySet[M]":
        return rows if self._locations is None else rows.filter(**{f"{field}__in": self._locations})

    @cached_property
    def _all(self) -> int:
        mail = LocationHour.objects.filter(location_id=OuterRef("pk"), sent__gt=0, **self._hours)
        found = Location.objects.annotate(hour=Subquery(mail.values("hour")[:1]))
        return self._in_places(found.filter(hour__isnull=False), "pk").count()

    def count(self, *values: int | None) -> int:
        """How many locations sent with all of these values; ``None`` asks for nothing."""
        found = [self._by[value] for value in values if value is not None]
        return len(set.intersection(*found)) if found else self._all


def _reach(
    ways: _Ways, senders: _Senders, names: Mapping[int, Named], blank: Collection[int]
) -> Reach:
    provider, pool = (v if v not in blank else None for v in _blamed(ways))
    hit = ways[provider, pool].locations
    of = max(hit, senders.count(provider, pool))
    provider_name, pool_name = _name(provider, names), _name(pool, names)
    if hit == 1 and of > 1:
        scope = "one location"
    elif pool is not None and senders.count(provider) > of:
        scope = "one pool"
    elif provider is not None and hit >= MOSTLY * senders.count(provider):
        scope = f"all mail at {provider_name}"
    else:
        scope = "mixed"
    sentence = _sentence(hit, of, provider_name, pool_name)
    return Reach(scope, hit, of, provider_name, pool_name, sentence)


def _name(value: int | None, names: Mapping[int, Named]) -> str:
    if value is None or value not in names:
        return ""
    return names[value].label or names[value].text


def _sentence(hit: int, of: int, provider: str, pool: str) -> str:
    """``37 of 41 locations that mail Outlook through pool B``."""
    verb = "mail" if of != 1 else "mails"
    what = f"{verb} {provider}" if provider else f"{'send' if of != 1 else 'sends'} mail"
    through = f" through pool {pool}" if pool else ""
    return f"{hit:,} of {of:,} location{'s' * (of != 1)} that {what}{through}"


# --- Since when ------------------------------------------------------------------------------

type _Ever = dict[tuple[int, int], tuple[datetime, datetime]]
"""First and last time by reason and provider."""


def _ever(reasons: Collection[int], rights: Rights) -> _Ever:
    """Over all time, of all locations that may be seen."""
    if rights.everything:
        known = ReasonProvider.objects.filter(reason_id__in=reasons)
        rows = known.values_list("reason_id", "provider_id", "first_at", "last_at")
        return {(reason, provider): (first, last) for reason, provider, first, last in rows}
    seen = restrict(ReasonHour.objects.filter(reason_id__in=reasons), rights)
    hours = seen.order_by().values_list("reason_id", "provider_id")
    return {
        (reason, provider): (moment_of(first), moment_of(last))
        for reason, provider, first, last in hours.annotate(Min("hour"), Max("hour"))
    }


def _new_since(filter: Filter) -> datetime:
    """A refusal that was first seen after this is new: a day before the end, or the beginning."""
    end = (filter.end or filter.now).astimezone(UTC)
    since = moment_of(hour_of(end - NEW))
    return max(since, filter.start) if filter.start else since


# --- Samples ---------------------------------------------------------------------------------


class Sample(NamedTuple):
    """One refusal as the receiver said it."""

    event: int
    reason: int
    kind: EventKind
    occurred_at: datetime
    location: str
    delivery: int | None
    message_id: str
    provider: str
    detail: Detail

    def as_json(self) -> dict[str, Any]:
        """Ready for JSON; the time to the second."""
        detail = self.detail
        return {
            "event": self.event,
            "kind": self.kind.word,
            "occurred_at": self.occurred_at.astimezone(UTC).isoformat(timespec="seconds"),
            "reply": detail.message or detail.description,
            "code": detail.code,
            "enhanced": detail.enhanced or None,
            "ip": detail.ip or None,
            "pool": detail.pool_name or detail.pool or None,
            "mx": detail.mx or None,
            "provider": self.provider or None,
            "location": self.location,
            "message_id": self.message_id,
            "delivery": self.delivery,
        }


_read_detail = msgspec.json.Decoder(Detail).decode


def _samples(
    asked: _Asked, newest: Mapping[int, Sequence[tuple[int, int]]], each: int
) -> dict[int, list[Sample]]:
    """Of each refusal some of the newest, no two of one location where that can be had."""
    found = _events_there(
        asked, [(reason, *place) for reason, places in newest.items() for place in places]
    )
    chosen = {
        reason: _taking_turns([sorted(found[reason, at], reverse=True) for at, _ in places], each)
        for reason, places in newest.items()
    }
    read = {s.event: s for s in _read_samples([pk for pks in chosen.values() for pk in pks])}
    return {reason: [read[pk] for pk in pks] for reason, pks in chosen.items()}


def _events_there(
    asked: _Asked, places: Sequence[tuple[int, int, int]]
) -> dict[tuple[int, int], list[int]]:
    """Events of (reason, location, hour) by the first two: an index leads to these few."""
    span = (asked.filter.start, asked.filter.until)
    by_place: dict[tuple[int, int], list[int]] = defaultdict(list)
    for dated in (True, False):
        wanted = Q(pk__in=[])
        for reason, location, hour in places:
            keys = {"key__gte": hour.to_bytes(4), "key__lt": (hour + 1).to_bytes(4)}
            keys = keys if dated else {"key__lt": _UNDATED}
            if not by_place[reason, location]:
                wanted |= Q(reason_id=reason, location_id=location, **keys)
        rows = asked.refusals([span]).filter(wanted).order_by()
        for reason, location, pk in rows.values_list("reason_id", "location_id", "id"):
            by_place[reason, location].append(pk)
    return by_place


def _taking_turns(lists: Sequence[Sequence[int]], most: int) -> list[int]:
    longest = max((len(each) for each in lists), default=0)
    return [each[at] for at in range(longest) for each in lists if at < len(each)][:most]


def _read_samples(pks: Collection[int]) -> list[Sample]:
    rows = Event.objects.filter(pk__in=pks).values_list(
        "id", "reason_id", "kind", "occurred_at", "location__ref", "delivery_id",
        "delivery__message_id", "provider__text", "detail",
    )  # fmt: skip
    return [
        Sample(
            event=pk, reason=reason or 0, kind=EventKind(kind), occurred_at=at, location=ref,
            delivery=delivery, message_id=message_id or _read_detail(detail).message_id,
            provider=provider or "", detail=_read_detail(detail),
        )
        for pk, reason, kind, at, ref, delivery, message_id, provider, detail in rows
    ]  # fmt: skip


# --- Rows ------------------------------------------------------------------------------------


class At(NamedTuple):
    """A refusal at one provider: within the bounds to the hour, and over all time."""

    provider: str
    events: int
    locations: int
    first_seen: datetime
    last_seen: datetime
    first_ever: datetime
    last_ever: datetime
    is_new: bool

    def as_json(self) -> dict[str, Any]:
        """Ready for JSON."""
        moments = ("first_seen", "last_seen", "first_ever", "last_ever")
        row: dict[str, Any] = {name: _iso(getattr(self, name)) for name in moments}
        counts = {"count": self.events, "locations": self.locations, "new": self.is_new}
        return {"provider": self.provider or None} | counts | row


class Through(NamedTuple):
    """A refusal through one pool."""

    pool: str  # its id
    name: str
    events: int
    locations: int

    def as_json(self) -> dict[str, Any]:
        """Ready for JSON."""
        counts = {"count": self.events, "locations": self.locations}
        return {"pool": self.pool or None, "name": self.name or None} | counts


@dataclass(frozen=True)
class Row:
    """One refusal with everything that is known of it; times within the bounds are hours."""

    reason: Reason
    whole: Part
    rule: Rule
    at: list[At]
    through: list[Through]
    reach: Reach
    samples: list[Sample]

    @property
    def id(self) -> int:
        """The reason's."""
        return self.reason.pk

    @property
    def new_at(self) -> list[str]:
        """Providers that gave it for the first time in the last day of the bounds."""
        return [at.provider for at in self.at if at.is_new]

    def as_json(self) -> dict[str, Any]:
        """The contract's row, ready for JSON."""
        whole, rule = self.whole, self.rule
        return {
            "id": self.id,
            "text": self.reason.text,
            "category": Category(self.reason.category).word,
            "class": BounceClass(self.reason.bounce_class).word,
            "means": rule.means,
            "do": rule.do,
            "highlevel": rule.highlevel,
            "scope": rule.scope,
            "fix_by": rule.fix_by,
            "count": whole.events,
            "deferred": whole.deferred,
            "bounced": whole.bounced,
            "suppressed": whole.suppressed,
            "first_seen": _iso(moment_of(whole.first_hour)) if whole.events else None,
            "last_seen": _iso(moment_of(whole.last_hour)) if whole.events else None,
            "locations": whole.locations,
            "providers": [at.as_json() for at in self.at],
            "pools": [through.as_json() for through in self.through],
            "new": self.new_at,
            "reach": self.reach.as_json(),
            "samples": [sample.as_json() for sample in self.samples],
        }


def _iso(moment: datetime | None) -> str | None:
    return moment.astimezone(UTC).isoformat() if moment else None


class ReasonsPage(NamedTuple):
    """Refusals in the order asked for; ``complete_from``: see ``queries``."""

    rows: list[Row]
    more: bool
    complete_from: datetime | None


def reasons(
    filter: Filter, rights: Rights, *, sort: str = "-count", limit: int = 50, offset: int = 0
) -> ReasonsPage:
    """What is failing within the bounds, and why, as far as it may be seen.

    Raises ``FilterError`` for a sort or filter that has no answer, ``Http404`` for a location
    that may not be seen.
    """
    if sort not in SORTS:
        raise FilterError(f"sort is one of {', '.join(SORTS)}.")
    asked = _Asked(filter, rights)
    found = _find(asked, each=1)
    order = sorted(found.ways, key=lambda pk: (_ORDERS[sort](found.ways[pk][None, None]), pk))
    page = order[offset : offset + limit]
    rows = _rows(asked, page, found, samples=1)
    return ReasonsPage(rows, len(order) > offset + limit, _complete_from(asked))


_ORDERS: dict[str, Callable[[Part], tuple[int, ...]]] = {
    "-count": lambda whole: (-whole.events,),
    "-last_seen": lambda whole: (-whole.last_hour, -whole.events),
    "first_seen": lambda whole: (whole.first_hour, -whole.events),
}


def reason(pk: int, filter: Filter, rights: Rights) -> "Explained":
    """One refusal, with samples and its hours.

    Raises ``Http404`` alike for one that is not there and one that only others have met.
    """
    known = Reason.objects.filter(pk=pk).exists()
    seen = restrict(ReasonHour.objects.filter(reason_id=pk), rights)
    if not known or not (rights.everything or seen.exists()):
        raise Http404("There is no such reason.")
    asked = _Asked(filter, rights).of([pk])
    found = _find(asked, each=SAMPLES)
    found.ways[pk].setdefault((None, None), Part())
    (row,) = _rows(asked, [pk], found, samples=SAMPLES)
    return Explained(row, _trend(asked), _complete_from(asked))


def _complete_from(asked: _Asked) -> datetime | None:
    return events_complete_from(asked.filter) if asked.sources[1] else None


def _rows(asked: _Asked, pks: Sequence[int], found: _Found, *, samples: int) -> list[Row]:
    """Everything about some refusals, in as many queries for fifty as for one."""
    if not pks:
        return []
    asked = asked.of(pks)
    ever, told = _ever(pks, asked.rights), Reason.objects.in_bulk(pks)
    ways = {pk: found.ways[pk] for pk in pks}
    names = names_of({v for each in ways.values() for way in each for v in way if v})
    blank = {0, *(pk for pk, named in names.items() if not named.text)}
    blamed = [_blamed(each) for each in ways.values()]
    wanted = {(Dimension.PROVIDER, p) for p, _ in blamed if p is not None and p not in blank}
    wanted |= {(Dimension.POOL, p) for _, p in blamed if p is not None and p not in blank}
    senders = _Senders(asked, wanted)
    sampled = _samples(asked, {pk: found.newest[pk] for pk in pks}, samples)
    since = _new_since(asked.filter)
    return [
        Row(
            reason=told[pk],
            whole=each[None, None],
            rule=_rule(told[pk], sampled[pk]),
            at=_places(pk, each, names, ever, since),
            through=_pools(each, names),
            reach=_reach(each, senders, names, blank),
            samples=sampled[pk],
        )
        for pk, each in ways.items()
    ]


def _rule(reason: Reason, samples: Sequence[Sample]) -> Rule:
    """The rule that says why, by what was said; what its category means where it no longer does."""
    category, rules = Category(reason.category), current()
    for sample in samples:
        rule = rules.decide(sample.kind, sample.detail, sample.provider)
        if rule.category is category:
            return rule
    return rules.default(category or Category.UNCLASSIFIED)


def _places(
    reason: int, ways: _Ways, names: Mapping[int, Named], ever: _Ever, since: datetime
) -> list[At]:
    found = []
    for (provider, pool), part in ways.items():
        if provider is None or pool is not None:
            continue
        first, last = moment_of(part.first_hour), moment_of(part.last_hour)
        ever_first, ever_last = ever.get((reason, provider), (first, last))
        is_new = ever_first >= since
        name = names[provider].text if provider in names else ""
        found.append(
            At(name, part.events, part.locations, first, last, ever_first, ever_last, is_new)
        )
    return sorted(found, key=lambda at: (-at.events, at.provider))


def _pools(ways: _Ways, names: Mapping[int, Named]) -> list[Through]:
    found = [
        Through(names[pool].text, _name(pool, names), part.events, part.locations)
        for (provider, pool), part in ways.items()
        if provider is None and pool is not None and pool in names
    ]
    return sorted(found, key=lambda through: (-through.events, through.pool))


# --- One -------------------------------------------------------------------------------------


class Hour(NamedTuple):
    """A refusal in one hour."""

    at: datetime
    deferred: int
    bounced: int
    suppressed: int

    def as_json(self) -> dict[str, Any]:
        """Ready for JSON."""
        return self._asdict() | {"at": _iso(self.at)}


class Explained(NamedTuple):
    """One refusal with its hours, the earliest first; hours without it are not there."""

    row: Row
    trend: list[Hour]
    complete_from: datetime | None

    def as_json(self) -> dict[str, Any]:
        """Ready for JSON."""
        return self.row.as_json() | {"trend": [hour.as_json() for hour in self.trend]}


def _trend(asked: _Asked) -> list[Hour]:
    rows = _fetch(asked, ("hour",), f"SELECT hour, {_SUMS} FROM hit GROUP BY 1 ORDER BY 1")  # noqa: S608
    return [Hour(moment_of(hour), *map(int, counts)) for hour, *counts in rows]
