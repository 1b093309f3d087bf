"""What is let go of with age, in small bounded steps, and how far back each table goes."""

import time
from typing import NamedTuple

from django.db.models import Min

from ingest.models import Horizon, MinuteCount

MINUTES_KEPT = 48 * 60  # as far back as the live chart may look
STEP = 60  # minutes let go of at once, however many have gathered
HORIZON_AGE = 1_000_000  # µs: so old may what a process knows of the horizon be


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


def oldest_minute(now: int) -> int:
    """The last minute since 1970 that is no longer kept; ``now`` is in microseconds."""
    return now // 60_000_000 - MINUTES_KEPT


def prune_minutes(*, now: int) -> int:
    """Delete some minutes that are too old. Returns how many rows went."""
    oldest = oldest_minute(now)
    first = MinuteCount.objects.aggregate(first=Min("minute"))["first"]
    if first is None or first > oldest:
        return 0
    deleted, _ = MinuteCount.objects.filter(minute__lte=min(first + STEP, oldest)).delete()
    return deleted
