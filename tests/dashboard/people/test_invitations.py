"""Invitations over HTTP: accepted once, by who is logged in or by a new account."""

import re
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core import mail
from django.test import Client
from django.utils import timezone

from dashboard.access import rights_of
from dashboard.models import AuditEntry, Invitation, Membership
from dashboard.people import invitations
from ingest.models import Location
from tests.dashboard import rows
from tests.dashboard.people.test_accounts import words

pytestmark = pytest.mark.django_db
ACCOUNT = {"username": "nina", "password1": "a long passphrase", "password2": "a long passphrase"}


@pytest.fixture
def boss() -> User:
    return User.objects.create_superuser("boss")


@pytest.fixture
def mine() -> Location:
    return rows.location("mine", "acme")


def invite(boss: User, **offer: Any) -> str:
    """The path of a new invitation's link."""
    offered = Invitation(**{"by": boss, "email": "nina@example.com", "role": "viewer"} | offer)
    return f"/invitations/{invitations.invite(offered, now=timezone.now())}/"


def held() -> list[tuple[Any, ...]]:
    found = Membership.objects.order_by("id")
    return list(found.values_list("user__username", "location__ref", "company_ref", "role"))


def ends(path: str) -> bool:
    answers = [Client().get(path), Client().post(path, ACCOUNT)]
    return all(each.status_code == 404 and "opens nothing" in words(each) for each in answers)


def test_an_account_is_made_and_logged_in(client: Client, boss: User, mine: Location) -> None:
    path = invite(boss, location=mine, access_days=7)
    page = client.get(path)
    assert "viewer of mine" in words(page) and page["Referrer-Policy"] == "no-referrer"
    weak = ACCOUNT | {"password1": "password", "password2": "password"}
    assert "too common" in words(client.post(path, weak))
    assert "already exists" in words(client.post(path, ACCOUNT | {"username": "BOSS"}))
    assert held() == []
    client.post(path, ACCOUNT)
    nina = User.objects.get(username="nina")
    assert held() == [("nina", "mine", "", "viewer")]
    assert nina.email == "nina@example.com" and not nina.is_staff
    until = Membership.objects.get().expires_at
    assert until and timedelta(days=6) < until - timezone.now() <= timedelta(days=7)
    assert client.get("/").status_code == 200
    assert ends(path)
    noted = AuditEntry.objects.order_by("id").values_list("actor", "action", "location_id")
    assert list(noted) == [
        ("boss", "invite", mine.pk),
        ("nina", "make account", None),
        ("nina", "accept invitation", mine.pk),
    ]


def test_who_is_logged_in_takes_it_with_the_account_they_have(
    client: Client, boss: User, mine: Location
) -> None:
    ann = User.objects.create_user("ann")
    client.force_login(ann)
    Membership.objects.create(user=ann, location=mine, role="operator")
    path = invite(boss, company_ref="acme", role="operator")
    assert "Accept as ann" in words(client.get(path))
    client.post(path)
    client.post(invite(boss, location=mine, access_days=1))  # takes nothing away
    assert held() == [("ann", "mine", "", "operator"), ("ann", None, "acme", "operator")]
    assert not Membership.objects.exclude(expires_at=None).exists()
    assert ends(path)


def test_what_has_ended_begins_anew_as_offered(client: Client, boss: User, mine: Location) -> None:
    ann = User.objects.create_user("ann")
    over = timezone.now() - timedelta(days=1)
    Membership.objects.create(user=ann, location=mine, role="operator", expires_at=over)
    client.force_login(ann)
    client.post(invite(boss, location=mine))
    assert held() == [("ann", "mine", "", "viewer")]
    assert rights_of(ann).sees(mine.pk)


def test_superusers_invite_staff(client: Client, boss: User) -> None:
    client.post(invite(boss, role="staff"), ACCOUNT)
    nina = User.objects.get(username="nina")
    assert nina.is_staff and not nina.is_superuser and held() == []


def test_a_link_that_is_old_revoked_or_replaced_opens_nothing(boss: User, mine: Location) -> None:
    first = invite(boss, location=mine)
    second = invite(boss, location=mine)
    other = invite(boss, location=mine, email="else@example.com")
    assert ends(first) and Client().get(other).status_code == 200
    assert ends(second[:-2] + "x/") and ends("/invitations/nonsense/")
    Invitation.objects.filter(email="nina@example.com").update(expires_at=timezone.now())
    assert ends(second)
    Invitation.objects.update(revoked_at=timezone.now())
    assert ends(other)
    assert second.split("/")[2] not in str(list(Invitation.objects.values()))


def test_what_the_inviter_may_no_longer_offer_is_not_given(boss: User, mine: Location) -> None:
    olga = User.objects.create_user("olga", password="a long passphrase")
    right = Membership.objects.create(user=olga, location=mine, role="operator")
    path = invite(olga, location=mine)
    assert Client().get(path).status_code == 200
    right.delete()
    assert ends(path)
    path = invite(boss, location=mine)
    User.objects.filter(pk=boss.pk).update(is_active=False)
    assert ends(path)
    assert held() == []


def test_it_is_mailed_where_mail_is_set_up(settings: Any, boss: User, mine: Location) -> None:
    settings.SENDS_MAIL, settings.PUBLIC_URL = True, "https://mail.example.com"
    client = Client()
    client.force_login(boss)
    asked = {"email": "nina@example.com", "role": "viewer", "location": "mine"}
    answer = client.post("/people/", asked, follow=True)
    assert "nina@example.com has mail" in words(answer) and "hand it on" not in answer.text
    (sent,) = mail.outbox
    assert sent.to == ["nina@example.com"] and "viewer of mine" in sent.body
    (path,) = re.findall(r"https://mail\.example\.com(/invitations/\S+)", str(sent.body))
    assert Client().get(path).status_code == 200
    inject = asked | {"email": "nina@example.com\nBcc: eve@example.com"}
    assert client.post("/people/", inject).status_code == 200 and len(mail.outbox) == 1
