"""All that the queues need done beside the requests, in small steps."""

from django.utils import timezone

from dashboard.review import bulk, queues, sample


def fill() -> bool:
    """One bounded step. Returns whether there is more to do at once.

    Raises the database's errors; what is committed stays, and the next step goes on.
    """
    if bulk.go_on() or queues.fill_some():
        return True
    now = timezone.now()
    sample.sample_week(now)
    queues.tend(now)
    bulk.forget(now)
    return False
