"""``replay_kept``: what was kept or set apart is read again, and nothing is counted twice."""

import base64
import hashlib
import hmac
import io
import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError

from ingest import counting, kept, record
from ingest.ids import ids
from ingest.kept import Rereading
from ingest.models import Delivery, Event, KeptWebhook, Location, QuarantinedWebhook, Source
from ingest.quarantine import Suspect
from ingest.record import item_from_body, write_batch, write_safely

pytestmark = pytest.mark.django_db
RECEIVED = 1_790_000_000_000_000
AT = datetime.fromtimestamp(1_790_000_000, UTC)


@pytest.fixture(autouse=True)
def forget_ids() -> Iterator[None]:
    ids.clear()
    yield
    ids.clear()


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses between transactions, not slept."""
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    return slept


def mail(number: int = 1, **changes: Any) -> bytes:
    """A webhook that is understood."""
    inner = {
        "event": "delivered",
        "id": f"event-{number}",
        "timestamp": 1_789_999_990,
        "message": {"headers": {"message-id": f"m{number}@example.com"}},
        "recipient": f"jane{number}@example.org",
    }
    return orjson.dumps(
        {"type": "LCEmailStats", "locationId": "loc1", "webhookPayload": inner} | changes
    )


def keep(body: bytes, reason: str = "no known form", source: Source | None = None) -> KeptWebhook:
    """A kept webhook, as an older parser left it."""
    return KeptWebhook.objects.create(
        received_at=AT, source=source, reason=reason, body=body,
        digest=hashlib.blake2b(body, digest_size=16).digest(),
    )  # fmt: skip


def set_apart(body: bytes, source: Source | None = None, **headers: str) -> QuarantinedWebhook:
    """A webhook in quarantine, with its signature headers (``_`` for ``-``)."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    row = Suspect(body, json.dumps(named), RECEIVED, source.pk if source else None).row
    row.save()
    return row


def replay_kept(*arguments: str) -> list[str]:
    output = io.StringIO()
    call_command("replay_kept", *arguments, stdout=output)
    return output.getvalue().splitlines()


# --- Kept -----------------------------------------------------------------------------------


def test_nothing_waits() -> None:
    assert replay_kept() == ["0 stored, 0 duplicate, 0 ignored, 0 kept, 0 quarantined"]


def test_what_is_understood_now_is_stored_as_when_it_came() -> None:
    row = keep(mail())
    assert replay_kept()[-1] == "1 stored, 0 duplicate, 0 ignored, 0 kept, 0 quarantined"
    event = Event.objects.get()
    assert (event.received_at, record.payload_of(event)) == (AT, mail())
    assert Delivery.objects.get().recipient == "jane1@example.org"
    row.refresh_from_db()
    assert row.replayed_at is not None
    assert [*counting.differences(now=time.time_ns() // 1000)] == []


def test_doing_it_again_does_nothing() -> None:
    keep(mail())
    replay_kept()
    assert replay_kept() == ["0 stored, 0 duplicate, 0 ignored, 0 kept, 0 quarantined"]
    KeptWebhook.objects.update(replayed_at=None)  # as if it had been cut off before the mark
    assert replay_kept()[-1] == "0 stored, 1 duplicate, 0 ignored, 0 kept, 0 quarantined"
    assert Event.objects.count() == 1


def test_what_is_still_not_understood_stays_and_says_why_now() -> None:
    row = keep(b"[1, 2]", reason="an older parser's words")
    assert replay_kept() == [
        "an older parser's words: 1 still kept",
        "0 stored, 0 duplicate, 0 ignored, 1 kept, 0 quarantined",
    ]
    row.refresh_from_db()
    assert (row.replayed_at, row.reason) == (None, "not a JSON object")


def test_the_source_gives_its_location() -> None:
    source = Source.objects.create(name="hoop", location_ref="locHoop")
    keep(mail(locationId=None), source=source)
    keep(mail(2, locationId=None), reason="no location")
    assert replay_kept()[-1].startswith("1 stored, 0 duplicate, 0 ignored, 1 kept")
    assert Event.objects.get().location.ref == "locHoop"


def test_a_withdrawn_source_still_gives_its_location() -> None:
    source = Source.objects.create(name="hoop", location_ref="locHoop", enabled=False)
    keep(mail(locationId=None), source=source)
    assert replay_kept()[-1].startswith("1 stored, ")


def test_a_dry_run_counts_by_reason_and_writes_nothing() -> None:
    write_batch([item_from_body(mail(1), received_at=RECEIVED)], now=RECEIVED)
    for number in (1, 2, 3):
        keep(mail(number), reason="not recorded: DataError")
    keep(mail(3) + b" ", reason="no known form")
    keep(b"[]", reason="no known form")
    keep(orjson.dumps({"type": "INSTALL", "locationId": "loc1"}), reason="no event word")
    assert replay_kept("--dry-run") == [
        "not recorded: DataError: 1 duplicate, 2 stored",
        "no known form: 1 duplicate, 1 still kept",
        "no event word: 1 ignored",
        "would become: 2 stored, 2 duplicate, 1 ignored, 1 kept, 0 quarantined",
    ]
    assert Event.objects.count() == 1
    assert not KeptWebhook.objects.exclude(replayed_at=None).exists()
    assert replay_kept()[-1] == "2 stored, 2 duplicate, 1 ignored, 1 kept, 0 quarantined"


def test_a_reason_chooses(settings: Any) -> None:
    keep(mail(1), reason="no known form")
    keep(mail(2), reason="not recorded: DataError")
    set_apart(mail(3), x_ghl_signature="AAAA")
    assert replay_kept("--reason", "Recorded")[-1].startswith("1 stored, ")
    assert replay_kept("--reason", "quarantined", "--dry-run")[-1].endswith(" 1 quarantined")
    assert KeptWebhook.objects.filter(replayed_at=None).get().reason == "no known form"


def test_other_apps_are_ignored(settings: Any) -> None:
    settings.WEBHOOK_APP_ID = "ours"
    row = keep(mail(appId="theirs"))
    assert replay_kept()[-1] == "0 stored, 0 duplicate, 1 ignored, 0 kept, 0 quarantined"
    row.refresh_from_db()
    assert row.replayed_at is not None
    assert not Event.objects.exists()


def test_a_location_s_install_is_caught_up() -> None:
    keep(orjson.dumps({"type": "INSTALL", "locationId": "loc1", "companyId": "agency"}))
    assert replay_kept()[-1].startswith("0 stored, 0 duplicate, 1 ignored")
    assert Location.objects.get().company_ref == "agency"


def test_transactions_are_small_and_leave_the_others_room(
    pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    def write(items: Any, *, now: int) -> None:
        sizes.append(len(items))
        write_safely(items, now=now)

    monkeypatch.setattr(kept, "write_safely", write)
    KeptWebhook.objects.bulk_create(
        KeptWebhook(received_at=AT, reason="x", body=mail(n), digest=n.to_bytes(16))
        for n in range(1_001)
    )
    assert replay_kept()[-1].startswith("1,001 stored, ")
    assert sizes == [500, 500, 1]
    assert pauses == [0.02] * 3


def test_what_a_failure_cut_off_is_done_by_the_next_run(monkeypatch: pytest.MonkeyPatch) -> None:
    keep(mail())

    def fail(*rows: object, **options: object) -> None:
        raise OperationalError("gone")

    with monkeypatch.context() as patched:
        patched.setattr(kept, "write_safely", fail)
        with pytest.raises(CommandError, match="Run it again"):
            replay_kept()
    assert replay_kept()[-1].startswith("1 stored, ")


def test_what_cannot_be_recorded_stays_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    row = keep(mail())

    def poison(*call: object, **options: object) -> None:
        raise ValueError

    monkeypatch.setattr(record, "_write_events", poison)
    assert replay_kept()[-1] == "0 stored, 0 duplicate, 0 ignored, 1 kept, 0 quarantined"
    row.refresh_from_db()
    assert (row.replayed_at, row.reason) == (None, "not recorded: ValueError")


def test_counting_comes_before_doing() -> None:
    keep(mail())
    reading = Rereading()
    assert reading.waiting() == 1
    assert list(reading.foresee()) == [1]
    assert reading.total("stored") == 1
    assert not Event.objects.exists()


# --- Quarantined ----------------------------------------------------------------------------


def test_what_the_present_keys_verify_is_stored_and_leaves(sign: Callable[[bytes], str]) -> None:
    set_apart(mail(1), x_ghl_signature=sign(mail(1)))
    stays = set_apart(mail(2), x_ghl_signature=sign(b"another body"))
    assert replay_kept() == [
        "quarantined: 1 still quarantined, 1 stored",
        "1 stored, 0 duplicate, 0 ignored, 0 kept, 1 quarantined",
    ]
    assert QuarantinedWebhook.objects.get() == stays
    event = Event.objects.get()
    assert (event.received_at, record.payload_of(event)) == (AT, mail(1))


def test_an_authentic_one_that_is_not_understood_is_kept(sign: Callable[[bytes], str]) -> None:
    set_apart(b"[]", x_ghl_signature=sign(b"[]"))
    assert replay_kept()[-1] == "0 stored, 0 duplicate, 0 ignored, 1 kept, 0 quarantined"
    assert not QuarantinedWebhook.objects.exists()
    assert KeptWebhook.objects.get().body == b"[]"


def test_the_signature_must_be_the_one_that_came(sign: Callable[[bytes], str]) -> None:
    set_apart(mail())
    set_apart(mail(), x_other_signature=sign(mail()))
    assert replay_kept()[-1].endswith(" 2 quarantined")
    assert not Event.objects.exists()


def signed_source(**changes: Any) -> Source:
    options = {"name": "hoop", "location_ref": "locHoop", "hmac_secret": "new",
               "hmac_header": "X-Hoop-Signature"}  # fmt: skip
    return Source.objects.create(**options | changes)


def test_a_source_s_is_verified_by_its_own_secret(sign: Callable[[bytes], str]) -> None:
    source = signed_source()
    right = hmac.digest(b"new", mail(1), "sha256").hex()
    set_apart(mail(1), source, x_hoop_signature=right)
    set_apart(mail(2), source, x_hoop_signature=right)
    # HighLevel's signature vouches for nothing at a source with a secret of its own.
    set_apart(mail(3), source, x_ghl_signature=sign(mail(3)))
    assert replay_kept()[-1] == "1 stored, 0 duplicate, 0 ignored, 0 kept, 2 quarantined"


def test_a_source_s_other_header_and_encoding_are_tried_by_the_rules_of_now() -> None:
    source = signed_source(hmac_header="X-Signature-Of-Hoop", hmac_encoding="base64")
    right = base64.b64encode(hmac.digest(b"new", mail(), "sha256")).decode()
    set_apart(mail(), source, x_signature_of_hoop=right)
    assert replay_kept()[-1].startswith("1 stored, ")


def test_a_withdrawn_source_vouches_for_nothing() -> None:
    source = signed_source(enabled=False)
    right = hmac.digest(b"new", mail(), "sha256").hex()
    set_apart(mail(), source, x_hoop_signature=right)
    assert replay_kept()[-1].endswith(" 1 quarantined")
