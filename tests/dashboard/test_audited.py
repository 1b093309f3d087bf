"""What is changed in the Django admin is in the audit log, and rights are not helped oneself to."""

from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client

from dashboard.models import AuditEntry, Membership
from tests.dashboard import rows

pytestmark = pytest.mark.django_db


@pytest.fixture
def boss(client: Client) -> User:
    user = User.objects.create_superuser("boss")
    client.force_login(user)
    return user


def noted() -> list[tuple[Any, ...]]:
    found = AuditEntry.objects.order_by("id")
    return list(found.values_list("actor", "action", "subject", "location_id", "detail__fields"))


def test_memberships_given_changed_and_taken_are_noted(client: Client, boss: User) -> None:
    vera, mine = User.objects.create_user("vera"), rows.location("mine")
    address = "/admin/dashboard/membership/"
    given = {"user": vera.pk, "location": mine.pk, "role": "viewer"}
    client.post(f"{address}add/", given)
    held = Membership.objects.get()
    for role in ("operator", "operator"):
        client.post(f"{address}{held.pk}/change/", given | {"role": role})
    selected = {"action": "delete_selected", "_selected_action": [held.pk], "post": "yes"}
    client.post(address, selected)
    assert not Membership.objects.exists()
    assert noted() == [
        ("boss", "add membership", "vera · mine · viewer", mine.pk, None),
        ("boss", "change membership", "vera · mine · operator", mine.pk, ["Role"]),
        ("boss", "delete membership", "vera · mine · operator", mine.pk, None),
    ]


def test_accounts_made_changed_and_deleted_are_noted(client: Client, boss: User) -> None:
    vera = User.objects.create_user("vera")
    word = {"password1": "a long passphrase", "password2": "a long passphrase"}
    client.post(f"/admin/auth/user/{vera.pk}/password/", word | {"usable_password": "true"})
    client.post(f"/admin/auth/user/{vera.pk}/delete/", {"post": "yes"})
    assert [entry[:3] for entry in noted()] == [
        ("boss", "change user", "vera"),
        ("boss", "delete user", "vera"),
    ]
    assert "passphrase" not in str(list(AuditEntry.objects.values()))


def test_staff_who_may_change_users_make_nobody_staff(client: Client, boss: User) -> None:
    staff = User.objects.create_user("staff", is_staff=True)
    staff.user_permissions.set(Permission.objects.filter(content_type__model="user"))
    vera = User.objects.create_user("vera")
    client.force_login(staff)
    form = {"username": "vera", "is_active": "on", "is_staff": "on", "is_superuser": "on"}
    form |= {f"{name}_{part}": "" for name in ("last_login", "date_joined") for part in "01"}
    form |= {"date_joined_0": "2026-11-22", "date_joined_1": "10:00:00", "first_name": "Vera"}
    assert client.post(f"/admin/auth/user/{vera.pk}/change/", form).status_code == 302
    vera.refresh_from_db()
    assert (vera.first_name, vera.is_staff, vera.is_superuser) == ("Vera", False, False)
    for other in (staff, boss):
        address = f"/admin/auth/user/{other.pk}/"
        assert client.post(f"{address}change/", form).status_code == 403
        assert client.get(f"{address}password/").status_code == 403
        assert client.post(f"{address}delete/", {"post": "yes"}).status_code == 403
