"""Saved views: under a name, for oneself or for all, within the rights of who opens them."""

import html

import pytest
from django.contrib.auth.models import User
from django.test import Client

from dashboard.models import Membership, SavedView
from tests.dashboard import rows

pytestmark = pytest.mark.django_db


@pytest.fixture
def anna(client: Client) -> User:
    """Somebody of the staff, logged in."""
    user = User.objects.create_user("anna", is_staff=True)
    client.force_login(user)
    rows.location("loc")
    return user


@pytest.fixture
def vera() -> User:
    """Somebody who may see the location "loc" only."""
    user = User.objects.create_user("vera")
    Membership.objects.create(user=user, location=rows.location("loc"))
    return user


def menu(client: Client, path: str = "/") -> str:
    """The menu of saved views on a page."""
    answer = client.get(path)
    assert answer.status_code == 200
    page = html.unescape(answer.content.decode())
    start = page.index('<details class="menu saved"')
    return page[start : page.index("Save this page as", start)]


def save(client: Client, name: str, at: str = "/?range=7d", **more: str) -> str:
    """Save a view; the page's messages."""
    answer = client.post("/views/", {"name": name, "next": at} | more, follow=True)
    assert answer.status_code == 200
    return " ".join(str(message) for message in answer.context["messages"])


def view(owner: User, name: str = "a view", **columns: object) -> SavedView:
    return SavedView.objects.create(owner=owner, name=name, **({"path": "/"} | columns))


def test_a_page_is_saved_in_its_one_form(client: Client, anna: User) -> None:
    said = save(client, " Week ", "/locations/loc/?sort=sent&tz=Europe/Rome&tag=b&tag=a&range=7d")
    assert said == "The view “Week” is saved."
    saved = SavedView.objects.get()
    assert (saved.owner, saved.name, saved.shared) == (anna, "Week", False)
    assert saved.address == "/locations/loc/?tag=a&tag=b&range=7d&tz=Europe/Rome&sort=sent"
    assert f'<a href="{saved.address}">Week</a>' in menu(client)
    assert client.get(saved.address).status_code == 200


def test_the_view_that_is_open_is_marked(client: Client, anna: User) -> None:
    view(anna, query="range=7d")
    assert 'href="/?range=7d" aria-current="page"' in menu(client, "/?range=7d")
    assert "aria-current" not in menu(client, "/")


def test_the_same_name_is_replaced(client: Client, anna: User) -> None:
    save(client, "Mine", "/?range=7d")
    assert save(client, "Mine", "/?range=30d") == "The view “Mine” is replaced."
    assert SavedView.objects.get().query == "range=30d"


@pytest.mark.parametrize("at", ["https://evil.example/", "//evil.example/", "/admin/", "/nope/"])
def test_only_pages_of_ours_are_saved(client: Client, anna: User, at: str) -> None:
    client.post("/views/", {"name": "x", "next": at})
    assert not SavedView.objects.exists()


@pytest.mark.parametrize("name", ["", "   ", "x" * 81, "a\0b"])
def test_a_view_needs_a_name(client: Client, anna: User, name: str) -> None:
    assert save(client, name).startswith("Not saved. A view has a name")
    assert not SavedView.objects.exists()


def test_a_filter_that_cannot_be_read_is_not_saved(client: Client, anna: User) -> None:
    client.post("/views/", {"name": "x", "next": "/?outcome=bouncy"})
    assert not SavedView.objects.exists()


def test_a_stored_filter_that_cannot_be_read_any_more_is_a_sentence(
    client: Client, anna: User
) -> None:
    old = view(anna, query="category=renamed_since")
    answer = client.get(old.address)
    assert answer.status_code == 400
    assert "category cannot be “renamed_since”" in answer.content.decode()
    assert "a view" in menu(client)


def test_private_ones_are_their_owners(client: Client, anna: User, vera: User) -> None:
    private = view(anna, "private")
    view(anna, "for all", shared=True)
    client.force_login(vera)
    shown = menu(client)
    assert "for all" in shown
    assert "of anna" in shown
    assert "private" not in shown
    assert "Change" not in shown
    assert client.post(f"/views/{private.pk}/", {"delete": "1"}).status_code == 404


def test_what_is_shared_cannot_be_changed_by_others(client: Client, anna: User, vera: User) -> None:
    shared = view(anna, shared=True)
    client.force_login(vera)
    for change in ({"delete": "1"}, {"name": "hers"}):
        assert client.post(f"/views/{shared.pk}/", change).status_code == 403
    shared.refresh_from_db()
    assert shared.name == "a view"


def test_rights_bound_what_a_shared_view_shows(client: Client, anna: User, vera: User) -> None:
    rows.location("theirs")
    foreign = view(anna, "Their clinic", path="/locations/theirs/", shared=True)
    also = view(anna, "Beside them", query="location=-theirs", shared=True)
    view(anna, "Ours", path="/locations/loc/", shared=True)
    assert "Their clinic" in menu(client)
    client.force_login(vera)
    shown = menu(client)
    assert "Ours" in shown
    assert "Their clinic" not in shown
    assert "Beside them" not in shown
    assert client.get(foreign.address).status_code == 404
    assert client.get(also.address).status_code == 404


def test_owners_and_staff_rename_share_and_delete(client: Client, anna: User, vera: User) -> None:
    hers = view(vera, "old", query="range=7d")
    for user, name in ((vera, "new"), (anna, "newer")):
        client.force_login(user)
        client.post(f"/views/{hers.pk}/", {"name": name, "shared": "on", "next": "/"})
        hers.refresh_from_db()
        assert (hers.name, hers.shared, hers.query, hers.owner) == (name, True, "range=7d", vera)
    client.post(f"/views/{hers.pk}/", {"delete": "1", "next": "/"})
    assert not SavedView.objects.exists()


def test_a_name_is_one_views(client: Client, anna: User) -> None:
    view(anna, "first")
    second = view(anna, "second")
    client.post(f"/views/{second.pk}/", {"name": "first", "next": "/"})
    second.refresh_from_db()
    assert second.name == "second"


def test_forms_need_their_token_and_a_login(anna: User, vera: User) -> None:
    strict = Client(enforce_csrf_checks=True)
    assert strict.post("/views/", {"name": "x", "next": "/"}).status_code in (302, 403)
    strict.force_login(vera)
    assert strict.post("/views/", {"name": "x", "next": "/"}).status_code == 403
    assert strict.get("/views/").status_code == 405
    assert not SavedView.objects.exists()


def test_hostile_names_are_escaped(client: Client, anna: User) -> None:
    save(client, "<script>alert(1)</script>", shared="on")
    assert "<script>alert" not in client.get("/").content.decode()


def test_at_most_so_many_are_listed_and_kept(client: Client, anna: User) -> None:
    SavedView.objects.bulk_create(
        SavedView(owner=anna, name=f"view {n}", path="/", query=f"tag={n}") for n in range(200)
    )
    assert menu(client).count("<li>") == 50
    assert save(client, "one more").startswith("Not saved. You have 200 views")
    assert save(client, "view 7") == "The view “view 7” is replaced."


def test_the_admin_lists_them(client: Client, anna: User) -> None:
    User.objects.filter(pk=anna.pk).update(is_superuser=True)
    shown = view(anna, "Weekly", query="range=7d")
    assert "Weekly" in client.get("/admin/dashboard/savedview/").content.decode()
    assert client.get(f"/admin/dashboard/savedview/{shown.pk}/change/").status_code == 200
