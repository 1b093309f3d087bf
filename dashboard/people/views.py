"""The page of people: who sees what, invitations that are open, and what can be done about it."""

from collections.abc import Iterable
from dataclasses import dataclass

from allauth.mfa.models import Authenticator
from django.contrib import messages
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.core.paginator import Page, Paginator
from django.db import transaction
from django.db.models import Prefetch, Q, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_POST

from dashboard import audit
from dashboard.access import (
    may_enter_admin,
    may_invite,
    may_manage,
    may_remove,
    memberships_shown,
    operated_by,
    rights_everywhere,
)
from dashboard.frame.guests import is_guest
from dashboard.models import Invitation, Membership
from dashboard.people import invitations
from dashboard.people.accounts import reset_link
from dashboard.people.forms import InvitationForm

A_PAGE = 50
MOST_LOCATIONS = 500  # that are offered while one types


@dataclass(frozen=True)
class Person:
    """A row: somebody, what they hold (each with whether it may be removed), and what may be done.

    ``factor`` is whether they have a second factor; ``None`` for who is not to know. A ``guest``
    comes from HighLevel and is to have no password.
    """

    user: User
    held: list[tuple[Membership, bool]]
    factor: bool | None
    manageable: bool
    guest: bool


@require_http_methods(["GET", "POST"])
def people(request: HttpRequest) -> HttpResponse:
    """Who sees what, and the form that invites others."""
    asking = _asking(request)
    form, link, mailed = InvitationForm(request.POST or None, by=asking), "", False
    if request.method == "POST" and form.is_valid():
        offered = form.offered
        link = invitations.link_of(request, invitations.invite(offered, now=timezone.now()))
        mailed = invitations.send(offered, link)
        if mailed:
            messages.success(request, f"{offered.email} has mail: {offered.what}.")
            return redirect("dashboard:people")
        form = InvitationForm(by=asking)
    return _page(request, asking, form=form, link=link, link_for="the invitation")


def _page(request: HttpRequest, asking: User, **context: object) -> HttpResponse:
    now, query = timezone.now(), request.GET.get("q", "").strip()
    page = Paginator(_users(asking, query), A_PAGE).get_page(request.GET.get("page"))
    context |= {
        "people": _persons(asking, page),
        "page": page,
        "query": query,
        "open": _open_invitations(asking),
        "locations": operated_by(asking).exclude(name="").order_by("name")[:MOST_LOCATIONS],
        "now": now,
        "view": "people",
    }
    context.setdefault("form", InvitationForm(by=asking))
    answer = render(request, "dashboard/people/people.html", context)
    answer["Cache-Control"] = "private, no-store"
    return answer


def _asking(request: HttpRequest) -> User:
    """Who asks, if they operate anything. Raises ``PermissionDenied``."""
    if not isinstance(request.user, User) or not may_enter_admin(request.user):
        raise PermissionDenied
    return request.user


def _users(asking: User, query: str) -> QuerySet[User]:
    """Whom one may see: staff everybody, operators those who hold something of theirs."""
    held = memberships_shown(asking)
    users = User.objects.all()
    if not rights_everywhere(asking):
        users = users.filter(pk__in=held.values("user_id"))
    for word in query.split():
        about = Q(location__name__icontains=word) | Q(location__ref=word) | Q(company_ref=word)
        by_name = Q(username__icontains=word) | Q(email__icontains=word)
        users = users.filter(by_name | Q(pk__in=held.filter(about).values("user_id")))
    shown = held.select_related("location").order_by("company_ref", "location__name")
    return users.prefetch_related(Prefetch("memberships", shown)).order_by("-is_active", "username")


def _persons(asking: User, page: Page[User]) -> Iterable[Person]:
    knows = rights_everywhere(asking)
    factors = Authenticator.objects.filter(user__in=list(page), type=Authenticator.Type.TOTP)
    having = set(factors.values_list("user_id", flat=True)) if knows else set()
    for user in page:
        held = [(each, may_remove(asking, each)) for each in user.memberships.all()]
        factor = user.pk in having if knows else None
        yield Person(user, held, factor, may_manage(asking, user), is_guest(user))


def _open_invitations(asking: User) -> list[Invitation]:
    found = Invitation.objects.at(timezone.now()).select_related("location", "by")
    if not rights_everywhere(asking):
        found = found.filter(location__in=operated_by(asking))
    return list(found.order_by("-created_at")[:MOST_LOCATIONS])


@require_POST
def revoke(request: HttpRequest, pk: int) -> HttpResponseBase:
    """Take an invitation back. 404 for one that the user could not have made."""
    asking = _asking(request)
    offered = Invitation.objects.at(timezone.now()).filter(pk=pk).first()
    if offered is None or not may_invite(asking, offered):
        raise Http404("There is no such invitation.")
    with transaction.atomic():
        Invitation.objects.filter(pk=pk).update(revoked_at=timezone.now())
        audit.note(asking, "revoke invitation", offered, location_id=offered.location_id)
    messages.success(request, f"The invitation of {offered.email} is taken back.")
    return redirect("dashboard:people")


@require_POST
def remove(request: HttpRequest, pk: int) -> HttpResponseBase:
    """Take a membership away; open pages of who held it follow within seconds."""
    asking = _asking(request)
    held = Membership.objects.select_related("user", "location").filter(pk=pk).first()
    if held is None or not may_remove(asking, held):
        raise Http404("There is no such membership.")
    with transaction.atomic():
        audit.note(asking, "remove membership", held, location_id=held.location_id)
        held.delete()
    where = held.location or f"company {held.company_ref}"
    messages.success(request, f"{held.user} is no {held.role} of {where} any more.")
    return redirect("dashboard:people")


@require_POST
def manage(request: HttpRequest, pk: int) -> HttpResponseBase:
    """What helps somebody who cannot log in, or keeps somebody out: ``do`` says which."""
    asking = _asking(request)
    user = get_object_or_404(User, pk=pk)
    if not may_manage(asking, user):
        raise Http404("There is no such account.")
    do = request.POST.get("do", "")
    if do == "reset" and not is_guest(user):
        audit.note(asking, "make reset link", user.get_username())
        return _page(request, asking, link=reset_link(request, user), link_for=user.get_username())
    if do not in _DONE:
        raise Http404("There is no such thing to do.")
    with transaction.atomic():
        if do == "factor":
            Authenticator.objects.filter(user=user).delete()
        else:
            User.objects.filter(pk=pk).update(is_active=do == "activate")
        action, said = _DONE[do]
        audit.note(asking, action, user.get_username())
    messages.success(request, said.format(user))
    return redirect("dashboard:people")


_DONE = {
    "factor": ("remove second factor", "{} logs in with the password alone now."),
    "deactivate": ("deactivate user", "{} is logged out and cannot log in."),
    "activate": ("activate user", "{} may log in again."),
}
