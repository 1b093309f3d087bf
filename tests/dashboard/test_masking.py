"""Who sees addresses masked sees them nowhere: every page, file, fragment and answer is walked."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import User
from django.test import AsyncClient, Client
from django.urls import URLPattern

from dashboard import feed, live, queries
from dashboard.access import rights_of, shown_recipient
from dashboard.filters import FilterError, parse
from dashboard.hub import encode_frames
from dashboard.masking import masked, unnamed, without
from dashboard.models import Membership, Note, SavedView
from dashboard.pages import PAGES
from dashboard.streams import Stream
from dashboard.urls import urlpatterns
from ingest import record
from ingest.ids import ids
from ingest.models import Delivery, Location, Reason
from tests.dashboard import rows

pytestmark = pytest.mark.django_db
LOCAL = "zebulon.q"
NAME = "zebulon"
JANE = f"{LOCAL}@example.com"
WORDS = [
    f"550 5.1.1 <{JANE.upper()}>: user {LOCAL} unknown",
    f"to=bounce+{LOCAL}=example.com@mg.example.org {LOCAL}@other.example gone",
]


@pytest.fixture
def mail() -> Iterator[Delivery]:
    """Mail to Jane that bounced, was opened and clicked, and her name in everything said."""
    ids.clear()
    at = datetime.now(UTC) - timedelta(hours=2)
    for number, word in enumerate(["accepted", "failed", "clicked", "failed", "delivered"]):
        payload = {
            "event": word,
            "severity": "permanent",
            "id": f"e{number}",
            "timestamp": at.timestamp() + number,
            "message": {"headers": {"message-id": f"m.{number // 3}.{LOCAL}=x@mg.example.org"}},
            "recipient": JANE,
            "tags": ["promo"],
            "url": f"https://shop.example/?email={JANE.replace('@', '%40')}",
            "delivery-status": {"code": 550, "message": WORDS[number // 2 % 2], "mx-host": "mx1"},
        }
        body = {"type": "LCEmailStats", "locationId": "loc", "webhookPayload": payload}
        item = record.item_from_body(orjson.dumps(body), received_at=int(at.timestamp() * 1e6))
        record.write_batch([item], now=item.received_at)
        assert item.status == "stored"
    place = Location.objects.get(ref="loc")
    Note.objects.create(location=place, at=at, text=f"{JANE} called")
    Note.objects.create(at=at, text=f"{JANE} called us all")
    place.masks_recipients = True
    place.save()
    yield Delivery.objects.order_by("id")[0]
    ids.clear()


def member(role: str) -> User:
    user = User.objects.create_user(role)
    Membership.objects.create(user=user, location=Location.objects.get(ref="loc"), role=role)
    return user


@pytest.fixture
def viewer(client: Client, mail: Delivery) -> Client:
    client.force_login(member("viewer"))
    return client


def addresses(mail: Delivery) -> Iterator[str]:
    """Every address that can be got, of the mail, made from the configuration of URLs."""
    keys = {"ref": "loc", "key": "(none)"}
    for pattern in urlpatterns:
        assert isinstance(pattern, URLPattern)
        route = str(pattern.pattern)
        for name, value in keys.items():
            route = route.replace(f"<str:{name}>", value).replace(f"<path:{name}>", value)
        pk = Reason.objects.order_by("id")[0].pk if "reason" in route else mail.pk
        yield "/" + route.replace("<int:pk>", str(pk))
    yield from ("/deliveries/?q=%40example.com&range=7d", "/deliveries/export/?format=json")
    yield from (f"/deliveries/{mail.pk}/?times=received&range=24h", "/locations/loc/?wait=repeats")
    yield from ("/api/deliveries/export/?format=csv", "/api/reasons/?range=7d", "/?range=7d")
    for name in ("location", "mx", "reason", "tag", "domain", "q"):
        yield f"/suggest/?name={name}&text=z"
        yield f"/suggest/?name={name}&location=loc"


def body(client: Client, path: str, **headers: str) -> str:
    """What is answered, in lower case; files are streamed, to asynchronous readers only."""
    answer = client.get(path, headers=headers)
    return exported(client, path) if answer.streaming else answer.content.decode().lower()


@async_to_sync
async def exported(client: Client, path: str) -> str:
    reader = AsyncClient()
    reader.cookies = client.cookies
    answer: Any = await reader.get(path)
    chunks = [chunk async for chunk in answer.streaming_content]
    return b"".join(chunks).decode().lower()


def test_a_viewer_reads_the_name_nowhere(viewer: Client, mail: Delivery) -> None:
    shown = 0
    for path in addresses(mail):
        for headers in ({}, {"HX-Request": "true"}):
            text = body(viewer, path, **headers)
            assert NAME not in text, path
            shown += "z•••@example.com" in text
    assert shown > 10


def test_the_same_walk_shows_an_operator_the_name(client: Client, mail: Delivery) -> None:
    client.force_login(member("operator"))
    shown = [path for path in addresses(mail) if LOCAL in body(client, path)]
    assert len(shown) > 8
    assert "•••@" not in body(client, f"/deliveries/{mail.pk}/")


def test_streams_and_feeds_tell_each_reader_apart(mail: Delivery) -> None:
    now = datetime.now(UTC)
    filter = parse([], now=now)
    rights = [rights_of(member(role)) for role in ("viewer", "operator")]
    read = queries.event_rows(after=0, limit=100)
    lines = [feed.Line(row) for row in read]
    for own, sees in zip(rights, (False, True), strict=True):
        frames = "".join(encode_frames(Stream(filter, own, 0).shown(read), 9)).lower()
        page = PAGES["deliveries"]
        asked = page.ask(filter, own, {})
        asked_feed = PAGES["overview"].ask(filter, own, {})
        html = live.feed(asked_feed, lines, 0, now=now) + live.everything(page, asked, {})
        for text in (frames, html.lower(), live.everything(PAGES["overview"], asked_feed, {})):
            assert (LOCAL in text.lower()) == sees
    assert rights[0] != rights[1]


@pytest.mark.parametrize(
    ("query", "status", "found"),
    [
        (f"q={LOCAL[:3]}", 400, 0),
        (f"q=-{LOCAL[:3]}", 400, 0),
        (f"q={JANE}", 200, 2),
        (f"q={LOCAL[:3]}@", 200, 0),
        ("q=@example.com", 200, 2),
    ],
)
def test_no_search_tells_a_name_letter_by_letter(
    viewer: Client, query: str, status: int, found: int
) -> None:
    for path in ("/api/deliveries/", "/api/events/", "/api/reasons/", "/deliveries/"):
        assert viewer.get(f"{path}?range=7d&{query}").status_code == status, path
    if status == 200:
        results = viewer.get(f"/api/deliveries/?{query}").json()["results"]
        assert len(results) == found


def test_a_search_elsewhere_is_nobodys_secret(viewer: Client) -> None:
    """Where the reader operates, or nothing is masked, beginnings are found as ever."""
    other = rows.location("other")
    Membership.objects.create(user=User.objects.get(username="viewer"), location=other)
    rows.delivery(90, location_ref="other", recipient=JANE, sent_at=datetime.now(UTC))
    found = viewer.get(f"/api/deliveries/?location=other&q={LOCAL[:3]}").json()["results"]
    assert [row["recipient"] for row in found] == [JANE]
    assert viewer.get(f"/api/deliveries/?q={LOCAL[:3]}").status_code == 400


def test_mail_elsewhere_does_not_tell_whose_it_is(viewer: Client, mail: Delivery) -> None:
    other = rows.location("other")
    Membership.objects.create(user=User.objects.get(username="viewer"), location=other)
    open_one = rows.delivery(90, location_ref="other", recipient=JANE, sent_at=mail.sent_at)
    assert f"/deliveries/{open_one.pk}/" not in body(viewer, f"/deliveries/{mail.pk}/")
    assert f"/deliveries/{mail.pk}/" not in body(viewer, f"/deliveries/{open_one.pk}/")


def test_views_that_others_share_name_nobody(viewer: Client, mail: Delivery) -> None:
    owner = User.objects.create_user("owner")
    SavedView.objects.create(
        owner=owner, name="hers", path="/deliveries/", query=f"q={JANE}", shared=True
    )
    assert LOCAL not in body(viewer, "/deliveries/")


def test_a_socket_is_another_when_masking_changes(mail: Delivery) -> None:
    user = member("viewer")
    before = rights_of(user)
    Location.objects.update(masks_recipients=False)
    assert rights_of(user) != before
    assert shown_recipient(rights_of(user), mail.location_id, JANE) == JANE


@pytest.mark.parametrize(
    ("address", "shown"),
    [("jane@x.org", "j•••@x.org"), ("@x.org", "•••@x.org"), ("odd", "o•••"), ("", "")],
)
def test_masked(address: str, shown: str) -> None:
    assert masked(address) == shown


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("user jane.d unknown", "user j••• unknown"),
        ("<Jane.D@X.org> and max@y.org", "<J•••@X.org> and m•••@y.org"),
        ("/?e=jane.d%40x.org&a=1", "/?e=j•••%40x.org&a=1"),
        ("jane.doe is another", "jane.doe is another"),
        ("prvs=1a-jane.d=x.org@mg.org", "prvs=1a-j•••=x•••@mg.org"),
    ],
)
def test_without(said: str, shown: str) -> None:
    assert without(said, "jane.d@x.org") == shown


def test_short_names_are_words_of_every_text() -> None:
    assert unnamed("to a friend: a@b.org", "a@b.org") == "to a friend: a•••@b.org"


def test_the_filter_says_why_it_refuses(mail: Delivery) -> None:
    filter: Any = parse([("q", "zeb")], now=datetime.now(UTC))
    with pytest.raises(FilterError, match="whole address"):
        filter.check_locations(rights_of(member("viewer")))
