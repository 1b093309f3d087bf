"""Is a refusal going on? Its hours gathered to steps, where they lead, and what it put off.

Everything goes by the time at which refusals happened.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

from django.db.models import Count

from dashboard import judging
from dashboard.bounded import within
from dashboard.filters import Filter
from dashboard.judging import Verdict
from dashboard.refusals import KINDS, Asked
from dashboard.spans import hour_of, moment_of
from ingest.fold import IN_FLIGHT
from ingest.models import Delivery, Event
from ingest.vocabulary import EventKind, Outcome

_SIZES = (1, 3, 6, 12, 24, 7 * 24)  # hours of a step
RECENT = 3  # steps, the running one with them, beside all before them
_PHI = 6.0  # refusals come in bursts: dispersion of blocks and deferrals
_TIMES = 2.0  # so much more, or less, than before is a change
_FOLLOWED = 2_000  # deferrals, the newest ones, whose mails are followed
_FOLLOW_SECONDS = 0.6
MINUTES = 60
_READ = 50_000  # refusals of an hour, up to which they are counted by the minute


# --- Steps -----------------------------------------------------------------------------------


class Steps(NamedTuple):
    """Stretches of equal length that follow each other, from ``first`` on."""

    first: datetime
    length: timedelta
    many: int

    def place(self, moment: datetime) -> int:
        """Which of them a moment lies in; what lies outside belongs to the nearest."""
        return min(max(0, (moment - self.first) // self.length), self.many - 1)

    @property
    def starts(self) -> list[datetime]:
        """When each begins."""
        return [self.first + at * self.length for at in range(self.many)]

    @property
    def end(self) -> datetime:
        """When the last one ends."""
        return self.first + self.many * self.length

    def gathered(self, hours: Mapping[int, int]) -> list[int]:
        """Counts of hours since 1970, a step each."""
        found = [0] * self.many
        for hour, n in hours.items():
            found[self.place(moment_of(hour))] += n
        return found


def steps_of(filter: Filter, *, most: int, earliest: datetime | None = None) -> Steps:
    """A filter's time in about so many steps, at most, of whole hours or days of its zone.

    They are equally long: where a zone changes its clock, those before are an hour off its days.
    ``earliest`` is where to begin if the filter does not say.
    """
    end = filter.end or filter.now
    start = min(filter.start or earliest or end, end)
    hours = hour_of(end) - hour_of(start) + 1
    size = next((size for size in _SIZES if -(-hours // size) + 1 <= most), _SIZES[-1])
    last = end.astimezone(filter.zone).replace(minute=0, second=0, microsecond=0)
    back = last.hour if size >= 24 else last.hour % size
    running = hour_of(last - timedelta(hours=back))
    many = 1 + max(0, -(-(running - hour_of(start)) // size))
    return Steps(moment_of(running - (many - 1) * size), timedelta(hours=size), many)


# --- Where they lead -------------------------------------------------------------------------


class Direction(StrEnum):
    """How the newest steps compare with those before them."""

    RISING = "rising"
    FALLING = "falling"
    STOPPED = "stopped"
    STEADY = "steady"
    UNTOLD = "too few to tell"


def direction(counts: Sequence[int], *, running: float = 1.0) -> Direction:
    """Whether the newest three steps have twice as much as those before, half, or none.

    If nothing changed, refusals fall on the newest steps by their share of the time; the test is
    the one that holds for rates. ``running`` is how much of the last step has passed. How often it
    errs: ``python -m bench.directions``.
    """
    recent, past = sum(counts[-RECENT:]), sum(counts[:-RECENT])
    before = len(counts) - RECENT
    if before < RECENT:
        return Direction.UNTOLD
    now = RECENT - 1 + running
    total = recent + past
    if judging.verdict(recent, total, _share(now, before, _TIMES), _PHI) is Verdict.OVER:
        return Direction.RISING
    # None at all is told from as many as before, some from half as many.
    least = 1 / _TIMES if recent else 1.0
    if judging.verdict(recent, total, _share(now, before, least), _PHI) is Verdict.WITHIN:
        return Direction.FALLING if recent else Direction.STOPPED
    if total / _PHI < judging.fewest(_share(now, before, 1.0)):
        return Direction.UNTOLD
    return Direction.STEADY


def _share(now: float, before: float, times: float) -> float:
    """The newest steps' share of all, if they have so many times as much as those before."""
    return times * now / (times * now + before)


def passed(steps: Steps, now: datetime) -> float:
    """How much of the last step has passed: 0 to 1."""
    return min(1.0, max(0.0, (now - steps.starts[-1]) / steps.length))


# --- By the minute ---------------------------------------------------------------------------


def by_minute(asked: Asked, now: datetime) -> tuple[Steps, dict[str, list[int]]] | None:
    """Refusals of the last sixty minutes by their kinds; ``None`` if they are too many."""
    first = (now - timedelta(minutes=MINUTES - 1)).replace(second=0, microsecond=0)
    steps = Steps(first, timedelta(minutes=1), MINUTES)
    words = {int(kind): name for name, kind in KINDS.items()}
    found = {name: [0] * MINUTES for name in KINDS}
    rows = asked.refusals([(first, asked.filter.until)]).order_by()
    read = list(rows.values_list("kind", "occurred_at")[:_READ])
    for kind, at in read:
        found[words[kind]][steps.place(at)] += 1
    return None if len(read) >= _READ else (steps, found)


# --- What became of the mail that was put off ------------------------------------------------


class Fate(NamedTuple):
    """Mails that a refusal put off: how many, and how they stand now; ``newest``: of more."""

    put_off: int
    delivered: int
    bounced: int
    waiting: int
    delivered_at: list[datetime]
    newest: bool = False


def fate(asked: Asked) -> Fate | None:
    """What became of the newest of it; ``None`` where that would take long."""
    return within(_FOLLOW_SECONDS, lambda: _fate(asked))


def _fate(asked: Asked) -> Fate:
    span = (asked.filter.start, asked.filter.until)
    refusals = asked.refusals([span]).filter(kind=EventKind.DEFERRED, delivery__isnull=False)
    newest = refusals.order_by("-occurred_at").values_list("delivery_id", flat=True)[:_FOLLOWED]
    # Their ids first: the planners would rather read both tables whole than look up so many.
    put_off = list(newest)
    mails = Delivery.objects.filter(pk__in=set(put_off)).order_by()
    outcomes: Counter[int] = Counter(dict(mails.values_list("outcome").annotate(n=Count("pk"))))
    arrived = Event.objects.filter(kind=EventKind.DELIVERED, delivery_id__in=set(put_off))
    return Fate(
        put_off=outcomes.total(),
        delivered=outcomes[Outcome.DELIVERED],
        bounced=outcomes[Outcome.BOUNCED],
        waiting=sum(outcomes[outcome] for outcome in IN_FLIGHT),
        delivered_at=list(arrived.order_by().values_list("occurred_at", flat=True)),
        newest=len(put_off) == _FOLLOWED,
    )
