"""``manage.py serve`` as its users meet it: a process, its lines, its signals."""

import asyncio
import contextlib
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import orjson
import pytest
import websockets

from tests.serving import ROOT, WEBHOOK, Server, running

EVENT = {"type": "LCEmailStats", "locationId": "loc", "webhookPayload": {"event": "delivered"}}


@contextlib.contextmanager
def prepared(folder: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """``serve --prepare`` on SQLite: the process, and what it printed up to its ready line."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    process = subprocess.Popen(
        [sys.executable, "manage.py", "serve", "--prepare", "--port", "0", *arguments],
        cwd=ROOT, env=kept | {"DATA_DIR": str(folder)}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert process.stdout
    lines = []
    try:
        for line in process.stdout:
            lines.append(line.rstrip())
            if line.startswith("ready:"):
                break
        yield process, lines
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def stop(process: subprocess.Popen[str], number: signal.Signals = signal.SIGTERM) -> int:
    process.send_signal(number)
    return process.wait(timeout=20)


def events_in(folder: Path) -> int:
    with contextlib.closing(sqlite3.connect(folder / "sendwatch.sqlite3")) as connection:
        return int(connection.execute("SELECT count(*) FROM ingest_event").fetchone()[0])


def test_a_fresh_folder_is_prepared_and_served(tmp_path: Path) -> None:
    with prepared(tmp_path) as (process, lines):
        assert len([line for line in lines if line.startswith("ready: http://127.0.0.1:")]) == 1
        username, password = (tmp_path / "login.txt").read_text().split()
        assert any(f"log in as {username} with the password {password}" in line for line in lines)
        url = lines[-1].removeprefix("ready: ")
        with httpx.Client(base_url=url, follow_redirects=True) as client:
            page = client.get("admin/")
            assert page.url.path == "/login/" and page.status_code == 200
            data = {"username": username, "password": password, "next": "/admin/"}
            token = client.cookies["csrftoken"]
            inside = client.post(
                "login/",
                data=data | {"csrfmiddlewaretoken": token},
                headers={"Referer": f"{url}login/"},
            )
        assert inside.url.path == "/admin/" and "Log out" in inside.text
        assert process.stdout and stop(process, signal.SIGINT) == 0
        assert process.stdout.read() == ""


def test_demo_traffic_is_accepted_in_its_own_run_only(tmp_path: Path) -> None:
    with prepared(tmp_path, "--demo") as (process, _):
        deadline = time.monotonic() + 30
        while events_in(tmp_path) < 5 and time.monotonic() < deadline:
            time.sleep(0.2)
        assert events_in(tmp_path) >= 5
        assert stop(process) == 0
    assert (tmp_path / "demo_key.pem").stat().st_mode & 0o077 == 0
    with prepared(tmp_path, "--no-demo") as (process, lines):
        known = events_in(tmp_path)
        refused = subprocess.run(
            [
                *(sys.executable, "manage.py", "send_demo_events", "--seconds", "20"),
                *("--url", lines[-1].removeprefix("ready: ") + WEBHOOK.lstrip("/")),
                *("--key", str(tmp_path / "demo_key.pem"), "--seed", "9"),
            ],
            cwd=ROOT, env=os.environ | {"DATA_DIR": str(tmp_path)},
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert refused.returncode != 0 and "401" in refused.stderr
        assert events_in(tmp_path) == known
        assert stop(process) == 0


def test_a_taken_port_is_one_clear_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "manage.py", "serve", "--port", str(port)],
            cwd=ROOT, env=os.environ | {"DATA_DIR": str(tmp_path)},
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert f"Cannot listen on 127.0.0.1:{port}" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr and "ready:" not in done.stdout


def test_an_unreachable_database_is_one_clear_line(tmp_path: Path) -> None:
    nowhere = {"DATABASE_URL": "postgres://a@127.0.0.1:1/b", "SECRET_KEY": "x" * 50}
    done = subprocess.run(
        [sys.executable, "manage.py", "serve", "--prepare", "--port", "0"],
        cwd=ROOT, env=os.environ | {"DATA_DIR": str(tmp_path)} | nowhere,
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "The database cannot be used" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


@pytest.fixture
def server(engine: str, tmp_path: Path) -> Iterator[Server]:
    with running("daphne", engine, tmp_path) as server:
        yield server


@pytest.mark.both_engines
def test_sockets_are_sent_away_with_1012(server: Server) -> None:
    async def watch() -> int:
        token = server.token()
        url = server.url.replace("http", "ws") + "/ws/events/"
        headers = {"Authorization": f"Bearer {token}"}
        async with websockets.connect(url, additional_headers=headers) as client:
            await client.recv()
            assert server.process
            server.process.send_signal(signal.SIGTERM)
            with pytest.raises(websockets.ConnectionClosed) as closed:
                while True:
                    await asyncio.wait_for(client.recv(), 15)
            return closed.value.rcvd.code if closed.value.rcvd else 0

    assert asyncio.run(watch()) == 1012
    assert server.stop() == 0


def test_a_stop_answers_what_it_took_and_refuses_the_rest(tmp_path: Path) -> None:
    """The commit is held up by another writer; meanwhile the server is told to stop."""
    with running("daphne", "sqlite", tmp_path) as server:
        server.post(EVENT)  # the recorder is warm
        answers: list[httpx.Response] = []
        blocker = sqlite3.connect(tmp_path / "sendwatch.sqlite3", isolation_level=None)
        blocker.execute("BEGIN IMMEDIATE")
        body = orjson.dumps(EVENT | {"webhookId": "held"})
        sender = threading.Thread(target=lambda: answers.append(server.post(body)))
        sender.start()
        time.sleep(0.7)
        assert server.process and answers == []
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        late = server.post(EVENT | {"webhookId": "late"})
        blocker.execute("ROLLBACK")
        blocker.close()
        sender.join(15)
        assert (late.status_code, late.headers.get("retry-after")) == (429, "5")
        assert [answer.status_code for answer in answers] == [200]
        assert server.process.wait(timeout=20) == 0
