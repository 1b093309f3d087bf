"""Operators' own rules of classification, in front of the built-in ones.

They are rows that people edit, so any of them may be wrong after all: one that cannot be used is
left out, said in the log and shown in the admin, and costs no webhook.
"""

import logging
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.db.models import Count, Max

from ingest import details
from ingest.classify import BUILT_IN, Rule, RuleError, Rules
from ingest.fingerprint import plain
from ingest.models import ClassificationRule, Event, Value
from ingest.normalize import Detail
from ingest.vocabulary import FAILURES, BounceClass, Category, EventKind

logger = logging.getLogger(__name__)

REFRESH = 3.0  # seconds between looks at the table
PREFIX = "own-"  # of these rules' ids: no built-in one begins so
SHORTEST = 3  # characters of a phrase: with fewer it would be found everywhere

LOOKED_AT = 2_000  # failures of a preview
LOOKED_BACK = 200_000  # events among which it looks for them
SHOWN = 5  # of their replies


# --- From a row to a rule -----------------------------------------------------------------------


def read_rule(row: ClassificationRule) -> Rule:
    """A row as a rule. Raises ``RuleError`` with a sentence for people."""
    try:
        rule = BUILT_IN.read(_entry(row))
        BUILT_IN.with_first([rule])
    except RuleError as error:
        raise RuleError(_for_people(str(error), row)) from None
    return rule


def _entry(row: ClassificationRule) -> dict[str, Any]:
    """The row in the words of ``rules.toml``."""
    text = row.text.strip()
    entry: dict[str, Any] = {
        "id": PREFIX + row.name,
        "category": Category(row.category).word,
        "bounce_class": BounceClass(row.bounce_class).word if row.bounce_class else "",
        "scope": row.scope,
        "fix_by": row.fix_by,
        "means": row.note,
        "provider": [name for part in row.provider.split(",") if (name := part.strip())],
        "code": [row.code] if row.code else [],
        "enhanced": [row.enhanced] if row.enhanced else [],
    }
    if len(text) > 1 and text.startswith("/") and text.endswith("/"):
        entry["text"] = text[1:-1]
    elif text:
        if len(plain(text)) < SHORTEST:
            raise RuleError(f"the phrase has fewer than {SHORTEST} letters.")
        entry["phrase"] = text
    return entry


def _for_people(sentence: str, row: ClassificationRule) -> str:
    """The sentence without the name that its reader has before him, and begun as one."""
    for name in (f"Rule {PREFIX + row.name!r}: ", "Rule '': "):
        sentence = sentence.removeprefix(name)
    return sentence[:1].upper() + sentence[1:]


# --- The rules at this moment -------------------------------------------------------------------


type _Mark = tuple[int, datetime | None]
"""How many rows there are, and when the last was changed: what tells that they are others."""


class _Current:
    """Built-in rules with the enabled rows in front; the table is looked at now and then."""

    def __init__(self) -> None:
        self._rules = BUILT_IN
        self._mark: _Mark = (0, None)
        self._looked_at: float | None = None

    def __call__(self) -> Rules:
        """The rules to classify with. Raises the database's errors, never a rule's."""
        now = time.monotonic()
        if self._looked_at is None or now - self._looked_at >= REFRESH:
            mark = _mark()
            if mark != self._mark:
                self._rules = rules_of(ClassificationRule.objects.filter(enabled=True))
                self._mark = mark
            self._looked_at = now
        return self._rules

    def clear(self) -> None:
        """Look again at the next call: a rule was changed, or another database is there."""
        self._rules, self._mark, self._looked_at = BUILT_IN, (0, None), None


current = _Current()


def _mark() -> _Mark:
    found = ClassificationRule.objects.aggregate(n=Count("id"), last=Max("changed_at"))
    return found["n"], found["last"]


def rules_of(rows: Iterable[ClassificationRule]) -> Rules:
    """Built-in rules with these in front, in their order; those that cannot be used left out."""
    rules = []
    for row in rows:
        try:
            rules.append(read_rule(row))
        except RuleError as error:
            logger.warning("the rule %s is left out: %s", row.name, error)
    return BUILT_IN.with_first(rules) if rules else BUILT_IN


# --- What a rule would do -----------------------------------------------------------------------


@dataclass(slots=True)
class Preview:
    """What a rule would catch of the newest failures, and what these are classified as now."""

    looked_at: int = 0
    caught: int = 0
    others: Counter[Category] = field(default_factory=Counter)  # by category now
    replies: list[str] = field(default_factory=list)  # some, each once

    @property
    def moves(self) -> list[tuple[str, int]]:
        """Categories and how many failures would leave them, most first."""
        return [(category.word.replace("_", " "), n) for category, n in self.others.most_common()]


def preview(row: ClassificationRule) -> Preview:
    """Try a row, saved or not, in its place among the enabled ones. Raises ``RuleError``."""
    mine = read_rule(row)
    rows = list(ClassificationRule.objects.filter(enabled=True).exclude(pk=row.pk))
    rows = sorted([*rows, row], key=lambda each: (each.position, each.name))
    rules = rules_of(rows)
    found = Preview()
    for kind, category, detail, provider in _newest_failures():
        found.looked_at += 1
        if rules.decide(kind, detail, provider).id != mine.id:
            continue
        found.caught += 1
        found.others[category] += 1
        reply = detail.message or detail.description
        if reply and reply not in found.replies and len(found.replies) < SHOWN:
            found.replies.append(reply)
    return found


def _newest_failures() -> list[tuple[EventKind, Category, Detail, str]]:
    last = Event.objects.order_by("-id").values_list("id", flat=True).first() or 0
    rows = list(
        Event.objects.filter(id__gt=last - LOOKED_BACK, kind__in=FAILURES)
        .order_by("-id")
        .values_list("kind", "category", "provider_id", *details.COLUMNS)[:LOOKED_AT]
    )
    names = Value.objects.in_bulk({provider for _, _, provider, *_ in rows})
    return [
        (
            EventKind(kind),
            Category(category),
            details.load(*detail),
            names[provider].text if provider in names else "",
        )
        for kind, category, provider, *detail in rows
    ]
