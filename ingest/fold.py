"""Events → a delivery's facts → where it stands → what it counts for. Pure and order-free.

``Facts`` is a join-semilattice: every field only ever takes the smallest, the greatest or the
union of what it has seen, so any permutation, repetition or split of the same events gives the
same facts. Everything else is a function of the facts.
"""

from functools import cache
from typing import NamedTuple

import msgspec

from ingest.classify import classify
from ingest.normalize import NormalizedEvent
from ingest.vocabulary import (
    ENGAGEMENT,
    MEASURES,
    BounceClass,
    Category,
    EventKind,
    Flag,
    Outcome,
)

MAX_TAGS = 20

# Whose word on provider or sending domain stands when events differ: a final answer knows best.
_WITNESS = {
    EventKind.BOUNCED: 4,
    EventKind.DELIVERED: 3,
    EventKind.DEFERRED: 2,
    EventKind.ACCEPTED: 1,
}
_DECISIVENESS = {EventKind.BOUNCED: 3, EventKind.SUPPRESSED: 2, EventKind.DEFERRED: 1}

type Witnessed = tuple[int, int, int, str, str]
"""(rank of the source, rank of the kind, time, event key, value): the greatest stands."""


class Attempt(msgspec.Struct, frozen=True, order=True, array_like=True):
    """One try at the receiver's door: what happened there, and through which way."""

    kind: int
    ip: str
    pool: str
    mx: str


class Failure(msgspec.Struct, frozen=True, order=True, array_like=True):
    """A refusal, with its category and class as they were when it came; the greatest decides."""

    rank: int
    time: int
    key: str
    code: int
    category: int
    bounce_class: int
    enhanced: str


# Stored with every delivery: short names keep it at some 200 bytes.
_SHORT = {
    "first": "f",
    "last_bounced": "lb",
    "last_delivered": "ld",
    "delivered_at": "da",
    "delayed_bounce": "db",
    "test": "t",
    "machine": "m",
    "human_opened": "ho",
    "tags": "tg",
    "campaign": "c",
    "provider": "p",
    "sending_domain": "sd",
    "failure": "x",
    "deferral_categories": "dc",
    "attempts": "a",
    "attempt_count": "n",
}


class Facts(msgspec.Struct, omit_defaults=True, rename=_SHORT):
    """What is known of a delivery. Times are microseconds since 1970, UTC."""

    first: dict[int, int] = {}  # earliest time of each kind
    last_bounced: int = 0
    last_delivered: int = 0
    delivered_at: int = 0  # the earliest that an engagement event named; 0 = none
    delayed_bounce: bool = False
    test: bool = False
    machine: bool = False
    human_opened: int = 0  # earliest open that no machine made; 0 = none
    tags: list[str] = []  # sorted
    campaign: tuple[int, str, int, str] = (0, "", 1, "")  # (−rank, campaign, no step?, step)
    provider: Witnessed = (0, 0, 0, "", "")
    sending_domain: Witnessed = (0, 0, 0, "", "")
    failure: Failure | None = None
    deferral_categories: list[int] = []  # sorted
    attempts: list[Attempt] = []  # sorted
    attempt_count: int = 0


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Facts).decode


def dump_facts(facts: Facts) -> str:
    """The facts as the JSON text that a delivery stores: equal facts are equal texts."""
    facts.first = dict(sorted(facts.first.items()))
    return _encode(facts).decode()


def load_facts(text: str) -> Facts:
    """The facts of a stored delivery. Raises ``msgspec.DecodeError`` on anything else."""
    return _decode(text)


def absorb(facts: Facts, event: NormalizedEvent) -> None:
    """Take one event into the facts, in place. In any order, and twice is as good as once."""
    kind, time = event.kind, event.occurred_at
    facts.first[kind] = min(facts.first.get(kind, time), time)
    facts.test |= event.test
    if event.delivered_at:
        facts.delivered_at = _earliest(facts.delivered_at, event.delivered_at)
    if event.tags:
        facts.tags = sorted(event.tags.union(facts.tags))
    if event.campaign_rank:
        named = (-event.campaign_rank, event.campaign, int(not event.step), event.step)
        facts.campaign = min(facts.campaign, named)
    _absorb_witnessed(facts, event)
    if kind in _DECISIVENESS:
        _absorb_failure(facts, event)
    elif kind == EventKind.DELIVERED:
        facts.last_delivered = max(facts.last_delivered, time)
    elif kind == EventKind.OPENED or kind == EventKind.CLICKED:
        facts.machine |= event.machine
        if kind == EventKind.OPENED and not event.machine:
            facts.human_opened = _earliest(facts.human_opened, time)
    if kind in _WITNESS and kind != EventKind.ACCEPTED:
        _absorb_attempt(facts, event)


def _earliest(known: int, time: int) -> int:
    """The earlier of two times of which 0 means none."""
    return min(known, time) if known else time


def _absorb_witnessed(facts: Facts, event: NormalizedEvent) -> None:
    weight, key = _WITNESS.get(event.kind, 0), event.key.hex()
    if event.provider:
        seen = (event.provider_rank, weight, event.occurred_at, key, event.provider)
        facts.provider = max(facts.provider, seen)
    if event.sending_domain:
        seen = (event.sending_domain_rank, weight, event.occurred_at, key, event.sending_domain)
        facts.sending_domain = max(facts.sending_domain, seen)


def _absorb_failure(facts: Facts, event: NormalizedEvent) -> None:
    category, bounce_class = classify(event)
    failure = Failure(
        rank=_DECISIVENESS[event.kind],
        time=event.occurred_at,
        key=event.key.hex(),
        code=event.detail.code or 0,
        category=category,
        bounce_class=bounce_class,
        enhanced=event.detail.enhanced,
    )
    facts.failure = failure if facts.failure is None else max(facts.failure, failure)
    if event.kind == EventKind.BOUNCED:
        facts.last_bounced = max(facts.last_bounced, event.occurred_at)
        facts.delayed_bounce |= event.delayed_bounce
    elif event.kind == EventKind.DEFERRED and category not in facts.deferral_categories:
        facts.deferral_categories = sorted([*facts.deferral_categories, int(category)])


def _absorb_attempt(facts: Facts, event: NormalizedEvent) -> None:
    detail = event.detail
    facts.attempt_count = max(facts.attempt_count, detail.attempt or 0)
    attempt = Attempt(int(event.kind), detail.ip, detail.pool, detail.mx)
    if attempt not in facts.attempts and (detail.ip or detail.pool or detail.mx):
        facts.attempts = sorted([*facts.attempts, attempt])


class Standing(NamedTuple):
    """Where a delivery stands: what its columns and its counts are made from."""

    outcome: Outcome
    flags: int  # of ``vocabulary.Flag``
    bounce_class: BounceClass
    category: Category
    code: int | None
    sent_at: int  # µs
    campaign: str
    step: str
    provider: str
    sending_domain: str
    tags: tuple[str, ...]

    @property
    def hour(self) -> int:
        """The hour it counts in: whole hours since 1970, UTC."""
        return self.sent_at // 3_600_000_000


_SENDING = (EventKind.ACCEPTED, EventKind.DEFERRED, EventKind.DELIVERED, EventKind.BOUNCED)


# The rank that the decisive failure of a delivery with this outcome has.
_DECIDED_BY = {
    Outcome.BOUNCED: _DECISIVENESS[EventKind.BOUNCED],
    Outcome.SUPPRESSED: _DECISIVENESS[EventKind.SUPPRESSED],
}


def judge(facts: Facts) -> Standing:
    """Where the facts leave the delivery."""
    outcome = _outcome(facts)
    failure = facts.failure
    decided = failure is not None and failure.rank == _DECIDED_BY.get(outcome)
    return Standing(
        outcome=outcome,
        flags=_flags(facts, outcome),
        bounce_class=BounceClass(failure.bounce_class) if failure and decided else BounceClass.NONE,
        category=Category(failure.category) if failure and decided else Category.NONE,
        code=(failure.code or None) if failure else None,
        sent_at=_sent_at(facts),
        campaign=facts.campaign[1],
        step=facts.campaign[3],
        provider=facts.provider[4],
        sending_domain=facts.sending_domain[4],
        tags=tuple(facts.tags[:MAX_TAGS]),
    )


def _outcome(facts: Facts) -> Outcome:
    """The first that holds, whatever arrived first."""
    seen = facts.first
    if facts.test:
        return Outcome.TEST
    if EventKind.BOUNCED in seen:
        return Outcome.BOUNCED
    proved = not ENGAGEMENT.isdisjoint(seen)
    if EventKind.DELIVERED in seen:
        return Outcome.DELIVERED
    if proved and (EventKind.ACCEPTED in seen or EventKind.DEFERRED in seen):
        return Outcome.DELIVERED  # inferred: its own event is missing
    for kind, outcome in _UNFINISHED:
        if kind in seen:
            return outcome
    return Outcome.ORPHAN if proved else Outcome.UNKNOWN


_UNFINISHED = (
    (EventKind.SUPPRESSED, Outcome.SUPPRESSED),
    (EventKind.REJECTED, Outcome.REJECTED),
    (EventKind.DEFERRED, Outcome.DEFERRED),
    (EventKind.ACCEPTED, Outcome.ACCEPTED),
)

# Plain integers: the enum's own operators would cost more than all the rest of the fold.
_LATE, _RECOVERED, _REACHED = int(Flag.LATE), int(Flag.RECOVERED), int(Flag.REACHED)
_INFERRED, _DEFERRED = int(Flag.INFERRED), int(Flag.DEFERRED)
_MACHINE, _OPENED_HUMAN = int(Flag.MACHINE), int(Flag.OPENED_HUMAN)
_ENGAGEMENT_FLAGS = (
    (EventKind.COMPLAINED, int(Flag.COMPLAINED)),
    (EventKind.UNSUBSCRIBED, int(Flag.UNSUBSCRIBED)),
    (EventKind.OPENED, int(Flag.OPENED)),
    (EventKind.CLICKED, int(Flag.CLICKED)),
)


def _flags(facts: Facts, outcome: Outcome) -> int:
    seen, flags = facts.first, 0
    if outcome is Outcome.BOUNCED:
        flags = _bounce_flags(facts)
    elif outcome is Outcome.DELIVERED:
        flags = _REACHED if EventKind.DELIVERED in seen else _REACHED | _INFERRED
    if EventKind.DEFERRED in seen and outcome in SENT:
        flags |= _DEFERRED
    if flags & _REACHED:
        flags |= _engagement_flags(facts)
    return flags


def _bounce_flags(facts: Facts) -> int:
    """Late or recovered, never both: ``reached`` counts each such delivery once."""
    seen = facts.first
    if facts.last_delivered > facts.last_bounced:
        return _RECOVERED | _REACHED
    if EventKind.DELIVERED in seen or EventKind.COMPLAINED in seen or facts.delayed_bounce:
        return _LATE | _REACHED
    return 0


def _engagement_flags(facts: Facts) -> int:
    flags = 0
    for kind, flag in _ENGAGEMENT_FLAGS:
        if kind in facts.first:
            flags |= flag
    if facts.machine:
        flags |= _MACHINE
    if facts.human_opened:
        flags |= _OPENED_HUMAN
    return flags


SENT = frozenset({Outcome.DELIVERED, Outcome.BOUNCED, Outcome.DEFERRED, Outcome.ACCEPTED})


def _sent_at(facts: Facts) -> int:
    """The earliest sign of its sending; of mail that shows none, its earliest event."""
    sending = [facts.first[kind] for kind in _SENDING if kind in facts.first]
    if facts.delivered_at:
        sending.append(facts.delivered_at)
    return min(sending) if sending else min(facts.first.values())


_CLASS_MEASURES = {BounceClass.HARD: "hard", BounceClass.SOFT: "soft", BounceClass.BLOCK: "block"}
_OUTSIDE = {
    Outcome.SUPPRESSED: "suppressed",
    Outcome.REJECTED: "rejected",
    Outcome.ORPHAN: "orphan",
    Outcome.UNKNOWN: "unknown",
    Outcome.TEST: "test",
}
_FLAG_MEASURES = {
    Flag.DEFERRED: "deferred",
    Flag.COMPLAINED: "complained",
    Flag.UNSUBSCRIBED: "unsubscribed",
    Flag.OPENED: "opened",
    Flag.OPENED_HUMAN: "opened_human",
    Flag.CLICKED: "clicked",
    Flag.LATE: "late_bounced",
    Flag.RECOVERED: "recovered",
    Flag.INFERRED: "inferred",
}


@cache
def counted_measures(outcome: int, flags: int, bounce_class: int) -> tuple[int, ...]:
    """What a delivery adds 1 to in each counter that it belongs to: positions in ``MEASURES``.

    A function of three stored columns, so that counting the deliveries again needs nothing else.
    """
    counted = _counted(Outcome(outcome), Flag(flags), BounceClass(bounce_class))
    return tuple(i for i, measure in enumerate(MEASURES) if measure in counted)


@cache
def contribution(outcome: int, flags: int, bounce_class: int) -> tuple[int, ...]:
    """The same as numbers: 0 or 1 a measure, in the order of ``MEASURES``."""
    counted = counted_measures(outcome, flags, bounce_class)
    return tuple(int(i in counted) for i in range(len(MEASURES)))


def _counted(outcome: Outcome, flags: Flag, bounce_class: BounceClass) -> set[str]:
    if outcome in _OUTSIDE:
        return {_OUTSIDE[outcome]}
    counted = {"sent"} | {name for flag, name in _FLAG_MEASURES.items() if flags & flag}
    if outcome == Outcome.DELIVERED:
        counted.add("delivered")
    elif outcome == Outcome.BOUNCED:
        counted.add("bounced")
        if bounce_class in _CLASS_MEASURES:
            counted.add(_CLASS_MEASURES[bounce_class])
    return counted
