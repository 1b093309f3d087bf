"""In from HighLevel: who is let in, with what rights, how long, and what a frame may show."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.cache import cache
from django.test import Client
from django.utils import timezone

from dashboard.access import Rights, may_operate, rights_of
from dashboard.frame.ancestors import forget
from dashboard.models import AuditEntry, Membership
from ingest.models import Company, InstallState, Location
from tests.dashboard import rows
from tests.dashboard.frame.payloads import SECRET, context, encrypted

pytestmark = pytest.mark.django_db
HIGHLEVEL = "https://app.gohighlevel.com"


@pytest.fixture(autouse=True)
def inside(settings: Any) -> Iterator[None]:
    """The app's secret is known, and whose frame may show us."""
    settings.HIGHLEVEL_SHARED_SECRET = SECRET
    settings.HIGHLEVEL_ORIGINS = [HIGHLEVEL]
    cache.clear()
    forget()
    yield
    forget()


@pytest.fixture
def places() -> dict[str, Location]:
    """Two locations of a company that has the app, and one of another's."""
    Company.objects.create(ref="com", name="North", domain="app.north.example")
    Company.objects.create(ref="other", domain="app.other.example", state=InstallState.ACTIVE)
    found = {ref: rows.location(ref, "com") for ref in ("loc", "loc-2")}
    return found | {"strange": rows.location("strange", "other")}


def enter(client: Client, said: Any = None, *, payload: str = "", **more: str) -> Any:
    given = payload or encrypted(said if said is not None else context())
    return client.post("/frame/enter/", {"payload": given, **more}, secure=True)


def guest() -> User:
    return User.objects.get(username="hl:com:user1")


def test_somebody_of_a_location_sees_it_for_twelve_hours(
    client: Client, places: dict[str, Location]
) -> None:
    answer = enter(client)
    assert (answer.status_code, answer.json()) == (200, {"to": "/locations/loc/"})
    user = guest()
    assert rights_of(user) == Rights(location_ids=frozenset({places["loc"].pk}))
    assert not may_operate(user, [places["loc"].pk])
    assert not (user.is_staff or user.has_usable_password() or user.email)
    assert user.first_name == "Zoë Miller"
    ends = Membership.objects.get().expires_at
    assert ends is not None and abs(ends - timezone.now() - timedelta(hours=12)).seconds < 60
    assert client.get("/locations/loc/", secure=True).status_code == 200
    for strange in ("loc-2", "strange"):
        assert client.get(f"/locations/{strange}/", secure=True).status_code == 404
    Membership.objects.update(expires_at=timezone.now())
    assert client.get("/locations/loc/", secure=True).status_code == 404
    assert AuditEntry.objects.get().subject == "hl:com:user1"


@pytest.mark.parametrize(("role", "operates"), [("admin", True), ("user", False)])
def test_somebody_of_an_agency_sees_all_of_its_locations(
    client: Client, places: dict[str, Location], role: str, operates: bool
) -> None:
    said = context(type="agency", role=role, activeLocation=None)
    assert enter(client, said).json() == {"to": "/"}
    both = {places["loc"].pk, places["loc-2"].pk}
    assert rights_of(guest()).location_ids == both
    assert may_operate(guest(), both) is operates
    assert not may_operate(guest())
    inside = enter(client, context(type="agency", role=role))
    assert inside.json() == {"to": "/locations/loc/"}


def test_an_admin_of_a_location_is_a_viewer(client: Client, places: dict[str, Location]) -> None:
    enter(client, context(role="admin"))
    assert not may_operate(guest(), [places["loc"].pk])


def test_the_last_location_is_the_only_one(client: Client, places: dict[str, Location]) -> None:
    enter(client, context(type="agency", role="admin"))
    enter(client, context(activeLocation="loc-2"))
    assert rights_of(guest()).location_ids == {places["loc-2"].pk}
    Membership.objects.create(user=guest(), location=places["loc"], role="operator")
    enter(client, context())
    given = Membership.objects.get()
    assert (given.role, given.expires_at) == ("operator", None), "what was given by hand stays"


REFUSED: dict[str, dict[str, Any]] = {
    "another company's location": {"activeLocation": "strange"},
    "no such location": {"activeLocation": "nowhere"},
    "no location": {"activeLocation": None},
    "a company without the app": {"companyId": "nobody"},
    "a location's id as a company": {"companyId": "loc"},
}


def test_every_refusal_is_the_same(client: Client, places: dict[str, Location]) -> None:
    answers = [enter(client, context(**wrong)) for wrong in REFUSED.values()]
    answers += [enter(client, payload=text) for text in ("x", "A" * 9_000)]
    answers.append(client.post("/frame/enter/", {"payload": encrypted(context())}))  # in the clear
    answers.append(client.post("/frame/enter/", secure=True))
    assert {answer.status_code for answer in answers} == {403}
    assert len({answer.content for answer in answers}) == 1
    assert not User.objects.exists() and not Membership.objects.exists()
    assert "sessionid" not in client.cookies


def test_who_left_gets_in_no_more(client: Client, places: dict[str, Location]) -> None:
    Company.objects.filter(ref="com").update(state=InstallState.GONE, state_at=timezone.now())
    assert enter(client).status_code == 403
    Company.objects.filter(ref="com").update(state="")
    Location.objects.filter(ref="loc").update(state=InstallState.GONE)
    assert enter(client).status_code == 403
    assert enter(client, context(type="agency")).status_code == 200


@pytest.mark.parametrize(
    "changes", [{"is_active": False}, {"is_staff": True}, {"is_superuser": True}, {"password": "x"}]
)
def test_an_account_of_another_kind_is_never_taken_over(
    client: Client, places: dict[str, Location], changes: dict[str, Any]
) -> None:
    User.objects.create(**{"username": "hl:com:user1", "password": "!x"} | changes)
    if "password" in changes:
        guest().set_password("a long passphrase")
        User.objects.update(password="md5$x$y")
    assert enter(client).status_code == 403


def test_tries_are_counted(client: Client, places: dict[str, Location]) -> None:
    tries = [enter(client, payload="x").status_code for _ in range(61)]
    assert set(tries) == {403}
    assert enter(client).status_code == 403
    cache.clear()
    assert enter(client).status_code == 200


def test_a_session_of_before_is_not_kept(admin_client: Client, places: dict[str, Location]) -> None:
    before = admin_client.cookies["sessionid"].value
    admin_client.session["carried"] = 1
    assert enter(admin_client).status_code == 200
    after = admin_client.cookies["sessionid"].value
    assert after != before and "carried" not in admin_client.session
    assert admin_client.session.get_expiry_age() <= 12 * 3_600
    other = Client()
    other.cookies["sessionid"] = before
    assert other.get("/", secure=True).status_code == 302, "the old one is gone"


def test_what_the_address_says_of_somebody_is_ignored(
    client: Client, places: dict[str, Location]
) -> None:
    menu = "?location_id=loc-2&user_email=admin@example.com&companyId=other&role=admin&type=agency"
    assert "admin@example.com" not in client.get("/frame/" + menu, secure=True).text
    path = "/frame/enter/" + menu
    assert client.post(path, secure=True).status_code == 403
    assert client.post(path, {"payload": encrypted(context())}, secure=True).status_code == 200
    assert rights_of(guest()).location_ids == {places["loc"].pk}


@pytest.mark.parametrize(
    ("next", "to"),
    [
        ("/deliveries/?range=7d", "/deliveries/?range=7d"),
        ("//evil.example/", "/locations/loc/"),
        ("https://evil.example/", "/locations/loc/"),
        ("/\\evil.example", "/locations/loc/"),
        ("javascript:alert(1)", "/locations/loc/"),
    ],
)
def test_it_leads_to_our_own_pages_only(
    client: Client, places: dict[str, Location], next: str, to: str
) -> None:
    assert enter(client, next=next).json() == {"to": to}
    assert "evil" not in client.get("/frame/", {"next": next}, secure=True).text


def test_a_post_without_our_token_is_refused(places: dict[str, Location]) -> None:
    checking = Client(enforce_csrf_checks=True)
    assert enter(checking).status_code == 403
    assert not User.objects.exists()


# --- What a frame may show -----------------------------------------------------------------------


def policy(answer: Any) -> str:
    """The sources of frame-ancestors."""
    parts = answer["Content-Security-Policy"].split("; ")
    found: str = next(part for part in parts if part.startswith("frame-ancestors"))
    return found.partition(" ")[2]


def test_pages_are_framed_by_highlevel_and_their_company_only(
    client: Client, places: dict[str, Location]
) -> None:
    asked = client.get("/frame/", secure=True)
    everybody = f"'self' {HIGHLEVEL} https://app.north.example https://app.other.example"
    assert policy(asked) == everybody and "X-Frame-Options" not in asked
    enter(client)
    for path in ("/locations/loc/", "/locations/nowhere/", "/?range=2h"):
        answer = client.get(path, secure=True)
        assert policy(answer) == f"'self' {HIGHLEVEL} https://app.north.example"
        assert "X-Frame-Options" not in answer


def test_nothing_else_is_framed(client: Client, admin_client: Client) -> None:
    for answer in (
        client.get("/login/", secure=True),
        admin_client.get("/", secure=True),
        admin_client.get("/admin/", secure=True),
        client.get("/c/nothing/", secure=True),
    ):
        assert policy(answer) == "'none'"
        assert answer["X-Frame-Options"] == "DENY"


def test_the_setting_names_whose_frames_show_every_page(client: Client, settings: Any) -> None:
    settings.FRAME_ANCESTORS = ["https://portal.example.com"]
    for secret in (SECRET, ""):
        settings.HIGHLEVEL_SHARED_SECRET = secret
        answer = client.get("/login/", secure=True)
        assert policy(answer) == "'self' https://portal.example.com"
        assert "X-Frame-Options" not in answer
    assert "Partitioned" not in answer.cookies.output()


def test_cookies_are_for_frames_where_they_came_from_one(
    client: Client, admin_client: Client, places: dict[str, Location]
) -> None:
    client.get("/frame/", secure=True)
    enter(client)
    for name in ("csrftoken", "sessionid"):
        text = client.cookies[name].OutputString()
        assert "SameSite=None" in text and "Secure" in text and text.endswith("; Partitioned")
    assert client.cookies["sessionid"]["httponly"]
    assert "Partitioned" not in admin_client.get("/login/again/").cookies.output()
    assert "Partitioned" not in admin_client.cookies["sessionid"].OutputString()


def test_a_frame_without_a_session_asks_highlevel(client: Client) -> None:
    headers = {"Sec-Fetch-Dest": "iframe"}
    answer = client.get("/deliveries/?range=7d", headers=headers, secure=True)
    assert answer["Location"] == "/frame/?next=%2Fdeliveries%2F%3Frange%3D7d"
    assert client.get("/deliveries/", secure=True)["Location"].startswith("/login/")


def test_without_a_secret_there_is_no_such_page(client: Client, settings: Any) -> None:
    settings.HIGHLEVEL_SHARED_SECRET = ""
    assert client.get("/frame/", secure=True).status_code == 404
    assert enter(client).status_code == 404
    answer = client.get("/deliveries/", headers={"Sec-Fetch-Dest": "iframe"})
    assert answer["Location"].startswith("/login/")
    assert policy(answer) == "'none'"


def test_staff_can_switch_a_guest_off(
    client: Client, admin_client: Client, places: dict[str, Location]
) -> None:
    enter(client)
    path = f"/admin/auth/user/{guest().pk}/change/"
    assert "hl:com:user1" in admin_client.get(path).text
    joined = datetime.now(UTC)
    form = {"first_name": "Zoë", "date_joined_0": f"{joined:%Y-%m-%d}", "date_joined_1": "10:00:00"}
    assert admin_client.post(path, form).status_code == 302
    assert not guest().is_active
    assert enter(client).status_code == 403
