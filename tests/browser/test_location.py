"""A location's page in a real Chromium: its regions move, its tabs and tables stay open."""

import re

import pytest
from playwright.sync_api import Page, expect

from tests.browser.pages import SECOND, open_live, send
from tests.serving import Server


def test_a_webhook_moves_the_funnel(server: Server, tab: Page) -> None:
    send(server, location="loc-moves")
    open_live(tab, f"{server.url}/locations/loc-moves/")
    expect(tab.locator("#funnel .whole dd")).to_have_text("1")
    send(server, location="loc-moves")
    expect(tab.locator("#funnel .whole dd")).to_have_text("2", timeout=6 * SECOND)


def test_a_tab_and_a_table_stay_open_while_numbers_move(server: Server, tab: Page) -> None:
    send(server, location="loc-tabs", tags=["promo"])
    open_live(tab, f"{server.url}/locations/loc-tabs/")
    tab.get_by_role("link", name="Tags", exact=True).click()
    expect(tab).to_have_url(re.compile("by=tag"))
    expect(tab.locator("#breakdown-rows")).to_contain_text("promo")
    tab.locator("#timeline summary").click()
    send(server, location="loc-tabs", tags=["promo"])
    expect(tab.locator("#funnel .whole dd")).to_have_text("2", timeout=6 * SECOND)
    expect(tab.locator("#timeline table")).to_be_visible()
    expect(tab.locator("#breakdown-rows")).to_contain_text("promo")
    tab.go_back()
    expect(tab.locator("#breakdown-title")).to_have_text("Campaigns and workflows")


@pytest.mark.parametrize("width", [360, 1360])
def test_it_fits_the_screen(server: Server, tab: Page, width: int) -> None:
    tab.set_viewport_size({"width": width, "height": 900})
    tab.goto(f"{server.url}/locations/loc-a/")
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
