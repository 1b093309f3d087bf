"""Invitations: made for an e-mail address, handed on by a link, accepted once.

The link holds a random secret with our signature; stored is only its digest. What is accepted is
what whoever invited may still offer then.
"""

import secrets
from datetime import datetime, timedelta

from django.conf import settings
from django.contrib import messages
from django.contrib.auth import login
from django.contrib.auth.decorators import login_not_required
from django.contrib.auth.models import AnonymousUser, User
from django.core import signing
from django.core.mail import EmailMessage
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect, render
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_http_methods

from dashboard import audit
from dashboard.access import may_invite
from dashboard.models import ApiToken, Invitation, Membership
from dashboard.people.accounts import absolute
from dashboard.people.forms import AccountForm


def invite(offered: Invitation, *, now: datetime) -> str:
    """Store an invitation and return its token, the only time that it can be read.

    Others that are open for the same address and the same thing are revoked.
    """
    token = _signer().sign(secrets.token_urlsafe(24))
    offered.digest = ApiToken.digest_of(token)
    offered.expires_at = now + timedelta(days=settings.INVITATION_DAYS)
    same = {name: getattr(offered, name) for name in ("email", "location", "company_ref")}
    with transaction.atomic():
        Invitation.objects.at(now).filter(**same).update(revoked_at=now)
        offered.save()
        audit.note(offered.by, "invite", offered, location_id=offered.location_id)
    return token


def _signer() -> signing.Signer:
    return signing.Signer(salt="dashboard.invitation", sep=".")


def send(offered: Invitation, link: str) -> bool:
    """Mail the link. False where no mail server is set up, or it fails."""
    if not settings.SENDS_MAIL:
        return False
    context = {"offered": offered, "link": link}
    text = render_to_string("account/email/invitation_message.txt", context)
    message = EmailMessage("You are invited to Sendwatch", text, to=[offered.email])
    try:
        message.send()
    except OSError:
        return False
    return True


def link_of(request: HttpRequest, token: str) -> str:
    """The address at which it is accepted."""
    return absolute(request, reverse("dashboard:invitation", args=[token]))


def find(token: str, *, now: datetime) -> Invitation | None:
    """The invitation that a token opens; ``None`` alike for a wrong, a used and an ended one."""
    try:
        _signer().unsign(token)
    except signing.BadSignature:
        return None
    found = Invitation.objects.at(now).select_related("by", "location")
    offered = found.filter(digest=ApiToken.digest_of(token)).first()
    return offered if offered and may_invite(offered.by, offered) else None


def accept(offered: Invitation, user: User, *, now: datetime) -> bool:
    """Give what was offered, in the caller's transaction. False if somebody was quicker."""
    claimed = Invitation.objects.at(now).filter(pk=offered.pk).update(accepted_at=now)
    if not claimed:
        return False
    if offered.role == Invitation.Role.STAFF:
        user.is_staff = True
        user.save(update_fields=["is_staff"])
    else:
        _add_membership(offered, user, now)
    audit.note(user, "accept invitation", offered, location_id=offered.location_id)
    return True


def _add_membership(offered: Invitation, user: User, now: datetime) -> None:
    """As offered; nobody loses what they had: the greater role and the later end hold."""
    days = offered.access_days
    ends = None if days is None else now + timedelta(days=days)
    held, made = Membership.objects.get_or_create(
        user=user,
        location=offered.location,
        company_ref=offered.company_ref,
        defaults={"role": offered.role, "expires_at": ends},
    )
    if made:
        return
    over = held.expires_at is not None and held.expires_at <= now
    if over or Membership.Role.OPERATOR not in (held.role, offered.role):
        held.role = offered.role
    else:
        held.role = Membership.Role.OPERATOR
    if over or ends is None:
        held.expires_at = ends
    elif held.expires_at is not None:
        held.expires_at = max(held.expires_at, ends)
    held.save()


# --- For who is invited ------------------------------------------------------------------------


@login_not_required
@require_http_methods(["GET", "POST"])
def invitation(request: HttpRequest, token: str) -> HttpResponseBase:
    """Accept: as who is logged in, or by making an account. 404 alike for all that is not open."""
    offered = find(token, now=timezone.now())
    if offered is None:
        return _uncached(render(request, "dashboard/people/ended.html", status=404))
    form = None if request.user.is_authenticated else AccountForm(request.POST or None)
    if request.method == "POST" and (form is None or form.is_valid()):
        return _accepted(request, offered, form)
    context = {"offered": offered, "form": form}
    return _uncached(render(request, "dashboard/people/invitation.html", context))


def _accepted(
    request: HttpRequest, offered: Invitation, form: AccountForm | None
) -> HttpResponseBase:
    with transaction.atomic():
        user = _make_account(offered, form) if form else request.user
        if isinstance(user, AnonymousUser) or not accept(offered, user, now=timezone.now()):
            transaction.set_rollback(True)
            return _uncached(render(request, "dashboard/people/ended.html", status=404))
    if form is not None:
        login(request, user)
    messages.success(request, f"You are {offered.what} now.")
    return redirect("dashboard:overview")


def _make_account(offered: Invitation, form: AccountForm) -> User:
    form.instance.email = offered.email
    user: User = form.save()
    audit.note(user, "make account", user.get_username())
    return user


def _uncached(answer: HttpResponse) -> HttpResponse:
    answer["Cache-Control"] = "private, no-store"
    answer["Referrer-Policy"] = "no-referrer"  # the address is all that one needs
    return answer
