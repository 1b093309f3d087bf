"""The way in on a fresh installation: one account with a password that nobody chose."""

import os
import secrets
from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand
from django.db import transaction


class Command(BaseCommand):
    """Make the first superuser, or say where its password is kept."""

    help = "Makes the superuser 'admin' with a generated password unless a superuser exists."

    def handle(self, *args: Any, **options: Any) -> None:
        """Print one line that says how to log in."""
        self.stdout.write(get_login_line(settings.DATA_DIR / "login.txt"))


def get_login_line(path: Path) -> str:
    """How to log in, in one line; makes the account first where there is no superuser.

    The generated password is shown once and kept in ``path``, readable by its owner only.
    """
    users = get_user_model()._default_manager
    if not users.filter(is_superuser=True).exists():
        username, password = _create_superuser(path)
        return f"log in as {username} with the password {password} (kept in {_short(path)})"
    if path.exists():
        username = path.read_text().split("\n")[0]
        return f"log in as {username}; the password is in {_short(path)}"
    return "log in with the account you made (manage.py changepassword NAME gives a new password)"


def _create_superuser(path: Path) -> tuple[str, str]:
    users = get_user_model()._default_manager
    username, password = "admin", secrets.token_urlsafe(12)
    while users.filter(username=username).exists():
        username = f"admin-{secrets.token_hex(2)}"
    with transaction.atomic():
        # The file within the transaction: an account whose password nobody knows must not stay.
        users.create_superuser(username=username, password=password)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.touch(mode=0o600)
        path.write_text(f"{username}\n{password}\n")
    return username, password


def _short(path: Path) -> str:
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative
