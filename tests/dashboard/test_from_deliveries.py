"""What the deliveries are asked, and how groups of them are put in rows."""

from collections.abc import Sequence
from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from dashboard.access import NOTHING, Rights
from dashboard.filters import Filter, parse
from dashboard.from_deliveries import DeliveryCount, count_deliveries, speaks_of_deferrals
from dashboard.rates import Counts
from dashboard.spans import Span
from dashboard.tallies import Question, Tally
from ingest.models import Location
from ingest.vocabulary import BounceClass, Category, Dimension, Flag, Outcome
from tests.dashboard import rows
from tests.dashboard.rows import NOW

EVERYTHING = Rights(everything=True)
ALWAYS: list[Span] = [(None, None)]
REACHED, DEFERRED = Flag.REACHED, Flag.DEFERRED


def asked(query: str) -> Filter:
    return parse([tuple(p.split("=", 1)) for p in query.split("&") if p], now=NOW)  # type: ignore[misc]


def counted(
    query: str, by: str, spans: Sequence[Span] = ALWAYS, rights: Rights = EVERYTHING
) -> tuple[Counts, dict[int, Counts]]:
    tally = Tally()
    count_deliveries(Question(asked(query), rights, by), spans, tally)
    return Counts(*tally.total), tally.counted()


@pytest.mark.django_db
def test_deliveries_are_counted_in_their_spans() -> None:
    for minutes in (0, 10, 20):
        rows.delivery(minutes, sent_at=NOW + timedelta(minutes=minutes), flags=REACHED)
    spans = [(NOW, NOW + timedelta(minutes=10)), (NOW + timedelta(minutes=20), None)]
    assert counted("", "location", spans)[0] == Counts(sent=2, delivered=2)
    assert counted("", "location", [])[0] == Counts()
    # The filter's own bounds are not asked for again: the spans are what is left of them.
    assert counted("to=2020-01-01", "location", spans)[0].sent == 2


@pytest.mark.django_db
def test_one_query_counts_them_all() -> None:
    for number in range(20):
        rows.delivery(number, tags=(f"t{number % 3}",), flags=REACHED)
    with CaptureQueriesContext(connection) as made:
        counted("", "location")
    assert len(made) == 1


@pytest.mark.django_db
def test_who_may_see_nothing_counts_nothing() -> None:
    of = rows.delivery(1)
    assert counted("", "tag", rights=NOTHING) == (Counts(), {})
    mine = Rights(location_ids=frozenset({of.location_id}))
    assert counted("", "location", rights=mine)[1].keys() == {of.location_id}


@pytest.mark.django_db
def test_a_mail_is_in_each_of_its_tags_and_once_in_all() -> None:
    rows.delivery(1, tags=("a", "b"), flags=REACHED)
    rows.delivery(2, tags=("a",), outcome=Outcome.BOUNCED, bounce_class=BounceClass.SOFT)
    rows.delivery(3, outcome=Outcome.ACCEPTED)
    total, groups = counted("", "tag")
    assert total == Counts(sent=3, delivered=1, bounced=1, soft=1)
    a, b = (rows.value(Dimension.TAG, text).pk for text in "ab")
    assert groups == {
        a: Counts(sent=2, delivered=1, bounced=1, soft=1),
        b: Counts(sent=1, delivered=1),
        0: Counts(sent=1),
    }


@pytest.mark.django_db
def test_only_rows_of_the_values_asked_for_are_shown() -> None:
    rows.delivery(1, tags=("a", "b"), flags=REACHED)
    total, groups = counted("tag=a", "tag")
    assert (total.sent, groups.keys()) == (1, {rows.value(Dimension.TAG, "a").pk})


@pytest.mark.django_db
def test_times_are_told_apart_by_quarters() -> None:
    rows.delivery(1, sent_at=NOW, flags=REACHED)
    rows.delivery(2, sent_at=NOW + timedelta(minutes=14, seconds=59), flags=REACHED)
    rows.delivery(3, sent_at=NOW + timedelta(minutes=15), flags=REACHED)
    quarter = int(NOW.timestamp()) // 900
    groups = counted("", "hour")[1]
    assert {key: counts.sent for key, counts in groups.items()} == {quarter: 2, quarter + 1: 1}


@pytest.mark.django_db
def test_what_tried_two_addresses_is_in_both_rows() -> None:
    first, second = (rows.value(Dimension.IP, text).pk for text in ("192.0.2.1", "192.0.2.2"))
    rows.delivery(
        1, ip="192.0.2.2", tried=[(Dimension.IP, "192.0.2.1")],
        deferred_at=[(Dimension.IP, "192.0.2.1")], flags=REACHED | DEFERRED,
    )  # fmt: skip
    assert counted("", "ip")[1] == {
        first: Counts(sent=1, deferred=1, moved=1),
        second: Counts(sent=1, delivered=1),
    }
    assert counted("ip=192.0.2.1", "location")[0] == Counts(sent=1, deferred=1, moved=1)
    assert counted("ip=192.0.2.1", "ip")[1].keys() == {first}
    assert counted("ip=192.0.2.1&outcome=delivered", "location")[0] == Counts()
    either = counted("ip=192.0.2.1&ip=192.0.2.2", "location")[0]
    assert either == Counts(sent=1, delivered=1, deferred=1)


@pytest.mark.django_db
def test_an_mx_counts_as_an_address_does() -> None:
    rows.delivery(1, mx="mx2", tried=[(Dimension.MX, "mx1")], flags=REACHED)
    assert counted("mx=mx1", "location")[0] == Counts(sent=1, moved=1)
    assert counted("mx=mx2", "location")[0] == Counts(sent=1, delivered=1)
    assert counted("mx=-mx1", "location")[0] == Counts()


@pytest.mark.django_db
def test_a_category_counts_what_it_put_off_too() -> None:
    rows.delivery(1, deferred_as=[Category.GREYLISTED], flags=REACHED | DEFERRED)
    rows.delivery(
        2, outcome=Outcome.BOUNCED, category=Category.GREYLISTED, bounce_class=BounceClass.SOFT
    )
    greylisted = Counts(sent=1, bounced=1, soft=1, deferred=1)
    assert counted("", "category")[1][Category.GREYLISTED] == greylisted
    assert counted("category=greylisted", "location")[0] == greylisted
    ended = counted("category=greylisted&outcome=bounced", "location")[0]
    assert ended == Counts(sent=1, bounced=1, soft=1)


@pytest.mark.parametrize(
    ("query", "speaks"),
    [
        ("category=policy", True),
        ("category=policy&is=deferred", True),
        ("category=policy&is=deferred&is=late", False),
        ("category=policy&is=late", False),
        ("category=policy&class=block", False),
        ("category=policy&outcome=bounced", False),
        ("category=policy&outcome=-bounced", True),
    ],
)
def test_a_category_speaks_of_deferrals_until_the_end_is_named(query: str, speaks: bool) -> None:
    assert speaks_of_deferrals(asked(query)) is speaks


@pytest.mark.django_db
def test_combinations_read_the_covering_index_alone() -> None:
    covered = {"location_id", "outcome", "flags", "bounce_class", "category"}
    covered |= {f"{name}_id" for name in ("campaign", "provider", "domain", "sending_domain")}
    for query, by in (
        ("class=hard&provider=Gmail", "campaign"),
        ("is=late", "provider"),
        ("campaign=w1", "domain"),
        ("outcome=bounced", "sending_domain"),
        ("category=-policy", "location"),
    ):
        count = DeliveryCount(Question(asked(query), EVERYTHING, by))
        assert {count.key, *count.row_columns[1:]} <= covered, (query, by)


@pytest.mark.django_db
def test_companies_are_told_apart_by_their_locations() -> None:
    for number, (ref, company) in enumerate([("a", "acme"), ("b", "acme"), ("c", "")]):
        rows.delivery(number, location_ref=ref, company=company)
    groups = counted("company=acme", "company")[1]
    acme = Location.objects.filter(company_ref="acme").values_list("pk", flat=True)
    assert groups.keys() == set(acme)
