"""Erased recipients: nothing names them, every number stays, and what comes later is erased too."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import orjson
import pytest
from django.apps import apps
from django.db import connection

from ingest import counting, details, erasure, record
from ingest.erasure import STUB, Erasure, is_pseudonym, message_id_of, nameless, pseudonym_for
from ingest.ids import ids
from ingest.models import Delivery, ErasedMail, Event, KeptWebhook, Location, QuarantinedWebhook
from ingest.retention import Pruning
from tests.ingest.tables import tables

pytestmark = pytest.mark.django_db
LOCAL = "zebulon.q"
JANE = f"{LOCAL}@example.com"
AT = 1_790_000_000


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    ids.clear()
    yield
    ids.clear()


def webhook(number: int, word: str = "delivered", **changes: Any) -> bytes:
    payload = {
        "event": word,
        "severity": "permanent",
        "id": f"event-{number}",
        "timestamp": AT + number,
        "message": {"headers": {"message-id": f"m{number // 10}@mg.example.org"}},
        "recipient": JANE,
        "tags": ["promo"],
        "url": f"https://shop.example/{LOCAL}?email={JANE}",
        "client-info": {"user-agent": f"mail of {LOCAL}"},
        "delivery-status": {"code": 550, "message": f"5.1.1 <{JANE.upper()}>: no {LOCAL} here"},
    } | changes
    body = {"type": "LCEmailStats", "locationId": "loc", "webhookPayload": payload}
    return orjson.dumps(body)


def other(number: int) -> bytes:
    """A webhook of somebody else's mail."""
    return webhook(number).replace(LOCAL.encode(), b"max").replace(LOCAL.upper().encode(), b"MAX")


def write(*bodies: bytes) -> list[str]:
    items = [record.item_from_body(body, received_at=(AT + 99) * 1_000_000) for body in bodies]
    record.write_batch(items, now=(AT + 99) * 1_000_000)
    return [item.status for item in items]


BODIES = [
    webhook(1, "accepted"),
    webhook(2, "failed"),
    webhook(3, "clicked"),
    webhook(11, "delivered"),
    webhook(21, "failed", message={"headers": {"message-id": f"x.{LOCAL}=y@mg.example.org"}}),
    webhook(31, "opened", message={}),  # of no delivery
    other(41),
]


def erase(address: str = JANE, **where: Any) -> dict[str, int]:
    found: dict[str, int] = {}
    for step in Erasure(address, limit=2, **where).steps():
        found[step.what] = found.get(step.what, 0) + step.rows
    return found


def named() -> list[bytes]:
    """What still names who was erased, of all rows of all tables of mail, unpacked."""
    return [text for text in everything() if b"zebulon" in text.lower()]


def everything() -> list[bytes]:
    """All rows of all tables of mail, unpacked."""
    found = []
    for model in apps.get_app_config("ingest").get_models():
        for row in model._default_manager.values():
            found.append(repr(row).encode())
    for event in Event.objects.select_related("ip", "pool", "mx"):
        found.append(
            repr(details.load(event.detail, event.code, event.is_test, "", "", "")).encode()
        )
        found.append(record.payload_of(event) or b"")
    return found


def differences() -> list[str]:
    return [str(each) for each in counting.differences(now=(AT + 99) * 1_000_000)]


def test_nothing_names_who_was_erased_and_every_number_stays() -> None:
    assert write(*BODIES) == ["stored"] * 7
    counters = tables()[1:6]
    assert named()
    done = erase()
    assert (done["deliveries"], done["events"]) == (3, 6)
    assert named() == []
    assert tables()[1:6] == counters
    assert differences() == []
    erased = [d for d in Delivery.objects.all() if is_pseudonym(d.recipient)]
    assert len(erased) == 3
    assert len({d.recipient for d in erased}) == 1
    assert {d.recipient.partition("@")[2] for d in erased} == {"example.com"}
    assert Delivery.objects.filter(recipient="max@example.com").count() == 1
    assert b"max@example.com" in b"".join(everything())


def test_what_comes_again_is_a_duplicate_and_what_comes_later_is_erased() -> None:
    write(*BODIES)
    erase()
    assert write(*BODIES) == ["duplicate"] * 7
    late = [webhook(4, "complained"), webhook(12, "failed"), webhook(13, "opened")]
    assert write(*late) == ["stored"] * 3
    assert write(*late) == ["duplicate"] * 3
    assert named() == []
    assert Delivery.objects.count() == 4
    bounced = Event.objects.filter(kind=4, delivery__message_id="m1@mg.example.org").get()
    assert record.payload_of(bounced) == STUB
    assert differences() == []
    assert Delivery.objects.filter(message_id="m1@mg.example.org").get().outcome == 2


def beside(work: Callable[[], Any]) -> Any:
    """Do it in a thread, whose connection is closed."""
    try:
        return work()
    finally:
        connection.close()


def somebody_waits() -> bool:
    """Whether a connection waits for a lock."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity "
            "WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        return bool(cursor.fetchall()[0][0])


@pytest.mark.postgresql_only
@pytest.mark.django_db(transaction=True)
def test_what_comes_while_its_mail_is_erased_is_erased(monkeypatch: pytest.MonkeyPatch) -> None:
    write(*BODIES)
    held, go, many = threading.Event(), threading.Event(), erasure._many

    def holding(statement: str, rows: Any) -> None:
        many(statement, rows)
        if "ingest_delivery" in statement:
            held.set()
            go.wait(20)

    monkeypatch.setattr(erasure, "_many", holding)
    late = [webhook(4, "complained"), webhook(5, "opened")]
    with ThreadPoolExecutor(2) as pool:
        erasing = pool.submit(beside, erase)
        assert held.wait(20)
        writing = pool.submit(beside, lambda: write(*late))
        deadline = time.monotonic() + 20
        while not somebody_waits() and time.monotonic() < deadline:
            time.sleep(0.01)
        go.set()
        assert erasing.result()["deliveries"] == 3
        assert writing.result() == ["stored"] * 2
    assert named() == []
    assert Event.objects.count() == len(BODIES) + 2
    assert differences() == []


def test_a_batch_may_hold_erased_and_other_mail() -> None:
    write(*BODIES)
    erase()
    both = other(51), webhook(5, "opened")
    assert write(*both) == ["stored"] * 2
    assert Delivery.objects.filter(recipient="max@example.com").count() == 2
    assert named() == []


def test_new_mail_to_the_same_person_is_new() -> None:
    write(*BODIES)
    erase()
    write(webhook(61))
    assert Delivery.objects.get(recipient=JANE).message_id == "m6@mg.example.org"
    erase()
    assert named() == []
    assert differences() == []


def test_one_location_alone() -> None:
    write(*BODIES, webhook(71).replace(b'"loc"', b'"other"'))
    place = Location.objects.get(ref="loc")
    erase(location_id=place.pk, location_ref="loc")
    assert list(
        Delivery.objects.filter(recipient=JANE).values_list("location__ref", flat=True)
    ) == ["other"]


@pytest.mark.parametrize("model", [KeptWebhook, QuarantinedWebhook])
def test_webhooks_that_were_set_apart_go(model: Any) -> None:
    at = {"received_at": "2026-09-21T00:00Z"}
    bodies = (
        webhook(1),
        b'{"to": "' + JANE.upper().replace("@", "\\u0040").encode() + b'"}',
        other(2),
    )
    for number, body in enumerate(bodies):
        model.objects.create(digest=bytes([number] * 16), body=body, **at)
    erase()
    assert [bytes(row.body) for row in model.objects.all()] == [other(2)]


def test_a_run_that_was_cut_off_goes_on_where_it_ended() -> None:
    write(*BODIES)
    next(Erasure(JANE, limit=1).steps())
    assert differences() == []
    erase()
    assert named() == []
    assert ErasedMail.objects.count() == 3


def test_traces_end_with_their_age() -> None:
    write(*BODIES)
    erase()
    later = (AT + 2 * 366 * 86_400) * 1_000_000 * 2
    for step in Pruning(now=later, limit=100).steps():
        if step.what.startswith("traces"):
            break
    assert not ErasedMail.objects.exists()


@pytest.mark.parametrize(
    ("said", "left"),
    [
        ("no Jane.D here", "no erased-1 here"),
        ("<JANE.D@x.org>", "<erased-1@x.org>"),
        ("?e=jane.d%40x.org", "?e=erased-1%40x.org"),
        ("jane.doe", "jane.doe"),
    ],
)
def test_nameless(said: str, left: str) -> None:
    assert nameless(said, "jane.d@x.org", "erased-1@x.org").lower() == left.lower()


def test_pseudonyms() -> None:
    assert pseudonym_for(JANE) != pseudonym_for(JANE)
    assert is_pseudonym(pseudonym_for(JANE))
    assert is_pseudonym(pseudonym_for("odd"))
    assert not is_pseudonym("erased-me@example.com")
    assert message_id_of((1, "m1@mg", JANE)) == "m1@mg"
    assert message_id_of((1, f"{LOCAL}.1@mg", JANE)).startswith("erased-")
