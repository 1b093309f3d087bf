"""Where webhooks come in: a plain ASGI application, mounted past Django's request cycle.

``/webhooks/lc-email/`` takes what HighLevel has signed; ``/webhooks/lc-email/<source key>/`` a
named source's. Nothing is stored that neither a signature nor a source's key vouches for, and
nothing vouched for is lost: 200 leaves after the commit, and what cannot be committed now is
answered 429, which HighLevel has always tried again. Every answer is counted (``ingest.quality``).
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import orjson
from django.conf import settings
from django.core.signals import setting_changed
from django.db import DatabaseError, InterfaceError, connection

from ingest import metrics
from ingest.models import Source
from ingest.normalize import AppEvent, NormalizedEvent
from ingest.quality import ANSWERS, WRONG, answers
from ingest.quarantine import Suspect, quarantine, signature_headers
from ingest.record import Busy, Item, item_from_body, recorder
from ingest.verify import (
    ED25519_HEADER,
    RSA_HEADER,
    Result,
    Scheme,
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
PATIENCE = 4.0  # seconds that a sender waits for its webhook to be set apart
SOURCE_AGE = 5.0  # seconds a source may be remembered after it was changed or withdrawn

_LENGTH = frozenset({b"content-length"})
_SIGNED_HEADERS = _LENGTH | {ED25519_HEADER.encode(), RSA_HEADER.encode()}

type Scope = dict[str, Any]
type Receive = Callable[[], Awaitable[dict[str, Any]]]
type Send = Callable[[dict[str, Any]], Awaitable[None]]


class Refused(Exception):
    """A webhook that is not taken; ``cause`` is a key of ``quality.ANSWERS``."""

    def __init__(self, cause: str) -> None:
        super().__init__(cause)
        self.cause = cause


class Gone(Exception):
    """The sender hung up before its body was complete."""


@dataclass(slots=True)
class _Visit:
    """What is known of a request, however it ends."""

    received_at: int  # µs since 1970
    source: "NamedSource | None" = None
    body: bytes = b""

    @property
    def source_id(self) -> int | None:
        """The named source's primary key."""
        return self.source.id if self.source else None


async def edge(scope: Scope, receive: Receive, send: Send) -> None:
    """The ASGI application for everything below ``/webhooks/``."""
    visit = _Visit(received_at=time.time_ns() // 1000)
    try:
        cause = await _take(scope, receive, visit)
    except Gone:
        return
    except Refused as refused:
        cause = refused.cause
    except Busy:
        cause = "busy"
    except asyncio.CancelledError:
        raise
    except Exception:  # a bug of ours must not cost the sender's webhook: it will come again
        digest = blake2b(visit.body, digest_size=16).hexdigest()
        logger.exception("the edge failed over body %s; its sender was asked to try again", digest)
        cause = "failed"
    code, status = ANSWERS[cause]
    metrics.WEBHOOKS.labels(status).inc()
    if answers.count(cause, source_id=visit.source_id or 0):
        recorder.nudge()
    await _answer(send, code, status)


async def _take(scope: Scope, receive: Receive, visit: _Visit) -> str:
    """The answer to a webhook that was taken. Raises ``Refused``, ``Busy`` or ``Gone``."""
    key = _source_key(scope["path"])
    if scope["method"] != "POST":
        raise Refused("method not allowed")
    source = visit.source = await _source(key) if key else None
    headers = collect_headers(scope["headers"], source.headers if source else _SIGNED_HEADERS)
    _refuse_large(headers)
    body = visit.body = await _read(receive)
    cause = refusal(headers, body, source)
    if _is_signed(source) and (not cause or cause in WRONG):
        answers.signed(right=not cause)
    if cause:
        return await _refuse(cause, scope, visit)
    item = item_from_body(
        body,
        received_at=visit.received_at,
        source_id=visit.source_id,
        location_ref=source.location_ref if source else "",
    )
    if not _is_signed(source) and getattr(item.result, "reason", "") == "not JSON":
        raise Refused("malformed")
    if of_another_app(item):
        return "another app"
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
    raise Refused("not found")


def _refuse_large(headers: dict[str, str]) -> None:
    length = headers.get("content-length", "")
    if length.isdecimal() and int(length) > MAX_BODY:
        raise Refused("too large")


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
            raise Refused("too large")
        chunks.append(chunk)
        if not message.get("more_body", False):
            return b"".join(chunks)


@dataclass(frozen=True, slots=True)
class NamedSource:
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


_sources: dict[str, tuple[float, NamedSource | None]] = {}


async def _source(key: str) -> NamedSource:
    """The enabled source of this key. Raises ``Refused`` (401) where there is none."""
    until, source = _sources.get(key, (0.0, None))
    if until < time.monotonic():
        loop = asyncio.get_running_loop()
        source = await loop.run_in_executor(None, _find_source, key)
        if len(_sources) > 10_000:
            _sources.clear()
        _sources[key] = time.monotonic() + SOURCE_AGE, source
    if source is None:
        _log_refusal("unknown source")
        raise Refused("unknown source")
    return source


def _find_source(key: str) -> NamedSource | None:
    try:
        return find_source(key=key, enabled=True)
    except (DatabaseError, InterfaceError) as error:
        raise Busy from error
    finally:
        connection.close()  # a pool thread's: nobody else will


def find_source(**which: object) -> NamedSource | None:
    """The source with these columns. Raises the database's errors."""
    rows = Source.objects.filter(**which)
    row = rows.values_list(
        "id", "location_ref", "hmac_secret", "hmac_header", "hmac_encoding"
    ).first()
    return NamedSource(*row) if row else None


def refusal(headers: Mapping[str, str], body: bytes, source: NamedSource | None) -> str:
    """Why nothing vouches for the body; "" where a signature, or a source's bare key, does.

    ``headers`` by lower-case name.
    """
    if source is None:
        result, scheme = verifier().verify(headers, body)
        if result is Result.OK:
            return ""
        if result is Result.MISSING:
            return "rsa refused" if scheme is Scheme.RSA else "no signature"
        return "wrong signature"
    if not source.hmac_secret:
        return ""
    value = header_value(headers, source.hmac_header.lower())
    if not value:
        return "no hmac"
    right = verify_hmac(source.hmac_secret, value, body, source.hmac_encoding)
    return "" if right else "wrong hmac"


def _is_signed(source: NamedSource | None) -> bool:
    return source is None or bool(source.hmac_secret)


async def _refuse(cause: str, scope: Scope, visit: _Visit) -> str:
    """Set the webhook apart where that is wanted and possible. Raises ``Refused`` or ``Busy``."""
    _log_refusal(cause)
    if settings.WEBHOOK_QUARANTINE:
        own = visit.source.hmac_header if visit.source else ""
        headers = signature_headers(scope["headers"], own)
        suspect = Suspect(visit.body, headers, visit.received_at, visit.source_id)
        if headers and (future := quarantine.put(suspect)):
            recorder.nudge()
            try:
                apart = await asyncio.wait_for(future, PATIENCE)
            except TimeoutError:
                apart = None
            if apart is None:
                raise Busy
            if apart:
                return "quarantined"
    raise Refused(cause)


_logged_until = 0.0
_unlogged = 0


def _log_refusal(cause: str) -> None:
    """Once a minute: a key that is set wrong must be seen, not flood the log."""
    global _logged_until, _unlogged
    _unlogged += 1
    if time.monotonic() >= _logged_until:
        logger.warning("webhook refused: %s (%d since the last such line)", cause, _unlogged)
        _logged_until, _unlogged = time.monotonic() + 60, 0


def of_another_app(item: Item) -> bool:
    """Whether it is another app's: the keys sign for every app, ours is told apart by its id."""
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
