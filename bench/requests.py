"""Signed webhooks, made beforehand: lives of messages, each webhook a complete HTTP request.

A file of requests is, for each, its length in four bytes and its bytes. Beside it lies the list
of the provider's event ids, by which a row on a socket is found again.
"""

import base64
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import orjson
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from nacl.signing import SigningKey

from ingest import demo
from tests.serving import WEBHOOK, Signer

SEED = 7
LOCATIONS = 50
# Messages a second in the story that the webhooks tell: the parts of one life lie some hundred
# webhooks apart, so that any stretch of the file has the same mix of first and later events.
RATE = 30.0

_HEAD = (
    "POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    "X-GHL-Signature: {signature}\r\nContent-Length: {length}\r\n\r\n"
)


@dataclass(frozen=True)
class Requests:
    """A file of signed requests, and who signed them."""

    path: Path
    signer: Signer
    count: int
    body_bytes: float  # mean size of a body
    events_a_delivery: float

    def event_ids(self) -> list[str]:
        """The provider's event id of each request, in their order."""
        ids: list[str] = json.loads(self.path.with_suffix(".ids").read_text())
        return ids


def make_requests(path: Path, count: int) -> Requests:
    """Write ``count`` distinct signed webhooks."""
    signer = Signer()
    raw = signer.private.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
    key, ids, size, messages = SigningKey(raw), [], 0, set()
    with path.open("wb") as file:
        for event_id, message_id, body in islice(_distinct(count), count):
            signature = base64.b64encode(key.sign(body).signature).decode()
            head = _HEAD.format(path=WEBHOOK, signature=signature, length=len(body))
            request = head.encode() + body
            file.write(len(request).to_bytes(4) + request)
            ids.append(event_id)
            messages.add(message_id)
            size += len(body)
    path.with_suffix(".ids").write_text(json.dumps(ids))
    return Requests(path, signer, count, size / count, count / len(messages))


def _distinct(count: int) -> Iterator[tuple[str, str, bytes]]:
    """Event id, message id and body of webhooks; the demonstration's duplicates left out."""
    seen = set()
    now = time.time_ns() // 1000 - int(count / RATE * demo.SECOND)
    for _, body in demo.lives(SEED, now=now, rate=RATE, locations=LOCATIONS, introduce=False):
        payload = body["webhookPayload"]
        if payload["id"] not in seen:
            seen.add(payload["id"])
            yield payload["id"], payload["message"]["headers"]["message-id"], orjson.dumps(body)
