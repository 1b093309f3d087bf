"""Client links: who makes them, what they open, what they never open, and how they end."""

import re
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import URLPattern, get_resolver

from dashboard.access import LinkPass, client_link, rights_by
from dashboard.client_links import confined
from dashboard.models import AuditEntry, ClientLink, Membership
from ingest.models import Location
from ingest.vocabulary import Category, EventKind, Outcome
from tests.dashboard import rows

pytestmark = pytest.mark.django_db
RECIPIENT = "jane.doe@example.com"


@pytest.fixture
def place() -> Location:
    """A location with a delivery and a bounce in the last hour, beside another's."""
    now = datetime.now(UTC) - timedelta(minutes=5)
    for number, ref in enumerate(("loc", "strange-loc")):
        bounced = rows.delivery(
            number,
            location_ref=ref,
            recipient=f"{ref}.{RECIPIENT}",
            campaign=f"campaign-of-{ref}",
            tags=(f"tag-of-{ref}",),
            outcome=Outcome.BOUNCED,
            category=Category.INVALID_RECIPIENT,
            sent_at=now,
        )
        rows.event(bounced, kind=EventKind.BOUNCED, received_at=now)
    Location.objects.filter(ref="loc").update(name="Bright Smile")
    return Location.objects.get(ref="loc")


@pytest.fixture
def link(place: Location) -> ClientLink:
    end = datetime.now(UTC) + timedelta(days=1)
    return ClientLink.objects.create(location=place, name="Dr. Bright", expires_at=end)


def operator(place: Location, role: str = "operator") -> Client:
    user = User.objects.create_user(role)
    Membership.objects.create(user=user, location=place, role=role)
    client = Client()
    client.force_login(user)
    return client


class Links(HTMLParser):
    """Gathers where links and forms lead."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        names = {"a": ("href",), "form": ("action",)}.get(tag, ("hx-get", "formaction"))
        self.found += [text for name in names if (text := given.get(name)) is not None]


def test_an_operator_makes_lists_and_revokes_one(place: Location, client: Client) -> None:
    by = operator(place)
    asked = {"name": "Dr. Bright", "days": "30", "next": "/locations/loc/"}
    page = by.post("/locations/loc/links/", asked, follow=True).content.decode()
    link = ClientLink.objects.get()
    assert abs(link.expires_at - datetime.now(UTC) - timedelta(days=30)) < timedelta(minutes=1)
    assert f"http://testserver/c/{link.token}/" in page
    assert link.token not in str(ClientLink.objects.values())
    assert client.get(f"/c/{link.token}/").status_code == 200
    assert "last used" in by.get("/locations/loc/").content.decode()
    by.post(f"/locations/loc/links/{link.pk}/")
    assert client.get(f"/c/{link.token}/").status_code == 404
    assert "opens nothing any more" in by.get("/locations/loc/").content.decode()
    assert "Dr. Bright" not in by.get("/locations/loc/").content.decode()
    entries = AuditEntry.objects.order_by("pk").values_list("action", "actor", "location_id")
    assert list(entries) == [
        (action, "operator", place.pk) for action in ("make client link", "revoke client link")
    ]


@pytest.mark.parametrize("asked", [{"name": "", "days": "30"}, {"name": "x", "days": "4000"}])
def test_a_link_is_for_somebody_and_ends(place: Location, asked: dict[str, str]) -> None:
    assert operator(place).post("/locations/loc/links/", asked).status_code == 302
    assert not ClientLink.objects.exists()


def test_viewers_make_and_see_none(place: Location, link: ClientLink) -> None:
    by = operator(place, "viewer")
    assert by.post("/locations/loc/links/", {"name": "x", "days": "7"}).status_code == 403
    assert by.post(f"/locations/loc/links/{link.pk}/").status_code == 403
    assert "Dr. Bright" not in by.get("/locations/loc/").content.decode()
    theirs = operator(rows.location("strange-loc"))
    assert theirs.post(f"/locations/loc/links/{link.pk}/").status_code == 404
    assert theirs.post(f"/locations/strange-loc/links/{link.pk}/").status_code == 404


def test_it_shows_its_location_and_leads_nowhere_else(link: ClientLink, client: Client) -> None:
    answer = client.get(f"/c/{link.token}/?range=7d")
    page = answer.content.decode()
    assert "Bright Smile" in page and "campaign-of-loc" in page
    assert "strange-loc" not in page
    assert RECIPIENT not in page and "•@example.com" in page
    assert "Dr. Bright" not in page, "for whom it is, is the agency's note"
    assert [to for to in Links(page).found if not to.startswith(("?", "#"))] == []
    assert answer["Referrer-Policy"] == "no-referrer"
    assert "noindex" in answer["X-Robots-Tag"] and "no-store" in answer["Cache-Control"]
    assert not answer.cookies, "it makes no session"
    assert "csrfmiddlewaretoken" not in page


def test_filters_work_within_it(
    link: ClientLink, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    address = f"/c/{link.token}/"
    filtered = client.get(f"{address}?range=7d&tag=tag-of-loc&compare=previous&by=tag")
    assert filtered.status_code == 200
    chip = re.search(r'class="chip".*?href="([^"]*)"', filtered.text, re.S)
    assert chip is not None and chip[1].startswith("?range=7d")
    form = {"at": "/locations/strange-loc/?range=7d", "name": "tag", "value": "tag-of-loc"}
    assert client.get(address, form)["Location"] == f"{address}?tag=tag-of-loc&range=7d"
    options = client.get(address, {"suggest": "", "name": "tag", "text": "tag-"}).json()
    assert [option["value"] for option in options["options"]] == ["tag-of-loc"]
    fragments = client.get(address, headers={"HX-Request": "true"}).content.decode()
    assert 'id="gauges"' in fragments and 'href="/' not in fragments
    for query in ("?range=2h", "?suggest&name=odd", "?at=&name=odd&value=x"):
        refused = client.get(address + query)
        assert refused.status_code == 400 and 'href="/"' not in refused.text
    assert link.token not in caplog.text


def test_no_end_of_a_link_tells_itself_from_another(link: ClientLink, client: Client) -> None:
    now = datetime.now(UTC)
    ended = ClientLink.objects.create(location=link.location, name="x", expires_at=now)
    revoked = ClientLink.objects.create(
        location=link.location, name="y", expires_at=link.expires_at, revoked_at=now
    )
    forged = link.key + "." + ended.token.partition(".")[2]
    tokens = (ended.token, revoked.token, forged, link.key, "x", "é\0", "." * 500)
    answers = [client.get("/c/" + token + "/") for token in tokens]
    answers.append(client.get(f"/c/{link.token}/?location=strange-loc"))
    answers.append(client.get(f"/c/{link.token}/?location=nowhere"))
    assert {answer.status_code for answer in answers} == {404}
    assert len({answer.content for answer in answers}) == 1
    assert len({str(sorted(answer.headers.items())) for answer in answers}) == 1
    assert not any(client_link(token, now=now) for token in tokens)
    assert not any(rights_by(LinkPass(token), now=now) for token in tokens)


def test_who_is_logged_in_sees_what_the_client_sees(link: ClientLink, admin_client: Client) -> None:
    page = admin_client.get(f"/c/{link.token}/").content.decode()
    assert "Log out" not in page and RECIPIENT not in page
    assert "Client links" not in page


def test_it_is_read_only(link: ClientLink, client: Client) -> None:
    for method in ("post", "put", "delete", "patch"):
        assert getattr(client, method)(f"/c/{link.token}/").status_code == 405


def test_no_other_address_takes_its_token(link: ClientLink, client: Client) -> None:
    headers = {"Authorization": f"Bearer {link.token}"}
    for pattern in get_resolver("dashboard.urls").url_patterns:
        if not isinstance(pattern, URLPattern) or pattern.name == "shared":
            continue
        path = re.sub(r"<str:ref>", "loc", str(pattern.pattern))
        path = "/" + re.sub(r"<[^>]+>", "1", path)
        answer = client.get(path, {"link": link.token, "token": link.token}, headers=headers)
        assert answer.status_code in (302, 401, 404, 405), path
        if answer.status_code == 302:
            assert answer["Location"].startswith("/login/"), path


def test_texts_of_links_that_lead_out_stay() -> None:
    html = '<a class="b" href="/x?a=1" rel="next"><b>1</b> two</a> <a href="?by=tag">by tag</a>'
    assert confined(html) == '<span class="b"><b>1</b> two</span> <a href="?by=tag">by tag</a>'
    assert confined('So it is. <a class="more" href="/status/">Is it?</a>') == "So it is. "
    assert confined('<a\nhref="https://x.example">y</a><a href="#main">z</a>') == (
        '<span>y</span><a href="#main">z</a>'
    )
