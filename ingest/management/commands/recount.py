"""``manage.py recount``: the counters against the deliveries they count."""

import time
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from ingest import counting
from ingest.models import CountersCheck
from ingest.statements import aware_utc


class Command(BaseCommand):
    help = "Count the deliveries again and put the counters right; --check only compares."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--check", action="store_true", help="change nothing; exit 1 on any difference"
        )

    def handle(self, *args: Any, check: bool, **options: Any) -> None:
        now = time.time_ns() // 1000
        if not check:
            self.stdout.write(f"{counting.rebuild(now=now)} locations counted again")
            return
        began, found = time.monotonic(), 0
        for difference in counting.differences(now=now):
            found += 1
            self.stdout.write(str(difference))
        result = {
            "checked_at": aware_utc(now),
            "differences": found,
            "seconds": time.monotonic() - began,
        }
        CountersCheck.objects.update_or_create(pk=1, defaults=result)
        if found:
            self.stderr.write(f"{found} counters differ from the deliveries")
            raise SystemExit(1)
        self.stdout.write("every counter equals its deliveries")
