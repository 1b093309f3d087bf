"""Everything that the write path leaves behind, comparable between databases and orders."""

import re
from typing import Any

from django.db import models

from ingest.counted import ids_in
from ingest.models import (
    CountedValue,
    CountedValues,
    Counters,
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
from ingest.vocabulary import FLEET_LOCATION, MEASURES, Dimension

TABLES = (
    Event, Delivery, HourlyCount, LocationHour, MinuteCount, EventHour, ReasonHour, ReasonProvider,
    QualityHour, Reason, CountedValue, CountedValues, Value, Location,
)  # fmt: skip

type Texts = dict[int | None, str]


def tables() -> list[Any]:
    """What deliveries, events and counters say, with names in place of ids."""
    texts: Texts = dict(Value.objects.values_list("id", "text"))
    reasons: Texts = dict(Reason.objects.values_list("id", "text")) | {None: ""}
    refs: Texts = {**dict(Location.objects.values_list("id", "ref")), FLEET_LOCATION: "(fleet)"}
    counters = (LocationHour, HourlyCount, EventHour, ReasonHour, MinuteCount)
    return [
        {_delivery(row, refs, texts, reasons) for row in Delivery.objects.all()},
        *(_counters(model, refs, texts, reasons) for model in counters),
        {
            (reasons[row.reason_id], texts[row.provider_id], row.first_at, row.last_at)
            for row in ReasonProvider.objects.all()
        },
        {
            (refs[row.location_id], bytes(row.key), row.kind, row.occurred_at, row.category,
             row.bounce_class, reasons[row.reason_id], texts[row.provider_id])
            for row in Event.objects.all()
        },
    ]  # fmt: skip


_DIMENSIONS = ("campaign", "step", "provider", "domain", "sending_domain", "ip", "pool", "mx")


def _delivery(row: Delivery, refs: Texts, texts: Texts, reasons: Texts) -> tuple[Any, ...]:
    way = re.compile(r"([ad][ipm])(\d+)")
    ways = way.sub(lambda found: found[1] + texts[int(found[2])], row.ways)
    return (
        refs[row.location_id], row.message_id, row.recipient, row.sent_at, row.outcome, row.flags,
        row.bounce_class, row.category, row.code, reasons[row.reason_id], bytes(row.facts),
        tuple(sorted(ways.split(","))), frozenset(texts[tag] for tag in ids_in(row.tags)),
        *(texts[getattr(row, f"{name}_id")] for name in _DIMENSIONS),
    )  # fmt: skip


def _counters(
    model: type[models.Model], refs: Texts, texts: Texts, reasons: Texts
) -> set[tuple[Any, ...]]:
    measures = MEASURES if issubclass(model, Counters) else ("events",)
    names = [field.attname for field in model._meta.concrete_fields if field.name not in measures]
    rows = set()
    for row in model._default_manager.all():
        key = {name: getattr(row, name) for name in names}
        counts = tuple(getattr(row, name) for name in measures)
        if not any(counts):
            continue
        key["location_id"] = refs[key["location_id"]]
        for name in ("provider_id", "pool_id", "value_id"):
            if name in key and key.get("dimension") != Dimension.CATEGORY:
                key[name] = texts[key[name]]
        if "reason_id" in key:
            key["reason_id"] = reasons[key["reason_id"]]
        rows.add((*key.values(), *counts))
    return rows


def empty() -> None:
    """Take all of it away."""
    for model in TABLES:
        model._default_manager.all()._raw_delete("default")
