"""The list of deliveries: complete at first paint, steady page by page, closed to strangers."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils.html import escape

from dashboard.access import Rights
from dashboard.filters import parse
from dashboard.pages import PAGES
from dashboard.pages.deliveries import ROWS, mark
from ingest import counting
from ingest.models import Location
from ingest.normalize import Detail
from ingest.vocabulary import BounceClass, Category, EventKind, Flag, Outcome
from tests.dashboard import rows
from tests.dashboard.test_views import HOSTILE, page, words

pytestmark = pytest.mark.django_db
EVERYTHING = Rights(everything=True)


@pytest.fixture
def now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture
def staff(client: Client) -> Iterator[Client]:
    client.force_login(User.objects.create_user("anna", is_staff=True))
    yield client


def send(now: datetime, number: int = 1, **columns: Any) -> int:
    """A delivery of some minutes ago, and its event; returns its key."""
    kind = columns.pop("kind", EventKind.DELIVERED)
    detail = columns.pop("detail", None)
    columns.setdefault("sent_at", now - timedelta(minutes=5, seconds=number))
    made = rows.delivery(number, **columns)
    reason, code = columns.get("reason"), columns.get("code")
    rows.event(made, kind=kind, detail=detail, reason=reason, code=code)
    return made.pk


def bounce(now: datetime, number: int = 1, **columns: Any) -> int:
    defaults: dict[str, Any] = {
        "outcome": Outcome.BOUNCED,
        "kind": EventKind.BOUNCED,
        "category": Category.INVALID_RECIPIENT,
        "bounce_class": BounceClass.HARD,
        "code": 550,
        "detail": Detail(enhanced="5.1.1", message="no such user"),
    }
    return send(now, number, **(defaults | columns))


def count(now: datetime) -> None:
    counting.rebuild(now=int(now.timestamp() * 1e6))


def recipients(html: str) -> list[str]:
    return re.findall(r'class="open">([^<]*)<', html)


def test_strangers_are_sent_to_the_login(client: Client) -> None:
    assert client.get("/deliveries/").status_code == 302


def test_a_row_says_what_happened_and_why(staff: Client, now: datetime) -> None:
    bounce(now, flags=Flag.LATE, provider="Outlook", campaign="workflow:spring")
    Location.objects.update(name="Bright Smile Dental")
    count(now)
    text = words(page(staff, "/deliveries/"))
    assert "1 delivery, as of" in text
    assert "✕ Bounced r1@example.com late invalid recipient 550 5.1.1 no such user" in text
    assert "Bright Smile Dental Workflow spring Outlook" in text
    assert "Sent (UTC)" in text


def test_blocked_mail_and_mail_that_waits_say_so(staff: Client, now: datetime) -> None:
    bounce(now, 1, category=Category.REPUTATION_BLOCK, bounce_class=BounceClass.BLOCK)
    send(
        now, 2, outcome=Outcome.DEFERRED, kind=EventKind.DEFERRED,
        deferred_as=[Category.GREYLISTED], code=451, detail=Detail(message="later"),
    )  # fmt: skip
    text = words(page(staff, "/deliveries/"))
    assert "■ Blocked r1@example.com reputation block" in text
    assert "↻ Deferred r2@example.com greylisted 451 later" in text


def test_times_are_those_of_the_zone_that_is_asked_for(staff: Client) -> None:
    send(datetime(2026, 11, 22, 10, 5, 1, tzinfo=UTC))
    text = words(page(staff, "/deliveries/?from=2026-11-22&to=2026-11-23&tz=Asia/Kolkata"))
    assert "Sent (Asia/Kolkata)" in text
    assert "22 Nov 15:30:00" in text


def test_choices_lead_to_lists_of_their_numbers(staff: Client, now: datetime) -> None:
    send(now, 1)
    bounce(now, 2)
    bounce(now, 3)
    count(now)
    html = page(staff, "/deliveries/?tag=-x")
    text = words(html)
    assert "✓ Delivered 1" in text
    assert "✕ Bounced 2" in text
    assert "invalid recipient 2" in text
    href = re.search(r'href="([^"]*outcome=bounced[^"]*)"', html)
    assert href
    shown = page(staff, "/deliveries/" + href[1].replace("&amp;", "&"))
    assert recipients(shown) == ["r2@example.com", "r3@example.com"]
    assert 'aria-current="true"><span aria-hidden="true">✕</span> Bounced <b>2</b>' in shown


def test_pages_are_steady_while_mail_arrives(staff: Client, now: datetime) -> None:
    for number in range(ROWS + 10):
        send(now, number)
    first = page(staff, "/deliveries/")
    assert len(recipients(first)) == ROWS
    older = re.search(r'rel="next" href="([^"]*)"', first)
    assert older
    send(now, 999, sent_at=now)
    second = page(staff, "/deliveries/" + older[1].replace("&amp;", "&"))
    assert recipients(second) == [f"r{number}@example.com" for number in range(ROWS, ROWS + 10)]
    newer = re.search(r'rel="prev" href="([^"]*)"', second)
    assert newer
    back = page(staff, "/deliveries/" + newer[1].replace("&amp;", "&"))
    assert recipients(back) == recipients(first)


def test_links_to_another_filter_begin_at_its_newest(staff: Client, now: datetime) -> None:
    for number in range(ROWS + 1):
        send(now, number)
    older = re.search(r'rel="next" href="([^"]*)"', page(staff, "/deliveries/"))
    assert older
    html = page(staff, "/deliveries/" + older[1].replace("&amp;", "&"))
    choices = html[html.index('id="facets"') : html.index('class="list-head"')]
    assert "before=" not in choices


def test_a_search_looks_far_back(staff: Client, now: datetime) -> None:
    send(now, 1, recipient="jane@example.org", sent_at=now - timedelta(days=60))
    answer = staff.get("/deliveries/?q=jane&range=")
    assert answer.status_code == 302
    assert recipients(page(staff, answer["Location"])) == ["jane@example.org"]
    assert recipients(page(staff, "/deliveries/?q=jane&range=24h")) == []


def test_words_of_a_refusal_lead_to_its_list(staff: Client, now: datetime) -> None:
    reason = rows.reason("550 blocked using ‹host› block list")
    bounce(now, reason=reason)
    html = page(staff, "/deliveries/?q=block+list&range=90d")
    assert "550 blocked using ‹host› block list" in html
    assert f"reason={reason.pk}" in html
    assert recipients(page(staff, f"/deliveries/?reason={reason.pk}&range=90d"))


def test_refusals_of_others_are_not_offered(client: Client, now: datetime) -> None:
    rows.reason("550 blocked using ‹host› block list")
    client.force_login(User.objects.create_user("vera"))
    assert "550 blocked" not in page(client, "/deliveries/?q=block+list&range=90d")


def test_an_empty_list_offers_to_look_further_back(staff: Client) -> None:
    html = page(staff, "/deliveries/?tag=x")
    assert "No delivery matches." in html
    assert "Look through the last 90 days" in html


def test_what_people_and_servers_say_is_escaped(staff: Client, now: datetime) -> None:
    bounce(
        now, recipient=HOSTILE, campaign=HOSTILE, provider=HOSTILE, reason=rows.reason(HOSTILE),
        detail=Detail(message=HOSTILE),
    )  # fmt: skip
    Location.objects.update(name=HOSTILE)
    for path in ("/deliveries/", "/deliveries/?q=script&range=90d"):
        html = page(staff, path)
        assert "<script>alert" not in html
        assert "<img src=x" not in html
    assert escape(HOSTILE)[:20] in html


def test_only_what_may_be_seen_is_listed(client: Client, now: datetime) -> None:
    from dashboard.models import Membership

    user = User.objects.create_user("vera")
    Membership.objects.create(user=user, location=rows.location("loc"))
    client.force_login(user)
    send(now, 1, location_ref="loc")
    send(now, 2, location_ref="other")
    count(now)
    html = page(client, "/deliveries/")
    assert recipients(html) == ["r1@example.com"]
    assert "1 delivery, as of" in words(html)
    page(client, "/deliveries/?location=other", status=404)
    page(client, "/deliveries/?location=nowhere", status=404)


@pytest.mark.parametrize("query", ["before=x", "after=1", "before=1.1&after=1.1", "outcome=late"])
def test_what_cannot_be_read_is_refused_in_a_sentence(staff: Client, query: str) -> None:
    page(staff, f"/deliveries/?{query}", status=400)


# --- What has come since -----------------------------------------------------------------------


def newer(query: str, painted: str, now: datetime) -> str:
    listed = PAGES["deliveries"]
    filter = parse([tuple(p.split("=")) for p in query.split("&") if p], now=now)  # type: ignore[misc]
    asked = listed.ask(filter, EVERYTHING, {"mark": painted} if painted else {})
    return words(listed.region("newer").changes(asked, {}))


def test_what_came_since_the_page_was_painted_is_counted(now: datetime) -> None:
    old = rows.delivery(1, sent_at=now)
    rows.event(old)
    painted = mark()
    assert newer("", painted, now) == "Nothing newer"
    send(now, 2)
    send(now, 3)
    assert newer("", painted, now) == "2 newer : show".replace(" :", ":")
    rows.event(old, kind=EventKind.OPENED)
    assert newer("", painted, now) == "2 newer, 1 changed: show"
    assert newer("outcome=bounced", painted, now) == "Nothing newer"


def test_without_a_mark_what_stands_there_stays(now: datetime) -> None:
    for painted in ("", "x", "1.2.3", "9" * 30 + ".1", "-1.1"):
        assert newer("", painted, now) == ""


def test_after_very_many_events_nobody_counts(now: datetime, monkeypatch: Any) -> None:
    monkeypatch.setattr("dashboard.pages.deliveries.NEWER_EVENTS", 1)
    painted = mark()
    for number in range(3):
        send(now, number)
    assert newer("", painted, now) == "Many newer: show"


def test_the_list_itself_is_left_alone(now: datetime) -> None:
    send(now)
    listed = PAGES["deliveries"]
    asked = listed.ask(parse([], now=now), EVERYTHING, {"mark": mark()})
    assert "deliveries" not in listed.changes(asked, {}).replace("/deliveries/", "")
