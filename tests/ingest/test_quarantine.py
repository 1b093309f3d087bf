"""The quarantine: what it takes, what it leaves out, and where it ends."""

import asyncio
import json
from contextlib import suppress
from typing import Any

import pytest
from django.db import OperationalError, connection
from hypothesis import given
from hypothesis import strategies as st

from ingest.models import Event, KeptWebhook, QuarantinedWebhook, Source
from ingest.quarantine import Quarantine, Suspect, signature_headers

RECEIVED = 1_790_000_000_000_000


def suspect(body: bytes = b"{}", headers: str = '{"x-ghl-signature": "AAAA"}') -> Suspect:
    return Suspect(body, headers, RECEIVED, None)


def put(quarantine: Quarantine, *suspects: Suspect, runs: int = 1) -> list[bool | None]:
    """What becomes of them: True, False, or None where it could not be written."""

    def write() -> None:
        try:
            for _ in range(runs):
                quarantine.run()
        finally:
            connection.close()

    async def lined_up() -> list[bool | None]:
        futures = [quarantine.put(each) for each in suspects]
        with suppress(OperationalError):
            await asyncio.to_thread(write)
        return [await future if future else False for future in futures]

    return asyncio.run(lined_up())


# --- Headers --------------------------------------------------------------------------------


def read(*pairs: tuple[bytes, bytes], own: str = "") -> dict[str, str]:
    text = signature_headers(pairs, own)
    return json.loads(text) if text else {}


def test_headers_with_signatures_are_kept_and_no_others() -> None:
    assert read(
        (b"X-GHL-Signature", b"AAAA"),
        (b"x-wh-signature", b"BBBB"),
        (b"X-White-Label-Signature-256", b"CCCC"),
        (b"cookie", b"secret"),
        (b"X-Sum", b"DDDD"),
        own="X-Sum",
    ) == {
        "x-ghl-signature": "AAAA",
        "x-wh-signature": "BBBB",
        "x-white-label-signature-256": "CCCC",
        "x-sum": "DDDD",
    }


@pytest.mark.parametrize("value", [b"", b"  ", b"N/A", b"n/a"])
def test_without_a_signature_there_is_nothing_to_keep(value: bytes) -> None:
    assert signature_headers([(b"X-GHL-Signature", value), (b"host", b"example.com")]) == ""


def test_a_header_that_came_twice_stays_what_it_was() -> None:
    pairs = (b"x-ghl-signature", b"AAAA"), (b"X-Ghl-Signature", b"BBBB")
    assert read(*pairs) == {"x-ghl-signature": "AAAA,BBBB"}


@given(st.lists(st.tuples(st.binary(max_size=40), st.binary(max_size=3_000)), max_size=20))
def test_headers_stay_few_and_short(pairs: list[tuple[bytes, bytes]]) -> None:
    named = [(name + b"-signature", value) for name, value in pairs]
    found = read(*named)
    assert len(found) <= 8
    assert all(0 < len(value) <= 2_000 for value in found.values())


def test_what_a_stranger_sends_does_not_stand_in_for_the_real_one() -> None:
    real, wrong = suspect(headers='{"a": "right"}'), suspect(headers='{"a": "wrong"}')
    elsewhere = Suspect(real.body, real.headers, RECEIVED, 4)
    assert len({real.digest, wrong.digest, elsewhere.digest}) == 3
    assert real.digest == Suspect(real.body, real.headers, RECEIVED + 1, None).digest


# --- Lining up ------------------------------------------------------------------------------


def test_only_so_many_may_wait() -> None:
    async def fill() -> int:
        quarantine = Quarantine()
        return sum(quarantine.put(suspect()) is not None for _ in range(Quarantine.waiting + 10))

    assert asyncio.run(fill()) == Quarantine.waiting


def test_only_so_much_may_wait() -> None:
    async def fill() -> int:
        quarantine, large = Quarantine(), suspect(b"x" * (1 << 20))
        return sum(quarantine.put(large) is not None for _ in range(20))

    assert asyncio.run(fill()) == Quarantine.waiting_bytes >> 20


def test_it_is_written_four_times_a_second_at_most() -> None:
    async def waits() -> list[float | None]:
        quarantine = Quarantine()
        before = quarantine.due(0)
        quarantine.put(suspect())
        return [before, quarantine.due(0)]

    assert asyncio.run(waits()) == [None, 0]
    quarantine = Quarantine()
    quarantine._next = 100.0
    quarantine._queue.append(object())  # type: ignore[arg-type]
    assert quarantine.due(99.9) == pytest.approx(0.1)


# --- Writing --------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_it_is_set_apart_and_is_no_mail() -> None:
    assert put(Quarantine(), suspect(b"one"), suspect(b"two")) == [True, True]
    rows = QuarantinedWebhook.objects.order_by("pk")
    assert [bytes(row.body) for row in rows] == [b"one", b"two"]
    assert rows[0].received_at.timestamp() * 1_000_000 == RECEIVED
    assert json.loads(rows[0].headers) == {"x-ghl-signature": "AAAA"}
    assert not Event.objects.exists()
    assert not KeptWebhook.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_the_same_again_is_held_once() -> None:
    quarantine = Quarantine()
    assert put(quarantine, suspect(), suspect()) == [True, True]
    assert put(quarantine, suspect()) == [True]
    assert QuarantinedWebhook.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_it_belongs_to_the_source_that_it_came_by() -> None:
    source = Source.objects.create(name="hoop")
    assert put(Quarantine(), Suspect(b"{}", "{}", RECEIVED, source.pk)) == [True]
    assert QuarantinedWebhook.objects.get().source == source


@pytest.mark.django_db(transaction=True)
def test_a_batch_is_bounded() -> None:
    quarantine = Quarantine()
    many = [suspect(b"%d" % number) for number in range(150)]
    assert put(quarantine, *many, runs=2) == [True] * 150
    large = [suspect(b"x" * 200_000) for _ in range(5)]

    async def sizes() -> list[int]:
        for each in large:
            quarantine.put(each)
        return [len(quarantine._take()) for _ in range(3)]

    assert asyncio.run(sizes()) == [3, 2, 0]


@pytest.mark.django_db(transaction=True)
def test_it_ends_with_a_number(settings: Any) -> None:
    settings.WEBHOOK_QUARANTINE_MOST = 3
    quarantine = Quarantine()
    for number in range(3):
        assert put(quarantine, suspect(b"%d" % number)) == [True]
    assert put(quarantine, suspect(b"3")) == [False]
    assert put(Quarantine(), suspect(b"3")) == [False]  # another process counts the table
    QuarantinedWebhook.objects.all().delete()
    quarantine.clear()
    assert put(quarantine, suspect(b"3")) == [True]


@pytest.mark.django_db(transaction=True)
def test_it_ends_with_a_size(settings: Any) -> None:
    settings.WEBHOOK_QUARANTINE_BYTES = 1_000
    quarantine = Quarantine()
    assert put(quarantine, suspect(b"a" * 600)) == [True]
    assert put(quarantine, suspect(b"b" * 600)) == [False]
    assert put(Quarantine(), suspect(b"b" * 600)) == [False]
    assert put(quarantine, suspect(b"c" * 400)) == [True]


@pytest.mark.django_db(transaction=True)
def test_what_cannot_be_written_now_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    quarantine = Quarantine()

    def fail(*rows: object, **options: object) -> None:
        raise OperationalError

    with monkeypatch.context() as patched:
        patched.setattr(QuarantinedWebhook.objects, "bulk_create", fail)
        assert put(quarantine, suspect()) == [None]
    assert put(quarantine, suspect()) == [True]


@pytest.mark.django_db(transaction=True)
def test_a_source_that_was_withdrawn_meanwhile_costs_no_thread() -> None:
    nobody = Suspect(b"{}", "{}", RECEIVED, 999)
    assert put(Quarantine(), nobody) == [False]
    assert not QuarantinedWebhook.objects.exists()
