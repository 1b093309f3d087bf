"""Addresses to stop mailing: those that were mailed again after they had bounced hard."""

from typing import Any

from django.db.models import Count, Exists, OuterRef

from dashboard.access import shown_recipient
from dashboard.failing import list_url
from dashboard.filters import Filter
from dashboard.pages.later import Later
from dashboard.pages.page import Asked
from dashboard.pages.subject import mail_of, whole_of
from ingest.fold import SENT
from ingest.models import Delivery

LOOKED_AT = 2_000  # hard bounces, the newest
NAMED = 5  # addresses
AT_ONCE = 100_000  # mails: the bounces of so many are found while the page is painted


def _load(asked: Asked) -> dict[str, Any]:
    mail = mail_of(asked, "hard")
    if mail is None:
        return {"none": "The filter leaves no hard bounces."}
    newest = list(mail[1].order_by("-sent_at", "-id").values_list("id", flat=True)[:LOOKED_AT])
    again = Delivery.objects.filter(
        location_id=OuterRef("location_id"),
        recipient=OuterRef("recipient"),
        sent_at__gt=OuterRef("sent_at"),
        outcome__in=SENT,
    )
    found = Delivery.objects.filter(Exists(again), pk__in=newest).order_by()
    rows = found.values_list("location_id", "recipient").annotate(n=Count("pk"))
    addresses = [row[:2] for row in sorted(rows, key=lambda row: (-row[2], row[1]))]
    own = asked.filter.only("location").with_("range", "90d")
    return {
        "looked_at": len(newest),
        "is_all": len(newest) < LOOKED_AT,
        "count": len(addresses),
        "addresses": [
            (shown_recipient(asked.rights, *address), _url(asked, own, *address))
            for address in addresses[:NAMED]
        ],
    }


def _url(asked: Asked, own: Filter, location_id: int, address: str) -> str:
    """The list of an address's mail; none where it would name whom the page does not."""
    return "" if asked.rights.masks(location_id) else list_url(own.with_("q", address))


def _is_quick(asked: Asked) -> bool:
    return whole_of(asked).counts.sent <= AT_ONCE


REPEATS = Later("repeats", "dashboard/location/_repeats.html", _load, every=60, is_quick=_is_quick)
