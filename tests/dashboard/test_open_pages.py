"""The open pages of a process: whose turn it is, and what somebody who comes back is sent."""

from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import AsyncMock
from zoneinfo import ZoneInfo

import pytest

from dashboard import live, open_pages, queries
from dashboard.access import Rights
from dashboard.bounded import TookTooLong
from dashboard.filters import Filter, parse
from dashboard.open_pages import FRAME_EVERY, REFRESH, RENDER_GAP, Open, OpenPages, next_due
from dashboard.pages import PAGES
from dashboard.pages.page import Asked, Page
from dashboard.queries import EventRow
from dashboard.streams import Stream
from tests.dashboard import rows

ALL = Rights(everything=True)
NOW = datetime.now(UTC)


def ask(**terms: str) -> Filter:
    return parse(terms.items(), now=NOW, default_range="24h")


def opened(rendered_at: float, *, has_news: bool = False) -> Open:
    asked = Asked(ask(), ALL, NOW)
    page = Open(PAGES["overview"], asked, Stream(asked.filter, ALL, 0), rendered_at)
    page.has_news, page.state = has_news, {"pulse": "as it was sent"}
    return page


def test_pages_with_news_come_first_and_of_these_the_one_that_waits_longest() -> None:
    quiet, old, new = opened(0), opened(10, has_news=True), opened(11, has_news=True)
    at = max(REFRESH, 11 + RENDER_GAP)
    assert next_due([quiet, new, old], at) is old
    assert next_due([quiet, new], at) is new
    assert next_due([quiet], at) is quiet


def test_no_page_waits_for_ever_for_those_with_news() -> None:
    quiet, busy = opened(0), opened(2 * REFRESH - 1, has_news=True)
    assert next_due([busy, quiet], 2 * REFRESH) is quiet
    never, busy = opened(1), opened(2, has_news=True)
    never.state.clear()
    assert next_due([busy, never], 1 + REFRESH) is never


def test_nothing_is_rendered_before_its_time() -> None:
    assert next_due([opened(0)], REFRESH - 0.1) is None
    assert next_due([opened(0, has_news=True)], RENDER_GAP / 2) is None


def test_numbers_that_are_not_renewed_say_since_when() -> None:
    page = opened(0)
    page.asked = Asked(ask(tz="Asia/Kolkata"), ALL, NOW)
    page.note_reading(NOW, in_time=True)
    assert page.changed == ""
    page.note_reading(NOW + timedelta(seconds=30), in_time=False)
    since = NOW.astimezone(ZoneInfo("Asia/Kolkata"))
    assert f">Numbers as of {since:%H:%M:%S} Asia/Kolkata: " in page.changed
    page.changed = ""
    page.note_reading(NOW + timedelta(seconds=60), in_time=True)
    assert page.changed == '<p id="stale" class="stale" hx-swap-oob="patch"></p>'


@pytest.mark.django_db
def test_a_page_that_cannot_be_read_in_time_says_so(
    pages: OpenPages, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: Any) -> str:
        raise TookTooLong

    monkeypatch.setattr(Page, "changes", stopped)
    reader = Reader(pages, 0, 0)
    reader.next()
    monkeypatch.setattr(open_pages, "REFRESH", -1.0)
    monkeypatch.setattr("dashboard.open_pages.asyncio.sleep", AsyncMock())
    rounds = iter([False, True])
    run(pages._render_pages(lambda: next(rounds), lambda: None))
    run(pages.send())
    assert "Numbers as of" in reader.next()


def run[Answer](work: Coroutine[Any, Any, Answer]) -> Answer:
    """What it returns: nothing here waits, so that no loop is needed (nor its own connection)."""
    with pytest.raises(StopIteration) as ended:
        work.send(None)
    answer: Answer = ended.value.value
    return answer


class Reader:
    """Reads the frames of a page, as a socket does."""

    def __init__(self, pages: OpenPages, cursor: int, after: int | None, **terms: str) -> None:
        asked = Asked(ask(**terms), ALL, NOW)
        self._frames = pages.frames(PAGES["overview"], asked, cursor, after, lambda: False)

    def next(self) -> str:
        return run(anext(self._frames))  # type: ignore[arg-type]


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch) -> OpenPages:
    """Pages whose threads are this one, which has the test's database."""

    async def here(pool: Any, work: Any) -> Any:
        return work()

    monkeypatch.setattr(open_pages, "in_thread", here)
    return OpenPages()


def store(count: int) -> list[EventRow]:
    """So many events, as the hub reads them."""
    made = [rows.event(rows.delivery(n, sent_at=NOW), occurred_at=NOW) for n in range(count)]
    return queries.event_rows(after=made[0].pk - 1, limit=count)


@pytest.mark.django_db
def test_a_line_is_the_same_for_all_filters_and_says_its_cursor(pages: OpenPages) -> None:
    (event,) = store(1)
    readers = [Reader(pages, 0, 0), Reader(pages, 0, 0, location=event.location)]
    for reader in readers:
        assert reader.next() == live.mark(0, missed=0)
    pages.take([event], event.cursor)
    run(pages.send())
    (frame,) = {reader.next() for reader in readers}
    assert frame.endswith(live.mark(event.cursor))
    assert frame.count("<li id=") == 1


@pytest.mark.django_db
def test_no_page_gets_more_frames_than_four_a_second(
    pages: OpenPages, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1_000.0
    monkeypatch.setattr("dashboard.open_pages.time.monotonic", lambda: now)
    reader = Reader(pages, 0, 0)
    reader.next()
    (stream,) = pages.streams
    for event in store(8):
        pages.take([event], event.cursor)
        run(pages.send())
        now += FRAME_EVERY / 2
    assert stream.next == 4
    assert [reader.next().count("<li id=") for _ in range(4)] == [1, 2, 2, 2]


@pytest.mark.django_db
def test_who_comes_back_is_sent_what_was_missed_and_told_how_much(pages: OpenPages) -> None:
    events = store(5)
    last = events[-1].cursor
    some = Reader(pages, last, events[1].cursor).next()
    assert some.count("<li id=") == 3
    assert some.endswith(live.mark(last, missed=3))
    assert Reader(pages, last, last).next() == live.mark(last, missed=0)
    first = events[0].cursor
    assert Reader(pages, last, first, location="another").next() == live.mark(last, missed=0)


@pytest.mark.django_db
def test_who_was_away_for_long_is_shown_the_newest(
    pages: OpenPages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_pages, "MISSED", 2)
    events = store(5)
    frame = Reader(pages, events[-1].cursor, events[0].cursor).next()
    assert frame.count("<li id=") == 5
    assert frame.endswith(live.mark(events[-1].cursor))
