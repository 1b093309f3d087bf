"""The same question about an earlier period, at equal age: with what had happened by then.

Mail bounces late and people complain late, so the past always looks worse than it did when it was
as young as now. An earlier period counts as of ``now`` − its shift. What stands of a delivery at a
moment follows from the times in its facts; its provider, tags and other names are those of today.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cached_property
from itertools import batched
from typing import Any

import msgspec
from django.db.models import F, Q
from django.db.models.lookups import GreaterThan

from dashboard.filters import RANGES, FilterError
from dashboard.from_deliveries import DeliveryCount
from dashboard.rates import Counts, summed
from dashboard.sources import count
from dashboard.spans import EPOCH, QUARTER, Span, micros_of, span_of
from dashboard.tallies import Question, Tally
from ingest.fold import Facts, judge, load_facts
from ingest.vocabulary import MEASURES, EventKind, Flag, Outcome

COMPARES = ("previous", "week")
# Up to so many deliveries, each is judged again. Of more, only those that bounced or complained:
# their opens, clicks and unsubscribes, and what was in flight then, are as of today.
EXACT_MOST = 20_000
_WEEK = timedelta(days=7)
_LATE = int(Flag.COMPLAINED | Flag.LATE | Flag.RECOVERED)
_SENT, _OUTSIDE = MEASURES.index("sent"), [MEASURES.index(m) for m in ("suppressed", "rejected")]


_STOOD = ("outcome", "flags", "bounce_class", "category")

type Stood = tuple[int, int, int, int]
"""Where a delivery stood: the columns of ``_STOOD``."""
type Others = dict[int, Stood | None]
"""Deliveries that stood otherwise than now, by their ids; ``None`` before the first event."""


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
    others: Others

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


def earlier(
    question: Question, compare: str, *, now: datetime, known: Earlier | None = None
) -> Earlier:
    """The answer to a question about the period before, or the same weekday a week before.

    ``known`` is that to the same question grouped otherwise: it spares half the work. Raises
    ``FilterError`` for anything else, and where the question has no bounds.
    """
    shift = _shift(question, compare)
    start, end = question.filter.start, question.filter.end
    assert start and end  # noqa: S101 - _shift has seen to it
    then = replace(question.filter, now=now - shift, range="", since=start - shift, to=end - shift)
    asked = Question(then, question.rights, question.by)
    tally, needed = count(asked)
    few = sum(tally.total[i] for i in (_SENT, *_OUTSIDE)) <= EXACT_MOST
    correction = _Correction(asked)
    others = known.others if known else correction.other_then(now - shift, every=few)
    correction.add_to(tally, others)
    return Earlier(asked, tally, shift, now - shift, few, needed + correction.spans, others)


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

    def __init__(self, question: Question) -> None:
        super().__init__(question, words_apart=True)
        self.spans: list[Span] = [(question.start, question.until)]

    def other_then(self, moment: datetime, *, every: bool) -> Others:
        """The deliveries that stood otherwise at a moment, of all or of the late ones only."""
        found = self.deliveries(self.spans).order_by()
        if not every:
            late = Q(GreaterThan(F("flags").bitand(_LATE), 0))
            found = found.filter(Q(outcome=Outcome.BOUNCED) | late)
        others: Others = {}
        for pk, facts, *now in found.values_list("pk", "facts", *_STOOD).iterator(2_000):
            then = _stood(as_of(load_facts(facts), micros_of(moment)))
            if then is None or tuple(now) != then:
                others[pk] = then
        return others

    def add_to(self, tally: Tally, others: Others) -> None:
        """Correct a tally of today."""
        found = self.deliveries(self.spans).order_by()
        columns = ("key", *dict.fromkeys((*_STOOD, *self.row_columns[1:])))
        for some in batched(others, 5_000):
            rows = found.filter(pk__in=some).values_list("pk", self.key, *columns[1:])
            for pk, *row in rows:
                known = dict(zip(columns, row, strict=True))
                self.add_group(tally, known, -1)
                then = others[pk]
                if then is not None and self._still_matches(known["outcome"], then[0]):
                    self.add_group(tally, known | dict(zip(_STOOD, then, strict=True)), 1)

    def _still_matches(self, outcome: int, then: int) -> bool:
        """A filter by what refused it holds for what was refused by then."""
        by_refusal = any(self.filter.values(name) for name in ("category", "code", "reason"))
        return not by_refusal or self.categories is not None or then == outcome


def _stood(facts: Facts | None) -> Stood | None:
    if facts is None:
        return None
    stood = judge(facts)
    return int(stood.outcome), stood.flags, int(stood.bounce_class), int(stood.category)


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
