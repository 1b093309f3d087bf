"""The review queues: what gets into them, once, and what opens a case again."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command

from dashboard import suppressing
from dashboard.review import cases, filling, queues, sample
from dashboard.review.models import CaseEntry, ReviewCase, ReviewProgress
from ingest import retention
from ingest.counted_values import decisions
from ingest.ids import ids
from ingest.models import ClassificationRule, Delivery, Event, LocationHour
from ingest.operator_rules import current
from ingest.reclassify import Filter, Reclassification
from ingest.vocabulary import Category
from tests.ingest.test_reclassify import body, bounce, send

pytestmark = pytest.mark.django_db
NOW = datetime(2026, 9, 22, 12, tzinfo=UTC)
State, Queue = ReviewCase.State, ReviewCase.Queue
COMPLETELY_NEW = "550 the moon is in the wrong house"


@pytest.fixture(autouse=True)
def know_nothing(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def forget() -> None:
        ids.clear()
        decisions.clear()
        retention.horizon.clear()
        current.clear()

    monkeypatch.setattr("ingest.operator_rules.REFRESH", 0.0)
    monkeypatch.setattr(queues, "FIRST_DAYS", 0)
    forget()
    yield
    forget()


@pytest.fixture
def jane() -> User:
    return User.objects.create_user("jane")


def fill() -> None:
    while suppressing.follow_some():
        pass
    while queues.fill_some():
        pass


def waiting(queue: int) -> list[tuple[str, int]]:
    rows = ReviewCase.objects.filter(queue=queue, state=State.OPEN)
    return list(rows.values_list("subject", "count"))


def test_complaints_and_late_bounces_are_cases_of_their_deliveries() -> None:
    send(body("delivered", mail="a"), body("complained", mail="a"), body("delivered", mail="b"))
    send(body("delivered", mail="c", at=0), bounce("550 gone", mail="c", at=500))
    send(bounce("550 5.1.1 no such user", mail="d", recipient="d@example.org"))
    fill()
    of = {d.message_id: f"d:{d.pk}" for d in Delivery.objects.all()}
    assert waiting(Queue.COMPLAINTS) == [(of["a"], 1)]
    assert waiting(Queue.LATE) == [(of["c"], 1)]
    assert ReviewCase.objects.filter(queue=Queue.COMPLAINTS, location__ref="locA").exists()


def test_a_refusal_that_no_rule_knows_is_one_case_the_most_frequent_first() -> None:
    send(*(bounce(COMPLETELY_NEW, recipient=f"r{n}@example.org") for n in range(3)))
    send(bounce("550 it is friday", recipient="x@example.org"))
    send(bounce("550 5.1.1 no such user", recipient="y@example.org"))
    fill()
    assert [count for _, count in waiting(Queue.UNCLASSIFIED)] == [3, 1]
    (new,) = ReviewCase.objects.filter(queue=Queue.NEW_REASONS)
    assert "no such user" in str(new.reason)
    assert new.location is None


def test_in_the_first_days_no_refusal_is_news(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queues, "FIRST_DAYS", 7)
    began = -8 * 86_400
    send(bounce("550 5.1.1 no such user", at=began), bounce(COMPLETELY_NEW, at=began + 1))
    fill()
    assert waiting(Queue.NEW_REASONS) == []
    assert len(waiting(Queue.UNCLASSIFIED)) == 1
    send(bounce("550 5.7.1 listed by a list", mail="later", at=0))
    fill()
    assert len(waiting(Queue.NEW_REASONS)) == 1


def test_mail_to_the_dead_is_one_case_an_address() -> None:
    send(bounce("550 5.1.1 no such user", mail="a", at=0))
    fill()
    for n in range(1, 3):
        send(
            body("accepted", mail=f"b{n}", at=n * 100), body("delivered", mail=f"b{n}", at=n * 101)
        )
    fill()
    ((subject, count),) = waiting(Queue.MAILED_AGAIN)
    assert subject.startswith("s:")
    assert count == 2


def test_the_same_events_count_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queues, "EVENTS", 1)
    raw = [bounce(COMPLETELY_NEW, recipient=f"r{n}@example.org") for n in range(3)]
    send(*raw)
    fill()
    send(*raw)
    fill()
    assert [count for _, count in waiting(Queue.UNCLASSIFIED)] == [3]
    ReviewProgress.objects.update(cursor=Event.objects.latest("id").pk)
    assert not queues.fill_some()


def test_a_queue_takes_only_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queues, "MOST", 2)
    for n in range(4):
        send(body("complained", mail=f"m{n}", recipient=f"r{n}@example.org"))
    fill()
    assert len(waiting(Queue.COMPLAINTS)) == 2


def test_a_resolved_case_opens_again_by_a_new_event(jane: User) -> None:
    send(bounce(COMPLETELY_NEW, recipient="a@example.org", at=0))
    fill()
    case = ReviewCase.objects.get(queue=Queue.UNCLASSIFIED)
    cases.resolve(case, "provider", jane, NOW)
    assert waiting(Queue.UNCLASSIFIED) == []
    send(bounce(COMPLETELY_NEW, recipient="b@example.org", at=10))
    fill()
    assert waiting(Queue.UNCLASSIFIED) == [(case.subject, 2)]
    said = list(CaseEntry.objects.filter(case=case).values_list("what", "actor"))
    assert ("resolved: the provider", "jane") in said
    assert ("opened again: a new event", "") in said


def test_an_ignored_case_opens_again_when_it_is_worse(jane: User) -> None:
    send(*(bounce(COMPLETELY_NEW, recipient=f"{n}@example.org") for n in range(3)))
    fill()
    case = ReviewCase.objects.get(queue=Queue.UNCLASSIFIED)
    cases.ignore(case, jane, NOW)
    send(*(bounce(COMPLETELY_NEW, recipient=f"b{n}@example.org") for n in range(2)))
    fill()
    case.refresh_from_db()
    assert (case.state, case.count, case.ignored_count) == (State.IGNORED, 5, 3)
    send(bounce(COMPLETELY_NEW, recipient="c@example.org"))
    fill()
    case.refresh_from_db()
    assert (case.state, case.count) == (State.OPEN, 6)


def test_a_new_refusal_is_new_again_only_after_it_was_gone(jane: User) -> None:
    known = "550 5.1.1 no such user"
    send(bounce(known, at=-9 * 86_400))
    fill()
    case = ReviewCase.objects.get(queue=Queue.NEW_REASONS)
    cases.resolve(case, "list", jane, NOW)
    send(bounce(known, at=-8 * 86_400))
    fill()
    case.refresh_from_db()
    assert (case.state, case.count) == (State.RESOLVED, 2)
    send(bounce(known, at=0))
    fill()
    case.refresh_from_db()
    assert case.state == State.OPEN


def test_a_lease_ends_and_a_rule_settles() -> None:
    jane = User.objects.create_user("jane")
    send(bounce(COMPLETELY_NEW))
    fill()
    case = ReviewCase.objects.get(queue=Queue.UNCLASSIFIED)
    cases.take(case, jane, NOW)
    with pytest.raises(cases.Taken, match="until 12:30"):
        cases.resolve(case, "dns", User.objects.create_user("joe"), NOW)
    assert queues.tend(NOW + timedelta(minutes=29)) == 0
    assert queues.tend(NOW + timedelta(minutes=30)) == 1
    case.refresh_from_db()
    assert (case.state, case.leased_by) == (State.OPEN, None)
    ClassificationRule.objects.create(name="moon", text="wrong house", category=Category.POLICY)
    for _ in Reclassification(filter=Filter()).steps():
        pass
    assert queues.tend(NOW) == 1
    case.refresh_from_db()
    assert case.state == State.RESOLVED


def test_cases_of_mail_that_is_gone_go() -> None:
    send(body("complained", mail="a"))
    fill()
    assert queues.tend(NOW) == 0
    Event.objects.all().delete()
    Delivery.objects.all().delete()
    assert queues.tend(NOW) == 1
    assert not ReviewCase.objects.exists()


# --- The sample ----------------------------------------------------------------------------------


def test_each_bounce_of_the_week_is_as_likely_as_any_other() -> None:
    for n in range(30):
        place = f"loc{n % 3}"
        send(
            bounce(
                "550 no", mail=f"b{n}", recipient=f"b{n}@example.org", at=n * 900, location=place
            )
        )
        send(body("delivered", mail=f"d{n}", recipient=f"d{n}@example.org", location=place))
    hours = LocationHour.objects.filter(location_id=0).order_by("hour")
    first, *_, last = hours.values_list("hour", flat=True)
    everything = sample.draw(first, last + 1, 100)
    bounced = Delivery.objects.filter(outcome=2)
    assert {m.delivery_id for m in everything} == set(bounced.values_list("pk", flat=True))
    some = sample.draw(first, last + 1, 10)
    assert len({m.delivery_id for m in some}) == 10
    assert sample.draw(first, last + 1, 10) == some


def test_a_week_is_sampled_once() -> None:
    send(*(bounce("550 no", recipient=f"{n}@example.org") for n in range(5)))
    fill()
    now = datetime(2026, 9, 28, 1, tzinfo=UTC)  # the Monday after
    assert sample.sample_week(now) == 5
    assert sample.sample_week(now) == 0
    assert len(waiting(Queue.SAMPLE)) == 5


# --- The command ---------------------------------------------------------------------------------


def test_the_command_fills_everything(capsys: pytest.CaptureFixture[str]) -> None:
    send(body("complained", mail="a"))
    call_command("fill_review")
    assert "1 cases are open" in capsys.readouterr().out
    assert not filling.fill()
