"""Measures that are 0, which most are, become NULL: rows of half the size on PostgreSQL.

Each table is written anew once, not once a column.
"""

import re

from django.db import migrations

import ingest.models

TABLES = ("ingest_locationhour", "ingest_hourlycount")
MEASURES = (
    "sent", "delivered", "bounced", "hard", "soft", "block", "deferred", "complained",
    "unsubscribed", "opened", "opened_human", "clicked", "suppressed", "rejected", "orphan",
    "unknown", "test", "late_bounced", "recovered", "inferred", "visible_reached",
    "visible_complained", "block_low", "block_high", "moved",
)  # fmt: skip


def allow_null(apps, schema_editor):
    for table in TABLES:
        if schema_editor.connection.vendor == "postgresql":
            changes = (
                f"ALTER {name} DROP NOT NULL, ALTER {name} TYPE integer USING nullif({name}, 0)"
                for name in MEASURES
            )
            schema_editor.execute(f"ALTER TABLE {table} {', '.join(changes)}")
        else:
            _write_anew(schema_editor, table, "NOT NULL", "NULL", "nullif({}, 0)")


def forbid_null(apps, schema_editor):
    for table in TABLES:
        if schema_editor.connection.vendor == "postgresql":
            changes = (
                f"ALTER {name} TYPE integer USING coalesce({name}, 0), ALTER {name} SET NOT NULL"
                for name in MEASURES
            )
            schema_editor.execute(f"ALTER TABLE {table} {', '.join(changes)}")
        else:
            _write_anew(schema_editor, table, "NULL", "NOT NULL", "coalesce({}, 0)")


def _write_anew(schema_editor, table, before, after, read):
    """On SQLite: the same table with another constraint on the measures."""
    with schema_editor.connection.cursor() as cursor:
        cursor.execute(
            "SELECT sql FROM sqlite_master WHERE tbl_name = %s AND sql IS NOT NULL"
            " ORDER BY type <> 'table'",
            [table],
        )
        declared, *indexes = (sql for (sql,) in cursor.fetchall())
        cursor.execute("SELECT name FROM pragma_table_info(%s)", [table])
        columns = [name for (name,) in cursor.fetchall()]
    for name in MEASURES:
        declared, found = re.subn(f'("{name}" integer) {before}', rf"\1 {after}", declared)
        if found != 1:
            raise RuntimeError(f"{table}.{name} is not declared as expected: {declared}")
    old = f"{table}_old"
    schema_editor.execute(f"ALTER TABLE {table} RENAME TO {old}")
    schema_editor.execute(declared, params=None)
    selected = (read.format(name) if name in MEASURES else name for name in columns)
    schema_editor.execute(
        f"INSERT INTO {table} ({', '.join(columns)})"  # noqa: S608 - our own words
        f" SELECT {', '.join(selected)} FROM {old}"
    )
    schema_editor.execute(f"DROP TABLE {old}")
    for index in indexes:
        schema_editor.execute(index, params=None)


class Migration(migrations.Migration):
    dependencies = [
        ("ingest", "0006_folded_values"),
    ]

    operations = [
        migrations.SeparateDatabaseAndState(
            database_operations=[migrations.RunPython(allow_null, forbid_null)],
            state_operations=[
                migrations.AlterField(model, name, ingest.models.CountField())
                for model in ("locationhour", "hourlycount")
                for name in MEASURES
            ],
        ),
    ]
