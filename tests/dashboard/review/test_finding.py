"""What the admin finds hour by hour, beside all deliveries looked through one by one."""

from collections.abc import Iterator
from datetime import timedelta
from itertools import product

import pytest

from dashboard.access import Rights
from dashboard.review import finding
from dashboard.review.finding import Sought, find
from ingest import retention
from ingest.counted_values import decisions
from ingest.models import Delivery, Location, Value
from ingest.vocabulary import Category, Dimension, Outcome
from tests.dashboard.lives import BEGAN, forget, lives, write

pytestmark = pytest.mark.django_db
ALL = Rights(everything=True)


@pytest.fixture(autouse=True)
def mail(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Random lives in three locations over five days, found without hurry."""
    monkeypatch.setattr(finding, "LONGEST", 60.0)
    decisions.clear()
    retention.horizon.clear()
    write(lives(120))
    yield
    forget()
    decisions.clear()


def value(dimension: Dimension, text: str) -> tuple[int, ...]:
    rows = Value.objects.filter(dimension=dimension, text=text)
    return tuple(rows.values_list("pk", flat=True))


def one_by_one(sought: Sought, limit: int) -> list[int]:
    rows = Delivery.objects.filter(sought.condition()).order_by("-sent_at", "-pk")
    return list(rows.values_list("pk", flat=True)[:limit])


def found(sought: Sought, limit: int) -> list[int]:
    rows = find(sought, limit)
    assert rows.back_to is None
    if rows.pks is not None:
        return rows.pks
    return list(rows.rows.order_by("-sent_at", "-pk").values_list("pk", flat=True)[:limit])


def test_every_outcome_and_category_is_found_in_order() -> None:
    seen = 0
    for outcome, limit in product(Outcome, (3, 1_000)):
        sought = Sought(ALL, outcome=outcome)
        assert found(sought, limit) == one_by_one(sought, limit), outcome
        seen += len(one_by_one(sought, limit))
    for category in Category:
        sought = Sought(ALL, values={Dimension.CATEGORY: (int(category),)})
        if category:
            assert found(sought, 1_000) == one_by_one(sought, 1_000), category
            seen += len(one_by_one(sought, 1_000))
    assert seen > 150


def test_values_of_every_dimension_are_found_alone_and_together() -> None:
    tags = [(), value(Dimension.TAG, "t1"), value(Dimension.TAG, "t2")]
    providers = [None, value(Dimension.PROVIDER, "Gmail")]
    campaigns = [None, value(Dimension.CAMPAIGN, "workflow:w1")]
    places = [None, Location.objects.get(ref="a").pk]
    seen = 0
    for tag, provider, campaign, place in product(tags, providers, campaigns, places):
        values = {Dimension.TAG: tag}
        if provider:
            values[Dimension.PROVIDER] = provider
        if campaign:
            values[Dimension.CAMPAIGN] = campaign
        for limit in (4, 1_000):
            sought = Sought(ALL, location=place, values=values)
            assert found(sought, limit) == one_by_one(sought, limit), values
            seen += len(one_by_one(sought, limit))
    assert seen > 150


def test_times_and_rights_hold() -> None:
    pks = list(Location.objects.filter(ref__in="ab").values_list("pk", flat=True))
    day = BEGAN + timedelta(days=1, minutes=20)
    for rights in (ALL, Rights(location_ids=frozenset(pks)), Rights()):
        for outcome in (None, Outcome.BOUNCED, Outcome.DELIVERED):
            sought = Sought(rights, outcome=outcome, since=day, until=day + timedelta(days=2))
            assert found(sought, 1_000) == (one_by_one(sought, 1_000) if rights != Rights() else [])
            assert rights == Rights() or found(sought, 1_000)
    other = Location.objects.get(ref="c").pk
    assert found(Sought(Rights(location_ids=frozenset(pks)), location=other), 10) == []
