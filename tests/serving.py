"""Real servers for tests: a process of Daphne or uvicorn, with a database of its own."""

import base64
import contextlib
import functools
import os
import shutil
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import httpx
import orjson
import psycopg
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from psycopg import sql

ROOT = Path(__file__).resolve().parent.parent
SQLITE_FILE = "sendwatch.sqlite3"
CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--no-first-run",
    "--disable-component-update",
    "--disable-sync",
)
WEBHOOK = "/webhooks/lc-email/"
# Made once: httpx would read the system's certificates again for each request.
TLS = ssl.create_default_context()


def find_chromium() -> str | None:
    """The path of a Chromium: the variable CHROMIUM, or one on the PATH."""
    names = (os.environ.get("CHROMIUM", ""), *CHROMIUM_NAMES)
    return next((path for name in names if name and (path := shutil.which(name))), None)


@dataclass
class Signer:
    """An Ed25519 key pair that signs bodies as HighLevel does."""

    private: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)

    @property
    def public_pem(self) -> str:
        """The key that a server under test is told to trust."""
        public = self.private.public_key()
        return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()

    def headers(self, body: bytes) -> dict[str, str]:
        """The headers of a signed webhook."""
        signature = base64.b64encode(self.private.sign(body)).decode()
        return {"X-GHL-Signature": signature, "Content-Type": "application/json"}


@dataclass
class Server:
    """A running server process, and how to talk to it."""

    kind: str
    env: dict[str, str]
    signer: Signer
    port: int
    certificate: Path | None = None  # PEM, its key included: it is served over HTTPS (uvicorn)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"{'https' if self.certificate else 'http'}://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start, and wait until it answers."""
        log = Path(self.env["DATA_DIR"]) / "server.log"
        with log.open("ab") as output:
            self.process = subprocess.Popen(  # noqa: S603
                [sys.executable, *self._command()],
                cwd=ROOT, env=self.env, stdout=output, stderr=subprocess.STDOUT,
            )  # fmt: skip
        deadline = time.monotonic() + 90  # machines are busy
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{self.url}/healthz", timeout=2, verify=TLS).status_code == 200:
                    return
            time.sleep(0.1)
        raise RuntimeError(f"the server did not start:\n{log.read_text()[-4000:]}")

    def _command(self) -> list[str]:
        if self.kind == "daphne":
            return ["manage.py", "serve", "--port", str(self.port), "--no-demo"]
        return [
            "-m", "uvicorn", "config.asgi:application", "--host", "127.0.0.1",
            "--port", str(self.port), "--ws", "websockets-sansio",
            "--ws-per-message-deflate", "false", "--log-level", "warning", "--no-access-log",
            "--timeout-graceful-shutdown", "15",
            *(["--ssl-certfile", str(self.certificate)] if self.certificate else []),
        ]  # fmt: skip

    def stop(self, with_signal: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the end. Returns the exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(with_signal)
        return self.process.wait(timeout=30)

    def manage(self, *arguments: str) -> str:
        """Run a management command against the server's database; returns what it printed."""
        done = subprocess.run(  # noqa: S603
            [sys.executable, "manage.py", *arguments],
            cwd=ROOT, env=self.env, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{arguments}: {done.stdout}\n{done.stderr}")
        return done.stdout

    def shell(self, code: str) -> str:
        """Run Python in the server's project; returns the last line that it printed.

        A process takes a second of two processors' time: for rows, ``query`` takes none.
        """
        return (self.manage("shell", "-v", "0", "-c", code).strip().splitlines() or [""])[-1]

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        """Rows of the server's database."""
        if "DATABASE_URL" in self.env:
            with psycopg.connect(self.env["DATABASE_URL"]) as connection:
                return connection.execute(statement.encode()).fetchall()
        path = Path(self.env["DATA_DIR"]) / SQLITE_FILE
        with contextlib.closing(sqlite3.connect(path, timeout=20)) as database:
            return database.execute(statement).fetchall()

    def token(
        self,
        username: str = "watcher",
        *,
        staff: bool = True,
        locations: tuple[str, ...] = (),
        scopes: tuple[str, ...] = ("read", "export"),
    ) -> str:
        """A bearer token of a user, made at first use with memberships of these locations."""
        return self.shell(
            "from django.contrib.auth.models import User;"
            "from django.core.management import call_command;"
            "from dashboard.models import Membership; from ingest.models import Location;"
            "user, _ = User.objects.get_or_create("
            f"username={username!r}, defaults={{'is_staff': {staff}}});"
            "[Membership.objects.create(user=user, location=location)"
            f" for location in Location.objects.filter(ref__in={locations!r})];"
            f"call_command('create_api_token', {username!r}, scope={scopes!r})"
        )

    def post(self, payload: Any, **options: Any) -> httpx.Response:
        """Post a signed webhook: bytes as they are, anything else as JSON."""
        body = payload if isinstance(payload, bytes) else orjson.dumps(payload)
        return httpx.post(
            self.url + options.pop("path", WEBHOOK),
            content=body,
            headers=self.signer.headers(body) | options.pop("headers", {}),
            timeout=10,
            verify=TLS,
            **options,
        )


def free_port() -> int:
    """A port nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def own_database(engine: str, folder: Path, template: str = "") -> Iterator[dict[str, str]]:
    """The environment of a database that nobody else uses; dropped at the end.

    On PostgreSQL it may be made as a copy of another, to which nobody is connected.
    """
    if engine == "sqlite":
        yield {}
        return
    server = os.environ.get("TEST_DATABASE_URL", "postgres://postgres@127.0.0.1:5432/postgres")
    parts = urlsplit(server)
    name = f"sendwatch_{os.getpid()}_{folder.name.replace('-', '_')}".lower()[:60]
    admin = urlunsplit(parts._replace(scheme="postgresql", path="/postgres"))
    redis = os.environ.get("TEST_REDIS_URL", "redis://127.0.0.1:6379/5")
    made_from = sql.SQL("TEMPLATE {}").format(sql.Identifier(template or "template1"))
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {} {}").format(sql.Identifier(name), made_from))
    try:
        yield {
            "DATABASE_URL": urlunsplit(parts._replace(path=f"/{name}")),
            "REDIS_URL": redis,
            "SECRET_KEY": "test-" + name * 3,
        }
    finally:
        with psycopg.connect(admin, autocommit=True) as connection:
            connection.execute(
                sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name))
            )


# What servers of this process are made from; whoever starts them closes it after the last.
templates = contextlib.ExitStack()


@functools.cache
def _migrated() -> str:
    """A database of PostgreSQL in which `migrate` ran: once for all servers of this process."""
    database = templates.enter_context(own_database("postgresql", Path("template")))
    subprocess.run(
        [sys.executable, "manage.py", "migrate", "--no-input", "-v", "0"],
        cwd=ROOT, env=_clean_environment() | database, check=True, capture_output=True,
    )  # fmt: skip
    return urlsplit(database["DATABASE_URL"]).path[1:]


@functools.cache
def _prepared(command: str) -> Path:
    """A data folder in which a management command ran: once for all servers of this process."""
    folder = tempfile.mkdtemp(dir=os.environ.get("SENDWATCH_TEST_FILES"))
    subprocess.run(
        [sys.executable, "manage.py", command, "--no-input", "-v", "0"],
        cwd=ROOT, env=_clean_environment() | {"DATA_DIR": folder}, check=True,
        capture_output=True,
    )  # fmt: skip
    return Path(folder)


def _clean_environment() -> dict[str, str]:
    kept_out = ("WEBHOOK_", "DATABASE_URL", "REDIS_URL", "DJANGO_", "PYTEST")
    return {name: text for name, text in os.environ.items() if not name.startswith(kept_out)}


@contextlib.contextmanager
def running(
    kind: str, engine: str, folder: Path, *, certificate: Path | None = None, **settings: str
) -> Iterator[Server]:
    """A migrated, running server: kind "daphne" or "uvicorn", engine "sqlite" or "postgresql"."""
    folder.mkdir(parents=True, exist_ok=True)
    signer = Signer()
    own = {"DATA_DIR": str(folder), "WEBHOOK_ED25519_KEYS": signer.public_pem}
    template = _migrated() if engine == "postgresql" else ""
    with own_database(engine, folder, template) as database:
        env = _clean_environment() | database | own
        server = Server(kind, env | settings, signer, free_port(), certificate)
        if engine == "sqlite":
            shutil.copy(_prepared("migrate") / SQLITE_FILE, folder)
        (folder / "static").symlink_to(_prepared("collectstatic") / "static")
        try:
            server.start()
            yield server
        finally:
            if server.process:  # also one that did not come to answer in time
                server.stop()
