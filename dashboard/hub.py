"""One hub a process: reads new events after its cursor and hands them to this process's sockets.

The table is the truth: the bell (``ingest.publish``) only wakes the hub early, and a socket that
falls behind or comes back reads what it missed from the table. Each distinct filter (with its
reader's rights) is one stream; its rows are matched and encoded, and its page fragments
rendered, once for all of its sockets.
"""

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import orjson
from channels.layers import InMemoryChannelLayer, get_channel_layer
from django.db import InterfaceError, OperationalError, connection

from dashboard import live, queries
from dashboard.access import Rights
from dashboard.filters import Filter
from dashboard.queries import EventRow
from ingest import publish

logger = logging.getLogger(__name__)

BEAT = 0.2  # seconds between looks at the table when no bell rings
FRAME_GAP = 0.1  # least seconds between two frames of a stream
FRAME_ROWS = 500
FRAME_BYTES = 256 * 1024
READ_ROWS = 2_000
BEHIND = 10.0  # seconds a socket may lag before it is closed (it resumes)
RENDER_GAP = 0.25  # least seconds between two renderings of a page's fragments
REFRESH = 10.0  # a page without events is rendered again after this long: its minutes move

BEHIND_CODE, GOING_CODE = 4408, 1012


class Behind(Exception):
    """The socket did not take its frames for too long; it may resume where it was."""


class Closing(Exception):
    """The process is stopping; the socket may come back to another."""


@dataclass(slots=True)
class Frame:
    """What a stream sends at once. ``cursor`` is the last event that it takes account of."""

    text: str
    cursor: int
    at: float  # time.monotonic()


class Stream:
    """The frames of one filter, as its sockets see them; each follows at its own pace."""

    def __init__(self, filter: Filter, rights: Rights, cursor: int) -> None:
        self.filter, self.rights, self.cursor = filter, rights, cursor
        self.frames: deque[Frame] = deque()
        self.dropped = 0  # frames that are no longer held: the number of the first one held
        self.followers = 0
        self._news = asyncio.Event()

    def matches(self, row: EventRow) -> bool:
        """Whether the reader may see the event, and asked for it."""
        return self.rights.sees(row.location_id) and self.filter.matches(row)

    @property
    def next(self) -> int:
        """The number of the frame that comes next."""
        return self.dropped + len(self.frames)

    def append(self, text: str) -> None:
        """Hold a frame for the followers, and let go of those too old to wait for."""
        now = time.monotonic()
        self.frames.append(Frame(text, self.cursor, now))
        while self.frames[0].at < now - BEHIND:
            self.frames.popleft()
            self.dropped += 1
        self.wake()

    def wake(self) -> None:
        """Let the followers look again."""
        self._news.set()
        self._news = asyncio.Event()

    async def follow(self, number: int, closing: Callable[[], bool]) -> AsyncIterator[str]:
        """Frames from this number on. Raises ``Behind`` or ``Closing``."""
        while True:
            news = self._news
            while number < self.next:
                if number < self.dropped:
                    raise Behind
                yield self.frames[number - self.dropped].text
                number += 1
            if closing():
                raise Closing
            await news.wait()


@dataclass(slots=True)
class Page:
    """The fragments of one view and filter: what its last rendering knew, and what waits."""

    view: str
    stream: Stream
    rows: list[EventRow] = field(default_factory=list)
    state: dict[str, Any] = field(default_factory=dict)
    rendered_at: float = 0.0


def encode_frames(rows: Sequence[EventRow], cursor: int) -> list[str]:
    """Rows as JSON frames of bounded size; the last frame's cursor is the one given.

    Without rows it is one frame that only names the cursor.
    """
    frames: list[str] = []
    texts: list[bytes] = []
    size, last = 0, cursor
    for row in rows:
        text = orjson.dumps(row.as_json())
        if texts and (len(texts) == FRAME_ROWS or size + len(text) > FRAME_BYTES):
            frames.append(_frame(texts, last))
            texts, size = [], 0
        texts.append(text)
        size, last = size + len(text), row.cursor
    return [*frames, _frame(texts, cursor)]


def _frame(texts: list[bytes], cursor: int) -> str:
    return (b'{"events":[%b],"cursor":%d}' % (b",".join(texts), cursor)).decode()


class Hub:
    """Reads the event table for all sockets of this process, while there are any."""

    def __init__(self) -> None:
        self.cursor = 0
        self._streams: dict[tuple[str, Rights], Stream] = {}
        self._pages: dict[tuple[str, str, Rights], Page] = {}
        self._task: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._bell = asyncio.Event()
        self._closing = False
        self._starting, self._ticking = asyncio.Lock(), asyncio.Lock()
        self._reading = ThreadPoolExecutor(1, thread_name_prefix="hub-read")
        self._rendering = ThreadPoolExecutor(1, thread_name_prefix="hub-render")
        publish.listeners.append(self.ring)

    def ring(self) -> None:
        """Wake the hub: there are new events. Any thread may call it."""
        loop = self._loop
        if loop is not None and not loop.is_closed() and self._task is not None:
            loop.call_soon_threadsafe(self._bell.set)

    async def close(self) -> None:
        """Send every socket away (1012): the process is stopping."""
        self._closing = True
        for stream in self._all_streams():
            stream.wake()

    @property
    def sockets(self) -> int:
        """How many sockets follow a stream."""
        return sum(stream.followers for stream in self._all_streams())

    def _all_streams(self) -> list[Stream]:
        return [*self._streams.values(), *(page.stream for page in self._pages.values())]

    # --- Streams of events ------------------------------------------------------------------

    async def events(self, filter: Filter, rights: Rights, after: int | None) -> AsyncIterator[str]:
        """JSON frames of every matching event after the cursor, in order, once each.

        Without ``after`` it begins at the newest event, which a first frame names.
        Raises ``Behind`` or ``Closing``.
        """
        await self._start()
        if after is None:
            await self._tick()  # what is stored by now is not news to this socket
        key = (filter.canonical(), rights)
        stream = self._streams.get(key)
        if stream is None:
            stream = self._streams[key] = Stream(filter, rights, self.cursor)
        stream.followers += 1
        try:
            number, upto = stream.next, stream.cursor
            if after is None:
                yield encode_frames([], upto)[0]
            else:
                while after < upto:
                    async for text in self._past(stream, after, upto):
                        yield text
                    after = upto
                    if number < stream.dropped:  # it went on for longer than frames are held
                        number, upto = stream.next, stream.cursor
            async for text in stream.follow(number, lambda: self._closing):
                yield text
        finally:
            stream.followers -= 1
            if not stream.followers:
                self._streams.pop(key, None)

    async def _past(self, stream: Stream, after: int, upto: int) -> AsyncIterator[str]:
        """Frames of what the table holds between two cursors, a bounded read at a time."""
        while after < upto:
            rows = await self._read(after, upto)
            after = rows[-1].cursor if len(rows) == READ_ROWS else upto
            matching = [row for row in rows if stream.matches(row)]
            if matching or after == upto:
                for text in encode_frames(matching, after):
                    yield text

    # --- Fragments of pages -----------------------------------------------------------------

    async def fragments(self, view: str, filter: Filter, rights: Rights) -> AsyncIterator[str]:
        """HTML for the page: everything at first, then what has changed, as often as it does.

        Raises ``Behind`` or ``Closing``.
        """
        await self._start()
        key = (view, filter.canonical(), rights)
        page = self._pages.get(key)
        state: dict[str, Any] = {}
        if page is None:
            page = self._pages[key] = Page(view, Stream(filter, rights, self.cursor))
            page.rendered_at = time.monotonic()
            state = page.state  # what the first one is sent, the next rendering may leave out
        page.stream.followers += 1
        try:
            number = page.stream.next
            # The page was painted a moment ago; what happened since then comes first.
            yield await self._render(page, [], state)
            async for text in page.stream.follow(number, lambda: self._closing):
                yield text
        finally:
            page.stream.followers -= 1
            if not page.stream.followers:
                self._pages.pop(key, None)

    async def _render(self, page: Page, rows: list[EventRow], state: dict[str, Any]) -> str:
        def render() -> str:
            return live.fragments(
                page.view,
                page.stream.filter,
                page.stream.rights,
                now=datetime.now(UTC),
                rows=rows,
                state=state,
            )

        return await self._in_thread(self._rendering, render)

    async def _render_pages(self) -> None:
        """Render the pages whose time has come, for at most half of the time."""
        while self._pages and not self._closing:
            began = time.monotonic()
            for page in list(self._pages.values()):
                now = time.monotonic()
                waited = now - page.rendered_at
                if waited < (RENDER_GAP if page.rows else REFRESH):
                    continue
                rows, page.rows, page.rendered_at = page.rows, [], now
                try:
                    text = await self._render(page, rows, page.state)
                except (OperationalError, InterfaceError) as error:
                    logger.warning("a page could not be rendered: %s", error)
                    page.state.clear()  # the next rendering sends everything
                    continue
                if text:
                    page.stream.append(text)
            spent = time.monotonic() - began
            await asyncio.sleep(max(RENDER_GAP / 5, spent))

    # --- The beat ---------------------------------------------------------------------------

    async def _start(self) -> None:
        """Begin to read, in this loop, at the newest event."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop, self._bell = loop, asyncio.Event()
            self._starting, self._ticking = asyncio.Lock(), asyncio.Lock()
            self._task = None
            self._streams.clear()
            self._pages.clear()
        # Sockets come in crowds after a restart: none may go on before the cursor is known.
        async with self._starting:
            if self._closing:
                raise Closing
            newest = 0
            if not self.sockets:  # nobody read meanwhile, and nobody has missed anything
                newest = await self._in_thread(self._reading, queries.newest_cursor)
            if not self.sockets:
                self.cursor = newest
            if self._task is None or self._task.done():
                self._task = loop.create_task(self._run(), name="hub")

    async def _run(self) -> None:
        bell = asyncio.create_task(self._hear(), name="hub-bell")
        pages: asyncio.Task[None] | None = None
        while not self._closing:
            await self._wait()
            if not self.sockets:
                continue
            try:
                await self._tick()
            except Exception:
                logger.exception("the hub could not read the events; it tries again")
                await asyncio.sleep(BEAT)
            if self._pages and (pages is None or pages.done()):
                pages = asyncio.create_task(self._render_pages(), name="hub-pages")
        bell.cancel()

    async def _wait(self) -> None:
        """Until the bell or the beat; never less than a frame's gap."""
        await asyncio.sleep(FRAME_GAP)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._bell.wait(), BEAT - FRAME_GAP)
        self._bell.clear()

    async def _hear(self) -> None:
        """Ring for the bells of other processes, which come over the channel layer."""
        layer = get_channel_layer()
        if layer is None or isinstance(layer, InMemoryChannelLayer):
            return
        while True:
            try:
                channel = await layer.new_channel()
                await layer.group_add(publish.GROUP, channel)
                while True:
                    await layer.receive(channel)
                    self._bell.set()
            except Exception as error:  # the beat goes on without it
                logger.warning("the channel layer is out of reach: %s", error)
                await asyncio.sleep(2)

    async def _tick(self) -> None:
        """Read what is new, and hand it to the streams and pages that it concerns."""
        async with self._ticking:
            while await self._advance():
                await asyncio.sleep(FRAME_GAP)

    async def _advance(self) -> bool:
        """One read's worth of a tick. True if there may be more."""
        rows = await self._read(self.cursor, None)
        if rows:
            self.cursor = rows[-1].cursor
        for stream in self._streams.values():
            stream.cursor = self.cursor
            if matching := [row for row in rows if stream.matches(row)]:
                for text in encode_frames(matching, self.cursor):
                    stream.append(text)
        for page in self._pages.values():
            page.rows.extend(row for row in rows if page.stream.matches(row))
            del page.rows[:-READ_ROWS]
        return len(rows) == READ_ROWS

    async def _read(self, after: int, until: int | None) -> list[EventRow]:
        return await self._in_thread(
            self._reading, lambda: queries.event_rows(after=after, until=until, limit=READ_ROWS)
        )

    @staticmethod
    async def _in_thread[T](pool: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        """Run in a long-lived thread, which keeps its connection until that breaks."""

        def guarded() -> T:
            try:
                return work()
            except (OperationalError, InterfaceError):
                connection.close()
                raise

        return await asyncio.get_running_loop().run_in_executor(pool, guarded)


hub = Hub()
