"""``manage.py reclassify``: the rules of today over the failures that are stored."""

import sys
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import OperationalError
from django.db.models import Max
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from ingest import operator_rules, publish
from ingest.management.commands.prune import stopping
from ingest.models import ClassificationRule, Location
from ingest.reclassify import Filter, Reclassification, totals
from ingest.rejudge import Report
from ingest.vocabulary import Category

PAUSE = 0.02  # seconds after each transaction: recorders are writing too
# So long a recorder may go on with the rules before the last change, its batch included.
BEHIND = operator_rules.REFRESH + 5.0
# Rates that a classification can move, and what they divide by.
RATES = {
    "hard": "settled",
    "soft": "settled",
    "block": "settled",
    "block_low": "sent",
    "block_high": "sent",
}


class Command(BaseCommand):
    """What ``manage.py reclassify`` does. It may be stopped at any time and run again."""

    help = (
        "Classify stored failures again by the rules of today, operators' own ones first; what "
        "they count changes with them. Categories put in by hand stay."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="change nothing; say what would")
        parser.add_argument(
            "--location",
            action="append",
            default=[],
            metavar="ID",
            help="only its mail; repeatable",
        )
        parser.add_argument("--since", metavar="TIME", help="received then or later, ISO 8601")
        parser.add_argument(
            "--category",
            action="append",
            default=[],
            help="only what is of it now, such as unclassified; repeatable",
        )

    def handle(self, *args: Any, dry_run: bool = False, **options: Any) -> None:
        """Go through all failures. Raises ``CommandError``."""
        chosen = read_filter(options["location"], options["since"], options["category"])
        if not dry_run:
            _wait_for_recorders()
        run = Reclassification(filter=chosen, dry=dry_run)
        try:
            with stopping() as stop, self._progress() as progress:
                task = progress.add_task("failures", events=0)
                for step in run.steps():
                    progress.update(
                        task, completed=step.reached, total=step.newest, events=run.report.events
                    )
                    if stop.wait(PAUSE if step.wrote and not dry_run else 0):
                        break
        except OperationalError as error:
            raise CommandError(
                f"the database did not take a step: {error}\nRun it again: it finds the rest."
            ) from error
        finally:
            self._tell(run.report, chosen, dry=dry_run)
        if stop.is_set():
            self.stdout.write("stopped; the next run finds the rest")
        if run.report.events and not dry_run:
            publish.ring()

    def _tell(self, report: Report, chosen: Filter, *, dry: bool) -> None:
        for line in lines_of(report, dry=dry):
            self.stdout.write(line)
        if any(report.measures.values()):
            for line in rates_of(report, chosen, dry=dry):
                self.stdout.write(line)

    def _progress(self) -> Progress:
        """A bar on a terminal; elsewhere nothing until the table."""
        return Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[events]:,} changed"),
            console=Console(stderr=True),
            disable=not sys.stderr.isatty(),
        )


def _wait_for_recorders() -> None:
    """Until every recorder classifies by the rules of today, so that none is left behind."""
    last = ClassificationRule.objects.aggregate(last=Max("changed_at"))["last"]
    if last is not None:
        age = (datetime.now(UTC) - last).total_seconds()
        time.sleep(min(BEHIND, max(0.0, BEHIND - age)))


def read_filter(locations: list[str], since: str | None, categories: list[str]) -> Filter:
    """The options as a filter. Raises ``CommandError`` for what is unknown or unreadable."""
    known = dict(Location.objects.filter(ref__in=locations).values_list("ref", "id"))
    if missing := set(locations) - known.keys():
        raise CommandError(f"There is no location {min(missing)}.")
    try:
        found = frozenset(Category.from_word(word) for word in categories)
    except KeyError as error:
        words = ", ".join(category.word for category in Category if category)
        raise CommandError(
            f"There is no category {str(error.args[0]).lower()}. There are: {words}."
        ) from None
    return Filter(frozenset(known.values()), _read_time(since), frozenset(map(Category, found)))


def _read_time(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise CommandError(
            f"{text} is no time; write it as 2026-09-21 or 2026-09-21T14:00Z."
        ) from None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def lines_of(report: Report, *, dry: bool) -> Iterator[str]:
    """The table of what went from where to where, most first, and a line of sums."""
    moves = sorted(report.moves.items(), key=lambda item: (-item[1].events, item[0]))
    rows = [
        (str(old), str(new), f"{move.events:,}", f"{move.deliveries:,}", f"{len(move.locations):,}")
        for (old, new), move in moves
    ]
    if rows:
        yield from _table([("from", "to", "events", "deliveries", "locations"), *rows])
    would = "would change" if dry else "changed"
    yield (
        f"{report.looked_at:,} failures looked at; {would}: {report.events:,} events"
        f" ({report.reasons:,} of them their reason), {report.deliveries:,} deliveries"
    )


def _table(rows: list[tuple[str, ...]]) -> Iterator[str]:
    """Words to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [
            cell.ljust(width) if i < 2 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()


def rates_of(report: Report, chosen: Filter, *, dry: bool) -> Iterable[str]:
    """Counts and rates before and after, of all mail in the filter's locations and time."""
    now = totals(chosen)
    sign = 1 if dry else -1
    for name, divisor in RATES.items():
        change = report.measures[name]
        if not change:
            continue
        other = now[name] + sign * change
        before, after = (now[name], other) if dry else (other, now[name])
        of = now["delivered"] + now["bounced"] if divisor == "settled" else now["sent"]
        yield f"{name} {before:,} → {after:,} of {of:,} {divisor}{_percent(before, after, of)}"


def _percent(before: int, after: int, of: int) -> str:
    return f", {before / of:.2%} → {after / of:.2%}" if of else ""
