"""Answers that may be a minute or two old."""

from collections.abc import Callable
from threading import Event, Thread

import pytest

from dashboard import refreshed
from dashboard.refreshed import Kept, Refreshed


class Clock:
    """The monotonic clock, which the tests move."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(refreshed, "time", clock)
    return clock


@pytest.fixture
def beside(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], None]]:
    """What was to be done in a thread, for the test to do."""
    waiting: list[Callable[[], None]] = []
    monkeypatch.setattr(refreshed, "_beside", waiting.append)
    return waiting


@pytest.mark.django_db
def test_the_next_answer_is_worked_out_beside_who_asks(
    clock: Clock, beside: list[Callable[[], None]]
) -> None:
    answers = iter("abc")
    kept = Refreshed[str]()

    def ask() -> str:
        return kept.get(lambda: next(answers))

    assert (ask(), ask()) == ("a", "a")
    clock.now += refreshed.FRESH + 1
    assert (ask(), ask()) == ("a", "a")
    assert len(beside) == 1  # once, whoever asks meanwhile
    beside.pop()()
    assert ask() == "b"
    assert not beside
    clock.now += refreshed.STALE + 1
    assert ask() == "c"


@pytest.mark.django_db
def test_an_answer_that_cannot_be_renewed_is_given_until_it_is_stale(
    clock: Clock, beside: list[Callable[[], None]], caplog: pytest.LogCaptureFixture
) -> None:
    kept = Refreshed[str]()

    def fail() -> str:
        raise ValueError

    kept.get(lambda: "a")
    for _ in range(2):
        clock.now += refreshed.FRESH / 2 + 1
        assert kept.get(fail) == "a"
    beside.pop()()
    assert "could not be renewed" in caplog.text
    assert kept.get(fail) == "a"
    assert beside  # another try
    clock.now += refreshed.STALE
    with pytest.raises(ValueError):
        kept.get(fail)


def test_who_asks_at_the_same_time_waits_for_the_same_answer() -> None:
    kept, began, go_on = Refreshed[object](), Event(), Event()
    found: list[object] = []

    def work() -> object:
        began.set()
        go_on.wait(10)
        return object()

    threads = [Thread(target=lambda: found.append(kept.get(work))) for _ in range(2)]
    for thread in threads:
        thread.start()
    began.wait(10)
    go_on.set()
    for thread in threads:
        thread.join(10)
    assert len(found) == 2
    assert found[0] is found[1]


def test_only_answers_that_are_worth_it_are_kept() -> None:
    kept = Kept[str, int](lambda found: found >= 2, most=2)
    assert [kept.get("a", lambda n=n: n) for n in (1, 2, 3)] == [1, 2, 2]  # type: ignore[misc]
    assert kept.get("b", lambda: 5) == 5
    assert kept.get("a", lambda: 6) == 2
    assert kept.get("c", lambda: 7) == 7  # one too many: the others are let go of
    assert kept.get("a", lambda: 8) == 8
