"""The JSON API's data quality."""

from django.http import HttpRequest, HttpResponse

from dashboard.access import Rights
from dashboard.api import Json, api_view, asked, number
from dashboard.bounded import bounded_reads
from dashboard.quality import MAX_ROWS, quality

LONGEST = 10.0  # seconds that one statement may take: three months of the whole fleet


@api_view
def data_quality(request: HttpRequest, rights: Rights) -> HttpResponse:
    """``/api/quality/?by=location|hour``: how far the numbers can be trusted.

    Takes location, company and a time; ``endpoint`` is null for who does not see everything.
    """
    filter, own = asked(request, "by", "limit", default_range="24h")
    limit = number(own, "limit", default=MAX_ROWS, low=1, high=MAX_ROWS)
    by = own.get("by", "location")
    with bounded_reads(LONGEST):
        found = quality(filter, rights, now=filter.now, by=by, limit=limit)
    return Json(found.as_json())
