"""Where webhooks come in: a plain ASGI application, mounted past Django's request cycle.

``/webhooks/lc-email/`` takes what HighLevel has signed; ``/webhooks/lc-email/<source key>/`` a
named source's. Nothing is stored that neither a signature nor a source's key vouches for, and
nothing vouched for is lost: 200 leaves after the commit, and what cannot be committed now is
answered 429, which HighLevel has always tried again.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import orjson
from django.conf import settings
from django.core.signals import setting_changed
from django.db import DatabaseError, connection

from ingest import metrics
from ingest.models import Source
from ingest.normalize import AppEvent, NormalizedEvent
from ingest.record import Busy, Item, item_from_body, recorder
from ingest.verify import (
    ED25519_HEADER,
    RSA_HEADER,
    Verifier,
    collect_headers,
    header_value,
    load_ed25519_keys,
    load_rsa_keys,
    verify_hmac,
)

logger = logging.getLogger(__name__)

PATH = "/webhooks/lc-email"
MAX_BODY = 1 << 20
RETRY_AFTER = 5  # seconds
SOURCE_AGE = 5.0  # seconds a source may be remembered after it was changed or withdrawn

_LENGTH = frozenset({b"content-length"})
_SIGNED_HEADERS = _LENGTH | {ED25519_HEADER.encode(), RSA_HEADER.encode()}

type Scope = dict[str, Any]
type Receive = Callable[[], Awaitable[dict[str, Any]]]
type Send = Callable[[dict[str, Any]], Awaitable[None]]


class Refused(Exception):
    """A webhook that is not taken: its HTTP status, the answer's word, and the reason."""

    def __init__(self, code: int, status: str, reason: str = "") -> None:
        super().__init__(reason)
        self.code, self.status, self.reason = code, status, reason


class Gone(Exception):
    """The sender hung up before its body was complete."""


async def edge(scope: Scope, receive: Receive, send: Send) -> None:
    """The ASGI application for everything below ``/webhooks/``."""
    try:
        status = await _take(scope, receive)
        code = 200
    except Gone:
        return
    except Refused as refused:
        status, code = refused.status, refused.code
    except Busy:
        status, code = "busy", 429
    except asyncio.CancelledError:
        raise
    except Exception:  # a bug of ours must not cost the sender's webhook: it will come again
        logger.exception("the edge failed; the webhook was asked to come again")
        status, code = "busy", 429
    metrics.WEBHOOKS.labels(status).inc()
    await _answer(send, code, status)


async def _take(scope: Scope, receive: Receive) -> str:
    """The status of a webhook that was taken. Raises ``Refused``, ``Busy`` or ``Gone``."""
    received_at = time.time_ns() // 1000
    key = _source_key(scope["path"])
    if scope["method"] != "POST":
        raise Refused(405, "method not allowed")
    source = await _source(key) if key else None
    headers = collect_headers(scope["headers"], source.headers if source else _SIGNED_HEADERS)
    _refuse_large(headers)
    body = await _read(receive)
    signed = _check(headers, body, source)
    item = item_from_body(
        body,
        received_at=received_at,
        source_id=source.id if source else None,
        location_ref=source.location_ref if source else "",
    )
    if not signed and getattr(item.result, "reason", "") == "not JSON":
        raise Refused(400, "malformed", "not JSON")
    if _of_another_app(item):
        return "ignored"
    item = await recorder.submit(item)
    if item.conflict:
        metrics.CONFLICTS.inc()
    return item.status


def _source_key(path: str) -> str:
    """The source's key in the path, "" for the signed address. Raises ``Refused`` (404)."""
    if path.rstrip("/") == PATH:
        return ""
    key = path.removeprefix(PATH + "/").rstrip("/")
    if path.startswith(PATH + "/") and key and "/" not in key:
        return key
    raise Refused(404, "not found")


def _refuse_large(headers: dict[str, str]) -> None:
    length = headers.get("content-length", "")
    if length.isdecimal() and int(length) > MAX_BODY:
        raise Refused(413, "too large")


async def _read(receive: Receive) -> bytes:
    """The raw body; never more than the cap is held (where the server does not hold it itself)."""
    chunks, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Gone
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > MAX_BODY:
            raise Refused(413, "too large")
        chunks.append(chunk)
        if not message.get("more_body", False):
            return b"".join(chunks)


@dataclass(frozen=True, slots=True)
class _Source:
    """What the edge remembers of a named source."""

    id: int
    location_ref: str
    hmac_secret: str
    hmac_header: str
    hmac_encoding: str

    @property
    def headers(self) -> frozenset[bytes]:
        """The headers that matter in a webhook of this source."""
        return _LENGTH | {self.hmac_header.lower().encode("latin-1", "replace")}


_sources: dict[str, tuple[float, _Source | None]] = {}


async def _source(key: str) -> _Source:
    """The enabled source of this key. Raises ``Refused`` (401) where there is none."""
    until, source = _sources.get(key, (0.0, None))
    if until < time.monotonic():
        loop = asyncio.get_running_loop()
        source = await loop.run_in_executor(None, _find_source, key)
        if len(_sources) > 10_000:
            _sources.clear()
        _sources[key] = time.monotonic() + SOURCE_AGE, source
    if source is None:
        raise _unverified("no such source")
    return source


def _find_source(key: str) -> _Source | None:
    try:
        row = (
            Source.objects.filter(key=key, enabled=True)
            .values_list("id", "location_ref", "hmac_secret", "hmac_header", "hmac_encoding")
            .first()
        )
    except DatabaseError as error:
        raise Busy from error
    finally:
        connection.close()  # a pool thread's: nobody else will
    return _Source(*row) if row else None


def _check(headers: dict[str, str], body: bytes, source: _Source | None) -> bool:
    """Whether a signature vouches for the body (a source's bare key does too, unsigned).

    Raises ``Refused`` (401) where nothing does.
    """
    if source is None:
        verdict = verifier().verify(headers, body)
        if not verdict.ok:
            raise _unverified(f"{verdict.scheme} signature {verdict.result}".strip())
        return True
    if not source.hmac_secret:
        return False
    value = header_value(headers, source.hmac_header.lower())
    if not verify_hmac(source.hmac_secret, value, body, source.hmac_encoding):
        raise _unverified("HMAC missing or wrong")
    return True


_logged_until = 0.0
_unlogged = 0


def _unverified(reason: str) -> Refused:
    """A 401, counted always and logged once a minute: a mis-set key must be seen, not flood."""
    global _logged_until, _unlogged
    _unlogged += 1
    if time.monotonic() >= _logged_until:
        logger.warning("webhook refused: %s (%d since the last such line)", reason, _unlogged)
        _logged_until, _unlogged = time.monotonic() + 60, 0
    return Refused(401, "unverified", reason)


def _of_another_app(item: Item) -> bool:
    """The keys sign for every app on the marketplace; ours is told apart by its id."""
    ours = settings.WEBHOOK_APP_ID
    if not ours or not isinstance(item.result, NormalizedEvent | AppEvent):
        return False
    return item.result.app_id not in ("", ours)


_verifier: Verifier | None = None


def verifier() -> Verifier:
    """The verifier of the configured keys, made at first use."""
    global _verifier
    if _verifier is None:
        keys = load_ed25519_keys(settings.WEBHOOK_ED25519_KEYS)
        if settings.WEBHOOK_EXTRA_ED25519_KEYS:
            keys = [*keys, *load_ed25519_keys(settings.WEBHOOK_EXTRA_ED25519_KEYS)]
        _verifier = Verifier(
            ed25519_keys=keys,
            rsa_keys=load_rsa_keys(settings.WEBHOOK_RSA_KEYS),
            allow_rsa=settings.WEBHOOK_ALLOW_RSA,
        )
    return _verifier


def _forget_verifier(*, setting: str, **_: object) -> None:
    global _verifier
    if setting.startswith("WEBHOOK_"):
        _verifier = None


setting_changed.connect(_forget_verifier)


async def _answer(send: Send, code: int, status: str) -> None:
    body = orjson.dumps({"status": status})
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
    ]
    if code == 429:
        headers.append((b"retry-after", str(RETRY_AFTER).encode()))
    if code == 405:
        headers.append((b"allow", b"POST"))
    if code == 413:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": code, "headers": headers})
    await send({"type": "http.response.body", "body": body})
