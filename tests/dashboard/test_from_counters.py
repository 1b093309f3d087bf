"""Which counters answer which question: planted rows tell where a number was read."""

import pytest

from dashboard.access import Rights
from dashboard.filters import parse
from dashboard.from_counters import can_count, count_hours
from dashboard.rates import Counts
from dashboard.spans import Hours, hour_of, moment_of
from dashboard.tallies import Question, Tally
from ingest.models import HourlyCount, LocationHour
from ingest.vocabulary import FLEET_LOCATION, Category, Dimension
from tests.dashboard import rows
from tests.dashboard.rows import NOW

pytestmark = pytest.mark.django_db
EVERYTHING = Rights(everything=True)
HOUR = hour_of(NOW)
ALL_HOURS = Hours(None, None)


def question(query: str, by: str, rights: Rights = EVERYTHING) -> Question:
    params = [tuple(p.split("=", 1)) for p in query.split("&") if p]
    return Question(parse(params, now=NOW), rights, by)  # type: ignore[arg-type]


def read(asked: Question, hours: Hours = ALL_HOURS) -> Tally:
    tally = Tally()
    count_hours(asked, hours, tally)
    return tally


def sent(tally: Tally) -> dict[int, int]:
    return {key: counts.sent for key, counts in tally.counted().items()}


@pytest.fixture
def places() -> tuple[int, int]:
    """Two locations with 1 and 2 mails, and a fleet row of 100: each source shows its own."""
    first, second = rows.location("a", "acme").pk, rows.location("b").pk
    for place, number in ((first, 1), (second, 2), (FLEET_LOCATION, 100)):
        LocationHour.objects.create(location_id=place, hour=HOUR, sent=number)
    return first, second


@pytest.fixture
def providers(places: tuple[int, int]) -> tuple[int, int]:
    """The same of a provider, and of a campaign, of which no fleet rows are kept."""
    provider = rows.value(Dimension.PROVIDER, "Gmail").pk
    campaign = rows.value(Dimension.CAMPAIGN, "workflow:w1").pk
    for place, number in zip((*places, FLEET_LOCATION), (10, 20, 1_000), strict=True):
        HourlyCount.objects.create(
            location_id=place, dimension=Dimension.PROVIDER, hour=HOUR, value_id=provider,
            sent=number,
        )  # fmt: skip
    for place, number in zip(places, (5, 7), strict=True):
        HourlyCount.objects.create(
            location_id=place, dimension=Dimension.CAMPAIGN, hour=HOUR, value_id=campaign,
            sent=number,
        )  # fmt: skip
    return provider, campaign


# --- Where it is read ------------------------------------------------------------------------


def test_hours_of_the_whole_fleet_are_the_fleet_rows(places: tuple[int, int]) -> None:
    tally = read(question("", "hour"))
    assert sent(tally) == {4 * HOUR: 100}
    assert Counts(*tally.total).sent == 100


def test_locations_are_never_the_fleet_row(places: tuple[int, int]) -> None:
    tally = read(question("", "location"))
    assert sent(tally) == {places[0]: 1, places[1]: 2}
    assert Counts(*tally.total).sent == 3
    assert Counts(*read(question("location=-a", "hour")).total).sent == 2


def test_who_sees_some_locations_reads_their_rows(places: tuple[int, int]) -> None:
    some = Rights(location_ids=frozenset(places[1:]))
    assert sent(read(question("", "hour", some))) == {4 * HOUR: 2}
    assert sent(read(question("", "hour", Rights()))) == {}
    assert sent(read(question("company=acme", "day"))) == {4 * HOUR: 1}


def test_few_values_have_fleet_rows_and_many_have_not(
    providers: tuple[int, int], places: tuple[int, int]
) -> None:
    provider, campaign = providers
    assert sent(read(question("", "provider"))) == {provider: 1_000}
    assert sent(read(question("location=a", "provider"))) == {provider: 10}
    assert sent(read(question("", "campaign"))) == {campaign: 12}
    assert sent(read(question("provider=Gmail", "hour"))) == {4 * HOUR: 1_000}
    assert sent(read(question("campaign=w1", "hour"))) == {4 * HOUR: 12}
    assert sent(read(question("provider=Gmail", "location"))) == {places[0]: 10, places[1]: 20}


def test_where_rows_overlap_the_total_is_that_of_all_mail(places: tuple[int, int]) -> None:
    tags = [rows.value(Dimension.TAG, text).pk for text in ("t1", "t2")]
    for tag in tags:
        HourlyCount.objects.create(
            location_id=FLEET_LOCATION, dimension=Dimension.TAG, hour=HOUR, value_id=tag, sent=80
        )
    tally = read(question("", "tag"))
    assert sent(tally) == dict.fromkeys(tags, 80)
    assert Counts(*tally.total).sent == 100
    one = read(question("tag=t1", "tag"))
    assert (sent(one), Counts(*one.total).sent) == ({tags[0]: 80}, 80)


def test_a_category_is_its_number() -> None:
    HourlyCount.objects.create(
        location_id=FLEET_LOCATION, dimension=Dimension.CATEGORY, hour=HOUR,
        value_id=Category.POLICY, sent=3,
    )  # fmt: skip
    assert sent(read(question("", "category"))) == {Category.POLICY: 3}
    assert sent(read(question("category=policy", "hour"))) == {4 * HOUR: 3}


def test_only_the_hours_asked_for_are_read(places: tuple[int, int]) -> None:
    LocationHour.objects.create(location_id=FLEET_LOCATION, hour=HOUR - 1, sent=40)
    asked = question("", "hour")
    assert sent(read(asked, Hours(HOUR, HOUR + 1))) == {4 * HOUR: 100}
    assert sent(read(asked, Hours(None, HOUR))) == {4 * (HOUR - 1): 40}
    assert sent(read(asked, Hours(HOUR + 1, None))) == {}


def test_hours_that_the_zone_splits_are_given_back(places: tuple[int, int]) -> None:
    tally = Tally()
    spans = count_hours(question("tz=Asia/Kolkata", "hour"), ALL_HOURS, tally)
    assert spans == [(moment_of(HOUR), moment_of(HOUR + 1))]
    assert (sent(tally), any(tally.total)) == ({}, False)


# --- What can be read ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "by", "can"),
    [
        ("", "location", True),
        ("", "company", True),
        ("location=a&company=acme", "domain", True),
        ("", "ip", True),
        ("ip=192.0.2.1", "location", True),
        ("ip=192.0.2.1", "ip", True),
        ("ip=-192.0.2.1", "location", False),
        ("ip=192.0.2.1", "pool", False),
        ("mx=mx1", "location", False),
        ("campaign=a&campaign=b", "campaign", True),
        ("campaign=a&campaign=-b", "hour", True),
        ("campaign=a&step=s", "hour", False),
        ("tag=a", "day", True),
        ("tag=a&tag=b", "day", False),
        ("category=policy", "location", True),
        ("category=policy&category=tls", "location", False),
        ("category=(none)", "location", False),
        ("category=-policy", "location", False),
        ("outcome=bounced", "location", False),
        ("is=late", "location", False),
        ("class=hard", "provider", False),
        ("code=550", "provider", False),
        ("reason=1", "provider", False),
    ],
)
def test_counters_hold_one_value_of_one_dimension(query: str, by: str, can: bool) -> None:
    rows.location("a", "acme")
    assert can_count(question(query, by)) is can
