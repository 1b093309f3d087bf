"""What reviewing comes to: how much there is, how long it takes, how often we were wrong."""

from collections.abc import Callable
from datetime import datetime, timedelta
from statistics import median
from typing import NamedTuple

from django.db.models import Count, Q

from dashboard.access import Rights
from dashboard.judging import incomplete_beta
from dashboard.review.cases import Finding, Person, Queue, State, visible
from dashboard.review.models import ReviewCase

USUAL = 40.0  # seconds a case, until it is known how long cases take
KNOWN = 20  # cases that were settled, before their median is believed
LOOKED_AT = 200  # of them
SAMPLED = timedelta(days=90)


class ToDo(NamedTuple):
    """How many cases wait, by queue too, and the seconds that one takes."""

    cases: int
    queues: list[tuple[ReviewCase.Queue, int]]
    seconds: float
    is_usual: bool  # the seconds are a default: too few cases were settled

    @property
    def sentence(self) -> str:
        """``12 to look at, about 8 minutes``."""
        if not self.cases:
            return "Nothing to look at"
        minutes = max(1, round(self.cases * self.seconds / 60))
        if minutes < 120:
            return f"{self.cases:,} to look at, about {minutes} minute{'s' * (minutes > 1)}"
        return f"{self.cases:,} to look at, about {round(minutes / 60):,} hours"

    @property
    def basis(self) -> str:
        """What the time rests on."""
        seconds = round(self.seconds)
        if self.is_usual:
            return f"at {seconds} seconds a case: too few were settled yet to know better"
        return f"at {seconds} seconds a case, the median of the last ones"


def to_do(rights: Rights, by: Person, now: datetime) -> ToDo:
    """What a person may look at now."""
    waiting = visible(rights).waiting_for(by.pk or 0, now)
    counted = waiting.order_by("queue").values_list("queue").annotate(n=Count("pk"))
    queues = [(Queue(queue), n) for queue, n in counted]
    settled = visible(rights).filter(settled_at__isnull=False, handled_seconds__isnull=False)
    times = settled.order_by("-settled_at").values_list("handled_seconds", flat=True)[:LOOKED_AT]
    known = [seconds for seconds in times if seconds is not None]
    usual = len(known) < KNOWN
    seconds = USUAL if usual else max(1.0, float(median(known)))
    return ToDo(sum(n for _, n in queues), queues, seconds, usual)


class OwnError(NamedTuple):
    """Of a random sample of refusals, how many we had classified wrongly."""

    wrong: int
    of: int

    @property
    def sentence(self) -> str:
        """The share with its interval, at 95 %."""
        if not self.of:
            return ""
        low, high = exact_interval(self.wrong, self.of)
        return (
            f"Of {self.of:,} refusals drawn at random, {self.wrong:,} were classified wrongly: "
            f"{100 * self.wrong / self.of:.1f} % (surely between {100 * low:.1f} and "
            f"{100 * high:.1f} %)"
        )


def own_error(rights: Rights, now: datetime) -> OwnError:
    """Over the samples that were settled in the last 90 days."""
    sampled = visible(rights).filter(
        queue=Queue.SAMPLE, state=State.RESOLVED, settled_at__gte=now - SAMPLED
    )
    wrong = Count("pk", filter=Q(finding=Finding.MISCLASSIFIED))
    found = sampled.aggregate(of=Count("pk"), wrong=wrong)
    return OwnError(found["wrong"], found["of"])


def exact_interval(x: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Clopper's and Pearson's range of a share: it never claims more than its level."""
    tail = (1 - level) / 2
    low = _solve(lambda p: incomplete_beta(x, n - x + 1, p), tail) if x else 0.0
    high = _solve(lambda p: incomplete_beta(x + 1, n - x, p), 1 - tail) if x < n else 1.0
    return low, high


def _solve(of: Callable[[float], float], value: float) -> float:
    """Where a rising function of 0 to 1 has a value."""
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if of(middle) < value else (low, middle)
    return (low + high) / 2
