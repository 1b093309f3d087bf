"""What is refused, and why: each refusal once, how much, how far, whose to fix, and if it grows."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from functools import wraps
from typing import Any, NamedTuple

from django.http import Http404

from dashboard import draining, reasons
from dashboard.bounded import TookTooLong, bounded_reads
from dashboard.draining import Direction, Steps
from dashboard.failing import list_url, reason_url
from dashboard.filters import Filter, FilterError
from dashboard.names import CATEGORY_WORDS, FIXERS, name_of
from dashboard.pages.common import PULSE
from dashboard.pages.page import Asked, Load, Page, Rows
from dashboard.spans import moment_of
from ingest.vocabulary import NONE_KEY, BounceClass, Category

PER_PAGE = 25
SORTS = {
    "count": "-count",
    "newest": "-first_seen",
    "last": "-last_seen",
    "locations": "-locations",
}
PARAMS = {"sort": tuple(SORTS), "only": ("new",), "page": ()}
LONGEST = 3.0  # seconds that a region may take
TOO_MUCH = "Too much to count for this range: choose a shorter one."
SPARK_STEPS, SPARK_HEIGHT = 48, 24
PROVIDERS = 3  # named in a row

# Whose problem a refusal is, in words; the plain ones of HighLevel's are said apart.
CLASS_WORDS = {
    BounceClass.HARD: "bad address",
    BounceClass.SOFT: "passing trouble",
    BounceClass.BLOCK: "block",
    BounceClass.SUPPRESSED: "not even tried",
    BounceClass.UNDETERMINED: "undetermined",
}


def by_event_time(filter: Filter) -> Filter:
    """The filter without a clock: refusals count when they happen, and no other way."""
    return replace(filter, clock="") if filter.clock else filter


def heavy(load: Load) -> Load:
    """A region's load that says so where it would take too long, or nothing is to be seen."""

    @wraps(load)
    def bounded(asked: Asked) -> Mapping[str, Any]:
        try:
            with bounded_reads(LONGEST):
                return load(asked)
        except TookTooLong:
            return {"sentence": TOO_MUCH}
        except FilterError as error:
            return {"sentence": str(error)}
        except Http404:
            return {"sentence": "There is no such reason."}

    return bounded


# --- Rows ------------------------------------------------------------------------------------


class Spark(NamedTuple):
    """Refusals as bars in a box of as many units as steps, 24 high."""

    path: str
    width: int
    words: str


class Given(NamedTuple):
    """A provider that gave a refusal, and since when; ``url`` lists its mails."""

    name: str
    events: int
    url: str
    since: datetime
    is_new: bool


class Count(NamedTuple):
    """A number of refusals in a word, and the list of the mails that stand by them."""

    n: int
    word: str
    url: str


class Row(NamedTuple):
    """A refusal as the table shows it; equal as long as it looks the same."""

    id: str
    url: str
    means: str
    text: str
    fixer: str
    category: str
    class_: str
    level: str
    highlevel: str
    chip: str
    reach: str
    whole: Count
    kinds: tuple[Count, ...]
    spark: Spark
    mark: str
    locations: int
    of: int
    given: tuple[Given, ...]
    more_given: int
    first: datetime
    last: datetime


def spark_of(counts: list[int], steps: Steps) -> Spark:
    """Bars of a refusal on a scale of its own."""
    top = max(4, *counts)  # one refusal is no peak
    bars = "".join(
        f"M{at} {SPARK_HEIGHT}v-{max(1.5, SPARK_HEIGHT * n / top):.1f}h.8V{SPARK_HEIGHT}z"
        for at, n in enumerate(counts)
        if n
    )
    each = length_words(steps)
    return Spark(bars, len(counts), f"{sum(counts):,} refusals, at most {max(counts):,} {each}")


def length_words(steps: Steps) -> str:
    """How long a step is: ``an hour``, ``in 6 hours``, ``a day``."""
    minutes = round(steps.length.total_seconds() / 60)
    if minutes == 1:
        return "a minute"
    if minutes == 60:
        return "an hour"
    if minutes == 24 * 60:
        return "a day"
    if minutes == 7 * 24 * 60:
        return "a week"
    return f"in {minutes // 60} hours"


def counted(row: reasons.Row, filter: Filter) -> tuple[Count, tuple[Count, ...]]:
    """How often a refusal came, and of that how; with the mails that stand by it now."""
    of = replace(filter.with_("reason", str(row.id)), clock="event")
    kinds = (
        Count(row.whole.bounced, "for good", list_url(of.with_("outcome", "bounced"))),
        Count(row.whole.deferred, "put off", list_url(of.with_("outcome", "deferred"))),
        Count(row.whole.suppressed, "not tried", list_url(of.with_("outcome", "suppressed"))),
    )
    events = row.whole.events
    word = "refusal" if events == 1 else "refusals"
    return Count(events, word, list_url(of)), tuple(kind for kind in kinds if kind.n)


def level_of(bounce_class: int) -> str:
    """CSS class of a class's chip."""
    return {BounceClass.HARD: "bad", BounceClass.BLOCK: "bad"}.get(BounceClass(bounce_class), "")


def given_by(row: reasons.Row, filter: Filter) -> tuple[Given, ...]:
    """The providers that gave a refusal, the most frequent first."""
    of = replace(filter.with_("reason", str(row.id)), clock="event")
    found = []
    for at in row.at:
        key = at.provider or NONE_KEY
        url = list_url(of.with_("provider", key))
        found.append(Given(name_of("provider", key), at.events, url, at.first_ever, at.is_new))
    return tuple(found)


def chip_of(reach: reasons.Reach) -> str:
    """How far it reaches in two or three words; "" where the sentence beside it says it all."""
    return "" if reach.scope == "mixed" else reach.scope


def mark_of(row: reasons.Row, where: Direction) -> str:
    """``new at Outlook``, ``escalating``, or "" for what goes on as it did."""
    if row.new_at:
        named = [name or "an unknown provider" for name in row.new_at[:2]]
        everywhere = len(row.new_at) == len(row.at)
        return "new" if everywhere and len(row.at) > 1 else f"new at {' and '.join(named)}"
    return "escalating" if where is Direction.RISING else ""


def _row(row: reasons.Row, asked: Asked, hours: Mapping[int, int], steps: Steps) -> Row:
    filter = by_event_time(asked.filter)
    counts = steps.gathered(hours)
    where = draining.direction(counts, running=draining.passed(steps, asked.now))
    whole, kinds = counted(row, filter)
    given = given_by(row, filter)
    return Row(
        id=f"reason-{row.id}",
        url=reason_url(row.id, filter),
        means=row.rule.means or "A reply that no rule knows.",
        text=row.reason.text,
        fixer=FIXERS.get(row.rule.fix_by, ""),
        category=CATEGORY_WORDS[Category(row.reason.category)],
        class_=CLASS_WORDS.get(BounceClass(row.reason.bounce_class), ""),
        level=level_of(row.reason.bounce_class),
        highlevel=row.rule.highlevel,
        chip=chip_of(row.reach),
        reach=row.reach.sentence,
        whole=whole,
        kinds=kinds,
        spark=spark_of(counts, steps),
        mark=mark_of(row, where),
        locations=row.whole.locations,
        of=row.reach.of,
        given=given[:PROVIDERS],
        more_given=max(0, len(given) - PROVIDERS),
        first=moment_of(row.whole.first_hour),
        last=moment_of(row.whole.last_hour),
    )


# --- The region ------------------------------------------------------------------------------


def _page(asked: Asked) -> int:
    text = asked.options.get("page", "1")
    if not text.isascii() or not text.isdecimal() or not int(text[:6]) >= 1:
        raise FilterError("page is a number from 1 on.")
    return int(text[:6])


def _reasons(asked: Asked) -> dict[str, Any]:
    filter, page = by_event_time(asked.filter), _page(asked)
    first = (page - 1) * PER_PAGE
    found = reasons.reasons(
        filter,
        asked.rights,
        sort=SORTS[asked.options.get("sort", "count")],
        limit=PER_PAGE,
        offset=first,
        only_new=asked.options.get("only") == "new",
    )
    pks = [row.id for row in found.rows]
    hours = reasons.trends(pks, filter, asked.rights) if pks else {}
    seen = [hour for each in hours.values() for hour in each]
    earliest = moment_of(min(seen)) if seen else None
    steps = draining.steps_of(filter, most=SPARK_STEPS, earliest=earliest)
    return {
        "rows": [_row(row, asked, hours[row.id], steps) for row in found.rows],
        "first": first + 1,
        "last": first + len(found.rows),
        "total": found.total,
        "previous": asked.link(page=str(page - 1) if page > 2 else None) if page > 1 else "",
        "next": asked.link(page=str(page + 1)) if found.more else "",
        "complete_from": found.complete_from,
        "each": length_words(steps),
    }


class Choice(NamedTuple):
    """A link that sorts or narrows the list."""

    label: str
    url: str
    current: bool


def _choices(asked: Asked) -> dict[str, Any]:
    chosen = asked.options.get("sort", "count")
    words = {
        "count": "Most refusals",
        "newest": "Newest",
        "last": "Last seen",
        "locations": "Most locations",
    }
    only = asked.options.get("only") == "new"
    return {
        "sorts": [
            Choice(word, asked.link(sort=None if name == "count" else name), name == chosen)
            for name, word in words.items()
        ],
        "only_new": Choice("Only new", asked.link(only=None if only else "new"), only),
    }


def _load(asked: Asked) -> Mapping[str, Any]:
    return {"rows": [], **_choices(asked), **_bounded(asked)}


_bounded: Callable[[Asked], Mapping[str, Any]] = heavy(_reasons)

REASONS = Rows(
    "reasons",
    "dashboard/reasons/_reasons.html",
    _load,
    every=5,
    body="reasons-rows",
    row="dashboard/reasons/_reasons.html#reasons-row",
    around="dashboard/reasons/_reasons.html#reasons-around",
)

PAGE = Page("reasons", (PULSE, REASONS), params=PARAMS, feed=False, by_event=True)
