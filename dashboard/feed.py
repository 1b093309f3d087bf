"""The feed: the newest events of a page, in words."""

from collections import deque
from collections.abc import Iterable
from datetime import UTC, datetime
from heapq import merge
from typing import NamedTuple

from django.template.loader import render_to_string

from dashboard import queries
from dashboard.access import Rights, restrict
from dashboard.conditions import campaign_ids, value_ids
from dashboard.filters import Filter
from dashboard.names import campaign_name, page_url
from dashboard.queries import EventRow
from ingest.models import Delivery, Event, HourlyCount
from ingest.vocabulary import FAILURES, FLEET_LOCATION, Dimension, EventKind

FEED_ROWS, FEED_FAILED = 60, 30  # at first paint: of all, and at least of what failed
DEPTH = 60 * FEED_ROWS  # events that are looked through for them
FEED_SENT = 200  # at most in one frame: a page keeps no more
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
_BAD = FAILURES | {EventKind.REJECTED, EventKind.COMPLAINED}
WORDS = {EventKind.ACCEPTED: "Queued"}  # "accepted" reads as if a receiver had


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


class Line:
    """An event's row of the feed: written when the first page is sent it, once a time zone.

    Once more for those who see addresses masked.
    """

    __slots__ = ("_html", "row")

    def __init__(self, row: EventRow) -> None:
        self.row = row
        self._html: dict[tuple[str, bool], str] = {}

    @property
    def is_bad(self) -> bool:
        """Whether it failed, or somebody complained: such a row is never left out."""
        return self.row.kind in _BAD

    def html(self, zone: str, now: datetime, rights: Rights) -> str:
        """Its markup. Call it where times are printed in this zone (``Asked.in_zone``)."""
        key = zone, rights.masks(self.row.location_id)
        if key not in self._html:
            shown = queries.shown_event(self.row, rights)
            self._html[key] = feed_lines([feed_row(shown)], zone, now)
        return self._html[key]


class Waiting:
    """Lines that a page has not been sent, of which those that went well may be left out."""

    def __init__(self) -> None:
        self._bad: list[Line] = []
        self._good: deque[Line] = deque(maxlen=FEED_SENT)
        self._left_out = 0

    def __bool__(self) -> bool:
        return bool(self._bad or self._good)

    def add(self, line: Line) -> None:
        """Take a line, newer than all before it."""
        if line.is_bad:
            self._bad.append(line)
            return
        self._left_out += len(self._good) == FEED_SENT
        self._good.append(line)

    def take(self) -> tuple[list[Line], int]:
        """Newest first, at most ``FEED_SENT`` unless more are bad; and how many were left out."""
        spare = max(0, len(self._good) - max(0, FEED_SENT - len(self._bad)))
        good, left_out = list(self._good)[spare:], self._left_out + spare
        found = merge(self._bad, good, key=lambda line: line.row.cursor)
        lines = list(found)[::-1]
        self._bad, self._left_out = [], 0
        self._good.clear()
        return lines, left_out


def newest_feed(filter: Filter, rights: Rights) -> list[FeedRow]:
    """The feed at first paint, newest first: the newest events that match, and the newest failures.

    As in an open page, in which what went well makes room for what failed.
    """
    for name, dimension in (("campaign", Dimension.CAMPAIGN), ("tag", Dimension.TAG)):
        if filter.values(name):
            rows = _events_of_value(filter, rights, name, dimension)
            break
    else:
        rows = _scanned_events(filter, rights)
    return [feed_row(row) for row in rows]


def _scanned_events(filter: Filter, rights: Rights) -> list[EventRow]:
    """Matches among the last few thousand events of the filter's locations."""
    locations = filter.location_ids(rights)
    events = Event.objects.order_by("-id").values_list("id", flat=True)
    if locations is not None:
        events = events.filter(location_id__in=locations)
    after = next(iter(events[DEPTH : DEPTH + 1]), 0)
    found = queries.newest_events(filter, rights, after=after, limit=FEED_ROWS)
    failed = queries.newest_events(filter, rights, after=after, limit=FEED_FAILED, kinds=_BAD)
    known = {row.cursor: row for row in (*found, *failed)}
    return [known[cursor] for cursor in sorted(known, reverse=True)]


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
    rows = queries.rows_at(list(cursors))[::-1]
    return [queries.shown_event(row, rights) for row in rows if filter.matches(row)]


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


def feed_lines(rows: Iterable[FeedRow], zone: str, now: datetime) -> str:
    """Rows as the feed's list holds them."""
    said = {"zone": zone, "now": now}
    return "".join(
        render_to_string("dashboard/_feed.html#feed-row", {"event": row, **said}).strip()
        for row in rows
    )


def feed_fragment(lines: str, left_out: int = 0) -> str:
    """Lines, newest first, as the fragment that ``live.js`` puts where they belong."""
    if not lines:
        return ""
    also = f' data-left-out="{left_out}"' if left_out else ""
    return f'<ol hx-swap-oob="feed:#feed"{also}>{lines}</ol>'
