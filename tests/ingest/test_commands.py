"""The commands of the ingest side: replay, create_source, send_demo_events."""

import io
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path
from typing import Any

import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_public_key,
)
from django.core.management import CommandError, call_command

from ingest import counting, demo, record
from ingest.ids import ids
from ingest.management.commands import send_demo_events
from ingest.management.commands.replay import BadLine, read_captured, read_time
from ingest.management.commands.send_demo_events import is_loopback, make_key, public_half
from ingest.models import Delivery, Event, KeptWebhook, Location, Source
from tests.serving import WEBHOOK, Server, free_port, running

NOW = 1_790_000_000 * demo.SECOND
PAYLOADS = Path(__file__).parent.parent / "payloads"


@pytest.fixture(autouse=True)
def forget_ids() -> Iterator[None]:
    ids.clear()
    yield
    ids.clear()


def run(*arguments: str, **options: Any) -> str:
    output = io.StringIO()
    call_command(*arguments, stdout=output, **options)
    return output.getvalue()


def payload(name: str) -> bytes:
    """A captured body in one line."""
    return orjson.dumps(orjson.loads((PAYLOADS / name).read_bytes()))


@pytest.fixture
def replayed(tmp_path: Path) -> Callable[..., str]:
    """``replayed(*lines)`` writes them to a file, replays it, and returns the last line."""

    def replay_lines(*lines: bytes) -> str:
        file = tmp_path / "captured.jsonl"
        file.write_bytes(b"\n".join(lines))
        return run("replay", str(file)).splitlines()[-1]

    return replay_lines


# --- replay -------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_replay_records_demo_traffic_once(replayed: Callable[..., str]) -> None:
    now = time.time_ns() // 1000  # as the command takes it
    webhooks = islice(demo.lives(1, now=now - demo.DAY, rate=50, locations=4), 1_200)
    lines = [orjson.dumps(body) for _, body in webhooks]
    mail = len(lines) - 8
    distinct = len({line for line in lines if b"LCEmailStats" in line})
    assert replayed(*lines) == (
        f"{distinct:,} stored, {mail - distinct} duplicate, 8 ignored, 0 kept, 0 bad"
    )
    assert Event.objects.count() == distinct
    assert not [*counting.differences(now=now)]
    deliveries = Delivery.objects.count()

    assert replayed(*lines) == f"0 stored, {mail:,} duplicate, 8 ignored, 0 kept, 0 bad"
    assert (Event.objects.count(), Delivery.objects.count()) == (distinct, deliveries)
    assert not [*counting.differences(now=now)]
    names = set(Location.objects.values_list("name", flat=True))
    assert names == {location.name for location in demo.demo_locations(1, 4)}


@pytest.mark.django_db
def test_replay_keeps_the_bytes_of_the_body(replayed: Callable[..., str]) -> None:
    body = payload("delivered.json").replace(b'","', b'",  "')
    replayed(
        b'{"received_at": 1790000000, "body": ' + body + b"}",
    )
    event = Event.objects.get()
    assert record.payload_of(event) == body
    assert event.received_at == datetime.fromtimestamp(1_790_000_000, UTC)


@pytest.mark.django_db
def test_nothing_was_captured_after_now(replayed: Callable[..., str]) -> None:
    replayed(b'{"received_at": 90000000000, "body": ' + payload("delivered.json") + b"}")
    assert Event.objects.get().received_at <= datetime.now(UTC)


@pytest.mark.django_db
def test_replay_takes_bodies_as_text(replayed: Callable[..., str]) -> None:
    body = payload("delivered.json")
    line = json.dumps({"body": body.decode(), "received_at": "2026-09-21T12:00:00Z"}).encode()
    assert replayed(line, body) == "1 stored, 1 duplicate, 0 ignored, 0 kept, 0 bad"
    assert record.payload_of(Event.objects.get()) == body


@pytest.mark.django_db
def test_replay_takes_a_body_that_has_a_body_of_its_own(replayed: Callable[..., str]) -> None:
    assert replayed(payload("flat_enveloped.json")).startswith("1 stored, ")


@pytest.mark.django_db
def test_replay_gives_a_line_to_its_source(replayed: Callable[..., str]) -> None:
    Source.objects.create(name="hoop", location_ref="locHoop")
    flat = payload("flat_bounced.json")
    line = b'{"source": "hoop", "body": ' + flat + b"}"
    assert replayed(line).startswith("1 stored, ")
    assert Event.objects.get().location.ref == "locHoop"


@pytest.mark.django_db
def test_replay_reports_bad_lines_and_does_the_rest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "captured.jsonl"
    lines = (
        b"\xef\xbb\xbf" + payload("delivered.json"),
        b"{not JSON",
        b"",
        b'{"body": {}, "received_at": "soon"}',
        b'{"body": {}, "source": "nobody"}',
        b'{"body": {}, "received_at": []}',
        b'{"neither": "mail"}',
        payload("opened.json"),
    )
    file.write_bytes(b"\r\n".join(lines))
    with pytest.raises(CommandError, match="4 lines hold no webhook"):
        call_command("replay", str(file))
    printed = capsys.readouterr()
    assert printed.out.splitlines()[-1] == "2 stored, 0 duplicate, 0 ignored, 1 kept, 4 bad"
    reported = printed.err.splitlines()
    assert [line.partition(":")[0] for line in reported] == ["line 2", "line 4", "line 5", "line 6"]
    assert "not JSON" in reported[0]
    assert "nobody" in reported[2]
    assert KeptWebhook.objects.get().body == lines[6]


@pytest.mark.django_db
def test_replay_reads_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(payload("delivered.json"))))
    assert run("replay", "-").startswith("1 stored, ")


@pytest.mark.django_db
def test_replay_ignores_other_apps(replayed: Callable[..., str], settings: Any) -> None:
    body = orjson.loads(payload("delivered.json")) | {"appId": "theirs"}
    settings.WEBHOOK_APP_ID = "ours"
    assert replayed(orjson.dumps(body)) == "0 stored, 0 duplicate, 1 ignored, 0 kept, 0 bad"
    assert not Event.objects.exists()


@pytest.mark.django_db
def test_replay_leaves_the_database_to_others_between_batches(
    replayed: Callable[..., str], engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    lines = [b'{"number": %d}' % number for number in range(1_001)]
    assert replayed(*lines) == "0 stored, 0 duplicate, 0 ignored, 1,001 kept, 0 bad"
    assert pauses == ([0.02] * 3 if engine == "sqlite" else [])


def test_replay_names_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="nowhere.jsonl cannot be read: No such file"):
        run("replay", str(tmp_path / "nowhere.jsonl"))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (1_790_000_000, NOW),
        (1_790_000_000.25, NOW + 250_000),
        (1_790_000_000_250, NOW + 250_000),
        ("1790000000.0", NOW),
        ("2026-09-21T14:13:20Z", NOW),
        ("2026-09-21T16:13:20.5+02:00", NOW + 500_000),
        ("2026-09-21T14:13:20", NOW),
    ],
)
def test_receipt_times_are_read(value: str | float | None, expected: int | None) -> None:
    assert read_time(value) == expected


@pytest.mark.parametrize("value", ["soon", "", "2026-13-01T00:00:00Z", -1, "nan", 1e300, "inf"])
def test_receipt_times_that_are_none_are_refused(value: str | float) -> None:
    with pytest.raises(BadLine, match="received_at"):
        read_time(value)


def test_a_body_that_is_text_may_be_anything() -> None:
    assert read_captured(b'{"body": "a\\u00e9 b"}') == ("aé b".encode(), None, "")
    with pytest.raises(BadLine):
        read_captured(b'{"body": "\\ud800"}')


# --- create_source ------------------------------------------------------------------------------


@pytest.mark.django_db
def test_create_source_prints_the_address_alone_on_the_last_line(
    monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    monkeypatch.setenv("PORT", "8123")
    last = run("create_source", "--name", "hoop", "--location", "locHoop").splitlines()[-1]
    source = Source.objects.get()
    assert last == f"http://127.0.0.1:8123{WEBHOOK}{source.key}/"
    assert (source.name, source.location_ref, source.enabled) == ("hoop", "locHoop", True)
    settings.PUBLIC_URL = "https://mail.example.com"
    last = run("create_source", "--name", "other").splitlines()[-1]
    assert last == f"https://mail.example.com{WEBHOOK}{Source.objects.get(name='other').key}/"
    assert len(source.key) >= 32


@pytest.mark.django_db
def test_create_source_with_an_hmac() -> None:
    run(
        "create_source", "--name", "hoop", "--hmac-secret", "s3cret",
        "--hmac-header", "x-wl-signature", "--hmac-encoding", "base64",
    )  # fmt: skip
    source = Source.objects.get()
    assert source.hmac_secret == "s3cret"
    assert (source.hmac_header, source.hmac_encoding) == ("x-wl-signature", "base64")


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--name", "hoop"], "named hoop exists already"),
        (["--name", "new", "--hmac-secret", "s"], "belong together"),
        (["--name", "new", "--hmac-header", "h"], "belong together"),
        (["--name", "  "], "blank"),
        (["--name", "new", "--hmac-secret", "s", "--hmac-header", "h", "--hmac-encoding", "x"],
         "invalid choice"),
    ],
)  # fmt: skip
def test_create_source_refuses(arguments: list[str], message: str) -> None:
    Source.objects.create(name="hoop")
    with pytest.raises(CommandError, match=message):
        run("create_source", *arguments)
    assert Source.objects.count() == 1


# --- send_demo_events ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:8000/x", "http://localhost/x", "http://[::1]:8000/x", "https://127.9.9.9/"],
)
def test_this_machine_is_sent_to(url: str) -> None:
    assert is_loopback(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/x", "http://10.0.0.1/", "http://127.0.0.1.example.com/",
        "http://127.0.0.1@example.com/", "http://localhost.example.com/", "ftp://127.0.0.1/",
        "127.0.0.1:8000/x", "http:///x", "http://0.0.0.0/", "",
    ],
)  # fmt: skip
def test_nobody_else_is_sent_to(url: str) -> None:
    assert not is_loopback(url)
    with pytest.raises(CommandError, match="not on this machine"):
        run("send_demo_events", "--url", url)


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "demo_key.pem"
    assert make_key(path)
    return path


def test_a_key_is_made_once_and_is_nobody_elses(key: Path) -> None:
    private = key.read_bytes()
    assert not make_key(key)
    assert key.read_bytes() == private
    assert key.stat().st_mode & 0o777 == 0o600
    load_pem_public_key(public_half(key).read_bytes())


def test_make_key_prints_the_public_half(settings: Any, tmp_path: Path) -> None:
    settings.DATA_DIR = tmp_path / "new"
    printed = run("send_demo_events", "--make-key").strip()
    assert Path(printed) == tmp_path / "new" / "demo_key.pub.pem"
    assert b"PUBLIC KEY" in Path(printed).read_bytes()


def test_a_key_of_another_kind_is_refused(tmp_path: Path) -> None:
    key = generate_private_key(SECP256R1())
    path = tmp_path / "key.pem"
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    for wrong, message in ((path, "another kind"), (tmp_path / "none.pem", "cannot be read")):
        with pytest.raises(CommandError, match=message):
            run("send_demo_events", "--key", str(wrong))


@pytest.fixture
def server(tmp_path: Path, engine: str, key: Path) -> Iterator[Server]:
    accepted = str(public_half(key))
    with running(
        "uvicorn", engine, tmp_path / "run", WEBHOOK_EXTRA_ED25519_KEYS=accepted
    ) as server:
        yield server


@pytest.mark.both_engines
def test_demo_traffic_is_recorded_by_a_server(server: Server, key: Path) -> None:
    url = server.url + WEBHOOK
    printed = run(
        "send_demo_events", "--url", url, "--key", str(key), "--seconds", "3", "--rate", "40",
        "--history", "30", "--locations", "5", "--seed", "4",
    )  # fmt: skip
    counts = {word: int(n) for n, word in (part.split() for part in printed.strip().split(", "))}
    assert counts.keys() <= {"stored", "duplicate", "ignored", "tried again"}
    assert counts["ignored"] == 10
    assert counts["stored"] > 500
    assert "every counter" in server.manage("recount", "--check")
    assert server.query("SELECT count(*) FROM ingest_event") == [(counts["stored"],)]


@pytest.mark.both_engines
def test_a_server_that_goes_away_ends_the_traffic(
    server: Server, key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(send_demo_events, "WAIT_LATER", 0.5)
    stop = threading.Timer(2, server.stop)
    stop.start()
    with pytest.raises(CommandError, match="cannot be reached"):
        run("send_demo_events", "--url", server.url + WEBHOOK, "--key", str(key), "--rate", "50")
    stop.join()


def test_nobody_there_ends_the_traffic(key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(send_demo_events, "WAIT_AT_START", 0.3)
    url = f"http://127.0.0.1:{free_port()}/"
    with pytest.raises(CommandError, match="cannot be reached"):
        run("send_demo_events", "--url", url, "--key", str(key))


class Receiver(ThreadingHTTPServer):
    """Another's server: answers with the status codes it is given, then 200."""

    daemon_threads = True

    def __init__(self, *codes: int) -> None:
        self.codes, self.bodies = list(codes), [b""][:0]
        super().__init__(("127.0.0.1", 0), _Answer)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"


class _Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        code = self.server.codes.pop() if self.server.codes else 200
        if code == 200:
            self.server.bodies.append(body)
        answer = b'{"status": "stored"}'
        self.send_response(code)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        thread = threading.Thread(target=receiver.serve_forever, args=(0.05,))
        thread.start()
        yield receiver
        receiver.shutdown()
        thread.join()


def test_what_is_refused_for_now_comes_again(receiver: Receiver, key: Path) -> None:
    receiver.codes = [429, 503, 500]
    printed = run(
        "send_demo_events", "--url", receiver.url, "--key", str(key), "--seconds", "1",
        "--rate", "30",
    )  # fmt: skip
    assert "3 tried again" in printed
    sent = [demo_id["webhookId"] for demo_id in map(orjson.loads, receiver.bodies)]
    assert len({*sent}) >= 48  # the introductions alone, none lost


def test_a_refused_signature_says_what_to_do(receiver: Receiver, key: Path) -> None:
    receiver.codes = [401] * 40
    with pytest.raises(CommandError, match="WEBHOOK_EXTRA_ED25519_KEYS=.*demo_key.pub.pem"):
        run("send_demo_events", "--url", receiver.url, "--key", str(key))


def test_the_end_is_kept_though_mail_is_rare(receiver: Receiver, key: Path) -> None:
    started = time.monotonic()
    run(
        "send_demo_events", "--url", receiver.url, "--key", str(key), "--seconds", "1",
        "--rate", "0.001", "--locations", "1",
    )  # fmt: skip
    assert time.monotonic() - started < 3
    assert len(receiver.bodies) == 2


def test_a_long_pause_is_not_an_absence(
    receiver: Receiver, key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_Answer, "timeout", 0.1)  # closes what is kept, as servers do
    monkeypatch.setattr(send_demo_events, "WAIT_LATER", 0.1)
    now = time.time_ns() // 1000
    dues = (now, now + demo.SECOND, now + 2 * demo.SECOND)
    sender = send_demo_events.Sender(receiver.url, send_demo_events.load_key(key))
    sender.run(iter([(due, {"due": due}) for due in dues]), until=float("inf"))
    assert [orjson.loads(body)["due"] for body in receiver.bodies] == [*dues]


@pytest.mark.parametrize(
    "arguments", [["--rate", "0"], ["--seconds", "-1"], ["--locations", "0"], ["--history", "-2"]]
)
def test_senseless_numbers_are_refused(arguments: list[str], key: Path) -> None:
    with pytest.raises(CommandError, match=arguments[0]):
        run("send_demo_events", "--key", str(key), *arguments)


def test_a_rate_of_hundreds_is_kept_up(receiver: Receiver, key: Path) -> None:
    run(
        "send_demo_events", "--url", receiver.url, "--key", str(key), "--seconds", "3",
        "--rate", "200", "--locations", "1",
    )  # fmt: skip
    assert len(receiver.bodies) == pytest.approx(600, rel=0.3)
