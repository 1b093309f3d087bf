"""Answers that may be a minute or two old, and that nobody waits for but who asks first."""

import logging
import threading
import time
from collections.abc import Callable, Hashable
from typing import Any
from weakref import WeakSet

from django.db import connection

from dashboard.bounded import bounded_reads

FRESH = 60.0  # seconds for which an answer is given as it is
STALE = 120.0  # seconds after which it is not given any more
LONGEST = 20.0  # seconds that one statement of the next answer may take

log = logging.getLogger(__name__)
_all: "WeakSet[Refreshed[Any] | Kept[Any, Any]]" = WeakSet()


def forget_all() -> None:
    """Work everything out anew: another database is asked now, as tests do one after the other."""
    for one in _all:
        one.forget()


class Refreshed[Answer]:
    """One answer of a process, worked out anew beside the requests while they ask for it.

    Who asks first works it out, and who comes in the meantime waits for that. An answer that is no
    longer fresh is given once more, while a thread works out the next; so is one that could not be
    worked out anew, until it is stale. ``known`` is an answer that somebody has just worked out,
    ``fresh`` for how many seconds one is given as it is.
    """

    def __init__(self, known: Answer | None = None, *, fresh: float = FRESH) -> None:
        self._lock, self._refreshing = threading.Lock(), threading.Lock()
        self._fresh = fresh
        self._known = None if known is None else (time.monotonic(), known)
        _all.add(self)

    def forget(self) -> None:
        """Work it out anew at the next question."""
        self._known = None

    def get(self, work: Callable[[], Answer]) -> Answer:
        """The answer. ``work`` may be called in a thread of its own, with its own connection."""
        if (known := self._known) is None or _age(known) > STALE:
            return self._first(work)
        since, answer = known
        if _age(known) > self._fresh and self._refreshing.acquire(blocking=False):
            _beside(lambda: self._refresh(work))
        return answer

    def _first(self, work: Callable[[], Answer]) -> Answer:
        with self._lock:
            if (known := self._known) is None or _age(known) > STALE:
                self._known = known = (time.monotonic(), work())
            return known[1]

    def _refresh(self, work: Callable[[], Answer]) -> None:
        try:
            began = time.monotonic()
            with bounded_reads(LONGEST):
                self._known = (began, work())
        except Exception:  # whatever it was, whoever asks when it is stale is told
            log.exception("An answer could not be renewed")
        finally:
            self._refreshing.release()


class Kept[Key: Hashable, Answer]:
    """Answers by what was asked, each refreshed; only those are kept that are ``worth`` it."""

    def __init__(
        self, worth: Callable[[Answer], bool], *, fresh: float = FRESH, most: int = 50
    ) -> None:
        self._worth, self._fresh, self._most = worth, fresh, most
        self._known: dict[Key, Refreshed[Answer]] = {}
        _all.add(self)

    def forget(self) -> None:
        """Work every answer out anew."""
        self._known.clear()

    def get(self, key: Key, work: Callable[[], Answer]) -> Answer:
        """The answer: the one that is kept, or a new one."""
        if known := self._known.get(key):
            return known.get(work)
        found = work()
        if self._worth(found):
            if len(self._known) >= self._most:
                self._known.clear()
            self._known[key] = Refreshed(found, fresh=self._fresh)
        return found


def _age(known: tuple[float, object]) -> float:
    return time.monotonic() - known[0]


def _beside(work: Callable[[], None]) -> None:
    threading.Thread(target=_alone, args=[work], name="refresh", daemon=True).start()


def _alone(work: Callable[[], None]) -> None:
    try:
        work()
    finally:
        connection.close()  # this thread's own
