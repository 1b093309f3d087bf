"""Deliveries and events put straight into the tables, for tests of what reads them."""

from datetime import UTC, datetime

import msgspec

from ingest.models import Delivery, Event, Location, Value
from ingest.normalize import Detail
from ingest.vocabulary import Category, Dimension, EventKind, Outcome

NOW = datetime(2026, 11, 22, 10, 30, tzinfo=UTC)


def location(ref: str = "loc", company: str = "") -> Location:
    """The location with this id, made if need be."""
    return Location.objects.get_or_create(ref=ref, defaults={"company_ref": company})[0]


def value(dimension: Dimension, text: str) -> Value:
    """The value with this text, made if need be."""
    return Value.objects.get_or_create(dimension=dimension, text=text)[0]


def delivery(
    number: int = 1,
    *,
    location_ref: str = "loc",
    company: str = "",
    recipient: str = "",
    message_id: str = "",
    tags: tuple[str, ...] = (),
    campaign: str = "",
    provider: str = "",
    sending_domain: str = "",
    outcome: Outcome = Outcome.DELIVERED,
    category: Category = Category.NONE,
    sent_at: datetime = NOW,
    **columns: object,
) -> Delivery:
    """One stored delivery, told apart by its number."""
    recipient = recipient or f"r{number}@example.com"
    tag_ids = sorted(value(Dimension.TAG, tag).pk for tag in tags)
    return Delivery.objects.create(
        location=location(location_ref, company),
        message_id=message_id or f"m{number}@mail",
        recipient=recipient,
        sent_at=sent_at,
        outcome=outcome,
        category=category,
        campaign=value(Dimension.CAMPAIGN, campaign),
        provider=value(Dimension.PROVIDER, provider),
        domain=value(Dimension.DOMAIN, recipient.rpartition("@")[2]),
        sending_domain=value(Dimension.SENDING_DOMAIN, sending_domain),
        tags="," + "".join(f"{pk}," for pk in tag_ids),
        **columns,
    )


def event(
    of: Delivery | None = None,
    *,
    kind: EventKind = EventKind.DELIVERED,
    occurred_at: datetime | None = None,
    location_ref: str = "loc",
    code: int | None = None,
    detail: Detail | None = None,
) -> Event:
    """One stored event, of a delivery or of a location only."""
    moment = occurred_at or (of.sent_at if of else NOW)
    return Event.objects.create(
        location=of.location if of else location(location_ref),
        delivery=of,
        key=(Event.objects.count() + 1).to_bytes(16),
        kind=kind,
        occurred_at=moment,
        received_at=NOW,
        code=code,
        detail=msgspec.json.encode(detail or Detail()).decode(),
        content=0,
    )
