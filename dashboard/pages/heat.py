"""Bounces by mailbox provider and category: a table whose cells are shaded by their numbers."""

from collections import Counter
from math import sqrt
from typing import Any, NamedTuple

from django.db.models import Count

from dashboard.failing import list_url
from dashboard.filters import Filter, FilterError
from dashboard.names import CATEGORY_WORDS, name_of
from dashboard.pages.later import Later
from dashboard.pages.page import Asked
from dashboard.pages.subject import mail_of, whole_of
from dashboard.queries import UNNAMED, names_of
from ingest.vocabulary import NONE_KEY, Category

PROVIDERS, CATEGORIES = 10, 8  # in full; what is past them is added up
SHADES = 5
AT_ONCE = 100_000  # mails: the bounces of so many are counted while the page is painted
_ALL_OTHERS = -1

type Cells = dict[tuple[int, int], int]
"""Bounces by provider and category."""


class Cell(NamedTuple):
    """A number, how dark it is (0 to ``SHADES``), and its list."""

    n: int
    shade: int
    url: str


class Line(NamedTuple):
    """A provider's row."""

    name: str
    url: str
    cells: list[Cell]
    total: Cell


def _load(asked: Asked) -> dict[str, Any]:
    mail = mail_of(asked, "bounced")
    if mail is None:
        return {"none": "The filter leaves no bounces."}
    bounced, found = mail
    rows = found.values_list("provider_id", "category").annotate(n=Count("pk"))
    cells: Cells = {(provider, category): n for provider, category, n in rows}
    if not cells:
        return {"none": "Nothing bounced in this range."}
    return _shown(asked, bounced, cells)


def _shown(asked: Asked, bounced: Filter, cells: Cells) -> dict[str, Any]:
    by_provider, by_category = Counter[int](), Counter[int]()
    for (provider, category), n in cells.items():
        by_provider[provider] += n
        by_category[category] += n
    providers = [pk for pk, _ in by_provider.most_common(PROVIDERS)]
    categories = [number for number, _ in by_category.most_common(CATEGORIES)]
    joined = _joined(cells, providers, categories)
    named = names_of(providers)
    keys = {pk: named.get(pk, UNNAMED).text or NONE_KEY for pk in providers}
    heads = [*categories, *([_ALL_OTHERS] if len(by_category) > CATEGORIES else [])]
    lines = [*providers, *([_ALL_OTHERS] if len(by_provider) > PROVIDERS else [])]
    top = max(joined.values())

    def cell(provider: int, category: int) -> Cell:
        n = joined[provider, category]
        shade = 0 if not n else max(1, round(SHADES * sqrt(n / top)))
        return Cell(n, shade, _url(bounced, keys.get(provider), category) if n else "")

    return {
        "heads": [_category(number) for number in heads],
        "lines": [
            Line(
                name_of("provider", keys[pk], named.get(pk, UNNAMED).label)
                if pk in keys
                else "All others",
                _url(bounced, keys.get(pk), None),
                [cell(pk, category) for category in heads],
                Cell(
                    sum(joined[pk, category] for category in heads),
                    0,
                    _url(bounced, keys.get(pk), None),
                ),
            )
            for pk in lines
        ],
    }


def _joined(cells: Cells, providers: list[int], categories: list[int]) -> Counter[tuple[int, int]]:
    """With what is not shown in full added up under ``_ALL_OTHERS``."""
    joined = Counter[tuple[int, int]]()
    for (provider, category), n in cells.items():
        joined[
            provider if provider in providers else _ALL_OTHERS,
            category if category in categories else _ALL_OTHERS,
        ] += n
    return joined


def _category(number: int) -> str:
    return "all other reasons" if number == _ALL_OTHERS else CATEGORY_WORDS[Category(number)]


def _url(bounced: Filter, provider: str | None, category: int | None) -> str:
    """The list of a cell; "" for a cell of several values."""
    if provider is None or category == _ALL_OTHERS:
        return ""
    try:
        filter = bounced.with_("provider", provider)
        if category is not None:
            filter = filter.with_("category", Category(category).word if category else NONE_KEY)
    except FilterError:
        return ""
    return list_url(filter)


def _is_quick(asked: Asked) -> bool:
    return whole_of(asked).counts.sent <= AT_ONCE


HEAT = Later("heat", "dashboard/location/_heat.html", _load, every=30, is_quick=_is_quick)
