"""The filter bar in a real Chromium: keys, suggestions, the reader's own zone, a phone."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, StorageState, expect

from tests.browser.pages import send
from tests.serving import Server


@pytest.fixture
def context(browser: Browser, session: StorageState) -> Iterator[BrowserContext]:
    """The browser of somebody in Chicago."""
    context = browser.new_context(storage_state=session, timezone_id="America/Chicago")
    yield context
    context.close()


def test_a_filter_is_added_and_removed_by_keys_alone(server: Server, tab: Page) -> None:
    send(server, tags=["newsletter"])
    tab.goto(f"{server.url}/?range=7d")
    tab.locator(".adding > summary").focus()
    tab.keyboard.press("Enter")
    tab.get_by_label("Filter by").select_option("tag")
    field = tab.get_by_role("combobox", name="Value")
    field.focus()
    tab.keyboard.type("NEWS")
    option = tab.get_by_role("option", name="newsletter")
    expect(option).to_be_visible()
    expect(field).to_have_attribute("aria-expanded", "true")
    tab.keyboard.press("ArrowDown")
    expect(option).to_have_attribute("aria-selected", "true")
    expect(field).to_have_attribute("aria-activedescendant", "value-0")
    tab.keyboard.press("Enter")
    expect(tab).to_have_url(re.compile(r"\?tag=newsletter&range=7d$"))
    expect(tab.locator(".chip")).to_have_text(re.compile("tag newsletter"))
    tab.get_by_role("link", name="Remove tag newsletter").press("Enter")
    expect(tab).to_have_url(re.compile(r"\?range=7d$"))
    tab.go_back()
    expect(tab.locator(".chip")).to_have_count(1)


def test_escape_closes_one_thing_at_a_time(server: Server, tab: Page) -> None:
    tab.goto(server.url)
    tab.locator(".adding > summary").click()
    tab.get_by_label("Value", exact=True).focus()
    values = tab.get_by_role("listbox", name="Values")
    expect(values).to_be_visible()
    tab.keyboard.press("Escape")
    expect(values).to_be_hidden()
    expect(tab.locator(".adding")).to_have_attribute("open", "")
    tab.keyboard.press("Escape")
    expect(tab.locator(".adding > summary")).to_be_focused()
    expect(tab.locator(".adding")).not_to_have_attribute("open", "")


def test_the_zone_chosen_is_remembered_and_then_named(server: Server, tab: Page) -> None:
    tab.goto(server.url)
    expect(tab.locator(".when > summary")).to_contain_text("by send time, UTC")
    tab.locator(".when > summary").click()
    tab.get_by_role("link", name="Yours: America/Chicago").click()
    expect(tab).to_have_url(re.compile("tz=America(/|%2F)Chicago"))
    expect(tab.locator(".when > summary")).to_contain_text("America/Chicago")
    tab.goto(server.url)
    expect(tab.locator(".when > summary")).to_contain_text("America/Chicago")
    expect(tab).to_have_url(re.compile("tz=America/Chicago"))
    tab.goto(f"{server.url}/?tz=UTC")
    expect(tab.locator(".when > summary")).to_contain_text("by send time, UTC")


def test_a_slash_goes_to_the_search(server: Server, tab: Page) -> None:
    tab.goto(server.url)
    tab.keyboard.press("/")
    expect(tab.locator("#search")).to_be_focused()


def test_on_a_phone_it_is_one_line_that_stays(server: Server, tab: Page) -> None:
    tab.set_viewport_size({"width": 390, "height": 700})
    tab.goto(f"{server.url}/?tag=promo&outcome=-bounced&range=24h")
    bar = tab.locator(".filters")
    expect(bar.get_by_text("Filter (2)")).to_be_visible()
    expect(tab.locator(".chips")).to_be_hidden()
    box = bar.bounding_box()
    assert box is not None
    assert box["height"] < 60
    tab.evaluate("scrollTo(0, 2_000)")
    box = bar.bounding_box()
    assert box is not None
    assert box["y"] == 0
    bar.get_by_text("Filter (2)").click()
    expect(tab.locator(".chip")).to_have_count(2)
    expect(tab.locator(".chips")).to_be_visible()
    assert tab.evaluate("document.documentElement.scrollWidth") == 390
