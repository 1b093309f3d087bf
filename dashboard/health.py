"""Whether this process has what it needs: a database that takes writes, and the channel layer."""

import asyncio
from functools import cache

from channels.layers import get_channel_layer
from django.db import DatabaseError, connection, transaction
from django.db.migrations.executor import MigrationExecutor

LAYER_SECONDS = 2.0


def database_problems() -> dict[str, str]:
    """What is wrong with the database, by part; empty when it can be written to."""
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            # On SQLite the transaction itself takes the lock to write.
            if connection.vendor == "postgresql":
                cursor.execute("SHOW transaction_read_only")
                if cursor.fetchone() != ("off",):
                    return {"database": "read-only"}
        if not _migrated():
            _migrated.cache_clear()
            return {"migrations": "not applied"}
    except DatabaseError as error:
        return {"database": type(error).__name__}
    return {}


@cache
def _migrated() -> bool:
    """Whether all migrations are applied. What is applied stays so while the process lives."""
    executor = MigrationExecutor(connection)
    return not executor.migration_plan(executor.loader.graph.leaf_nodes())


async def layer_problems() -> dict[str, str]:
    """What is wrong with the channel layer; empty when it can be reached."""
    layer = get_channel_layer()
    if layer is None:
        return {"layer": "none configured"}
    try:
        # A group that nobody is in: it reaches the layer and no further.
        async with asyncio.timeout(LAYER_SECONDS):
            await layer.group_send("sendwatch.readyz", {"type": "readyz"})
    except Exception as error:  # each layer has exceptions of its own
        return {"layer": type(error).__name__}
    return {}
