"""The admin of people: memberships are given here, tokens only taken away. And their command."""

import io
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.test import Client
from django.utils import timezone

from dashboard.access import pass_of_bearer, rights_of
from dashboard.models import ApiToken, Membership
from ingest.models import Location

pytestmark = pytest.mark.django_db
TOKENS = "/admin/dashboard/apitoken/"


@pytest.fixture
def boss(client: Client) -> Client:
    client.force_login(User.objects.create_superuser("boss"))
    return client


@pytest.fixture
def jane() -> User:
    return User.objects.create_user("jane")


def issue(*arguments: str) -> str:
    output = io.StringIO()
    call_command("create_api_token", *arguments, stdout=output)
    return output.getvalue().splitlines()[-1]


def reader(token: str) -> Any:
    held = pass_of_bearer(f"Bearer {token}", now=timezone.now())
    return held and held.user


def test_a_membership_gives_a_right(boss: Client, jane: User) -> None:
    location = Location.objects.create(ref="locA", name="Bright Smile Dental")
    address = "/admin/dashboard/membership/"
    given = {"user": jane.pk, "location": location.pk, "role": "viewer"}
    assert boss.post(f"{address}add/", given).status_code == 302
    assert rights_of(jane).location_ids == {location.pk}
    assert "Bright Smile Dental" in boss.get(address).content.decode()
    assert boss.post(f"{address}add/", given).status_code == 200  # the form again, with an error
    assert Membership.objects.count() == 1


def test_locations_are_looked_up_by_name(boss: Client) -> None:
    Location.objects.create(ref="locA", name="Bright Smile Dental")
    query = "term=smile&app_label=dashboard&model_name=membership&field_name=location"
    found = boss.get(f"/admin/autocomplete/?{query}").json()["results"]
    assert [each["text"] for each in found] == ["Bright Smile Dental (locA)"]


def test_create_api_token_prints_a_token_that_works(jane: User) -> None:
    token = issue("jane", "--name", "export")
    assert reader(token) == jane
    assert ApiToken.objects.get().name == "export"
    assert token not in str(ApiToken.objects.values().get())


def test_create_api_token_makes_what_it_is_told_to(jane: User) -> None:
    issue("jane")
    issue("jane", "--scope", "read", "--days", "30")
    all_of_it, some = ApiToken.objects.order_by("pk")
    assert (all_of_it.scopes, all_of_it.expires_at) == ("read export", None)
    assert some.scopes == "read" and some.expires_at is not None
    assert timedelta(days=29) < some.expires_at - timezone.now() <= timedelta(days=30)
    for wrong in (("--scope", "write"), ("--days", "0")):
        with pytest.raises(CommandError):
            issue("jane", *wrong)


def test_create_api_token_refuses_who_could_not_use_it(jane: User) -> None:
    with pytest.raises(CommandError, match="No user is named nobody"):
        issue("nobody")
    User.objects.filter(pk=jane.pk).update(is_active=False)
    with pytest.raises(CommandError, match="jane is deactivated"):
        issue("jane")
    assert not ApiToken.objects.exists()


def test_tokens_are_listed_and_revoked_but_never_made_or_shown(boss: Client, jane: User) -> None:
    token = issue("jane", "--name", "export")
    stored = ApiToken.objects.get()
    pages = [boss.get(address) for address in (TOKENS, f"{TOKENS}{stored.pk}/change/")]
    for page in pages:
        assert b"jane" in page.content
        assert stored.digest.encode() not in page.content
    assert boss.get(f"{TOKENS}add/").status_code == 403
    assert boss.post(f"{TOKENS}{stored.pk}/change/", {"name": "x"}).status_code == 403
    assert boss.post(f"{TOKENS}{stored.pk}/delete/", {"post": "yes"}).status_code == 302
    assert reader(token) is None
