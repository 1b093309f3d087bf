"""What was drawn for a history, in tables that are gone at the end, and the counters from it.

Every delivery is a row of ``bench_draw``: its location, time, life and names. What a life counts
for stands once, as ``ingest.counted`` says; SQL sums it up. Days are counted one at a time, so that
each fits in memory, and while later ones are drawn.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from django.db import connection, models

from ingest.counted import Counted, places
from ingest.counted_values import decisions
from ingest.models import (
    EventHour,
    HourlyCount,
    LocationHour,
    MinuteCount,
    QualityHour,
    ReasonHour,
    ReasonProvider,
    Value,
)
from ingest.quality import COLUMNS, LAG_EDGES, LAGS
from ingest.retention import oldest_minute
from ingest.statements import aware_utc
from ingest.vocabulary import FLEET, FLEET_LOCATION, MEASURES, OTHER_KEY, Dimension

HOUR = 3_600_000_000
COUNTED = (LocationHour, HourlyCount, EventHour, ReasonHour)  # the large tables among the counters

DRAW = (
    "location_id", "sent", "hour", "life", "campaign", "step", "domain", "sending_domain", "tag_set"
)  # fmt: skip
_TOLD = ("life", "at", "lag", "kind", "bounce_class", "provider", "reason", "pool", "test")
_SUMS = ", ".join(f"nullif(sum(m.{name}), 0)" for name in MEASURES)
_TEMPORARY = {
    "bench_draw": DRAW,
    "bench_told": _TOLD,
    "bench_life": ("life", *MEASURES),
    "bench_place": ("life", "dimension", "value", *MEASURES),
    "bench_tag": ("tag_set", "value"),
}


def make(
    lives: Sequence[tuple[int, Counted, Sequence[tuple[int, ...]]]],
    tag_sets: Sequence[tuple[int, ...]],
) -> None:
    """Make the tables, for lives (number, as what it counts, its events as in ``_TOLD``)."""
    for table, columns in _TEMPORARY.items():
        declared = ", ".join(f"{name} {width(name)}" for name in columns)
        execute(f"CREATE TEMPORARY TABLE {table} ({declared})")
    _insert("bench_life", [(pk, *_ones(counted.measures)) for pk, counted, _ in lives])
    _insert("bench_place", [row for pk, counted, _ in lives for row in _life_places(pk, counted)])
    _insert("bench_told", [(pk, *told) for pk, _, all_told in lives for told in all_told])
    no_tag = Value.objects.get(dimension=Dimension.TAG, text="").pk
    tagged = enumerate(tag_sets)
    _insert("bench_tag", [(n, tag) for n, tags in tagged for tag in tags or (no_tag,)])
    execute("CREATE INDEX bench_told_life ON bench_told (life)")
    execute("CREATE INDEX bench_draw_hour ON bench_draw (hour)")
    for table in _TEMPORARY:
        execute(f"ANALYZE {table}")


def width(column: str) -> str:
    if column in ("sent", "at", "lag"):
        return "bigint"
    return "smallint" if column in MEASURES else "integer"


def drop() -> None:
    """Drop the tables."""
    for table in _TEMPORARY:
        execute(f"DROP TABLE {table}")


# The dimensions whose value comes with the life; a mailing brings the others.
_OF_LIVES = (Dimension.PROVIDER, Dimension.IP, Dimension.POOL, Dimension.CATEGORY)


def _life_places(life: int, counted: Counted) -> list[tuple[int, ...]]:
    return [
        (life, dimension, value, *_ones(measures))
        for (dimension, value), measures in places(counted, 0).items()
        if dimension in _OF_LIVES and measures
    ]


def _ones(measures: Sequence[int]) -> list[int]:
    return [int(position in measures) for position in range(len(MEASURES))]


def statements_of(first: int, until: int) -> Iterator[str]:
    """SQL that counts the deliveries of some hours, but for their domains."""
    when = f"d.hour >= {first} AND d.hour < {until}"
    yield _counting(LocationHour, "d.location_id, d.hour", "bench_life m USING (life)", when)
    for dimension, value, more in (
        (Dimension.CAMPAIGN, "d.campaign", ""),
        (Dimension.STEP, "d.step", ""),
        (Dimension.SENDING_DOMAIN, "d.sending_domain", ""),
        (Dimension.TAG, "t.value", " JOIN bench_tag t USING (tag_set)"),
    ):
        key = f"d.location_id, {int(dimension)}, d.hour, {value}"
        yield _counting(HourlyCount, key, f"bench_life m USING (life){more}", when)
    key = "d.location_id, m.dimension, d.hour, m.value"
    yield _counting(HourlyCount, key, "bench_place m USING (life)", when)


def count_rest(began: int, now: int) -> None:
    """What needs to know all that was drawn: domains, the fleet's rows, and events."""
    execute("ANALYZE bench_draw")
    _decide()
    other = Value.objects.get(dimension=Dimension.DOMAIN, text=OTHER_KEY).pk
    apart = (
        "bench_life m USING (life) LEFT JOIN ingest_countedvalue c"
        " ON c.location_id = d.location_id AND c.value_id = d.domain"
    )
    key = f"d.location_id, {int(Dimension.DOMAIN)}, d.hour, coalesce(c.value_id, {other})"
    for first in range(began // HOUR, now // HOUR + 1, 24):
        when = f"d.hour >= {first} AND d.hour < {first + 24}"
        execute(_counting(HourlyCount, key, apart, when))
    _count_fleet()
    _count_events(now)


def _decide() -> None:
    """Record which values are counted apart: of domains each location's first so many.

    No location has so many values of any other dimension.
    """
    named = "JOIN ingest_value v ON v.id = value WHERE v.text NOT IN ('', '(other)')"
    execute(f"""
        INSERT INTO ingest_countedvalue (location_id, value_id)
        SELECT location_id, value FROM (
            SELECT DISTINCT location_id, campaign AS value FROM bench_draw
            UNION SELECT DISTINCT location_id, step FROM bench_draw
            UNION SELECT DISTINCT location_id, sending_domain FROM bench_draw
            UNION SELECT DISTINCT d.location_id, t.value
                FROM (SELECT DISTINCT location_id, tag_set FROM bench_draw) d
                JOIN bench_tag t USING (tag_set)
            UNION SELECT DISTINCT d.location_id, p.value
                FROM (SELECT DISTINCT location_id, life FROM bench_draw) d
                JOIN bench_place p USING (life) WHERE p.dimension <> {int(Dimension.CATEGORY)}
            UNION SELECT location_id, domain FROM (
                SELECT location_id, domain, row_number() OVER (
                    PARTITION BY location_id ORDER BY min(sent)
                ) AS place FROM bench_draw GROUP BY location_id, domain
            ) AS ranked WHERE place <= {decisions.limit}
        ) AS named {named}
    """)
    execute("""
        INSERT INTO ingest_countedvalues (location_id, dimension, used)
        SELECT c.location_id, v.dimension, count(*)
        FROM ingest_countedvalue c JOIN ingest_value v ON v.id = c.value_id GROUP BY 1, 2
    """)
    execute("ANALYZE ingest_countedvalue")


_KEYS = {
    LocationHour: ("location_id", "hour"),
    HourlyCount: ("location_id", "dimension", "hour", "value_id"),
    EventHour: ("location_id", "hour", "provider_id", "kind", "bounce_class"),
    ReasonHour: ("location_id", "hour", "reason_id", "provider_id", "pool_id", "kind"),
    MinuteCount: ("location_id", "minute", "kind"),
    QualityHour: ("location_id", "hour"),
}


def _counting(model: type[models.Model], key: str, measured: str, when: str) -> str:
    """Sums of measures (``m``) over some draws (``d``), by the expressions of the key."""
    select = f"SELECT {key}, {_SUMS} FROM bench_draw d JOIN {measured} WHERE {when}"
    return _summing(model, MEASURES, select)


def _summing(model: type[models.Model], counts: Sequence[str], select: str) -> str:
    key = _KEYS[model]
    places = ", ".join(str(place + 1) for place in range(len(key)))
    into = f"{model._meta.db_table} ({', '.join((*key, *counts))})"
    return f"INSERT INTO {into} {select} GROUP BY {places} ORDER BY {places}"


def _sum_into(model: type[models.Model], counts: Sequence[str], select: str) -> None:
    execute(_summing(model, counts, select))


def _count_fleet() -> None:
    """The rows of location 0: all mail, and the dimensions that the whole fleet has."""
    select = f"SELECT {FLEET_LOCATION}, m.hour, {_SUMS} FROM ingest_locationhour m"
    _sum_into(LocationHour, MEASURES, select)
    dimensions = ", ".join(str(int(dimension)) for dimension in sorted(FLEET))
    _sum_into(
        HourlyCount, MEASURES,
        f"SELECT {FLEET_LOCATION}, m.dimension, m.hour, m.value_id, {_SUMS} "
        f"FROM ingest_hourlycount m WHERE m.dimension IN ({dimensions})",
    )  # fmt: skip


def _count_events(now: int) -> None:
    """Counters of events by their own clocks; tests are in none of them."""
    shown = "FROM bench_draw d JOIN bench_told e USING (life) WHERE e.test = 0"
    hour = f"(d.sent + e.at) / {HOUR}"
    key = f"d.location_id, {hour}, e.provider, e.kind, e.bounce_class"
    _sum_into(EventHour, ("events",), f"SELECT {key}, count(*) {shown}")
    _sum_into(
        EventHour, ("events",),
        f"SELECT {FLEET_LOCATION}, hour, provider_id, kind, bounce_class, sum(events) "
        "FROM ingest_eventhour",
    )  # fmt: skip
    key = f"d.location_id, {hour}, e.reason, e.provider, e.pool, e.kind"
    _sum_into(ReasonHour, ("events",), f"SELECT {key}, count(*) {shown} AND e.reason > 0")
    _count_reasons(shown)
    since = oldest_minute(now) * 60_000_000
    recent = f"{shown} AND d.sent + e.at >= {since}"
    key = "d.location_id, (d.sent + e.at) / 60000000, e.kind"
    _sum_into(MinuteCount, ("events",), f"SELECT {key}, count(*) {recent}")
    _count_quality()


def _count_reasons(shown: str) -> None:
    """When each provider first and last gave a reason."""
    rows = fetch(
        "SELECT e.reason, e.provider, min(d.sent + e.at), max(d.sent + e.at) "
        f"{shown} AND e.reason > 0 GROUP BY 1, 2"
    )
    ReasonProvider.objects.bulk_create(
        ReasonProvider(
            reason_id=reason, provider_id=provider,
            first_at=aware_utc(first), last_at=aware_utc(last),
        )
        for reason, provider, first, last in rows
    )  # fmt: skip


def _count_quality() -> None:
    """What came in by the hour of its receipt, and how late; flaws are not drawn."""
    slots = "".join(f" WHEN e.lag < {edge}000000 THEN {n}" for n, edge in enumerate(LAG_EDGES))
    received = (
        f"SELECT d.location_id, (d.sent + e.at + e.lag) / {HOUR} AS hour,"
        f" CASE{slots} ELSE {len(LAG_EDGES)} END AS slot, count(*) AS events"
        " FROM bench_draw d JOIN bench_told e USING (life) GROUP BY 1, 2, 3"
    )
    found = {
        name: f"sum(CASE slot WHEN {n} THEN events ELSE 0 END)" for n, name in enumerate(LAGS)
    } | {"events": "sum(events)"}
    sums = ", ".join(found.get(name, "0") for name in COLUMNS)
    _sum_into(QualityHour, COLUMNS, f"SELECT location_id, hour, {sums} FROM ({received}) AS r")


def execute(statement: str, parameters: Sequence[Any] | None = None) -> None:
    """Run a statement."""
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)


def fetch(statement: str, parameters: Sequence[Any] | None = None) -> list[tuple[Any, ...]]:
    """All rows of a question."""
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return list(cursor.fetchall())


def _insert(table: str, rows: Sequence[Sequence[int]]) -> None:
    marks = ", ".join(["%s"] * len(_TEMPORARY[table]))
    with connection.cursor() as cursor:
        cursor.executemany(f"INSERT INTO {table} VALUES ({marks})", rows)
