"""The suppression list: addresses that a location had better not mail again.

It is Sendwatch's own: HighLevel does not read it. ``dashboard.suppressing`` puts in what the
events tell; here is what people do with it. Their changes are in the audit log, which names no
address: see ``audit.mark_of``.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.db import transaction
from django.utils import timezone

from dashboard.audit import mark_of, note
from dashboard.marking import mark_again
from dashboard.masking import hidden
from dashboard.models import Suppressed

type Actor = AbstractBaseUser | AnonymousUser | None
Cause, State = Suppressed.Cause, Suppressed.State

MOST_AT_ONCE = 5_000  # held entries that one decision settles
# What weighs more stands: an address that complained and bounced has complained.
WEIGHT = {Cause.HAND: 0, Cause.SOFT: 1, Cause.UNSUBSCRIBED: 2, Cause.HARD: 3, Cause.COMPLAINED: 4}
DEADLY = frozenset({Cause.HARD, Cause.COMPLAINED})


class Finding(NamedTuple):
    """What speaks against mailing an address: its location, the address, why and since when."""

    location_id: int
    recipient: str
    cause: Suppressed.Cause
    at: datetime
    delivery_id: int | None = None
    provider: str = ""
    held: bool = False
    reason: str = ""
    by_id: int | None = None


def actor_id(by: Actor) -> int | None:
    """The key of who does something; ``None`` for Sendwatch itself."""
    return by.pk if by is not None and by.is_authenticated else None


def suppress(
    location_id: int,
    recipient: str,
    cause: str = Cause.HAND,
    by: Actor = None,
    *,
    reason: str = "",
    delivery_id: int | None = None,
) -> Suppressed:
    """Put an address on a location's list, or back on it. ``by`` is who does it.

    Raises ``ValueError`` for a cause that there is not.
    """
    finding = Finding(
        location_id,
        recipient.strip().lower(),
        Cause(cause),
        timezone.now(),
        delivery_id=delivery_id,
        reason=reason[:300],
        by_id=actor_id(by),
    )
    with transaction.atomic():
        entered = enter([finding])
        note(
            by, "suppress", mark_of(finding.recipient), location_id=location_id,
            cause=str(finding.cause),
        )  # fmt: skip
    return (
        entered[0]
        if entered
        else Suppressed.objects.get(location_id=location_id, recipient=finding.recipient)
    )


def release(location_id: int, recipient: str, by: Actor = None, *, reason: str) -> bool:
    """Take an address off a location's list. False if it was not on it.

    It stays off until something new speaks against it.
    """
    rows = Suppressed.objects.filter(location_id=location_id, recipient=recipient.strip().lower())
    with transaction.atomic():
        done = rows.exclude(state=State.RELEASED).update(**_released(by, reason))
        if done:
            mark = mark_of(recipient.strip().lower())
            note(by, "release", mark, location_id=location_id, reason=hidden(reason[:300]))
    return bool(done)


def _released(by: Actor, reason: str) -> dict[str, object]:
    return {
        "state": State.RELEASED,
        "released_at": timezone.now(),
        "died_at": None,
        "reason": reason[:300],
        "by_id": actor_id(by),
    }


def settle_held(
    provider: str, location_ids: Iterable[int] | None, by: Actor, *, confirm: bool
) -> int:
    """Confirm or release what is held because of a provider's incident. Returns how many.

    ``location_ids``: only of these; ``None`` is all. At most ``MOST_AT_ONCE``.
    """
    held = Suppressed.objects.filter(state=State.HELD, provider=provider)
    if location_ids is not None:
        held = held.filter(location_id__in=location_ids)
    with transaction.atomic():
        entries = list(held.select_for_update().order_by("pk")[:MOST_AT_ONCE])
        for entry in entries:
            if confirm:
                entry.state = State.ON
                entry.died_at = entry.since if entry.cause in DEADLY else None
            else:
                for name, value in _released(
                    by, "The provider's incident, not the address"
                ).items():
                    setattr(entry, name, value)
        fields = ["state", "died_at", "released_at", "reason", "by_id"]
        Suppressed.objects.bulk_update(entries, fields, batch_size=500)
        mark_again(entries)
        if entries:
            done = "confirm held" if confirm else "release held"
            note(by, done, provider, number=len(entries))
    return len(entries)


# --- Entering ----------------------------------------------------------------------------------


def enter(findings: Iterable[Finding]) -> list[Suppressed]:
    """Put findings on the list, in the caller's transaction. Returns what is new or changed.

    The same findings again change nothing; what was released comes back for newer ones only.
    """
    by_address: dict[tuple[int, str], list[Finding]] = {}
    for finding in findings:
        by_address.setdefault((finding.location_id, finding.recipient), []).append(finding)
    if not by_address:
        return []
    locations = {location for location, _ in by_address}
    recipients = {recipient for _, recipient in by_address}
    known = {
        (entry.location_id, entry.recipient): entry
        for entry in Suppressed.objects.select_for_update().filter(
            location_id__in=locations, recipient__in=recipients
        )
    }
    touched = []
    for key in sorted(by_address):
        entry, changed = known.get(key), False
        for finding in sorted(by_address[key], key=lambda finding: finding.at):
            if entry is None:
                entry, changed = _entry(finding), True
            else:
                changed |= _learn(entry, finding)
        if entry is not None and changed:
            touched.append(entry)
    _store(touched)
    return touched


def _store(entries: list[Suppressed]) -> None:
    old = [entry for entry in entries if entry.pk is not None]
    Suppressed.objects.bulk_create([e for e in entries if e.pk is None], batch_size=500)
    fields = ["cause", "state", "since", "died_at", "released_at", "reason", "provider",
              "delivery_id", "by_id"]  # fmt: skip
    Suppressed.objects.bulk_update(old, fields, batch_size=500)


def _entry(finding: Finding) -> Suppressed:
    entry = Suppressed(location_id=finding.location_id, recipient=finding.recipient)
    _take(entry, finding)
    return entry


def _take(entry: Suppressed, finding: Finding) -> None:
    """Make it an entry of this finding alone."""
    entry.cause, entry.since = finding.cause, finding.at
    entry.state = State.HELD if finding.held else State.ON
    entry.died_at = None if finding.held or finding.cause not in DEADLY else finding.at
    entry.released_at = None
    entry.reason, entry.provider = finding.reason, finding.provider
    entry.delivery_id, entry.by_id = finding.delivery_id, finding.by_id


def _learn(entry: Suppressed, finding: Finding) -> bool:
    """Add a finding to what is known of an address. Whether that changed anything."""
    if entry.state == State.RELEASED:
        if entry.released_at is not None and finding.at <= entry.released_at:
            return False
        _take(entry, finding)
        return True
    if entry.state == State.HELD:
        if finding.held or WEIGHT[finding.cause] < WEIGHT[Cause(entry.cause)]:
            return False
        since = min(entry.since, finding.at)
        _take(entry, finding)
        entry.since = since
        return True
    before = (entry.cause, entry.died_at)
    if WEIGHT[finding.cause] > WEIGHT[Cause(entry.cause)] and not finding.held:
        entry.cause, entry.delivery_id = finding.cause, finding.delivery_id
    if finding.cause in DEADLY and not finding.held:
        entry.died_at = min(entry.died_at or finding.at, finding.at)
    return before != (entry.cause, entry.died_at)
