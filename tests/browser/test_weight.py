"""What a page weighs: the overview with all that it loads, as it goes over the wire."""

import gzip
import re

import httpx
from playwright.sync_api import StorageState

from tests.browser.pages import send
from tests.serving import ROOT, TLS, Server

ALL_COMPRESSED, ALL_SCRIPTS, OWN_SCRIPTS = 150_000, 100_000, 25_000  # bytes
FILE = re.compile(r'(?:src|href)="(/static/[^"]+\.(?:js|css|svg))"')


def test_the_overview_is_light(server: Server, session: StorageState) -> None:
    for number in range(60):  # more locations than a page of the list shows
        send(server, location=f"a-location-of-{number}")
    cookies = {cookie["name"]: cookie["value"] for cookie in session["cookies"]}
    with httpx.Client(base_url=server.url, cookies=cookies, verify=TLS) as client:
        page = client.get("/").text
        files = {path: client.get(path).content for path in set(FILE.findall(page))}
    assert "/static/css/app" in " ".join(files)
    whole = [page.encode(), *files.values()]
    assert sum(len(gzip.compress(part)) for part in whole) < ALL_COMPRESSED
    assert sum(len(code) for path, code in files.items() if path.endswith(".js")) < ALL_SCRIPTS
    ours = (ROOT / "static/js").glob("*.js")  # those of other pages too
    assert sum(path.stat().st_size for path in ours) < OWN_SCRIPTS
