"""What the rules of today say of failures that are stored, beside what was said when they came.

Reads, compares and adds up; ``ingest.reclassify`` writes.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

import msgspec
from django.db.models import QuerySet

from ingest import details, fold
from ingest.classify import Rules
from ingest.models import Event, Value
from ingest.normalize import Detail
from ingest.statements import aware_utc
from ingest.vocabulary import FAILURES, MEASURES, BounceClass, Category, EventKind

HOUR = 3_600_000_000  # µs


class Refusal(NamedTuple):
    """A category with its class."""

    category: int
    bounce_class: int

    def __str__(self) -> str:
        word = Category(self.category).word.replace("_", " ")
        if self.bounce_class:
            word += f" ({BounceClass(self.bounce_class).word})"
        return word


class Judged(NamedTuple):
    """What a delivery counts as."""

    outcome: int
    flags: int
    refusal: Refusal

    @property
    def measures(self) -> list[str]:
        """The counts that it adds 1 to."""
        counted = fold.counted_measures(self.outcome, self.flags, self.refusal.bounce_class)
        return [MEASURES[i] for i in counted]


class Failure(NamedTuple):
    """A stored failure."""

    id: int
    location: int
    delivery: int | None
    kind: EventKind
    time: int  # µs, that it happened at
    key: str  # hexadecimal, as facts name it
    refusal: Refusal
    reason: str  # digest
    provider: int
    detail: Detail
    recipient: str


@dataclass(slots=True)
class Found:
    """A delivery's failures (or one that has none), and what is to become of them."""

    pk: int  # of the delivery, or of the failure
    location: int
    before: Judged | None = None  # what the delivery counts as
    after: Judged | None = None
    changed: list[tuple[Failure, fold.Why]] = field(default_factory=list)
    facts: fold.Facts | None = None  # the new ones, where they are others

    @property
    def any(self) -> bool:
        """Whether anything changes."""
        return bool(self.changed) or self.facts is not None


# --- What is stored -----------------------------------------------------------------------------


_COLUMNS = (
    "id", "location_id", "delivery_id", "kind", "occurred_at", "key", "category", "bounce_class",
    "reason__digest", "provider_id", "delivery__recipient", *details.COLUMNS,
)  # fmt: skip


def failures_of(events: QuerySet[Event], since: int) -> list[Failure]:
    """The failures among them that happened since an hour, in the order of their ids."""
    rows = events.filter(kind__in=FAILURES, occurred_at__gte=aware_utc(since * HOUR))
    return [_failure(*row) for row in rows.order_by("id").values_list(*_COLUMNS)]


def _failure(
    pk: int, location: int, delivery: int | None, kind: int, occurred_at: datetime, key: bytes,
    category: int, bounce_class: int, digest: bytes | None, provider: int,
    recipient: str | None, *stored: Any,
) -> Failure:  # fmt: skip
    detail = details.load(*stored)
    return Failure(
        id=pk,
        location=location,
        delivery=delivery,
        kind=EventKind(kind),
        time=round(occurred_at.timestamp() * 1_000_000),
        key=bytes(key).hex(),
        refusal=Refusal(category, bounce_class),
        reason=bytes(digest).hex() if digest else "",
        provider=provider,
        detail=detail,
        recipient=recipient or detail.recipient,
    )


class _Providers:
    """Names of providers by their ids, looked up once."""

    def __init__(self) -> None:
        self._names: dict[int, str] = {0: ""}

    def learn(self, failures: Iterable[Failure]) -> None:
        missing = {failure.provider for failure in failures} - self._names.keys()
        if missing:
            self._names.update(Value.objects.filter(id__in=missing).values_list("id", "text"))

    def __getitem__(self, pk: int) -> str:
        return self._names[pk]


# --- What is to become of it --------------------------------------------------------------------


def refold(facts: fold.Facts, whys: Sequence[tuple[Failure, fold.Why]]) -> fold.Facts:
    """A delivery's facts with its failures classified anew. Pure.

    Only how they are classified changes, never which of them decides.
    """
    new = msgspec.structs.replace(facts)
    by_key = {failure.key: why for failure, why in whys}
    new.failure, new.deferral = (_anew(each, by_key) for each in (facts.failure, facts.deferral))
    deferrals = [(f.time, why.category) for f, why in whys if f.kind is EventKind.DEFERRED]
    categories = {category for _, category in deferrals}
    if facts.first.get(EventKind.DEFERRED) not in {at for at, _ in deferrals}:
        categories.update(facts.deferral_categories)  # the first has gone: others may have
    new.deferral_categories = sorted(categories)
    return new


def _anew(failure: fold.Failure | None, whys: dict[str, fold.Why]) -> fold.Failure | None:
    """A failure with its new classification, if there is one: its event may have gone."""
    if failure is None or failure.key not in whys:
        return failure
    why = whys[failure.key]
    return msgspec.structs.replace(
        failure,
        category=why.category,
        bounce_class=why.bounce_class,
        marks=why.marks,
        reason=why.reason,
    )


class Judge:
    """Compares what is stored with what the rules say."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._providers = _Providers()

    def whys(self, failures: Sequence[Failure]) -> list[tuple[Failure, fold.Why]]:
        """What each is by the rules."""
        self._providers.learn(failures)
        return [
            (f, fold.why(f.kind, f.detail, self._providers[f.provider], f.recipient, self._rules))
            for f in failures
        ]

    def lone(self, failures: Sequence[Failure]) -> list[Found]:
        """Of failures that belong to no delivery."""
        return [
            Found(f.id, f.location, changed=_others([(f, why)])) for f, why in self.whys(failures)
        ]

    def delivery(self, found: Found, facts: fold.Facts, failures: Sequence[Failure]) -> Found:
        """Of a delivery's failures; ``found`` says what it counts as so far."""
        whys = self.whys(failures)
        found.changed = _others(whys)
        new = refold(facts, whys)
        if new != facts:
            standing = fold.judge(new)
            refusal = Refusal(standing.category, standing.bounce_class)
            found.facts = new
            found.after = Judged(int(standing.outcome), standing.flags, refusal)
        return found


def _others(whys: Sequence[tuple[Failure, fold.Why]]) -> list[tuple[Failure, fold.Why]]:
    """Those that the rules see otherwise than they are stored."""
    return [
        (failure, why)
        for failure, why in whys
        if (*failure.refusal, failure.reason) != (why.category, why.bounce_class, why.reason)
    ]


# --- What it comes to ---------------------------------------------------------------------------


@dataclass(slots=True)
class Move:
    """How much went from one category to another."""

    events: int = 0
    deliveries: int = 0
    locations: set[int] = field(default_factory=set)


@dataclass(slots=True)
class Report:
    """What a run changed, or would change."""

    looked_at: int = 0  # failures
    events: int = 0
    deliveries: int = 0
    reasons: int = 0  # events that are of another reason now
    moves: dict[tuple[Refusal, Refusal], Move] = field(default_factory=lambda: defaultdict(Move))
    measures: Counter[str] = field(default_factory=Counter)  # how the counts moved

    def add(self, found: Found) -> None:
        """Take one delivery's (or lone event's) changes in."""
        for failure, why in found.changed:
            self.events += 1
            self.reasons += failure.reason != why.reason
            if failure.refusal != (why.category, why.bounce_class):
                move = self.moves[failure.refusal, Refusal(why.category, why.bounce_class)]
                move.events += 1
                move.locations.add(failure.location)
        if found.before is not None and found.after is not None:
            self._add_delivery(found.location, found.before, found.after)

    def _add_delivery(self, location: int, before: Judged, after: Judged) -> None:
        self.deliveries += 1
        for name in after.measures:
            self.measures[name] += 1
        for name in before.measures:
            self.measures[name] -= 1
        if before.refusal != after.refusal:
            move = self.moves[before.refusal, after.refusal]
            move.deliveries += 1
            move.locations.add(location)
