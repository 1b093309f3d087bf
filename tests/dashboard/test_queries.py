"""Event rows, pages of events and deliveries, rates and minutes."""

import random
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

import pytest
from django.db import connection
from django.http import Http404
from django.test.utils import CaptureQueriesContext

from dashboard import queries
from dashboard.access import NOTHING, Rights, restrict
from dashboard.filters import Filter, FilterError, parse
from dashboard.rates import Counts, summed
from ingest import fold, record
from ingest.fold import contribution
from ingest.models import Delivery, Event, Location, MinuteCount, Value, tag_ids
from ingest.normalize import Detail
from ingest.vocabulary import Category, EventKind, Flag, Outcome
from tests.dashboard import rows
from tests.dashboard.rows import NOW
from tests.ingest.events import START, event

pytestmark = pytest.mark.django_db
EVERYTHING = Rights(everything=True)
ALL = parse([], now=NOW)


# --- Event rows ----------------------------------------------------------------------------


def test_an_event_row_carries_the_facts_of_its_delivery() -> None:
    of = rows.delivery(
        7,
        location_ref="loc",
        company="acme",
        tags=("b", "a"),
        campaign="workflow:w",
        step="s1",
        provider="Gmail",
        outcome=Outcome.BOUNCED,
        flags=Flag.LATE | Flag.REACHED,
        code=550,
    )
    Value.objects.filter(text="workflow:w").update(label="Welcome")
    detail = Detail(event_id="e1", message="no such user", reason="bounce", enhanced="5.1.1")
    stored = rows.event(of, kind=EventKind.DEFERRED, code=421, detail=detail)
    (row,) = queries.event_rows(after=0, limit=10)
    assert row.as_json() == {
        "cursor": stored.pk,
        "event_id": "e1",
        "kind": "deferred",
        "occurred_at": "2026-11-22T10:30:00+00:00",
        "received_at": "2026-11-22T10:30:00+00:00",
        "location": "loc",
        "message_id": "m7@mail",
        "recipient": "r7@example.com",
        "code": 421,
        "enhanced": "5.1.1",
        "message": "no such user",
        "reason": "bounce",
        "tags": ("a", "b"),
        "campaign": "workflow:w",
        "step": "s1",
        "provider": "Gmail",
        "delivery": of.pk,
        "outcome": "bounced",
        "late": True,
        "recovered": False,
        "inferred": False,
    }
    assert (row.company, row.campaign_label, row.delivery_code) == ("acme", "Welcome", 550)


def test_an_event_without_a_delivery_speaks_for_itself() -> None:
    rows.event(kind=EventKind.OPENED, detail=Detail(message_id="m@x", recipient="a@b"), code=250)
    (row,) = queries.event_rows(after=0, limit=10)
    assert (row.message_id, row.recipient, row.tags, row.sent_at) == ("m@x", "a@b", (), None)
    assert row.as_json()["outcome"] is None
    assert row.as_json()["campaign"] is None


def test_rows_come_in_the_order_of_their_cursors_between_the_bounds() -> None:
    of = rows.delivery()
    ids = [rows.event(of, occurred_at=NOW - timedelta(minutes=i)).pk for i in range(5)]
    assert [row.cursor for row in queries.event_rows(after=0, limit=10)] == ids
    assert [row.cursor for row in queries.event_rows(after=ids[0], limit=2)] == ids[1:3]
    some = queries.event_rows(after=ids[1], until=ids[3], limit=10)
    assert [row.cursor for row in some] == ids[2:4]
    assert queries.event_rows(after=ids[-1], limit=10) == []


def test_event_rows_cost_two_queries_and_one_when_idle() -> None:
    for number in range(20):
        rows.event(rows.delivery(number, tags=(f"t{number}",), campaign=f"c{number}"))
    with CaptureQueriesContext(connection) as busy:
        assert len(queries.event_rows(after=0, limit=100)) == 20
    with CaptureQueriesContext(connection) as idle:
        assert queries.event_rows(after=queries.newest_cursor(), limit=100) == []
    assert (len(busy), len(idle)) == (2, 2)  # idle: newest_cursor and one look


def test_cursors_of_an_empty_table_are_zero() -> None:
    assert (queries.oldest_cursor(), queries.newest_cursor()) == (0, 0)
    assert not queries.is_pruned(0)
    assert not queries.is_pruned(5)


def test_a_cursor_before_the_kept_events_is_known_as_pruned() -> None:
    ids = [rows.event(rows.delivery(number)).pk for number in range(4)]
    assert not any(queries.is_pruned(after) for after in (0, *ids))
    Event.objects.filter(pk__lt=ids[2]).delete()
    assert [queries.is_pruned(after) for after in ids] == [True, False, False, False]


# --- Pages of events -----------------------------------------------------------------------


def page(query: str = "", rights: Rights = EVERYTHING, **bounds: int) -> queries.EventsPage:
    return queries.events_page(asked(query), rights, **{"after": 0, "limit": 10, **bounds})


def asked(query: str) -> Filter:
    return parse([tuple(p.split("=", 1)) for p in query.split("&") if p], now=NOW)  # type: ignore[misc]


def test_a_page_of_events_holds_what_matches_and_says_if_more_follow() -> None:
    ids = [rows.event(rows.delivery(n, tags=("odd",) if n % 2 else ())).pk for n in range(10)]
    first = page("tag=odd", limit=2)
    assert [row.cursor for row in first.rows] == [ids[1], ids[3]]
    assert (first.cursor, first.more) == (ids[3], True)
    rest = page("tag=odd", after=first.cursor)
    assert [row.cursor for row in rest.rows] == [ids[5], ids[7], ids[9]]
    assert (rest.cursor, rest.more) == (ids[9], False)


def test_a_page_of_events_holds_only_what_may_be_seen() -> None:
    mine = rows.event(rows.delivery(1, location_ref="mine"))
    rows.event(rows.delivery(2, location_ref="hidden"))
    rights = Rights(location_ids=frozenset({mine.location_id}))
    assert [row.cursor for row in page(rights=rights).rows] == [mine.pk]
    assert page(rights=NOTHING).rows == []
    with pytest.raises(Http404):
        page("location=hidden", rights)


def test_a_rare_match_takes_several_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queries, "SCAN_CHUNK", 2)
    monkeypatch.setattr(queries, "SCAN_MOST", 4)
    ids = [rows.event(rows.delivery(n, tags=("rare",) if n == 6 else ())).pk for n in range(8)]
    empty = page("tag=rare")
    assert (empty.rows, empty.cursor, empty.more) == ([], ids[3], True)
    found = page("tag=rare", after=empty.cursor)
    assert [row.cursor for row in found.rows] == [ids[6]]


# --- Rates ---------------------------------------------------------------------------------

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
        field = queries.VALUE_FIELDS.get(by)
        for key in keys[by] if field is None else [texts[getattr(delivery, field[1])]]:
            found[key] += counts
    return {key: counts for key, counts in found.items() if counts or key == "total"}


@pytest.mark.parametrize("by", [by for by in queries.BY if by != "category"])
def test_rates_are_what_counting_the_deliveries_gives(mail: None, by: str) -> None:
    some = Location.objects.filter(ref__in=["a", "c"]).values_list("pk", flat=True)
    combined = [*product(FILTERS, ("range=7d", TIMES[9])), *product(("", "tag=t1"), TIMES)]
    for query, times in combined:
        for rights in (EVERYTHING, Rights(location_ids=frozenset(some)), NOTHING):
            if "location=" in query and not rights.everything:
                continue
            filter = asked(f"{query}&{times}").at(END)
            table = queries.rates(filter, rights, by=by, limit=1_000, now=END)
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
        queries.rates(asked(query), EVERYTHING, by=by, now=END)
    assert any("ingest_delivery" in query["sql"] for query in made) is exact


def test_an_overview_costs_few_queries(mail: None) -> None:
    with CaptureQueriesContext(connection) as made:
        queries.rates(asked("range=24h"), EVERYTHING, by="location", now=END)
    assert len(made) == 2


def test_rows_by_tag_overlap_and_the_total_does_not(mail: None) -> None:
    table = queries.rates(asked(""), EVERYTHING, by="tag", now=END)
    assert table.overlap
    assert sum(row.counts.sent for row in table.rows) > table.total.sent
    assert table.total == queries.rates(asked(""), EVERYTHING, by="location", now=END).total


def test_what_is_past_the_limit_is_added_up(mail: None) -> None:
    whole = queries.rates(asked(""), EVERYTHING, by="hour", limit=1_000, now=END)
    cut = queries.rates(asked(""), EVERYTHING, by="hour", limit=3, now=END)
    assert cut.rows[:3] == whole.rows[:3]
    assert [row.key for row in cut.rows[3:]] == ["(rest)"]
    assert cut.total == whole.total == summed(row.counts for row in cut.rows)


def test_rows_are_sorted_as_asked(mail: None) -> None:
    def keys(by: str, sort: str) -> list[str]:
        return [r.key for r in queries.rates(asked(""), EVERYTHING, by=by, sort=sort, now=END).rows]

    assert keys("location", "key") == ["a", "b", "c"]
    assert keys("location", "-key") == ["c", "b", "a"]
    assert keys("day", "") == sorted(keys("day", ""))
    assert keys("day", "-key") == sorted(keys("day", ""), reverse=True)
    by_sent = queries.rates(asked(""), EVERYTHING, by="tag", now=END).rows
    assert [row.counts.sent for row in by_sent] == sorted(
        (row.counts.sent for row in by_sent), reverse=True
    )


def test_labels_name_what_keys_identify(mail: None) -> None:
    Location.objects.filter(ref="a").update(name="Alpha Dental")
    Value.objects.filter(text="workflow:w1").update(label="Welcome")
    by_location = queries.rates(asked(""), EVERYTHING, by="location", now=END)
    assert {row.key: row.label for row in by_location.rows}["a"] == "Alpha Dental"
    by_campaign = queries.rates(asked(""), EVERYTHING, by="campaign", now=END)
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
    table = queries.rates(ALL, EVERYTHING, by="category", now=NOW)
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
        queries.rates(asked(query), EVERYTHING, by=by, now=NOW, **options)


def test_rates_of_a_hidden_location_are_refused() -> None:
    rows.location("hidden")
    with pytest.raises(Http404):
        queries.rates(asked("location=hidden"), NOTHING, by="hour", now=NOW)


# --- Deliveries ----------------------------------------------------------------------------


def test_deliveries_come_newest_first_and_page_by_page() -> None:
    made = [rows.delivery(n, sent_at=NOW - timedelta(minutes=n // 3)).pk for n in range(10)]
    expected = [*made[2::-1], *made[5:2:-1], *made[8:5:-1], made[9]]
    seen, before = [], ""
    while True:
        found = queries.deliveries_page(ALL, EVERYTHING, before=before, limit=4)
        assert len(found.rows) <= 4
        seen += [row.id for row in found.rows]
        if found.before is None:
            break
        before = found.before
    assert seen == expected


def test_a_delivery_row_has_all_of_the_contract() -> None:
    facts = fold.dump_facts(fold.Facts(deferral_categories=[Category.GREYLISTED]))
    of = rows.delivery(
        1, tags=("b", "a"), campaign="workflow:w", outcome=Outcome.BOUNCED, bounce_class=1,
        category=Category.INVALID_RECIPIENT, flags=Flag.LATE | Flag.REACHED, code=550, facts=facts,
    )  # fmt: skip
    (row,) = queries.deliveries_page(ALL, EVERYTHING, limit=5).rows
    assert row.as_json() == {
        "id": of.pk, "location": "loc", "message_id": "m1@mail", "recipient": "r1@example.com",
        "sent_at": "2026-11-22T10:30:00+00:00", "outcome": "bounced", "late": True,
        "recovered": False, "inferred": False, "is": ("late", "reached"),
        "category": "invalid_recipient", "class": "hard", "code": 550,
        "deferral_categories": ("greylisted",), "tags": ("a", "b"), "campaign": "workflow:w",
        "campaign_label": None, "step": None, "provider": None, "domain": "example.com",
        "sending_domain": None,
    }  # fmt: skip


def test_a_delivery_of_others_is_missing() -> None:
    mine, hidden = rows.delivery(1, location_ref="a"), rows.delivery(2, location_ref="b")
    rights = Rights(location_ids=frozenset({mine.location_id}))
    assert [row.id for row in queries.deliveries_page(ALL, rights, limit=5).rows] == [mine.pk]
    assert queries.get_delivery(mine.pk, rights).id == mine.pk
    for pk in (hidden.pk, 999_999):
        with pytest.raises(Http404, match=r"^There is no such delivery\.$"):
            queries.get_delivery(pk, rights)


def test_the_events_of_a_delivery_come_in_the_order_of_their_times() -> None:
    of, other = rows.delivery(1), rows.delivery(2)
    late = rows.event(of, occurred_at=NOW)
    early = rows.event(of, occurred_at=NOW - timedelta(minutes=1))
    rows.event(other)
    found = queries.events_of(queries.get_delivery(of.pk, EVERYTHING))
    assert [row.cursor for row in found] == [early.pk, late.pk]


@pytest.mark.parametrize("before", ["x", "1", "1.2.3", "9999999999999999999999.1"])
def test_a_page_that_nobody_gave_is_refused(before: str) -> None:
    with pytest.raises(FilterError):
        queries.deliveries_page(ALL, EVERYTHING, before=before, limit=5)


# --- Minutes -------------------------------------------------------------------------------


def test_minutes_are_counted_by_kind_up_to_now() -> None:
    this = int(NOW.timestamp()) // 60
    a, b = rows.location("a"), rows.location("b")
    for where, minute, kind, events in (
        (a, this, EventKind.DELIVERED, 2),
        (b, this, EventKind.DELIVERED, 3),
        (b, this - 2, EventKind.COMPLAINED, 1),
        (b, this - 3, EventKind.BOUNCED, 9),
        (a, this + 1, EventKind.BOUNCED, 9),
        (a, this, EventKind.OPENED, 9),
    ):
        MinuteCount.objects.create(location=where, minute=minute, kind=kind, events=events)
    drawn = queries.minutes(ALL, EVERYTHING, now=NOW, count=3)
    assert [(m.delivered, m.bounced, m.complained) for m in drawn] == [
        (0, 0, 1), (0, 0, 0), (5, 0, 0),
    ]  # fmt: skip
    assert drawn[-1].at == NOW
    mine = Rights(location_ids=frozenset({a.pk}))
    assert queries.minutes(ALL, mine, now=NOW, count=1)[0].delivered == 2
    assert queries.minutes(asked("location=-a"), EVERYTHING, now=NOW, count=1)[0].delivered == 3
