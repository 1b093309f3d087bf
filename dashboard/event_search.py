"""Which events may match a filter: found by the database, so that rare ones are found soon."""

from datetime import UTC, datetime, timedelta

from django.db.models import Q, Sum

from dashboard.access import Rights
from dashboard.filters import Filter
from ingest.models import Delivery, Event, EventHour, Location
from ingest.vocabulary import FLEET_LOCATION

FEW_DELIVERIES = 2_000  # that a search may find and still be asked for by their ids
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
        """Where a recipient or a message is searched for: its deliveries', and those of none."""
        searched = filter.values("q")
        if not searched or any(value.startswith("@") for value in searched):
            return []
        deliveries = Delivery.objects.filter(*filter.only("q").conditions())
        ids = list(deliveries.values_list("pk", flat=True)[: FEW_DELIVERIES + 1])
        if len(ids) > FEW_DELIVERIES:
            return []
        return [Q(delivery_id__in=ids), Q(delivery_id=None)]

    def _of_little_time(self, filter: Filter) -> list[Q]:
        """Where little has happened since the first moment: keys begin with their hour."""
        if filter.start is None or filter.clock == "sent":
            return []
        hour = (filter.start - _EPOCH) // _HOUR
        if self._happened_since(hour) > FEW_EVENTS:
            return []
        # The index is by location first.
        located = Q()
        if self._locations is None:
            located = Q(location_id__in=list(Location.objects.values_list("pk", flat=True)))
        return [located & Q(key__gte=hour.to_bytes(4)), located & Q(key__lt=_UNDATED)]

    def _happened_since(self, hour: int) -> int:
        """About how many events; those of test mode are not counted."""
        places = {FLEET_LOCATION} if self._locations is None else self._locations
        counted = EventHour.objects.filter(location_id__in=places, hour__gte=hour)
        return int(counted.aggregate(n=Sum("events", default=0))["n"])
