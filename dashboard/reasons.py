"""Why mail is refused: each refusal once, where it comes from, how far it reaches, what to do.

Refusals count in the hour in which they happened (``dashboard.refusals`` finds them).

Who sees only some locations gets everything from these alone: also when a refusal was first seen,
which is otherwise known to the microsecond (``ReasonProvider``) and here to the hour.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, NamedTuple

from django.db.models import Max, Min, OuterRef, Q, QuerySet, Subquery
from django.http import Http404

from dashboard.access import Rights, restrict, shown_id, shown_recipient, shown_text
from dashboard.filters import Filter, FilterError
from dashboard.queries import Named, events_complete_from, names_of
from dashboard.refusals import KINDS, UNDATED, Asked, fetch_hits
from dashboard.spans import hour_of, moment_of
from ingest import details
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
)
from ingest.normalize import Detail
from ingest.operator_rules import current
from ingest.vocabulary import BounceClass, Category, Dimension, EventKind

SORTS = ("-count", "-last_seen", "first_seen", "-first_seen", "-locations")
SAMPLES = 5
NEW = timedelta(hours=24)
# A refusal is laid to the provider, or to the pool, that this share of it came from or through.
MOSTLY = 0.9


# --- What was found ---------------------------------------------------------------------------


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


_SUMS = ", ".join(f"sum({name})" for name in KINDS)
_PART = f"{_SUMS}, min(first_hour), max(last_hour), count(DISTINCT location_id)"
_NEWEST = """
SELECT reason_id, -2, location_id, place, hour, 0, 0, 0, 0 FROM (
    SELECT reason_id, location_id, max(last_hour) AS hour, row_number() OVER (
        PARTITION BY reason_id ORDER BY max(last_hour) DESC, location_id
    ) AS place FROM hit GROUP BY 1, 2
) AS newest WHERE place <= {each}
"""


def _find(asked: Asked, each: int) -> _Found:
    """What is failing, where, through what and how much: one query."""
    selects = [
        f"SELECT reason_id, {provider}, {pool}, {_PART} FROM hit GROUP BY 1, 2, 3"  # noqa: S608
        for provider in ("-1", "provider_id")
        for pool in ("-1", "pool_id")
    ]
    selects.append(_NEWEST.format(each=each))
    keys = ("reason_id", "provider_id", "pool_id", "location_id")
    found = _Found(defaultdict(dict), defaultdict(list))
    for row in fetch_hits(asked, keys, " UNION ALL ".join(selects)):
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

    def __init__(self, asked: Asked, values: Collection[tuple[Dimension, int]]) -> None:
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
    recipient: str
    provider: str
    detail: Detail
    words: str  # of the receiver, as they may be seen

    def as_json(self) -> dict[str, Any]:
        """Ready for JSON; the time to the second."""
        detail = self.detail
        return {
            "event": self.event,
            "kind": self.kind.word,
            "occurred_at": self.occurred_at.astimezone(UTC).isoformat(timespec="seconds"),
            "reply": self.words,
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


def _samples(
    asked: Asked, newest: Mapping[int, Sequence[tuple[int, int]]], each: int
) -> dict[int, list[Sample]]:
    """Of each refusal some of the newest, no two of one location where that can be had."""
    found = _events_there(
        asked, [(reason, *place) for reason, places in newest.items() for place in places]
    )
    chosen = {
        reason: _taking_turns([sorted(found[reason, at], reverse=True) for at, _ in places], each)
        for reason, places in newest.items()
    }
    wanted = [pk for pks in chosen.values() for pk in pks]
    read = {sample.event: sample for sample in _read_samples(wanted, asked.rights)}
    return {reason: [read[pk] for pk in pks] for reason, pks in chosen.items()}


def _events_there(
    asked: Asked, places: Sequence[tuple[int, int, int]]
) -> dict[tuple[int, int], list[int]]:
    """Events of (reason, location, hour) by the first two: an index leads to these few."""
    span = (asked.filter.start, asked.filter.until)
    by_place: dict[tuple[int, int], list[int]] = defaultdict(list)
    for dated in (True, False):
        wanted = Q(pk__in=[])
        for reason, location, hour in places:
            keys = {"key__gte": hour.to_bytes(4), "key__lt": (hour + 1).to_bytes(4)}
            keys = keys if dated else {"key__lt": UNDATED}
            if not by_place[reason, location]:
                wanted |= Q(reason_id=reason, location_id=location, **keys)
        rows = asked.refusals([span]).filter(wanted).order_by()
        for reason, location, pk in rows.values_list("reason_id", "location_id", "id"):
            by_place[reason, location].append(pk)
    return by_place


def _taking_turns(lists: Sequence[Sequence[int]], most: int) -> list[int]:
    longest = max((len(each) for each in lists), default=0)
    return [each[at] for at in range(longest) for each in lists if at < len(each)][:most]


def _read_samples(pks: Collection[int], rights: Rights) -> list[Sample]:
    rows = Event.objects.filter(pk__in=pks).values_list(
        "location_id", "id", "reason_id", "kind", "occurred_at", "location__ref", "delivery_id",
        "delivery__message_id", "delivery__recipient", "provider__text", *details.COLUMNS,
    )  # fmt: skip
    return [
        Sample(
            event=pk, reason=reason or 0, kind=EventKind(kind), occurred_at=at, location=ref,
            delivery=delivery,
            message_id=shown_id(rights, place, message_id or detail.message_id, whole),
            recipient=shown_recipient(rights, place, whole), provider=provider or "", detail=detail,
            words=shown_text(rights, place, detail.message or detail.description, whole),
        )
        for place, pk, reason, kind, at, ref, delivery, message_id, recipient, provider, *stored
        in rows
        for detail in [details.load(*stored)]
        for whole in [recipient or detail.recipient]
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
    """Refusals in the order asked for, of ``total``; ``complete_from``: see ``queries``."""

    rows: list[Row]
    more: bool
    complete_from: datetime | None
    total: int


def reasons(
    filter: Filter, rights: Rights, *, sort: str = "-count", limit: int = 50, offset: int = 0,
    only_new: bool = False,
) -> ReasonsPage:  # fmt: skip
    """What is failing within the bounds, and why, as far as it may be seen.

    ``only_new``: what some provider gave for the first time in the last day of the bounds.
    Raises ``FilterError`` for a sort or filter that has no answer, ``Http404`` for a location
    that may not be seen.
    """
    if sort not in SORTS:
        raise FilterError(f"sort is one of {', '.join(SORTS)}.")
    asked = Asked(filter, rights)
    found = _find(asked, each=1)
    kept = _new_ones(asked, found) if only_new else list(found.ways)
    order = sorted(kept, key=lambda pk: (_ORDERS[sort](found.ways[pk][None, None]), pk))
    page = order[offset : offset + limit]
    rows = _rows(asked, page, found, samples=1)
    return ReasonsPage(rows, len(order) > offset + limit, _complete_from(asked), len(order))


def _new_ones(asked: Asked, found: _Found) -> list[int]:
    ever, since = _ever(found.ways, asked.rights), _new_since(asked.filter)
    return [
        pk
        for pk, ways in found.ways.items()
        if any(at.is_new for at in _places(pk, ways, {}, ever, since))
    ]


_ORDERS: dict[str, Callable[[Part], tuple[int, ...]]] = {
    "-count": lambda whole: (-whole.events,),
    "-last_seen": lambda whole: (-whole.last_hour, -whole.events),
    "first_seen": lambda whole: (whole.first_hour, -whole.events),
    "-first_seen": lambda whole: (-whole.first_hour, -whole.events),
    "-locations": lambda whole: (-whole.locations, -whole.events),
}


def reason(pk: int, filter: Filter, rights: Rights) -> "Explained":
    """One refusal, with samples and its hours.

    Raises ``Http404`` alike for one that is not there and one that only others have met.
    """
    get_reason(pk, rights)
    asked = Asked(filter, rights).of([pk])
    found = _find(asked, each=SAMPLES)
    found.ways[pk].setdefault((None, None), Part())
    (row,) = _rows(asked, [pk], found, samples=SAMPLES)
    return Explained(row, _trend(asked), _complete_from(asked))


def get_reason(pk: int, rights: Rights) -> Reason:
    """The reason. Raises ``Http404`` alike for one that is not there and one of others."""
    found = Reason.objects.filter(pk=pk).first() if pk < 2**31 else None
    seen = restrict(ReasonHour.objects.filter(reason_id=pk), rights)
    if found is None or not (rights.everything or seen.exists()):
        raise Http404("There is no such reason.")
    return found


def _complete_from(asked: Asked) -> datetime | None:
    return events_complete_from(asked.filter) if asked.sources[1] else None


def _rows(asked: Asked, pks: Sequence[int], found: _Found, *, samples: int) -> list[Row]:
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


def trends(pks: Sequence[int], filter: Filter, rights: Rights) -> dict[int, dict[int, int]]:
    """How often refusals came in each hour since 1970: reason → hour → refusals."""
    found: dict[int, dict[int, int]] = {pk: {} for pk in pks}
    every = " + ".join(f"sum({name})" for name in KINDS)
    select = f"SELECT reason_id, hour, {every} FROM hit GROUP BY 1, 2"  # noqa: S608
    for reason, hour, events in fetch_hits(
        Asked(filter, rights).of(pks), ("reason_id", "hour"), select
    ):
        found[reason][hour] = int(events)
    return found


def _trend(asked: Asked) -> list[Hour]:
    rows = fetch_hits(asked, ("hour",), f"SELECT hour, {_SUMS} FROM hit GROUP BY 1 ORDER BY 1")  # noqa: S608
    return [Hour(moment_of(hour), *map(int, counts)) for hour, *counts in rows]
