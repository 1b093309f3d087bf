"""Events → a delivery's facts → where it stands → what it counts for. Pure and order-free.

``Facts`` is a join-semilattice: every field only ever takes the smallest, the greatest or the
union of what it has seen, so any permutation, repetition or split of the same events gives the
same facts. Everything else is a function of the facts.
"""

from functools import cache
from typing import Any, NamedTuple

import msgspec

from ingest import providers
from ingest.classify import BUILT_IN, Rules, class_of, classify_failure
from ingest.fingerprint import digest
from ingest.normalize import Detail, NormalizedEvent
from ingest.payloads import Packer
from ingest.spoken import unnamed_fingerprint
from ingest.vocabulary import (
    ENGAGEMENT,
    FAILURES,
    MEASURES,
    BounceClass,
    Category,
    Dimension,
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

type Witnessed = tuple[int, int, int, str]
"""(rank of the source, rank of the kind, time, value): the greatest stands."""


# Bits of ``Why.marks``.
MAY_BLOCK, SURELY_BLOCK, GIVEN_UP = 1, 2, 4


class Why(NamedTuple):
    """Why an event's mail was refused, as it was classified when it came."""

    category: int = 0
    bounce_class: int = 0
    marks: int = 0  # of MAY_BLOCK, SURELY_BLOCK (an ESP block to HighLevel), GIVEN_UP
    text: str = ""  # the reply's fingerprint
    reason: str = ""  # … and its digest, 16 hexadecimal digits


_NO_REFUSAL = Why()


def why_of(event: NormalizedEvent, rules: Rules = BUILT_IN) -> Why:
    """The refusal that an event tells of; empty unless it is a failure."""
    return why(event.kind, event.detail, event.provider, event.recipient, rules)


def why(
    kind: EventKind, detail: Detail, provider: str, recipient: str, rules: Rules = BUILT_IN
) -> Why:
    """The same from the parts of it that are stored."""
    if kind not in FAILURES:
        return _NO_REFUSAL
    found = classify_failure(kind, detail, provider, rules)
    marks = (0, MAY_BLOCK, MAY_BLOCK | SURELY_BLOCK)[found.hl] | (GIVEN_UP if found.expired else 0)
    text = unnamed_fingerprint(detail, recipient)
    reason = digest(text)[:8].hex()
    return Why(int(found.category), int(found.bounce_class), marks, text, reason)


class Attempt(msgspec.Struct, frozen=True, order=True, array_like=True):
    """One try at the receiver's door: what happened there, through which way, and when last."""

    kind: int
    ip: str
    pool: str
    mx: str
    time: int = 0  # µs


class Failure(msgspec.Struct, frozen=True, order=True, array_like=True):
    """A refusal, classified as it was when it came; the greatest decides."""

    rank: int
    time: int
    key: str
    code: int
    category: int
    bounce_class: int
    enhanced: str
    marks: int = 0
    reason: str = ""


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
    "assigned": "as",
    "deferral": "y",
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
    provider: Witnessed = (0, 0, 0, "")
    sending_domain: Witnessed = (0, 0, 0, "")
    failure: Failure | None = None
    deferral: Failure | None = None  # the last temporary failure, where another kind decides
    deferral_categories: list[int] = []  # sorted
    attempts: list[Attempt] = []  # sorted
    attempt_count: int = 0
    assigned: int = 0  # the category that a person gave the final failure; outlives all rules


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Facts).decode


_PACKED = Packer("facts_1.dict")
_MARK = b"\x01"  # in front of packed facts; JSON begins with a brace


def facts_json(facts: Facts) -> bytes:
    """The facts as JSON: equal facts are equal texts."""
    facts.first = dict(sorted(facts.first.items()))
    return _encode(facts)


def pack_facts(text: bytes) -> bytes:
    """Facts' JSON as a delivery stores it, a fifth of its size."""
    return _MARK + _PACKED.pack(text)


def dump_facts(facts: Facts) -> bytes:
    """The facts as a delivery stores them: equal facts are equal bytes."""
    return pack_facts(facts_json(facts))


def load_facts(stored: bytes | memoryview) -> Facts:
    """The facts of a stored delivery. Raises ``msgspec.DecodeError`` on JSON of anything else."""
    text = bytes(stored)
    if text[:1] == _MARK:
        text = _PACKED.unpack(text[1:])
    try:
        return _decode(text)
    except msgspec.ValidationError:
        return _decode(_renewed(text))


def _renewed(text: bytes) -> bytes:
    """Facts as version 0.1 stored them: its witnesses named their event too."""
    stored = msgspec.json.decode(text, type=dict[str, Any])
    for name in (_SHORT["provider"], _SHORT["sending_domain"]):
        if name in stored:
            stored[name] = [*stored[name][:3], stored[name][-1]]
    return msgspec.json.encode(stored)


def absorb(facts: Facts, event: NormalizedEvent, why: Why | None = None) -> None:
    """Take one event into the facts, in place. In any order, and twice is as good as once.

    ``why`` is its refusal if that has been found out already.
    """
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
        _absorb_failure(facts, event, why_of(event) if why is None else why)
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
    weight = _WITNESS.get(event.kind, 0)
    if event.provider:
        seen = (event.provider_rank, weight, event.occurred_at, event.provider)
        facts.provider = max(facts.provider, seen)
    if event.sending_domain:
        seen = (event.sending_domain_rank, weight, event.occurred_at, event.sending_domain)
        facts.sending_domain = max(facts.sending_domain, seen)


def _absorb_failure(facts: Facts, event: NormalizedEvent, why: Why) -> None:
    failure = Failure(
        rank=_DECISIVENESS[event.kind],
        time=event.occurred_at,
        key=event.key.hex(),
        code=event.detail.code or 0,
        category=why.category,
        bounce_class=why.bounce_class,
        enhanced=event.detail.enhanced,
        marks=why.marks,
        reason=why.reason,
    )
    _decide(facts, failure)
    if event.kind == EventKind.BOUNCED:
        facts.last_bounced = max(facts.last_bounced, event.occurred_at)
        facts.delayed_bounce |= event.delayed_bounce
    elif event.kind == EventKind.DEFERRED and why.category not in facts.deferral_categories:
        facts.deferral_categories = sorted([*facts.deferral_categories, why.category])


def _decide(facts: Facts, failure: Failure) -> None:
    """The greatest failure decides; below a final one, the last temporary one is kept too."""
    known = [each for each in (facts.failure, facts.deferral, failure) if each is not None]
    facts.failure = max(known)
    temporary = [each for each in known if each.rank == _DECISIVENESS[EventKind.DEFERRED]]
    if temporary and facts.failure.rank > temporary[0].rank:
        facts.deferral = max(temporary)


def _absorb_attempt(facts: Facts, event: NormalizedEvent) -> None:
    detail = event.detail
    facts.attempt_count = max(facts.attempt_count, detail.attempt or 0)
    if not (detail.ip or detail.pool or detail.mx):
        return
    attempt = Attempt(int(event.kind), detail.ip, detail.pool, detail.mx, event.occurred_at)
    others = [known for known in facts.attempts if not _same_way(known, attempt)]
    same = [known for known in facts.attempts if _same_way(known, attempt)]
    facts.attempts = sorted([*others, max([*same, attempt])])


def _same_way(one: Attempt, other: Attempt) -> bool:
    return (one.kind, one.ip, one.pool, one.mx) == (other.kind, other.ip, other.pool, other.mx)


class Standing(NamedTuple):
    """Where a delivery stands: what its columns and its counts are made from."""

    outcome: Outcome
    flags: int  # of ``vocabulary.Flag``
    bounce_class: int
    category: int
    code: int | None
    reason: str  # digest of the decisive refusal's reason; of mail in flight, the last one's
    sent_at: int  # µs
    campaign: str
    step: str
    provider: str
    sending_domain: str
    tags: tuple[str, ...]
    ways: "Ways"
    deferral_categories: tuple[int, ...]

    @property
    def hour(self) -> int:
        """The hour it counts in: whole hours since 1970, UTC."""
        return self.sent_at // 3_600_000_000


class Ways(NamedTuple):
    """What a delivery's attempts went through; texts, "" where no attempt says."""

    ip: str = ""  # of the decisive event, or of the last before it that says
    pool: str = ""
    mx: str = ""
    tried: tuple[tuple[Dimension, str], ...] = ()  # other values that tried too
    deferred: tuple[tuple[Dimension, str], ...] = ()  # where failures were temporary, if elsewhere


_UNKNOWN_WAYS = Ways()
_WAYS = ((Dimension.IP, "ip"), (Dimension.POOL, "pool"), (Dimension.MX, "mx"))


def _ways(attempts: list[Attempt]) -> Ways:
    if not attempts:
        return _UNKNOWN_WAYS
    if len(attempts) == 1:
        return Ways(attempts[0].ip, attempts[0].pool, attempts[0].mx)
    decisive, tried, deferred = [], [], []
    for dimension, name in _WAYS:
        named = [(attempt, way) for attempt in attempts if (way := getattr(attempt, name))]
        final = max(named, key=_weight_of, default=(None, ""))[1]
        decisive.append(final)
        tried += [(dimension, way) for way in sorted({way for _, way in named} - {final})]
        deferring = {way for attempt, way in named if attempt.kind == EventKind.DEFERRED}
        if deferring - {final}:
            deferred += [(dimension, way) for way in sorted(deferring)]
    ip, pool, mx = decisive
    return Ways(ip, pool, mx, tuple(tried), tuple(deferred))


def _weight_of(named: tuple[Attempt, str]) -> tuple[int, int, str]:
    attempt, way = named
    return _WITNESS[EventKind(attempt.kind)], attempt.time, way


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
    category, bounce_class = _final_refusal(facts, outcome) if decided else (0, 0)
    return Standing(
        outcome=outcome,
        flags=_flags(facts, outcome, category),
        bounce_class=bounce_class,
        category=category,
        code=(failure.code or None) if failure else None,
        reason=failure.reason if failure and (decided or outcome in IN_FLIGHT) else "",
        sent_at=_sent_at(facts),
        campaign=facts.campaign[1],
        step=facts.campaign[3],
        provider=facts.provider[3],
        sending_domain=facts.sending_domain[3],
        tags=tuple(facts.tags[:MAX_TAGS]),
        ways=_ways(facts.attempts),
        deferral_categories=tuple(facts.deferral_categories),
    )


def _final_refusal(facts: Facts, outcome: Outcome) -> tuple[int, int]:
    """Category and class of the decisive failure: a person's word stands above the rules'."""
    if facts.assigned and outcome is Outcome.BOUNCED:
        return facts.assigned, int(class_of(Category(facts.assigned)))
    failure = facts.failure
    assert failure is not None  # noqa: S101 - who asks knows
    if facts.deferral is not None and _says_nothing(failure):
        return facts.deferral.category, int(class_of(Category(facts.deferral.category)))
    return failure.category, failure.bounce_class


def _says_nothing(failure: Failure) -> bool:
    """Given up without a word of why: the last temporary failure tells."""
    return bool(failure.marks & GIVEN_UP) and failure.category in _TOLD_BY_NOBODY


_TOLD_BY_NOBODY = (Category.CONNECTION, Category.UNCLASSIFIED)


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
_COMPLAINED, _EXPIRED = int(Flag.COMPLAINED), int(Flag.EXPIRED)
_VISIBLE, _VISIBLE_COMPLAINED = int(Flag.VISIBLE), int(Flag.VISIBLE_COMPLAINED)
_BLOCK_LOW, _BLOCK_HIGH = int(Flag.BLOCK_LOW), int(Flag.BLOCK_HIGH)
# What a category that a person gave means to HighLevel.
_MARKS_OF = {
    Category.REPUTATION_BLOCK: MAY_BLOCK | SURELY_BLOCK,
    Category.SPAM_CONTENT: MAY_BLOCK | SURELY_BLOCK,
    Category.AUTHENTICATION: MAY_BLOCK | SURELY_BLOCK,
    Category.POLICY: MAY_BLOCK,
}
_ENGAGEMENT_FLAGS = (
    (EventKind.COMPLAINED, int(Flag.COMPLAINED)),
    (EventKind.UNSUBSCRIBED, int(Flag.UNSUBSCRIBED)),
    (EventKind.OPENED, int(Flag.OPENED)),
    (EventKind.CLICKED, int(Flag.CLICKED)),
)


def _flags(facts: Facts, outcome: Outcome, category: int) -> int:
    seen, flags = facts.first, 0
    if outcome is Outcome.BOUNCED:
        flags = _bounce_flags(facts) | _block_flags(facts, category)
    elif outcome is Outcome.DELIVERED:
        flags = _REACHED if EventKind.DELIVERED in seen else _REACHED | _INFERRED
    elif outcome in IN_FLIGHT and facts.failure is not None and facts.failure.marks & MAY_BLOCK:
        flags = _BLOCK_HIGH
    if EventKind.DEFERRED in seen and outcome in SENT:
        flags |= _DEFERRED
    if flags & _REACHED:
        flags |= _engagement_flags(facts)
        if providers.reports_complaints(facts.provider[3]):
            flags |= _VISIBLE_COMPLAINED | _VISIBLE if flags & _COMPLAINED else _VISIBLE
    return flags


def _block_flags(facts: Facts, category: int) -> int:
    """Whether HighLevel counts a bounce as an ESP block: surely, perhaps or not."""
    failure = facts.failure
    if failure is None or failure.rank != _DECIDED_BY[Outcome.BOUNCED]:
        return 0
    flags = _EXPIRED if failure.marks & GIVEN_UP else 0
    marks = failure.marks
    if facts.assigned or category != failure.category:
        marks = _MARKS_OF.get(Category(category), 0)
    if marks & MAY_BLOCK:
        flags |= _BLOCK_HIGH
        if marks & SURELY_BLOCK and providers.counts_blocks(facts.provider[3]):
            flags |= _BLOCK_LOW
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


IN_FLIGHT = frozenset({Outcome.DEFERRED, Outcome.ACCEPTED})
SENT = IN_FLIGHT | {Outcome.DELIVERED, Outcome.BOUNCED}


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
    Flag.VISIBLE: "visible_reached",
    Flag.VISIBLE_COMPLAINED: "visible_complained",
    Flag.BLOCK_LOW: "block_low",
    Flag.BLOCK_HIGH: "block_high",
}


@cache
def counted_measures(outcome: int, flags: int, bounce_class: int) -> tuple[int, ...]:
    """What a delivery adds 1 to in each counter that it belongs to: positions in ``MEASURES``.

    A function of three stored columns, so that counting the deliveries again needs nothing else.
    """
    counted = _counted(Outcome(outcome), Flag(flags), BounceClass(bounce_class))
    return tuple(i for i, measure in enumerate(MEASURES) if measure in counted)


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
