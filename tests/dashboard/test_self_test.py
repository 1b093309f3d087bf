"""The button that sends a test event, on real servers: through the endpoint, into the tables."""

import re

import httpx
import pytest

from tests.serving import TLS, Server

pytestmark = pytest.mark.both_engines
MADE = (
    "from django.contrib.auth.models import User;"
    "User.objects.filter(username='tester').exists() or"
    " User.objects.create_superuser('tester', password='tester')"
)


def test_a_test_event_is_signed_stored_and_in_no_rate(server: Server) -> None:
    server.manage("shell", "-v", "0", "-c", MADE)
    with httpx.Client(base_url=server.url, follow_redirects=True, verify=TLS, timeout=20) as web:
        web.post("/login/", data=_form(web, "/login/", username="tester", password="tester"))
        html = web.post("/status/test-event/", data=_form(web, "/status/")).text
        assert "The test event was verified, stored and answered in" in html
        total = web.get("/api/rates/?location=sendwatch-test").json()["total"]
    assert (total["test"], total["sent"]) == (1, 0)


def _form(web: httpx.Client, path: str, **fields: str) -> dict[str, str]:
    token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', web.get(path).text)
    assert token
    return fields | {"csrfmiddlewaretoken": token[1]}
