"""The pages in a real Chromium, against a real server: what moves, what it says, what it breaks."""

import re
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, WebSocketRoute, expect

from tests.browser.pages import SECOND, figure, figure_of, number, open_live, send
from tests.serving import Server


def test_somebody_logs_in(server: Server, session: Any, browser: Browser) -> None:
    server.manage(
        "shell", "-v", "0", "-c",
        "from django.contrib.auth.models import User;"
        "User.objects.create_user('bob', password='a-password-of-bob', is_staff=True)",
    )  # fmt: skip
    page = browser.new_page()
    page.goto(f"{server.url}/login/")
    page.fill("[name=username]", "bob")
    page.fill("[name=password]", "a-password-of-bob")
    page.click("main button")
    expect(page.locator("#totals")).to_be_visible()
    page.close()


def test_the_policy_is_there(server: Server, tab: Page) -> None:
    answer = tab.goto(server.url)
    assert answer is not None
    assert "script-src 'self'" in answer.headers["content-security-policy"]


def test_a_webhook_moves_the_page(server: Server, tab: Page) -> None:
    open_live(tab, server.url)
    before, sent = figure(tab, "Delivered"), figure(tab, "Sent")
    recipient = send(server)
    row = tab.locator("#locations tr", has_text="loc-a")
    here = row.locator("td[data-label=Sent]")
    expect(here).to_have_text(str(sent + 1))
    expect(tab.locator("#feed")).to_contain_text(recipient)
    expect(figure_of(tab, "Delivered")).to_have_text(str(before + 1))
    # It counts in the last minute, or, when that has just begun, in the one before.
    minutes = tab.locator("#minutes-rows tr:nth-last-child(-n + 2) td:nth-child(2)")
    expect(minutes.filter(has_text=re.compile("^[1-9]"))).not_to_have_count(0)


def test_a_new_location_gets_a_row(server: Server, tab: Page) -> None:
    open_live(tab, server.url)
    ref = f"loc-{number()}"
    send(server, location=ref)
    row = tab.locator("#locations tr", has_text=ref)
    expect(row).to_be_visible(timeout=5 * SECOND)
    row.locator("th a").click()
    expect(tab.locator("h1")).to_have_text(ref)


def test_a_filtered_page_moves_for_its_own_mail_only(server: Server, tab: Page) -> None:
    open_live(tab, f"{server.url}/?location=loc-a")
    before = figure(tab, "Delivered")
    other = send(server, location="loc-b")
    own = send(server, location="loc-a")
    expect(tab.locator("#feed")).to_contain_text(own, timeout=5 * SECOND)
    expect(tab.locator("#feed")).not_to_contain_text(other)
    expect(figure_of(tab, "Delivered")).to_have_text(str(before + 1))


def test_hostile_words_stay_words(server: Server, tab: Page) -> None:
    open_live(tab, server.url)
    send(
        server,
        "failed",
        severity="permanent",
        **{"delivery-status": {"code": 550, "message": "<img src=x onerror=alert(1)>"}},
    )
    said = tab.locator("#feed .said", has_text="<img src=x").first
    expect(said).to_be_visible(timeout=5 * SECOND)
    assert tab.locator("#feed img").count() == 0


def test_a_paused_feed_waits_and_says_what_for(server: Server, tab: Page) -> None:
    open_live(tab, server.url)
    tab.keyboard.press("p")
    expect(tab.locator("#feed-state")).to_have_text("Paused")
    recipient = send(server, "failed", severity="permanent")
    pill = tab.locator("#feed-new")
    expect(pill).to_have_text("1 new, 1 bounce", timeout=5 * SECOND)
    expect(pill).to_have_class("pill bounced")
    for _ in range(2):
        send(server, "complained")
    expect(pill).to_have_text("3 new, 2 complaints", timeout=5 * SECOND)
    expect(pill).to_have_class("pill complained")
    expect(tab.locator("#feed")).not_to_contain_text(recipient)
    tab.click("#feed-new")
    expect(tab.locator("#feed")).to_contain_text(recipient)
    expect(tab.locator("#feed-state")).to_have_text("Paused: pointer here")
    tab.mouse.move(0, 0)
    expect(tab.locator("#feed-state")).to_have_text("")
    expect(pill).to_be_hidden()


def test_reading_a_row_pauses_the_feed(server: Server, tab: Page) -> None:
    long = "5.1.1 there is nobody of that name here " * 10
    send(server, "failed", severity="permanent", **{"delivery-status": {"message": long}})
    open_live(tab, server.url)
    state, row = tab.locator("#feed-state"), tab.locator("#feed li:has(details)").first
    row.locator("summary").click()
    expect(state).to_have_text("Paused: row open")
    expect(row.locator(".whole")).to_contain_text(long.strip())
    row.locator("details").evaluate("(node) => { node.open = false; node.blur(); }")
    tab.mouse.move(0, 0)
    row.locator("summary").evaluate("(node) => node.blur()")
    expect(state).to_have_text("")
    to = tab.locator("#feed .to").first
    to.evaluate("(node) => getSelection().selectAllChildren(node)")
    expect(state).to_have_text("Paused: text selected")
    recipient = send(server)
    expect(tab.locator("#feed-new")).to_have_text("1 new", timeout=5 * SECOND)
    tab.evaluate("getSelection().empty()")
    expect(tab.locator("#feed li").first).to_contain_text(recipient)


def test_a_hidden_tab_pauses_the_feed(server: Server, tab: Page) -> None:
    open_live(tab, server.url)
    hide = """(hidden) => {
        Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
        document.dispatchEvent(new Event("visibilitychange"));
    }"""
    tab.evaluate(hide, True)
    expect(tab.locator("#feed-state")).to_have_text("Paused: tab hidden")
    recipient = send(server)
    expect(tab.locator("#feed-new")).to_have_text("1 new", timeout=5 * SECOND)
    tab.evaluate(hide, False)
    expect(tab.locator("#feed")).to_contain_text(recipient)


def test_a_field_in_use_is_not_touched(server: Server, tab: Page) -> None:
    """A region is patched in place; one with a control in use waits until that is left."""
    open_live(tab, server.url)
    tab.locator("#totals").evaluate(
        """(totals) => {
            totals.firstElementChild.append(document.createElement("input"));
            totals.querySelector("input").focus();
        }"""
    )
    field, before = tab.locator("#totals input"), figure(tab, "Delivered")
    beside = tab.locator("#locations tr", has_text="loc-a").locator("td[data-label=Sent]")
    sent = int(beside.inner_text())
    tab.keyboard.type("half a w")
    send(server)
    expect(beside).to_have_text(str(sent + 1))
    expect(field).to_be_focused()
    expect(field).to_have_value("half a w")
    assert figure(tab, "Delivered") == before
    tab.keyboard.press("Escape")
    expect(field).to_have_count(0)
    expect(figure_of(tab, "Delivered")).to_have_text(str(before + 1))


def test_nothing_jumps_when_numbers_move(server: Server, tab: Page) -> None:
    tab.add_init_script(
        """window.shifts = [];
        new PerformanceObserver((list) => {
          for (const { sources, startTime } of list.getEntries())
            for (const { node } of sources)
              if (!node?.parentElement?.closest("#feed"))
                shifts.push([startTime, node?.nodeName, node?.id, node?.className]);
        }).observe({ type: "layout-shift", buffered: true });"""
    )
    open_live(tab, server.url)
    before = figure(tab, "Delivered")
    tab.evaluate("shifts.length = 0")
    for _ in range(3):
        send(server)
    expect(tab.locator("#totals")).to_contain_text(f"{before + 3}", timeout=5 * SECOND)
    assert tab.evaluate("shifts") == []


def test_the_feed_shows_failures_or_all(server: Server, tab: Page) -> None:
    open_live(tab, server.url)
    expect(tab.get_by_label("Failures only")).to_be_checked()
    good, bad = send(server), send(server, "failed", severity="permanent")
    expect(tab.locator("#feed li", has_text=bad)).to_be_visible(timeout=5 * SECOND)
    expect(tab.locator("#feed li", has_text=good)).to_be_hidden()
    tab.get_by_label("Failures only").uncheck()
    expect(tab.locator("#feed li", has_text=good)).to_be_visible()


def test_open_disclosures_and_focus_survive_a_frame(server: Server, tab: Page) -> None:
    open_live(tab, server.url)
    tab.locator(".minutes summary").click()
    tab.mouse.move(0, 0)  # where the focus takes the page, the feed may come to lie under it
    link = tab.locator("#locations tr", has_text="loc-a").locator("th a")
    link.focus()
    recipient = send(server)
    expect(tab.locator("#feed")).to_contain_text(recipient, timeout=5 * SECOND)
    expect(tab.locator("#minutes-rows")).to_be_visible()
    expect(link).to_be_focused()


def test_a_lost_connection_is_said_polled_and_caught_up(
    server: Server, tab: Page, complaints: list[str]
) -> None:
    way = Unreliable()
    tab.route_web_socket(re.compile("/ws/live/"), way)
    open_live(tab, server.url)
    way.cut()
    word = tab.locator("#live-word")
    lost = re.compile(r"Live updates lost, retrying \(\d s\)")
    expect(word).to_have_text(lost, timeout=6 * SECOND)
    expect(tab.locator("#summary")).to_have_text("Live updates lost, retrying")
    assert tab.locator("html").get_attribute("data-live") == "lost"
    expect(tab.locator("main > :has(#totals)")).to_have_css("opacity", "0.62")
    recipient = send(server)
    send(server, location="loc-b")
    expect(tab.locator("#feed")).to_contain_text(recipient, timeout=15 * SECOND)
    way.mend()
    expect(word).to_have_text("Caught up 2 events", timeout=20 * SECOND)
    expect(word).to_have_text("Live", timeout=6 * SECOND)
    complaints.clear()  # the browser's own words about sockets that fail


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
    page.locator("summary", has_text="Filter").click()
    page.select_option("select[name=name]", "location")
    page.fill("[name=value]", "loc-b")
    page.get_by_role("button", name="Add").click()
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
