"""What a page is made of: regions, each of which loads what it shows and renders one partial.

A region's markup exists once. At first paint ``{% region "totals" %}`` puts it into the page; while
the page is open ``Page.changes`` renders the same partial, and what differs from the last time is
sent for ``live.js`` to patch in place. The partial's root element therefore has the region's name
as its id, and ``hx-swap-oob="patch"``.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from types import MappingProxyType
from typing import Any, Self
from urllib.parse import urlencode

from django.template.loader import render_to_string
from django.utils import timezone

from dashboard.access import Rights
from dashboard.filters import Filter, FilterError
from dashboard.mutes import NOBODY, Viewer

type Load = Callable[["Asked"], Mapping[str, Any]]
type Options = Mapping[str, str]
type State = dict[str, Any]  # what a reader was sent last, by region

# What every page takes, so that links from one to another may carry it.
COMMON_PARAMS = {"compare": ("previous", "week")}
# Options that say where in a list its reader is: links to something else do not keep them.
PLACES = frozenset({"page", "before", "after", "mark"})


@dataclass(frozen=True, eq=False)
class Asked:
    """What a page is asked for, and by whom.

    ``filter`` is the whole filter, the page's own location or campaign included, whose name
    ``subject`` is; ``options`` are the page's own parameters (``sort``, ``page`` and so on), as
    they were given. ``viewer`` is what is its reader's own, on a page that shows such.
    """

    filter: Filter
    rights: Rights
    now: datetime
    options: Options = field(default_factory=dict)
    subject: str = ""
    viewer: Viewer = NOBODY
    _answers: dict[str, Any] = field(default_factory=dict)

    def once[Answer](self, name: str, ask: Callable[[], Answer]) -> Answer:
        """What ``ask`` answers, asked once for all the regions of a page."""
        if name not in self._answers:
            self._answers[name] = ask()
        found: Answer = self._answers[name]
        return found

    def at(self, now: datetime) -> Self:
        """The same at another moment, with nothing answered yet."""
        return replace(self, filter=self.filter.at(now), now=now, _answers={})

    def link(self, filter: Filter | None = None, **options: str | None) -> str:
        """A query string of this page: with another filter, other options; ``None`` drops one.

        The filter is the reader's own, without what the page itself asks for.
        """
        return self.link_of((filter or self.own).canonical(), **options)

    def link_of(self, query: str, **options: str | None) -> str:
        """The same, of a filter's query string."""
        kept = {name: text for name, text in {**self.kept, **options}.items() if text}
        return "?" + "&".join(part for part in (query, urlencode(kept)) if part)

    @property
    def kept(self) -> Options:
        """The options that links and forms of the page keep."""
        return {name: text for name, text in self.options.items() if name not in PLACES}

    @cached_property
    def own(self) -> Filter:
        """The filter without the page's own location or campaign: what its address says."""
        return self.filter.without(self.subject) if self.subject else self.filter

    def in_zone(self) -> AbstractContextManager[None]:
        """Templates rendered inside print their times in the filter's time zone."""
        return timezone.override(self.filter.zone)

    @cached_property
    def key(self) -> tuple[str, str, Rights, Viewer]:
        """Equal for readers to whom the same can be sent."""
        options = urlencode(sorted(self.options.items()))
        return self.filter.canonical(), options, self.rights, self.viewer


@dataclass(frozen=True)
class Region:
    """A part of a page. ``load`` gives its partial what it shows.

    It is loaded again at most every so many seconds.
    """

    name: str
    template: str
    load: Load
    every: float = 0.0

    def html(self, asked: Asked) -> str:
        """Its markup, for the first paint."""
        return self._render(self.template, asked, self.load(asked))

    def changes(self, asked: Asked, state: State) -> str:
        """Its markup, if it is not what was sent last."""
        return news(state, self.name, self.html(asked))

    def is_due(self, asked: Asked, state: State) -> bool:
        """Whether it is time to load it again; notes that it is loaded now."""
        last = state.get(f"{self.name} at")
        if last is not None and (asked.now - last).total_seconds() < self.every:
            return False
        state[f"{self.name} at"] = asked.now
        return True

    def _render(self, template: str, asked: Asked, context: Mapping[str, Any]) -> str:
        always = {"asked": asked, "now": asked.now, "zone": asked.filter.zone.key}
        return render_to_string(template, always | dict(context)).strip()


@dataclass(frozen=True)
class Rows(Region):
    """A region with a table: of that only the rows are sent that have changed.

    ``load`` gives ``rows``, each with an ``id``, which is its ``<tr>``'s, and equal as long as it
    looks the same. ``row`` is the partial of one (``row`` in its context), ``around`` that of what
    else changes, if any; ``body`` is the id of the ``<tbody>``.
    """

    body: str = ""
    row: str = ""
    around: str = ""

    def changes(self, asked: Asked, state: State) -> str:
        """The changed rows, in a table of their own: bare rows beside others do not parse."""
        context = self.load(asked)
        around = ""
        if self.around:
            around = news(state, f"{self.name}-around", self._render(self.around, asked, context))
        known = state.get(self.name, {})
        state[self.name] = rows = {row.id: row for row in context["rows"]}
        changed = [row for row in rows.values() if known.get(row.id) != row]
        html = "".join(self._render(self.row, asked, {"row": row}) for row in changed)
        if not html:
            return around
        return f'{around}<table hx-swap-oob="rows:#{self.body}"><tbody>{html}</tbody></table>'


@dataclass(frozen=True)
class Painted(Region):
    """A region that is painted with the page and then left alone: its reader is reading it."""

    def changes(self, asked: Asked, state: State) -> str:
        """None, ever."""
        return ""


def news(state: State, name: str, html: str) -> str:
    """``html``, unless it is what was sent last under this name."""
    if state.get(name) == html:
        return ""
    state[name] = html
    return html


@dataclass(frozen=True)
class Page:
    """A kind of page: its regions in the order in which they are sent.

    ``params`` are its own parameters beside the filter's, each with the values that it takes
    (none named: any); ``accepted`` are these and what every page takes. ``compares`` tells whether
    it shows what ``compare`` asks for, ``by_event`` whether it goes by the time of events whatever
    the clock, ``feed`` whether it shows the events as they arrive.
    """

    name: str
    regions: tuple[Region, ...]
    params: Mapping[str, tuple[str, ...]] = MappingProxyType({})
    default_range: str = "24h"
    feed: bool = True
    subject: str = ""  # the name of the filter whose one value it is about
    compares: bool = False
    by_event: bool = False
    personal: bool = False

    @property
    def accepted(self) -> Mapping[str, tuple[str, ...]]:
        """The parameters beside the filter's that its address may have."""
        return {**COMMON_PARAMS, **self.params}

    def ask(
        self, filter: Filter, rights: Rights, options: Options, viewer: Viewer = NOBODY
    ) -> Asked:
        """To ask this page for its whole filter. Raises ``FilterError`` without its subject."""
        if self.subject and len(filter.values(self.subject)) != 1:
            raise FilterError(f"The page is about one {self.subject}: name one.")
        return Asked(filter, rights, filter.now, options, self.subject, viewer)

    def options(self, params: Iterable[tuple[str, str]]) -> Options:
        """Its own parameters among those of a query string. Raises ``FilterError``."""
        accepted = self.accepted
        found = {name: text for name, text in params if name in accepted and text}
        for name, text in found.items():
            if accepted[name] and text not in accepted[name]:
                raise FilterError(f"{name} is one of {', '.join(accepted[name])}.")
        return found

    def region(self, name: str) -> Region:
        """Its region of this name. Raises ``LookupError``."""
        for region in self.regions:
            if region.name == name:
                return region
        raise LookupError(f"The page {self.name} has no region {name}.")

    def changes(self, asked: Asked, state: State) -> str:
        """What has changed since the last call with this ``state``; everything, if it is empty."""
        with asked.in_zone():
            due = [region for region in self.regions if region.is_due(asked, state)]
            return "".join(region.changes(asked, state) for region in due)
