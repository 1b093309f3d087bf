"""Which events may match a filter: found by the database, so that rare ones are found soon."""

import time
from collections.abc import Collection
from datetime import UTC, datetime, timedelta

from django.db.models import Q, Sum

from dashboard.access import Rights
from dashboard.bounded import within
from dashboard.filters import Filter
from ingest.models import Delivery, Event, EventHour, Location
from ingest.vocabulary import FLEET_LOCATION

FEW_DELIVERIES = 2_000  # that may be asked for by their ids
SHORT_CUT = 0.25  # seconds that it may take to find out that they are few
STRETCH = 100_000  # ids that are looked through at once for the beginning of a stretch of time
FEW_EVENTS = 50_000  # of a stretch of time that are looked through at once
# Ids in the first stretch that is looked through; where an index holds the reasons, many more.
FIRST, FIRST_OF_REASON = 2_000, 500_000

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_HOUR = timedelta(hours=1)
# Keys before 2015 are of events whose own time could not be read or used.
_UNDATED = ((datetime(2015, 1, 1, tzinfo=UTC) - _EPOCH) // _HOUR).to_bytes(4)


class EventSearch:
    """Cursors of all events that match a filter and may be seen, and of few others.

    ``first``: how many ids to look through at first; ``None``: all of them, that is cheap.
    """

    def __init__(self, filter: Filter, rights: Rights) -> None:
        self._locations = filter.location_ids(rights)
        events = Event.objects.filter(*filter.event_conditions())
        if self._locations is not None:
            events = events.filter(location_id__in=self._locations)
        self.first: int | None = FIRST_OF_REASON if filter.values("reason") else FIRST
        self._parts = [events]
        if conditions := self._of_few_deliveries(filter) or self._of_little_time(filter):
            self._parts, self.first = [events.filter(found) for found in conditions], None

    def cursors(self, after: int, until: int, limit: int) -> list[int]:
        """The first cursors after one and up to another, in order."""
        found: list[int] = []
        for events in self._parts:
            cursors = events.filter(pk__gt=after, pk__lte=until).order_by("pk")
            found += cursors.values_list("pk", flat=True)[:limit]
        return sorted(found)[:limit]

    def _of_few_deliveries(self, filter: Filter) -> list[Q]:
        """Where few deliveries match: what happened to them, and what has no delivery."""
        conditions = filter.delivery_conditions()
        if not conditions:
            return []
        deliveries = Delivery.objects.filter(*conditions)
        if self._locations is not None:
            deliveries = deliveries.filter(location_id__in=self._locations)
        found = deliveries.order_by().values_list("pk", flat=True)[: FEW_DELIVERIES + 1]
        ids = within(SHORT_CUT, lambda: list(found))
        if ids is None or len(ids) > FEW_DELIVERIES:
            return []
        return [Q(delivery_id__in=ids), Q(delivery_id=None)]

    def _of_little_time(self, filter: Filter) -> list[Q]:
        """Where little has happened since the first moment: keys begin with their hour."""
        if filter.start is None or filter.clock == "sent":
            return []
        hour = (filter.start - _EPOCH) // _HOUR
        if self._happened_since(hour) > FEW_EVENTS:
            return []
        located = Q(location_id__in=self._places())
        return [located & found for found in _since(hour)]

    def _places(self) -> Collection[int]:
        """Primary keys of all locations that are looked at: the index is by location first."""
        if self._locations is not None:
            return self._locations
        return list(Location.objects.values_list("pk", flat=True))

    def _happened_since(self, hour: int) -> int:
        """About how many events; those of test mode are not counted."""
        places = {FLEET_LOCATION} if self._locations is None else self._locations
        counted = EventHour.objects.filter(location_id__in=places, hour__gte=hour)
        return int(counted.aggregate(n=Sum("events", default=0))["n"])


class _Beginnings:
    """Up to which cursor nothing happened at an hour or after it, as far as it was looked into.

    That stays true for good, for ids only grow, and it is true of all later hours too. So a
    stretch of time that began long after the first events is soon found again.
    """

    most = 1_000

    def __init__(self) -> None:
        self._known: dict[int, int] = {}

    def clear(self) -> None:
        """Forget everything: another database is behind the connection."""
        self._known.clear()

    def before(self, start: datetime, newest: int) -> int:
        """The last cursor of which it is known that up to it nothing happened since ``start``.

        Looks for about ``SHORT_CUT`` seconds, and goes on from there the next time.
        """
        hour = (start - _EPOCH) // _HOUR
        cursor = max((c for h, c in list(self._known.items()) if h <= hour), default=0)
        began = time.monotonic()
        while cursor < newest:
            until = min(cursor + STRETCH, newest)
            first = _first_since(_EPOCH + hour * _HOUR, cursor, until)
            cursor = until if first is None else first - 1
            if first is not None or time.monotonic() - began >= SHORT_CUT:
                break
        self.learn(hour, cursor)
        return cursor

    def learn(self, hour: int, cursor: int) -> None:
        """Nothing up to this cursor happened at the hour or after it."""
        if len(self._known) >= self.most:
            self._known.pop(min(self._known))
        self._known[hour] = cursor


beginnings = _Beginnings()


def _first_since(moment: datetime, after: int, until: int) -> int | None:
    events = Event.objects.filter(pk__gt=after, pk__lte=until, occurred_at__gte=moment)
    return events.order_by("pk").values_list("pk", flat=True).first()


def _since(hour: int) -> list[Q]:
    """Conditions on keys that hold all that happened since an hour: they begin with theirs."""
    return [Q(key__gte=hour.to_bytes(4)), Q(key__lt=_UNDATED)]
