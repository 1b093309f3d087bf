"""Frames that are made once for many sockets, each of which takes them at its own pace."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from django.db import InterfaceError, OperationalError, connection

from dashboard.access import Rights
from dashboard.filters import Filter
from dashboard.queries import EventRow, shown_event

BEHIND = 10.0  # seconds a socket may lag before it is closed (it resumes)


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

    def shown(self, rows: Iterable[EventRow]) -> list[EventRow]:
        """Those that match, as the reader may see them."""
        return [shown_event(row, self.rights) for row in rows if self.matches(row)]

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


async def in_thread[T](pool: ThreadPoolExecutor, work: Callable[[], T]) -> T:
    """Run in a long-lived thread, which keeps its connection until that breaks."""

    def guarded() -> T:
        try:
            return work()
        except (OperationalError, InterfaceError):
            connection.close()
            raise

    return await asyncio.get_running_loop().run_in_executor(pool, guarded)
