"""The page of people over HTTP: who is shown to whom, and what each may do about others."""

import re
from datetime import timedelta
from typing import Any

import pytest
from allauth.mfa.models import Authenticator
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from dashboard.models import AuditEntry, Invitation, Membership
from tests.dashboard import rows
from tests.dashboard.people.test_accounts import words

pytestmark = pytest.mark.django_db


@pytest.fixture
def people() -> dict[str, User]:
    """Boss, staff, an operator and a viewer of "mine", a viewer of "other", one of a company."""
    made = {
        "boss": User.objects.create_superuser("boss"),
        "staff": User.objects.create_user("staff", is_staff=True),
        "olga": User.objects.create_user("olga", password="a long passphrase"),
        "vera": User.objects.create_user("vera", "vera@example.com"),
        "otto": User.objects.create_user("otto"),
        "cora": User.objects.create_user("cora"),
    }
    mine, other = rows.location("mine", "acme"), rows.location("other")
    Membership.objects.create(user=made["olga"], location=mine, role="operator")
    Membership.objects.create(user=made["vera"], location=mine)
    Membership.objects.create(user=made["otto"], location=other)
    Membership.objects.create(user=made["cora"], company_ref="acme")
    return made


def client_of(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def shown(client: Client, query: str = "") -> set[str]:
    page = client.get(f"/people/{query}").content.decode()
    return set(re.findall(r'<th scope="row">(\w+)', page))


def audited() -> list[tuple[str, str, str]]:
    return list(AuditEntry.objects.order_by("id").values_list("actor", "action", "subject"))


def test_each_sees_the_people_of_what_they_operate(people: dict[str, User]) -> None:
    assert shown(client_of(people["staff"])) == set(people)
    assert shown(client_of(people["olga"])) == {"olga", "vera"}
    Membership.objects.filter(user=people["cora"]).update(role="operator")
    assert shown(client_of(people["cora"])) == {"olga", "vera", "cora"}
    assert client_of(people["vera"]).get("/people/").status_code == 403
    assert Client().get("/people/").status_code == 302
    page = words(client_of(people["olga"]).get("/people/"))
    assert "other" not in page and "Second factor on" not in page


def test_the_menu_leads_who_operates_anything_here(people: dict[str, User]) -> None:
    for name, leads in (("staff", True), ("olga", True), ("vera", False)):
        page = client_of(people[name]).get("/").text
        assert ("/people/" in page) is leads and ('href="/admin/"' in page) is leads
        assert "/account/tokens/" in page and "/account/second-factor/" in page


def test_people_are_sought_by_name_address_and_location(people: dict[str, User]) -> None:
    staff = client_of(people["staff"])
    for query, found in (("vera@ex", {"vera"}), ("mine", {"olga", "vera"}), ("acme", {"cora"})):
        assert shown(staff, f"?q={query}") == found
    assert shown(client_of(people["olga"]), "?q=otto") == set()


def test_a_membership_is_taken_away_by_who_may(people: dict[str, User]) -> None:
    held = {each.user.username: each for each in Membership.objects.select_related("user")}
    olga, staff = client_of(people["olga"]), client_of(people["staff"])
    for name, status in (("otto", 404), ("cora", 404), ("olga", 404), ("vera", 302)):
        assert olga.post(f"/people/memberships/{held[name].pk}/").status_code == status
    assert olga.post("/people/memberships/999/").status_code == 404
    assert client_of(people["vera"]).post("/people/memberships/1/").status_code == 403
    assert staff.post(f"/people/memberships/{held['olga'].pk}/").status_code == 302
    assert set(Membership.objects.values_list("user__username", flat=True)) == {"otto", "cora"}
    assert [entry[:2] for entry in audited()] == [
        ("olga", "remove membership"),
        ("staff", "remove membership"),
    ]


@pytest.mark.parametrize(
    ("who", "offer", "allowed"),
    [
        ("boss", {"role": "staff"}, True),
        ("staff", {"role": "staff"}, False),
        ("staff", {"role": "operator", "company": "acme"}, True),
        ("staff", {"role": "operator", "company": "nowhere"}, False),
        ("staff", {"role": "viewer", "location": "mine", "company": "acme"}, False),
        ("staff", {"role": "viewer"}, False),
        ("olga", {"role": "viewer", "location": "mine", "days": "7"}, True),
        ("olga", {"role": "operator", "location": "mine"}, False),
        ("olga", {"role": "viewer", "location": "other"}, False),
        ("olga", {"role": "viewer", "company": "acme"}, False),
    ],
)
def test_each_offers_what_is_theirs(
    people: dict[str, User], who: str, offer: dict[str, str], allowed: bool
) -> None:
    answer = client_of(people[who]).post("/people/", {"email": "New@example.com"} | offer)
    assert Invitation.objects.exists() is allowed
    assert ("hand it on yourself" in words(answer)) is allowed
    if allowed:
        assert Invitation.objects.get().email == "new@example.com"
        assert audited()[0][:2] == (who, "invite")


def test_who_comes_from_highlevel_gives_and_gets_nothing_that_lasts(
    people: dict[str, User],
) -> None:
    guest = User.objects.create_user("hl:acme:u1", first_name="Gina")
    until = timezone.now() + timedelta(hours=12)
    Membership.objects.create(user=guest, company_ref="acme", role="operator", expires_at=until)
    offer = {"email": "new@example.com", "role": "viewer", "location": "mine"}
    client_of(guest).post("/people/", offer)
    assert not Invitation.objects.exists()
    boss = client_of(people["boss"])
    assert boss.post(f"/people/{guest.pk}/", {"do": "reset"}).status_code == 404
    assert "Gina from HighLevel" in words(boss.get("/people/?q=acme"))


def test_what_is_not_theirs_is_refused_as_what_is_not_there(people: dict[str, User]) -> None:
    olga = client_of(people["olga"])
    hidden, missing = (
        words(olga.post("/people/", {"email": "a@b.example", "role": "viewer", "location": ref}))
        for ref in ("other", "nowhere")
    )
    assert hidden.replace("other", "nowhere") == missing


def test_open_invitations_are_shown_and_taken_back(people: dict[str, User]) -> None:
    olga, staff = client_of(people["olga"]), client_of(people["staff"])
    for ref in ("mine", "other"):
        staff.post("/people/", {"email": f"{ref}@example.com", "role": "viewer", "location": ref})
    assert "mine@example.com" in words(olga.get("/people/"))
    assert "other@example.com" not in words(olga.get("/people/"))
    keys = {each.email[:4]: each.pk for each in Invitation.objects.all()}
    assert olga.post(f"/people/invitations/{keys['othe']}/").status_code == 404
    assert olga.post(f"/people/invitations/{keys['mine']}/").status_code == 302
    assert olga.post(f"/people/invitations/{keys['mine']}/").status_code == 404
    open_ones = Invitation.objects.at(timezone.now())
    assert [each.email for each in open_ones] == ["other@example.com"]
    assert not Invitation.objects.at(timezone.now() + timedelta(days=8)).exists()
    assert audited()[-1][:2] == ("olga", "revoke invitation")


@pytest.mark.parametrize(
    ("who", "whom", "allowed"),
    [
        ("boss", "staff", True),
        ("boss", "boss", False),
        ("staff", "boss", False),
        ("staff", "staff", False),
        ("staff", "vera", True),
        ("olga", "vera", False),
    ],
)
def test_who_lets_whom_in_anew_or_shuts_them_out(
    people: dict[str, User], who: str, whom: str, allowed: bool
) -> None:
    client, user = client_of(people[who]), people[whom]
    Authenticator.objects.create(user=user, type="totp", data={})
    for do in ("factor", "deactivate", "reset"):
        answer = client.post(f"/people/{user.pk}/", {"do": do})
        assert answer.status_code == (404 if not allowed else 200 if do == "reset" else 302)
    user.refresh_from_db()
    assert user.is_active is not allowed
    assert Authenticator.objects.exists() is not allowed
    if allowed:
        actions = ["remove second factor", "deactivate user", "make reset link"]
        assert audited() == [(who, action, whom) for action in actions]
        assert client.post(f"/people/{user.pk}/", {"do": "else"}).status_code == 404


def test_a_link_for_a_new_password_works_once(people: dict[str, User]) -> None:
    vera = people["vera"]
    page = client_of(people["staff"]).post(f"/people/{vera.pk}/", {"do": "reset"})
    (link,) = re.findall(r'value="http://testserver(/password/reset/[^"]+)"', page.text)
    assert page["Cache-Control"] == "private, no-store"
    stranger = Client()
    form: Any = stranger.get(link, follow=True).redirect_chain[-1][0]
    stranger.post(form, {"password1": "a long passphrase", "password2": "a long passphrase"})
    vera.refresh_from_db()
    assert vera.check_password("a long passphrase")
    assert "used up" in words(Client().get(link, follow=True))
