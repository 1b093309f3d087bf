"""Rates by everything they can be asked by: counters and deliveries give the same."""

from collections import Counter, defaultdict
from datetime import UTC, datetime
from itertools import chain, product
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.db import connection
from django.http import Http404
from django.test.utils import CaptureQueriesContext

from dashboard import conditions, rate_tables
from dashboard.access import NOTHING, Rights, restrict
from dashboard.filters import Filter, FilterError, parse
from dashboard.rates import SORTS, Counts, summed
from dashboard.sources import count
from dashboard.spans import hour_of
from dashboard.tallies import ATTEMPTS, BY, DIMENSIONS, OVERLAPPING, Question
from ingest.counted import Counted, places
from ingest.counted_values import decisions
from ingest.models import Delivery, Location, Value
from ingest.vocabulary import MEASURES, Category, Dimension, Flag, Outcome
from tests.dashboard import lives, rows
from tests.dashboard.rows import NOW

pytestmark = pytest.mark.django_db
EVERYTHING = Rights(everything=True)
ALL = parse([], now=NOW)
END = datetime(2026, 9, 26, 14, 20, tzinfo=UTC)


@pytest.fixture
def mail() -> None:
    """Days of random lives, written by the recorder: 3 locations, few of all else."""
    lives.write(lives.lives(120))


def asked(query: str) -> Filter:
    return parse([tuple(p.split("=", 1)) for p in query.split("&") if p], now=END)  # type: ignore[misc]


FILTERS = (
    "", "location=a", "location=-a", "company=acme", "company=(none)", "campaign=workflow:w1",
    "campaign=w1", "campaign=-w1", "campaign=w1&campaign=(none)", "campaign=(none)",
    "campaign=absent", "step=s1", "step=-(none)", "tag=t1", "tag=-t1", "tag=(none)",
    "tag=t1&tag=t2", "tag=t1&location=b", "tag=absent", "tag=t1&campaign=w2", "provider=Gmail",
    "provider=-Gmail", "domain=example.org", "sending_domain=(none)", "outcome=bounced",
    "outcome=-bounced", "is=late&is=complained", "is=deferred", "is=-deferred", "class=hard",
    "class=-hard&class=-soft", "code=550", "code=-550", "location=a&step=(none)",
)  # fmt: skip
LOOKING = (
    "ip=192.0.2.1", "ip=-192.0.2.1", "ip=(none)", "ip=192.0.2.1&ip=192.0.2.2", "pool=p&tag=t1",
    "pool=p&ip=192.0.2.1", "mx=mx1", "mx=-mx2", "ip=192.0.2.1&outcome=delivered",
    "ip=192.0.2.1&outcome=moved", "ip=192.0.2.1&outcome=-bounced", "pool=q&class=hard",
    "pool=q&is=deferred", "pool=q&is=-deferred", "pool=q&is=late&is=deferred", "pool=q&code=550",
    "pool=q&code=-550", "category=invalid_recipient", "category=-invalid_recipient",
    "category=greylisted", "category=greylisted&category=rate_limited", "category=(none)",
    "category=invalid_recipient&is=deferred", "category=invalid_recipient&is=late",
    "category=invalid_recipient&class=hard", "category=mailbox_full&outcome=bounced",
    "category=greylisted&ip=192.0.2.1", "category=greylisted&pool=p&is=deferred",
)  # fmt: skip
TIMES = (
    "", "range=1h", "range=24h", "range=7d", "range=7d&tz=Asia/Kolkata", "tz=Asia/Kathmandu",
    "range=7d&tz=Australia/Lord_Howe", "range=7d&tz=America/Chicago",
    "from=2026-09-21T14:00Z&to=2026-09-22T14:00Z", "from=2026-09-21T14:13:20Z",
    "from=2026-09-21T14:13:20.000001Z&to=2026-09-24T09:41Z", "to=2026-09-21T14:13:20Z",
    "from=2026-09-21T14:13:20Z&to=2026-09-21T14:13:21Z", "from=2026-09-22&to=2026-09-22",
)  # fmt: skip


type Texts = dict[int, str]


def deliveries_of(filter: Filter, rights: Rights) -> list[Delivery]:
    """What the filter finds, to be counted by hand."""
    found = restrict(filter.apply(Delivery.objects.all()), rights)
    return list(found.select_related("location"))


def counted_by_hand(
    deliveries: list[Delivery], filter: Filter, by: str, texts: Texts
) -> dict[str, Counts]:
    """The rows, from one delivery after the other; the total under "total"."""
    found: dict[str, list[tuple[int, ...]]] = defaultdict(list)
    for delivery in deliveries:
        counted = _counted(delivery)
        found["total"].append(counted.measures)
        for key, positions in _rows(delivery, counted, by, filter.zone, texts):
            found[key].append(positions)
    if by == "tag" and (tags := filter.values("tag")):
        found = {key: rows for key, rows in found.items() if key in (*tags, "total")}
    counts = {key: _counts(rows) for key, rows in found.items()}
    return {key: row for key, row in counts.items() if row or key == "total"}


def _rows(delivery: Delivery, counted: Counted, by: str, zone: ZoneInfo, texts: Texts) -> Any:
    local = delivery.sent_at.astimezone(zone)
    single = {
        "location": delivery.location.ref,
        "company": delivery.location.company_ref or "(none)",
        "hour": local.replace(minute=0, second=0, microsecond=0).isoformat(),
        "day": local.date().isoformat(),
    }
    if by in single:
        return [(single[by], counted.measures)]
    placed = places(counted, no_tag=0)
    return [
        (texts.get(value) or "(none)", positions)
        for (dimension, value), positions in placed.items()
        if dimension == DIMENSIONS[by]
    ]


def _counted(d: Any) -> Counted:
    return Counted(
        d.outcome, d.flags, d.bounce_class, d.category, 0, d.campaign_id, d.step_id,
        d.provider_id, d.domain_id, d.sending_domain_id, d.ip_id, d.pool_id, d.tags, d.ways,
    )  # fmt: skip


def _counts(rows: list[tuple[int, ...]]) -> Counts:
    """How often each measure's position is among them."""
    seen = Counter(chain.from_iterable(map(set, rows)))
    return Counts(*(seen[position] for position in range(len(MEASURES))))


COMBINED = [*product(FILTERS, ("range=7d", TIMES[9])), *product(("", "tag=t1"), TIMES)]


@pytest.mark.parametrize("part", range(8))
def test_rates_are_what_counting_the_deliveries_gives(mail: None, part: int) -> None:
    some = Location.objects.filter(ref__in=["a", "c"]).values_list("pk", flat=True)
    members = Rights(location_ids=frozenset(some))
    texts = dict(Value.objects.values_list("pk", "text"))
    for number, (query, times) in [*enumerate(COMBINED)][part::8]:
        for rights in dict.fromkeys((EVERYTHING, (members, NOTHING, EVERYTHING)[number % 3])):
            if "location=" in query and not rights.everything:
                continue
            filter = asked(f"{query}&{times}")
            deliveries = deliveries_of(filter, rights)
            for by in BY:
                if by in ("ip", "pool", "category"):
                    continue
                table = rate_tables.rates(filter, rights, by=by, limit=1_000, now=END)
                by_hand = counted_by_hand(deliveries, filter, by, texts)
                assert table.total == by_hand.pop("total", Counts()), (query, times, by)
                assert {row.key: row.counts for row in table.rows} == by_hand, (query, times, by)


@pytest.mark.parametrize("by", ["ip", "pool", "category"])
def test_attempts_and_refusals_are_counted_where_they_were(mail: None, by: str) -> None:
    names = {category: Category(category).word for category in Category}
    for query in ("", "location=a", "tag=t1", "campaign=-w1&provider=Gmail"):
        filter = asked(query)
        table = rate_tables.rates(filter, EVERYTHING, by=by, limit=1_000, now=END)
        expected: dict[str, list[tuple[int, ...]]] = defaultdict(list)
        texts = dict(Value.objects.values_list("pk", "text"))
        for delivery in filter.apply(Delivery.objects.all()):
            for (dimension, value), positions in places(_counted(delivery), no_tag=0).items():
                if dimension == DIMENSIONS[by]:
                    key = names[Category(value)] if by == "category" else texts[value] or "(none)"
                    expected[key].append(positions)
        counts = {key: _counts(rows) for key, rows in expected.items()}
        assert {row.key: row.counts for row in table.rows} == {
            key: row for key, row in counts.items() if row
        }


@pytest.mark.parametrize("by", BY)
def test_counters_and_deliveries_say_the_same(mail: None, by: str) -> None:
    for query, times in [
        *product((*FILTERS, *LOOKING), ("range=7d", TIMES[10])),
        *product(("",), TIMES),
    ]:
        question = Question(asked(f"{query}&{times}"), EVERYTHING, by)
        fast, _ = count(question)
        slow, _ = count(question, counters=False)
        assert fast.total == slow.total, (query, times)
        assert _named(question, fast) == _named(question, slow), (query, times)


def _named(question: Question, tally: Any) -> dict[str, Counts]:
    return {row.key: row.counts for row in rate_tables.named_rows(question, tally)}


@pytest.mark.parametrize(
    ("query", "by", "exact"),
    [
        ("range=24h", "location", False),
        ("range=24h&location=a", "campaign", False),
        ("range=7d&company=acme", "tag", False),
        ("range=7d&campaign=-w1", "hour", False),
        ("range=7d&tag=t1", "location", False),
        ("range=7d&tag=t1", "tag", False),
        ("range=7d", "provider", False),
        ("range=7d&step=s1&step=s2", "company", False),
        ("range=7d&provider=Gmail", "provider", False),
        ("range=7d", "category", False),
        ("range=7d&tz=America/Chicago", "day", False),
        ("range=1h", "location", True),
        ("range=7d&tz=Asia/Kolkata", "day", True),
        ("range=7d&tag=t1&tag=t2", "location", True),
        ("range=7d&tag=t1", "campaign", True),
        ("range=7d&tag=-t1", "location", True),
        ("range=7d&outcome=bounced", "location", True),
    ],
)
def test_whole_hours_of_one_dimension_come_from_the_counters(
    mail: None, query: str, by: str, exact: bool
) -> None:
    with CaptureQueriesContext(connection) as made:
        rate_tables.rates(asked(query), EVERYTHING, by=by, now=END)
    assert any('FROM "ingest_delivery"' in query["sql"] for query in made) is exact


def test_an_overview_costs_few_queries(mail: None) -> None:
    with CaptureQueriesContext(connection) as made:
        rate_tables.rates(asked("range=24h"), EVERYTHING, by="location", now=END)
    # Which rows, these, the total, their names, and the cells of two kinds: in all, and by row.
    assert len(made) == 8


def test_rows_by_tag_overlap_and_the_total_does_not(mail: None) -> None:
    table = rate_tables.rates(asked(""), EVERYTHING, by="tag", now=END)
    assert table.overlap
    assert sum(row.counts.sent for row in table.rows) > table.total.sent
    assert table.total == rate_tables.rates(asked(""), EVERYTHING, by="location", now=END).total


@pytest.mark.parametrize("by", [by for by in BY if by not in OVERLAPPING])
def test_rows_add_up_where_they_do_not_overlap(mail: None, by: str) -> None:
    for query in (*FILTERS, *LOOKING):
        table = rate_tables.rates(asked(query), EVERYTHING, by=by, limit=1_000, now=END)
        assert summed(row.counts for row in table.rows) == table.total, query


def test_what_is_past_the_limit_is_added_up(mail: None) -> None:
    whole = rate_tables.rates(asked(""), EVERYTHING, by="hour", limit=1_000, now=END)
    cut = rate_tables.rates(asked(""), EVERYTHING, by="hour", limit=3, now=END)
    assert cut.rows[:3] == whole.rows[:3]
    assert [row.key for row in cut.rows[3:]] == ["(rest)"]
    assert cut.total == whole.total == summed(row.counts for row in cut.rows)


@pytest.mark.parametrize("sort", ["", "sent", "-bounced", "-bounce_rate", "key", "deferred"])
@pytest.mark.parametrize("by", ["campaign", "tag", "ip", "domain", "location"])
def test_rows_past_the_limit_are_the_same_without_their_names(
    mail: None, monkeypatch: pytest.MonkeyPatch, by: str, sort: str
) -> None:
    def table(limit: int) -> rate_tables.RatesTable:
        filter = asked("range=7d&tz=Asia/Kolkata")
        return rate_tables.rates(filter, EVERYTHING, by=by, limit=limit, sort=sort, now=END)

    whole = table(1_000)
    monkeypatch.setattr(rate_tables, "FEW", 0)
    for limit in (1, 2, 3):
        cut = table(limit)
        assert cut.rows[:limit] == whole.rows[:limit]
        rest = summed([Counts(), *(row.counts for row in whole.rows[limit:])])
        assert [row.counts for row in cut.rows[limit:]] == ([rest] if rest else [])
        assert cut.total == whole.total


def test_the_first_locations_are_the_same_in_any_order(mail: None) -> None:
    filter = asked("range=7d")
    for sort in ("risk", *(sign + name for sign in ("", "-") for name in SORTS)):
        whole, cut = (
            rate_tables.rates(
                filter, EVERYTHING, by="location", limit=limit, sort=sort, judge=True, now=END
            )
            for limit in (rate_tables.MAX_ROWS, 2)
        )
        assert cut.rows[:2] == whole.rows[:2], sort
        assert cut.rows[2].counts == whole.rows[2].counts, sort
        assert cut.whole == whole.whole


def test_rows_are_sorted_as_asked(mail: None) -> None:
    def keys(by: str, sort: str) -> list[str]:
        table = rate_tables.rates(asked(""), EVERYTHING, by=by, sort=sort, now=END)
        return [row.key for row in table.rows]

    assert keys("location", "key") == ["a", "b", "c"]
    assert keys("location", "-key") == ["c", "b", "a"]
    assert keys("day", "") == sorted(keys("day", ""))
    assert keys("day", "-key") == sorted(keys("day", ""), reverse=True)
    by_sent = rate_tables.rates(asked(""), EVERYTHING, by="tag", now=END).rows
    assert [row.counts.sent for row in by_sent] == sorted(
        (row.counts.sent for row in by_sent), reverse=True
    )


def test_labels_name_what_keys_identify(mail: None) -> None:
    Location.objects.filter(ref="a").update(name="Alpha Dental", company_name="Acme")
    Value.objects.filter(text="workflow:w1").update(label="Welcome")

    def labels(by: str) -> dict[str, str]:
        rows = rate_tables.rates(asked(""), EVERYTHING, by=by, now=END).rows
        return {row.key: row.label for row in rows}

    assert labels("location")["a"] == "Alpha Dental"
    assert labels("company") == {"acme": "Acme", "(none)": "(none)"}
    assert (labels("campaign")["workflow:w1"], labels("campaign")["(none)"]) == (
        "Welcome",
        "(none)",
    )


def test_by_category_bounced_counts_the_final_failure_and_deferred_every_temporary_one() -> None:
    put_off = (Category.GREYLISTED, Category.RATE_LIMITED)
    rows.delivery(
        1, outcome=Outcome.BOUNCED, category=Category.POLICY, bounce_class=3,
        deferred_as=put_off, flags=Flag.DEFERRED,
    )  # fmt: skip
    rows.delivery(2, deferred_as=put_off, flags=Flag.DEFERRED | Flag.REACHED)
    rows.delivery(3, flags=Flag.REACHED)
    question = Question(ALL, EVERYTHING, "category")
    tally, _ = count(question, counters=False)
    assert Counts(*tally.total) == Counts(sent=3, delivered=2, bounced=1, block=1, deferred=2)
    found = _named(question, tally)
    assert {key: (counts.bounced, counts.deferred) for key, counts in found.items()} == {
        "policy": (1, 0),
        "greylisted": (0, 2),
        "rate_limited": (0, 2),
    }


def test_rates_of_a_category_divide_by_the_whole_filter(mail: None) -> None:
    table = rate_tables.rates(asked(""), EVERYTHING, by="category", now=END).as_json()
    for row in table["rows"]:
        assert row["bounce_rate"]["denominator"] == table["total"]["settled"]


def test_an_address_counts_what_was_tried_there_and_settled_elsewhere() -> None:
    first, second = (Dimension.IP, "192.0.2.1"), (Dimension.IP, "192.0.2.2")
    rows.delivery(1, ip="192.0.2.1", flags=Flag.REACHED)
    rows.delivery(
        2, ip="192.0.2.2", tried=[first], deferred_at=[first], flags=Flag.REACHED | Flag.DEFERRED
    )
    rows.delivery(
        3, ip="192.0.2.2", tried=[first], deferred_at=[first, second], outcome=Outcome.BOUNCED,
        flags=Flag.DEFERRED,
    )  # fmt: skip
    question = Question(ALL, EVERYTHING, "ip")
    tally, _ = count(question, counters=False)
    assert _named(question, tally) == {
        "192.0.2.1": Counts(sent=3, delivered=1, deferred=2, moved=2),
        "192.0.2.2": Counts(sent=2, delivered=1, bounced=1, deferred=1),
    }


@pytest.mark.parametrize(
    ("query", "by", "options"),
    [
        ("", "mx", {}),
        ("", "colour", {}),
        ("", "location", {"sort": "colour"}),
        ("", "location", {"sort": "--sent"}),
        ("", "location", {"limit": 0}),
        ("", "location", {"limit": 1_001}),
        ("q=ann", "location", {}),
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


def test_every_attempt_can_be_asked_by_but_the_receivers_hosts() -> None:
    assert ATTEMPTS.keys() - set(BY) == {"mx"}


# --- Values that are not counted apart ---------------------------------------------------------


@pytest.fixture
def capped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mail of locations that count only one value of a dimension apart."""
    monkeypatch.setattr(decisions, "limit", 1)
    monkeypatch.setattr(conditions, "MOST_VALUES", 1)
    lives.write(lives.lives(80))


@pytest.mark.parametrize("by", [by for by in BY if by not in ("hour", "day")])
def test_values_that_share_a_row_are_counted_alike(capped: None, by: str) -> None:
    for query in ("", "tag=t1", "tag=(other)", "campaign=w1", "campaign=(other)", "step=-s1"):
        for times in ("range=7d", TIMES[10]):
            question = Question(asked(f"{query}&{times}"), EVERYTHING, by)
            fast, _ = count(question)
            slow, _ = count(question, counters=False)
            assert fast.total == slow.total, (query, times)
            assert _named(question, fast) == _named(question, slow), (query, times)


def test_what_is_not_counted_apart_is_in_other(capped: None) -> None:
    for by in ("tag", "campaign", "provider", "ip"):
        table = rate_tables.rates(asked("location=a"), EVERYTHING, by=by, now=END)
        keys = {row.key for row in table.rows}
        assert "(other)" in keys, by
        assert len(keys - {"(other)", "(none)"}) == 1, by


# --- How far back ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "by", "is_incomplete"),
    [
        ("range=7d", "tag", False),
        ("range=7d&tag=t1&tag=t2", "location", True),
        ("", "location", False),
        ("class=hard", "location", True),
        ("range=24h&class=hard", "location", False),
        ("range=7d&tz=Asia/Kolkata", "day", True),
    ],
)
def test_what_needs_deliveries_says_since_when_they_are_kept(
    mail: None, query: str, by: str, is_incomplete: bool
) -> None:
    since = datetime(2026, 9, 23, tzinfo=UTC)
    with rows.horizon(deliveries_hour=hour_of(since)):
        table = rate_tables.rates(asked(query), EVERYTHING, by=by, now=END)
    assert table.complete_from == (since if is_incomplete else None)
    assert table.as_json()["complete_from"] == (since.isoformat() if is_incomplete else None)


@pytest.mark.parametrize("query", ["", "range=7d", "tag=t1", "clock=event"])
def test_rows_without_names_are_those_of_the_table(mail: None, query: str) -> None:
    filter = asked(query)
    bare = rate_tables.location_rows(filter, EVERYTHING, now=END)
    table = rate_tables.rates(filter, EVERYTHING, by="location", now=END)
    assert {(row.groups, row.counts) for row in bare.values()} == {
        (row.groups, row.counts) for row in table.rows
    }
    assert all(bare[row.groups[0]].phis == row.phis for row in table.rows)
    assert bare
