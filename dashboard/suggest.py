"""What a filter can be set to, while somebody types: real values, of what the reader may see.

What begins with the text comes first and is found by an index; what only holds it is sought for
a moment. So an answer is quick whatever there is, and may then miss what merely holds the text.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import NamedTuple

from django.db.models import CharField, Exists, OuterRef, Q, QuerySet, Value
from django.db.models.functions import Concat
from django.http import Http404, HttpRequest, HttpResponse

from dashboard.access import Rights, get_location, restrict
from dashboard.api import Json, api_view
from dashboard.bounded import within
from dashboard.filters import MAX_LENGTH, TERM_NAMES, WORDS, FilterError
from dashboard.names import name_of
from dashboard.words import VALUE_NAMES
from ingest.folded import Folded
from ingest.models import CountedValue, Delivery, Location, Reason, ReasonHour
from ingest.models import Value as StoredValue
from ingest.vocabulary import NONE_KEY, OTHER_KEY, Dimension

MOST = 20
PATIENCE = 0.25  # seconds for one way of seeking
RECENT = 5_000  # deliveries whose codes and MX hosts are suggested
FEW = 20  # locations whose values are collected first
LABELLED = frozenset({Dimension.CAMPAIGN, Dimension.STEP})
_LAST = chr(0x10FFFF)


class Option(NamedTuple):
    """A value of a filter, and what people call it; "" where it is its own name."""

    value: str
    label: str = ""


type Way = Callable[[], Iterable[Option]]


@api_view
def suggestions(request: HttpRequest, rights: Rights) -> HttpResponse:
    """``/suggest/?name=tag&text=pro``: ``{"options": [{"value", "label"}]}``, at most 20.

    ``location=ID``, repeatable, leaves only what these locations have.
    """
    if wanted := request.GET.getlist("location"):
        found = [get_location(ref, rights).pk for ref in wanted if ref]
        rights = (
            replace(rights, everything=False, location_ids=frozenset(found)) if found else rights
        )
    options = suggest(request.GET.get("name", ""), request.GET.get("text", ""), rights)
    return Json({"options": [option._asdict() for option in options]})


def suggest(name: str, text: str, rights: Rights) -> list[Option]:
    """At most 20 values of a filter that begin with or hold the text, whatever its case.

    Raises ``FilterError`` if there is no filter of this name.
    """
    if name not in TERM_NAMES:
        raise FilterError("name is the name of a filter.")
    text = text.replace("\0", "").strip()[:MAX_LENGTH]
    return _first(_ways(name, text, rights))


def meant(name: str, text: str, rights: Rights) -> str:
    """The value that somebody means who typed this: names of locations stand for their ids.

    Raises ``Http404`` for a location that there is not.
    """
    if name not in ("location", "company", "campaign"):
        return text
    options = _first(_ways(name, text, rights))
    if any(option.value == text for option in options):
        return text
    called = {o.value for o in options if o.label.casefold() == text.casefold()}
    if len(called) == 1:
        return called.pop()
    if name == "location":
        raise Http404("There is no such location.")
    return text


def _first(ways: Iterable[Way]) -> list[Option]:
    """The first of what these ways find, each value once."""
    found: dict[str, Option] = {}
    for way in ways:
        for option in within(PATIENCE, lambda way=way: list(way())) or []:  # type: ignore[misc]
            found.setdefault(option.value, option)
        if len(found) >= MOST:
            break
    return list(found.values())[:MOST]


def _ways(name: str, text: str, rights: Rights) -> Iterator[Way]:
    if name == "q":
        return
    if name in WORDS:
        yield lambda: _alike(WORDS[name], text)
    elif name == "location":
        yield lambda: _locations(text, rights)
    elif name == "company":
        yield lambda: _companies(text, rights)
    elif name == "reason":
        yield lambda: _reasons(text, rights)
    elif name == "code":
        yield lambda: _alike(_recent("code", rights), text)
    elif name == "mx" and not rights.everything:
        yield lambda: _alike(_recent("mx__text", rights), text)
    else:
        dimension = VALUE_NAMES[name]
        yield lambda: _options(name, _beginning(values_seen(dimension, rights), text))
        if text:
            yield lambda: _options(name, _holding(values_seen(dimension, rights), dimension, text))
    if name not in (*WORDS, "location"):
        nothing = Option(NONE_KEY, f"No {name.replace('_', ' ')}")
        yield lambda: [nothing] if NONE_KEY.startswith(text) or text in nothing.label else []


def _alike(words: Iterable[str], text: str) -> list[Option]:
    """Those of some words that begin with or hold a text, those that begin with it first."""
    text = text.lower().replace(" ", "_")
    found = [word for word in words if text in word.lower()]
    return [Option(w) for w in sorted(found, key=lambda w: not w.lower().startswith(text))]


def values_seen(dimension: Dimension, rights: Rights) -> QuerySet[StoredValue]:
    """The values of a dimension that locations have which may be seen."""
    values = StoredValue.objects.filter(dimension=dimension).exclude(text__in=("", OTHER_KEY))
    if rights.everything:
        return values
    counted = restrict(CountedValue.objects.all(), rights)
    if len(rights.location_ids) <= FEW:
        return values.filter(pk__in=counted.values("value_id"))
    # What many locations have is too much to collect first: each value is asked for.
    return values.filter(Exists(counted.filter(value=OuterRef("pk"))))


def _beginning(values: QuerySet[StoredValue], text: str) -> QuerySet[StoredValue]:
    # The database folds both sides: its idea of lower case need not be Python's.
    first = Folded(Value(text, output_field=CharField()))
    values = values.annotate(folded=Folded("text")).order_by("folded")
    return values.filter(folded__gte=first, folded__lt=Concat(first, Value(_LAST)))[:MOST]


def _holding(
    values: QuerySet[StoredValue], dimension: Dimension, text: str
) -> QuerySet[StoredValue]:
    found = Q(text__icontains=text)
    if dimension in LABELLED:
        found |= Q(label__icontains=text)
    return values.filter(found)[:MOST]


def _options(name: str, values: Iterable[StoredValue]) -> list[Option]:
    named = ((value.text, name_of(name, value.text, value.label)) for value in values)
    return [Option(text, label if label != text else "") for text, label in named]


def _locations(text: str, rights: Rights) -> list[Option]:
    """By name, or by HighLevel's id."""
    found = restrict(Location.objects.all(), rights, "pk")
    begins = Q(name__istartswith=text) | Q(ref__istartswith=text)
    holds = Q(name__icontains=text) | Q(ref__icontains=text)
    ordered = [*found.filter(begins).order_by("name", "ref")[:MOST]]
    if len(ordered) < MOST:
        ordered += found.filter(holds).exclude(begins).order_by("name", "ref")[:MOST]
    return [Option(location.ref, location.name) for location in ordered]


def _companies(text: str, rights: Rights) -> list[Option]:
    found = restrict(Location.objects.exclude(company_ref=""), rights, "pk")
    holds = Q(company_name__icontains=text) | Q(company_ref__icontains=text)
    rows = found.filter(holds).order_by("company_name", "company_ref")
    return [Option(*row) for row in rows.values_list("company_ref", "company_name").distinct()]


def _reasons(text: str, rights: Rights) -> list[Option]:
    """By their words or their number; the newest first."""
    found = Reason.objects.order_by("-id")
    if not rights.everything:
        met = restrict(ReasonHour.objects.all(), rights)
        found = found.filter(pk__in=met.values("reason_id"))
    numbered = Q(pk=int(text)) if text.isascii() and text.isdigit() and len(text) < 10 else Q()
    found = found.filter(
        numbered | Q(text__icontains=text) if numbered else Q(text__icontains=text)
    )
    return [Option(str(reason.pk), reason.text) for reason in found[:MOST]]


def _recent(column: str, rights: Rights) -> list[str]:
    """What the newest deliveries have in a column that no index knows, the most frequent first."""
    newest = restrict(Delivery.objects.order_by("-sent_at"), rights)
    counts = Counter(newest.values_list(column, flat=True)[:RECENT])
    return [str(value) for value, _ in counts.most_common() if value]
