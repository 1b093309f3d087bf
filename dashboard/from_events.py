"""Rates by the events' own clock: what happened in a time, whenever the mail was sent.

Counts are of events: a mail deferred three times counts three. ``sent`` is what was settled,
delivered and bounced, so nothing is in flight; ``opened_human`` is not told apart. Provider,
category, class, code and reason are those that the event itself names, all else is its
delivery's. Events of test mode are left out.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from django.db.models import BooleanField, Case, Count, Q, QuerySet, Sum, Value, When

from dashboard.filters import Filter
from dashboard.spans import Hours, Quarter, Span, hour_of, in_spans, is_split, joined, whole_hours
from dashboard.tallies import BY_TIME, PLACES, Question, Tally, add_at, ids_of
from ingest import providers
from ingest.models import Event, EventHour, Location, tag_ids
from ingest.models import Value as Named
from ingest.vocabulary import FLEET_LOCATION, MEASURES, BounceClass, Dimension, EventKind

_COUNTED = {
    EventKind.DELIVERED: ("sent", "delivered"),
    EventKind.BOUNCED: ("sent", "bounced"),
    EventKind.DEFERRED: ("deferred",),
    EventKind.SUPPRESSED: ("suppressed",),
    EventKind.REJECTED: ("rejected",),
    EventKind.UNKNOWN: ("unknown",),
    EventKind.COMPLAINED: ("complained",),
    EventKind.UNSUBSCRIBED: ("unsubscribed",),
    EventKind.OPENED: ("opened",),
    EventKind.CLICKED: ("clicked",),
}
_CLASSES = {BounceClass.HARD: "hard", BounceClass.SOFT: "soft", BounceClass.BLOCK: "block"}
_VISIBLE = {EventKind.DELIVERED: "visible_reached", EventKind.COMPLAINED: "visible_complained"}
_UNDATED = (395_000).to_bytes(4)  # keys before 2015 are of events without a time of their own


def count_events(question: Question, *, counters: bool = True) -> tuple[Tally, list[Span]]:
    """What was counted, and the stretches of time that single events were needed for.

    Without ``counters`` everything comes from the events: slower, and the same.
    """
    tally = Tally()
    hours, spans = whole_hours(question.start, question.until)
    if hours is not None:
        if counters and _can_count(question):
            spans = spans + _count_hours(question, hours, tally)
        else:
            spans = [(question.start, question.until)]
    if spans:
        _count_spans(question, spans, tally)
    return tally, spans


def _positions(kind: int, bounce_class: int, visible: bool) -> Iterator[int]:
    names = list(_COUNTED.get(EventKind(kind), ()))
    if kind == EventKind.BOUNCED and bounce_class in _CLASSES:
        names.append(_CLASSES[BounceClass(bounce_class)])
    if visible and kind in _VISIBLE:
        names.append(_VISIBLE[EventKind(kind)])
    return map(MEASURES.index, names)


def _add(tally: Tally, keys: Iterable[int], positions: Iterable[int], n: int) -> None:
    counted = list(positions)
    add_at(tally.total, counted, n)
    for key in keys:
        add_at(tally.groups[key], counted, n)


# --- Whole hours, from the counters of events ------------------------------------------------


def _can_count(question: Question) -> bool:
    return question.names <= {"provider"} and question.by in (*PLACES, *BY_TIME, "provider")


def _count_hours(question: Question, hours: Hours, tally: Tally) -> list[Span]:
    """Add whole hours. Returns those that the asked zone's hours or days split."""
    counters = EventHour.objects.filter(**hours.conditions())
    if question.locations is not None:
        counters = counters.filter(location_id__in=question.locations)
    elif question.by in PLACES:
        counters = counters.exclude(location_id=FLEET_LOCATION)
    else:
        counters = counters.filter(location_id=FLEET_LOCATION)
    counters = counters.filter(_own(question.filter, "provider", "provider_id"))
    by, split = question.by, set()
    column = "location_id" if by in PLACES else "hour" if by in BY_TIME else "provider_id"
    grouped = counters.order_by().values_list(column, "kind", "bounce_class", _is_visible())
    for key, kind, bounce_class, visible, n in grouped.annotate(n=Sum("events")):
        if by in BY_TIME and is_split(key, by, question.filter.zone):
            split.add(key)
        else:
            group = 4 * key if by in BY_TIME else key
            _add(tally, [group], _positions(kind, bounce_class, visible), n)
    return joined(split)


def _is_visible() -> Case:
    """Whether an event's provider is known to report complaints."""
    named = Named.objects.filter(dimension=Dimension.PROVIDER).values_list("pk", "text")
    ids = [pk for pk, text in named if providers.reports_complaints(text)]
    reports = When(provider_id__in=ids, then=Value(True))
    return Case(reports, default=Value(False), output_field=BooleanField())


# --- Anything, from the events -----------------------------------------------------------------


def _count_spans(question: Question, spans: Sequence[Span], tally: Tally) -> None:
    key = _KEYS.get(question.by) or f"delivery__{question.by}_id"
    grouped = _events(question, spans).order_by().values_list(
        Quarter("occurred_at") if question.by in BY_TIME else key,
        "kind", "bounce_class", _is_visible(),
    )  # fmt: skip
    for found, kind, bounce_class, visible, n in grouped.annotate(n=Count("pk")):
        keys = (tag_ids(found or "") or [0]) if question.by == "tag" else [found or 0]
        shown = [one for one in keys if question.shown is None or one in question.shown]
        _add(tally, shown, _positions(kind, bounce_class, visible), n)


_KEYS = {
    "location": "location_id",
    "company": "location_id",
    "provider": "provider_id",
    "category": "category",
    "tag": "delivery__tags",
}


def _events(question: Question, spans: Sequence[Span]) -> QuerySet[Event]:
    filter = question.filter
    places = question.locations
    if places is None:  # the index begins with the location
        places = frozenset(Location.objects.values_list("pk", flat=True))
    events = Event.objects.filter(
        _in_keys(spans), in_spans(spans, "occurred_at"), location_id__in=places, kind__in=_COUNTED,
        is_test=False,
    )  # fmt: skip
    for name, field in _OWN.items():
        events = events.filter(_own(filter, name, field))
    rest = [t for t in filter.terms if t.name not in (*PLACES, *_OWN)]
    timeless = replace(filter, terms=tuple(rest), range="", since=None, to=None)
    return events.filter(*timeless.conditions("delivery__"))


_OWN = {
    "provider": "provider_id",
    "category": "category",
    "class": "bounce_class",
    "code": "code",
    "reason": "reason_id",
}


def _in_keys(spans: Sequence[Span]) -> Q:
    """The condition that an event's key begins with an hour of the spans, or with no time."""
    starts, ends = zip(*spans, strict=True)
    condition = Q()
    if None not in starts:
        condition &= Q(key__gte=hour_of(min(starts)).to_bytes(4))
    if None not in ends:
        condition &= Q(key__lt=(hour_of(max(ends)) + 1).to_bytes(4))
    return condition | Q(key__lt=_UNDATED) if condition else condition


def _own(filter: Filter, name: str, field: str) -> Q:
    """What the filter asks of an event's own column."""
    condition = Q()
    for excluded in (False, True):
        if values := filter.values(name, excluded=excluded):
            found = _is_any(name, field, values)
            condition &= ~found if excluded else found
    return condition


def _is_any(name: str, field: str, values: Sequence[str]) -> Q:
    none = Q(**{field: None}) if name in ("code", "reason") and "(none)" in values else Q(pk__in=[])
    if name in ("provider", "category"):
        return Q(**{f"{field}__in": ids_of(name, values)})
    if name == "class":
        classes = [0 if v == "(none)" else int(BounceClass.from_word(v)) for v in values]
        return Q(**{f"{field}__in": classes})
    return none | Q(**{f"{field}__in": [int(v) for v in values if v != "(none)"]})
