"""The environment, read by ``environs``; what it cannot read is noted, never guessed.

Each problem becomes a system check (``ingest.checks``), so that a wrong variable ends in one
sentence instead of a stack trace; until then the default stands in for it. An empty variable
counts as not set.
"""

import os
from typing import Any

import dj_database_url
from environs import Env, EnvError, validate

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

    def _read(self, kind: str, name: str, default: Any, **options: Any) -> Any:
        if not os.environ.get(name, "").strip():
            return default
        try:
            return getattr(self._env, kind)(name, **options)
        except EnvError as error:
            self.problems.append(str(error).rstrip("."))
            return default
