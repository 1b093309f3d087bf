"""The JSON API's rates."""

from django.http import HttpRequest, HttpResponse

from dashboard import rate_tables
from dashboard.access import Rights
from dashboard.api import ROWS_LIMIT, Json, api_view, asked, number


@api_view
def rates(request: HttpRequest, rights: Rights) -> HttpResponse:
    """``/api/rates/?by=…``: counts and rates, in all and by location, campaign, tag and others."""
    filter, own = asked(request, "by", "limit", "sort", default_range="24h")
    table = rate_tables.rates(
        filter,
        rights,
        by=own.get("by", "location"),
        limit=number(own, "limit", default=ROWS_LIMIT, low=1, high=rate_tables.MAX_ROWS),
        sort=own.get("sort", ""),
        judge=True,
        now=filter.now,
    )
    return Json(table.as_json())
