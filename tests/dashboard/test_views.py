"""The pages, through Django's client: complete at first paint, escaped, and closed to strangers."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.contrib.auth.models import User
from django.test import Client

from dashboard.bounded import TookTooLong
from dashboard.models import Membership
from ingest import counting
from ingest.models import Location
from ingest.normalize import Detail
from ingest.vocabulary import EventKind, Outcome
from tests.dashboard import rows

pytestmark = pytest.mark.django_db
HOSTILE = '<script>alert(1)</script>"><img src=x onerror=alert(2)>'
TEMPLATES = sorted((Path(django_settings.BASE_DIR) / "templates").rglob("*.html"))


@pytest.fixture
def now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture
def staff(client: Client) -> Iterator[Client]:
    client.force_login(User.objects.create_user("anna", is_staff=True))
    yield client


@pytest.fixture
def viewer(client: Client) -> Client:
    """Somebody who may see the location "loc" only."""
    user = User.objects.create_user("vera")
    client.force_login(user)
    Membership.objects.create(user=user, location=rows.location("loc"))
    return client


def page(client: Client, path: str, status: int = 200) -> str:
    answer = client.get(path)
    assert answer.status_code == status
    return answer.content.decode()


def words(html: str) -> str:
    """The text of a page, spaces folded."""
    return " ".join(re.sub(r"<[^>]+>", " ", html).replace("\xa0", " ").split())


def send(now: datetime, number: int = 1, **columns: Any) -> None:
    """A delivery of some minutes ago, and its event."""
    kind = columns.pop("kind", EventKind.DELIVERED)
    detail = columns.pop("detail", None)
    made = rows.delivery(number, sent_at=now - timedelta(minutes=5), **columns)
    rows.event(made, kind=kind, detail=detail)
    counting.rebuild(now=int(now.timestamp() * 1e6))


def test_strangers_are_sent_to_the_login(client: Client) -> None:
    for path in ("/", "/locations/loc/", "/campaigns/spring/"):
        answer = client.get(path)
        assert answer.status_code == 302
        assert answer["Location"].startswith("/login/")


def test_the_login_page_is_ours(client: Client) -> None:
    assert "Log in · Sendwatch" in page(client, "/login/")


def test_without_events_it_says_what_to_paste(staff: Client) -> None:
    html = page(staff, "/")
    assert "http://testserver/webhooks/lc-email/" in html
    assert "Waiting for the first event" in html
    assert "no data" in html
    assert "0 %" not in words(html).replace("100 %", "")


def test_the_address_to_paste_follows_the_public_url(staff: Client, settings: Any) -> None:
    settings.PUBLIC_URL = "https://watch.example"
    assert "https://watch.example/webhooks/lc-email/" in page(staff, "/")


def test_the_first_paint_is_complete(staff: Client, now: datetime) -> None:
    for number in range(3):
        send(now, number)
    send(now, 4, outcome=Outcome.BOUNCED, kind=EventKind.BOUNCED, recipient="gone@example.com")
    text = words(page(staff, "/?range=1h"))
    assert "Sent 4" in text
    assert "Delivered 3" in text
    assert "Bounced 1" in text
    assert "Bounced gone@example.com" in text
    assert "Waiting for the first event" not in text


def test_every_location_has_a_row_that_leads_to_its_page(staff: Client, now: datetime) -> None:
    for number, ref in enumerate(("loc-a", "loc-b")):
        send(now, number, location_ref=ref)
    Location.objects.filter(ref="loc-a").update(name="Bright Smile Dental")
    html = page(staff, "/?range=1h")
    assert '<a href="/locations/loc-a/?range=1h">Bright Smile Dental</a>' in html
    assert '<span class="ref">loc-a</span>' in html
    assert '<a href="/locations/loc-b/?range=1h">loc-b</a>' in html


def test_a_location_that_no_address_can_hold_breaks_nothing(staff: Client, now: datetime) -> None:
    send(now, location_ref="a/b")
    assert "<b>a/b</b>" in page(staff, "/?range=1h")


def test_what_servers_and_clients_send_is_escaped(staff: Client, now: datetime) -> None:
    send(
        now,
        outcome=Outcome.BOUNCED,
        kind=EventKind.BOUNCED,
        recipient=HOSTILE,
        campaign=HOSTILE,
        tags=(HOSTILE,),
        detail=Detail(message=HOSTILE, code=550),
    )
    Location.objects.update(name=HOSTILE)
    for path in ("/?range=1h", "/locations/loc/?range=1h", f"/?range=1h&tag={HOSTILE}"):
        html = page(staff, path)
        assert "<script>alert" not in html
        assert "<img src=x" not in html
        assert "&lt;script&gt;" in html


def test_sorting_is_done_here_and_said(staff: Client, now: datetime) -> None:
    send(now, 1, location_ref="few")
    send(now, 2, location_ref="many")
    send(now, 3, location_ref="many")
    for sort, first, last in (("-sent", "many", "few"), ("sent", "few", "many")):
        html = page(staff, f"/?range=1h&sort={sort}")
        body = html[html.index('<tbody id="locations">') :]
        assert body.index(f"/locations/{first}/") < body.index(f"/locations/{last}/")
        assert f'aria-sort="{"de" if first == "many" else "a"}scending"' in html


def test_filters_of_the_address_are_chips_with_a_way_out(staff: Client, now: datetime) -> None:
    send(now, 1, tags=("promo",))
    send(now, 2)
    html = page(staff, "/?range=1h&tag=promo&location=loc")
    assert "Sent 1" in words(html)
    assert 'href="?location=loc&amp;range=1h" aria-label="Remove tag promo"' in html


def test_an_empty_field_of_the_form_is_no_filter(staff: Client) -> None:
    assert 'class="chips"' not in page(staff, "/?location=&tag=&range=1h")


@pytest.mark.parametrize(
    "query", ["range=2h", "tags=x", "from=yesterday", "sort=bogus", "q=x", "code=5"]
)
def test_a_bad_filter_is_a_sentence(staff: Client, query: str) -> None:
    html = page(staff, f"/?{query}", status=400)
    assert "This address cannot be read" in html
    assert re.search(r"<p>[^<]+\.</p>", html)


def test_a_bad_filter_is_escaped(staff: Client) -> None:
    assert "<script>" not in page(staff, "/?range=<script>", status=400)


def test_unknown_and_foreign_are_the_same_404(viewer: Client, now: datetime) -> None:
    send(now, 1, location_ref="theirs", campaign="bulk:1")
    foreign = words(page(viewer, "/locations/theirs/", status=404))
    assert words(page(viewer, "/locations/nowhere/", status=404)) == foreign
    assert page(viewer, "/campaigns/bulk:1/", status=404)
    assert page(viewer, "/?location=theirs", status=404)


def test_nothing_of_others_is_shown(viewer: Client, now: datetime) -> None:
    send(now, 1, tags=("ours",), recipient="ours@example.com")
    send(now, 2, location_ref="theirs", tags=("theirtag",), recipient="theirs@example.com")
    html = page(viewer, "/?range=1h")
    assert "ours@example.com" in html
    assert "Sent 1" in words(html)
    assert not re.search("theirs|theirtag", html)


def test_htmx_gets_every_fragment_of_the_same_address(staff: Client, now: datetime) -> None:
    send(now)
    answer = staff.get("/?range=1h", headers={"HX-Request": "true"})
    html = answer.content.decode()
    assert "<html" not in html
    for region in ("pulse", "totals", "minutes-plot"):
        assert f'id="{region}"' in html
    assert 'hx-swap-oob="rows:#locations"' in html
    assert 'hx-swap-oob="rows:#minutes-rows"' in html
    assert 'hx-swap-oob="feed:#feed"' in html
    assert "HX-Request" in answer["Vary"]
    assert "private" in answer["Cache-Control"]


def test_the_socket_asks_for_what_the_page_shows(staff: Client, now: datetime) -> None:
    send(now, 1, tags=("promo",))
    html = page(staff, "/locations/loc/?tag=promo&range=7d")
    assert (
        'ws-connect="/ws/live/?location=loc&amp;tag=promo&amp;range=7d&amp;view=location"' in html
    )


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: "_".join(path.parts[-3:]))
def test_no_template_holds_what_the_policy_forbids(path: Path) -> None:
    text = path.read_text()
    assert not re.search(r"""\sstyle=|\son[a-z]+=|hx-on|["']js:|javascript:""", text)
    assert not re.search(r"<style|<script(?![^>]*\ssrc=)", text)


def test_what_takes_too_long_is_a_sentence(staff: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: Any) -> None:
        raise TookTooLong

    monkeypatch.setattr("dashboard.feed.newest_feed", stopped)
    html = page(staff, "/?range=1h", status=503)
    assert "This would take too long" in html
    assert "ask for less time" in html
