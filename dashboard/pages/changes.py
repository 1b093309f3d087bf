"""What changed since the period before, at equal age: which parts of the mail moved a rate.

A region for any page: ``CHANGES``, with the option ``measure`` (``CHANGES_PARAMS``).
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

from dashboard.access import Rights
from dashboard.changed import Changed, changed
from dashboard.filters import Filter, FilterError
from dashboard.judging import Cause, Changes, Part
from dashboard.names import CATEGORY_WORDS, name_of, page_url
from dashboard.pages.later import Later
from dashboard.pages.page import Asked
from dashboard.pages.subject import by_sending, whole_of
from dashboard.refreshed import Kept
from dashboard.templatetags.figures import percent
from ingest.vocabulary import Category

MEASURES = {
    "hard_bounce_rate": "Bad addresses",
    "block_rate": "Provider blocks",
    "bounce_rate": "All bounces",
    "visible_complaint_rate": "Complaints where reported",
    "deferral_rate": "Deferrals",
}
CHANGES_PARAMS = {"measure": tuple(MEASURES)}
DEFAULT = "hard_bounce_rate"
AT_ONCE = 5_000  # mails: so few are compared while the page is painted
NAMED = 3  # parts of a dimension that are named
BY = ("campaign", "provider", "ip", "pool")
MANY = 100_000  # mails of many locations, which are only split by these
BY_OF_MANY = ("location", "provider")
_CAUSES = {Cause.RATE: "its rate", Cause.MIX: "its share of the mail"}
_HEADS = {
    "campaign": "Campaigns and workflows",
    "provider": "Mailbox providers",
    "ip": "Sending IPs",
    "pool": "Pools",
    "location": "Locations",
}


class Moved(NamedTuple):
    """A part of a move: whose, why, and by how many percentage points."""

    name: str
    url: str
    cause: str
    points: str


class Dimension(NamedTuple):
    """One way of splitting the mail: its parts, and all that is left."""

    head: str
    parts: list[Moved]
    more: int  # clear parts that are not named
    rest: str  # "" where parts are each beside all other mail


def points(share: float) -> str:
    """A move in percentage points: ``+1.9``; two digits under one."""
    value = 100 * share
    text = f"{abs(value):.2f}" if abs(value) < 0.995 else f"{abs(value):.1f}"
    if float(text) == 0:
        return "±0"
    return f"{'+' if value > 0 else '−'}{text}"


def sentence(name: str, found: Changes, labels: Iterable[tuple[Part, str]]) -> str:
    """``Bad addresses: +1.9 points = “Reactivation 2019” +2.2, rest −0.3.``"""
    named = [f"“{label}” {points(part.effect)}" for part, label in labels]
    shown = sum(part.effect for part in found.parts[: len(named)])
    rest = f"rest {points(found.move - shown)}"
    move = points(found.move)
    unit = "point" if move in ("+1.0", "−1.0") else "points"
    if not named:
        return f"{name}: {move} {unit}, and no part of the mail clearly stands out."
    return f"{name}: {move} {unit} = {', '.join([*named, rest])}."


def _load(asked: Asked) -> dict[str, Any]:
    filter = by_sending(asked)
    measure = asked.options.get("measure", DEFAULT)
    context: dict[str, Any] = {"measures": _measures(asked, measure)}
    if not (filter.range or (filter.since and filter.to)):
        return context | {"none": "Without both bounds of time there is no period before."}
    by = _dimensions(asked)
    try:
        found = _changed(asked, filter, measure, by)
    except FilterError as error:
        return context | {"none": str(error)}
    context["is_narrowed"] = by == BY_OF_MANY
    return context | _shown(asked, found, MEASURES[measure])


def _dimensions(asked: Asked) -> tuple[str, ...]:
    """What the mail is split by: over much mail of many locations only what is quickly told."""
    if not asked.subject and whole_of(asked).counts.sent > MANY:
        return BY_OF_MANY
    return tuple(name for name in ("location", *BY) if name != asked.subject)


_kept = Kept[tuple[str, Rights, str, str, tuple[str, ...]], Changed](
    lambda found: found.now.sent > MANY
)


def _changed(asked: Asked, filter: Filter, measure: str, by: tuple[str, ...]) -> Changed:
    """What moved the rate; over much mail as of a minute or two ago."""
    compare, rights, now = asked.options.get("compare", "previous"), asked.rights, asked.now
    return _kept.get(
        (filter.canonical(), rights, measure, compare, by),
        lambda: changed(filter, rights, measure=measure, by=by, compare=compare, now=now),
    )


def _shown(asked: Asked, found: Changed, name: str) -> dict[str, Any]:
    then, now = (getattr(side, found.measure) for side in (found.before.total, found.now))
    if then.value is None or now.value is None:
        when = "in the period before" if then.value is None else "in this range"
        return {"none": f"Nothing to compare: no mail {when}."}
    by, (changes, labels) = next(iter(found.by.items()))
    said = ""
    if changes:
        parts = changes.parts[: NAMED - 1]
        said = sentence(name, changes, [(part, _name(by, part.key, labels)) for part in parts])
    return {
        "sentence": said,
        "then": f"{percent(then.value)} ({then.numerator:,} of {then.denominator:,})",
        "today": f"{percent(now.value)} ({now.numerator:,} of {now.denominator:,})",
        "dimensions": [
            _dimension(asked, by, changes, labels)
            for by, (changes, labels) in found.by.items()
            if changes is not None and len(labels) > 1  # of one part alone there is nothing to tell
        ],
        "compared": found.before.question.filter,
        "is_exact": found.before.is_exact,
        "complete_from": found.complete_from,
    }


def _dimension(asked: Asked, by: str, found: Changes, labels: Any) -> Dimension:
    parts = found.parts[:NAMED]
    unnamed = sum(part.effect for part in found.parts[NAMED:])
    adds_up = by in ("campaign", "provider", "location")
    return Dimension(
        head=_HEADS.get(by, by),
        parts=[
            Moved(
                _name(by, part.key, labels),
                _url(asked, by, part.key),
                _CAUSES[part.cause],
                points(part.effect),
            )
            for part in parts
        ],
        more=len(found.parts) - len(parts),
        rest=points(found.rest + unnamed) if adds_up else "",
    )


def _name(by: str, key: str, labels: Any) -> str:
    if by == "category":
        return CATEGORY_WORDS[Category(Category.from_word(key))]
    return name_of(by, key, labels.get(key, ""))


def _url(asked: Asked, by: str, key: str) -> str:
    if by in ("campaign", "location"):
        return page_url(by, key, query=asked.own.without(by).canonical())
    try:
        return asked.link(asked.own.with_(by, key))
    except FilterError:
        return ""


def _measures(asked: Asked, chosen: str) -> list[dict[str, Any]]:
    return [
        {
            "label": label,
            "url": asked.link(measure=None if name == DEFAULT else name) + "#changes",
            "current": name == chosen,
        }
        for name, label in MEASURES.items()
    ]


def _is_quick(asked: Asked) -> bool:
    return whole_of(asked).counts.sent <= AT_ONCE


CHANGES = Later("changes", "dashboard/location/_changes.html", _load, every=60, is_quick=_is_quick)
