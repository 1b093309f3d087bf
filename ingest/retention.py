"""What is let go of with age, in small bounded steps."""

from django.db.models import Min

from ingest.models import MinuteCount

MINUTES_KEPT = 48 * 60  # as far back as the live chart may look
STEP = 60  # minutes let go of at once, however many have gathered


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
