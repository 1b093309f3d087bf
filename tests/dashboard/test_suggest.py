"""Suggestions under the filters: real values, of what the reader may see, at most twenty."""

import pytest
from django.contrib.auth.models import User
from django.test import Client

from dashboard import suggest
from dashboard.access import Rights
from dashboard.filters import TERM_NAMES
from dashboard.models import Membership
from ingest.models import Location, Value
from ingest.vocabulary import Dimension
from tests.dashboard import rows

pytestmark = pytest.mark.django_db
EVERYTHING = Rights(everything=True)


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """However busy the machine is, all is sought to its end."""
    monkeypatch.setattr(suggest, "PATIENCE", 60.0)


@pytest.fixture
def staff(client: Client) -> Client:
    client.force_login(User.objects.create_user("anna", is_staff=True))
    return client


@pytest.fixture
def viewer(client: Client) -> Client:
    """Somebody who may see the location "loc" only."""
    user = User.objects.create_user("vera")
    client.force_login(user)
    Membership.objects.create(user=user, location=rows.location("loc"))
    return client


def values(client: Client, **query: str) -> list[str]:
    answer = client.get("/suggest/", query)
    assert answer.status_code == 200
    return [option["value"] for option in answer.json()["options"]]


def test_what_begins_with_the_text_comes_first(staff: Client) -> None:
    rows.delivery(1, tags=("Promo", "big promotion", "news", "promo-2"))
    assert values(staff, name="tag", text="pro") == ["Promo", "promo-2", "big promotion"]
    assert values(staff, name="tag", text="PROMO-") == ["promo-2"]


def test_without_a_text_it_lists_what_there_is_and_what_has_none(staff: Client) -> None:
    rows.delivery(1, tags=("b", "a"))
    assert values(staff, name="tag") == ["a", "b", "(none)"]
    assert values(staff, name="tag", text="(n") == ["(none)"]


def test_at_most_twenty(staff: Client) -> None:
    tags = [f"tag {number:02}" for number in range(30)]
    Value.objects.bulk_create(Value(dimension=Dimension.TAG, text=text) for text in tags)
    assert values(staff, name="tag", text="tag") == tags[:20]
    assert len(values(staff, name="tag", text="ag")) == 20


@pytest.mark.parametrize("text", ["%", "_", "\\", "'", "é", "\U0010ffff", "\0", "x" * 5000])
def test_any_text_may_be_typed(staff: Client, text: str) -> None:
    rows.delivery(1, tags=("50% off",))
    found = {name: values(staff, name=name, text=text) for name in TERM_NAMES}
    assert found["tag"] == (["50% off"] if text == "%" else found["tag"])
    assert found["q"] == []


def test_locations_go_by_their_names_and_ids(staff: Client) -> None:
    rows.location("loc-1")
    rows.location("loc-2")
    Location.objects.filter(ref="loc-1").update(name="Bright Smile Dental")
    answer = staff.get("/suggest/", {"name": "location", "text": "smile"}).json()
    assert answer == {"options": [{"value": "loc-1", "label": "Bright Smile Dental"}]}
    assert values(staff, name="location", text="LOC-") == ["loc-2", "loc-1"]


def test_campaigns_are_found_by_their_names(staff: Client) -> None:
    Value.objects.create(dimension=Dimension.CAMPAIGN, text="bulk:9", label="Reactivation 2019")
    assert values(staff, name="campaign", text="2019") == ["bulk:9"]
    assert values(staff, name="campaign", text="BULK") == ["bulk:9"]


def test_words_are_suggested_too(staff: Client) -> None:
    assert values(staff, name="outcome", text="bou") == ["bounced"]
    assert values(staff, name="category", text="reputation b") == ["reputation_block"]
    assert "late" in values(staff, name="is")


def test_codes_and_reasons_are_those_that_were_met(staff: Client) -> None:
    reason = rows.reason("550 5.1.1 no such user")
    rows.delivery(1, code=550, reason=reason)
    rows.delivery(2, code=421)
    rows.delivery(3, code=550)
    assert values(staff, name="code") == ["550", "421", "(none)"]
    assert values(staff, name="code", text="4") == ["421"]
    assert values(staff, name="reason", text="NO SUCH") == [str(reason.pk)]
    assert str(reason.pk) in values(staff, name="reason", text=str(reason.pk))


def test_nothing_of_locations_that_may_not_be_seen(viewer: Client) -> None:
    theirs = rows.reason("550 secret")
    rows.delivery(
        1,
        location_ref="secret",
        company="secret",
        recipient="a@secret.com",
        code=598,
        reason=theirs,
        tags=("secret",),
        campaign="secret",
        step="secret",
        provider="secret",
        sending_domain="secret.com",
        ip="203.0.113.9",
        pool="secret",
        mx="secret",
    )
    rows.delivery(2, tags=("ours",), mx="ours", recipient="a@ours.com", code=550)
    for name in TERM_NAMES:
        answer = viewer.get("/suggest/", {"name": name}).content.decode()
        assert "secret" not in answer, name
        assert not {"203.0.113.9", "598", str(theirs.pk)} & set(values(viewer, name=name)), name
    assert values(viewer, name="tag", text="our") == ["ours"]
    assert values(viewer, name="mx", text="our") == ["ours"]
    assert values(viewer, name="domain", text="our") == ["ours.com"]
    assert values(viewer, name="location") == ["loc"]


def test_within_a_location_only_its_own(staff: Client) -> None:
    rows.delivery(1, tags=("here",))
    rows.delivery(2, location_ref="other", tags=("there",))
    assert values(staff, name="tag", text="here", location="loc") == ["here"]
    assert values(staff, name="tag", text="there", location="loc") == []


def test_a_location_that_may_not_be_seen_is_not_there(viewer: Client) -> None:
    rows.location("theirs")
    query = {"name": "tag", "location": "theirs"}
    assert viewer.get("/suggest/", query).status_code == 404
    assert viewer.get("/suggest/", query | {"location": "nowhere"}).status_code == 404


def test_strangers_and_unknown_names(client: Client) -> None:
    assert client.get("/suggest/", {"name": "tag"}).status_code == 401
    client.force_login(User.objects.create_user("anna", is_staff=True))
    answer = client.get("/suggest/", {"name": "nonsense"})
    assert answer.status_code == 400
    assert answer.json()["error"].endswith(".")


def test_what_somebody_means_by_a_name() -> None:
    rows.location("loc-1")
    Location.objects.filter(ref="loc-1").update(name="Bright Smile")
    assert suggest.meant("location", "bright smile", EVERYTHING) == "loc-1"
    assert suggest.meant("location", "loc-1", EVERYTHING) == "loc-1"
    assert suggest.meant("tag", "bright smile", EVERYTHING) == "bright smile"
