"""The pages of refusals in a real Chromium: they move, keep to the policy, and copy the ticket."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, StorageState, expect

from tests.browser.pages import SECOND, open_live, send
from tests.serving import Server

REPLY = {"code": 550, "enhanced-code": "5.7.1", "message": "blocked <img src=x> by our list"}


@pytest.fixture
def context(browser: Browser, session: StorageState) -> Iterator[BrowserContext]:
    """The browser of somebody who may use the clipboard."""
    context = browser.new_context(
        storage_state=session, permissions=["clipboard-read", "clipboard-write"]
    )
    yield context
    context.close()


def refuse(server: Server) -> None:
    send(server, "failed", severity="permanent", **{"delivery-status": REPLY})


def test_a_refusal_moves_the_list_and_its_ticket_can_be_copied(server: Server, tab: Page) -> None:
    refuse(server)
    open_live(tab, f"{server.url}/reasons/")
    row = tab.locator("#reasons-rows tr", has_text="by our list")
    count = row.locator("td.count > a")
    before = int(count.inner_text())
    refuse(server)
    expect(count).to_have_text(str(before + 1), timeout=10 * SECOND)
    assert tab.locator("#reasons-rows img").count() == 0
    row.locator("a.means").click()
    expect(tab.locator("#standing")).to_contain_text("Refusals")
    tab.get_by_role("button", name="Copy for the postmaster ticket").click()
    expect(tab.locator("#replies .button")).to_have_text("Copied")
    copied = tab.evaluate("navigator.clipboard.readText()")
    assert "blocked <img src=x> by our list" in copied
    assert copied == tab.locator("#replies textarea").input_value()
