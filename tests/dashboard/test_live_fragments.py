"""Fragments: everything once, then only what has changed."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone

from dashboard import feed, live, queries
from dashboard.access import Rights
from dashboard.filters import Filter, parse
from dashboard.names import row_id
from dashboard.pages import PAGES
from dashboard.pages.common import MINUTES
from dashboard.pages.page import Asked
from ingest import counting
from ingest.normalize import Detail
from ingest.vocabulary import EventKind, Outcome
from tests.dashboard import rows

pytestmark = pytest.mark.django_db
ALL = Rights(everything=True)


@pytest.fixture
def now() -> datetime:
    return datetime.now(UTC)


def asked(now: datetime, **terms: str) -> Filter:
    return parse(terms.items(), now=now, default_range="1h")


def fragments(now: datetime, state: dict[str, Any], after: int | None = None) -> str:
    """What the overview gets; with ``after``, for the events since that cursor."""
    found = [] if after is None else queries.event_rows(after=after, limit=100)
    return overview(asked(now), state=state) + news(asked(now), found)


def overview(filter: Filter, rights: Rights = ALL, *, state: dict[str, Any]) -> str:
    asked = Asked(filter, rights, filter.now)
    page = PAGES["overview"]
    return page.changes(asked, state) if state else live.everything(page, asked, state)


def news(filter: Filter, found: Sequence[queries.EventRow]) -> str:
    """What the fast lane sends of these events."""
    waiting = feed.Waiting()
    for row in found:
        waiting.add(feed.Line(row))
    return live.feed(Asked(filter, ALL, filter.now), *waiting.take(), now=filter.now)


def send(now: datetime, number: int, **columns: Any) -> None:
    kind = columns.pop("kind", EventKind.DELIVERED)
    detail = columns.pop("detail", None)
    made = rows.delivery(number, sent_at=now - timedelta(minutes=5), **columns)
    rows.event(made, kind=kind, detail=detail)
    counting.rebuild(now=int(now.timestamp() * 1e6))


def test_an_empty_state_gets_everything(now: datetime) -> None:
    send(now, 1)
    html = fragments(now, {})
    for region in (
        "pulse",
        "totals",
        "minutes-plot",
        "locations-pages",
        "needs",
        "fleet",
        "failing",
    ):
        assert f'id="{region}"' in html
    assert html.count('<tr id="locations-') == 1
    assert html.count("<li id=") == 1


def test_nothing_changed_is_nothing(now: datetime) -> None:
    send(now, 1)
    state: dict[str, Any] = {}
    fragments(now, state)
    assert fragments(now, state) == ""


def test_only_the_rows_that_changed_are_sent(now: datetime) -> None:
    for number, ref in enumerate(("loc-a", "loc-b", "loc-c")):
        send(now, number, location_ref=ref)
    state: dict[str, Any] = {}
    fragments(now, state)
    cursor = queries.newest_cursor()
    send(now, 9, location_ref="loc-b", recipient="nine@example.com")
    html = fragments(now, state, after=cursor)
    assert html.count('<tr id="locations-') == 1
    assert f'<tr id="{row_id("locations", "loc-b")}"' in html
    assert html.count("<li id=") == 1
    assert "nine@example.com" in html


def test_the_feed_is_newest_first(now: datetime) -> None:
    for number in range(3):
        send(now, number)
    html = fragments(now, {})
    order = [html.index(f"r{number}@example.com") for number in (2, 1, 0)]
    assert order == sorted(order)


def test_a_flood_sends_no_more_than_a_page_keeps(now: datetime) -> None:
    send(now, 1)
    row = queries.event_rows(after=0, limit=1)[0]
    html = news(asked(now), [row] * 500)
    assert html.count("<li id=") == feed.FEED_SENT
    assert f'data-left-out="{500 - feed.FEED_SENT}"' in html


def test_what_failed_is_never_left_out(now: datetime) -> None:
    send(now, 1)
    send(now, 2, kind=EventKind.COMPLAINED)
    good, bad = queries.event_rows(after=0, limit=2)
    html = news(asked(now), [bad, *[good] * 500])
    assert html.count("k-complained") == 1
    assert html.count("<li id=") == feed.FEED_SENT
    html = news(asked(now), [good, *[bad] * 500, good])
    assert (html.count("k-complained"), html.count("k-delivered")) == (500, 0)


def test_a_line_is_written_once_for_all_pages_of_a_zone(now: datetime) -> None:
    send(now, 1)
    line = feed.Line(queries.event_rows(after=0, limit=1)[0])
    before = line.html("UTC", now, ALL)
    assert line.html("UTC", now + timedelta(hours=1), ALL) is before
    with timezone.override("America/Denver"):
        assert "America/Denver" in line.html("America/Denver", now, ALL)


def test_the_receivers_words_are_shortened_and_escaped(now: datetime) -> None:
    reply = "<b>refused</b> " * 40
    send(now, 1, outcome=Outcome.BOUNCED, kind=EventKind.BOUNCED, detail=Detail(message=reply))
    html = fragments(now, {})
    assert "<b>refused" not in html
    shown = html.split('<span class="said"')[1].split(">")[1].split("<")[0]
    assert len(shown.replace("&lt;", "<").replace("&gt;", ">")) == feed.SAID


def test_successes_say_nothing(now: datetime) -> None:
    send(now, 1, detail=Detail(message="250 OK taken"))
    assert "taken" not in fragments(now, {})


def test_the_first_event_puts_the_set_up_away(now: datetime) -> None:
    state: dict[str, Any] = {}
    assert 'id="setup"' not in fragments(now, state)
    send(now, 1)
    assert '<section id="setup" class="card setup" hidden' in fragments(now, state, after=0)


def test_rows_travel_in_a_table_of_their_own(now: datetime) -> None:
    """Bare rows beside other elements do not survive the browser's parser."""
    send(now, 1)
    html = fragments(now, {})
    assert '<table hx-swap-oob="rows:#locations"><tbody><tr' in html.replace("\n", "").replace(
        "  ", ""
    )


def test_a_campaign_that_is_over_still_shows_its_events(now: datetime) -> None:
    old = rows.delivery(1, campaign="bulk:1", sent_at=now - timedelta(hours=30))
    rows.event(old, occurred_at=now - timedelta(hours=30))
    counting.rebuild(now=int(now.timestamp() * 1e6))
    filter = parse([("campaign", "bulk:1")], now=now, default_range="30d")
    assert [row.recipient for row in feed.newest_feed(filter, ALL)] == ["r1@example.com"]


def test_what_failed_stays_in_the_feed_when_more_went_well(
    now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "FEED_ROWS", 2)
    rows.event(rows.delivery(1), kind=EventKind.BOUNCED, occurred_at=now)
    for number in range(2, 6):
        rows.event(rows.delivery(number), occurred_at=now)
    filter = parse([("range", "24h")], now=now)
    shown = [row.recipient for row in feed.newest_feed(filter, ALL)]
    assert shown == ["r5@example.com", "r4@example.com", "r1@example.com"]


def test_rights_bound_the_feed_and_the_pulse(now: datetime) -> None:
    send(now, 1, location_ref="theirs")
    mine = rows.location("mine")
    html = overview(asked(now), Rights(location_ids=frozenset({mine.pk})), state={})
    assert "theirs" not in html
    assert "no webhook yet" in html


def test_only_the_minutes_that_changed_are_sent(now: datetime) -> None:
    send(now, 1)
    state: dict[str, Any] = {}
    assert fragments(now, state).count('<tr id="minute-') == MINUTES
    send(now, 2)
    assert fragments(now, state).count('<tr id="minute-') == 1
    assert fragments(now + timedelta(minutes=1), state).count('<tr id="minute-') == 1
