"""The counters, counted again from deliveries and events: to compare with, or to replace them.

What a delivery counts for is a function of its stored columns, so nothing is classified or parsed
again. It goes location by location, each in one transaction, so that what it compares is of one
moment; the rows of the whole fleet are then compared with the sums of the locations'. Hours
before the horizon are frozen: what they were counted from is gone.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from django.db import connection, models, transaction
from django.db.models import Sum

from ingest import counted as counted_as
from ingest.counted_values import decisions
from ingest.models import (
    CountedValue,
    CountedValues,
    Delivery,
    EventHour,
    HourlyCount,
    Location,
    LocationHour,
    MinuteCount,
    ReasonHour,
    Value,
)
from ingest.retention import Kept, oldest_minute, read_horizon
from ingest.statements import COUNTED_COLUMNS, aware_utc
from ingest.vocabulary import FLEET, FLEET_LOCATION, MEASURES, OTHER_KEY, Dimension

HOUR = 3_600_000_000  # µs
# An event may be dated a day ahead of its receipt: up to so many hours after the horizon of
# receipt, events that counted may be gone.
AHEAD = 25

type Counts = dict[tuple[int, ...], tuple[int, ...]]
"""Measures by key, within a location."""


class _Table(NamedTuple):
    """A counter table: its key beside the location, what it counts, and from where it is whole."""

    name: str
    model: type[models.Model]
    key: tuple[str, ...]
    counts: tuple[str, ...]
    since: Callable[[Kept, int], int]  # (horizon, now) → the first hour or minute

    @property
    def time(self) -> str:
        return "minute" if "minute" in self.key else "hour"

    def rows(self, location_id: int, since: int) -> models.QuerySet[Any]:
        """Its rows of a location (0: the fleet) from a time on."""
        manager = self.model._default_manager
        return manager.filter(location_id=location_id, **{f"{self.time}__gte": since})

    def stored(self, location_id: int, since: int) -> Counts:
        rows = self.rows(location_id, since).values_list(*self.key, *self.counts)
        size = len(self.key)
        return {row[:size]: row[size:] for row in rows.iterator(2_000) if any(row[size:])}


def _deliveries_since(horizon: Kept, now: int) -> int:
    return horizon.deliveries_hour


def _events_since(horizon: Kept, now: int) -> int:
    return horizon.events_hour + AHEAD if horizon.events_hour else 0


def _minutes_since(horizon: Kept, now: int) -> int:
    """The first minute whose count is surely whole: the window moved while it filled."""
    return oldest_minute(now) + 2


_HOURS = _Table("hour", LocationHour, ("hour",), MEASURES, _deliveries_since)
_VALUES = _Table(
    "value", HourlyCount, ("dimension", "hour", "value_id"), MEASURES, _deliveries_since
)
_EVENTS = _Table(
    "event hour", EventHour, ("hour", "provider_id", "kind", "bounce_class"), ("events",),
    _events_since,
)  # fmt: skip
_REASONS = _Table(
    "reason hour", ReasonHour, ("hour", "reason_id", "provider_id", "pool_id", "kind"),
    ("events",), _events_since,
)  # fmt: skip
_MINUTES = _Table("minute", MinuteCount, ("minute", "kind"), ("events",), _minutes_since)
_TABLES = (_HOURS, _VALUES, _EVENTS, _REASONS, _MINUTES)
_FLEET_TABLES = (_HOURS, _VALUES, _EVENTS)


@dataclass(frozen=True, slots=True)
class Difference:
    """A counter that is not what the deliveries say."""

    table: str
    location: str
    key: tuple[int, ...]
    names: tuple[str, ...]
    stored: tuple[int, ...]
    counted: tuple[int, ...]

    def __str__(self) -> str:
        parts = [
            f"{name} is {stored}, counted {counted}"
            for name, stored, counted in zip(self.names, self.stored, self.counted, strict=True)
            if stored != counted
        ]
        return f"{self.table} {self.location} {self.key}: {'; '.join(parts)}"


def differences(*, now: int) -> Iterator[Difference]:
    """Every counter that differs from counting. ``now`` is in microseconds."""
    for location in Location.objects.order_by("id"):
        with transaction.atomic():
            _one_moment()
            horizon = read_horizon()
            pairs = [
                (table, table.stored(location.pk, table.since(horizon, now)), counted)
                for table, counted in _count(location.pk, horizon, now=now)
            ]
        for table, stored, counted in pairs:
            yield from _compare(table, location.ref, stored, counted)
    with transaction.atomic():
        _one_moment()
        horizon = read_horizon()
        sums = [
            (table, table.stored(FLEET_LOCATION, since), _summed(table, since))
            for table in _FLEET_TABLES
            for since in [table.since(horizon, now)]
        ]
    for table, stored, counted in sums:
        yield from _compare(table, "(fleet)", stored, counted)


def _compare(table: _Table, location: str, stored: Counts, counted: Counts) -> Iterator[Difference]:
    nothing = (0,) * len(table.counts)
    for key in sorted(stored.keys() | counted.keys()):
        was, is_now = stored.get(key, nothing), counted.get(key, nothing)
        if was != is_now:
            yield Difference(table.name, location, key, table.counts, was, is_now)


def rebuild(*, now: int) -> int:
    """Put counted numbers in place of the stored ones. Returns how many locations were done.

    Writers wait: what they have folded but not committed is added after us, to right counters.
    """
    done = 0
    for location in Location.objects.order_by("id"):
        with transaction.atomic():
            _hold_writers()
            horizon = read_horizon()
            for table, counted in _count(location.pk, horizon, now=now):
                _replace(table, location.pk, table.since(horizon, now), counted)
        done += 1
    with transaction.atomic():
        _hold_writers()
        horizon = read_horizon()
        for table in _FLEET_TABLES:
            since = table.since(horizon, now)
            _replace(table, FLEET_LOCATION, since, _summed(table, since))
    return done


def _one_moment() -> None:
    """All reads of this transaction see the same moment (SQLite's always do)."""
    if connection.vendor == "postgresql" and not connection.savepoint_ids:
        with connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")


def _hold_writers() -> None:
    """Wait for writers that have begun to count, and let no other begin until we commit."""
    if connection.vendor == "postgresql":
        tables = ", ".join(table.model._meta.db_table for table in _TABLES)
        with connection.cursor() as cursor:
            cursor.execute(f"LOCK TABLE {tables} IN SHARE ROW EXCLUSIVE MODE")


def _count(location_id: int, horizon: Kept, *, now: int) -> Iterable[tuple[_Table, Counts]]:
    """What every table should hold for a location."""
    hours, values = _count_deliveries(location_id, _HOURS.since(horizon, now))
    since = _EVENTS.since(horizon, now)
    return [
        (_HOURS, hours),
        (_VALUES, values),
        (_EVENTS, _count_events(_EVENTS, location_id, since)),
        (_REASONS, _count_reasons(location_id, since)),
        (_MINUTES, _count_events(_MINUTES, location_id, _MINUTES.since(horizon, now))),
    ]


def _count_deliveries(location_id: int, since: int) -> tuple[Counts, Counts]:
    """What the deliveries sent since an hour add up to, by hour and by value."""
    hours: dict[tuple[int, ...], int] = defaultdict(int)
    values: dict[tuple[int, ...], int] = defaultdict(int)
    untagged = Value.objects.filter(dimension=Dimension.TAG, text="")
    no_tag = untagged.values_list("id", flat=True).first() or 0  # without it there is no mail yet
    cap = _cap(location_id)
    rows = Delivery.objects.filter(
        location_id=location_id, sent_at__gte=aware_utc(since * HOUR)
    ).values_list("sent_at", *(column for column in COUNTED_COLUMNS if column))
    for sent_at, *columns in rows.iterator(2_000):
        columns.insert(COUNTED_COLUMNS.index(None), int(sent_at.timestamp()) // 3600)
        counted = cap(counted_as.Counted(*columns))
        hours[counted.hour,] += counted_as.packed(counted.measures)
        for (dimension, value), measures in counted_as.places(counted, no_tag).items():
            values[dimension, counted.hour, value] += counted_as.packed(measures)
    return _unpacked(hours), _unpacked(values)


def _cap(location_id: int) -> Callable[[counted_as.Counted], counted_as.Counted]:
    """What puts the values without a recorded decision under ``(other)`` in a location."""
    full = CountedValues.objects.filter(location_id=location_id, used__gte=decisions.limit)
    if not full.exists():
        return lambda counted: counted
    rows = CountedValue.objects.filter(location_id=location_id)
    apart = set(rows.values_list("value_id", flat=True))
    bare = Value.objects.filter(text__in=["", OTHER_KEY]).values_list("dimension", "text", "id")
    others = {dimension: pk for dimension, text, pk in bare if text}
    apart |= {pk for _, _, pk in bare}

    def counted_under(dimension: Dimension, value: int) -> int:
        return value if value in apart else others[dimension]

    return lambda counted: counted_as.capped(counted, counted_under)


def _unpacked(table: dict[tuple[int, ...], int]) -> Counts:
    return {key: counted_as.unpacked(counts) for key, counts in table.items() if counts}


_UNIT_OF = {
    "postgresql": "floor(extract(epoch FROM occurred_at) / {seconds})::int",
    "sqlite": "CAST(strftime('%%s', substr(occurred_at, 1, 19)) AS INTEGER) / {seconds}",
}


def _since(unit: int, seconds: int) -> Any:
    """A time as a raw statement compares it with."""
    time = aware_utc(unit * seconds * 1_000_000)
    return time.replace(tzinfo=None) if connection.vendor == "sqlite" else time


def _count_events(table: _Table, location_id: int, since: int) -> Counts:
    """Events by the columns of a table's key, in its unit of their own time."""
    seconds = 60 if table.time == "minute" else 3600
    columns = ", ".join(table.key[1:])
    sql = (
        f"SELECT {_UNIT_OF[connection.vendor].format(seconds=seconds)}, {columns}, count(*) "  # noqa: S608
        "FROM ingest_event WHERE location_id = %s AND occurred_at >= %s AND NOT is_test "
        f"GROUP BY 1, {columns}"
    )
    with connection.cursor() as cursor:
        cursor.execute(sql, [location_id, _since(since, seconds)])
        return {tuple(key): (n,) for *key, n in cursor}


def _count_reasons(location_id: int, since: int) -> Counts:
    """Failures by reason; those without a pool under the empty one."""
    hour = _UNIT_OF[connection.vendor].format(seconds=3600)
    empty = Value.objects.filter(dimension=Dimension.POOL, text="")
    no_pool = empty.values_list("id", flat=True).first() or 0  # without it there is no mail yet
    sql = (
        f"SELECT {hour}, reason_id, provider_id, coalesce(pool_id, %s), kind, count(*) "  # noqa: S608
        "FROM ingest_event WHERE location_id = %s AND occurred_at >= %s AND reason_id IS NOT NULL "
        "AND NOT is_test GROUP BY 1, 2, 3, 4, 5"
    )
    with connection.cursor() as cursor:
        cursor.execute(sql, [no_pool, location_id, _since(since, 3600)])
        return {tuple(key): (n,) for *key, n in cursor}


def _summed(table: _Table, since: int) -> Counts:
    """The locations' rows added up, of what the fleet has rows for."""
    rows = table.model._default_manager.filter(**{f"{table.time}__gte": since})
    rows = rows.exclude(location_id=FLEET_LOCATION)
    if "dimension" in table.key:
        rows = rows.filter(dimension__in=FLEET)
    sums = {f"{name}_sum": Sum(name) for name in table.counts}
    size = len(table.key)
    grouped = rows.order_by().values_list(*table.key).annotate(**sums)
    return {row[:size]: row[size:] for row in grouped.iterator(2_000) if any(row[size:])}


def _replace(table: _Table, location_id: int, since: int, counts: Counts) -> None:
    """Counters that are all zero go with the rest and do not come back."""
    table.rows(location_id, since).delete()
    names = (*table.key, *table.counts)
    table.model._default_manager.bulk_create(
        (
            table.model(location_id=location_id, **dict(zip(names, (*key, *numbers), strict=True)))
            for key, numbers in counts.items()
        ),
        batch_size=500,
    )
