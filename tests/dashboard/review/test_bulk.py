"""Changes in bulk: counted first, exact in every counter, and taken back as exactly."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from dashboard.access import Rights
from dashboard.models import AuditEntry
from dashboard.review import bulk
from dashboard.review.models import BulkChange, BulkItem
from ingest import counting, reclassify, retention
from ingest.counted_values import decisions
from ingest.fold import load_facts
from ingest.ids import ids
from ingest.models import Delivery, HourlyCount, Location, Reason
from ingest.reclassify import assign_category
from ingest.vocabulary import Category, Dimension
from tests.ingest.test_reclassify import NOW, body, bounce, send, table_rows

pytestmark = pytest.mark.django_db
ALL = Rights(everything=True)
SAID = "550 the moon is in the wrong house"


@pytest.fixture(autouse=True)
def know_nothing() -> Iterator[None]:
    def forget() -> None:
        ids.clear()
        decisions.clear()
        retention.horizon.clear()

    forget()
    yield
    forget()


@pytest.fixture
def boss() -> User:
    return User.objects.create_superuser("boss")


@pytest.fixture
def reason(monkeypatch: pytest.MonkeyPatch) -> Reason:
    """A refusal of seven deliveries in two locations, beside other mail; small steps."""
    monkeypatch.setattr(bulk, "STEP", 3)
    monkeypatch.setattr(reclassify, "BATCH", 2)
    for n in range(7):
        place = "locA" if n < 5 else "locB"
        send(bounce(SAID, mail=f"m{n}", recipient=f"r{n}@example.org", location=place))
    send(bounce("550 5.1.1 no such user"), body("delivered"))
    return Reason.objects.get(text__contains="moon")


def assigned() -> list[int]:
    rows = Delivery.objects.filter(reason__text__contains="moon").order_by("message_id")
    return [load_facts(facts).assigned for facts in rows.values_list("facts", flat=True)]


def no_differences() -> None:
    assert list(map(str, counting.differences(now=NOW))) == []


def of_category(category: Category) -> int | None:
    row = HourlyCount.objects.filter(
        location_id=0, dimension=Dimension.CATEGORY, value_id=int(category)
    ).first()
    return row.bounced if row else None


def begin(reason: Reason, by: User, rights: Rights = ALL) -> BulkChange:
    return bulk.begin(reason, Category.POLICY, rights, by, timezone.now())


def test_it_says_first_how_far_it_reaches(reason: Reason) -> None:
    assert bulk.extent(reason, ALL).sentence == "re-classes 7 deliveries in 2 locations"
    here = Rights(location_ids=frozenset({Location.objects.get(ref="locB").pk}))
    assert bulk.extent(reason, here) == bulk.Extent(2, 1)
    bulk_of_one = bulk.Extent(1, 1)
    assert bulk_of_one.sentence == "re-classes 1 delivery in 1 location"


def test_there_and_back_every_counter_is_exact(reason: Reason, boss: User) -> None:
    before = table_rows()[1:3]
    change = begin(reason, boss)
    assert bulk.work(change, seconds=60)
    assert assigned() == [Category.POLICY] * 7
    assert of_category(Category.POLICY) == 7
    no_differences()
    assert bulk.undo(change, boss, timezone.now())
    assert not bulk.undo(change, boss, timezone.now())
    assert bulk.work(change, seconds=60)
    assert assigned() == [0] * 7
    assert table_rows()[1:3] == before
    no_differences()
    change.refresh_from_db()
    assert (change.deliveries, change.locations) == (7, 2)
    assert change.finished_at
    assert change.undone_at
    actions = AuditEntry.objects.order_by("pk").values_list("action", "actor")
    assert list(actions) == [
        ("assign category in bulk", "boss"), ("undo bulk change", "boss"),
    ]  # fmt: skip


def test_what_a_person_gave_before_comes_back_and_after_stays(reason: Reason, boss: User) -> None:
    first, second, *_ = Delivery.objects.filter(reason=reason).order_by("message_id")
    assign_category([first.pk], Category.TLS, by="jane")
    change = begin(reason, boss)
    bulk.work(change, seconds=60)
    assign_category([second.pk], Category.DNS_ROUTING, by="jane")
    bulk.undo(change, boss, timezone.now())
    bulk.work(change, seconds=60)
    assert assigned() == [Category.TLS, Category.DNS_ROUTING, 0, 0, 0, 0, 0]
    states = set(change.items.values_list("delivery_id", "state"))
    assert (second.pk, BulkItem.State.KEPT) in states
    no_differences()


def test_a_change_that_is_cut_off_goes_on(reason: Reason, boss: User) -> None:
    change = begin(reason, boss)
    assert not bulk.work(change, seconds=0)
    assert assigned().count(Category.POLICY) == 3
    no_differences()
    while bulk.go_on():
        pass
    assert assigned() == [Category.POLICY] * 7
    change.refresh_from_db()
    assert change.finished_at


def test_what_is_taken_back_halfway_stops(reason: Reason, boss: User) -> None:
    change = begin(reason, boss)
    bulk.work(change, seconds=0)
    reached = list(change.items.filter(state=BulkItem.State.WAITING))
    bulk.undo(change, boss, timezone.now())
    while bulk.go_on():
        pass
    assert assigned() == [0] * 7
    bulk._forth(change, reached)  # another process, that had begun before
    assert assigned() == [0] * 7
    no_differences()


def test_the_way_back_closes_after_a_day(reason: Reason, boss: User) -> None:
    change = begin(reason, boss)
    bulk.work(change, seconds=60)
    later = timezone.now() + timedelta(hours=24, minutes=1)
    assert bulk.may_undo(change, timezone.now())
    assert not bulk.may_undo(change, later)
    assert not bulk.undo(change, boss, later)
    assert bulk.forget(later) == 0
    assert bulk.forget(later + bulk.KEPT) == 7
    assert BulkChange.objects.count() == 1


def test_too_many_need_a_rule(reason: Reason, boss: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "MOST", 6)
    for ask in (lambda: bulk.extent(reason, ALL), lambda: begin(reason, boss)):
        with pytest.raises(bulk.TooMany, match="make a rule"):
            ask()
    assert not BulkChange.objects.exists()
