"""The suppression list's page, forms, file and answers: what they show, and to whom."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import AsyncClient, Client

from dashboard.models import AuditEntry, Membership, Suppressed
from dashboard.suppressing import follow_some
from dashboard.suppression import suppress
from dashboard.suppression_files import FileError, read_addresses
from ingest import counting
from ingest.models import Location
from ingest.vocabulary import BounceClass, EventKind, Outcome
from tests.dashboard import rows

pytestmark = pytest.mark.django_db
NOW = datetime.now(UTC).replace(minute=30)
HARD: dict[str, Any] = {"outcome": Outcome.BOUNCED, "bounce_class": BounceClass.HARD}
HOSTILE = "=cmd|' /C calc'!A0@example.com"


@pytest.fixture
def place() -> Location:
    return rows.location("loc")


def login(client: Client, place: Location, role: str) -> Client:
    user = User.objects.create_user(role, is_staff=role == "staff")
    if role in Membership.Role.values:
        Membership.objects.create(user=user, location=place, role=role)
    client.force_login(user)
    return client


def page(client: Client, query: str = "") -> str:
    answer = client.get(f"/suppressions/{query}")
    assert answer.status_code == 200
    return answer.content.decode()


@async_to_sync
async def exported(client: Client, query: str = "") -> str:
    reader = AsyncClient()
    reader.cookies = client.cookies
    answer: Any = await reader.get(f"/suppressions/export/{query}")
    return b"".join([chunk async for chunk in answer.streaming_content]).decode()


POSTS = {
    "/suppressions/add/": {"location": "loc", "recipient": "new@x.org", "reason": "asked"},
    "/suppressions/held/": {"provider": "Gmail", "do": "confirm"},
}


@pytest.mark.parametrize("path", [*POSTS, "release"])
@pytest.mark.parametrize(
    ("role", "status"), [("staff", 302), ("operator", 302), ("viewer", 403), ("stranger", 404)]
)
def test_operators_and_staff_may(
    client: Client, place: Location, path: str, role: str, status: int
) -> None:
    entry = suppress(place.pk, "jane@x.org")
    login(client, place, role)
    fields = POSTS.get(path, {"reason": "she asked"})
    path = f"/suppressions/{entry.pk}/release/" if path == "release" else path
    answer = client.post(path, fields).status_code
    # What is held belongs to no location that could be missing.
    assert answer == (403 if "held" in path and role == "stranger" else status)


def test_only_ones_own_locations_are_listed(client: Client, place: Location) -> None:
    suppress(place.pk, "mine@x.org", "hard")
    suppress(rows.location("other").pk, "theirs@x.org", "hard")
    login(client, place, "viewer")
    for text in (page(client), exported(client), client.get("/api/suppressions/").content.decode()):
        assert "mine@x.org" in text
        assert "theirs@x.org" not in text
    assert client.get("/suppressions/?location=other").status_code == 404
    assert client.get("/api/suppressions/?location=other").status_code == 404


def test_it_is_searched_narrowed_and_paged(client: Client, place: Location) -> None:
    for n in range(60):
        suppress(place.pk, f"r{n:02}@x.org", "hard" if n % 2 else "complained")
    suppress(place.pk, "zoe@y.org", "unsubscribed")
    login(client, place, "staff")
    assert "61 addresses" in page(client)
    first = client.get("/api/suppressions/?limit=40").json()
    second = client.get(first["next"]).json()
    assert [len(first["results"]), len(second["results"]), second["next"]] == [40, 21, None]
    found = {row["recipient"] for row in first["results"] + second["results"]}
    assert len(found) == 61
    for query, number in {
        "?q=r1": 10, "?q=%40y.org": 1, "?cause=hard": 30, "?state=held": 0, "?q=-r": 1,
        "?location=loc&cause=unsubscribed": 1,
    }.items():  # fmt: skip
        assert len(client.get(f"/api/suppressions/{query}").json()["results"]) == min(number, 50)
    for query in ("?cause=x", "?state=x", "?tag=a", "?before=x", "?before=2026-01-01_x"):
        assert client.get(f"/api/suppressions/{query}").status_code == 400


def test_by_hand_by_file_and_off_again(client: Client, place: Location) -> None:
    login(client, place, "operator")
    client.post("/suppressions/add/", POSTS["/suppressions/add/"])
    data = "name;E-Mail\nJane;JANE@x.org\nMax;'max@x.org\nBad;nobody\nNew;new@x.org\n"
    file = SimpleUploadedFile("list.csv", "\ufeff".encode() + data.encode())
    client.post("/suppressions/add/", {"location": "loc", "file": file, "reason": "<b>old list"})
    text = page(client)
    assert "2 put on the list, 1 were on it. 1 lines hold no address." in text
    assert "&lt;b&gt;old list" in text
    entry = Suppressed.objects.get(recipient="jane@x.org")
    client.post(f"/suppressions/{entry.pk}/release/", {"reason": ""})
    assert "say why" in page(client)
    client.post(f"/suppressions/{entry.pk}/release/", {"reason": "she asked"})
    assert "jane@x.org" not in page(client)
    assert "jane@x.org" in page(client, "?state=released")
    actions = AuditEntry.objects.order_by("id").values_list("action", flat=True)
    assert list(actions) == ["suppress", "import suppressions", "release"]


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"a@x.org\nb@x.org\na@x.org", ["a@x.org", "b@x.org"]),
        (b"email,name\n<A@x.org>,A", ["a@x.org"]),
    ],
)
def test_files_that_are_read(data: bytes, found: list[str]) -> None:
    assert read_addresses(data)[0] == found


@pytest.mark.parametrize("data", [b"", b"\xff\xfe", b"name\nJane", b"a,b\n1,2"])
def test_files_that_are_not(data: bytes) -> None:
    with pytest.raises(FileError):
        read_addresses(data)


def test_the_file_makes_no_formula(client: Client, place: Location) -> None:
    suppress(place.pk, HOSTILE, reason="@SUM(A1)")
    login(client, place, "viewer")
    text = exported(client)
    assert text.startswith('\ufeff"recipient","location"')
    assert "\"'=cmd|" in text
    assert "\"'@SUM" in text


def test_masked_viewers_read_no_name(client: Client, place: Location) -> None:
    suppress(place.pk, "zebulon@x.org", "hard", reason="zebulon@x.org wrote")
    Location.objects.update(masks_recipients=True)
    login(client, place, "viewer")
    for text in (page(client), exported(client), client.get("/api/suppressions/").content.decode()):
        assert "z•••@x.org" in text
        assert "zebulon" not in text
    assert client.get("/suppressions/?q=zeb").status_code == 400
    assert client.get("/api/suppressions/?q=zebulon@x.org").json()["results"]


def test_what_was_mailed_after_death_says_what_it_costs(client: Client, place: Location) -> None:
    for number in range(40):
        rows.delivery(number, sent_at=NOW - timedelta(days=2), campaign="workflow:w")
    sent: dict[str, Any] = {"recipient": "jane@x.org", "campaign": "workflow:w", "step": "s1"}
    for number, days in enumerate((5, 3, 2), start=50):
        made = rows.delivery(number, sent_at=NOW - timedelta(days=days), **sent, **HARD)
        rows.event(made, kind=EventKind.BOUNCED)
    counting.rebuild(now=int(NOW.timestamp() * 1e6))
    while follow_some():
        pass
    login(client, place, "viewer")
    (row,) = client.get("/api/suppressions/mailed-again/?range=7d").json()["results"]
    assert (row["location"], row["campaign_key"], row["step"]) == ("loc", "workflow:w", "s1")
    assert (row["mails"], row["addresses"], row["hard"], row["complained"]) == (2, 1, 2, 0)
    assert row["hard_points"] == round(100 * (3 / 43 - 1 / 41), 2)
    text = page(client)
    assert "4.54 points of hard bounces" in text
    assert "HighLevel does not read this list" in text
    assert (
        client.get("/api/suppressions/mailed-again/?campaign=-workflow:w").json()["results"] == []
    )
