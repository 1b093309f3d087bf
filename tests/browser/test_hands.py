"""Keyboard and pointer in a real Chromium: rows, ranges, help, colours, charts."""

import re

import pytest
from playwright.sync_api import Browser, Page, StorageState, expect

from tests.browser.pages import SECOND, open_live, send
from tests.serving import Server


def test_keys_find_help_and_search(server: Server, tab: Page) -> None:
    tab.goto(server.url)
    tab.keyboard.press("?")
    help = tab.get_by_role("dialog", name="Keyboard")
    expect(help).to_be_visible()
    tab.keyboard.press("j")  # means nothing under the sheet
    tab.keyboard.press("Escape")
    expect(help).to_be_hidden()
    tab.keyboard.press("/")
    expect(tab.locator("#search")).to_be_focused()
    tab.keyboard.type("jkpdwm?/")
    expect(tab.locator("#search")).to_have_value("jkpdwm?/")
    tab.keyboard.press("Escape")
    expect(tab.locator("#search")).not_to_be_focused()


def test_keys_walk_the_rows_of_any_page(server: Server, tab: Page) -> None:
    send(server, location="loc-b")
    tab.goto(f"{server.url}/?find=loc")
    for _ in range(12):
        tab.keyboard.press("j")
        if tab.evaluate("document.activeElement.closest('#locations') !== null"):
            break
    first = tab.locator("#locations tr").nth(0).locator("a").first
    second = tab.locator("#locations tr").nth(1).locator("a").first
    expect(first).to_be_focused()
    tab.keyboard.press("j")
    expect(second).to_be_focused()
    tab.keyboard.press("k")
    name = first.inner_text()
    expect(first).to_be_focused()
    tab.keyboard.press("Enter")
    expect(tab.locator("h1")).to_have_text(name)


@pytest.mark.parametrize(("key", "range"), [("d", "24h"), ("w", "7d"), ("m", "30d")])
def test_keys_choose_the_range(server: Server, tab: Page, key: str, range: str) -> None:
    tab.goto(f"{server.url}/?tag=promo&from=2026-01-01T00:00&to=2026-01-02T00:00")
    tab.keyboard.press(key)
    expect(tab).to_have_url(re.compile(rf"\?tag=promo&(tz=[^&]*&)?range={range}"))


def test_the_colours_are_chosen_and_stay(
    server: Server, browser: Browser, session: StorageState
) -> None:
    context = browser.new_context(storage_state=session, color_scheme="light")
    page = context.new_page()
    page.goto(server.url)
    dark = "getComputedStyle(document.body).backgroundColor === 'rgb(17, 19, 22)'"
    button = page.locator("#scheme")
    expect(button).to_have_text("Colours: system")
    button.click()
    button.click()
    expect(button).to_have_text("Colours: dark")
    assert page.evaluate(dark)
    # Painted so by the server: without a script it is dark at once.
    plain = browser.new_context(storage_state=context.storage_state(), java_script_enabled=False)
    again = plain.new_page()
    again.goto(f"{server.url}/status/")
    assert again.locator("html").get_attribute("data-scheme") == "dark"
    page.goto(server.url)
    assert page.evaluate(dark)
    button.click()
    expect(button).to_have_text("Colours: system")
    assert not page.evaluate(dark)
    plain.close()
    context.close()


def test_a_chart_is_read_by_pointer_and_arrows(server: Server, tab: Page) -> None:
    tab.goto(server.url)
    figure, read = tab.locator("figure.chart"), tab.locator(".chart-read")
    last = tab.locator("#minutes-rows tr").last.locator("td")
    figure.focus()
    tab.keyboard.press("ArrowLeft")
    told = re.compile(r"\d\d:\d\d: \d+ delivered, \d+ deferred, \d+ bounced, \d+ complained")
    expect(read).to_have_text(told)
    at = read.inner_text()
    assert at.startswith(last.nth(0).text_content() or "?")
    tab.keyboard.press("ArrowLeft")
    expect(read).not_to_have_text(at)
    tab.keyboard.press("Escape")
    expect(read).to_be_hidden()
    figure.locator("svg.bars").first.hover()
    expect(read).to_have_text(told)
    tab.mouse.move(0, 0)
    expect(read).to_be_hidden()


def test_dragging_over_a_chart_zooms(server: Server, tab: Page) -> None:
    tab.goto(f"{server.url}/?tag=promo")
    start = tab.locator("#minutes-plot").get_attribute("data-from") or ""
    plot = tab.locator("figure.chart svg.bars").first
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    assert box is not None
    minute, y = box["width"] / 60, box["y"] + 20
    tab.mouse.move(box["x"] + 10.5 * minute, y)
    tab.mouse.down()
    tab.mouse.move(box["x"] + 19.5 * minute, y)
    tab.mouse.up()
    expect(tab).to_have_url(re.compile("[?&]from="))
    span = "Date.parse(new URL(location).searchParams.get('{}')) - Date.parse('{}')"
    assert tab.evaluate(span.format("from", start)) == 10 * 60 * SECOND
    assert tab.evaluate(span.format("to", start)) == 20 * 60 * SECOND
    expect(tab.locator(".chip")).to_contain_text("promo")


def test_what_is_new_is_summed_up_for_those_who_listen(server: Server, tab: Page) -> None:
    tab.clock.install()
    open_live(tab, server.url)
    assert tab.locator("#feed[aria-live], #feed [aria-live], #totals[aria-live]").count() == 0
    recipients = [send(server, kind) for kind in ("delivered", "complained")]
    for recipient in recipients:
        expect(tab.locator("#feed")).to_contain_text(recipient, timeout=5 * SECOND)
    tab.clock.fast_forward(10 * SECOND)
    expect(tab.locator("#summary")).to_have_text("New: 2 events, 1 complaint")


def test_paper_has_the_numbers_and_nothing_to_click(server: Server, tab: Page) -> None:
    tab.goto(server.url)
    tab.emulate_media(media="print")
    expect(tab.locator("#totals")).to_be_visible()
    expect(tab.locator("#locations")).to_be_visible()
    for gone in (".top nav", "#search", "#hands", "main button >> nth=0", ".feed-card"):
        expect(tab.locator(gone)).to_be_hidden()


def test_who_wants_calm_gets_no_motion(
    server: Server, browser: Browser, session: StorageState
) -> None:
    context = browser.new_context(storage_state=session, reduced_motion="reduce")
    page = context.new_page()
    open_live(page, server.url)
    recipient = send(server)
    expect(page.locator("#feed")).to_contain_text(recipient, timeout=5 * SECOND)
    assert page.evaluate("document.getAnimations().length") == 0
    context.close()
