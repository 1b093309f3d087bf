"""What changed: which campaigns, providers and other parts moved a rate since an earlier period."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from dashboard import judging
from dashboard.access import Rights
from dashboard.comparison import Earlier, earlier
from dashboard.dispersions import TOTAL, dispersions
from dashboard.filters import Filter, FilterError
from dashboard.judging import Changes
from dashboard.rate_tables import RatesRow, named_rows
from dashboard.rates import RATES, Counts
from dashboard.sources import complete_from, count
from dashboard.tallies import OVERLAPPING, Question

CHANGED_BY = ("campaign", "provider", "ip", "pool", "tag", "category", "location")
ALL_OTHERS = "(all others)"
PARTS = 20  # of a dimension that are named


@dataclass(frozen=True)
class Changed:
    """The parts of each dimension that moved a rate, beside the two totals.

    Parts of dimensions whose rows overlap are each beside all other mail: they do not add up.
    """

    measure: str
    before: Earlier
    now: Counts
    start: datetime | None
    end: datetime | None
    by: Mapping[str, tuple[Changes | None, Mapping[str, str]]]
    complete_from: datetime | None

    def as_json(self) -> dict[str, Any]:
        """The contract's answer, ready for JSON."""
        return {
            "measure": self.measure,
            "from": self.start and self.start.isoformat(),
            "to": self.end and self.end.isoformat(),
            "complete_from": self.complete_from and self.complete_from.isoformat(),
            "compared": self.before.as_json(),
            "before": getattr(self.before.total, self.measure).as_json(),
            "after": getattr(self.now, self.measure).as_json(),
            "by": [_as_json(by, found, labels) for by, (found, labels) in self.by.items()],
        }


def _as_json(by: str, found: Changes | None, labels: Mapping[str, str]) -> dict[str, Any]:
    parts = found.parts[:PARTS] if found else ()
    return {
        "by": by,
        "overlap": by in OVERLAPPING,
        "move": found and found.move,
        "rest": found and found.rest + sum(part.effect for part in found.parts[PARTS:]),
        "parts": [
            {
                "key": part.key,
                "label": labels.get(part.key, part.key),
                "cause": part.cause,
                "effect": part.effect,
                "error": part.error,
            }
            for part in parts
        ],
    }


def changed(
    filter: Filter,
    rights: Rights,
    *,
    measure: str,
    by: Iterable[str] = CHANGED_BY,
    compare: str = "previous",
    now: datetime,
) -> Changed:
    """What moved ``measure`` (one of ``rates.RATES``) since the earlier period, by dimension.

    Raises ``FilterError`` for what cannot be asked, ``Http404`` for a hidden location.
    """
    wanted = _check_asked(filter, measure, by)
    filter.check_locations(rights)
    found, needed, before = {}, [], None
    for name in wanted:
        question = Question(filter.at(now), rights, name)
        tally, spans = count(question)
        before = earlier(question, compare, now=now, known=before)
        needed += [*spans, *before.needed]
        total = Counts(*tally.total)
        rows = named_rows(question, tally)
        was = named_rows(before.question, before.tally)
        labels = {row.key: row.label for row in (*was, *rows)}
        phis = dispersions(question, {}, now)[TOTAL]
        found[name] = (_moved(name, measure, (was, before.total), (rows, total), phis), labels)
    assert before  # noqa: S101 - there is at least one dimension
    return Changed(
        measure,
        before,
        total,
        question.start,
        question.filter.end,
        found,
        complete_from(question, needed),
    )


def _check_asked(filter: Filter, measure: str, by: Iterable[str]) -> list[str]:
    if measure not in RATES:
        raise FilterError(f"measure is one of {', '.join(RATES)}.")
    wanted = list(dict.fromkeys(by))
    if not wanted or not set(wanted) <= set(CHANGED_BY):
        raise FilterError(f"by is one of {', '.join(CHANGED_BY)}.")
    if "q" in filter.names:
        raise FilterError("q searches deliveries and events; rates cannot be asked with it.")
    if filter.clock == "event":
        raise FilterError("What changed goes by the time of sending: leave out clock=event.")
    return wanted


type _Side = tuple[list[RatesRow], Counts]
"""The rows of a period and its total."""


def _moved(
    by: str, measure: str, before: _Side, after: _Side, phis: Mapping[str, float]
) -> Changes | None:
    def phi_of(key: str) -> float:
        return phis.get(measure, 1.0)

    if by == "category":
        return _by_category(measure, before, after, phi_of)
    was, is_now = (
        {row.key: _parts(row.counts, measure) for row in rows} for rows, _ in (before, after)
    )
    if by not in OVERLAPPING:
        return judging.changes(was, is_now, phi_of)
    totals = _parts(before[1], measure), _parts(after[1], measure)
    return _beside_all_others(was, is_now, totals, phi_of)


def _parts(counts: Counts, measure: str) -> tuple[int, int]:
    rate = getattr(counts, measure)
    return rate.numerator, rate.denominator


def _beside_all_others(
    was: Mapping[str, tuple[int, int]],
    is_now: Mapping[str, tuple[int, int]],
    totals: tuple[tuple[int, int], tuple[int, int]],
    phi_of: Callable[[str], float],
) -> Changes | None:
    """Each of overlapping rows apart from the mail that is not in it."""
    parts: list[judging.Part] = []
    whole = judging.changes({"": totals[0]}, {"": totals[1]}, phi_of)
    if whole is None:
        return None
    for key in sorted(was.keys() | is_now.keys()):
        earlier_side, later_side = (
            {key: side.get(key, (0, 0)), ALL_OTHERS: _less(total, side.get(key, (0, 0)))}
            for side, total in ((was, totals[0]), (is_now, totals[1]))
        )
        found = judging.changes(earlier_side, later_side, phi_of)
        parts += [part for part in found.parts if part.key == key] if found else []
    parts.sort(key=lambda part: (-abs(part.effect), part.key, part.cause))
    return Changes(whole.before, whole.after, tuple(parts), 0.0)


def _less(total: tuple[int, int], part: tuple[int, int]) -> tuple[int, int]:
    return max(0, total[0] - part[0]), max(0, total[1] - part[1])


def _by_category(
    measure: str, before: _Side, after: _Side, phi_of: Callable[[str], float]
) -> Changes | None:
    """Categories are of what went wrong alone: each has its numerator, beside all of the mail."""
    totals = _parts(before[1], measure), _parts(after[1], measure)
    whole = judging.changes({"": totals[0]}, {"": totals[1]}, phi_of)
    if whole is None:
        return None
    sides = [
        {row.key: _parts(row.counts, measure)[0] for row in rows} for rows, _ in (before, after)
    ]
    parts = []
    for key in sorted(sides[0].keys() | sides[1].keys()):
        x, y = ((side.get(key, 0), total[1]) for side, total in zip(sides, totals, strict=True))
        found = judging.changes({key: x}, {key: y}, phi_of)
        parts += [part for part in found.parts if part.cause == judging.Cause.RATE] if found else []
    parts.sort(key=lambda part: (-abs(part.effect), part.key))
    return Changes(whole.before, whole.after, tuple(parts), 0.0)
