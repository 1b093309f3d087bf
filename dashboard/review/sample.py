"""Once a week, refusals drawn at random: what people find in them measures our own error.

Each bounced delivery of the week is as likely as any other. The counters say how many there were
in every hour of every location, so a number drawn leads to its delivery by three look-ups.
"""

from datetime import UTC, datetime, timedelta
from random import Random

from django.db import transaction
from django.db.models import QuerySet

from dashboard.review.cases import Queue
from dashboard.review.models import ReviewProgress
from dashboard.review.queues import Matter, enter, is_alone
from ingest.models import Delivery, LocationHour
from ingest.vocabulary import Outcome

DRAWN = 50  # deliveries a week
WEEK = 7 * 24  # hours
_MONDAY = 4 * 24  # the first one since 1970, in hours
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def sample_week(now: datetime) -> int:
    """Draw from the last whole week, from Monday to Sunday in UTC, once. Returns how many."""
    hour = int((now - _EPOCH) / timedelta(hours=1))
    end = hour - (hour - _MONDAY) % WEEK
    done = ReviewProgress.objects.filter(id=1).values_list("sampled_hour", flat=True).first()
    if done is not None and done >= end:
        return 0
    matters = draw(end - WEEK, end, DRAWN)
    with transaction.atomic():
        if not is_alone():
            return 0
        # The row is made by the queues' first step: made here, it would begin at the first event.
        if not ReviewProgress.objects.filter(id=1, sampled_hour__lt=end).update(sampled_hour=end):
            return 0
        enter(matters)
    return len(matters)


def draw(first: int, end: int, most: int) -> list[Matter]:
    """So many bounced deliveries of these hours (the second excluded), each equally likely."""
    hours = _bounced(LocationHour.objects.filter(location_id=0, hour__gte=first, hour__lt=end))
    total = sum(n for _, n in hours)
    chance = Random(end)  # noqa: S311 - the same week draws the same numbers
    numbers = sorted(chance.sample(range(total), min(most, total)))
    found = [_drawn(hours, number) for number in numbers]
    return sorted((each for each in found if each), key=lambda matter: matter.subject)


def _bounced(rows: QuerySet[LocationHour], by: str = "hour") -> list[tuple[int, int]]:
    counted = rows.filter(bounced__gt=0).order_by(by).values_list(by, "bounced")
    return [(key, n) for key, n in counted]


def _drawn(hours: list[tuple[int, int]], number: int) -> Matter | None:
    """The delivery with this number; ``None`` where the counters have moved meanwhile."""
    hour, number = _place(hours, number)
    places = _bounced(LocationHour.objects.filter(hour=hour).exclude(location_id=0), "location_id")
    location, number = _place(places, number)
    since = _EPOCH + timedelta(hours=hour)
    rows = Delivery.objects.filter(
        location_id=location, sent_at__gte=since, sent_at__lt=since + timedelta(hours=1),
        outcome=Outcome.BOUNCED,
    )  # fmt: skip
    found = rows.order_by("sent_at", "pk").values_list("pk", "sent_at")[number : number + 1]
    for pk, sent_at in found:
        return Matter(Queue.SAMPLE, f"d:{pk}", sent_at, location, pk)
    return None


def _place(counted: list[tuple[int, int]], number: int) -> tuple[int, int]:
    """Into which part a number falls, and the how-manieth it is there."""
    for key, n in counted:
        if number < n:
            return key, number
        number -= n
    return (counted[-1][0] if counted else 0), number
