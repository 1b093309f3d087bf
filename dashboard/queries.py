"""What is read from the tables: events, deliveries, rates, and the minutes of the last hour."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import msgspec
from django.db import connection
from django.db.models import Count, F, Func, IntegerField, Max, Min, Q, QuerySet, Sum
from django.db.models.lookups import GreaterThan
from django.http import Http404

from dashboard.access import Rights, restrict
from dashboard.charts import Minute
from dashboard.filters import Filter, FilterError, campaign_ids, class_word, flag_words, value_ids
from dashboard.rates import SORTS, Counts, in_order, summed
from ingest.fold import contribution, load_facts
from ingest.models import Delivery, Event, HourlyCount, Location, LocationHour, MinuteCount, tag_ids
from ingest.normalize import Detail
from ingest.vocabulary import MEASURES, NONE_KEY, Category, Dimension, EventKind, Flag, Outcome

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
    campaign_named = named.get(campaign, _UNNAMED)
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
        provider=named.get(provider, _UNNAMED).text,
        domain=named.get(domain, _UNNAMED).text,
        sending_domain=named.get(sending_domain, _UNNAMED).text,
        tags=tag_texts(tags, named) if known else (),
    )


def _aware(stored: datetime) -> datetime:
    """A time as the database driver gives it: SQLite's is UTC without saying so."""
    return stored if stored.tzinfo else stored.replace(tzinfo=UTC)


class Named(NamedTuple):
    """A value's text and the name it is shown by ("" = its text)."""

    text: str
    label: str


_UNNAMED = Named("", "")


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
    campaign, provider, domain, sending_domain = (named.get(pk, _UNNAMED) for pk in row[12:16])
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


# --- Rates -------------------------------------------------------------------------------

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
                split.append((_EPOCH + key * HOUR, _EPOCH + (key + 1) * HOUR))
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
        counters = counters.filter(hour__gte=(first - _EPOCH) // HOUR)
    if last:
        counters = counters.filter(hour__lt=(last - _EPOCH) // HOUR)
    return counters


def _joined(hours: Iterable[Span]) -> list[Span]:
    """Hours that follow each other, as one span."""
    spans: list[Span] = []
    for start, until in sorted(hours, key=lambda span: span[0] or _EPOCH):
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
        text, label = named.get(pk, _UNNAMED)
        key = text or NONE_KEY
        before = rows[key].counts if key in rows else Counts()
        rows[key] = RatesRow(key, label or key, before + counts)
    return list(rows.values())


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
