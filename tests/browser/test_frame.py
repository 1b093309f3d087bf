"""Inside HighLevel, as it is: a page of its own origin around ours, over HTTPS, in Chromium.

The browser keeps no cookies of other sites but partitioned ones, as browsers come to do.
"""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from playwright.sync_api import Browser, BrowserContext, FrameLocator, Page, Route, expect

from tests.browser.pages import SECOND, send
from tests.dashboard.frame.payloads import SECRET, context, encrypted
from tests.serving import CHROMIUM_FLAGS, TLS, Server, running

HIGHLEVEL, WHITE_LABEL, EVIL = (
    "https://app.gohighlevel.com",
    "https://app.north.example",
    "https://evil.example",
)
PARENT = """<!doctype html><title>HighLevel</title>
<iframe id="app" width="1200" height="800" src="{src}"></iframe>
<script>
  addEventListener("message", ({{ data, source }}) => {{
    if (data.message !== "REQUEST_USER_DATA") return;
    const sibling = document.createElement("iframe");
    sibling.src = "{evil}/sibling";
    document.body.append(sibling);
    const answer = {{ message: "REQUEST_USER_DATA_RESPONSE", payload: {payload} }};
    setTimeout(() => source.postMessage(answer, "*"), 500);
  }});
</script>"""
# A frame beside ours, of another site, that answers before HighLevel does.
SIBLING = """<!doctype html><script>
  parent.frames[0].postMessage({message: "REQUEST_USER_DATA_RESPONSE", payload: "forged"}, "*");
</script>"""


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 that has signed itself, with its key."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    hosts = x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(hosts, critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(secret + made.public_bytes(pem))
    return path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, certificate: Path) -> Iterator[Server]:
    TLS.load_verify_locations(certificate)
    folder = tmp_path_factory.mktemp("frame")
    with running(
        "uvicorn", "sqlite", folder, certificate=certificate,
        HIGHLEVEL_SHARED_SECRET=SECRET, PUBLIC_URL="https://127.0.0.1",
    ) as server:  # fmt: skip
        install = {
            "type": "INSTALL", "locationId": "loc", "companyId": "com", "companyName": "North",
            "whitelabelDetails": {"domain": "app.north.example"},
        }  # fmt: skip
        assert server.post(install).json() == {"status": "ignored"}
        send(server, location="loc")
        yield server


@pytest.fixture(scope="module")
def strict(launch_browser: Callable[..., Browser]) -> Iterator[Browser]:
    """A browser that keeps no cookies of other sites."""
    browser = launch_browser(args=[*CHROMIUM_FLAGS, "--test-third-party-cookie-phaseout"])
    yield browser
    browser.close()


@pytest.fixture
def window(strict: Browser) -> Iterator[BrowserContext]:
    context = strict.new_context(ignore_https_errors=True)
    context.grant_permissions(["local-network-access"])  # servers of the world ask for none
    yield context
    context.close()


def open_inside(window: BrowserContext, server: Server, origin: str, src: str = "/frame/") -> Page:
    """A page of this origin with ours in a frame."""
    payload = json.dumps(encrypted(context()))
    html = PARENT.format(src=server.url + src, evil=EVIL, payload=payload)

    def parent(route: Route) -> None:
        body = SIBLING if route.request.url.endswith("/sibling") else html
        route.fulfill(body=body, content_type="text/html")

    for site in (origin, EVIL):
        window.route(f"{site}/**", parent)
    page = window.new_page()
    page.goto(f"{origin}/v2/location/loc/custom-page-link/1")
    return page


def app_of(page: Page) -> FrameLocator:
    return page.frame_locator("#app")


@pytest.mark.parametrize("origin", [HIGHLEVEL, WHITE_LABEL])
def test_a_custom_page_logs_in_moves_and_takes_forms(
    window: BrowserContext, server: Server, origin: str
) -> None:
    page = open_inside(window, server, origin)
    complaints: list[str] = []
    page.on("console", lambda m: complaints.append(m.text) if m.type == "error" else None)
    app = app_of(page)
    expect(app.locator("#live-word")).to_have_text("Live", timeout=10 * SECOND)
    expect(app.locator("h1")).to_have_text("loc")
    recipient = send(server, "failed", severity="permanent", location="loc")
    expect(app.locator("#feed")).to_contain_text(recipient, timeout=5 * SECOND)
    app.locator(".saved > summary").click()
    app.locator(".saved .drop > form").get_by_role("textbox").fill(f"Mine {origin}")
    app.locator(".saved .drop > form").get_by_role("button", name="Save").click()
    expect(app.locator(".messages")).to_contain_text("is saved")
    app.get_by_role("link", name="Deliveries").first.click()
    expect(app.get_by_text(recipient).first).to_be_visible()
    assert [c for c in window.cookies() if c["name"] == "sessionid"][0]["sameSite"] == "None"
    outside = window.new_page()
    outside.goto(f"{server.url}/")
    assert outside.url.startswith(f"{server.url}/login/"), "no other page gets the frame's session"
    assert complaints == []


def test_a_page_asked_for_inside_asks_who_looks_and_comes_back(
    window: BrowserContext, server: Server
) -> None:
    page = open_inside(window, server, HIGHLEVEL, "/deliveries/?range=30d")
    expect(app_of(page).locator("#find")).to_be_visible(timeout=10 * SECOND)
    assert page.frames[1].url == f"{server.url}/deliveries/?range=30d"


def test_nobody_else_can_show_us_in_a_frame(window: BrowserContext, server: Server) -> None:
    page = open_inside(window, server, EVIL)
    page.wait_for_load_state("load")
    assert not page.frames[1].url.startswith(server.url)
    with window.expect_page() as opened:
        page.evaluate(f"window.open({server.url + '/frame/'!r})")
    said = opened.value.get_by_role("status")
    expect(said).to_have_text("This page works inside HighLevel: open it from its menu.")
    for scheme in ("light", "dark"):
        opened.value.emulate_media(color_scheme=scheme)
        assert Axe().run(opened.value).response["violations"] == []


def test_wrong_answers_let_nobody_in(window: BrowserContext, server: Server) -> None:
    wrong = json.dumps(encrypted(context(companyId="another")))
    html = PARENT.format(src=f"{server.url}/frame/", evil=EVIL, payload=wrong)
    window.route(
        f"{HIGHLEVEL}/**", lambda route: route.fulfill(body=html, content_type="text/html")
    )
    page = window.new_page()
    page.goto(f"{HIGHLEVEL}/x")
    said = app_of(page).get_by_role("status")
    expect(said).to_contain_text("did not tell who you are", timeout=5 * SECOND)
