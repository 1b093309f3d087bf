"""Where every location stands: its state in a word, its way to a stop, riskiest first.

Of a large fleet it is as old as its judges: see ``riskiest.judges_of``.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import cached_property

from dashboard import judging
from dashboard.judging import (
    DANGERS,
    MAILS_LEAST,
    PRIORS,
    WARNING,
    Band,
    Cells,
    Counted,
    Verdict,
)
from dashboard.rates import Counts, Rate
from dashboard.refreshed import Kept
from dashboard.riskiest import BANDS, JUDGED_ANEW, Judges, Standing, judges_of
from ingest.models import Location

HEADING = 50.0  # per cent of the way to a stop
FAR = 75.0
COMPLAINTS_WARN = 0.001
_LIKELY = (Verdict.OVER, Verdict.PROBABLY_OVER)
_WARNED = (Counted.WARNS, Counted.MAY_COUNT_OVER)
_RATES = {"hard": "hard_bounce_rate", "blocks": "block_rate"}


class State(StrEnum):
    """What a location is in; the worst first. Its value is the word of the page's ``state=``."""

    OVER = "over"
    SILENT = "silent"
    WARNING = "warning"
    HEADING = "heading"
    EARLY = "early"
    INSIDE = "inside"
    QUIET = "quiet"
    GONE = "gone"

    @property
    def words(self) -> str:
        """As it is shown."""
        return _WORDS[self]

    @property
    def needs_somebody(self) -> bool:
        """Whether a person has to look."""
        return self in (State.OVER, State.SILENT, State.WARNING)


_WORDS = {
    State.OVER: "over",
    State.SILENT: "silent",
    State.WARNING: "over the warning",
    State.HEADING: "heading there",
    State.EARLY: "too early",
    State.INSIDE: "inside",
    State.QUIET: "no mail",
    State.GONE: "app uninstalled",
}


@dataclass(frozen=True, slots=True)
class Way:
    """How much of the way to a stop is gone, in per cent, by the least and the most counted.

    ``few``: too few mails for HighLevel to act on. ``bad`` of ``of`` are the most counted.
    """

    measure: str
    window: str
    low: float
    high: float
    few: bool
    bad: int
    of: int
    risk: float  # how much it is 80 % sure to be: what few mails are shown by

    @property
    def words(self) -> str:
        """``62–85 % hard``."""
        if self.few:
            return f"{self.risk:.0f} % {self.measure} · few mails"
        low, high = f"{self.low:.0f}", f"{self.high:.0f}"
        return f"{low if low == high else f'{low}–{high}'} % {self.measure}"


@dataclass(frozen=True)
class Place:
    """A location in the fleet."""

    pk: int
    ref: str
    name: str
    state: State
    standing: Standing
    way: Way | None

    @cached_property
    def may_be_over(self) -> bool:
        """Whether HighLevel may count it over its stop already."""
        return any(band.state is Counted.MAY_COUNT_OVER for _, band in _near(self.standing))

    @property
    def title(self) -> str:
        """Its name, or its id if it has none."""
        return self.name or self.ref


@dataclass(frozen=True)
class Fleet:
    """Locations, riskiest first."""

    places: tuple[Place, ...]

    @cached_property
    def counts(self) -> Mapping[State, int]:
        """How many locations are in each state."""
        found = Counter(place.state for place in self.places)
        return {state: found[state] for state in State}

    @cached_property
    def needing(self) -> frozenset[int]:
        """Keys of the locations that somebody has to look at."""
        return frozenset(place.pk for place in self.places if place.state.needs_somebody)


def way_of(standing: Standing) -> Way | None:
    """The way to a stop of the measure that is furthest; ``None`` without mail."""
    risk = standing.risk
    if risk is None:
        return None
    counts, stop = standing.lately.windows[risk.window], DANGERS[risk.measure].stop
    band = band_of(risk.measure, counts)
    low, high = (100 * (edge.value or 0.0) / stop for edge in (band.low, band.high))
    few = band.high.denominator < MAILS_LEAST
    bad, of = band.high.numerator, band.high.denominator
    return Way(risk.measure, risk.window, low, high, few, bad, of, risk.value)


def band_of(measure: str, counts: Counts) -> Band:
    """What HighLevel may count of a measure; complaints have one value, those that are reported."""
    if measure in BANDS:
        return BANDS[measure](counts)
    rate = counts.visible_complaint_rate
    return Band(rate, rate)


def state_of(standing: Standing) -> State:
    """The one word for where a location stands."""
    if word := {0: State.OVER, 1: State.SILENT, 3: State.QUIET}.get(standing.tier):
        return word
    if any(_warned(standing)):
        return State.WARNING
    if (standing.risk and standing.risk.value >= HEADING) or any(_may_warn(standing)):
        return State.HEADING
    week = standing.lately.windows.get("7d", Counts())
    phi = _phi(standing, "hard")
    return State.EARLY if week.sent / phi < judging.fewest(WARNING) else State.INSIDE


def _warned(standing: Standing) -> Iterator[bool]:
    for measure, band in _near(standing):
        yield band.state in _WARNED or _likely_over(band.low, WARNING, standing, measure)
    for counts in standing.lately.windows.values():
        rate = counts.visible_complaint_rate
        yield _likely_over(rate, COMPLAINTS_WARN, standing, "complaints")


def _may_warn(standing: Standing) -> Iterator[bool]:
    for measure, band in _near(standing):
        yield band.state is Counted.MAY_WARN or _likely_over(band.high, WARNING, standing, measure)


def _near(standing: Standing) -> Iterator[tuple[str, Band]]:
    """The bands that reach the warning: few do, and only these need a closer look."""
    for counts in standing.lately.windows.values():
        for measure, of in BANDS.items():
            band = of(counts)
            if (band.high.value or 0.0) >= WARNING:
                yield measure, band


def _likely_over(rate: Rate, line: float, standing: Standing, measure: str) -> bool:
    if rate.numerator < 3 or (rate.value or 0.0) <= line:
        return False
    phi = _phi(standing, measure)
    return judging.verdict(rate.numerator, rate.denominator, line, phi) in _LIKELY


def _phi(standing: Standing, measure: str) -> float:
    cells = standing.lately.cells.get(measure, Cells())
    return judging.dispersion(cells, PRIORS[_RATES.get(measure, "visible_complaint_rate")])


# --- All of them ---------------------------------------------------------------------------

NAMES_FRESH = 5.0  # seconds
type Named = Mapping[int, tuple[str, str, bool]]  # locations: id, name, whether it is gone

_names = Kept[frozenset[int] | None, Named](
    lambda found: len(found) > JUDGED_ANEW, fresh=NAMES_FRESH
)
_MOST_RECENT = 16
_recent: dict[frozenset[tuple[int, tuple[str, str, bool]]], tuple[Judges, Fleet]] = {}


def fleet_of(locations: Collection[int] | None, *, now: datetime) -> Fleet:
    """The fleet of some locations, or of all: as old as its judges are (``judges_of``)."""
    asked = None if locations is None else frozenset(locations)
    named = _names.get(asked, lambda: _named(asked))
    judges, key = judges_of(named, now=now), frozenset(named.items())
    known = _recent.get(key)
    if known is None or not judges.agree_with(known[0]):
        if len(_recent) >= _MOST_RECENT:
            _recent.clear()
        known = _recent[key] = judges, _fleet(named, judges)
    return known[1]


def _named(locations: Collection[int] | None) -> Named:
    found = Location.objects.order_by("pk").values_list("pk", "ref", "name")
    gone = set(Location.objects.gone().values_list("pk", flat=True))
    return {
        pk: (ref, name, pk in gone)
        for pk, ref, name in found
        if locations is None or pk in locations
    }


def _fleet(named: Named, judges: Judges) -> Fleet:
    """Riskiest first; those that are gone come last, whatever they did."""
    ordered = sorted(
        named,
        key=lambda pk: (named[pk][2], judges.sort_key(pk, named[pk][1] or named[pk][0])),
    )
    return Fleet(tuple(_place(pk, *named[pk], judges.standing(pk)) for pk in ordered))


def _place(pk: int, ref: str, name: str, is_gone: bool, standing: Standing) -> Place:
    state = State.GONE if is_gone else state_of(standing)
    return Place(pk, ref, name, state, standing, way_of(standing))
