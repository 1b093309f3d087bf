"""Where a refusal falls, by two things at once: how much, and the list behind each number."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from django.db.models import Count

from dashboard.access import Rights, restrict
from dashboard.failing import list_url
from dashboard.filters import Filter, FilterError
from dashboard.names import name_of
from dashboard.queries import names_of, of_reasons
from dashboard.refusals import KINDS, Asked, fetch_hits
from ingest.models import Location
from ingest.vocabulary import NONE_KEY

DIMENSIONS = {
    "provider": "Provider",
    "pool": "Pool",
    "ip": "IP",
    "mx": "MX host",
    "location": "Location",
    "campaign": "Campaign",
    "domain": "Recipient domain",
    "sending_domain": "Sending domain",
}
MOST_ROWS, MOST_COLUMNS = 12, 8
SHADES = 5
_COUNTED = frozenset({"provider", "pool", "location"})  # what the counters of refusals know
_OF_EVENTS = frozenset({*_COUNTED, "ip", "mx"})

type Table = Counter[tuple[int, int]]
"""How much, by the ids of a row's and a column's values."""


class Cell(NamedTuple):
    """A number with its list ("" = none) and its shade, 0 for nothing to 5 for the most."""

    n: int
    url: str
    shade: int


class Line(NamedTuple):
    """A row of the table, or its heads."""

    name: str
    url: str  # the same page narrowed to this value, as a query of the filter; "" = cannot
    cells: list[Cell]
    total: int


@dataclass(frozen=True)
class Pivot:
    """A table of two dimensions: the largest rows and columns, and how much is left out."""

    rows: list[Line]
    columns: list[Line]
    total: int
    left_rows: int
    left_columns: int
    left: int  # how much lies outside what is shown


# --- Counting --------------------------------------------------------------------------------


def count_mails(filter: Filter, rights: Rights, by: tuple[str, str]) -> Table:
    """Mails that stand refused for the filter's reason, by two dimensions, by their sending."""
    filter.check_locations(rights)
    mails = restrict(filter.apply(of_reasons(filter)), rights).order_by()
    keys = [f"{name}_id" for name in by]
    return Counter(
        {(row or 0, column or 0): n for row, column, n in mails.values_list(*keys).annotate(
            n=Count("pk")
        )}
    )  # fmt: skip


def count_refusals(asked: Asked, by: tuple[str, str]) -> Table:
    """Refusals, temporary ones too, by two dimensions, by the time they happened."""
    if set(by) <= _COUNTED:
        keys = [f"{name}_id" for name in by]
        every = " + ".join(f"sum({name})" for name in KINDS)
        select = f"SELECT {', '.join(keys)}, {every} FROM hit GROUP BY 1, 2"  # noqa: S608
        return Counter({(int(r), int(c)): int(n) for r, c, n in fetch_hits(asked, keys, select)})
    keys = [f"{name}_id" if name in _OF_EVENTS else f"delivery__{name}_id" for name in by]
    found: Table = Counter()
    rows = asked.refusals([(asked.filter.start, asked.filter.until)]).order_by()
    for row, column, n in rows.values_list(*keys).annotate(n=Count("pk")):
        found[row or 0, column or 0] += n
    return found


# --- The table -------------------------------------------------------------------------------


def pivot_of(table: Table, filter: Filter, by: tuple[str, str]) -> Pivot:
    """The table with names, shades and the list behind each number."""
    rows, columns = (_sums(table, at) for at in (0, 1))
    shown_rows, shown_columns = _largest(rows, MOST_ROWS), _largest(columns, MOST_COLUMNS)
    names = [_names(name, ids) for name, ids in zip(by, (shown_rows, shown_columns), strict=True)]
    top = max(table.values(), default=0)

    def cell(row: int, column: int) -> Cell:
        n = table[row, column]
        of_row = _narrowed(filter, by[0], names[0][row][0])
        return Cell(n, _list_of(of_row, by[1], names[1][column][0]) if n else "", _shade(n, top))

    lines = [
        Line(*_head(names[0][row], filter, by[0]), [cell(row, c) for c in shown_columns], rows[row])
        for row in shown_rows
    ]
    heads = [Line(*_head(names[1][c], filter, by[1]), [], columns[c]) for c in shown_columns]
    inside = sum(cell.n for line in lines for cell in line.cells)
    return Pivot(
        lines,
        heads,
        table.total(),
        len(rows) - len(shown_rows),
        len(columns) - len(shown_columns),
        table.total() - inside,
    )


def _sums(table: Table, at: int) -> Counter[int]:
    sums: Counter[int] = Counter()
    for key, n in table.items():
        sums[key[at]] += n
    return sums


def _largest(sums: Counter[int], most: int) -> list[int]:
    return sorted(sums, key=lambda pk: (-sums[pk], pk))[:most]


def _names(by: str, ids: Iterable[int]) -> Mapping[int, tuple[str, str]]:
    """Key and name of values (or locations) by their ids."""
    wanted = set(ids)
    if by == "location":
        places = Location.objects.filter(pk__in=wanted).values_list("pk", "ref", "name")
        known = {pk: (ref, name or ref) for pk, ref, name in places}
    else:
        named = names_of(wanted - {0})
        known = {
            pk: (text or NONE_KEY, name_of(by, text or NONE_KEY, label))
            for pk, (text, label) in named.items()
        }
    return {pk: known.get(pk, (NONE_KEY, name_of(by, NONE_KEY))) for pk in wanted}


def _head(named: tuple[str, str], filter: Filter, by: str) -> tuple[str, str]:
    narrowed = _narrowed(filter, by, named[0])
    return named[1], narrowed.canonical() if narrowed else ""


def _narrowed(filter: Filter | None, by: str, key: str) -> Filter | None:
    """The filter with one value of a dimension; ``None`` for one that no address can say."""
    try:
        return filter.with_(by, key) if filter else None
    except FilterError:
        return None


def _list_of(filter: Filter | None, by: str, key: str) -> str:
    return list_url(_narrowed(filter, by, key))


def _shade(n: int, top: int) -> int:
    return -(-SHADES * n // top) if n else 0
