"""One delivery explained: why it was refused, what that means, and what its attempts went through.

The category and class are those that were stored when the failure came (or that a person gave);
the words around them are today's rules'.
"""

from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from dashboard.queries import UNNAMED, DeliveryRow, names_of
from ingest import details, operator_rules
from ingest.classify import Rule, Rules, classify_failure
from ingest.fold import IN_FLIGHT, Attempt, Facts, load_facts
from ingest.models import Delivery, Event
from ingest.normalize import Detail
from ingest.vocabulary import FAILURES, BounceClass, Category, EventKind

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Explanation(NamedTuple):
    """Why a mail was refused, in words for people; each "" where nothing is known."""

    rule: str  # that says so today; "" where rules would say otherwise now, or a person said so
    category: Category
    bounce_class: BounceClass
    means: str
    do: str
    highlevel: str  # HighLevel's own name for it
    scope: str  # what is refused
    fix_by: str  # who can do something about it

    def as_json(self) -> dict[str, str | None]:
        """Ready for JSON: what is unknown is null."""
        return {
            "rule": self.rule or None,
            "category": self.category.word,
            "class": self.bounce_class.word if self.bounce_class else None,
            "means": self.means or None,
            "do": self.do or None,
            "highlevel": self.highlevel or None,
            "scope": self.scope or None,
            "fix_by": self.fix_by or None,
        }


class Explained(NamedTuple):
    """What is known of a delivery beside its row and its events."""

    failure: Explanation | None  # the one that it stands by
    failures: dict[int, Explanation]  # by the cursors of its failed events
    attempts: list[Attempt]  # in the order of their times; of alike ones the last

    def attempts_as_json(self) -> list[dict[str, Any]]:
        """Ready for JSON."""
        return [
            {
                "kind": EventKind(attempt.kind).word,
                "ip": attempt.ip or None,
                "pool": attempt.pool or None,
                "mx": attempt.mx or None,
                "at": _iso(attempt.time) if attempt.time else None,
            }
            for attempt in self.attempts
        ]


def explain(delivery: DeliveryRow) -> Explained:
    """Explain a delivery, in three queries; of a rule that an operator changed, a fourth."""
    rules = operator_rules.current()
    facts = load_facts(Delivery.objects.values_list("facts", flat=True).get(pk=delivery.id))
    by_key = _failures(delivery, rules)
    return Explained(
        _decisive(delivery, facts, {key: found for key, (_, found) in by_key.items()}, rules),
        dict(by_key.values()),
        sorted(facts.attempts, key=lambda attempt: attempt.time),
    )


def _failures(delivery: DeliveryRow, rules: Rules) -> dict[str, tuple[int, Explanation]]:
    """(cursor, explanation) of each failed event, by their keys."""
    failed = Event.objects.filter(delivery_id=delivery.id, kind__in=FAILURES)
    columns = ("id", "key", "kind", "category", "bounce_class", "provider_id", *details.COLUMNS)
    rows = list(failed.values_list(*columns))
    providers = names_of({row[5] for row in rows})
    return {
        bytes(key).hex(): (cursor, _explain(words, Category(category), class_, rules))
        for cursor, key, kind, category, class_, provider, *stored in rows
        for words in [
            _Words(
                EventKind(kind),
                details.load(*stored),
                providers.get(provider, UNNAMED).text or delivery.provider,
            )
        ]
    }


class _Words(NamedTuple):
    """What rules look at."""

    kind: EventKind
    detail: Detail
    provider: str


def _explain(words: _Words, category: Category, bounce_class: int, rules: Rules) -> Explanation:
    found = classify_failure(*words, rules)
    if found.category != category:
        return _default(category, bounce_class, rules)
    rule = rules.explain(found.rule)
    return _in_words(rule, found.rule, category, bounce_class)


def _decisive(
    delivery: DeliveryRow, facts: Facts, failures: dict[str, Explanation], rules: Rules
) -> Explanation | None:
    """The failure that a delivery stands by; of mail in flight, the last temporary one."""
    failure = facts.failure
    if failure is None or not (delivery.category or delivery.outcome in IN_FLIGHT):
        return None
    category = delivery.category or Category(failure.category)
    known = failures.get(failure.key)
    if known and known.category == category:
        return known
    # Its event is no longer kept, or a person has given it another category.
    return _default(category, delivery.bounce_class or failure.bounce_class, rules)


def _default(category: Category, bounce_class: int, rules: Rules) -> Explanation:
    if not category:
        return Explanation("", category, BounceClass(bounce_class), "", "", "", "", "")
    return _in_words(rules.default(category), "", category, bounce_class)


def _in_words(rule: Rule, name: str, category: Category, bounce_class: int) -> Explanation:
    return Explanation(
        name,
        category,
        BounceClass(bounce_class),
        rule.means,
        rule.do,
        rule.highlevel,
        rule.scope,
        rule.fix_by,
    )


def _iso(micros: int) -> str:
    return (_EPOCH + timedelta(microseconds=micros)).isoformat()
