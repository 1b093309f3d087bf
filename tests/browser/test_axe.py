"""Every page in both colour schemes: what axe finds, what the console says, what a phone sees."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.urls import URLPattern, get_resolver
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.browser.pages import SECOND, send
from tests.serving import Server

# A page of each kind that is about one thing; the rest are found in the URLconf.
SUBJECTS = {
    "location": "/locations/loc-a/",
    "campaign": "/campaigns/{campaign}/",
    "delivery": "/deliveries/{delivery}/",
    "reason": "/reasons/{reason}/",
    "client link": "/c/{link}/",
}
# What answers with something else than a page, takes POST alone, or is for those with a factor.
OTHERS = re.compile(
    "api-|export|suggest|narrow|healthz|readyz|metrics|favicon|logout|login"
    "|test-event|add-note|save-view|account_(inactive|.*password.*done|set_|change_)|mfa_auth|frame"
    "|^mute$|^suppress$|settle-held|reauthenticate|mfa_(deactivate|view|generate)"
)
REFUSED = ("/nope/", "/?range=2h")  # pages too, in a sentence
AXE = Axe()


def _pages() -> list[str]:
    """Paths of all pages of our own without arguments, and names of those about one thing."""
    found = [
        f"/{path}"
        for name, path in _patterns(get_resolver().url_patterns)
        if "<" not in path and not OTHERS.search(name)
    ]
    return [*found, *SUBJECTS, *REFUSED]


def _patterns(patterns: Any, before: str = "") -> Iterator[tuple[str, str]]:
    for pattern in patterns:
        route = before + str(pattern.pattern)
        if isinstance(pattern, URLPattern):
            yield pattern.name or "", route
        elif pattern.namespace in (None, "dashboard"):
            yield from _patterns(pattern.url_patterns, route)


@pytest.fixture(scope="module")
def subjects(server: Server) -> dict[str, str]:
    """A location with mail that was delivered, refused and complained about; its paths."""
    refused = {"delivery-status": {"code": 550, "message": "5.7.1 blocked by a block list"}}
    campaign = {"id": "bulk-1", "type": "bulk"}
    for kind in ("delivered", "complained", "opened"):
        send(server, kind, tags=["promo"], campaigns=[campaign])
    for _ in range(6):
        send(server, "failed", severity="permanent", **refused)
    ids = server.manage(
        "shell", "-v", "0", "-c",
        "from ingest.models import *; from ingest.vocabulary import Dimension;"
        "campaigns = Value.objects.filter(dimension=Dimension.CAMPAIGN);"
        "from dashboard.models import ClientLink; from datetime import UTC, datetime;"
        "link = ClientLink.objects.create(name='Dr. Bright', expires_at=datetime.max.replace("
        "tzinfo=UTC, year=2200), location=Location.objects.get(ref='loc-a'));"
        "print(link.token, Delivery.objects.latest('id').pk,"
        " getattr(ReasonHour.objects.first(), 'reason_id',"
        " 0), *campaigns.exclude(text__startswith='(').values_list('text', flat=True))",
    )  # fmt: skip
    link, delivery, reason, *campaigns = ids.strip().splitlines()[-1].split()
    names = {"delivery": delivery, "reason": reason, "campaign": (campaigns or [""])[0]}
    names["link"] = link
    return {name: path.format(**names) for name, path in SUBJECTS.items()}


@pytest.mark.parametrize("path", _pages())
def test_no_page_is_closed_to_anybody_or_breaks_the_policy(
    server: Server, subjects: dict[str, str], tab: Page, complaints: list[str], path: str
) -> None:
    path = subjects.get(path, path)
    wrong, status = [], 0
    for scheme in ("light", "dark"):
        tab.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        answer = tab.goto(server.url + path)
        status = answer.status if answer else 0
        if tab.locator("#live").count():
            expect(tab.locator("#live-word")).to_have_text("Live", timeout=10 * SECOND)
        wrong += [
            f"{scheme}: {each['id']}: {node['html'][:160]} {node['failureSummary'][:300]}"
            for each in AXE.run(tab).response["violations"]
            for node in each["nodes"]
        ]
    if status >= 400:  # as it was asked to be
        assert path in REFUSED
        complaints[:] = [text for text in complaints if "status of 40" not in text]
    assert wrong == []


def test_no_page_is_wider_than_a_phone(
    server: Server, subjects: dict[str, str], context: BrowserContext
) -> None:
    page = context.new_page()
    page.set_viewport_size({"width": 360, "height": 800})
    wide = {}
    for path in _pages():
        page.goto(server.url + subjects.get(path, path))
        width = page.evaluate("document.documentElement.scrollWidth")
        if width != 360:
            wide[path] = width
    assert wide == {}


def test_the_login_page_is_closed_to_nobody(server: Server, browser: Browser) -> None:
    page = browser.new_page()
    page.goto(f"{server.url}/login/")
    assert AXE.run(page).response["violations"] == []
    page.close()
