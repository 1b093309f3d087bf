"""How clustered the mail of a row is: dispersions for its rates, from the counters.

A cell is what the counters keep of a campaign, or of a provider, in an hour. For rows by value it
is that value in an hour; for rows of time, the campaigns and providers of that time; where other
terms narrow the mail, whose cells nobody counts, the cells of the asked locations without them.
Of the whole fleet the locations stand for their campaigns: a campaign belongs to one, and there
are fewer of them. In a long table of locations their hours are the cells.

Cells are of the newest seven days asked for, or of the newest day where many locations or values
are read (a week of them costs more than all the rest of the answer), and only of rows that are
shown. A row without cells has the priors of ``judging.PRIORS``. A large fleet's hours, which every
answer about all of its mail needs, are read once a minute.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import connection

from dashboard.judging import CELL_LEAST, PRIORS, Cells, dispersion
from dashboard.refreshed import Kept
from dashboard.spans import hour_of, key_of
from dashboard.tallies import BY_TIME, DIMENSIONS, PLACES, Question
from ingest.models import counted_sql
from ingest.vocabulary import FLEET, FLEET_LOCATION, Dimension

DAYS = 7
DAYS_OF_MANY = 1
MANY, MANY_VALUES = 3, 20  # locations; values of the whole fleet
MANY_ROWS = 20  # locations in a table; their hours stand for their campaigns and providers
KEPT_FROM = 2_000  # cells: some 5 ms
_MOST_LOOKUPS = 5_000

type Phis = dict[str, float]
"""Dispersions by the names of rates."""
type Gathered = dict[str, dict[str, Cells]]
"""Cells by row and by rate."""
type Read = list[tuple[int, dict[str, Cells]]]
"""Cells by rate of each group: an id, or an hour."""

_SETTLED, _REACHED = "delivered + bounced", "delivered + late_bounced + recovered"
# Numerator and denominator of each rate, as ``Counts`` defines them.
_PARTS = {
    "bounce_rate": ("bounced", _SETTLED),
    "hard_bounce_rate": ("hard", _SETTLED),
    "soft_bounce_rate": ("soft", _SETTLED),
    "block_rate": ("block", _SETTLED),
    "complaint_rate": ("complained", _REACHED),
    "visible_complaint_rate": ("visible_complained", "visible_reached"),
    "unsubscribe_rate": ("unsubscribed", _REACHED),
    "open_rate": ("opened", _REACHED),
    "human_open_rate": ("opened_human", _REACHED),
    "click_rate": ("clicked", _REACHED),
    "deferral_rate": ("deferred", "sent"),
}
# What is not a bounce is delivered: the same mails apart from each other in the same way.
_SAME = {"delivery_rate": "bounce_rate"}
TOTAL = ""  # the row of all


@dataclass(frozen=True)
class _Source:
    """Counter rows that are cells: of a dimension's values, or of locations."""

    dimension: Dimension | None
    locations: Collection[int] | None  # None: all
    values: Collection[int] | None = None
    fleet: bool = False  # rows of location 0

    @property
    def is_small(self) -> bool:
        """Whether a week of it is few rows: of few locations, or of few values of the fleet."""
        if self.fleet:
            return self.values is None or len(self.values) <= MANY_VALUES
        return self.locations is not None and len(self.locations) <= MANY

    @property
    def table(self) -> str:
        """The table that holds the cells."""
        return "ingest_locationhour" if self.dimension is None else "ingest_hourlycount"

    def conditions(self) -> Iterator[str]:
        """In SQL; all numbers are ours."""
        if self.dimension is not None:
            yield f"dimension = {int(self.dimension)}"
        if self.fleet:
            yield f"location_id = {FLEET_LOCATION}"
        elif self.locations is None:
            yield f"location_id <> {FLEET_LOCATION}"
        else:
            yield f"location_id IN ({_listed(self.locations)})"
        if self.values is not None:
            yield f"value_id IN ({_listed(self.values)})"


def _listed(numbers: Iterable[int]) -> str:
    return ",".join(str(int(n)) for n in numbers) or "NULL"


def dispersions(
    question: Question, rows: Mapping[str, Collection[int]], now: datetime
) -> dict[str, Phis]:
    """For the total (``TOTAL``) and each row: the dispersion of each of its rates.

    ``rows`` has the groups behind each row that is shown, by its key: ids, or quarters of hours.
    """
    whole = _phis(_gathered(question, now, _kinds(question), {}))
    total = whole.get(TOTAL) or priors()
    if _are_of_all(question):
        return {TOTAL: total} | dict.fromkeys(rows, total)
    return {TOTAL: total} | _of_rows(question, rows, now)


def row_dispersions(
    question: Question, rows: Mapping[str, Collection[int]], now: datetime
) -> dict[str, Phis]:
    """For the rows as ``dispersions`` has them, where nobody asks for the total."""
    if _are_of_all(question):
        return dispersions(question, rows, now)
    return _of_rows(question, rows, now)


def _are_of_all(question: Question) -> bool:
    return bool(question.names) or question.by == "category"


def _of_rows(
    question: Question, rows: Mapping[str, Collection[int]], now: datetime
) -> dict[str, Phis]:
    by_row = _phis(_rows(question, rows, now))
    return {key: by_row.get(key) or priors() for key in rows}


def priors() -> Phis:
    """The dispersions of rates of which nothing is known."""
    return {rate: max(1.0, phi0) for rate, phi0 in PRIORS.items()}


def _phis(kinds: Iterable[Gathered]) -> dict[str, Phis]:
    """Of several kinds of cells the widest."""
    found: dict[str, Phis] = {}
    for gathered in kinds:
        for row, cells in gathered.items():
            phis = found.setdefault(row, {})
            for rate, sums in cells.items():
                phis[rate] = max(phis.get(rate, 1.0), dispersion(sums, PRIORS[rate]))
    return {row: _complete(phis) for row, phis in found.items()}


def _complete(phis: Phis) -> Phis:
    """With priors for the rates that have no cells."""
    known = priors() | phis
    return known | {rate: known[of] for rate, of in _SAME.items()}


def _kinds(question: Question) -> list[_Source]:
    """The cells of all mail of the asked locations: by campaign (or location), by provider."""
    locations = question.locations
    if locations is None:
        return [_Source(None, None), _Source(Dimension.PROVIDER, None, fleet=True)]
    of = Dimension.CAMPAIGN if len(locations) <= MANY else None
    return [_Source(of, locations), _Source(Dimension.PROVIDER, locations)]


def _rows(question: Question, rows: Mapping[str, Collection[int]], now: datetime) -> list[Gathered]:
    ids = {pk for groups in rows.values() for pk in groups}
    if question.by in BY_TIME:
        return _gathered(question, now, _kinds(question), rows, column="hour")
    if question.by in PLACES:
        kinds = [_Source(dimension, ids) for dimension in (Dimension.CAMPAIGN, Dimension.PROVIDER)]
        if len(ids) > MANY_ROWS:
            kinds = [_Source(None, ids)]
        return _gathered(question, now, kinds, rows, column="location_id")
    dimension = DIMENSIONS[question.by]
    fleet = question.locations is None and dimension in FLEET
    kinds = [_Source(dimension, question.locations, ids, fleet)]
    return _gathered(question, now, kinds, rows, column="value_id")


def _gathered(
    question: Question,
    now: datetime,
    kinds: Iterable[_Source],
    rows: Mapping[str, Collection[int]],
    column: str = "",
) -> list[Gathered]:
    """The cells of each kind, summed by row; without a column, all in ``TOTAL``."""
    row_of = _row_of(question, rows, column)
    gathered = []
    for source in kinds:
        sums: Gathered = defaultdict(dict)
        for group, cells in _read(source, column, *_hours(question, source, now)):
            if (row := row_of(group)) is not None:
                for rate, found in cells.items():
                    sums[row][rate] = sums[row].get(rate, Cells()) + found
        gathered.append(dict(sums))
    return gathered


def _row_of(question: Question, rows: Mapping[str, Collection[int]], column: str) -> Any:
    if not column:
        return lambda group: TOTAL
    if column == "hour":
        by, zone = question.by, question.filter.zone
        return lambda hour: key if (key := key_of(4 * hour, by, zone)) in rows else None
    return {group: row for row, groups in rows.items() for group in groups}.get


def _hours(question: Question, source: _Source, now: datetime) -> tuple[int, int]:
    """The hours to read, the last one out."""
    last = hour_of(min(question.until or now, now)) + 1
    first = last - 24 * (DAYS if source.is_small else DAYS_OF_MANY)
    return max(first, hour_of(question.start)) if question.start else first, last


def _read(source: _Source, column: str, first: int, last: int) -> Read:
    if source == _HOURS_OF_ALL and column in ("", "hour"):
        return _hours_of_all(first, last)
    return _select(source, column, first, last)


_HOURS_OF_ALL = _Source(None, None)


def _is_large(found: Read) -> bool:
    return sum(next(iter(cells.values()), Cells()).k for _, cells in found) >= KEPT_FROM


_kept = Kept[tuple[int, int], Read](_is_large)


def _hours_of_all(first: int, last: int) -> Read:
    """The cells of all locations, by hour."""
    return _kept.get((first, last), lambda: _select(_HOURS_OF_ALL, "hour", first, last))


def _select(source: _Source, column: str, first: int, last: int) -> Read:
    conditions = [_between(source, first, last), *source.conditions()]
    group = column or "0"
    sql = _CELLS.format(table=source.table, where=" AND ".join(conditions), group=group)
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return [(key, _cells(sums)) for key, *sums in cursor.fetchall()]


def _between(source: _Source, first: int, last: int) -> str:
    """Few values are looked up hour by hour: an index holds them in this order."""
    hours = range(first, last)
    if source.values is not None and len(hours) * len(source.values) <= _MOST_LOOKUPS:
        return f"hour IN ({_listed(hours)})"
    return f"hour >= {first} AND hour < {last}"


def _cells(sums: list[Any]) -> dict[str, Cells]:
    sizes = {n: (sums[2 * i], sums[2 * i + 1]) for i, n in enumerate(_SIZES)}
    parts = sums[2 * len(_SIZES) :]
    return {
        rate: Cells(sizes[n][0] or 0, parts[2 * i] or 0, sizes[n][1] or 0, parts[2 * i + 1] or 0.0)
        for i, (rate, (_, n)) in enumerate(_PARTS.items())
        if sizes[n][0]
    }


_SIZES = tuple(dict.fromkeys(size for _, size in _PARTS.values()))
_COLUMNS = tuple(dict.fromkeys(x for x, _ in _PARTS.values()))
_NAMED = {size: f"n{i}" for i, size in enumerate(_SIZES)}


def _sums() -> Iterator[str]:
    for size in _SIZES:
        large = f"FILTER (WHERE {_NAMED[size]} >= {CELL_LEAST})"
        yield f"count(*) {large}, sum({_NAMED[size]}) {large}"
    for x, size in _PARTS.values():
        large = f"FILTER (WHERE {_NAMED[size]} >= {CELL_LEAST} AND {x} > 0)"
        squared = f"CAST({x} AS double precision) * {x} / {_NAMED[size]}"
        yield f"sum({x}) {large}, sum({squared}) {large}"


# Materialized: PostgreSQL would start parallel workers for a few thousand rows, in 30 ms.
_CELLS = (
    "WITH cells AS MATERIALIZED (SELECT {group} AS row_of,"  # noqa: S608 - our own words
    f" {', '.join(f'{counted_sql(x)} AS {x}' for x in _COLUMNS)},"
    f" {', '.join(f'{counted_sql(size)} AS {name}' for size, name in _NAMED.items())}"
    " FROM {table} WHERE {where})"
    f" SELECT row_of, {', '.join(_sums())} FROM cells GROUP BY row_of"
)
