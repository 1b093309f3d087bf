"""HighLevel's two gauges: hard bounces and ESP blocks, each as a band beside its lines."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from dashboard import judging, riskiest
from dashboard.charts import GaugeBand, gauge_band
from dashboard.failing import list_url
from dashboard.filters import Filter
from dashboard.judging import BLOCKS_LEAST, MAILS_LEAST, Band, Counted, Distance
from dashboard.lists import list_filter
from dashboard.pages.page import Asked, Region
from dashboard.pages.subject import by_sending, counted, whole_of
from dashboard.rates import Counts, Rate
from dashboard.riskiest import Lately
from dashboard.spans import HOUR
from dashboard.templatetags.figures import made_of, percent

_LEVELS = {
    Counted.COUNTS_OVER: "bad",
    Counted.MAY_COUNT_OVER: "bad",
    Counted.WARNS: "warn",
    Counted.MAY_WARN: "warn",
    Counted.TOO_FEW: "early",
    Counted.NO_DATA: "none",
}
_TITLES = {"hard": "Hard bounces", "blocks": "ESP blocks"}
_EDGES = {
    "hard": ("bad addresses only", "every permanent failure, suppressed ones too"),
    "blocks": ("the surest blocks only", "all that may be meant"),
}


class Edge(NamedTuple):
    """One edge of a band in words: ``84 of 1,377``, and the list behind it."""

    rate: str
    made_of: str
    url: str


class Window(NamedTuple):
    """A band over one stretch of time."""

    name: str
    low: Edge
    high: Edge
    is_worse: bool


class Gauge(NamedTuple):
    """A gauge as it is drawn, and in words."""

    name: str
    title: str
    level: str
    band: GaugeBand | None
    figure: str  # "3.1–4.2 %"
    words: str  # what HighLevel makes of it
    between: str  # what the edges count
    ahead: str  # how far it is to the stop
    needed: str  # what HighLevel waits for before it acts
    windows: list[Window]
    label: str  # all of it, for those who do not see the drawing


type Lists = Callable[[str], Filter]
"""The filter of a window's mail, by the window's name."""


def gauge(name: str, lately: Lately, lists: Lists) -> Gauge:
    """One of the two, of the worse of its windows."""
    of = riskiest.BANDS[name]
    bands = {window: of(counts) for window, counts in lately.windows.items()}
    worse = judging.worst({key: band for key, band in bands.items() if band.high.denominator})
    band = bands[worse] if worse else Band(Rate.of(0, 0), Rate.of(0, 0))
    distance = judging.distance(band, judging.STOP, of(lately.hour).high)
    figure = _figure(band)
    words = band.sentence[:1].upper() + band.sentence[1:]
    ahead = _ahead(distance)
    return Gauge(
        name=name,
        title=_TITLES[name],
        level=_LEVELS.get(band.state, "good"),
        band=gauge_band(band.low.value, band.high.value),
        figure=figure,
        words=words,
        between=_between(name, band),
        ahead=ahead,
        needed=_needed(name, band),
        windows=[
            Window(key, *_edges(name, each, lists(key)), key == worse and len(bands) > 1)
            for key, each in bands.items()
        ],
        label=f"{_TITLES[name]}: {figure or 'no data'}. {words}. {ahead}",
    )


def _figure(band: Band) -> str:
    low, high = band.low.value, band.high.value
    if low is None or high is None:
        return ""
    if low == high:
        return percent(low)
    return f"{percent(low)} – {percent(high)}"


def _between(name: str, band: Band) -> str:
    low, high = band.low.value, band.high.value
    if low is None or high is None or low == high:
        return ""
    least, most = _EDGES[name]
    return (
        f"Between {percent(low)} ({least}) and {percent(high)} ({most}):"
        " HighLevel does not publish which it counts."
    )


def _ahead(distance: Distance | None) -> str:
    """``38 to 112 more reach 5 % at this volume. Not at this pace.``"""
    if distance is None:
        return ""
    line = judging.share(distance.line)
    least, most = distance.least, distance.most
    if most == 0:
        more = f"Over {line}."
    elif least == 0:
        more = f"Perhaps over {line} already; surely with {most:,} more."
    elif least == most:
        more = f"{most:,} more reach {line} at this volume."
    else:
        more = f"{least:,} to {most:,} more reach {line} at this volume."
    pace = distance.sentence.partition("; ")[2]
    return f"{more} {pace[:1].upper()}{pace[1:]}."


def _needed(name: str, band: Band) -> str:
    """What HighLevel waits for before it acts, where that has not come."""
    mails, blocks = band.high.denominator, band.high.numerator
    if not mails:
        return ""
    if mails < MAILS_LEAST:
        return f"HighLevel acts from {MAILS_LEAST} mails on: {mails:,} so far."
    if name == "blocks" and blocks < BLOCKS_LEAST:
        return f"{BLOCKS_LEAST} blocks are needed: {blocks:,} so far."
    return ""


def _edges(name: str, band: Band, filter: Filter) -> tuple[Edge, Edge]:
    lists = (
        (list_filter(filter, "", "", "hard"), _failed(filter))
        if name == "hard"
        else tuple(list_filter(filter, "", "", count) for count in ("block_low", "block_high"))
    )
    low, high = (
        Edge(
            "no data" if rate.value is None else percent(rate.value),
            made_of(rate),
            list_url(found) if rate.numerator else "",
        )
        for rate, found in zip((band.low, band.high), lists, strict=True)
    )
    return low, high


def _failed(filter: Filter) -> Filter | None:
    """All that bounced or was suppressed."""
    if filter.values("outcome") or filter.values("outcome", excluded=True):
        return None
    return filter.plus("outcome", "bounced").plus("outcome", "suppressed")


# --- Of a location ---------------------------------------------------------------------------


def _of_location(asked: Asked) -> dict[str, Any]:
    """Of all its mail, whatever the page is filtered by: HighLevel's two windows."""
    (pk,) = asked.filter.location_ids(asked.rights) or (0,)
    lately = riskiest.read_lately([pk], now=asked.now).get(pk, Lately())
    windows = {key: lately.windows.get(key, Counts()) for key in ("24h", "7d")}
    base = replace(asked.filter.only("location"), clock="")
    return _both(
        replace(lately, windows=windows),
        lambda window: base.with_("range", window),
        "All mail of this location, by the time of sending, whatever is filtered."
        " HighLevel looks at 24 hours and 7 days.",
    )


def _both(lately: Lately, lists: Lists, note: str) -> dict[str, Any]:
    return {
        "gauges": [gauge(name, lately, lists) for name in riskiest.BANDS],
        "note": note,
        "scale": [(str(n), f"{100 * n / 6:.2f}%") for n in range(7)],
    }


LOCATION_GAUGES = Region("gauges", "dashboard/location/_gauges.html", _of_location, every=5)


# --- Of a campaign ---------------------------------------------------------------------------


def _of_campaign(asked: Asked) -> dict[str, Any]:
    """Of what the page shows: what it would count as, if it were all of a location's mail."""
    filter = by_sending(asked)
    hour = asked.now.replace(minute=0, second=0, microsecond=0)
    last = replace(filter, range="", since=hour - HOUR, to=hour)
    windows: Mapping[str, Any] = {_range(filter): whole_of(asked).counts}
    return _both(
        Lately(windows=windows, hour=counted(asked, last)),
        lambda window: filter,
        "Of this campaign alone, as if it were all the mail. HighLevel counts whole locations,"
        " over 24 hours and 7 days.",
    )


def _range(filter: Filter) -> str:
    return filter.range or "this time"


CAMPAIGN_GAUGES = Region("gauges", "dashboard/location/_gauges.html", _of_campaign, every=5)
