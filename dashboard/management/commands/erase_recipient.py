"""Erase a recipient who asked for it, everywhere; counters stay exact."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from dashboard.erasing import erase_recipient
from ingest.models import Location


class Command(BaseCommand):
    """What ``manage.py erase_recipient ADDRESS`` does. It may be stopped, and run again."""

    help = __doc__ or ""

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument("address")
        parser.add_argument("--location", help="HighLevel's id: erase in this location only")

    def handle(self, *args: Any, **options: Any) -> None:
        """Erase, and say what. Raises ``CommandError``."""
        location = None
        if ref := options["location"]:
            location = Location.objects.filter(ref=ref).first()
            if location is None:
                raise CommandError(f"There is no location {ref}.")
        if "@" not in options["address"]:
            raise CommandError("An address has an @.")
        done = erase_recipient(options["address"], location)
        words = ", ".join(f"{rows:,} {what}" for what, rows in done.items())
        self.stdout.write(f"erased: {words}" if words else "nothing names this address")
