"""The list of deliveries and its pages in a real Chromium: keys, clicks, and what is newer."""

import csv
import io
import re
from pathlib import Path

from playwright.sync_api import Page, expect

from tests.browser.pages import SECOND, open_live, send
from tests.serving import Server


def test_the_list_is_walked_and_a_delivery_opened_by_keys(server: Server, tab: Page) -> None:
    older, newer = (send(server, tags=["keys"]) for _ in range(2))
    tab.goto(f"{server.url}/deliveries/?tag=keys")
    tab.keyboard.press("j")
    expect(tab.get_by_role("link", name=newer)).to_be_focused()
    tab.keyboard.press("Enter")
    expect(tab.locator("h1")).to_have_text(newer)
    tab.keyboard.press("j")
    expect(tab.locator("h1")).to_have_text(older)
    tab.keyboard.press("k")
    expect(tab.locator("h1")).to_have_text(newer)


def test_a_click_on_a_row_opens_it_and_its_payload_can_be_read(server: Server, tab: Page) -> None:
    recipient = send(server, tags=["click"])
    tab.goto(f"{server.url}/deliveries/?tag=click")
    tab.locator("tbody .when").click()
    expect(tab.locator("h1")).to_have_text(recipient)
    tab.locator("summary", has_text="Raw payload").click()
    expect(tab.locator(".payload")).to_contain_text('"LCEmailStats"')


def test_the_list_stays_and_says_what_is_newer(server: Server, tab: Page) -> None:
    send(server, tags=["newer"])
    open_live(tab, f"{server.url}/deliveries/?tag=newer")
    expect(tab.locator("#newer")).to_have_text("Nothing newer")
    recipient = send(server, tags=["newer"])
    send(server, tags=["other"])
    expect(tab.locator("#newer")).to_have_text("1 newer: show", timeout=14 * SECOND)
    expect(tab.locator("a.open")).to_have_count(1)
    tab.locator("#newer a").click()
    expect(tab.locator("a.open").first).to_have_text(recipient)


def test_what_is_listed_is_downloaded(server: Server, tab: Page) -> None:
    recipients = [send(server, tags=["file"]) for _ in range(3)]
    tab.goto(f"{server.url}/deliveries/?tag=file")
    with tab.expect_download() as download:
        tab.get_by_role("link", name="CSV").click()
    assert re.fullmatch(r"deliveries-\d{8}-\d{6}\.csv", download.value.suggested_filename)
    text = Path(download.value.path()).read_text(encoding="utf-8-sig")
    found = [row["recipient"] for row in csv.DictReader(io.StringIO(text))]
    assert found == recipients[::-1]
