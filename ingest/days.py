"""Hours of the counters become days once nobody asks for their hours any more.

The rows of a UTC day are added to those of its first hour, some a transaction, so that every sum
over whole days is the same before, meanwhile and after.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.db import connection
from django.db.models import Min

from ingest.models import EventHour, LocationHour, ReasonHour
from ingest.statements import added_sql
from ingest.vocabulary import MEASURES, ROLLED_UP

# The physical address of a row: what bounds a statement on a table with a key of many columns.
_SOME = {
    "postgresql": "ctid = ANY(ARRAY(SELECT ctid FROM {table} WHERE {condition} LIMIT {limit}))",
    "sqlite": "rowid IN (SELECT rowid FROM {table} WHERE {condition} LIMIT {limit})",
}


def some(table: str, condition: str, limit: int) -> str:
    """A condition that at most ``limit`` rows of those that meet another one meet."""
    return _SOME[connection.vendor].format(table=table, condition=condition, limit=int(limit))


def execute(statement: str, parameters: Sequence[Any]) -> int:
    """Run a statement. Returns how many rows it touched."""
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return int(cursor.rowcount)


def ask(statement: str, parameters: Sequence[Any]) -> int:
    """The one number that a query answers with."""
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return int(cursor.fetchall()[0][0])


@dataclass(frozen=True, slots=True)
class Hours:
    """A table of counters by the hour, or one dimension of it."""

    table: str
    key: tuple[str, ...]
    counts: tuple[str, ...]
    dimension: int = 0

    @property
    def _condition(self) -> str:
        """Of the rows of a day that are not those of its first hour."""
        within = "hour > %s AND hour < %s"
        return f"dimension = %s AND {within}" if self.dimension else within

    def _within(self, day: int) -> list[int]:
        """The parameters of ``_condition``."""
        return [*([self.dimension] if self.dimension else []), day, day + 24]

    def count(self, day: int) -> int:
        """How many rows of a day are not yet added to those of its first hour."""
        found = f"SELECT count(*) FROM {self.table} WHERE {self._condition}"  # noqa: S608
        return ask(found, self._within(day))

    def merge(self, day: int, limit: int) -> int:
        """Add some rows to the first hour's and delete them. Returns how many."""
        if connection.vendor == "postgresql":
            rows = some(self.table, self._condition, limit)
            gone = f"DELETE FROM {self.table} WHERE {rows} RETURNING *"  # noqa: S608
            both = f"WITH gone AS ({gone}), put AS ({self._put('gone', day)})"
            return ask(f"{both} SELECT count(*) FROM gone", self._within(day))  # noqa: S608
        # Both statements have to mean the same rows; with the plus, an index still finds them.
        rows = some(self.table, f"{self._condition} ORDER BY +rowid", limit)
        execute(self._put(f"{self.table} WHERE {rows}", day), self._within(day))
        return execute(f"DELETE FROM {self.table} WHERE {rows}", self._within(day))  # noqa: S608

    def _put(self, source: str, day: int) -> str:
        key, counts = ", ".join(self.key), ", ".join(self.counts)
        same = ", ".join(column for column in self.key if column != "hour")
        read = ", ".join(str(int(day)) if column == "hour" else column for column in self.key)
        whole = "nullif(sum({}), 0)" if self.counts is MEASURES else "sum({})"
        sums = ", ".join(map(whole.format, self.counts))
        added = ", ".join(f"{c} = {added_sql(self.table, c)}" for c in self.counts)
        return (
            f"INSERT INTO {self.table} ({key}, {counts}) SELECT {read}, {sums} FROM {source} "  # noqa: S608
            f"GROUP BY {same} ORDER BY {same} ON CONFLICT ({key}) DO UPDATE SET {added}"
        )


HOURS = (
    Hours("ingest_locationhour", ("location_id", "hour"), MEASURES),
    *(
        Hours(
            "ingest_hourlycount",
            ("location_id", "dimension", "hour", "value_id"),
            MEASURES,
            dimension,
        )
        for dimension in map(int, ROLLED_UP)
    ),
    Hours(
        "ingest_eventhour",
        ("location_id", "hour", "provider_id", "kind", "bounce_class"),
        ("events",),
    ),
    Hours(
        "ingest_reasonhour",
        ("location_id", "hour", "reason_id", "provider_id", "pool_id", "kind"),
        ("events",),
    ),
)


def first_day(since: int, end: int) -> int:
    """The first hour of the first day with counters from ``since`` on; ``end`` if there is none."""
    tables = (LocationHour, EventHour, ReasonHour)
    hours = (
        table.objects.filter(hour__gte=since, hour__lt=end).aggregate(first=Min("hour"))["first"]
        for table in tables
    )
    return min((hour // 24 * 24 for hour in hours if hour is not None), default=end)
