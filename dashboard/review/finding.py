"""Finding deliveries for a list among millions: never by looking through the table.

Counters know in which hours a location had mail of some kind, so these hours are looked through,
the newest first, in the index of location and time, which holds what is asked for. That goes on
until there are enough, the history ends, or it has taken long enough.
"""

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any, NamedTuple

from django.db import connection
from django.db.models import Q, QuerySet

from dashboard.access import Rights, restrict
from ingest.models import Delivery, HourlyCount, LocationHour, Value, counted_sql
from ingest.retention import horizon
from ingest.vocabulary import FLEET, OTHER_KEY, Dimension, Outcome

FOUND = 1_000  # deliveries of a list that is narrowed
LONGEST = 0.12  # seconds after which no further look begins
FIRST, GROWTH, WIDEST = 1, 3, 27  # hours of the first look, how it grows, and how far
WALKED = 20_000  # deliveries of the newest hours, of which many are sought
CAMPAIGNS = 50  # whose name a search finds
PAIRS = 2_000  # hours of locations that are looked up at once, beyond those of one hour
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_HOUR = timedelta(hours=1)

# What of an outcome the counters of a location tell. In flight are those of the others.
_COUNTED = {
    Outcome.TEST: "test",
    Outcome.BOUNCED: "bounced",
    Outcome.DELIVERED: "delivered",
    Outcome.SUPPRESSED: "suppressed",
    Outcome.REJECTED: "rejected",
    Outcome.ORPHAN: "orphan",
    Outcome.UNKNOWN: "unknown",
}
_COLUMNS = {
    Dimension.CAMPAIGN: "campaign_id",
    Dimension.PROVIDER: "provider_id",
    Dimension.CATEGORY: "category",
}


@dataclass(slots=True)
class Sought:
    """What a list is narrowed to. ``values`` are ids by dimension, any of them; no tags: ``()``."""

    rights: Rights
    location: int | None = None
    outcome: Outcome | None = None
    values: dict[Dimension, tuple[int, ...]] = field(default_factory=dict)
    since: datetime | None = None
    until: datetime | None = None  # excluded
    pks: set[int] | None = None  # of these only

    @property
    def locations(self) -> frozenset[int] | None:
        """Where to look; ``None`` is everywhere."""
        if self.location is not None:
            return frozenset({self.location} if self.rights.sees(self.location) else ())
        return None if self.rights.everything else self.rights.location_ids

    @property
    def is_plain(self) -> bool:
        """Whether an index alone has the list in its order."""
        one_place = self.locations is None or len(self.locations) == 1
        common = self.outcome in (None, Outcome.DELIVERED)  # nearly all mail is delivered
        return self.pks is None and common and not self.values and one_place

    def condition(self) -> Q:
        """All of it, as a condition for deliveries."""
        wanted = Q()
        if self.locations is not None:
            wanted &= Q(location_id__in=self.locations)
        if self.outcome is not None:
            wanted &= Q(outcome=self.outcome)
        for dimension, ids in self.values.items():
            wanted &= _holds(dimension, ids)
        if self.since:
            wanted &= Q(sent_at__gte=self.since)
        if self.until:
            wanted &= Q(sent_at__lt=self.until)
        return wanted if self.pks is None else wanted & Q(pk__in=self.pks)


def _holds(dimension: Dimension, ids: tuple[int, ...]) -> Q:
    if dimension is not Dimension.TAG:
        return Q(**{f"{_COLUMNS[dimension]}__in": ids})
    wanted = Q(tags=",") if not ids else Q(pk__in=[])
    for value in ids:
        wanted |= Q(tags__contains=f",{value},")
    return wanted


type _Places = dict[tuple[int, int], int]
"""By (location, hour), how many deliveries there may be at most."""


class Found(NamedTuple):
    """The deliveries of a list, and in their order the keys of those that had to be looked for.

    ``back_to`` is how far was looked, where that was not to the end.
    """

    rows: QuerySet[Delivery]
    pks: list[int] | None = None
    back_to: datetime | None = None


def find(sought: Sought, limit: int = FOUND) -> Found:
    """The newest ``limit`` deliveries that are sought, or all in their order if that is cheap."""
    if sought.locations is not None and not sought.locations:
        return Found(Delivery.objects.none())
    if sought.is_plain:
        return Found(Delivery.objects.filter(sought.condition()))
    if sought.pks is None:
        pks, back_to = _walk(sought, limit)
    else:
        rows = Delivery.objects.filter(sought.condition()).order_by("-sent_at", "-pk")
        pks, back_to = list(rows.values_list("pk", flat=True)), None
    return Found(Delivery.objects.filter(pk__in=pks), pks, back_to)


def _walk(sought: Sought, limit: int) -> tuple[list[int], datetime | None]:
    """Keys, and how far back the walk came if it did not come to an end."""
    pks: list[int] = []
    began = time.monotonic()
    held = _by_hour(sought)
    if len(common := _common(sought, held, limit)) >= limit:
        return common, None
    for hours in _looks(sought, held, limit):
        for places in _batches(_places(sought, hours), limit):
            if pks and time.monotonic() - began > LONGEST:
                return pks, _EPOCH + (max(hour for _, hour in places) + 1) * _HOUR
            pks += _newest(sought, places, limit - len(pks))
            if len(pks) >= limit:
                return pks, None
        if time.monotonic() - began > LONGEST:
            return pks, _EPOCH + hours[-1] * _HOUR
    return pks, None


def _common(sought: Sought, held: dict[int, int], limit: int) -> list[int]:
    """Keys, where so much of the newest mail is sought that it is quickest just to follow time.

    Fewer than ``limit``, or none, where it is not.
    """
    if sought.locations is not None:
        return []
    first = number = 0
    for hour in sorted(held, reverse=True):
        first, number = hour, number + held[hour]
        if number >= 2 * limit:
            break
    if number < limit:
        return []
    newer = LocationHour.objects.filter(location_id=0, hour__gte=first, hour__lte=max(held))
    if sum(n for _, n in _numbers(newer, _ALL)) > WALKED:
        return []
    rows = Delivery.objects.filter(sought.condition(), sent_at__gte=_EPOCH + first * _HOUR)
    return list(rows.order_by("-sent_at", "-pk").values_list("pk", flat=True)[:limit])


def _batches(places: _Places, wanted: int) -> Iterator[list[tuple[int, int]]]:
    """Places by whole hours, the newest first, as many at once as may hold what is wanted."""
    batch: list[tuple[int, int]] = []
    held = 0
    by_hour = sorted(places.items(), key=lambda place: -place[0][1])
    for _, hour in groupby(by_hour, key=lambda place: place[0][1]):
        for place, number in hour:
            batch.append(place)
            held += number
        if held >= wanted or len(batch) >= PAIRS:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch


def _looks(sought: Sought, held: dict[int, int], limit: int) -> Iterator[list[int]]:
    """Hours to look through together, the newest first, each time more of them.

    Where the counters of the location, or else of the whole fleet, tell: only those that have
    some, and no more of these than hold what is wanted.
    """
    look: list[int] = []
    width = FIRST
    for hour in sorted(held, reverse=True):
        look.append(hour)
        if len(look) >= width or sum(held[each] for each in look) >= limit:
            yield look
            # Values are looked up by an index; outcomes are read from all locations' rows.
            look, width = [], min(width * GROWTH, 10 * WIDEST if sought.values else WIDEST)
    if look:
        yield look


def _by_hour(sought: Sought) -> dict[int, int]:
    """How many deliveries there may be in each hour, in the location or in all."""
    place = sought.location or 0
    here = LocationHour.objects.filter(location_id=place)
    if sought.since:
        here = here.filter(hour__gte=(sought.since - _EPOCH) // _HOUR)
    if sought.until:
        here = here.filter(hour__lt=-((_EPOCH - sought.until) // _HOUR))
    found = dict(_numbers(*_of_outcome(sought, here)))
    for dimension, ids in sought.values.items():
        if place or dimension in FLEET:
            rows = HourlyCount.objects.filter(location_id=place, hour__in=found)
            held: dict[int, int] = defaultdict(int)
            for hour, number in _numbers(*_of_value(dimension, ids, rows)):
                held[hour] += number
            found = {hour: min(n, held[hour]) for hour, n in found.items() if held[hour]}
    return found


def _numbers(rows: QuerySet[Any], names: tuple[str, ...]) -> Iterator[tuple[int, int]]:
    for hour, *counts in rows.order_by().values_list("hour", *names):
        if number := sum(counts):
            yield hour, number


# --- Which hours of which locations ----------------------------------------------------------


_REFUSED = ("bounced", "suppressed", "rejected", "orphan", "unknown", "test")
_ALL = ("sent", *_REFUSED[1:])  # under a category, what was sent may only be delayed


def _places(sought: Sought, hours: list[int]) -> _Places:
    """The hours of locations that have mail of every kind that is sought."""
    found: _Places | None = None
    for places in _each(sought, hours):
        if found is not None:
            places = {at: min(n, found[at]) for at, n in places.items() if at in found}
        found = places
        if not found:
            break
    return found or {}


def _each(sought: Sought, hours: list[int]) -> Iterator[_Places]:
    """By each thing that is sought, what the counters know."""
    for dimension, ids in sought.values.items():
        # Each hour by itself, so that the index of dimension, hour and value leads to its rows.
        rows = HourlyCount.objects.filter(hour__in=hours)
        yield _by_place(sought, *_of_value(dimension, ids, rows))
    if sought.outcome is not None or not sought.values:
        yield _by_place(sought, *_of_outcome(sought, LocationHour.objects.filter(hour__in=hours)))


def _of_value(
    dimension: Dimension, ids: tuple[int, ...], rows: QuerySet[HourlyCount]
) -> tuple[QuerySet[Any], tuple[str, ...]]:
    """The counters of any of some values, and the columns that count them."""
    # Values too many to be counted apart are in (other); what has no tag is in the empty one.
    also = OTHER_KEY if ids else ""
    others = Value.objects.filter(dimension=dimension, text=also).values_list("pk", flat=True)
    rows = rows.filter(dimension=dimension, value_id__in={*ids, *others})
    return rows, _REFUSED if dimension is Dimension.CATEGORY else _ALL


def _of_outcome(
    sought: Sought, rows: QuerySet[LocationHour]
) -> tuple[QuerySet[Any], tuple[str, ...]]:
    """The counters of locations that have the outcome, and the columns that count it."""
    if sought.outcome is None:
        return rows, _ALL
    if name := _COUNTED.get(sought.outcome):
        return rows.filter(**{f"{name}__gt": 0}), (name,)
    settled = counted_sql("delivered + bounced")
    return rows.extra(where=[f"{counted_sql('sent')} > {settled}"]), ("sent",)  # noqa: S610


def _by_place(sought: Sought, rows: QuerySet[Any], names: tuple[str, ...]) -> _Places:
    places = sought.locations
    rows = rows.exclude(location_id=0) if places is None else rows.filter(location_id__in=places)
    found: dict[tuple[int, int], int] = defaultdict(int)
    for location, hour, *counts in rows.order_by().values_list("location_id", "hour", *names):
        if number := sum(counts):
            found[location, hour] += number
    return found


# --- The deliveries there ----------------------------------------------------------------------


# PostgreSQL would rather read all of a location than look up hour by hour, if it is free to join;
# SQLite keeps the order of a cross join.
_HERE = (
    "ingest_delivery.location_id = place.id AND ingest_delivery.sent_at >= place.since "
    "AND ingest_delivery.sent_at < place.until {condition}"
)
_ORDER = "ORDER BY ingest_delivery.sent_at DESC, ingest_delivery.id DESC LIMIT {limit}"
_PLACES = "WITH place(id, since, until) AS (VALUES {rows}) SELECT ingest_delivery.id FROM place"
_NEWEST = {
    "postgresql": (
        f"{_PLACES} CROSS JOIN LATERAL (SELECT ingest_delivery.id, ingest_delivery.sent_at "  # noqa: S608
        f"FROM ingest_delivery WHERE {_HERE} {_ORDER}) ingest_delivery {_ORDER}"
    ),
    "sqlite": f"{_PLACES} CROSS JOIN ingest_delivery WHERE {_HERE} {_ORDER}",
}


def _newest(sought: Sought, places: Sequence[tuple[int, int]], limit: int) -> list[int]:
    """Keys of the newest ones there. The join follows the index of location and time."""
    query = Delivery.objects.filter(sought.condition()).query
    condition, parameters = query.where.as_sql(query.get_compiler("default"), connection)
    day = horizon().days_hour
    rows = ",".join(
        f"({int(place)},{_bound(hour)},{_bound(hour + (24 if hour < day else 1))})"
        for place, hour in places
    )
    statement = _NEWEST[connection.vendor].format(
        rows=rows, condition=f"AND {condition}" if condition else "", limit=int(limit)
    )
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return [pk for (pk,) in cursor.fetchall()]


def _bound(hour: int) -> str:
    """The beginning of an hour, as the database compares it with a time of sending."""
    moment = _EPOCH + hour * _HOUR
    if connection.vendor == "sqlite":
        return f"'{moment:%Y-%m-%d %H:%M:%S}'"
    return f"TIMESTAMPTZ '{moment:%Y-%m-%d %H:%M:%S}+00'"


# --- By words ----------------------------------------------------------------------------------


def found_by(term: str, rights: Rights) -> set[int]:
    """Keys of some deliveries whose recipient begins with ``term``, or whose message id it is.

    Each by its own index, before anything else is asked: beside an OR or an order the planners
    prefer to walk the whole table.
    """
    recipient = term.lower()
    prefix = Q(recipient__startswith=recipient)
    if connection.vendor == "sqlite":  # its LIKE uses no index
        prefix &= Q(recipient__gte=recipient, recipient__lt=recipient + "\U0010ffff")
    by_recipient = Delivery.objects.filter(prefix)
    by_message = Delivery.objects.filter(message_id=term.removeprefix("<").removesuffix(">"))
    return {
        pk
        for rows in (by_recipient, by_message)
        for pk in restrict(rows.order_by(), rights).values_list("pk", flat=True)[:FOUND]
    }


def campaigns_named(term: str) -> tuple[int, ...]:
    """Ids of campaigns whose id a term is, or whose name begins so: the first ``CAMPAIGNS``."""
    exact = Q(text=term) | Q(text__endswith=":" + term)
    named = Value.objects.filter(
        exact | Q(label__istartswith=term), dimension=Dimension.CAMPAIGN
    ).exclude(text="")
    return tuple(named.order_by("pk").values_list("pk", flat=True)[:CAMPAIGNS])
