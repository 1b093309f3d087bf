"""The environment, read by ``environs``; what it cannot read is noted, never guessed.

Each problem becomes a system check (``ingest.checks``), so that a wrong variable ends in one
sentence instead of a stack trace; until then the default stands in for it. An empty variable
counts as not set.
"""

import os
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

import dj_database_url
from environs import Env, EnvError, validate

# Of a mail server: its usual port, and how the connection is encrypted.
MAIL_SCHEMES = {
    "smtp": (587, {"use_tls": True}),
    "smtps": (465, {"use_ssl": True}),
    "smtp+plain": (25, {}),
}
MAIL_PATIENCE = 15  # seconds
DATABASE_SCHEMES = ("sqlite", "postgres", "postgresql")


class Environment:
    """Reads variables by type, and gathers a sentence for each unreadable one in ``problems``."""

    def __init__(self) -> None:
        self._env = Env()
        self.problems: list[str] = []

    def text(self, name: str, default: str = "") -> str:
        """The variable's text; a ``\\n`` in it may stand for a line break, as in keys."""
        return str(self._read("str", name, default)).replace("\\n", "\n")

    def flag(self, name: str, default: bool = False) -> bool:
        """True or false, in any of the usual words."""
        return bool(self._read("bool", name, default))

    def number(self, name: str, default: int) -> int:
        """A whole number."""
        return int(self._read("int", name, default))

    def words(self, name: str, default: list[str]) -> list[str]:
        """What stands between the commas, trimmed."""
        words = [word.strip() for word in self._read("list", name, default)]
        return [word for word in words if word] or default

    def choice(self, name: str, default: str, choices: tuple[str, ...]) -> str:
        """One of the choices, in capitals."""
        any_case = [*choices, *(choice.lower() for choice in choices)]
        one_of = validate.OneOf(any_case, error=f"it is none of {', '.join(choices)}")
        return str(self._read("str", name, default, validate=one_of)).upper()

    def url(self, name: str, schemes: tuple[str, ...]) -> str:
        """A URL that begins with one of the schemes; "" where it is not set."""
        expected = ", ".join(f"{scheme}://" for scheme in schemes)
        begins = validate.Regexp(
            rf"({'|'.join(schemes)}):", error=f"it does not begin with one of {expected}"
        )
        return str(self._read("str", name, "", validate=begins))

    def database(self, name: str, default: str) -> dict[str, Any]:
        """Django's settings for the database at this URL."""
        url = self.url(name, DATABASE_SCHEMES) or default
        try:
            config = dict(dj_database_url.parse(url))
        except ValueError:
            config = {}
        if not config.get("NAME") or config["NAME"] == ":memory:":
            # The value may hold a password: the message leaves it out.
            self.problems.append(
                f"{name} is neither like postgres://user:password@host/name"
                " nor like sqlite:////folder/file.sqlite3"
            )
            return dict(dj_database_url.parse(default))
        return config

    def mailers(self, name: str) -> dict[str, Any]:
        """Django's settings for the mail server at this URL; empty where it is not set.

        ``smtp://`` begins encryption by STARTTLS, ``smtps://`` is encrypted from the first byte,
        ``smtp+plain://`` is not encrypted.
        """
        url = urlsplit(self.text(name))
        if not url.geturl():
            return {}
        try:
            options = _mail_options(url)
        except (KeyError, ValueError):
            # The value may hold a password: the message leaves it out.
            self.problems.append(f"{name} is not like smtp://user:password@host:587")
            return {}
        smtp = "django.core.mail.backends.smtp.EmailBackend"
        return {"default": {"BACKEND": smtp, "OPTIONS": options}}

    def _read(self, kind: str, name: str, default: Any, **options: Any) -> Any:
        if not os.environ.get(name, "").strip():
            return default
        try:
            return getattr(self._env, kind)(name, **options)
        except EnvError as error:
            self.problems.append(str(error).rstrip("."))
            return default


def _mail_options(url: SplitResult) -> dict[str, Any]:
    """What the SMTP backend is told. Raises ``KeyError`` or ``ValueError`` for any other URL."""
    port, encryption = MAIL_SCHEMES[url.scheme]
    if not url.hostname or url.path.strip("/") or url.query or url.fragment:
        raise ValueError(url.scheme)
    login = {"username": unquote(url.username or ""), "password": unquote(url.password or "")}
    where = {"host": url.hostname, "port": url.port or port, "timeout": MAIL_PATIENCE}
    return where | login | encryption
