"""Deliveries and events put straight into the tables, for tests of what reads them."""

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from hashlib import blake2b

from ingest import details, retention
from ingest.counted import write_ways
from ingest.models import (
    CountedValue,
    CountedValues,
    Delivery,
    Event,
    Horizon,
    Location,
    Reason,
    Value,
)
from ingest.normalize import Detail
from ingest.vocabulary import (
    MOST_VALUES,
    ROLLED_UP,
    BounceClass,
    Category,
    Dimension,
    EventKind,
    Outcome,
)

NOW = datetime(2026, 11, 22, 10, 30, tzinfo=UTC)

type Named = tuple[Dimension, str]
"""A value by its dimension and text."""


def location(ref: str = "loc", company: str = "") -> Location:
    """The location with this id, made if need be."""
    return Location.objects.get_or_create(ref=ref, defaults={"company_ref": company})[0]


def value(dimension: Dimension, text: str) -> Value:
    """The value with this text, made if need be."""
    return Value.objects.get_or_create(dimension=dimension, text=text)[0]


def reason(
    text: str = "550 5.1.1 no such user",
    *,
    category: Category = Category.INVALID_RECIPIENT,
    bounce_class: BounceClass = BounceClass.HARD,
) -> Reason:
    """The reason with this text, made if need be."""
    defaults = {"text": text, "category": category, "bounce_class": bounce_class}
    digest = blake2b(text.encode(), digest_size=8).digest()
    return Reason.objects.get_or_create(digest=digest, defaults=defaults)[0]


def count_apart(where: Location, values: Iterable[Value], capped: Collection[str] = ()) -> None:
    """Record which of these values are counted apart in a location, and which came too late."""
    for found in values:
        if found.text in capped:
            full = {"used": MOST_VALUES}
            CountedValues.objects.update_or_create(
                location=where, dimension=found.dimension, defaults=full
            )
        elif found.text and found.dimension in ROLLED_UP:
            CountedValue.objects.get_or_create(location=where, value=found)


@contextmanager
def horizon(**columns: int) -> Iterator[None]:
    """Inside, the tables go back so far only."""
    Horizon.objects.update_or_create(id=1, defaults=columns)
    retention.horizon.clear()
    try:
        yield
    finally:
        retention.horizon.clear()


def delivery(
    number: int = 1,
    *,
    location_ref: str = "loc",
    company: str = "",
    recipient: str = "",
    message_id: str = "",
    tags: tuple[str, ...] = (),
    campaign: str = "",
    step: str = "",
    provider: str = "",
    sending_domain: str = "",
    ip: str = "",
    pool: str = "",
    mx: str = "",
    tried: Iterable[Named] = (),
    deferred_at: Iterable[Named] = (),
    deferred_as: Iterable[Category] = (),
    capped: Collection[str] = (),
    outcome: Outcome = Outcome.DELIVERED,
    category: Category = Category.NONE,
    sent_at: datetime = NOW,
    **columns: object,
) -> Delivery:
    """One stored delivery, told apart by its number.

    ``ip``, ``pool`` and ``mx`` are where it was decided, ``tried`` the others that tried too,
    ``deferred_at`` where temporary failures came from (needed only where that is not just where
    it was decided), ``deferred_as`` their categories. Values that are not ``capped`` are counted
    apart.
    """
    where = location(location_ref, company)
    recipient = recipient or f"r{number}@example.com"
    one_each = {
        "campaign": value(Dimension.CAMPAIGN, campaign),
        "step": value(Dimension.STEP, step),
        "provider": value(Dimension.PROVIDER, provider),
        "domain": value(Dimension.DOMAIN, recipient.rpartition("@")[2]),
        "sending_domain": value(Dimension.SENDING_DOMAIN, sending_domain),
        "ip": value(Dimension.IP, ip),
        "pool": value(Dimension.POOL, pool),
        "mx": value(Dimension.MX, mx),
    }
    tagged = [value(Dimension.TAG, tag) for tag in tags]
    elsewhere = [value(*named) for named in tried]
    deferring = [value(*named) for named in deferred_at]
    found = {v.pk: v for v in (*one_each.values(), *tagged, *elsewhere, *deferring)}
    count_apart(where, found.values(), capped)
    return Delivery.objects.create(
        location=where,
        message_id=message_id or f"m{number}@mail",
        recipient=recipient,
        sent_at=sent_at,
        outcome=outcome,
        category=category,
        tags="," + "".join(f"{pk}," for pk in sorted(tag.pk for tag in tagged)),
        ways=write_ways(_placed(elsewhere), _placed(deferring), deferred_as),
        **one_each,
        **columns,
    )


def _placed(values: Iterable[Value]) -> list[tuple[Dimension, int]]:
    return [(Dimension(found.dimension), found.pk) for found in values]


def _stored(detail: Detail) -> dict[str, object]:
    """The columns that hold a detail, but for its code."""
    ways = ((Dimension.IP, detail.ip), (Dimension.POOL, detail.pool), (Dimension.MX, detail.mx))
    return {dimension.word: value(dimension, text) for dimension, text in ways if text} | {
        "detail": details.dump(detail), "is_test": detail.test,
    }  # fmt: skip


def key(moment: datetime, number: int) -> bytes:
    """The key of an event at a moment, told apart by its number. It begins with its hour."""
    return (int(moment.timestamp()) // 3600).to_bytes(4) + number.to_bytes(12)


def event(
    of: Delivery | None = None,
    *,
    kind: EventKind = EventKind.DELIVERED,
    occurred_at: datetime | None = None,
    location_ref: str = "loc",
    code: int | None = None,
    detail: Detail | None = None,
    provider: str = "",
    **columns: object,
) -> Event:
    """One stored event, of a delivery or of a location only."""
    moment = occurred_at or (of.sent_at if of else NOW)
    columns.setdefault("received_at", NOW)
    return Event.objects.create(
        location=of.location if of else location(location_ref),
        delivery=of,
        key=key(moment, Event.objects.count() + 1),
        kind=kind,
        occurred_at=moment,
        code=code,
        provider=value(Dimension.PROVIDER, provider),
        **_stored(detail or Detail()),
        content=0,
        **columns,
    )
