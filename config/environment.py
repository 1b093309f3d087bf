"""The environment, read strictly: what cannot be read is noted, never guessed.

Each problem becomes a system check (``ingest.checks``), so that a wrong variable ends in one
sentence instead of a stack trace; until then the safe default stands in for it. An empty
variable counts as not set.
"""

from collections.abc import Mapping
from typing import Any

import environ

_TRUE = {"1", "true", "yes", "on"}
_FALSE = {"0", "false", "no", "off"}
DATABASE_SCHEMES = ("sqlite", "postgres", "postgresql")


class Environment:
    """Reads variables by type and gathers in ``problems`` a sentence for each unreadable one."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = variables
        self.problems: list[str] = []

    def text(self, name: str, *, default: str = "") -> str:
        """The variable's text; ``default`` where it is not set."""
        return self._variables.get(name) or default

    def multiline(self, name: str) -> str:
        r"""The variable's text with ``\n`` as a line break, for keys kept on one line."""
        return self.text(name).replace("\\n", "\n")

    def words(self, name: str, *, default: list[str]) -> list[str]:
        """The comma-separated parts, trimmed, without empty ones."""
        parts = [part.strip() for part in self.text(name).split(",")]
        return [part for part in parts if part] or default

    def flag(self, name: str, *, default: bool) -> bool:
        """True for 1, true, yes, on; false for 0, false, no, off."""
        value = self.text(name, default=str(default)).strip().lower()
        if value not in _TRUE | _FALSE:
            return self._refuse(
                name, "is neither on (1, true, yes) nor off (0, false, no)", default
            )
        return value in _TRUE

    def number(self, name: str, *, default: int) -> int:
        """A whole number."""
        try:
            return int(self.text(name, default=str(default)))
        except ValueError:
            return self._refuse(name, "is not a whole number", default)

    def choice(self, name: str, *, default: str, choices: tuple[str, ...]) -> str:
        """One of ``choices``, in whatever case it was written."""
        value = self.text(name, default=default).strip().upper()
        if value not in choices:
            return self._refuse(name, f"is none of {', '.join(choices)}", default)
        return value

    def url(self, name: str, *, schemes: tuple[str, ...]) -> str:
        """A URL that begins with one of ``schemes``; empty where it is not set."""
        value = self.text(name).strip()
        if value and value.partition(":")[0] not in schemes:
            expected = ", ".join(f"{scheme}://" for scheme in schemes)
            # The value may hold a password: the message leaves it out.
            self.problems.append(f"{name} does not begin with one of {expected}")
            return ""
        return value

    def database(self, name: str, url: str, *, default: str) -> dict[str, Any]:
        """Django's settings for the database at ``url`` (or ``default``), read from ``name``."""
        try:
            config = dict(environ.Env.db_url_config(url or default))
        except ValueError:
            config = {"NAME": ""}
        if config["NAME"] in ("", ":memory:"):
            self.problems.append(
                f"{name} is neither like postgres://user:password@host/name"
                " nor like sqlite:////folder/file.sqlite3"
            )
            return dict(environ.Env.db_url_config(default))
        return config

    def _refuse[T](self, name: str, why: str, default: T) -> T:
        self.problems.append(f"{name}={self._variables[name]!r} {why}")
        return default
