"""Reviewing in the admin: what there is to look at, the answers, and who may give them."""

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from dashboard import suppressing
from dashboard.models import AuditEntry, Membership, Suppressed
from dashboard.review import figures, queues
from dashboard.review.case_admin import subject_of
from dashboard.review.models import BulkChange, ResendRequest, ReviewCase
from dashboard.review.proposing import phrase_of
from ingest import counting, retention
from ingest.counted_values import decisions
from ingest.fold import load_facts
from ingest.ids import ids
from ingest.models import Delivery, Location
from ingest.vocabulary import Category
from tests.ingest.test_reclassify import NOW, body, bounce, send

pytestmark = pytest.mark.django_db
CASES, BULK = "/admin/dashboard/reviewcase/", "/admin/dashboard/bulkchange/"
MOON = "550 the moon is in the wrong house"
State, Queue = ReviewCase.State, ReviewCase.Queue


@pytest.fixture(autouse=True)
def know_nothing() -> Iterator[None]:
    def forget() -> None:
        ids.clear()
        decisions.clear()
        retention.horizon.clear()

    forget()
    yield
    forget()


@pytest.fixture
def boss(client: Client) -> Client:
    client.force_login(User.objects.create_superuser("boss"))
    return client


@pytest.fixture
def mail() -> None:
    """Two complaints in two locations, and three refusals that no rule knows."""
    send(body("delivered", mail="a"), body("complained", mail="a"))
    send(
        body("delivered", mail="b", location="locB", recipient="bob@example.net"),
        body("complained", mail="b", location="locB", recipient="bob@example.net"),
    )
    send(*(bounce(MOON, mail=f"m{n}", recipient=f"r{n}@example.org") for n in range(3)))
    fill()


def fill() -> None:
    while suppressing.follow_some():
        pass
    while queues.fill_some():
        pass


def operator(client: Client, ref: str = "locA") -> Client:
    user = User.objects.create_user(f"op-{ref}")
    Membership.objects.create(user=user, location=Location.objects.get(ref=ref), role="operator")
    client.force_login(user)
    return client


def shown(client: Client, address: str) -> str:
    response = client.get(address)
    assert response.status_code == 200, address
    return response.content.decode()


def case_of(queue: int, **terms: Any) -> ReviewCase:
    return ReviewCase.objects.get(queue=queue, **terms)


def page(case: ReviewCase) -> str:
    return f"{CASES}{case.pk}/change/"


def answer(client: Client, case: ReviewCase, do: str, **said: Any) -> str:
    """Gives an answer; returns where it led, in words."""
    response = client.post(f"{CASES}{case.pk}/answer/", {"do": do, **said}, follow=True)
    assert response.status_code == 200
    case.refresh_from_db()
    return response.content.decode()


def act(client: Client, delivery: Delivery, do: str, **said: Any) -> str:
    address = f"/admin/ingest/delivery/{delivery.pk}/act/"
    response = client.post(address, {"do": do, **said}, follow=True)
    assert response.status_code == 200
    return response.content.decode()


# --- The list ------------------------------------------------------------------------------------


def test_it_opens_with_how_much_there_is(mail: None, boss: Client) -> None:
    text = shown(boss, CASES)
    assert "3 to look at, about 2 minutes" in text
    assert "at 40 seconds a case: too few were settled yet to know better" in text
    places = [text.index(words) for words in ("bob@example.net", "the moon is in the wrong house")]
    assert places == sorted(places)
    assert "complaints</a> 2" in text
    assert "bob@example.net" in shown(boss, f"{CASES}?location=locB")
    assert "bob@example.net" not in shown(boss, f"{CASES}?queue__exact=4")


def test_the_time_is_that_of_cases_past(mail: None, boss: Client) -> None:
    case, now = case_of(Queue.UNCLASSIFIED), timezone.now()
    ReviewCase.objects.bulk_create(
        ReviewCase(
            queue=Queue.SAMPLE, subject=f"d:{n}", opened_at=now, last_event_at=now,
            state=State.RESOLVED, finding="misclassified" if n < 2 else "list",
            settled_at=now, handled_seconds=300, location_id=None, reason=case.reason,
        )
        for n in range(40)
    )  # fmt: skip
    text = shown(boss, CASES)
    assert "3 to look at, about 15 minutes" in text
    assert "Of 40 refusals drawn at random, 2 were classified wrongly: 5.0 %" in text
    assert "(surely between 0.6 and 16.9 %)" in text


def test_an_exact_interval_is_that_of_the_tables() -> None:
    assert figures.exact_interval(0, 10) == (0.0, pytest.approx(0.3085, abs=1e-4))
    assert figures.exact_interval(5, 10) == pytest.approx((0.1871, 0.8129), abs=1e-4)
    assert figures.exact_interval(10, 10)[1] == 1.0


def test_a_list_of_cases_costs_the_same_however_long(mail: None, boss: Client) -> None:
    def count() -> int:
        with CaptureQueriesContext(connection) as queries:
            shown(boss, CASES)
        return len(queries)

    few = count()
    for n in range(9):
        send(body("complained", mail=f"c{n}", recipient=f"c{n}@example.org", location=f"loc{n}"))
    fill()
    assert count() == few


def test_settled_cases_are_found_by_their_state(mail: None, boss: Client) -> None:
    case = case_of(Queue.COMPLAINTS, location__ref="locB")
    answer(boss, case, "resolve", finding="list")
    assert "bob@example.net" not in shown(boss, CASES)
    assert "bob@example.net" in shown(boss, f"{CASES}?state=resolved")
    assert "bob@example.net" in shown(boss, f"{CASES}?state=all&finding__exact=list")
    found = shown(boss, "/admin/ingest/delivery/?review=resolved")
    assert "bob@example.net" in found
    assert "jane@example.org" not in found


def test_chosen_cases_are_settled_together(mail: None, boss: Client) -> None:
    chosen = list(ReviewCase.objects.filter(queue=Queue.COMPLAINTS).values_list("pk", flat=True))
    boss.post(CASES, {"action": "ignore_chosen", "_selected_action": chosen})
    assert ReviewCase.objects.filter(state=State.IGNORED).count() == 2
    assert AuditEntry.objects.filter(action="ignore case", actor="boss").count() == 2


# --- One case ------------------------------------------------------------------------------------


def test_resolve_and_next_goes_through_a_queue(mail: None, boss: Client) -> None:
    first = boss.post(f"{CASES}start/", {"queue": "1"}, follow=True)
    taken = ReviewCase.objects.get(state=State.IN_REVIEW)
    assert f"{page(taken)}?queue=1" in [address for address, _ in first.redirect_chain]
    assert "until" in first.content.decode()
    text = answer(boss, taken, "resolve_next", finding="list", note="Bought list", queue="1")
    assert taken.state == State.RESOLVED
    assert taken.handled_seconds is not None
    second = ReviewCase.objects.get(state=State.IN_REVIEW)
    assert subject_of(second) in text
    text = answer(boss, second, "ignore_next", queue="1")
    assert "nothing left to look at" in text
    text = shown(boss, page(taken))
    assert "Bought list" in text
    assert "resolved: the client&#x27;s list, boss" in text


def test_a_finding_must_be_said_and_answers_can_be_taken_back(mail: None, boss: Client) -> None:
    case = case_of(Queue.UNCLASSIFIED)
    assert "Say what you found." in answer(boss, case, "resolve_next")
    assert case.state == State.OPEN
    answer(boss, case, "note", note="<script>alert(1)</script>")
    text = shown(boss, page(case))
    assert "<script>alert(1)" not in text
    assert "&lt;script&gt;alert(1)" in text
    answer(boss, case, "resolve", finding="provider")
    answer(boss, case, "reopen")
    assert (case.state, case.finding) == (State.OPEN, "")
    assert "No such answer." in answer(boss, case, "drop")


def test_what_somebody_else_looks_at_is_left_to_them(mail: None, boss: Client) -> None:
    case = case_of(Queue.UNCLASSIFIED)
    answer(boss, case, "take")
    boss.force_login(User.objects.create_superuser("joe"))
    assert "Somebody else looks at it until" in answer(boss, case, "resolve", finding="dns")
    assert case.state == State.IN_REVIEW
    assert MOON[4:] not in shown(boss, CASES)
    ReviewCase.objects.update(leased_until=timezone.now() - timedelta(seconds=1))
    answer(boss, case, "resolve", finding="dns")
    assert case.state == State.RESOLVED


def test_a_case_tells_all_there_is(mail: None, boss: Client) -> None:
    text = shown(boss, page(case_of(Queue.COMPLAINTS, location__ref="locB")))
    for words in (
        "said that it was spam",
        "bob@example.net",
        "Timeline",
        "Raw payload",
        "HighLevel does not read this list",
    ):
        assert words in text
    text = shown(boss, page(case_of(Queue.UNCLASSIFIED)))
    for words in ("No rule knows this refusal", MOON, "Class all alike", "Propose a rule"):
        assert words in text
    address = re.findall(r'href="(/admin/ingest/classificationrule/add/\?[^"]*)"', text)[0]
    form = shown(boss, address.replace("&amp;", "&"))
    assert 'value="the moon is in the wrong house"' in form
    assert 'value="550"' in form


@pytest.mark.parametrize(
    ("fingerprint", "phrase"),
    [
        ("550 5.1.1 user ‹address› unknown in our table", "unknown in our table"),
        ("550 5.7.1 [‹ip›] listed at foo.example, see ‹link›", "listed at foo.example, see"),
        ("550 ‹n› ‹id›", ""),
    ],
)
def test_a_rule_is_proposed_from_what_does_not_vary(fingerprint: str, phrase: str) -> None:
    assert phrase_of(fingerprint) == phrase


# --- What is done with a delivery ----------------------------------------------------------------


def test_a_category_is_given_by_hand(mail: None, boss: Client) -> None:
    delivery = Delivery.objects.get(message_id="m1")
    assert "The category is policy now" in act(boss, delivery, "category", category="policy")
    delivery.refresh_from_db()
    assert load_facts(delivery.facts).assigned == Category.POLICY
    assert "too old to be changed" in act(boss, delivery, "category", category="policy")
    assert "no such category" in act(boss, delivery, "category", category="nonsense")
    assert "holds again" in act(boss, delivery, "category", category="")
    delivered = Delivery.objects.get(message_id="a")
    assert "Only bounced mail" in act(boss, delivered, "category", category="policy")
    assert "no such action" in act(boss, delivered, "erase")
    noted = AuditEntry.objects.filter(action="assign category").order_by("pk")
    assert [entry.detail["category"] for entry in noted] == ["policy", ""]
    assert list(map(str, counting.differences(now=NOW))) == []


def test_an_address_goes_on_our_list_and_off(mail: None, boss: Client) -> None:
    delivery = Delivery.objects.get(message_id="m1")
    text = act(boss, delivery, "suppress", note="They asked on the phone")
    assert "HighLevel does not read this list" in text
    entry = Suppressed.objects.get(recipient="r1@example.org")
    assert (entry.state, entry.reason) == ("on", "They asked on the phone")
    assert "on our suppression list already" in act(boss, delivery, "suppress")
    assert "off our suppression list" in act(boss, delivery, "release")
    assert "is not on our suppression list" in act(boss, delivery, "release")
    log = AuditEntry.objects.filter(action__in=("suppress", "release"), actor="boss")
    assert log.count() == 2


def test_a_resend_is_requested_once_and_only_where_it_does_no_harm(boss: Client) -> None:
    send(bounce("451 4.3.0 server error, try later", mail="s", code=451))
    send(bounce("550 5.1.1 no such user", mail="h", recipient="h@example.org"))
    soft, hard = (Delivery.objects.get(message_id=name) for name in "sh")
    Delivery.objects.filter(pk=soft.pk).update(bounce_class=2)
    assert "The re-send is requested" in act(boss, soft, "resend")
    assert "requested already" in act(boss, soft, "resend")
    assert "A re-send was requested by boss" in shown(
        boss, f"/admin/ingest/delivery/{soft.pk}/change/"
    )
    assert "Only soft failures" in act(boss, hard, "resend")
    assert ResendRequest.objects.count() == 1
    assert "jane@example.org" in shown(boss, "/admin/dashboard/resendrequest/")


def test_mail_is_put_in_by_hand(mail: None, boss: Client) -> None:
    delivery = Delivery.objects.get(message_id="m1")
    act(boss, delivery, "review", note="Odd")
    case = case_of(Queue.BY_HAND)
    assert case.delivery == delivery
    answer(boss, case, "resolve", finding="false_alarm")
    act(boss, delivery, "review")
    case.refresh_from_db()
    assert case.state == State.OPEN


# --- In bulk -------------------------------------------------------------------------------------


def test_one_answer_classes_all_and_is_taken_back(mail: None, boss: Client) -> None:
    case = case_of(Queue.UNCLASSIFIED)
    begin = f"{BULK}begin/{case.reason_id}/"
    assert "re-classes 3 deliveries in 1 location" in shown(boss, begin)
    assert not BulkChange.objects.exists()
    text = boss.post(begin, {"category": "policy"}, follow=True).content.decode()
    assert "Classed anew: 3 deliveries in 1 location" in text
    assert "Take it back" in text
    bounced = Delivery.objects.filter(outcome=2)
    assert set(bounced.values_list("category", flat=True)) == {Category.POLICY}
    case.refresh_from_db()
    assert (case.state, case.finding) == (State.RESOLVED, "misclassified")
    change = BulkChange.objects.get()
    text = boss.post(f"{BULK}{change.pk}/undo/", follow=True).content.decode()
    assert "It is taken back." in text
    assert "Take it back" not in text
    assert set(bounced.values_list("category", flat=True)) == {Category.UNCLASSIFIED}
    assert list(map(str, counting.differences(now=NOW))) == []
    text = boss.post(f"{BULK}{change.pk}/undo/", follow=True).content.decode()
    assert "cannot be taken back" in text


def test_too_many_are_said_to_need_a_rule(
    mail: None, boss: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dashboard.review.bulk.MOST", 2)
    begin = f"{BULK}begin/{case_of(Queue.UNCLASSIFIED).reason_id}/"
    for response in (boss.get(begin), boss.post(begin, {"category": "policy"})):
        assert "make a rule instead" in response.content.decode()
    assert not BulkChange.objects.exists()


# --- Who -----------------------------------------------------------------------------------------


def test_operators_see_the_cases_of_their_locations(mail: None, client: Client) -> None:
    op = operator(client)
    text = shown(op, CASES)
    assert "1 to look at" in text
    for words in ("bob@example.net", "wrong house", "locB"):
        assert words not in text
    other = case_of(Queue.COMPLAINTS, location__ref="locB")
    for case in (other, case_of(Queue.UNCLASSIFIED)):
        missing, never = (op.get(f"{CASES}{pk}/change/") for pk in (case.pk, case.pk + 1000))
        assert (missing.status_code, missing["Location"]) == (never.status_code, never["Location"])
        assert op.post(f"{CASES}{case.pk}/answer/", {"do": "take"}).status_code == 404
    mine = case_of(Queue.COMPLAINTS, location__ref="locA")
    answer(op, mine, "resolve", finding="list")
    assert mine.state == State.RESOLVED
    others = Delivery.objects.get(message_id="b")
    address = f"/admin/ingest/delivery/{others.pk}/act/"
    assert op.post(address, {"do": "suppress"}).status_code == 404
    assert not Suppressed.objects.filter(cause="hand").exists()


def test_operators_class_their_own_mail_only(mail: None, client: Client) -> None:
    send(bounce(MOON, mail="z", recipient="z@example.org", location="locB"))
    reason = case_of(Queue.UNCLASSIFIED).reason_id or 0
    outsider = operator(client, "locA")
    text = shown(outsider, f"{BULK}begin/{reason}/")
    assert "re-classes 3 deliveries in 1 location" in text
    assert "classificationrule" not in text
    outsider.post(f"{BULK}begin/{reason}/", {"category": "policy"})
    kept = Delivery.objects.get(message_id="z")
    assert kept.category == Category.UNCLASSIFIED
    assert case_of(Queue.UNCLASSIFIED).state == State.OPEN
    change = BulkChange.objects.get()
    send(body("delivered", location="locC", mail="c"))
    stranger = operator(Client(), "locC")
    assert stranger.get(f"{BULK}begin/{reason}/").status_code == 404
    assert stranger.get(f"{BULK}begin/{reason + 99}/").status_code == 404
    assert stranger.post(f"{BULK}{change.pk}/undo/").status_code == 404
    assert "No such" not in shown(outsider, f"{BULK}{change.pk}/change/")


def test_staff_see_all_cases_and_propose_rules_where_they_may(mail: None, client: Client) -> None:
    user = User.objects.create_user("helper", is_staff=True)
    client.force_login(user)
    case = case_of(Queue.UNCLASSIFIED)
    assert "Propose a rule" not in shown(client, page(case))
    user.user_permissions.add(Permission.objects.get(codename="add_classificationrule"))
    assert "Propose a rule" in shown(client, page(case))


def test_nothing_is_changed_by_looking(mail: None, boss: Client) -> None:
    case = case_of(Queue.UNCLASSIFIED)
    for address in ("start/", f"{case.pk}/answer/"):
        assert boss.get(CASES + address).status_code == 405
    assert boss.post(page(case), {"count": 7}).status_code == 403
    assert boss.post(f"{CASES}add/", {}).status_code == 403
    assert boss.post(f"{CASES}{case.pk}/delete/", {"post": "yes"}).status_code == 403
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(User.objects.get(username="boss"))
    for address in (f"{CASES}start/", f"{CASES}{case.pk}/answer/"):
        assert strict.post(address, {"do": "take"}).status_code == 403
