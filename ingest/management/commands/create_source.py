"""Make a named webhook address, and print the URL to paste."""

import os
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError

from ingest.edge import PATH
from ingest.models import Source


def webhook_url(source: Source, *, base: str) -> str:
    """The address to paste, where ``PUBLIC_URL`` says the site is, else at ``base``."""
    return f"{settings.PUBLIC_URL or base.rstrip('/')}{PATH}/{source.key}/"


class Command(BaseCommand):
    """What ``manage.py create_source`` does."""

    help = __doc__ or ""

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the options."""
        add = parser.add_argument
        add("--name", required=True, help="yours to choose; shown in the admin")
        add("--location", default="", help="location id for payloads that carry none")
        add("--hmac-secret", default="", help="check an HMAC-SHA256 of the raw body with this")
        add("--hmac-header", default="", help="the header that carries it, e.g. x-wl-signature")
        add("--hmac-encoding", choices=Source.Encoding.values, default=Source.Encoding.HEX)

    def handle(self, *args: Any, **options: Any) -> None:
        """Make the source; the URL is the last line, alone. Raises ``CommandError``."""
        if bool(options["hmac_secret"]) != bool(options["hmac_header"]):
            raise CommandError("--hmac-secret and --hmac-header belong together: give both.")
        source = Source(
            name=options["name"].strip(),
            location_ref=options["location"].strip(),
            hmac_secret=options["hmac_secret"],
            hmac_header=options["hmac_header"].strip(),
            hmac_encoding=options["hmac_encoding"],
        )
        try:
            source.full_clean()
        except ValidationError as error:
            if Source.objects.filter(name=source.name).exists():
                raise CommandError(f"A source named {source.name} exists already.") from error
            raise CommandError("\n".join(error.messages)) from error
        source.save()
        if not source.hmac_secret:
            self.stdout.write("Its address is its only proof: keep it as secret as a password.")
        here = f"http://127.0.0.1:{os.environ.get('PORT', '8000')}"
        self.stdout.write(webhook_url(source, base=here))
