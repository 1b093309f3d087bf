"""What fails where: reasons and campaigns behind some locations' failures, in one query each."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import NamedTuple

from django.db.models import OuterRef, Subquery, Sum

from dashboard import reasons
from dashboard.access import Rights
from dashboard.filters import Filter
from dashboard.judging import is_over
from dashboard.names import campaign_name, page_url, path_of
from dashboard.needs import Failure
from dashboard.queries import names_of
from dashboard.refreshed import Kept
from dashboard.spans import hour_of, moment_of
from ingest.models import Delivery, Event, HourlyCount, Location, LocationHour, Reason, ReasonHour
from ingest.vocabulary import BounceClass, Category, Dimension, EventKind, Outcome

_FINAL = (EventKind.BOUNCED, EventKind.SUPPRESSED)
# What each measure of the way to a stop counts as bad, and of what, in the counters.
BAD = {
    "hard": (("bounced", "suppressed"), ("sent", "suppressed")),
    "blocks": (("block_high",), ("sent",)),
    "complaints": (("visible_complained",), ("visible_reached",)),
}
CHIPS = {"mixed": "several"}


# --- Reasons -------------------------------------------------------------------------------


KEPT_FROM = 1_000  # failures: some 20 ms to look through
KEPT_PLACES = 100  # … or so many locations that could have met one: each is looked up
KEPT_FRESH = 10.0  # seconds


def _are_many(found: list[Failure]) -> bool:
    return (
        sum(failure.events for failure in found) >= KEPT_FROM
        or max((failure.of for failure in found), default=0) >= KEPT_PLACES
    )


_kept = Kept[tuple[str, Rights, int], list[Failure]](_are_many, fresh=KEPT_FRESH)


def failures(filter: Filter, rights: Rights, *, limit: int) -> list[Failure]:
    """The most frequent reasons of a filter; where there are many failures, as of seconds ago.

    Raises ``FilterError`` for what has no answer.
    """
    if filter.clock:  # refusals count when they happen, whatever the numbers beside them go by
        filter = replace(filter, clock="")

    def read() -> list[Failure]:
        return [_failure(row, filter) for row in reasons.reasons(filter, rights, limit=limit).rows]

    return _kept.get((filter.canonical(), rights, limit), read)


def _failure(row: reasons.Row, filter: Filter) -> Failure:
    return Failure(
        id=row.id,
        events=row.whole.events,
        bounced=row.whole.bounced,
        locations=row.whole.locations,
        of=row.reach.of,
        provider=row.reach.provider,
        pool=row.reach.pool,
        scope=row.rule.scope,
        fix_by=row.rule.fix_by,
        means=row.rule.means or row.reason.text,
        reach=row.reach.sentence,
        chip=CHIPS.get(row.reach.scope, row.reach.scope),
        since=_since(row, filter),
        is_new=bool(row.new_at),
        url=reason_url(row.id, filter),
    )


def _since(row: reasons.Row, filter: Filter) -> datetime | None:
    """When it began, if that lies within the bounds."""
    new = [at.first_ever for at in row.at if at.is_new]
    if row.at and len(new) == len(row.at):
        return min(new)
    first = moment_of(row.whole.first_hour)
    began = filter.start is None or first >= filter.start + timedelta(hours=1)
    return first if began else None


def reason_url(pk: int, filter: Filter) -> str:
    """The page of a reason."""
    return page_url("reason", str(pk), query=filter.canonical())


def list_url(filter: Filter | None) -> str:
    """The list of deliveries of a filter; "" for what has none."""
    return "" if filter is None else f"{path_of('deliveries')}?{filter.canonical()}"


type Refused = Mapping[int, Mapping[int, int]]
"""How often each reason met each location: location → reason → failures."""


_kept_refused = Kept[tuple[frozenset[int], int], Refused](
    lambda found: sum(sum(met.values()) for met in found.values()) >= KEPT_FROM, fresh=KEPT_FRESH
)


def refused(locations: Collection[int], since: datetime) -> Refused:
    """Final failures of locations by reason; where there are none, temporary ones.

    Where there are many, as of seconds ago.
    """
    key = frozenset(locations), hour_of(since)
    return _kept_refused.get(key, lambda: _refused(locations, since))


def _refused(locations: Collection[int], since: datetime) -> Refused:
    rows = ReasonHour.objects.filter(location_id__in=locations, hour__gte=hour_of(since))
    grouped = rows.order_by().values_list("location_id", "reason_id", "kind")
    final: dict[int, dict[int, int]] = defaultdict(dict)
    passing: dict[int, dict[int, int]] = defaultdict(dict)
    for location, reason, kind, events in grouped.annotate(n=Sum("events")):
        into = final if kind in _FINAL else passing
        into[location][reason] = into[location].get(reason, 0) + events
    return {**passing, **final}


def categories(pks: Iterable[int]) -> dict[int, Category]:
    """Of reasons, by their ids."""
    rows = Reason.objects.filter(pk__in=set(pks)).values_list("pk", "category")
    return {pk: Category(category) for pk, category in rows}


# --- Campaigns -----------------------------------------------------------------------------


class Share(NamedTuple):
    """The campaign with the most of a location's failures."""

    campaign: str
    bad: int


_kept_worst = Kept[tuple[frozenset[int], int, str], dict[int, Share]](
    lambda found: sum(share.bad for share in found.values()) >= KEPT_FROM, fresh=KEPT_FRESH
)


def worst_campaigns(
    locations: Collection[int], since: datetime, measure: str = "hard"
) -> dict[int, Share]:
    """By location: where most of what went wrong comes from; if it is much, as of seconds ago."""
    key = frozenset(locations), hour_of(since), measure
    return _kept_worst.get(key, lambda: _worst_campaigns(locations, since, measure))


def _worst_campaigns(locations: Collection[int], since: datetime, measure: str) -> dict[int, Share]:
    columns, _ = BAD[measure]
    counted = HourlyCount.objects.filter(
        location_id__in=locations, dimension=Dimension.CAMPAIGN, hour__gte=hour_of(since)
    )
    sums = {f"sum_{column}": Sum(column) for column in columns}
    worst: dict[int, tuple[int, int]] = {}
    for location, value, *bad in (
        counted.order_by().values_list("location_id", "value_id").annotate(**sums)
    ):
        if sum(bad) > worst.get(location, (0, 0))[0]:
            worst[location] = sum(bad), value
    named = names_of({value for _, value in worst.values()})
    found = {}
    for location, (n, value) in worst.items():
        if value in named and named[value].text:
            name = named[value].label or campaign_name(named[value].text)
            found[location] = Share(name, n)
    return found


# --- Locations -----------------------------------------------------------------------------

SPARK_HOURS, SPARK_STEP = 7 * 24, 6


_kept_steps = Kept[tuple[frozenset[int], int], dict[int, list[int]]](
    lambda found: sum(map(sum, found.values())) >= KEPT_FROM, fresh=KEPT_FRESH
)


def failures_by_step(locations: Collection[int], now: datetime) -> dict[int, list[int]]:
    """Bounces of seven days by location, in quarters of days; the last one is running.

    Where there are many, as of seconds ago.
    """
    key = frozenset(locations), hour_of(now) // SPARK_STEP
    return _kept_steps.get(key, lambda: _failures_by_step(locations, key[1]))


def _failures_by_step(locations: Collection[int], last: int) -> dict[int, list[int]]:
    first = last - SPARK_HOURS // SPARK_STEP + 1
    rows = LocationHour.objects.filter(location_id__in=locations, hour__gte=first * SPARK_STEP)
    found: dict[int, list[int]] = {}
    for location, hour, bounced in rows.filter(bounced__gt=0).values_list(
        "location_id", "hour", "bounced"
    ):
        steps = found.setdefault(location, [0] * (last - first + 1))
        steps[min(hour // SPARK_STEP, last) - first] += bounced
    return found


def last_events(locations: Collection[int]) -> dict[int, datetime]:
    """When the newest event of each location came."""
    newest = Event.objects.filter(location=OuterRef("pk")).order_by("-id")
    places = Location.objects.filter(pk__in=locations).order_by("pk")
    rows = places.annotate(at=Subquery(newest.values("received_at")[:1]))
    return {pk: at for pk, at in rows.values_list("pk", "at") if at}


def over_since(location: int, measure: str, since: datetime, line: float) -> datetime | None:
    """From which hour on what was counted since a moment has stayed at a line or over it."""
    bad, of = BAD[measure]
    columns = tuple(dict.fromkeys((*bad, *of)))
    rows = LocationHour.objects.filter(location_id=location, hour__gte=hour_of(since))
    x = n = 0
    began: int | None = None
    for hour, *values in rows.order_by("hour").values_list("hour", *columns):
        counted = dict(zip(columns, values, strict=True))
        x, n = x + sum(counted[name] for name in bad), n + sum(counted[name] for name in of)
        if not is_over(x, n, line):
            began = None
        elif began is None:
            began = hour
    return None if began is None or began == hour_of(since) else moment_of(began)


def bounced_addresses(location: int, since: datetime, *, hard: bool, most: int = 3) -> list[str]:
    """The newest addresses that a location's mail could not reach."""
    rows = Delivery.objects.filter(
        location_id=location, sent_at__gte=since, outcome=Outcome.BOUNCED
    )
    rows = rows.filter(bounce_class=BounceClass.HARD) if hard else rows
    return list(rows.order_by("-sent_at").values_list("recipient", flat=True)[:most])
