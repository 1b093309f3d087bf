"""The numbers beside a list: each is that of the list that it leads to."""

from datetime import timedelta

import pytest

from dashboard import facets as facets_module
from dashboard.access import Rights, restrict
from dashboard.facets import Choice, facets
from dashboard.filters import Filter, parse
from dashboard.queries import deliveries_page
from ingest.models import Delivery, Location
from tests.dashboard import lives, rows

EVERYTHING = Rights(everything=True)
# Under an IP or a pool a choice leads to what was decided there.
QUERIES = (
    "", "location=a", "location=a&tag=t1", "provider=Gmail&step=s1", "class=hard", "clock=event",
    "outcome=bounced", "outcome=-bounced", "outcome=bounced&category=mailbox_full",
    "outcome=deferred", "outcome=deferred&outcome=accepted", "outcome=-deferred",
    "category=mailbox_full", "category=mailbox_full&category=suppressed", "category=(none)",
    "category=-mailbox_full&outcome=bounced", "is=deferred", "category=greylisted&is=deferred",
    "ip=192.0.2.1", "ip=192.0.2.1&outcome=bounced", "pool=p&outcome=moved",
    "pool=p&outcome=deferred", "q=jane", "q=@example.com&outcome=delivered",
)  # fmt: skip


def read(query: str) -> Filter:
    params = [tuple(part.split("=", 1)) for part in query.split("&") if part]
    return parse(params, now=lives.BEGAN + timedelta(days=6))  # type: ignore[arg-type]


def length(filter: Filter, rights: Rights = EVERYTHING) -> int:
    return restrict(filter.apply(Delivery.objects.all()), rights).count()


@pytest.mark.django_db
def test_each_number_is_that_of_the_list_it_leads_to() -> None:
    lives.write(lives.lives(120))
    for query in QUERIES:
        _compare(query)


def _compare(query: str) -> None:
    found = facets(read(query), EVERYTHING)
    assert found.total in (None, length(read(query))), query
    choices = [
        choice for choice in (*found.outcomes, *found.categories) if choice.count is not None
    ]
    assert {c.word: c.count for c in choices} == {c.word: length(c.filter) for c in choices}, query


@pytest.mark.django_db
def test_all_but_few_lists_have_numbers() -> None:
    without = {query for query in QUERIES if facets(read(query), EVERYTHING).total is None}
    assert without == {"pool=p&outcome=deferred", "category=greylisted&is=deferred"}


@pytest.mark.django_db
def test_only_what_may_be_seen_is_counted() -> None:
    lives.write(lives.lives(40))
    rights = Rights(location_ids=frozenset([Location.objects.get(ref="a").pk]))
    assert facets(read(""), rights).total == length(read(""), rights)


@pytest.mark.django_db
def test_what_is_no_longer_kept_is_not_counted() -> None:
    rows.delivery(1)
    with rows.horizon(deliveries_hour=int(rows.NOW.timestamp()) // 3600 + 1):
        assert facets(parse([], now=rows.NOW), EVERYTHING).total == 0


@pytest.mark.django_db
def test_a_list_goes_without_numbers_that_take_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facets_module, "within", lambda seconds, read: None)
    found = facets(parse([], now=rows.NOW), EVERYTHING)
    assert found.total is None
    assert found.outcomes[0] == Choice(
        "delivered", parse([("outcome", "delivered")], now=rows.NOW), None
    )


@pytest.mark.django_db
def test_newer_and_older_pages_meet() -> None:
    for number in range(1, 8):
        rows.delivery(number, sent_at=rows.NOW - timedelta(minutes=number // 2))
    filter = parse([], now=rows.NOW)
    first = deliveries_page(filter, EVERYTHING, limit=3)
    second = deliveries_page(filter, EVERYTHING, before=first.before or "", limit=3)
    rows.delivery(99, sent_at=rows.NOW)
    back = deliveries_page(filter, EVERYTHING, after=second.after or "", limit=3)
    assert [row.id for row in back.rows] == [row.id for row in first.rows]
    top = deliveries_page(filter, EVERYTHING, after=back.after or "", limit=3)
    assert top.rows[0].recipient == "r99@example.com"
    assert top.after is None
    assert len(top.rows) == 3
