"""Reviewing in a real Chromium: keys, and a policy that nothing of the admin breaks."""

from typing import Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, StorageState, expect

from tests.browser.pages import send
from tests.serving import Server

CASES = "/admin/dashboard/reviewcase/"
AXE = Axe()
MOON = {"delivery-status": {"code": 550, "message": "the moon is in the wrong house"}}


@pytest.fixture(scope="module")
def cases(server: Server) -> Server:
    """Three complaints, and a refusal that no rule knows."""
    for _ in range(3):
        headers = {"headers": {"message-id": f"complained-{_}@example.com"}}
        for kind in ("delivered", "complained"):
            send(server, kind, recipient=f"r{_}@example.org", message=headers)
    send(server, "failed", severity="permanent", **MOON)
    server.manage("fill_review")
    return server


def test_a_queue_is_gone_through_by_keys(cases: Server, tab: Page) -> None:
    tab.goto(f"{cases.url}{CASES}")
    expect(tab.get_by_role("heading", name="4 to look at, about 3 minutes")).to_be_visible()
    tab.keyboard.press("?")
    expect(tab.get_by_text("ignore until worse").first).to_be_visible()
    tab.keyboard.press("j")
    tab.keyboard.press("j")
    tab.keyboard.press("k")
    tab.keyboard.press("x")
    expect(tab.locator("tr.at .action-select")).to_be_checked()
    tab.keyboard.press("Enter")
    expect(tab.get_by_role("heading", name="The recipient said that it was spam.")).to_be_visible()
    tab.locator("#note").fill("jkeig?")  # keys are words here
    tab.locator("#note").blur()
    tab.keyboard.press("e")
    expect(tab.get_by_text("is resolved.")).to_be_visible()
    expect(tab.get_by_role("heading", name="The recipient said that it was spam.")).to_be_visible()
    tab.keyboard.press("i")
    expect(tab.get_by_text("ignored until it is worse")).to_be_visible()
    tab.keyboard.press("g")
    expect(tab.get_by_role("heading", name="2 to look at, about 1 minute")).to_be_visible()


def test_a_refusal_is_classed_by_keys_and_keys_can_be_turned_off(cases: Server, tab: Page) -> None:
    tab.goto(f"{cases.url}{CASES}?queue__exact=4")
    tab.keyboard.press("j")
    tab.keyboard.press("Enter")
    expect(tab.get_by_role("heading", name="No rule knows this refusal")).to_be_visible()
    tab.keyboard.press("e")  # without a finding it only asks for one
    expect(tab.locator("#finding")).to_be_focused()
    tab.locator("#finding").blur()
    tab.keyboard.press("c")
    expect(tab.get_by_text("re-classes 1 delivery in 1 location")).to_be_visible()
    tab.goto(f"{cases.url}{CASES}?queue__exact=4")
    tab.locator(".keys summary").click()
    tab.get_by_label("No single keys").check()
    tab.locator(".keys summary").focus()
    tab.keyboard.press("j")
    expect(tab.locator("tr.at")).to_have_count(0)
    tab.evaluate("localStorage.clear()")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_reviewing_is_for_everybody(
    cases: Server, browser: Browser, session: StorageState, scheme: Literal["light", "dark"]
) -> None:
    context: BrowserContext = browser.new_context(
        storage_state=session, color_scheme=scheme, viewport={"width": 390, "height": 800}
    )
    tab = context.new_page()
    said: list[str] = []
    tab.on("console", lambda m: said.append(m.text) if m.type == "error" else None)
    tab.goto(f"{cases.url}{CASES}?queue__exact=4")
    for step in ("list", "case", "bulk"):
        # Django's own markup around is Django's: what stands in our sections is ours.
        for part in (".to-do", ".answers", ".samples"):
            if tab.locator(part).count():
                found = AXE.run(tab, context=part).response["violations"]
                assert [(each["id"], step) for each in found] == []
        assert tab.evaluate("document.documentElement.scrollWidth") <= 390
        if step == "list":
            tab.locator("#result_list th a, #result_list .field-what a").first.click()
        elif step == "case":
            tab.get_by_role("link", name="Class all alike…").click()
        tab.wait_for_load_state()
    assert said == []
    context.close()
