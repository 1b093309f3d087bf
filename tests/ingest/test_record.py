"""The recorder: one transaction a batch, exact counters, nothing lost, nothing twice."""

import asyncio
import random
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import OperationalError, connection, transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingest import counting, record
from ingest.counted_values import decisions
from ingest.ids import ids
from ingest.models import (
    Delivery,
    Event,
    Horizon,
    HourlyCount,
    KeptWebhook,
    Location,
    LocationHour,
    Value,
)
from ingest.normalize import AppEvent, NormalizedEvent, NotUnderstood
from ingest.record import Busy, Item, Recorder, write_batch, write_safely
from ingest.retention import horizon
from ingest.vocabulary import Category, Dimension
from tests.ingest.events import START, event, named_events
from tests.ingest.tables import empty, tables

NOW = START + 3_600_000_000


@pytest.fixture(autouse=True)
def forget_ids() -> Iterator[None]:
    ids.clear()
    yield
    ids.clear()


def item(result: NormalizedEvent | AppEvent | NotUnderstood, body: bytes = b"{}") -> Item:
    return Item(result=result, body=body, received_at=NOW)


def write(*results: NormalizedEvent | AppEvent | NotUnderstood) -> list[str]:
    items = [item(result) for result in results]
    write_batch(items, now=NOW)
    return [each.status for each in items]


def counts_by(dimension: Dimension, *measures: str) -> dict[str, tuple[int, ...]]:
    """Counters of the one location by value, in all."""
    rows = HourlyCount.objects.filter(dimension=dimension, location_id__gt=0)
    found: dict[str, tuple[int, ...]] = {}
    for row in rows:
        counts = tuple(getattr(row, measure) for measure in measures)
        text = Value.objects.get(pk=row.value_id).text
        before = found.get(text, (0,) * len(measures))
        found[text] = tuple(map(sum, zip(before, counts, strict=True)))
    return {text: counts for text, counts in found.items() if any(counts)}


def no_differences() -> None:
    assert [str(difference) for difference in counting.differences(now=NOW)] == []


@pytest.mark.django_db
def test_an_event_is_stored_once_and_its_repetition_is_a_duplicate() -> None:
    delivered = event("delivered")
    assert write(delivered, event("opened", 5), delivered) == ["stored", "stored", "duplicate"]
    assert write(delivered) == ["duplicate"]
    assert Event.objects.count() == 2
    assert LocationHour.objects.get(location_id__gt=0).delivered == 1
    no_differences()


@pytest.mark.django_db
def test_a_duplicate_with_other_content_is_marked_as_a_conflict() -> None:
    first, second = event(key=b"k" * 16), event(key=b"k" * 16, content=2)
    items = [item(first), item(second), item(first)]
    write_batch(items, now=NOW)
    assert [(each.status, each.conflict) for each in items] == [
        ("stored", False),
        ("duplicate", True),
        ("duplicate", False),
    ]


@pytest.mark.django_db
def test_events_without_a_message_are_stored_alone() -> None:
    assert write(event("opened", message_id=""), event("rejected", recipient="")) == ["stored"] * 2
    assert Delivery.objects.count() == 0
    assert Event.objects.filter(delivery=None).count() == 2


@pytest.mark.django_db
def test_recipients_of_one_message_are_deliveries_of_their_own() -> None:
    write(event("delivered"), event("bounced", recipient="joe@example.org"))
    assert sorted(Delivery.objects.values_list("recipient", flat=True)) == [
        "jane@example.org",
        "joe@example.org",
    ]
    hour = LocationHour.objects.get(location_id__gt=0)
    assert (hour.sent, hour.delivered, hour.bounced) == (2, 1, 1)


@pytest.mark.django_db
def test_a_late_bounce_moves_the_delivery_from_one_count_to_the_other() -> None:
    write(event("delivered", tags=frozenset({"promo"}), campaign_rank=2, campaign="workflow:w"))
    write(event("bounced", 90_000))
    hour = LocationHour.objects.get(location_id__gt=0)
    assert (hour.sent, hour.delivered, hour.bounced, hour.late_bounced) == (1, 0, 1, 1)
    assert counts_by(Dimension.TAG, "delivered", "bounced") == {"promo": (0, 1)}
    assert counts_by(Dimension.CAMPAIGN, "delivered", "bounced") == {"workflow:w": (0, 1)}


@pytest.mark.django_db
def test_an_earlier_event_moves_the_delivery_to_its_hour_of_sending() -> None:
    write(event("delivered", 7_200))
    write(event("accepted", 0))
    hours = LocationHour.objects.filter(location_id__gt=0, sent__gt=0)
    counted = dict(hours.values_list("hour", "delivered"))
    assert counted == {START // 3_600_000_000: 1}
    no_differences()


@pytest.mark.django_db
def test_an_old_delivery_is_understood_by_a_process_that_has_just_started() -> None:
    write(event("delivered", tags=frozenset({"promo"}), provider="Gmail", provider_rank=2))
    ids.clear()
    write(event("opened", 60))
    assert Delivery.objects.get().provider.text == "Gmail"
    no_differences()


@pytest.mark.django_db
def test_a_campaign_takes_its_name_from_whatever_event_first_says_it() -> None:
    spring: dict[str, Any] = {"campaign_rank": 1, "campaign": "5"}
    write(event("accepted", **spring))
    write(event("delivered", 9, **spring, campaign_name="Spring sale"))
    write(event("opened", 60, **spring, campaign_name="Another"))
    assert Value.objects.get(text="5").label == "Spring sale"


@pytest.mark.django_db
def test_a_pool_takes_its_name_from_the_payload() -> None:
    write(event(detail={"pool": "65cc66e7", "pool_name": "shared-b"}))
    assert Value.objects.get(text="65cc66e7").label == "shared-b"


@pytest.mark.django_db
def test_app_events_name_a_location_and_say_whether_it_is_still_there() -> None:
    create = AppEvent(
        type="LocationCreate", location_ref="loc1", location_name="Bright Smile", company_ref="com1"
    )
    gone = AppEvent(type="UNINSTALL", location_ref="loc1", state="gone", occurred_at=NOW)
    old = AppEvent(type="INSTALL", location_ref="loc1", state="active", occurred_at=NOW - 9)
    assert write(create, gone, old, AppEvent(type="ContactCreate")) == ["ignored"] * 4
    location = Location.objects.get()
    assert (location.name, location.company_ref, location.state) == ("Bright Smile", "com1", "gone")


@pytest.mark.django_db
def test_what_is_not_understood_is_kept_whole_and_once() -> None:
    items = [item(NotUnderstood(reason="no location"), b'{"a": 1}')] * 2
    write_batch(items, now=NOW)
    kept = KeptWebhook.objects.get()
    assert (items[0].status, kept.reason, bytes(kept.body)) == ("kept", "no location", b'{"a": 1}')


@pytest.mark.django_db
def test_the_raw_body_comes_back_as_it_was() -> None:
    bodies = [b"{}", b'{"text": "' + b"x" * 5_000 + b'"}']
    write_batch([item(event(at=at), body) for at, body in enumerate(bodies)], now=NOW)
    assert [record.payload_of(e) for e in Event.objects.order_by("id")] == bodies


@pytest.mark.django_db
def test_a_poisonous_event_is_kept_and_costs_the_others_nothing() -> None:
    poison = event("delivered", 7, content=2**70, message_id="poison@example.com")
    items = [item(event(at=at)) for at in range(5)] + [item(poison, b'{"poison": 1}')]
    items += [item(event("opened", at)) for at in range(5)]
    write_safely(items, now=NOW)
    assert [each.status for each in items] == ["stored"] * 5 + ["kept"] + ["stored"] * 5
    assert bytes(KeptWebhook.objects.get().body) == b'{"poison": 1}'
    assert Event.objects.count() == 10
    no_differences()


FAILED = {"code": 421, "message": "too many connections", "ip": "192.0.2.1", "pool": "a"}


@pytest.mark.django_db
def test_what_attempts_went_through_counts_where_it_happened() -> None:
    write(event("deferred", 0, detail=FAILED))
    write(event("delivered", 60, detail={"code": 250, "ip": "192.0.2.2", "pool": "a"}))
    by_ip = counts_by(Dimension.IP, "sent", "delivered", "deferred", "moved")
    assert by_ip == {"192.0.2.1": (1, 0, 1, 1), "192.0.2.2": (1, 1, 0, 0)}
    assert counts_by(Dimension.POOL, "sent", "delivered", "deferred") == {"a": (1, 1, 1)}
    no_differences()


@pytest.mark.django_db
def test_a_temporary_and_a_final_category_count_apart() -> None:
    write(event("deferred", 0, detail=FAILED))
    write(event("bounced", 60, detail={"code": 550, "message": "no such user here"}))
    rows = HourlyCount.objects.filter(dimension=Dimension.CATEGORY, location_id__gt=0)
    assert set(rows.values_list("value_id", "bounced", "deferred")) == {
        (Category.RATE_LIMITED, 0, 1),
        (Category.INVALID_RECIPIENT, 1, 0),
    }
    no_differences()


@pytest.fixture
def room_for_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decisions, "limit", 2)


@pytest.mark.django_db
def test_values_that_explode_share_a_row(room_for_two: None) -> None:
    for n in range(4):
        write(event(at=n, message_id=f"m{n}", tags=frozenset({f"t{n}", "zz"})))
    # In the order of their ids: the first two that came.
    assert counts_by(Dimension.TAG, "sent") == {"t0": (1,), "zz": (4,), "(other)": (3,)}
    no_differences()


@pytest.mark.django_db
def test_a_delivery_counts_once_among_the_others(room_for_two: None) -> None:
    write(event(tags=frozenset({"a", "b"})))
    write(event(at=1, message_id="m2", tags=frozenset({"c", "d", "e"})))
    assert counts_by(Dimension.TAG, "sent")["(other)"] == (1,)


@pytest.mark.django_db
def test_another_process_keeps_to_the_recorded_decisions(room_for_two: None) -> None:
    write(event(tags=frozenset({"a", "b"})), event(at=1, message_id="m2", tags=frozenset({"c"})))
    ids.clear()
    write(event("opened", 60, message_id="m2"), event("opened", 61))
    write(event(at=3, message_id="m3", tags=frozenset({"c", "a"})))
    opened = counts_by(Dimension.TAG, "sent", "opened")
    assert opened == {"a": (2, 1), "b": (1, 1), "(other)": (2, 1)}
    no_differences()


@pytest.mark.django_db
def test_a_moment_before_the_hour_is_still_that_hour() -> None:
    """SQLite's own clock knows milliseconds only, and would round them up into the next hour."""
    ago = (START // 3_600_000_000 + 1) * 3_600 - START / 1e6 - 0.0003
    write(event("accepted", ago))
    write(event("delivered", ago + 1))
    rows = LocationHour.objects.filter(location_id__gt=0).values_list("hour", "sent", "delivered")
    assert [row for row in rows if any(row[1:])] == [(START // 3_600_000_000, 1, 1)]
    no_differences()


@pytest.mark.django_db
def test_what_was_sent_before_the_horizon_is_stored_and_counts_nowhere() -> None:
    write(event())
    Horizon.objects.create(id=1, deliveries_hour=START // 3_600_000_000 + 1)
    horizon.clear()
    write(event("bounced", 60), event(message_id="m2"), event("delivered", 7_200, message_id="m3"))
    assert Delivery.objects.count() == 3
    rows = LocationHour.objects.filter(location_id__gt=0).values_list("hour", "sent", "bounced")
    first = START // 3_600_000_000
    assert set(rows) == {(first, 1, 0), (first + 2, 1, 0)}
    no_differences()
    horizon.clear()


SAID = ("code", "enhanced", "ip", "pool", "mx", "message")


@st.composite
def fleet_lives(draw: st.DrawFn) -> list[NormalizedEvent]:
    """Events of a few deliveries in two locations."""
    drawn = draw(st.lists(named_events(), min_size=1, max_size=14))
    return [
        event(
            each.kind.word,
            **{
                name: getattr(each, name)
                for name in each.__struct_fields__
                if name not in ("kind", "detail", "key", "location_ref", "message_id")
            },
            key=each.key,
            detail={
                name: getattr(each.detail, name)
                for name in ("code", "enhanced", "ip", "pool", "mx", "message")
            },
            location_ref=draw(st.sampled_from(["loc1", "loc2"])),
            message_id=draw(st.sampled_from(["m1@x", "m2@x"])),
        )
        for each in drawn
    ]


@pytest.mark.django_db
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(life=fleet_lives(), seed=st.integers(0, 10_000))
def test_any_order_repetition_and_batching_gives_the_same_tables(
    life: list[NormalizedEvent], seed: int
) -> None:
    ids.clear()
    order = random.Random(seed)  # noqa: S311
    life = list({(e.location_ref, e.key): e for e in life}.values())
    with transaction.atomic():
        write(*life)
        expected = tables()
        no_differences()
        transaction.set_rollback(True)
    ids.clear()
    with transaction.atomic():
        shuffled = life + order.choices(life, k=len(life) // 3)
        order.shuffle(shuffled)
        while shuffled:
            size = order.randint(1, 4)
            write(*shuffled[:size])
            shuffled = shuffled[size:]
        assert tables() == expected
        no_differences()
        transaction.set_rollback(True)
    ids.clear()


def random_life(order: random.Random, message: int) -> list[NormalizedEvent]:
    """One message's events: all kinds of ends, tags and campaign from some of them."""
    common = {"message_id": f"m{message}@x", "location_ref": f"loc{message % 3}"}
    tags = frozenset(order.sample(["a", "b", "c"], order.randint(0, 2)))
    kinds = order.choice(
        ["accepted delivered", "accepted deferred delivered opened", "deferred bounced",
         "delivered bounced", "suppressed", "accepted opened complained"]
    ).split()  # fmt: skip
    return [
        event(kind, at * 60 + message, tags=tags if at else frozenset(), **common)
        for at, kind in enumerate(kinds)
    ]


@pytest.mark.postgresql_only
@pytest.mark.django_db(transaction=True)
def test_writers_at_once_count_each_delivery_once_and_a_reader_misses_no_cursor() -> None:
    order = random.Random(7)  # noqa: S311
    events = [each for message in range(300) for each in random_life(order, message)]
    seen: list[int] = []
    failures: list[BaseException] = []
    done = threading.Event()

    def write_all(seed: int) -> None:
        mine = random.Random(seed)  # noqa: S311
        shuffled = mine.sample(events, len(events))
        try:
            while shuffled:
                size = mine.randint(1, 60)
                _retry(lambda part=shuffled[:size]: write(*part))
                shuffled = shuffled[size:]
                time.sleep(mine.choice([0, 0, 0.005, 0.03]))
        except BaseException as error:
            failures.append(error)
        finally:
            connection.close()

    def read_all() -> None:
        cursor = 0
        while True:
            last = done.is_set()
            new = Event.objects.filter(id__gt=cursor).order_by("id").values_list("id", flat=True)
            seen.extend(new)
            cursor = seen[-1] if seen else 0
            if last:
                break
            time.sleep(0.003)
        connection.close()

    reader = threading.Thread(target=read_all)
    writers = [threading.Thread(target=write_all, args=(seed,)) for seed in range(4)]
    for thread in (reader, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    reader.join()
    assert failures == []
    assert seen == sorted(Event.objects.values_list("id", flat=True))
    assert len(seen) == len(events)
    assert Delivery.objects.count() == 300
    no_differences()
    written = tables()
    empty()
    ids.clear()
    write(*events)
    assert tables() == written


def _retry(work: object) -> None:
    """Writers may be told to try again (a deadlock, a lock time-out); the recorder does so too."""
    for _ in range(10):
        try:
            work()  # type: ignore[operator]
        except OperationalError:
            continue
        return
    raise AssertionError("ten errors in a row")


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    made = Recorder()
    yield made
    made.close()
    assert made.drain(10)
    _wait_for_end(made)


def _wait_for_end(made: Recorder) -> None:
    for _ in range(500):
        if made._thread is None and not any(t.name == "recorder" for t in threading.enumerate()):
            return
        time.sleep(0.01)


@pytest.mark.django_db(transaction=True)
def test_webhooks_that_wait_together_are_committed_together(recorder: Recorder) -> None:
    async def submit_all() -> list[Item]:
        return await asyncio.gather(*(recorder.submit(item(event(at=at))) for at in range(100)))

    items = asyncio.run(submit_all())
    assert {each.status for each in items} == {"stored"}
    assert Event.objects.count() == 100


@pytest.mark.django_db(transaction=True)
def test_a_closed_recorder_finishes_what_it_holds_and_takes_no_more(recorder: Recorder) -> None:
    async def close_in_the_middle() -> tuple[list[Item], BaseException | None]:
        held = [asyncio.create_task(recorder.submit(item(event(at=at)))) for at in range(50)]
        await asyncio.sleep(0)
        recorder.close()
        answered = await asyncio.gather(*held)
        try:
            await recorder.submit(item(event(at=99)))
        except Busy as busy:
            return answered, busy
        return answered, None

    answered, refused = asyncio.run(close_in_the_middle())
    assert {each.status for each in answered} == {"stored"}
    assert isinstance(refused, Busy)
    assert Event.objects.count() == 50


@pytest.mark.django_db(transaction=True)
def test_a_full_queue_is_busy() -> None:
    full = Recorder(capacity=0)

    async def submit() -> None:
        with pytest.raises(Busy):
            await full.submit(item(event()))

    asyncio.run(submit())


@pytest.mark.django_db(transaction=True)
def test_a_sender_that_hangs_up_does_not_undo_its_webhook(recorder: Recorder) -> None:
    async def hang_up() -> None:
        task = asyncio.create_task(recorder.submit(item(event())))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await asyncio.to_thread(recorder.drain, 5)

    asyncio.run(hang_up())
    assert Event.objects.count() == 1


@pytest.mark.postgresql_only
@pytest.mark.django_db(transaction=True)
def test_a_dropped_connection_is_survived(recorder: Recorder) -> None:
    async def lose_it_in_between() -> list[str]:
        first = await recorder.submit(item(event(at=1)))
        await asyncio.to_thread(_terminate_others)
        second = await recorder.submit(item(event(at=2)))
        return [first.status, second.status]

    assert asyncio.run(lose_it_in_between()) == ["stored", "stored"]
    assert Event.objects.count() == 2


def _terminate_others() -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    connection.close()


@pytest.mark.django_db(transaction=True)
def test_what_cannot_be_committed_in_time_is_busy_and_not_stored() -> None:
    impatient = Recorder(patience=0.3)

    async def submit() -> bool:
        try:
            await impatient.submit(item(event()))
        except Busy:
            return True
        return False

    try:
        with transaction.atomic():
            _block_writers()
            assert asyncio.run(submit())
        assert Event.objects.count() == 0
    finally:
        impatient.close()
        impatient.drain(10)
        _wait_for_end(impatient)


def _block_writers() -> None:
    """Hold what every writer needs (SQLite's IMMEDIATE transaction already does)."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("LOCK TABLE ingest_locationhour IN ACCESS EXCLUSIVE MODE")
