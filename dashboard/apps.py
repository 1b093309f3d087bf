from typing import Any

from django.apps import AppConfig
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created


class DashboardConfig(AppConfig):
    """People watching: pages, API and sockets."""

    name = "dashboard"

    def ready(self) -> None:
        """Prepare connections; note in the audit log what people change about their accounts."""
        from dashboard.people import own_changes

        own_changes.connect()
        connection_created.connect(prepare_to_count)


def prepare_to_count(connection: BaseDatabaseWrapper, **kwargs: Any) -> None:
    """Let PostgreSQL sum up for pages without compiling the plan first, or writing to disk.

    Thirty days by domain over 10 million deliveries took a third less so.
    """
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SET jit = off; SET work_mem = '32MB'")
