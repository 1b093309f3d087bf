"""Which values are counted apart in which location: decisions recorded once, for all writers.

A location counts the first ``MOST_VALUES`` values of a dimension apart; what comes later is
counted in ``(other)``. A value that explodes (a tag a message) costs no more rows than that.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from functools import partial

from django.db import connection

from ingest.counted import LETTERS, Counted, capped, ids_in, read_ways
from ingest.models import CountedValue, CountedValues
from ingest.statements import Sql
from ingest.vocabulary import MOST_VALUES, ROLLED_UP, Dimension

# A category is one of seventeen.
CAPPED = frozenset(ROLLED_UP) - {Dimension.CATEGORY}

FAR = 0.8  # of the limit: from there on, decisions wait for each other

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
        self._looked_up: set[tuple[int, tuple[object, ...]]] = set()
        self._other: dict[int, set[int]] = defaultdict(set)
        self._used: dict[Place, int] = {}  # at least so many
        self._undecided: frozenset[int] = frozenset()  # the empty values and (other) itself
        self._other_ids: dict[int, int] = {}

    def clear(self) -> None:
        """Forget everything: another database is behind the connection."""
        self._apart.clear()
        self._looked_up.clear()
        self._used.clear()
        self._other.clear()

    def exempt(self, empty: Iterable[int], other: dict[int, int]) -> None:
        """Name the values that need no decision: the empty ones, and (other) by dimension."""
        self._undecided = frozenset(empty) | frozenset(other.values())
        self._other_ids = other

    def undecided(self, wanted: Iterable[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
        """What of (location, dimension, value) is new to this process."""
        return [w for w in wanted if not self._is_known(w[0], w[2])]

    def decide(self, sql: Sql, new: Collection[tuple[int, int, int]]) -> None:
        """Record decisions on what may be new, in the present transaction.

        Whoever calls clears what is known if the transaction fails. Far from the limit nobody
        need wait for anybody: what is written at once cannot exceed it by more than a batch.
        """
        if not new:
            return
        if len(self._apart) + len(self._looked_up) > self.most:
            self.clear()
        by_place: dict[Place, set[int]] = defaultdict(set)
        for location, dimension, value in new:
            by_place[location, dimension].add(value)
        near = {
            place: values
            for place, values in by_place.items()
            if self._used.get(place, self.limit) + len(values) > self.limit * FAR
        }
        self._count_apart(sql, [w for w in new if (w[0], w[1]) not in near])
        if near:
            used = _lock(sorted(near))
            self._read({(place[0], value) for place, values in near.items() for value in values})
            self._record(sql, near, used)

    def _count_apart(self, sql: Sql, new: Sequence[tuple[int, int, int]]) -> None:
        """Where there is room to spare: whoever writes a decision first also counts it."""
        if not new:
            return
        dimension_of = {(location, value): dimension for location, dimension, value in new}
        made = sql.add_counted_values(sorted(dimension_of))
        counts = Counter((location, dimension_of[location, value]) for location, value in made)
        self._used |= sql.add_used([(*place, n) for place, n in sorted(counts.items())])
        self._apart |= dimension_of.keys()

    def _record(self, sql: Sql, by_place: dict[Place, set[int]], used: dict[Place, int]) -> None:
        """What finds room is counted apart from now on, the rest is (other) for good."""
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
        self._used |= used | sql.add_used(counts)
        self._apart |= taken

    def learn(self, deliveries: Iterable[tuple[int, Counted]]) -> None:
        """Look up decisions on values of stored deliveries: without one, a value is (other)."""
        alike = {(location, counted[5:]): counted for location, counted in deliveries}
        missing = {
            pair
            for (location, _), counted in alike.items()
            if (location, counted[5:]) not in self._looked_up
            for pair in _pairs_of(location, counted)
            if not self._is_known(*pair)
        }
        self._looked_up |= alike.keys()
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


def _pairs_of(location: int, counted: Counted) -> Iterable[Pair]:
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


decisions = Decisions()
