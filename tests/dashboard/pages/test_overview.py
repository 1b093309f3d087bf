"""The overview through Django's client: cards, strip, table, reasons; for whom, and how linked."""

import html
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from dashboard.access import Rights
from dashboard.filters import parse
from dashboard.models import Membership, Note
from dashboard.pages import PAGES, changes
from dashboard.pages.locations import PER_PAGE
from dashboard.pages.page import Asked
from dashboard.refreshed import Kept
from dashboard.spans import hour_of
from ingest import counting
from ingest.models import (
    Location,
    LocationHour,
    QualityHour,
    ReasonHour,
    RecentSignatures,
)
from ingest.normalize import Detail
from ingest.vocabulary import BounceClass, Category, Dimension, EventKind, Outcome
from tests.dashboard import lives, rows

pytestmark = pytest.mark.django_db
HOSTILE = '<script>alert(1)</script>"><img src=x onerror=alert(2)>'


@pytest.fixture
def now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture
def staff(client: Client) -> Client:
    client.force_login(User.objects.create_user("anna", is_staff=True))
    return client


def counted(now: datetime, ref: str, ago: int = 3, **counts: int) -> int:
    """A location's counters of an hour."""
    where = rows.location(ref)
    LocationHour.objects.create(location=where, hour=hour_of(now) - ago, **counts)
    return where.pk


def over(now: datetime, ref: str) -> int:
    """A location that HighLevel counts over."""
    return counted(now, ref, sent=900, bounced=90, hard=90, delivered=810)


def page(client: Client, path: str = "/") -> str:
    answer = client.get(path)
    assert answer.status_code == 200
    return answer.content.decode()


def part(text: str, start: str, end: str = "</section>") -> str:
    return text[text.index(start) :].partition(end)[0]


def words(text: str) -> str:
    plain = re.sub(r"<[^>]+>", " ", text).replace("\xa0", " ")
    return " ".join(html.unescape(plain).split())


def names(text: str) -> list[str]:
    """The locations of the table, in its order."""
    return re.findall(r'<th scope="row" class="who"><a href="[^"]+">([^<]+)', text)


# --- Needs you -----------------------------------------------------------------------------


def test_who_needs_somebody_is_said_with_a_message_to_copy(staff: Client, now: datetime) -> None:
    over(now, "bright")
    Location.objects.update(name="Bright Smile Dental")
    text = page(staff)
    card = part(text, '<section id="needs"')
    assert "Bright Smile Dental" in card
    assert "10 % hard bounces; HighLevel counts this as over 5 %." in words(card)
    assert "90 of 900" in words(card)
    assert 'data-copy="Hello Bright Smile Dental,' in card
    assert 'data-count="1"' in card


def test_three_cards_and_how_many_more(staff: Client, now: datetime) -> None:
    for number in range(7):
        over(now, f"loc-{number}")
    card = part(page(staff), '<section id="needs"')
    assert card.count('<li class="card need') == 3
    assert "and 4 more" in card
    assert 'data-count="7"' in card
    assert "state=needs" in card


def test_nothing_needs_you(staff: Client, now: datetime) -> None:
    counted(now, "fine", sent=5000, delivered=5000)
    counted(now, "new", sent=10, delivered=10)
    said = words(part(page(staff), '<section id="needs"'))
    assert "Nothing needs you. 1 of 2 locations is inside every limit, 1 too early to tell." in said


def test_silence_and_signatures_are_causes(staff: Client, now: datetime) -> None:
    counted(now, "silent", sent=5000, delivered=5000)
    where, hour = rows.location("silent"), hour_of(now)
    for ago in (4, 24 * 7 + 1, 24 * 7 + 2):
        QualityHour.objects.create(location=where, hour=hour - ago, events=30)
    RecentSignatures.objects.create(verdicts="0" * 20)
    said = words(part(page(staff), '<section id="needs"'))
    assert "No webhook is believed" in said
    assert "60 were due" in said


def test_an_incident_is_one_card_and_blames_no_client(staff: Client, now: datetime) -> None:
    refusal = rows.reason(
        "550 5.7.1 s3150", category=Category.REPUTATION_BLOCK, bounce_class=BounceClass.BLOCK
    )
    outlook = rows.value(Dimension.PROVIDER, "Outlook")
    pool = rows.value(Dimension.POOL, "b")
    for number in range(4):
        pk = counted(
            now, f"loc-{number}", sent=600, bounced=60, block=60, block_high=60, delivered=540
        )
        ReasonHour.objects.create(
            location_id=pk, hour=hour_of(now) - 3, reason=refusal, provider=outlook, pool=pool,
            kind=EventKind.BOUNCED, events=60,
        )  # fmt: skip
    card = part(page(staff), '<section id="needs"')
    assert card.count('<li class="card need') == 1
    assert "Outlook is refusing mail" in words(card)
    assert "240 times" in words(card)
    assert "not your clients" in words(card)
    assert "Copy message" not in card


def test_strangers_to_a_location_learn_nothing_of_it(client: Client, now: datetime) -> None:
    over(now, "secret")
    over(now, "mine")
    RecentSignatures.objects.create(verdicts="0" * 20)
    user = User.objects.create_user("vera")
    Membership.objects.create(user=user, location=rows.location("mine"))
    client.force_login(user)
    text = page(client)
    assert "secret" not in text
    assert "No webhook is believed" not in text
    assert names(text) == ["mine"]


# --- The fleet and its table -----------------------------------------------------------------


def test_the_strip_counts_and_filters(staff: Client, now: datetime) -> None:
    over(now, "bad")
    counted(now, "fine", sent=5000, delivered=5000)
    text = page(staff)
    strip = words(part(text, '<nav id="fleet"', "</nav>"))
    assert "1 over " in strip
    assert "1 inside" in strip
    assert names(page(staff, "/?state=over")) == ["bad"]
    assert names(page(staff, "/?state=needs")) == ["bad"]
    assert names(page(staff, "/?state=inside")) == ["fine"]
    assert staff.get("/?state=odd").status_code == 400


def test_riskiest_first_and_25_a_page(staff: Client, now: datetime) -> None:
    over(now, "z-bad")
    for number in range(30):
        counted(now, f"loc-{number:02}", sent=5000, delivered=5000 - number, bounced=number)
    first = names(page(staff))
    assert first[0] == "z-bad"
    assert first[1] == "loc-29"
    assert len(first) == PER_PAGE
    second = page(staff, "/?page=2")
    assert len(names(second)) == 6
    assert not set(names(second)) & set(first)
    assert "26–31 of 31" in words(second)
    assert len(names(page(staff, "/?page=99"))) == 6
    assert staff.get("/?page=x").status_code == 400


def test_more_locations_ask_no_more_queries(
    staff: Client, now: datetime, django_assert_max_num_queries: Any
) -> None:
    for number in range(6):
        over(now, f"loc-{number}")
    page(staff)  # notes that they have looked
    with CaptureQueriesContext(connection) as six:
        page(staff)
    for number in range(6, 20):
        over(now, f"loc-{number}")
    with django_assert_max_num_queries(len(six) + 3):  # not one for each of fourteen
        page(staff)


def test_a_location_is_found_by_name_or_id(staff: Client, now: datetime) -> None:
    for ref in ("abc", "def"):
        counted(now, ref, sent=10)
    Location.objects.filter(ref="def").update(name="Bright Smile")
    assert names(page(staff, "/?find=SMILE")) == ["Bright Smile"]
    assert names(page(staff, "/?find=ab")) == ["abc"]
    nothing = page(staff, "/?find=%3Cb%3E")
    assert names(nothing) == []
    assert "No location is like that." in nothing
    assert 'value="&lt;b&gt;"' in nothing


def test_a_filter_by_mail_leaves_those_who_sent_it(staff: Client, now: datetime) -> None:
    for number, (ref, tags) in enumerate((("with", ("promo",)), ("without", ()))):
        made = rows.delivery(
            number, location_ref=ref, tags=tags, sent_at=now - timedelta(minutes=5)
        )
        rows.event(made)
    counting.rebuild(now=int(now.timestamp() * 1e6))
    assert sorted(names(page(staff))) == ["with", "without"]
    assert names(page(staff, "/?tag=promo")) == ["with"]


def test_what_servers_and_people_wrote_is_escaped(staff: Client, now: datetime) -> None:
    made = rows.delivery(
        1, sent_at=now - timedelta(minutes=5), outcome=Outcome.BOUNCED, campaign=HOSTILE,
        bounce_class=BounceClass.HARD, reason=rows.reason(HOSTILE), recipient=HOSTILE,
    )  # fmt: skip
    rows.event(
        made, kind=EventKind.BOUNCED, detail=Detail(message=HOSTILE), reason=made.reason,
        bounce_class=BounceClass.HARD,
    )  # fmt: skip
    counting.rebuild(now=int(now.timestamp() * 1e6))
    over(now - timedelta(hours=2), "loc")
    Location.objects.update(name=HOSTILE)
    text = page(staff)
    assert "<script>alert" not in text
    assert "<img src=x" not in text
    assert "&lt;script&gt;" in text


# --- While it is open ------------------------------------------------------------------------


def test_regions_are_loaded_no_more_often_than_they_say(now: datetime) -> None:
    over(now, "a")
    shown = PAGES["overview"]
    state: dict[str, Any] = {}

    def changes(seconds: float) -> str:
        moment = now + timedelta(seconds=seconds)
        filter = parse([], now=moment, default_range="24h")
        return shown.changes(Asked(filter, Rights(everything=True), moment), state)

    assert 'id="needs"' in changes(0)
    over(now, "b")
    soon = changes(1)
    assert 'id="needs"' not in soon
    assert 'id="fleet"' in soon
    assert 'id="needs"' in changes(2)


def test_the_order_of_the_page_is_sent_with_its_rows(staff: Client, now: datetime) -> None:
    over(now, "bad")
    counted(now, "fine", sent=5000, delivered=5000)
    text = page(staff)
    (order,) = re.findall(r'data-order="([^"]+)"', text)
    assert order.split() == re.findall(r'<tr id="(locations-[^"]+)"', text)


def test_since_you_last_looked(staff: Client, now: datetime) -> None:
    assert "Since you last looked" not in page(staff)
    user = User.objects.get()
    earlier = timezone.now() - timedelta(hours=9)
    type(user.look).objects.update(seen_at=earlier)
    over(now, "bad")
    assert "1 new, 0 closed" in words(part(page(staff), '<p class="looked"', "</p>"))


@pytest.mark.parametrize("compare", ["previous", "week"])
def test_the_fleet_is_compared_with_what_is_asked_for(staff: Client, compare: str) -> None:
    lives.write(lives.lives(200, days=9))
    query = f"from=2026-09-29T00:00Z&to=2026-09-30T00:00Z&compare={compare}"
    total = staff.get(f"/api/rates/?by=day&{query}").json()["total"]
    now, then = (row["hard_bounce_rate"]["value"] for row in (total, total["before"]))
    card = words(part(page(staff, f"/?{query}"), '<dl id="totals"', "</dl>"))
    assert f"{'▲' if now > then else '▼'} {100 * abs(now - then):.1f}" in card


def test_what_changed_is_filled_in_later_over_much_mail(
    staff: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    lives.write(lives.lives(200, days=9))
    query = "from=2026-09-29T00:00Z&to=2026-09-30T00:00Z"

    def shown(more: str = "") -> str:
        return part(page(staff, f"/?{query}{more}"), 'id="changes"')

    assert "Locations Part Cause" in words(shown())
    assert "split by location and provider only" not in shown()
    monkeypatch.setattr(changes, "AT_ONCE", -1)
    assert "Over so much mail this takes a moment" in words(shown())
    assert "wait=changes" in shown()
    monkeypatch.setattr(changes, "MANY", 0)
    monkeypatch.setattr(changes, "_kept", Kept(lambda found: True))
    assert "split by location and provider only" in shown("&wait=changes")


def test_notes_of_the_last_hour_stand_on_its_chart(staff: Client, now: datetime) -> None:
    where = rows.location("loc")
    Note.objects.create(location=where, at=now - timedelta(minutes=20), text="Warm-up <began>")
    Note.objects.create(location=where, at=now - timedelta(hours=2), text="Long ago")
    chart = part(page(staff), 'id="minutes-plot"', "<figcaption")
    assert "Warm-up &lt;began&gt;" in chart
    assert "Long ago" not in chart
    assert 'class="pole"' in chart
    assert "Warm-up" not in page(staff, "/?company=another")
