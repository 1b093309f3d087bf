"""``make test``: everything on SQLite, then what touches the database on PostgreSQL and Redis.

What the machine lacks is named and left out; under CI=true it is a failure instead. Arguments
go to pytest: ``make test ARGS="-k edge"``.
"""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
import redis

DATABASE_URL = os.environ.get("TEST_DATABASE_URL", "postgres://postgres@127.0.0.1:5432/sendwatch")
REDIS_URL = os.environ.get("TEST_REDIS_URL", "redis://127.0.0.1:6379/15")
# Settings of the shell that starts the tests must not decide them.
SETTINGS = (
    "ALLOWED_HOSTS", "BEHIND_PROXY", "CSRF_TRUSTED_ORIGINS", "DATABASE_URL", "DEBUG", "EVENT_",
    "FRAME_ANCESTORS", "HIGHLEVEL_", "LOG_LEVEL", "PAYLOAD_", "PUBLIC_URL", "REDIS_URL",
    "SECRET_KEY", "SECURE_", "WEBHOOK_",
)  # fmt: skip

# A module's tests stay together: they share a server. In the order collected: the browser's last.
SPREAD = ("-n", "auto", "--dist", "loadscope", "--no-loadscope-reorder")


def main(arguments: list[str]) -> int:
    """Run the tests on both engines; the exit code is 0 only if nothing failed."""
    lacking = [reason for probe in (_probe_postgresql, _probe_redis) if (reason := probe())]
    engines = {"TEST_DATABASE_URL": DATABASE_URL, "TEST_REDIS_URL": REDIS_URL}
    failed = _run("SQLite", engines, arguments)
    if not lacking:
        # Redis is for the servers that the tests start: pytest's own process has an event loop a
        # test, and a layer's connection would outlive it.
        own = {"DATABASE_URL": DATABASE_URL, "SECRET_KEY": "tests" * 10}
        # The tests kill processes, not machines: nothing need wait for the disk.
        own["PGOPTIONS"] = "-c synchronous_commit=off"
        failed |= _run("PostgreSQL and Redis", engines | own, ["--only-database", *arguments])
    for reason in lacking:
        print(f"skipped: the tests on PostgreSQL and Redis, because {reason}")
    return int(failed or bool(lacking and is_ci(os.environ)))


def is_ci(environment: Mapping[str, str]) -> bool:
    """Whether nothing may be skipped."""
    return environment.get("CI", "").lower() in ("1", "true")


def _run(engine: str, variables: dict[str, str], arguments: list[str]) -> bool:
    """Whether pytest, with these variables set, failed."""
    print(f"--- {engine}", flush=True)
    clean = {name: text for name, text in os.environ.items() if not name.startswith(SETTINGS)}
    with tempfile.TemporaryDirectory(prefix="sendwatch-tests-") as folder:
        command = [sys.executable, "-m", "pytest", *SPREAD, *arguments]
        environment = clean | variables | {"DATA_DIR": folder}
        if environment.pop("PYTHONDONTWRITEBYTECODE", ""):
            # The tests start some hundred processes: without bytecode each compiles Django anew.
            environment["PYTHONPYCACHEPREFIX"] = str(Path(folder, "bytecode"))
        code = subprocess.run(command, env=environment, check=False).returncode  # noqa: S603
    if code < 0:
        print(f"pytest did not come to its end: {signal.strsignal(-code)}")
    return code != 0


def _probe_postgresql() -> str:
    # The maintenance database: the tests make their own beside it.
    url = urlunsplit(urlsplit(DATABASE_URL)._replace(path="/postgres"))
    return _why_not("PostgreSQL", DATABASE_URL, lambda: psycopg.connect(url, connect_timeout=3))


def _probe_redis() -> str:
    client = redis.Redis.from_url(REDIS_URL, socket_connect_timeout=3)
    return _why_not("Redis", REDIS_URL, client.ping)


def _why_not(name: str, url: str, reach: Callable[[], object]) -> str:
    try:
        reach()
    except (psycopg.OperationalError, redis.RedisError) as error:
        reason = str(error).strip().splitlines()[0]
        return f"{name} does not answer at {urlsplit(url).hostname} ({reason})"
    return ""


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
