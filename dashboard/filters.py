"""The query string ⇄ ``Filter``: one grammar for pages, sockets and the API.

``name=value`` keeps what has any of the values given for that name, ``name=-value`` leaves out
what has it; different names must all hold. A value that itself begins with ``-`` or ``\\`` takes
a ``\\`` in front. ``(none)`` stands for "has no value". Bounds are half-open: ``from`` is in,
``to`` is not.
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

from django.db import connection
from django.db.models import F, Q, QuerySet
from django.db.models.lookups import GreaterThan
from django.http import Http404

from dashboard.access import Rights, restrict
from ingest.models import Delivery, Location, Value
from ingest.vocabulary import NONE_KEY, BounceClass, Category, Dimension, Flag, Outcome

if TYPE_CHECKING:
    from dashboard.queries import EventRow

FREE_NAMES = (
    "location", "company", "tag", "campaign", "step", "provider", "domain", "sending_domain", "q",
)  # fmt: skip
WORDS: dict[str, tuple[str, ...]] = {
    "outcome": tuple(sorted(outcome.word for outcome in Outcome)),
    "class": ("block", "hard", "soft", "suppressed", "undetermined", NONE_KEY),
    "category": (*sorted(c.word for c in Category if c), NONE_KEY),
    "is": tuple(sorted(flag.name.lower() for flag in Flag if flag.name)),
}
TERM_NAMES = (*FREE_NAMES, *WORDS, "code")
TIME_NAMES = ("range", "from", "to", "clock", "tz")
LATER_NAMES = ("ip", "pool", "mx", "reason")
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

_LOWER = frozenset({"domain", "sending_domain"})
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
        return self._of({*self.terms} - replaced | {term})

    def without(self, name: str, value: str | None = None) -> Self:
        """Without the terms of a name, or only without those of one of its values."""
        if name in TIME_NAMES:
            times = [p for p in self.params() if p[0] in TIME_NAMES and p[0] != name]
            return self._timed(times)
        return self._of(t for t in self.terms if t.name != name or value not in (None, t.value))

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
        return replace(self, terms=tuple(sorted(set(terms))))

    def check_locations(self, rights: Rights) -> None:
        """Raise ``Http404`` if it names a location that does not exist or may not be seen."""
        named = {term.value for term in self.terms if term.name == "location"}
        if not named:
            return
        seen = restrict(Location.objects.filter(ref__in=named), rights, "pk")
        if seen.count() < len(named):
            raise Http404("There is no such location.")

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

        Raises ``FilterError`` for ``clock=event``: deliveries are kept by their sending.
        """
        if self.clock == "event":
            raise FilterError("clock=event is not available yet for deliveries and rates.")
        if self.start:
            deliveries = deliveries.filter(sent_at__gte=self.start)
        if self.until:
            deliveries = deliveries.filter(sent_at__lt=self.until)
        for (name, excluded), values in self._grouped.items():
            found = _QUERIES[name](values)
            deliveries = deliveries.filter(~found if excluded else found)
        return deliveries

    def matches(self, row: "EventRow") -> bool:
        """Whether an event is kept, by what is known of its delivery when it was read.

        Its time is its own, unless ``clock=sent`` asks for that of its delivery.
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
        return [_test(name, excluded, vs) for (name, excluded), vs in self._grouped.items()]


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
        elif name in LATER_NAMES:
            raise FilterError(f"The filter {name} is not available yet.")
        else:
            raise FilterError(f"There is no filter named {_shown(name)}.")
    if len(terms) > MAX_TERMS:
        raise FilterError(f"A filter can have at most {MAX_TERMS} values.")
    if not times.keys() & {"range", "from", "to"} and default_range:
        times["range"] = default_range
    return Filter(now=now, terms=tuple(sorted(terms)), **_read_times(times))


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


# --- What a delivery is, in the words of the filters ---------------------------------------


def class_word(outcome: int, bounce_class: int) -> str:
    """Whose problem it was: every bounced delivery has one of four, so that they add up."""
    if outcome == Outcome.BOUNCED:
        return _BOUNCED_CLASSES.get(bounce_class, "undetermined")
    return "suppressed" if outcome == Outcome.SUPPRESSED else NONE_KEY


_BOUNCED_CLASSES = {int(c): c.word for c in (BounceClass.HARD, BounceClass.SOFT, BounceClass.BLOCK)}


def flag_words(flags: int) -> tuple[str, ...]:
    """The words of the flags that are set, as ``is`` takes them."""
    return tuple(word for flag, word in _FLAG_WORDS if flags & flag)


_FLAG_WORDS = [(int(flag), flag.name.lower()) for flag in Flag if flag.name]


def _campaign_keys(key: str) -> tuple[str, ...]:
    """The full key and, where it names its type (``workflow:abc``), the bare id."""
    bare = key.partition(":")[2]
    return (key, bare) if bare else (key or NONE_KEY,)


_KEYS: dict[str, Callable[["EventRow"], tuple[str, ...]]] = {
    "location": lambda row: (row.location,),
    "company": lambda row: (row.company or NONE_KEY,),
    "tag": lambda row: row.tags or (NONE_KEY,),
    "campaign": lambda row: _campaign_keys(row.campaign),
    "step": lambda row: (row.step or NONE_KEY,),
    "provider": lambda row: (row.provider or NONE_KEY,),
    "domain": lambda row: (row.domain or NONE_KEY,),
    "sending_domain": lambda row: (row.sending_domain or NONE_KEY,),
    "outcome": lambda row: (Outcome(row.outcome).word,) if row.outcome else (),
    "class": lambda row: (class_word(row.outcome, row.bounce_class),),
    "category": lambda row: (Category(row.category).word if row.category else NONE_KEY,),
    "code": lambda row: (str(row.delivery_code or NONE_KEY),),
    "is": lambda row: flag_words(row.flags),
}


def _test(name: str, excluded: bool, values: tuple[str, ...]) -> Callable[["EventRow"], bool]:
    if name == "q":
        return lambda row: any(_found(value, row) for value in values) != excluded
    keys, wanted = _KEYS[name], frozenset(values)
    return lambda row: wanted.isdisjoint(keys(row)) == excluded


def _found(search: str, row: "EventRow") -> bool:
    if search.startswith("@"):
        return row.domain == search[1:].lower()
    return row.recipient.startswith(search.lower()) or row.message_id == search


# --- The same, as conditions on deliveries ---------------------------------------------------


def value_ids(dimension: Dimension, texts: Collection[str]) -> list[int]:
    """Ids of the values with these texts; ``(none)`` is the empty text."""
    found = Value.objects.filter(
        dimension=dimension, text__in=["" if t == NONE_KEY else t for t in texts]
    )
    return list(found.values_list("id", flat=True))


def campaign_ids(keys: Collection[str]) -> list[int]:
    """Ids of the campaigns with these full keys or bare ids."""
    wanted = frozenset(keys)
    condition = Q(text__in=["" if key == NONE_KEY else key for key in wanted])
    for key in wanted:
        condition |= Q(text__endswith=":" + key)
    found = Value.objects.filter(condition, dimension=Dimension.CAMPAIGN)
    return [pk for pk, text in found.values_list("id", "text") if wanted & {*_campaign_keys(text)}]


def _by_value(field: str, dimension: Dimension) -> Callable[[Sequence[str]], Q]:
    return lambda values: Q(**{f"{field}_id__in": value_ids(dimension, values)})


def _by_tag(values: Sequence[str]) -> Q:
    condition = Q(pk__in=[])
    for pk in value_ids(Dimension.TAG, [v for v in values if v != NONE_KEY]):
        condition |= Q(tags__contains=f",{pk},")
    return condition | Q(tags=",") if NONE_KEY in values else condition


def _by_location(field: str) -> Callable[[Sequence[str]], Q]:
    def query(values: Sequence[str]) -> Q:
        texts = ["" if value == NONE_KEY else value for value in values]
        found = Location.objects.filter(**{f"{field}__in": texts})
        return Q(location_id__in=list(found.values_list("pk", flat=True)))

    return query


def _by_class(values: Sequence[str]) -> Q:
    condition = Q(pk__in=[])
    bounced = Q(outcome=Outcome.BOUNCED)
    for value in values:
        if value == "undetermined":
            condition |= bounced & ~Q(bounce_class__in=list(_BOUNCED_CLASSES))
        elif value == "suppressed":
            condition |= Q(outcome=Outcome.SUPPRESSED)
        elif value == NONE_KEY:
            condition |= ~Q(outcome__in=[Outcome.BOUNCED, Outcome.SUPPRESSED])
        else:
            condition |= bounced & Q(bounce_class=BounceClass.from_word(value))
    return condition


def _by_code(values: Sequence[str]) -> Q:
    condition = Q(code__in=[int(value) for value in values if value != NONE_KEY])
    return condition | Q(code=None) if NONE_KEY in values else condition


def _by_flag(values: Sequence[str]) -> Q:
    mask = sum(flag for flag, word in _FLAG_WORDS if word in values)
    return Q(GreaterThan(F("flags").bitand(mask), 0))


def _by_search(values: Sequence[str]) -> Q:
    condition = Q(pk__in=[])
    for value in values:
        if value.startswith("@"):
            condition |= Q(domain_id__in=value_ids(Dimension.DOMAIN, [value[1:].lower()]))
        else:
            condition |= _prefixed(value.lower()) | Q(message_id=value)
    return condition


def _prefixed(prefix: str) -> Q:
    """Recipients that begin so. SQLite's LIKE uses no index; its order is that of code points."""
    condition = Q(recipient__startswith=prefix)
    if connection.vendor == "sqlite":
        condition &= Q(recipient__gte=prefix, recipient__lt=prefix + "\U0010ffff")
    return condition


_QUERIES: dict[str, Callable[[Sequence[str]], Q]] = {
    "location": _by_location("ref"),
    "company": _by_location("company_ref"),
    "tag": _by_tag,
    "campaign": lambda values: Q(campaign_id__in=campaign_ids(values)),
    "step": lambda values: Q(step__in=["" if v == NONE_KEY else v for v in values]),
    "provider": _by_value("provider", Dimension.PROVIDER),
    "domain": _by_value("domain", Dimension.DOMAIN),
    "sending_domain": _by_value("sending_domain", Dimension.SENDING_DOMAIN),
    "outcome": lambda values: Q(outcome__in=[Outcome.from_word(v) for v in values]),
    "class": _by_class,
    "category": lambda values: Q(
        category__in=[0 if v == NONE_KEY else Category.from_word(v) for v in values]
    ),
    "code": _by_code,
    "is": _by_flag,
    "q": _by_search,
}
