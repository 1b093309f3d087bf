"""Counts, and the rates that are made of them: each is defined once, here. Pure.

Of every row of counts holds:

- ``sent = delivered + bounced + in_flight``, and ``settled = delivered + bounced``
- ``bounced = hard + soft + block + undetermined``
- ``reached = delivered + late_bounced + recovered``: accepted by the receiving server at least once
- complained, unsubscribed, opened and clicked are of ``reached``, ``deferred`` is of ``sent``,
  so no rate exceeds 1
"""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from math import sqrt
from operator import attrgetter

Z = 1.959963984540054  # 95 %, two-sided


@dataclass(frozen=True, slots=True)
class Rate:
    """A share with Wilson's 95 % interval; all three are ``None`` when the denominator is 0."""

    numerator: int
    denominator: int
    value: float | None
    low: float | None
    high: float | None

    @classmethod
    def of(cls, numerator: int, denominator: int) -> "Rate":
        """``numerator ÷ denominator``."""
        if denominator <= 0:
            return cls(numerator, denominator, None, None, None)
        low, high = wilson(numerator, denominator)
        return cls(numerator, denominator, numerator / denominator, low, high)

    def as_json(self) -> dict[str, float | int | None]:
        """The contract's rate."""
        return {
            "value": self.value,
            "low": self.low,
            "high": self.high,
            "numerator": self.numerator,
            "denominator": self.denominator,
        }


def wilson(x: int, n: int, z: float = Z) -> tuple[float, float]:
    """Wilson's score interval of ``x`` of ``n``, within 0 and 1. ``n`` is above 0."""
    p, zz = x / n, z * z
    center = (p + zz / (2 * n)) / (1 + zz / n)
    half = z * sqrt(max(0.0, p * (1 - p) / n + zz / (4 * n * n))) / (1 + zz / n)
    # Where nothing (or everything) counts, the bound is exact: no 1e-19 for 0.
    low = 0.0 if x == 0 else max(0.0, center - half)
    high = 1.0 if x == n else min(1.0, center + half)
    return low, high


@dataclass(frozen=True, slots=True)
class Counts:
    """Deliveries counted: the columns of ``vocabulary.MEASURES``, in their order."""

    sent: int = 0
    delivered: int = 0
    bounced: int = 0
    hard: int = 0
    soft: int = 0
    block: int = 0
    deferred: int = 0
    complained: int = 0
    unsubscribed: int = 0
    opened: int = 0
    opened_human: int = 0
    clicked: int = 0
    suppressed: int = 0
    rejected: int = 0
    orphan: int = 0
    unknown: int = 0
    test: int = 0
    late_bounced: int = 0
    recovered: int = 0
    inferred: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return summed((self, other))

    def __bool__(self) -> bool:
        """Whether anything was counted."""
        return any(_measures(self))

    @property
    def in_flight(self) -> int:
        """Sent, and neither delivered nor bounced yet."""
        return self.sent - self.delivered - self.bounced

    @property
    def settled(self) -> int:
        """Delivered or bounced: what the delivery and bounce rates divide by."""
        return self.delivered + self.bounced

    @property
    def reached(self) -> int:
        """Accepted by the receiving server at least once, whatever came after."""
        return self.delivered + self.late_bounced + self.recovered

    @property
    def undetermined(self) -> int:
        """Bounced for a reason that tells no class."""
        return self.bounced - self.hard - self.soft - self.block

    @property
    def delivery_rate(self) -> Rate:
        """Delivered ÷ settled."""
        return Rate.of(self.delivered, self.settled)

    @property
    def bounce_rate(self) -> Rate:
        """Bounced ÷ settled."""
        return Rate.of(self.bounced, self.settled)

    @property
    def hard_bounce_rate(self) -> Rate:
        """Bounced for a bad address ÷ settled."""
        return Rate.of(self.hard, self.settled)

    @property
    def soft_bounce_rate(self) -> Rate:
        """Given up after temporary trouble ÷ settled."""
        return Rate.of(self.soft, self.settled)

    @property
    def block_rate(self) -> Rate:
        """Refused for reputation, content, authentication or policy ÷ settled."""
        return Rate.of(self.block, self.settled)

    @property
    def complaint_rate(self) -> Rate:
        """Complained ÷ reached."""
        return Rate.of(self.complained, self.reached)

    @property
    def unsubscribe_rate(self) -> Rate:
        """Unsubscribed ÷ reached."""
        return Rate.of(self.unsubscribed, self.reached)

    @property
    def open_rate(self) -> Rate:
        """Opened, by people or machines ÷ reached."""
        return Rate.of(self.opened, self.reached)

    @property
    def human_open_rate(self) -> Rate:
        """Opened by a person, as far as the payload tells ÷ reached."""
        return Rate.of(self.opened_human, self.reached)

    @property
    def click_rate(self) -> Rate:
        """Clicked ÷ reached."""
        return Rate.of(self.clicked, self.reached)

    @property
    def deferral_rate(self) -> Rate:
        """Deferred at least once ÷ sent."""
        return Rate.of(self.deferred, self.sent)

    def as_json(self, whole: "Counts | None" = None) -> dict[str, object]:
        """All counts and rates. With ``whole``, the rates divide by its denominators."""
        row: dict[str, object] = {name: getattr(self, name) for name in COUNTS}
        for name in RATES:
            rate: Rate = getattr(self, name)
            if whole is not None:
                rate = Rate.of(rate.numerator, getattr(whole, name).denominator)
            row[name] = rate.as_json()
        return row


_STORED = tuple(field.name for field in fields(Counts))
_measures = attrgetter(*_STORED)
DERIVED = ("in_flight", "settled", "reached", "undetermined")
COUNTS = _STORED + DERIVED
RATES = (
    "delivery_rate",
    "bounce_rate",
    "hard_bounce_rate",
    "soft_bounce_rate",
    "block_rate",
    "complaint_rate",
    "unsubscribe_rate",
    "open_rate",
    "human_open_rate",
    "click_rate",
    "deferral_rate",
)
SORTS = (*COUNTS, *RATES, "key")


def summed(rows: Iterable[Counts]) -> Counts:
    """The sum of all rows, measure by measure."""
    return Counts(*(sum(column) for column in zip(*map(_measures, rows), strict=True)))


def in_order[Row: tuple[str, str, Counts]](rows: Iterable[Row], sort: str) -> list[Row]:
    """Rows of (key, label, counts) by a count, a rate or their label; ``-`` turns it around.

    Rates without a value come last either way; equals are in the order of their labels.
    """
    by_label = sorted(rows, key=lambda row: ((row[1] or row[0]).casefold(), row[0]))
    name, descending = sort.removeprefix("-"), sort.startswith("-")
    if name == "key":
        return by_label[::-1] if descending else by_label
    known = [(_measure(row[2], name), row) for row in by_label]
    valued = [(value, row) for value, row in known if value is not None]
    valued.sort(key=lambda pair: pair[0], reverse=descending)
    return [row for _, row in valued] + [row for value, row in known if value is None]


def _measure(counts: Counts, name: str) -> float | None:
    measure: int | Rate = getattr(counts, name)
    return measure.value if isinstance(measure, Rate) else measure
