"""Judgements of locations: verdicts, HighLevel's gauge, and how far each is on its way to a stop.

Risk and gauge look at all of a location's mail over 24 hours and 7 days, whatever is filtered;
verdicts are of the numbers beside them. A location's hours are the cells of its dispersion here:
to read campaigns and providers of a thousand locations would cost ten times as much. What is
judged of a long list of locations may be a minute or two old: see ``judges_of``.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from copy import copy
from dataclasses import dataclass, field
from datetime import datetime
from operator import attrgetter
from typing import Any, Self

from django.db import connection

from dashboard import judging
from dashboard.judging import CELL_LEAST, PRIORS, Band, Cells, Counted, Distance, Risk, Verdict
from dashboard.models import Suspension
from dashboard.rates import Counts, Rate
from dashboard.refreshed import Refreshed
from dashboard.spans import hour_of
from ingest.models import counted_sql
from ingest.vocabulary import FLEET_LOCATION

JUDGED_ANEW = 100  # locations: some 20 ms

DAY, WEEK = 24, 7 * 24  # hours: the windows that HighLevel looks at
FLEET_HOURS = 28 * 24
# The lines that each rate is judged by.
LINES = {
    "hard_bounce_rate": (0.03, 0.05),
    "block_rate": (0.03, 0.05),
    "visible_complaint_rate": (0.001, 0.003),
}
# What is on the way to a stop: its parts, and the rate whose mail it is.
_PARTS = {
    measure: (counted_sql(x), counted_sql(n), rate)
    for measure, x, n, rate in (
        ("hard", "bounced + suppressed", "sent + suppressed", "hard_bounce_rate"),
        ("blocks", "block_high", "sent", "block_rate"),
        ("complaints", "visible_complained", "visible_reached", "visible_complaint_rate"),
    )
}
BANDS: dict[str, Callable[[Counts], Band]] = {
    "hard": judging.hard_band,
    "blocks": judging.block_band,
}
_READ = (
    "sent", "bounced", "hard", "suppressed", "block_low", "block_high", "visible_reached",
    "visible_complained",
)  # fmt: skip


@dataclass(frozen=True)
class Lately:
    """What a location (or all of them) counted in the windows that HighLevel looks at.

    ``hour`` is the last whole hour, ``expected`` how many were sent in the 24 hours that followed
    this moment a week before.
    """

    windows: Mapping[str, Counts] = field(default_factory=dict)
    hour: Counts = Counts()
    expected: int = 0
    cells: Mapping[str, Cells] = field(default_factory=dict)

    @property
    def mails(self) -> int:
        """How many mails of seven days there are, suppressed ones too."""
        week = self.windows.get("7d", Counts())
        return week.sent + week.suppressed


_NOTHING = Lately()


@dataclass(frozen=True)
class Judgement:
    """What the numbers of a location (or of all) mean. ``risk`` is ``None`` without mail."""

    verdicts: Mapping[str, Mapping[str, str]]
    gauges: Mapping[str, Mapping[str, Any]]
    risk: Risk | None = None
    tier: int | None = None
    expected: int = 0
    silent_expected: int = 0

    def as_json(self) -> dict[str, Any]:
        """Ready for JSON: risk (0 to 100 and beyond), verdicts by rate and line, gauges."""
        risk = self.risk
        return {
            "tier": self.tier,
            "risk": risk
            and {
                "score": round(risk.value, 1),
                "measure": risk.measure,
                "window": risk.window,
                "tier": self.tier,
                "words": risk.sentence,
            },
            "expected_24h": self.expected,
            "silent_expected": self.silent_expected,
            "verdicts": self.verdicts,
            "highlevel": self.gauges,
        }


@dataclass(frozen=True)
class Standing:
    """Where a location stands among all: what its order by risk is made of."""

    lately: Lately
    risk: Risk | None
    tier: int
    silent_expected: int
    is_suspended: bool


class Judges:
    """Those who judge locations, with what they need to know of all of them: three queries.

    ``locations`` is ``None`` for all there are.
    """

    def __init__(self, locations: Collection[int] | None, *, now: datetime) -> None:
        self._lately = read_lately(locations, now=now)
        self._fleet = fleet_rates(now=now)
        self._silent = silences(locations, now=now)
        self._suspended = suspended(locations, now=now)
        self._risks: dict[int, tuple[bool, Risk | None]] = {}

    def sort_key(self, location: int, name: str) -> Any:
        """Orders locations riskiest first."""
        tier, risk = self._tier_and_risk(location)
        return judging.sort_key(tier, risk, self._lately_of(location).expected, name)

    def judgement(self, location: int, counts: Counts, phis: Mapping[str, float]) -> Judgement:
        """What a location's numbers mean; ``counts`` are those that are shown."""
        lately = self._lately_of(location)
        tier, risk = self._tier_and_risk(location)
        return Judgement(
            verdicts=verdicts(counts, phis),
            gauges=gauges(lately),
            risk=risk,
            tier=tier,
            expected=lately.expected,
            silent_expected=self._silent.get(location, 0),
        )

    def standing(self, location: int) -> Standing:
        """Where a location stands, without the words of a judgement."""
        tier, risk = self._tier_and_risk(location)
        return Standing(
            lately=self._lately_of(location),
            risk=risk,
            tier=tier,
            silent_expected=self._silent.get(location, 0),
            is_suspended=location in self._suspended,
        )

    def agree_with(self, others: "Judges") -> bool:
        """Whether these are the same judges, who know of the same stops."""
        return self._lately is others._lately and self._suspended == others._suspended

    def _lately_of(self, location: int) -> Lately:
        return self._lately.get(location, _NOTHING)

    def _tier_and_risk(self, location: int) -> tuple[int, Risk | None]:
        if location not in self._risks:
            lately = self._lately_of(location)
            self._risks[location] = _counts_over(lately), risk_of(lately, self._fleet)
        over, risk = self._risks[location]
        tier = judging.tier(
            counts_over=over,
            suspended=location in self._suspended,
            silent_expected=self._silent.get(location, 0),
            mails_7d=self._lately_of(location).mails,
        )
        return tier, risk

    def all_judged(self) -> Self:
        """Itself, with every risk worked out."""
        for location in self._lately:
            self._tier_and_risk(location)
        return self

    def at(self, now: datetime) -> Self:
        """The same, but who is stopped now: people have said so, and look for it."""
        other = copy(self)
        other._suspended = suspended(None, now=now)  # noqa: SLF001 - its own kind
        return other


def _counts_over(lately: Lately) -> bool:
    return any(
        of(counts).state is Counted.COUNTS_OVER
        for of in BANDS.values()
        for counts in lately.windows.values()
    )


_all = Refreshed[Judges]()


def judges_of(locations: Collection[int], *, now: datetime) -> Judges:
    """Judges of locations: of few they know this moment's numbers.

    Of many there is one for the whole fleet in each process, made anew beside the requests.
    """
    if len(locations) <= JUDGED_ANEW:
        return Judges(locations, now=now)
    return _all.get(lambda: Judges(None, now=now).all_judged()).at(now)


def judged_whole(
    locations: Collection[int] | None,
    counts: Counts,
    phis: Mapping[str, float],
    *,
    now: datetime,
) -> Judgement:
    """The judgement of some locations, or of the whole fleet, as one: without a risk."""
    places = [FLEET_LOCATION] if locations is None else locations
    lately = read_lately(places, now=now, together=True).get(0, Lately())
    return Judgement(verdicts(counts, phis), gauges(lately), expected=lately.expected)


def verdicts(counts: Counts, phis: Mapping[str, float]) -> dict[str, dict[str, str]]:
    """By rate and line ("3%"): the words of how sure it is that the rate is over it."""
    found: dict[str, dict[str, str]] = {}
    for name, lines in LINES.items():
        rate: Rate = getattr(counts, name)
        phi = phis.get(name, 1.0)
        found[name] = {
            judging.share(line).replace(" ", ""): _verdict(rate, line, phi).words(line)
            for line in lines
        }
    return found


def _verdict(rate: Rate, line: float, phi: float) -> Verdict:
    return judging.verdict(rate.numerator, rate.denominator, line, phi)


# --- The gauge -----------------------------------------------------------------------------


def gauges(lately: Lately) -> dict[str, dict[str, Any]]:
    """HighLevel's two gauges: the worse of their windows, in its words, and the way to a stop."""
    return {
        name: _gauge({window: of(counts) for window, counts in lately.windows.items()}, lately, of)
        for name, of in BANDS.items()
    }


def _gauge(bands: dict[str, Band], lately: Lately, of: Any) -> dict[str, Any]:
    window = judging.worst(bands)
    band = bands[window] if window else of(Counts())
    hour: Rate = of(lately.hour).high
    distance = judging.distance(band, judging.STOP, hour)
    return {
        "window": window,
        "state": band.state,
        "words": band.sentence,
        "low": band.low.value,
        "high": band.high.value,
        "distance": distance and _distance(distance),
        "windows": {
            name: {"low": _counted(each.low), "high": _counted(each.high), "state": each.state}
            for name, each in bands.items()
        },
    }


def _counted(rate: Rate) -> dict[str, Any]:
    """Without an interval: HighLevel acts on what was counted."""
    return {"value": rate.value, "numerator": rate.numerator, "denominator": rate.denominator}


def _distance(distance: Distance) -> dict[str, Any]:
    return {
        "line": distance.line,
        "least": distance.least,
        "most": distance.most,
        "pace": distance.pace,
        "mails": distance.mails,
        "hours": distance.hours,
        "words": distance.sentence,
    }


# --- Risk ----------------------------------------------------------------------------------


def risk_of(lately: Lately, fleet: Mapping[str, float]) -> Risk | None:
    """How far a location is on its way to a stop; ``None`` without mail."""
    counted = {
        (measure, window): _parts(measure, counts)
        for window, counts in lately.windows.items()
        for measure in _PARTS
    }
    phis = {
        measure: judging.dispersion(lately.cells.get(measure, Cells()), PRIORS[rate])
        for measure, (_, _, rate) in _PARTS.items()
    }
    return judging.risk(counted, fleet, phis)


def _parts(measure: str, counts: Counts) -> tuple[int, int]:
    rate = _EDGES[measure](counts)
    return rate.numerator, rate.denominator


_EDGES: dict[str, Callable[[Counts], Rate]] = {
    "hard": attrgetter("hl_hard_high"),
    "blocks": attrgetter("hl_block_high"),
    "complaints": attrgetter("visible_complaint_rate"),
}


def fleet_rates(*, now: datetime) -> dict[str, float]:
    """The whole fleet's rates of 28 days, by the measures of the risk."""
    sums = ", ".join(f"sum({x}), sum({n})" for x, n, _ in _PARTS.values())
    first = hour_of(now) - FLEET_HOURS
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT {sums} FROM ingest_locationhour"  # noqa: S608 - our own words
            f" WHERE location_id = {FLEET_LOCATION} AND hour >= {first}"
        )
        found = cursor.fetchone()
    return {
        measure: (found[2 * i] or 0) / found[2 * i + 1] if found[2 * i + 1] else 0.0
        for i, measure in enumerate(_PARTS)
    }


def read_lately(
    locations: Collection[int] | None, *, now: datetime, together: bool = False
) -> dict[int, Lately]:
    """What locations (``None``: all) counted lately, by their keys; ``together`` as one, by 0."""
    this = hour_of(now)
    group = "0" if together else "location_id"
    sums = [f"sum({measure})" for measure in _READ]
    last_hour = [f"{each} FILTER (WHERE hour = {this - 1})" for each in sums]
    next_day_then = f"sum(sent) FILTER (WHERE hour < {this - WEEK + DAY})"
    # Apart, for the week's rows are seven times as many, and each sum costs as much as a row.
    weeks = _sums_since(this - WEEK, group, locations, [*sums, next_day_then, *_cell_sums()])
    days = _sums_since(this - DAY, group, locations, [*sums, *last_hour])
    nothing = [0] * 2 * len(_READ)
    return {key: _lately(week, days.get(key, nothing)) for key, week in weeks.items()}


def _sums_since(
    first: int, group: str, locations: Collection[int] | None, sums: Iterable[str]
) -> dict[int, list[Any]]:
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT {group}, {', '.join(sums)} FROM ingest_locationhour"  # noqa: S608 - our own
            f" WHERE hour >= {first} AND {_among(locations)} GROUP BY 1"
        )
        return {key: [n or 0 for n in found] for key, *found in cursor.fetchall()}


def _cell_sums() -> Iterable[str]:
    for x, n, _ in _PARTS.values():
        large = f"FILTER (WHERE {n} >= {CELL_LEAST})"
        some = f"FILTER (WHERE {n} >= {CELL_LEAST} AND {x} > 0)"
        squared = f"CAST({x} AS double precision) * ({x}) / ({n})"
        yield from (f"count(*) {large}", f"sum({x}) {some}", f"sum({n}) {large}")
        yield f"sum({squared}) {some}"


def _lately(week: list[Any], day: list[Any]) -> Lately:
    width = len(_READ)
    expected, *cells = week[width:]
    return Lately(
        windows={"24h": _counts(day[:width]), "7d": _counts(week[:width])},
        hour=_counts(day[width:]),
        expected=expected,
        cells={m: Cells(*cells[4 * i : 4 * i + 4]) for i, m in enumerate(_PARTS)},
    )


def _counts(read: list[int]) -> Counts:
    return Counts(**dict(zip(_READ, read, strict=True)))


# --- Silence -------------------------------------------------------------------------------


_SILENCES = """
SELECT before.location_id, sum(before.events)
FROM (
    SELECT location_id, max(hour) AS hour FROM ingest_qualityhour
    WHERE hour >= {start} AND events > 0 AND {places} GROUP BY location_id
) last
JOIN ingest_qualityhour before ON before.location_id = last.location_id
    AND before.hour > last.hour - {week} AND before.hour >= {start}
    AND before.hour < {this} - {week}
WHERE last.hour < {this} - 1
GROUP BY before.location_id
"""


def silences(locations: Iterable[int] | None, *, now: datetime) -> dict[int, int]:
    """How many events were due since the last one came, by location, where none came for an hour.

    Due is what came in the same hours of the week before. By the clock of receipt.
    """
    this = hour_of(now)
    numbers = {"this": this, "week": WEEK, "start": this - 2 * WEEK}
    with connection.cursor() as cursor:
        cursor.execute(_SILENCES.format(places=_among(locations), **numbers))
        return dict(cursor.fetchall())


def suspended(locations: Iterable[int] | None, *, now: datetime) -> frozenset[int]:
    """The locations, of these or of all, that a person has marked as stopped by HighLevel."""
    found = frozenset(Suspension.objects.at(now).values_list("location_id", flat=True))
    return found if locations is None else found.intersection(locations)


def _among(locations: Iterable[int] | None) -> str:
    """The condition that a row is of one of these locations, in SQL; ``None``: of any."""
    if locations is None:
        return f"location_id <> {FLEET_LOCATION}"
    return f"location_id IN ({','.join(str(int(pk)) for pk in locations) or 'NULL'})"
