"""The recorder's SQL, multi-row, for PostgreSQL and for SQLite.

Rows go to PostgreSQL as one JSON parameter a statement, never as Python lists: psycopg's list
dumper was half of the recorder's processor time. SQLite runs one prepared statement over the
rows, which beats multi-row VALUES there.

Both classes speak the same language: keys are ``(location id, message id, recipient)``, times are
microseconds since 1970, rows are tuples in the order of the ``*_COLUMNS`` below.
"""

from base64 import b64encode
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from operator import itemgetter
from typing import Any

import orjson
import psycopg
from django.db import connection, transaction

from ingest.quality import COLUMNS as QUALITY_COLUMNS
from ingest.quality import KEY as QUALITY_KEY
from ingest.vocabulary import MEASURES

type DeliveryKey = tuple[int, str, str]
type EventKey = tuple[int, bytes]
type CountRow = tuple[tuple[int, ...], Sequence[int]]
"""A counter's key, and what to add to each of its counts."""

STATE_COLUMNS = (
    "sent_at", "outcome", "flags", "bounce_class", "category", "code",
    "campaign_id", "step_id", "provider_id", "domain_id", "sending_domain_id", "ip_id", "pool_id",
    "mx_id", "reason_id", "tags", "ways", "facts",
)  # fmt: skip
# What a stored delivery was counted as, in the order of ``counted.Counted``; None: its hour.
COUNTED_COLUMNS = (
    "outcome", "flags", "bounce_class", "category", None, "campaign_id", "step_id", "provider_id",
    "domain_id", "sending_domain_id", "ip_id", "pool_id", "tags", "ways",
)  # fmt: skip
KEY_COLUMNS = ("location_id", "message_id", "recipient")
EVENT_COLUMNS = (
    "location_id", "delivery_id", "key", "kind", "occurred_at", "received_at", "code",
    "category", "bounce_class", "reason_id", "provider_id", "ip_id", "pool_id", "mx_id", "is_test",
    "content", "webhook", "payload_codec", "detail", "payload",
)  # fmt: skip
LOCATION_HOUR_KEY = ("location_id", "hour")
HOURLY_COUNT_KEY = ("location_id", "dimension", "hour", "value_id")
MINUTE_KEY = ("location_id", "minute", "kind")
EVENT_HOUR_KEY = ("location_id", "hour", "provider_id", "kind", "bounce_class")
REASON_HOUR_KEY = ("location_id", "hour", "reason_id", "provider_id", "pool_id", "kind")
COUNTED_VALUE = ("location_id", "value_id")
COUNTED_VALUES = ("location_id", "dimension", "used")
REASON_PROVIDER = ("reason_id", "provider_id", "first_at", "last_at")

# One lock for all writers of events, taken last and held to the commit, so that event ids
# become visible in their order. Any constant will do.
EVENT_LOCK = 736_566

_EPOCH = datetime(1970, 1, 1)


def naive_utc(time: int) -> datetime:
    """Microseconds since 1970 as the naive UTC datetime that SQLite's adapter stores."""
    return _EPOCH + timedelta(microseconds=time)


def aware_utc(time: int) -> datetime:
    """Microseconds since 1970 as an aware UTC datetime."""
    return naive_utc(time).replace(tzinfo=UTC)


class Raced(Exception):
    """Another process made one of our new rows first: roll back and run the batch again."""


_TYPES = {
    "id": "bigint", "location_id": "int", "delivery_id": "bigint", "message_id": "text",
    "recipient": "text", "sent_at": "bigint", "outcome": "smallint", "flags": "int",
    "bounce_class": "smallint", "category": "smallint", "code": "smallint",
    "campaign_id": "int", "step_id": "int", "provider_id": "int", "domain_id": "int",
    "sending_domain_id": "int", "ip_id": "int", "pool_id": "int", "mx_id": "int",
    "reason_id": "int", "tags": "text", "ways": "text", "facts": "text", "key": "text",
    "first_at": "bigint", "last_at": "bigint", "webhook": "bigint",
    "kind": "smallint", "occurred_at": "bigint", "received_at": "bigint", "detail": "int[]",
    "content": "bigint", "payload": "int[]", "payload_codec": "smallint", "hour": "int",
    "dimension": "smallint", "value_id": "int", "is_test": "bool", "used": "int", "minute": "int",
    "events": "int",
    **dict.fromkeys((*MEASURES, *QUALITY_COLUMNS), "int"),
}  # fmt: skip
_COUNTS = frozenset(QUALITY_COLUMNS)
_PIECES = ("detail", "payload")  # the last of EVENT_COLUMNS
_TIMES = {"sent_at", "occurred_at", "received_at", "first_at", "last_at"}


def _recordset(columns: Iterable[str]) -> str:
    return "json_to_recordset(%s) AS r(" + ", ".join(f"{c} {_TYPES[c]}" for c in columns) + ")"


def _read(column: str) -> str:
    """A column of the record set ``r`` as the table stores it."""
    if column in _TIMES:
        return f"'epoch'::timestamptz + r.{column} * interval '1 microsecond'"
    if column == "key":
        return "decode(r.key, 'hex')"
    if column == "facts":
        return "decode(r.facts, 'base64')"
    if column in _PIECES:
        return f"substring(%b::bytea FROM r.{column}[1] FOR r.{column}[2])"
    if column in _COUNTS:
        return f"coalesce(r.{column}, 0)"
    return f"r.{column}"


def added_sql(table: str, column: str) -> str:
    """What a counter has after an upsert adds to it. Measures are NULL where they are 0."""
    if column in MEASURES:
        return f"nullif(coalesce({table}.{column}, 0) + coalesce(excluded.{column}, 0), 0)"
    return f"{table}.{column} + excluded.{column}"


def _upsert(table: str, key: Sequence[str], counts: Sequence[str], source: str) -> str:
    added = ", ".join(f"{c} = {added_sql(table, c)}" for c in counts)
    return (
        f"INSERT INTO {table} ({', '.join((*key, *counts))}) {source} "
        f"ON CONFLICT ({', '.join(key)}) DO UPDATE SET {added}"
    )


def _decide(source: str) -> str:
    """Record decisions, each by whoever is first; returns what is new."""
    return (
        f"INSERT INTO ingest_countedvalue ({', '.join(COUNTED_VALUE)}) {source} "
        f"ON CONFLICT DO NOTHING RETURNING {', '.join(COUNTED_VALUE)}"
    )


def _add_used(source: str) -> str:
    return (
        _upsert("ingest_countedvalues", COUNTED_VALUES[:2], COUNTED_VALUES[2:], source)
        + f" RETURNING {', '.join(COUNTED_VALUES)}"
    )


def _seen(least: str, greatest: str, source: str) -> str:
    """The first and last times of a reason at a provider, whichever comes first."""
    table = "ingest_reasonprovider"
    return (
        f"INSERT INTO {table} ({', '.join(REASON_PROVIDER)}) {source} "
        "ON CONFLICT (reason_id, provider_id) DO UPDATE SET "
        f"first_at = {least}({table}.first_at, excluded.first_at), "
        f"last_at = {greatest}({table}.last_at, excluded.last_at)"
    )


def _json(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    return orjson.dumps([dict(zip(columns, row, strict=True)) for row in rows]).decode()


def _texts(rows: Iterable[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
    """Rows of deliveries with their facts, the last column, as JSON can hold them."""
    for row in rows:
        yield *row[:-1], b64encode(row[-1]).decode()


def _pieces(parts: Iterable[bytes]) -> Iterator[tuple[int, int]]:
    """Where each part begins when they are put together, from 1 on, and how long it is."""
    begin = 1
    for part in parts:
        yield begin, len(part)
        begin += len(part)


def _count_json(
    key: Sequence[str],
    rows: Iterable[CountRow],
    columns: Sequence[str] = MEASURES,
) -> str:
    """Counter rows with only the counts that change: the rest is null."""
    return orjson.dumps(
        [
            dict(zip(key, ids, strict=True))
            | {name: n for name, n in zip(columns, counts, strict=True) if n}
            for ids, counts in rows
        ]
    ).decode()


def _changed(rows: Sequence[CountRow]) -> tuple[str, ...]:
    """The measures that any of these rows changes: most often a third of them."""
    columns = zip(*(counts for _, counts in rows), strict=True)
    return tuple(name for name, counts in zip(MEASURES, columns, strict=True) if any(counts))


class Postgres:
    """Statements for PostgreSQL 14 and later."""

    def __init__(self) -> None:
        event_read = ", ".join(_read(c) for c in EVENT_COLUMNS)
        new_columns = KEY_COLUMNS + STATE_COLUMNS
        hour = "floor(extract(epoch FROM d.sent_at) / 3600)::int"
        self._lock = (
            "SELECT d.id, d.location_id, d.message_id, d.recipient, d.facts, "
            f"{', '.join(f'd.{c}' if c else hour for c in COUNTED_COLUMNS)} "
            f"FROM {_recordset(KEY_COLUMNS)} JOIN ingest_delivery d ON d.message_id = r.message_id "
            "AND d.recipient = r.recipient AND d.location_id = r.location_id "
            "ORDER BY d.message_id, d.recipient, d.location_id FOR UPDATE OF d"
        )
        self._known = (
            "SELECT e.location_id, e.key, e.content "
            f"FROM {_recordset(('location_id', 'key'))} JOIN ingest_event e "
            "ON e.location_id = r.location_id AND e.key = decode(r.key, 'hex')"
        )
        self._insert_deliveries = (
            f"INSERT INTO ingest_delivery ({', '.join(new_columns)}) "
            f"SELECT {', '.join(_read(c) for c in new_columns)} FROM {_recordset(new_columns)} "
            "ON CONFLICT (message_id, recipient, location_id) DO NOTHING "
            "RETURNING location_id, message_id, recipient, id"
        )
        self._update_deliveries = (
            "UPDATE ingest_delivery d SET "
            + ", ".join(f"{c} = {_read(c)}" for c in STATE_COLUMNS)
            + f" FROM {_recordset(('id', *STATE_COLUMNS))} WHERE d.id = r.id"
        )
        self._insert_events = (
            f"INSERT INTO ingest_event ({', '.join(EVENT_COLUMNS)}) "
            f"SELECT {event_read} FROM {_recordset(EVENT_COLUMNS)} "
            "ON CONFLICT (location_id, key) DO NOTHING RETURNING id"
        )
        self._decide, self._add_used = (
            made(f"SELECT {', '.join(map(_read, columns))} FROM {_recordset(columns)}")
            for made, columns in ((_decide, COUNTED_VALUE), (_add_used, COUNTED_VALUES))
        )
        self._add_minutes = self._adding("ingest_minutecount", MINUTE_KEY)
        self._add_event_hours = self._adding("ingest_eventhour", EVENT_HOUR_KEY)
        self._add_reason_hours = self._adding("ingest_reasonhour", REASON_HOUR_KEY)
        self._add_quality = self._counting("ingest_qualityhour", QUALITY_KEY, QUALITY_COLUMNS)
        self._add_reason_providers = _seen(
            "least", "greatest",
            f"SELECT {', '.join(map(_read, REASON_PROVIDER))} FROM {_recordset(REASON_PROVIDER)}",
        )  # fmt: skip

    @staticmethod
    def _counting(table: str, key: Sequence[str], counts: Sequence[str]) -> str:
        columns = (*key, *counts)
        read = ", ".join(_read(c) for c in columns)
        return _upsert(table, key, counts, f"SELECT {read} FROM {_recordset(columns)}")

    @staticmethod
    def _adding(table: str, key: Sequence[str]) -> str:
        columns = (*key, "events")
        read = ", ".join(_read(c) for c in columns)
        return _upsert(table, key, ("events",), f"SELECT {read} FROM {_recordset(columns)}")

    def prepare(self) -> None:
        """Bounds for a connection that writes: a stopped process must not hold the others.

        Everything it looks up it looks up by key; statistics that lag behind a growing table
        must not talk the planner into reading all of it.
        """
        with connection.cursor() as cursor:
            cursor.execute(
                "SET lock_timeout = '5s'; SET statement_timeout = '5s'; "
                "SET idle_in_transaction_session_timeout = '5s'; "
                "SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off"
            )

    @contextmanager
    def unsynced(self) -> Iterator[None]:
        """A transaction whose commit need not reach the disk before the next one's does."""
        with transaction.atomic():
            self._execute("SET LOCAL synchronous_commit = off")
            yield

    def add_counted_values(self, pairs: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        """Record that values are counted apart: sorted COUNTED_VALUE. Returns what is new."""
        return self._execute(self._decide, _json(COUNTED_VALUE, pairs)).fetchall()

    def add_used(self, rows: Sequence[tuple[int, int, int]]) -> dict[tuple[int, int], int]:
        """Count decisions: sorted COUNTED_VALUES. Returns the counts by location and dimension."""
        found = self._execute(self._add_used, _json(COUNTED_VALUES, rows)).fetchall()
        return {(row[0], row[1]): row[2] for row in found}

    @contextmanager
    def together(self) -> Iterator[None]:
        """Statements in here go out without waiting for each other's answers."""
        with connection.wrap_database_errors, self._connection().pipeline():
            yield

    def read(
        self, deliveries: Sequence[DeliveryKey], events: Sequence[EventKey]
    ) -> tuple[list[tuple[Any, ...]], dict[EventKey, int]]:
        """The stored deliveries of these keys, locked in key order; then, which of these events
        are stored, with their content digests.

        A delivery's row: id, location id, message id, recipient, facts, and COUNTED_COLUMNS.
        """
        keys = [(location, key.hex()) for location, key in events]
        with self.together():
            locked = self._execute(self._lock, _json(KEY_COLUMNS, deliveries))
            known = self._execute(self._known, _json(("location_id", "key"), keys))
            found = locked.fetchall()
            return found, {(row[0], bytes(row[1])): row[2] for row in known.fetchall()}

    def insert_deliveries(self, rows: Sequence[tuple[Any, ...]]) -> dict[DeliveryKey, int]:
        """Insert deliveries (KEY_COLUMNS + STATE_COLUMNS, sorted). Returns their ids.

        Raises ``Raced`` where another process has made one of them.
        """
        made = self._execute(
            self._insert_deliveries, _json(KEY_COLUMNS + STATE_COLUMNS, _texts(rows))
        ).fetchall()
        if len(made) != len(rows):
            raise Raced
        return {(row[0], row[1], row[2]): row[3] for row in made}

    def update_deliveries(self, rows: Sequence[tuple[Any, ...]]) -> None:
        """Write deliveries' states: rows of id + STATE_COLUMNS."""
        self._execute(self._update_deliveries, _json(("id", *STATE_COLUMNS), _texts(rows)))

    def add_location_hours(self, rows: Sequence[CountRow]) -> None:
        """Add to the counters of locations: (LOCATION_HOUR_KEY, measures), sorted."""
        self._add_measures("ingest_locationhour", LOCATION_HOUR_KEY, rows)

    def add_hourly_counts(self, rows: Sequence[CountRow]) -> None:
        """Add to the counters of values: (HOURLY_COUNT_KEY, measures), sorted."""
        self._add_measures("ingest_hourlycount", HOURLY_COUNT_KEY, rows)

    def _add_measures(self, table: str, key: Sequence[str], rows: Sequence[CountRow]) -> None:
        if rows:
            self._execute(self._counting(table, key, _changed(rows)), _count_json(key, rows))

    def add_minutes(self, rows: Sequence[tuple[int, ...]]) -> None:
        """Add to the minute table: rows of MINUTE_KEY + count, sorted."""
        if rows:
            self._execute(self._add_minutes, _json((*MINUTE_KEY, "events"), rows))

    def add_event_hours(self, rows: Sequence[tuple[int, ...]]) -> None:
        """Add to the events' own clock: rows of EVENT_HOUR_KEY + count, sorted."""
        if rows:
            self._execute(self._add_event_hours, _json((*EVENT_HOUR_KEY, "events"), rows))

    def add_reason_hours(self, rows: Sequence[tuple[int, ...]]) -> None:
        """Add to the reasons' counts: rows of REASON_HOUR_KEY + count, sorted."""
        self._execute(self._add_reason_hours, _json((*REASON_HOUR_KEY, "events"), rows))

    def add_reason_providers(self, rows: Sequence[tuple[int, ...]]) -> None:
        """Widen the times that providers gave reasons in: rows of REASON_PROVIDER, sorted."""
        self._execute(self._add_reason_providers, _json(REASON_PROVIDER, rows))

    def add_quality(self, rows: Sequence[CountRow]) -> None:
        """Add to the quality of what came in: (QUALITY_KEY, QUALITY_COLUMNS), sorted."""
        if rows:
            self._execute(self._add_quality, _count_json(QUALITY_KEY, rows, QUALITY_COLUMNS))

    def insert_events(self, rows: Sequence[tuple[Any, ...]]) -> int:
        """Insert events (EVENT_COLUMNS) under the writers' lock. Returns the newest cursor.

        Raises ``Raced`` where another process has stored one of them.
        """
        # All details travel as one binary parameter, and all payloads; each row names its pieces.
        details, payloads = ([row[at] for row in rows] for at in (-2, -1))
        encoded = [
            (*row[:2], row[2].hex(), *row[3:-2], *pieces)
            for row, *pieces in zip(rows, _pieces(details), _pieces(payloads), strict=True)
        ]
        self._execute("SELECT pg_advisory_xact_lock(%s)", EVENT_LOCK)
        ids = self._execute(
            self._insert_events,
            b"".join(details),
            b"".join(payloads),
            _json(EVENT_COLUMNS, encoded),
        ).fetchall()
        if len(ids) != len(rows):
            raise Raced
        return int(max(ids)[0])

    def idle(self) -> None:
        """Nothing to tidy between batches."""

    def _execute(self, statement: str, *parameters: Any) -> psycopg.Cursor[tuple[Any, ...]]:
        """Send the parameters beside the statement: Django's cursor would quote the JSON into it.

        Never prepared: a plan made while the tables were empty would stay.
        """
        with connection.wrap_database_errors:
            return psycopg.Cursor(self._connection()).execute(statement, parameters, prepare=False)

    @staticmethod
    def _connection() -> psycopg.Connection[tuple[Any, ...]]:
        connection.ensure_connection()
        found: psycopg.Connection[tuple[Any, ...]] = connection.connection
        return found


class Sqlite:
    """Statements for SQLite. The transaction is IMMEDIATE, so that nobody else writes in it."""

    # Of whole seconds: SQLite's clock would round 59.9996 up into the next hour.
    _hour = "CAST(strftime('%s', substr(d.sent_at, 1, 19)) AS INTEGER) / 3600"
    _lock = (
        "SELECT d.id, d.location_id, d.message_id, d.recipient, d.facts, "
        + ", ".join(f"d.{column}" if column else "{hour}" for column in COUNTED_COLUMNS)
        + " FROM json_each(?) k CROSS JOIN ingest_delivery d "
        "ON d.message_id = json_extract(k.value, '$[1]') "
        "AND d.recipient = json_extract(k.value, '$[2]') "
        "AND d.location_id = json_extract(k.value, '$[0]')"
    ).replace("{hour}", _hour)
    _known = "SELECT content FROM ingest_event WHERE location_id = ? AND key = ?"

    def __init__(self) -> None:
        self._insert_deliveries = self._insert(
            "ingest_delivery", ("id", *KEY_COLUMNS, *STATE_COLUMNS)
        )
        self._update_deliveries = (
            "UPDATE ingest_delivery SET "
            + ", ".join(f"{c} = %s" for c in STATE_COLUMNS)
            + " WHERE id = %s"
        )
        self._insert_events = self._insert("ingest_event", ("id", *EVENT_COLUMNS))
        self._decide, self._add_used = (
            made(f"SELECT {pieces} FROM json_each(%s) k WHERE true")
            for made, columns in ((_decide, COUNTED_VALUE), (_add_used, COUNTED_VALUES))
            for pieces in [
                ", ".join(f"json_extract(k.value, '$[{i}]')" for i in range(len(columns)))
            ]
        )
        self._add_minutes = self._adding("ingest_minutecount", MINUTE_KEY)
        self._add_event_hours = self._adding("ingest_eventhour", EVENT_HOUR_KEY)
        self._add_reason_hours = self._adding("ingest_reasonhour", REASON_HOUR_KEY)
        self._add_quality = self._counting("ingest_qualityhour", QUALITY_KEY, QUALITY_COLUMNS)
        self._add_reason_providers = _seen("min", "max", "VALUES (%s, %s, %s, %s)")

    @staticmethod
    def _insert(table: str, columns: Sequence[str]) -> str:
        marks = ", ".join(["%s"] * len(columns))
        return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})"

    @staticmethod
    @lru_cache(256)
    def _counting(table: str, key: Sequence[str], counts: Sequence[str]) -> str:
        marks = ", ".join(["%s"] * (len(key) + len(counts)))
        return _upsert(table, key, counts, f"VALUES ({marks})")

    @staticmethod
    def _adding(table: str, key: Sequence[str]) -> str:
        marks = ", ".join(["%s"] * (len(key) + 1))
        return _upsert(table, key, ("events",), f"VALUES ({marks})")

    def prepare(self) -> None:
        """Wait less for the lock than other connections: senders are waiting for us."""
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA busy_timeout = 4000")

    @contextmanager
    def unsynced(self) -> Iterator[None]:
        """A transaction whose commit need not reach the disk before the next one's does."""
        with connection.cursor() as cursor:
            nested = connection.in_atomic_block  # where the level cannot be changed
            if not nested:
                cursor.execute("PRAGMA synchronous = NORMAL")
            try:
                with transaction.atomic():
                    yield
            finally:
                if not nested:
                    cursor.execute("PRAGMA synchronous = FULL")

    def add_counted_values(self, pairs: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        """Record that values are counted apart: COUNTED_VALUE. Returns what is new."""
        return self._returning(self._decide, pairs)

    def add_used(self, rows: Sequence[tuple[int, int, int]]) -> dict[tuple[int, int], int]:
        """Count decisions: COUNTED_VALUES. Returns the counts by location and dimension."""
        return {(row[0], row[1]): row[2] for row in self._returning(self._add_used, rows)}

    @staticmethod
    def _returning(statement: str, rows: Sequence[tuple[int, ...]]) -> list[Any]:
        with connection.cursor() as cursor:
            cursor.execute(statement, [orjson.dumps(rows).decode()])
            return list(cursor.fetchall())

    @contextmanager
    def together(self) -> Iterator[None]:
        """There is nobody to wait for here."""
        yield

    def read(
        self, deliveries: Sequence[DeliveryKey], events: Sequence[EventKey]
    ) -> tuple[list[tuple[Any, ...]], dict[EventKey, int]]:
        """The stored deliveries of these keys, and which of these events are stored, with their
        content digests: see ``Postgres.read``.
        """
        known = {}
        with connection.wrap_database_errors:
            # Django's cursor would read the statement anew for each row.
            cursor = connection.connection.cursor()
            found = cursor.execute(self._lock, [orjson.dumps(deliveries).decode()]).fetchall()
            for key in events:
                if (row := cursor.execute(self._known, key).fetchone()) is not None:
                    known[key] = row[0]
        return found, known

    def insert_deliveries(self, rows: Sequence[tuple[Any, ...]]) -> dict[DeliveryKey, int]:
        """Insert deliveries (KEY_COLUMNS + STATE_COLUMNS). Returns their ids."""
        ids = self._next_ids("ingest_delivery", len(rows))
        self._many(
            self._insert_deliveries,
            [(i, *row[:3], naive_utc(row[3]), *row[4:]) for i, row in zip(ids, rows, strict=True)],
        )
        return {(row[0], row[1], row[2]): i for i, row in zip(ids, rows, strict=True)}

    def update_deliveries(self, rows: Sequence[tuple[Any, ...]]) -> None:
        """Write deliveries' states: rows of id + STATE_COLUMNS."""
        self._many(self._update_deliveries, [(naive_utc(row[1]), *row[2:], row[0]) for row in rows])

    def add_location_hours(self, rows: Sequence[CountRow]) -> None:
        """Add to the counters of locations: (LOCATION_HOUR_KEY, measures)."""
        self._add_measures("ingest_locationhour", LOCATION_HOUR_KEY, rows)

    def add_hourly_counts(self, rows: Sequence[CountRow]) -> None:
        """Add to the counters of values: (HOURLY_COUNT_KEY, measures)."""
        self._add_measures("ingest_hourlycount", HOURLY_COUNT_KEY, rows)

    def _add_measures(self, table: str, key: Sequence[str], rows: Sequence[CountRow]) -> None:
        if not rows:
            return
        changed = _changed(rows)
        places = [MEASURES.index(name) for name in changed]
        # One place twice: of a single one, itemgetter would give no tuple.
        pick = itemgetter(*places, places[-1])
        self._many(
            self._counting(table, key, changed),
            [(*ids, *pick(counts)[:-1]) for ids, counts in rows],
        )

    def add_minutes(self, rows: Sequence[tuple[int, ...]]) -> None:
        """Add to the minute table: rows of MINUTE_KEY + count."""
        self._many(self._add_minutes, rows)

    def add_event_hours(self, rows: Sequence[tuple[int, ...]]) -> None:
        """Add to the events' own clock: rows of EVENT_HOUR_KEY + count."""
        self._many(self._add_event_hours, rows)

    def add_reason_hours(self, rows: Sequence[tuple[int, ...]]) -> None:
        """Add to the reasons' counts: rows of REASON_HOUR_KEY + count."""
        self._many(self._add_reason_hours, rows)

    def add_reason_providers(self, rows: Sequence[tuple[int, ...]]) -> None:
        """Widen the times that providers gave reasons in: rows of REASON_PROVIDER."""
        self._many(
            self._add_reason_providers,
            [(*row[:2], naive_utc(row[2]), naive_utc(row[3])) for row in rows],
        )

    def add_quality(self, rows: Sequence[CountRow]) -> None:
        """Add to the quality of what came in: (QUALITY_KEY, QUALITY_COLUMNS)."""
        self._many(self._add_quality, [(*key, *counts) for key, counts in rows])

    def insert_events(self, rows: Sequence[tuple[Any, ...]]) -> int:
        """Insert events (EVENT_COLUMNS). Returns the newest cursor."""
        ids = self._next_ids("ingest_event", len(rows))
        self._many(
            self._insert_events,
            [
                (i, *row[:4], naive_utc(row[4]), naive_utc(row[5]), *row[6:])
                for i, row in zip(ids, rows, strict=True)
            ],
        )
        return ids[-1]

    def idle(self) -> None:
        """Give the write-ahead log's space back while nobody waits."""
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    @staticmethod
    def _next_ids(table: str, count: int) -> range:
        """Ids that AUTOINCREMENT would give next; safe because we hold the write lock."""
        with connection.cursor() as cursor:
            cursor.execute("SELECT seq FROM sqlite_sequence WHERE name = %s", [table])
            row = cursor.fetchone()
        first = (row[0] if row else 0) + 1
        return range(first, first + count)

    @staticmethod
    def _many(statement: str, rows: Sequence[tuple[Any, ...]]) -> None:
        with connection.cursor() as cursor:
            cursor.executemany(statement, rows)


type Sql = Postgres | Sqlite


def statements() -> Sql:
    """The statements for the configured database."""
    return _BY_VENDOR[connection.vendor]


_BY_VENDOR: dict[str, Sql] = {"postgresql": Postgres(), "sqlite": Sqlite()}
