"""One answer for all deliveries that were refused alike: counted first, and undoable for a day.

What is to change is written down before anything changes. Then it goes through ingest's own way
of writing, some deliveries a transaction, each transaction noting what it changed: a change that
is cut off goes on where it ended, and the way back knows what there was before.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from itertools import batched
from typing import NamedTuple

from django.db import transaction
from django.utils import timezone

from dashboard.access import Rights, restrict
from dashboard.audit import note
from dashboard.review.cases import Person
from dashboard.review.models import UNDO, BulkChange, BulkItem
from ingest.models import Delivery, Event, Reason
from ingest.reclassify import assign_categories
from ingest.vocabulary import Category, Outcome

MOST = 20_000  # deliveries of a change; more need a rule
LOOKED_AT = 3 * MOST  # that were refused so, delayed ones included
STEP = 500  # deliveries of a step; ``ingest.reclassify`` splits it further
KEPT = timedelta(days=7)  # after the way back has closed, the single lines
PATIENCE = 3.0  # seconds of a request; the rest is done beside

State = BulkItem.State


class TooMany(Exception):
    """More deliveries than one change takes. Its text is a sentence for people."""

    def __init__(self) -> None:
        super().__init__(f"These are more than {MOST:,} deliveries: make a rule instead.")


class _Overtaken(Exception):
    """It was taken back meanwhile: what this transaction did must not stand."""


class Extent(NamedTuple):
    """How far a change would reach."""

    deliveries: int
    locations: int

    @property
    def sentence(self) -> str:
        """``re-classes 4,212 deliveries in 37 locations``."""
        return f"re-classes {BulkChange(deliveries=self.deliveries, locations=self.locations)}"


def alike(reason: Reason, rights: Rights) -> Iterator[tuple[int, int]]:
    """The bounced deliveries of a refusal that a person may change: key and location of each.

    By the index of refusals, and then by their keys: in one statement PostgreSQL would read all
    deliveries, or the refusals one by one. Raises ``TooMany``, at the latest at the end.
    """
    refused = Event.objects.filter(reason=reason, delivery_id__isnull=False).order_by()
    found = refused.values_list("delivery_id", flat=True).distinct()[: LOOKED_AT + 1]
    pks = sorted(pk for pk in found if pk is not None)
    number = 0
    for some in batched(pks, 1_000):
        rows = Delivery.objects.filter(pk__in=some, reason=reason, outcome=Outcome.BOUNCED)
        for each in restrict(rows, rights).order_by("pk").values_list("pk", "location_id"):
            number += 1
            if number > MOST:
                raise TooMany
            yield each
    if len(pks) > LOOKED_AT:
        raise TooMany


def extent(reason: Reason, rights: Rights) -> Extent:
    """How many they are. Raises ``TooMany``."""
    locations = [location for _, location in alike(reason, rights)]
    return Extent(len(locations), len(set(locations)))


def begin(
    reason: Reason, category: Category, rights: Rights, by: Person, now: datetime
) -> BulkChange:
    """Write down what is to change, and tell it. Raises ``TooMany``."""
    with transaction.atomic():
        change = BulkChange.objects.create(
            reason=reason, category=category, by_id=by.pk, created_at=now
        )
        found = list(alike(reason, rights))
        BulkItem.objects.bulk_create(
            (BulkItem(change=change, delivery_id=pk) for pk, _ in found), batch_size=5_000
        )
        locations = len({location for _, location in found})
        change.deliveries, change.locations = len(found), locations
        change.save()
        note(
            by, "assign category in bulk", reason.text, change=change.pk,
            category=category.word, deliveries=change.deliveries, locations=locations,
        )  # fmt: skip
    return change


def undo(change: BulkChange, by: Person, now: datetime) -> bool:
    """Begin to take a change back. False: it is too late, or was done already."""
    with transaction.atomic():
        asked = BulkChange.objects.filter(pk=change.pk, undo_at=None, created_at__gt=now - UNDO)
        if not asked.update(undo_at=now):
            return False
        note(by, "undo bulk change", change, change=change.pk, deliveries=change.deliveries)
    return True


def may_undo(change: BulkChange, now: datetime) -> bool:
    """Whether the way back is still open."""
    return change.undo_at is None and now < change.undo_until


# --- Doing it ------------------------------------------------------------------------------------


def work(change: BulkChange, *, seconds: float = PATIENCE) -> bool:
    """Do steps of a change, or of its undoing, for so long. Returns whether it is done.

    Raises the database's errors; what is committed stays, and the next call goes on.
    """
    until = time.monotonic() + seconds
    while step(change):
        if time.monotonic() >= until:
            return False
    return True


def step(change: BulkChange) -> bool:
    """At most ``STEP`` deliveries. Returns whether there may be more."""
    change.refresh_from_db()
    if change.undo_at is not None:
        # What was not reached is never changed any more.
        change.items.filter(state=State.WAITING).update(state=State.LEFT)
        return _step(change, State.CHANGED, _back, "undone_at")
    return _step(change, State.WAITING, _forth, "finished_at")


def _step(
    change: BulkChange, state: int, move: Callable[[BulkChange, list[BulkItem]], None], done: str
) -> bool:
    items = list(change.items.filter(state=state).order_by("pk")[:STEP])
    if items:
        move(change, items)
    elif getattr(change, done) is None:
        BulkChange.objects.filter(pk=change.pk).update(**{done: timezone.now()})
    return bool(items)


def _forth(change: BulkChange, items: list[BulkItem]) -> None:
    by, wanted = _who(change), Category(change.category)

    def noted(before: dict[int, Category]) -> None:
        for category in set(before.values()):
            pks = [pk for pk, each in before.items() if each == category]
            marked = _mark(change, pks, State.WAITING, state=State.CHANGED, before=category)
            if marked < len(pks):
                raise _Overtaken

    with suppress(_Overtaken):
        assign_categories({item.delivery_id: wanted for item in items}, by=by, noted=noted)
    # What is left is as it should be, or may not be changed; another process may have been first.
    _mark(change, [item.delivery_id for item in items], State.WAITING, state=State.LEFT)


def _back(change: BulkChange, items: list[BulkItem]) -> None:
    def noted(before: dict[int, Category]) -> None:
        _mark(change, list(before), State.CHANGED, state=State.UNDONE)

    assign_categories(
        {item.delivery_id: Category(item.before) for item in items},
        by=_who(change),
        over=Category(change.category),
        noted=noted,
    )
    _mark(change, [item.delivery_id for item in items], State.CHANGED, state=State.KEPT)


def _mark(change: BulkChange, deliveries: list[int], old: int, **to: int) -> int:
    return change.items.filter(delivery_id__in=deliveries, state=old).update(**to)


def _who(change: BulkChange) -> str:
    return change.by.get_username() if change.by else "somebody"


# --- Beside the requests -------------------------------------------------------------------------


def go_on() -> bool:
    """A step of a change that is not done. Returns whether there may be more to do at once."""
    unfinished = BulkChange.objects.filter(undo_at=None, finished_at=None)
    unundone = BulkChange.objects.filter(undo_at__isnull=False, undone_at=None)
    change = (unfinished | unundone).order_by("pk").first()
    return change is not None and (step(change) or True)


def forget(now: datetime, limit: int = 5_000) -> int:
    """Let go of the lines of changes that cannot be undone any more. Returns how many."""
    old = BulkChange.objects.filter(created_at__lt=now - UNDO - KEPT)
    pks = list(BulkItem.objects.filter(change__in=old).values_list("pk", flat=True)[:limit])
    BulkItem.objects.filter(pk__in=pks).delete()
    return len(pks)
