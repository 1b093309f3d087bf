"""What is done with a case: opened, taken, settled, reopened, noted. All of it is told on.

Each of these locks the case's row, writes its history and the audit log in one transaction.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import cast

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.db import transaction

from dashboard.access import Rights, restrict
from dashboard.audit import note
from dashboard.review.models import LEASE, CaseEntry, CaseQuerySet, ReviewCase
from ingest.models import Delivery

type Person = AbstractBaseUser | AnonymousUser
Queue, State, Finding = ReviewCase.Queue, ReviewCase.State, ReviewCase.Finding

WORSE = 2  # times as many events open a case again that was ignored


class Taken(Exception):
    """Somebody else looks at the case. Its text is a sentence for people."""


def tell(
    case: ReviewCase, what: str, at: datetime, by: Person | None = None, text: str = ""
) -> None:
    """Add to a case's history; what people do is in the audit log too."""
    actor = by.get_username() if by is not None else ""
    CaseEntry.objects.create(case=case, at=at, actor=actor, what=what[:60], note=text[:1000])


def _audit(case: ReviewCase, action: str, by: Person, **detail: object) -> None:
    note(by, action, case, location_id=case.location_id, case=case.pk, **detail)


def _locked(case: ReviewCase, by: Person, now: datetime) -> ReviewCase:
    """The case as it stands. Raises ``Taken`` while it is somebody else's."""
    found = ReviewCase.objects.select_for_update(of=("self",)).get(pk=case.pk)
    lease = found.state == State.IN_REVIEW and found.leased_until and found.leased_until > now
    if lease and found.leased_by_id not in (None, by.pk):
        raise Taken(f"Somebody else looks at it until {found.leased_until:%H:%M} UTC.")
    return found


def take(case: ReviewCase, by: Person, now: datetime) -> None:
    """Lease a case to a person for half an hour. Raises ``Taken``."""
    with transaction.atomic():
        found = _locked(case, by, now)
        if found.state == State.IN_REVIEW and found.leased_by_id == by.pk:
            found.leased_until = now + LEASE
        elif found.state in (State.OPEN, State.IN_REVIEW):
            found.state, found.leased_by_id, found.taken_at = State.IN_REVIEW, by.pk, now
            found.leased_until = now + LEASE
            tell(found, "taken", now, by)
            _audit(found, "take case", by)
        found.save()


def _settle(found: ReviewCase, by: Person, now: datetime) -> None:
    mine = found.leased_by_id == by.pk and found.taken_at is not None
    if mine and found.taken_at:
        found.handled_seconds = int(min(now - found.taken_at, LEASE).total_seconds())
    found.leased_by_id = found.leased_until = found.taken_at = None
    found.settled_at, found.settled_by_id = now, by.pk


def resolve(case: ReviewCase, finding: str, by: Person, now: datetime, text: str = "") -> None:
    """Settle a case with what was found. Raises ``Taken``, and ``ValueError`` for no finding."""
    finding = Finding(finding)
    with transaction.atomic():
        found = _locked(case, by, now)
        found.state, found.finding = State.RESOLVED, finding
        _settle(found, by, now)
        found.save()
        tell(found, f"resolved: {finding.label}", now, by, text)
        _audit(found, "resolve case", by, finding=str(finding))


def ignore(case: ReviewCase, by: Person, now: datetime, text: str = "") -> None:
    """Leave it until there are ``WORSE`` times as many. Raises ``Taken``."""
    with transaction.atomic():
        found = _locked(case, by, now)
        found.state, found.finding, found.ignored_count = State.IGNORED, "", found.count
        _settle(found, by, now)
        found.save()
        tell(found, f"ignored until there are {found.count * WORSE:,}", now, by, text)
        _audit(found, "ignore case", by, count=found.count)


def open_again(case: ReviewCase, by: Person, now: datetime, text: str = "") -> None:
    """Open a case that was settled, or give back one that was taken. Raises ``Taken``."""
    with transaction.atomic():
        found = _locked(case, by, now)
        reopen(found)
        found.save()
        tell(found, "opened again", now, by, text)
        _audit(found, "reopen case", by)


def reopen(case: ReviewCase) -> None:
    """Make it an open one; the caller saves it."""
    case.state, case.finding, case.ignored_count = State.OPEN, "", 0
    case.settled_at = case.settled_by_id = case.handled_seconds = None
    case.leased_by_id = case.leased_until = case.taken_at = None


def remark(case: ReviewCase, by: Person, now: datetime, text: str) -> None:
    """Write a note beside a case."""
    with transaction.atomic():
        tell(case, "noted", now, by, text)
        _audit(case, "note case", by)


def put_in(delivery: Delivery, by: Person, now: datetime, text: str = "") -> ReviewCase:
    """A case of a delivery that a person wants looked at; the one there is, opened again."""
    with transaction.atomic():
        case, is_new = ReviewCase.objects.get_or_create(
            queue=Queue.BY_HAND,
            subject=f"d:{delivery.pk}",
            defaults={
                "delivery_id": delivery.pk, "location_id": delivery.location_id,
                "opened_at": now, "last_event_at": now,
            },
        )  # fmt: skip
        if not is_new and case.state in (State.RESOLVED, State.IGNORED):
            reopen(case)
            case.save()
        tell(case, "put in", now, by, text)
        _audit(case, "put in case", by)
    return case


# --- Which to look at ---------------------------------------------------------------------------


def visible(rights: Rights) -> CaseQuerySet:
    """The cases that may be seen. Those of all locations are for who sees everything."""
    return cast(CaseQuerySet, restrict(ReviewCase.objects.all(), rights))


def next_of(
    rights: Rights, by: Person, now: datetime, queue: int | None = None, after: Iterable[int] = ()
) -> ReviewCase | None:
    """The next one to look at: of a queue, if one is named, the largest first."""
    waiting = visible(rights).waiting_for(by.pk or 0, now).exclude(pk__in=after)
    if queue:
        waiting = waiting.filter(queue=queue)
    found: ReviewCase | None = waiting.first()
    return found
