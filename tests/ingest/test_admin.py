"""The admin of what came in: lists that stay cheap, timelines, and hostile text kept harmless."""

from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import orjson
import pytest
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from ingest.ids import ids
from ingest.models import Delivery, KeptWebhook, Location, Source
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


@pytest.fixture
def three() -> None:
    send(recipient="jane@example.org", message_id="m1@example.com")
    send(recipient="janet@example.org", message_id="m2@example.com", at=10, tags=[])
    bounce = {"code": 550, "enhanced-code": "5.1.1", "message": "No such user"}
    send(
        "failed", recipient="bob_x@example.net", message_id="m3@example.com", at=20,
        severity="permanent", status=bounce, location="locB",
    )  # fmt: skip


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
