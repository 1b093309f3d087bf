"""The admin of what came in: lists that stay cheap, timelines, and hostile text kept harmless."""

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import orjson
import pytest
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from ingest import admin
from ingest.ids import ids
from ingest.models import Delivery, Event, KeptWebhook, Location, Source
from ingest.quarantine import Suspect
from ingest.record import item_from_body, write_batch

pytestmark = pytest.mark.django_db
RECEIVED = 1_790_000_100_000_000
DELIVERIES = "/admin/ingest/delivery/"
HOSTILE = "<script>alert(1)</script>"


@pytest.fixture(autouse=True)
def forget_ids() -> Iterator[None]:
    ids.clear()
    yield
    ids.clear()


@pytest.fixture
def boss(client: Client) -> Client:
    client.force_login(User.objects.create_superuser("boss"))
    return client


def staff(client: Client, *permissions: str) -> Client:
    user = User.objects.create_user("helper", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client.force_login(user)
    return client


def send(event: str = "delivered", at: int = 0, **changes: Any) -> None:
    """Record a webhook the way that the edge does. ``status`` is its delivery-status."""
    status = changes.pop("status", {"code": 250, "message": "OK"})
    location = changes.pop("location", "locA")
    mail = {
        "event": event,
        "id": f"{event}-{at}-{changes.get('recipient', '')}",
        "timestamp": 1_790_000_000 + at,
        "recipient": "jane@example.org",
        "message": {"headers": {"message-id": changes.pop("message_id", "m1@example.com")}},
        "delivery-status": status,
        "tags": ["loc_x", "promo"],
    } | changes
    body = {"type": "LCEmailStats", "locationId": location, "webhookPayload": mail}
    write_batch([item_from_body(orjson.dumps(body), received_at=RECEIVED)], now=RECEIVED)


def shown(client: Client, address: str) -> str:
    response = client.get(address)
    assert response.status_code == 200, address
    return response.content.decode()


def listed(client: Client, query: str) -> list[str]:
    """The recipients that the list of deliveries shows."""
    page = shown(client, f"{DELIVERIES}?{query}")
    return re.findall(r'class="field-recipient"><a [^>]*>([^<]*)</a>', page)


# --- The list of deliveries -----------------------------------------------------------------


@pytest.fixture
def three() -> None:
    send(recipient="jane@example.org", message_id="m1@example.com")
    send(recipient="janet@example.org", message_id="m2@example.com", at=10, tags=[])
    bounce = {"code": 550, "enhanced-code": "5.1.1", "message": "No such user"}
    send(
        "failed", recipient="bob_x@example.net", message_id="m3@example.com", at=20,
        severity="permanent", status=bounce, location="locB",
    )  # fmt: skip


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
        ("outcome__exact=2", ["bob_x@example.net"]),
        ("category__exact=1", ["bob_x@example.net"]),
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
    assert len(offered) == admin.OFFERED + 1
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
    monkeypatch.setattr(admin, "TIMELINE", 2)
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


def test_only_staff_gets_in(client: Client) -> None:
    client.force_login(User.objects.create_user("jane"))
    response = client.get(DELIVERIES)
    assert response.status_code == 302
    assert "/login/" in response["Location"]


# --- Locations, sources, kept webhooks ------------------------------------------------------


def test_a_location_can_be_named_by_hand(three: None, boss: Client) -> None:
    location = Location.objects.get(ref="locA")
    address = f"/admin/ingest/location/{location.pk}/change/"
    assert "?location=locA" in shown(boss, address)
    named = {"name": "Bright Smile Dental", "timezone": "America/Denver", "ref": "other"}
    assert boss.post(address, named).status_code == 302
    location.refresh_from_db()
    assert (location.ref, location.name) == ("locA", "Bright Smile Dental")
    assert boss.post("/admin/ingest/location/add/", {"ref": "new"}).status_code == 403
    delete = address.replace("change", "delete")
    assert boss.post(delete, {"post": "yes"}).status_code == 403


def test_a_source_shows_the_address_to_paste(boss: Client, settings: Any) -> None:
    made = {"name": "hoop", "location_ref": "locA", "enabled": "on", "hmac_encoding": "hex"}
    assert boss.post("/admin/ingest/source/add/", made).status_code == 302
    source = Source.objects.get()
    address = f"/admin/ingest/source/{source.pk}/change/"
    assert f"http://testserver/webhooks/lc-email/{source.key}/" in shown(boss, address)
    settings.PUBLIC_URL = "https://mail.example.com"
    assert f"https://mail.example.com/webhooks/lc-email/{source.key}/" in shown(boss, address)


def test_half_an_hmac_is_refused(boss: Client) -> None:
    half = {"name": "hoop", "enabled": "on", "hmac_encoding": "hex", "hmac_secret": "s3cret"}
    page = boss.post("/admin/ingest/source/add/", half).content.decode()
    assert "An HMAC needs both its secret and its header." in page
    assert not Source.objects.exists()


def test_who_may_only_look_sees_no_secret_of_a_source(client: Client) -> None:
    source = Source.objects.create(name="hoop", hmac_secret="s3cret", hmac_header="x-sig")
    looker = staff(client, "view_source")
    page = shown(looker, f"/admin/ingest/source/{source.pk}/change/")
    assert "hoop" in page
    assert "s3cret" not in page
    assert source.key not in page


def test_a_kept_webhook_is_shown_and_not_touched(boss: Client) -> None:
    body = orjson.dumps({"what": HOSTILE})
    write_batch([item_from_body(body, received_at=RECEIVED)], now=RECEIVED)
    write_batch([item_from_body(b"\xff no JSON", received_at=RECEIVED)], now=RECEIVED)
    assert "not JSON" in shown(boss, "/admin/ingest/keptwebhook/")
    for kept in KeptWebhook.objects.all():
        address = f"/admin/ingest/keptwebhook/{kept.pk}/"
        page = shown(boss, f"{address}change/")
        assert "<script>alert" not in page
        assert "&quot;what&quot;: &quot;&lt;script&gt;" in page or "\ufffd no JSON" in page
        assert boss.post(f"{address}delete/", {"post": "yes"}).status_code == 403


def test_a_quarantined_webhook_is_shown_and_not_touched(boss: Client) -> None:
    headers = orjson.dumps({"x-ghl-signature": HOSTILE}).decode()
    row = Suspect(orjson.dumps({"what": HOSTILE}), headers, RECEIVED, None).row
    row.save()
    assert "x-ghl-signature" in shown(boss, "/admin/ingest/quarantinedwebhook/")
    address = f"/admin/ingest/quarantinedwebhook/{row.pk}/"
    page = shown(boss, f"{address}change/")
    assert "<script>alert" not in page
    assert page.count("&lt;script&gt;") >= 2
    assert boss.post(f"{address}delete/", {"post": "yes"}).status_code == 403
    assert boss.post(f"{address}change/", {"headers": "{}"}).status_code == 403


@pytest.mark.parametrize("name", ["keptwebhook", "quarantinedwebhook"])
def test_a_list_of_webhooks_reads_no_body(boss: Client, name: str) -> None:
    write_batch([item_from_body(b"[]", received_at=RECEIVED)], now=RECEIVED)
    Suspect(b"[]", "{}", RECEIVED, None).row.save()
    with CaptureQueriesContext(connection) as queries:
        boss.get(f"/admin/ingest/{name}/")
    table = f'FROM "ingest_{name}"'
    asked = [query["sql"] for query in queries if table in query["sql"]]
    assert any('"received_at"' in sql for sql in asked)
    assert not any('"body"' in sql for sql in asked)


# --- The policy -----------------------------------------------------------------------------


class Inline(HTMLParser):
    """Collects what a strict Content-Security-Policy would block."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        data = given.get("type") in ("application/json", "text/template")
        if tag == "style" or (tag == "script" and "src" not in given and not data):
            self.found.append(tag)
        self.found += [name for name in given if name == "style" or name.startswith("on")]


def test_no_page_needs_what_the_policy_forbids(three: None, boss: Client) -> None:
    Source.objects.create(name="hoop")
    write_batch([item_from_body(b"{}", received_at=RECEIVED)], now=RECEIVED)
    for model in (Delivery, Location, Source, KeptWebhook):
        base = f"/admin/ingest/{model._meta.model_name}/"
        for address in (base, f"{base}{model._default_manager.all()[0].pk}/change/"):
            response = boss.get(address)
            assert "script-src 'self'" in response["Content-Security-Policy"]
            parser = Inline()
            parser.feed(response.content.decode())
            assert parser.found == [], address
