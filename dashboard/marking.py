"""Marks on the mail that was sent to an address after it had bounced hard or complained."""

from collections.abc import Collection, Iterable

from django.db import connection

from dashboard.models import Suppressed

# The first table names what is new: mails, or entries that died just now.
_MARK = """
INSERT INTO dashboard_mailedagain (delivery_id, location_id, sent_at)
SELECT d.id, d.location_id, d.sent_at
FROM {first} JOIN {second} ON s.location_id = d.location_id AND s.recipient = d.recipient
    AND d.sent_at > s.died_at
WHERE {named} ON CONFLICT (delivery_id) DO NOTHING
"""
_MAIL, _ENTRY = "ingest_delivery d", "dashboard_suppressed s"


def mark_again(entries: Iterable[Suppressed], mails: Collection[int] = ()) -> None:
    """Mark all mail that these dead addresses were sent, and which of these mails any were.

    ``mails`` are keys of deliveries. What is marked stays so.
    """
    _mark(_MAIL, _ENTRY, "d.id", mails)
    died = [entry.pk for entry in entries if entry.died_at is not None]
    _mark(_ENTRY, _MAIL, "s.id", died)


def _mark(first: str, second: str, column: str, pks: Collection[int]) -> None:
    # In the text of the statement: integers of our own, and more than a driver's parameters.
    if not pks:
        return
    named = f"{column} IN ({','.join(str(int(pk)) for pk in pks)})"
    with connection.cursor() as cursor:
        cursor.execute(_MARK.format(first=first, second=second, named=named))
