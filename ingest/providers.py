"""Which mailbox provider an MX host or a recipient domain belongs to. Pure; data beside it."""

import tomllib
from functools import lru_cache
from pathlib import Path

_DATA = tomllib.loads(Path(__file__).with_name("providers.toml").read_text(encoding="utf-8"))


def _by_suffix(table: dict[str, list[str]]) -> dict[str, str]:
    return {suffix: name for name, suffixes in table.items() for suffix in suffixes}


_BY_MX = _by_suffix(_DATA["mx"])
_BY_DOMAIN = _by_suffix(_DATA["domain"])
NAMES = frozenset(_BY_MX.values()) | frozenset(_BY_DOMAIN.values())
# Whose complaints come back to the sender, and where HighLevel counts ESP blocks.
_REPORTING = frozenset(_DATA["complaints"]["reported"])
_BLOCKING = frozenset(_DATA["blocks"]["counted"])
_SPELLING = {name.lower(): name for name in NAMES}


def spell(name: str) -> str:
    """A provider's name as the tables spell it, whatever its case; others as they came."""
    return _SPELLING.get(name.lower(), name)


def reports_complaints(name: str) -> bool:
    """Whether a provider is known to send complaints back, so that having none means something."""
    return name in _REPORTING


def counts_blocks(name: str) -> bool:
    """Whether HighLevel surely counts this provider's refusals as ESP blocks."""
    return name in _BLOCKING


@lru_cache(maxsize=8192)
def derive(mx: str, domain: str) -> str:
    """The provider of an MX host, else of a recipient domain (both lower-case); "" if unknown."""
    return _longest_suffix(_BY_MX, mx) or _longest_suffix(_BY_DOMAIN, domain)


def _longest_suffix(names: dict[str, str], host: str) -> str:
    while host:
        if name := names.get(host):
            return name
        host = host.partition(".")[2]
    return ""
