"""Record captured webhooks from a file: one JSON a line, the same write path, idempotent."""

import math
import os
import sys
import time
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from itertools import batched
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import OperationalError, connection
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from ingest import publish
from ingest.models import Source
from ingest.normalize import NotUnderstood, decode
from ingest.record import Item, item_from_body, write_safely

BATCH = 500
PAUSE = 0.02  # seconds: without it a bulk writer starves the recorder of a running server
SHOWN_LINES = 20


class BadLine(Exception):
    """A line that holds no webhook; the text says why."""


class Captured(msgspec.Struct, forbid_unknown_fields=True):
    """A line that says more than the body: when it came, and by which named source."""

    body: msgspec.Raw
    received_at: str | float | None = None
    source: str | None = None


def read_captured(line: bytes) -> tuple[bytes, int | None, str]:
    """A line as (raw body, receipt time in microseconds or None, source's name or "").

    The body's bytes are those of the line, or of the string that it holds. Raises ``BadLine``.
    """
    try:
        parsed = decode(line)
    except ValueError as error:
        raise BadLine("not JSON") from error
    if not (isinstance(parsed, dict) and "body" in parsed):
        return line, None, ""
    if not parsed.keys() <= {"body", "received_at", "source"}:
        return line, None, ""  # a body of its own that happens to have this key
    try:
        captured = msgspec.json.decode(line, type=Captured)
        body = bytes(captured.body)
        if body.startswith(b'"'):
            body = msgspec.json.decode(body, type=str).encode()
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise BadLine(str(error)) from error
    return body, read_time(captured.received_at), captured.source or ""


def read_time(value: str | float | None) -> int | None:
    """ISO 8601 (UTC unless it says otherwise), or seconds or milliseconds since 1970.

    In microseconds; None for None. Raises ``BadLine``.
    """
    if value is None:
        return None
    try:
        if isinstance(value, str) and "T" in value.upper():
            moment = datetime.fromisoformat(value)
            moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
            return round(moment.timestamp() * 1_000_000)
        number = float(value)
    except (ValueError, OverflowError) as error:
        raise BadLine(f"received_at is no time: {value}") from error
    if not math.isfinite(number) or not 0 <= number < 1e14:
        raise BadLine(f"received_at is no time: {value}")
    return round(number * (1_000_000 if number < 1e11 else 1000))


class Replay:
    """Counts what became of the lines. ``now`` stands in for receipt times that lines lack."""

    def __init__(self, *, now: int) -> None:
        self.now = now
        self.counts: Counter[str] = Counter()
        self.bad: list[tuple[int, str]] = []
        self.read = 0  # bytes
        self.last_line = 0
        self._sources: dict[str, Source | None] = {}

    def run(self, lines: Iterable[tuple[int, bytes]]) -> Iterator[None]:
        """Record the numbered lines, a batch a step."""
        for batch in batched(lines, BATCH):
            items = [item for item in map(self._item, batch) if item]
            if items:
                write_safely(items, now=self.now)
                self.counts.update(item.status for item in items)
                publish.ring()
            self.read += sum(len(line) for _, line in batch)
            self.last_line = batch[-1][0]
            yield
            if items and connection.vendor == "sqlite":
                time.sleep(PAUSE)

    def _item(self, numbered: tuple[int, bytes]) -> Item | None:
        number, line = numbered
        line = line.strip()
        if not line:
            return None
        try:
            item = self._read(line)
        except BadLine as error:
            self.counts["bad"] += 1
            self.bad.append((number, str(error)))
            return None
        if _of_another_app(item):
            self.counts["ignored"] += 1
            return None
        return item

    def _read(self, line: bytes) -> Item:
        body, received_at, name = read_captured(line)
        source = self._source(name)
        return item_from_body(
            body,
            # What was captured came before now, whatever its clock said.
            received_at=self.now if received_at is None else min(received_at, self.now),
            source_id=source.pk if source else None,
            location_ref=source.location_ref if source else "",
        )

    def _source(self, name: str) -> Source | None:
        if name and name not in self._sources:
            self._sources[name] = Source.objects.filter(name=name).first()
        source = self._sources.get(name)
        if name and source is None:
            raise BadLine(f"no source is named {name}")
        return source

    def summary(self) -> str:
        """One line for people and for scripts."""
        words = ("stored", "duplicate", "ignored", "kept", "bad")
        return ", ".join(f"{self.counts[word]:,} {word}" for word in words)


def _of_another_app(item: Item) -> bool:
    ours = settings.WEBHOOK_APP_ID
    if not ours or isinstance(item.result, NotUnderstood):
        return False
    return item.result.app_id not in ("", ours)


def _numbered(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    for number, line in enumerate(file, start=1):
        yield number, line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line


def _open(path: str) -> AbstractContextManager[BinaryIO]:
    if path == "-":
        return nullcontext(sys.stdin.buffer)
    try:
        return Path(path).open("rb")
    except OSError as error:
        raise CommandError(f"{path} cannot be read: {error.strerror}") from error


def _size(file: BinaryIO) -> int | None:
    """Bytes of a regular file; None for what has no end yet, such as a pipe."""
    try:
        return os.fstat(file.fileno()).st_size or None
    except OSError:
        return None


class Command(BaseCommand):
    """What ``manage.py replay FILE`` does."""

    help = __doc__ or ""

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument(
            "file",
            help='one body a line, or {"received_at": …, "body": …, "source": name}; - for stdin',
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Record the whole file. Raises ``CommandError`` at the end if lines were unreadable."""
        replay = Replay(now=time.time_ns() // 1000)
        try:
            with _open(options["file"]) as file, self._progress() as progress:
                task = progress.add_task("reading", total=_size(file), counts="")
                for _ in replay.run(_numbered(file)):
                    progress.update(task, completed=replay.read, counts=replay.summary())
        except OperationalError as error:
            raise CommandError(
                f"the database did not take what follows line {replay.last_line}: {error}\n"
                "Run it again: what is stored stays stored once."
            ) from error
        finally:
            self._report(replay)
        if replay.bad:
            raise CommandError(f"{len(replay.bad):,} lines hold no webhook.")

    def _progress(self) -> Progress:
        """A bar on a terminal; elsewhere nothing until the summary."""
        return Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[counts]}"),
            console=Console(stderr=True),
            disable=not sys.stderr.isatty(),
        )

    def _report(self, replay: Replay) -> None:
        for number, reason in replay.bad[:SHOWN_LINES]:
            self.stderr.write(f"line {number}: {reason}")
        if len(replay.bad) > SHOWN_LINES:
            self.stderr.write(f"… and {len(replay.bad) - SHOWN_LINES:,} more")
        self.stdout.write(replay.summary())
