"""Where the numbers come from: whole hours from the counters if they can answer, or deliveries."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, time, timedelta

from dashboard.from_counters import can_count, can_lead, count_hours, count_leading
from dashboard.from_deliveries import count_deliveries
from dashboard.spans import EPOCH, Span, moment_of, whole_hours
from dashboard.tallies import Leading, Question, Tally
from ingest.retention import HOURS_DAYS, horizon

_HOURS_KEPT = timedelta(days=HOURS_DAYS)


def count(
    question: Question,
    *,
    counters: bool = True,
    leading: Leading | None = None,
    in_quarters: bool = True,
) -> tuple[Tally, list[Span]]:
    """What was counted, and the stretches of time that the deliveries were needed for.

    Without ``counters`` everything comes from the deliveries: slower, and the same. With
    ``leading`` only the first groups may be counted: see ``Tally.led``. Groups of time are quarters
    of an hour, or longer where these will not do.
    """
    tally = Tally()
    hours, spans = whole_hours(question.start, question.until)
    if hours is not None:
        if counters and can_count(question):
            if leading and not spans and can_lead(question):
                count_leading(question, hours, tally, leading)
                return tally, []
            spans = spans + count_hours(question, hours, tally)
        else:
            spans = [(question.start, question.until)]
    count_deliveries(question, spans, tally, in_quarters=in_quarters)
    return tally, spans


def complete_from(
    question: Question, needed: Iterable[Span], *, of_events: bool = False
) -> datetime | None:
    """Since when the answer is whole; ``None``: from its beginning.

    ``needed`` are the stretches that deliveries (or events) were needed for, which are let go of
    with age; and very old hours are kept as days.
    """
    limits = [_kept_from(list(needed), of_events), _hours_from(question)]
    return max((limit for limit in limits if limit), default=None)


def _kept_from(needed: Sequence[Span], of_events: bool) -> datetime | None:
    if not needed:
        return None
    kept = horizon()
    hour = kept.events_hour if of_events else kept.deliveries_hour
    since = moment_of(hour)
    before = any(start is None or start < since for start, _ in needed)
    return since if hour and before else None


def _hours_from(question: Question) -> datetime | None:
    """Where hours begin, or whole days, if the question asks for parts of those before."""
    start, zone = question.start, question.filter.zone
    if start is not None and question.filter.now - start < _HOURS_KEPT:
        return None
    days = moment_of(horizon().days_hour)
    if start is not None and start >= days or days == EPOCH:
        return None
    is_utc = days.astimezone(zone).utcoffset() == timedelta(0)
    if question.by == "hour" or (question.by == "day" and not is_utc):
        return days
    if start is None or start.time() == time():
        return None
    return datetime.combine(start.date() + timedelta(days=1), time(), UTC)
