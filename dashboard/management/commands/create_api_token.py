"""Make an API token for a user, and print it: the only time that it can be read."""

from argparse import ArgumentParser
from datetime import timedelta
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction
from django.utils import timezone

from dashboard import audit
from dashboard.models import ApiToken


class Command(BaseCommand):
    """What ``manage.py create_api_token USERNAME`` does."""

    help = __doc__ or ""

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument("username")
        parser.add_argument("--name", default="", help="what it is for; shown to its user")
        parser.add_argument(
            "--scope",
            action="append",
            choices=ApiToken.Scope.values,
            help="what it is good for; may be repeated; without: everything",
        )
        parser.add_argument("--days", type=int, help="how long it is good; without: for ever")

    def handle(self, *args: Any, **options: Any) -> None:
        """Issue the token; it is the last line, alone. Raises ``CommandError``."""
        users = get_user_model()
        user = users._default_manager.filter(username=options["username"]).first()
        if user is None:
            raise CommandError(f"No user is named {options['username']}.")
        if not user.is_active:
            raise CommandError(f"{options['username']} is deactivated: a token would be refused.")
        days = options["days"]
        if days is not None and not 1 <= days <= 36_500:
            raise CommandError("--days is a number from 1 to 36500.")
        scopes = options["scope"] or ApiToken.Scope.values
        with transaction.atomic():
            audit.note(None, "make token", options["name"], user=options["username"], scopes=scopes)
            token = ApiToken.issue(
                user_id=user.pk,
                name=options["name"],
                scopes=scopes,
                expires_at=None if days is None else timezone.now() + timedelta(days=days),
            )
        self.stdout.write(token)
