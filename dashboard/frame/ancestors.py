"""Whose pages may show ours in a frame: origins, as a content security policy writes them."""

import time

from django.conf import settings

from ingest.models import Company

FRESH = 10.0  # seconds until a company that came or left is noticed
_known: tuple[float, dict[str, str]] = 0.0, {}


def is_on() -> bool:
    """Whether people come in from HighLevel's frame."""
    return bool(settings.HIGHLEVEL_SHARED_SECRET)


def ancestors(company_ref: str | None = None) -> list[str]:
    """The origins that may show us: the setting's, else HighLevel's, and installed white labels.

    Of the last only the company's own, if one is named: so nobody's pages can be laid under
    another's.
    """
    domains = _domains()
    if company_ref is not None:
        domains = {ref: host for ref, host in domains.items() if ref == company_ref}
    origins = settings.FRAME_ANCESTORS or settings.HIGHLEVEL_ORIGINS
    return [*origins, *(f"https://{host}" for host in sorted(domains.values()))]


def _domains() -> dict[str, str]:
    """The white-label domains of companies that have the app, by the companies' ids."""
    global _known
    read_at, domains = _known
    if not read_at or time.monotonic() - read_at > FRESH:
        rows = Company.objects.installed().exclude(domain="").values_list("ref", "domain")
        domains = dict(rows)
        _known = time.monotonic(), domains
    return domains


def forget() -> None:
    """Read the companies again at the next question."""
    global _known
    _known = 0.0, {}
