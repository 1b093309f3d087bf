"""The edge: every answer of the contract, over HTTP, from real servers."""

import asyncio
import hashlib
import hmac
import json
import logging
import socket
import time
from dataclasses import replace
from typing import Any

import httpx
import pytest

from ingest import edge
from ingest.record import recorder
from tests.serving import WEBHOOK, Server, Signer, running

pytestmark = pytest.mark.both_engines
LOCATION = "ve9EPM428h8vShlRW1KT"


_count = iter(range(10**9))


def payload(**changes: Any) -> dict[str, Any]:
    """A delivered event in the wrapped form, another one at each call."""
    number = next(_count)
    return {
        "type": "LCEmailStats",
        "locationId": LOCATION,
        "webhookId": f"webhook-{number}",
        "webhookPayload": {
            "event": "delivered",
            "id": f"event-{number}",
            "timestamp": time.time(),
            "message": {"headers": {"message-id": f"<m{number}@example.com>"}},
            "recipient": f"jane{number}@example.org",
        },
    } | changes


def stored(server: Server, table: str = "event") -> int:
    """How many rows a table holds."""
    return int(server.query(f"SELECT count(*) FROM ingest_{table}")[0][0])


def counted(server: Server) -> dict[str, int]:
    """The answers that the tables hold, by cause; those of one process within seconds."""
    rows = server.query("SELECT status, sum(answers) FROM ingest_answerhour GROUP BY status")
    return {cause: int(n) for cause, n in rows}


def test_a_signed_webhook_is_stored_and_its_retry_is_a_duplicate(server: Server) -> None:
    body = payload()
    first, again = server.post(body), server.post(body)
    assert (first.status_code, first.json()) == (200, {"status": "stored"})
    assert (again.status_code, again.json()) == (200, {"status": "duplicate"})
    assert first.headers["content-type"] == "application/json"


def test_the_address_works_without_its_last_slash_too(server: Server) -> None:
    assert server.post(payload(), path=WEBHOOK.rstrip("/")).json() == {"status": "stored"}


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-GHL-Signature": "N/A"},
        {"X-GHL-Signature": "not base64"},
        {"X-GHL-Signature": "AAAA"},
        {"X-GHL-Signature": "A" * 86 + "=="},
        {"X-WH-Signature": "A" * 684},
    ],
)
def test_nothing_unsigned_is_taken_or_stored(server: Server, headers: dict[str, str]) -> None:
    before = stored(server)
    answer = httpx.post(server.url + WEBHOOK, json=payload(), headers=headers)
    assert (answer.status_code, answer.json()) == (401, {"status": "unverified"})
    assert stored(server) == before


def test_a_changed_body_is_not_what_was_signed(server: Server) -> None:
    body = json.dumps(payload()).encode()
    headers = server.signer.headers(body)
    answer = httpx.post(server.url + WEBHOOK, content=body + b" ", headers=headers)
    assert answer.status_code == 401


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"])
def test_other_methods_are_refused(server: Server, method: str) -> None:
    answer = httpx.request(method, server.url + WEBHOOK)
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"type": "ContactCreate", "locationId": LOCATION}, "ignored"),
        ({"type": "INSTALL", "locationId": LOCATION, "companyName": "Agency"}, "ignored"),
        ({"type": "LCEmailStats", "locationId": LOCATION}, "kept"),
        (payload(locationId=None), "kept"),
        ([1, 2], "kept"),
        ("text", "kept"),
        (b"not json", "kept"),
        (b"", "kept"),
        (b"\xff\xfe", "kept"),
        (b"[" * 5_000, "kept"),
    ],
)
def test_whatever_is_signed_is_taken(server: Server, body: Any, status: str) -> None:
    answer = server.post(body)
    assert (answer.status_code, answer.json()) == (200, {"status": status})


def test_a_chunked_body_is_read_whole(server: Server) -> None:
    body = json.dumps(payload()).encode()
    parts = (body[i : i + 100] for i in range(0, len(body), 100))
    answer = httpx.post(server.url + WEBHOOK, content=parts, headers=server.signer.headers(body))
    assert answer.json() == {"status": "stored"}


def test_the_content_type_does_not_matter(server: Server) -> None:
    headers = {"Content-Type": "text/plain; charset=utf-16"}
    assert server.post(payload(), headers=headers).json() == {"status": "stored"}


def test_over_a_mebibyte_is_too_large(server: Server) -> None:
    large = b'"' + b"x" * (1 << 20) + b'"'
    assert server.post(large).status_code == 413
    chunks = (large[i : i + 65_536] for i in range(0, len(large), 65_536))
    try:
        answer = httpx.post(
            server.url + WEBHOOK, content=chunks, headers=server.signer.headers(large)
        )
    except httpx.WriteError:
        return  # refused while it was still being sent
    assert answer.status_code == 413


def test_a_mebibyte_is_not_too_large(server: Server) -> None:
    body = json.dumps(payload()).encode()
    body += b" " * ((1 << 20) - len(body))
    assert server.post(body).json() == {"status": "stored"}


def test_a_sender_that_leaves_in_the_middle_changes_nothing(server: Server) -> None:
    before = stored(server)
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(
            f"POST {WEBHOOK} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 500\r\n\r\n{{".encode()
        )
    assert server.post(payload()).json() == {"status": "stored"}
    assert stored(server) == before + 1


def test_unknown_addresses_are_not_found(server: Server) -> None:
    assert server.post(payload(), path="/webhooks/other/").status_code == 404
    assert server.post(payload(), path="/webhooks/lc-email/a/b/").status_code == 404


@pytest.fixture(scope="module")
def path(server: Server) -> str:
    line = server.manage("create_source", "--name", "white label", "--location", LOCATION)
    return httpx.URL(line.strip().splitlines()[-1]).path


@pytest.fixture(scope="module")
def hmac_path(server: Server) -> str:
    line = server.manage(
        "create_source", "--name", "signed label", "--location", LOCATION,
        "--hmac-secret", "s3cret", "--hmac-header", "X-Wl-Signature",
    )  # fmt: skip
    return httpx.URL(line.strip().splitlines()[-1]).path


class TestNamedSource:
    """``/webhooks/lc-email/<key>/``: the key vouches, or an HMAC does."""

    def test_its_key_vouches_and_its_location_stands_in(self, server: Server, path: str) -> None:
        flat = {
            "event": "delivered",
            "recipient": "contact@example.com",
            "Message-Id": f"<flat{next(_count)}@example.com>",
            "timestamp": int(time.time()),
        }
        assert httpx.post(server.url + path, json=flat).json() == {"status": "stored"}

    def test_not_json_is_malformed(self, server: Server, path: str) -> None:
        answer = httpx.post(server.url + path, content=b"no json")
        assert (answer.status_code, answer.json()) == (400, {"status": "malformed"})

    def test_an_unknown_key_is_unverified(self, server: Server) -> None:
        answer = httpx.post(server.url + WEBHOOK + "x" * 32 + "/", json=payload())
        assert answer.status_code == 401

    def test_an_hmac_is_checked_where_one_is_set(self, server: Server, hmac_path: str) -> None:
        body = json.dumps(payload()).encode()
        right = hmac.digest(b"s3cret", body, "sha256").hex()
        url = server.url + hmac_path
        assert httpx.post(url, content=body).status_code == 401
        wrong = httpx.post(url, content=body, headers={"X-Wl-Signature": "0" * 64})
        assert wrong.status_code == 401
        answer = httpx.post(url, content=body, headers={"X-Wl-Signature": right})
        assert answer.json() == {"status": "stored"}

    def test_a_key_does_not_make_the_other_address_open(self, server: Server, path: str) -> None:
        assert httpx.post(server.url + WEBHOOK, json=payload()).status_code == 401


def test_a_webhook_of_another_app_is_ignored(
    tmp_path_factory: pytest.TempPathFactory, engine: str
) -> None:
    folder = tmp_path_factory.mktemp("app")
    with running("uvicorn", engine, folder, WEBHOOK_APP_ID="ours") as server:
        assert server.post(payload(appId="theirs")).json() == {"status": "ignored"}
        assert server.post(payload(appId="ours")).json() == {"status": "stored"}
        assert server.post(payload()).json() == {"status": "stored"}
        assert stored(server) == 2
        server.stop()
        assert counted(server) == {"another app": 1, "stored": 2}


@pytest.mark.parametrize("kind", ["daphne", "uvicorn"])
def test_answers_are_counted_though_nothing_succeeds_and_once_it_stops(
    kind: str, tmp_path_factory: pytest.TempPathFactory, engine: str
) -> None:
    with running(kind, engine, tmp_path_factory.mktemp("counted")) as server:
        url, body = server.url + WEBHOOK, json.dumps(payload()).encode()
        for headers in ({}, Signer().headers(body), {"X-WH-Signature": "A" * 684}):
            assert httpx.post(url, content=body, headers=headers).status_code == 401
        httpx.get(url)
        expected = {
            "no signature": 1, "wrong signature": 1, "rsa refused": 1, "method not allowed": 1,
        }  # fmt: skip
        deadline = time.monotonic() + 20
        while (found := counted(server)) != expected and time.monotonic() < deadline:
            time.sleep(0.2)
        assert found == expected
        for _ in range(20):
            server.post(body)
        server.stop()
        assert counted(server) == expected | {"stored": 1, "duplicate": 19}
        verdicts = server.query("SELECT verdicts FROM ingest_recentsignatures")
        assert verdicts == [("00" + "1" * 20,)]


class TestQuarantine:
    """``WEBHOOK_QUARANTINE``: the day that HighLevel changes its keys."""

    def test_what_the_keys_do_not_verify_is_set_apart_and_stored_with_the_next(
        self, tmp_path_factory: pytest.TempPathFactory, engine: str
    ) -> None:
        folder = tmp_path_factory.mktemp("quarantine")
        with running("uvicorn", engine, folder, WEBHOOK_QUARANTINE="1") as server:
            next_key = Signer()
            changed = replace(server, signer=next_key)
            body = payload()
            for _ in range(2):  # a retry is held once
                answer = changed.post(body)
                assert (answer.status_code, answer.json()) == (200, {"status": "quarantined"})
            assert httpx.post(server.url + WEBHOOK, json=payload()).status_code == 401
            assert server.post(payload()).json() == {"status": "stored"}
            tables = ("quarantinedwebhook", "event", "keptwebhook")
            assert [stored(server, table) for table in tables] == [1, 1, 0]
            assert "1 quarantined" in server.manage("replay_kept")

            changed.env = server.env | {"WEBHOOK_ED25519_KEYS": next_key.public_pem}
            assert changed.manage("replay_kept").startswith("quarantined: 1 stored")
            assert [stored(server, table) for table in tables] == [0, 2, 0]
            assert changed.manage("recount", "--check")

    def test_a_source_s_wrong_hmac_is_set_apart_too(
        self, tmp_path_factory: pytest.TempPathFactory, engine: str
    ) -> None:
        folder = tmp_path_factory.mktemp("quarantine")
        with running("daphne", engine, folder, WEBHOOK_QUARANTINE="1") as server:
            line = server.manage(
                "create_source", "--name", "hoop", "--location", LOCATION,
                "--hmac-secret", "s3cret", "--hmac-header", "X-Hoop-Sum",
            )  # fmt: skip
            url = line.strip().splitlines()[-1].replace(":8000", f":{server.port}")
            body = json.dumps(payload()).encode()
            wrong = httpx.post(url, content=body, headers={"X-Hoop-Sum": "0" * 64})
            assert (wrong.status_code, wrong.json()) == (200, {"status": "quarantined"})
            assert httpx.post(url, content=body).status_code == 401
            unknown = server.url + WEBHOOK + "x" * 32 + "/"
            assert httpx.post(unknown, content=body).status_code == 401
            held = server.query(
                "SELECT s.name, q.headers FROM ingest_quarantinedwebhook q"
                " JOIN ingest_source s ON s.id = q.source_id"
            )
            assert held == [("hoop", json.dumps({"x-hoop-sum": "0" * 64}))]

    def test_it_is_off_by_default(self, server: Server) -> None:
        assert replace(server, signer=Signer()).post(payload()).status_code == 401
        assert stored(server, "quarantinedwebhook") == 0


def test_what_nobody_expected_is_asked_to_come_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*call: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(edge, "refusal", fail)
    monkeypatch.setattr(recorder, "nudge", lambda: None)
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"a body", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {"path": WEBHOOK, "method": "POST", "headers": []}
    with caplog.at_level(logging.ERROR, "ingest.edge"):
        asyncio.run(edge.edge(scope, receive, send))
    assert sent[0]["status"] == 429
    assert (b"retry-after", b"5") in sent[0]["headers"]
    assert sent[1]["body"] == b'{"status":"busy"}'
    assert hashlib.blake2b(b"a body", digest_size=16).hexdigest() in caplog.text
