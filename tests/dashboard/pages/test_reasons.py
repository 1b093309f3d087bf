"""The page of refusals: each once, in words, with its lists, and only what its reader may see."""

import re
from datetime import UTC, datetime, timedelta
from html import unescape
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from dashboard import reasons
from dashboard.access import Rights
from dashboard.bounded import TookTooLong
from dashboard.filters import parse
from dashboard.models import Membership
from dashboard.queries import deliveries_page
from ingest.models import Location, Reason
from tests.dashboard.lives import forget, write
from tests.dashboard.test_reasons import BLOCKED, NO_USER, SLOW, mail
from tests.ingest.events import START

pytestmark = pytest.mark.django_db
# Seconds from the events' beginning to some minutes ago.
NOW = (datetime.now(UTC) - timedelta(minutes=20)).timestamp() - START / 1e6
HOSTILE = {"code": 550, "enhanced": "5.7.1", "message": "<img src=x onerror=alert(1)> \"'{ip}"}


@pytest.fixture(autouse=True)
def _forget_ids() -> Any:
    forget()
    yield
    forget()


@pytest.fixture
def staff(client: Client) -> Client:
    client.force_login(User.objects.create_user("anna", is_staff=True))
    return client


def member(client: Client, *refs: str) -> Client:
    user = User.objects.create_user("bob")
    for ref in refs:
        Membership.objects.create(user=user, location=Location.objects.get(ref=ref))
    client.force_login(user)
    return client


def store(*told: Any) -> None:
    write(list(told), after=timedelta(seconds=NOW + 600))


def html(client: Client, path: str) -> str:
    answer = client.get(path)
    assert answer.status_code == 200
    return answer.content.decode()


def words(text: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", text)).replace("\xa0", " ").split())


def pk_of(part: str) -> int:
    return Reason.objects.get(text__contains=part).pk


def listed(url: str) -> int:
    """How many deliveries a link lists."""
    filter = parse(parse_qsl(urlsplit(unescape(url)).query), now=timezone.now())
    return len(deliveries_page(filter, Rights(everything=True), limit=100).rows)


def test_each_refusal_is_one_row_in_words_with_its_scope(staff: Client) -> None:
    store(
        *(mail(n, NOW - n, reply=BLOCKED, location="ab"[n % 2]) for n in range(3)),
        mail(9, NOW, reply=NO_USER, location="c", provider="Gmail", pool="q"),
    )
    text = words(html(staff, "/reasons/"))
    assert "1–2 of 2" in text
    assert "HighLevel's to fix" in text
    assert "your client's list" in text
    assert "2 of 2 locations that mail Outlook" in text
    assert "Outlook 3" in text
    assert "3 for good" in text


def test_what_receivers_say_is_escaped(staff: Client) -> None:
    store(mail(1, NOW, reply=HOSTILE))
    (pk,) = Reason.objects.values_list("pk", flat=True)
    for path in ("/reasons/", f"/reasons/{pk}/", f"/reasons/{pk}/?count=refusals"):
        page = html(staff, path)
        assert "<img" not in page
        assert "img src" in unescape(page)


def test_counts_list_their_mails(staff: Client) -> None:
    store(
        *(mail(n, NOW - n, reply=NO_USER) for n in range(4)),
        mail(8, NOW, reply=SLOW, kind="deferred"),
        mail(9, NOW),
    )
    page = html(staff, "/reasons/")
    found = re.findall(r'<a href="(/deliveries/\?[^"]*)">(\d+) (?:for good|put off)<', page)
    assert sorted(int(n) for _, n in found) == [1, 4]
    assert all(listed(url) == int(n) for url, n in found)


@pytest.mark.parametrize(
    ("query", "order"),
    [
        ("", ["no such user", "block list", "try again"]),
        ("?sort=newest", ["try again", "block list", "no such user"]),
        ("?sort=locations", ["block list", "no such user", "try again"]),
    ],
)
def test_rows_come_in_the_order_asked_for(staff: Client, query: str, order: list[str]) -> None:
    store(
        *(mail(n, NOW - 9_000, reply=NO_USER) for n in range(3)),
        *(mail(n, NOW - 5_400, reply=BLOCKED, location="ab"[n % 2]) for n in (3, 4)),
        mail(6, NOW, reply=SLOW, kind="deferred"),
    )
    page = html(staff, f"/reasons/{query}")
    places = [page.index(part) for part in order]
    assert places == sorted(places)


def test_only_new_leaves_out_what_was_given_before(staff: Client) -> None:
    day = 24 * 3_600
    store(
        mail(1, NOW - 3 * day, reply=NO_USER), mail(2, NOW, reply=NO_USER), mail(3, NOW, reply=SLOW)
    )
    assert "1–2 of 2" in words(html(staff, "/reasons/"))
    text = words(html(staff, "/reasons/?only=new"))
    assert "1–1 of 1" in text
    assert "new at Outlook" in text
    assert "no such user" not in text


def test_pages_follow_each_other(staff: Client) -> None:
    replies = [
        {"code": 550, "message": f"word{chr(97 + n // 26)}{chr(97 + n % 26)} said no to this"}
        for n in range(27)
    ]
    store(*(mail(n, NOW, reply=reply) for n, reply in enumerate(replies)))
    first = html(staff, "/reasons/")
    assert "1–25 of 27" in words(first)
    assert 'rel="next"' in first
    second = html(staff, "/reasons/?page=2")
    assert "26–27 of 27" in words(second)
    assert 'rel="prev"' in second


@pytest.mark.parametrize("query", ["page=0", "page=x", "sort=nothing", "only=old", "range=2h"])
def test_what_cannot_be_read_is_said(staff: Client, query: str) -> None:
    answer = staff.get(f"/reasons/?{query}")
    assert answer.status_code in (200, 400)
    if answer.status_code == 200:
        assert "page is a number" in words(answer.content.decode())


def test_nothing_refused_is_said(staff: Client) -> None:
    store(mail(1, NOW))
    assert "Nothing was refused in this range." in words(html(staff, "/reasons/"))
    assert "Nothing new was refused" in words(html(staff, "/reasons/?only=new"))


def test_filters_hold(staff: Client) -> None:
    store(
        mail(1, NOW, reply=NO_USER, location="a"),
        mail(2, NOW, reply=NO_USER, location="b"),
        mail(3, NOW, reply=SLOW, location="b"),
    )
    text = words(html(staff, "/reasons/?location=a"))
    assert "1–1 of 1" in text
    assert "1 for good" in text


def test_a_member_sees_what_met_their_own_locations(client: Client) -> None:
    store(
        mail(1, NOW, reply=NO_USER, location="a"),
        mail(2, NOW, reply=NO_USER, location="b"),
        mail(3, NOW, reply=SLOW, location="b"),
    )
    member(client, "a")
    text = words(html(client, "/reasons/"))
    assert "1–1 of 1" in text
    assert "1 of 1 location" in text
    assert client.get(f"/reasons/{pk_of('try again')}/").status_code == 404
    assert client.get("/reasons/999999/").status_code == 404
    assert client.get("/reasons/?location=b").status_code == 404


def test_a_refusal_that_grows_is_marked(staff: Client) -> None:
    day = 24 * 3_600
    store(
        mail(999, NOW - 5 * day, reply=SLOW, kind="deferred"),
        *(mail(n, NOW - 3_600 * (5 + n % 15), reply=SLOW, kind="deferred") for n in range(30)),
        *(mail(100 + n, NOW, reply=SLOW, kind="deferred") for n in range(60)),
    )
    assert "escalating" in words(html(staff, "/reasons/"))


def test_it_goes_by_the_time_of_refusals_whatever_the_clock(staff: Client) -> None:
    store(mail(1, NOW, reply=NO_USER))
    for clock in ("sent", "event"):
        text = words(html(staff, f"/reasons/?clock={clock}"))
        assert "1–1 of 1" in text
        assert "Last 24 h by event time" in text
    assert "Send time" not in words(html(staff, "/reasons/"))


def test_what_takes_too_long_is_said_in_its_part(
    staff: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(*_: Any, **__: Any) -> None:
        raise TookTooLong

    store(mail(1, NOW, reply=NO_USER))
    monkeypatch.setattr(reasons, "reasons", slow)
    said = "Too much to count for this range: choose a shorter one."
    assert said in words(html(staff, "/reasons/"))
    page = words(html(staff, f"/reasons/{pk_of('no such user')}/"))
    assert page.count(said) == 1
    assert "Your client can fix it" in page
