"""Servers that are stopped, killed and started again: nothing that was answered 200 is lost."""

import json
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from ingest import details
from tests.serving import Server, running

pytestmark = pytest.mark.both_engines


@pytest.fixture(params=["daphne", "uvicorn"])
def server(request: pytest.FixtureRequest, tmp_path: Path, engine: str) -> Iterator[Server]:
    with running(request.param, engine, tmp_path / "run") as server:
        yield server


class Load(threading.Thread):
    """Sends webhooks one after the other until told to stop, and remembers the answers."""

    def __init__(self, server: Server, name: str) -> None:
        super().__init__(name=name)
        self.server, self.stopped = server, threading.Event()
        self.answered: set[str] = set()
        self.other: list[int] = []

    def run(self) -> None:
        number = 0
        with httpx.Client(timeout=10) as client:
            while not self.stopped.is_set():
                number += 1
                event_id = f"{self.name}-{number}"
                body = json.dumps(delivered(event_id)).encode()
                try:
                    answer = client.post(
                        self.server.url + "/webhooks/lc-email/",
                        content=body,
                        headers=self.server.signer.headers(body),
                    )
                except httpx.TransportError:
                    time.sleep(0.02)
                    continue
                if answer.status_code == 200:
                    self.answered.add(event_id)
                else:
                    self.other.append(answer.status_code)


def delivered(event_id: str) -> dict[str, Any]:
    return {
        "type": "LCEmailStats",
        "locationId": "loc",
        "webhookPayload": {
            "event": "delivered",
            "id": event_id,
            "timestamp": time.time(),
            "message": {"headers": {"message-id": f"{event_id}@example.com"}},
            "recipient": "jane@example.org",
            "tags": ["promo"],
        },
    }


def event_ids(server: Server) -> list[str]:
    """The provider ids of all stored events."""
    rows = server.query("SELECT detail FROM ingest_event")
    return [details.load(stored, None, False, None, None, None).event_id for (stored,) in rows]


def under_load(server: Server, seconds: float, end: Any) -> list[Load]:
    loads = [Load(server, f"sender{n}") for n in range(6)]
    for load in loads:
        load.start()
    time.sleep(seconds)
    patience = time.monotonic() + 20  # on a busy machine the answers come slowly
    while sum(len(load.answered) for load in loads) <= 60 and time.monotonic() < patience:
        time.sleep(0.1)
    end()
    for load in loads:
        load.stopped.set()
        load.join()
    return loads


def test_kill_9_loses_nothing_that_was_answered(server: Server) -> None:
    loads = under_load(server, 1.5, lambda: server.stop(signal.SIGKILL))
    answered = set().union(*(load.answered for load in loads))
    assert len(answered) > 50
    server.start()
    stored = event_ids(server)
    assert len(stored) == len(set(stored))
    assert answered <= set(stored)
    assert "every counter equals" in server.manage("recount", "--check")


def test_a_clean_stop_answers_or_refuses_everything_it_holds(server: Server) -> None:
    token = server.token()
    address = server.url.replace("http", "ws") + "/ws/events/"
    headers = {"Authorization": f"Bearer {token}"}
    code: list[int] = []
    with connect(address, additional_headers=headers) as socket:
        loads = under_load(server, 1.5, lambda: code.append(server.stop(signal.SIGTERM)))
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                socket.recv(timeout=5)
    answered = set().union(*(load.answered for load in loads))
    refused = [status for load in loads for status in load.other]
    assert set(refused) <= {429, 503}
    # Stored and answered are the same: no webhook was committed without its sender being told.
    assert set(event_ids(server)) == answered
    assert closed.value.rcvd is not None and closed.value.rcvd.code == 1012
    assert code[0] in (0, -signal.SIGTERM)


def test_shuffled_events_with_duplicates_are_counted_exactly(server: Server) -> None:
    import random

    order = random.Random(3)  # noqa: S311
    bodies = []
    for number in range(120):
        for kind in order.choice(
            ["accepted delivered opened", "deferred bounced", "delivered"]
        ).split():
            failed = kind in ("deferred", "bounced")
            body = delivered(f"{kind}-{number}")
            body["webhookPayload"] |= {
                "event": "failed" if failed else kind,
                "severity": "temporary" if kind == "deferred" else "permanent",
                "message": {"headers": {"message-id": f"m{number}@example.com"}},
            }
            bodies.append(body)
    sent = bodies + order.sample(bodies, len(bodies) // 5)
    order.shuffle(sent)
    statuses = [server.post(body).json()["status"] for body in sent]
    assert statuses.count("stored") == len(bodies)
    assert statuses.count("duplicate") == len(sent) - len(bodies)
    assert len(event_ids(server)) == len(bodies)
    assert "every counter equals" in server.manage("recount", "--check")
