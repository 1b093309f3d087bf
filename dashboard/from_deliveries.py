"""Rates counted from the deliveries: whatever the counters cannot answer, exactly.

The database groups deliveries by all that decides where and as what they count; so few thousand
groups stand for millions of them, and ``Sight`` says what each group adds to.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, NamedTuple

from django.db.models import Count, F, Q, QuerySet
from django.db.models.lookups import GreaterThan

from dashboard.access import restrict
from dashboard.capped import CountedApart, counted_apart
from dashboard.filters import Filter
from dashboard.sight import Alike, Sight, Words
from dashboard.spans import Quarter, Span, in_spans, step_of
from dashboard.tallies import (
    ATTEMPTS,
    BY_TIME,
    DIMENSIONS,
    PLACES,
    Question,
    Tally,
    add_at,
    ids_of,
)
from ingest.counted import Measures
from ingest.counted_values import CAPPED
from ingest.models import Delivery, tag_ids
from ingest.vocabulary import NONE_KEY, Category, Flag

_BASE = ("outcome", "flags", "bounce_class")
_WORDS = frozenset({"outcome", "class", "is"})
_REFUSALS = ("code", "category", "reason")  # of what was decided, like the words
_NO_TAGS = (0,)  # stands for the empty tag's id


def count_deliveries(
    question: Question, spans: Sequence[Span], tally: Tally, *, in_quarters: bool = True
) -> None:
    """Add the deliveries that were sent in any of these spans.

    Groups of time are quarters of an hour, unless these may be as long as the zone's hours or days.
    """
    if spans:
        count = DeliveryCount(question)
        if question.by in BY_TIME and not in_quarters:
            filter = question.filter
            count.step = step_of(question.by, filter.zone, filter.start, filter.end)
        count.add(spans, tally)


class _Kind(NamedTuple):
    """Deliveries that are alike, the measures they count for, and the row that a value is in."""

    alike: Alike
    whole: Measures
    row_of: Callable[[int], int]


class DeliveryCount:
    """One question on its way through the deliveries.

    ``words_apart``: what the filter says of how mail ended is told from the columns, not asked of
    the database.
    """

    def __init__(self, question: Question, *, words_apart: bool = False) -> None:
        self.question = question
        self.words_apart = words_apart or self.looks_at_attempts
        self.filter, self.by = question.filter, question.by
        self.dimension = DIMENSIONS.get(self.by)
        self.step = 1  # quarters of an hour that are one group of time

    # - What is asked of the database

    @cached_property
    def categories(self) -> frozenset[int] | None:
        """The categories whose refusals and deferrals to count apart; ``None``: no such view."""
        wanted = self.filter.values("category")
        if not wanted or not speaks_of_deferrals(self.filter):
            return None
        return frozenset(ids_of("category", wanted))

    @property
    def splits_categories(self) -> bool:
        """Whether a row counts final refusals of a category, and deferrals by it."""
        return self.by == "category" and speaks_of_deferrals(self.filter)

    @property
    def looks_at_attempts(self) -> bool:
        """Whether what counts depends on the attempt that it is looked at from."""
        return self.question.by in ATTEMPTS or bool(self.question.filter.names & ATTEMPTS.keys())

    def deliveries(self, spans: Sequence[Span]) -> QuerySet[Delivery]:
        """What may count anything."""
        left_out = set()
        if self.words_apart:
            left_out |= {(name, excluded) for name in _WORDS for excluded in (False, True)}
            left_out |= {(name, True) for name in _REFUSALS}
        if self.categories is not None:
            left_out.add(("category", False))
        if self.by in ATTEMPTS:
            left_out.add((self.by, False))
        kept = [t for t in self.filter.terms if (t.name, t.excluded) not in left_out]
        asked = replace(self.filter, terms=tuple(kept), range="", since=None, to=None)
        found = restrict(asked.apply(Delivery.objects.all()), self.question.rights)
        if self.categories is not None:
            found = found.filter(_refused_by(self.categories))
        if self.by in ATTEMPTS and (wanted := self.filter.values(self.by)):
            found = found.filter(_tried(self.by, ids_of(self.by, wanted)))
        return found.filter(in_spans(spans))

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The columns, beside the key and ``_BASE``, that decide what deliveries count for."""
        wanted: list[str] = []
        if self.looks_at_attempts:
            looked_at = self.question.filter.names | {self.question.by}
            wanted += [f"{name}_id" for name in ATTEMPTS if name in looked_at] + ["ways"]
        if self.excludes_refusals:
            wanted += ["code", "reason_id", "category"]
        if self.looks_at_attempts or self.categories is not None or self.splits_categories:
            wanted += ["category", "ways"]
        return tuple(dict.fromkeys(wanted))

    @cached_property
    def excludes_refusals(self) -> dict[str, frozenset[int]]:
        """Excluded codes, categories and reasons as the columns hold them, 0 for none."""
        if not self.words_apart:
            return {}
        found = {name: self.filter.values(name, excluded=True) for name in _REFUSALS}
        return {
            name: frozenset(map(_NUMBER[name], values)) for name, values in found.items() if values
        }

    @cached_property
    def sight(self) -> Sight:
        """What the whole filter looks at; rows narrow it."""
        attempts = tuple(
            (dimension, frozenset(ids_of(name, wanted)))
            for name, dimension in ATTEMPTS.items()
            if (wanted := self.filter.values(name))
        )
        words = Words()
        if self.words_apart:
            words = Words.of(self._values(excluded=False), self._values(excluded=True))
        return Sight(words, attempts, self.categories)

    def _values(self, *, excluded: bool) -> dict[str, tuple[str, ...]]:
        names = (*_WORDS, *_REFUSALS)
        return {name: self.filter.values(name, excluded=excluded) for name in names}

    # - Counting

    @cached_property
    def row_columns(self) -> tuple[str, ...]:
        """What ``add_group`` needs to know of deliveries that are alike."""
        place = ("location_id",) if self.capped else ()
        return ("key", *_BASE, *self.columns, *place)

    @property
    def key(self) -> Any:
        """The column (or expression) that is their key."""
        return _key(self.by, self.step)

    def add(self, spans: Sequence[Span], tally: Tally) -> None:
        """Add what was sent in the spans."""
        columns = self.row_columns[1:]
        kinds: dict[tuple[Any, ...], _Kind] = {}
        grouped = self.deliveries(spans).order_by().values_list(self.key, *columns)
        for key, *row, n in grouped.annotate(n=Count("pk")):
            known = tuple(row)
            if (kind := kinds.get(known)) is None:
                kind = kinds[known] = self._kind(dict(zip(columns, known, strict=True)))
            self._add(tally, key, kind, n)

    def add_group(self, tally: Tally, known: dict[str, Any], n: int) -> None:
        """Add deliveries that are alike: their ``row_columns``."""
        self._add(tally, known["key"], self._kind(known), n)

    def _kind(self, known: dict[str, Any]) -> "_Kind":
        alike = self._alike(known)
        place = self.capped.get(known.get("location_id", 0))
        return _Kind(alike, self.sight.measures(alike), place.row_of if place else int)

    def _alike(self, known: dict[str, Any]) -> Alike:
        alike = {name: known[name] for name in (*_BASE, "category", "ways") if name in known}
        alike |= {name: known[f"{name}_id"] for name in ATTEMPTS if f"{name}_id" in known}
        refused = any(
            (known["reason_id" if name == "reason" else name] or 0) in values
            for name, values in self.excludes_refusals.items()
        )
        return Alike(**alike, refused=refused)

    def _add(self, tally: Tally, key: Any, kind: "_Kind", n: int) -> None:
        alike, whole, row_of = kind
        add_at(tally.total, whole, n)
        if self.by in ATTEMPTS:
            self._add_attempts(tally, alike, n, row_of)
        elif self.splits_categories:
            self._add_categories(tally, alike, n)
        elif self.by == "tag":
            for tag in {row_of(tag) for tag in tag_ids(key) or _NO_TAGS}:
                self._add_row(tally, tag, whole, n)
        else:
            self._add_row(tally, row_of(key), whole, n)

    def _add_row(self, tally: Tally, key: int, positions: Iterable[int], n: int) -> None:
        shown = self.question.shown
        if shown is None or key in shown:
            add_at(tally.groups[key], positions, n)

    def _add_attempts(
        self, tally: Tally, alike: Alike, n: int, row_of: Callable[[int], int]
    ) -> None:
        assert self.dimension is not None  # noqa: S101 - by is an attempt's
        behind: dict[int, set[int]] = defaultdict(set)
        for value in alike.tried(self.dimension):
            behind[row_of(value)].add(value)
        sight = self.sight.without(self.dimension)
        for key, values in behind.items():
            narrowed = sight.through(self.dimension, frozenset(values))
            self._add_row(tally, key, narrowed.measures(alike), n)

    def _add_categories(self, tally: Tally, alike: Alike, n: int) -> None:
        for category in alike.refusals():
            positions = self.sight.of_category(category).measures(alike)
            self._add_row(tally, category, positions, n)

    @cached_property
    def capped(self) -> dict[int, CountedApart]:
        """By location: what is counted apart there, where not everything is."""
        if self.dimension is None or self.dimension not in CAPPED:
            return {}
        return counted_apart(self.dimension, self.question.locations)


def speaks_of_deferrals(filter: Filter) -> bool:
    """Whether a category also stands for the temporary failures of mail that it put off.

    As soon as a filter says how the mail ended, its category is that of the final refusal.
    """
    ended = filter.values("outcome") or filter.values("class")
    return not ended and set(filter.values("is")) <= {"deferred"}


def _refused_by(categories: Collection[int]) -> Q:
    put_off = ~Q(ways__contains=",c") if 0 in categories else Q(pk__in=[])
    for category in categories:
        put_off |= Q(ways__contains=f",c{category},")
    deferred = Q(GreaterThan(F("flags").bitand(Flag.DEFERRED), 0))
    return Q(category__in=categories) | (deferred & put_off)


def _tried(name: str, values: Iterable[int]) -> Q:
    letter = {"ip": "i", "pool": "p", "mx": "m"}[name]
    condition = Q(pk__in=[])
    for value in values:
        condition |= Q(**{f"{name}_id": value}) | Q(ways__contains=f",a{letter}{value},")
    return condition


_NUMBER = {
    "code": lambda value: 0 if value == NONE_KEY else int(value),
    "category": lambda value: 0 if value == NONE_KEY else int(Category.from_word(value)),
    "reason": lambda value: 0 if value == NONE_KEY else int(value),
}


def _key(by: str, step: int) -> Any:
    """The column that tells the groups apart; attempts are told apart by what decides."""
    if by in BY_TIME:
        return Quarter("sent_at", step)
    if by in PLACES:
        return "location_id"
    return {"tag": "tags", "category": "category"}.get(by, f"{by}_id")
