"""Reads that would take too long are stopped, on both engines, and leave nothing behind."""

import pytest
from django.db import OperationalError, connection

from dashboard.bounded import TookTooLong, bounded_reads, within
from tests.dashboard import rows

ENDLESS = {
    "sqlite": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
    " SELECT max(i) FROM n",
    "postgresql": "SELECT pg_sleep(60)",
}


def ask(sql: str) -> object:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchone()


def ask_for_ever() -> object:
    return ask(ENDLESS[connection.vendor])


# Limits are set differently within a transaction and on their own.
EITHER_WAY = pytest.mark.parametrize(
    "nested",
    [
        pytest.param(True, marks=pytest.mark.django_db),
        pytest.param(False, marks=pytest.mark.django_db(transaction=True)),
    ],
)


@EITHER_WAY
def test_what_takes_too_long_is_stopped_with_a_sentence(nested: bool) -> None:
    sentence = "^This took too long and was stopped: "
    with pytest.raises(TookTooLong, match=sentence), bounded_reads(0.05):
        ask_for_ever()


@EITHER_WAY
def test_the_connection_is_as_before(nested: bool) -> None:
    assert connection.in_atomic_block == nested
    rows.location("kept")
    with pytest.raises(TookTooLong), bounded_reads(0.05):
        ask_for_ever()
    with bounded_reads(0.05):
        assert ask("SELECT 1") == (1,)
    # Longer than the limit was.
    assert ask(SLOW[connection.vendor])
    assert ask("SELECT count(*) FROM ingest_location") == (1,)


SLOW = {
    "sqlite": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 1000000)"
    " SELECT max(i) FROM n",
    "postgresql": "SELECT pg_sleep(0.2)",
}


@pytest.mark.django_db
def test_the_shorter_of_two_holds() -> None:
    for outer, inner in ((0.05, 60), (60, 0.05)):
        with pytest.raises(TookTooLong), bounded_reads(outer), bounded_reads(inner):
            ask_for_ever()
    with pytest.raises(TookTooLong), bounded_reads(0.05):
        with bounded_reads(60):
            pass
        ask_for_ever()


@pytest.mark.django_db
def test_a_short_cut_may_be_too_long_and_what_follows_goes_on() -> None:
    with bounded_reads(60):
        rows.location("kept")
        assert within(0.05, ask_for_ever) is None
        assert within(60, lambda: ask("SELECT count(*) FROM ingest_location")) == (1,)
        assert ask(SLOW[connection.vendor])


@pytest.mark.django_db
def test_other_troubles_keep_their_names() -> None:
    with pytest.raises(OperationalError), bounded_reads(1):
        raise OperationalError("server closed the connection unexpectedly")
    with pytest.raises(ZeroDivisionError), bounded_reads(1):
        _ = 1 / 0


@pytest.mark.django_db(transaction=True)
def test_readers_on_sqlite_take_no_lock_to_write(engine: str) -> None:
    with bounded_reads(1):
        assert connection.in_atomic_block == (engine == "postgresql")
