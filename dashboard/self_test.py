"""A test event of our own: made here, signed, and posted to the real endpoint.

HighLevel's private keys are not ours, so it goes to a named source whose HMAC secret is. The event
is in test mode: it is stored and shown, and counts in no rate.
"""

import base64
import hashlib
import hmac
import secrets
import time
import uuid
from typing import NamedTuple

import httpx
import orjson

from ingest.edge import PATH
from ingest.models import Source

NAME = "Test events"
HEADER = "x-sendwatch-test"
LOCATION = "sendwatch-test"
SECONDS = 10.0


class Sent(NamedTuple):
    """What became of a test event. ``status`` is the contract's word; "" when nobody answered."""

    code: int
    status: str
    seconds: float
    problem: str = ""

    @property
    def sentence(self) -> str:
        """One sentence for whoever pressed the button."""
        if self.status == "stored":
            return f"The test event was verified, stored and answered in {self.seconds:.2f} s."
        if self.problem:
            return f"The test event did not get through: {self.problem}."
        return f"The endpoint answered {self.code} {self.status} to the test event."


def send_test_event(base: str) -> Sent:
    """Post one signed event in test mode to the endpoint of the server at ``base``."""
    source = _source()
    body = orjson.dumps(_webhook())
    digest = hmac.new(source.hmac_secret.encode(), body, hashlib.sha256).digest()
    headers = {HEADER: base64.b64encode(digest).decode(), "Content-Type": "application/json"}
    began = time.monotonic()
    try:
        url = f"{base.rstrip('/')}{PATH}/{source.key}/"
        answer = httpx.post(url, content=body, headers=headers, timeout=SECONDS, trust_env=False)
        status = str(answer.json().get("status", ""))
    except (httpx.HTTPError, ValueError) as error:
        return Sent(0, "", time.monotonic() - began, str(error) or type(error).__name__)
    return Sent(answer.status_code, status, time.monotonic() - began)


def _source() -> Source:
    made = {
        "hmac_secret": secrets.token_urlsafe(32),
        "hmac_header": HEADER,
        "hmac_encoding": Source.Encoding.BASE64,
        "location_ref": LOCATION,
    }
    found, _ = Source.objects.get_or_create(name=NAME, defaults=made)
    if not found.enabled:
        found.enabled = True
        found.save(update_fields=["enabled"])
    return found


def _webhook() -> dict[str, object]:
    number = uuid.uuid4().hex
    payload = {
        "event": "delivered",
        "id": number,
        "timestamp": time.time(),
        "recipient": "test@example.com",
        "message": {"headers": {"message-id": f"{number}@sendwatch.example"}},
        "flags": {"is-test-mode": True},
        "tags": ["sendwatch-test"],
    }
    return {
        "type": "LCEmailStats",
        "locationId": LOCATION,
        "webhookId": str(uuid.uuid4()),
        "webhookPayload": payload,
    }
