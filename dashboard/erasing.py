"""A recipient erased on request, everywhere: mail, webhooks, lists, and what people wrote.

The audit log says so without the address. What names a person elsewhere, such as the log of a
proxy in front, is not ours to erase.
"""

import time
from collections import Counter
from urllib.parse import quote

from django.contrib.admin.models import LogEntry
from django.db import connection, transaction
from django.db.models import Model, Q

from dashboard.audit import mark_of, note
from dashboard.models import Note, SavedView, Suppressed, Suspension
from dashboard.review.models import CaseEntry
from dashboard.suppressing import STEP_LOCK
from dashboard.suppression import Actor
from ingest.erasure import Erasure, nameless, pseudonym_for
from ingest.models import Delivery, Location

# Where people's words may name somebody, with the way to the location; "" has none.
_WRITTEN: tuple[tuple[type[Model], str, str], ...] = (
    (Note, "text", "location"),
    (Suspension, "note", "location"),
    (CaseEntry, "note", "case__location"),
    (Suppressed, "reason", "location"),
    (LogEntry, "object_repr", ""),
    (LogEntry, "change_message", ""),
)


class Unfinished(Exception):
    """The time was up before all was erased: the next run goes on."""


def mails_to(address: str, location: Location | None = None) -> tuple[int, int]:
    """How many deliveries name an address, in how many locations."""
    mails = Delivery.objects.filter(recipient=address.strip().lower())
    if location is not None:
        mails = mails.filter(location=location)
    return mails.count(), mails.order_by().values("location_id").distinct().count()


def erase_recipient(
    address: str, location: Location | None = None, by: Actor = None, *, seconds: float = 3600
) -> Counter[str]:
    """Erase an address, in one location or in all. Returns what was erased, in rows.

    Raises ``Unfinished`` when it took longer than so many seconds; what was done is noted.
    """
    address = address.strip().lower()
    where = {} if location is None else {"location_id": location.pk, "location_ref": location.ref}
    run, done = Erasure(address, **where), Counter[str]()  # type: ignore[arg-type]
    began = time.monotonic()
    try:
        for step in run.steps():
            done[step.what] += step.rows
            if time.monotonic() - began > seconds:
                raise Unfinished
        _erase_list(address, location, done)
        _erase_words(address, location, done)
    finally:
        found = {what: rows for what, rows in done.items() if rows}
        place = location.pk if location else None
        note(by, "erase recipient", mark_of(address), location_id=place, rows=found)
    return Counter(found)


def _erase_list(address: str, location: Location | None, done: Counter[str]) -> None:
    listed = Suppressed.objects.filter(recipient=address)
    if location is not None:
        listed = listed.filter(location=location)
    with transaction.atomic():
        if connection.vendor == "postgresql":
            # A step that read the mail before it was erased has ended, and later ones look again.
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_xact_lock(%s)", [STEP_LOCK])
        done["suppressions"] += listed.delete()[0]


def _erase_words(address: str, location: Location | None, done: Counter[str]) -> None:
    pseudonym = pseudonym_for(address)
    for model, column, place in _WRITTEN:
        rows = model._default_manager.filter(**{f"{column}__icontains": address})
        if location is not None and place:
            rows = rows.filter(**{place: location})
        for pk, text in rows.values_list("pk", column):
            most = getattr(model._meta.get_field(column), "max_length", None)
            new = nameless(text, address, pseudonym)[:most]
            model._default_manager.filter(pk=pk).update(**{column: new})
            done["notes"] += 1
    if location is None:
        named = Q(query__icontains=address) | Q(query__icontains=quote(address, safe=""))
        named |= Q(query__icontains=quote(address)) | Q(name__icontains=address)
        done["saved views"] += SavedView.objects.filter(named).delete()[0]
