"""The JSON API's data quality."""

from django.http import HttpRequest, HttpResponse

from dashboard.access import Rights
from dashboard.api import Json, api_view, asked, number
from dashboard.quality import MAX_ROWS, quality


@api_view
def data_quality(request: HttpRequest, rights: Rights) -> HttpResponse:
    """``/api/quality/?by=location|hour``: how far the numbers can be trusted.

    Takes location, company and a time; ``endpoint`` is null for who does not see everything.
    """
    filter, own = asked(request, "by", "limit", default_range="24h")
    found = quality(
        filter,
        rights,
        now=filter.now,
        by=own.get("by", "location"),
        limit=number(own, "limit", default=MAX_ROWS, low=1, high=MAX_ROWS),
    )
    return Json(found.as_json())
