"""The same rows as ``ingest.record`` writes, with the ORM: one webhook, one transaction.

Written as a careful author would: ids of locations and values remembered, the delivery locked,
counters added to in the database and in key order, and tried again where another was first.
"""

from collections.abc import Iterator
from typing import Any

import msgspec
from django.db import IntegrityError, OperationalError, models, transaction
from django.db.models import F

from ingest import fold
from ingest.models import (
    Delivery,
    Event,
    HourlyCount,
    Location,
    LocationHour,
    MinuteCount,
    Value,
    tag_ids,
)
from ingest.normalize import NormalizedEvent
from ingest.payloads import pack
from ingest.record import Item, domain_of
from ingest.retention import oldest_minute
from ingest.statements import aware_utc
from ingest.vocabulary import MEASURES, Dimension

TRIES = 5

type Counted = dict[tuple[type[models.Model], tuple[tuple[str, int], ...]], dict[str, int]]
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
            with transaction.atomic():
                return _write_event(item, event, location, now=now)
        except (IntegrityError, OperationalError):
            continue  # another thread was first, or the database is locked
    raise Busy


_locations: dict[str, tuple[int, str]] = {}
_values: dict[tuple[int, str], int] = {}


def forget() -> None:
    """Forget all ids: another database is behind the connection."""
    _locations.clear()
    _values.clear()


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
    for dimension, text in (
        (Dimension.CAMPAIGN, event.campaign),
        (Dimension.PROVIDER, event.provider),
        (Dimension.DOMAIN, domain_of(event.recipient)),
        (Dimension.SENDING_DOMAIN, event.sending_domain),
        *((Dimension.TAG, tag) for tag in event.tags),
    ):
        _value_id(dimension, "")
        _value_id(dimension, text)
    _value_id(Dimension.TAG, "")


def _write_event(item: Item, event: NormalizedEvent, location: int, *, now: int) -> str:
    delivery, facts = None, fold.Facts()
    key = {
        "location_id": location, "message_id": event.message_id, "recipient": event.recipient
    }  # fmt: skip
    if event.message_id and event.recipient:
        delivery = Delivery.objects.select_for_update().filter(**key).first()
    if Event.objects.filter(location_id=location, key=event.key).exists():
        return "duplicate"
    if event.message_id and event.recipient:
        counted: Counted = {}
        if delivery is None:
            delivery = Delivery(**key)
        else:
            facts = fold.load_facts(delivery.facts)
            _add(counted, delivery, -1)
        fold.absorb(facts, event)
        _apply(delivery, facts)
        delivery.save()
        _add(counted, delivery, 1)
        _save_counts(counted)
    _count_minute(event, location, now=now)
    _create_event(item, event, location, delivery)
    return "stored"


def _apply(delivery: Delivery, facts: fold.Facts) -> None:
    """What the facts say, in the delivery's columns."""
    standing = fold.judge(facts)
    tags = sorted(_value_id(Dimension.TAG, tag) for tag in standing.tags)
    columns: dict[str, Any] = {
        "sent_at": aware_utc(standing.sent_at),
        "outcome": int(standing.outcome),
        "flags": int(standing.flags),
        "bounce_class": int(standing.bounce_class),
        "category": int(standing.category),
        "code": standing.code,
        "campaign_id": _value_id(Dimension.CAMPAIGN, standing.campaign),
        "step": standing.step,
        "provider_id": _value_id(Dimension.PROVIDER, standing.provider),
        "domain_id": _value_id(Dimension.DOMAIN, domain_of(delivery.recipient)),
        "sending_domain_id": _value_id(Dimension.SENDING_DOMAIN, standing.sending_domain),
        "tags": "," + "".join(f"{tag}," for tag in tags),
        "facts": fold.dump_facts(facts),
    }
    for name, value in columns.items():
        setattr(delivery, name, value)


def _add(counted: Counted, delivery: Delivery, sign: int) -> None:
    """Add (1) or take away (-1) what the delivery counts for."""
    counts = fold.contribution(delivery.outcome, delivery.flags, delivery.bounce_class)
    for row in _counters_of(delivery):
        changes = counted.setdefault(row, {})
        for name, n in zip(MEASURES, counts, strict=True):
            if n:
                changes[name] = changes.get(name, 0) + sign * n


def _counters_of(
    delivery: Delivery,
) -> Iterator[tuple[type[models.Model], tuple[tuple[str, int], ...]]]:
    place = ("location_id", delivery.location_id)
    hour = ("hour", int(delivery.sent_at.timestamp()) // 3600)
    yield LocationHour, (place, hour)
    tags = tag_ids(delivery.tags) or [_value_id(Dimension.TAG, "")]
    for dimension, values in ((Dimension.CAMPAIGN, [delivery.campaign_id]), (Dimension.TAG, tags)):
        for value in values:
            yield HourlyCount, (place, ("dimension", int(dimension)), hour, ("value_id", value))


def _save_counts(counted: Counted) -> None:
    """In the same order for every writer: no two wait for each other."""
    for model, key in sorted(counted, key=lambda row: (row[0].__name__, row[1])):
        changes = {name: n for name, n in counted[model, key].items() if n}
        if changes:
            _increase(model, dict(key), changes)


def _increase(model: type[models.Model], key: dict[str, int], changes: dict[str, int]) -> None:
    more = {name: F(name) + n for name, n in changes.items()}
    rows = model._default_manager.filter(**key)
    if rows.update(**more):
        return
    try:
        with transaction.atomic():
            model._default_manager.create(**key, **changes)
    except IntegrityError:
        rows.update(**more)


def _count_minute(event: NormalizedEvent, location: int, *, now: int) -> None:
    minute = event.occurred_at // 60_000_000
    if minute > oldest_minute(now) and not event.test:
        key = {"location_id": location, "minute": minute, "kind": int(event.kind)}
        _increase(MinuteCount, key, {"events": 1})


def _create_event(
    item: Item, event: NormalizedEvent, location: int, delivery: Delivery | None
) -> None:
    codec, payload = pack(item.body)
    detail = msgspec.structs.replace(event.detail, test=True) if event.test else event.detail
    Event.objects.create(
        location_id=location,
        delivery=delivery,
        key=event.key,
        kind=int(event.kind),
        occurred_at=aware_utc(event.occurred_at),
        received_at=aware_utc(item.received_at),
        code=event.detail.code,
        detail=msgspec.json.encode(detail).decode(),
        content=event.content,
        payload=payload,
        payload_codec=codec,
    )
