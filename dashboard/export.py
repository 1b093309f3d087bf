"""Files: a list of deliveries as CSV or as one JSON array, and a table of rates as CSV.

What is filtered, in the order of the list, page by page: each page is a read of its own, so that
no snapshot stays open while somebody's line is slow, and little is held in memory. A delivery that
arrives meanwhile is not in the file; one that changes its place meanwhile is in it once.

CSV begins with a byte order mark, without which Excel does not read UTF-8 (Python's name for this
is "utf-8-sig"). Cells that a spreadsheet would take for a formula get an apostrophe in front, and
all are quoted (OWASP, "CSV Injection"); JSON has everything as it is. An array that was cut off
does not parse, and a CSV that was cut off ends in an error of the transfer.
"""

import csv
import io
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from datetime import datetime
from typing import Any

import orjson
from asgiref.sync import sync_to_async
from django.http import HttpResponse, StreamingHttpResponse
from django.utils.cache import patch_cache_control

from dashboard.access import Rights
from dashboard.bounded import TookTooLong, bounded_reads
from dashboard.filters import Filter, FilterError
from dashboard.queries import DeliveriesPage, DeliveryRow, deliveries_page
from dashboard.rate_tables import RatesTable
from dashboard.rates import COUNTS, RATES
from ingest.models import Location

ROWS = 1_000  # a page
LONGEST = 5.0  # seconds that the read of a page may take …
WALK = 2.0  # … of which it follows the index so long: rare rows cost a scan a page without it
FORMATS = ("csv", "json")
BOM = "\ufeff"

COLUMNS = (
    "id", "sent_at", "outcome", "class", "category", "code", "recipient", "message_id", "location",
    "location_name", "campaign", "campaign_label", "step", "provider", "domain", "sending_domain",
    "ip", "pool", "mx", "tags", "is", "deferral_categories", "reason_id",
)  # fmt: skip
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


class Interrupted(Exception):
    """The rest may not be read any more, or not in time: the transfer breaks off."""


type AskRights = Callable[[], Rights | None]
"""The rights of who exports, as they are at that moment."""


def export(
    filter: Filter, rights: Rights, form: str, ask_rights: AskRights
) -> StreamingHttpResponse:
    """The answer with the file. ``form``: one of ``FORMATS``.

    Raises ``FilterError``, ``Http404`` and ``TookTooLong`` as the list does: the first page is
    read before anything is sent.
    """
    if form not in FORMATS:
        raise FilterError(f"format is one of {', '.join(FORMATS)}.")
    first = _page(filter, rights, "")
    pages = _pages(filter, rights, first, ask_rights)
    write, kind = (_csv, "text/csv") if form == "csv" else (_json, "application/json")
    answer = StreamingHttpResponse(write(pages), content_type=f"{kind}; charset=utf-8")
    moment = filter.now.astimezone(filter.zone)
    answer["Content-Disposition"] = (
        f'attachment; filename="deliveries-{moment:%Y%m%d-%H%M%S}.{form}"'
    )
    patch_cache_control(answer, private=True, no_store=True)
    return answer


# --- Pages ---------------------------------------------------------------------------------------


def _page(filter: Filter, rights: Rights, before: str) -> DeliveriesPage:
    with bounded_reads(LONGEST):
        return deliveries_page(filter, rights, before=before, limit=ROWS, walk=WALK)


async def _pages(
    filter: Filter, rights: Rights, page: DeliveriesPage, ask_rights: AskRights
) -> AsyncIterator[list[dict[str, Any]]]:
    """Rows by the page, each delivery once. Raises ``Interrupted``."""
    seen = _Seen()
    while True:
        yield await sync_to_async(_named)([row for row in page.rows if seen.add(row.id)])
        if page.before is None:
            return
        page = await sync_to_async(_next)(filter, rights, page.before, ask_rights)


def _next(filter: Filter, rights: Rights, before: str, ask_rights: AskRights) -> DeliveriesPage:
    if ask_rights() != rights:
        raise Interrupted("the rights of who exports have changed")
    try:
        return _page(filter, rights, before)
    except TookTooLong as error:
        raise Interrupted("the next rows took too long") from error


def _named(rows: Sequence[DeliveryRow]) -> list[dict[str, Any]]:
    """Rows as the API has them, with the names of their locations."""
    names = Location.objects.in_bulk({row.location_id for row in rows})
    return [
        row.as_json() | {"location_name": names[row.location_id].name or None}
        if row.location_id in names
        else row.as_json()
        for row in rows
    ]


class _Seen:
    """Which deliveries the file has: a bit each, so that ten million take little more than 1 MB.

    An earlier event that arrives late moves a delivery down the list, perhaps into what is still
    to be read.
    """

    def __init__(self) -> None:
        self._bits = bytearray()

    def add(self, pk: int) -> bool:
        """Note a delivery. False if it was noted before."""
        byte, bit = divmod(pk, 8)
        if byte >= len(self._bits):
            self._bits.extend(bytes(byte + 1 - len(self._bits)))
        is_new = not self._bits[byte] >> bit & 1
        self._bits[byte] |= 1 << bit
        return is_new


# --- Rates ---------------------------------------------------------------------------------------


def rates_csv(table: RatesTable, now: datetime) -> HttpResponse:
    """A table of rates as a CSV file: counts, then each rate and its 95 % range as shares of one.

    The last row, ``(total)``, is of all mail; where rows overlap, they add up to more.
    """
    found = table.as_json()
    rows = [*found["rows"], {**found["total"], "key": "(total)"}]
    heads = [table.by, "name", *COUNTS]
    heads += [head for name in RATES for head in (name, f"{name}_low", f"{name}_high")]
    text = csv_text([heads, *(_rates_cells(row) for row in rows)])
    answer = HttpResponse(BOM + text, content_type="text/csv; charset=utf-8")
    answer["Content-Disposition"] = (
        f'attachment; filename="rates-by-{table.by}-{now:%Y%m%d-%H%M%S}.csv"'
    )
    patch_cache_control(answer, private=True, no_store=True)
    return answer


def _rates_cells(row: dict[str, Any]) -> list[Any]:
    rates = [row[name][part] for name in RATES for part in ("value", "low", "high")]
    return [row["key"], row["label"], *(row[name] for name in COUNTS), *rates]


# --- Formats -------------------------------------------------------------------------------------

type _Rows = AsyncIterator[list[dict[str, Any]]]


async def _csv(pages: _Rows) -> AsyncIterator[str]:
    yield BOM + csv_text([COLUMNS])
    async for rows in pages:
        yield csv_text([row.get(name) for name in COLUMNS] for row in rows)


async def _json(pages: _Rows) -> AsyncIterator[bytes]:
    opening = b"["
    async for rows in pages:
        if rows:
            yield opening + b",\n".join(orjson.dumps(row) for row in rows)
            opening = b",\n"
    yield (b"[" if opening == b"[" else b"") + b"]\n"


def csv_text(rows: Iterable[Iterable[Any]]) -> str:
    """Rows as CSV (RFC 4180), every cell quoted, and none a formula."""
    text = io.StringIO(newline="")
    csv.writer(text, quoting=csv.QUOTE_ALL).writerows(
        [cell(value) for value in row] for row in rows
    )
    return text.getvalue()


def cell(value: Any) -> str:
    """A value as a cell: nothing is empty, several are joined, and a formula is made harmless."""
    if value is None:
        return ""
    text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    is_number = isinstance(value, int | float)
    return f"'{text}" if not is_number and text.startswith(_FORMULA) else text
