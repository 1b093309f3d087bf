"""Where the numbers come from: whole hours from the counters if they can answer, or deliveries."""

from collections.abc import Iterable
from datetime import datetime

from dashboard.from_counters import can_count, count_hours
from dashboard.from_deliveries import count_deliveries
from dashboard.spans import Span, moment_of, whole_hours
from dashboard.tallies import Question, Tally
from ingest.retention import horizon


def count(question: Question, *, counters: bool = True) -> tuple[Tally, list[Span]]:
    """What was counted, and the stretches of time that the deliveries were needed for.

    Without ``counters`` everything comes from the deliveries: slower, and the same.
    """
    tally = Tally()
    hours, spans = whole_hours(question.start, question.until)
    if hours is not None:
        if counters and can_count(question):
            spans = spans + count_hours(question, hours, tally)
        else:
            spans = [(question.start, question.until)]
    count_deliveries(question, spans, tally)
    return tally, spans


def complete_from(needed: Iterable[Span], *, of_events: bool = False) -> datetime | None:
    """Since when deliveries (or events) are kept, if any were needed from before."""
    starts = [start for start, _ in needed]
    if not starts:
        return None
    kept = horizon()
    kept_from = kept.events_hour if of_events else kept.deliveries_hour
    since = moment_of(kept_from)
    before = any(start is None or start < since for start in starts)
    return since if kept_from and before else None
