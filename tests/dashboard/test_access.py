"""Who sees what: rights, restriction, and bearer tokens."""

from datetime import UTC, datetime, timedelta

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.http import Http404

from dashboard.access import NOTHING, Rights, get_location, restrict, rights_of, user_of_bearer
from dashboard.models import ApiToken, Membership
from ingest.models import Location

pytestmark = pytest.mark.django_db
NOW = datetime(2026, 11, 22, 10, 30, tzinfo=UTC)


@pytest.fixture
def alice() -> User:
    return User.objects.create_user("alice")


@pytest.fixture
def hers() -> Location:
    return Location.objects.create(ref="hers")


@pytest.fixture
def other() -> Location:
    return Location.objects.create(ref="other")


@pytest.mark.parametrize("standing", ["is_superuser", "is_staff"])
def test_superusers_and_staff_see_everything(alice: User, hers: Location, standing: str) -> None:
    setattr(alice, standing, True)
    assert rights_of(alice).sees(hers.pk)
    assert rights_of(alice).everything


def test_others_see_their_memberships_and_nothing_else(
    alice: User, hers: Location, other: Location
) -> None:
    Membership.objects.create(user=alice, location=hers)
    rights = rights_of(alice)
    assert rights == Rights(location_ids=frozenset({hers.pk}))
    assert rights.sees(hers.pk)
    assert not rights.sees(other.pk)


@pytest.mark.parametrize("standing", ["is_superuser", "is_staff"])
def test_an_inactive_user_sees_nothing(alice: User, hers: Location, standing: str) -> None:
    Membership.objects.create(user=alice, location=hers)
    alice.is_active = False
    setattr(alice, standing, True)
    assert rights_of(alice) == NOTHING


def test_nobody_sees_nothing() -> None:
    assert rights_of(AnonymousUser()) == NOTHING


def test_restrict_keeps_what_may_be_seen(hers: Location, other: Location) -> None:
    everyone = Location.objects.order_by("pk")
    mine = Rights(location_ids=frozenset({hers.pk}))
    assert list(restrict(everyone, mine, "pk")) == [hers]
    assert list(restrict(everyone, NOTHING, "pk")) == []
    assert list(restrict(everyone, Rights(everything=True), "pk")) == [hers, other]


def test_a_hidden_location_is_refused_in_the_words_of_a_missing_one(
    hers: Location, other: Location
) -> None:
    mine = Rights(location_ids=frozenset({hers.pk}))
    assert get_location("hers", mine) == hers
    refusals = []
    for ref in ("other", "nowhere"):
        with pytest.raises(Http404) as refusal:
            get_location(ref, mine)
        refusals.append(str(refusal.value))
    assert refusals[0] == refusals[1]


def test_a_token_stands_for_its_user(alice: User) -> None:
    token = ApiToken.issue(user_id=alice.pk)
    assert user_of_bearer(f"Bearer {token}", now=NOW) == alice
    assert user_of_bearer(f"bearer   {token} ", now=NOW) == alice


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer ", "Bearer nonsense", "Basic YWxpY2U6eA==", "{token}"]
)
def test_anything_else_stands_for_nobody(alice: User, header: str) -> None:
    token = ApiToken.issue(user_id=alice.pk)
    assert user_of_bearer(header.format(token=token), now=NOW) is None


def test_a_token_of_an_inactive_user_is_refused_and_its_use_not_noted(alice: User) -> None:
    token = ApiToken.issue(user_id=alice.pk)
    User.objects.update(is_active=False)
    assert user_of_bearer(f"Bearer {token}", now=NOW) is None
    assert ApiToken.objects.get().last_used_at is None


def test_the_use_of_a_token_is_noted_at_most_once_a_minute(alice: User) -> None:
    header = f"Bearer {ApiToken.issue(user_id=alice.pk)}"
    noted = []
    for seconds in (0, 59, 60, 61):
        user_of_bearer(header, now=NOW + timedelta(seconds=seconds))
        noted.append(ApiToken.objects.get().last_used_at)
    assert noted == [NOW, NOW, NOW + timedelta(seconds=60), NOW + timedelta(seconds=60)]
