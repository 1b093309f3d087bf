"""System checks: a wrong setting is a sentence with an id and a hint, not a stack trace."""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

from django.apps.config import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning
from django.core.exceptions import ImproperlyConfigured

from ingest.verify import load_ed25519_keys, load_rsa_keys

type Messages = Iterator[CheckMessage]

# Where the race of two connections that commit and checkpoint a WAL file at once is repaired.
SQLITE_REPAIRED = (3, 51, 3)
SQLITE_REPAIRED_LINES = {(3, 50): 7, (3, 44): 6}


def check_settings(
    app_configs: Sequence[AppConfig] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """Everything in the environment that would make Sendwatch fail or mislead later."""
    checks = (
        _environment, _secret_key, _webhook_keys, _quarantine, _retention, _public_url,
        _sqlite_version, _frame,
    )  # fmt: skip
    return [message for check in checks for message in check()]


def refuse_wrong_settings() -> None:
    """End the process with the sentences of every error, for servers that run no checks.

    Raises ``SystemExit``.
    """
    errors = [message for message in check_settings() if message.is_serious()]
    if errors:
        lines = [f"{error.id}: {error.msg} {error.hint or ''}".rstrip() for error in errors]
        raise SystemExit("\n".join(lines))


def is_sqlite_repaired(version: tuple[int, int, int]) -> bool:
    """Whether this SQLite is free of the WAL-reset race."""
    patch = SQLITE_REPAIRED_LINES.get(version[:2])
    return version >= SQLITE_REPAIRED or (patch is not None and version[2] >= patch)


def _environment() -> Messages:
    for problem in settings.ENVIRONMENT_PROBLEMS:
        yield Error(
            f"{problem}.",
            hint="Correct or unset it; the README lists every variable.",
            id="sendwatch.E001",
        )


def _secret_key() -> Messages:
    if settings.EMBEDDED:
        return  # it keeps its own; where it could not, the environment's problems say why
    try:
        _ = settings.SECRET_KEY
    except ImproperlyConfigured:
        yield Error(
            "SECRET_KEY is not set.",
            hint="With PostgreSQL every process must be given the same 50 random characters.",
            id="sendwatch.E002",
        )


def _webhook_keys() -> Messages:
    yield from _unreadable("WEBHOOK_ED25519_KEYS", load_ed25519_keys, "sendwatch.E003")
    yield from _unreadable("WEBHOOK_EXTRA_ED25519_KEYS", load_ed25519_keys, "sendwatch.E003")
    yield from _unreadable("WEBHOOK_RSA_KEYS", load_rsa_keys, "sendwatch.E004")


def _unreadable(name: str, load: Callable[[str], list[Any]], id: str) -> Messages:
    text = getattr(settings, name)
    try:
        if text:
            load(text)
    except ValueError as error:
        yield Error(
            f"{name} cannot be read: {error}",
            hint="Give public keys as PEM text, or paths of PEM files, one after another.",
            id=id,
        )


def _quarantine() -> Messages:
    if settings.WEBHOOK_QUARANTINE:
        yield Warning(
            "WEBHOOK_QUARANTINE is on: webhooks with wrong signatures are stored, not refused.",
            hint="Once the keys are right again, run replay_kept and switch it off.",
            id="sendwatch.W003",
        )


def _retention() -> Messages:
    for name in (
        "EVENT_RETENTION_DAYS", "PAYLOAD_RETENTION_DAYS", "SESSION_DAYS", "INVITATION_DAYS",
    ):  # fmt: skip
        if getattr(settings, name) < 1:
            yield Error(
                f"{name} is {getattr(settings, name)}.",
                hint="Give a number of days, 1 or more.",
                id="sendwatch.E005",
            )
    if 0 < settings.EVENT_RETENTION_DAYS < settings.PAYLOAD_RETENTION_DAYS:
        yield Warning(
            "PAYLOAD_RETENTION_DAYS is longer than EVENT_RETENTION_DAYS.",
            hint="A payload goes with its event at the latest: lower the one or raise the other.",
            id="sendwatch.W002",
        )


def _public_url() -> Messages:
    if settings.PUBLIC_URL and not _is_origin(settings.PUBLIC_URL):
        yield Error(
            f"PUBLIC_URL={settings.PUBLIC_URL!r} is not where a site begins.",
            hint="Give scheme and host, with no path: https://mail.example.com",
            id="sendwatch.E006",
        )


def _frame() -> Messages:
    for origin in settings.FRAME_ANCESTORS:
        if not _is_origin(origin.replace("://*.", "://", 1)):
            yield Error(
                f"FRAME_ANCESTORS names {origin!r}, which is not where a site begins.",
                hint="Give scheme and host: https://app.example.com, or https://*.example.com",
                id="sendwatch.E007",
            )
    if settings.HIGHLEVEL_SHARED_SECRET and not settings.PUBLIC_URL.startswith("https://"):
        yield Warning(
            "HIGHLEVEL_SHARED_SECRET is set, but PUBLIC_URL is not https.",
            hint="Browsers keep no cookies in a frame, and nobody gets in, but over HTTPS.",
            id="sendwatch.W004",
        )


def _is_origin(url: str) -> bool:
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - raises ValueError when it is no number
    except ValueError:
        return False
    rest = parts.path or parts.query or parts.fragment or parts.username
    return parts.scheme in ("http", "https") and bool(parts.hostname) and not rest


def _sqlite_version() -> Messages:
    if settings.EMBEDDED and not is_sqlite_repaired(sqlite3.sqlite_version_info):
        yield Warning(
            f"SQLite {sqlite3.sqlite_version} can, rarely, damage a database that several"
            " connections write to.",
            hint="Use a Python with SQLite 3.51.3 or later, or PostgreSQL (DATABASE_URL).",
            id="sendwatch.W001",
        )
