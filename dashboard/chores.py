"""What a server does beside requests and webhooks: a small step now and then, in a thread.

It follows the bell of the recorder, and looks by itself once a minute. Several processes may: each
step takes care that only one of them writes.
"""

import logging
import threading
import time

from django.db import DatabaseError, connection

from dashboard import suppressing
from dashboard.review import filling
from ingest import publish

logger = logging.getLogger(__name__)

GAP = 2.0  # seconds between two steps when there is little to do …
SHARE = 4  # … and while there is much, a step takes a fourth of the time at most
IDLE = 60.0  # seconds after which it looks without a bell
AFTER_FAILURE = 30.0  # seconds


class Chores:
    """The thread of one process; ``start`` begins it, ``close`` ends it."""

    def __init__(self) -> None:
        self._bell, self._closed = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin; once is enough."""
        if self._thread is None:
            publish.listeners.append(self._bell.set)
            self._bell.set()
            self._thread = threading.Thread(target=self._run, name="chores", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Begin no further step."""
        self._closed.set()
        self._bell.set()

    def _run(self) -> None:
        while not self._closed.is_set():
            self._bell.wait(IDLE)
            self._bell.clear()
            self._closed.wait(self._step())
        connection.close()

    def _step(self) -> float:
        """Do a step. Returns the seconds to wait for the next one."""
        began = time.monotonic()
        try:
            more = suppressing.follow_some()
            if not more:
                suppressing.look_again()
            more = filling.fill() or more
        except DatabaseError as error:
            logger.warning("the lists of people could not follow the events: %s", error)
            connection.close()
            return AFTER_FAILURE
        except Exception:  # the thread must go on
            logger.exception("the lists of people could not follow the events")
            return AFTER_FAILURE
        if more:
            self._bell.set()
            return (SHARE - 1) * (time.monotonic() - began)
        return GAP


chores = Chores()
