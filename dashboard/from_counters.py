"""Rates read off the counters: whole hours of at most one value of one dimension."""

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from django.db.models import OuterRef, QuerySet, Subquery, Sum
from django.db.models.functions import JSONObject

from dashboard.capped import counted_apart
from dashboard.spans import Hours, Span, is_split, joined
from dashboard.tallies import (
    BY_TIME,
    DIMENSIONS,
    OVERLAPPING,
    PLACES,
    Leading,
    Question,
    Tally,
    add,
    ids_of,
)
from ingest.counted_values import CAPPED
from ingest.models import HourlyCount, Location, LocationHour
from ingest.vocabulary import FLEET_LOCATION, MEASURES, NONE_KEY, OTHER_KEY, Dimension

_SUMS = {f"{measure}_sum": Sum(measure) for measure in MEASURES}
# Few values are looked up hour by hour, which spares reading all the others of these hours.
_MOST_LOOKUPS = 5_000
_FEW_PLACES = 50  # locations that are looked up one by one


def can_count(question: Question) -> bool:
    """Whether counters hold the answer for whole hours."""
    dimension = _dimension_name(question)
    if dimension is None:
        return question.by in (*PLACES, *BY_TIME) and not question.names
    if question.names - {dimension}:
        return False
    wanted = question.filter.values(dimension)
    excluded = question.filter.values(dimension, excluded=True)
    if dimension in OVERLAPPING and (excluded or len(wanted) > 1):
        return False
    if dimension == "category" and NONE_KEY in wanted:  # mail that was not refused has no row
        return False
    return not _has_refused(question, DIMENSIONS[dimension], wanted + excluded)


def _dimension_name(question: Question) -> str | None:
    """The dimension whose counters can answer, if one does."""
    named = [name for name in (question.by, *sorted(question.names)) if name in DIMENSIONS]
    return named[0] if named else None


def _has_refused(question: Question, dimension: Dimension, keys: tuple[str, ...]) -> bool:
    """Whether a value that is asked for is not counted apart somewhere."""
    if not keys or dimension not in CAPPED or set(keys) == {OTHER_KEY}:
        return False
    places = counted_apart(dimension, question.locations)
    values = ids_of(_NAMES[dimension], keys) if places else ()
    return any(place.row_of(value) != value for place in places.values() for value in values)


_NAMES = {dimension: name for name, dimension in DIMENSIONS.items()}


def count_hours(question: Question, hours: Hours, tally: Tally) -> list[Span]:
    """Add whole hours. Returns those that the asked zone's hours or days split."""
    dimension, places = _dimension_name(question), question.locations
    if question.by == "location" and not question.names and places and len(places) <= _FEW_PLACES:
        for pk, measures in _by_place(LocationHour.objects.filter(**hours.conditions()), places):
            tally.add(pk, measures)
            add(tally.total, measures)
        return []
    counters = _of_places(LocationHour if dimension is None else HourlyCount, question)
    if dimension is not None:
        counters = _of_values(counters, question, dimension)
    split = _add_rows(question, _in_hours(counters, question, hours), tally)
    if question.by in OVERLAPPING and question.shown is None:
        _add_total(question, hours, tally)
    return joined(split)


def can_lead(question: Question) -> bool:
    """Whether the first locations can be told from few columns, and their sum read elsewhere."""
    return question.by == "location" and question.locations is None and not question.names


def count_leading(question: Question, hours: Hours, tally: Tally, leading: Leading) -> None:
    """Add whole hours of all locations to the total, and of the first ones by location.

    To sum up one column of a month takes a third of the time that all of them do.
    """
    counters = LocationHour.objects.filter(**hours.conditions())
    names = dict.fromkeys(("sent", *leading.measures))
    grouped = counters.exclude(location_id=FLEET_LOCATION).order_by().values_list("location_id")
    known = dict.fromkeys(MEASURES, 0)
    found = {
        pk: [*(known | dict(zip(names, sums, strict=True))).values()]
        for pk, *sums in grouped.annotate(**{f"{name}_sum": Sum(name) for name in names})
    }
    for pk, measures in _by_place(counters, leading.first(found)):
        tally.add(pk, measures)
    _add_total(replace(question, by="day"), hours, tally)  # by any that location 0 has rows for
    tally.led = True


def _by_place(
    counters: QuerySet[LocationHour], places: Collection[int]
) -> list[tuple[int, list[int]]]:
    """Sums of few locations, one after the other: each one's hours lie together in an index.

    Asked for all of them at once, PostgreSQL prefers to read these hours of all locations there
    are. One value holds a location's sums, for each would be a query of its own.
    """
    of_one = counters.filter(location_id=OuterRef("pk")).order_by().values("location_id")
    sums = of_one.annotate(sums=JSONObject(**{m: Sum(m) for m in MEASURES})).values("sums")
    found = Location.objects.filter(pk__in=places).annotate(sums=Subquery(sums))
    return [
        (pk, [measures[name] or 0 for name in MEASURES])
        for pk, measures in found.order_by().values_list("pk", "sums")
        if measures is not None
    ]


def _add_rows(question: Question, counters: QuerySet[Any], tally: Tally) -> list[int]:
    """Add the counters by group, but for the hours that the zone splits: these are returned."""
    by, split = question.by, []
    # Aggregates inside values_list() would be grouped by the primary key.
    found = list(counters.order_by().values_list(_column(by)).annotate(**_SUMS))
    if by in BY_TIME:
        split = [hour for hour, *_ in found if is_split(hour, by, question.filter.zone)]
        apart = set(split)
        found = [(4 * hour, *measures) for hour, *measures in found if hour not in apart]
    for key, *measures in found:
        tally.add(key, measures)
    if found and (by not in OVERLAPPING or question.shown is not None):
        add(tally.total, [sum(column) for column in list(zip(*found, strict=True))[1:]])
    return split


def _add_total(question: Question, hours: Hours, tally: Tally) -> None:
    """Where a delivery is in several rows, the total comes from the rows of all mail."""
    found = _in_hours(_of_places(LocationHour, question), question, hours).aggregate(**_SUMS)
    add(tally.total, [n or 0 for n in found.values()])


def _of_places(model: Any, question: Question) -> QuerySet[Any]:
    if question.has_fleet_rows():
        return model.objects.filter(location_id=FLEET_LOCATION)  # type: ignore[no-any-return]
    if question.locations is None:
        return model.objects.exclude(location_id=FLEET_LOCATION)  # type: ignore[no-any-return]
    return model.objects.filter(location_id__in=question.locations)  # type: ignore[no-any-return]


def _of_values(counters: QuerySet[Any], question: Question, name: str) -> QuerySet[Any]:
    counters = counters.filter(dimension=DIMENSIONS[name])
    if wanted := question.filter.values(name):
        counters = counters.filter(value_id__in=ids_of(name, wanted))
    if excluded := question.filter.values(name, excluded=True):
        counters = counters.exclude(value_id__in=ids_of(name, excluded))
    return counters


def _in_hours(counters: QuerySet[Any], question: Question, hours: Hours) -> QuerySet[Any]:
    places = 1 if question.locations is None else len(question.locations)
    one_value = question.names and counters.model is HourlyCount
    if one_value and hours.many is not None and hours.many * places <= _MOST_LOOKUPS:
        return counters.filter(hour__in=range(hours.first or 0, hours.last or 0))
    return counters.filter(**hours.conditions())


def _column(by: str) -> str:
    if by in PLACES:
        return "location_id"
    return "hour" if by in BY_TIME else "value_id"
