"""Who sees what: rights, restriction, and bearer tokens."""

from datetime import UTC, datetime, timedelta

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.db import IntegrityError, transaction
from django.http import Http404
from django.utils import timezone

from dashboard.access import (
    NOTHING,
    Rights,
    get_location,
    may_operate,
    pass_of_bearer,
    restrict,
    rights_by,
    rights_of,
)
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


def test_a_company_is_all_its_locations_those_to_come_included(alice: User, hers: Location) -> None:
    Membership.objects.create(user=alice, company_ref="acme")
    assert rights_of(alice) == NOTHING
    for location in (hers, Location(ref="later")):
        location.company_ref = "acme"
        location.save()
    assert rights_of(alice).location_ids == set(Location.objects.values_list("pk", flat=True))


def test_a_membership_that_has_expired_grants_nothing(alice: User, hers: Location) -> None:
    now = timezone.now()
    held = Membership.objects.create(user=alice, location=hers, role="operator", expires_at=now)
    assert rights_of(alice) == NOTHING
    assert not may_operate(alice, [hers.pk])
    Membership.objects.filter(pk=held.pk).update(expires_at=now + timedelta(hours=1))
    assert rights_of(alice).sees(hers.pk)
    assert may_operate(alice, [hers.pk])


def test_operators_may_change_what_lies_within_their_locations(
    alice: User, hers: Location, other: Location
) -> None:
    Membership.objects.create(user=alice, location=hers, role="operator")
    Membership.objects.create(user=alice, location=other)
    assert may_operate(alice, [hers.pk])
    assert not may_operate(alice, [other.pk])
    assert not may_operate(alice, [hers.pk, other.pk])
    assert not may_operate(alice)


def test_addresses_are_masked_for_viewers_where_the_location_says_so(
    alice: User, hers: Location, other: Location
) -> None:
    Location.objects.filter(pk=hers.pk).update(masks_recipients=True)
    held = Membership.objects.create(user=alice, location=hers)
    Membership.objects.create(user=alice, location=other)
    rights = rights_of(alice)
    assert rights.masks(hers.pk) and not rights.masks(other.pk)
    Membership.objects.filter(pk=held.pk).update(role="operator")
    assert not rights_of(alice).masks(hers.pk)


@pytest.mark.parametrize("named", [{}, {"company_ref": "acme", "location": 1}])
def test_a_membership_names_a_location_or_a_company(
    alice: User, hers: Location, named: dict[str, object]
) -> None:
    if named:
        named = {**named, "location": hers}
    with pytest.raises(IntegrityError), transaction.atomic():
        Membership.objects.create(user=alice, **named)


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


def user_of(header: str, now: datetime = NOW) -> User | None:
    held = pass_of_bearer(header, now=now)
    return held.user if held else None


def test_a_token_stands_for_its_user(alice: User) -> None:
    token = ApiToken.issue(user_id=alice.pk)
    assert user_of(f"Bearer {token}") == alice
    assert user_of(f"bearer   {token} ") == alice


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer ", "Bearer nonsense", "Basic YWxpY2U6eA==", "{token}"]
)
def test_anything_else_stands_for_nobody(alice: User, header: str) -> None:
    token = ApiToken.issue(user_id=alice.pk)
    assert user_of(header.format(token=token)) is None


def test_a_token_of_an_inactive_user_is_refused_and_its_use_not_noted(alice: User) -> None:
    token = ApiToken.issue(user_id=alice.pk)
    User.objects.update(is_active=False)
    assert user_of(f"Bearer {token}") is None
    assert ApiToken.objects.get().last_used_at is None


def test_a_token_ends_when_it_says(alice: User) -> None:
    token = ApiToken.issue(user_id=alice.pk, scopes=["read"], expires_at=NOW)
    assert user_of(f"Bearer {token}") is None
    held = pass_of_bearer(f"Bearer {token}", now=NOW - timedelta(seconds=1))
    assert held and held.allows(ApiToken.Scope.READ) and not held.allows(ApiToken.Scope.EXPORT)
    assert rights_by(held, now=NOW - timedelta(seconds=1)) == NOTHING
    assert rights_by(held, now=NOW) is None


def test_the_use_of_a_token_is_noted_at_most_once_a_minute(alice: User) -> None:
    header = f"Bearer {ApiToken.issue(user_id=alice.pk)}"
    noted = []
    for seconds in (0, 59, 60, 61):
        user_of(header, NOW + timedelta(seconds=seconds))
        noted.append(ApiToken.objects.get().last_used_at)
    assert noted == [NOW, NOW, NOW + timedelta(seconds=60), NOW + timedelta(seconds=60)]
