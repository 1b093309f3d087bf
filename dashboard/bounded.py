"""Reads that end: a question that would take too long is stopped, and its asker told so."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from django.db import OperationalError, connection, transaction

LONGEST = 1.3  # seconds; with all that surrounds them, answers come within 1.5
_STEPS = 10_000  # of SQLite's machine between two looks at the clock: well under a millisecond
_active = threading.local()


class TookTooLong(Exception):
    """A read was stopped. Its text is one plain sentence for a 503."""

    def __init__(self) -> None:
        super().__init__("This took too long and was stopped: ask for less time or one location.")


@contextmanager
def bounded_reads(seconds: float | None = None) -> Iterator[None]:
    """Stop what is asked of the database inside after so long, or ``LONGEST``: ``TookTooLong``.

    On PostgreSQL each statement may take so long, on SQLite all of them together. Nothing may be
    written inside. Within another one it does nothing: the outer one bounds both.
    """
    if getattr(_active, "yes", False):
        yield
        return
    _active.yes = True
    seconds = LONGEST if seconds is None else seconds
    try:
        with _bounded_on_sqlite(seconds) if connection.vendor == "sqlite" else _bounded(seconds):
            yield
    except OperationalError as error:
        if _was_stopped(error):
            raise TookTooLong from error
        raise
    finally:
        _active.yes = False


@contextmanager
def _bounded(seconds: float) -> Iterator[None]:
    nested = connection.in_atomic_block  # then the setting would outlive this
    with transaction.atomic(), connection.cursor() as cursor:
        before = "0"
        if nested:
            cursor.execute("SHOW statement_timeout")
            (before,) = cursor.fetchone()
        set_limit = "SELECT set_config('statement_timeout', %s, true)"
        cursor.execute(set_limit, [str(max(1, int(seconds * 1000)))])
        yield
        if nested:
            cursor.execute(set_limit, [before])


@contextmanager
def _bounded_on_sqlite(seconds: float) -> Iterator[None]:
    # No transaction: it would take the lock to write.
    connection.ensure_connection()
    stored = connection.connection
    deadline = time.monotonic() + seconds
    stored.set_progress_handler(lambda: int(time.monotonic() > deadline), _STEPS)
    try:
        yield
    finally:
        with suppress(Exception):  # the connection may be closed by now
            stored.set_progress_handler(None, 0)


def _was_stopped(error: OperationalError) -> bool:
    """Whether the limit stopped it, and not a lost connection or another trouble."""
    cause = error.__cause__
    if connection.vendor == "sqlite":
        return getattr(cause, "sqlite_errorname", "") == "SQLITE_INTERRUPT"
    return getattr(cause, "sqlstate", "") == "57014"
