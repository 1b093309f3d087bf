"""What Sendwatch asks of allauth: names of fields, links that lead here, mail that may fail."""

import base64
import hashlib
import logging
import secrets
from typing import Any
from urllib.parse import urljoin

from allauth.account import forms as account_forms
from allauth.account.adapter import DefaultAccountAdapter
from allauth.account.forms import EmailAwarePasswordResetTokenGenerator
from allauth.account.utils import user_pk_to_url_str
from allauth.account.views import PasswordResetView
from allauth.mfa.adapter import DefaultMFAAdapter
from cryptography.fernet import Fernet, InvalidToken
from django.conf import settings
from django.contrib.auth.decorators import login_not_required
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponseNotAllowed
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.urls import reverse

logger = logging.getLogger(__name__)


def absolute(request: HttpRequest, path: str) -> str:
    """A link to put into mail: to ``PUBLIC_URL``, or without one to the host that was asked."""
    return urljoin(settings.PUBLIC_URL or request.build_absolute_uri("/"), path)


def reset_link(request: HttpRequest, user: User) -> str:
    """A link by which this user chooses another password; good once, for three days."""
    key = f"{user_pk_to_url_str(user)}-{EmailAwarePasswordResetTokenGenerator().make_token(user)}"
    return absolute(request, _reset_path(key))


def _reset_path(key: str) -> str:
    uid, _, rest = key.partition("-")
    return reverse("account_reset_password_from_key", kwargs={"uidb36": uid, "key": rest})


class LoginForm(account_forms.LoginForm):
    """User name or e-mail address, and password, posted as ``username`` and ``password``."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        name = self.fields["login"]
        name.label = "User name or e-mail address"
        name.widget.attrs = {
            "autocomplete": "username",
            "autocapitalize": "none",
            "autofocus": True,
        }

    def add_prefix(self, field_name: str) -> str:
        """The name of a field in the page: allauth's own for the first is ``login``."""
        return "username" if field_name == "login" else str(super().add_prefix(field_name))


class Accounts(DefaultAccountAdapter):
    """Accounts are made by invitation only; mail that cannot be sent is logged."""

    error_messages = DefaultAccountAdapter.error_messages | {
        "username_password_mismatch": (
            "User name and password do not match. Both mind upper and lower case."
        ),
        "email_password_mismatch": "E-mail address and password do not match.",
        "too_many_login_attempts": "Too many attempts failed. Try again in five minutes.",
    }

    def is_open_for_signup(self, request: HttpRequest) -> bool:
        """Never: who may come in is invited."""
        return False

    def get_reset_password_from_key_url(self, key: str) -> str:
        """The link in the mail."""
        return absolute(self.request, _reset_path(key))

    def _get_login_attempts_cache_key(self, request: HttpRequest, **credentials: Any) -> str:
        """Whose attempts count together. Not by host, as allauth does: who asks names that."""
        return str(credentials.get("email") or credentials.get("username", "")).lower()

    def send_mail(self, template_prefix: str, email: str, context: dict[str, Any]) -> None:
        """Send it; a server that refuses must not tell a stranger which addresses are known."""
        try:
            super().send_mail(template_prefix, email, context)
        except OSError:
            logger.exception("mail could not be sent")

    def add_message(self, request: HttpRequest, level: int, *args: Any, **kwargs: Any) -> None:
        """What the next page says: passwords changed, but not that somebody came or went."""
        if "account/messages/logged_" not in str(kwargs.get("message_template", args[:1])):
            super().add_message(request, level, *args, **kwargs)


class SecondFactors(DefaultMFAAdapter):
    """Secrets of second factors lie in the database encrypted, by ``SECRET_KEY``."""

    def get_totp_label(self, user: User) -> str:
        """What the authenticator's app calls the account."""
        return user.get_username()

    def encrypt(self, text: str) -> str:
        """A secret as it is stored."""
        return _vault().encrypt(text.encode()).decode()

    def decrypt(self, encrypted_text: str) -> str:
        """The secret. With another ``SECRET_KEY`` it is lost: then no code matches any more."""
        try:
            return _vault().decrypt(encrypted_text.encode()).decode()
        except InvalidToken:
            logger.error("a second factor was stored with another SECRET_KEY: remove it")
            return base64.b32encode(secrets.token_bytes(20)).decode()


def _vault() -> Fernet:
    digest = hashlib.sha256(b"second factors" + settings.SECRET_KEY.encode()).digest()
    return Fernet(base64.urlsafe_b64encode(digest))


_by_mail = PasswordResetView.as_view()


@login_not_required
def reset_password(request: HttpRequest) -> HttpResponseBase:
    """Ask for a link by mail; where no mail is sent, say so and whom to ask."""
    if settings.SENDS_MAIL:
        answer: HttpResponseBase = _by_mail(request)
        return answer
    if request.method not in ("GET", "HEAD"):
        return HttpResponseNotAllowed(["GET", "HEAD"])
    return render(request, "account/password_reset.html")
