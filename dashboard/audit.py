"""The log of who changed what. Entries are added in the transaction of the change itself."""

from typing import Any

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.utils.crypto import salted_hmac

from dashboard.models import AuditEntry


def note(
    actor: AbstractBaseUser | AnonymousUser | None,
    action: str,
    subject: object,
    *,
    location_id: int | None = None,
    **detail: Any,
) -> AuditEntry:
    """Add an entry. ``action`` is a verb and its noun (``"assign category"``).

    ``detail`` is what JSON can say of it: old and new values, how many. Without an actor, or with
    nobody who is logged in, it was Sendwatch itself.
    """
    known = actor if actor is not None and actor.is_authenticated else None
    return AuditEntry.objects.create(
        actor_id=known.pk if known else None,
        actor=known.get_username() if known else "",
        action=action,
        subject=str(subject)[:200],
        location_id=location_id,
        detail=detail,
    )


def mark_of(recipient: str) -> str:
    """What the log says in an address's place: nobody edits it, and people can be erased.

    The same address has the same mark, which only who has ``SECRET_KEY`` can make.
    """
    digest = salted_hmac("sendwatch.audit", recipient, algorithm="sha256").hexdigest()
    return f"recipient {digest[:20]}"
