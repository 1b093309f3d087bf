"""The JSON API's rates, and what changed them."""

from django.http import HttpRequest, HttpResponse

from dashboard import rate_tables
from dashboard.access import Rights
from dashboard.api import ROWS_LIMIT, Json, api_view, asked, number
from dashboard.bounded import bounded_reads
from dashboard.changed import CHANGED_BY, changed
from dashboard.export import FORMATS, rates_csv
from dashboard.filters import FilterError

LONGEST = 10.0  # seconds that one statement may take: a month of the whole fleet by domain


@api_view
def rates(request: HttpRequest, rights: Rights) -> HttpResponse:
    """``/api/rates/?by=…``: counts and rates, in all and by location, campaign, tag and others.

    ``sort=risk`` puts the riskiest locations first; ``compare=previous|week`` adds to each row what
    it had ``before``, at the same age. ``format=csv`` is the same table as a file.
    """
    filter, own = asked(request, "by", "limit", "sort", "compare", "format", default_range="24h")
    form = own.get("format", "json")
    if form not in FORMATS:
        raise FilterError(f"format is one of {', '.join(FORMATS)}.")
    limit = number(own, "limit", default=ROWS_LIMIT, low=1, high=rate_tables.MAX_ROWS)
    with bounded_reads(LONGEST):
        table = rate_tables.rates(
            filter,
            rights,
            by=own.get("by", "location"),
            limit=limit,
            sort=own.get("sort", ""),
            judge=filter.clock != "event",
            compare=own.get("compare", ""),
            now=filter.now,
        )
    return rates_csv(table, filter.now) if form == "csv" else Json(table.as_json())


@api_view
def changes(request: HttpRequest, rights: Rights) -> HttpResponse:
    """``/api/changes/?measure=…&by=…&compare=…``: which parts moved a rate, and by how much."""
    filter, own = asked(request, "measure", "by", "compare", default_range="24h")
    if "measure" not in own:
        raise FilterError("Say which rate: measure=hard_bounce_rate, for one.")
    by = [own["by"]] if "by" in own else CHANGED_BY
    with bounded_reads(LONGEST):
        found = changed(
            filter,
            rights,
            measure=own["measure"],
            by=by,
            compare=own.get("compare", "previous"),
            now=filter.now,
        )
    return Json(found.as_json())
