"""What a connection to PostgreSQL is made ready for."""

import pytest
from django.db import connection


@pytest.mark.postgresql_only
@pytest.mark.django_db
def test_connections_count_without_compiling_plans() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_setting('jit'), current_setting('work_mem')")
        assert cursor.fetchone() == ("off", "32MB")
