"""Client links: a location's page for somebody without an account, read-only and masked.

What a link may is ``access.rights_of_link``. It makes no session, and no other address takes it;
what leads out of its page is taken out of the page.
"""

import re
from datetime import timedelta

from django.contrib import messages
from django.contrib.auth.decorators import login_not_required
from django.contrib.auth.models import AnonymousUser
from django.db import transaction
from django.http import (
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponseBase,
    HttpResponseRedirect,
)
from django.shortcuts import get_object_or_404, render
from django.utils import timezone
from django.utils.cache import patch_cache_control
from django.views.decorators.http import require_GET, require_POST

from dashboard import audit
from dashboard.access import Rights, client_link, rights_of_link
from dashboard.api import Json
from dashboard.editing import back_to_page, operated, sentence_of
from dashboard.filter_bar import narrowed
from dashboard.filters import Term
from dashboard.forms import ClientLinkForm
from dashboard.models import ClientLink, Suspension
from dashboard.pages import PAGES
from dashboard.suggest import suggest
from dashboard.views import explained, show
from ingest.models import Location

# Our own markup: attributes are quoted and escaped, and links hold no links.
_AWAY = re.compile(r'<a\b(?=[^>]*\shref="(?![?#]))([^>]*)>(.*?)</a>', re.DOTALL)
_CLASS = re.compile(r'\sclass="[^"]*"')


# --- For those who operate the location --------------------------------------------------------


@require_POST
def make(request: HttpRequest, ref: str) -> HttpResponseBase:
    """Make a link for ``name`` that lasts for ``days``."""
    location = operated(request, ref)
    form = ClientLinkForm(request.POST, instance=ClientLink(location=location))
    if not form.is_valid():
        messages.error(request, sentence_of(form))
        return back_to_page(request)
    link: ClientLink = form.instance
    link.by_id = request.user.pk
    link.expires_at = timezone.now() + timedelta(days=form.cleaned_data["days"])
    with transaction.atomic():
        form.save()
        ends = link.expires_at.isoformat(timespec="minutes")
        audit.note(request.user, "make client link", link, location_id=location.pk, ends=ends)
    messages.success(request, f"The link for {link.name} is below, to be copied.")
    return back_to_page(request)


@require_POST
def revoke(request: HttpRequest, ref: str, pk: int) -> HttpResponseBase:
    """End a link now; its open pages follow within seconds."""
    location = operated(request, ref)
    link = get_object_or_404(ClientLink, pk=pk, location=location)
    with transaction.atomic():
        if ClientLink.objects.filter(pk=pk, revoked_at=None).update(revoked_at=timezone.now()):
            audit.note(request.user, "revoke client link", link, location_id=location.pk)
    messages.success(request, f"The link for {link.name} opens nothing any more.")
    return back_to_page(request)


# --- For those who have the link ---------------------------------------------------------------


@login_not_required
@require_GET
def shared(request: HttpRequest, token: str) -> HttpResponseBase:
    """``/c/<token>/``: the location's page. 404 alike for a wrong, an ended and a revoked link.

    The form that adds a filter and its suggestions come here too: a link opens this one address.
    """
    request.user = AnonymousUser()  # who is logged in sees here what the client sees
    try:
        answer = _answer(request, client_link(token, now=timezone.now()))
    except Http404:
        request.client_link = None  # type: ignore[attr-defined]
        answer = render(request, "dashboard/link_ended.html", status=404)
    if isinstance(answer, HttpResponse) and "html" in answer["Content-Type"]:
        answer.content = confined(answer.text).encode()
    patch_cache_control(answer, private=True, no_store=True)
    answer["Referrer-Policy"] = "no-referrer"  # the address is all that one needs
    answer["X-Robots-Tag"] = "noindex, nofollow"
    answer._has_been_logged = True  # type: ignore[attr-defined]  # Django's log would name it
    return answer


def _answer(request: HttpRequest, link: ClientLink | None) -> HttpResponseBase:
    if link is None:
        raise Http404
    request.client_link = link  # type: ignore[attr-defined]  # for templates
    rights, given = rights_of_link(link), request.GET
    if "suggest" in given:
        return _suggested(request, rights=rights)
    if "at" in given:
        return _narrowed(request, rights=rights)
    return _page(request, link=link, rights=rights)


@explained
def _suggested(request: HttpRequest, *, rights: Rights) -> HttpResponseBase:
    options = suggest(request.GET.get("name", ""), request.GET.get("text", ""), rights)
    return Json({"options": [option._asdict() for option in options]})


@explained
def _narrowed(request: HttpRequest, *, rights: Rights) -> HttpResponseBase:
    """On to the page with one more filter, as ``filter_bar.narrow`` goes."""
    given = request.GET
    _, _, query = given.get("at", "").partition("?")
    address = f"{request.path}?{query}"
    if value := given.get("value", "").strip():
        term = Term(given.get("name", ""), value, given.get("how") == "not")
        address = narrowed(address, term, rights)
    return HttpResponseRedirect(address)


@explained
def _page(request: HttpRequest, *, link: ClientLink, rights: Rights) -> HttpResponseBase:
    location = link.location
    context = {
        "title": location.name or location.ref,
        "location": location,
        "is_gone": Location.objects.gone().filter(pk=location.pk).exists(),
        "messages": (),  # those of somebody who is logged in stay where they are
        "suspensions": Suspension.objects.at(timezone.now()).filter(location=location),
    }
    return show(request, PAGES["location"], rights, context, location.ref)


def confined(html: str) -> str:
    """HTML of a page without the links that lead out of it: their texts stay.

    But for those of the class ``more``, which say nothing but that there is more elsewhere.
    Done to the markup as it leaves, so that a link which a region gets tomorrow is out as well.
    """
    return _AWAY.sub(_unlinked, html)


def _unlinked(link: re.Match[str]) -> str:
    attributes, text = link.groups()
    look = _CLASS.search(attributes)
    if look and look[0].strip() == 'class="more"':
        return ""
    return f"<span{look[0] if look else ''}>{text}</span>"
