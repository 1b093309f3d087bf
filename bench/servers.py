"""Servers to measure, each with a database of its own, and what they cost."""

import contextlib
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import httpx
import psycopg
from psycopg import sql

from tests.serving import ROOT, SQLITE_FILE, WEBHOOK, Server, Signer, free_port, own_database

START_SECONDS = 30.0
_SETTINGS = ("WEBHOOK_", "DATABASE_URL", "REDIS_URL", "DJANGO_", "DATA_DIR", "DEBUG", "LOG_LEVEL")
_TICKS = os.sysconf("SC_CLK_TCK")
_PROC = Path("/proc")


@dataclass(frozen=True)
class Use:
    """What a process has used: seconds of processor time, and its greatest memory in bytes."""

    pid: int
    cpu: float
    memory: int


@dataclass
class MeasuredServer(Server):
    """A server of kind "uvicorn", "daphne" or "gunicorn" (the plain peer)."""

    workers: int = 1

    def start(self) -> None:
        """Start in a session of its own (so that Ctrl-C reaches us first); wait for an answer."""
        log = Path(self.env["DATA_DIR"]) / "server.log"
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, *self._command()],
                cwd=ROOT, env=self.env, stdout=output, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(self.url + WEBHOOK, timeout=2).status_code == 405:
                    return
            time.sleep(0.05)
        raise RuntimeError(f"the server did not start:\n{log.read_text()[-4000:]}")

    def _command(self) -> list[str]:
        if self.kind == "gunicorn":
            return [
                "-m", "gunicorn", "bench.plain.wsgi:application",
                "--bind", f"127.0.0.1:{self.port}", "--workers", "2", "--worker-class", "gthread",
                "--threads", "4", "--keep-alive", "30", "--log-level", "warning",
            ]  # fmt: skip
        more = ["--workers", str(self.workers)] if self.workers > 1 else []
        return super()._command() + more

    def end(self) -> None:
        """Stop; what does not stop in time is killed, with all its processes."""
        if self.process is None:
            return
        try:
            self.stop()
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def used(self) -> list[Use]:
        """What each of its processes has used; empty where there is no /proc."""
        assert self.process is not None
        return list(_tree(self.process.pid)) if _PROC.is_dir() else []


def _tree(pid: int) -> Iterator[Use]:
    """A process and its descendants, as far as they still run."""
    with contextlib.suppress(OSError, IndexError):
        yield _use(pid)
        for thread in (_PROC / str(pid) / "task").iterdir():
            for child in (thread / "children").read_text().split():
                yield from _tree(int(child))


def _use(pid: int) -> Use:
    folder = _PROC / str(pid)
    # After the name in parentheses, which may hold anything; utime and stime are fields 14, 15.
    fields = (folder / "stat").read_text().rpartition(")")[2].split()
    peak = re.search(r"VmHWM:\s+(\d+) kB", (folder / "status").read_text())
    ticks = int(fields[11]) + int(fields[12])
    return Use(pid, ticks / _TICKS, int(peak[1]) * 1024 if peak else 0)


@dataclass(frozen=True)
class Prelude:
    """A database with some mail in it, from which every measured server gets a copy of its own."""

    engine: str
    signer: Signer
    folder: Path
    env: dict[str, str]

    @contextlib.contextmanager
    def copy(self, folder: Path) -> Iterator[dict[str, str]]:
        """The environment of a copy, which goes at the end."""
        folder.mkdir(parents=True)
        try:
            if self.engine == "sqlite":
                _sqlite_copy(self.folder / SQLITE_FILE, folder / SQLITE_FILE)
                yield self.env | {"DATA_DIR": str(folder)}
                return
            with _pg_copy(self.env["DATABASE_URL"], folder.name) as url:
                yield self.env | {"DATA_DIR": str(folder), "DATABASE_URL": url}
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _sqlite_copy(original: Path, copy: Path) -> None:
    """Not as a file: part of it may still be in its write-ahead log."""
    with (
        contextlib.closing(sqlite3.connect(original)) as source,
        contextlib.closing(sqlite3.connect(copy)) as target,
    ):
        source.backup(target)


@contextlib.contextmanager
def _pg_copy(url: str, suffix: str) -> Iterator[str]:
    parts = urlsplit(url)
    original = parts.path[1:]
    name = f"{original}_{suffix}"[:63]
    admin = urlunsplit(parts._replace(scheme="postgresql", path="/postgres"))
    create, drop = "CREATE DATABASE {} TEMPLATE {}", "DROP DATABASE IF EXISTS {} WITH (FORCE)"
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(sql.SQL(create).format(sql.Identifier(name), sql.Identifier(original)))
    try:
        yield urlunsplit(parts._replace(path=f"/{name}"))
    finally:
        with psycopg.connect(admin, autocommit=True) as connection:
            connection.execute(sql.SQL(drop).format(sql.Identifier(name)))


@contextlib.contextmanager
def prelude(
    engine: str, folder: Path, signer: Signer, fill: Callable[[MeasuredServer], None]
) -> Iterator[Prelude]:
    """A database that ``fill`` has written to by way of a server."""
    folder.mkdir(parents=True)
    clean = {name: text for name, text in os.environ.items() if not name.startswith(_SETTINGS)}
    with own_database(engine, folder) as database:
        own = {"WEBHOOK_ED25519_KEYS": signer.public_pem, "LOG_LEVEL": "WARNING"}
        env = clean | database | own | {"DATA_DIR": str(folder)}
        server = MeasuredServer("uvicorn", env, signer, free_port())
        server.manage("migrate", "-v", "0")
        with _started(server):
            fill(server)
        yield Prelude(engine, signer, folder, env)


@contextlib.contextmanager
def running(
    kind: str, template: Prelude, folder: Path, *, workers: int = 1
) -> Iterator[MeasuredServer]:
    """A running server on a copy of the prelude's database; all of it goes at the end."""
    with template.copy(folder) as env:
        server = MeasuredServer(kind, env, template.signer, free_port(), workers=workers)
        with _started(server):
            yield server


@contextlib.contextmanager
def _started(server: MeasuredServer) -> Iterator[None]:
    try:
        server.start()
        yield
    finally:
        server.end()
