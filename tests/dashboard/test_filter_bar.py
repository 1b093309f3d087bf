"""The filter bar, through the pages: what it says, where its links and its form lead."""

import html
import re
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

import pytest
from django.contrib.auth.models import User
from django.template.loader import render_to_string
from django.test import Client

from dashboard.filters import TERM_NAMES
from dashboard.models import Membership
from ingest.models import Location, Value
from ingest.vocabulary import Dimension
from tests.dashboard import rows

pytestmark = pytest.mark.django_db


@pytest.fixture
def staff(client: Client) -> Client:
    client.force_login(User.objects.create_user("anna", is_staff=True))
    rows.location("loc")
    return client


@pytest.fixture
def viewer(client: Client) -> Client:
    """Somebody who may see the location "loc" only."""
    user = User.objects.create_user("vera")
    client.force_login(user)
    Membership.objects.create(user=user, location=rows.location("loc"))
    return client


def bar(client: Client, path: str) -> str:
    """The bar's markup."""
    answer = client.get(path)
    assert answer.status_code == 200
    page = answer.content.decode()
    start = page.index('<section class="filters"')
    return page[start : page.index("</section>", start)]


def words(markup: str) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", markup)).split())


def link(markup: str, text: str) -> str:
    """Where the link with this text leads."""
    found = re.search(rf'<a href="([^"]*)"[^>]*>{re.escape(text)}</a>', markup)
    assert found, text
    return html.unescape(found[1])


def narrow(client: Client, **query: str) -> str:
    answer = client.get("/filter/", query)
    assert answer.status_code == 302
    return answer["Location"]


# --- What it says --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("", "Last 24 h by send time, UTC"),
        ("?range=7d&clock=event&tz=America/Chicago", "Last 7 days by event time, America/Chicago"),
        (
            "?from=2026-11-22T10:00&to=2026-11-23T12:30&tz=Asia/Kolkata",
            "22 Nov 2026 10:00 – 23 Nov 2026 12:30 by send time, Asia/Kolkata",
        ),
        ("?from=2026-11-22T10:00Z&tz=America/Chicago", "Since 22 Nov 2026 04:00 by send time"),
        ("?to=2026-11-22T10:00Z", "Until 22 Nov 2026 10:00 by send time, UTC"),
    ],
)
def test_time_clock_and_zone_are_always_named(staff: Client, query: str, said: str) -> None:
    assert said in words(bar(staff, f"/{query}"))


def test_bounds_are_shown_in_the_zone_that_holds(staff: Client) -> None:
    shown = bar(staff, "/?from=2026-11-22T10:00Z&to=2026-11-22T12:00Z&tz=America/Chicago")
    assert 'type="datetime-local" name="from" value="2026-11-22T04:00"' in shown
    assert 'type="datetime-local" name="to" value="2026-11-22T06:00"' in shown
    assert '<input type="hidden" name="tz" value="America/Chicago">' in shown


def test_every_filter_of_the_grammar_is_offered(staff: Client) -> None:
    offered = re.findall(r'<option value="(\w+)">', bar(staff, "/"))
    assert set(offered) - {"is", "not"} == set(TERM_NAMES) - {"is"}


def test_a_page_about_one_location_offers_no_other(staff: Client) -> None:
    shown = bar(staff, "/locations/loc/?tag=a")
    assert '<option value="location">' not in shown
    assert "location=loc&amp;" in shown  # whose values are suggested
    assert words(shown).count("loc ") == 0


def test_chips_say_what_people_call_things(staff: Client) -> None:
    Location.objects.filter(ref="loc").update(name="Bright Smile")
    Value.objects.create(dimension=Dimension.CAMPAIGN, text="bulk:9", label="Reactivation 2019")
    reason = rows.reason("550 5.1.1 no such user")
    shown = words(bar(staff, f"/?location=loc&campaign=-bulk:9&reason={reason.pk}"))
    assert "location Bright Smile" in shown
    assert "not campaign Reactivation 2019" in shown
    assert f"reason {reason.pk}: 550 5.1.1 no such user" in shown


def test_hostile_values_are_escaped(staff: Client) -> None:
    hostile = '"><script>alert(1)</script>'
    Location.objects.filter(ref="loc").update(name=hostile, timezone=hostile, company_ref="c")
    for path in ("/locations/loc/", f"/?tag={hostile}&location=loc"):
        assert "<script" not in bar(staff, path)


# --- Its links -----------------------------------------------------------------------------------


def test_links_keep_what_they_do_not_change(staff: Client) -> None:
    shown = bar(staff, "/?tag=a&range=7d&sort=sent&compare=week&tz=America/Chicago")
    assert link(shown, "30d") == "?tag=a&range=30d&tz=America/Chicago&sort=sent&compare=week"
    assert parse_qs(link(shown, "UTC"))["tz"] == ["UTC"]
    assert parse_qs(link(shown, "Event time"))["clock"] == ["event"]
    assert parse_qs(link(shown, "Event time"))["?tag"] == ["a"]


def test_a_locations_page_offers_its_own_zone(staff: Client) -> None:
    Location.objects.filter(ref="loc").update(timezone="America/Denver")
    shown = bar(staff, "/locations/loc/")
    assert "tz=America/Denver" in link(shown, "Location’s: America/Denver")
    assert "America/Denver" not in bar(staff, "/")


def test_what_is_copied_names_its_zone(staff: Client) -> None:
    shown = html.unescape(bar(staff, "/locations/loc/?range=7d&sort=sent"))
    assert 'data-copy="http://testserver/locations/loc/?range=7d&tz=UTC&sort=sent"' in shown


def test_comparing_is_taken_by_every_page_and_offered_where_it_is_shown(
    staff: Client,
) -> None:
    for path in ("/", "/locations/loc/"):
        assert staff.get(f"{path}?compare=previous").status_code == 200
        assert staff.get(f"{path}?compare=yesterday").status_code == 400
    assert "Compare with" not in words(bar(staff, "/status/"))
    shown = bar(staff, "/?compare=week")
    assert "by send time, UTC, beside the same weekday, a week before" in words(shown)
    assert link(shown, "The period before") == "?range=24h&compare=previous"
    assert link(shown, "Nothing") == "?range=24h"
    assert "Compare with" not in words(bar(staff, "/?clock=event"))


# --- The reader's own zone -----------------------------------------------------------------------


def test_the_zone_chosen_last_holds_where_the_address_names_none(staff: Client) -> None:
    staff.cookies["zone"] = "America/Chicago"
    shown = bar(staff, "/?range=7d&sort=sent")
    assert "Last 7 days by send time, America/Chicago" in words(shown)
    address = 'data-address="/?range=7d&amp;tz=America/Chicago&amp;sort=sent"'
    assert address in shown


def test_the_address_wins(staff: Client) -> None:
    staff.cookies["zone"] = "America/Chicago"
    shown = bar(staff, "/?tz=Europe/Rome")
    assert "Europe/Rome" in words(shown)
    assert "Chicago" not in shown
    assert "data-address" not in shown


def test_a_remembered_zone_moves_no_bounds(staff: Client) -> None:
    staff.cookies["zone"] = "America/Chicago"
    assert "Since 22 Nov 2026 04:00" in words(bar(staff, "/?from=2026-11-22T10:00"))


@pytest.mark.parametrize("zone", ["Nowhere/Atall", "../etc/passwd", '"<script>', "x" * 999])
def test_a_cookie_that_is_no_zone_is_none(staff: Client, zone: str) -> None:
    staff.cookies["zone"] = zone
    assert "by send time, UTC" in words(bar(staff, "/"))


# --- Its form ------------------------------------------------------------------------------------


def test_a_value_is_added_to_the_address(staff: Client) -> None:
    at = "/locations/loc/?range=7d&sort=sent"
    expected = "/locations/loc/?tag=promo&range=7d&sort=sent"
    assert narrow(staff, at=at, name="tag", how="is", value=" promo ") == expected
    assert "tag=-promo" in narrow(staff, at=at, name="tag", how="not", value="promo")


def test_a_second_value_is_another_that_will_do(staff: Client) -> None:
    assert narrow(staff, at="/?tag=a", name="tag", value="b") == "/?tag=a&tag=b"


def test_the_contrary_replaces_it(staff: Client) -> None:
    assert narrow(staff, at="/?tag=a&tag=b", name="tag", how="not", value="a") == "/?tag=-a&tag=b"


def test_a_new_filter_begins_with_the_first_page(staff: Client) -> None:
    assert narrow(staff, at="/?page=7&after=9", name="tag", value="a") == "/?tag=a"


def test_a_value_that_begins_with_a_dash_is_itself(staff: Client) -> None:
    address = narrow(staff, at="/", name="tag", value="-x")
    assert parse_qsl(urlsplit(address).query) == [("tag", "\\-x")]
    assert words(bar(staff, address)).count("tag -x") == 1


def test_no_value_changes_nothing(staff: Client) -> None:
    assert narrow(staff, at="/?tag=a", name="tag", value="") == "/?tag=a"


def test_a_location_may_be_named(staff: Client) -> None:
    Location.objects.filter(ref="loc").update(name="Bright Smile")
    address = narrow(staff, at="/", name="location", value="bright smile")
    assert address == "/?location=loc"


@pytest.mark.parametrize(
    ("name", "value"), [("outcome", "bouncy"), ("code", "5"), ("nonsense", "x"), ("tag", "x" * 999)]
)
def test_what_cannot_be_is_a_sentence(staff: Client, name: str, value: str) -> None:
    answer = staff.get("/filter/", {"at": "/", "name": name, "value": value})
    assert answer.status_code == 400
    assert "This address cannot be read" in answer.content.decode()


@pytest.mark.parametrize(
    "at",
    [
        "https://evil.example/",
        "//evil.example/",
        "/\\evil.example",
        "",
        "/admin/",
        "/api/rates/",
        "/nope/",
    ],
)
def test_it_leads_to_pages_of_ours_only(staff: Client, at: str) -> None:
    assert staff.get("/filter/", {"at": at, "name": "tag", "value": "a"}).status_code == 400


def test_a_location_that_may_not_be_seen_is_not_there(viewer: Client) -> None:
    rows.location("theirs")
    for value in ("theirs", "nowhere"):
        query = {"at": "/", "name": "location", "value": value}
        assert viewer.get("/filter/", query).status_code == 404


def test_strangers_are_sent_to_the_login(client: Client) -> None:
    answer = client.get("/filter/", {"at": "/"})
    assert answer["Location"].startswith("/login/")


# --- What it costs -------------------------------------------------------------------------------


def test_it_grows_with_nothing(staff: Client, django_assert_max_num_queries: Any) -> None:
    def size() -> int:
        answer = staff.get("/?range=1h")
        with django_assert_max_num_queries(1):
            render_to_string("dashboard/_filters.html", {"bar": answer.context["bar"]})
        return len(bar(staff, "/?range=1h"))

    before = size()
    Location.objects.bulk_create(Location(ref=f"l{n}", name=f"Name {n}") for n in range(300))
    Value.objects.bulk_create(Value(dimension=Dimension.TAG, text=f"t{n}") for n in range(300))
    assert size() == before
