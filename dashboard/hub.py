"""One hub a process: reads new events after its cursor and hands them to this process's sockets.

The table is the truth: the bell (``ingest.publish``) only wakes the hub early, and a socket that
falls behind or comes back reads what it missed from the table. Each distinct filter (with its
reader's rights) is one stream; its rows are matched and encoded, and its page fragments
rendered, once for all of its sockets.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import orjson
from channels.layers import InMemoryChannelLayer, get_channel_layer

from dashboard import queries
from dashboard.access import Rights
from dashboard.filters import Filter
from dashboard.open_pages import OpenPages
from dashboard.pages.page import Asked, Page
from dashboard.queries import EventRow
from dashboard.streams import Closing, Stream, in_thread
from ingest import publish

logger = logging.getLogger(__name__)

BEAT = 0.2  # seconds between looks at the table when no bell rings
FRAME_GAP = 0.125  # least seconds between two frames of a stream
FRAME_ROWS = 500
FRAME_BYTES = 256 * 1024
READ_ROWS = 2_000

BEHIND_CODE, GOING_CODE = 4408, 1012


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
        self._pages = OpenPages()
        self._task: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._bell = asyncio.Event()
        self._closing = False
        self._starting, self._ticking = asyncio.Lock(), asyncio.Lock()
        self._reading = ThreadPoolExecutor(1, thread_name_prefix="hub-read")
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
        return [*self._streams.values(), *self._pages.streams]

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
            matching = stream.shown(rows)
            if matching or after == upto:
                for text in encode_frames(matching, after):
                    yield text

    async def fragments(
        self, page: Page, asked: Asked, after: int | None = None
    ) -> AsyncIterator[str]:
        """HTML for the page: what has changed, as often as it does; see ``OpenPages.frames``."""
        await self._start()
        async for text in self._pages.frames(
            page, asked, self.cursor, after, lambda: self._closing
        ):
            yield text

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
                newest = await in_thread(self._reading, queries.newest_cursor)
            if not self.sockets:
                self.cursor = newest
            if self._task is None or self._task.done():
                self._task = loop.create_task(self._run(), name="hub")

    async def _run(self) -> None:
        bell = asyncio.create_task(self._hear(), name="hub-bell")
        while not self._closing:
            await self._wait()
            if not self.sockets:
                continue
            try:
                await self._tick()
                await self._pages.send()
            except Exception:
                logger.exception("the hub could not read the events; it tries again")
                await asyncio.sleep(BEAT)
            self._pages.keep_rendering(lambda: self._closing, self._bell.set)
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
            if matching := stream.shown(rows):
                for text in encode_frames(matching, self.cursor):
                    stream.append(text)
        self._pages.take(rows, self.cursor)
        return len(rows) == READ_ROWS

    async def _read(self, after: int, until: int | None) -> list[EventRow]:
        return await in_thread(
            self._reading, lambda: queries.event_rows(after=after, until=until, limit=READ_ROWS)
        )


hub = Hub()
