"""What deliveries count for where a row looks at part of their attempts or refusals. Pure.

A row of an IP, a pool or an MX counts what was decided there; of mail that tried it and was
settled elsewhere, only that it was ``sent`` and ``moved``. A row of a category counts the mail
that it finally refused, and under ``deferred`` the mail that it put off. A filter by one of these
counts as its row does, so that each number has a filter that lists it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from ingest.counted import LETTERS, Measures, moved, read_ways, with_deferral, without_deferral
from ingest.fold import counted_measures
from ingest.vocabulary import BounceClass, Dimension, Flag, Outcome

MOVED = "moved"  # an outcome beside ``Outcome``: tried here, settled elsewhere
SENT_WORDS = frozenset({"delivered", "bounced", "deferred", "accepted"})
_DEFERRED = int(Flag.DEFERRED)
_FLAGS = {flag.name.lower(): int(flag) for flag in Flag if flag.name}
_CLASSES = {BounceClass.HARD: "hard", BounceClass.SOFT: "soft", BounceClass.BLOCK: "block"}


_ATTEMPTS = (Dimension.IP, Dimension.POOL, Dimension.MX)


class Alike(NamedTuple):
    """What deliveries share that are counted together."""

    outcome: int
    flags: int
    bounce_class: int
    category: int = 0
    ip: int = 0
    pool: int = 0
    mx: int = 0
    ways: str = ","
    refused: bool = False  # by an excluded code, category or reason

    def through(self, dimension: Dimension) -> int:
        """The value of an attempt's dimension where the delivery was decided."""
        return (self.ip, self.pool, self.mx)[_ATTEMPTS.index(dimension)]

    def tried(self, dimension: Dimension) -> list[int]:
        """All the values that it tried."""
        return [self.through(dimension), *read_ways(self.ways, "a" + LETTERS[dimension])]

    def refusals(self) -> set[int]:
        """The categories that it was finally refused or put off for."""
        found = set(read_ways(self.ways, "c")) if self.flags & _DEFERRED else set()
        return found | {self.category} - {0}

    def put_off_at(self, dimension: Dimension) -> list[int]:
        """Where its temporary failures came from, if it had any."""
        return read_ways(self.ways, "d" + LETTERS[dimension]) or [self.through(dimension)]


type _Terms = Mapping[str, Iterable[str]]


@dataclass(frozen=True)
class Words:
    """A filter's terms on how it ended: any of the wanted, none of the excluded."""

    outcomes: frozenset[str] = frozenset()
    not_outcomes: frozenset[str] = frozenset()
    classes: frozenset[str] = frozenset()
    not_classes: frozenset[str] = frozenset()
    flags: int = 0
    not_flags: int = 0
    only_decided: bool = False  # a category, code or reason is asked for

    @classmethod
    def of(
        cls, wanted: Mapping[str, Iterable[str]], excluded: Mapping[str, Iterable[str]]
    ) -> "Words":
        """The words by their names: "outcome", "class" and "is"."""
        return cls(
            outcomes=frozenset(wanted.get("outcome", ())),
            not_outcomes=frozenset(excluded.get("outcome", ())),
            classes=frozenset(wanted.get("class", ())),
            not_classes=frozenset(excluded.get("class", ())),
            flags=sum(_FLAGS[word] for word in wanted.get("is", ())),
            not_flags=sum(_FLAGS[word] for word in excluded.get("is", ())),
            only_decided=any(wanted.get(name) for name in ("category", "code", "reason")),
        )

    def keep(self, alike: Alike, *, decided: bool, deferred: bool) -> bool:
        """Whether deliveries match that were decided here, or deferred here, or neither."""
        if alike.refused and decided:
            return False
        if self.outcomes and not self._has_outcome(self.outcomes, alike, decided):
            return False
        if self.not_outcomes and self._has_outcome(self.not_outcomes, alike, decided):
            return False
        ended = class_of(alike.outcome, alike.bounce_class)
        if self.classes and not (decided and ended in self.classes):
            return False
        if decided and ended in self.not_classes:
            return False
        if self.flags and not _has_flag(self.flags, alike.flags, decided, deferred):
            return False
        return not _has_flag(self.not_flags, alike.flags, decided, deferred)

    @staticmethod
    def _has_outcome(words: frozenset[str], alike: Alike, decided: bool) -> bool:
        if decided:
            return Outcome(alike.outcome).word in words
        return MOVED in words or words >= SENT_WORDS


def _has_flag(wanted: int, flags: int, decided: bool, deferred: bool) -> bool:
    found = wanted & flags
    return bool((decided and found & ~_DEFERRED) or (deferred and found & _DEFERRED))


def class_of(outcome: int, bounce_class: int) -> str:
    """The word for whose problem a refusal was, as filters know it."""
    if outcome == Outcome.BOUNCED:
        return _CLASSES.get(BounceClass(bounce_class), "undetermined")
    return "suppressed" if outcome == Outcome.SUPPRESSED else "(none)"


@dataclass(frozen=True)
class Sight:
    """Which values of which attempts, and which categories, a row looks at.

    ``categories`` is ``None`` where the row counts refusals of any category alike.
    """

    words: Words = Words()
    attempts: tuple[tuple[Dimension, frozenset[int]], ...] = ()
    categories: frozenset[int] | None = None

    def through(self, dimension: Dimension, values: frozenset[int]) -> "Sight":
        """Narrowed to attempts through any of these values of a dimension."""
        return Sight(self.words, (*self.attempts, (dimension, values)), self.categories)

    def without(self, dimension: Dimension) -> "Sight":
        """Looking at attempts through any value of a dimension."""
        kept = tuple(attempt for attempt in self.attempts if attempt[0] != dimension)
        return Sight(self.words, kept, self.categories)

    def of_category(self, category: int) -> "Sight":
        """Narrowed to one category."""
        return Sight(self.words, self.attempts, frozenset({category}))

    def measures(self, alike: Alike) -> Measures:
        """Positions of the measures that each of these deliveries adds 1 to; none: not a match."""
        decided = all(alike.through(d) in values for d, values in self.attempts)
        put_off = alike.flags & _DEFERRED and all(
            not values.isdisjoint(alike.put_off_at(d)) for d, values in self.attempts
        )
        if not self.words.keep(alike, decided=decided, deferred=bool(put_off)):
            return ()
        whole = counted_measures(alike.outcome, alike.flags, alike.bounce_class)
        kept = without_deferral(whole) if decided else self._moved(whole)
        if self.categories is not None:
            if not decided or alike.category not in self.categories:
                kept = ()
            put_off = put_off and self._put_off_by(alike)
        return with_deferral(kept) if put_off and (kept or self.categories is not None) else kept

    def _moved(self, whole: Measures) -> Measures:
        return () if self.words.only_decided else moved(whole, deferred=False)

    def _put_off_by(self, alike: Alike) -> bool:
        assert self.categories is not None  # noqa: S101 - who asks knows
        return not self.categories.isdisjoint(read_ways(alike.ways, "c") or [0])
