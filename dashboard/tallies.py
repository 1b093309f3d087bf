"""What rates are asked of, and what was counted for it, before it has names and an order."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property

from dashboard.access import Rights
from dashboard.conditions import campaign_ids, value_ids
from dashboard.filters import Filter
from dashboard.rates import Counts
from ingest.vocabulary import FLEET, MEASURES, NONE_KEY, Category, Dimension

REST_KEY = "(rest)"  # the row of all that is past the limit
PLACES = ("location", "company")
BY_TIME = ("hour", "day")
DIMENSIONS = {
    "campaign": Dimension.CAMPAIGN,
    "step": Dimension.STEP,
    "tag": Dimension.TAG,
    "provider": Dimension.PROVIDER,
    "domain": Dimension.DOMAIN,
    "sending_domain": Dimension.SENDING_DOMAIN,
    "ip": Dimension.IP,
    "pool": Dimension.POOL,
    "category": Dimension.CATEGORY,
}
BY = (*PLACES, *DIMENSIONS, *BY_TIME)
ATTEMPTS = {"ip": Dimension.IP, "pool": Dimension.POOL, "mx": Dimension.MX}
# A delivery can be in several rows of these: rows add up to more than the total.
OVERLAPPING = frozenset({"tag", "ip", "pool", "category"})


@dataclass(frozen=True, eq=False)
class Question:
    """A filter, who asks, and what to group by."""

    filter: Filter
    rights: Rights
    by: str

    @cached_property
    def locations(self) -> frozenset[int] | None:
        """Primary keys of the locations asked of; ``None``: the whole fleet."""
        return self.filter.location_ids(self.rights)

    @property
    def start(self) -> datetime | None:
        """The first moment that is in."""
        return self.filter.start

    @property
    def until(self) -> datetime | None:
        """The first moment that is out."""
        return self.filter.until

    @property
    def names(self) -> frozenset[str]:
        """What its terms speak of, beside locations."""
        return self.filter.names - set(PLACES)

    @cached_property
    def shown(self) -> frozenset[int] | None:
        """Ids of the only rows to show: of the values asked for, if any are; ``None``: all.

        A mail of two tags that was asked for by one would be in a row of the other that no
        filter lists.
        """
        if self.by not in OVERLAPPING or not (asked := self.filter.values(self.by)):
            return None
        return frozenset(ids_of(self.by, asked))

    def has_fleet_rows(self) -> bool:
        """Whether location 0 holds the answer: the whole fleet, by few values or by none."""
        if self.locations is not None or self.by in PLACES:
            return False
        named = {DIMENSIONS.get(name) for name in (*self.names, self.by) if name not in BY_TIME}
        return named <= FLEET


def ids_of(name: str, keys: Sequence[str]) -> list[int]:
    """Ids of the values with these keys in filters; of categories, their numbers."""
    if name == "category":
        return [0 if key == NONE_KEY else int(Category.from_word(key)) for key in keys]
    if name == "campaign":
        return campaign_ids(keys)
    return value_ids(DIMENSIONS.get(name) or ATTEMPTS[name], keys)


@dataclass(frozen=True)
class Leading:
    """Only the first groups are shown, of the others their sum: what tells which these are.

    ``first`` is given measures by group, of which only those named in ``measures`` (and ``sent``)
    are known, the others 0. It answers with the groups that have to be counted.
    """

    measures: tuple[str, ...]
    first: Callable[[Mapping[int, Sequence[int]]], Sequence[int]]


@dataclass
class Tally:
    """Measures by group, and in all: each delivery once in ``total``.

    ``led``: only the first groups are there, and all of ``total``.
    """

    groups: dict[int, list[int]] = field(default_factory=lambda: defaultdict(_nothing))
    total: list[int] = field(default_factory=lambda: _nothing())
    led: bool = False

    def add(self, key: int, measures: Sequence[int]) -> None:
        """Add measures to a group, not to the total."""
        add(self.groups[key], measures)

    def counted(self) -> dict[int, Counts]:
        """The groups that counted anything."""
        return {key: Counts(*measures) for key, measures in self.groups.items() if any(measures)}


def _nothing() -> list[int]:
    return [0] * len(MEASURES)


def add(measures: list[int], more: Sequence[int]) -> None:
    """Add to measures in place."""
    measures[:] = map(int.__add__, measures, more)


def add_at(measures: list[int], positions: Iterable[int], n: int) -> None:
    """Add ``n`` to the measures at these positions, in place."""
    for i in positions:
        measures[i] += n
