"""Which values are counted apart in which location: decisions recorded once, for all writers.

A location counts the first ``MOST_VALUES`` values of a dimension apart; what comes later is
counted in ``(other)``. A value that explodes (a tag a message) costs no more rows than that.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from functools import partial

from ingest.counted import LETTERS, Counted, capped, ids_in, read_ways
from ingest.models import CountedValue
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
        # Values by location: all whose decision is known, and those of them in (other).
        self._known: dict[int, set[int]] = defaultdict(set)
        self._other: dict[int, set[int]] = defaultdict(set)
        self._size = 0  # of what is known, at most
        self._undecided: frozenset[int] = frozenset()  # the empty values and (other) itself
        self._other_ids: dict[int, int] = {}

    def clear(self) -> None:
        """Forget everything: another database is behind the connection."""
        self._known.clear()
        self._other.clear()
        self._size = 0

    def exempt(self, empty: Iterable[int], other: dict[int, int]) -> None:
        """Name the values that need no decision: the empty ones, and (other) by dimension."""
        self._undecided = frozenset(empty) | frozenset(other.values())
        self._other_ids = other

    def undecided(self, wanted: Iterable[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
        """What of (location, dimension, value) is new to this process."""
        return [w for w in wanted if not self._is_known(w[0], w[2])]

    def decide(self, sql: Sql, new: Collection[tuple[int, int, int]]) -> None:
        """Record decisions on what may be new, in the present transaction.

        The places' rows are locked first, in their order: nobody else decides there until the
        commit. Whoever calls clears what is known if the transaction fails.
        """
        if not new:
            return
        if self._size > self.most:
            self.clear()
        by_place: dict[Place, set[int]] = defaultdict(set)
        for location, dimension, value in new:
            by_place[location, dimension].add(value)
        used = sql.add_used([(*place, 0) for place in sorted(by_place)])
        tight = [p for p, values in by_place.items() if used[p] + len(values) > self.limit]
        self._read({(place[0], value) for place in tight for value in by_place[place]})
        taken: dict[Pair, Place] = {}
        for place, values in by_place.items():
            location, room = place[0], max(0, self.limit - used[place])
            unknown = sorted(values - self._known[location])
            taken |= {(location, value): place for value in unknown[:room]}
            self._other[location].update(unknown[room:])
            self._remember((location, value) for value in unknown)
        made = Counter(taken[pair] for pair in sql.add_counted_values(sorted(taken)))
        sql.add_used([(*place, n) for place, n in sorted(made.items())])

    def learn(self, deliveries: Iterable[tuple[int, Counted]]) -> None:
        """Look up decisions on values of stored deliveries: without one, a value is (other)."""
        missing = {
            (location, value)
            for location, counted in deliveries
            for value in _values_of(counted) - self._known[location]
            if value not in self._undecided
        }
        if missing:
            self._read(missing)
            for location, value in missing:
                if value not in self._known[location]:
                    self._other[location].add(value)
            self._remember(missing)

    def _read(self, pairs: set[Pair]) -> None:
        if not pairs:
            return
        stored = CountedValue.objects.filter(
            location_id__in={location for location, _ in pairs},
            value_id__in={value for _, value in pairs},
        )
        self._remember(pairs.intersection(stored.values_list("location_id", "value_id")))

    def _remember(self, pairs: Iterable[Pair]) -> None:
        for location, value in pairs:
            self._known[location].add(value)
            self._size += 1

    def _is_known(self, location: int, value: int) -> bool:
        return value in self._known[location] or value in self._undecided

    def cap(self, location: int, counted: Counted) -> Counted:
        """With what is not counted apart put under ``(other)``. Decisions must be known."""
        if not self._other.get(location):
            return counted
        return capped(counted, partial(self._counted_as, location))

    def _counted_as(self, location: int, dimension: Dimension, value: int) -> int:
        return self._other_ids[dimension] if value in self._other[location] else value


def _values_of(counted: Counted) -> set[int]:
    """Every value that a delivery may be counted under."""
    values = {*counted[5:12], *ids_in(counted.tags)}
    if counted.ways != ",":
        for dimension in (Dimension.IP, Dimension.POOL):
            for mark in ("a", "d"):
                values.update(read_ways(counted.ways, mark + LETTERS[dimension]))
    return values


decisions = Decisions()
