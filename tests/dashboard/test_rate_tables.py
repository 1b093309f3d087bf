"""Rates by everything they can be asked by: counters and deliveries give the same."""

import random
from collections import defaultdict
from datetime import UTC, datetime
from itertools import product
from typing import Any

import pytest
from django.db import connection
from django.http import Http404
from django.test.utils import CaptureQueriesContext

from dashboard import rate_tables
from dashboard.access import NOTHING, Rights, restrict
from dashboard.filters import Filter, FilterError, parse
from dashboard.rates import Counts, summed
from ingest import fold, record
from ingest.fold import contribution
from ingest.models import Delivery, Location, Value, tag_ids
from ingest.vocabulary import Category, EventKind, Flag, Outcome
from tests.dashboard import rows
from tests.dashboard.rows import NOW
from tests.ingest.events import START, event

pytestmark = pytest.mark.django_db
EVERYTHING = Rights(everything=True)
ALL = parse([], now=NOW)


def asked(query: str) -> Filter:
    return parse([tuple(p.split("=", 1)) for p in query.split("&") if p], now=NOW)  # type: ignore[misc]


HOUR = 3_600
KINDS = [kind.word for kind in EventKind]


@pytest.fixture
def mail() -> None:
    """Five days of random lives, written by the recorder: 3 locations, 3 campaigns, 3 tags."""
    record.ids.clear()
    chance = random.Random(7)
    lives = []
    for number in range(160):
        # Some in one hour, some on both sides of midnight in Kolkata, most anywhere.
        at = chance.choice([0, 4.1 * HOUR, 4.4 * HOUR, *[chance.uniform(0, 5 * 24 * HOUR)] * 4])
        of: dict[str, Any] = {
            "location_ref": chance.choice(["a", "b", "c"]),
            "company_ref": "acme",
            "message_id": f"m{number}",
            "recipient": chance.choice(["jane@example.org", "bob@example.com"]),
            "tags": frozenset(chance.sample(["t1", "t2", "t3"], chance.randrange(4))),
            "provider": chance.choice(["Gmail", "Outlook", ""]),
            "sending_domain": chance.choice(["mg.example.com", ""]),
        }
        if campaign := chance.choice(["", "workflow:w1", "bulk:w2"]):
            of |= {"campaign": campaign, "campaign_rank": 2}
        for step in range(chance.randrange(1, 5)):
            detail = {"code": chance.choice([421, 550, 552]), "enhanced": "5.1.1"}
            kind = chance.choice(["accepted", "delivered", "deferred", "bounced", *KINDS])
            lives.append(event(kind, at + 90 * step, detail=detail, **of))
    chance.shuffle(lives)
    received = START + 6 * 24 * HOUR * 1_000_000
    items = [record.Item(result=life, body=b"{}", received_at=received) for life in lives]
    record.write_batch(items, now=received)
    record.ids.clear()


END = datetime(2026, 9, 26, 14, 20, tzinfo=UTC)
FILTERS = (
    "", "location=a", "location=-a", "company=acme", "campaign=workflow:w1", "campaign=w1",
    "campaign=-w1", "campaign=w1&campaign=(none)", "campaign=(none)", "campaign=absent",
    "tag=t1", "tag=-t1", "tag=(none)", "tag=t1&tag=t2", "tag=t1&location=b", "tag=absent",
    "tag=t1&campaign=w2", "provider=Gmail", "outcome=bounced", "is=late&is=complained",
    "class=hard", "code=550", "location=a&step=(none)",
)  # fmt: skip
TIMES = (
    "", "range=1h", "range=24h", "range=7d", "range=7d&tz=Asia/Kolkata", "tz=Asia/Kathmandu",
    "range=7d&tz=Australia/Lord_Howe", "range=7d&tz=America/Chicago",
    "from=2026-09-21T14:00Z&to=2026-09-22T14:00Z", "from=2026-09-21T14:13:20Z",
    "from=2026-09-21T14:13:20.000001Z&to=2026-09-24T09:41Z", "to=2026-09-21T14:13:20Z",
    "from=2026-09-21T14:13:20Z&to=2026-09-21T14:13:21Z", "from=2026-09-22&to=2026-09-22",
)  # fmt: skip


def counted_by_hand(filter: Filter, rights: Rights, by: str) -> dict[str, Counts]:
    """The rows, from one delivery after the other; the total under "total"."""
    found: dict[str, Counts] = defaultdict(Counts)
    texts = {pk: text or "(none)" for pk, text in Value.objects.values_list("pk", "text")}
    deliveries = restrict(filter.apply(Delivery.objects.all()), rights).select_related("location")
    for delivery in deliveries:
        counts = Counts(*contribution(delivery.outcome, delivery.flags, delivery.bounce_class))
        found["total"] += counts
        local = delivery.sent_at.astimezone(filter.zone)
        keys = {
            "location": [delivery.location.ref],
            "tag": [texts[pk] for pk in tag_ids(delivery.tags)] or ["(none)"],
            "hour": [local.replace(minute=0, second=0, microsecond=0).isoformat()],
            "day": [local.date().isoformat()],
        }
        field = rate_tables.VALUE_FIELDS.get(by)
        for key in keys[by] if field is None else [texts[getattr(delivery, field[1])]]:
            found[key] += counts
    return {key: counts for key, counts in found.items() if counts or key == "total"}


@pytest.mark.parametrize("by", [by for by in rate_tables.BY if by != "category"])
def test_rates_are_what_counting_the_deliveries_gives(mail: None, by: str) -> None:
    some = Location.objects.filter(ref__in=["a", "c"]).values_list("pk", flat=True)
    combined = [*product(FILTERS, ("range=7d", TIMES[9])), *product(("", "tag=t1"), TIMES)]
    for query, times in combined:
        for rights in (EVERYTHING, Rights(location_ids=frozenset(some)), NOTHING):
            if "location=" in query and not rights.everything:
                continue
            filter = asked(f"{query}&{times}").at(END)
            table = rate_tables.rates(filter, rights, by=by, limit=1_000, now=END)
            by_hand = counted_by_hand(filter, rights, by)
            assert table.total == by_hand.pop("total", Counts()), (query, times)
            assert {row.key: row.counts for row in table.rows} == by_hand, (query, times)


@pytest.mark.parametrize(
    ("query", "by", "exact"),
    [
        ("range=24h", "location", False),
        ("range=24h&location=a", "campaign", False),
        ("range=7d&company=acme", "tag", False),
        ("range=7d&campaign=-w1", "hour", False),
        ("range=7d&tag=t1", "location", False),
        ("range=7d&tz=America/Chicago", "day", False),
        ("range=1h", "location", True),
        ("range=7d&tz=Asia/Kolkata", "day", True),
        ("range=7d&tag=t1&tag=t2", "location", True),
        ("range=7d&tag=t1", "campaign", True),
        ("range=7d", "provider", True),
    ],
)
def test_whole_hours_of_one_dimension_come_from_the_counters(
    mail: None, query: str, by: str, exact: bool
) -> None:
    with CaptureQueriesContext(connection) as made:
        rate_tables.rates(asked(query), EVERYTHING, by=by, now=END)
    assert any("ingest_delivery" in query["sql"] for query in made) is exact


def test_an_overview_costs_few_queries(mail: None) -> None:
    with CaptureQueriesContext(connection) as made:
        rate_tables.rates(asked("range=24h"), EVERYTHING, by="location", now=END)
    assert len(made) == 2


def test_rows_by_tag_overlap_and_the_total_does_not(mail: None) -> None:
    table = rate_tables.rates(asked(""), EVERYTHING, by="tag", now=END)
    assert table.overlap
    assert sum(row.counts.sent for row in table.rows) > table.total.sent
    assert table.total == rate_tables.rates(asked(""), EVERYTHING, by="location", now=END).total


def test_what_is_past_the_limit_is_added_up(mail: None) -> None:
    whole = rate_tables.rates(asked(""), EVERYTHING, by="hour", limit=1_000, now=END)
    cut = rate_tables.rates(asked(""), EVERYTHING, by="hour", limit=3, now=END)
    assert cut.rows[:3] == whole.rows[:3]
    assert [row.key for row in cut.rows[3:]] == ["(rest)"]
    assert cut.total == whole.total == summed(row.counts for row in cut.rows)


def test_rows_are_sorted_as_asked(mail: None) -> None:
    def keys(by: str, sort: str) -> list[str]:
        return [
            r.key for r in rate_tables.rates(asked(""), EVERYTHING, by=by, sort=sort, now=END).rows
        ]

    assert keys("location", "key") == ["a", "b", "c"]
    assert keys("location", "-key") == ["c", "b", "a"]
    assert keys("day", "") == sorted(keys("day", ""))
    assert keys("day", "-key") == sorted(keys("day", ""), reverse=True)
    by_sent = rate_tables.rates(asked(""), EVERYTHING, by="tag", now=END).rows
    assert [row.counts.sent for row in by_sent] == sorted(
        (row.counts.sent for row in by_sent), reverse=True
    )


def test_labels_name_what_keys_identify(mail: None) -> None:
    Location.objects.filter(ref="a").update(name="Alpha Dental")
    Value.objects.filter(text="workflow:w1").update(label="Welcome")
    by_location = rate_tables.rates(asked(""), EVERYTHING, by="location", now=END)
    assert {row.key: row.label for row in by_location.rows}["a"] == "Alpha Dental"
    by_campaign = rate_tables.rates(asked(""), EVERYTHING, by="campaign", now=END)
    labels = {row.key: row.label for row in by_campaign.rows}
    assert (labels["workflow:w1"], labels["(none)"]) == ("Welcome", "(none)")


def test_by_category_bounced_counts_the_final_failure_and_deferred_every_temporary_one() -> None:
    facts = fold.Facts(deferral_categories=[Category.GREYLISTED, Category.RATE_LIMITED])
    text = fold.dump_facts(facts)
    rows.delivery(
        1, outcome=Outcome.BOUNCED, category=Category.POLICY, bounce_class=3, facts=text,
        flags=Flag.DEFERRED,
    )  # fmt: skip
    rows.delivery(2, facts=text, flags=Flag.DEFERRED | Flag.REACHED)
    rows.delivery(3, flags=Flag.REACHED)
    table = rate_tables.rates(ALL, EVERYTHING, by="category", now=NOW)
    assert table.total == Counts(sent=3, delivered=2, bounced=1, block=1, deferred=2)
    assert {row.key: (row.counts.bounced, row.counts.deferred) for row in table.rows} == {
        "policy": (1, 0),
        "greylisted": (0, 2),
        "rate_limited": (0, 2),
    }
    (policy,) = [row for row in table.as_json()["rows"] if row["key"] == "policy"]
    assert (policy["bounce_rate"]["numerator"], policy["bounce_rate"]["denominator"]) == (1, 3)


@pytest.mark.parametrize(
    ("query", "by", "options"),
    [
        ("", "ip", {}),
        ("", "colour", {}),
        ("", "location", {"sort": "colour"}),
        ("", "location", {"sort": "--sent"}),
        ("", "location", {"limit": 0}),
        ("", "location", {"limit": 1_001}),
        ("q=ann", "location", {}),
        ("clock=event", "location", {}),
    ],
)
def test_rates_that_cannot_be_asked_are_refused(
    query: str, by: str, options: dict[str, Any]
) -> None:
    with pytest.raises(FilterError):
        rate_tables.rates(asked(query), EVERYTHING, by=by, now=NOW, **options)


def test_rates_of_a_hidden_location_are_refused() -> None:
    rows.location("hidden")
    with pytest.raises(Http404):
        rate_tables.rates(asked("location=hidden"), NOTHING, by="hour", now=NOW)
