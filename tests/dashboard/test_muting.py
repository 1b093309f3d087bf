"""Cards are muted by one person, for a time, and until they get worse."""

from datetime import UTC, datetime, timedelta

import pytest
from django.contrib.auth.models import User
from django.test import Client

from dashboard.access import rights_of
from dashboard.filters import parse
from dashboard.models import Membership, Mute, Suspension
from dashboard.mutes import Muted, viewer_of
from dashboard.needs import Card, Rank
from dashboard.pages import PAGES
from dashboard.spans import hour_of
from ingest.models import LocationHour
from tests.dashboard import rows

pytestmark = pytest.mark.django_db
OVER = {"sent": 900, "bounced": 90, "hard": 90, "delivered": 810}
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


@pytest.fixture
def now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture
def troubled(now: datetime) -> str:
    """A location that HighLevel counts over its stop: its card's name."""
    place = rows.location("loc-over")
    LocationHour.objects.create(location=place, hour=hour_of(now) - 3, **OVER)
    return f"place:{place.pk}"


@pytest.fixture
def anna(client: Client) -> User:
    user = User.objects.create_user("anna", is_staff=True)
    client.force_login(user)
    return user


def test_a_muted_card_is_hidden_from_one_person_alone(
    client: Client, anna: User, troubled: str
) -> None:
    assert f'value="24 {troubled}"' in client.get("/").text
    client.post("/mutes/", {"mute": f"24 {troubled}", "next": "/"})
    page = client.get("/").text
    assert 'data-count="0"' in page
    assert f'name="unmute" value="{troubled}"' in page
    client.force_login(User.objects.create_user("ben", is_staff=True))
    assert 'data-count="1"' in client.get("/").text
    client.force_login(anna)
    client.post("/mutes/", {"unmute": troubled})
    assert 'data-count="1"' in client.get("/").text


def test_a_socket_shows_the_same_and_shares_it_with_equals_only(
    client: Client, anna: User, troubled: str, now: datetime
) -> None:
    everywhere, rights = parse([("range", "24h")], now=now), rights_of(anna)
    page, ben = PAGES["overview"], User.objects.create_user("ben", is_staff=True)
    before = page.ask(everywhere, rights, {}, viewer_of(anna, now=now))
    client.post("/mutes/", {"mute": f"4 {troubled}"})
    after = page.ask(everywhere, rights, {}, viewer_of(anna, now=now))
    others = page.ask(everywhere, rights, {}, viewer_of(ben, now=now))
    assert before.key == others.key != after.key
    assert 'data-count="0"' in page.region("needs").html(after)
    assert 'data-count="1"' in page.region("needs").html(others)
    late = after.at(now + timedelta(hours=4, minutes=1))
    assert 'data-count="1"' in page.region("needs").html(late)


@pytest.mark.parametrize(
    ("rank", "weight", "hours", "hidden"),
    [
        (Rank.WARNING, 80.0, 1, True),
        (Rank.FAR, 80.0, 1, True),
        (Rank.WARNING, 119.0, 1, True),
        (Rank.WARNING, 120.0, 1, False),
        (Rank.OVER, 80.0, 1, False),
        (Rank.WARNING, 80.0, 25, False),
    ],
)
def test_until_it_gets_worse(rank: Rank, weight: float, hours: int, hidden: bool) -> None:
    muted = Muted("place:7", Rank.WARNING, 80.0, NOW + timedelta(hours=24))
    card = Card(rank, "7", "Bright Smile", "", weight)
    assert muted.hides(card, NOW + timedelta(hours=hours)) is hidden
    assert not muted.hides(card.with_(key="8"), NOW)


@pytest.mark.parametrize("sent", ["24 place:0", "24", "99 {card}", "{card}", ""])
def test_only_what_needs_somebody_can_be_muted(
    client: Client, anna: User, troubled: str, sent: str
) -> None:
    answer = client.post("/mutes/", {"mute": sent.format(card=troubled)}, follow=True)
    assert "Not muted" in answer.text
    assert not Mute.objects.exists()


def test_what_may_not_be_seen_cannot_be_muted(client: Client, troubled: str) -> None:
    user = User.objects.create_user("carl")
    Membership.objects.create(user=user, location=rows.location("loc-mine"))
    client.force_login(user)
    assert "Not muted" in client.post("/mutes/", {"mute": f"24 {troubled}"}, follow=True).text


def test_that_highlevel_stopped_it_is_noted_on_its_card(
    client: Client, anna: User, troubled: str, now: datetime
) -> None:
    url = "/locations/loc-over/suspensions/"
    assert f'formaction="{url}" name="now" value="bounces 2"' in client.get("/").text
    client.post(url, {"now": "bounces 2", "next": "/"})
    found = Suspension.objects.get()
    assert (found.cause, found.level, found.by_id) == ("bounces", 2, anna.pk)
    assert abs(found.since - now) < timedelta(minutes=2)
    assert found.until == found.since + timedelta(hours=12)
    page = client.get("/").text
    assert "marked as stopped by HighLevel" in page
    assert url not in page


def test_viewers_find_no_button_that_they_may_not_press(client: Client, troubled: str) -> None:
    user = User.objects.create_user("dora")
    role = Membership.Role.VIEWER
    joined = Membership.objects.create(user=user, location=rows.location("loc-over"), role=role)
    client.force_login(user)
    assert "/suspensions/" not in client.get("/").text
    joined.role = Membership.Role.OPERATOR
    joined.save()
    assert "/suspensions/" in client.get("/").text
