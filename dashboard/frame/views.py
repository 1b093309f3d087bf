"""The page that HighLevel opens, and the way in from it.

What its address says beside ``next`` is ignored: anybody can write a link with anybody's name.
"""

from allauth.core import ratelimit
from django.conf import settings
from django.contrib.auth import login
from django.contrib.auth.decorators import login_not_required
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST

from dashboard.api import Json
from dashboard.frame.ancestors import ancestors
from dashboard.frame.context import Unreadable, UserContext, read_context
from dashboard.frame.guests import LASTS, Refused, admit
from dashboard.frame.middleware import FRAMED
from ingest.models import Location

SENTENCE = "HighLevel did not tell who you are, or you may see nothing here."


@login_not_required
@never_cache
@require_GET
def frame(request: HttpRequest) -> HttpResponse:
    """``/frame/``: asks HighLevel's page around it who looks, and hands the answer on."""
    _must_be_on()
    setattr(request, FRAMED, "")
    context = {"origins": ancestors(), "next": _own_page(request.GET.get("next", ""))}
    return render(request, "dashboard/frame.html", context)


@login_not_required
@never_cache
@require_POST
def enter(request: HttpRequest) -> HttpResponse:
    """Log in whom ``payload`` names: ``{"to": address}``. 403 alike for whatever is wrong."""
    _must_be_on()
    setattr(request, FRAMED, "")
    try:
        # What comes in the clear could be sent again by whoever saw it.
        if not request.is_secure() or not ratelimit.consume(request, action="frame"):
            raise Refused
        context = read_context(request.POST.get("payload", ""), settings.HIGHLEVEL_SHARED_SECRET)
        user = admit(context, now=timezone.now())
    except (Unreadable, Refused):
        return Json({"error": SENTENCE}, status=403)
    request.session.flush()
    login(request, user)
    request.session.set_expiry(LASTS)
    request.session[FRAMED] = context.company_ref
    return Json({"to": _own_page(request.POST.get("next", "")) or _first_page(context)})


def _must_be_on() -> None:
    if not settings.HIGHLEVEL_SHARED_SECRET:
        raise Http404


def _first_page(context: UserContext) -> str:
    ref = context.location_ref
    if Location.objects.filter(ref=ref, company_ref=context.company_ref).exists():
        return reverse("dashboard:location", args=[ref])
    return reverse("dashboard:overview")


def _own_page(address: str) -> str:
    """The address, if it is one of ours: a path, and of no other host."""
    is_ours = address.startswith("/") and url_has_allowed_host_and_scheme(
        address, allowed_hosts=None
    )
    return address if is_ours else ""
