"""Data quality: what a batch says of its locations, and the answers that are counted."""

import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest
from django.db import DatabaseError, OperationalError
from hypothesis import given
from hypothesis import strategies as st

from ingest import quality, record
from ingest.ids import ids
from ingest.models import AnswerHour, Event, Horizon, QualityHour, RecentSignatures
from ingest.normalize import NormalizedEvent
from ingest.quality import COLUMNS, LAG_EDGES, LATE_AFTER, Answers, Tally, lag_position
from ingest.record import Item, Recorder, write_batch
from ingest.retention import horizon
from ingest.statements import statements
from ingest.vocabulary import ENGAGEMENT, EventKind
from tests.ingest.events import SECOND, START, event

HOUR = 3_600 * SECOND
NOW = START + HOUR


@pytest.fixture(autouse=True)
def forget_ids() -> Any:
    ids.clear()
    horizon.clear()
    yield
    ids.clear()
    horizon.clear()


def counted(tally: Tally) -> dict[tuple[int, ...], dict[str, int]]:
    """The rows by (location, hour), with the columns that are not zero."""
    return {
        key: {name: n for name, n in zip(COLUMNS, counts, strict=True) if n}
        for key, counts in tally.rows()
    }


def of(stored: NormalizedEvent, *, after: float = 0, frozen: bool = False) -> dict[str, int]:
    """What one event counts as that is received so many seconds after it happened."""
    tally = Tally()
    received_at = stored.occurred_at + round(after * SECOND)
    tally.stored(1, stored, received_at=received_at, frozen=frozen)
    (row,) = counted(tally).values()
    return row


# --- The histogram --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "position"),
    [(-60, 0), (0, 0), (4.999, 0), (5, 1), (29, 1), (30, 2), (119, 2), (120, 3), (600, 4),
     (3_599, 4), (3_600, 5), (21_600, 6), (86_399, 6), (86_400, 7), (1e9, 7)],
)  # fmt: skip
def test_lags_lie_between_their_edges(seconds: float, position: int) -> None:
    assert lag_position(seconds) == position
    assert of(event(), after=seconds) == {"events": 1, "unattributed": 1, f"lag_{position}": 1}


def test_edges_grow_and_late_is_one_of_them() -> None:
    assert all(low < high for low, high in pairwise(LAG_EDGES))
    assert LATE_AFTER in LAG_EDGES
    assert COLUMNS[-1] == f"lag_{len(LAG_EDGES)}"


@given(st.lists(st.floats(-1e6, 1e9)))
def test_every_dated_event_has_one_lag(lags: list[float]) -> None:
    tally = Tally()
    for lag in lags:
        tally.stored(1, event(), received_at=START + round(lag * SECOND))
    rows = counted(tally).values()
    in_lags = sum(n for row in rows for name, n in row.items() if name.startswith("lag_"))
    assert in_lags == sum(row["events"] for row in rows) == len(lags)


# --- What is missing ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stored", "flaw"),
    [
        (event("unknown"), "unknown_kinds"),
        (event(message_id=""), "no_message_id"),
        (event(detail={"message_id_from": "storage"}), "no_message_id"),
        (event(recipient=""), "no_recipient"),
    ],
)
def test_what_is_missing_is_counted(stored: NormalizedEvent, flaw: str) -> None:
    assert of(stored) == {"events": 1, "unattributed": 1, flaw: 1, "lag_0": 1}


def test_an_undated_event_has_no_lag() -> None:
    assert of(event(time_marked=True)) == {"events": 1, "unattributed": 1, "undated": 1}


@pytest.mark.parametrize("kind", EventKind)
def test_only_mail_is_expected_to_name_a_campaign(kind: EventKind) -> None:
    assert ("unattributed" in of(event(kind.word))) == (kind not in ENGAGEMENT)
    named = event(kind.word, campaign_rank=1, campaign="spring")
    assert "unattributed" not in of(named)


def test_what_lies_before_the_horizon_is_said_so() -> None:
    assert of(event(), frozen=True)["before_horizon"] == 1


def test_it_is_counted_in_the_hour_of_receipt() -> None:
    tally = Tally()
    for hours in (2, 0, 0):
        tally.stored(7, event(), received_at=START + hours * HOUR)
    tally.repeated(3, received_at=START, conflict=False)
    tally.repeated(3, received_at=START, conflict=True)
    hour = START // HOUR
    assert [key for key, _ in tally.rows()] == [(3, hour), (7, hour), (7, hour + 2)]
    assert counted(tally)[3, hour] == {"duplicates": 2, "conflicts": 1}
    assert counted(tally)[7, hour]["events"] == 2


# --- In the recorder's transaction ----------------------------------------------------------


def write(*results: NormalizedEvent, received_at: int = NOW) -> None:
    items = [Item(result=result, body=b"{}", received_at=received_at) for result in results]
    write_batch(items, now=NOW)


@pytest.mark.django_db
def test_a_batch_adds_to_its_locations_hours() -> None:
    write(event("accepted"), event("delivered", 5), event(location_ref="loc2"))
    write(event("accepted"), event("accepted"), received_at=NOW + 5 * SECOND)
    write(event(key=b"k" * 16), event(key=b"k" * 16, content=2))
    rows = {row.location.ref: row for row in QualityHour.objects.all()}
    assert rows.keys() == {"loc1", "loc2"}
    first = rows["loc1"]
    assert (first.hour, first.events, first.duplicates, first.conflicts) == (NOW // HOUR, 3, 3, 1)
    # One came an hour after it happened, one five seconds less.
    assert (first.lag_4, first.lag_5, rows["loc2"].lag_5) == (1, 2, 1)


@pytest.mark.django_db
def test_events_of_pruned_deliveries_are_counted_as_such() -> None:
    Horizon.objects.create(deliveries_hour=START // HOUR)
    write(event("opened", -7_200), event("delivered", 7_200, message_id="m2"))
    row = QualityHour.objects.get()
    assert (row.events, row.before_horizon) == (2, 1)
    assert Event.objects.count() == 2


@pytest.mark.django_db
def test_a_batch_that_fails_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*rows: object) -> None:
        raise OperationalError

    monkeypatch.setattr(statements(), "insert_events", fail)
    with pytest.raises(OperationalError):
        write(event())
    assert not QualityHour.objects.exists()


# --- Answers --------------------------------------------------------------------------------


def kept_answers() -> dict[tuple[int, str], int]:
    rows = AnswerHour.objects.values_list("source_id", "status", "answers")
    return {(source, status): n for source, status, n in rows}


@pytest.mark.django_db
def test_answers_are_added_up() -> None:
    answers = Answers()
    for cause in ("stored", "stored", "wrong signature"):
        answers.count(cause)
    answers.count("stored", source_id=4)
    answers.run()
    answers.count("stored")
    answers.run()
    assert kept_answers() == {(0, "stored"): 3, (0, "wrong signature"): 1, (4, "stored"): 1}


def test_the_first_answer_wakes_the_writer_and_the_rest_let_it_sleep() -> None:
    answers = Answers()
    assert answers.due(0) is None
    assert [answers.count("stored") for _ in range(3)] == [True, False, False]
    assert answers.due(0) == 0


@pytest.mark.django_db
def test_answers_are_written_once_an_interval() -> None:
    answers = Answers()
    answers.count("stored")
    answers.run()
    assert answers.due(0) is None
    answers.count("stored")
    wait = answers.due(answers._next - 0.4)
    assert wait == pytest.approx(0.4)
    assert answers.due(answers._next + 1) == 0


@pytest.mark.django_db
def test_a_failure_loses_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = Answers()
    answers.count("stored")
    answers.signed(right=False)
    with monkeypatch.context() as patched:
        patched.setattr(quality, "_ADD_ANSWERS", "SELECT %s, %s, %s, %s FROM nowhere")
        with pytest.raises(DatabaseError, match="nowhere"):
            answers.run()
    assert not answers.count("stored")
    answers.signed(right=True)
    answers.run()
    assert kept_answers() == {(0, "stored"): 2}
    assert RecentSignatures.objects.get().verdicts == "01"


@pytest.mark.django_db
@given(
    flushes=st.lists(st.lists(st.booleans(), max_size=130), max_size=4),
)
def test_the_newest_hundred_signatures_are_remembered(flushes: list[list[bool]]) -> None:
    RecentSignatures.objects.all().delete()
    answers = Answers()
    for verdicts in flushes:
        answers.count("stored")
        for right in verdicts:
            answers.signed(right=right)
        answers.run()
    told = "".join("1" if right else "0" for verdicts in flushes for right in verdicts)
    found = RecentSignatures.objects.values_list("verdicts", flat=True).first() or ""
    assert found == told[-100:]


def test_every_answer_fits_its_column() -> None:
    longest = AnswerHour._meta.get_field("status").max_length
    assert longest is not None
    assert all(len(cause) <= longest for cause in quality.ANSWERS)
    assert quality.ANSWERS.keys() >= quality.SIGNATURE_FAILURES
    assert {answer.code for answer in quality.ANSWERS.values()} == {
        200, 400, 401, 404, 405, 413, 429,
    }  # fmt: skip


# --- The recorder's chores ------------------------------------------------------------------


@pytest.fixture
def answers() -> Answers:
    return Answers()


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch, answers: Answers) -> Iterator[Recorder]:
    """A recorder whose only chore are these answers."""
    monkeypatch.setattr(record, "CHORES", (answers,))
    made = Recorder()
    yield made
    made.close()
    assert made.drain(10)


def wait_for(found: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not found() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert found()


@pytest.mark.django_db(transaction=True)
def test_a_nudge_is_enough_to_have_answers_written(recorder: Recorder, answers: Answers) -> None:
    for _ in range(3):
        if answers.count("no signature"):
            recorder.nudge()
        wait_for(lambda: answers.due(0) is None)
    recorder.close()
    assert recorder.drain(10)
    assert kept_answers() == {(0, "no signature"): 3}


@pytest.mark.django_db(transaction=True)
def test_closing_writes_what_was_counted_last(recorder: Recorder, answers: Answers) -> None:
    answers.count("stored")
    recorder.nudge()
    wait_for(lambda: answers.due(0) is None)
    answers.count("busy")
    recorder.close()
    assert recorder.drain(10)
    assert kept_answers() == {(0, "stored"): 1, (0, "busy"): 1}


@pytest.mark.parametrize("error", [OperationalError("gone"), ValueError("a bug")])
def test_a_chore_that_fails_is_tried_again_later(
    recorder: Recorder, answers: Answers, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail() -> None:
        raise error

    answers.count("stored")
    with monkeypatch.context() as patched:
        patched.setattr(record, "_connected", fail)
        assert recorder._next_chore() == 0
        recorder._do_chores()
    wait = recorder._next_chore()
    assert wait is not None
    assert wait > 0
    recorder._do_chores()  # too early: it would need the database, which this test has not
    assert not answers.count("stored")
