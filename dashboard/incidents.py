"""Whether a provider refused the mail of many as if their addresses were bad, at some hour.

Then it is the provider that is unwell, and what it says of an address is not to be believed.
"""

from collections import defaultdict
from collections.abc import Collection
from datetime import datetime

from django.db.models import Q, QuerySet, Sum

from dashboard.judging import PRIORS, Verdict, verdict
from dashboard.spans import hour_of
from ingest.models import EventHour
from ingest.vocabulary import FLEET_LOCATION, BounceClass, EventKind

OTHERS = 3  # other locations whose mail it refuses unusually often
BEFORE = 28 * 24  # hours that say what is usual
_LEAST_LINE, _TIMES = 0.03, 3.0  # unusual is thrice the usual rate, and HighLevel's warning
_LEAST = 5  # hard bounces in a location that are no accident
_ENDED = Q(kind__in=[EventKind.DELIVERED, EventKind.BOUNCED])


class Incidents:
    """What is known of hours and providers, each looked up once."""

    def __init__(self) -> None:
        self._anomalous: dict[tuple[int, int], Collection[int]] = {}

    def is_one(self, provider_id: int, location_id: int, at: datetime) -> bool:
        """Whether this provider was unwell for other locations around a moment."""
        key = provider_id, hour_of(at)
        if key not in self._anomalous:
            self._anomalous[key] = _anomalous(*key)
        return len({*self._anomalous[key]} - {location_id}) >= OTHERS


def _anomalous(provider_id: int, hour: int) -> Collection[int]:
    """Locations of whose mail it refused unusually much as hard in this hour and the last."""
    rows = EventHour.objects.filter(_ENDED, provider_id=provider_id)
    now = rows.filter(hour__gte=hour - 1, hour__lte=hour)
    hard, _ = _sums(now.filter(location_id=FLEET_LOCATION)).get(FLEET_LOCATION, (0, 0))
    if hard < OTHERS * _LEAST:
        return ()
    before = rows.filter(location_id=FLEET_LOCATION, hour__gte=hour - BEFORE, hour__lt=hour - 1)
    usual, of = _sums(before).get(FLEET_LOCATION, (0, 0))
    line = min(0.5, max(_LEAST_LINE, _TIMES * usual / of if of else 0.0))
    phi = PRIORS["hard_bounce_rate"]
    found = _sums(now.exclude(location_id=FLEET_LOCATION))
    return {pk for pk, (x, n) in found.items() if verdict(x, n, line, phi) is Verdict.OVER}


def _sums(rows: QuerySet[EventHour]) -> dict[int, tuple[int, int]]:
    """Hard bounces, and all that was delivered or bounced, by location."""
    found: dict[int, list[int]] = defaultdict(lambda: [0, 0])
    grouped = rows.order_by().values_list("location_id", "bounce_class")
    for location, bounce_class, n in grouped.annotate(n=Sum("events")):
        found[location][0] += n if bounce_class == BounceClass.HARD else 0
        found[location][1] += n
    return {location: (hard, ended) for location, (hard, ended) in found.items()}
