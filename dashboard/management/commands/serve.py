"""Serve on this machine: Daphne, with a stop that answers everything it holds."""

from typing import Any

from django.conf import settings
from django.core import checks
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError, connection

from dashboard.demo_run import DemoTraffic, accept_demo_key
from dashboard.management.commands.first_login import get_login_line
from ingest.checks import check_settings
from ingest.models import Event

HISTORY_HOURS = 30  # so that the first page shows a day


class Command(BaseCommand):
    """What ``make run`` starts."""

    help = "Serves Sendwatch with Daphne; SIGTERM and Ctrl-C stop it without losing a webhook."
    # Reported below, a line each, once the database is there.
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the options."""
        parser.add_argument("--host", default="127.0.0.1", help="Address to listen on.")
        parser.add_argument("--port", type=int, default=8000, help="0: any free one.")
        parser.add_argument(
            "--prepare",
            action="store_true",
            help="First migrate, collect static files, make a login.",
        )
        parser.add_argument(
            "--demo",
            action="store_true",
            help="Also send demo traffic, signed with a key of its own.",
        )
        parser.add_argument("--no-demo", dest="demo", action="store_false", help="No demo traffic.")

    def handle(self, *args: Any, **options: Any) -> None:
        """Serve until a signal; raise ``CommandError`` where that is impossible."""
        self._report_settings()
        if options["prepare"]:
            self._prepare()
        demo = None
        if options["demo"]:
            key_path = settings.DATA_DIR / "demo_key.pem"
            accept_demo_key(key_path)
            demo = DemoTraffic(key_path, history_hours=self._missing_history())
        self._serve(options["host"], options["port"], demo)

    @staticmethod
    def _missing_history() -> int:
        """Hours of past mail to begin the demo with: some for an empty database, else none."""
        try:
            return 0 if Event.objects.exists() else HISTORY_HOURS
        except DatabaseError:  # not migrated: --prepare was left out, and the pages will say so
            return 0
        finally:
            connection.close()

    def _report_settings(self) -> None:
        # The settings' own first: with a wrong one, others cannot even look.
        wrong = [message for message in check_settings() if message.is_serious()]
        messages = wrong or checks.run_checks()
        errors = [message for message in messages if message.is_serious()]
        for message in messages:
            if not message.is_silenced():
                self.stderr.write(f"{message.id}: {message.msg} {message.hint or ''}".rstrip())
        if errors:
            raise CommandError("Sendwatch does not start with these settings.")

    def _prepare(self) -> None:
        try:
            call_command("migrate", verbosity=0, interactive=False, skip_checks=True)
            login = get_login_line(settings.DATA_DIR / "login.txt")
        except DatabaseError as error:
            reason = str(error).strip().splitlines()[0]
            raise CommandError(f"The database cannot be used: {reason}") from error
        finally:
            connection.close()
        call_command("collectstatic", verbosity=0, interactive=False, skip_checks=True)
        self.stdout.write(login)

    def _serve(self, host: str, port: int, demo: DemoTraffic | None) -> None:
        # Here, because it loads the application, which reads the settings changed above.
        from dashboard.daphne_server import serve

        def ready(url: str) -> None:
            self.stdout.write(f"ready: {url}")
            self.stdout.flush()
            if demo:
                demo.start(url)

        try:
            problem = serve(host, port, ready=ready)
        finally:
            if demo:
                demo.stop()
        if problem:
            raise CommandError(problem)
