"""``manage.py prune``: let go of what is older than it is to be kept."""

import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import OperationalError, connection
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from ingest.retention import Pruning, Step

# Rows a transaction. SQLite has one writer at a time: a long one would hold up the recorder.
LIMIT = {"sqlite": 500, "postgresql": 5_000}
PAUSE = 0.02  # seconds at least after each on SQLite: a bulk writer would starve the recorder
WAIT = 0.2  # seconds, while writers that know only the older horizon come to their end


class Command(BaseCommand):
    """What ``manage.py prune`` does. It may be stopped at any time, and goes on where it ended."""

    help = (
        "Delete payloads, events and deliveries that are older than PAYLOAD_RETENTION_DAYS and "
        "EVENT_RETENTION_DAYS, and make days of counters that are older than two years."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--dry-run", action="store_true", help="change nothing; say how much would go"
        )

    def handle(self, *args: Any, dry_run: bool = False, **options: Any) -> None:
        """Prune until nothing old is left, or until a signal. Raises ``CommandError``."""
        pruning = Pruning(now=time.time_ns() // 1000, limit=LIMIT[connection.vendor], dry=dry_run)
        counts: Counter[str] = Counter()
        try:
            with stopping() as stop, self._progress() as progress:
                for step in _paced(pruning, stop):
                    counts[step.what] += step.rows
                    _show(progress, step, counts)
        except OperationalError as error:
            raise CommandError(
                f"the database did not take a step: {error}\nRun it again: it goes on from there."
            ) from error
        finally:
            self.stdout.write(summary(counts, dry=dry_run))
        if stop.is_set():
            self.stdout.write("stopped; the next run goes on from here")

    def _progress(self) -> Progress:
        """A bar a kind of thing on a terminal; elsewhere nothing until the summary."""
        return Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[rows]:,}"),
            console=Console(stderr=True),
            disable=not sys.stderr.isatty(),
        )


def _paced(pruning: Pruning, stop: threading.Event) -> Iterator[Step]:
    """The steps, until there are no more or it is to stop; it rests as long as each took."""
    least = PAUSE if connection.vendor == "sqlite" else 0.0
    begun = time.monotonic()
    for step in pruning.steps():
        yield step
        rest = 0.0 if pruning.dry else max(least, time.monotonic() - begun)
        if stop.wait(WAIT if step.waits else rest):
            return
        begun = time.monotonic()


@contextmanager
def stopping() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set, so that the step that runs comes to its end."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    former = {
        number: signal.signal(number, lambda *_: stop.set())
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield stop
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _show(progress: Progress, step: Step, counts: Counter[str]) -> None:
    """Move the bar of what the step was about; the first of its kind begins one."""
    bars = {task.description: task for task in progress.tasks}
    bar = bars.get(step.what)
    task = bar.id if bar else progress.add_task(step.what, total=1.0, rows=0)
    progress.update(task, completed=step.share, rows=counts[step.what])


def summary(counts: Counter[str], *, dry: bool) -> str:
    """One line for people and for scripts."""
    words = [f"{rows:,} {what}" for what, rows in counts.items() if rows]
    if not words:
        return "nothing is old enough"
    return f"{'would go' if dry else 'gone'}: {', '.join(words)}"
