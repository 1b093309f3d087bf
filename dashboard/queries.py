"""What is read from the tables: events, deliveries, and the minutes of the last hour."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import msgspec
from django.db import connection
from django.db.models import Max, Min, Q, QuerySet, Sum
from django.http import Http404

from dashboard.access import Rights, restrict
from dashboard.charts import Minute
from dashboard.filters import Filter, FilterError, class_word, flag_words
from ingest.fold import load_facts
from ingest.models import Delivery, Event, MinuteCount, tag_ids
from ingest.normalize import Detail
from ingest.vocabulary import NONE_KEY, Category, EventKind, Flag, Outcome

SCAN_CHUNK = 2_000
SCAN_MOST = 20_000
HOUR = timedelta(hours=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


# --- Events ------------------------------------------------------------------------------


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
    reason: str
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


_EVENTS = """
SELECT e.id, e.kind, e.occurred_at, e.received_at, e.location_id, e.code, e.detail,
       l.ref, l.name, l.company_ref,
       d.id, d.message_id, d.recipient, d.sent_at, d.outcome, d.flags, d.bounce_class,
       d.category, d.code, d.step, d.campaign_id, d.provider_id, d.domain_id,
       d.sending_domain_id, d.tags
FROM ingest_event e
LEFT JOIN ingest_location l ON l.id = e.location_id
LEFT JOIN ingest_delivery d ON d.id = e.delivery_id
WHERE {where}
ORDER BY e.id LIMIT %s
"""
_read_detail = msgspec.json.Decoder(Detail).decode
_KINDS = {int(kind): kind for kind in EventKind}


def event_rows(*, after: int, until: int | None = None, limit: int) -> list[EventRow]:
    """Events with ``after < cursor <= until`` in the order of their cursors, at most ``limit``.

    Two queries, whatever the number of rows, and one when there are none.
    """
    return _event_rows(after, until, limit, None)


def _event_rows(
    after: int, until: int | None, limit: int, locations: Collection[int] | None
) -> list[EventRow]:
    where, params = "e.id > %s", [after]
    if until is not None:
        where += " AND e.id <= %s"
        params.append(until)
    if locations is not None:
        where += f" AND e.location_id IN ({','.join(map(str, sorted(locations))) or 'NULL'})"
    return _select_events(where, params, limit=limit)


def _select_events(where: str, params: list[int], *, limit: int) -> list[EventRow]:
    with connection.cursor() as cursor:
        cursor.execute(_EVENTS.format(where=where), [*params, limit])
        rows = cursor.fetchall()
    if not rows:
        return []
    named = names_of(_value_ids(rows))
    return [_event_row(row, named) for row in rows]


def _value_ids(rows: Iterable[tuple[Any, ...]]) -> set[int]:
    ids: set[int] = set()
    tags: set[str] = set()
    for row in rows:
        if row[10] is not None:
            ids.update(row[20:24])
            tags.add(row[24])
    return ids.union(*(tag_ids(text) for text in tags))


def _event_row(row: tuple[Any, ...], named: Mapping[int, "Named"]) -> EventRow:
    (
        cursor, kind, occurred_at, received_at, location_id, code, detail_text, ref, name, company,
        delivery_id, message_id, recipient, sent_at, outcome, flags, bounce_class, category,
        delivery_code, step, campaign, provider, domain, sending_domain, tags,
    ) = row  # fmt: skip
    detail = _read_detail(detail_text)
    known = delivery_id is not None
    campaign_named = named.get(campaign, UNNAMED)
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
        delivery_id=delivery_id,
        sent_at=_aware(sent_at) if known else None,
        outcome=outcome or 0,
        flags=flags or 0,
        bounce_class=bounce_class or 0,
        category=category or 0,
        delivery_code=delivery_code if known else code,
        campaign=campaign_named.text,
        campaign_label=campaign_named.label,
        step=step or "",
        provider=named.get(provider, UNNAMED).text,
        domain=named.get(domain, UNNAMED).text,
        sending_domain=named.get(sending_domain, UNNAMED).text,
        tags=tag_texts(tags, named) if known else (),
    )


def _aware(stored: datetime) -> datetime:
    """A time as the database driver gives it: SQLite's is UTC without saying so."""
    return stored if stored.tzinfo else stored.replace(tzinfo=UTC)


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


def newest_cursor() -> int:
    """The cursor of the newest event; 0 when there is none."""
    return Event.objects.aggregate(newest=Max("id"))["newest"] or 0


def oldest_cursor() -> int:
    """The cursor of the oldest event that is kept; 0 when there is none."""
    return Event.objects.aggregate(oldest=Min("id"))["oldest"] or 0


def is_pruned(after: int) -> bool:
    """Whether events that followed this cursor are no longer kept.

    0 asks for whatever is kept: ids need not begin at 1, so a gap there tells nothing.
    """
    return 0 < after < oldest_cursor() - 1


class EventsPage(NamedTuple):
    """A stretch of the events: those that match, the last cursor looked at, and if more follow."""

    rows: list[EventRow]
    cursor: int
    more: bool


def events_page(filter: Filter, rights: Rights, *, after: int, limit: int) -> EventsPage:
    """Up to ``limit`` events that match and may be seen, after a cursor, in order.

    Looks at no more than ``SCAN_MOST`` events: a rare match may take several pages, some of them
    empty. Raises ``Http404`` for a location that may not be seen.
    """
    filter.check_locations(rights)
    locations = filter.location_ids(rights)
    found: list[EventRow] = []
    for _ in range(SCAN_MOST // SCAN_CHUNK):
        rows = _event_rows(after, None, SCAN_CHUNK, locations)
        for row in rows:
            if filter.matches(row):
                found.append(row)
            after = row.cursor
            if len(found) == limit:
                return EventsPage(found, after, after < newest_cursor())
        if len(rows) < SCAN_CHUNK:
            return EventsPage(found, after, False)
    return EventsPage(found, after, True)


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
        }


_DELIVERY_COLUMNS = (
    "id", "location_id", "location__ref", "message_id", "recipient", "sent_at", "outcome", "flags",
    "bounce_class", "category", "code", "step", "campaign_id", "provider_id", "domain_id",
    "sending_domain_id", "tags", "facts",
)  # fmt: skip


class DeliveriesPage(NamedTuple):
    """A page of deliveries, newest first; ``before`` asks for the next one, if there is one."""

    rows: list[DeliveryRow]
    before: str | None


def deliveries_page(
    filter: Filter, rights: Rights, *, before: str = "", limit: int
) -> DeliveriesPage:
    """Up to ``limit`` deliveries that match and may be seen, the newest by sending first.

    Raises ``FilterError`` for a ``before`` that no page gave, ``Http404`` for a location that
    may not be seen.
    """
    filter.check_locations(rights)
    deliveries = restrict(filter.apply(Delivery.objects.all()), rights)
    if before:
        sent_at, pk = _read_before(before)
        earlier = Q(sent_at__lt=sent_at) | Q(sent_at=sent_at, pk__lt=pk)
        deliveries = deliveries.filter(earlier, sent_at__lte=sent_at)
    rows = _delivery_rows(deliveries.order_by("-sent_at", "-pk")[: limit + 1])
    more = f"{_micros(rows[limit - 1].sent_at)}.{rows[limit - 1].id}" if limit < len(rows) else None
    return DeliveriesPage(rows[:limit], more)


def get_delivery(pk: int, rights: Rights) -> DeliveryRow:
    """One delivery. Raises ``Http404`` alike for one that is missing and one of others."""
    if rows := _delivery_rows(restrict(Delivery.objects.filter(pk=pk), rights)):
        return rows[0]
    raise Http404("There is no such delivery.")


def events_of(delivery: DeliveryRow) -> list[EventRow]:
    """The events of one delivery, in the order that they happened."""
    rows = _select_events("e.delivery_id = %s", [delivery.id], limit=1_000)
    return sorted(rows, key=lambda row: (row.occurred_at, row.cursor))


def _delivery_rows(deliveries: QuerySet[Delivery]) -> list[DeliveryRow]:
    rows = list(deliveries.values_list(*_DELIVERY_COLUMNS))
    ids = {pk for row in rows for pk in (*row[12:16], *tag_ids(row[16]))}
    named = names_of(ids)
    return [_delivery_row(row, named) for row in rows]


def _delivery_row(row: tuple[Any, ...], named: Mapping[int, Named]) -> DeliveryRow:
    campaign, provider, domain, sending_domain = (named.get(pk, UNNAMED) for pk in row[12:16])
    pk, location_id, ref, message_id, recipient, sent_at, outcome, flags, bounce_class = row[:9]
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
        category=Category(row[9]),
        code=row[10],
        campaign=campaign,
        step=row[11],
        provider=provider.text,
        domain=domain.text,
        sending_domain=sending_domain.text,
        tags=tag_texts(row[16], named),
        deferral_categories=_deferral_words(row[17]),
    )


def _deferral_words(facts: str) -> tuple[str, ...]:
    return tuple(Category(c).word for c in load_facts(facts).deferral_categories)


def _micros(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)


def _read_before(text: str) -> tuple[datetime, int]:
    try:
        micros, pk = (int(part) for part in text.split("."))
        return _EPOCH + timedelta(microseconds=micros), pk
    except (ValueError, OverflowError):
        raise FilterError("before is not the end of a page.") from None


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
