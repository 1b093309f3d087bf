"""How counted numbers are judged: ranges, verdicts, distances to a stop, ranking, changes. Pure.

What is counted is stated as counted. Whatever speaks of where a number is heading first divides
both its parts by a *dispersion*: mails of one blast to one provider fail together, so φ of them
say no more than one would. Lines and rates are shares (0.05 is 5 %), ``x`` is how many went wrong
of ``n``.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from functools import cache
from itertools import count
from math import ceil, exp, floor, fsum, hypot, inf, lgamma, log, log1p, sqrt
from types import MappingProxyType

from dashboard.rates import Counts, Rate, wilson


def share(line: float) -> str:
    """A line as it is written: ``0.3 %``."""
    return f"{100 * line:.6g} %"


# --- Dispersion: how many mails speak as one ---

# What φ is taken to be before a location's own mail tells: worth as much as ten cells.
PRIORS = MappingProxyType(
    {
        # Addresses go bad one by one, but an old list goes out in one blast.
        "hard_bounce_rate": 2.0,
        # A provider blocks a sender, not a mail.
        "block_rate": 6.0,
        # A person each, moved by the same campaign.
        "complaint_rate": 1.2,
        "visible_complaint_rate": 1.2,
        # Greylisting and throttling are a provider's answer to a whole burst.
        "deferral_rate": 6.0,
        # Full mailboxes are a person each, receivers out of order are a domain each.
        "soft_bounce_rate": 4.0,
        # Bad addresses and blocks together: what lies between the two.
        "bounce_rate": 4.0,
        # All that did not bounce: the same mails, so the same dispersion.
        "delivery_rate": 4.0,
        # A person each, though a campaign that bores, bores many at once.
        "unsubscribe_rate": 1.5,
        # Apple's proxy opens all of its mail and others open none: as clustered as blocks.
        "open_rate": 6.0,
        # A person each; what the subject line does, it does to a whole campaign.
        "human_open_rate": 3.0,
        # The same, and scanners that follow every link of a company's mail.
        "click_rate": 3.0,
    }
)
CELL_LEAST = 5  # a cell of fewer mails tells chance from clustering too badly
_PRIOR_CELLS = 10


@dataclass(frozen=True, slots=True)
class Cells:
    """What the dispersion needs of all cells with ``n`` of ``CELL_LEAST`` or more; they add up.

    A cell is the mail of one campaign, or of one provider, in one hour. ``k`` is how many there
    are, ``x`` and ``n`` are their sums, and ``xx_n`` is the sum of ``x² / n``: all that SQL has to
    give.
    """

    k: int = 0
    x: int = 0
    n: int = 0
    xx_n: float = 0.0

    @classmethod
    def of(cls, cells: Iterable[tuple[int, int]]) -> "Cells":
        """Of the (x, n) of single cells; those that are too small are passed over."""
        large = [(x, n) for x, n in cells if n >= CELL_LEAST]
        return cls(
            len(large),
            sum(x for x, _ in large),
            sum(n for _, n in large),
            fsum(x * x / n for x, n in large),
        )

    def __add__(self, other: "Cells") -> "Cells":
        return Cells(self.k + other.k, self.x + other.x, self.n + other.n, self.xx_n + other.xx_n)


def dispersion(cells: Cells | Iterable[tuple[int, int]], phi0: float) -> float:
    """How many mails speak as one, from how far cells lie apart; 1 or more, ``phi0`` unknown.

    Pearson's χ² over its degrees of freedom, with ten cells of ``phi0`` mixed in. Where nothing or
    everything went wrong there is no χ², and ``phi0`` stands.
    """
    sums = cells if isinstance(cells, Cells) else Cells.of(cells)
    if sums.k < 1 or not 0 < sums.x < sums.n:
        return max(1.0, phi0)
    p = sums.x / sums.n
    # Σ (x − np)² / (np(1−p)), multiplied out; p is X/N, so −2pX + p²N is −pX.
    chi2 = max(0.0, (sums.xx_n - p * sums.x) / (p * (1 - p)))
    return max(1.0, (_PRIOR_CELLS * phi0 + chi2) / (_PRIOR_CELLS + sums.k - 1))


def widest(kinds: Iterable[Cells], phi0: float) -> float:
    """The largest dispersion of several kinds of cells: by campaign, and by provider."""
    return max((dispersion(cells, phi0) for cells in kinds), default=max(1.0, phi0))


# --- Verdicts: a rate beside a line ---


class Verdict(StrEnum):
    """How sure it is that a rate is over a line."""

    NO_DATA = "no data"
    OVER = "over"
    PROBABLY_OVER = "probably over"
    WITHIN = "within"
    TOO_EARLY = "too early to tell"
    PROBABLY_WITHIN = "probably within"
    CLOSE = "close to"

    def words(self, line: float) -> str:
        """The verdict as it is shown: ``probably over 3 %``."""
        if self in (Verdict.NO_DATA, Verdict.TOO_EARLY):
            return self.value
        return f"{self.value} {share(line)}"


SURE, LIKELY = 0.025, 0.2


def verdict(x: int, n: int, line: float, phi: float = 1.0) -> Verdict:
    """The first that holds; ``line`` lies between 0 and 1, exclusively."""
    if n <= 0:
        return Verdict.NO_DATA
    over, under = tails(x / phi, n / phi, line)
    if x >= 5 and over <= SURE:
        return Verdict.OVER
    if x >= 3 and over <= LIKELY:
        return Verdict.PROBABLY_OVER
    if under <= SURE:
        return Verdict.WITHIN
    if n / phi < fewest(line):
        return Verdict.TOO_EARLY
    return Verdict.PROBABLY_WITHIN if under <= LIKELY else Verdict.CLOSE


def tails(x: float, n: float, line: float) -> tuple[float, float]:
    """The chances of ``x`` or more, and of ``x`` or fewer, of ``n`` if the true rate is ``line``.

    Exact binomial tails, continued to ``x`` and ``n`` that are not whole.
    """
    x = min(x, n)  # sums of two tables may be apart for a moment: no reason to fail
    over = 1.0 if x <= 0 else incomplete_beta(x, n - x + 1, line)
    under = 1.0 if x >= n else incomplete_beta(n - x, x + 1, 1 - line)
    return over, under


def fewest(line: float) -> int:
    """From how many mails on a rate can be told from ``line`` at all."""
    return ceil(3.84 * (1 - line) / line)


def incomplete_beta(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function I_x(a, b); ``a`` and ``b`` above 0, x within 0 to 1.

    A continued fraction behind a factor of logarithms (DLMF 8.17.22, evaluated by Lentz's method).
    mpmath's takes seconds to minutes from ten thousand mails on, and its form in machine numbers
    overflows from a thousand on; SciPy would bring NumPy along, for one function.
    """
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):  # beyond it the fraction converges slowly: take the other tail
        return 1.0 - incomplete_beta(b, a, 1 - x)
    front = lgamma(a + b) - lgamma(a) - lgamma(b) + a * log(x) + b * log1p(-x)
    return min(1.0, exp(front) / a / _fraction(a, b, x))


_TINY, _PRECISE = 1e-300, 1e-14


def _fraction(a: float, b: float, x: float) -> float:
    """1 + d₁/(1 + d₂/(1 + …)): Lentz's method walks it from the top."""
    value = upper = 1.0
    lower = 0.0
    for d in _terms(a, b, x):
        lower = 1 / ((1 + d * lower) or _TINY)
        upper = (1 + d / upper) or _TINY
        value *= upper * lower
        if abs(upper * lower - 1) < _PRECISE:
            break
    return value


def _terms(a: float, b: float, x: float) -> Iterator[float]:
    for m in count():
        yield -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        yield (m + 1) * (b - m - 1) * x / ((a + 2 * m + 1) * (a + 2 * m + 2))


# --- HighLevel's gauge: what it counts is certain to lie within a band ---

WARNING, STOP = 0.03, 0.05
MAILS_LEAST, BLOCKS_LEAST = 500, 25  # from here on HighLevel acts


class Counted(StrEnum):
    """What HighLevel makes of a band, by its own floors; no interval softens that."""

    NO_DATA = "no_data"
    TOO_FEW = "too_few"
    INSIDE = "inside"
    MAY_WARN = "may_warn"
    WARNS = "warns"
    MAY_COUNT_OVER = "may_count_over"
    COUNTS_OVER = "counts_over"

    @property
    def severity(self) -> int:
        """0 for no data up to 6 for what HighLevel counts as over its stop."""
        return list(Counted).index(self)


_COUNTED_WORDS = {
    Counted.NO_DATA: "no mail yet",
    Counted.TOO_FEW: "too few for HighLevel to act on",
    Counted.INSIDE: f"under {share(WARNING)} in every way that HighLevel may count",
    Counted.MAY_WARN: f"HighLevel may count this as over {share(WARNING)}",
    Counted.WARNS: f"HighLevel counts this as over {share(WARNING)}",
    Counted.MAY_COUNT_OVER: f"HighLevel may count this as over {share(STOP)}",
    Counted.COUNTS_OVER: f"HighLevel counts this as over {share(STOP)}",
}


@dataclass(frozen=True, slots=True)
class Band:
    """A rate of HighLevel's at the least and at the most that it may count.

    ``floor`` is how many of the numerator it takes beside ``MAILS_LEAST`` mails.
    """

    low: Rate
    high: Rate
    floor: int = 0

    @property
    def state(self) -> Counted:
        """Where the band lies: "over" needs its lower edge, a warning only its upper one."""
        if self.high.denominator <= 0:
            return Counted.NO_DATA
        for state, edge, line in (
            (Counted.COUNTS_OVER, self.low, STOP),
            (Counted.MAY_COUNT_OVER, self.high, STOP),
            (Counted.WARNS, self.low, WARNING),
            (Counted.MAY_WARN, self.high, WARNING),
        ):
            if self._acts_on(edge) and is_over(edge.numerator, edge.denominator, line):
                return state
        few = not self._acts_on(self.high)
        near = is_over(self.high.numerator, self.high.denominator, WARNING)
        return Counted.TOO_FEW if few and (near or self._few_mails) else Counted.INSIDE

    @property
    def sentence(self) -> str:
        """The state in words."""
        return _COUNTED_WORDS[self.state]

    @property
    def _few_mails(self) -> bool:
        return self.high.denominator < MAILS_LEAST

    def _acts_on(self, edge: Rate) -> bool:
        return edge.denominator >= MAILS_LEAST and edge.numerator >= self.floor


def hard_band(counts: Counts) -> Band:
    """Bad addresses ÷ sent, to all that bounced or was suppressed ÷ all that was tried."""
    return Band(counts.hl_hard_low, counts.hl_hard_high)


def block_band(counts: Counts) -> Band:
    """The surest ESP blocks ÷ sent, to all that may be meant ÷ sent."""
    return Band(counts.hl_block_low, counts.hl_block_high, BLOCKS_LEAST)


def worst(bands: Mapping[str, Band]) -> str | None:
    """The key (a window, say) of the worst band: by its state, then by its edges."""
    return max(
        bands,
        key=lambda key: (
            bands[key].state.severity,
            bands[key].high.value or 0.0,
            bands[key].low.value or 0.0,
        ),
        default=None,
    )


# --- Distance: how many more until a line ---


class Pace(StrEnum):
    """Where the last hour's mail leads."""

    UNKNOWN = "unknown"  # no mail in it
    NEVER = "never"  # the line is not crossed at this pace, in whichever direction
    CROSSES = "crosses"
    RECOVERS = "recovers"


@dataclass(frozen=True, slots=True)
class Distance:
    """How far a band is from a line.

    ``least`` to ``most`` more that go wrong reach it at the present volume: by the upper and by
    the lower edge; 0 is over. At the last hour's pace the upper edge crosses it, or is under it
    again, after ``mails`` further mails, which take ``hours``; both ``None`` where it does not.
    """

    line: float
    least: int
    most: int
    pace: Pace
    mails: int | None = None
    hours: float | None = None

    @property
    def sentence(self) -> str:
        """Both in words: ``38 to 112 more until 5 %; at this pace in 640 mails, 2 hours``."""
        return f"{self._more}; {self._ahead}"

    @property
    def _more(self) -> str:
        line = share(self.line)
        if self.most == 0:
            return f"over {line}"
        if self.least == 0:
            return f"perhaps over {line}, surely after {self.most:,} more"
        if self.least == self.most:
            return f"{self.most:,} more until {line}"
        return f"{self.least:,} to {self.most:,} more until {line}"

    @property
    def _ahead(self) -> str:
        if self.pace is Pace.UNKNOWN:
            return "no mail in the last hour"
        if self.mails is None or self.hours is None:
            return "not under it again at this pace" if self.least == 0 else "not at this pace"
        start = "under it again" if self.pace is Pace.RECOVERS else "crossed"
        return f"{start} after {self.mails:,} mails at this pace, {duration(self.hours)}"


def distance(band: Band, line: float, hour: Rate) -> Distance | None:
    """How far ``band`` is from ``line``, and where it leads; ``hour`` is its upper edge lately.

    ``hour`` are the counts of the last hour, whose denominator is the pace. ``None`` without mail.
    """
    if band.low.denominator <= 0 or band.high.denominator <= 0:
        return None
    least, most = (
        more_until(edge.numerator, edge.denominator, line) for edge in (band.high, band.low)
    )
    pace, mails = further(
        (band.high.numerator, band.high.denominator), line, (hour.numerator, hour.denominator)
    )
    hours = None if mails is None else mails / hour.denominator
    return Distance(line, least, most, pace, mails, hours)


def more_until(x: int, n: int, line: float) -> int:
    """How many more of the present ``n`` have to go wrong to reach ``line``: 0 where it is over."""
    share = exact(line)
    return max(0, -(-share.numerator * n // share.denominator) - x)


def further(
    counted: tuple[int, int], line: float, hour: tuple[int, int]
) -> tuple[Pace, int | None]:
    """After how many further mails like those of the last ``hour`` the line is crossed.

    Upwards it is reached, (S·n − x) ÷ (r − S) mails on; downwards it is left behind, the mail after
    (x − S·n) ÷ (S − r).
    """
    (x, n), (hour_x, hour_n) = counted, hour
    if n <= 0 or hour_n <= 0:
        return Pace.UNKNOWN, None
    missing = exact(line) * n - x
    gains = Fraction(hour_x, hour_n) - exact(line)
    if missing > 0 and gains > 0:
        return Pace.CROSSES, ceil(missing / gains)
    if missing <= 0 and gains < 0:
        return Pace.RECOVERS, floor(missing / gains) + 1
    return Pace.NEVER, None


def is_over(x: int, n: int, line: float) -> bool:
    """Whether ``x`` of ``n`` reach the line, by whole numbers: 25 of 500 are 5 %."""
    share = exact(line)
    return n > 0 and x * share.denominator >= share.numerator * n


@cache
def exact(line: float) -> Fraction:
    """The share that was meant: 0.003 is 3/1000, which no float is."""
    return Fraction(line).limit_denominator(1_000_000)


def duration(hours: float) -> str:
    """About how long, in the unit that reads best."""
    for size, unit in ((1 / 60, "minute"), (1.0, "hour"), (24.0, "day")):
        number = max(1, round(hours / size))
        if number < {"minute": 90, "hour": 48}.get(unit, inf):
            break
    return f"about {number:,} {unit}{'' if number == 1 else 's'}"


# --- Riskiest first ---


@dataclass(frozen=True, slots=True)
class Danger:
    """What HighLevel stops for, above ``stop``.

    ``weight`` is for how many mails the fleet's rate speaks, before a location's own do, and
    ``volume`` is from how many mails on a location counts in full.
    """

    stop: float
    weight: float
    volume: int


DANGERS = MappingProxyType(
    {
        "hard": Danger(STOP, 200, 500),
        "blocks": Danger(STOP, 200, 500),
        "complaints": Danger(0.003, 2_000, 1_000),
    }
)
_MOSTLY_SURE = 0.8416  # 80 %, one-sided


@dataclass(frozen=True, slots=True)
class Risk:
    """How much of the way to a stop is gone: 100 is there. By the measure that is furthest."""

    value: float
    measure: str
    window: str

    @property
    def sentence(self) -> str:
        """``85 % of the way · hard``."""
        return f"{self.value:.0f} % of the way · {self.measure}"


def risk(
    counted: Mapping[tuple[str, str], tuple[int, int]],
    fleet: Mapping[str, float],
    phis: Mapping[str, float] = MappingProxyType({}),
) -> Risk | None:
    """The largest over what was counted: (measure, window) → (x, n). ``None`` without any mail.

    Measures are those of ``DANGERS``: the upper edges of hard bounces and blocks, and the visible
    complaints. ``fleet`` has the whole fleet's rates of 28 days, ``phis`` the dispersions.
    """
    found = [
        Risk(way_gone(x, n, DANGERS[m], fleet.get(m, 0.0), phis.get(m, 1.0)), m, window)
        for (m, window), (x, n) in counted.items()
        if n > 0
    ]
    return max(found, key=lambda each: each.value, default=None)


def way_gone(x: int, n: int, danger: Danger, fleet_rate: float, phi: float = 1.0) -> float:
    """In per cent, how far towards its stop it is 80 % sure to be; few mails count for less.

    ``n`` is above 0.
    """
    low, _ = wilson(x / phi + danger.weight * fleet_rate, n / phi + danger.weight, z=_MOSTLY_SURE)
    return 100 * low / danger.stop * min(1.0, sqrt(n / danger.volume))


SILENCE_LEAST = 20  # so many expected and none come: no coincidence


def tier(*, counts_over: bool, suspended: bool, silent_expected: float, mails_7d: int) -> int:
    """0: stopped or about to be; 1: silent though mail was due; 2: the rest; 3: without mail.

    ``silent_expected`` is how many events were expected since the last one came.
    """
    if counts_over or suspended:
        return 0
    if silent_expected >= SILENCE_LEAST:
        return 1
    return 2 if mails_7d else 3


def sort_key(
    tier: int, risk: Risk | None, expected: float, name: str
) -> tuple[int, float, float, str, str]:
    """Orders locations riskiest first; ``expected`` are the mails of the next 24 hours."""
    return tier, -risk.value if risk else inf, -expected, name.casefold(), name


# --- What changed ---


class Cause(StrEnum):
    """Why a part moves the whole: its own rate has changed, or its share of the mail has."""

    RATE = "rate"
    MIX = "mix"


@dataclass(frozen=True, slots=True)
class Part:
    """What one group adds to the move of the whole rate, and the standard error of that."""

    key: str
    cause: Cause
    effect: float
    error: float

    @property
    def is_clear(self) -> bool:
        """Whether it is more than chance: twice its standard error."""
        return abs(self.effect) > 0 and abs(self.effect) >= 2 * self.error


@dataclass(frozen=True, slots=True)
class Changes:
    """The whole rate before and after; ``parts``, largest first, and ``rest`` add up to the move.

    The parts are those that are clear; ``rest`` is the sum of all others.
    """

    before: float
    after: float
    parts: tuple[Part, ...]
    rest: float

    @property
    def move(self) -> float:
        """By how much the whole rate has moved."""
        return self.after - self.before


type Tally = Mapping[str, tuple[int, int]]


def changes(
    before: Tally, after: Tally, phi_of: Callable[[str], float] = lambda key: 1.0
) -> Changes | None:
    """What moved a rate between two periods: key → (x, n) each. ``None`` if either had no mail.

    Keys must not overlap. A key that has mail in one period only is taken to have had the same
    rate in the other: it can only change the mix. ``phi_of`` gives a key's dispersion.
    """
    if not (_total(before)[1] and _total(after)[1]):
        return None
    split = tuple(_split_up(before, after, phi_of))
    parts = sorted(
        (part for part in split if part.is_clear),
        key=lambda part: (-abs(part.effect), part.key, part.cause),
    )
    rest = fsum(part.effect for part in split if not part.is_clear)
    return Changes(_rate(_total(before)), _rate(_total(after)), tuple(parts), rest)


def _split_up(before: Tally, after: Tally, phi_of: Callable[[str], float]) -> Iterator[Part]:
    """Every key's two parts of the move, by midpoints; mixes are beside the average rate."""
    totals = _total(before), _total(after)
    average = (_rate(totals[0]) + _rate(totals[1])) / 2
    sizes = totals[0][1], totals[1][1]
    for key in sorted(before.keys() | after.keys()):
        counted = before.get(key, (0, 0)), after.get(key, (0, 0))
        if any(n for _, n in counted):
            yield from _split(key, counted, sizes, average, phi_of(key))


def _split(
    key: str,
    counted: tuple[tuple[int, int], tuple[int, int]],
    sizes: tuple[int, int],
    average: float,
    phi: float,
) -> Iterator[Part]:
    (_, was_n), (_, now_n) = counted
    shares = was_n / sizes[0], now_n / sizes[1]
    was, now = _rate(counted[0] if was_n else counted[1]), _rate(counted[1 if now_n else 0])
    weight, shift, beside = sum(shares) / 2, shares[1] - shares[0], (was + now) / 2 - average
    known = [_variance(x, n) for x, n in counted if n]
    error = sqrt(phi * fsum(known))
    # How much mail went where is chance too, and as clustered.
    drift = sqrt(phi * (_variance(was_n, sizes[0]) + _variance(now_n, sizes[1])))
    yield Part(key, Cause.RATE, (now - was) * weight, error * weight)
    yield Part(key, Cause.MIX, shift * beside, hypot(shift * error / len(known), beside * drift))


def _total(tally: Tally) -> tuple[int, int]:
    return sum(x for x, _ in tally.values()), sum(n for _, n in tally.values())


def _rate(counted: tuple[int, int]) -> float:
    x, n = counted
    return x / n


def _variance(x: int, n: int) -> float:
    """Of a rate; half a mail is added to either side, or 0 of 3 would be certain."""
    p = (x + 0.5) / (n + 1)
    return p * (1 - p) / n


# --- Where it gathers ---


@dataclass(frozen=True, slots=True)
class Gathered:
    """One group that has (nearly) all that went wrong: its own rate, and that of all others."""

    key: str
    here: Rate
    elsewhere: Rate

    @property
    def is_all(self) -> bool:
        """Whether nothing went wrong elsewhere."""
        return self.elsewhere.numerator == 0


def gathered(tally: Tally, least: float = 0.7, fewest: int = 3) -> Gathered | None:
    """The key with a share of ``least`` or more of all that went wrong, if one has it.

    Key → (x, n), at least two of them with mail, and ``fewest`` in all. Blocks come from one
    provider at a time: all 120 at Outlook, 31 % of Outlook's mail and 0 elsewhere, is another
    story than 1 % of all.
    """
    x, n = _total(tally)
    if x < fewest or sum(1 for _, size in tally.values() if size) < 2:
        return None
    key = max(sorted(tally), key=lambda each: tally[each][0])
    here_x, here_n = tally[key]
    if here_x < exact(least) * x:
        return None
    return Gathered(key, Rate.of(here_x, here_n), Rate.of(x - here_x, n - here_n))
