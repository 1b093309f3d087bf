"""Accounts of those who come from HighLevel: real users, whose rights end by themselves.

They are named ``hl:<company>:<user>``, which no form lets anybody be named, have no password and no
e-mail address, so that nobody can make a lasting account of them, and are never staff.
"""

from datetime import datetime, timedelta

from django.contrib.auth.models import User
from django.db import transaction

from dashboard import audit
from dashboard.frame.context import UserContext
from dashboard.models import Membership
from ingest.models import Company, Location

LASTS = timedelta(hours=12)
_PREFIX = "hl:"


class Refused(Exception):
    """Nobody whom we let in."""


def is_guest(user: User) -> bool:
    """Whether it is the account of somebody who comes from HighLevel."""
    return user.username.startswith(_PREFIX)


def admit(context: UserContext, *, now: datetime) -> User:
    """The user of a context, with the rights that it gives until ``now + LASTS``.

    Somebody of a location sees this location; somebody of an agency sees its locations, and
    operates them as its admin. Raises ``Refused`` where the company has not installed the app,
    where the location is not the company's, and for an account that was switched off.
    """
    company = Company.objects.installed().filter(ref=context.company_ref).first()
    if company is None:
        raise Refused
    location = None if context.is_of_agency else _location(context)
    with transaction.atomic():
        user = _user(context)
        # What was given by hand, without an end, stays.
        user.memberships.exclude(expires_at=None).delete()
        given = {"company_ref": company.ref} if location is None else {"location": location}
        role = Membership.Role.VIEWER
        if context.is_of_agency and context.is_admin:
            role = Membership.Role.OPERATOR
        ends = {"role": role, "expires_at": now + LASTS}
        Membership.objects.get_or_create(user=user, **given, defaults=ends)
    return user


def _location(context: UserContext) -> Location:
    theirs = Location.objects.there().filter(company_ref=context.company_ref)
    found = theirs.filter(ref=context.location_ref).first()
    if found is None:
        raise Refused
    return found


def _user(context: UserContext) -> User:
    username = f"{_PREFIX}{context.company_ref}:{context.user_ref}"
    user, is_new = User.objects.select_for_update().get_or_create(username=username)
    if is_new:
        user.set_unusable_password()
        audit.note(None, "make account", username, company=context.company_ref)
    elif not user.is_active or user.is_staff or user.is_superuser or user.has_usable_password():
        raise Refused
    if is_new or user.first_name != context.name:
        user.first_name = context.name
        user.save()
    return user
