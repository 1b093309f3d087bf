"""What INSTALL, UNINSTALL, LocationCreate and LocationUpdate say of companies and locations.

Every fact is stored with the time at which it was said, and only a later word replaces it. So these
webhooks may come in any order, and any number of times.
"""

from collections.abc import Sequence
from datetime import datetime

from django.db.models import Q

from ingest.models import Company, Location
from ingest.normalize import AppEvent
from ingest.statements import aware_utc


def write(apps: Sequence[AppEvent]) -> None:
    """Write what these webhooks say, inside a transaction; their locations exist.

    Rows are locked in the order of their keys, companies first, so that two processes never wait
    for each other.
    """
    if not any(app.location_ref or app.company_ref for app in apps):
        return
    companies = _locked_companies(apps)
    for app in apps:
        if company := companies.get(app.company_ref):
            _tell_company(company, app)
    locations = _locked_locations(apps, companies)
    for app in apps:
        if app.location_ref:
            _tell_location(locations[app.location_ref], app)
    for company in companies.values():
        company.save()
    for location in locations.values():
        if found := companies.get(location.company_ref):
            location.company_name = found.name
        location.save()


def _locked_companies(apps: Sequence[AppEvent]) -> dict[str, Company]:
    """The companies that these webhooks tell of, or that their locations belong to."""
    refs = sorted({app.company_ref for app in apps if app.company_ref})
    Company.objects.bulk_create([Company(ref=ref) for ref in refs], ignore_conflicts=True)
    found = Company.objects.select_for_update().filter(ref__in=refs).order_by("pk")
    return {company.ref: company for company in found}


def _locked_locations(
    apps: Sequence[AppEvent], companies: dict[str, Company]
) -> dict[str, Location]:
    """The locations that these webhooks name, and all of those companies whose name is new."""
    refs = {app.location_ref for app in apps if app.location_ref}
    renamed = Q()
    for company in companies.values():
        renamed |= Q(company_ref=company.ref) & ~Q(company_name=company.name)
    wanted = Location.objects.filter(Q(ref__in=refs) | renamed if companies else Q(ref__in=refs))
    return {found.ref: found for found in wanted.select_for_update().order_by("pk")}


def _tell_company(company: Company, app: AppEvent) -> None:
    at = aware_utc(app.occurred_at)
    if app.company_name:
        _tell(company, "name", app.company_name, at)
    if app.domain is not None:
        _tell(company, "domain", app.domain, at)
    if app.state and not app.location_ref:
        _tell(company, "state", app.state, at)


def _tell_location(location: Location, app: AppEvent) -> None:
    at = aware_utc(app.occurred_at)
    if app.location_name:
        _tell(location, "name", app.location_name, at)
    if app.company_ref:
        _tell(location, "company_ref", app.company_ref, at)
    if app.state:
        _tell(location, "state", app.state, at)


def _tell(row: Company | Location, column: str, word: str, at: datetime) -> None:
    """Set a column to what was said at this time, unless something was said later.

    Of two things said at once the greater word holds, whichever comes first.
    """
    known_at = getattr(row, f"{column}_at")
    if known_at is None or (at, word) > (known_at, getattr(row, column)):
        setattr(row, column, word)
        setattr(row, f"{column}_at", at)
