"""What people change about their own way in, for the audit log: passwords and second factors.

And what keeps accounts in order: e-mail addresses are kept in lower case, as allauth seeks them,
and who logs in sweeps up the sessions that have ended.
"""

from typing import Any

from allauth.account import signals as account
from allauth.mfa import signals as factors
from django.contrib.auth.models import User
from django.contrib.auth.signals import user_logged_in
from django.contrib.sessions.models import Session
from django.db.models.signals import pre_save
from django.http import HttpRequest
from django.utils import timezone

from dashboard import audit


def connect() -> None:
    """Listen. Called once, when the app is ready."""
    pre_save.connect(_lower, sender=User)
    user_logged_in.connect(_sweep)
    for signal, action in (
        (account.password_changed, "change password"),
        (account.password_set, "change password"),
        (account.password_reset, "reset password"),
        (factors.authenticator_added, "add second factor"),
        (factors.authenticator_removed, "remove second factor"),
        (factors.authenticator_reset, "renew second factor"),
    ):
        signal.connect(_noting(action), weak=False, dispatch_uid=f"audit {action} {id(signal)}")


def _lower(sender: Any, instance: User, **kwargs: Any) -> None:
    instance.email = instance.email.lower()


def _sweep(sender: Any, **kwargs: Any) -> None:
    Session.objects.filter(expire_date__lt=timezone.now()).delete()


def _noting(action: str) -> Any:
    def note(sender: Any, request: HttpRequest, user: User, **kwargs: Any) -> None:
        held = kwargs.get("authenticator")
        detail: dict[str, Any] = {"kind": str(held.type)} if held else {}
        audit.note(user, action, user.get_username(), **detail)

    return note
