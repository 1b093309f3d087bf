"""Counts, and the rates that are made of them: each is defined once, here. Pure.

Of every row of counts holds:

- ``sent = delivered + bounced + in_flight + moved``, and ``settled = delivered + bounced``;
  ``moved`` is of rows by address, pool or MX only: sent there, and decided elsewhere
- ``bounced = hard + soft + block + undetermined``
- ``reached = delivered + late_bounced + recovered``: accepted by the receiving server at least once
- ``late_bounced`` and ``recovered`` are of ``bounced``, ``inferred`` is of ``delivered``
- complained, unsubscribed, opened and clicked are of ``reached``, ``deferred`` is of ``sent``,
  so no rate exceeds 1; ``opened_human <= opened``
- ``visible_complained <= complained`` and ``visible_reached <= reached``, and the first is of the
  second: both count only at the providers that are known to report complaints
- ``block_low <= block_high <= sent``: what HighLevel may count as an ESP block, at the least and
  at the most
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from math import sqrt
from operator import attrgetter
from types import MappingProxyType

Z = 1.959963984540054  # 95 %, two-sided


@dataclass(frozen=True, slots=True)
class Rate:
    """A share with Wilson's 95 % interval; all three are ``None`` when the denominator is 0.

    Mail fails in bursts, not one by one: ``phi`` (1 or more, ``judging.dispersion``) says how many
    mails speak as one. It widens the interval; the value stays what was counted.
    """

    numerator: int
    denominator: int
    phi: float = 1.0

    @classmethod
    def of(cls, numerator: int, denominator: int, phi: float = 1.0) -> "Rate":
        """``numerator ÷ denominator``; the interval is that of both divided by ``phi``."""
        return cls(numerator, denominator, phi)

    @property
    def value(self) -> float | None:
        """The share that was counted."""
        return self.numerator / self.denominator if self.denominator > 0 else None

    @property
    def low(self) -> float | None:
        """The lower end of the interval."""
        return self._interval[0]

    @property
    def high(self) -> float | None:
        """The upper end of the interval."""
        return self._interval[1]

    @property
    def _interval(self) -> tuple[float, float] | tuple[None, None]:
        # Worked out when asked for: most rates of a table are only compared, or divided anew.
        if self.denominator <= 0:
            return None, None
        return wilson(self.numerator / self.phi, self.denominator / self.phi)

    @property
    def widened(self) -> float:
        """How many times as wide the interval is as that of independent mails: ``√phi``."""
        return round(sqrt(self.phi), 3)

    def as_json(self) -> dict[str, float | int | None]:
        """The contract's rate."""
        low, high = self._interval
        return {
            "value": self.value,
            "low": low,
            "high": high,
            "numerator": self.numerator,
            "denominator": self.denominator,
            "widened": self.widened,
        }


def wilson(x: float, n: float, z: float = Z) -> tuple[float, float]:
    """Wilson's score interval of ``x`` of ``n``, within 0 and 1. ``n`` is above 0.

    Neither needs to be whole: counts divided by a dispersion are not.
    """
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
    visible_reached: int = 0
    visible_complained: int = 0
    block_low: int = 0
    block_high: int = 0
    moved: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return summed((self, other))

    def __bool__(self) -> bool:
        """Whether anything was counted."""
        return any(_measures(self))

    @property
    def in_flight(self) -> int:
        """Sent, and neither delivered nor bounced yet, nor tried elsewhere since."""
        return self.sent - self.delivered - self.bounced - self.moved

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
    def visible_complaint_rate(self) -> Rate:
        """Complained ÷ reached, both at providers that are known to report complaints."""
        return Rate.of(self.visible_complained, self.visible_reached)

    @property
    def blind_share(self) -> float | None:
        """The share of the reached mail whose complaints nobody reports; ``None`` without mail."""
        return 1 - self.visible_reached / self.reached if self.reached else None

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

    @property
    def hl_hard_low(self) -> Rate:
        """What HighLevel counts as hard bounces at the least: bad addresses alone ÷ sent."""
        return Rate.of(self.hard, self.sent)

    @property
    def hl_hard_high(self) -> Rate:
        """At the most: all that bounced or was suppressed ÷ all that was tried."""
        return Rate.of(self.bounced + self.suppressed, self.sent + self.suppressed)

    @property
    def hl_block_low(self) -> Rate:
        """Of the ESP blocks the surest ÷ sent."""
        return Rate.of(self.block_low, self.sent)

    @property
    def hl_block_high(self) -> Rate:
        """All that may be meant by ESP blocks ÷ sent."""
        return Rate.of(self.block_high, self.sent)

    @property
    def hl_bounce(self) -> Rate:
        """Bounced ÷ sent."""
        return Rate.of(self.bounced, self.sent)

    @property
    def hl(self) -> dict[str, Rate]:
        """HighLevel's own rates, by the names in ``HL``. What it counts is not published."""
        return {name: getattr(self, f"hl_{name}") for name in HL}

    def as_json(
        self, whole: "Counts | None" = None, phis: Mapping[str, float] = MappingProxyType({})
    ) -> dict[str, object]:
        """All counts and rates. With ``whole``, the rates divide by its denominators.

        ``phis`` has the dispersions by the names in ``RATES``; a rate without one counts as made
        of independent mails. HighLevel's rates use that of the rate that they are a form of.
        """
        of = self if whole is None else whole
        row: dict[str, object] = {name: getattr(self, name) for name in COUNTS}
        for name in RATES:
            divided = Rate.of(
                getattr(self, name).numerator, getattr(of, name).denominator, phis.get(name, 1.0)
            )
            row[name] = divided.as_json()
        mine, base = self.hl, of.hl
        row["hl"] = {
            name: Rate.of(
                mine[name].numerator, base[name].denominator, phis.get(form_of, 1.0)
            ).as_json()
            for name, form_of in HL.items()
        }
        row["blind_share"] = of.blind_share
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
    "visible_complaint_rate",
    "unsubscribe_rate",
    "open_rate",
    "human_open_rate",
    "click_rate",
    "deferral_rate",
)
# HighLevel's rates, each with the rate that it is a form of.
HL = {
    "hard_low": "hard_bounce_rate",
    "hard_high": "hard_bounce_rate",
    "block_low": "block_rate",
    "block_high": "block_rate",
    "bounce": "bounce_rate",
}
SORTS = (*COUNTS, *RATES, "key")
_SETTLED = ("delivered", "bounced")
_REACHED = ("delivered", "late_bounced", "recovered")
_MADE_OF = {
    "in_flight": ("sent", "delivered", "bounced", "moved"),
    "settled": _SETTLED,
    "reached": _REACHED,
    "undetermined": ("bounced", "hard", "soft", "block"),
    "delivery_rate": _SETTLED,
    "bounce_rate": _SETTLED,
    "hard_bounce_rate": ("hard", *_SETTLED),
    "soft_bounce_rate": ("soft", *_SETTLED),
    "block_rate": ("block", *_SETTLED),
    "complaint_rate": ("complained", *_REACHED),
    "visible_complaint_rate": ("visible_complained", "visible_reached"),
    "unsubscribe_rate": ("unsubscribed", *_REACHED),
    "open_rate": ("opened", *_REACHED),
    "human_open_rate": ("opened_human", *_REACHED),
    "click_rate": ("clicked", *_REACHED),
    "deferral_rate": ("deferred", "sent"),
}


def summed(rows: Iterable[Counts]) -> Counts:
    """The sum of all rows, measure by measure."""
    return Counts(*(sum(column) for column in zip(*map(_measures, rows), strict=True)))


def remainder(whole: Counts, parts: Iterable[Counts]) -> Counts:
    """What the parts leave of the whole. Never less than 0: mail arrives between two reads."""
    taken = summed([Counts(), *parts])
    pairs = zip(_measures(whole), _measures(taken), strict=True)
    return Counts(*(max(0, all_ - some) for all_, some in pairs))


def measures_of(sort: str) -> tuple[str, ...]:
    """The stored measures that an order by a count or a rate goes by."""
    name = sort.removeprefix("-")
    return (name,) if name in _STORED else _MADE_OF[name]


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
