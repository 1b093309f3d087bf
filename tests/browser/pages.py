"""What browser tests do to a page and its server."""

import time
from typing import Any

from playwright.sync_api import Locator, Page, StorageState, StorageStateCookie, expect

from tests.serving import Server

SECOND = 1_000
_count = iter(range(10**9))


_MAKE_SESSION = """
from django.conf import settings
from django.contrib.auth.models import User
from django.contrib.sessions.backends.db import SessionStore
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
user = User.objects.create_superuser("anna")
store = SessionStore()
store[SESSION_KEY] = str(user.pk)
(store[BACKEND_SESSION_KEY],) = settings.AUTHENTICATION_BACKENDS
store[HASH_SESSION_KEY] = user.get_session_auth_hash()
store.create()
print(store.session_key)
"""


def session_of(server: Server) -> StorageState:
    """The cookies of a superuser who is logged in."""
    key = server.manage("shell", "-v", "0", "-c", _MAKE_SESSION).strip().splitlines()[-1]
    cookie: StorageStateCookie = {
        "name": "sessionid", "value": key, "domain": "127.0.0.1", "path": "/", "expires": -1,
        "httpOnly": True, "secure": False, "sameSite": "Lax",
    }  # fmt: skip
    return {"cookies": [cookie], "origins": []}


def send(server: Server, event: str = "delivered", **changes: Any) -> str:
    """Send a webhook of its own mail; returns the recipient."""
    number = next(_count)
    recipient: str = changes.pop("recipient", f"jane{number}@example.org")
    payload = {
        "event": event,
        "id": f"event-{number}",
        "timestamp": time.time(),
        "message": {"headers": {"message-id": f"m{number}@example.com"}},
        "recipient": recipient,
        "tags": changes.pop("tags", []),
    }
    location = changes.pop("location", "loc-a")
    body = {"type": "LCEmailStats", "locationId": location, "webhookPayload": payload | changes}
    assert server.post(body).json() == {"status": "stored"}
    return recipient


def number() -> int:
    """Another one each time."""
    return next(_count)


def open_live(page: Page, url: str) -> None:
    """Open a page and wait until its socket is."""
    page.goto(url)
    expect(page.locator("#live-word")).to_have_text("Live", timeout=5 * SECOND)


def figure_of(page: Page, name: str) -> Locator:
    """A number of the totals."""
    part = page.locator("#totals > div", has=page.get_by_text(name, exact=True))
    return part.locator(".figure")


def figure(page: Page, name: str) -> int:
    """A number of the totals, as it is now."""
    return int(figure_of(page, name).inner_text().replace(",", ""))
