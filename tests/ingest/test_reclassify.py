"""Reclassification: the rules of today over stored failures, and counters that follow exactly."""

import io
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from itertools import count
from typing import Any

import orjson
import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection
from hypothesis import given
from hypothesis import strategies as st

from ingest import counting, fold, operator_rules, reclassify, retention
from ingest.counted_values import decisions
from ingest.fingerprint import fingerprint
from ingest.ids import ids
from ingest.management.commands import reclassify as command
from ingest.models import (
    ClassificationRule,
    Delivery,
    Event,
    EventHour,
    Horizon,
    HourlyCount,
    LocationHour,
    MinuteCount,
    Reason,
    ReasonHour,
)
from ingest.normalize import Detail, NormalizedEvent
from ingest.reclassify import Filter, Reclassification, assign_category
from ingest.record import item_from_body, write_batch
from ingest.rejudge import Failure, Refusal, failures_of, refold
from ingest.retention import Pruning
from ingest.vocabulary import FAILURES, BounceClass, Category, Dimension, EventKind, Flag
from tests.ingest.events import event, lives

START = 1_790_000_000  # seconds
NOW = (START + 100_000) * 1_000_000

_numbers = count(1)


@pytest.fixture(autouse=True)
def _know_nothing(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(operator_rules, "REFRESH", 0.0)
    monkeypatch.setattr(command, "BEHIND", 0.0)
    monkeypatch.setattr(command, "PAUSE", 0.0)
    monkeypatch.setattr(retention, "SETTLE", 0.0)
    _forget()
    yield
    _forget()


def _forget() -> None:
    ids.clear()
    decisions.clear()
    operator_rules.current.clear()
    retention.horizon.clear()


def body(event: str, **fields: Any) -> bytes:
    """A webhook; ``said`` is the receiver's reply, ``at`` seconds after START."""
    number = next(_numbers)
    said, code = fields.pop("said", "OK"), fields.pop("code", 250)
    at, mail = fields.pop("at", number), fields.pop("mail", f"m{number}@example.com")
    location = fields.pop("location", "locA")
    ip, mx = fields.pop("ip", "192.0.2.1"), fields.pop("mx", "mx.example.org")
    payload = {
        "event": event,
        "id": f"e{number}",
        "timestamp": START + at,
        "recipient": "jane@example.org",
        "message": {"headers": {"message-id": mail}} if mail else {},
        "delivery-status": {"code": code, "message": said, "mx-host": mx},
        "envelope": {"sending-ip": ip, "i-ip-pool-id": fields.pop("pool", "pool-a")},
        "tags": ["loc_x", "promo"],
    } | fields
    wrapped = {"type": "LCEmailStats", "locationId": location, "webhookPayload": payload}
    return orjson.dumps(wrapped)


def bounce(said: str, **fields: Any) -> bytes:
    return body("failed", severity="permanent", **{"said": said, "code": 550} | fields)


def defer(said: str, **fields: Any) -> bytes:
    return body("failed", severity="temporary", **{"said": said, "code": 450} | fields)


def send(*bodies: bytes, received: int = NOW) -> None:
    write_batch([item_from_body(raw, received_at=received) for raw in bodies], now=NOW)


def rule(text: str, category: Category, **fields: Any) -> ClassificationRule:
    name = f"rule-{next(_numbers)}"
    return ClassificationRule.objects.create(name=name, text=text, category=category, **fields)


def run(*, dry: bool = False, **fields: Any) -> Reclassification:
    done = Reclassification(filter=Filter(**fields), dry=dry)
    for _ in done.steps():
        pass
    return done


def call(*arguments: str) -> str:
    output = io.StringIO()
    call_command("reclassify", *arguments, stdout=output)
    return output.getvalue()


def no_differences() -> None:
    assert list(map(str, counting.differences(now=NOW))) == []


def table_rows() -> list[set[tuple[Any, ...]]]:
    """Everything that a reclassification may touch, without the ids that depend on order."""
    counters = (LocationHour, HourlyCount, EventHour, ReasonHour)
    return [
        set(Event.objects.values_list("id", "category", "bounce_class", "reason__text")),
        set(
            Delivery.objects.values_list(
                "message_id", "outcome", "flags", "category", "bounce_class", "reason__text",
                "ways", "facts",
            )
        ),
        *(
            {_without_zeros(dict(row)) for row in table._default_manager.values()}
            for table in counters
        ),
    ]  # fmt: skip


def _without_zeros(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(sorted((name, value) for name, value in row.items() if value))


# --- One failure --------------------------------------------------------------------------------


@pytest.mark.django_db
def test_a_bounce_and_all_that_counts_it_move() -> None:
    send(bounce("550 5.1.1 user unknown, see the green list"), body("delivered"))
    delivery = Delivery.objects.get(outcome=2)
    assert (delivery.category, delivery.bounce_class) == (
        Category.INVALID_RECIPIENT, BounceClass.HARD,
    )  # fmt: skip
    rule("green list", Category.REPUTATION_BLOCK)
    report = run().report
    assert (report.looked_at, report.events, report.deliveries) == (1, 1, 1)
    delivery.refresh_from_db()
    assert (delivery.category, delivery.bounce_class) == (
        Category.REPUTATION_BLOCK, BounceClass.BLOCK,
    )  # fmt: skip
    stored = Event.objects.get(delivery=delivery)
    assert (stored.category, stored.bounce_class) == (delivery.category, delivery.bounce_class)
    for location in (0, delivery.location_id):
        hour = LocationHour.objects.get(location_id=location)
        assert (hour.sent, hour.bounced, hour.hard, hour.block) == (2, 1, 0, 1)
        assert hour.block_high == 1
        categories = HourlyCount.objects.filter(location_id=location, dimension=Dimension.CATEGORY)
        assert dict(categories.values_list("value_id", "bounced")) == {
            int(Category.INVALID_RECIPIENT): 0, int(Category.REPUTATION_BLOCK): 1,
        }  # fmt: skip
        events = EventHour.objects.filter(location_id=location, kind=EventKind.BOUNCED)
        assert dict(events.values_list("bounce_class", "events")) == {
            int(BounceClass.HARD): 0, int(BounceClass.BLOCK): 1,
        }  # fmt: skip
    assert Reason.objects.get().category == Category.REPUTATION_BLOCK
    no_differences()


@pytest.mark.django_db
def test_a_second_run_finds_nothing() -> None:
    send(*(bounce(f"550 user unknown on the green list of {n}") for n in range(5)))
    send(defer("450 busy, green list"), body("delivered"))
    rule("green list", Category.POLICY)
    assert run().report.events == 6
    after = table_rows()
    again = run().report
    assert (again.looked_at, again.events, again.deliveries, again.moves) == (6, 0, 0, {})
    assert table_rows() == after
    no_differences()


@pytest.mark.django_db
def test_it_comes_to_what_the_rules_would_have_made_of_it_at_once() -> None:
    lives = [
        [defer("450 busy, green list", mail="a", at=0), bounce("550 no such user", mail="a", at=9)],
        [defer("450 busy", mail="b"), defer("451 green list", mail="b", ip="192.0.2.2", pool="p2")],
        [defer("450 green list", mail="c"), body("delivered", mail="c")],
        [bounce("552 5.2.2 full, green list", mail="d"), body("complained", mail="d")],
        [bounce("550 spam, green list", mail="e", location="locB", mx="mx.google.com")],
        [bounce("550 green list", mail="", recipient="x@y.org")],
    ]
    sent = [raw for life in lives for raw in life]
    own = rule("green list", Category.RATE_LIMITED)
    send(*sent)
    expected = [rows for i, rows in enumerate(table_rows()) if i in (1, 2)]
    events = set(Event.objects.values_list("key", "category", "bounce_class"))
    own.delete()
    for table in (Event, Delivery, LocationHour, HourlyCount, EventHour, ReasonHour, MinuteCount):
        table._default_manager.all().delete()
    operator_rules.current.clear()
    send(*sent)
    assert set(Event.objects.values_list("key", "category", "bounce_class")) != events
    rule("green list", Category.RATE_LIMITED)
    run()
    assert set(Event.objects.values_list("key", "category", "bounce_class")) == events
    assert [rows for i, rows in enumerate(table_rows()) if i in (1, 2)] == expected
    no_differences()


@pytest.mark.django_db
def test_temporary_failures_move_the_categories_of_deferrals() -> None:
    send(
        defer("450 busy", mail="a", at=0),
        defer("450 greylisted, green list", mail="a", at=5),
        body("delivered", mail="a", at=9),
    )
    before = Delivery.objects.get()
    rule("green list", Category.TLS)
    run()
    after = Delivery.objects.get()
    assert int(Category.TLS) in fold.load_facts(after.facts).deferral_categories
    assert f"c{int(Category.TLS)}," in after.ways
    assert (after.category, after.outcome) == (before.category, before.outcome)
    row = HourlyCount.objects.get(
        location_id=0, dimension=Dimension.CATEGORY, value_id=int(Category.TLS)
    )
    assert (row.deferred, row.bounced) == (1, 0)
    no_differences()


@pytest.mark.django_db
def test_what_a_rule_means_to_highlevel_moves_without_a_new_category() -> None:
    send(
        bounce("550 5.7.1 closed for the winter, reputation", mx="alt1.gmail-smtp-in.l.google.com")
    )
    rule("closed for the winter", Category.REPUTATION_BLOCK, scope="ip_pool")
    run()
    assert Delivery.objects.get().flags & Flag.BLOCK_HIGH
    low = Delivery.objects.get().flags & Flag.BLOCK_LOW
    ClassificationRule.objects.all().delete()
    rule("closed for the winter", Category.REPUTATION_BLOCK, scope="receiver")
    report = run().report
    assert (report.events, report.deliveries) == (0, 1 if low else 0)
    assert not Delivery.objects.get().flags & Flag.BLOCK_LOW
    no_differences()


@pytest.mark.django_db
def test_mail_without_an_id_has_events_only() -> None:
    send(bounce("550 green list", mail="", recipient=""), bounce("550 green list"))
    lone = Event.objects.filter(delivery=None)
    if not lone:  # the event's id stands in for a message id where there is a recipient
        pytest.fail("the webhook made a delivery after all")
    rule("green list", Category.POLICY)
    report = run().report
    assert (report.events, report.deliveries) == (2, 1)
    assert lone.get().category == Category.POLICY
    no_differences()


@pytest.mark.django_db
def test_test_mail_counts_nowhere_and_is_classified_all_the_same() -> None:
    send(bounce("550 green list", flags={"is-test-mode": True}))
    rule("green list", Category.POLICY)
    run()
    assert Event.objects.get().category == Category.POLICY
    assert not EventHour.objects.exists()
    no_differences()


@pytest.mark.django_db
def test_a_reason_that_reads_otherwise_now_moves_its_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    send(*(bounce("550 5.1.1 user unknown", at=3_600 * n, pool=f"p{n % 2}") for n in range(4)))
    old = Reason.objects.get()
    anew = lambda detail, _: fingerprint(detail) + " (anew)"  # noqa: E731
    monkeypatch.setattr(fold, "unnamed_fingerprint", anew)
    report = run().report
    assert (report.events, report.reasons, report.deliveries) == (4, 4, 4)
    new = Reason.objects.exclude(pk=old.pk).get()
    assert new.text.endswith("(anew)")
    assert set(Event.objects.values_list("reason_id", flat=True)) == {new.pk}
    assert set(Delivery.objects.values_list("reason_id", flat=True)) == {new.pk}
    assert ReasonHour.objects.filter(reason=old, events__gt=0).count() == 0
    assert new.category == Category.INVALID_RECIPIENT
    no_differences()


@pytest.mark.django_db
def test_payloads_are_not_needed() -> None:
    send(bounce("550 green list"))
    Event.objects.update(payload=None)
    rule("green list", Category.POLICY)
    run()
    assert Delivery.objects.get().category == Category.POLICY


# --- What is left alone -------------------------------------------------------------------------


@pytest.mark.django_db
def test_frozen_hours_are_left_alone(settings: Any) -> None:
    settings.EVENT_RETENTION_DAYS, settings.PAYLOAD_RETENTION_DAYS = 30, 30
    day = 86_400
    old, young = "old@example.com", "young@example.com"
    send(bounce("550 green list", mail=old, at=0), received=(START + 60) * 1_000_000)
    later = (START + 40 * day) * 1_000_000
    send(bounce("550 green list", mail=young, at=39 * day), received=later)
    # A late event keeps a delivery that was sent before the horizon.
    send(bounce("551 green list", mail=old, at=39 * day), received=later)
    for _ in Pruning(now=later, limit=100).steps():
        pass
    frozen = Delivery.objects.get(message_id=old).category
    hour = START // 3_600
    before = list(LocationHour.objects.filter(hour=hour).values())
    rule("green list", Category.TLS)
    run()
    assert Delivery.objects.get(message_id=young).category == Category.TLS
    assert Delivery.objects.get(message_id=old).category == frozen
    assert list(LocationHour.objects.filter(hour=hour).values()) == before
    assert list(map(str, counting.differences(now=later))) == []


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("fields", "changed"),
    [
        ({}, {"a", "b", "c"}),
        ({"categories": frozenset({Category.INVALID_RECIPIENT})}, {"a", "b"}),
        ({"since": datetime.fromtimestamp(START + 200_000).astimezone()}, {"b"}),
    ],
    ids=["all", "category", "since"],
)
def test_a_filter_chooses(fields: dict[str, Any], changed: set[str]) -> None:
    send(bounce("550 5.1.1 user unknown, green list", mail="a"))
    send(bounce("552 5.2.2 mailbox full, green list", mail="c", location="locB"))
    late = (START + 300_000) * 1_000_000
    send(bounce("550 5.1.1 user unknown, green list", mail="b"), received=late)
    rule("green list", Category.POLICY)
    run(**fields)
    moved = Delivery.objects.filter(category=Category.POLICY)
    assert set(moved.values_list("message_id", flat=True)) == changed
    no_differences()


@pytest.mark.django_db
def test_a_location_chooses() -> None:
    send(bounce("550 green list", mail="a"), bounce("550 green list", mail="b", location="locB"))
    rule("green list", Category.POLICY)
    chosen = Delivery.objects.get(message_id="b").location_id
    run(locations=frozenset({chosen}))
    assert Delivery.objects.get(category=Category.POLICY).message_id == "b"
    no_differences()


# --- By hand ------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_a_category_by_hand_outlives_the_rules_and_can_be_taken_back() -> None:
    send(bounce("550 5.1.1 user unknown, green list", mail="a"), body("delivered", mail="b"))
    everything = list(Delivery.objects.values_list("id", flat=True))
    assert assign_category(everything, Category.MAILBOX_FULL, by="boss") == 1
    delivery = Delivery.objects.get(message_id="a")
    assert (delivery.category, delivery.bounce_class) == (Category.MAILBOX_FULL, BounceClass.SOFT)
    no_differences()
    rule("green list", Category.POLICY)
    run()
    delivery.refresh_from_db()
    assert delivery.category == Category.MAILBOX_FULL
    assert Event.objects.get(delivery=delivery).category == Category.POLICY
    no_differences()
    assert assign_category(everything, Category.MAILBOX_FULL, by="boss") == 0
    assert assign_category([delivery.pk], Category.NONE, by="boss") == 1
    delivery.refresh_from_db()
    assert delivery.category == Category.POLICY
    no_differences()


@pytest.mark.django_db
def test_a_category_by_hand_outlives_later_events() -> None:
    send(bounce("550 5.1.1 user unknown", mail="a", at=0))
    assign_category([Delivery.objects.get().pk], Category.TLS, by="boss")
    send(bounce("552 5.2.2 mailbox full", mail="a", at=60), body("complained", mail="a", at=90))
    assert Delivery.objects.get().category == Category.TLS
    no_differences()


@pytest.mark.django_db
def test_nothing_is_assigned_before_the_horizon(settings: Any) -> None:
    send(bounce("550 5.1.1 user unknown"))
    Horizon.objects.create(deliveries_hour=START // 3_600 + 1)
    assert assign_category([Delivery.objects.get().pk], Category.TLS, by="boss") == 0


# --- Facts --------------------------------------------------------------------------------------


def failure_of(kind: str, at: float, **fields: Any) -> tuple[Failure, fold.Facts]:
    made = event(kind, at, detail=fields)
    facts = fold.Facts()
    fold.absorb(facts, made)
    stored = Failure(
        1, 1, 1, made.kind, made.occurred_at, made.key.hex(), Refusal(0, 0), "", 0, Detail(),
        made.recipient,
    )  # fmt: skip
    return stored, facts


def test_a_deferral_whose_event_has_gone_keeps_its_category() -> None:
    stored, facts = failure_of("deferred", 60)
    facts.first[EventKind.DEFERRED] -= 1
    facts.deferral_categories = [3]
    assert refold(facts, [(stored, fold.Why(category=7))]).deferral_categories == [3, 7]
    facts.first[EventKind.DEFERRED] += 1
    assert refold(facts, [(stored, fold.Why(category=7))]).deferral_categories == [7]


def test_a_decisive_failure_whose_event_has_gone_stays_as_it_is() -> None:
    stored, facts = failure_of("bounced", 60)
    assert facts.failure is not None
    other = stored._replace(key="00" * 16)
    assert refold(facts, [(other, fold.Why(category=7))]).failure == facts.failure
    changed = refold(facts, [(stored, fold.Why(category=7, marks=1))]).failure
    assert changed is not None
    assert (changed.category, changed.marks, changed.key) == (7, 1, facts.failure.key)


_whys = st.builds(
    fold.Why,
    category=st.integers(1, 17),
    bounce_class=st.integers(0, 5),
    marks=st.integers(0, 7),
    reason=st.sampled_from(["aa" * 8, "bb" * 8]),
)


@given(life=lives(), data=st.data())
def test_anew_is_as_if_it_had_been_so_at_once(
    life: list[NormalizedEvent], data: st.DataObject
) -> None:
    """Whatever the events, their order and how each is classified."""
    refused = [each for each in life if each.kind in FAILURES]
    whys = {each.key: data.draw(_whys) for each in refused}
    stored, at_once = fold.Facts(), fold.Facts()
    for each in life:
        fold.absorb(stored, each)
        fold.absorb(at_once, each, whys.get(each.key, fold.Why()))
    failures = [
        (
            Failure(
                number, 1, 1, each.kind, each.occurred_at, each.key.hex(), Refusal(0, 0), "", 0,
                each.detail, each.recipient,
            ),
            whys[each.key],
        )
        for number, each in enumerate(refused)
    ]  # fmt: skip
    assert refold(stored, failures) == at_once
    assert refold(at_once, failures) == at_once


# --- The command --------------------------------------------------------------------------------


@pytest.mark.django_db
def test_a_dry_run_says_what_would_move_and_changes_nothing() -> None:
    send(
        bounce("550 5.1.1 user unknown, green list"),
        bounce("550 5.1.1 user unknown, green list", location="locB"),
        bounce("550 5.1.1 user unknown"),
        body("delivered"),
        defer("450 4.2.1 busy, green list", mail="m"),
    )
    rule("green list", Category.POLICY)
    before = table_rows()
    said = call("--dry-run").splitlines()
    assert table_rows() == before
    assert [line.split() for line in said[:2]] == [
        ["from", "to", "events", "deliveries", "locations"],
        ["invalid", "recipient", "(hard)", "policy", "(block)", "2", "2", "2"],
    ]
    assert (
        "4 failures looked at; would change: 3 events (0 of them their reason), 3 deliveries"
        in said
    )
    assert "hard 3 → 1 of 4 settled, 75.00% → 25.00%" in said
    assert "block 0 → 2 of 4 settled, 0.00% → 50.00%" in said


@pytest.mark.django_db
def test_a_run_says_what_moved_in_the_same_words() -> None:
    send(bounce("550 5.1.1 user unknown, green list"), bounce("550 5.1.1 user unknown"))
    rule("green list", Category.POLICY)
    promised = call("--dry-run")
    assert call() == promised.replace("would change", "changed")
    assert call() == (
        "2 failures looked at; changed: 0 events (0 of them their reason), 0 deliveries\n"
    )


@pytest.mark.django_db
def test_options_choose() -> None:
    send(bounce("550 5.1.1 user unknown, green list", mail="a"))
    send(bounce("552 5.2.2 full, green list", mail="b", location="locB"))
    rule("green list", Category.POLICY)
    call("--location", "locB", "--category", "mailbox_full", "--since", "2026-01-01")
    assert Delivery.objects.get(category=Category.POLICY).message_id == "b"
    call("--since", "2100-01-01T00:00:00Z")
    assert Delivery.objects.filter(category=Category.POLICY).count() == 1


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--location", "nowhere"], "There is no location nowhere."),
        (["--category", "moon"], "There is no category moon. There are: invalid_recipient,"),
        (["--since", "yesterday"], "yesterday is no time"),
    ],
)
def test_an_unknown_option_is_a_sentence(options: list[str], sentence: str) -> None:
    with pytest.raises(CommandError, match=sentence):
        call(*options)


@pytest.mark.django_db
def test_it_waits_until_recorders_know_the_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    monkeypatch.setattr(command, "BEHIND", 8.0)
    call()
    assert slept == []
    rule("green list", Category.POLICY)
    call("--dry-run")
    assert slept == []
    call()
    assert len(slept) == 1
    assert 0 < slept[0] <= 8.0


@pytest.mark.django_db
def test_a_signal_ends_it_after_the_transaction_that_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    send(*(bounce("550 green list") for _ in range(5)))
    rule("green list", Category.POLICY)
    monkeypatch.setattr(reclassify, "BATCH", 2)
    real = reclassify._rename_reasons

    def rename(found: Any) -> None:
        real(found)
        os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patched:
        patched.setattr(reclassify, "_rename_reasons", rename)
        assert "changed: 2 events" in (said := call())
        assert said.endswith("stopped; the next run finds the rest\n")
    assert Delivery.objects.filter(category=Category.POLICY).count() == 2
    assert "changed: 3 events" in call()
    no_differences()


@pytest.mark.django_db
def test_a_transaction_has_a_bounded_number_of_rows() -> None:
    send(*(bounce("550 green list") for _ in range(reclassify.BATCH + 5)))
    rule("green list", Category.POLICY)
    steps = list(Reclassification().steps())
    assert sum(step.wrote for step in steps) == 2
    assert reclassify.BATCH <= 500
    no_differences()


@pytest.mark.django_db(transaction=True)
def test_a_transaction_that_met_a_deadlock_is_done_again(monkeypatch: pytest.MonkeyPatch) -> None:
    send(bounce("550 green list"))
    rule("green list", Category.POLICY)
    real, failures = reclassify._write, [OperationalError("deadlock detected")]

    def sometimes(*arguments: Any) -> None:
        real(*arguments)
        if failures:
            raise failures.pop()

    monkeypatch.setattr(reclassify, "_write", sometimes)
    report = run().report
    assert (report.events, report.deliveries) == (1, 1)
    no_differences()


@pytest.mark.django_db
def test_a_failure_that_comes_between_looking_and_locking_is_done_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its recorder has neither the rule nor the newer fingerprints yet."""
    send(bounce("550 green list", mail="a", at=0))
    own = rule("green list", Category.POLICY)
    started = Reclassification()
    real = Reclassification._do

    def late(self: Reclassification, *arguments: Any) -> None:
        own.delete()
        send(bounce("551 moved, on the green list", code=551, mail="a", at=60))
        anew = lambda detail, _: fingerprint(detail) + " (anew)"  # noqa: E731
        monkeypatch.setattr(fold, "unnamed_fingerprint", anew)
        monkeypatch.setattr(Reclassification, "_do", real)
        real(self, *arguments)

    monkeypatch.setattr(Reclassification, "_do", late)
    next(step for step in started.steps() if step.wrote)  # ids need not begin at 1
    events = Event.objects.order_by("id").values_list("category", "reason__text")
    assert list(events) == [
        (Category.POLICY, "550 green list (anew)"),
        (Category.POLICY, "551 moved, on the green list (anew)"),
    ]
    no_differences()


# --- Beside recorders and retention -------------------------------------------------------------


def life(order: random.Random, message: int) -> list[bytes]:
    """One message's webhooks, in which the receiver may name the green list."""
    mail = {"mail": f"m{message}@x", "location": f"loc{message % 3}"}

    def words(code: int) -> dict[str, Any]:
        said = order.choice(["user unknown", "busy", "mailbox full", "spam"])
        return mail | {
            "said": said + order.choice(["", " green list", " blue list"]),
            "code": code,
            "ip": order.choice(["192.0.2.1", "192.0.2.2"]),
            "at": message * 7 + next(_numbers) % 5_000,
        }

    kinds = order.choice(["d", "fb", "ffd", "b", "fdc", "db", "bc"])
    made = {
        "d": lambda: body("delivered", **mail),
        "f": lambda: defer(**words(450)),
        "b": lambda: bounce(**words(550)),
        "c": lambda: body("complained", **mail),
    }
    return [made[kind]() for kind in kinds]


@pytest.mark.django_db(transaction=True)
def test_beside_recorders_every_counter_stays_exact(engine: str) -> None:
    order = random.Random(11)  # noqa: S311
    webhooks = [raw for message in range(150) for raw in life(order, message)]
    errors: list[BaseException] = []

    def record_all(mine: list[bytes], seed: int) -> None:
        shuffled = random.Random(seed)  # noqa: S311
        try:
            while mine:
                size = shuffled.randint(1, 12)
                _retry(lambda part=mine[:size]: send(*part))
                mine = mine[size:]
                time.sleep(0.002)
        except BaseException as error:
            errors.append(error)
        finally:
            connection.close()

    def change_rules() -> None:
        try:
            for category in (Category.POLICY, Category.TLS, Category.MAILBOX_FULL):
                ClassificationRule.objects.all().delete()
                rule("green list", category)
                _retry(lambda: list(Reclassification().steps()))
                some = list(Delivery.objects.values_list("id", flat=True)[:20])
                _retry(lambda some=some: assign_category(some, Category.GREYLISTED, by="boss"))
        except BaseException as error:
            errors.append(error)
        finally:
            connection.close()

    send(*webhooks[:60])
    writers = 2 if engine == "postgresql" else 1
    threads = [
        threading.Thread(target=record_all, args=(webhooks[i::writers], i)) for i in range(writers)
    ]
    threads.append(threading.Thread(target=change_rules))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert Event.objects.count() == len(webhooks)
    no_differences()
    operator_rules.current.clear()
    run()
    no_differences()
    assert run().report.events == 0
    failures = failures_of(Event.objects.all(), 0)
    green = [each for each in failures if "green list" in each.detail.message]
    assert {each.refusal.category for each in green} == {Category.MAILBOX_FULL}


def _retry(work: Any) -> None:
    """Writers may be told to try again (a deadlock, a lock time-out); recorders do so too."""
    for _ in range(20):
        try:
            work()
        except OperationalError:
            time.sleep(0.01)
            continue
        return
    raise AssertionError("twenty errors in a row")
