"""The suppression list follows the events: a bounded step at a time, by their cursor.

A step reads what is new, decides by the deliveries as they stand, and writes findings and cursor
in one short transaction; where another process was first, it writes nothing. The same events
again change nothing. Between the steps it looks at old entries, some at a time: where a bounce was
classed anew, by rules or by hand, its entry is released.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from django.db import connection, transaction
from django.utils import timezone

from dashboard.incidents import Incidents
from dashboard.marking import mark_again
from dashboard.models import MailedAgain, Suppressed, SuppressionProgress
from dashboard.spans import moment_of
from dashboard.suppression import Cause, Finding, State, enter
from ingest.erasure import is_pseudonym
from ingest.models import Delivery, Event
from ingest.retention import read_horizon
from ingest.vocabulary import BounceClass, EventKind, Flag, Outcome

EVENTS = 2_000  # a step: some 20 ms
LOOKED_AT = 200  # entries that are looked at again, a step
HISTORY = 200  # mails to one address that are looked at
SOFT_CAMPAIGNS, SOFT_SPAN = 3, timedelta(days=30)
STEP_LOCK = 736_568  # so that one process writes at a time; any constant will do

_SAID = {EventKind.COMPLAINED: Cause.COMPLAINED, EventKind.UNSUBSCRIBED: Cause.UNSUBSCRIBED}


class _Seen(NamedTuple):
    """An event, as far as the list cares."""

    id: int
    kind: int
    delivery_id: int | None
    occurred_at: datetime


class _Mail(NamedTuple):
    """A delivery, as far as the list cares."""

    id: int
    location_id: int
    recipient: str
    sent_at: datetime
    outcome: int
    bounce_class: int
    flags: int
    campaign_id: int
    provider_id: int
    provider: str

    @property
    def failed(self) -> int:
        """The class of its final failure; 0 of mail that has none, or arrived after all."""
        if self.outcome != Outcome.BOUNCED or self.flags & Flag.RECOVERED:
            return 0
        return self.bounce_class

    @property
    def arrived(self) -> bool:
        """Whether it ever reached the receiving server."""
        return bool(self.flags & Flag.REACHED)


_COLUMNS = (*_Mail._fields[:-1], "provider__text")


def follow_some(limit: int = EVENTS) -> bool:
    """One step over at most so many events. Returns whether there is more to do at once.

    Raises the database's errors; nothing is written then.
    """
    progress = SuppressionProgress.objects.filter(id=1).first() or SuppressionProgress()
    columns = Event.objects.filter(pk__gt=progress.cursor).order_by("pk")
    seen = [_Seen(*row) for row in columns.values_list(*_Seen._fields)[:limit]]
    if not seen:
        return False
    findings = list(_findings(seen))
    with transaction.atomic():
        if not _is_ours(progress.cursor):
            return False
        entries = enter(_standing(findings))
        mark_again(entries, {event.delivery_id for event in seen if event.delivery_id})
        SuppressionProgress.objects.update_or_create(id=1, defaults={"cursor": seen[-1].id})
    return len(seen) == limit


def _standing(findings: Sequence[Finding]) -> list[Finding]:
    """Findings whose mail still names its recipient: some may have been erased since."""
    pks = [finding.delivery_id for finding in findings if finding.delivery_id]
    named = dict(Delivery.objects.filter(pk__in=pks).values_list("pk", "recipient"))
    return [each for each in findings if named.get(each.delivery_id or 0) == each.recipient]


def _is_ours(cursor: int) -> bool:
    """Whether no other process writes at this moment, or has gone on from the same cursor."""
    if connection.vendor == "postgresql":
        with connection.cursor() as asked:
            asked.execute("SELECT pg_try_advisory_xact_lock(%s)", [STEP_LOCK])
            if not asked.fetchall()[0][0]:
                return False
    stored = SuppressionProgress.objects.filter(id=1).values_list("cursor", flat=True).first()
    return (stored or 0) == cursor


# --- What speaks against an address -------------------------------------------------------------


def _findings(seen: Sequence[_Seen]) -> Iterator[Finding]:
    telling = (EventKind.BOUNCED, *_SAID)
    events = [event for event in seen if event.kind in telling and event.delivery_id]
    mails = {mail.id: mail for mail in _mails({event.delivery_id or 0 for event in events})}
    incidents, soft = Incidents(), dict[tuple[int, str], _Seen]()
    for event in events:
        mail = mails.get(event.delivery_id or 0)
        if mail is None or mail.outcome == Outcome.TEST:
            continue
        if not mail.recipient or is_pseudonym(mail.recipient):
            continue
        if cause := _SAID.get(EventKind(event.kind)):
            yield _finding(mail, cause, event.occurred_at)
        elif mail.failed == BounceClass.HARD:
            held = incidents.is_one(mail.provider_id, mail.location_id, event.occurred_at)
            yield _finding(mail, Cause.HARD, event.occurred_at, held=held)
        elif mail.failed == BounceClass.SOFT:
            soft[mail.location_id, mail.recipient] = event
    for (location_id, recipient), event in soft.items():
        mail = mails[event.delivery_id or 0]
        if is_hopeless(_history(location_id, recipient)):
            held = incidents.is_one(mail.provider_id, location_id, event.occurred_at)
            yield _finding(mail, Cause.SOFT, event.occurred_at, held=held)


def _finding(mail: _Mail, cause: Suppressed.Cause, at: datetime, *, held: bool = False) -> Finding:
    return Finding(mail.location_id, mail.recipient, cause, at, mail.id, mail.provider, held)


def _mails(pks: Collection[int]) -> list[_Mail]:
    if not pks:
        return []
    return [_Mail(*row) for row in Delivery.objects.filter(pk__in=pks).values_list(*_COLUMNS)]


def _history(location_id: int, recipient: str) -> list[_Mail]:
    """The newest mails of a location to an address, newest first."""
    rows = Delivery.objects.filter(recipient=recipient, location_id=location_id)
    found = [_Mail(*row) for row in rows.order_by().values_list(*_COLUMNS)[: 10 * HISTORY]]
    return sorted(found, key=lambda mail: mail.sent_at, reverse=True)[:HISTORY]


def is_hopeless(newest_first: Iterable[_Mail]) -> bool:
    """Finally failed soft in three campaigns over thirty days, with no delivery between."""
    failed = []
    for mail in newest_first:
        if mail.arrived:
            break
        if mail.failed == BounceClass.SOFT:
            failed.append(mail)
    if len({mail.campaign_id for mail in failed}) < SOFT_CAMPAIGNS:
        return False
    return failed[0].sent_at - failed[-1].sent_at >= SOFT_SPAN


# --- Old entries ---------------------------------------------------------------------------------

_SHOWN_BY = {Cause.HARD: BounceClass.HARD, Cause.SOFT: BounceClass.SOFT}


def look_again(limit: int = LOOKED_AT) -> int:
    """Release some entries whose bounce is none of that class any more. Returns how many.

    Forgets marks on mail that has gone, too.
    """
    progress = SuppressionProgress.objects.filter(id=1).first() or SuppressionProgress()
    rows = Suppressed.objects.filter(pk__gt=progress.looked_at).order_by("pk")
    window = list(rows[:limit])
    shown = [e for e in window if e.state != State.RELEASED and e.cause in _SHOWN_BY]
    mails = {mail.id: mail for mail in _mails({e.delivery_id for e in shown if e.delivery_id})}
    wrong = [
        entry.pk
        for entry in shown
        if (mail := mails.get(entry.delivery_id or 0))
        and mail.failed != _SHOWN_BY[Cause(entry.cause)]
    ]
    end = window[-1].pk if len(window) == limit else 0
    with transaction.atomic():
        released = Suppressed.objects.filter(pk__in=wrong).exclude(state=State.RELEASED)
        done = released.update(
            state=State.RELEASED, released_at=timezone.now(), died_at=None,
            reason="Its bounce was classed anew", by=None,
        )  # fmt: skip
        if end != progress.looked_at:
            SuppressionProgress.objects.update_or_create(id=1, defaults={"looked_at": end})
        _forget()
    return done


def _forget() -> None:
    gone = moment_of(read_horizon().deliveries_hour)
    old = MailedAgain.objects.filter(sent_at__lt=gone).order_by("sent_at")
    pks = list(old.values_list("pk", flat=True)[: 10 * LOOKED_AT])
    MailedAgain.objects.filter(pk__in=pks).delete()
