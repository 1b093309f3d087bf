"""Deliveries in the admin: lists that stay cheap, timelines, and hostile text kept harmless."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from dashboard.models import Membership
from dashboard.review import beside, filters, finding
from ingest import admin
from ingest.ids import ids
from ingest.models import Delivery, Event, Location, Value
from tests.ingest.test_admin import DELIVERIES, HOSTILE, send, shown

pytestmark = pytest.mark.django_db
WORKFLOW = {"email_type": "workflow", "email_type_id": "w1"}


@pytest.fixture(autouse=True)
def forget_ids() -> Iterator[None]:
    ids.clear()
    yield
    ids.clear()


@pytest.fixture
def boss(client: Client) -> Client:
    client.force_login(User.objects.create_superuser("boss"))
    return client


def listed(client: Client, query: str) -> list[str]:
    """The recipients that the list of deliveries shows."""
    page = shown(client, f"{DELIVERIES}?{query}")
    return re.findall(r'class="field-recipient"><a [^>]*>([^<]*)</a>', page)


# --- The list of deliveries -----------------------------------------------------------------


@pytest.fixture
def three() -> None:
    gmail: Any = {"recipient-provider": "Gmail"}
    send(recipient="jane@example.org", message_id="m1@example.com", **gmail)
    send(
        recipient="janet@example.org",
        message_id="m2@example.com",
        at=10,
        tags=[],
    )
    bounce = {"code": 550, "enhanced-code": "5.1.1", "message": "No such user"}
    send(
        "failed", recipient="bob_x@example.net", message_id="m3@example.com", at=20,
        severity="permanent", status=bounce, location="locB", **{"lc-operations": WORKFLOW},
    )  # fmt: skip
    Value.objects.filter(text="workflow:w1").update(label="Spring sale")


@pytest.mark.parametrize(
    ("query", "recipients"),
    [
        ("", ["bob_x@example.net", "janet@example.org", "jane@example.org"]),
        ("q=jane", ["janet@example.org", "jane@example.org"]),
        ("q=jane@", ["jane@example.org"]),
        ("q=JANE@EXAMPLE.ORG", ["jane@example.org"]),
        ("q=example.org", []),
        ("q=%25ane", []),
        ("q=bobxx", []),
        ("q=bob_x", ["bob_x@example.net"]),
        ("q=m2@example.com", ["janet@example.org"]),
        ("q=%3Cm2@example.com%3E", ["janet@example.org"]),
        ("q=m2@example", []),
        ("q=%00", ["bob_x@example.net", "janet@example.org", "jane@example.org"]),
        ("location=locB", ["bob_x@example.net"]),
        ("location=nowhere", []),
        ("tag=promo", ["bob_x@example.net", "jane@example.org"]),
        ("tag=", ["janet@example.org"]),
        ("tag=unheard-of", []),
        ("outcome=bounced", ["bob_x@example.net"]),
        ("outcome=accepted", []),
        ("outcome=unheard-of", []),
        ("category=invalid_recipient", ["bob_x@example.net"]),
        ("category=invalid_recipient&location=locA", []),
        ("provider=Gmail&outcome=delivered&location=locA&tag=promo", ["jane@example.org"]),
        ("campaign=workflow:w1", ["bob_x@example.net"]),
        ("campaign=w1", []),
        ("q=w1", ["bob_x@example.net"]),
        ("q=spring", ["bob_x@example.net"]),
        ("q=jane&tag=promo", ["jane@example.org"]),
        (
            "sent_at__gte=2026-09-21T00:00Z&sent_at__lt=2026-09-22T00:00Z&q=jane@",
            ["jane@example.org"],
        ),
        ("sent_at__gte=2026-09-22T00:00Z&sent_at__lt=2026-09-23T00:00Z", []),
    ],
)
def test_deliveries_are_found(three: None, boss: Client, query: str, recipients: list[str]) -> None:
    assert listed(boss, query) == recipients


def test_filters_offer_names(three: None, boss: Client) -> None:
    Location.objects.filter(ref="locA").update(name="Bright Smile Dental")
    page = shown(boss, DELIVERIES)
    assert "?location=locA" in page
    assert "Bright Smile Dental" in page
    assert "?tag=promo" in page


def test_a_chosen_location_is_offered_however_many_there_are(boss: Client) -> None:
    Location.objects.bulk_create(Location(ref=f"loc{n:03}") for n in range(60))
    page = shown(boss, f"{DELIVERIES}?location=loc059")
    offered = set(re.findall(r'"\?location=(loc\d+)"', page))
    assert len(offered) == filters.OFFERED + 1
    assert "loc059" in offered


def test_a_list_counts_no_further_than_it_must(
    boss: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admin, "COUNTED", 120)
    for at in range(3):
        send(at=at, recipient=f"r{at}@example.org")
    made = Delivery.objects.all()[0]
    Delivery.objects.bulk_create(
        Delivery(**(_columns(made) | {"message_id": f"x{n}"})) for n in range(200)
    )
    with CaptureQueriesContext(
        connection,
    ) as queries:
        page = shown(boss, f"{DELIVERIES}?p=3")
    assert "121 results" in page
    counts = [query["sql"] for query in queries if "COUNT(" in query["sql"]]
    assert counts
    assert all("LIMIT 121" in count for count in counts)
    assert len(queries) < 15


def _columns(delivery: Delivery) -> dict[str, Any]:
    return {
        f.attname: getattr(delivery, f.attname) for f in delivery._meta.fields if f.name != "id"
    }


def test_a_list_costs_the_same_however_long(boss: Client) -> None:
    def count() -> int:
        with CaptureQueriesContext(connection) as queries:
            shown(boss, DELIVERIES)
        return len(queries)

    send(recipient="a@example.org")
    few = count()
    for n in range(12):
        send(recipient=f"r{n}@example.org", location=f"loc{n}", at=n)
    assert count() == few


# --- One delivery ---------------------------------------------------------------------------


def page_of_delivery(client: Client) -> str:
    return shown(client, f"{DELIVERIES}{Delivery.objects.get().pk}/change/")


def test_the_timeline_tells_the_whole_life(boss: Client) -> None:
    attempt = {"mx-host": "mx.example.org", "attempt-no": 1}
    envelope = {"sending-ip": "192.0.2.7", "i-ip-pool-id": "65cc", "i-ip-pool-name": "shared-a"}
    busy = attempt | {"code": 421, "enhanced-code": "4.7.0", "message": "Busy, come again"}
    refused = attempt | {"code": 550, "enhanced-code": "5.7.1", "attempt-no": 2, "message": "No!"}
    send("failed", 60, severity="permanent", status=refused, envelope=envelope)
    send("failed", 5, severity="temporary", status=busy, envelope=envelope)
    send("accepted", 0, status=None)
    page = page_of_delivery(boss)
    timeline = page[page.index("Timeline") :]
    said = ["accepted", "deferred", "421 4.7.0", "Busy, come again", "bounced", "550 5.7.1", "No!"]
    places = [timeline.index(words) for words in said]
    assert places == sorted(places)
    for words in ("mx.example.org", "192.0.2.7 shared-a", "2026-09-21 14:13:25.000", "promo"):
        assert words in page


def test_the_raw_payload_is_shown_indented(boss: Client) -> None:
    send()
    page = page_of_delivery(boss)
    assert "{\n  &quot;type&quot;: &quot;LCEmailStats&quot;," in page
    Event.objects.update(payload=None)
    assert "past its retention" in page_of_delivery(boss)


def test_hostile_text_stays_text(boss: Client) -> None:
    status = {"code": 550, "message": HOSTILE, "description": HOSTILE, "mx-host": HOSTILE}
    send(
        "failed", severity="permanent", status=status, recipient=f"{HOSTILE}@example.org",
        message_id=HOSTILE, tags=[HOSTILE], envelope={"sending-ip": HOSTILE},
    )  # fmt: skip
    Location.objects.update(name=HOSTILE)
    for page in (
        page_of_delivery(boss),
        shown(boss, DELIVERIES),
        shown(boss, "/admin/ingest/location/"),
    ):
        assert "<script>alert" not in page
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_a_long_timeline_says_that_it_goes_on(
    boss: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(beside, "TIMELINE", 2)
    for at in range(3):
        send("opened", at)
    page = page_of_delivery(boss)
    assert page.count("<details>") == 2
    assert "more events than are shown" in page


def test_deliveries_cannot_be_changed(boss: Client) -> None:
    send()
    address = f"{DELIVERIES}{Delivery.objects.get().pk}/"
    assert 'name="_save"' not in page_of_delivery(boss)
    assert boss.post(f"{address}change/", {"outcome": 3}).status_code == 403
    assert boss.post(f"{address}delete/", {"post": "yes"}).status_code == 403
    assert boss.post(f"{DELIVERIES}add/", {}).status_code == 403
    action = {"action": "delete_selected", "_selected_action": [Delivery.objects.get().pk]}
    boss.post(DELIVERIES, action | {"post": "yes"})
    assert Delivery.objects.count() == 1


# --- Who sees what --------------------------------------------------------------------------


def member(client: Client, role: str, ref: str = "locA") -> Client:
    user = User.objects.create_user(f"{role}-{ref}")
    Membership.objects.create(user=user, location=Location.objects.get(ref=ref), role=role)
    client.force_login(user)
    return client


def test_who_operates_nothing_is_kept_out(three: None, client: Client) -> None:
    response = client.get(DELIVERIES)
    assert response.status_code == 302
    assert response["Location"].startswith("/login/")
    assert client.get("/admin/login/").status_code == 302
    for address in (DELIVERIES, "/admin/", "/admin/login/"):
        assert member_once(client).get(address).status_code == 403


def member_once(client: Client) -> Client:
    viewer = User.objects.filter(username="viewer-locA").first()
    if viewer is None:
        return member(client, "viewer")
    client.force_login(viewer)
    return client


def test_operators_find_their_own_locations_mail(three: None, client: Client) -> None:
    operator = member(client, "operator")
    assert listed(operator, "") == ["janet@example.org", "jane@example.org"]
    other = Delivery.objects.get(location__ref="locB")
    for query in ("location=locB", "q=bob_x", "q=m3@example.com", "outcome=bounced"):
        assert listed(operator, query) == []
    assert listed(operator, "tag=promo") == ["jane@example.org"]
    page = shown(operator, DELIVERIES)
    assert "locB" not in page
    missing = operator.get(f"{DELIVERIES}{other.pk}/change/")
    never = operator.get(f"{DELIVERIES}{other.pk + 1000}/change/")
    assert (missing.status_code, missing["Location"]) == (never.status_code, never["Location"])


def test_operators_of_several_locations_find_all_of_theirs(three: None, client: Client) -> None:
    operator = member(client, "operator")
    user = User.objects.get(username="operator-locA")
    Membership.objects.create(user=user, location=Location.objects.get(ref="locB"), role="operator")
    send(recipient="zed@example.net", at=30, location="locC", message_id="m9@example.com")
    assert listed(operator, "") == ["bob_x@example.net", "janet@example.org", "jane@example.org"]


def test_operators_see_no_other_table(three: None, client: Client) -> None:
    operator = member(client, "operator")
    index = shown(operator, "/admin/")
    assert "Deliveries" in index
    for name in ("location", "source", "keptwebhook", "classificationrule"):
        assert operator.get(f"/admin/ingest/{name}/").status_code == 403
        assert f"/admin/ingest/{name}/" not in index
    assert operator.get("/admin/auth/user/").status_code == 403


def test_a_walk_that_takes_long_says_how_far_it_came(
    boss: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finding, "LONGEST", -1.0)
    monkeypatch.setattr(finding, "GROWTH", 1)
    for at in (0, 7_200):
        send(recipient=f"r{at}@example.org", message_id=f"m{at}@example.com", at=at)
    page = shown(boss, f"{DELIVERIES}?tag=promo")
    assert "r7200@example.org" in page
    assert "r0@example.org" not in page
    assert "Looked back to 2026-09-21 16:00 UTC" in page


def test_the_list_is_had_as_a_file(three: None, boss: Client) -> None:
    page = shown(boss, f"{DELIVERIES}?outcome=bounced&location=locB")
    (address,) = re.findall(r'href="(/deliveries/export/[^"]*)"', page)
    assert "outcome=bounced" in address
    file = boss.get(address.replace("&amp;", "&"))
    assert file["Content-Type"].startswith("text/csv")
    file.close()
