"""One's own API tokens over HTTP: made, shown once, revoked."""

import re

import pytest
from django.contrib.auth.models import User
from django.test import Client

from dashboard.models import ApiToken, AuditEntry
from tests.dashboard.people.test_accounts import words

pytestmark = pytest.mark.django_db
PAGE = "/account/tokens/"


@pytest.fixture
def ann(client: Client) -> User:
    user = User.objects.create_user("ann", password="a long passphrase", is_staff=True)
    client.force_login(user)
    return user


def ask(token: str, path: str = "/api/rates/") -> int:
    return Client().get(path, headers={"Authorization": f"Bearer {token}"}).status_code


def test_a_token_is_shown_once_and_good_for_what_was_chosen(client: Client, ann: User) -> None:
    made = client.post(PAGE, {"name": "Sheet", "scopes": ["read"], "days": "7"})
    (token,) = re.findall(r'value="(sw_[^"]+)"', made.text)
    assert made["Cache-Control"] == "private, no-store"
    assert (ask(token), ask(token, "/api/deliveries/export/?format=csv")) == (200, 403)
    again = client.get(PAGE)
    assert token not in again.text and "Sheet read" in words(again)
    stored = ApiToken.objects.get()
    assert stored.expires_at is not None and stored.last_used_at is not None
    client.post(f"{PAGE}{stored.pk}/")
    assert ask(token) == 401
    noted = list(AuditEntry.objects.order_by("id").values_list("actor", "action", "subject"))
    assert noted == [("ann", "make token", "Sheet"), ("ann", "revoke token", "Sheet")]


def test_what_is_wrong_with_the_form_is_said(client: Client, ann: User) -> None:
    for wrong in ({"name": "x"}, {"name": "x", "scopes": ["all"]}, {"scopes": ["read"]}):
        assert "errorlist" in client.post(PAGE, wrong).text
    assert not ApiToken.objects.exists()


def test_nobody_sees_or_revokes_the_tokens_of_others(client: Client, ann: User) -> None:
    ApiToken.issue(user_id=User.objects.create_user("bob").pk, name="bobs")
    assert "bobs" not in words(client.get(PAGE))
    assert client.post(f"{PAGE}{ApiToken.objects.get().pk}/").status_code == 404
    assert ApiToken.objects.exists()


def test_who_has_no_password_makes_none(client: Client, ann: User) -> None:
    ann.set_unusable_password()
    ann.save()
    client.force_login(ann)
    assert "no password of its own" in words(client.get(PAGE))
    assert client.post(PAGE, {"name": "x", "scopes": ["read"]}).status_code == 403
