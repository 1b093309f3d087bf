"""The overview's table: all locations by their way to a stop, a page of them in full."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from dashboard import failing
from dashboard.filters import Filter, FilterError, Term
from dashboard.fleet import Place, State, Way
from dashboard.lists import list_filter
from dashboard.names import CATEGORY_WORDS, page_url, row_id
from dashboard.pages.needed import fleet_for
from dashboard.pages.page import Asked, Rows
from dashboard.rate_tables import RatesRow, location_rows
from dashboard.rates import SORTS, Counts, in_order
from dashboard.sources import count
from dashboard.tallies import PLACES, Question
from ingest.vocabulary import Category

PER_PAGE = 25
RISK = "risk"
NEEDS = "needs"  # a state of several: whatever needs somebody
STATES = (*(state.value for state in State), NEEDS)
LOCATIONS_PARAMS: Mapping[str, tuple[str, ...]] = {
    "sort": (),
    "page": (),
    "find": (),
    "state": STATES,
}

# A shape for each state beside its colour and its word.
MARKS = {
    State.OVER: "■",
    State.SILENT: "◌",
    State.WARNING: "▲",
    State.HEADING: "◆",
    State.EARLY: "○",
    State.INSIDE: "●",
    State.QUIET: "–",
    State.GONE: "×",
}


class Gauge(NamedTuple):
    """A way to a stop as it is drawn, 100 wide at 120 %, and in words."""

    low: float  # where the certain part ends
    width: float  # of the uncertain part behind it
    words: str
    few: bool


class Spark(NamedTuple):
    """Failures of seven days as bars in a box of as many units as steps, 20 high."""

    path: str
    width: int
    words: str


class Row(NamedTuple):
    """A location as the table shows it; equal as long as it looks the same."""

    id: str
    state: State
    mark: str
    name: str
    ref: str
    url: str
    gauge: Gauge | None
    counts: Counts
    phis: Mapping[str, float]
    links: Mapping[str, str]  # lists of what is counted, by the count's name
    spark: Spark
    why: str
    why_url: str
    last_at: datetime | None


class Window(NamedTuple):
    """Which locations are on the page, of how many."""

    places: list[Place]
    first: int
    total: int
    page: int
    pages: int


# --- Which, and in what order ----------------------------------------------------------------


def shown_window(asked: Asked) -> Window:
    """The locations of the page that is asked for."""
    return asked.once("locations window", lambda: _window(asked))


def _window(asked: Asked) -> Window:
    places = [place for place in _ordered(asked) if _is_asked(place, asked)]
    pages = max(1, -(-len(places) // PER_PAGE))
    page = min(_page(asked), pages)
    first = (page - 1) * PER_PAGE
    return Window(places[first : first + PER_PAGE], first, len(places), page, pages)


def _page(asked: Asked) -> int:
    text = asked.options.get("page", "1")
    if not text.isascii() or not text.isdecimal() or not int(text[:6]) >= 1:
        raise FilterError("page is a number from 1 on.")
    return int(text[:6])


def _is_asked(place: Place, asked: Asked) -> bool:
    state = asked.options.get("state", "")
    if state and not (place.state.needs_somebody if state == NEEDS else place.state == state):
        return False
    wanted = asked.options.get("find", "").strip().casefold()
    return wanted in place.name.casefold() or wanted in place.ref.casefold()


def _ordered(asked: Asked) -> Sequence[Place]:
    """All locations, or of a filter by more than locations those with such mail, in order."""
    places = fleet_for(asked).places
    sort = asked.options.get("sort", RISK)
    if sort != RISK:
        _check_sort(sort)
    if sort == RISK and not asked.filter.names - set(PLACES):
        return places
    counted = _counted(asked)
    if sort == RISK:
        return [place for place in places if place.pk in counted]
    if not asked.filter.names - set(PLACES):
        counted = {place.pk: counted.get(place.pk, Counts()) for place in places}
    by_ref = {place.ref: place for place in places}
    rows = [(place.ref, place.name, counted[place.pk]) for place in places if place.pk in counted]
    return [by_ref[ref] for ref, _, _ in in_order(rows, sort)]


def _check_sort(sort: str) -> None:
    if sort.removeprefix("-") not in SORTS:
        raise FilterError("sort is risk, key, or the name of a count or a rate, “-” in front.")


def _counted(asked: Asked) -> dict[int, Counts]:
    """What each location counts under the filter, without names and ranges."""
    question = Question(asked.filter.at(asked.now), asked.rights, "location")
    return asked.once("counted by location", lambda: count(question)[0].counted())


# --- The rows of a page ----------------------------------------------------------------------


def _rows(asked: Asked) -> list[Row]:
    places = shown_window(asked).places
    if not places:
        return []
    pks = [place.pk for place in places]
    counted = _rates(asked, places)
    sparks = failing.failures_by_step(pks, asked.now)
    whys = _whys(asked, pks)
    last = failing.last_events(pks)
    return [
        _row(place, asked, counted.get(place.pk), sparks.get(place.pk), whys, last.get(place.pk))
        for place in places
    ]


def _rates(asked: Asked, places: Sequence[Place]) -> dict[int, RatesRow]:
    """Counts with their dispersions, of these locations alone."""
    return location_rows(_of_places(asked.filter, places), asked.rights, now=asked.now)


def _of_places(filter: Filter, places: Sequence[Place]) -> Filter:
    """The filter narrowed to these locations, which it keeps."""
    kept = {term for term in filter.terms if term.name not in PLACES}
    terms = kept | {Term("location", place.ref) for place in places}
    return replace(filter, terms=tuple(sorted(terms)))


def _row(
    place: Place,
    asked: Asked,
    counted: RatesRow | None,
    steps: list[int] | None,
    whys: Mapping[int, tuple[str, str]],
    last_at: datetime | None,
) -> Row:
    filter = asked.filter
    counts = counted.counts if counted else Counts()
    why, why_url = whys.get(place.pk, ("", ""))
    url = page_url("location", place.ref, query=filter.without("location").canonical())
    return Row(
        id=row_id("locations", place.ref),
        state=place.state,
        mark=MARKS[place.state],
        name=place.title,
        ref=place.ref if place.name else "",
        url=url,
        gauge=gauge_of(place.way),
        counts=counts,
        phis=counted.phis if counted else {},
        links={
            name: failing.list_url(list_filter(filter, "location", place.ref, name))
            for name in LINKED
            if getattr(counts, name)
        },
        spark=spark_of(steps),
        why=why,
        why_url=why_url,
        last_at=last_at,
    )


LINKED = ("sent", "hard", "block", "visible_complained")
_FULL = 120.0  # per cent at the gauge's right edge


def gauge_of(way: Way | None) -> Gauge | None:
    """How a way to a stop is drawn: certain, perhaps, and the words beside it."""
    if way is None:
        return None
    edges = (way.risk, way.risk) if way.few else (way.low, way.high)
    low, high = (100 * min(edge, _FULL) / _FULL for edge in edges)
    return Gauge(round(low, 1), round(high - low, 1), way.words, way.few)


_SPARK_HEIGHT = 20


def spark_of(steps: Sequence[int] | None) -> Spark:
    """Bars of a location's failures, on a scale of its own."""
    steps = steps or [0] * (failing.SPARK_HOURS // failing.SPARK_STEP)
    top = max(4, *steps)  # one failure is no peak
    bars = "".join(
        f"M{at} {_SPARK_HEIGHT}v-{max(1.5, _SPARK_HEIGHT * n / top):.1f}h.8V{_SPARK_HEIGHT}z"
        for at, n in enumerate(steps)
        if n
    )
    total = f"{sum(steps):,} bounced in 7 days"
    return Spark(bars, len(steps), f"{total}, at most {max(steps):,} in 6 hours")


def _whys(asked: Asked, pks: Sequence[int]) -> dict[int, tuple[str, str]]:
    """The top reason of each location's failures in a few words, and its campaign."""
    since = asked.filter.start or asked.now - timedelta(days=7)
    since = max(since, asked.now - timedelta(days=7))
    refused = failing.refused(pks, since)
    categories = failing.categories(reason for met in refused.values() for reason in met)
    campaigns = failing.worst_campaigns(pks, since)
    found = {}
    for pk, met in refused.items():
        words, reason = _why(met, categories)
        campaign = f" · {campaigns[pk].campaign}" if pk in campaigns else ""
        found[pk] = words + campaign, failing.reason_url(reason, asked.filter)
    return found


def _why(met: Mapping[int, int], categories: Mapping[int, Category]) -> tuple[str, int]:
    """The category that most failures are of, in words, and its most frequent reason."""
    by_category: Counter[Category] = Counter()
    for reason, n in met.items():
        by_category[categories.get(reason, Category.NONE)] += n
    ((category, n),) = by_category.most_common(1)
    of_it = {r: m for r, m in met.items() if categories.get(r, Category.NONE) is category}
    share = f"{100 * n / by_category.total():.0f} % "
    return share + CATEGORY_WORDS[category], max(of_it, key=lambda reason: of_it[reason])


# --- The region ------------------------------------------------------------------------------

COLUMNS = (
    ("risk", "Way to the stop", "How much of the way to HighLevel's stop is gone, at least and"
     " at most, by the worst measure of a day and a week. Lines: the warning at 60 %, the stop"),
    ("-sent", "Sent", "Delivered + bounced + in flight"),
    ("-hard_bounce_rate", "Hard", "Bad addresses ÷ settled. Lines: 3 % warning, 5 % stop"),
    ("-block_rate", "Block", "Refused for reputation, content or policy ÷ settled"),
    ("-visible_complaint_rate", "Complaints", "Where they are reported. Lines: 0.1 % and 0.3 %"),
)  # fmt: skip


def _columns(asked: Asked) -> dict[str, dict[str, str]]:
    """The heads that order the table. A second click turns the order around."""
    sort = asked.options.get("sort", RISK)
    columns = {}
    for first, label, about in (("key", "Location", "By name"), *COLUMNS):
        other = first[1:] if first.startswith("-") else f"-{first}"
        chosen = other if sort == first and first != RISK else first
        direction = {first: "descending", other: "ascending"}.get(sort, "")
        if first == "key" and direction:
            direction = "ascending" if sort == first else "descending"
        url = asked.link(sort=None if chosen == RISK else chosen, page=None)
        name = first.removeprefix("-")
        columns[name] = {"label": label, "about": about, "url": url, "direction": direction}
    return columns


def _load(asked: Asked) -> dict[str, Any]:
    window, rows = shown_window(asked), _rows(asked)
    options = asked.options
    return {
        "rows": rows,
        "order": " ".join(row.id for row in rows),
        "columns": _columns(asked),
        "window": window,
        "last": window.first + len(window.places),
        "previous": asked.link(page=str(window.page - 1)) if window.page > 1 else "",
        "next": asked.link(page=str(window.page + 1)) if window.page < window.pages else "",
        "find": options.get("find", ""),
        "state": _state_words(options.get("state", "")),
        "without_state": asked.link(state=None, page=None),
        "kept": [
            *asked.own.params(),
            *((name, text) for name, text in options.items() if name not in ("find", "page")),
        ],
    }


def _state_words(state: str) -> str:
    if state == NEEDS:
        return "needs somebody"
    return State(state).words if state else ""


LOCATIONS = Rows(
    "locations",
    "dashboard/_locations.html",
    _load,
    body="locations",
    row="dashboard/_locations.html#locations-row",
    around="dashboard/_locations.html#locations-around",
)
