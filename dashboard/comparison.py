"""The same question about an earlier period, at equal age: with what had happened by then.

Mail bounces late and people complain late, so the past always looks worse than it did when it was
as young as now. An earlier period counts as of ``now`` − its shift. What stands of a delivery at a
moment follows from the times in its facts; its provider, tags and other names are those of today.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

import msgspec
from django.db.models import F, Q, QuerySet
from django.db.models.lookups import GreaterThan

from dashboard.filters import RANGES, FilterError
from dashboard.from_deliveries import DeliveryCount
from dashboard.rates import Counts, summed
from dashboard.sources import count
from dashboard.spans import EPOCH, QUARTER, Span, micros_of, span_of
from dashboard.tallies import Question, Tally
from ingest.fold import Facts, judge, load_facts
from ingest.models import Delivery
from ingest.vocabulary import MEASURES, EventKind, Flag, Outcome

COMPARES = ("previous", "week")
# Up to so many deliveries, each is judged again. Of more, only those that bounced or complained:
# their opens, clicks and unsubscribes, and what was in flight then, are as of today.
EXACT_MOST = 20_000
_WEEK = timedelta(days=7)
_LATE = int(Flag.COMPLAINED | Flag.LATE | Flag.RECOVERED)
_SENT, _OUTSIDE = MEASURES.index("sent"), [MEASURES.index(m) for m in ("suppressed", "rejected")]


@dataclass(frozen=True)
class Earlier:
    """What an earlier period had counted at the age that the asked one has now.

    ``is_exact``: every delivery was judged as of then, not only bounces and complaints.
    """

    question: Question
    tally: Tally
    shift: timedelta
    as_of: datetime
    is_exact: bool
    needed: list[Span]

    @property
    def total(self) -> Counts:
        """What was counted in all."""
        return Counts(*self.tally.total)

    def of_time(self, key: str) -> Counts:
        """What the hour or day with this key had, earlier."""
        start, until = span_of(key, self.question.by, self.question.filter.zone)
        first, last = ((moment - self.shift - EPOCH) // QUARTER for moment in (start, until))
        return summed(counts for at, counts in self._counted.items() if first <= at < last)

    @cached_property
    def _counted(self) -> dict[int, Counts]:
        return self.tally.counted()

    def as_json(self) -> dict[str, Any]:
        """The period, ready for JSON."""
        start, end = self.question.start, self.question.filter.end
        return {
            "from": start and start.isoformat(),
            "to": end and end.isoformat(),
            "as_of": self.as_of.isoformat(),
            "exact": self.is_exact,
        }


def earlier(question: Question, compare: str, *, now: datetime) -> Earlier:
    """The answer to a question about the period before, or the same weekday a week before.

    Raises ``FilterError`` for anything else, and where the question has no bounds.
    """
    shift = _shift(question, compare)
    start, end = question.filter.start, question.filter.end
    assert start and end  # noqa: S101 - _shift has seen to it
    then = replace(question.filter, now=now - shift, range="", since=start - shift, to=end - shift)
    asked = Question(then, question.rights, question.by)
    tally, needed = count(asked)
    few = sum(tally.total[i] for i in (_SENT, *_OUTSIDE)) <= EXACT_MOST
    _Correction(asked, now - shift, few).add_to(tally)
    whole: list[Span] = [(asked.start, asked.until)]
    return Earlier(asked, tally, shift, now - shift, few, [*needed, *whole])


def _shift(question: Question, compare: str) -> timedelta:
    if compare not in COMPARES:
        raise FilterError(f"compare is one of {', '.join(COMPARES)}.")
    start, end = question.filter.start, question.filter.end
    if start is None or end is None:
        raise FilterError("compare needs a range, or from and to.")
    if compare == "week":
        return _WEEK
    # Whole hours of a range stay whole hours.
    return RANGES[question.filter.range] if question.filter.range else end - start


class _Correction(DeliveryCount):
    """Takes away what deliveries count for now, and adds what they had counted for then."""

    def __init__(self, question: Question, moment: datetime, every: bool) -> None:
        super().__init__(question, words_apart=True)
        self.moment, self.every = micros_of(moment), every

    def add_to(self, tally: Tally) -> None:
        """Correct a tally of today."""
        spans = [(self.question.start, self.question.until)]
        for known in self._each(spans):
            then = _as_known_at(known, self.moment)
            if then != known:
                self.add_group(tally, known, -1)
                if then is not None and self._still_matches(known, then):
                    self.add_group(tally, then, 1)

    def _still_matches(self, known: dict[str, Any], then: dict[str, Any]) -> bool:
        """A filter by what refused it holds for what was refused by then."""
        by_refusal = any(self.filter.values(name) for name in ("category", "code", "reason"))
        is_view = self.categories is not None
        return not by_refusal or is_view or then["outcome"] == known["outcome"]

    def _each(self, spans: Sequence[Span]) -> Iterator[dict[str, Any]]:
        columns = self.row_columns
        found = self._changed(self.deliveries(spans)).order_by()
        for row in found.values_list(self.key, *columns[1:], "facts").iterator(2_000):
            yield dict(zip((*columns, "facts"), row, strict=True))

    def _changed(self, deliveries: QuerySet[Delivery]) -> QuerySet[Delivery]:
        if self.every:
            return deliveries
        late = Q(GreaterThan(F("flags").bitand(_LATE), 0))
        return deliveries.filter(Q(outcome=Outcome.BOUNCED) | late)


def _as_known_at(known: dict[str, Any], moment: int) -> dict[str, Any] | None:
    """A delivery's columns as they were; ``None`` before its first event."""
    facts = as_of(load_facts(known["facts"]), moment)
    if facts is None:
        return None
    stood = judge(facts)
    then = {
        "outcome": int(stood.outcome),
        "flags": stood.flags,
        "bounce_class": stood.bounce_class,
        "category": stood.category,
    }
    return {name: then.get(name, value) for name, value in known.items()}


def as_of(facts: Facts, moment: int) -> Facts | None:
    """The facts as they were at a moment (µs since 1970); ``None`` before the first event.

    Facts keep first and last times only: of several bounces, all but the last are taken to have
    had its category.
    """
    first = {kind: time for kind, time in facts.first.items() if time <= moment}
    if not first:
        return None
    failure = facts.failure
    if failure is not None and failure.time > moment:
        is_bounce = failure.time == facts.last_bounced
        failure = failure if is_bounce and EventKind.BOUNCED in first else None
    return msgspec.structs.replace(
        facts,
        first=first,
        last_bounced=_by(facts.last_bounced, EventKind.BOUNCED, first, moment),
        last_delivered=_by(facts.last_delivered, EventKind.DELIVERED, first, moment),
        human_opened=facts.human_opened if facts.human_opened <= moment else 0,
        machine=facts.machine and bool(first.keys() & {EventKind.OPENED, EventKind.CLICKED}),
        failure=failure,
    )


def _by(last: int, kind: EventKind, first: dict[int, int], moment: int) -> int:
    """The last time of a kind until a moment, as far as it is known."""
    return last if last <= moment else first.get(kind, 0)
