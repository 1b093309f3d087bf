"""The query string ⇄ ``Filter``: one grammar for pages, sockets and the API.

``name=value`` keeps what has any of the values given for that name, ``name=-value`` leaves out
what has it; different names must all hold. A value that itself begins with ``-`` or ``\\`` takes
a ``\\`` in front. ``(none)`` stands for "has no value". Bounds are half-open: ``from`` is in,
``to`` is not.

``ip``, ``pool`` and ``mx`` belong to attempts, of which a delivery may have several: alone they
keep what was tried there. Beside them ``outcome``, ``class``, ``category``, ``code``, ``reason``
and ``is`` speak of what was decided there; ``outcome=moved`` is what was tried there and decided
elsewhere. See ``Filter.there``.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple, Self, TypedDict
from urllib.parse import quote, urlencode
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from django.db.models import Exists, OuterRef, Q, QuerySet
from django.http import Http404

from dashboard.access import Rights, restrict
from dashboard.conditions import (
    OWN_QUERIES,
    QUERIES,
    At,
    attempts_at,
    by_decision,
    by_deferral,
    every,
    value_ids,
)
from dashboard.matching import (
    OWN_KEYS,
    Test,
    negated,
    test_of,
    test_of_attempts,
    test_of_decision,
    test_of_refusal,
)
from dashboard.words import ATTEMPT_NAMES, DEFERRED, MOVED, VALUE_NAMES
from ingest.models import Delivery, Event, Location
from ingest.vocabulary import NONE_KEY, Category, Dimension, Flag, Outcome

if TYPE_CHECKING:
    from dashboard.queries import EventRow

FREE_NAMES = ("location", "company", *VALUE_NAMES, "q")
WORDS: dict[str, tuple[str, ...]] = {
    "outcome": (*sorted(outcome.word for outcome in Outcome), MOVED),
    "class": ("block", "hard", "soft", "suppressed", "undetermined", NONE_KEY),
    "category": (*sorted(c.word for c in Category if c), NONE_KEY),
    "is": tuple(sorted(flag.name.lower() for flag in Flag if flag.name)),
}
TERM_NAMES = (*FREE_NAMES, *WORDS, "code", "reason")
TIME_NAMES = ("range", "from", "to", "clock", "tz")
RANGES = {
    "1h": timedelta(hours=1),
    "24h": timedelta(hours=24),
    "7d": timedelta(days=7),
    "30d": timedelta(days=30),
    "90d": timedelta(days=90),
}
CLOCKS = ("sent", "event")
MAX_TERMS = 200
MAX_LENGTH = 400

_LOWER = frozenset({"domain", "sending_domain", "mx"})
# What a delivery is called by what happened at its end: beside an attempt's names, at that attempt.
_SPOKEN = frozenset({"outcome", "class", "category", "code", "is", "reason"})
_EARLIEST, _LATEST = datetime(1971, 1, 1, tzinfo=UTC), datetime(9998, 1, 1, tzinfo=UTC)
# A "+" that was not escaped arrives as a space: "2026-11-22T10:00:00 02:00".
_LOST_PLUS = re.compile(r"(T\d[\d:.]*) (\d\d:?\d\d)$")


class FilterError(ValueError):
    """A filter that cannot be read or answered. Its text is one plain sentence for a 400."""


class Term(NamedTuple):
    """One value of one name, wanted or left out."""

    name: str
    value: str
    excluded: bool = False

    @property
    def text(self) -> str:
        """The value as the query string writes it."""
        if self.excluded:
            return "-" + self.value
        return "\\" + self.value if self.value[:1] in ("-", "\\") else self.value


class Chip(NamedTuple):
    """A term as a page shows it, with the query string that is left without it."""

    term: Term
    without: str


@dataclass(frozen=True, eq=False)
class Filter:
    """What to look at: an immutable value, equal to every other that says the same.

    ``now`` is the moment it was read: a relative range ends there. It takes no part in equality.
    """

    now: datetime
    terms: tuple[Term, ...] = ()
    range: str = ""
    since: datetime | None = None  # the query string's "from"
    to: datetime | None = None
    clock: str = ""  # "" = the clock that suits what is asked
    tz: str = ""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Filter) and self.canonical() == other.canonical()

    def __hash__(self) -> int:
        return hash(self.canonical())

    @cached_property
    def start(self) -> datetime | None:
        """The first moment that is in, or ``None``.

        A relative range begins with the hour that lies that far back, so that whole hours answer
        it; ``1h`` is sixty minutes.
        """
        if not self.range:
            return self.since
        start = self.now.astimezone(UTC) - RANGES[self.range]
        if self.range == "1h":
            return start
        return start.replace(minute=0, second=0, microsecond=0)

    @property
    def end(self) -> datetime | None:
        """The first moment that is out, or ``None``; of a relative range: now."""
        return self.now.astimezone(UTC) if self.range else self.to

    @property
    def until(self) -> datetime | None:
        """The bound to compare with. A relative range has none.

        What a provider whose clock is ahead dates a little after our now has happened all the
        same; and a live filter must let through what comes after it was read.
        """
        return None if self.range else self.to

    @property
    def zone(self) -> ZoneInfo:
        """The time zone of days and hours."""
        return ZoneInfo(self.tz or "UTC")

    def at(self, now: datetime) -> Self:
        """The same filter, read at another moment."""
        return replace(self, now=now)

    def params(self) -> list[tuple[str, str]]:
        """Its query parameters, in one fixed order."""
        params = [(term.name, term.text) for term in self.terms]
        bounds = (("from", self.since), ("to", self.to))
        params += [(name, _iso(moment)) for name, moment in bounds if moment]
        rest = (("range", self.range), ("clock", self.clock), ("tz", self.tz))
        return params + [(name, value) for name, value in rest if value]

    def canonical(self) -> str:
        """The one query string for what it says: a key to group by, and good in links."""
        return self._canonical

    @cached_property
    def _canonical(self) -> str:
        return urlencode(self.params(), quote_via=quote, safe=":/@,()")

    def values(self, name: str, *, excluded: bool = False) -> tuple[str, ...]:
        """The values wanted (or left out) for a name."""
        return tuple(t.value for t in self.terms if t.name == name and t.excluded == excluded)

    @property
    def names(self) -> frozenset[str]:
        """The names that its terms use."""
        return frozenset(term.name for term in self.terms)

    def with_(self, name: str, value: str, *, excluded: bool = False) -> Self:
        """Narrowed: only this value of this name, or also without it; or another range.

        Raises ``FilterError`` where the query string would.
        """
        if name in TIME_NAMES:
            times = [p for p in self.params() if p[0] in TIME_NAMES and p[0] != name]
            if name in ("range", "from", "to"):
                clash = ("from", "to") if name == "range" else ("range",)
                times = [p for p in times if p[0] not in clash]
            return self._timed([*times, (name, value)])
        term = Term(name, _read_value(name, value), excluded)
        replaced = set() if excluded else {Term(name, value) for value in self.values(name)}
        terms = {*self.terms} - replaced | {term}
        _check_moved(terms)
        return self._of(terms)

    def plus(self, name: str, value: str, *, excluded: bool = False) -> Self:
        """With one more value of a name; what says the contrary of it goes.

        Raises ``FilterError`` where the query string would.
        """
        term = Term(name, _read_value(name, value), excluded)
        terms = {other for other in self.terms if other[:2] != term[:2]} | {term}
        _check_number(terms)
        _check_moved(terms)
        return self._of(terms)

    def without(self, name: str, value: str | None = None) -> Self:
        """Without the terms of a name, or only without those of one of its values."""
        if name in TIME_NAMES:
            times = [p for p in self.params() if p[0] in TIME_NAMES and p[0] != name]
            return self._timed(times)
        return self._of(t for t in self.terms if t.name != name or value not in (None, t.value))

    def only(self, *names: str) -> Self:
        """With the terms of these names alone, and without bounds of time."""
        kept = tuple(term for term in self.terms if term.name in names)
        return replace(self, terms=kept, range="", since=None, to=None)

    def chips(self) -> list[Chip]:
        """Its terms for showing, each with the query string without it."""
        return [
            Chip(term, self._of(t for t in self.terms if t != term).canonical())
            for term in self.terms
        ]

    def _timed(self, times: list[tuple[str, str]]) -> Self:
        read = parse(times, now=self.now)
        return replace(
            self, range=read.range, since=read.since, to=read.to, clock=read.clock, tz=read.tz
        )

    def _of(self, terms: Iterable[Term]) -> Self:
        """With these terms; without an attempt's name ``outcome=moved`` means nothing, and goes."""
        kept = set(terms)
        if not _names_attempt(kept):
            kept = {term for term in kept if term[:2] != ("outcome", MOVED)}
        return replace(self, terms=tuple(sorted(kept)))

    def check_locations(self, rights: Rights) -> None:
        """Raise ``Http404`` if it names a location that does not exist or may not be seen.

        Raises ``FilterError`` for a search that would tell a masked address letter by letter.
        """
        self._check_search(rights)
        named = {term.value for term in self.terms if term.name == "location"}
        if not named:
            return
        seen = restrict(Location.objects.filter(ref__in=named), rights, "pk")
        if seen.count() < len(named):
            raise Http404("There is no such location.")

    def _check_search(self, rights: Rights) -> None:
        begun = [term for term in self.terms if term.name == "q" and "@" not in term.value]
        if begun and rights.masked_ids and not rights.masked_ids.isdisjoint(self._places(rights)):
            raise FilterError(
                "Recipients are masked for you: search for a whole address, a whole message id, "
                "or @ and a domain."
            )

    def _places(self, rights: Rights) -> frozenset[int]:
        return self.location_ids(rights) or frozenset()

    def location_ids(self, rights: Rights) -> frozenset[int] | None:
        """Primary keys of the locations that it and the rights leave; ``None`` means all."""
        if rights.everything and not self.names & {"location", "company"}:
            return None
        locations = restrict(Location.objects.all(), rights, "pk")
        for name, field in (("location", "ref"), ("company", "company_ref")):
            for excluded in (False, True):
                if values := self.values(name, excluded=excluded):
                    found = Q(**{f"{field}__in": ["" if v == NONE_KEY else v for v in values]})
                    locations = locations.filter(~found if excluded else found)
        return frozenset(locations.values_list("pk", flat=True))

    def apply(self, deliveries: QuerySet[Delivery]) -> QuerySet[Delivery]:
        """The deliveries that it keeps. Agrees with ``matches``, row by row.

        The bounds are of their sending; with ``clock=event`` of any of their events.
        """
        if self.clock != "event":
            if self.start:
                deliveries = deliveries.filter(sent_at__gte=self.start)
            if self.until:
                deliveries = deliveries.filter(sent_at__lt=self.until)
        elif bounds := self.event_bounds():
            happened = Event.objects.filter(bounds, delivery_id=OuterRef("pk"))
            deliveries = deliveries.filter(Exists(happened))
        return deliveries.filter(*self.conditions())

    def event_bounds(self) -> Q:
        """The condition on events that they happened within the bounds; empty without any."""
        bounds = Q(occurred_at__gte=self.start) if self.start else Q()
        return bounds & Q(occurred_at__lt=self.until) if self.until else bounds

    def conditions(self, prefix: str = "") -> list[Q]:
        """What its terms ask of a delivery, without the bounds of time.

        ``prefix`` leads to the delivery from what is asked: ``"delivery__"`` from events.
        """
        at = self._at(prefix)
        return [
            ~found if excluded else found
            for (name, excluded), values in self._grouped.items()
            for found in [self._condition(name, excluded, values, prefix, at)]
        ]

    def event_conditions(self) -> list[Q]:
        """What it asks of events, locations aside: all that match meet it, and few others do.

        For the database to look among; ``matches`` has the last word.
        """
        conditions = [self._event_times()]
        reasons = self.values("reason")
        conditions += [
            query(values, "")
            for name, query in OWN_QUERIES.items()
            if reasons and (values := self.values(name))
        ]
        if of_delivery := self.delivery_conditions("delivery__"):
            # Events without one speak for themselves.
            conditions.append(Q(delivery=None) | every(of_delivery))
        return conditions

    def delivery_conditions(self, prefix: str = "") -> list[Q]:
        """What it asks of the delivery of an event, if it has one; locations aside."""
        aside = {"location", "company", "reason", *(OWN_KEYS if self.values("reason") else ())}
        return self.only(*self.names - aside).conditions(prefix)

    def _event_times(self) -> Q:
        if self.clock != "sent":
            return self.event_bounds()
        bounds = Q(delivery__sent_at__gte=self.start) if self.start else Q()
        return bounds & Q(delivery__sent_at__lt=self.until) if self.until else bounds

    def there(self) -> dict[Dimension, frozenset[int]]:
        """The attempts it asks for: ids of the values wanted of ``ip``, ``pool`` and ``mx``.

        Of several values any will do, of several dimensions all must hold. A delivery that it
        keeps was either decided there (``decided_there``): all that is counted of it counts; or
        has moved on: it counts as sent and moved. ``(other)`` has no ids of its own.
        """
        return {
            VALUE_NAMES[name]: frozenset(value_ids(VALUE_NAMES[name], values))
            for name in ATTEMPT_NAMES
            if (values := self.values(name))
        }

    def decided_there(self, prefix: str = "") -> Q:
        """Among the deliveries it keeps: whether they were decided at the attempts it asks for.

        Empty, which is true of all, where it asks for none.
        """
        return every(at.decided for at in self._at(prefix).values())

    def deferred_there(self, prefix: str = "") -> Q:
        """The same of temporary failures: whether one came from there, of deferred deliveries."""
        return every(at.deferred for at in self._at(prefix).values())

    @cached_property
    def asks_of_deferrals(self) -> bool:
        """Whether ``category`` speaks of temporary failures: ``category=…&is=deferred`` alone.

        That is the list behind the deferred count of a category. Beside an outcome, a class or
        another flag, ``category`` is that of the final failure.
        """
        wanted = {term[:2] for term in self.terms if not term.excluded}
        spoken = {term for term in wanted if term[0] in ("outcome", "class", "is")}
        return spoken == {("is", DEFERRED)}

    def _at(self, prefix: str) -> dict[str, At]:
        wanted = {name: values for name in ATTEMPT_NAMES if (values := self.values(name))}
        return {name: attempts_at(name, values, prefix) for name, values in wanted.items()}

    def _condition(
        self, name: str, excluded: bool, values: Sequence[str], prefix: str, at: dict[str, At]
    ) -> Q:
        if name in ATTEMPT_NAMES:
            return (attempts_at(name, values, prefix) if excluded else at[name]).tried
        if name == "category" and not excluded and self.asks_of_deferrals:
            return by_deferral(values, prefix)
        if name in _SPOKEN and at:
            return by_decision(name, values, prefix, at.values())
        return QUERIES[name](values, prefix)

    def matches(self, row: "EventRow") -> bool:
        """Whether an event is kept, by what is known of its delivery when it was read.

        Its time is its own, unless ``clock=sent`` asks for that of its delivery. Where a
        ``reason`` is asked for, it and all else that is said of a refusal are its own as well:
        ``ip pool mx provider category class code``.
        """
        if self.start or self.until:
            moment = row.sent_at if self.clock == "sent" else row.occurred_at
            if moment is None or (self.start and moment < self.start):
                return False
            if self.until and moment >= self.until:
                return False
        return all(test(row) for test in self._tests)

    @cached_property
    def _grouped(self) -> dict[tuple[str, bool], tuple[str, ...]]:
        grouped: dict[tuple[str, bool], list[str]] = defaultdict(list)
        for term in self.terms:
            grouped[term.name, term.excluded].append(term.value)
        return {key: tuple(values) for key, values in grouped.items()}

    @cached_property
    def _tests(self) -> list[Callable[["EventRow"], bool]]:
        return [negated(self._row_test(*key, vs), key[1]) for key, vs in self._grouped.items()]

    def _row_test(self, name: str, excluded: bool, values: Sequence[str]) -> Test:
        if self.values("reason"):
            return test_of_refusal(name, values)
        if name in ATTEMPT_NAMES:
            return test_of_attempts(name, frozenset(values))
        if name == "category" and not excluded and self.asks_of_deferrals:
            return test_of("deferral_category", values)
        wanted = {n: frozenset(vs) for n in ATTEMPT_NAMES if (vs := self.values(n))}
        if name in _SPOKEN and wanted:
            return test_of_decision(name, values, wanted)
        return test_of(name, values)


# --- Reading --------------------------------------------------------------------------------


def parse(
    params: Iterable[tuple[str, str]],
    *,
    now: datetime,
    also: Collection[str] = (),
    default_range: str | None = None,
    blanks: bool = False,
) -> Filter:
    """Read query parameters. ``also`` names parameters of the page that are none of ours.

    ``default_range`` holds where no bound is given. ``blanks`` lets empty values pass as not
    given, as forms send them. Raises ``FilterError`` for whatever is unknown or malformed.
    """
    terms: set[Term] = set()
    times: dict[str, str] = {}
    for name, value in params:
        if name in also or (blanks and not value):
            continue
        if name in TERM_NAMES:
            terms.add(_read_term(name, value))
        elif name in TIME_NAMES:
            if name in times:
                raise FilterError(f"{name} can be given only once.")
            times[name] = value
        else:
            raise FilterError(f"There is no filter named {_shown(name)}.")
    _check_number(terms)
    _check_moved(terms)
    if not times.keys() & {"range", "from", "to"} and default_range:
        times["range"] = default_range
    return Filter(now=now, terms=tuple(sorted(terms)), **_read_times(times))


def _names_attempt(terms: Iterable[Term]) -> bool:
    return any(term.name in ATTEMPT_NAMES and not term.excluded for term in terms)


def _check_number(terms: Collection[Term]) -> None:
    if len(terms) > MAX_TERMS:
        raise FilterError(f"A filter can have at most {MAX_TERMS} values.")


def _check_moved(terms: Collection[Term]) -> None:
    if any(term[:2] == ("outcome", MOVED) for term in terms) and not _names_attempt(terms):
        raise FilterError(
            "outcome=moved is what was tried at an IP, pool or MX and settled elsewhere:"
            " it needs a filter ip, pool or mx."
        )


def _read_term(name: str, text: str) -> Term:
    excluded = text.startswith("-")
    if excluded or text[:2] in ("\\-", "\\\\"):
        text = text[1:]
    return Term(name, _read_value(name, text), excluded)


def _read_value(name: str, value: str) -> str:
    """A value in the form that is compared. Raises ``FilterError``."""
    if name not in TERM_NAMES:
        raise FilterError(f"There is no filter named {_shown(name)}.")
    value = value.strip()
    if not value:
        raise FilterError(f"The filter {name} has no value.")
    if len(value) > MAX_LENGTH or "\0" in value or not _encodable(value):
        raise FilterError(f"The filter {name} has a value that cannot be read.")
    if name in WORDS:
        return _word(name, value, WORDS[name])
    if name == "code" and value != NONE_KEY and not re.fullmatch("[1-9][0-9]{2}", value):
        raise FilterError(f"code cannot be {_shown(value)}: it is a number of three digits.")
    if name == "reason" and value != NONE_KEY and not re.fullmatch("[1-9][0-9]{0,9}", value):
        raise FilterError(f"reason cannot be {_shown(value)}: it is the number of a reason.")
    if name == "q":
        return _search(value)
    return value.lower() if name in _LOWER else value


def _search(value: str) -> str:
    """A search, without the ``<>`` of a message id. Only recipients are compared in lower case."""
    value = value.removeprefix("<").removesuffix(">")
    if value in ("", "@"):
        raise FilterError("The filter q has no value.")
    return value


def _word(name: str, value: str, words: Sequence[str]) -> str:
    if value not in words:
        raise FilterError(f"{name} cannot be {_shown(value)}: it is one of {', '.join(words)}.")
    return value


class _Times(TypedDict):
    range: str
    since: datetime | None
    to: datetime | None
    clock: str
    tz: str


def _read_times(times: dict[str, str]) -> _Times:
    if "range" in times and times.keys() & {"from", "to"}:
        raise FilterError("Give either range, or from and to, not both.")
    if "range" in times:
        _word("range", times["range"], tuple(RANGES))
    if "clock" in times:
        _word("clock", times["clock"], CLOCKS)
    zone = _zone(times["tz"]) if "tz" in times else ZoneInfo("UTC")
    since, to = (_moment(name, times[name], zone) if name in times else None for name in _BOUNDS)
    if since and to and since > to:
        raise FilterError("from lies after to.")
    return {
        "range": times.get("range", ""),
        "since": since,
        "to": to,
        "clock": times.get("clock", ""),
        "tz": times.get("tz", ""),
    }


_BOUNDS = ("from", "to")


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise FilterError(
            f"tz cannot be {_shown(name)}: it is an IANA time zone, such as America/Chicago."
        ) from None


def _moment(name: str, text: str, zone: ZoneInfo) -> datetime:
    """An ISO 8601 date or time; one without an offset is of the filter's zone."""
    try:
        moment = datetime.fromisoformat(_LOST_PLUS.sub(r"\1+\2", text))
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=zone)
        moment = moment.astimezone(UTC)
        if not _EARLIEST <= moment <= _LATEST:
            raise ValueError
    except (ValueError, OverflowError):
        raise FilterError(
            f"{name} cannot be {_shown(text)}: it is an ISO 8601 time, such as 2026-11-22T09:30Z."
        ) from None
    return moment


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _shown(value: str) -> str:
    shown = value if len(value) <= 60 else value[:59] + "…"
    return "“" + "".join(c if c.isprintable() else "�" for c in shown) + "”"


def _encodable(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
