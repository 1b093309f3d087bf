"""What is read from the tables: events, deliveries, and the minutes of the last hour."""

import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec
from django.db import connection
from django.db.models import F, Max, Q, QuerySet, Sum
from django.db.models.functions import Coalesce
from django.http import Http404

from dashboard.access import Rights, restrict, shown_id, shown_recipient, shown_text
from dashboard.bounded import within
from dashboard.charts import Minute
from dashboard.event_search import EventSearch, beginnings
from dashboard.filters import Filter, FilterError
from dashboard.words import class_word, flag_words
from ingest import details
from ingest.counted import LETTERS, read_ways
from ingest.models import (
    CountedValue,
    CountedValues,
    Delivery,
    Event,
    MinuteCount,
    ReasonHour,
    Value,
    tag_ids,
)
from ingest.retention import horizon
from ingest.vocabulary import (
    MOST_VALUES,
    NONE_KEY,
    BounceClass,
    Category,
    Dimension,
    EventKind,
    Flag,
    Outcome,
)

SCAN_SECONDS = 0.4  # that a page of events is looked for
SCAN_GROWTH = 8  # times as many ids, at most, in the next stretch as in the last one
SHORT_WALK = 0.25  # seconds that deliveries are looked for from the newest one back
FEW_REFUSALS = 50_000  # events, up to which a reason's deliveries are found by them
REFUSED_BEFORE = timedelta(days=1)  # its sending, at most, by clocks that disagree
HOUR = timedelta(hours=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


# --- Events ------------------------------------------------------------------------------


class Way(NamedTuple):
    """What a delivery's attempts went through in one dimension: texts, "" where none says."""

    decided: str = ""
    tried: tuple[str, ...] = ()  # others that tried too
    deferred: tuple[str, ...] = ()  # where temporary failures came from; empty: as decided
    uncounted: frozenset[str] = frozenset()  # of all these, what shares ``(other)``


class EventRow(msgspec.Struct, frozen=True, gc=False):
    """One event with what is known of its delivery, as the stream, the feed and the API show it.

    ``outcome`` and the columns after it are the delivery's, 0 or empty without one. Texts are
    empty where unknown.
    """

    cursor: int
    kind: EventKind
    occurred_at: datetime
    received_at: datetime
    location_id: int
    location: str  # HighLevel's id
    location_name: str
    company: str
    event_id: str  # the provider's
    message_id: str
    recipient: str
    code: int | None
    enhanced: str
    message: str  # the receiver's words
    reason: str  # Mailgun's word
    reason_id: int | None
    own_category: int  # of this event's refusal, as it was classified when it came
    own_class: int
    own_provider: str  # as this event names it
    ip: str
    pool: str
    mx: str
    delivery_id: int | None
    sent_at: datetime | None
    outcome: int
    flags: int
    bounce_class: int
    category: int
    delivery_code: int | None  # of the decisive failure; the event's own without a delivery
    campaign: str
    campaign_label: str
    step: str
    provider: str
    domain: str
    sending_domain: str
    tags: tuple[str, ...]
    deferral_categories: tuple[str, ...]
    ips: Way
    pools: Way
    mxs: Way
    uncounted: frozenset[str]  # names of the dimensions in which it shares ``(other)``

    def way(self, name: str) -> Way:
        """What the attempts went through: by ``ip``, ``pool`` or ``mx``."""
        return self.ips if name == "ip" else self.pools if name == "pool" else self.mxs

    def as_json(self) -> dict[str, Any]:
        """The contract's event row, ready for JSON."""
        flags = self.flags
        return {
            "cursor": self.cursor,
            "event_id": self.event_id,
            "kind": self.kind.word,
            "occurred_at": self.occurred_at.isoformat(),
            "received_at": self.received_at.isoformat(),
            "location": self.location,
            "message_id": self.message_id,
            "recipient": self.recipient,
            "code": self.code,
            "enhanced": self.enhanced,
            "message": self.message,
            "reason": self.reason,
            "reason_id": self.reason_id,
            "category": Category(self.own_category).word if self.own_category else None,
            "class": BounceClass(self.own_class).word if self.own_class else None,
            "ip": self.ip or None,
            "pool": self.pool or None,
            "mx": self.mx or None,
            "tags": self.tags,
            "campaign": self.campaign or None,
            "step": self.step or None,
            "provider": self.provider or None,
            "delivery": self.delivery_id,
            "outcome": Outcome(self.outcome).word if self.outcome else None,
            "late": bool(flags & Flag.LATE),
            "recovered": bool(flags & Flag.RECOVERED),
            "inferred": bool(flags & Flag.INFERRED),
        }


def shown_event(row: EventRow, rights: Rights) -> EventRow:
    """An event as it may be seen: where addresses are masked, in its texts too."""
    if not rights.masks(row.location_id):
        return row
    place, whole = row.location_id, row.recipient
    return msgspec.structs.replace(
        row,
        recipient=shown_recipient(rights, place, whole),
        message_id=shown_id(rights, place, row.message_id, whole),
        message=shown_text(rights, place, row.message, whole),
        reason=shown_text(rights, place, row.reason, whole),
    )


_EVENTS = """
SELECT e.id, e.kind, e.occurred_at, e.received_at, e.location_id, e.code, e.detail,
       e.is_test, e.category, e.bounce_class, e.reason_id, e.provider_id, e.ip_id, e.pool_id,
       e.mx_id, l.ref, l.name, l.company_ref,
       d.id, d.message_id, d.recipient, d.sent_at, d.outcome, d.flags, d.bounce_class,
       d.category, d.code, d.tags, d.ways, d.campaign_id, d.step_id, d.provider_id, d.domain_id,
       d.sending_domain_id, d.ip_id, d.pool_id, d.mx_id
FROM ingest_event e
LEFT JOIN ingest_location l ON l.id = e.location_id
LEFT JOIN ingest_delivery d ON d.id = e.delivery_id
WHERE {where}
ORDER BY e.id LIMIT %s
"""
# Columns of it: of the event's own values and the delivery's; these are the last ones.
_OWN, _DELIVERY, _TAGS, _WAYS, _VALUES = slice(11, 15), 18, 27, 28, 29
_KINDS = {int(kind): kind for kind in EventKind}


def event_rows(*, after: int, until: int | None = None, limit: int) -> list[EventRow]:
    """Events with ``after < cursor <= until`` in the order of their cursors, at most ``limit``.

    Three queries, whatever the number of rows, and one when there are none.
    """
    if until is None:
        return _select_events("e.id > %s", [after], limit=limit)
    return _select_events("e.id > %s AND e.id <= %s", [after, until], limit=limit)


def rows_at(cursors: Collection[int]) -> list[EventRow]:
    """The events with these cursors, in their order."""
    if not cursors:
        return []
    # In the text of the statement: integers of our own, and more than a driver's parameters.
    found = ",".join(str(int(cursor)) for cursor in cursors)
    return _select_events(f"e.id IN ({found})", [], limit=len(cursors))


def _select_events(where: str, params: list[int], *, limit: int) -> list[EventRow]:
    with connection.cursor() as cursor:
        cursor.execute(_EVENTS.format(where=where), [*params, limit])
        rows = cursor.fetchall()
    if not rows:
        return []
    known = [row for row in rows if row[_DELIVERY] is not None]
    held = [(row[4], _held(row[_VALUES:], row[_TAGS], row[_WAYS])) for row in known]
    named = names_of(
        {pk for _, ids in held for pk in ids} | {pk for row in rows for pk in row[_OWN] if pk}
    )
    shared = _sharing_other(held)
    return [_event_row(row, named, shared.get(row[4], _NONE)) for row in rows]


def _held(values: Sequence[int], tags: str, ways: str) -> list[int]:
    """Ids of all values that a delivery holds."""
    ids = [*values, *tag_ids(tags)]
    if ways != ",":
        ids += [pk for letter in LETTERS.values() for pk in read_ways(ways, f"a{letter}")]
    return ids


def _event_row(row: tuple[Any, ...], named: Mapping[int, "Named"], shared: Set[int]) -> EventRow:
    (
        cursor, kind, occurred_at, received_at, location_id, code, detail_bytes, is_test,
        own_category, own_class, reason_id, own_provider, ip, pool, mx, ref, name, company,
        delivery_id, message_id, recipient, sent_at, outcome, flags, bounce_class, category,
        delivery_code, tags, ways, *values,
    ) = row  # fmt: skip
    known = delivery_id is not None
    held = _Held(values, tags or ",", ways or ",", named, shared)
    detail = details.load(detail_bytes, code, is_test, *(held.text(pk) for pk in (ip, pool, mx)))
    campaign, step, provider, domain, sending_domain = (held.text(pk) for pk in values[:5])
    return EventRow(
        cursor=cursor,
        kind=_KINDS[kind],
        occurred_at=_aware(occurred_at),
        received_at=_aware(received_at),
        location_id=location_id,
        location=ref or "",
        location_name=name or "",
        company=company or "",
        event_id=detail.event_id,
        message_id=message_id if known else detail.message_id,
        recipient=recipient if known else detail.recipient,
        code=code,
        enhanced=detail.enhanced,
        message=detail.message or detail.description,
        reason=detail.reason,
        reason_id=reason_id,
        own_category=own_category,
        own_class=own_class,
        own_provider=held.text(own_provider),
        ip=detail.ip,
        pool=detail.pool,
        mx=detail.mx,
        delivery_id=delivery_id,
        sent_at=_aware(sent_at) if known else None,
        outcome=outcome or 0,
        flags=flags or 0,
        bounce_class=bounce_class or 0,
        category=category or 0,
        delivery_code=delivery_code if known else code,
        campaign=campaign,
        campaign_label=named.get(values[0], UNNAMED).label,
        step=step,
        provider=provider,
        domain=domain,
        sending_domain=sending_domain,
        tags=held.tags,
        deferral_categories=held.deferral_categories,
        ips=held.way(Dimension.IP) if known else Way(detail.ip),
        pools=held.way(Dimension.POOL) if known else Way(detail.pool),
        mxs=held.way(Dimension.MX) if known else Way(detail.mx),
        uncounted=held.uncounted,
    )


def _aware(stored: datetime) -> datetime:
    """A time as the database driver gives it: SQLite's is UTC without saying so."""
    return stored if stored.tzinfo else stored.replace(tzinfo=UTC)


# --- Values ------------------------------------------------------------------------------


class Named(NamedTuple):
    """A value's text and the name it is shown by ("" = its text)."""

    text: str
    label: str


UNNAMED = Named("", "")


def names_of(ids: Collection[int]) -> dict[int, Named]:
    """Texts and labels of values by their ids, in one query."""
    if not ids:
        return {}
    # In the text of the statement: integers of our own, and more than a driver's parameters.
    found = ",".join(str(int(pk)) for pk in ids)
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT id, text, label FROM ingest_value WHERE id IN ({found})")  # noqa: S608
        return {pk: Named(text, label) for pk, text, label in cursor.fetchall()}


def tag_texts(tags: str, named: Mapping[int, Named]) -> tuple[str, ...]:
    """A delivery's tags in words, in alphabetical order."""
    return tuple(sorted(named[pk].text for pk in tag_ids(tags) if pk in named))


_NONE: frozenset[Any] = frozenset()


def _sharing_other(held: Iterable[tuple[int, list[int]]]) -> Mapping[int, Set[int]]:
    """By location, the values that are not counted apart there. One query where none can be."""
    places: defaultdict[int, set[int]] = defaultdict(set)
    for location_id, held_ids in held:
        places[location_id].update(held_ids)
    full = CountedValues.objects.filter(location_id__in=places, used__gte=MOST_VALUES)
    capped = set(full.values_list("location_id", "dimension"))
    if not capped:
        return {}
    ids = {pk for location_id, _ in capped for pk in places[location_id]}
    values = Value.objects.filter(pk__in=ids).exclude(text="").values_list("pk", "dimension")
    dimensions = dict(values)
    asked = {
        (location_id, pk)
        for location_id, dimension in capped
        for pk in places[location_id]
        if dimensions.get(pk) == dimension
    }
    places_of = {location_id for location_id, _ in asked}
    apart = CountedValue.objects.filter(location_id__in=places_of, value_id__in=dimensions)
    shared = defaultdict(set)
    for location_id, pk in asked - set(apart.values_list("location_id", "value_id")):
        shared[location_id].add(pk)
    return shared


class _Held:
    """The values that one delivery holds, in words.

    ``values`` are ids, in the order of NAMES; ``shared`` those that share ``(other)``.
    """

    NAMES = ("campaign", "step", "provider", "domain", "sending_domain", "ip", "pool", "mx")
    __slots__ = ("_named", "_shared", "_tags", "_values", "_ways")

    def __init__(
        self,
        values: Sequence[int],
        tags: str,
        ways: str,
        named: Mapping[int, Named],
        shared: Set[int] = _NONE,
    ) -> None:
        self._values, self._tags, self._ways = values, tags, ways
        self._named, self._shared = named, shared

    def text(self, pk: int) -> str:
        """A value's text; "" of what has none."""
        return self._named.get(pk, UNNAMED).text

    @property
    def tags(self) -> tuple[str, ...]:
        """In alphabetical order."""
        return tag_texts(self._tags, self._named)

    @property
    def deferral_categories(self) -> tuple[str, ...]:
        """Of the temporary failures, in the order of their numbers."""
        if self._ways == ",":
            return ()
        return tuple(Category(c).word for c in sorted(read_ways(self._ways, "c")))

    def way(self, dimension: Dimension) -> Way:
        """What its attempts went through."""
        decided = self._values[_PLACE_OF[dimension]]
        if self._ways == "," and not self._shared:
            return _one_way(self.text(decided))
        letter = LETTERS[dimension]
        tried = read_ways(self._ways, f"a{letter}")
        deferred = read_ways(self._ways, f"d{letter}")
        shared = [pk for pk in (decided, *tried) if pk in self._shared]
        return Way(
            self.text(decided),
            tuple(sorted(self.text(pk) for pk in tried)),
            tuple(sorted(self.text(pk) for pk in deferred)),
            frozenset(self.text(pk) for pk in shared),
        )

    @property
    def uncounted(self) -> frozenset[str]:
        """Names of the dimensions in which it shares ``(other)``, attempts left aside."""
        if not self._shared:
            return _NONE
        held = [*zip(self.NAMES[:5], self._values, strict=False)]
        held += [("tag", pk) for pk in tag_ids(self._tags)]
        return frozenset(name for name, pk in held if pk in self._shared)


_PLACE_OF = {dimension: _Held.NAMES.index(dimension.word) for dimension in LETTERS}
# Most deliveries take one way, and ways are few.
_one_way = lru_cache(maxsize=4096)(Way)


# --- Cursors and pages of events -----------------------------------------------------------


def newest_cursor() -> int:
    """The cursor of the newest event; 0 when there is none."""
    return Event.objects.aggregate(newest=Max("id"))["newest"] or 0


def oldest_cursor() -> int:
    """The first cursor that is still kept, as far as anything was let go of; else 1."""
    return horizon().events_cursor + 1


def is_pruned(after: int) -> bool:
    """Whether events that followed this cursor are no longer kept. 0 asks for whatever is kept."""
    return 0 < after < horizon().events_cursor


def events_complete_from(filter: Filter, *, after: int = 0) -> datetime | None:
    """From when on all events are kept, where a question goes back further; else ``None``.

    What follows a cursor that is still kept is complete.
    """
    kept = horizon()
    return _passed(filter, kept.events_hour) if after <= kept.events_cursor else None


def deliveries_complete_from(filter: Filter) -> datetime | None:
    """From when on all deliveries are kept, where a question goes back further; else ``None``."""
    kept = horizon()
    by_events = filter.clock == "event"
    return _passed(filter, max(kept.deliveries_hour, kept.events_hour * by_events))


def _passed(filter: Filter, hour: int) -> datetime | None:
    moment = _EPOCH + hour * HOUR
    return moment if hour and (filter.start is None or filter.start < moment) else None


class EventsPage(NamedTuple):
    """A stretch of the events: those that match, the last cursor looked at, and if more follow."""

    rows: list[EventRow]
    cursor: int
    more: bool


def events_page(filter: Filter, rights: Rights, *, after: int, limit: int) -> EventsPage:
    """Up to ``limit`` events that match and may be seen, after a cursor, in order.

    Looks for no longer than ``SCAN_SECONDS`` or so: a rare match may take several pages, some of
    them empty. Raises ``Http404`` for a location that may not be seen.
    """
    filter.check_locations(rights)
    newest, search = newest_cursor(), EventSearch(filter, rights)
    found: list[EventRow] = []
    width = search.first or newest
    began = started = time.monotonic()
    while after < newest and len(found) < limit and started - began <= SCAN_SECONDS:
        until, wanted = min(after + width, newest), limit - len(found)
        cursors = search.cursors(after, until, wanted)
        found += [row for row in rows_at(cursors) if filter.matches(row)]
        if not cursors and width == search.first and filter.start and filter.clock != "sent":
            until = max(until, beginnings.before(filter.start, newest))
        after = cursors[-1] if len(cursors) == wanted else until
        now = time.monotonic()
        width = _next_width(width, spent=now - started, left=began + SCAN_SECONDS - now)
        started = now
    return EventsPage([shown_event(row, rights) for row in found], after, after < newest)


def newest_events(
    filter: Filter, rights: Rights, *, after: int, limit: int, kinds: Collection[int] = ()
) -> list[EventRow]:
    """Up to ``limit`` of the newest events after a cursor that match, newest first.

    ``kinds``: only of these. Looks at all events after the cursor, at worst: let these be few.
    """
    events = Event.objects.filter(*filter.event_conditions(), pk__gt=after)
    if (locations := filter.location_ids(rights)) is not None:
        events = events.filter(location_id__in=locations)
    if kinds:
        events = events.filter(kind__in=kinds)
    rows = rows_at(list(events.order_by("-pk").values_list("pk", flat=True)[:limit]))
    return [shown_event(row, rights) for row in reversed(rows) if filter.matches(row)]


def _next_width(width: int, *, spent: float, left: float) -> int:
    """How many ids to look through in the time that is left, by how long the last ones took."""
    fitting = left / spent if spent else SCAN_GROWTH
    return max(1, int(width * max(0, min(SCAN_GROWTH, fitting))))


# --- Deliveries --------------------------------------------------------------------------


class DeliveryRow(NamedTuple):
    """One delivery as the list and the API show it."""

    id: int
    location_id: int
    location: str
    message_id: str
    recipient: str
    sent_at: datetime
    outcome: Outcome
    flags: int
    bounce_class: int
    category: Category
    code: int | None
    campaign: Named
    step: str
    provider: str
    domain: str
    sending_domain: str
    ip: str
    pool: str
    mx: str
    reason_id: int | None
    tags: tuple[str, ...]
    deferral_categories: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """The contract's delivery row, ready for JSON."""
        class_ = class_word(self.outcome, self.bounce_class)
        return {
            "id": self.id,
            "location": self.location,
            "message_id": self.message_id,
            "recipient": self.recipient,
            "sent_at": self.sent_at.isoformat(),
            "outcome": self.outcome.word,
            "late": bool(self.flags & Flag.LATE),
            "recovered": bool(self.flags & Flag.RECOVERED),
            "inferred": bool(self.flags & Flag.INFERRED),
            "is": flag_words(self.flags),
            "category": self.category.word if self.category else None,
            "class": None if class_ == NONE_KEY else class_,
            "code": self.code,
            "deferral_categories": self.deferral_categories,
            "tags": self.tags,
            "campaign": self.campaign.text or None,
            "campaign_label": self.campaign.label or None,
            "step": self.step or None,
            "provider": self.provider or None,
            "domain": self.domain or None,
            "sending_domain": self.sending_domain or None,
            "ip": self.ip or None,
            "pool": self.pool or None,
            "mx": self.mx or None,
            "reason_id": self.reason_id,
        }


_DELIVERY_COLUMNS = (
    "id", "location_id", "location__ref", "message_id", "recipient", "sent_at", "outcome", "flags",
    "bounce_class", "category", "code", "reason_id", "tags", "ways",
    *(f"{name}_id" for name in _Held.NAMES),
)  # fmt: skip


class DeliveriesPage(NamedTuple):
    """A page of deliveries, newest first.

    ``before`` asks for the page of older ones, ``after`` for that of newer ones, if there are any.
    """

    rows: list[DeliveryRow]
    before: str | None
    after: str | None = None


def deliveries_page(
    filter: Filter,
    rights: Rights,
    *,
    before: str = "",
    after: str = "",
    limit: int,
    walk: float = SHORT_WALK,
) -> DeliveriesPage:
    """Up to ``limit`` deliveries that match and may be seen, the newest by sending first.

    ``before`` and ``after`` are ends of pages: what comes or goes meanwhile moves no row to
    another one. The newest page is always full: an ``after`` with fewer rows gives it instead.
    For ``walk`` seconds they are looked for in their order, afterwards by whatever is quickest.

    Raises ``FilterError`` for an end that no page gave, ``Http404`` for a location that may not
    be seen.
    """
    filter.check_locations(rights)
    matching = restrict(filter.apply(of_reasons(filter)), rights)
    if after:
        found = _newest(
            _later(matching, *_read_end("after", after)), limit + 1, walk, backwards=True
        )
        if len(found) <= limit:
            return deliveries_page(filter, rights, limit=limit, walk=walk)
        rows = _in_order(found[limit - 1 :: -1], rights)
        return DeliveriesPage(rows, end_of(rows[-1]), end_of(rows[0]))
    deliveries = _earlier(matching, *_read_end("before", before)) if before else matching
    found = _newest(deliveries, limit + 1, walk)
    rows = _in_order(found[:limit], rights)
    more = end_of(rows[-1]) if limit < len(found) else None
    return DeliveriesPage(rows, more, end_of(rows[0]) if before and rows else None)


def end_of(row: DeliveryRow) -> str:
    """The end of a page whose last (or first) row this is."""
    return f"{_micros(row.sent_at)}.{row.id}"


def _earlier(deliveries: QuerySet[Delivery], sent_at: datetime, pk: int) -> QuerySet[Delivery]:
    earlier = Q(sent_at__lt=sent_at) | Q(sent_at=sent_at, pk__lt=pk)
    return deliveries.filter(earlier, sent_at__lte=sent_at)


def _later(deliveries: QuerySet[Delivery], sent_at: datetime, pk: int) -> QuerySet[Delivery]:
    later = Q(sent_at__gt=sent_at) | Q(sent_at=sent_at, pk__gt=pk)
    return deliveries.filter(later, sent_at__gte=sent_at)


def _in_order(pks: Sequence[int], rights: Rights) -> list[DeliveryRow]:
    order = {pk: i for i, pk in enumerate(pks)}
    rows = _delivery_rows(Delivery.objects.filter(pk__in=order), rights)
    return sorted(rows, key=lambda row: order[row.id])


def _newest(
    deliveries: QuerySet[Delivery], limit: int, walk: float, *, backwards: bool = False
) -> list[int]:
    """Keys of the newest deliveries: an index may tell them, which holds most of what is asked.

    From the newest one back they are soon found, unless they are rare: then all that match are
    sought, in whatever order is quickest, and sorted. ``backwards``: the oldest ones.
    """

    def found(sent_at: Any) -> list[int]:
        order = (sent_at.asc(), "pk") if backwards else (sent_at.desc(), "-pk")
        return list(deliveries.order_by(*order).values_list("pk", flat=True)[:limit])

    soon = within(walk, lambda: found(F("sent_at")))
    # An expression, so that no index is taken for its order.
    return found(Coalesce("sent_at", "sent_at")) if soon is None else soon


def of_reasons(filter: Filter) -> QuerySet[Delivery]:
    """All deliveries; for reasons that are seldom given, those that have an event with one."""
    reasons = [value for value in filter.values("reason") if value != NONE_KEY]
    if not reasons or len(reasons) < len(filter.values("reason")):
        return Delivery.objects.all()
    given = ReasonHour.objects.filter(reason_id__in=reasons)
    refusals = Event.objects.filter(reason_id__in=reasons)
    if filter.start and filter.clock != "event":  # no mail was refused before it was sent
        since = filter.start - REFUSED_BEFORE
        given = given.filter(hour__gte=(since - _EPOCH) // HOUR)
        refusals = refusals.filter(occurred_at__gte=since)
    if given.aggregate(n=Sum("events", default=0))["n"] > FEW_REFUSALS:
        return Delivery.objects.all()
    return Delivery.objects.filter(pk__in=refusals.values("delivery_id"))


def get_delivery(pk: int, rights: Rights) -> DeliveryRow:
    """One delivery. Raises ``Http404`` alike for one that is missing and one of others."""
    if rows := _delivery_rows(restrict(Delivery.objects.filter(pk=pk), rights), rights):
        return rows[0]
    raise Http404("There is no such delivery.")


def recipient_of(delivery: DeliveryRow) -> str:
    """The whole address, whoever reads: to look things up by, never to be shown."""
    return Delivery.objects.values_list("recipient", flat=True).get(pk=delivery.id)


def deliveries_like(delivery: DeliveryRow, rights: Rights, *, limit: int) -> list[DeliveryRow]:
    """The newest deliveries to the same address that may be seen.

    Where addresses are masked, of the same location only: others would tell whose it is.
    """
    if not (recipient := recipient_of(delivery)):
        return []
    to = restrict(Delivery.objects.filter(recipient=recipient), rights)
    if rights.masks(delivery.location_id):
        to = to.filter(location_id=delivery.location_id)
    elif rights.masked_ids:
        to = to.exclude(location_id__in=rights.masked_ids)
    # An expression, so that the index of recipients is taken and not that of times.
    newest = to.order_by(Coalesce("sent_at", "sent_at").desc(), "-pk")
    return _in_order(list(newest.values_list("pk", flat=True)[:limit]), rights)


def events_of(delivery: DeliveryRow, rights: Rights) -> list[EventRow]:
    """The events of one delivery as they may be seen, in the order that they happened."""
    rows = _select_events("e.delivery_id = %s", [delivery.id], limit=1_000)
    rows.sort(key=lambda row: (row.occurred_at, row.cursor))
    return [shown_event(row, rights) for row in rows]


def _delivery_rows(deliveries: QuerySet[Delivery], rights: Rights) -> list[DeliveryRow]:
    rows = list(deliveries.values_list(*_DELIVERY_COLUMNS))
    named = names_of({pk for row in rows for pk in _held(row[14:], row[12], row[13])})
    return [_shown(_delivery_row(row, named), rights) for row in rows]


def _shown(row: DeliveryRow, rights: Rights) -> DeliveryRow:
    if not rights.masks(row.location_id):
        return row
    message_id = shown_id(rights, row.location_id, row.message_id, row.recipient)
    recipient = shown_recipient(rights, row.location_id, row.recipient)
    return row._replace(recipient=recipient, message_id=message_id)


def _delivery_row(row: tuple[Any, ...], named: Mapping[int, Named]) -> DeliveryRow:
    (
        pk, location_id, ref, message_id, recipient, sent_at, outcome, flags, bounce_class,
        category, code, reason_id, tags, ways, *values,
    ) = row  # fmt: skip
    held = _Held(values, tags, ways, named)
    return DeliveryRow(
        id=pk,
        location_id=location_id,
        location=ref,
        message_id=message_id,
        recipient=recipient,
        sent_at=sent_at,
        outcome=Outcome(outcome),
        flags=flags,
        bounce_class=bounce_class,
        category=Category(category),
        code=code,
        campaign=named.get(values[0], UNNAMED),
        **{name: held.text(pk) for name, pk in zip(_Held.NAMES[1:], values[1:], strict=True)},
        reason_id=reason_id,
        tags=held.tags,
        deferral_categories=held.deferral_categories,
    )


def _micros(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)


def _read_end(name: str, text: str) -> tuple[datetime, int]:
    try:
        micros, pk = (int(part) for part in text.split("."))
        return _EPOCH + timedelta(microseconds=micros), pk
    except (ValueError, OverflowError):
        raise FilterError(f"{name} is not the end of a page.") from None


# --- The last hour -----------------------------------------------------------------------

_DRAWN = {
    int(kind): kind.word
    for kind in (
        EventKind.DELIVERED,
        EventKind.DEFERRED,
        EventKind.BOUNCED,
        EventKind.COMPLAINED,
    )
}


def minutes(filter: Filter, rights: Rights, *, now: datetime, count: int = 60) -> list[Minute]:
    """Events a minute and kind over the last ``count`` minutes, by their own clock, oldest first.

    They are counted by location only: of the filter, its locations and companies hold.
    """
    this = int(now.timestamp()) // 60
    counters = MinuteCount.objects.filter(
        minute__gt=this - count, minute__lte=this, kind__in=_DRAWN
    )
    locations = filter.location_ids(rights)
    if locations is not None:
        counters = counters.filter(location_id__in=locations)
    found: dict[int, dict[str, int]] = defaultdict(dict)
    summed_up = counters.order_by().values_list("minute", "kind").annotate(n=Sum("events"))
    for minute, kind, events in summed_up:
        found[minute][_DRAWN[kind]] = events
    return [
        Minute(at=_EPOCH + timedelta(minutes=minute), **found[minute])
        for minute in range(this - count + 1, this + 1)
    ]
