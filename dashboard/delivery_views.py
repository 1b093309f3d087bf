"""The list of deliveries, one delivery, and the list as a file."""

from functools import partial
from urllib.parse import parse_qsl

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.cache import patch_cache_control
from django.views.decorators.http import require_GET, require_POST

from dashboard import export as exporting
from dashboard.access import Rights, may_operate, rights_of
from dashboard.api import api_view, rights_now
from dashboard.filter_bar import in_remembered_zone
from dashboard.filters import Filter, FilterError, parse
from dashboard.models import ApiToken
from dashboard.pages import PAGES
from dashboard.pages.deliveries import SEARCHED, delivery_url, mark
from dashboard.pages.delivery import TIMES, Shown, delivery_context
from dashboard.pages.page import COMMON_PARAMS
from dashboard.queries import get_delivery
from dashboard.review.acting import Refused, give_category
from dashboard.views import explained, show
from ingest.models import Delivery


@require_GET
@explained
def deliveries(request: HttpRequest) -> HttpResponse:
    """The deliveries that a filter keeps. A search that names no time looks far back."""
    if request.GET.get("q") and not any(request.GET.get(name) for name in ("range", "from", "to")):
        query = request.GET.copy()
        query["range"] = SEARCHED
        return redirect(f"{request.path}?{query.urlencode()}")
    return show(request, PAGES["deliveries"], rights_of(request.user), {"mark": mark()})


# --- One ---------------------------------------------------------------------------------------


@require_GET
@explained
def delivery(request: HttpRequest, pk: int) -> HttpResponse:
    """One delivery with all that is known of it. 404 alike for what may not be seen."""
    rights = rights_of(request.user)
    found = get_delivery(pk, rights)
    filter = _filter(request, "times")
    times = request.GET.get("times") or TIMES[0]
    if times not in TIMES:
        raise FilterError(f"times is one of {', '.join(TIMES)}.")
    query = filter.canonical()
    context = {
        "view": "delivery",
        "now": filter.now,
        "zone": filter.zone.key,
        "times": times,
        "query": query,
        "may_operate": may_operate(request.user, [found.location_id]),
    }
    with timezone.override(filter.zone):
        context |= delivery_context(found, Shown(filter, rights, times))
        answer = render(request, "dashboard/delivery.html", context)
    patch_cache_control(answer, private=True, no_cache=True)
    return answer


@require_POST
def assign(request: HttpRequest, pk: int) -> HttpResponse:
    """Give a bounced delivery another category by hand, or take that back."""
    found = get_delivery(pk, rights_of(request.user))
    if not may_operate(request.user, [found.location_id]):
        raise PermissionDenied
    word = request.POST.get("category", "")
    try:
        said = give_category(Delivery.objects.get(pk=pk), word, request.user)
        messages.success(request, said)
    except Refused as no:
        messages.error(request, str(no))
    query = _read(request.POST.get("query", ""))
    return redirect(delivery_url(pk, query))


def _read(query: str) -> str:
    """A filter's query string, as this page gave it; "" for anything else."""
    try:
        return parse(parse_qsl(query), now=timezone.now()).canonical()
    except FilterError:
        return ""


def _filter(request: HttpRequest, *also: str) -> Filter:
    params = [(name, value) for name, values in request.GET.lists() for value in values]
    also = (*COMMON_PARAMS, *also)
    filter = parse(params, now=timezone.now(), also=also, blanks=True)
    return in_remembered_zone(filter, request)


# --- The list as a file ------------------------------------------------------------------------


@require_GET
@explained
def export(request: HttpRequest) -> StreamingHttpResponse:
    """What the list keeps, as a file."""
    filter = _filter(request, "format")
    if not filter.since and not filter.to and not filter.range:
        filter = filter.with_("range", PAGES["deliveries"].default_range)
    return _exported(request, filter, rights_of(request.user))


@partial(api_view, scope=ApiToken.Scope.EXPORT)
def api_export(request: HttpRequest, rights: Rights) -> StreamingHttpResponse:
    """The same for programs, by session or token, without a range of its own."""
    return _exported(request, _filter(request, "format"), rights)


def _exported(request: HttpRequest, filter: Filter, rights: Rights) -> StreamingHttpResponse:
    form = request.GET.get("format", "")
    return exporting.export(filter, rights, form, lambda: rights_now(request))
