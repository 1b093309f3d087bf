"""Retention: what is old goes in bounded steps, the horizon first, and nothing else goes."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import datetime
from functools import partial
from itertools import batched, count
from typing import Any

import orjson
import psycopg
import pytest
from django.db import OperationalError, connection
from django.db.models import Model
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from ingest import counting, days, retention
from ingest.ids import ids
from ingest.models import (
    AnswerHour,
    Delivery,
    Event,
    EventHour,
    Horizon,
    HourlyCount,
    KeptWebhook,
    Location,
    LocationHour,
    MinuteCount,
    QualityHour,
    QuarantinedWebhook,
    ReasonHour,
)
from ingest.record import item_from_body, write_batch
from ingest.retention import (
    HORIZON_AGE,
    MINUTES_KEPT,
    PRUNE_LOCK,
    REST,
    Kept,
    Pruning,
    Taken,
    horizon,
    prune_some,
)
from ingest.statements import aware_utc
from ingest.vocabulary import MEASURES, Dimension

NOW_MINUTE = 29_833_333
NOW = NOW_MINUTE * 60_000_000
HOUR = 3_600_000_000
DAY = 24 * HOUR
HORIZON_HOUR = (NOW - 180 * DAY) // HOUR

type Queries = Callable[[int], AbstractContextManager[object]]


@pytest.fixture(autouse=True)
def _know_nothing(monkeypatch: pytest.MonkeyPatch, settings: Any) -> Iterator[None]:
    settings.EVENT_RETENTION_DAYS, settings.PAYLOAD_RETENTION_DAYS = 180, 30
    monkeypatch.setattr(retention, "SETTLE", 0.0)
    horizon.clear()
    prune_some.clear()
    yield
    horizon.clear()
    prune_some.clear()


# --- The horizon --------------------------------------------------------------------------------


@pytest.mark.django_db
def test_without_a_row_nothing_has_gone() -> None:
    assert horizon(NOW) == Kept(0, 0, 0, 0, 0)


@pytest.mark.django_db
def test_the_horizon_is_read_at_most_once_a_second(django_assert_num_queries: Queries) -> None:
    assert horizon(NOW).deliveries_hour == 0
    Horizon.objects.create(deliveries_hour=7, events_cursor=6, events_hour=5, days_hour=4)
    with django_assert_num_queries(0):
        assert horizon(NOW + HORIZON_AGE - 1).deliveries_hour == 0
    with django_assert_num_queries(1):
        assert horizon(NOW + HORIZON_AGE) == Kept(7, 6, 5, 0, 4)
    with django_assert_num_queries(0):
        assert horizon(NOW + HORIZON_AGE + 1).events_cursor == 6


@pytest.mark.django_db
def test_a_clock_that_was_put_back_does_not_hold_the_horizon() -> None:
    assert horizon(NOW).deliveries_hour == 0
    Horizon.objects.create(deliveries_hour=7)
    assert horizon(NOW - HOUR).deliveries_hour == 7


@pytest.mark.django_db
def test_a_cleared_horizon_is_read_again() -> None:
    assert horizon(NOW).deliveries_hour == 0
    Horizon.objects.create(deliveries_hour=7)
    horizon.clear()
    assert horizon(NOW).deliveries_hour == 7


# --- Minutes ------------------------------------------------------------------------------------


def count_minutes(*ages: int) -> None:
    location = Location.objects.create(ref="loc")
    MinuteCount.objects.bulk_create(
        MinuteCount(location=location, minute=NOW_MINUTE - age, kind=2, events=1) for age in ages
    )


@pytest.mark.django_db
def test_minutes_are_kept_for_48_hours() -> None:
    count_minutes(0, MINUTES_KEPT - 1, MINUTES_KEPT, MINUTES_KEPT + 1)
    prune()
    left = MinuteCount.objects.values_list("minute", flat=True)
    assert sorted(NOW_MINUTE - minute for minute in left) == [0, MINUTES_KEPT - 1]


# --- Payloads, events, deliveries ---------------------------------------------------------------

_keys = count(1)


def add_delivery(days_ago: float) -> Delivery:
    location, _ = Location.objects.get_or_create(ref="loc")
    return Delivery.objects.create(
        location=location, message_id=f"m{next(_keys)}@x", recipient="jane@example.org",
        sent_at=ago(days_ago), outcome=3, campaign_id=1, provider_id=2, domain_id=3,
        sending_domain_id=4,
    )  # fmt: skip


def add_event(days_ago: float, delivery: Delivery | None = None) -> Event:
    location, _ = Location.objects.get_or_create(ref="loc")
    return Event.objects.create(
        location=location, delivery=delivery, key=next(_keys).to_bytes(16), kind=2,
        occurred_at=ago(days_ago), received_at=ago(days_ago), content=1, payload=b"raw",
    )  # fmt: skip


def ago(days_ago: float) -> datetime:
    return aware_utc(NOW - round(days_ago * DAY))


def prune(*, limit: int = 100, now: int = NOW, dry: bool = False) -> dict[str, int]:
    """Rows that went, by kind."""
    gone: dict[str, int] = {}
    for step in Pruning(now=now, limit=limit, dry=dry).steps():
        assert step.rows >= 0
        assert 0 <= step.share <= 1
        gone[step.what] = gone.get(step.what, 0) + step.rows
    return {what: rows for what, rows in gone.items() if rows}


def everything() -> list[Any]:
    """All that pruning may touch."""
    tables: tuple[type[Model], ...] = (
        Event, Delivery, Horizon, LocationHour, HourlyCount, EventHour, ReasonHour, QualityHour,
        AnswerHour, KeptWebhook, QuarantinedWebhook, MinuteCount,
    )  # fmt: skip
    return [sorted(map(repr, table._default_manager.values_list())) for table in tables]


@pytest.mark.django_db
@pytest.mark.parametrize("limit", [1, 2, 100])
def test_payloads_go_before_their_events(limit: int) -> None:
    old = [add_event(days_ago) for days_ago in (40, 31, 30.01)]
    young = [add_event(days_ago) for days_ago in (29.9, 1)]
    assert prune(limit=limit) == {"payloads": 3}
    assert [e.payload for e in Event.objects.order_by("id")] == [None] * 3 + [b"raw"] * 2
    assert retention.read_horizon().payloads_cursor == old[-1].pk
    assert prune(limit=limit) == {}
    assert prune(limit=limit, now=NOW + DAY) == {"payloads": 1}
    assert retention.read_horizon().payloads_cursor == young[0].pk


@pytest.mark.django_db
def test_no_step_touches_more_than_its_limit() -> None:
    for _ in range(7):
        add_event(200, add_delivery(200))
    rows = [(step.what, step.rows) for step in Pruning(now=NOW, limit=3).steps()]
    assert rows == [
        *(("payloads", n) for n in (3, 3, 1)),
        *(("events", n) for n in (3, 3, 1)),
        *(("deliveries", n) for n in (3, 3, 1)),
    ]


@pytest.mark.django_db
@pytest.mark.parametrize("limit", [1, 3, 100])
def test_events_go_in_the_order_of_their_cursors_up_to_the_first_that_is_kept(limit: int) -> None:
    add_event(200)
    last = add_event(181)
    kept = add_event(10)
    behind = add_event(300)  # a capture that was replayed late
    prune(limit=limit)
    assert list(Event.objects.order_by("id")) == [kept, behind]
    assert retention.read_horizon().events_cursor == last.pk
    prune(limit=limit, now=NOW + 180 * DAY)
    assert list(Event.objects.order_by("id")) == []


@pytest.mark.django_db
@pytest.mark.parametrize("limit", [1, 2, 3, 100])
def test_a_receipt_in_the_future_holds_nobody_up_and_does_not_go_alone(limit: int) -> None:
    """A clock was a year ahead for a while."""
    for days_ago in (200, -365, -365, -365, 190):
        add_event(days_ago)
    kept = [add_event(days_ago) for days_ago in (10, -365, -365, -365)]
    prune(limit=limit)
    assert list(Event.objects.order_by("id")) == kept
    Event.objects.filter(pk=kept[0].pk).delete()
    prune(limit=limit)
    assert list(Event.objects.order_by("id")) == kept[1:]


@pytest.mark.django_db
def test_the_horizon_stands_at_a_whole_hour() -> None:
    prune()
    stored = retention.read_horizon()
    assert stored.deliveries_hour == stored.events_hour == HORIZON_HOUR
    assert HORIZON_HOUR * HOUR <= NOW - 180 * DAY


@pytest.mark.django_db
def test_the_horizon_never_comes_back(settings: Any) -> None:
    prune()
    settings.EVENT_RETENTION_DAYS = 400
    prune()
    prune(now=NOW - 50 * DAY)
    assert retention.read_horizon().deliveries_hour == HORIZON_HOUR


@pytest.mark.django_db
def test_the_horizon_moves_before_anything_before_it_goes() -> None:
    add_event(200, add_delivery(200))
    for step in Pruning(now=NOW, limit=10).steps():
        if step.what in ("events", "deliveries"):
            assert retention.read_horizon().deliveries_hour == HORIZON_HOUR
            assert horizon(NOW).deliveries_hour == HORIZON_HOUR
    assert Delivery.objects.count() == 0


@pytest.mark.django_db
@pytest.mark.parametrize("limit", [1, 2, 100])
def test_a_delivery_goes_with_the_last_of_its_events(limit: int) -> None:
    gone, engaged, recent = add_delivery(200), add_delivery(190), add_delivery(179)
    add_event(200, gone)
    add_event(190, engaged)
    add_event(20, engaged)
    add_event(179, recent)
    add_delivery(185)  # never had one
    assert prune(limit=limit)["deliveries"] == 2
    assert list(Delivery.objects.order_by("id")) == [engaged, recent]
    assert prune(limit=limit, now=NOW + 161 * DAY)["deliveries"] == 2
    assert Delivery.objects.count() == 0


@pytest.mark.django_db
def test_deliveries_sent_at_the_same_moment_are_all_seen() -> None:
    for i in range(7):
        delivery = add_delivery(200)
        if i % 2:
            add_event(10, delivery)
    assert prune(limit=2)["deliveries"] == 4
    assert Delivery.objects.count() == 3


@pytest.mark.django_db
def test_nothing_goes_while_a_writer_may_not_know_the_horizon(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(retention, "SETTLE", 3_600.0)
    monkeypatch.setattr(retention, "_seen", (0, 0.0))
    add_event(200, add_delivery(200))
    steps = Pruning(now=NOW, limit=10).steps()
    assert [next(steps).what for _ in range(2)] == ["payloads", "events"]
    assert next(steps).waits
    assert next(steps).waits
    monkeypatch.setattr(retention, "SETTLE", 0.0)
    assert next(steps)[:2] == ("deliveries", 1)


@pytest.mark.django_db
def test_a_run_that_is_cut_off_goes_on_where_it_ended() -> None:
    for _ in range(5):
        add_event(200, add_delivery(200))
    steps = Pruning(now=NOW, limit=2).steps()
    for step in steps:
        if step.what == "events":
            break
    steps.close()  # type: ignore[attr-defined]
    assert Event.objects.count() == 3
    assert prune(limit=2) == {"events": 3, "deliveries": 5}


# --- What has an age of its own -----------------------------------------------------------------


@pytest.mark.django_db
@pytest.mark.parametrize("limit", [1, 100])
def test_quality_and_answers_are_kept_for_400_days(limit: int) -> None:
    hours = [(NOW - days_ago * DAY) // HOUR for days_ago in (500, 401, 399, 1)]
    for hour in hours:
        QualityHour.objects.create(location_id=1, hour=hour, events=1)
        AnswerHour.objects.create(source_id=0, hour=hour, status="stored", answers=1)
        AnswerHour.objects.create(source_id=2, hour=hour, status="stored", answers=1)
    assert prune(limit=limit) == {"hours of quality": 2, "hours of answers": 4}
    assert set(QualityHour.objects.values_list("hour", flat=True)) == set(hours[2:])
    assert set(AnswerHour.objects.values_list("hour", flat=True)) == set(hours[2:])


def keep(received: float, replayed: float | None = None) -> KeptWebhook:
    return KeptWebhook.objects.create(
        received_at=ago(received), replayed_at=None if replayed is None else ago(replayed),
        reason="no location", digest=next(_keys).to_bytes(16), body=b"{}",
    )  # fmt: skip


@pytest.mark.django_db
@pytest.mark.parametrize("limit", [1, 100])
def test_kept_webhooks_go_a_month_after_they_were_replayed(limit: int) -> None:
    keep(401)
    keep(401, 1)
    keep(40, 31)
    left = [keep(399), keep(40, 29), keep(1)]
    assert prune(limit=limit) == {"kept webhooks": 3}
    assert list(KeptWebhook.objects.order_by("id")) == left


@pytest.mark.django_db
def test_quarantined_webhooks_are_kept_for_a_week() -> None:
    for days_ago in (8, 7.01, 6.9):
        QuarantinedWebhook.objects.create(
            received_at=ago(days_ago), digest=next(_keys).to_bytes(16), body=b"{}"
        )
    assert prune() == {"quarantined webhooks": 2}
    assert QuarantinedWebhook.objects.get().received_at == ago(6.9)


@pytest.mark.django_db
def test_a_run_lets_go_of_minutes_too() -> None:
    count_minutes(*(MINUTES_KEPT + age for age in range(120)))
    assert prune() == {"minutes": 120}


# --- Hours become days --------------------------------------------------------------------------

OLD_DAY = (NOW - 800 * DAY) // DAY * 24  # the first hour of a day that is long frozen
EDGE = (NOW - 730 * DAY) // DAY * 24  # the first hour of the first day that keeps its hours


def add_hours(hour: int, *, location: int = 1, n: int = 1) -> None:
    LocationHour.objects.create(location_id=location, hour=hour, sent=n, delivered=2 * n, moved=n)
    for dimension, value in ((Dimension.TAG, 5), (Dimension.TAG, 6), (Dimension.CATEGORY, 5)):
        HourlyCount.objects.create(
            location_id=location, dimension=dimension, hour=hour, value_id=value, sent=n, hard=n
        )
    for kind in (2, 4):
        EventHour.objects.create(
            location_id=location, hour=hour, provider_id=3, kind=kind, events=n
        )
        ReasonHour.objects.create(
            location_id=location, hour=hour, reason_id=4, provider_id=3, pool_id=0, kind=kind,
            events=n,
        )  # fmt: skip


def sums() -> list[Any]:
    """Every table of counters, summed over days."""
    found = []
    keys: dict[type[Model], tuple[str, ...]] = {
        LocationHour: ("location_id",),
        HourlyCount: ("location_id", "dimension", "value_id"),
        EventHour: ("location_id", "provider_id", "kind", "bounce_class"),
        ReasonHour: ("location_id", "reason_id", "provider_id", "pool_id", "kind"),
    }
    for table, key in keys.items():
        counts = MEASURES if table in (LocationHour, HourlyCount) else ("events",)
        totals: dict[Any, list[int]] = {}
        for row in table._default_manager.values_list(*key, "hour", *counts):
            total = totals.setdefault((*row[: len(key)], row[len(key)] // 24), [0] * len(counts))
            for i, n in enumerate(row[len(key) + 1 :]):
                total[i] += n
        found.append(totals)
    return found


def hours_of(table: type[Model]) -> list[int]:
    return sorted(set(table._default_manager.values_list("hour", flat=True)))


@pytest.mark.django_db
@pytest.mark.parametrize("limit", [1, 4, 1_000])
def test_the_hours_of_old_days_are_summed_into_the_first(limit: int) -> None:
    for hour, n in ((0, 1), (1, 10), (23, 100), (24, 1_000), (47, 10_000)):
        for location in (0, 1, 2):
            add_hours(OLD_DAY + hour, location=location, n=n)
    before = sums()
    assert prune(limit=limit) == {"hours made days": 3 * 3 * 8}
    assert sums() == before
    for table in (LocationHour, HourlyCount, EventHour, ReasonHour):
        assert hours_of(table) == [OLD_DAY, OLD_DAY + 24]
    day = LocationHour.objects.get(location_id=2, hour=OLD_DAY)
    assert (day.sent, day.delivered, day.bounced, day.moved) == (111, 222, 0, 111)
    assert prune(limit=limit) == {}
    assert sums() == before


@pytest.mark.django_db
def test_days_that_are_younger_than_two_years_keep_their_hours() -> None:
    young = [EDGE, EDGE + 1, EDGE + 30, NOW // HOUR]
    for hour in (EDGE - 2, EDGE - 1, *young):
        add_hours(hour)
    prune()
    assert hours_of(LocationHour) == [EDGE - 24, *young]
    assert retention.read_horizon().days_hour == EDGE


@pytest.mark.django_db
def test_hours_whose_deliveries_are_kept_stay_hours(settings: Any) -> None:
    settings.EVENT_RETENTION_DAYS = 900
    add_hours(OLD_DAY)
    add_hours(OLD_DAY + 1)
    before = sums()
    assert prune() == {}
    assert hours_of(LocationHour) == [OLD_DAY, OLD_DAY + 1]
    settings.EVENT_RETENTION_DAYS = 780
    prune()
    stored = retention.read_horizon()
    assert hours_of(LocationHour) == [OLD_DAY]
    assert stored.days_hour == OLD_DAY + 24 <= stored.deliveries_hour
    assert sums() == before


@pytest.mark.django_db
def test_a_day_that_was_cut_off_is_finished_by_the_next_run() -> None:
    for hour in range(24):
        add_hours(OLD_DAY + hour)
        add_hours(OLD_DAY + 24 + hour)
    before = sums()
    steps = Pruning(now=NOW, limit=5).steps()
    for _ in range(4):
        next(steps)
        assert sums() == before
        assert retention.read_horizon().days_hour == OLD_DAY + 24
    steps.close()  # type: ignore[attr-defined]
    prune(limit=5)
    assert hours_of(HourlyCount) == [OLD_DAY, OLD_DAY + 24]
    assert sums() == before


_counted = st.lists(
    st.tuples(
        st.integers(0, 3),  # location
        st.sampled_from([Dimension.TAG, Dimension.IP]),
        st.integers(0, 80),  # hour
        st.integers(1, 3),  # value
        st.integers(-2, 50),
    ),
    unique_by=lambda row: row[:4],
    max_size=25,
)


@pytest.mark.django_db
@hypothesis_settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(rows=_counted, limit=st.integers(1, 9))
def test_whatever_the_rows_a_day_sums_to_the_same(
    rows: list[tuple[int, Dimension, int, int, int]], limit: int
) -> None:
    HourlyCount.objects.all().delete()
    HourlyCount.objects.bulk_create(
        HourlyCount(
            location_id=location, dimension=dimension, hour=OLD_DAY + hour, value_id=value,
            sent=n, unknown=1, moved=-n,
        )
        for location, dimension, hour, value, n in rows
    )  # fmt: skip
    before = sums()
    tags = next(hours for hours in days.HOURS if hours.dimension == Dimension.TAG)
    waiting = sum(d == Dimension.TAG and 0 < hour < 24 for _, d, hour, _, _ in rows)
    assert tags.count(OLD_DAY) == waiting
    while merged := tags.merge(OLD_DAY, limit):
        assert merged <= limit
        assert sums() == before
    in_day = HourlyCount.objects.filter(hour__gt=OLD_DAY, hour__lt=OLD_DAY + 24)
    assert set(in_day.values_list("dimension", flat=True)) <= {Dimension.IP}


@pytest.mark.django_db
def test_days_without_counters_are_passed_over(django_assert_max_num_queries: Queries) -> None:
    add_hours(OLD_DAY - 3_000 * 24 + 5)
    add_hours(OLD_DAY + 5)
    with django_assert_max_num_queries(300):
        prune()
    assert hours_of(LocationHour) == [OLD_DAY - 3_000 * 24, OLD_DAY]


# --- A dry run ----------------------------------------------------------------------------------


def add_old_things() -> None:
    engaged = add_delivery(200)
    for days_ago in (200, 190, 181):
        add_event(days_ago, add_delivery(days_ago))
    add_event(200, engaged)
    add_event(100, engaged)
    add_event(1, add_delivery(1))
    keep(500)
    QuarantinedWebhook.objects.create(received_at=ago(9), digest=b"q" * 16, body=b"{}")
    QualityHour.objects.create(location_id=1, hour=5)
    AnswerHour.objects.create(source_id=0, hour=5, status="stored")
    count_minutes_again = MinuteCount(location_id=1, minute=NOW_MINUTE - 5_000, kind=2, events=1)
    count_minutes_again.save(force_insert=True)
    for hour in range(5):
        add_hours(OLD_DAY + hour)


@pytest.mark.django_db
@pytest.mark.parametrize("limit", [1, 3, 100])
def test_a_dry_run_says_what_a_run_would_do_and_does_nothing(limit: int) -> None:
    add_old_things()
    before = everything()
    promised = prune(limit=limit, dry=True)
    assert everything() == before
    assert promised == prune(limit=limit) == {
        "payloads": 5, "events": 4, "deliveries": 3, "hours of quality": 1,
        "hours of answers": 1, "kept webhooks": 1, "quarantined webhooks": 1, "minutes": 1,
        "hours made days": 32,
    }  # fmt: skip


# --- By itself ----------------------------------------------------------------------------------


@pytest.mark.django_db
def test_by_itself_a_call_is_one_step_within_its_budget() -> None:
    for _ in range(5):
        add_event(200, add_delivery(200))
    left = []
    while prune_some(NOW, 2):
        left.append((Event.objects.filter(payload=b"raw").count(), Event.objects.count()))
    assert left[:6] == [(3, 5), (1, 5), (0, 5), (0, 3), (0, 1), (0, 0)]
    assert Delivery.objects.count() == 0


@pytest.mark.django_db
def test_by_itself_it_rests_an_hour_between_rounds(django_assert_num_queries: Queries) -> None:
    assert not prune_some(NOW, 100)
    add_event(200)
    with django_assert_num_queries(0):
        assert not prune_some(NOW + REST - 1, 100)
    assert prune_some(NOW + REST, 100)


@pytest.mark.django_db
def test_by_itself_it_begins_anew_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    add_event(200)

    def fail(*_: object) -> int:
        raise OSError("the disk is full")

    with monkeypatch.context() as broken:
        broken.setattr(retention, "_delete", fail)
        assert prune_some(NOW, 100)  # the payload
        with pytest.raises(OSError, match="full"):
            prune_some(NOW, 100)
    while prune_some(NOW, 100):
        pass
    assert Event.objects.count() == 0


@pytest.mark.django_db
def test_by_itself_it_looks_on_when_writers_have_to_settle(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(retention, "SETTLE", 3_600.0)
    monkeypatch.setattr(retention, "_seen", (0, 0.0))
    add_delivery(200)
    assert not prune_some(NOW, 100)
    monkeypatch.setattr(retention, "SETTLE", 0.0)
    assert prune_some(NOW, 100)
    assert Delivery.objects.count() == 0


@pytest.fixture
def other() -> Iterator[Any]:
    """Another process's connection to the same database."""
    wanted = {
        name: value
        for name, value in connection.get_connection_params().items()
        if name in ("dbname", "user", "password", "host", "port")
    }
    with psycopg.connect(**wanted) as made:
        yield made


@pytest.mark.postgresql_only
@pytest.mark.django_db(transaction=True)
def test_by_itself_it_never_waits_for_another_that_prunes(other: Any) -> None:
    add_event(200)
    other.execute("SELECT pg_advisory_xact_lock(%s)", [PRUNE_LOCK])
    assert not prune_some(NOW, 100)
    with pytest.raises(Taken):
        list(Pruning(now=NOW, limit=100, patient=False).steps())
    assert Event.objects.filter(payload=b"raw").count() == 1
    other.rollback()
    while prune_some(NOW, 100):
        pass
    assert Event.objects.count() == 0


@pytest.mark.postgresql_only
@pytest.mark.django_db(transaction=True)
def test_a_delivery_that_a_writer_holds_is_left_to_it(other: Any) -> None:
    held, _ = add_delivery(200), add_delivery(200)
    other.execute("SELECT 1 FROM ingest_delivery WHERE id = %s FOR UPDATE", [held.pk])
    prune()  # would hang if it waited
    assert list(Delivery.objects.all()) == [held]
    other.rollback()
    prune()
    assert Delivery.objects.count() == 0


# --- Beside recorders ---------------------------------------------------------------------------


def webhook(kind: str, at: int, mail: str) -> tuple[int, bytes]:
    """A webhook and when it was received, a few seconds after it happened; in µs."""
    payload = {
        "event": kind,
        "id": f"{kind}-{at}-{mail}",
        "timestamp": at / 1_000_000,
        "recipient": "jane@example.org",
        "message": {"headers": {"message-id": mail}},
        "severity": "permanent",
        "delivery-status": {"code": 550, "message": "user unknown"} if kind == "failed" else {},
        "tags": ["promo"],
    }
    location = f"loc{len(mail) % 2}"
    body = {"type": "LCEmailStats", "locationId": location, "webhookPayload": payload}
    return at + 5_000_000, orjson.dumps(body)


def send(*webhooks: tuple[int, bytes]) -> None:
    items = [item_from_body(body, received_at=received) for received, body in webhooks]
    write_batch(items, now=max(received for received, _ in webhooks))


def no_differences(now: int = NOW) -> None:
    assert list(map(str, counting.differences(now=now))) == []


@pytest.fixture
def _no_ids() -> Iterator[None]:
    ids.clear()
    yield
    ids.clear()


@pytest.mark.django_db
def test_a_late_event_of_a_delivery_that_has_gone(_no_ids: None) -> None:
    sent = NOW - 181 * DAY
    send(webhook("delivered", sent, "m1"), webhook("delivered", NOW - DAY, "m2"))
    assert prune()["deliveries"] == 1
    no_differences()
    frozen = LocationHour.objects.get(location_id=0, hour=sent // HOUR)
    assert frozen.delivered == 1
    # It happened while the hours were open: mail whose sending is not known any more.
    send(webhook("opened", NOW - 2 * DAY, "m1"))
    assert LocationHour.objects.get(location_id=0, hour=(NOW - 2 * DAY) // HOUR).orphan == 1
    no_differences()
    # It happened in an hour that is frozen: stored and shown, counted nowhere.
    send(webhook("opened", NOW - 190 * DAY, "m3"), webhook("delivered", sent, "m4"))
    assert Delivery.objects.filter(message_id__in=["m3", "m4"]).count() == 2
    assert not LocationHour.objects.filter(hour=(NOW - 190 * DAY) // HOUR).exists()
    frozen.refresh_from_db()
    assert frozen.delivered == 1
    no_differences()


@pytest.mark.django_db
def test_a_delivery_that_turns_out_to_be_older_leaves_its_hour(_no_ids: None) -> None:
    prune()
    send(webhook("opened", NOW - DAY, "m1"))
    send(webhook("accepted", NOW - 190 * DAY, "m1"))
    assert Delivery.objects.get().sent_at == aware_utc(NOW - 190 * DAY)
    hours = LocationHour.objects.filter(location_id=0)
    assert [(row.hour, row.orphan, row.sent) for row in hours] == [((NOW - DAY) // HOUR, 0, 0)]
    no_differences()


@pytest.mark.django_db(transaction=True)
def test_recorders_prune_and_recount_at_once(engine: str, settings: Any, _no_ids: None) -> None:
    """Two months pass in seconds: mail comes, is opened weeks later, and goes after ten days."""
    settings.EVENT_RETENTION_DAYS, settings.PAYLOAD_RETENTION_DAYS = 10, 3
    order = random.Random(5)  # noqa: S311
    webhooks = sorted(
        webhook(kind, NOW + message * 6 * HOUR + delay, "m" * (message % 2) + f"{message}")
        for message in range(240)
        for kind, delay in [
            (order.choice(["delivered", "failed"]), 0),
            *[("opened", order.randint(0, 20 * DAY)) for _ in range(order.randint(0, 2))],
        ]
    )
    reached, errors, done = [NOW], list[BaseException](), threading.Event()

    def record_some(mine: list[tuple[int, bytes]]) -> None:
        for batch in batched(mine, 9):
            _again(partial(send, *batch))
            reached[0] = max(reached[0], batch[-1][0])
            time.sleep(0.001)

    def prune_all() -> None:
        while not done.is_set():
            _again(lambda: prune(limit=20, now=reached[0]))

    def recount() -> None:
        while not done.is_set():
            found = counting.differences(now=reached[0])
            # Minutes go 48 hours after now, and now does not stand still here.
            assert [str(each) for each in found if each.table != "minute"] == []
            time.sleep(0.05)

    def watched(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)
        finally:
            connection.close()

    writers = 2 if engine == "postgresql" else 1
    jobs = [partial(record_some, webhooks[i::writers]) for i in range(writers)]
    threads = [threading.Thread(target=watched, args=(job,)) for job in (*jobs, prune_all, recount)]
    for thread in threads:
        thread.start()
    for thread in threads[:writers]:
        thread.join()
    done.set()
    for thread in threads[writers:]:
        thread.join()
    assert errors == []
    last = webhooks[-1][0]
    prune(now=last)
    no_differences(last)
    kept = Event.objects.order_by("id")
    assert kept[0].pk > retention.read_horizon().events_cursor
    assert kept[0].received_at >= aware_utc(retention.read_horizon().events_hour * HOUR)
    assert 0 < Delivery.objects.count() < 240
    assert not kept.exclude(delivery__in=Delivery.objects.all()).exists()
    prune(now=last + 40 * DAY)
    assert not kept.exists()
    assert not Delivery.objects.exists()
    no_differences(last + 40 * DAY)


def _again(work: Callable[[], object]) -> None:
    """Writers may be told to try again (a deadlock, a lock time-out); recorders do so too."""
    for _ in range(20):
        try:
            work()
        except OperationalError:
            time.sleep(0.01)
            continue
        return
    raise AssertionError("twenty errors in a row")
