"""The regions of the pages: what they show at first paint, and the fragments that keep them fresh.

A region's markup exists once: the page includes it, and ``fragments`` renders the same partial
with ``hx-swap-oob``, so that ``live.js`` patches it in place.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any, NamedTuple

from django.db.models import Sum
from django.template.loader import render_to_string
from django.urls import NoReverseMatch, reverse

from dashboard import queries, rate_tables
from dashboard.access import Rights, restrict
from dashboard.charts import Minute, minute_chart
from dashboard.conditions import campaign_ids, value_ids
from dashboard.filters import Filter
from dashboard.queries import EventRow
from dashboard.rates import Counts
from dashboard.tallies import REST_KEY
from ingest.models import Delivery, Event, HourlyCount, MinuteCount
from ingest.vocabulary import FAILURES, FLEET_LOCATION, NONE_KEY, Dimension, EventKind

FEED_ROWS = 60  # at first paint
FEED_SENT = 200  # at most in one frame: a page keeps no more
TABLE_ROWS = 1_000
DEFAULT_SORT = "-sent"
MINUTES = 60
SAID = 180  # characters of a receiver's words that the feed shows

MARKS = {
    EventKind.ACCEPTED: "→",
    EventKind.DELIVERED: "✓",
    EventKind.DEFERRED: "↻",
    EventKind.BOUNCED: "✕",
    EventKind.SUPPRESSED: "⊘",
    EventKind.REJECTED: "⊘",
    EventKind.COMPLAINED: "⚑",
    EventKind.UNSUBSCRIBED: "−",
    EventKind.OPENED: "○",
    EventKind.CLICKED: "↗",
    EventKind.STORED: "·",
    EventKind.UNKNOWN: "?",
}
WORDS = {EventKind.ACCEPTED: "Queued"}  # "accepted" reads as if a receiver had


class TableKind(NamedTuple):
    """A table of rates on a page: its DOM id, and what it has a row for each of."""

    id: str
    by: str
    title: str
    head: str


TABLES = {
    "overview": (TableKind("locations", "location", "Locations", "Location"),),
    "location": (
        TableKind("campaigns", "campaign", "Campaigns and workflows", "Campaign"),
        TableKind("tags", "tag", "Tags", "Tag"),
    ),
    "campaign": (TableKind("locations", "location", "Locations", "Location"),),
}


RATES = "dashboard/_rates.html"
SETUP_DONE = '<section id="setup" class="card setup" hidden hx-swap-oob="patch"></section>'
_PULSE = ("pulse", "dashboard/_pulse.html")
_TOTALS = ("totals", "dashboard/_totals.html")
_MINUTES = ("minutes-plot", "dashboard/_minutes.html#minutes-plot")
REGIONS = {
    "overview": (_PULSE, _TOTALS, _MINUTES),
    "location": (_PULSE, _TOTALS, _MINUTES),
    "campaign": (_PULSE, _TOTALS),
}


class Row(NamedTuple):
    """A row of a table of rates, as its partial shows it."""

    id: str
    name: str
    ref: str
    url: str
    counts: Counts
    phis: Mapping[str, float]  # how much its mail is clustered, by rate


class Table(NamedTuple):
    """A table of rates, as its partials show it."""

    id: str
    title: str
    head: str
    note: str
    rows: list[Row]


class Pulse(NamedTuple):
    """When the newest webhook came, and how many events the last whole minute had."""

    last_at: datetime | None
    per_minute: int


class FeedRow(NamedTuple):
    """An event as the feed shows it. Texts are raw: the template escapes them."""

    cursor: int
    kind: str
    mark: str
    word: str
    recipient: str
    occurred_at: datetime
    said: str
    said_whole: str
    place: str
    url: str
    campaign: str


# --- What a page shows -----------------------------------------------------------------------


def regions(
    view: str, filter: Filter, rights: Rights, *, now: datetime, sort: str = DEFAULT_SORT
) -> dict[str, Any]:
    """The numbers of a page, as template context: totals, chart, pulse and tables, no feed.

    ``filter`` is the page's whole filter, its location or campaign included. Raises
    ``FilterError`` for what rates cannot be asked.
    """
    tables, totals = {}, None
    for kind in TABLES[view]:
        found = rate_tables.rates(filter, rights, by=kind.by, limit=TABLE_ROWS, sort=sort, now=now)
        totals = totals or found.whole
        rows = [_row(kind, filter, row) for row in found.rows]
        tables[kind.id] = Table(kind.id, kind.title, kind.head, _note(kind, len(rows)), rows)
    return {
        "view": view,
        "now": now,
        "since": filter.start,
        "totals": totals,
        "tables": tables,
        "chart": minute_chart(queries.minutes(filter, rights, now=now, count=MINUTES)),
        # The chart's counters know locations only.
        "chart_is_wider": bool(filter.names - {"location", "company"}),
        "pulse": _pulse(filter, rights, now=now),
    }


def _row(kind: TableKind, filter: Filter, row: rate_tables.RatesRow) -> Row:
    url, key = "", row.key
    if kind.by == "tag" and key != REST_KEY:
        url = f"?{filter.without('location').with_('tag', key).canonical()}"
    elif key not in (NONE_KEY, REST_KEY):
        url = page_url(kind.by, key, query=filter.without(kind.by).canonical())
    name = _name(kind, key, row.label)
    return Row(
        row_id(kind.id, key), name, key if url and name != key else "", url, row.counts, row.phis
    )


def _name(kind: TableKind, key: str, label: str) -> str:
    if key == REST_KEY:
        return "All others"
    if key == NONE_KEY:
        return f"No {kind.by}"
    if label != key:
        return label
    return campaign_name(key) if kind.by == "campaign" else key


def campaign_name(key: str) -> str:
    """A name for a campaign that has none: ``workflow:91b8bbfe-9ce8…`` is ``Workflow 91b8bbfe``."""
    kind, _, ref = key.partition(":")
    return f"{kind.capitalize()} {ref[:8]}" if ref else key


def page_url(page: str, key: str, *, query: str = "") -> str:
    """The address of a location's or campaign's page; "" for ids that no address can hold."""
    try:
        url = reverse(f"dashboard:{page}", args=[key])
    except NoReverseMatch:
        return ""
    return f"{url}?{query}" if query else url


def row_id(table: str, key: str) -> str:
    """The DOM id of a row: keys hold any text, ids must not."""
    return f"{table}-{blake2b(key.encode(), digest_size=6).hexdigest()}"


def _note(kind: TableKind, rows: int) -> str:
    if kind.by == "tag":
        return "A mail counts in each of its tags: rows overlap."
    return f"{rows:,}" if rows < TABLE_ROWS else f"the first {rows:,}"


def _pulse(filter: Filter, rights: Rights, *, now: datetime) -> Pulse:
    """The newest webhook, and the events of the last whole minute, of the filter's locations."""
    locations = filter.location_ids(rights)
    events, minutes = Event.objects.order_by("-id"), MinuteCount.objects.all()
    if locations is not None:
        events = events.filter(location_id__in=locations)
        minutes = minutes.filter(location_id__in=locations)
    last_minute = int(now.timestamp()) // 60 - 1
    found = minutes.filter(minute=last_minute).aggregate(events=Sum("events", default=0))
    return Pulse(events.values_list("received_at", flat=True).first(), found["events"])


# --- The feed --------------------------------------------------------------------------------


def newest_feed(filter: Filter, rights: Rights) -> list[FeedRow]:
    """The feed at first paint: the newest events that match, newest first."""
    for name, dimension in (("campaign", Dimension.CAMPAIGN), ("tag", Dimension.TAG)):
        if filter.values(name):
            rows = _events_of_value(filter, rights, name, dimension)
            break
    else:
        rows = _scanned_events(filter, rights)
    return [feed_row(row) for row in rows if filter.matches(row)]


def _scanned_events(filter: Filter, rights: Rights) -> list[EventRow]:
    """Matches among the last few thousand events of the filter's locations."""
    locations = filter.location_ids(rights)
    events = Event.objects.order_by("-id").values_list("id", flat=True)
    if locations is not None:
        events = events.filter(location_id__in=locations)
    rows: list[EventRow] = []
    for depth in (4 * FEED_ROWS, 60 * FEED_ROWS):
        after = next(iter(events[depth : depth + 1]), 0)
        rows = queries.events_page(filter, rights, after=after, limit=depth).rows
        if len(rows) >= FEED_ROWS or not after:
            break
    return rows[: -FEED_ROWS - 1 : -1]


def _events_of_value(
    filter: Filter, rights: Rights, name: str, dimension: Dimension
) -> list[EventRow]:
    """Events of the newest deliveries of a campaign or tag, which may be long over.

    The counters tell where and when it was sent, so that few deliveries are looked at.
    """
    values = filter.values(name)
    ids = campaign_ids(values) if name == "campaign" else value_ids(dimension, values)
    counted = HourlyCount.objects.filter(dimension=dimension, value_id__in=ids)
    counted = restrict(counted.exclude(location_id=FLEET_LOCATION), rights)
    newest = list(counted.order_by("-hour").values_list("location_id", "hour")[:FEED_ROWS])
    if not newest:
        return []
    since = datetime.fromtimestamp(3600 * min(hour for _, hour in newest), UTC)
    places = {location_id for location_id, _ in newest}
    sent = Delivery.objects.filter(location_id__in=places, sent_at__gte=since)
    found = filter.apply(sent).order_by("-sent_at").values_list("id", flat=True)[:FEED_ROWS]
    events = Event.objects.filter(delivery_id__in=list(found)).order_by("-id")
    cursors = events.values_list("id", flat=True)[:FEED_ROWS]
    return [row for pk in cursors for row in queries.event_rows(after=pk - 1, until=pk, limit=1)]


def feed_row(row: EventRow) -> FeedRow:
    """An event in the words of the feed."""
    failed = row.kind in FAILURES or row.kind == EventKind.REJECTED
    replied = (str(row.code or ""), row.enhanced, row.message or row.reason)
    said = " ".join(" ".join(replied).split()) if failed else ""
    return FeedRow(
        cursor=row.cursor,
        kind=row.kind.word,
        mark=MARKS[row.kind],
        word=WORDS.get(row.kind, row.kind.word.capitalize()),
        recipient=row.recipient or "(no recipient)",
        occurred_at=row.occurred_at,
        said=said if len(said) <= SAID else said[: SAID - 1] + "…",
        said_whole=said[:1_000],
        place=row.location_name or row.location,
        url=page_url("location", row.location),
        campaign=row.campaign_label or (campaign_name(row.campaign) if row.campaign else ""),
    )


# --- Fragments -------------------------------------------------------------------------------


def fragments(
    view: str,
    filter: Filter,
    rights: Rights,
    *,
    now: datetime,
    rows: list[EventRow],
    state: dict[str, Any],
) -> str:
    """The regions of a page that have changed since the last call with this ``state``, as HTML.

    ``rows`` are the events since then. An empty ``state`` asks for everything, the newest of
    the feed included; "" means that nothing changed.
    """
    first = not state
    filter = filter.at(now)
    context = regions(view, filter, rights, now=now)
    feed = newest_feed(filter, rights) if first else [feed_row(row) for row in reversed(rows)]
    parts = [_changed(state, name, _render(template, context)) for name, template in REGIONS[view]]
    parts += [_table(state, table) for table in context["tables"].values()]
    if _MINUTES in REGIONS[view]:
        parts.append(_minute_rows(state, context["chart"].minutes))
    parts.append(_feed(feed[:FEED_SENT], now))
    if view == "overview" and context["pulse"].last_at:
        parts.append(_changed(state, "setup", SETUP_DONE))
    return "".join(parts)


def _render(template: str, context: dict[str, Any]) -> str:
    return render_to_string(template, context).strip()


def _changed(state: dict[str, Any], name: str, html: str) -> str:
    """``html``, unless it is what was sent last under this name."""
    if state.get(name) == html:
        return ""
    state[name] = html
    return html


def _table(state: dict[str, Any], table: Table) -> str:
    """The rows whose counts have changed."""
    around = _changed(state, f"{table.id}-note", _render(f"{RATES}#rates-around", {"table": table}))
    by_id = {row.id: row for row in table.rows}
    changed = _news(state, table.id, {row.id: row.counts for row in table.rows})
    rows = (_render(f"{RATES}#rates-row", {"row": by_id[row_id]}) for row_id in changed)
    return around + _rows(table.id, rows)


def _minute_rows(state: dict[str, Any], minutes: Sequence[Minute]) -> str:
    """The minutes whose numbers have changed."""
    by_time = {minute.at: minute for minute in minutes}
    row = "dashboard/_minutes.html#minutes-row"
    changed = _news(state, "minutes", by_time)
    return _rows("minutes-rows", (_render(row, {"minute": by_time[at]}) for at in changed))


def _news[Key](state: dict[str, Any], name: str, values: Mapping[Key, Any]) -> list[Key]:
    """Keys whose values differ from those of the last call, which these replace."""
    known = state.get(name, {})
    state[name] = values
    return [key for key, value in values.items() if known.get(key) != value]


def _rows(body_id: str, rows: Iterable[str]) -> str:
    """Table rows, in a table of their own: bare rows beside other elements do not parse."""
    html = "".join(rows)
    if not html:
        return ""
    return f'<table hx-swap-oob="rows:#{body_id}"><tbody>{html}</tbody></table>'


def _feed(feed: list[FeedRow], now: datetime) -> str:
    if not feed:
        return ""
    body = "".join(
        _render("dashboard/_feed.html#feed-row", {"event": row, "now": now}) for row in feed
    )
    return f'<ol hx-swap-oob="feed:#feed">{body}</ol>'
