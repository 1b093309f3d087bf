"""Event rows, pages of events and deliveries, rates and minutes."""

from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection
from django.http import Http404
from django.test.utils import CaptureQueriesContext

from dashboard import event_search, queries
from dashboard.access import NOTHING, Rights
from dashboard.filters import Filter, FilterError, parse
from ingest import counting
from ingest.models import MinuteCount, Value
from ingest.normalize import Detail
from ingest.vocabulary import BounceClass, Category, Dimension, EventKind, Flag, Outcome
from tests.dashboard import rows
from tests.dashboard.rows import NOW

pytestmark = pytest.mark.django_db
EVERYTHING = Rights(everything=True)
ALL = parse([], now=NOW)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


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
    detail = Detail(
        event_id="e1", message="no such user", reason="bounce", enhanced="5.1.1", ip="192.0.2.1",
        pool="p1", mx="mx.example",
    )  # fmt: skip
    stored = rows.event(
        of, kind=EventKind.DEFERRED, code=421, detail=detail, category=Category.RATE_LIMITED,
        bounce_class=BounceClass.SOFT, reason=rows.reason("slow down"),
    )  # fmt: skip
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
        "reason_id": rows.reason("slow down").pk,
        "category": "rate_limited",
        "class": "soft",
        "ip": "192.0.2.1",
        "pool": "p1",
        "mx": "mx.example",
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
    assert row.as_json()["category"] is None


def test_an_event_row_knows_where_its_delivery_was_tried() -> None:
    of = rows.delivery(
        ip="192.0.2.1", pool="p", tried=[(Dimension.IP, "192.0.2.2"), (Dimension.IP, "192.0.2.3")],
        deferred_at=[(Dimension.IP, "192.0.2.2")], deferred_as=[Category.GREYLISTED],
        capped=("192.0.2.3",),
    )  # fmt: skip
    rows.event(of, kind=EventKind.OPENED)
    (row,) = queries.event_rows(after=0, limit=10)
    assert row.way("ip") == queries.Way(
        "192.0.2.1", ("192.0.2.2", "192.0.2.3"), ("192.0.2.2",), frozenset({"192.0.2.3"})
    )
    assert (row.way("pool"), row.way("mx")) == (queries.Way("p"), queries.Way())
    assert row.deferral_categories == ("greylisted",)
    assert row.ip == ""


def test_values_that_share_other_are_known_by_their_dimensions() -> None:
    late = rows.delivery(1, tags=("a", "z"), campaign="c", step="s", capped=("z", "c"))
    rows.event(late)
    rows.event(rows.delivery(2, tags=("z",), location_ref="roomy"))
    uncounted = [row.uncounted for row in queries.event_rows(after=0, limit=10)]
    assert uncounted == [{"tag", "campaign"}, set()]


def test_rows_come_in_the_order_of_their_cursors_between_the_bounds() -> None:
    of = rows.delivery()
    ids = [rows.event(of, occurred_at=NOW - timedelta(minutes=i)).pk for i in range(5)]
    assert [row.cursor for row in queries.event_rows(after=0, limit=10)] == ids
    assert [row.cursor for row in queries.event_rows(after=ids[0], limit=2)] == ids[1:3]
    some = queries.event_rows(after=ids[1], until=ids[3], limit=10)
    assert [row.cursor for row in some] == ids[2:4]
    assert queries.event_rows(after=ids[-1], limit=10) == []


def test_event_rows_cost_three_queries_and_one_when_idle() -> None:
    for number in range(20):
        rows.event(rows.delivery(number, tags=(f"t{number}",), campaign=f"c{number}"))
    with CaptureQueriesContext(connection) as busy:
        assert len(queries.event_rows(after=0, limit=100)) == 20
    with CaptureQueriesContext(connection) as idle:
        assert queries.event_rows(after=queries.newest_cursor(), limit=100) == []
    assert (len(busy), len(idle)) == (3, 2)  # idle: newest_cursor and one look


def test_cursors_of_an_empty_table_are_zero() -> None:
    assert (queries.oldest_cursor(), queries.newest_cursor()) == (1, 0)
    assert not queries.is_pruned(0)
    assert not queries.is_pruned(5)


def test_a_cursor_before_the_kept_events_is_known_as_pruned() -> None:
    with rows.horizon(events_cursor=7):
        assert [queries.is_pruned(after) for after in (0, 1, 6, 7, 8)] == [
            False, True, True, False, False,
        ]  # fmt: skip
        assert queries.oldest_cursor() == 8


@pytest.mark.parametrize(
    ("query", "after", "events", "deliveries"),
    [
        ("", 0, 20, 10),
        ("", 7, 20, 10),
        ("", 8, None, 10),
        ("to=1971-01-01", 0, 20, 10),
        ("range=24h", 0, None, None),
    ],
)
def test_what_goes_back_too_far_says_from_when_on_all_is_kept(
    query: str, after: int, events: int | None, deliveries: int | None
) -> None:
    def at(hour: int | None) -> datetime | None:
        return None if hour is None else EPOCH + timedelta(hours=hour)

    with rows.horizon(events_cursor=7, events_hour=20, deliveries_hour=10):
        filter = asked(query)
        assert queries.events_complete_from(filter, after=after) == at(events)
        assert queries.deliveries_complete_from(filter) == at(deliveries)


def test_deliveries_by_what_happened_are_complete_from_the_later_of_two_hours() -> None:
    assert queries.deliveries_complete_from(asked("clock=event")) is None
    with rows.horizon(events_hour=20, deliveries_hour=10):
        found = queries.deliveries_complete_from(asked("clock=event"))
        assert found == EPOCH + timedelta(hours=20)


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
    monkeypatch.setattr(queries, "SCAN_SECONDS", 0)
    monkeypatch.setattr(event_search, "FIRST", 4)
    monkeypatch.setattr(event_search, "FEW_DELIVERIES", 0)
    ids = [rows.event(rows.delivery(n, tags=("rare",) if n == 6 else ())).pk for n in range(8)]
    empty = page("tag=rare", after=ids[0] - 1)
    assert (empty.rows, empty.cursor, empty.more) == ([], ids[3], True)
    found = page("tag=rare", after=empty.cursor)
    assert [row.cursor for row in found.rows] == [ids[6]]
    assert (found.cursor, found.more) == (ids[7], False)


def test_a_page_goes_on_past_what_only_the_database_took_for_a_match() -> None:
    reason = rows.reason()
    ids = [
        rows.event(rows.delivery(n), reason=reason, detail=Detail(ip=f"192.0.2.{n}")).pk
        for n in range(9)
    ]
    found = page(f"reason={reason.pk}&ip=192.0.2.7&ip=192.0.2.8", limit=1)
    assert [row.cursor for row in found.rows] == [ids[7]]
    assert (found.cursor, found.more) == (ids[7], True)


# --- Deliveries ----------------------------------------------------------------------------


@pytest.mark.parametrize("rare", [False, True])
def test_deliveries_come_newest_first_and_page_by_page(
    rare: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if rare:  # not found soon
        monkeypatch.setattr(queries, "within", lambda seconds, read: None)
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


@pytest.mark.parametrize("few", [-1, 50_000])
def test_the_deliveries_of_a_reason_are_found(few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queries, "FEW_REFUSALS", few)
    seldom, often = rows.reason("seldom"), rows.reason("often")
    made = [rows.delivery(n, reason=r) for n, r in enumerate([seldom, often, None])]
    for of in made:
        rows.event(of, kind=EventKind.DEFERRED, reason=seldom)

    def found(query: str) -> list[int]:
        page = queries.deliveries_page(asked(query), EVERYTHING, limit=5)
        return sorted(row.id for row in page.rows)

    assert found(f"reason={seldom.pk}") == [made[0].pk]
    assert found(f"reason={seldom.pk}&reason=(none)") == [made[0].pk, made[2].pk]
    assert found(f"reason=-{seldom.pk}") == [made[1].pk, made[2].pk]


def test_a_reason_of_long_ago_does_not_make_its_new_mail_frequent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(queries, "FEW_REFUSALS", 1)
    reason = rows.reason()
    made = [
        rows.delivery(n, reason=reason, sent_at=NOW - timedelta(days=days))
        for n, days in enumerate((9, 9, 0))
    ]
    for of in made:
        rows.event(of, kind=EventKind.BOUNCED, reason=reason)
    counting.rebuild(now=int(NOW.timestamp() * 1e6))
    for query, few in ((f"reason={reason.pk}", False), (f"reason={reason.pk}&range=24h", True)):
        found = str(queries.of_reasons(asked(query)).query)
        assert ("ingest_event" in found) is few
    page = queries.deliveries_page(asked(f"reason={reason.pk}&range=24h"), EVERYTHING, limit=5)
    assert [row.id for row in page.rows] == [made[2].pk]


def test_a_page_of_events_begins_where_its_time_does(monkeypatch: pytest.MonkeyPatch) -> None:
    event_search.beginnings.clear()
    monkeypatch.setattr(event_search, "FEW_EVENTS", -1)
    monkeypatch.setattr(event_search, "FIRST", 2)
    old = [rows.event(rows.delivery(n, sent_at=NOW - timedelta(days=9))).pk for n in range(7)]
    of = rows.delivery(9)
    new = [rows.event(of, kind=kind).pk for kind in (EventKind.ACCEPTED, EventKind.DELIVERED)]
    found = page("range=24h", after=old[0] - 1)
    assert [row.cursor for row in found.rows] == new
    assert (found.cursor, found.more) == (new[-1], False)
    event_search.beginnings.clear()


def test_a_delivery_row_has_all_of_the_contract() -> None:
    reason = rows.reason()
    of = rows.delivery(
        1, tags=("b", "a"), campaign="workflow:w", outcome=Outcome.BOUNCED, bounce_class=1,
        category=Category.INVALID_RECIPIENT, flags=Flag.LATE | Flag.REACHED | Flag.EXPIRED,
        code=550, deferred_as=[Category.GREYLISTED], ip="192.0.2.1", pool="p1", mx="mx.example",
        step="s1", reason=reason,
    )  # fmt: skip
    (row,) = queries.deliveries_page(ALL, EVERYTHING, limit=5).rows
    assert row.as_json() == {
        "id": of.pk, "location": "loc", "message_id": "m1@mail", "recipient": "r1@example.com",
        "sent_at": "2026-11-22T10:30:00+00:00", "outcome": "bounced", "late": True,
        "recovered": False, "inferred": False, "is": ("late", "reached", "expired"),
        "category": "invalid_recipient", "class": "hard", "code": 550,
        "deferral_categories": ("greylisted",), "tags": ("a", "b"), "campaign": "workflow:w",
        "campaign_label": None, "step": "s1", "provider": None, "domain": "example.com",
        "sending_domain": None, "ip": "192.0.2.1", "pool": "p1", "mx": "mx.example",
        "reason_id": reason.pk,
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
    found = queries.events_of(queries.get_delivery(of.pk, EVERYTHING), EVERYTHING)
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
