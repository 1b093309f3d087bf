"""What is let go of with age, in small bounded steps, and how far back each table goes.

The horizon moves before anything goes: hours before it are frozen, so whoever counts skips them,
and what is deleted afterwards changes no number. Steps are transactions of their own; one that
is cut off leaves everything true, and the next run goes on where it ended.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from django.conf import settings
from django.db import connection, transaction
from django.db.models import Exists, Model, OuterRef, Q, QuerySet

from ingest.days import HOURS, Hours, ask, execute, first_day, some
from ingest.models import (
    AnswerHour,
    Delivery,
    ErasedMail,
    Event,
    Horizon,
    KeptWebhook,
    MinuteCount,
    QualityHour,
    QuarantinedWebhook,
)
from ingest.statements import aware_utc

MINUTES_KEPT = 48 * 60  # as far back as the live chart may look
QUALITY_DAYS = 400  # a year to compare with, and the month before it
KEPT_DAYS = 400
REPLAYED_DAYS = 30
QUARANTINED_DAYS = 7
HOURS_DAYS = 730  # so long the counters keep their hours apart

HORIZON_AGE = 1_000_000  # µs: so old may what a process knows of the horizon be
SETTLE = 6.0  # seconds until no transaction goes on that knows only an older horizon
REST = 3_600_000_000  # µs between the rounds that a server begins by itself
PRUNE_LOCK = 736_567  # so that one process prunes at a time; any constant will do

_HOUR = 3_600_000_000  # µs
_DAY = 24 * _HOUR


# --- How far back -------------------------------------------------------------------------------


class Kept(NamedTuple):
    """How far back the tables go: the row of ``Horizon``; all zero while nothing was pruned."""

    deliveries_hour: int = 0  # sent before it: gone or going, and counted no more
    events_cursor: int = 0  # the newest event that has gone
    events_hour: int = 0  # received before it: gone or going
    payloads_cursor: int = 0  # events up to this one have no payload
    days_hour: int = 0  # before it the counters' hours are days


class _Horizon:
    """The horizon as this process knows it: read again when that is a second old."""

    def __init__(self) -> None:
        self._known: tuple[int, Kept] | None = None

    def __call__(self, now: int | None = None) -> Kept:
        """How far back the tables go. ``now`` is in microseconds; without it, the clock's."""
        now = time.time_ns() // 1000 if now is None else now
        if self._known is None or abs(now - self._known[0]) >= HORIZON_AGE:
            self._known = now, read_horizon()
        return self._known[1]

    def clear(self) -> None:
        """Forget it: it was moved, or another database is behind the connection."""
        self._known = None


def read_horizon() -> Kept:
    """The horizon as it is stored at this moment."""
    row = Horizon.objects.values_list(*Kept._fields).filter(id=1).first()
    return Kept(*row) if row else Kept()


horizon = _Horizon()


def _advance(**to: int) -> None:
    """Move the horizon, forward only. The caller's transaction holds the lock of pruning."""
    row, _ = Horizon.objects.get_or_create(id=1)
    for name, value in to.items():
        setattr(row, name, max(getattr(row, name), value))
    row.save(update_fields=list(to))


# --- Minutes ------------------------------------------------------------------------------------


def oldest_minute(now: int) -> int:
    """The last minute since 1970 that is no longer kept; ``now`` is in microseconds."""
    return now // 60_000_000 - MINUTES_KEPT


# --- A run over everything ----------------------------------------------------------------------


class Step(NamedTuple):
    """One transaction of a run: what it was about, how many rows went, how far it has come."""

    what: str
    rows: int
    share: float = 1.0  # of this kind of thing, 0 to 1
    waits: bool = False  # nothing can be done for a moment


class _Seen(NamedTuple):
    """When an event came."""

    id: int
    received_at: datetime


class Taken(Exception):
    """Another process is pruning at this moment."""


@dataclass(frozen=True, slots=True)
class _Age:
    """A table whose rows go when a condition holds, which names their age."""

    what: str
    model: type[Model]
    condition: str
    parameters: list[Any]

    def count(self) -> int:
        """How many rows are so old."""
        statement = f"SELECT count(*) FROM {self._table} WHERE {self.condition}"  # noqa: S608
        return ask(statement, self.parameters)

    def delete(self, limit: int) -> int:
        """Let go of some of them. Returns how many."""
        rows = some(self._table, self.condition, limit)
        return execute(f"DELETE FROM {self._table} WHERE {rows}", self.parameters)  # noqa: S608

    @property
    def _table(self) -> str:
        return self.model._meta.db_table


@dataclass(slots=True)
class Pruning:
    """One run: ``steps`` does it, at most ``limit`` rows a transaction.

    ``now`` is in microseconds. A dry run walks the same way, reads only, and says how many rows
    would go. One that is not patient raises ``Taken`` instead of waiting for another process.
    """

    now: int
    limit: int
    dry: bool = False
    patient: bool = True
    _gone: int = 0  # the newest event that this run let go of

    def steps(self) -> Iterator[Step]:
        """Let go of everything that is too old, a transaction a step."""
        yield from self._payloads()
        kept = self._move_horizon()
        yield from self._events(kept)
        yield from self._deliveries(kept)
        for age in self._ages():
            yield from self._aged(age)
        yield from self._days(kept)

    def _time(self, days: int) -> datetime:
        return aware_utc(self.now - days * _DAY)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """A transaction in which no other process prunes; SQLite has one writer at a time."""
        if self.dry:
            yield
            return
        with transaction.atomic():
            if connection.vendor == "postgresql":
                self._lock()
            yield

    def _lock(self) -> None:
        with connection.cursor() as cursor:
            if self.patient:
                cursor.execute("SELECT pg_advisory_xact_lock(%s)", [PRUNE_LOCK])
                return
            cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [PRUNE_LOCK])
            if not cursor.fetchall()[0][0]:
                raise Taken

    # Events go in the order of their ids, so that one number says how far: a cursor that a reader
    # resumes from has either lost nothing or is known to be too old.

    def _payloads(self) -> Iterator[Step]:
        """Raw bodies, while their events stay."""
        before = self._time(settings.PAYLOAD_RETENTION_DAYS)
        stored = read_horizon()
        after = max(stored.payloads_cursor, stored.events_cursor)
        yield from self._walk("payloads", after, before, self._empty)

    def _empty(self, events: QuerySet[Event], until: int) -> int:
        full = events.filter(payload__isnull=False)
        if self.dry:
            return full.count()
        _advance(payloads_cursor=until)
        return full.update(payload=None)

    def _events(self, kept: Kept) -> Iterator[Step]:
        """Events received before the horizon."""
        before = aware_utc(kept.events_hour * _HOUR)
        yield from self._walk("events", kept.events_cursor, before, self._delete_events)

    def _delete_events(self, events: QuerySet[Event], until: int) -> int:
        self._gone = until
        if self.dry:
            return events.count()
        _advance(events_cursor=until)
        return _delete(events)

    def _walk(
        self, what: str, after: int, before: datetime, work: Callable[[QuerySet[Event], int], int]
    ) -> Iterator[Step]:
        """``work`` on the events after a cursor that were received before, a window a step."""
        first: datetime | None = None
        while True:
            with self._transaction():
                until = self._last_old(after, before)
                if until is None:
                    return
                rows = work(Event.objects.filter(id__gt=after, id__lte=until.id), until.id)
            first = first or until.received_at
            after = until.id
            yield Step(what, rows, _share(first, until.received_at, before))

    def _last_old(self, after: int, before: datetime) -> _Seen | None:
        """The last of the next events that all were received before; None if there is none.

        A receipt that lies in the future (a clock was wrong once) does not hold up those behind.
        """
        window = [
            _Seen(*row)
            for row in Event.objects.filter(id__gt=after)
            .order_by("id")
            .values_list("id", "received_at")[: self.limit]
        ]
        now, last = aware_utc(self.now), None
        for seen in window:
            if before <= seen.received_at <= now:
                return last
            if seen.received_at < before:
                last = seen
        if last is None and window:
            behind = Event.objects.filter(id__gt=window[-1].id, received_at__lte=now)
            received = behind.order_by("id").values_list("received_at", flat=True).first()
            return window[-1] if received is not None and received < before else None
        return last

    def _move_horizon(self) -> Kept:
        """Freeze the hours that are too old. Returns what is kept from now on."""
        hour = (self.now - settings.EVENT_RETENTION_DAYS * _DAY) // _HOUR
        with self._transaction():
            kept = read_horizon()
            kept = kept._replace(
                deliveries_hour=max(kept.deliveries_hour, hour),
                events_hour=max(kept.events_hour, hour),
            )
            if not self.dry and kept != read_horizon():
                _advance(deliveries_hour=kept.deliveries_hour, events_hour=kept.events_hour)
        horizon.clear()
        return kept

    def _deliveries(self, kept: Kept) -> Iterator[Step]:
        """Deliveries sent before the horizon, those with younger events later than the others."""
        before = aware_utc(kept.deliveries_hour * _HOUR)
        old = Delivery.objects.filter(sent_at__lt=before).order_by("sent_at", "id")
        first, after = None, Q()
        while window := list(old.filter(after).values_list("sent_at", "id")[: self.limit]):
            if not self.dry and not _settled(kept.deliveries_hour):
                yield Step("deliveries", 0, 0, waits=True)
                continue
            rows = self._delete_deliveries([pk for _, pk in window])
            last, pk = window[-1]
            first = first or window[0][0]
            # The first condition says nothing new, but begins the index there.
            after = Q(sent_at__gte=last) & (Q(sent_at__gt=last) | Q(id__gt=pk))
            yield Step("deliveries", rows, _share(first, last, before))

    def _delete_deliveries(self, ids: Sequence[int]) -> int:
        """Those of them that have no event. A recorder may be adding one at this moment.

        So they are locked first and asked again after; what is locked by another is left alone.
        """
        events = Event.objects.filter(delivery=OuterRef("pk"), id__gt=self._gone)
        bare = Delivery.objects.filter(~Exists(events)).values_list("id", flat=True)
        found = list(bare.filter(id__in=ids))
        if self.dry or not found:
            return len(found)
        with self._transaction():
            locked = list(bare.filter(id__in=found).select_for_update(skip_locked=True))
            return _delete(bare.filter(id__in=locked)) if locked else 0

    def _ages(self) -> list[_Age]:
        """What has an age of its own."""
        quality = [(self.now - QUALITY_DAYS * _DAY) // _HOUR]
        kept = [_stored(self._time(days)) for days in (KEPT_DAYS, REPLAYED_DAYS)]
        quarantined = [_stored(self._time(QUARANTINED_DAYS))]
        return [
            _Age("hours of quality", QualityHour, "hour < %s", quality),
            _Age("hours of answers", AnswerHour, "hour < %s", quality),
            _Age("kept webhooks", KeptWebhook, "received_at < %s OR replayed_at < %s", kept),
            _Age("traces of the erased", ErasedMail, "erased_at < %s", kept[:1]),
            _Age("quarantined webhooks", QuarantinedWebhook, "received_at < %s", quarantined),
            _Age("minutes", MinuteCount, "minute <= %s", [oldest_minute(self.now)]),
        ]

    def _aged(self, age: _Age) -> Iterator[Step]:
        if self.dry:
            yield Step(age.what, age.count())
            return
        while True:
            with self._transaction():
                rows = age.delete(self.limit)
            if not rows:
                return
            yield Step(age.what, rows, 0)

    def _days(self, kept: Kept) -> Iterator[Step]:
        """Hours of the counters become days, long after they were frozen."""
        old = (self.now - HOURS_DAYS * _DAY) // _HOUR
        end = min(old, kept.deliveries_hour) // 24 * 24
        # The last day that was begun may not be done.
        day = first = first_day(max(read_horizon().days_hour - 24, 0), end)
        while day < end:
            if not self.dry and not _settled(kept.deliveries_hour):
                yield Step("hours made days", 0, 0, waits=True)
                continue
            self._begin_day(day)
            for hours in HOURS:
                yield from self._merge(hours, day, (day - first) / (end - first))
            day = first_day(day + 24, end)

    def _begin_day(self, day: int) -> None:
        """From now on it is read as a whole, so that it may be in pieces meanwhile."""
        if not self.dry:
            with self._transaction():
                _advance(days_hour=day + 24)
            horizon.clear()

    def _merge(self, hours: Hours, day: int, share: float) -> Iterator[Step]:
        """Add a table's rows of the day to those of its first hour, some a transaction."""
        if self.dry:
            yield Step("hours made days", hours.count(day), share)
            return
        while True:
            with self._transaction():
                rows = hours.merge(day, self.limit)
            if not rows:
                return
            yield Step("hours made days", rows, share)


# What a process has seen of the horizon for how long: (hour, time.monotonic()).
_seen: tuple[int, float] = (0, 0.0)


def _settled(hour: int) -> bool:
    """Whether every writer knows by now that the hours before are frozen.

    A writer that does not could find a delivery gone and count its late event as a new one.
    """
    global _seen  # noqa: PLW0603
    if _seen[0] != hour:
        _seen = hour, time.monotonic()
    return time.monotonic() - _seen[1] >= SETTLE


def _share(first: datetime, reached: datetime, end: datetime) -> float:
    """How much of a time has been gone through."""
    whole = (end - first).total_seconds()
    return min(1.0, max(0.0, (reached - first).total_seconds() / whole)) if whole > 0 else 1.0


def _delete(rows: QuerySet[Any]) -> int:
    """Delete without asking what refers to them: what does has gone, or keeps no reference."""
    return rows._raw_delete(rows.db)


def _stored(time: datetime) -> Any:
    """A time as the database's driver takes it."""
    return connection.ops.adapt_datetimefield_value(time)


# --- By itself ------------------------------------------------------------------------------------


class _ByItself:
    """The pruning that a server does between webhooks: a step a call, a round an hour."""

    def __init__(self) -> None:
        self._round: Iterator[Step] | None = None
        self._pruning: Pruning | None = None
        self._ended: int | None = None

    def __call__(self, now: int, budget_rows: int) -> bool:
        """Let go of at most so many rows, in one transaction; for one thread of a process.

        ``now`` is in microseconds. Returns whether a call soon would find more. Raises the
        database's errors; the next call begins anew.
        """
        if self._round is None and not self._is_due(now):
            return False
        if self._round is None or self._pruning is None:
            self._pruning = Pruning(now=now, limit=budget_rows, patient=False)
            self._round = self._pruning.steps()
        self._pruning.limit = budget_rows
        try:
            step = next(self._round)
        except StopIteration:
            self._round, self._ended = None, now
            return False
        except Taken:
            self._round = None
            return False
        except BaseException:
            self._round = None
            raise
        return not step.waits

    def _is_due(self, now: int) -> bool:
        return self._ended is None or abs(now - self._ended) >= REST

    def clear(self) -> None:
        """Forget how far it came: another database is behind the connection."""
        self.__init__()  # type: ignore[misc]


prune_some = _ByItself()
