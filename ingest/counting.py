"""The counters, counted again from the deliveries: to compare with, or to put in their place.

What a delivery counts for is a function of its stored columns, so this reads nothing else. It
goes location by location, each in one transaction, so that what it compares is of one moment.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from django.db import connection, transaction

from ingest.fold import contribution
from ingest.models import Delivery, HourlyCount, Location, LocationHour, MinuteCount, Value, tag_ids
from ingest.retention import oldest_minute
from ingest.statements import aware_utc
from ingest.vocabulary import MEASURES, Dimension

type Counted = dict[tuple[int, ...], tuple[int, ...]]
"""Measures by key: (hour) · (dimension, hour, value) · (minute, kind) within a location."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A counter that is not what the deliveries say."""

    table: str
    location: str
    key: tuple[int, ...]
    stored: tuple[int, ...]
    counted: tuple[int, ...]

    def __str__(self) -> str:
        names = MEASURES if len(self.counted) == len(MEASURES) else ("events",)
        parts = [
            f"{name} is {stored}, counted {counted}"
            for name, stored, counted in zip(names, self.stored, self.counted, strict=True)
            if stored != counted
        ]
        return f"{self.table} {self.location} {self.key}: {'; '.join(parts)}"


def differences(*, now: int) -> Iterator[Difference]:
    """Every counter that differs from counting the deliveries. ``now`` is in microseconds."""
    for location in Location.objects.order_by("id"):
        with transaction.atomic():
            _one_moment()
            hours, values = _count_deliveries(location.pk)
            minutes = _count_minutes(location.pk, now=now)
            stored = _stored(location.pk, now=now)
        for table, (is_now, should_be) in {
            "hour": (stored[0], hours),
            "value": (stored[1], values),
            "minute": (stored[2], minutes),
        }.items():
            for key in sorted(is_now.keys() | should_be.keys()):
                nothing = (0,) * (1 if table == "minute" else len(MEASURES))
                was, counted = is_now.get(key, nothing), should_be.get(key, nothing)
                if was != counted:
                    yield Difference(table, location.ref, key, was, counted)


def rebuild(*, now: int) -> int:
    """Put counted numbers in place of the stored ones. Returns how many locations were done.

    Writers wait: what they have folded but not committed is added after us, to right counters.
    """
    done = 0
    for location in Location.objects.order_by("id"):
        with transaction.atomic():
            _hold_writers()
            hours, values = _count_deliveries(location.pk)
            _replace_counts(location.pk, hours, values)
            _replace_minutes(location.pk, _count_minutes(location.pk, now=now))
        done += 1
    return done


def _one_moment() -> None:
    """All reads of this transaction see the same moment (SQLite's always do)."""
    if connection.vendor == "postgresql" and not connection.savepoint_ids:
        with connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")


def _hold_writers() -> None:
    """Wait for writers that have begun to count, and let no other begin until we commit."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute(
                "LOCK TABLE ingest_locationhour, ingest_hourlycount, ingest_minutecount "
                "IN SHARE ROW EXCLUSIVE MODE"
            )


def _count_deliveries(location_id: int) -> tuple[Counted, Counted]:
    hours: dict[tuple[int, ...], list[int]] = defaultdict(lambda: [0] * len(MEASURES))
    values: dict[tuple[int, ...], list[int]] = defaultdict(lambda: [0] * len(MEASURES))
    untagged = Value.objects.filter(dimension=Dimension.TAG, text="").values_list("id", flat=True)
    no_tag = list(untagged)
    rows = Delivery.objects.filter(location_id=location_id).values_list(
        "sent_at", "outcome", "flags", "bounce_class", "campaign_id", "tags"
    )
    for sent_at, outcome, flags, bounce_class, campaign, tags in rows.iterator(2_000):
        hour = int(sent_at.timestamp()) // 3600
        counted = contribution(outcome, flags, bounce_class)
        _add(hours[hour,], counted)
        _add(values[Dimension.CAMPAIGN, hour, campaign], counted)
        for tag in tag_ids(tags) or no_tag:
            _add(values[Dimension.TAG, hour, tag], counted)
    return _frozen(hours), _frozen(values)


def _add(counts: list[int], counted: tuple[int, ...]) -> None:
    for i, n in enumerate(counted):
        counts[i] += n


def _frozen(table: dict[tuple[int, ...], list[int]]) -> Counted:
    return {key: tuple(counts) for key, counts in table.items() if any(counts)}


_MINUTE_OF = {
    "postgresql": "floor(extract(epoch FROM occurred_at) / 60)::int",
    "sqlite": "CAST(strftime('%%s', occurred_at) AS INTEGER) / 60",
}


def _count_minutes(location_id: int, *, now: int) -> Counted:
    """Events a minute and kind, over the whole minutes that are surely still kept."""
    # An event of test mode says so in its detail; no text in JSON can look like that.
    sql = (
        f"SELECT {_MINUTE_OF[connection.vendor]} AS minute, kind, count(*) FROM ingest_event "  # noqa: S608
        "WHERE location_id = %s AND occurred_at >= %s AND detail NOT LIKE %s GROUP BY 1, 2"
    )
    since = aware_utc((_last_partial_minute(now) + 1) * 60_000_000)
    if connection.vendor == "sqlite":
        since = since.replace(tzinfo=None)
    with connection.cursor() as cursor:
        cursor.execute(sql, [location_id, since, '%"test":true%'])
        return {(minute, kind): (n,) for minute, kind, n in cursor}


def _last_partial_minute(now: int) -> int:
    """Up to this minute the table may hold part of the truth: the window moved while it filled."""
    return oldest_minute(now) + 1


def _replace_counts(location_id: int, hours: Counted, values: Counted) -> None:
    """Counters that are all zero go with the rest and do not come back."""
    LocationHour.objects.filter(location_id=location_id).delete()
    HourlyCount.objects.filter(location_id=location_id).delete()
    LocationHour.objects.bulk_create(
        (
            LocationHour(location_id=location_id, hour=hour, **_measures(counts))
            for (hour,), counts in hours.items()
        ),
        batch_size=500,
    )
    HourlyCount.objects.bulk_create(
        (
            HourlyCount(
                location_id=location_id, dimension=dimension, hour=hour, value_id=value,
                **_measures(counts),
            )
            for (dimension, hour, value), counts in values.items()
        ),
        batch_size=500,
    )  # fmt: skip


def _measures(counts: tuple[int, ...]) -> dict[str, int]:
    return dict(zip(MEASURES, counts, strict=True))


def _replace_minutes(location_id: int, minutes: Counted) -> None:
    MinuteCount.objects.filter(location_id=location_id).delete()
    MinuteCount.objects.bulk_create(
        (
            MinuteCount(location_id=location_id, minute=minute, kind=kind, events=n)
            for (minute, kind), (n,) in minutes.items()
        ),
        batch_size=500,
    )


def _stored(location_id: int, *, now: int) -> tuple[Counted, Counted, Counted]:
    hours = LocationHour.objects.filter(location_id=location_id)
    values = HourlyCount.objects.filter(location_id=location_id)
    minutes = MinuteCount.objects.filter(
        location_id=location_id, minute__gt=_last_partial_minute(now)
    )
    return (
        {(r[0],): r[1:] for r in hours.values_list("hour", *MEASURES) if any(r[1:])},
        {
            r[:3]: r[3:]
            for r in values.values_list("dimension", "hour", "value_id", *MEASURES)
            if any(r[3:])
        },
        {r[:2]: r[2:] for r in minutes.values_list("minute", "kind", "events") if r[2]},
    )
