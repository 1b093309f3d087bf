"""What an open page is sent: its regions as they change, and the events as they arrive."""

from collections.abc import Sequence
from datetime import datetime

from django.utils.html import format_html

from dashboard.feed import Line, feed_fragment, feed_lines, newest_feed
from dashboard.pages.page import Asked, Page, State


def everything(page: Page, asked: Asked, state: State) -> str:
    """All regions and the newest of the feed, as HTML; ``state`` then knows what was sent."""
    state.clear()
    return page.changes(asked, state) + (newest(asked) if page.feed else "")


def newest(asked: Asked) -> str:
    """The newest events that are stored, for the feed."""
    found = newest_feed(asked.filter, asked.rights)
    with asked.in_zone():
        return feed_fragment(feed_lines(found, asked.filter.zone.key, asked.now))


def feed(asked: Asked, lines: Sequence[Line], left_out: int, *, now: datetime) -> str:
    """These lines for the feed. Asks nothing of the database."""
    zone = asked.filter.zone.key
    with asked.in_zone():
        return feed_fragment(
            "".join(line.html(zone, now, asked.rights) for line in lines), left_out
        )


def stale(asked: Asked, since: datetime | None) -> str:
    """Says since when the numbers of a page have not been renewed, or that they are (``None``)."""
    words = ""
    if since is not None:
        at = since.astimezone(asked.filter.zone)
        words = (
            f"Numbers as of {at:%H:%M:%S} {asked.filter.zone.key}: newer ones take long to read."
        )
    return format_html('<p id="stale" class="stale" hx-swap-oob="patch">{}</p>', words)


def mark(cursor: int, missed: int | None = None) -> str:
    """Tells ``live.js`` the last event that it was sent, and how many came while it was away."""
    also = "" if missed is None else f' data-missed="{missed}"'
    return f'<i hx-swap-oob="cursor:#live" data-cursor="{cursor}"{also}></i>'
