"""Read kept and quarantined webhooks again, after a parser, a rule or a key has changed."""

import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import InterfaceError, OperationalError
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from ingest.kept import BECAME, QUARANTINED, Rereading

SHOWN_REASONS = 50


class Command(BaseCommand):
    """What ``manage.py replay_kept`` does."""

    help = __doc__ or ""

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument(
            "--dry-run", action="store_true", help="Only count what would become of them."
        )
        parser.add_argument(
            "--reason",
            default="",
            help=f'Only those whose reason contains this; "{QUARANTINED}" for those set apart'
            " because their signature failed.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Count by reason, then do it. Raises ``CommandError`` if the database fails."""
        reading = Rereading(reason=options["reason"].strip())
        waiting = reading.waiting()
        if waiting:
            self._step_through("counting", reading.foresee(), waiting)
            self._report(reading)
            if options["dry_run"]:
                self.stdout.write(f"would become: {_summary(reading)}")
                return
            try:
                self._step_through("storing", reading.run(), waiting)
            except (OperationalError, InterfaceError) as error:
                raise CommandError(
                    f"the database did not take all of it ({_summary(reading)}): {error}\n"
                    "Run it again: what is stored stays stored once."
                ) from error
        self.stdout.write(_summary(reading))

    def _report(self, reading: Rereading) -> None:
        """A line a reason: what would become of the webhooks kept for it."""
        by_reason: dict[str, list[str]] = {}
        totals: dict[str, int] = {}
        for (reason, became), n in sorted(reading.counts.items()):
            verb = "still " if became in ("kept", QUARANTINED) else ""
            by_reason.setdefault(reason, []).append(f"{n:,} {verb}{became}")
            totals[reason] = totals.get(reason, 0) + n
        reasons = sorted(by_reason, key=lambda reason: (-totals[reason], reason))
        for reason in reasons[:SHOWN_REASONS]:
            self.stdout.write(f"{reason}: {', '.join(by_reason[reason])}")
        if len(reasons) > SHOWN_REASONS:
            self.stdout.write(f"… and {len(reasons) - SHOWN_REASONS:,} more reasons")

    @staticmethod
    def _step_through(what: str, steps: Iterator[int], total: int) -> None:
        """Take every step, behind a bar on a terminal."""
        progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not sys.stderr.isatty(),
        )
        with progress:
            task = progress.add_task(what, total=total)
            for n in steps:
                progress.advance(task, n)


def _summary(reading: Rereading) -> str:
    """One line for people and for scripts."""
    return ", ".join(f"{reading.total(word):,} {word}" for word in BECAME)
