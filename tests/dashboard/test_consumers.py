"""The sockets, on real servers: who gets in, what they see, in what order, and how they end."""

import contextlib
import json
import re
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
import redis
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from ingest import publish
from tests.serving import Server, free_port

pytestmark = pytest.mark.both_engines
_count = iter(range(10**9))


@pytest.fixture(scope="module")
def token(server: Server) -> str:
    return server.token("watcher")


def send(server: Server, **changes: Any) -> str:
    """Send one delivered event; returns its provider id."""
    number = next(_count)
    tags = changes.pop("tags", [])
    location = changes.pop("location", "loc-a")
    payload = {
        "event": "delivered",
        "id": f"event-{number}",
        "timestamp": time.time(),
        "message": {"headers": {"message-id": f"m{number}@example.com"}},
        "recipient": f"jane{number}@example.org",
        "tags": tags,
    } | changes
    answer = server.post(
        {"type": "LCEmailStats", "locationId": location, "webhookPayload": payload}
    )
    assert answer.json() == {"status": "stored"}
    return f"event-{number}"


def open_socket(
    server: Server, query: str, token: str = "", path: str = "/ws/events/", **headers: str
) -> ClientConnection:
    if token:
        headers["Authorization"] = f"Bearer {token}"
    url = server.url.replace("http", "ws") + path + (f"?{query}" if query else "")
    return connect(url, additional_headers=headers, compression=None, open_timeout=10)


def receive(socket: ClientConnection, count: int, timeout: float = 10) -> list[dict[str, Any]]:
    """The next ``count`` event rows, however many frames they come in."""
    rows: list[dict[str, Any]] = []
    deadline = time.monotonic() + timeout
    while len(rows) < count:
        frame = json.loads(socket.recv(timeout=max(0.1, deadline - time.monotonic())))
        assert frame.keys() == {"events", "cursor"}
        rows += frame["events"]
        if frame["events"]:
            assert frame["cursor"] >= frame["events"][-1]["cursor"]
    return rows


def test_an_event_arrives_with_its_row(server: Server, token: str) -> None:
    with open_socket(server, "", token) as socket:
        first = json.loads(socket.recv(timeout=10))
        assert first["events"] == []
        sent = send(server, tags=["promo"])
        row = receive(socket, 1)[0]
    assert row["cursor"] > first["cursor"]
    assert (row["event_id"], row["kind"], row["location"]) == (sent, "delivered", "loc-a")
    assert {"occurred_at", "received_at", "message_id", "recipient", "code", "message"} <= set(row)


def test_who_sees_addresses_masked_is_sent_none(server: Server) -> None:
    send(server, location="masking")
    reader = server.token("masked", staff=False, locations=("masking",))
    server.shell(
        "from ingest.models import Location;"
        "Location.objects.filter(ref='masking').update(masks_recipients=True)"
    )
    said = {"code": 550, "message": "zebulon is unknown, zebulon@example.org"}
    sent = {"recipient": "zebulon@example.org", "delivery-status": said, "severity": "permanent"}
    for path in ("/ws/events/", "/ws/live/"):
        with open_socket(server, "", reader, path=path) as socket:
            socket.recv(timeout=10)
            send(server, location="masking", event="failed", **sent)
            text = ""
            while "z•••@example.org" not in text:
                text += str(socket.recv(timeout=10))
            assert "zebulon" not in text


@pytest.mark.parametrize("path", ["/ws/events/", "/ws/live/"])
def test_strangers_are_refused(server: Server, path: str) -> None:
    for headers in ({}, {"Origin": server.url}, {"Authorization": "Bearer sw_wrong"}):
        with pytest.raises(InvalidStatus) as refused:
            open_socket(server, "", path=path, **headers)
        assert refused.value.response.status_code == 403


def test_a_session_needs_an_origin_of_ours(server: Server) -> None:
    cookie = login(server, "session-user")
    with open_socket(server, "", Cookie=cookie, Origin=server.url) as socket:
        assert json.loads(socket.recv(timeout=10))["events"] == []
    for headers in ({"Origin": "https://evil.example"}, {}):
        with pytest.raises(InvalidStatus):
            open_socket(server, "", Cookie=cookie, **headers)


def login(server: Server, username: str) -> str:
    """A session cookie of a staff user with a session made by logging in."""
    server.shell(
        "from django.contrib.auth.models import User;"
        f"User.objects.create_user({username!r}, password='a long passphrase', is_staff=True)"
    )
    with httpx.Client(base_url=server.url) as client:
        page = client.get("/login/")
        answer = client.post(
            "/login/",
            data={
                "username": username,
                "password": "a long passphrase",
                "csrfmiddlewaretoken": client.cookies["csrftoken"],
            },
            headers={"Referer": str(page.url)},
        )
        assert answer.status_code == 302
        return f"sessionid={client.cookies['sessionid']}"


def test_filters_choose_by_location_and_tag(server: Server, token: str) -> None:
    send(server, location="loc-a")
    send(server, location="loc-b")
    with (
        open_socket(server, "location=loc-b", token) as by_location,
        open_socket(server, "tag=vip&tag=news", token) as by_tag,
        open_socket(server, "tag=-vip&location=loc-a", token) as excluding,
    ):
        for socket in (by_location, by_tag, excluding):
            socket.recv(timeout=10)
        a = send(server, location="loc-a", tags=["vip"])
        b = send(server, location="loc-b", tags=["news"])
        c = send(server, location="loc-a", tags=["other"])
        assert [row["event_id"] for row in receive(by_location, 1)] == [b]
        assert [row["event_id"] for row in receive(by_tag, 2)] == [a, b]
        assert [row["event_id"] for row in receive(excluding, 1)] == [c]


@pytest.mark.parametrize(
    "query", ["nonsense=1", "range=2h", "after=x", "after=1&after=2", "is=odd"]
)
def test_a_malformed_filter_is_closed_with_a_sentence(
    server: Server, token: str, query: str
) -> None:
    with open_socket(server, query, token) as socket, pytest.raises(ConnectionClosed) as closed:
        socket.recv(timeout=10)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4400
    assert len(closed.value.rcvd.reason) > 10


def test_an_unknown_location_is_not_found(server: Server, token: str) -> None:
    with (
        open_socket(server, "location=nowhere", token) as socket,
        pytest.raises(ConnectionClosed) as closed,
    ):
        socket.recv(timeout=10)
    assert closed.value.rcvd is not None and closed.value.rcvd.code == 4404


def test_after_resumes_with_what_came_since_and_then_goes_on(server: Server, token: str) -> None:
    with open_socket(server, "", token) as socket:
        cursor = json.loads(socket.recv(timeout=10))["cursor"]
    missed = [send(server) for _ in range(5)]
    with open_socket(server, f"after={cursor}", token) as socket:
        rows = receive(socket, 5)
        live = [send(server) for _ in range(5)]
        rows += receive(socket, 5)
    assert [row["event_id"] for row in rows] == missed + live
    with open_socket(server, f"after={rows[2]['cursor']}", token) as socket:
        assert [row["event_id"] for row in receive(socket, 7)] == (missed + live)[3:]


def test_every_socket_gets_every_event_once_in_order_however_it_joins(
    server: Server, token: str
) -> None:
    """Sockets that join in the middle of traffic, with and without a cursor, miss nothing."""
    with open_socket(server, "", token) as socket:
        cursor = json.loads(socket.recv(timeout=10))["cursor"]
    with ThreadPoolExecutor(9) as pool:
        sending = pool.map(lambda _: send(server), range(300))
        joined = []
        for _ in range(6):
            joined.append(pool.submit(_follow, server, token, cursor, 300))
            time.sleep(0.05)
        sent = set(sending)
        seen = [future.result() for future in joined]
    for rows in seen:
        cursors = [row["cursor"] for row in rows]
        assert cursors == sorted(set(cursors))
        assert {row["event_id"] for row in rows} == sent


def test_a_crowd_that_resumes_after_a_restart_misses_nothing(server: Server, token: str) -> None:
    with open_socket(server, "", token) as socket:
        cursor = json.loads(socket.recv(timeout=10))["cursor"]
    missed = [send(server) for _ in range(20)]
    server.stop()
    server.start()
    with ThreadPoolExecutor(20) as pool:
        followed = [pool.submit(_follow, server, token, cursor, 20) for _ in range(20)]
        for each in followed:
            assert [row["event_id"] for row in each.result()] == missed


def _follow(server: Server, token: str, cursor: int, count: int) -> list[dict[str, Any]]:
    with open_socket(server, f"after={cursor}", token) as socket:
        return receive(socket, count, timeout=30)


def test_a_member_sees_the_locations_of_the_membership_only_and_as_long(server: Server) -> None:
    send(server, location="loc-a")
    send(server, location="loc-b")
    token = server.token("member", staff=False, locations=("loc-b",))
    with open_socket(server, "location=loc-a", token) as foreign:
        with pytest.raises(ConnectionClosed) as closed:
            foreign.recv(timeout=10)
        assert closed.value.rcvd is not None and closed.value.rcvd.code == 4404
    with open_socket(server, "", token) as socket:
        socket.recv(timeout=10)
        send(server, location="loc-a")
        mine = send(server, location="loc-b")
        assert [row["event_id"] for row in receive(socket, 1)] == [mine]
        server.shell("from dashboard.models import Membership; Membership.objects.all().delete()")
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(timeout=10)
        assert closed.value.rcvd is not None and closed.value.rcvd.code == 4403


def test_a_token_that_may_not_read_is_refused(server: Server) -> None:
    token = server.token("exporter", scopes=("export",))
    with pytest.raises(InvalidStatus) as refused:
        open_socket(server, "", token)
    assert refused.value.response.status_code == 403


# Somebody for each way in which rights end, and what ends them; two of them have a token.
ENDS = {
    "leaver": "client.logout()",
    "changer": "user.set_password('another long passphrase'); user.save()",
    "gone": "User.objects.filter(pk=user.pk).update(is_active=False)",
    "moved": "user.memberships.all().delete()",
    "revoked": "user.api_tokens.all().delete()",
    "expired": "user.api_tokens.update(expires_at=user.date_joined)",
}
MAKE = """
from django.contrib.auth.models import User; from django.test import Client
from dashboard.models import ApiToken, Membership; from ingest.models import Location
location, _ = Location.objects.get_or_create(ref="loc-ends")
def way_in(name):
    user = User.objects.create_user(name)
    Membership.objects.create(user=user, location=location)
    client = Client(); client.force_login(user)
    token = ApiToken.issue(user_id=user.pk) if name in ("revoked", "expired") else ""
    return token, "sessionid=" + client.cookies["sessionid"].value
print(__import__("json").dumps({name: way_in(name) for name in ENDS}))
"""
END = """
from importlib import import_module; from django.conf import settings
from django.contrib.auth.models import User; from django.test import Client
for name, statement in ENDS.items():
    user, client = User.objects.get(username=name), Client()
    client.cookies["sessionid"] = WAYS[name][1].partition("=")[2]
    exec(statement)
"""


def test_whatever_ends_rights_ends_the_open_sockets_within_seconds(server: Server) -> None:
    ways = json.loads(server.shell(f"ENDS = {ENDS!r}\n{MAKE}"))
    with contextlib.ExitStack() as stack:
        sockets = {}
        for name, (token, cookie) in ways.items():
            headers = {} if token else {"Cookie": cookie, "Origin": server.url}
            for path in ("/ws/events/", "/ws/live/"):
                socket = open_socket(server, "", token, path, **headers)
                sockets[name, path] = stack.enter_context(socket)
                socket.recv(timeout=10)
        server.shell(f"ENDS, WAYS = {ENDS!r}, {ways!r}\n{END}")
        began = time.monotonic()
        for which, socket in sockets.items():
            with pytest.raises(ConnectionClosed) as closed:
                while True:
                    socket.recv(timeout=10)
            assert closed.value.rcvd is not None and closed.value.rcvd.code == 4403, which
        assert time.monotonic() - began < 5


MAKE_LINK = """
from datetime import UTC, datetime
from dashboard.models import ClientLink; from ingest.models import Location
link = ClientLink.objects.create(
    location=Location.objects.get(ref="loc-link"), expires_at=datetime(2200, 1, 1, tzinfo=UTC)
)
print(link.token)
"""


def test_a_client_link_opens_the_live_page_of_its_location_only_and_as_long(
    server: Server,
) -> None:
    for location in ("loc-link", "loc-a"):
        send(server, location=location)
    link = server.shell(MAKE_LINK)
    own = {"Origin": server.url}
    refused: list[tuple[str, str, dict[str, str]]] = [
        ("/ws/events/", f"link={link}", own),
        ("/ws/live/", f"view=location&location=loc-link&link={link}", {"Origin": "https://evil"}),
        ("/ws/live/", f"view=location&location=loc-link&link={link[:-1]}", own),
    ]
    for path, query, headers in refused:
        with pytest.raises(InvalidStatus):
            open_socket(server, query, path=path, **headers)
    for query in ("view=overview", "view=location&location=loc-a"):
        with (
            open_socket(server, f"{query}&link={link}", path="/ws/live/", **own) as socket,
            pytest.raises(ConnectionClosed) as closed,
        ):
            socket.recv(timeout=10)
        assert closed.value.rcvd is not None and closed.value.rcvd.code == 4404
    query = f"view=location&location=loc-link&link={link}"
    with open_socket(server, query, path="/ws/live/", **own) as socket:
        first = str(socket.recv(timeout=10))
        assert 'id="gauges"' in first and 'href="/' not in first and "loc-a" not in first
        assert "j•••@example.org" in first and "jane" not in first
        server.shell(
            "from dashboard.models import ClientLink; from django.utils import timezone;"
            "ClientLink.objects.update(revoked_at=timezone.now())"
        )
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                socket.recv(timeout=10)
        assert closed.value.rcvd is not None and closed.value.rcvd.code == 4403


def test_live_sends_everything_at_first_and_then_what_changed(server: Server, token: str) -> None:
    send(server, location="loc-live")
    with open_socket(server, "", token, path="/ws/live/") as socket:
        first = socket.recv(timeout=10)
        send(server, location="loc-live", event="complained")
        second = socket.recv(timeout=10)
    assert "loc-live" in first
    assert "complained" in second.lower()
    assert len(second) < len(first)


def test_live_tells_who_comes_back_how_much_was_missed(server: Server, token: str) -> None:
    send(server, location="loc-back")
    with open_socket(server, "location=loc-back", token, path="/ws/live/") as socket:
        (cursor,) = re.findall(r'<i [^>]*data-cursor="(\d+)"', str(socket.recv(timeout=10)))
    for _ in range(3):
        send(server, location="loc-back")
        send(server, location="loc-other")
    query = f"location=loc-back&after={cursor}"
    with open_socket(server, query, token, path="/ws/live/") as socket:
        frame = str(socket.recv(timeout=10))
        assert 'data-missed="3"' in frame
        assert frame.count("<li id=") == 3
        send(server, location="loc-back")
        lines = 0
        while not lines:  # frames of numbers may come before
            lines = str(socket.recv(timeout=10)).count("<li id=")
        assert lines == 1
    with open_socket(server, "after=-1", token, path="/ws/live/") as socket:
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(timeout=10)
        assert closed.value.rcvd is not None and closed.value.rcvd.code == 4400


@pytest.mark.postgresql_only
def test_a_socket_hears_of_what_another_process_has_stored(server: Server, token: str) -> None:
    other = Server("uvicorn", server.env, server.signer, free_port())
    other.start()
    try:
        with open_socket(server, "", token) as socket:
            socket.recv(timeout=10)
            began = time.monotonic()
            sent = send(other)
            assert [row["event_id"] for row in receive(socket, 1)] == [sent]
            assert time.monotonic() - began < 2
    finally:
        other.stop()


@pytest.mark.postgresql_only
def test_the_bell_rings_on_the_layer_and_says_nothing_else(server: Server) -> None:
    with redis.Redis.from_url(server.env["REDIS_URL"]) as client, client.pubsub() as layer:
        layer.psubscribe("sendwatch*")
        assert layer.get_message(timeout=5)
        sent = send(server)
        heard = layer.get_message(timeout=5)
    assert heard is not None
    assert publish.GROUP.encode() in heard["channel"]
    assert sent.encode() not in heard["data"]
