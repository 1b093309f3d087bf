"""``manage.py prune``: what it says, how it is stopped, and that it runs beside writers."""

import io
import os
import signal
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError

from ingest import retention
from ingest.management.commands import prune
from ingest.models import Event, Horizon, Location
from ingest.retention import Pruning, Step


@pytest.fixture(autouse=True)
def _know_nothing(monkeypatch: pytest.MonkeyPatch, settings: Any) -> Iterator[None]:
    settings.EVENT_RETENTION_DAYS, settings.PAYLOAD_RETENTION_DAYS = 180, 30
    monkeypatch.setattr(retention, "SETTLE", 0.0)
    monkeypatch.setattr(prune, "PAUSE", 0.0)
    retention.horizon.clear()
    yield
    retention.horizon.clear()


def add_events(*days_ago: float) -> None:
    location, _ = Location.objects.get_or_create(ref="loc")
    now = datetime.now(UTC)
    Event.objects.bulk_create(
        Event(
            location=location, key=os.urandom(16), kind=2, content=1, payload=b"raw",
            occurred_at=now - timedelta(days=age), received_at=now - timedelta(days=age),
        )
        for age in days_ago
    )  # fmt: skip


def run(*arguments: str) -> str:
    output = io.StringIO()
    call_command("prune", *arguments, stdout=output)
    return output.getvalue()


@pytest.mark.django_db
def test_it_says_what_went() -> None:
    add_events(200, 190, 40, 1)
    assert run() == "gone: 3 payloads, 2 events\n"
    assert run() == "nothing is old enough\n"
    assert [event.payload for event in Event.objects.order_by("id")] == [None, b"raw"]


@pytest.mark.django_db
def test_a_dry_run_changes_nothing() -> None:
    add_events(200, 40, 1)
    assert run("--dry-run") == "would go: 2 payloads, 1 events\n"
    assert Event.objects.filter(payload=b"raw").count() == 3
    assert not Horizon.objects.exists()


@pytest.mark.django_db
def test_ages_are_those_of_the_settings(settings: Any) -> None:
    settings.EVENT_RETENTION_DAYS, settings.PAYLOAD_RETENTION_DAYS = 20, 10
    add_events(25, 15, 5)
    assert run() == "gone: 2 payloads, 1 events\n"


@pytest.mark.django_db
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_after_the_step_that_runs(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_events(*[200] * 5)
    monkeypatch.setattr(prune, "LIMIT", {"sqlite": 2, "postgresql": 2})
    before = signal.getsignal(number)
    with monkeypatch.context() as patched:
        patched.setattr(prune, "_show", lambda *_: os.kill(os.getpid(), number))
        assert run() == "gone: 2 payloads\nstopped; the next run goes on from here\n"
    assert signal.getsignal(number) is before
    assert Event.objects.filter(payload=b"raw").count() == 3
    assert run() == "gone: 3 payloads, 5 events\n"


@pytest.mark.django_db
def test_a_refusing_database_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def steps(_: Pruning) -> Iterator[Step]:
        yield Step("events", 7)
        raise OperationalError("the disk is full")

    monkeypatch.setattr(Pruning, "steps", steps)
    output = io.StringIO()
    with pytest.raises(CommandError, match=r"the disk is full\nRun it again"):
        call_command("prune", stdout=output)
    assert output.getvalue() == "gone: 7 events\n"


class Recorded(threading.Event):
    """Notes how long it was to wait, and does not."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.append(timeout or 0)
        return False


def test_it_rests_as_long_as_each_step_took(monkeypatch: pytest.MonkeyPatch, engine: str) -> None:
    steps = [Step("events", 1), Step("events", 1), Step("deliveries", 0, waits=True)]
    clock = iter([100, 105, 110, 110, 120, 121, 130])  # a step of 5 seconds, of 0, of 1
    monkeypatch.setattr(Pruning, "steps", lambda _: iter(steps))
    monkeypatch.setattr(prune, "PAUSE", 0.02)
    stop = Recorded()
    with monkeypatch.context() as patched:
        patched.setattr(time, "monotonic", lambda: next(clock))
        assert list(prune._paced(Pruning(now=0, limit=1), stop)) == steps
    assert stop.waits == [5, 0.02 if engine == "sqlite" else 0, prune.WAIT]


def test_a_dry_run_need_not_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pruning, "steps", lambda _: iter([Step("events", 1)] * 2))
    stop = Recorded()
    assert len(list(prune._paced(Pruning(now=0, limit=1, dry=True), stop))) == 2
    assert stop.waits == [0, 0]


def test_a_transaction_has_as_many_rows_as_other_writers_can_wait_for() -> None:
    assert prune.LIMIT["sqlite"] <= 500
    assert prune.LIMIT["postgresql"] <= 5_000
