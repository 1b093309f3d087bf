"""The JSON API's refusals."""

from django.http import HttpRequest, HttpResponse

from dashboard.access import Rights
from dashboard.api import MAX_ROWS, ROWS_LIMIT, Json, _next, api_view, asked, number
from dashboard.bounded import bounded_reads
from dashboard.reasons import reason as explain
from dashboard.reasons import reasons as refusals


@api_view
def reasons(request: HttpRequest, rights: Rights) -> HttpResponse:
    """``/api/reasons/``: each refusal once, with whom it met, how often and since when."""
    filter, own = asked(request, "sort", "limit", "offset", default_range="24h")
    limit = number(own, "limit", default=ROWS_LIMIT, low=1, high=MAX_ROWS)
    offset = number(own, "offset", default=0, low=0, high=100_000)
    sort = own.get("sort", "-count")
    with bounded_reads():
        page = refusals(filter, rights, sort=sort, limit=limit, offset=offset)
    return Json(
        {
            "results": [row.as_json() for row in page.rows],
            "next": _next(request, filter, **own | {"offset": offset + limit})
            if page.more
            else None,
            "complete_from": page.complete_from and page.complete_from.isoformat(),
        }
    )


@api_view
def reason(request: HttpRequest, rights: Rights, pk: int) -> HttpResponse:
    """``/api/reasons/<id>/``: one refusal with samples and its hours."""
    filter, _ = asked(request, default_range="24h")
    with bounded_reads():
        found = explain(pk, filter, rights)
    complete_from = found.complete_from and found.complete_from.isoformat()
    return Json(found.as_json() | {"complete_from": complete_from})
