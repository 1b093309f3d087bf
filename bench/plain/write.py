"""The same rows as ``ingest.record`` writes, with the ORM: one webhook, one transaction.

Written as a careful author would: ids of locations and values remembered, the delivery locked,
counters added to in the database and in key order, and tried again where another was first.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django.db import IntegrityError, OperationalError, models, transaction
from django.db.models import F
from django.db.models.functions import Coalesce

from ingest import details, fold
from ingest.counted import Counted, Measures, places, write_ways
from ingest.counted_values import CAPPED
from ingest.ids import domain_of, values_of
from ingest.models import (
    CountedValue,
    CountedValues,
    Delivery,
    Event,
    EventHour,
    HourlyCount,
    Location,
    LocationHour,
    MinuteCount,
    QualityHour,
    Reason,
    ReasonHour,
    ReasonProvider,
    Value,
)
from ingest.normalize import NormalizedEvent
from ingest.payloads import pack
from ingest.quality import COLUMNS as QUALITY_COLUMNS
from ingest.quality import KEY as QUALITY_KEY
from ingest.quality import Tally
from ingest.record import Item, webhook_digest
from ingest.retention import oldest_minute
from ingest.statements import COUNTED_COLUMNS, aware_utc
from ingest.vocabulary import FLEET, FLEET_LOCATION, MEASURES, OTHER_KEY, Dimension

TRIES = 5

HOUR = 3_600_000_000  # µs

type Key = tuple[tuple[str, int], ...]
type Rows = dict[tuple[type[models.Model], Key], dict[str, int]]
"""What to add, by table and key."""


class Busy(Exception):
    """It could not be committed, again and again."""


def write(item: Item, *, now: int) -> str:
    """Write one webhook of an event; returns its status. Raises ``Busy``.

    ``now`` is in microseconds.
    """
    event = item.result
    assert isinstance(event, NormalizedEvent), "the load consists of events"
    for _ in range(TRIES):
        try:
            location = _location_id(event)
            _make_values(event)
            _count_apart(location, event)
            with transaction.atomic():
                return _write_event(item, event, location, now=now)
        except (IntegrityError, OperationalError):
            continue  # another thread was first, or the database is locked
    raise Busy


_locations: dict[str, tuple[int, str]] = {}
_values: dict[tuple[int, str], int] = {}
_reasons: dict[str, int] = {}
_apart: set[tuple[int, int]] = set()


def forget() -> None:
    """Forget all ids: another database is behind the connection."""
    _locations.clear()
    _values.clear()
    _reasons.clear()
    _apart.clear()


def _location_id(event: NormalizedEvent) -> int:
    known = _locations.get(event.location_ref)
    if known is None:
        location, _ = Location.objects.get_or_create(
            ref=event.location_ref, defaults={"company_ref": event.company_ref}
        )
        known = location.pk, location.company_ref
    if event.company_ref and not known[1]:
        Location.objects.filter(pk=known[0], company_ref="").update(company_ref=event.company_ref)
        known = known[0], event.company_ref
    _locations[event.location_ref] = known
    return known[0]


def _value_id(dimension: Dimension, text: str) -> int:
    known = _values.get((dimension, text))
    if known is None:
        known = Value.objects.get_or_create(dimension=dimension, text=text)[0].pk
        _values[dimension, text] = known
    return known


def _make_values(event: NormalizedEvent) -> None:
    """Before the transaction, so that nothing is remembered of one that is rolled back."""
    for bare in _DIMENSIONS:
        _value_id(bare, "")
    for each in CAPPED:
        _value_id(each, OTHER_KEY)
    for dimension, text in values_of(event):
        _value_id(dimension, text)


_DIMENSIONS = [dimension for dimension in Dimension if dimension is not Dimension.CATEGORY]


def _count_apart(location: int, event: NormalizedEvent) -> None:
    """Record, once each, which values the location counts apart."""
    for dimension, text in values_of(event):
        pair = location, _value_id(dimension, text)
        if not text or dimension not in CAPPED or pair in _apart:
            continue
        _, new = CountedValue.objects.get_or_create(location_id=pair[0], value_id=pair[1])
        if new:
            _increase(CountedValues, {"location_id": location, "dimension": dimension}, {"used": 1})
        _apart.add(pair)


def _reason_id(why: fold.Why) -> int | None:
    if not why.reason:
        return None
    if why.reason not in _reasons:
        made = {"text": why.text, "category": why.category, "bounce_class": why.bounce_class}
        digest = bytes.fromhex(why.reason)
        _reasons[why.reason] = Reason.objects.get_or_create(digest=digest, defaults=made)[0].pk
    return _reasons[why.reason]


def _write_event(item: Item, event: NormalizedEvent, location: int, *, now: int) -> str:
    delivery, facts = None, fold.Facts()
    why = fold.why_of(event)
    reason = _reason_id(why)
    key = {
        "location_id": location, "message_id": event.message_id, "recipient": event.recipient
    }  # fmt: skip
    if event.message_id and event.recipient:
        delivery = Delivery.objects.select_for_update().filter(**key).first()
    known = Event.objects.filter(location_id=location, key=event.key).first()
    if known is not None:
        item.conflict = known.content != event.content
        _count_quality(item, event, location, new=False)
        return "duplicate"
    if event.message_id and event.recipient:
        rows: Rows = {}
        if delivery is None:
            delivery = Delivery(**key)
        else:
            facts = fold.load_facts(delivery.facts)
            _add(rows, delivery, -1)
        fold.absorb(facts, event, why)
        _apply(delivery, facts)
        delivery.save()
        _add(rows, delivery, 1)
        _save_counts(rows)
    _count_event(event, location, why, reason, now=now)
    _count_quality(item, event, location, new=True)
    _create_event(item, event, location, delivery, why, reason)
    return "stored"


def _apply(delivery: Delivery, facts: fold.Facts) -> None:
    """What the facts say, in the delivery's columns."""
    standing = fold.judge(facts)
    tags = sorted(_value_id(Dimension.TAG, tag) for tag in standing.tags)
    ways = standing.ways
    columns: dict[str, Any] = {
        "sent_at": aware_utc(standing.sent_at),
        "outcome": int(standing.outcome),
        "flags": standing.flags,
        "bounce_class": standing.bounce_class,
        "category": standing.category,
        "code": standing.code,
        "reason_id": _reasons.get(standing.reason),
        "campaign_id": _value_id(Dimension.CAMPAIGN, standing.campaign),
        "step_id": _value_id(Dimension.STEP, standing.step),
        "provider_id": _value_id(Dimension.PROVIDER, standing.provider),
        "domain_id": _value_id(Dimension.DOMAIN, domain_of(delivery.recipient)),
        "sending_domain_id": _value_id(Dimension.SENDING_DOMAIN, standing.sending_domain),
        "ip_id": _value_id(Dimension.IP, ways.ip),
        "pool_id": _value_id(Dimension.POOL, ways.pool),
        "mx_id": _value_id(Dimension.MX, ways.mx),
        "tags": "," + "".join(f"{tag}," for tag in tags),
        "ways": write_ways(
            [(dimension, _value_id(dimension, text)) for dimension, text in ways.tried],
            [(dimension, _value_id(dimension, text)) for dimension, text in ways.deferred],
            standing.deferral_categories,
        ),
        "facts": fold.dump_facts(facts),
    }
    for name, value in columns.items():
        setattr(delivery, name, value)


def _add(rows: Rows, delivery: Delivery, sign: int) -> None:
    """Add (1) or take away (-1) what the delivery counts for."""
    columns = [getattr(delivery, column) for column in COUNTED_COLUMNS if column]
    columns.insert(COUNTED_COLUMNS.index(None), int(delivery.sent_at.timestamp()) // 3600)
    counted = Counted(*columns)
    hour = ("hour", counted.hour)
    for location in (delivery.location_id, FLEET_LOCATION):
        place = ("location_id", location)
        _sum(rows, LocationHour, (place, hour), counted.measures, sign)
        for (dimension, value), measures in places(counted, _value_id(Dimension.TAG, "")).items():
            if location != FLEET_LOCATION or dimension in FLEET:
                key = (place, ("dimension", int(dimension)), hour, ("value_id", value))
                _sum(rows, HourlyCount, key, measures, sign)


def _sum(rows: Rows, model: type[models.Model], key: Key, measures: Measures, sign: int) -> None:
    changes = rows.setdefault((model, key), {})
    for position in measures:
        changes[MEASURES[position]] = changes.get(MEASURES[position], 0) + sign


def _save_counts(rows: Rows) -> None:
    """In the same order for every writer: no two wait for each other."""
    for model, key in sorted(rows, key=lambda row: (row[0].__name__, row[1])):
        changes = {name: n for name, n in rows[model, key].items() if n}
        if changes:
            _increase(model, dict(key), changes)


def _increase(model: type[models.Model], key: Mapping[str, int], changes: dict[str, int]) -> None:
    more = {name: Coalesce(F(name), 0) + n for name, n in changes.items()}
    rows = model._default_manager.filter(**key)
    if rows.update(**more):
        return
    try:
        with transaction.atomic():
            model._default_manager.create(**key, **changes)
    except IntegrityError:
        rows.update(**more)


def _count_event(
    event: NormalizedEvent, location: int, why: fold.Why, reason: int | None, *, now: int
) -> None:
    """By the event's own time: its minute, its hour, and what it gave as the reason."""
    if event.test:
        return
    provider, hour = _value_id(Dimension.PROVIDER, event.provider), event.occurred_at // HOUR
    for place in (FLEET_LOCATION, location):
        key = {
            "location_id": place, "hour": hour, "provider_id": provider,
            "kind": int(event.kind), "bounce_class": why.bounce_class,
        }  # fmt: skip
        _increase(EventHour, key, {"events": 1})
    if reason is not None:
        pool = _value_id(Dimension.POOL, event.detail.pool)
        key = {
            "location_id": location, "hour": hour, "reason_id": reason, "provider_id": provider,
            "pool_id": pool, "kind": int(event.kind),
        }  # fmt: skip
        _increase(ReasonHour, key, {"events": 1})
        _note_reason(reason, provider, aware_utc(event.occurred_at))
    minute = event.occurred_at // 60_000_000
    if minute > oldest_minute(now):
        key = {"location_id": location, "minute": minute, "kind": int(event.kind)}
        _increase(MinuteCount, key, {"events": 1})


def _note_reason(reason: int, provider: int, at: datetime) -> None:
    seen, new = ReasonProvider.objects.get_or_create(
        reason_id=reason, provider_id=provider, defaults={"first_at": at, "last_at": at}
    )
    if not new:
        rows = ReasonProvider.objects.filter(reason_id=reason, provider_id=provider)
        rows.update(first_at=min(seen.first_at, at), last_at=max(seen.last_at, at))


def _count_quality(item: Item, event: NormalizedEvent, location: int, *, new: bool) -> None:
    tally = Tally()
    if new:
        tally.stored(location, event, received_at=item.received_at)
    else:
        tally.repeated(location, received_at=item.received_at, conflict=item.conflict)
    for key, counts in tally.rows():
        names = dict(zip(QUALITY_COLUMNS, counts, strict=True))
        changes = {name: n for name, n in names.items() if n}
        _increase(QualityHour, dict(zip(QUALITY_KEY, key, strict=True)), changes)


def _create_event(
    item: Item,
    event: NormalizedEvent,
    location: int,
    delivery: Delivery | None,
    why: fold.Why,
    reason: int | None,
) -> None:
    codec, payload = pack(item.body)
    Event.objects.create(
        location_id=location,
        delivery=delivery,
        key=event.key,
        kind=int(event.kind),
        occurred_at=aware_utc(event.occurred_at),
        received_at=aware_utc(item.received_at),
        code=event.detail.code,
        category=why.category,
        bounce_class=why.bounce_class,
        reason_id=reason,
        provider_id=_value_id(Dimension.PROVIDER, event.provider),
        **{
            f"{dimension.word}_id": _value_id(dimension, text) if text else None
            for dimension, text in (
                (Dimension.IP, event.detail.ip),
                (Dimension.POOL, event.detail.pool),
                (Dimension.MX, event.detail.mx),
            )
        },
        is_test=event.test,
        detail=details.dump(details.kept_of(event)),
        content=event.content,
        webhook=webhook_digest(event.detail.webhook_id),
        payload=payload,
        payload_codec=codec,
    )
