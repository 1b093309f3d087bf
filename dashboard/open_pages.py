"""The open pages of a process, and the two lanes in which they are kept fresh.

The fast lane sends each page the lines of its new events, which are written once for all pages and
ask nothing of the database. The slow lane loads a page's regions again and sends what has changed,
one page after the other: those with news first, the one that waits longest before the others, and
never for more than half of the time. Each distinct page (filter, options, rights) is written once
for all of its readers. What both lanes have ready leaves as one frame, four a second at most.
"""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial

from dashboard import live, queries
from dashboard.access import Rights
from dashboard.bounded import bounded_reads
from dashboard.feed import Line, Waiting
from dashboard.mutes import Viewer
from dashboard.pages.page import Asked, Page, State
from dashboard.queries import EventRow
from dashboard.streams import Stream, in_thread

logger = logging.getLogger(__name__)

FRAME_EVERY = 0.25  # least seconds between two frames of a page
RENDER_GAP = 0.25  # least seconds between two renderings of a page
REFRESH = 10.0  # a page without news is rendered again after this long: its minutes move
AT_FIRST = 1.0  # seconds after which a page that was just opened is looked at again
LONGEST = 5.0  # seconds that a page's reads may take
STRETCH = 1_000  # events that are read at once for those who come back
MISSED = 10_000  # events after which those who come back are only shown the newest
KEPT_FOR = 30.0  # seconds that what was read for those who come back is kept


@dataclass(slots=True)
class Open:
    """An open page of one filter: what its last rendering knew, and what waits to be sent."""

    page: Page
    asked: Asked
    stream: Stream
    rendered_at: float
    state: State = field(default_factory=dict)
    waiting: Waiting = field(default_factory=Waiting)
    changed: str = ""  # regions that are rendered
    has_news: bool = False
    is_new_to_somebody: bool = False  # who was painted at another moment than the last rendering
    sent_at: float = 0.0
    read_at: datetime | None = None  # when its numbers were last read, in time
    is_stale: bool = False

    def take(self, lines: Iterable[Line], cursor: int) -> None:
        """Note the events that concern it, up to this cursor."""
        for line in lines:
            if self.stream.matches(line.row):
                self.has_news = True
                if self.page.feed:
                    self.waiting.add(line)
        self.stream.cursor = cursor

    def note_reading(self, at: datetime, in_time: bool) -> None:
        """Note whether its numbers could be read in time; its readers are told when not."""
        if in_time:
            self.read_at = at
        if in_time and self.is_stale:
            self.changed += live.stale(self.asked, None)
        if not in_time:
            self.changed += live.stale(self.asked, self.read_at or self.asked.now)
        self.is_stale = not in_time

    def may_send(self, now: float) -> bool:
        """Whether there is something to send, and it is time for a frame."""
        return bool(self.waiting or self.changed) and now - self.sent_at >= FRAME_EVERY

    def is_due(self, now: float) -> bool:
        """Whether it may be rendered again."""
        return now - self.rendered_at >= (RENDER_GAP if self.has_news else REFRESH)

    def is_urgent(self, now: float) -> bool:
        """Whether it goes before the others: it has news, was never rendered, or waits for long."""
        return self.has_news or not self.state or now - self.rendered_at >= 2 * REFRESH


def next_due(pages: Iterable[Open], now: float) -> Open | None:
    """The page to render next: the urgent before the others, and of these the one rendered first.

    ``None`` if no page is due.
    """
    due = [page for page in pages if page.is_due(now)]
    return min(due, key=lambda page: (not page.is_urgent(now), page.rendered_at), default=None)


class OpenPages:
    """All open pages of this process."""

    def __init__(self) -> None:
        self._pages: dict[tuple[str, str, str, Rights, Viewer], Open] = {}
        self._stretches: OrderedDict[int, tuple[float, list[Line]]] = OrderedDict()
        self._writing = ThreadPoolExecutor(1, thread_name_prefix="hub-write")
        self._rendering = ThreadPoolExecutor(1, thread_name_prefix="hub-render")
        self._catching_up = ThreadPoolExecutor(1, thread_name_prefix="hub-catch-up")
        self._lane: asyncio.Task[None] | None = None

    def __bool__(self) -> bool:
        return bool(self._pages)

    @property
    def streams(self) -> list[Stream]:
        """The streams of their frames."""
        return [page.stream for page in self._pages.values()]

    def clear(self) -> None:
        """Forget them: the loop in which they were open has ended."""
        self._pages.clear()
        self._lane = None

    async def frames(
        self, page: Page, asked: Asked, cursor: int, after: int | None, closing: Callable[[], bool]
    ) -> AsyncIterator[str]:
        """HTML for a reader; ``cursor`` is the hub's, ``after`` the last one that the reader knows.

        Without ``after`` the first frame has everything. Else it has the events that came since,
        and says how many: what the reader sees was painted then, and comes anew once it changes.
        Raises ``Behind`` or ``Closing``.
        """
        opened = self._open(page, asked, cursor)
        opened.stream.followers += 1
        try:
            number, upto = opened.stream.next, opened.stream.cursor
            if after is None:
                yield await self._everything(opened) + live.mark(upto)
            else:
                yield await self._since(opened, min(after, upto), upto)
            async for text in opened.stream.follow(number, closing):
                yield text
        finally:
            opened.stream.followers -= 1
            if not opened.stream.followers:
                self._pages.pop((page.name, *asked.key), None)

    def _open(self, page: Page, asked: Asked, cursor: int) -> Open:
        key = (page.name, *asked.key)
        opened = self._pages.get(key)
        if opened is None:
            stream = Stream(asked.filter, asked.rights, cursor)
            rendered_at = time.monotonic() - REFRESH + AT_FIRST
            opened = self._pages[key] = Open(page, asked, stream, rendered_at)
        return opened

    async def _everything(self, opened: Open) -> str:
        # What the only reader is sent, the next rendering may leave out.
        state = opened.state if opened.stream.followers == 1 else {}
        opened.rendered_at = time.monotonic()
        page = opened.page
        return await self._render(opened, lambda asked: live.everything(page, asked, state))

    # --- Those who come back --------------------------------------------------------------

    async def _since(self, opened: Open, after: int, upto: int) -> str:
        """The events that a reader has not seen, and how many there are."""
        opened.is_new_to_somebody = True
        catch_up = self._missed if upto - after <= MISSED else _newest
        text, count = await in_thread(self._catching_up, lambda: catch_up(opened, after, upto))
        opened.has_news |= count != 0
        return text + live.mark(upto, count)

    def _missed(self, opened: Open, after: int, upto: int) -> tuple[str, int]:
        waiting, count = Waiting(), 0
        stretches = range(after // STRETCH, upto // STRETCH + 1) if after < upto else ()
        for number in stretches:
            for line in self._stretch(number, upto):
                if after < line.row.cursor <= upto and opened.stream.matches(line.row):
                    waiting.add(line)
                    count += 1
        return _write(opened, *waiting.take()), count

    def _stretch(self, number: int, upto: int) -> list[Line]:
        """Events by their thousands, read once for all who come back after a restart."""
        now, last = time.monotonic(), (number + 1) * STRETCH - 1
        while self._stretches and next(iter(self._stretches.values()))[0] < now - KEPT_FOR:
            self._stretches.popitem(last=False)
        if number in self._stretches:
            return self._stretches[number][1]
        after = number * STRETCH - 1
        rows = queries.event_rows(after=after, until=min(last, upto), limit=STRETCH)
        lines = [Line(row) for row in rows]
        if last <= upto:
            self._stretches[number] = now, lines
        return lines

    # --- The fast lane ----------------------------------------------------------------------

    def take(self, rows: Sequence[EventRow], cursor: int) -> None:
        """Note new events, up to this cursor, for the pages that they concern."""
        lines = [Line(row) for row in rows]
        for page in self._pages.values():
            page.take(lines, cursor)

    async def send(self) -> None:
        """Send every page what waits for it, where it is time for a frame."""
        now = time.monotonic()
        parts = [
            (page, page.changed, page.waiting.take(), page.stream.cursor)
            for page in self._pages.values()
            if page.may_send(now)
        ]
        if not parts:
            return
        for page, *_ in parts:
            page.changed, page.sent_at = "", now
        texts = await in_thread(
            self._writing, lambda: [_write(page, *waiting) for page, _, waiting, _ in parts]
        )
        for (page, changed, _, cursor), text in zip(parts, texts, strict=True):
            page.stream.append(changed + text + live.mark(cursor))

    # --- The slow lane ----------------------------------------------------------------------

    def keep_rendering(self, closing: Callable[[], bool], ring: Callable[[], None]) -> None:
        """Let the slow lane run, in a task of its own, while there are pages.

        ``ring`` is called when there is something to send.
        """
        if self._pages and (self._lane is None or self._lane.done()):
            lane = self._render_pages(closing, ring)
            self._lane = asyncio.get_running_loop().create_task(lane, name="hub-pages")

    async def _render_pages(self, closing: Callable[[], bool], ring: Callable[[], None]) -> None:
        while self._pages and not closing():
            began = time.monotonic()
            page = next_due(self._pages.values(), began)
            if page is None:
                await asyncio.sleep(RENDER_GAP / 5)
                continue
            page.has_news, page.rendered_at = False, began
            if page.is_new_to_somebody:
                page.is_new_to_somebody = False
                page.state.clear()
            read_at, in_time = datetime.now(UTC), True
            try:
                page.changed += await self._render(
                    page, partial(page.page.changes, state=page.state)
                )
            except Exception as error:
                in_time = False
                page.state.clear()  # the next rendering sends everything
                logger.warning("the page %s could not be rendered: %r", page.page.name, error)
            page.note_reading(read_at, in_time and time.monotonic() - began <= LONGEST)
            if page.changed:
                ring()
            # As long again: rendering takes half a core at most.
            await asyncio.sleep(time.monotonic() - began)

    def _render(self, page: Open, write: Callable[[Asked], str]) -> Awaitable[str]:
        def render() -> str:
            with bounded_reads(LONGEST):
                return write(page.asked.at(datetime.now(UTC)))

        return in_thread(self._rendering, render)


def _write(page: Open, lines: Sequence[Line], left_out: int) -> str:
    if not lines or not page.page.feed:
        return ""
    return live.feed(page.asked, lines, left_out, now=datetime.now(UTC))


def _newest(page: Open, after: int, upto: int) -> tuple[str, None]:
    """The newest events: more came than are counted."""
    if not page.page.feed:
        return "", None
    with bounded_reads(LONGEST):
        return live.newest(page.asked.at(datetime.now(UTC))), None
