"""The pages in a real Chromium, against a real server: what moves, what it says, what it breaks."""

import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, WebSocketRoute, expect

from tests.serving import Server, running

SECOND = 1_000
_count = iter(range(10**9))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running("daphne", "sqlite", tmp_path_factory.mktemp("pages")) as server:
        server.manage(
            "shell", "-v", "0", "-c",
            "from django.contrib.auth.models import User;"
            "User.objects.create_superuser('anna', password='a-password-of-anna')",
        )  # fmt: skip
        for kind in ("accepted", "delivered"):
            send(server, kind, location="loc-a", tags=["promo"])
        yield server


def send(server: Server, event: str = "delivered", **changes: Any) -> str:
    """Send a webhook of its own mail; returns the recipient."""
    number = next(_count)
    recipient: str = changes.pop("recipient", f"jane{number}@example.org")
    payload = {
        "event": event,
        "id": f"event-{number}",
        "timestamp": time.time(),
        "message": {"headers": {"message-id": f"m{number}@example.com"}},
        "recipient": recipient,
        "tags": changes.pop("tags", []),
    }
    location = changes.pop("location", "loc-a")
    body = {"type": "LCEmailStats", "locationId": location, "webhookPayload": payload | changes}
    assert server.post(body).json() == {"status": "stored"}
    return recipient


@pytest.fixture(scope="module")
def session(server: Server, browser: Browser) -> Any:
    """The cookies of somebody who is logged in."""
    page = browser.new_page()
    page.goto(f"{server.url}/login/")
    page.fill("[name=username]", "anna")
    page.fill("[name=password]", "a-password-of-anna")
    page.click("main button")
    expect(page.locator("#totals")).to_be_visible()
    state = page.context.storage_state()
    page.context.close()
    return state


@pytest.fixture
def tab(browser: Browser, session: Any) -> Iterator[Page]:
    """A page of somebody who is logged in. Whatever its console complains of fails the test."""
    context = browser.new_context(storage_state=session)
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda m: complaints.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.complaints = complaints  # type: ignore[attr-defined]
    yield page
    context.close()


def open_live(page: Page, url: str) -> None:
    page.goto(url)
    expect(page.locator("#live-word")).to_have_text("Live", timeout=5 * SECOND)


def figure(page: Page, name: str) -> int:
    text = page.locator("#totals > div", has=page.get_by_text(name, exact=True))
    return int(text.locator(".figure").inner_text().replace(",", ""))


@pytest.mark.parametrize("path", ["/", "/locations/loc-a/", "/?tag=promo", "/?range=2h", "/nope/"])
def test_no_page_breaks_the_content_security_policy(server: Server, tab: Page, path: str) -> None:
    tab.goto(server.url + path)
    if tab.locator("#live").count():
        expect(tab.locator("#live-word")).to_have_text("Live", timeout=5 * SECOND)
        send(server, "failed", severity="permanent", **{"delivery-status": {"code": 550}})
        tab.wait_for_timeout(700)
    wrong = [text for text in tab.complaints if "status of 40" not in text]  # type: ignore[attr-defined]
    assert wrong == []


def test_the_policy_is_there(server: Server, tab: Page) -> None:
    answer = tab.goto(server.url)
    assert answer is not None
    assert "script-src 'self'" in answer.headers["content-security-policy"]


def test_a_webhook_moves_the_page_within_a_second(server: Server, tab: Page) -> None:
    open_live(tab, server.url)
    before = figure(tab, "Delivered")
    recipient = send(server)
    row = tab.locator("#locations tr", has_text="loc-a")
    here = row.locator("td[data-label=Delivered]")
    expect(here).to_have_text(str(before + 1), timeout=1 * SECOND)
    expect(tab.locator("#feed")).to_contain_text(recipient, timeout=0.5 * SECOND)
    assert figure(tab, "Delivered") == before + 1
    assert int(tab.locator("#minutes-rows tr").last.locator("td").nth(1).text_content() or 0) > 0


def test_a_new_location_gets_a_row(server: Server, tab: Page) -> None:
    open_live(tab, server.url)
    ref = f"loc-{next(_count)}"
    send(server, location=ref)
    row = tab.locator("#locations tr", has_text=ref)
    expect(row).to_be_visible(timeout=2 * SECOND)
    row.locator("a").click()
    expect(tab.locator("h1")).to_have_text(ref)


def test_a_filtered_page_moves_for_its_own_mail_only(server: Server, tab: Page) -> None:
    open_live(tab, f"{server.url}/?location=loc-a")
    before = figure(tab, "Delivered")
    other = send(server, location="loc-b")
    own = send(server, location="loc-a")
    expect(tab.locator("#feed")).to_contain_text(own, timeout=2 * SECOND)
    expect(tab.locator("#feed")).not_to_contain_text(other)
    assert figure(tab, "Delivered") == before + 1


def test_hostile_words_stay_words(server: Server, tab: Page) -> None:
    open_live(tab, server.url)
    send(
        server,
        "failed",
        severity="permanent",
        **{"delivery-status": {"code": 550, "message": "<img src=x onerror=alert(1)>"}},
    )
    said = tab.locator("#feed .said", has_text="<img src=x").first
    expect(said).to_be_visible(timeout=2 * SECOND)
    assert tab.locator("#feed img").count() == 0


def test_a_paused_feed_waits_and_says_what_for(server: Server, tab: Page) -> None:
    open_live(tab, server.url)
    tab.keyboard.press("p")
    expect(tab.locator("#feed-state")).to_have_text("Paused")
    recipient = send(server, "failed", severity="permanent")
    expect(tab.locator("#feed-new")).to_have_text("1 new · 1 bounced", timeout=2 * SECOND)
    expect(tab.locator("#feed")).not_to_contain_text(recipient)
    tab.click("#feed-new")
    expect(tab.locator("#feed li").first).to_contain_text(recipient)
    expect(tab.locator("#feed-state")).to_have_text("Paused: pointer here")
    tab.mouse.move(0, 0)
    expect(tab.locator("#feed-state")).to_have_text("")
    expect(tab.locator("#feed-new")).to_be_hidden()


def test_the_feed_can_show_failures_only(server: Server, tab: Page) -> None:
    open_live(tab, server.url)
    tab.get_by_label("Failures only").check()
    good, bad = send(server), send(server, "failed", severity="permanent")
    expect(tab.locator("#feed li", has_text=bad)).to_be_visible(timeout=2 * SECOND)
    expect(tab.locator("#feed li", has_text=good)).to_be_hidden()


def test_open_disclosures_and_focus_survive_a_frame(server: Server, tab: Page) -> None:
    open_live(tab, server.url)
    tab.locator("summary").click()
    link = tab.locator("#locations tr", has_text="loc-a").locator("a")
    link.focus()
    recipient = send(server)
    expect(tab.locator("#feed")).to_contain_text(recipient, timeout=2 * SECOND)
    expect(tab.locator("#minutes-rows")).to_be_visible()
    expect(link).to_be_focused()


def test_a_lost_connection_is_said_polled_and_caught_up(server: Server, tab: Page) -> None:
    way = Unreliable()
    tab.route_web_socket(re.compile("/ws/live/"), way)
    open_live(tab, server.url)
    way.cut()
    expect(tab.locator("#live-word")).to_contain_text("Live updates lost, retrying", timeout=3_500)
    assert tab.locator("html").get_attribute("data-live") == "lost"
    recipient = send(server)
    expect(tab.locator("#feed")).to_contain_text(recipient, timeout=12 * SECOND)
    way.mend()
    expect(tab.locator("#live-word")).to_have_text("Caught up", timeout=20 * SECOND)
    expect(tab.locator("#live-word")).to_have_text("Live", timeout=6 * SECOND)


class Unreliable:
    """A way to the server that can be cut, and mended."""

    def __init__(self) -> None:
        self._works = True
        self._open: list[WebSocketRoute] = []

    def __call__(self, socket: WebSocketRoute) -> None:
        if not self._works:
            socket.close(code=1011)
            return
        socket.connect_to_server()
        self._open.append(socket)

    def cut(self) -> None:
        """Close what is open, and whatever comes."""
        self._works = False
        for socket in self._open:
            socket.close(code=1011)
        self._open.clear()

    def mend(self) -> None:
        """Let the next through."""
        self._works = True


def test_without_scripts_the_filters_work(server: Server, browser: Browser, session: Any) -> None:
    context = browser.new_context(storage_state=session, java_script_enabled=False)
    page = context.new_page()
    page.goto(server.url)
    page.fill("[name=location]", "loc-b")
    page.get_by_role("button", name="Filter").click()
    assert re.search(r"[?&]location=loc-b", page.url)
    expect(page.locator(".chip")).to_contain_text("loc-b")
    expect(page.locator("#live-word")).to_contain_text("As of")
    page.get_by_role("link", name="Remove location loc-b").click()
    assert page.locator(".chip").count() == 0
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_scrolls_one_way_only(
    server: Server, browser: Browser, session: Any, scheme: Any
) -> None:
    context = browser.new_context(
        storage_state=session, viewport={"width": 390, "height": 844}, color_scheme=scheme
    )
    page = context.new_page()
    for path in ("/", "/locations/loc-a/"):
        page.goto(server.url + path)
        assert page.evaluate("document.documentElement.scrollWidth") == 390
    context.close()
