"""Names that people give, one or many at a time. LCEmailStats webhooks carry ids only."""

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple
from zoneinfo import available_timezones

from django.db import transaction
from django.utils import timezone

from ingest.models import Location, Value
from ingest.vocabulary import Dimension

MAX_BYTES = 5 * 1024 * 1024
MAX_NAME = 200
COLUMNS = ("kind", "id", "name", "timezone")
KINDS = ("location", "campaign")
_IDS = {"id", "location id", "locationid", "location_id", "campaign id", "ref"}
SHOWN = 5  # of each trouble


class NamesError(ValueError):
    """A file that cannot be read as names. Its text is one plain sentence."""


class Named(NamedTuple):
    """One line: what it names, and how. Empty is: leave as it is."""

    line: int
    kind: str
    id: str
    name: str
    timezone: str


@dataclass
class Import:
    """What a file did: how many names it set, and which ids nobody knows."""

    changed: int = 0
    unchanged: int = 0
    unknown: list[str] = field(default_factory=list)

    @property
    def sentence(self) -> str:
        """What was done, in one sentence or two."""
        said = f"{self.changed:,} named, {self.unchanged:,} as they were."
        if self.unknown:
            more = len(self.unknown) - SHOWN
            ids = ", ".join(self.unknown[:SHOWN]) + (f" and {more:,} more" if more > 0 else "")
            said += f" Not known here, so left out: {ids}."
        return said


def read_names(data: bytes) -> list[Named]:
    """The lines of a CSV file. Raises ``NamesError``, which names the line."""
    if len(data) > MAX_BYTES:
        raise NamesError("The file is larger than 5 MB.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise NamesError("The file is not UTF-8 text: save it as CSV UTF-8.") from None
    try:
        delimiter = csv.Sniffer().sniff(text[:4096].partition("\n")[0] or ",", ",;\t").delimiter
    except csv.Error:
        delimiter = ","
    rows = csv.reader(text.splitlines(), delimiter=delimiter)
    try:
        columns = _columns(next(rows, []))
        return [
            _named(rows.line_num, dict(zip(columns, row, strict=False))) for row in rows if any(row)
        ]
    except csv.Error as error:
        raise NamesError(f"Line {rows.line_num} cannot be read: {error}.") from None


def _columns(heads: Iterable[str]) -> list[str]:
    known = [head.strip().lower() for head in heads]
    columns = ["id" if head in _IDS else head for head in known]
    if "id" not in columns or "name" not in columns:
        raise NamesError("The first line must name the columns: id and name.")
    return columns


def _named(line: int, row: Mapping[str, str]) -> Named:
    kind, ref, name, zone = (row.get(column, "").strip() for column in COLUMNS)
    kind = kind.lower() or "location"
    if kind not in KINDS:
        raise NamesError(f"Line {line}: kind is location or campaign.")
    if not ref:
        raise NamesError(f"Line {line} has no id.")
    if len(name) > MAX_NAME or "\0" in ref + name:
        raise NamesError(f"Line {line}: a name has at most {MAX_NAME} characters.")
    if zone and zone not in available_timezones():
        raise NamesError(f"Line {line}: the time zone is no IANA name, such as America/Chicago.")
    return Named(line, kind, ref, name, zone)


def apply_names(names: Iterable[Named]) -> Import:
    """Set all names or none. The last line about an id counts."""
    wanted = {(named.kind, named.id): named for named in names}
    done = Import()
    with transaction.atomic():
        _name_locations([n for (kind, _), n in wanted.items() if kind == "location"], done)
        _name_campaigns([n for (kind, _), n in wanted.items() if kind == "campaign"], done)
    return done


def _name_locations(names: list[Named], done: Import) -> None:
    found = Location.objects.select_for_update().in_bulk([n.id for n in names], field_name="ref")
    for named in names:
        location = found.get(named.id)
        if location is None:
            done.unknown.append(named.id)
            continue
        name, zone = named.name or location.name, named.timezone or location.timezone
        _count(done, (location.name, location.timezone) != (name, zone))
        if location.name != name:
            location.name_at = timezone.now()
        location.name, location.timezone = name, zone
    columns = ["name", "name_at", "timezone"]
    Location.objects.bulk_update(found.values(), columns, batch_size=500)


def _name_campaigns(names: list[Named], done: Import) -> None:
    rows = Value.objects.select_for_update().filter(
        dimension=Dimension.CAMPAIGN, text__in=[n.id for n in names]
    )
    found = {value.text: value for value in rows}
    for named in names:
        value = found.get(named.id)
        if value is None:
            done.unknown.append(named.id)
            continue
        label = named.name or value.label
        _count(done, value.label != label)
        value.label = label
    Value.objects.bulk_update(found.values(), ["label"], batch_size=500)


def _count(done: Import, changed: bool) -> None:
    if changed:
        done.changed += 1
    else:
        done.unchanged += 1
