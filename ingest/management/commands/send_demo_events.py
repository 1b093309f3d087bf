"""Send believable webhooks to a Sendwatch on this machine, signed, over HTTP."""

import asyncio
import base64
import ipaddress
import os
import time
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import orjson
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from ingest import demo

CONNECTIONS = 24
TRIES = 12  # as HighLevel does
WAIT_AT_START = 30.0  # seconds without any connection before giving up
WAIT_LATER = 10.0
# Having fallen further behind than this (a laptop that slept), start over from now.
FAR_BEHIND = 60 * demo.SECOND


def is_loopback(url: str) -> bool:
    """Whether a URL points at this machine and nowhere else."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme not in ("http", "https"):
        return False
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def public_half(path: Path) -> Path:
    """Where the public key of ``path`` lies: ``demo_key.pem`` → ``demo_key.pub.pem``."""
    return path.with_suffix(f".pub{path.suffix}")


def load_key(path: Path) -> Ed25519PrivateKey:
    """The private key in a PEM file. Raises ``CommandError`` where there is none."""
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise CommandError(f"{path} cannot be read as a private key: {error}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise CommandError(f"{path} holds a key of another kind than Ed25519.")
    return key


def make_key(path: Path) -> bool:
    """Make a key pair at ``path`` unless one is there. True if it was made now."""
    if path.exists():
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    public_half(path).write_bytes(public)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(private)
    return True


def _now() -> int:
    return time.time_ns() // 1000


class Unreachable(Exception):
    """Nobody listens, for longer than one waits."""


class Refused(Exception):
    """The server does not take our signature."""


@dataclass
class Sender:
    """Posts bodies over a few kept connections; tries again as HighLevel does."""

    url: str
    key: Ed25519PrivateKey
    answers: Counter[str] = field(default_factory=Counter)
    connected_at: float | None = None
    started_at: float = field(default_factory=time.monotonic)

    async def run(self, webhooks: Iterator[tuple[int, demo.Body]], *, until: float) -> None:
        """Send each webhook when it is due, until ``until`` (time.monotonic()) or the end."""
        queue: asyncio.Queue[bytes] = asyncio.Queue(2 * CONNECTIONS)
        limits = httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS)
        async with (
            httpx.AsyncClient(limits=limits, timeout=20, trust_env=False) as client,
            asyncio.TaskGroup() as group,
        ):
            workers = [group.create_task(self._work(client, queue)) for _ in range(CONNECTIONS)]
            await self._feed(webhooks, queue, until)
            await queue.join()
            for worker in workers:
                worker.cancel()

    async def _feed(
        self, webhooks: Iterator[tuple[int, demo.Body]], queue: asyncio.Queue[bytes], until: float
    ) -> None:
        for due, body in webhooks:
            if time.monotonic() >= until:
                return
            ahead = (due - _now()) / demo.SECOND
            if ahead > 0:
                await asyncio.sleep(min(ahead, max(until - time.monotonic(), 0)))
            if time.monotonic() < until:
                await queue.put(orjson.dumps(body))

    async def _work(self, client: httpx.AsyncClient, queue: asyncio.Queue[bytes]) -> None:
        while True:
            await self._deliver(client, await queue.get())
            queue.task_done()

    async def _deliver(self, client: httpx.AsyncClient, body: bytes) -> None:
        headers = {
            "Content-Type": "application/json",
            "X-GHL-Signature": base64.b64encode(self.key.sign(body)).decode(),
        }
        for attempt in range(TRIES + 1):
            if await self._post(client, body, headers):
                return
            await asyncio.sleep(min(0.25 * 2**attempt, 5.0))
        self.answers["given up"] += 1

    async def _post(self, client: httpx.AsyncClient, body: bytes, headers: dict[str, str]) -> bool:
        """Whether that was the last try. Raises ``Unreachable`` and ``Refused``."""
        try:
            response = await client.post(self.url, content=body, headers=headers)
        except httpx.TransportError as error:
            self._check_patience(error)
            return False
        self.connected_at = time.monotonic()
        if response.status_code == 429 or response.status_code >= 500:
            self.answers["tried again"] += 1
            return False
        if response.status_code == 401:
            raise Refused
        self.answers[_status(response)] += 1
        return True

    def _check_patience(self, error: Exception) -> None:
        since = self.started_at if self.connected_at is None else self.connected_at
        patience = WAIT_AT_START if self.connected_at is None else WAIT_LATER
        if time.monotonic() - since > patience:
            raise Unreachable(f"{self.url} cannot be reached for {patience:.0f} s: {error!r}")


def _status(response: httpx.Response) -> str:
    try:
        return str(response.json()["status"])
    except (ValueError, KeyError, TypeError):
        return f"HTTP {response.status_code}"


def _traffic(options: dict[str, Any]) -> Iterator[tuple[int, demo.Body]]:
    """``demo.lives`` on the clock of the wall; starts over after a long standstill."""
    history = options["history"]
    while True:
        now = _now()
        webhooks = demo.lives(
            options["seed"],
            now=now,
            rate=options["rate"],
            locations=options["locations"],
            history_hours=history,
        )
        for due, body in webhooks:
            if due > now and _now() - due > FAR_BEHIND:
                break
            yield due, body
        history = 0


def _leaf(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error = group.exceptions[0]
    return _leaf(error) if isinstance(error, BaseExceptionGroup) else error


class Command(BaseCommand):
    help = __doc__

    def add_arguments(self, parser: ArgumentParser) -> None:
        add = parser.add_argument
        add("--rate", type=float, default=3.0, help="webhooks a second (3)")
        add("--seconds", type=float, default=float("inf"), help="how long (for ever)")
        add("--url", default="http://127.0.0.1:8000/webhooks/lc-email/")
        add("--seed", type=int, default=1, help="another number, other mail (1)")
        add("--key", type=Path, help="private Ed25519 key, PEM (DATA_DIR/demo_key.pem)")
        add("--locations", type=int, default=24, help="how many (24)")
        add("--history", type=float, default=0.0, help="hours of the past to send first (0)")
        add("--make-key", action="store_true", help="only make the key, and print its public half")

    def handle(self, *args: Any, **options: Any) -> None:
        path = options["key"] or Path(settings.DATA_DIR) / "demo_key.pem"
        made = not options["key"] and make_key(path)
        if options["make_key"]:
            self.stdout.write(str(public_half(path)))
            return
        self._check(options)
        if made:
            self.stdout.write(self._how_to_accept(path))
        sender = Sender(options["url"], load_key(path))
        try:
            asyncio.run(sender.run(_traffic(options), until=time.monotonic() + options["seconds"]))
        except* Refused:
            raise CommandError(
                f"401: the server refuses our signature. {self._how_to_accept(path)}"
            ) from None
        except* Unreachable as group:
            raise CommandError(str(_leaf(group))) from None
        except* KeyboardInterrupt:
            pass
        finally:
            self.stdout.write(", ".join(f"{n} {word}" for word, n in sender.answers.items()))

    def _check(self, options: dict[str, Any]) -> None:
        if not is_loopback(options["url"]):
            raise CommandError(
                f"{options['url']} is not on this machine. Demo traffic goes to 127.0.0.1, ::1 or"
                " localhost only: it is load, and counts as mail where it arrives."
            )
        for name in ("rate", "seconds", "locations"):
            if not options[name] > 0:
                raise CommandError(f"--{name} must be above 0.")
        if options["history"] < 0:
            raise CommandError("--history must not be negative.")

    def _how_to_accept(self, path: Path) -> str:
        return (
            f"Start the server with WEBHOOK_EXTRA_ED25519_KEYS={public_half(path)}"
            " to make it accept demo traffic."
        )
