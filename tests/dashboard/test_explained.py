"""Why a delivery was refused, in words, by the rules of today where they agree."""

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from dashboard.access import Rights
from dashboard.explained import Explained, explain
from dashboard.queries import get_delivery
from ingest import operator_rules
from ingest.classify import BUILT_IN, classify_failure
from ingest.fold import Attempt, Facts, Failure, dump_facts
from ingest.models import Delivery
from ingest.normalize import Detail
from ingest.vocabulary import BounceClass, Category, EventKind, Outcome
from tests.dashboard import rows
from tests.dashboard.rows import NOW

pytestmark = pytest.mark.django_db
NO_USER = Detail(message="550 5.1.1 no such user here", code=550, enhanced="5.1.1")
LATER = Detail(message="451 4.7.1 greylisted, try again later", code=451, enhanced="4.7.1")


def refused(
    *details: Detail,
    category: Category = Category.INVALID_RECIPIENT,
    facts: Facts | None = None,
    outcome: Outcome = Outcome.BOUNCED,
) -> Delivery:
    """A delivery with an event for each of these replies, the last of them decisive."""
    last = Failure(3, 0, rows.key(NOW, len(details)).hex(), 550, category, BounceClass.HARD, "")
    found = facts or Facts(failure=last)
    of = rows.delivery(
        1, outcome=outcome, provider="Gmail", facts=dump_facts(found),
        bounce_class=BounceClass.HARD,
        category=category if outcome == Outcome.BOUNCED else Category.NONE,
    )  # fmt: skip
    for detail in details:
        kind = EventKind.BOUNCED if detail.code == 550 else EventKind.DEFERRED
        known = classify_failure(kind, detail, "Gmail")
        rows.event(
            of, kind=kind, detail=detail, provider="Gmail", category=known.category,
            bounce_class=known.bounce_class,
        )  # fmt: skip
    return of


def explained(of: Delivery) -> Explained:
    return explain(get_delivery(of.pk, Rights(everything=True)))


def test_each_failure_is_explained_by_the_rule_that_decided_it() -> None:
    found = explained(refused(LATER, NO_USER))
    later, final = found.failures.values()
    assert (later.category, final.category) == (Category.GREYLISTED, Category.INVALID_RECIPIENT)
    assert found.failure is final
    rule = BUILT_IN.explain(final.rule)
    assert (final.means, final.do, final.scope) == (rule.means, rule.do, rule.scope)
    assert (final.means, final.fix_by) != ("", "")
    assert final.bounce_class == BounceClass.HARD


def test_where_rules_would_say_otherwise_now_the_category_speaks() -> None:
    of = refused(NO_USER)
    of.events.update(category=Category.SPAM_CONTENT, bounce_class=BounceClass.BLOCK)
    (found,) = explained(of).failures.values()
    default = BUILT_IN.default(Category.SPAM_CONTENT)
    assert (found.rule, found.category) == ("", Category.SPAM_CONTENT)
    assert (found.means, found.bounce_class) == (default.means, BounceClass.BLOCK)
    assert found.as_json()["rule"] is None


def test_a_category_that_a_person_gave_is_explained_as_itself() -> None:
    of = refused(NO_USER)
    Delivery.objects.update(category=Category.POLICY)
    failure = explained(of).failure
    assert failure
    assert (failure.rule, failure.category) == ("", Category.POLICY)
    assert failure.do == BUILT_IN.default(Category.POLICY).do


def test_a_delivery_outlives_its_events() -> None:
    found = explained(refused())
    assert found.failures == {}
    assert found.failure
    assert found.failure.category == Category.INVALID_RECIPIENT


def test_mail_in_flight_stands_by_its_last_temporary_failure() -> None:
    waiting = Failure(1, 0, rows.key(NOW, 1).hex(), 451, Category.GREYLISTED, BounceClass.SOFT, "")
    of = refused(LATER, facts=Facts(failure=waiting), outcome=Outcome.DEFERRED)
    failure = explained(of).failure
    assert failure
    assert failure.category == Category.GREYLISTED
    Delivery.objects.update(outcome=Outcome.DELIVERED)
    assert explained(of).failure is None


def test_attempts_come_in_the_order_of_their_times() -> None:
    first = Attempt(EventKind.DEFERRED, "192.0.2.9", "p", "mx.example", 1_000_000)
    last = Attempt(EventKind.DELIVERED, "192.0.2.1", "", "", 2_000_000)
    found = explained(refused(facts=Facts(attempts=[last, first])))
    assert found.attempts == [first, last]
    assert found.attempts_as_json()[1] == {
        "kind": "delivered", "ip": "192.0.2.1", "pool": None, "mx": None,
        "at": "1970-01-01T00:00:02+00:00",
    }  # fmt: skip


def test_explaining_costs_the_same_whatever_happened() -> None:
    of = refused(*[LATER] * 9, NO_USER)
    row = get_delivery(of.pk, Rights(everything=True))
    operator_rules.current()
    with CaptureQueriesContext(connection) as queries:
        explain(row)
    assert len(queries) == 3
