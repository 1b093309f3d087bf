"""Pages with their filters, kept under a name by whoever saved them, for themselves or for all.

A shared view shows to everybody, and what it shows is bound by the rights of who opens it; to
those who see some locations only, one that names another location is not even listed.
"""

from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote, urlencode

from django.contrib import messages
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.db.models import Q
from django.http import Http404, HttpRequest, HttpResponseBase
from django.urls import Resolver404, resolve
from django.utils import timezone
from django.views.decorators.http import require_POST

from dashboard.access import Rights, restrict, rights_of
from dashboard.editing import back_to_page
from dashboard.filters import TERM_NAMES, TIME_NAMES, FilterError, parse
from dashboard.models import SavedView
from dashboard.pages.page import PLACES
from ingest.models import Location

LISTED = 50
MOST = 200  # of one person

type Params = list[tuple[str, str]]


class Entry(NamedTuple):
    """A saved view in the menu. ``owner`` is named where it is somebody else's."""

    pk: int
    name: str
    address: str
    shared: bool
    owner: str
    may_change: bool


def entries(user: User, rights: Rights) -> list[Entry]:
    """The first of the views that a user has saved or that others share, by their names."""
    theirs = SavedView.objects.filter(Q(owner=user) | Q(shared=True)).select_related("owner")
    found = list(theirs.order_by("name", "pk")[: MOST if not rights.everything else LISTED])
    if not rights.everything:
        seen = _without_strange_locations(found, rights)
        seen = [view for view in seen if not (rights.masked_ids and _names_somebody(view))]
        found = [view for view in found if view in seen or view.owner_id == user.pk][:LISTED]
    return [
        Entry(
            view.pk,
            view.name,
            view.address,
            view.shared,
            "" if view.owner_id == user.pk else view.owner.get_username(),
            _may_change(user, view),
        )
        for view in found
    ]


def _may_change(user: User, view: SavedView) -> bool:
    return view.owner_id == user.pk or user.is_staff or user.is_superuser


def _without_strange_locations(views: list[SavedView], rights: Rights) -> list[SavedView]:
    named = {view.pk: _locations_of(view) for view in views}
    wanted = frozenset().union(*named.values())
    if not wanted:
        return views
    found = restrict(Location.objects.filter(ref__in=wanted), rights, "pk")
    seen = frozenset(found.values_list("ref", flat=True))
    return [view for view in views if named[view.pk] <= seen]


def _names_somebody(view: SavedView) -> bool:
    """Whether a view searches for an address."""
    found = (text.lstrip("-") for name, text in parse_qsl(view.query) if name == "q")
    return any(not text.startswith("@") for text in found)


def _locations_of(view: SavedView) -> frozenset[str]:
    """The locations that a view names."""
    refs = {text.removeprefix("-") for name, text in parse_qsl(view.query) if name == "location"}
    parts = view.path.split("/")
    return frozenset(refs | ({unquote(parts[2])} if parts[1] == "locations" else set()))


# --- Forms ---------------------------------------------------------------------------------------


@require_POST
def save(request: HttpRequest) -> HttpResponseBase:
    """Save the page ``next`` under ``name``, for all if ``shared``. The same name is replaced."""
    name = request.POST.get("name", "").strip()
    user = request.user
    try:
        path, query = canonical(request.POST.get("next", ""))
        _check_name(name)
        others = SavedView.objects.filter(owner_id=user.pk).exclude(name=name)
        if others.count() >= MOST:
            raise FilterError(f"You have {MOST} views: delete one first.")
    except FilterError as error:
        messages.error(request, f"Not saved. {error}")
        return back_to_page(request)
    shared = "shared" in request.POST
    columns = {"path": path, "query": query, "shared": shared}
    _, new = SavedView.objects.update_or_create(owner_id=user.pk, name=name, defaults=columns)
    messages.success(request, f"The view “{name}” is {'saved' if new else 'replaced'}.")
    return back_to_page(request)


@require_POST
def change(request: HttpRequest, pk: int) -> HttpResponseBase:
    """Give a view another ``name``, share it or not; or ``delete`` it. Its owner's and staff's."""
    view = _get_view(request, pk)
    if "delete" in request.POST:
        view.delete()
        messages.success(request, f"The view “{view.name}” is deleted.")
        return back_to_page(request)
    name = request.POST.get("name", "").strip()
    try:
        _check_name(name)
        if SavedView.objects.filter(owner=view.owner, name=name).exclude(pk=pk).exists():
            raise FilterError(f"There is already a view named “{name}”.")
    except FilterError as error:
        messages.error(request, f"Not saved. {error}")
        return back_to_page(request)
    view.name, view.shared = name, "shared" in request.POST
    view.save(update_fields=["name", "shared"])
    messages.success(request, f"The view “{name}” is saved.")
    return back_to_page(request)


def _get_view(request: HttpRequest, pk: int) -> SavedView:
    """The view, if the user may change it. Raises ``Http404`` or ``PermissionDenied``."""
    view = SavedView.objects.filter(pk=pk).first()
    may_change = view is not None and _may_change(request.user, view)  # type: ignore[arg-type]
    if view is None or not (may_change or _is_found(view, rights_of(request.user))):
        raise Http404("There is no such view.")
    if not may_change:
        raise PermissionDenied
    return view


def _is_found(view: SavedView, rights: Rights) -> bool:
    return view.shared and (rights.everything or bool(_without_strange_locations([view], rights)))


def _check_name(name: str) -> None:
    most = SavedView._meta.get_field("name").max_length or 0
    if not 0 < len(name) <= most or not name.isprintable():
        raise FilterError(f"A view has a name of at most {most} characters.")


# --- Addresses -----------------------------------------------------------------------------------


def page_address(address: str) -> str:
    """The address of one of our pages, as it is. Raises ``FilterError`` for any other."""
    path = address.partition("?")[0]
    try:
        if not path.startswith("/") or path.startswith("//") or "\\" in path:
            raise Resolver404
        found = resolve(unquote(path))
    except Resolver404:
        raise FilterError("This is not the address of a page.") from None
    if found.namespace != "dashboard" or path.startswith("/api/"):
        raise FilterError("This is not the address of a page.")
    return address


def canonical(address: str) -> tuple[str, str]:
    """Path and query string of a page, in the one form that says the same.

    Raises ``FilterError`` for a filter that cannot be read, and for what is no page.
    """
    path, _, query = page_address(address).partition("?")
    if len(path) > (SavedView._meta.get_field("path").max_length or 0):
        raise FilterError("This address is too long.")
    of_filter, rest = split(parse_qsl(query))
    filter = parse(of_filter, now=timezone.now())
    rest = [param for param in rest if param[0] not in PLACES]
    return path, joined("", filter.canonical(), sorted(rest)).removeprefix("?")


def split(params: Iterable[tuple[str, str]]) -> tuple[Params, Params]:
    """Query parameters as the filter's and the page's own."""
    of_filter: Params = []
    rest: Params = []
    for param in params:
        (of_filter if param[0] in (*TERM_NAMES, *TIME_NAMES) else rest).append(param)
    return of_filter, rest


def joined(path: str, filter: str, rest: Params) -> str:
    """An address of a filter's query string and a page's own parameters."""
    query = "&".join(part for part in (filter, urlencode(rest)) if part)
    return f"{path}?{query}" if query else path
