"""Judgements of locations: verdicts, HighLevel's gauge, and how far each is on its way to a stop.

Risk and gauge look at all of a location's mail over 24 hours and 7 days, whatever is filtered;
verdicts are of the numbers beside them. A location's hours are the cells of its dispersion here:
to read campaigns and providers of a thousand locations would cost ten times as much.
"""

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.db import connection

from dashboard import judging
from dashboard.judging import CELL_LEAST, PRIORS, Band, Cells, Counted, Distance, Risk, Verdict
from dashboard.rates import Counts, Rate
from dashboard.spans import hour_of
from ingest.vocabulary import FLEET_LOCATION

JUDGED_ANEW = 100  # locations: some 20 ms
REORDERED = 60.0  # seconds
_MOST_RECENT = 16

WINDOWS = {"24h": 24, "7d": 7 * 24}  # hours
WEEK = 7 * 24
FLEET_HOURS = 28 * 24
# The lines that each rate is judged by.
LINES = {
    "hard_bounce_rate": (0.03, 0.05),
    "block_rate": (0.03, 0.05),
    "visible_complaint_rate": (0.001, 0.003),
}
# What is on the way to a stop: its parts, and the rate whose mail it is.
_PARTS = {
    "hard": ("bounced + suppressed", "sent + suppressed", "hard_bounce_rate"),
    "blocks": ("block_high", "sent", "block_rate"),
    "complaints": ("visible_complained", "visible_reached", "visible_complaint_rate"),
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


class Judges:
    """Those who judge locations, with what they need to know of all of them: three queries."""

    def __init__(self, locations: Collection[int], *, now: datetime) -> None:
        self._lately = read_lately(locations, now=now)
        self._fleet = fleet_rates(now=now)
        self._silent = silences(locations, now=now)

    def sort_key(self, location: int, name: str) -> Any:
        """Orders locations riskiest first."""
        lately = self._lately.get(location, Lately())
        risk = risk_of(lately, self._fleet)
        return judging.sort_key(self._tier(location), risk, lately.expected, name)

    def judgement(self, location: int, counts: Counts, phis: Mapping[str, float]) -> Judgement:
        """What a location's numbers mean; ``counts`` are those that are shown."""
        lately = self._lately.get(location, Lately())
        return Judgement(
            verdicts=verdicts(counts, phis),
            gauges=gauges(lately),
            risk=risk_of(lately, self._fleet),
            tier=self._tier(location),
            expected=lately.expected,
            silent_expected=self._silent.get(location, 0),
        )

    def _tier(self, location: int) -> int:
        lately = self._lately.get(location, Lately())
        over = any(
            of(counts).state is Counted.COUNTS_OVER
            for of in BANDS.values()
            for counts in lately.windows.values()
        )
        silent = self._silent.get(location, 0)
        return judging.tier(
            counts_over=over, suspended=False, silent_expected=silent, mails_7d=lately.mails
        )


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


_recent: dict[frozenset[int], tuple[float, Judges]] = {}


def judges_of(locations: Collection[int], *, now: datetime) -> Judges:
    """Judges of locations, whose order by risk need not change more than once a minute.

    Of a small fleet they know this moment's numbers; of a large one, those of the minute.
    """
    if len(locations) <= JUDGED_ANEW:
        return Judges(locations, now=now)
    key, clock = frozenset(locations), time.monotonic()
    since, judges = _recent.get(key, (clock, None))
    if judges is None or clock - since > REORDERED:
        if len(_recent) >= _MOST_RECENT:
            _recent.clear()
        judges = Judges(locations, now=now)
        _recent[key] = clock, judges
    return judges


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
    if measure == "complaints":
        rate = counts.visible_complaint_rate
    else:
        rate = counts.hl["hard_high" if measure == "hard" else "block_high"]
    return rate.numerator, rate.denominator


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
    locations: Iterable[int], *, now: datetime, together: bool = False
) -> dict[int, Lately]:
    """What locations counted lately, by their keys; ``together`` all as one, by 0."""
    this = hour_of(now)
    group = "0" if together else "location_id"
    windows = [f"hour >= {this - hours}" for hours in WINDOWS.values()]
    sums = [f"sum({m}) FILTER (WHERE {when})" for when in windows for m in _READ]
    sums += [f"sum({m}) FILTER (WHERE hour = {this - 1})" for m in _READ]
    sums.append(f"sum(sent) FILTER (WHERE hour < {this - WEEK + 24})")
    sums += _cell_sums()
    sql = (
        f"SELECT {group}, {', '.join(sums)} FROM ingest_locationhour"  # noqa: S608 - our own words
        f" WHERE hour >= {this - WEEK} AND location_id IN ({_listed(locations)}) GROUP BY 1"
    )
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return {key: _lately([n or 0 for n in found]) for key, *found in cursor.fetchall()}


def _cell_sums() -> Iterable[str]:
    for x, n, _ in _PARTS.values():
        large = f"FILTER (WHERE {n} >= {CELL_LEAST})"
        some = f"FILTER (WHERE {n} >= {CELL_LEAST} AND {x} > 0)"
        squared = f"CAST({x} AS double precision) * ({x}) / ({n})"
        yield from (f"count(*) {large}", f"sum({x}) {some}", f"sum({n}) {large}")
        yield f"sum({squared}) {some}"


def _lately(found: list[Any]) -> Lately:
    width = len(_READ)
    parts = [dict(zip(_READ, found[i * width : (i + 1) * width], strict=True)) for i in range(3)]
    *counted, hour = (Counts(**part) for part in parts)
    cells = found[3 * width + 1 :]
    return Lately(
        windows=dict(zip(WINDOWS, counted, strict=True)),
        hour=hour,
        expected=found[3 * width],
        cells={m: Cells(*cells[4 * i : 4 * i + 4]) for i, m in enumerate(_PARTS)},
    )


# --- Silence -------------------------------------------------------------------------------


_SILENCES = """
SELECT before.location_id, sum(before.events)
FROM (
    SELECT location_id, max(hour) AS hour FROM ingest_qualityhour
    WHERE hour >= {start} AND events > 0 AND location_id IN ({places}) GROUP BY location_id
) last
JOIN ingest_qualityhour before ON before.location_id = last.location_id
    AND before.hour > last.hour - {week} AND before.hour >= {start}
    AND before.hour < {this} - {week}
WHERE last.hour < {this} - 1
GROUP BY before.location_id
"""


def silences(locations: Iterable[int], *, now: datetime) -> dict[int, int]:
    """How many events were due since the last one came, by location, where none came for an hour.

    Due is what came in the same hours of the week before. By the clock of receipt.
    """
    this = hour_of(now)
    numbers = {"this": this, "week": WEEK, "start": this - 2 * WEEK}
    with connection.cursor() as cursor:
        cursor.execute(_SILENCES.format(places=_listed(locations), **numbers))
        return dict(cursor.fetchall())


def _listed(numbers: Iterable[int]) -> str:
    return ",".join(str(int(n)) for n in numbers) or "NULL"
