"""What people put in: names, suspensions, notes; who may, and where they end up."""

from datetime import UTC, datetime, timedelta

import pytest
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from dashboard.models import AuditEntry, Membership, Note, Suspension
from dashboard.riskiest import suspended
from ingest import counting
from ingest.models import Location, Value
from tests.dashboard import rows

pytestmark = pytest.mark.django_db
HOSTILE = "<script>alert(1)</script>"


@pytest.fixture
def place() -> Location:
    return rows.location("loc")


def login(client: Client, place: Location, role: str) -> Client:
    """Somebody with this role: staff, or a member of the location."""
    user = User.objects.create_user(role, is_staff=role == "staff")
    if role in Membership.Role.values:
        Membership.objects.create(user=user, location=place, role=role)
    client.force_login(user)
    return client


@pytest.fixture
def operator(client: Client, place: Location) -> Client:
    return login(client, place, "operator")


def said(client: Client, path: str = "/") -> str:
    return client.get(path).content.decode()


CHANGES = {
    "/locations/loc/name/": {"name": "Bright Smile"},
    "/locations/loc/suspensions/": {"cause": "bounces", "level": 1, "since": "2026-11-22T08:00"},
    "/locations/loc/masking/": {"masks": "1"},
    "/notes/": {"location": "loc", "at": "2026-11-22T08:00", "text": "list bought"},
}


@pytest.mark.parametrize("path", CHANGES)
@pytest.mark.parametrize(
    ("role", "status"), [("staff", 302), ("operator", 302), ("viewer", 403), ("stranger", 404)]
)
def test_operators_and_staff_may(
    client: Client, place: Location, path: str, role: str, status: int
) -> None:
    login(client, place, role)
    assert client.post(path, CHANGES[path]).status_code == status


@pytest.mark.parametrize("path", CHANGES)
def test_nobody_changes_anything_unasked(client: Client, place: Location, path: str) -> None:
    answer = client.post(path, CHANGES[path])
    assert answer["Location"].startswith("/login/")
    checking = Client(enforce_csrf_checks=True)
    login(checking, place, "staff")
    assert checking.post(path, CHANGES[path]).status_code == 403


def test_a_location_gets_its_name(operator: Client, place: Location) -> None:
    changes = {"name": "Bright Smile", "timezone": "America/Denver", "next": "/locations/loc/?x=1"}
    answer = operator.post("/locations/loc/name/", changes)
    assert answer["Location"] == "/locations/loc/?x=1"
    place.refresh_from_db()
    assert (place.name, place.timezone) == ("Bright Smile", "America/Denver")


def test_operators_mask_recipients_and_the_log_says_so(operator: Client, place: Location) -> None:
    for masks in ("1", "1", "0"):
        operator.post("/locations/loc/masking/", {"masks": masks})
        place.refresh_from_db()
        assert place.masks_recipients == (masks == "1")
    entries = AuditEntry.objects.order_by("id").values_list("actor", "action", "location_id")
    assert [*entries] == [
        ("operator", "mask recipients", place.pk), ("operator", "show recipients", place.pk)
    ]  # fmt: skip


def test_a_zone_that_is_none_changes_nothing(operator: Client, place: Location) -> None:
    operator.post("/locations/loc/name/", {"name": "New", "timezone": "Denver"})
    place.refresh_from_db()
    assert place.name == ""
    assert "Not saved. timezone: That is no IANA time zone" in said(operator)


@pytest.mark.parametrize("there", ["https://evil.example/", "//evil.example", "javascript:x", ""])
def test_nobody_is_sent_elsewhere(operator: Client, there: str) -> None:
    answer = operator.post("/locations/loc/name/", {"name": "x", "next": there})
    assert answer["Location"] == "/"


def test_a_campaign_is_named_by_those_who_operate_all_its_senders(operator: Client) -> None:
    rows.delivery(1, campaign="bulk:1")
    counting.rebuild(now=int(rows.NOW.timestamp() * 1e6))
    assert operator.post("/campaigns/bulk:1/name/", {"label": "Spring"}).status_code == 302
    assert Value.objects.get(text="bulk:1").label == "Spring"
    rows.delivery(2, campaign="bulk:1", location_ref="other")
    counting.rebuild(now=int(rows.NOW.timestamp() * 1e6))
    assert operator.post("/campaigns/bulk:1/name/", {"label": "Mine"}).status_code == 403
    assert operator.post("/campaigns/bulk:2/name/", {"label": "Mine"}).status_code == 404


def test_a_stop_of_highlevels_is_noted_and_lifted(operator: Client, place: Location) -> None:
    now = datetime.now(UTC)
    since = (now - timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M")
    stop = {"cause": "bounces", "level": 1, "since": since}
    operator.post("/locations/loc/suspensions/", stop)
    found = Suspension.objects.get()
    assert found.until == found.since + timedelta(hours=12)
    assert found.by == User.objects.get(username="operator")
    assert suspended([place.pk], now=now) == {place.pk}
    assert suspended([place.pk], now=now + timedelta(hours=12)) == frozenset()
    assert "HighLevel stopped sending" in said(operator, "/locations/loc/")
    operator.post(f"/locations/loc/suspensions/{found.pk}/")
    assert suspended([place.pk], now=now + timedelta(minutes=1)) == frozenset()
    operator.post(f"/locations/loc/suspensions/{found.pk}/", {"delete": ""})
    assert not Suspension.objects.exists()


def test_a_stop_is_told_in_the_zone_of_its_form(operator: Client) -> None:
    stop = {"cause": "other", "level": 3, "since": "2026-11-22T08:00", "tz": "Asia/Kolkata"}
    operator.post("/locations/loc/suspensions/", stop)
    found = Suspension.objects.get()
    assert found.since == datetime(2026, 11, 22, 2, 30, tzinfo=UTC)
    assert found.until is None


def test_a_stop_that_ends_before_it_begins_is_refused(operator: Client) -> None:
    stop = {"cause": "other", "level": 1, "since": "2026-11-22T08:00", "until": "2026-11-22T07:00"}
    operator.post("/locations/loc/suspensions/", stop)
    assert not Suspension.objects.exists()
    assert "It ends before it begins." in said(operator)


def test_a_note_for_all_is_staffs(client: Client, operator: Client, place: Location) -> None:
    note = {"at": "2026-11-22T08:00", "text": HOSTILE}
    assert operator.post("/notes/", note).status_code == 403
    login(client, place, "staff")
    client.post("/notes/", note)
    found = Note.objects.get()
    assert (found.location, found.text) == (None, HOSTILE)
    assert login(Client(), place, "viewer").post(f"/notes/{found.pk}/").status_code == 404
    client.post(f"/notes/{found.pk}/")
    assert not Note.objects.exists()


def test_many_names_at_once(client: Client, place: Location) -> None:
    login(client, place, "staff")
    file = SimpleUploadedFile("names.csv", b"id,name\nloc,Bright Smile\nnobody,Nobody\n")
    html = client.post("/names/", {"file": file}).content.decode()
    assert "1 named, 0 as they were. Not known here, so left out: nobody." in html
    place.refresh_from_db()
    assert place.name == "Bright Smile"


def test_a_file_that_cannot_be_read_is_a_sentence(client: Client, place: Location) -> None:
    login(client, place, "staff")
    file = SimpleUploadedFile("names.csv", b"\xff\xfe")
    answer = client.post("/names/", {"file": file})
    assert answer.status_code == 400
    assert "The file is not UTF-8 text" in answer.content.decode()


def test_many_names_are_for_those_who_see_all(operator: Client) -> None:
    assert operator.get("/names/").status_code == 403
