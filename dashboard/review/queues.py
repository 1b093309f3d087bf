"""The queues follow the events: a bounded step at a time, by their cursor.

A step reads what is new, finds what somebody should look at, and writes cases and cursor in one
short transaction; where another process was first, it writes nothing. The same events are never
counted twice. It stays behind the suppression list, whose marks it reads.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import NamedTuple

from django.db import connection, transaction
from django.db.models import Count, F, OuterRef, Q, Subquery
from django.db.models.lookups import GreaterThan

from dashboard.models import MailedAgain, Suppressed, SuppressionProgress
from dashboard.review.cases import WORSE, Queue, State, reopen, tell
from dashboard.review.models import ReviewCase, ReviewProgress
from ingest.models import Delivery, Event, Reason
from ingest.retention import read_horizon
from ingest.vocabulary import FAILURES, Category, EventKind, Flag

EVENTS = 2_000  # a step
LOOKED_BACK = 100_000  # events that the first step ever begins with
MOST = 2_000  # cases of a queue that wait; beyond that none is added
QUIET_DAYS = 7  # after which a refusal that was looked at is new again
FIRST_DAYS = 7  # in which every refusal is new, and none is news
TENDED = 200  # cases that are looked at again, a step
STEP_LOCK = 736_569  # so that one process writes at a time; any constant will do

# Events that open the settled case of their delivery again: more of what it was about.
_TELLING = FAILURES | {EventKind.DELIVERED, EventKind.COMPLAINED}
_DECIDING = frozenset({EventKind.DELIVERED, EventKind.BOUNCED})


class Seen(NamedTuple):
    """An event, as far as the queues care."""

    id: int
    kind: int
    delivery_id: int | None
    location_id: int
    occurred_at: datetime
    category: int
    reason_id: int | None


@dataclass(frozen=True, slots=True)
class Matter:
    """Something for a queue: what it is about, how many events say so, and when the last did."""

    queue: ReviewCase.Queue
    subject: str
    at: datetime
    location_id: int | None = None
    delivery_id: int | None = None
    reason_id: int | None = None
    events: int = 1
    opens: bool = True  # False: it only counts where there is a case


def fill_some(limit: int = EVENTS) -> bool:
    """One step over at most so many events. Returns whether there is more to do at once.

    Raises the database's errors; nothing is written then.
    """
    progress = ReviewProgress.objects.filter(id=1).first() or ReviewProgress(cursor=_beginning())
    until = SuppressionProgress.objects.filter(id=1).values_list("cursor", flat=True).first() or 0
    rows = Event.objects.filter(pk__gt=progress.cursor, pk__lte=until).order_by("pk")
    columns = rows.values_list(*Seen._fields, "is_test")[:limit]
    found = list(columns)
    if not found:
        return False
    seen = [Seen(*row[:-1]) for row in found if not row[-1]]
    matters = _gathered(_matters(seen, progress.cursor))
    with transaction.atomic():
        if not _is_ours(progress):
            return False
        enter(matters)
        ReviewProgress.objects.update_or_create(id=1, defaults={"cursor": found[-1][0]})
    return len(found) == limit


def _beginning() -> int:
    """Where the first step ever begins."""
    newest = Event.objects.order_by("-pk").values_list("pk", flat=True).first() or 0
    return max(0, newest - LOOKED_BACK, read_horizon().events_cursor)


def _is_ours(progress: ReviewProgress) -> bool:
    """Whether no other process writes at this moment, or has gone on from the same cursor."""
    if not is_alone():
        return False
    stored = ReviewProgress.objects.filter(id=1).values_list("cursor", flat=True).first()
    return stored is None or stored == progress.cursor


def is_alone() -> bool:
    """Whether no other process is at the queues, until the transaction ends."""
    if connection.vendor != "postgresql":
        return True
    with connection.cursor() as asked:
        asked.execute("SELECT pg_try_advisory_xact_lock(%s)", [STEP_LOCK])
        return bool(asked.fetchall()[0][0])


# --- What there is to look at -------------------------------------------------------------------


def _matters(seen: Sequence[Seen], cursor: int) -> Iterator[Matter]:
    yield from _complaints(seen)
    yield from _late(seen)
    yield from _mailed_again(seen)
    yield from _reasons(seen, cursor)
    yield from _known_deliveries(seen)


def _of_delivery(queue: ReviewCase.Queue, event: Seen, *, opens: bool = True) -> Matter:
    return Matter(
        queue, f"d:{event.delivery_id}", event.occurred_at, event.location_id, event.delivery_id,
        opens=opens,
    )  # fmt: skip


def _complaints(seen: Iterable[Seen]) -> Iterator[Matter]:
    for event in seen:
        if event.kind == EventKind.COMPLAINED and event.delivery_id:
            yield _of_delivery(Queue.COMPLAINTS, event)


def _late(seen: Iterable[Seen]) -> Iterator[Matter]:
    deciding = {e.delivery_id: e for e in seen if e.kind in _DECIDING and e.delivery_id}
    flagged = GreaterThan(F("flags").bitand(Flag.LATE | Flag.RECOVERED), 0)
    rows = Delivery.objects.filter(flagged, pk__in=deciding)
    for pk in rows.values_list("pk", flat=True):
        yield _of_delivery(Queue.LATE, deciding[pk])


def _mailed_again(seen: Iterable[Seen]) -> Iterator[Matter]:
    """A case an address; each mail that it was sent counts once, with its first event."""
    first: dict[int, Seen] = {}
    for event in seen:
        if event.delivery_id:
            first.setdefault(event.delivery_id, event)
    marked = MailedAgain.objects.filter(delivery_id__in=first).values("delivery_id")
    began = Event.objects.filter(delivery_id=OuterRef("pk")).order_by("pk").values("pk")[:1]
    entry = Suppressed.objects.filter(
        location_id=OuterRef("location_id"), recipient=OuterRef("recipient")
    )
    rows = Delivery.objects.filter(pk__in=marked).annotate(
        began=Subquery(began), entry=Subquery(entry.values("pk")[:1])
    )
    for pk, began_at, address in rows.values_list("pk", "began", "entry"):
        event = first[pk]
        if address is not None and event.id == began_at:
            matter = _of_delivery(Queue.MAILED_AGAIN, event)
            yield replace(matter, subject=f"s:{address}")


def _reasons(seen: Iterable[Seen], cursor: int) -> Iterator[Matter]:
    """Refusals that no rule knows, and those that nobody had seen before."""
    failed = [event for event in seen if event.reason_id and event.kind in FAILURES]
    new = _new({event.reason_id or 0 for event in failed}, cursor) if failed else set()
    if new and _is_beginning(failed[-1].occurred_at):
        new = set()
    for event in failed:
        unknown = event.category == Category.UNCLASSIFIED
        queue = Queue.UNCLASSIFIED if unknown else Queue.NEW_REASONS
        yield Matter(
            queue, f"r:{event.reason_id}", event.occurred_at, reason_id=event.reason_id,
            opens=unknown or event.reason_id in new,
        )  # fmt: skip


def _new(reasons: Collection[int], cursor: int) -> set[int]:
    """Those whose first event came after the cursor."""
    first = Event.objects.filter(reason_id=OuterRef("pk")).order_by("pk").values("pk")[:1]
    known = Reason.objects.filter(pk__in=reasons).annotate(first=Subquery(first))
    return set(known.filter(first__gt=cursor).values_list("pk", flat=True))


def _is_beginning(now: datetime) -> bool:
    """Whether events are known since a few days only."""
    oldest = Event.objects.order_by("pk").values_list("occurred_at", flat=True).first() or now
    known = now - oldest >= timedelta(days=FIRST_DAYS)
    return not known and not read_horizon().events_cursor


def _known_deliveries(seen: Iterable[Seen]) -> Iterator[Matter]:
    """What became of deliveries that a person had put in."""
    for event in seen:
        if event.delivery_id and event.kind in _TELLING:
            yield _of_delivery(Queue.BY_HAND, event, opens=False)


def _gathered(matters: Iterable[Matter]) -> list[Matter]:
    """One of each subject in a queue, in the order of their keys."""
    found: dict[tuple[int, str], Matter] = {}
    for matter in matters:
        key = matter.queue, matter.subject
        if (known := found.get(key)) is not None:
            matter = replace(
                matter, events=known.events + 1, at=max(known.at, matter.at),
                opens=known.opens or matter.opens,
            )  # fmt: skip
        found[key] = matter
    return [found[key] for key in sorted(found)]


# --- Into the table ------------------------------------------------------------------------------


def enter(matters: Sequence[Matter]) -> None:
    """Make cases, or count on in those there are; the caller's transaction holds the lock."""
    known = _known(matters)
    room = _room()
    fresh = []
    for matter in matters:
        if case := known.get((matter.queue, matter.subject)):
            _count_on(case, matter)
        elif matter.opens and room[matter.queue] > 0:
            room[matter.queue] -= 1
            fresh.append(_case(matter))
    ReviewCase.objects.bulk_create(fresh)


def _known(matters: Sequence[Matter]) -> dict[tuple[int, str], ReviewCase]:
    wanted = Q(pk__in=[])
    for queue in {matter.queue for matter in matters}:
        subjects = [matter.subject for matter in matters if matter.queue == queue]
        wanted |= Q(queue=queue, subject__in=subjects)
    rows = ReviewCase.objects.filter(wanted).select_for_update().order_by("pk")
    return {(case.queue, case.subject): case for case in rows}


def _room() -> Counter[int]:
    """How many more cases each queue takes."""
    open_ones = ReviewCase.objects.filter(state__in=(State.OPEN, State.IN_REVIEW)).order_by()
    taken = dict(open_ones.values_list("queue").annotate(n=Count("pk")))
    return Counter({int(queue): MOST - taken.get(int(queue), 0) for queue in Queue})


def _case(matter: Matter) -> ReviewCase:
    return ReviewCase(
        queue=matter.queue, subject=matter.subject, location_id=matter.location_id,
        delivery_id=matter.delivery_id, reason_id=matter.reason_id, count=matter.events,
        opened_at=matter.at, last_event_at=matter.at,
    )  # fmt: skip


def _count_on(case: ReviewCase, matter: Matter) -> None:
    quiet = matter.at - case.last_event_at
    case.count += matter.events
    case.last_event_at = max(case.last_event_at, matter.at)
    if matter.delivery_id:
        case.delivery_id = matter.delivery_id
    again = case.state == State.RESOLVED and (
        # A refusal is new once: it comes back when it had been gone.
        case.queue != Queue.NEW_REASONS or quiet.days >= QUIET_DAYS
    )
    worse = case.state == State.IGNORED and case.count >= WORSE * case.ignored_count
    if again or worse:
        reopen(case)
        why = "it got worse" if worse else "a new event"
        tell(case, f"opened again: {why}", matter.at)
    case.save()


# --- What settles itself -------------------------------------------------------------------------


def tend(now: datetime) -> int:
    """Give back leases that ended, and settle what needs nobody any more. Returns how many.

    A refusal that the rules know by now is classified; a case whose delivery is no longer kept
    cannot be looked at.
    """
    with transaction.atomic():
        if not is_alone():
            return 0
        ended = ReviewCase.objects.filter(state=State.IN_REVIEW, leased_until__lte=now)
        done = ended.update(state=State.OPEN, leased_by=None, leased_until=None, taken_at=None)
        return done + _settle_classified(now) + _forget_gone()


def _settle_classified(now: datetime) -> int:
    waiting = ReviewCase.objects.filter(state=State.OPEN, queue=Queue.UNCLASSIFIED)
    known = waiting.filter(reason__category__lt=Category.UNCLASSIFIED)
    cases = list(known.select_related(None)[:TENDED])
    for case in cases:
        case.state, case.settled_at = State.RESOLVED, now
        case.save()
        tell(case, "resolved: a rule knows it by now", now)
    return len(cases)


def _forget_gone() -> int:
    waiting = ReviewCase.objects.filter(state=State.OPEN, delivery_id__isnull=False)
    there = Delivery.objects.filter(pk=OuterRef("delivery_id")).values("pk")
    gone = waiting.annotate(there=Subquery(there)).filter(there=None)
    pks = list(gone.order_by("pk").values_list("pk", flat=True)[:TENDED])
    ReviewCase.objects.filter(pk__in=pks).delete()
    return len(pks)
