"""Let somebody in by the password alone, who lost both their phone and their recovery codes."""

from argparse import ArgumentParser
from typing import Any

from allauth.mfa.models import Authenticator
from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from dashboard import audit


class Command(BaseCommand):
    """What ``manage.py remove_second_factor USERNAME`` does."""

    help = __doc__ or ""

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument("username")

    def handle(self, *args: Any, **options: Any) -> None:
        """Remove it. Raises ``CommandError`` where there is nobody, or nothing to remove."""
        name = options["username"]
        user = get_user_model()._default_manager.filter(username=name).first()
        if user is None:
            raise CommandError(f"No user is named {name}.")
        with transaction.atomic():
            if not Authenticator.objects.filter(user=user).delete()[0]:
                raise CommandError(f"{name} has no second factor.")
            audit.note(None, "remove second factor", name)
        self.stdout.write(f"{name} logs in with the password alone now.")
