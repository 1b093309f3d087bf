"""Reads that end: a question that would take too long is stopped, and its asker told so."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from django.db import OperationalError, connection, transaction

LONGEST = 1.3  # seconds; with all that surrounds them, answers come within 1.5
_STEPS = 10_000  # of SQLite's machine between two looks at the clock: well under a millisecond


class _Active(threading.local):
    """The bound that holds in this thread, as ``time.monotonic()``; ``None`` without one."""

    deadline: float | None = None


_active = _Active()


class TookTooLong(Exception):
    """A read was stopped. Its text is one plain sentence for a 503."""

    def __init__(self) -> None:
        super().__init__("This took too long and was stopped: ask for less time or one location.")


@contextmanager
def bounded_reads(seconds: float | None = None) -> Iterator[None]:
    """Stop what is asked of the database inside after so long, or ``LONGEST``: ``TookTooLong``.

    On PostgreSQL each statement may take so long, on SQLite all of them together. Nothing may be
    written inside. Within another one the shorter of the two holds.
    """
    outer = _active.deadline
    deadline = time.monotonic() + (LONGEST if seconds is None else seconds)
    _active.deadline = deadline if outer is None else min(deadline, outer)
    bound = _bounded_on_sqlite if connection.vendor == "sqlite" else _bounded
    try:
        with bound(_active.deadline, outer):
            yield
    except OperationalError as error:
        if _was_stopped(error):
            raise TookTooLong from error
        raise
    finally:
        _active.deadline = outer


def within[Answer](seconds: float, read: Callable[[], Answer]) -> Answer | None:
    """What a read answers, or ``None`` if it takes longer: for a way that may be a short cut."""
    try:
        with bounded_reads(seconds):
            return read()
    except TookTooLong:
        return None


@contextmanager
def _bounded(deadline: float, outer: float | None) -> Iterator[None]:
    nested = connection.in_atomic_block  # then the setting would outlive this
    with transaction.atomic(), connection.cursor() as cursor:
        before = "0"
        if nested:
            cursor.execute("SHOW statement_timeout")
            (before,) = cursor.fetchone()
        set_limit = "SELECT set_config('statement_timeout', %s, true)"
        milliseconds = int(1000 * (deadline - time.monotonic()))
        cursor.execute(set_limit, [str(max(1, milliseconds))])
        yield
        if nested:
            cursor.execute(set_limit, [before])


@contextmanager
def _bounded_on_sqlite(deadline: float, outer: float | None) -> Iterator[None]:
    # No transaction: it would take the lock to write.
    connection.ensure_connection()
    _stop_sqlite_at(deadline)
    try:
        yield
    finally:
        with suppress(Exception):  # the connection may be closed by now
            _stop_sqlite_at(outer)


def _stop_sqlite_at(deadline: float | None) -> None:
    stop = deadline and (lambda: int(time.monotonic() > deadline))
    connection.connection.set_progress_handler(stop, _STEPS)


def _was_stopped(error: OperationalError) -> bool:
    """Whether the limit stopped it, and not a lost connection or another trouble."""
    cause = error.__cause__
    if connection.vendor == "sqlite":
        return getattr(cause, "sqlite_errorname", "") == "SQLITE_INTERRUPT"
    return getattr(cause, "sqlstate", "") == "57014"
