"""The pages. A page and its live fragments share their URL, their filter and their markup."""

from collections.abc import Callable
from functools import wraps
from http import HTTPStatus
from typing import Any

from django.conf import settings
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.cache import patch_cache_control, patch_vary_headers
from django.views.decorators.http import require_GET, require_POST

from dashboard import feed, live, looks, queries
from dashboard.access import Rights, get_location, may_operate, restrict, rights_of
from dashboard.bounded import TookTooLong, bounded_reads
from dashboard.filter_bar import bar_of, in_remembered_zone
from dashboard.filters import FilterError, parse
from dashboard.models import Suspension
from dashboard.mutes import NOBODY, viewer_of
from dashboard.names import campaign_name
from dashboard.pages import PAGES
from dashboard.pages.page import Page
from dashboard.reasons import get_reason
from dashboard.self_test import send_test_event
from ingest.models import Event, HourlyCount, Location, Value
from ingest.vocabulary import FLEET_LOCATION, Dimension

LONGEST = 5.0  # seconds that a page's reads may take

type View = Callable[..., HttpResponseBase]


def explained(view: View) -> View:
    """Answer an unreadable filter with 400, what takes too long with 503, each in a sentence."""

    @wraps(view)
    def answered(request: HttpRequest, **kwargs: Any) -> HttpResponseBase:
        try:
            with bounded_reads(LONGEST):
                return view(request, **kwargs)
        except FilterError as error:
            return render(request, "400.html", {"sentence": str(error)}, status=400)
        except TookTooLong as error:
            return render(request, "503.html", {"sentence": str(error)}, status=503)

    return answered


@require_GET
def overview(request: HttpRequest) -> HttpResponseBase:
    """All locations that the user may see. Notes that they have looked."""
    answer = _overview(request)
    if answer.status_code == HTTPStatus.OK and not request.htmx:  # type: ignore[attr-defined]
        looks.note(request.user.pk or 0, rights_of(request.user), now=timezone.now())
    return answer


@explained
def _overview(request: HttpRequest) -> HttpResponse:
    rights = rights_of(request.user)
    context: dict[str, Any] = {"title": "Overview"}
    if not request.htmx:  # type: ignore[attr-defined]
        now = timezone.now()
        context["looked"] = looks.since_last(request.user.pk or 0, rights, now=now)
    if rights.everything and not Event.objects.exists():
        context["setup_url"] = _webhook_url(request)
    return show(request, PAGES["overview"], rights, context)


@require_GET
@explained
def location(request: HttpRequest, ref: str) -> HttpResponse:
    """One location with its campaigns and tags. 404 for one that the user may not see."""
    rights = rights_of(request.user)
    found = get_location(ref, rights)
    context = {
        "title": found.name or found.ref,
        "location": found,
        "may_operate": may_operate(request.user, [found.pk]),
        "suspensions": Suspension.objects.at(timezone.now()).filter(location=found),
        "client_links": found.client_links.at(timezone.now()).select_related("by").order_by("pk"),
        "base": _base(request),
        "is_gone": Location.objects.gone().filter(pk=found.pk).exists(),
    }
    return show(request, PAGES["location"], rights, context, ref)


@require_GET
@explained
def campaign(request: HttpRequest, key: str) -> HttpResponse:
    """One campaign or workflow and the locations that send it."""
    rights = rights_of(request.user)
    found = _get_campaign(key, rights)
    named = found.label not in ("", found.text)
    title = found.label if named else campaign_name(found.text)
    used = HourlyCount.objects.filter(dimension=Dimension.CAMPAIGN, value=found)
    used = used.exclude(location_id=FLEET_LOCATION)
    senders = set(used.values_list("location_id", flat=True)) if not rights.everything else ()
    may = may_operate(request.user, senders)
    context = {"title": title, "campaign": found, "may_operate": may}
    return show(request, PAGES["campaign"], rights, context, key)


@require_GET
@explained
def reasons(request: HttpRequest) -> HttpResponse:
    """Why mail is refused: each refusal once."""
    return show(request, PAGES["reasons"], rights_of(request.user), {"title": "Reasons"})


@require_GET
@explained
def reason(request: HttpRequest, pk: int) -> HttpResponse:
    """One refusal. 404 alike for one that is not there and one that only others have met."""
    rights = rights_of(request.user)
    found = get_reason(pk, rights)
    return show(request, PAGES["reason"], rights, {"title": found.text, "reason": found}, str(pk))


@require_GET
@explained
def status(request: HttpRequest) -> HttpResponse:
    """Is it receiving, and how to set it up."""
    context = {
        "title": "Status",
        "may_operate": may_operate(request.user),
        "webhook_url": _webhook_url(request),
        "received": Event.objects.exists(),
    }
    return show(request, PAGES["status"], rights_of(request.user), context)


@require_POST
def test_event(request: HttpRequest) -> HttpResponseBase:
    """Send a signed test event through the endpoint of this very server."""
    if not may_operate(request.user):
        raise PermissionDenied
    host, port = request.META["SERVER_NAME"], request.META["SERVER_PORT"]
    sent = send_test_event(f"http://{f'[{host}]' if ':' in host else host}:{port}")
    say = messages.success if sent.status == "stored" else messages.error
    say(request, sent.sentence)
    return redirect("dashboard:status")


def _get_campaign(key: str, rights: Rights) -> Value:
    """The campaign with this key. 404 for one that only others send."""
    found = Value.objects.filter(dimension=Dimension.CAMPAIGN, text=key).first()
    if found is not None and not rights.everything:
        used = HourlyCount.objects.filter(dimension=Dimension.CAMPAIGN, value=found)
        found = found if restrict(used, rights).exists() else None
    if found is None:
        raise Http404("There is no such campaign.")
    return found


def show(
    request: HttpRequest,
    page: Page,
    rights: Rights,
    context: dict[str, Any],
    subject: str = "",
) -> HttpResponse:
    """The page, or for htmx its fragments alone. ``subject`` is the location or so it is about.

    Raises ``FilterError`` for what cannot be read or answered.
    """
    params = [(name, value) for name, values in request.GET.lists() for value in values]
    filter = parse(
        params,
        now=timezone.now(),
        also=tuple(page.accepted),
        default_range=page.default_range,
        blanks=True,
    )
    filter.check_locations(rights)
    filter = in_remembered_zone(filter, request)
    if page.subject:
        filter = filter.without(page.subject).with_(page.subject, subject)
    viewer = viewer_of(request.user, now=filter.now) if page.personal else NOBODY
    asked = page.ask(filter, rights, page.options(params), viewer)
    if request.htmx:  # type: ignore[attr-defined]
        return _private(HttpResponse(live.everything(page, asked, state={})))
    query = asked.link(filter).removeprefix("?")
    shown = {
        "page": page,
        "view": page.name,
        "asked": asked,
        "now": asked.now,
        "zone": filter.zone.key,
        "bar": bar_of(asked, page, request),
        "cursor": queries.newest_cursor(),  # before all that is painted: nothing is missed
        "live_url": f"/ws/live/?{query}&view={page.name}",
    }
    if page.feed:
        shown["feed"] = feed.newest_feed(filter, rights)
    with asked.in_zone():
        return _private(render(request, f"dashboard/{page.name}.html", shown | context))


def _private(response: HttpResponse) -> HttpResponse:
    patch_vary_headers(response, ["HX-Request", "Cookie"])
    patch_cache_control(response, private=True, no_cache=True)
    return response


def _webhook_url(request: HttpRequest) -> str:
    return f"{_base(request)}/webhooks/lc-email/"


def _base(request: HttpRequest) -> str:
    """Where others reach this server."""
    base: str = settings.PUBLIC_URL or request.build_absolute_uri("/").rstrip("/")
    return base
