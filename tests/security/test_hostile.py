"""What servers, senders and people write who mean harm: in pages, files, mail and headers."""

import csv
import io
import logging
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from typing import Any

import orjson
import pytest
from django.contrib.auth.models import User
from django.core import mail
from django.core.cache import cache
from django.test import Client

from dashboard.models import ClientLink, Note, SavedView, Suppressed, Suspension
from ingest.ids import ids
from ingest.models import Delivery, Location, ReasonHour, Value
from ingest.record import item_from_body, write_batch
from ingest.vocabulary import Dimension
from tests.security.addresses import addresses
from tests.security.test_matrix import LISTS, ask
from tests.security.world import World, make_world

pytestmark = pytest.mark.django_db

MARKUP = "\"'><img src=x onerror=alert(1)><script>alert('evil')</script>{{ 7 }}{% now %}"
FORMULA = '=HYPERLINK("https://evil.example")'
HEADER = "evil\r\nBcc: evil@evil.example\r\n\r\n<script>"
HIDDEN = "\u202eevil\x00\x1b[31m\u2028"
EVIL = MARKUP + FORMULA + HEADER + HIDDEN


class Markup(HTMLParser):
    """Gathers what a browser would run, and where elements of ours do not come from."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        if tag == "script" and not ((given.get("src") or "").startswith("/") or given.get("type")):
            self.found.append("<script>")
        self.found += [f"{tag} {name}" for name in given if name.startswith(("on", "hx-on"))]
        if tag == "img" and given.get("src") == "x":
            self.found.append("<img>")
        for name in ("href", "src", "action"):
            if (given.get(name) or "").strip().lower().startswith(("javascript:", "data:text")):
                self.found.append(f"{name}={given[name]}")


@pytest.fixture
def world(settings: Any) -> Iterator[World]:
    cache.clear()
    logging.disable()
    settings.MIDDLEWARE = [name for name in settings.MIDDLEWARE if "ServeStatic" not in name]
    world = make_world()
    _write_evil(world)
    yield world
    logging.disable(logging.NOTSET)


def _write_evil(world: World) -> None:
    """Everything of ours that somebody else writes says something evil."""
    ids.clear()
    now, ref = datetime.now(UTC) - timedelta(minutes=10), world.ours.ref
    bodies: list[dict[str, Any]] = [{"type": "LocationUpdate", "id": ref, "name": EVIL}]
    for number, event in enumerate(("failed", "complained", "delivered", "opened")):
        payload = {
            "event": event, "id": f"evil-{number}", "timestamp": now.timestamp(),
            "severity": "permanent", "recipient": f"{FORMULA}{MARKUP}{number}@evil.example",
            "tags": [EVIL, FORMULA], "recipient-provider": EVIL,
            "message": {"headers": {"message-id": f"{MARKUP}{number}@evil", "subject": EVIL}},
            "envelope": {"sending-ip": MARKUP, "i-ip-pool-name": EVIL, "sender": EVIL},
            "client-info": {"user-agent": EVIL, "client-name": MARKUP},
            "url": "javascript:alert(1)",
            "delivery-status": {"code": 550, "message": EVIL, "mx-host": EVIL},
            "reject": {"reason": EVIL},
            "campaigns": [{"id": f"evil{MARKUP}", "name": EVIL}],
        }  # fmt: skip
        bodies.append({"type": "LCEmailStats", "locationId": ref, "webhookPayload": payload})
    received_at = int(now.timestamp() * 1e6)
    items = [item_from_body(orjson.dumps(body), received_at=received_at) for body in bodies]
    write_batch(items, now=received_at)
    place = Location.objects.get(ref=ref)
    world.ours.pks["delivery"] = Delivery.objects.filter(location=place).latest("pk").pk
    text = MARKUP + FORMULA
    Note.objects.update(text=text)
    Suspension.objects.update(note=text)
    ClientLink.objects.update(name=text[:100])
    SavedView.objects.filter(pk=world.ours.pks["savedview"]).update(name=text[:80])
    suppressed = Suppressed.objects.filter(pk=world.ours.pks["suppressed"])
    suppressed.update(reason=text, recipient=f"{FORMULA}{MARKUP}@evil.example")
    User.objects.filter(username="viewer").update(first_name=MARKUP[:150], username=MARKUP[:150])
    Value.objects.filter(dimension=Dimension.CAMPAIGN).update(label=EVIL.replace("\x00", "")[:200])


def test_no_page_runs_what_others_wrote(world: World) -> None:
    client, found = world.client("superuser"), []
    paths = [a.path(world.ours) for a in addresses() if "logout" not in a.name]
    for path in (
        *paths,
        *LISTS,
        f"/deliveries/?q={FORMULA}",
        f"/?find={MARKUP}",
        "/?range=<script>",
        f"/?tag={MARKUP}",
    ):
        answer, text = ask(client, "get", path)
        if "html" in answer.headers.get("Content-Type", ""):
            found += [f"{path}: {what}" for what in Markup(text).found]
        elif "<script" in text:
            kind = answer.headers["Content-Type"]
            is_file = kind.startswith(("text/csv", "application/json"))
            found += [f"{path}: as {kind}"] * (not is_file)
        found += [f"{path}: header {n}" for n, v in answer.headers.items() if "evil@" in v]
    assert not found, "\n".join(found)


def test_no_ticket_to_a_postmaster_has_a_line_that_others_wrote(world: World) -> None:
    reason = ReasonHour.objects.latest("reason_id").reason_id
    page = world.client("superuser").get(f"/reasons/{reason}/?range=7d").text
    ticket = re.search(r"Subject: [^<]*", page)
    assert ticket is not None and "evil" in ticket[0] and "Volume: " in ticket[0]
    assert not re.search(r"^\W*Bcc:", ticket[0], re.MULTILINE)


@pytest.mark.parametrize(
    "path",
    [
        "/deliveries/export/?format=csv&range=7d",
        "/api/rates/?by=tag&range=7d&format=csv",
        "/api/rates/?by=location&range=7d&format=csv",
        "/suppressions/export/?format=csv",
    ],
)
def test_no_cell_of_a_file_is_a_formula(world: World, path: str) -> None:
    answer, text = ask(world.client("superuser"), "get", path)
    assert answer.status_code == 200 and "evil" in text
    rows = list(csv.reader(io.StringIO(text.removeprefix("\ufeff"))))
    assert len({len(row) for row in rows}) == 1, "no text begins a row of its own"
    cells = [cell for row in rows for cell in row if cell]
    numbers = [cell for cell in cells if cell.lstrip("-").replace(".", "").isdigit()]
    assert [c for c in cells if c[0] in "=+-@\t\r" and c not in numbers] == []


def test_no_mail_has_a_header_that_others_wrote(world: World, settings: Any) -> None:
    settings.SENDS_MAIL = True
    Location.objects.filter(ref=world.ours.ref).update(name=HEADER)
    client = world.client("superuser")
    location = Location.objects.get(ref=world.ours.ref)
    for email in ("new@example.com", "a@example.com\r\nBcc: b@evil.example"):
        for given in (location.ref, str(location), location.name):
            offer = {"email": email, "role": "viewer", "location": given, "where": given}
            assert "Bcc" not in str(client.post("/people/", offer).headers)
    Client().post("/password/reset/", {"email": "operator@example.com"})
    assert mail.outbox
    for message in mail.outbox:
        headers = message.message().as_string().partition("\n\n")[0]
        assert "evil" not in headers.lower() and "bcc" not in headers.lower()
        assert len(message.recipients()) == 1


def test_names_of_files_and_answers_hold_no_line_break(world: World) -> None:
    client = world.client("superuser")
    for path in ("/deliveries/", "/api/rates/", "/filter/", "/login/"):
        for name in ("q", "tag", "next", "at", "range", "tz", "HX-Request"):
            answer, _ = ask(client, "get", f"{path}?{name}=a%0d%0aX-Evil:%201")
            assert "X-Evil" not in answer.headers, (path, name)
