"""The list behind a number: which filter of deliveries lists exactly what a cell counts."""

from dataclasses import replace

from dashboard.filters import Filter, Term
from dashboard.spans import clipped, span_of
from dashboard.tallies import ATTEMPTS, BY_TIME, REST_KEY

_SENT = ("delivered", "bounced", "deferred", "accepted")

# What a delivery must be to be in a count: any of these words of this filter.
LISTED_BY: dict[str, tuple[str, tuple[str, ...]]] = {
    "sent": ("outcome", _SENT),
    "delivered": ("outcome", ("delivered",)),
    "bounced": ("outcome", ("bounced",)),
    "in_flight": ("outcome", ("deferred", "accepted")),
    "settled": ("outcome", ("delivered", "bounced")),
    "suppressed": ("outcome", ("suppressed",)),
    "rejected": ("outcome", ("rejected",)),
    "orphan": ("outcome", ("orphan",)),
    "unknown": ("outcome", ("unknown",)),
    "test": ("outcome", ("test",)),
    "moved": ("outcome", ("moved",)),
    "hard": ("class", ("hard",)),
    "soft": ("class", ("soft",)),
    "block": ("class", ("block",)),
    "undetermined": ("class", ("undetermined",)),
    "deferred": ("is", ("deferred",)),
    "complained": ("is", ("complained",)),
    "unsubscribed": ("is", ("unsubscribed",)),
    "opened": ("is", ("opened",)),
    "opened_human": ("is", ("opened_human",)),
    "clicked": ("is", ("clicked",)),
    "late_bounced": ("is", ("late",)),
    "recovered": ("is", ("recovered",)),
    "inferred": ("is", ("inferred",)),
    "reached": ("is", ("reached",)),
    "visible_reached": ("is", ("visible",)),
    "visible_complained": ("is", ("visible_complained",)),
    "block_low": ("is", ("block_low",)),
    "block_high": ("is", ("block_high",)),
}


def list_filter(filter: Filter, by: str, key: str, count: str) -> Filter | None:
    """The filter whose deliveries are those that a cell of a table of rates counts.

    ``filter`` and ``by`` are the table's, ``key`` is the row's ("" for the total), ``count`` one
    of ``rates.COUNTS``. ``None`` where there is no such list: for the row ``(rest)``, for counts
    of events, for counts that the filter leaves empty, and for a count by one flag under a filter
    that asks for others, because ``is`` has any of its words.
    """
    if filter.clock == "event" or key == REST_KEY:
        return None
    row = _row(filter, by, key) if key else filter
    name, words = LISTED_BY[count]
    kept = _both(name, row.values(name), words)
    if not kept or (count == "moved" and not any(row.values(name) for name in ATTEMPTS)):
        return None
    others = {term for term in row.terms if term.name != name or term.excluded}
    return replace(row, terms=tuple(sorted(others | {Term(name, word) for word in kept})))


def _row(filter: Filter, by: str, key: str) -> Filter:
    if by not in BY_TIME:
        return filter.with_(by, key)
    since, to = clipped(span_of(key, by, filter.zone), filter.start, filter.until)
    return replace(filter, range="", since=since, to=to)


def _both(name: str, asked: tuple[str, ...], words: tuple[str, ...]) -> tuple[str, ...]:
    """The words of one filter that hold for what was asked and is counted; none: no such list."""
    if not asked:
        return words
    if name == "is":
        return words if set(asked) == set(words) else ()
    counted = {*words, "moved"} if words == _SENT else set(words)
    return tuple(word for word in asked if word in counted)
