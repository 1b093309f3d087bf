"""How many deliveries a list has, by outcome and by category: as the counters know it.

A list shows what its filter keeps; beside it stand the choices of outcome and category that it
could show instead, each with its number, and each number is that of the list that it leads to.
"""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, replace

from django.db.models import Count

from dashboard.access import Rights, restrict
from dashboard.bounded import within
from dashboard.filters import Filter, Term
from dashboard.queries import deliveries_complete_from
from dashboard.rates import Counts
from dashboard.sources import count
from dashboard.tallies import Question
from dashboard.words import ATTEMPT_NAMES, MOVED
from ingest.models import Delivery
from ingest.vocabulary import NONE_KEY, Category, Outcome

COUNTING = 1.0  # seconds that it may take: a list without its numbers is better than none
IN_FLIGHT = "in_flight"
_BOTH = ("deferred", "accepted")  # outcomes of what is in flight

type _Cells = Counter[tuple[str, str]]
"""Deliveries by outcome, those in flight together or apart, and category."""


@dataclass(frozen=True)
class Choice:
    """An outcome or category to list: its filter without any other of its kind, and how many.

    ``count`` is ``None`` where counting took too long, or has no answer.
    """

    word: str
    filter: Filter
    count: int | None
    chosen: bool = False


@dataclass(frozen=True)
class Facets:
    """The number of a list's deliveries, and what else could be listed."""

    total: int | None
    outcomes: list[Choice]
    categories: list[Choice]


def facets(filter: Filter, rights: Rights) -> Facets:
    """Count what a filter of deliveries lists, by outcome and category."""
    cells = within(COUNTING, lambda: _cells(filter, rights))
    words = [*_OUTCOMES, *([MOVED] if _has_attempts(filter) else [])]
    return Facets(
        None if cells is None else _sum(cells, filter),
        [_choice(filter, cells, "outcome", word) for word in words],
        [_choice(filter, cells, "category", word) for word in _CATEGORIES],
    )


_OUTCOMES = (
    "delivered", "bounced", IN_FLIGHT, "suppressed", "rejected", "orphan", "unknown", "test",
)  # fmt: skip
_CATEGORIES = tuple(category.word for category in Category if category)


def _choice(filter: Filter, cells: _Cells | None, name: str, word: str) -> Choice:
    words = _BOTH if word == IN_FLIGHT else (word,)
    others = {term for term in filter.terms if term.name != name}
    wanted = others | {Term(name, each) for each in words}
    listed = replace(filter, terms=tuple(sorted(wanted)))
    number = None if cells is None or _asks_of_deferrals(listed) else _sum(cells, listed)
    return Choice(word, listed, number, set(words) <= set(filter.values(name)))


def _sum(cells: _Cells, filter: Filter) -> int:
    return sum(
        n
        for (outcome, category), n in cells.items()
        if _keeps(filter, "outcome", _BOTH if outcome == IN_FLIGHT else (outcome,))
        and _keeps(filter, "category", (category,))
    )


def _keeps(filter: Filter, name: str, words: Collection[str]) -> bool:
    """Whether the filter keeps a cell, all of it: it asks for both words of one or for none."""
    wanted, left_out = filter.values(name), filter.values(name, excluded=True)
    return (not wanted or set(words) <= set(wanted)) and not set(words) & set(left_out)


def _asks_of_deferrals(filter: Filter) -> bool:
    """Whether its categories are those of temporary failures, of which a mail may have several."""
    return filter.asks_of_deferrals and bool(filter.values("category"))


def _has_attempts(filter: Filter) -> bool:
    return any(filter.values(name) for name in ATTEMPT_NAMES)


# --- Cells ---------------------------------------------------------------------------------------


def _cells(filter: Filter, rights: Rights) -> _Cells | None:
    """``None`` where what is listed has no cells of its own."""
    if _asks_of_deferrals(filter):
        return None
    whole = filter.without("outcome").without("category")
    split = any(len({*filter.values("outcome", excluded=x)} & {*_BOTH}) == 1 for x in (True, False))
    if not split and "q" not in filter.names and filter.clock != "event":
        return _counted_cells(_kept(whole), rights)
    return None if _has_attempts(filter) else _grouped_cells(whole, rights)


def _kept(filter: Filter) -> Filter:
    """Of what is still kept: counters go back further than lists do."""
    since = deliveries_complete_from(filter)
    if since is None:
        return filter
    return replace(filter, range="", since=since, to=filter.until)


def _counted_cells(filter: Filter, rights: Rights) -> _Cells:
    tally, _ = count(Question(filter, rights, "category"))
    total = Counts(*tally.total)
    cells: _Cells = Counter()
    for category, counts in tally.counted().items():
        if category:
            cells["bounced", Category(category).word] = counts.bounced
            cells["suppressed", Category(category).word] = counts.suppressed
    for outcome in (*_OUTCOMES, MOVED):
        known = sum(n for (of, _), n in cells.items() if of == outcome)
        cells[outcome, NONE_KEY] = getattr(total, outcome) - known
    return cells


def _grouped_cells(filter: Filter, rights: Rights) -> _Cells:
    """The same from the deliveries themselves."""
    deliveries = restrict(filter.apply(Delivery.objects.all()), rights).order_by()
    grouped = deliveries.values_list("outcome", "category").annotate(n=Count("*"))
    return Counter(
        {
            (Outcome(outcome).word, Category(category).word if category else NONE_KEY): n
            for outcome, category, n in grouped
        }
    )
