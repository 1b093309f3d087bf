"""Send believable webhooks to a Sendwatch on this machine, signed, over HTTP."""

import base64
import ipaddress
import os
import queue
import threading
import time
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

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

CONNECTIONS = 48  # at most: a webhook waits for its commit, so a high rate needs many
IDLE = 2.0  # seconds after which servers may close a kept connection
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


class Sender:
    """Posts bodies over a few kept connections, a thread each; tries again as HighLevel does.

    Threads with ``http.client``: a fifth of an asynchronous httpx client's cost a request, and
    the sender shares the machine with what it feeds.
    """

    def __init__(self, url: str, key: Ed25519PrivateKey) -> None:
        self.url, self.key = urlsplit(url), key
        self.answers: Counter[str] = Counter()
        self._queue: queue.Queue[bytes] = queue.Queue(2 * CONNECTIONS)
        self._failure: Exception | None = None
        self._over = threading.Event()
        self._workers = 0
        self._was_connected = False
        self._failing_since: float | None = None

    def run(self, webhooks: Iterator[tuple[int, demo.Body]], *, until: float) -> None:
        """Send each webhook when it is due, until ``until`` (time.monotonic()) or the end.

        Raises ``Unreachable`` or ``Refused`` as soon as any connection meets it.
        """
        try:
            for due, body in webhooks:
                ahead = (due - _now()) / demo.SECOND
                if not self._sleep(ahead, until):
                    break
                self._put(orjson.dumps(body))
            while self._queue.unfinished_tasks:
                self._sleep(0.05, float("inf"))
        finally:
            self._over.set()

    def _sleep(self, seconds: float, until: float) -> bool:
        """False if the end came first."""
        wake_at = min(time.monotonic() + seconds, until)
        while (left := wake_at - time.monotonic()) > 0:
            self._raise()
            time.sleep(min(left, 0.2))
        self._raise()
        return time.monotonic() < until

    def _put(self, body: bytes) -> None:
        if self._workers < CONNECTIONS and self._queue.unfinished_tasks >= self._workers:
            self._workers += 1
            threading.Thread(target=self._work, daemon=True).start()
        while True:
            self._raise()
            try:
                return self._queue.put(body, timeout=0.2)
            except queue.Full:
                continue

    def _raise(self) -> None:
        if self._failure:
            raise self._failure

    def _work(self) -> None:
        kind = HTTPSConnection if self.url.scheme == "https" else HTTPConnection
        with closing(kind(self.url.hostname or "", self.url.port, timeout=20)) as connection:
            used_at = time.monotonic()
            while not self._over.is_set():
                try:
                    body = self._queue.get(timeout=0.2)
                except queue.Empty:
                    continue
                if time.monotonic() - used_at > IDLE:
                    connection.close()  # the next request opens it again
                try:
                    self._deliver(connection, body)
                except Exception as error:  # run() raises it, whatever it is
                    self._failure = error
                    return
                self._queue.task_done()
                used_at = time.monotonic()

    def _deliver(self, connection: HTTPConnection, body: bytes) -> None:
        headers = {
            "Content-Type": "application/json",
            "X-GHL-Signature": base64.b64encode(self.key.sign(body)).decode(),
        }
        for attempt in range(TRIES + 1):
            answer = self._post(connection, body, headers)
            if answer:
                self.answers[answer] += 1
                return
            if self._over.wait(min(0.25 * 2**attempt, 3.0)):
                return
        self.answers["given up"] += 1

    def _post(self, connection: HTTPConnection, body: bytes, headers: dict[str, str]) -> str:
        """The answer's word; "" where one should try again."""
        try:
            connection.request("POST", self.url.path or "/", body, headers)
            response = connection.getresponse()
            content = response.read()
        except (OSError, HTTPException) as error:
            connection.close()
            self._check_patience(error)
            return ""
        self._was_connected, self._failing_since = True, None
        if response.status == 401:
            raise Refused
        if response.status == 429 or response.status >= 500:
            self.answers["tried again"] += 1
            return ""
        return _word(response.status, content)

    def _check_patience(self, error: Exception) -> None:
        now = time.monotonic()
        since = self._failing_since or now
        self._failing_since = since
        patience = WAIT_LATER if self._was_connected else WAIT_AT_START
        if now - since > patience:
            raise Unreachable(
                f"{self.url.geturl()} cannot be reached for {patience:.0f} s: {error}"
            )


def _word(status: int, content: bytes) -> str:
    try:
        return str(orjson.loads(content)["status"])
    except (ValueError, KeyError, TypeError):
        return f"HTTP {status}"


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


class Command(BaseCommand):
    """What ``manage.py send_demo_events`` does."""

    help = __doc__ or ""
    # It touches no database, and starts beside a server that has checked already.
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the options."""
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
        """Send until the time is over. Raises ``CommandError`` where nobody takes it."""
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
            sender.run(_traffic(options), until=time.monotonic() + options["seconds"])
        except Refused:
            hint = self._how_to_accept(path)
            raise CommandError(f"401: the server refuses our signature. {hint}") from None
        except Unreachable as error:
            raise CommandError(str(error)) from None
        except KeyboardInterrupt:
            pass
        finally:
            answers = sorted(sender.answers.items())
            self.stdout.write(", ".join(f"{n} {word}" for word, n in answers))

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
