"""Both sockets by everybody, on a real server: who gets in, and what never reaches them."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from dashboard.pages import PAGES
from tests.security.world import PEOPLE
from tests.serving import Server, running

pytestmark = pytest.mark.both_engines

MAKE = """
import json
from tests.security.world import PEOPLE, make_world
world = make_world()
sides = {name: [side.ref, side.typed, side.told, side.mails, side.campaign, side.pks["reason"],
    side.pks["delivery"]] for name, side in (("ours", world.ours), ("theirs", world.theirs))}
cookies = {person: world.client(person).cookies.get("sessionid") for person in PEOPLE}
print(json.dumps([sides, {name: found and found.value for name, found in cookies.items()}]))
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, engine: str) -> Iterator[Server]:
    with running("uvicorn", engine, tmp_path_factory.mktemp("security")) as server:
        yield server


@pytest.fixture(scope="module")
def world(server: Server) -> tuple[dict[str, list[Any]], dict[str, str]]:
    """The two sides, and the sessions of everybody."""
    found: tuple[dict[str, list[Any]], dict[str, str]] = json.loads(server.shell(MAKE))
    return found


def open_socket(server: Server, path: str, session: str | None) -> ClientConnection:
    headers = {"Origin": server.url} | ({"Cookie": f"sessionid={session}"} if session else {})
    url = server.url.replace("http", "ws") + path
    return connect(url, additional_headers=headers, compression=None, open_timeout=10)


def first_frame(server: Server, path: str, session: str | None) -> str:
    """The first frame, or with what code and words the socket was closed."""
    with open_socket(server, path, session) as socket:
        try:
            return str(socket.recv(timeout=10))
        except ConnectionClosed as closed:
            assert closed.rcvd is not None
            return f"closed {closed.rcvd.code} {closed.rcvd.reason}"


def test_events_are_those_of_what_one_may_see(server: Server, world: Any) -> None:
    sides, sessions = world
    (ours, *_, mails, _, _, _), (theirs, *_, others, _, _, _) = sides["ours"], sides["theirs"]
    with pytest.raises(InvalidStatus):
        open_socket(server, "/ws/events/", sessions["anonymous"])
    seen = {"stranger": others, "viewer": mails, "operator": mails}
    for person in PEOPLE[1:]:
        frame = json.loads(first_frame(server, "/ws/events/?after=0", sessions[person]))
        assert len(frame["events"]) == 3 * seen.get(person, mails + others), person
        words = sides["ours" if person == "stranger" else "theirs"][1:3]
        if person in seen:
            assert not any(word in json.dumps(frame).lower() for word in words), person
    for person, ref in (("stranger", ours), ("viewer", theirs), ("operator", theirs)):
        answers = {
            first_frame(server, f"/ws/events/?after=0&location={name}", sessions[person])
            for name in (ref, "nowhere")
        }
        assert answers == {"closed 4404 no such location"}, person


def test_no_page_s_socket_tells_of_another_client(server: Server, world: Any) -> None:
    sides, sessions = world
    with pytest.raises(InvalidStatus):
        open_socket(server, "/ws/live/", sessions["anonymous"])
    ref, typed, told, _, campaign, reason, delivery = sides["theirs"]
    subjects = {"location": ref, "campaign": campaign, "reason": reason, "delivery": delivery}
    for name, page in PAGES.items():
        for subject in {f"&{page.subject}={subjects[page.subject]}", ""} if page.subject else {""}:
            path = f"/ws/live/?view={name}&range=7d{subject}"
            text = first_frame(server, path, sessions["viewer"]).lower()
            for word in (str(subjects.get(page.subject, "")).lower(), f"camp-{typed}"):
                text = text.replace(word, "") if word and subject else text
            assert told not in text and typed not in text, path
