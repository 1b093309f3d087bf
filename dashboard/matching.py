"""What filters ask of an event that has been read, term by term.

``dashboard.conditions`` asks the same of the database.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from dashboard.words import (
    ATTEMPT_NAMES,
    DEFERRED,
    VALUE_NAMES,
    campaign_keys,
    class_word,
    flag_words,
    keeps_moved,
)
from ingest.fold import SENT
from ingest.vocabulary import NONE_KEY, OTHER_KEY, BounceClass, Category, Flag, Outcome

if TYPE_CHECKING:
    from dashboard.queries import EventRow, Way

_KEYS: dict[str, Callable[["EventRow"], tuple[str, ...]]] = {
    "location": lambda row: (row.location,),
    "company": lambda row: (row.company or NONE_KEY,),
    "tag": lambda row: row.tags or (NONE_KEY,),
    "campaign": lambda row: campaign_keys(row.campaign),
    "step": lambda row: (row.step or NONE_KEY,),
    "provider": lambda row: (row.provider or NONE_KEY,),
    "domain": lambda row: (row.domain or NONE_KEY,),
    "sending_domain": lambda row: (row.sending_domain or NONE_KEY,),
    "outcome": lambda row: (Outcome(row.outcome).word,) if row.outcome else (),
    "class": lambda row: (class_word(row.outcome, row.bounce_class),),
    "category": lambda row: (Category(row.category).word if row.category else NONE_KEY,),
    "deferral_category": lambda row: row.deferral_categories or (NONE_KEY,),
    "code": lambda row: (str(row.delivery_code or NONE_KEY),),
    "is": lambda row: flag_words(row.flags),
    "reason": lambda row: (str(row.reason_id or NONE_KEY),),
}
# The event's own, where the refusal is asked for that it tells of.
OWN_KEYS: dict[str, Callable[["EventRow"], str]] = {
    "ip": lambda row: row.ip or NONE_KEY,
    "pool": lambda row: row.pool or NONE_KEY,
    "mx": lambda row: row.mx or NONE_KEY,
    "provider": lambda row: row.own_provider or NONE_KEY,
    "category": lambda row: Category(row.own_category).word if row.own_category else NONE_KEY,
    "class": lambda row: BounceClass(row.own_class).word if row.own_class else NONE_KEY,
    "code": lambda row: str(row.code or NONE_KEY),
}
type Test = Callable[["EventRow"], bool]
type Wanted = dict[str, frozenset[str]]
"""Values by the names of ``ATTEMPT_NAMES``."""


def negated(test: Test, excluded: bool) -> Test:
    return (lambda row: not test(row)) if excluded else test


def test_of(name: str, values: Sequence[str]) -> Test:
    if name == "q":
        return lambda row: any(_found(value, row) for value in values)
    keys, wanted = _KEYS[name], frozenset(values)
    if OTHER_KEY in wanted and name in VALUE_NAMES:
        return lambda row: name in row.uncounted or not wanted.isdisjoint(keys(row))
    return lambda row: not wanted.isdisjoint(keys(row))


def _found(search: str, row: "EventRow") -> bool:
    if search.startswith("@"):
        return row.domain == search[1:].lower()
    return row.recipient.startswith(search.lower()) or row.message_id == search


def _is_one(text: str, wanted: frozenset[str], way: "Way") -> bool:
    return (text or NONE_KEY) in wanted or (OTHER_KEY in wanted and text in way.uncounted)


def test_of_attempts(name: str, wanted: frozenset[str]) -> Test:
    def test(row: "EventRow") -> bool:
        way = row.way(name)
        return any(_is_one(text, wanted, way) for text in (way.decided, *way.tried))

    return test


def _decided(row: "EventRow", wanted: Wanted) -> bool:
    return all(_is_one((way := row.way(name)).decided, vs, way) for name, vs in wanted.items())


def _deferred(row: "EventRow", wanted: Wanted) -> bool:
    """Whether a temporary failure came from there: from where it was decided, unless it says."""
    return bool(row.flags & Flag.DEFERRED) and all(
        any(_is_one(text, values, way) for text in way.deferred or (way.decided,))
        for name, values in wanted.items()
        for way in [row.way(name)]
    )


def test_of_refusal(name: str, values: Sequence[str]) -> Test:
    """A test of what the event says of its own refusal; of all else, of its delivery."""
    key, wanted = OWN_KEYS.get(name), frozenset(values)
    if key is None:
        return test_of(name, values)
    if name in ATTEMPT_NAMES and OTHER_KEY in wanted:
        return lambda row: key(row) in wanted or key(row) in row.way(name).uncounted
    return lambda row: key(row) in wanted


def test_of_decision(name: str, values: Sequence[str], wanted: Wanted) -> Test:
    """A test of what happened at the end, where that was at the attempts wanted."""
    test = test_of(name, values)
    if name == "outcome" and keeps_moved(values):
        return lambda row: test(row) if _decided(row, wanted) else row.outcome in SENT
    if name == "is" and DEFERRED in values:
        others = test_of(name, [value for value in values if value != DEFERRED])
        return lambda row: (others(row) and _decided(row, wanted)) or _deferred(row, wanted)
    return lambda row: test(row) and _decided(row, wanted)
