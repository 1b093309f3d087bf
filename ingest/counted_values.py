"""Which values are counted apart in which location: decisions recorded once, for all writers.

A location counts the first ``MOST_VALUES`` values of a dimension apart; what comes later is
counted in ``(other)``. A value that explodes (a tag a message) costs no more rows than that.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable
from functools import partial

from django.db import connection

from ingest.counted import LETTERS, Counted, capped, ids_in, read_ways
from ingest.models import CountedValue, CountedValues
from ingest.statements import Sql
from ingest.vocabulary import MOST_VALUES, ROLLED_UP, Dimension

# A category is one of seventeen.
CAPPED = frozenset(ROLLED_UP) - {Dimension.CATEGORY}

type Place = tuple[int, int]
"""(location id, dimension)."""
type Pair = tuple[int, int]
"""(location id, value id)."""


class Decisions:
    """The decisions as this process knows them. They never change, so knowing is for good."""

    most = 500_000

    def __init__(self, *, limit: int = MOST_VALUES) -> None:
        self.limit = limit
        self._apart: set[Pair] = set()
        self._other: dict[int, set[int]] = defaultdict(set)
        self._undecided: frozenset[int] = frozenset()  # the empty values and (other) itself
        self._other_ids: dict[int, int] = {}

    def clear(self) -> None:
        """Forget everything: another database is behind the connection."""
        self._apart.clear()
        self._other.clear()

    def exempt(self, empty: Iterable[int], other: dict[int, int]) -> None:
        """Name the values that need no decision: the empty ones, and (other) by dimension."""
        self._undecided = frozenset(empty) | frozenset(other.values())
        self._other_ids = other

    def prepare(self, sql: Sql, wanted: Collection[tuple[int, int, int]]) -> None:
        """Decide, in a transaction of its own, whatever (location, dimension, value) is new."""
        new = [w for w in wanted if not self._is_known(w[0], w[2])]
        if not new:
            return
        if len(self._apart) > self.most:
            self.clear()
        by_place: dict[Place, set[int]] = defaultdict(set)
        for location, dimension, value in new:
            by_place[location, dimension].add(value)
        with sql.unsynced():
            used = _lock(sorted(by_place))
            self._read({(location, value) for location, _, value in new})
            taken = self._decide(by_place, used)
        self._apart |= taken

    def _decide(self, by_place: dict[Place, set[int]], used: dict[Place, int]) -> set[Pair]:
        """Record what is counted apart from now on; what finds no room is (other) for good."""
        taken: set[Pair] = set()
        counts = []
        for place in sorted(by_place):
            location = place[0]
            values = sorted(v for v in by_place[place] if (location, v) not in self._apart)
            room = max(0, self.limit - used[place])
            taken |= {(location, value) for value in values[:room]}
            self._other[location].update(values[room:])
            if values[:room]:
                counts.append((*place, len(values[:room])))
        CountedValue.objects.bulk_create(
            CountedValue(location_id=location, value_id=value) for location, value in sorted(taken)
        )
        _add_used(counts)
        return taken

    def learn(self, pairs: Iterable[Pair]) -> None:
        """Look up decisions on values of stored deliveries: without one, a value is (other)."""
        missing = {pair for pair in pairs if not self._is_known(*pair)}
        if missing:
            self._read(missing)
            for location, value in missing - self._apart:
                self._other[location].add(value)

    def _read(self, pairs: set[Pair]) -> None:
        stored = CountedValue.objects.filter(
            location_id__in={location for location, _ in pairs},
            value_id__in={value for _, value in pairs},
        )
        self._apart |= pairs & set(stored.values_list("location_id", "value_id"))

    def _is_known(self, location: int, value: int) -> bool:
        return (
            (location, value) in self._apart
            or value in self._undecided
            or (location in self._other and value in self._other[location])
        )

    def cap(self, location: int, counted: Counted) -> Counted:
        """With what is not counted apart put under ``(other)``. Decisions must be known."""
        if not self._other.get(location):
            return counted
        return capped(counted, partial(self._counted_as, location))

    def _counted_as(self, location: int, dimension: Dimension, value: int) -> int:
        return self._other_ids[dimension] if value in self._other[location] else value


def pairs_of(location: int, counted: Counted) -> Iterable[Pair]:
    """Every (location, value) that a delivery may be counted under."""
    yield from ((location, value) for value in counted[5:12])
    for tag in ids_in(counted.tags):
        yield location, tag
    if counted.ways != ",":
        for dimension in (Dimension.IP, Dimension.POOL):
            for mark in ("a", "d"):
                for value in read_ways(counted.ways, mark + LETTERS[dimension]):
                    yield location, value


def _lock(places: list[Place]) -> dict[Place, int]:
    """How many values each place counts apart; their rows are ours until the commit."""
    CountedValues.objects.bulk_create(
        [
            CountedValues(location_id=location, dimension=dimension)
            for location, dimension in places
        ],
        ignore_conflicts=True,
    )
    rows = CountedValues.objects.filter(location_id__in={location for location, _ in places})
    if connection.features.has_select_for_update:
        rows = rows.select_for_update()
    found = rows.order_by("location_id", "dimension").values_list(
        "location_id", "dimension", "used"
    )
    return {(location, dimension): used for location, dimension, used in found}


def _add_used(counts: list[tuple[int, int, int]]) -> None:
    if counts:
        with connection.cursor() as cursor:
            cursor.executemany(
                "UPDATE ingest_countedvalues SET used = used + %s "
                "WHERE location_id = %s AND dimension = %s",
                [(n, location, dimension) for location, dimension, n in counts],
            )


decisions = Decisions()
