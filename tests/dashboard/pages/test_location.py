"""A location's page: what it says at first paint, of which mail, to whom, and where it leads."""

import re
from datetime import UTC, datetime, timedelta
from html import unescape
from typing import Any
from urllib.parse import parse_qsl

import pytest
from django.contrib.auth.models import User
from django.test import Client

from dashboard.filters import parse
from dashboard.models import Membership, Note
from ingest import counting
from ingest.fold import Facts, facts_json
from ingest.models import Delivery, Location
from ingest.vocabulary import BounceClass, Category, EventKind, Flag, Outcome
from tests.dashboard import rows

pytestmark = pytest.mark.django_db
HOSTILE = '<script>alert(1)</script>"><img src=x onerror=alert(2)>'


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """However busy the machine is, the first paint waits for what should be quick."""
    monkeypatch.setattr("dashboard.pages.later.AT_FIRST", 60.0)


@pytest.fixture
def now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture
def staff(client: Client) -> Client:
    client.force_login(User.objects.create_user("anna", is_staff=True))
    return client


def html_of(client: Client, path: str, status: int = 200) -> str:
    answer = client.get(path)
    assert answer.status_code == status
    return answer.content.decode()


def words(html: str) -> str:
    """The text of a page, spaces folded."""
    text = re.sub(r"<[^>]+>", " ", html)
    return " ".join(unescape(text).replace("\xa0", " ").split())


def region(html: str, name: str) -> str:
    """The words of a region, up to the next one."""
    start = html.index(f'id="{name}"')
    found = re.search(r"</(?:section|figure)>", html[start:])
    assert found
    return words(html[start - 200 : start + found.start()].partition(">")[2])


def send(now: datetime, number: int = 1, *, minutes: int = 90, **columns: Any) -> None:
    """A delivery of an hour and a half ago, and its event."""
    made = rows.delivery(number, sent_at=now - timedelta(minutes=minutes), **columns)
    rows.event(made, kind=EventKind.DELIVERED)


def hard(**columns: Any) -> dict[str, Any]:
    return {
        "outcome": Outcome.BOUNCED,
        "bounce_class": BounceClass.HARD,
        "category": Category.INVALID_RECIPIENT,
    } | columns


def count(now: datetime) -> None:
    counting.rebuild(now=int(now.timestamp() * 1e6))


def test_the_first_paint_is_complete(staff: Client, now: datetime) -> None:
    for number in range(8):
        send(now, number, campaign="workflow:91b8bbfe-9ce8", provider="Gmail", tags=("promo",))
    send(now, 8, campaign="bulk:1", provider="Outlook", **hard())
    send(now, 9, location_ref="other", campaign="bulk:2")
    count(now)
    html = html_of(staff, "/locations/loc/")
    assert "Sent 9 = Delivered 8 + Bounced 1" in region(html, "funnel")
    assert "1 bad address" in region(html, "funnel")
    assert "Workflow 91b8bbfe" in region(html, "breakdown-title")
    assert "Bulk 2" not in words(html)
    assert "Outlook 1" in region(html, "heat")
    assert "HighLevel acts from 500 mails on: 9 so far." in region(html, "gauges")
    assert "9 sent: 8 delivered, 1 bounced (1 hard, 0 blocked, 0 other)" in region(html, "timeline")
    assert "9 events came in" not in region(html, "quality")


def test_before_any_mail_it_says_so_and_never_nought_per_cent(staff: Client) -> None:
    rows.location()
    html = html_of(staff, "/locations/loc/")
    text = words(html)
    assert "No mail was sent in this range." in text
    assert "Nothing was delivered in this range." in text
    assert "no data" in region(html, "gauges")
    assert " 0 %" not in text.replace("Lines: 0", "")


@pytest.mark.parametrize(
    ("by", "shown"),
    [
        ("tag", "promo"),
        ("provider", "Gmail"),
        ("domain", "example.com"),
        ("sending_domain", "mg.example"),
        ("ip", "192.0.2.1"),
        ("pool", "pool-b"),
        ("category", "invalid recipient"),
        ("engagement", "Says nothing of risk"),
    ],
)
def test_every_tab_opens_without_a_script(
    staff: Client, now: datetime, by: str, shown: str
) -> None:
    send(
        now,
        tags=("promo", "vip"),
        ip="192.0.2.1",
        pool="pool-b",
        provider="Gmail",
        sending_domain="mg.example",
        **hard(),
    )
    count(now)
    html = html_of(staff, f"/locations/loc/?by={by}&compare=previous")
    assert shown in region(html, "breakdown-title")
    if by in ("tag", "ip", "pool", "category"):
        assert "rows overlap" in region(html, "breakdown-title")


def test_what_servers_and_clients_send_is_escaped(staff: Client, now: datetime) -> None:
    Location.objects.create(ref="loc", name=HOSTILE)
    send(now, 1, campaign=HOSTILE, provider=HOSTILE, tags=(HOSTILE,), **hard())
    Note.objects.create(at=now - timedelta(hours=1), text=HOSTILE)
    count(now)
    for by in ("campaign", "tag", "provider"):
        html = html_of(staff, f"/locations/loc/?by={by}")
        assert "<script>alert" not in html
        assert "<img src=x" not in html


def test_a_note_is_a_flag_on_the_chart_and_a_line_beneath_it(staff: Client, now: datetime) -> None:
    send(now)
    Note.objects.create(at=now - timedelta(hours=2), text="New list imported")
    count(now)
    html = html_of(staff, "/locations/loc/")
    assert "<title>New list imported</title>" in html
    assert "New list imported" in re.sub(r"<title>.*?</title>", "", html)


def test_the_chart_has_a_row_a_step_in_order(staff: Client, now: datetime) -> None:
    send(now)
    count(now)
    for query, step, least in (
        ("", 3600, 24),
        ("?range=7d", 3600, 7 * 24),
        ("?range=30d", 86400, 30),
    ):
        html = html_of(staff, f"/locations/loc/{query}")
        figure = html[html.index('<figure id="timeline"') :].partition("</figure>")[0]
        assert f'data-step="{step}"' in figure
        starts = re.findall(r'<th scope="row"><time datetime="([^"]+)"', figure)
        assert starts == sorted(starts)
        assert least <= len(starts) <= least + 2
        assert f'data-from="{starts[0]}"' in figure


def test_the_chart_counts_what_the_range_holds(staff: Client, now: datetime) -> None:
    send(now, 1, minutes=20)
    send(now, 2, minutes=70)
    count(now)
    assert "1 sent: 1 delivered" in region(html_of(staff, "/locations/loc/?range=1h"), "timeline")
    said = region(html_of(staff, "/locations/loc/?tz=Asia/Kolkata"), "timeline")
    assert "2 sent: 2 delivered" in said
    assert "Asia/Kolkata" in said


def test_what_changed_names_the_campaign(staff: Client, now: datetime) -> None:
    sent = int((now - timedelta(hours=30)).timestamp() * 1e6)
    facts = facts_json(Facts(first={EventKind.DELIVERED: sent}))
    for number in range(100):
        send(now, number, campaign="bulk:a", minutes=60 * 30, facts=facts)
        send(now, 1_000 + number, campaign="bulk:b", minutes=60 * 30, facts=facts)
        send(now, 2_000 + number, campaign="bulk:a")
        send(now, 3_000 + number, campaign="bulk:b", **(hard() if number < 30 else {}))
    count(now)
    said = region(html_of(staff, "/locations/loc/"), "changes")
    assert "Bad addresses: +15.0 points = “Bulk b” +15.0, rest ±0." in said
    assert "Bulk b its rate +15.0" in said
    assert "Sending IPs" not in said  # all of it names none: nothing is told apart
    other = region(html_of(staff, "/locations/loc/?measure=block_rate"), "changes")
    assert "Provider blocks: ±0 points, and no part of the mail clearly stands out." in other


def test_much_mail_is_compared_after_the_first_paint(
    staff: Client, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dashboard.pages.changes.AT_ONCE", 0)
    send(now)
    count(now)
    html = html_of(staff, "/locations/loc/")
    assert "it is filled in by itself. Show it now" in region(html, "changes")
    assert "Nothing to compare" in region(html_of(staff, "/locations/loc/?wait=changes"), "changes")
    live = staff.get("/locations/loc/", headers={"HX-Request": "true"}).content.decode()
    assert "Nothing to compare" in region(live, "changes")


def test_unknown_options_are_refused_in_a_sentence(staff: Client) -> None:
    rows.location()
    for query in ("by=colour", "measure=luck", "sort=luck", "wait=tables"):
        assert "is " in words(html_of(staff, f"/locations/loc/?{query}", status=400))


def test_foreign_locations_do_not_exist(client: Client, now: datetime) -> None:
    user = User.objects.create_user("vera")
    Membership.objects.create(user=user, location=rows.location("mine"))
    client.force_login(user)
    send(now, 1, location_ref="theirs")
    count(now)
    foreign = words(html_of(client, "/locations/theirs/", status=404))
    assert words(html_of(client, "/locations/nowhere/", status=404)) == foreign
    mine = html_of(client, "/locations/mine/?by=tag")
    assert "theirs" not in mine
    assert 'class="edits"' not in mine


def test_the_head_leads_to_highlevel_and_copies_the_id(staff: Client) -> None:
    Location.objects.create(ref="ve9E LRW1", name="Bright Smile", timezone="America/Denver")
    html = html_of(staff, "/locations/ve9E%20LRW1/")
    link = "https://app.gohighlevel.com/v2/location/ve9E%20LRW1/dashboard"
    assert f'<a class="button" href="{link}" target="_blank" rel="noopener">' in html
    assert 'data-copy="ve9E LRW1"' in html
    assert "America/Denver" in html


def test_the_message_for_the_client_is_there_when_there_is_something_to_tell(
    staff: Client, now: datetime
) -> None:
    send(now, 1, **hard())
    count(now)
    assert "Hello loc," in html_of(staff, "/locations/loc/")


# --- Lists -----------------------------------------------------------------------------------

_LINK = re.compile(r'<a href="/deliveries/\?([^"]*)"[^>]*>([\d,]+)(?: of [\d,]+)?</a>')


def listed(html: str, now: datetime) -> list[tuple[str, int, int]]:
    """Every number that leads to a list: the address, what it says, how long the list is."""
    found = []
    for query, said in _LINK.findall(html):
        filter = parse(parse_qsl(unescape(query)), now=now)
        n = filter.apply(Delivery.objects.all()).count()
        found.append((unescape(query), int(said.replace(",", "")), n))
    return found


@pytest.mark.parametrize(
    "query",
    ["", "range=7d", "range=30d", "by=tag", "by=category", "by=engagement", "by=ip", "tag=b"],
)
def test_every_number_leads_to_a_list_that_is_as_long(
    staff: Client, now: datetime, query: str
) -> None:
    several(now)
    links = listed(html_of(staff, f"/locations/loc/?{query}"), now)
    assert len(links) > 10
    assert [(q, said) for q, said, n in links if said != n] == []


def several(now: datetime) -> None:
    """Mail of every end, tags, IPs, and of another location."""
    blocked = {
        "outcome": Outcome.BOUNCED,
        "bounce_class": BounceClass.BLOCK,
        "category": Category.REPUTATION_BLOCK,
        "flags": Flag.BLOCK_LOW | Flag.BLOCK_HIGH,
    }
    reached = Flag.REACHED | Flag.VISIBLE
    ends: list[dict[str, Any]] = [
        {"flags": reached},
        {"flags": reached | Flag.COMPLAINED | Flag.VISIBLE_COMPLAINED},
        {"flags": reached | Flag.OPENED | Flag.OPENED_HUMAN | Flag.CLICKED},
        {"flags": reached | Flag.DEFERRED, "deferred_as": (Category.GREYLISTED,)},
        hard(),
        blocked,
        {"outcome": Outcome.ACCEPTED},
        {"outcome": Outcome.DEFERRED, "flags": Flag.DEFERRED, "minutes": 60 * 40},
        {"outcome": Outcome.SUPPRESSED},
        {"outcome": Outcome.ORPHAN},
    ]
    for number, end in enumerate(ends * 2):
        place: dict[str, Any] = {"tags": ("a", "b")[: number % 3], "campaign": f"bulk:{number % 2}"}
        wire: dict[str, Any] = {
            "ip": f"192.0.2.{number % 2}",
            "provider": ("Gmail", "Outlook")[number % 2],
        }
        send(now, number, **place, **wire, **end)
        send(now, 100 + number, location_ref="other", **place, **wire, **end)
    count(now)


def test_addresses_that_were_mailed_again_after_a_hard_bounce(staff: Client, now: datetime) -> None:
    send(now, 1, recipient="gone@example.com", minutes=300, **hard())
    send(now, 2, recipient="gone@example.com", **hard())
    send(now, 3, recipient="once@example.com", **hard())
    send(now, 4, recipient="back@example.com", location_ref="other")
    send(now, 5, recipient="back@example.com", minutes=300, **hard())
    count(now)
    said = region(html_of(staff, "/locations/loc/"), "repeats")
    assert "1 address was mailed again after a hard bounce. gone@example.com" in said
    assert "once@example.com" not in said


def test_the_same_mail_by_highlevels_definitions(staff: Client, now: datetime) -> None:
    for number in range(1, 8):
        send(now, number)
    send(now, 8, **hard())
    send(now, 9, outcome=Outcome.BOUNCED, bounce_class=BounceClass.BLOCK)
    send(now, 10, outcome=Outcome.SUPPRESSED)
    send(now, 11, outcome=Outcome.ACCEPTED)
    count(now)
    html = html_of(staff, "/locations/loc/")
    start = html.index('id="highlevel"')
    said = words(html[start : html.index("</details>", start)])
    assert "Sent 10 Delivered, accepted and bounced" in said
    assert "Accepted 1 Still" in said
    assert "Delivered 7 70.0 % Taken" in said
    assert "Hard bounces 1 – 3 10.0 % – 30.0 % Bad addresses only" in said
    assert "Opened 0 0 % Mails." in said
    links = dict(re.findall(r'<th scope="row">([^<]+)</th><td><a href="([^"]+)"', html[start:]))
    assert "class=hard" in links["Hard bounces"]
    empty = words(html_of(staff, "/locations/loc/?range=1h"))
    assert "Sent 0 Delivered, accepted and bounced" in empty
