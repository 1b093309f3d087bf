"""``make screenshots``: the main pages with demo mail, light and dark, wide and narrow, as PNGs.

python -m tests.screenshots [--docs]: with it, those that the README shows are made anew as well
"""

import base64
import contextlib
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path

from playwright.sync_api import Page, expect, sync_playwright

from ingest.management.commands.send_demo_events import make_key, public_half
from tests.browser.pages import session_of
from tests.serving import CHROMIUM_FLAGS, ROOT, Server, find_chromium, running

FOLDER, DOCS = ROOT / "var" / "screenshots", ROOT / "docs"
SHOWN = ("overview-wide-light", "location-wide-dark")
HISTORY = "26"  # hours of demo mail
FEW = 5  # events of the last seconds, by which the past has been sent
LONGEST = 300.0  # seconds that it may take
WIDTHS = {"wide": 1360, "narrow": 390}
SCHEMES = ("light", "dark")


def main(folder: Path, *, docs: bool) -> None:
    """Serve demo mail, and write the pictures into the folder; some also for the README."""
    folder.mkdir(parents=True, exist_ok=True)
    DOCS.mkdir(exist_ok=True)
    with _demo() as server, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=find_chromium(), args=list(CHROMIUM_FLAGS)
        )
        session = session_of(server)
        for scheme, (name, width) in product(SCHEMES, WIDTHS.items()):
            context = browser.new_context(
                storage_state=session,
                viewport={"width": width, "height": 850},
                color_scheme=scheme,  # type: ignore[arg-type]
                reduced_motion="reduce",
            )
            page = context.new_page()
            for what, path in _paths(server, page).items():
                page.goto(server.url + path)
                for word in page.locator("#live-word").all():  # one delivery's page stands still
                    expect(word).to_have_text("Live", timeout=20_000)
                shot = f"{what}-{name}-{scheme}"
                page.screenshot(path=folder / f"{shot}.png")
                if docs and shot in SHOWN:
                    (DOCS / f"{what}.webp").write_bytes(_webp(page))
                sys.stdout.write(f"{shot}.png\n")
            context.close()
        browser.close()


def _webp(page: Page) -> bytes:
    """The page as it is on the screen, in half of a PNG's bytes."""
    session = page.context.new_cdp_session(page)
    shot = session.send("Page.captureScreenshot", {"format": "webp", "quality": 70})
    return base64.b64decode(shot["data"])


@contextlib.contextmanager
def _demo() -> Iterator[Server]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        key = folder / "demo_key.pem"
        make_key(key)
        public = public_half(key).read_text()
        with running("daphne", "sqlite", folder, WEBHOOK_EXTRA_ED25519_KEYS=public) as server:
            command = [
                sys.executable, "manage.py", "send_demo_events",
                "--url", f"{server.url}/webhooks/lc-email/", "--key", str(key),
                "--history", HISTORY,
            ]  # fmt: skip
            traffic = subprocess.Popen(command, cwd=ROOT, env=server.env)
            try:
                _wait_for_the_present(folder / "sendwatch.sqlite3")
                yield server
            finally:
                traffic.terminate()
                traffic.wait(timeout=10)


def _wait_for_the_present(database: Path) -> None:
    """Wait until the demo's past has been sent."""
    recent = "SELECT count(*) FROM ingest_event WHERE occurred_at > datetime('now', '-20 seconds')"
    deadline = time.monotonic() + LONGEST
    with contextlib.closing(sqlite3.connect(database)) as connection:
        while connection.execute(recent).fetchone()[0] < FEW:
            if time.monotonic() > deadline:
                raise RuntimeError("the demo mail did not arrive")
            time.sleep(0.5)


def _paths(server: Server, page: Page) -> dict[str, str]:
    """The pages by name; those about one thing are the first of their list."""
    paths = {
        "overview": "/",
        "deliveries": "/deliveries/?outcome=bounced",
        "reasons": "/reasons/",
        "status": "/status/",
    }
    for name, listed, link in (
        ("location", "/", "#locations th a"),
        ("delivery", paths["deliveries"], "a.open"),
        ("reason", "/reasons/", 'main a[href^="/reasons/"]'),
    ):
        page.goto(server.url + listed)
        found = page.locator(link)
        if found.count():
            paths[name] = found.first.get_attribute("href") or "/"
    return paths


if __name__ == "__main__":
    main(FOLDER, docs="--docs" in sys.argv[1:])
