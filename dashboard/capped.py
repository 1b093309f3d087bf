"""Values that are not counted apart: where a location has too many, later ones share a row."""

from collections.abc import Collection
from dataclasses import dataclass

from dashboard.conditions import capped_places
from ingest.models import CountedValue, Value
from ingest.vocabulary import OTHER_KEY, Dimension


@dataclass(frozen=True)
class CountedApart:
    """The values of a dimension that are counted apart in a location; all others are one."""

    values: frozenset[int]
    other: int

    def row_of(self, value: int) -> int:
        """The value whose row counts a value; 0 stands for none and for itself."""
        return value if not value or value in self.values else self.other


def counted_apart(
    dimension: Dimension, locations: Collection[int] | None
) -> dict[int, CountedApart]:
    """By location that has too many values of a dimension: which of them have rows."""
    places = [pk for pk in capped_places(dimension) if locations is None or pk in locations]
    if not places:
        return {}
    special = Value.objects.filter(dimension=dimension, text__in=("", OTHER_KEY))
    ids = dict(special.values_list("text", "id"))
    apart: dict[int, set[int]] = {place: set(ids.values()) for place in places}
    found = CountedValue.objects.filter(location_id__in=places, value__dimension=dimension)
    for place, value in found.values_list("location_id", "value_id"):
        apart[place].add(value)
    other = ids.get(OTHER_KEY, 0)
    return {place: CountedApart(frozenset(values), other) for place, values in apart.items()}
