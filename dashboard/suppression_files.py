"""Addresses from a CSV file, put on a location's suppression list by a person."""

import csv
from datetime import datetime
from typing import NamedTuple

from django.db import transaction

from dashboard.audit import note
from dashboard.suppression import Actor, Cause, Finding, actor_id, enter
from ingest.models import Location

MAX_BYTES = 5 * 1024 * 1024
MOST = 50_000  # addresses of a file
_HEADS = ("recipient", "email", "e-mail", "email address", "address")
_CHUNK = 1_000


class FileError(ValueError):
    """A file that cannot be read as addresses. Its text is one plain sentence."""


class Import(NamedTuple):
    """What a file did."""

    entered: int
    known: int
    unread: int

    @property
    def sentence(self) -> str:
        """What was done, in one sentence or two."""
        said = f"{self.entered:,} put on the list, {self.known:,} were on it."
        return said + (f" {self.unread:,} lines hold no address." if self.unread else "")


def read_addresses(data: bytes) -> tuple[list[str], int]:
    """The addresses of a CSV file, once each, and how many lines hold none.

    Its first line names the columns, of which one is the address; or it has one column and no
    such line. Raises ``FileError``.
    """
    if len(data) > MAX_BYTES:
        raise FileError("The file is larger than 5 MB.")
    try:
        lines = data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise FileError("The file is not UTF-8 text: save it as CSV UTF-8.") from None
    delimiter = max(",;\t", key=(lines or [""])[0].count)
    try:
        rows = [row for row in csv.reader(lines, delimiter=delimiter) if any(row)]
    except csv.Error as error:
        raise FileError(f"The file is no CSV: {error}.") from None
    if not rows:
        raise FileError("The file is empty.")
    column = _column(rows[0])
    named = rows if column is None else rows[1:]
    texts = [address_of(row[column or 0]) if len(row) > (column or 0) else "" for row in named]
    found = list(dict.fromkeys(text for text in texts if text))
    if len(found) > MOST:
        raise FileError(f"The file has more than {MOST:,} addresses: split it.")
    return found, texts.count("")


def _column(heads: list[str]) -> int | None:
    known = [head.strip().lower() for head in heads]
    for head in _HEADS:
        if head in known:
            return known.index(head)
    if len(heads) == 1 and address_of(heads[0]):
        return None
    raise FileError("The first line must name the columns, one of them recipient or email.")


def address_of(text: str) -> str:
    """What was typed, as an address in lower case; "" for what is none.

    A spreadsheet's apostrophe in front is no part of it.
    """
    text = text.strip().removeprefix("'").strip("<> ").lower()
    name, at, domain = text.rpartition("@")
    good = name and at and "." in domain and len(text) <= 320 and text.isprintable()
    return text if good and " " not in text else ""


def import_addresses(
    data: bytes, location: Location, by: Actor, *, reason: str, now: datetime
) -> Import:
    """Put a file's addresses on a location's list, all or none. Raises ``FileError``."""
    addresses, unread = read_addresses(data)
    entered = 0
    with transaction.atomic():
        for start in range(0, len(addresses), _CHUNK):
            entered += len(
                enter(
                    Finding(
                        location.pk, text, Cause.HAND, now, reason=reason[:300], by_id=actor_id(by)
                    )
                    for text in addresses[start : start + _CHUNK]
                )
            )
        note(by, "import suppressions", location, location_id=location.pk, number=entered)
    return Import(entered, len(addresses) - entered, unread)
