"""What is read of the suppression list: page by page, as the reader may see it; and as a file."""

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any, NamedTuple

from asgiref.sync import sync_to_async
from django.db.models import Count, Q, QuerySet

from dashboard.access import Rights, restrict, shown_recipient, shown_text
from dashboard.bounded import bounded_reads
from dashboard.conditions import beginning
from dashboard.export import BOM, LONGEST, ROWS, AskRights, Interrupted, csv_text
from dashboard.filters import Filter, FilterError
from dashboard.models import Suppressed
from dashboard.suppression import Cause, State

SHOWN = 50  # entries a page
COUNTED = 10_000  # up to so many are counted
CHOICES = {"cause": tuple(Cause.values), "state": tuple(State.values)}
_NAMES = frozenset({"location", "company", "q"})
COLUMNS = (
    "recipient", "location", "location_name", "cause", "state", "since", "died_at", "released_at",
    "reason", "provider",
)  # fmt: skip


class Entry(NamedTuple):
    """One address of the list, as its reader may see it. Texts are raw."""

    id: int
    recipient: str
    location_id: int
    location: str
    location_name: str
    cause: str
    state: str
    since: datetime
    died_at: datetime | None
    released_at: datetime | None
    reason: str
    provider: str

    @property
    def why(self) -> str:
        """Its cause in words."""
        return Cause(self.cause).label

    def as_json(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {name: getattr(self, name) for name in COLUMNS} | {"id": self.id}


class EntriesPage(NamedTuple):
    """A page of entries, newest first; ``before`` asks for the next one, if there is one."""

    rows: list[Entry]
    before: str = ""


class Wanted(NamedTuple):
    """What of the list is asked for: a filter's places and search, causes and states."""

    filter: Filter
    cause: str = ""
    state: str = ""

    def entries(self, rights: Rights) -> QuerySet[Suppressed]:
        """What matches and may be seen.

        Raises ``FilterError`` for what the list cannot be filtered by, ``Http404`` for a location
        that may not be seen.
        """
        self.filter.check_locations(rights)
        if strange := self.filter.names - _NAMES:
            raise FilterError(f"The suppression list has no {min(strange)}.")
        for name, choices in CHOICES.items():
            if (value := getattr(self, name)) and value not in choices:
                raise FilterError(f"{name} is one of {', '.join(choices)}.")
        found = restrict(Suppressed.objects.all(), rights)
        if (places := self.filter.location_ids(rights)) is not None:
            found = found.filter(location_id__in=places)
        if self.cause:
            found = found.filter(cause=self.cause)
        states = [self.state] if self.state else [State.ON, State.HELD]
        return found.filter(*self._searches(), state__in=states)

    def _searches(self) -> list[Q]:
        found = []
        for excluded in (False, True):
            any_of = Q()
            for value in self.filter.values("q", excluded=excluded):
                text = value.lower()
                at = text.startswith("@")
                any_of |= Q(recipient__endswith=text) if at else beginning(text, "")
            if any_of:
                found.append(~any_of if excluded else any_of)
        return found


def entries_page(
    wanted: Wanted, rights: Rights, *, before: str = "", limit: int = SHOWN
) -> EntriesPage:
    """Up to ``limit`` entries, the newest first. Raises as ``Wanted.entries``."""
    found = wanted.entries(rights)
    if before:
        at, pk = _read_end(before)
        found = found.filter(Q(since__lt=at) | Q(since=at, pk__lt=pk))
    newest = found.select_related("location").order_by("-since", "-pk")[: limit + 1]
    rows = [_entry(entry, rights) for entry in newest]
    more = limit < len(rows)
    rows = rows[:limit]
    return EntriesPage(rows, f"{rows[-1].since.isoformat()}_{rows[-1].id}" if more else "")


def _entry(entry: Suppressed, rights: Rights) -> Entry:
    place = entry.location
    return Entry(
        id=entry.pk,
        recipient=shown_recipient(rights, place.pk, entry.recipient),
        location_id=place.pk,
        location=place.ref,
        location_name=place.name,
        cause=entry.cause,
        state=entry.state,
        since=entry.since,
        died_at=entry.died_at,
        released_at=entry.released_at,
        reason=shown_text(rights, place.pk, entry.reason, entry.recipient),
        provider=entry.provider,
    )


def _read_end(text: str) -> tuple[datetime, int]:
    try:
        moment, _, pk = text.replace(" ", "+").rpartition("_")
        at = datetime.fromisoformat(moment)
        if at.tzinfo is None:
            raise ValueError
        return at, int(pk)
    except ValueError:
        raise FilterError("before is not the end of a page.") from None


def counted(wanted: Wanted, rights: Rights) -> tuple[int, bool]:
    """How many entries there are, up to ``COUNTED``; and whether there are more."""
    number = wanted.entries(rights).order_by()[: COUNTED + 1].count()
    return min(number, COUNTED), number > COUNTED


def held_by_provider(wanted: Wanted, rights: Rights) -> list[tuple[str, int]]:
    """How many entries are held, by the provider that was unwell, the most first."""
    held = Wanted(wanted.filter.only("location", "company"), state=State.HELD).entries(rights)
    grouped = held.order_by().values_list("provider").annotate(n=Count("pk"))
    return sorted(grouped, key=lambda row: (-row[1], row[0]))


async def csv_pages(
    wanted: Wanted, rights: Rights, first: EntriesPage, ask_rights: AskRights
) -> AsyncIterator[str]:
    """The list as CSV, page by page. Raises ``Interrupted`` when the reader's rights change."""
    yield BOM + csv_text([COLUMNS])
    page = first
    while True:
        yield csv_text([getattr(row, name) for name in COLUMNS] for row in page.rows)
        if not page.before:
            return
        page = await sync_to_async(_next)(wanted, rights, page.before, ask_rights)


def _next(wanted: Wanted, rights: Rights, before: str, ask_rights: AskRights) -> EntriesPage:
    if ask_rights() != rights:
        raise Interrupted("the rights of who exports have changed")
    with bounded_reads(LONGEST):
        return entries_page(wanted, rights, before=before, limit=ROWS)
