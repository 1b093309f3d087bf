"""What filters ask of deliveries and events, as conditions for the database, term by term.

``dashboard.matching`` asks the same of events that have been read. A prefix leads from what is
asked to the delivery: ``"delivery__"`` from events.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, ClassVar, NamedTuple

from django.db import connection
from django.db.models import BooleanField, Exists, F, Func, OuterRef, Q
from django.db.models import Value as Literal
from django.db.models.lookups import GreaterThan

from dashboard.words import (
    ATTEMPT_NAMES,
    BOUNCED_CLASSES,
    DEFERRED,
    FLAG_WORDS,
    MOVED,
    VALUE_NAMES,
    campaign_keys,
    keeps_moved,
)
from ingest.counted import LETTERS
from ingest.fold import SENT
from ingest.models import CountedValue, CountedValues, Location, Value
from ingest.vocabulary import (
    MOST_VALUES,
    NONE_KEY,
    OTHER_KEY,
    ROLLED_UP,
    BounceClass,
    Category,
    Dimension,
    Outcome,
)


def value_ids(dimension: Dimension, texts: Collection[str]) -> list[int]:
    """Ids of the values with these texts; ``(none)`` is the empty text, and 0: not known yet."""
    found = Value.objects.filter(
        dimension=dimension, text__in=["" if t == NONE_KEY else t for t in texts]
    )
    return [*found.values_list("id", flat=True), *([0] if NONE_KEY in texts else [])]


def campaign_ids(keys: Collection[str]) -> list[int]:
    """Ids of the campaigns with these full keys or bare ids."""
    wanted = frozenset(keys)
    condition = Q(text__in=["" if key == NONE_KEY else key for key in wanted])
    for key in wanted:
        condition |= Q(text__endswith=":" + key)
    found = Value.objects.filter(condition, dimension=Dimension.CAMPAIGN)
    return [pk for pk, text in found.values_list("id", "text") if wanted & {*campaign_keys(text)}]


def capped_places(dimension: Dimension) -> list[int]:
    """Locations with so many values of a dimension that later ones share ``(other)``."""
    if dimension not in ROLLED_UP:
        return []
    full = CountedValues.objects.filter(dimension=dimension, used__gte=MOST_VALUES)
    return list(full.values_list("location_id", flat=True))


type _Query = Callable[[Sequence[str], str], Q]
"""From values and a prefix to the condition."""
_NOTHING = Q(pk__in=[])


def _any(conditions: Iterable[Q]) -> Q:
    """Nothing where there are none."""
    whole = _NOTHING
    for condition in conditions:
        whole |= condition
    return whole


def every(conditions: Iterable[Q]) -> Q:
    """Everything where there are none."""
    whole = Q()
    for condition in conditions:
        whole &= condition
    return whole


def _by_value(name: str) -> _Query:
    dimension = VALUE_NAMES[name]
    find = campaign_ids if name == "campaign" else lambda texts: value_ids(dimension, texts)

    def query(values: Sequence[str], prefix: str) -> Q:
        condition = Q(**{f"{prefix}{name}_id__in": find(values)})
        return condition | _uncounted(name, prefix) if OTHER_KEY in values else condition

    return query


def _uncounted(name: str, prefix: str) -> Q:
    """Deliveries whose value is one of those that share ``(other)`` in their location."""
    dimension = VALUE_NAMES[name]
    places = capped_places(dimension)
    if not places:
        return _NOTHING
    counted = CountedValue.objects.filter(
        location_id=OuterRef(f"{prefix}location_id"), value_id=OuterRef(f"{prefix}{name}_id")
    )
    empty = Q(**{f"{prefix}{name}_id__in": value_ids(dimension, [NONE_KEY])})
    return Q(**{f"{prefix}location_id__in": places}) & ~empty & ~Q(Exists(counted))


class _HoldsUncounted(Func):
    """Whether a column of ids, of those with a mark in front, holds one that shares ``(other)``.

    Takes the column, its location and the mark.
    """

    output_field = BooleanField()
    template = (
        "EXISTS (SELECT 1 FROM {tokens} WHERE {token} LIKE '{mark}_%%' AND NOT EXISTS"
        " (SELECT 1 FROM ingest_countedvalue counted WHERE counted.location_id = {location}"
        " AND counted.value_id ="
        " CASE WHEN {token} LIKE '{mark}_%%' THEN CAST(substr({token}, {first}) AS bigint) END))"
    )
    tokens: ClassVar = {  # one row a token, and its column
        "sqlite": (
            """json_each('["' || replace({ids}, ',', '","') || '"]') token""",
            "token.value",
        ),
        "postgresql": ("unnest(string_to_array({ids}, ',')) token(id)", "token.id"),
    }

    def as_sqlite(self, compiler: Any, connection: Any, **extra: Any) -> Any:
        return self._written(compiler, "sqlite")

    def as_postgresql(self, compiler: Any, connection: Any, **extra: Any) -> Any:
        return self._written(compiler, "postgresql")

    def _written(self, compiler: Any, vendor: str) -> tuple[str, list[Any]]:
        column, location, mark = self.get_source_expressions()
        (ids, _), (location_sql, _) = compiler.compile(column), compiler.compile(location)
        tokens, token = self.tokens[vendor]
        sql = self.template.format(
            tokens=tokens.format(ids=ids),
            token=token,
            mark=mark.value,
            first=len(mark.value) + 1,
            location=location_sql,
        )
        return sql, []


def _holds_uncounted(column: str, mark: str, dimension: Dimension, prefix: str) -> Q:
    places = capped_places(dimension)
    if not places:
        return _NOTHING
    held = _HoldsUncounted(F(prefix + column), F(f"{prefix}location_id"), Literal(mark))
    return Q(**{f"{prefix}location_id__in": places}) & Q(held)


def _by_tag(values: Sequence[str], prefix: str) -> Q:
    tagged = value_ids(Dimension.TAG, [v for v in values if v != NONE_KEY])
    condition = _any(Q(**{f"{prefix}tags__contains": f",{pk},"}) for pk in tagged)
    if OTHER_KEY in values:
        condition |= _holds_uncounted("tags", "", Dimension.TAG, prefix)
    return condition | Q(**{f"{prefix}tags": ","}) if NONE_KEY in values else condition


def _by_location(field: str) -> _Query:
    def query(values: Sequence[str], prefix: str) -> Q:
        texts = ["" if value == NONE_KEY else value for value in values]
        found = Location.objects.filter(**{f"{field}__in": texts})
        return Q(**{f"{prefix}location_id__in": list(found.values_list("pk", flat=True))})

    return query


def _by_outcome(values: Sequence[str], prefix: str) -> Q:
    outcomes = [Outcome.from_word(value) for value in values if value != MOVED]
    return Q(**{f"{prefix}outcome__in": outcomes})


def _by_class(values: Sequence[str], prefix: str) -> Q:
    condition = _NOTHING
    bounced = Q(**{f"{prefix}outcome": Outcome.BOUNCED})
    classes = f"{prefix}bounce_class"
    for value in values:
        if value == "undetermined":
            condition |= bounced & ~Q(**{f"{classes}__in": list(BOUNCED_CLASSES)})
        elif value == "suppressed":
            condition |= Q(**{f"{prefix}outcome": Outcome.SUPPRESSED})
        elif value == NONE_KEY:
            outside = [Outcome.BOUNCED, Outcome.SUPPRESSED]
            condition |= ~Q(**{f"{prefix}outcome__in": outside})
        else:
            condition |= bounced & Q(**{classes: BounceClass.from_word(value)})
    return condition


def _by_category(values: Sequence[str], prefix: str) -> Q:
    categories = [0 if v == NONE_KEY else Category.from_word(v) for v in values]
    return Q(**{f"{prefix}category__in": categories})


def by_deferral(values: Sequence[str], prefix: str) -> Q:
    """By the categories of the temporary failures."""
    column = f"{prefix}ways__contains"
    categories = [Category.from_word(value) for value in values if value != NONE_KEY]
    condition = _any(Q(**{column: f",c{int(category)},"}) for category in categories)
    return condition | ~Q(**{column: ",c"}) if NONE_KEY in values else condition


def _by_number(field: str) -> _Query:
    def query(values: Sequence[str], prefix: str) -> Q:
        numbers = [int(value) for value in values if value != NONE_KEY]
        condition = Q(**{f"{prefix}{field}__in": numbers})
        return condition | Q(**{f"{prefix}{field}": None}) if NONE_KEY in values else condition

    return query


def _by_flag(values: Sequence[str], prefix: str) -> Q:
    mask = sum(flag for flag, word in FLAG_WORDS if word in values)
    return Q(GreaterThan(F(prefix + "flags").bitand(mask), 0)) if mask else _NOTHING


def _by_search(values: Sequence[str], prefix: str) -> Q:
    condition = _NOTHING
    for value in values:
        if value.startswith("@"):
            ids = value_ids(Dimension.DOMAIN, [value[1:].lower()])
            condition |= Q(**{f"{prefix}domain_id__in": ids})
        else:
            condition |= beginning(value.lower(), prefix) | Q(**{f"{prefix}message_id": value})
    return condition


def beginning(start: str, prefix: str) -> Q:
    """Recipients that begin so. SQLite's LIKE uses no index; its order is that of code points."""
    recipient = f"{prefix}recipient"
    condition = Q(**{f"{recipient}__startswith": start})
    if connection.vendor == "sqlite":
        between = {f"{recipient}__gte": start, f"{recipient}__lt": start + "\U0010ffff"}
        condition &= Q(**between)
    return condition


QUERIES: dict[str, _Query] = {
    "location": _by_location("ref"),
    "company": _by_location("company_ref"),
    **{name: _by_value(name) for name in VALUE_NAMES if name not in ("tag", *ATTEMPT_NAMES)},
    "tag": _by_tag,
    "outcome": _by_outcome,
    "class": _by_class,
    "category": _by_category,
    "code": _by_number("code"),
    "is": _by_flag,
    "reason": _by_number("reason_id"),
    "q": _by_search,
}
# What an event's own columns say of the refusal that is asked for; its detail says more.
OWN_QUERIES: dict[str, _Query] = {
    "reason": _by_number("reason_id"),
    "provider": _by_value("provider"),
    "code": _by_number("code"),
    "category": _by_category,
    "class": lambda values, prefix: Q(
        bounce_class__in=[0 if v == NONE_KEY else BounceClass.from_word(v) for v in values]
    ),
}


# --- What happened at an attempt --------------------------------------------------------------


class At(NamedTuple):
    """What a delivery has to do with any of some values of an attempt's dimension."""

    decided: Q
    tried: Q
    deferred: Q  # of those with a temporary failure


def attempts_at(name: str, values: Sequence[str], prefix: str) -> At:
    dimension, ways = VALUE_NAMES[name], f"{prefix}ways__contains"
    tried, deferring = "a" + LETTERS[dimension], "d" + LETTERS[dimension]
    ids = value_ids(dimension, values)
    decided_at = Q(**{f"{prefix}{name}_id__in": ids})
    tried_at = _any(Q(**{ways: f",{tried}{pk},"}) for pk in ids if pk)
    deferred_at = _any(Q(**{ways: f",{deferring}{pk},"}) for pk in ids if pk)
    if OTHER_KEY in values:
        decided_at |= _uncounted(name, prefix)
        tried_at |= _holds_uncounted("ways", tried, dimension, prefix)
        deferred_at |= _holds_uncounted("ways", deferring, dimension, prefix)
    only_there = decided_at & ~Q(**{ways: f",{deferring}"})
    return At(decided_at, decided_at | tried_at, deferred_at | only_there)


def by_decision(name: str, values: Sequence[str], prefix: str, at: Collection[At]) -> Q:
    """What happened at the end, where that was at the attempts asked for."""
    decided = every(each.decided for each in at)
    if name == "is" and DEFERRED in values:
        others = _by_flag([value for value in values if value != DEFERRED], prefix)
        deferred = every(each.deferred for each in at)
        return (others & decided) | (_by_flag([DEFERRED], prefix) & deferred)
    condition = decided & QUERIES[name](values, prefix)
    if name == "outcome" and keeps_moved(values):
        condition |= ~decided & Q(**{f"{prefix}outcome__in": list(SENT)})
    return condition
