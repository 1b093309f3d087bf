"""Where a delivery counts, and as what: the counter rows that it adds to. Pure.

A function of the stored columns alone, so that counting the deliveries again needs nothing else.
"""

from collections.abc import Callable, Iterable
from functools import cache, lru_cache
from struct import Struct
from typing import NamedTuple

from ingest.fold import counted_measures
from ingest.vocabulary import MEASURES, Dimension, Flag

type Measures = tuple[int, ...]
"""Positions in ``MEASURES`` that a delivery adds 1 to."""
type Places = dict[tuple[int, int], Measures]
"""By (dimension, value id); of ``Dimension.CATEGORY`` the value is the category's number."""


class Counted(NamedTuple):
    """The columns of a delivery that say where it counts; ids are those of values."""

    outcome: int
    flags: int
    bounce_class: int
    category: int
    hour: int  # since 1970, UTC
    campaign: int
    step: int
    provider: int
    domain: int
    sending_domain: int
    ip: int
    pool: int
    tags: str  # ",12,45,"
    ways: str  # ",ai12,c5,di30,": see ``write_ways``

    @property
    def measures(self) -> Measures:
        """What it adds to every row that counts it whole."""
        return counted_measures(self.outcome, self.flags, self.bounce_class)


_SENT, _DEFERRED, _MOVED = (MEASURES.index(name) for name in ("sent", "deferred", "moved"))
_DEFERRED_FLAG = int(Flag.DEFERRED)
LETTERS = {Dimension.IP: "i", Dimension.POOL: "p", Dimension.MX: "m"}


@lru_cache(4_096)
def ids_in(column: str) -> tuple[int, ...]:
    """The ids in a column of ids: ``",12,45,"`` → ``(12, 45)``."""
    return tuple(int(pk) for pk in column.split(",") if pk)


def write_ways(
    tried: Iterable[tuple[Dimension, int]],
    deferred: Iterable[tuple[Dimension, int]],
    categories: Iterable[int],
) -> str:
    """The ``ways`` column: what the attempts beside the decisive one went through.

    ``ai12``: IP 12 tried too (``ap`` a pool, ``am`` an MX); ``di12``: a temporary failure came
    from IP 12, written only where those are others than the decisive one; ``c5``: category 5 is
    among the temporary failures.
    """
    tokens = {f"a{LETTERS[dimension]}{pk}" for dimension, pk in tried}
    tokens |= {f"d{LETTERS[dimension]}{pk}" for dimension, pk in deferred}
    tokens |= {f"c{category}" for category in categories}
    return "," + "".join(f"{token}," for token in sorted(tokens))


def read_ways(ways: str, mark: str) -> list[int]:
    """The ids behind a mark: ``read_ways(",ai12,c5,", "ai")`` → ``[12]``."""
    return [int(t[len(mark) :]) for t in ways.split(",") if t.startswith(mark)]


def places(counted: Counted, no_tag: int) -> Places:
    """Every row that a delivery adds to, beside its location's. ``no_tag``: the empty tag's id."""
    whole = counted.measures
    found: Places = {(Dimension.TAG, tag): whole for tag in ids_in(counted.tags) or (no_tag,)}
    found[Dimension.CAMPAIGN, counted.campaign] = whole
    found[Dimension.STEP, counted.step] = whole
    found[Dimension.PROVIDER, counted.provider] = whole
    found[Dimension.DOMAIN, counted.domain] = whole
    found[Dimension.SENDING_DOMAIN, counted.sending_domain] = whole
    if counted.ways == ",":
        found[Dimension.IP, counted.ip] = found[Dimension.POOL, counted.pool] = whole
    else:
        _place_attempts(found, Dimension.IP, counted.ip, counted)
        _place_attempts(found, Dimension.POOL, counted.pool, counted)
    if counted.category or counted.ways != ",":
        _place_categories(found, counted)
    return found


def _place_attempts(found: Places, dimension: Dimension, decisive: int, counted: Counted) -> None:
    """Sent in each value that tried; all else where it was decided, deferrals where they were."""
    whole, letter = counted.measures, LETTERS[dimension]
    deferring = read_ways(counted.ways, "d" + letter)
    there = not deferring or decisive in deferring
    found[dimension, decisive] = whole if there else without_deferral(whole)
    for value in read_ways(counted.ways, "a" + letter):
        deferred = value in deferring and counted.flags & _DEFERRED_FLAG
        found[dimension, value] = moved(whole, deferred=bool(deferred))


def _place_categories(found: Places, counted: Counted) -> None:
    """Bounced counts the final failure's category, deferred those of the temporary ones."""
    if counted.category:
        found[Dimension.CATEGORY, counted.category] = without_deferral(counted.measures)
    if counted.flags & _DEFERRED_FLAG:
        for category in read_ways(counted.ways, "c"):
            final = found.get((Dimension.CATEGORY, category), ())
            found[Dimension.CATEGORY, category] = with_deferral(final)


@cache
def without_deferral(measures: Measures) -> Measures:
    """All but ``deferred``."""
    return tuple(i for i in measures if i != _DEFERRED)


@cache
def with_deferral(measures: Measures) -> Measures:
    """And ``deferred``."""
    return tuple(sorted({*measures, _DEFERRED}))


@cache
def moved(measures: Measures, *, deferred: bool) -> Measures:
    """What is counted where a delivery was tried and then settled elsewhere."""
    if _SENT not in measures:
        return ()
    return tuple(sorted({_SENT, _MOVED, *([_DEFERRED] if deferred else [])}))


@cache
def packed(measures: Measures) -> int:
    """Measures as a number in which each has 32 bits: one addition then adds up all of them."""
    return sum(1 << (_BITS * position) for position in measures)


@cache
def difference(before: Measures, after: Measures) -> int:
    """What a change adds to a row, as ``packed``; it takes away what is no longer there."""
    return packed(after) - packed(before)


def unpacked(number: int) -> tuple[int, ...]:
    """The count of each of ``MEASURES`` in a sum of packed ones, below zero where it fell."""
    # Half of its range added to each, none is negative and borrows from the next one.
    return _COUNTS.unpack(((number + _HALVES) ^ _HALVES).to_bytes(_COUNTS.size, "little"))


_BITS = 32
_COUNTS = Struct(f"<{len(MEASURES)}i")
_HALVES = sum(1 << (_BITS * position + _BITS - 1) for position in range(len(MEASURES)))


def capped(counted: Counted, counted_as: Callable[[Dimension, int], int]) -> Counted:
    """With every value that is not counted apart in the location put under ``(other)``."""

    def tokens(mark: str, dimension: Dimension, decisive: int) -> set[int]:
        values = {counted_as(dimension, pk) for pk in read_ways(counted.ways, mark)}
        return values - {decisive} if mark[0] == "a" else values

    ip = counted_as(Dimension.IP, counted.ip)
    pool = counted_as(Dimension.POOL, counted.pool)
    tags = sorted({counted_as(Dimension.TAG, tag) for tag in ids_in(counted.tags)})
    ways = write_ways(
        [(d, pk) for d, v in ((Dimension.IP, ip), (Dimension.POOL, pool))
         for pk in tokens("a" + LETTERS[d], d, v)],
        [(d, pk) for d, v in ((Dimension.IP, ip), (Dimension.POOL, pool))
         for pk in tokens("d" + LETTERS[d], d, v)],
        read_ways(counted.ways, "c"),
    )  # fmt: skip
    return counted._replace(
        campaign=counted_as(Dimension.CAMPAIGN, counted.campaign),
        step=counted_as(Dimension.STEP, counted.step),
        provider=counted_as(Dimension.PROVIDER, counted.provider),
        domain=counted_as(Dimension.DOMAIN, counted.domain),
        sending_domain=counted_as(Dimension.SENDING_DOMAIN, counted.sending_domain),
        ip=ip,
        pool=pool,
        tags="," + "".join(f"{tag}," for tag in tags),
        ways=ways,
    )
