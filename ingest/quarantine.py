"""Webhooks whose signature failed, set apart until other keys are tried (``replay_kept``).

For the day that HighLevel changes its keys: with ``WEBHOOK_QUARANTINE`` on, such webhooks are
stored beside the mail instead of being refused. They are never counted and never shown as mail.
Anyone can send us wrong signatures, so everything here is bounded: how many may wait to be
written, how much is written a second, how many are kept, and (``ingest.retention``) how long.
"""

import asyncio
import json
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b

from django.conf import settings
from django.db import DataError, IntegrityError, transaction
from django.db.models import Count, Sum
from django.db.models.functions import Length

from ingest.models import QuarantinedWebhook
from ingest.statements import aware_utc
from ingest.verify import collect_headers, header_value

MAX_HEADERS, MAX_HEADER = 8, 2_000  # of a webhook; characters of each


@dataclass(frozen=True, slots=True)
class Suspect:
    """A webhook whose signature failed. ``received_at`` is in microseconds."""

    body: bytes
    headers: str  # its signature headers, as a JSON object
    received_at: int
    source_id: int | None

    @property
    def digest(self) -> bytes:
        """Of all of it: what a stranger sends must not stand in for the real one."""
        hash = blake2b(self.body, digest_size=16)
        hash.update(f"\0{self.source_id}\0{self.headers}".encode())
        return hash.digest()

    @property
    def row(self) -> QuarantinedWebhook:
        """Its row, not saved."""
        return QuarantinedWebhook(
            received_at=aware_utc(self.received_at),
            source_id=self.source_id,
            headers=self.headers,
            digest=self.digest,
            body=self.body,
        )


def signature_headers(raw: Iterable[tuple[bytes, bytes]], own: str = "") -> str:
    """The headers that hold signatures, as a JSON object; "" where there is none to verify again.

    ``raw`` is ASGI's list; ``own`` names a header of a source's own. Other headers with
    "signature" in their name are kept too: the setting may be what is wrong.
    """
    raw = list(raw)
    names = {name.lower() for name, _ in raw if b"signature" in name.lower()}
    names |= {own.lower().encode("latin-1", "replace")} - {b""}
    headers = collect_headers(raw, names)
    found = {
        name: value
        for name, value in sorted(headers.items())[:MAX_HEADERS]
        if header_value(headers, name) and len(value) <= MAX_HEADER
    }
    return json.dumps(found) if found else ""


@dataclass(slots=True)
class _Waiting:
    suspect: Suspect
    future: asyncio.Future[bool | None]
    loop: asyncio.AbstractEventLoop


class Quarantine:
    """What waits to be set apart in one process; the recorder's thread writes it.

    ``due`` tells it when, ``run`` does it: a batch at a time, four a second at most.
    """

    interval = 0.25  # seconds between two writes
    batch, batch_bytes = 100, 512 << 10  # of one write
    waiting, waiting_bytes = 400, 4 << 20  # that may wait for it
    _known_for = 10.0  # seconds

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._queue: deque[_Waiting] = deque()
        self._queued_bytes = 0
        self._next = 0.0
        self._number = self._bytes = 0  # in the table, as far as this process knows
        self._known_until = 0.0

    def put(self, suspect: Suspect) -> asyncio.Future[bool | None] | None:
        """Line up to be written; None where too much waits. Called in the loop that will wait.

        The future tells whether it was set apart, and None if that could not be written now.
        """
        loop = asyncio.get_running_loop()
        waiting = _Waiting(suspect, loop.create_future(), loop)
        size = len(suspect.body)
        with self._lock:
            full = len(self._queue) >= self.waiting
            if full or self._queued_bytes + size > self.waiting_bytes:
                return None
            self._queue.append(waiting)
            self._queued_bytes += size
        return waiting.future

    def due(self, now: float) -> float | None:
        """Seconds until ``run`` should be called; None while nothing waits.

        ``now`` is ``time.monotonic()``.
        """
        return max(0.0, self._next - now) if self._queue else None

    def run(self) -> None:
        """Write a batch of what waits, as far as there is room. Raises the database's errors."""
        self._next = time.monotonic() + self.interval
        taken = self._take()
        apart: bool | None = None
        try:
            apart = self._write([waiting.suspect for waiting in taken])
        finally:
            for waiting in taken:
                if not waiting.loop.is_closed():
                    waiting.loop.call_soon_threadsafe(_settle, waiting.future, apart)

    def _take(self) -> list[_Waiting]:
        taken: list[_Waiting] = []
        size = 0
        with self._lock:
            while self._queue and len(taken) < self.batch and size < self.batch_bytes:
                taken.append(self._queue.popleft())
                size += len(taken[-1].suspect.body)
            self._queued_bytes -= size
        return taken

    def _write(self, suspects: Sequence[Suspect]) -> bool:
        """Whether they were set apart: all, or none where the quarantine is full."""
        size = sum(len(suspect.body) for suspect in suspects)
        self._look()
        if self._number + len(suspects) > settings.WEBHOOK_QUARANTINE_MOST:
            return False
        if self._bytes + size > settings.WEBHOOK_QUARANTINE_BYTES:
            return False
        try:
            with transaction.atomic():
                QuarantinedWebhook.objects.bulk_create(
                    [suspect.row for suspect in suspects], ignore_conflicts=True
                )
        except (DataError, IntegrityError):  # a source withdrawn meanwhile
            return False
        self._number += len(suspects)
        self._bytes += size
        return True

    def _look(self) -> None:
        """How much is in the table: it is written and emptied by other processes too."""
        if time.monotonic() < self._known_until:
            return
        held = QuarantinedWebhook.objects.aggregate(n=Count("id"), size=Sum(Length("body")))
        self._number, self._bytes = held["n"], held["size"] or 0
        self._known_until = time.monotonic() + self._known_for

    def clear(self) -> None:
        """Forget how much is in the table: another database is behind the connection."""
        self._known_until = 0.0


def _settle(future: asyncio.Future[bool | None], apart: bool | None) -> None:
    if not future.done():
        future.set_result(apart)


quarantine = Quarantine()
