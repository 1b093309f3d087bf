"""Make an API token for a user, and print it: the only time that it can be read."""

from argparse import ArgumentParser
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError

from dashboard.models import ApiToken


class Command(BaseCommand):
    """What ``manage.py create_api_token USERNAME`` does."""

    help = __doc__ or ""

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument("username")
        parser.add_argument("--name", default="", help="what it is for; shown in the admin")

    def handle(self, *args: Any, **options: Any) -> None:
        """Issue the token; it is the last line, alone. Raises ``CommandError``."""
        users = get_user_model()
        user = users._default_manager.filter(username=options["username"]).first()
        if user is None:
            raise CommandError(f"No user is named {options['username']}.")
        if not user.is_active:
            raise CommandError(f"{options['username']} is deactivated: a token would be refused.")
        self.stdout.write(ApiToken.issue(user_id=user.pk, name=options["name"]))
