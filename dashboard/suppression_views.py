"""The suppression list's page, its forms, its file and its answers for programs."""

from functools import partial

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.shortcuts import get_object_or_404, render
from django.utils import timezone
from django.utils.cache import patch_cache_control
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from dashboard.access import Rights, get_location, may_operate, operated_by, restrict, rights_of
from dashboard.after_death import mailed_after_death
from dashboard.api import MAX_ROWS, Json, api_view, number, rights_now
from dashboard.bounded import bounded_reads
from dashboard.editing import back_to_page, operated
from dashboard.erasing import Unfinished, erase_recipient, mails_to
from dashboard.export import ROWS
from dashboard.filter_bar import in_remembered_zone
from dashboard.filters import RANGES, parse
from dashboard.models import ApiToken, Suppressed
from dashboard.suggest import meant
from dashboard.suppression import MOST_AT_ONCE, Cause, State, release, settle_held, suppress
from dashboard.suppression_files import FileError, address_of, import_addresses
from dashboard.suppression_rows import (
    SHOWN,
    Wanted,
    counted,
    csv_pages,
    entries_page,
    held_by_provider,
)
from dashboard.views import explained
from ingest.models import Location

RANGE = "30d"  # of the mail after death, unless something else is asked for
ERASE_SECONDS = 20.0  # that one request may take
PLACES = 500  # locations, up to which a form lists them
OPTIONS = ("cause", "state", "before", "again")
AGAIN = 10  # campaigns and steps of mail after death, unless all are asked for
MOST_AGAIN = 500


def _wanted(request: HttpRequest, rights: Rights, *also: str) -> tuple[Wanted, dict[str, str]]:
    """What is asked for, and the other parameters. A location's name will do for its id."""
    params = [(name, value) for name, values in request.GET.lists() for value in values]
    params = [
        (name, meant(name, value, rights) if name == "location" and value else value)
        for name, value in params
    ]
    filter = parse(params, now=timezone.now(), also=(*OPTIONS, *also), blanks=True)
    own = {name: value for name, value in params if name in (*OPTIONS, *also) and value}
    wanted = Wanted(in_remembered_zone(filter, request), own.get("cause", ""), own.get("state", ""))
    return wanted, own


@require_GET
@explained
def suppressions(request: HttpRequest) -> HttpResponse:
    """The list, what is held, and the mail that was sent after death."""
    rights = rights_of(request.user)
    wanted, own = _wanted(request, rights)
    filter = wanted.filter
    page = entries_page(wanted, rights, before=own.get("before", ""))
    if not (filter.range or filter.since or filter.to):
        filter = filter.with_("range", RANGE)
    query = request.GET.copy()
    for name in ("before", "again"):
        query.pop(name, None)
    most = MOST_AGAIN if own.get("again") == "all" else AGAIN
    again = mailed_after_death(filter.without("q"), rights, limit=most + 1)
    operates = set(operated_by(request.user).values_list("pk", flat=True))
    context = {
        "view": "suppressions",
        "title": "Suppression list",
        "now": filter.now,
        "zone": filter.zone.key,
        "page": page,
        "count": counted(wanted, rights),
        "held": held_by_provider(wanted, rights),
        "again": again[:most],
        "again_more": len(again) > most,
        "wanted": wanted,
        "location": ", ".join(filter.values("location")),
        "search": ", ".join(filter.values("q")),
        "range": filter.range,
        "ranges": list(RANGES),
        "causes": Cause.choices,
        "states": State.choices,
        "query": query.urlencode(),
        "operates": operates,
        "may_erase": may_operate(request.user),
        "most_places": PLACES,
        "places": Location.objects.filter(pk__in=operates).order_by("name", "ref")[: PLACES + 1],
    }
    with timezone.override(filter.zone):
        answer = render(request, "dashboard/suppressions.html", context)
    patch_cache_control(answer, private=True, no_cache=True)
    return answer


# --- Files and programs ----------------------------------------------------------------------


@require_GET
@explained
def export(request: HttpRequest) -> StreamingHttpResponse:
    """The list as CSV, as it is filtered."""
    return _csv(request, rights_of(request.user))


def _csv(request: HttpRequest, rights: Rights) -> StreamingHttpResponse:
    wanted, _ = _wanted(request, rights, "format", "limit")
    first = entries_page(wanted, rights, limit=ROWS)
    pages = csv_pages(wanted, rights, first, lambda: rights_now(request))
    answer = StreamingHttpResponse(pages, content_type="text/csv; charset=utf-8")
    name = f"suppressions-{wanted.filter.now:%Y%m%d-%H%M%S}.csv"
    answer["Content-Disposition"] = f'attachment; filename="{name}"'
    patch_cache_control(answer, private=True, no_store=True)
    return answer


@partial(api_view, scope=ApiToken.Scope.READ)
def api_suppressions(request: HttpRequest, rights: Rights) -> HttpResponseBase:
    """``/api/suppressions/``: the list, newest first; all of it with ``format=csv``."""
    if request.GET.get("format") == "csv":
        return _csv(request, rights)
    wanted, own = _wanted(request, rights, "format", "limit")
    limit = number(own, "limit", default=SHOWN, low=1, high=MAX_ROWS)
    with bounded_reads():
        page = entries_page(wanted, rights, before=own.get("before", ""), limit=limit)
    query = request.GET.copy()
    query["before"] = page.before
    following = request.build_absolute_uri(f"{request.path}?{query.urlencode()}")
    return Json(
        {
            "results": [row.as_json() for row in page.rows],
            "next": following if page.before else None,
        }
    )


@partial(api_view, scope=ApiToken.Scope.READ)
def api_mailed_again(request: HttpRequest, rights: Rights) -> HttpResponse:
    """``/api/suppressions/mailed-again/``: mail to addresses that had died, by who sent it."""
    wanted, own = _wanted(request, rights, "limit")
    wanted.filter.check_locations(rights)
    limit = number(own, "limit", default=SHOWN, low=1, high=MAX_ROWS)
    with bounded_reads():
        rows = mailed_after_death(wanted.filter, rights, limit=limit)
    return Json({"results": [row.as_json() for row in rows]})


# --- Changes -----------------------------------------------------------------------------------


def _place(request: HttpRequest) -> Location:
    """The location that a form names. Raises ``Http404`` or ``PermissionDenied``."""
    named = request.POST.get("location", "")
    return operated(request, meant("location", named, rights_of(request.user)))


@require_POST
def add(request: HttpRequest) -> HttpResponseBase:
    """Put an address on a location's list by hand, or the addresses of a CSV ``file``."""
    location, reason = _place(request), request.POST.get("reason", "").strip()
    try:
        if file := request.FILES.get("file"):
            now = timezone.now()
            done = import_addresses(
                file.read(),
                location,
                request.user,
                reason=reason,
                now=now,
            )
            messages.success(request, done.sentence)
        else:
            address = address_of(request.POST.get("recipient", ""))
            if not address:
                raise FileError("Give an address, or a file.")
            suppress(location.pk, address, Cause.HAND, request.user, reason=reason)
            messages.success(request, "It is on the list now. HighLevel does not read this list.")
    except FileError as error:
        messages.error(request, f"Nothing was put on the list. {error}")
    return back_to_page(request)


@require_http_methods(["GET", "POST"])
def erasure(request: HttpRequest) -> HttpResponse:
    """Erase a recipient, for those who see everything: first how much that is, then it is done."""
    if not may_operate(request.user):
        raise PermissionDenied
    address = address_of(request.POST.get("address", ""))
    context: dict[str, object] = {
        "view": "suppressions",
        "address": request.POST.get("address", ""),
        "location": request.POST.get("location", ""),
    }
    if request.method == "POST" and not address:
        context["problem"] = "This is no address."
    elif request.method == "POST":
        ref = request.POST.get("location", "").strip()
        place = get_location(ref, rights_of(request.user)) if ref else None
        if "erase" in request.POST:
            context |= _erased(request, address, place)
        else:
            context["found"] = mails_to(address, place)
    status = 400 if "problem" in context else 200
    return render(request, "dashboard/erasure.html", context, status=status)


def _erased(request: HttpRequest, address: str, place: Location | None) -> dict[str, object]:
    try:
        done = erase_recipient(address, place, request.user, seconds=ERASE_SECONDS)
    except Unfinished:
        return {"unfinished": True, "found": mails_to(address, place)}
    return {"done": sorted(done.items()), "address": "", "location": ""}


@require_POST
def take_off(request: HttpRequest, pk: int) -> HttpResponseBase:
    """Release an address, with a ``reason``."""
    rights = rights_of(request.user)
    entry = get_object_or_404(restrict(Suppressed.objects.all(), rights), pk=pk)
    if not may_operate(request.user, [entry.location_id]):
        raise PermissionDenied
    reason = request.POST.get("reason", "").strip()
    if not reason:
        messages.error(request, "Not released: say why.")
    elif release(entry.location_id, entry.recipient, request.user, reason=reason):
        messages.success(request, "Released: it stays off until something new speaks against it.")
    return back_to_page(request)


@require_POST
def settle(request: HttpRequest) -> HttpResponseBase:
    """Confirm or release what is held because of a ``provider``, where the user operates."""
    whole = may_operate(request.user)
    places = None if whole else list(operated_by(request.user).values_list("pk", flat=True))
    if places == []:
        raise PermissionDenied
    confirm = request.POST.get("do") == "confirm"
    done = settle_held(request.POST.get("provider", ""), places, request.user, confirm=confirm)
    more = " There are more: do it again." if done == MOST_AT_ONCE else ""
    messages.success(request, f"{done:,} {'confirmed' if confirm else 'released'}.{more}")
    return back_to_page(request)
