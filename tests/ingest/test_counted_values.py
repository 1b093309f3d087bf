"""Which values are counted apart: decided once, whoever comes first, and kept to by everybody."""

import threading
from collections.abc import Iterator

import pytest
from django.db import connection, transaction

from ingest.counted_values import Decisions
from ingest.models import CountedValue, CountedValues, Location, Value
from ingest.statements import statements
from ingest.vocabulary import Dimension

LIMIT = 50


@pytest.fixture
def location(db: None) -> int:
    return Location.objects.create(ref="loc1").pk


def values(count: int) -> list[int]:
    made = [Value.objects.create(dimension=Dimension.TAG, text=f"t{n}") for n in range(count)]
    return [value.pk for value in made]


def decide(process: Decisions, location: int, some: list[int]) -> None:
    wanted = [(location, int(Dimension.TAG), value) for value in some]
    with transaction.atomic():
        process.decide(statements(), process.undecided(wanted))


def apart(process: Decisions, location: int, some: list[int]) -> set[int]:
    return set(some) & process._known[location] - process._other[location]


def test_the_first_values_find_room_and_the_rest_does_not(location: int) -> None:
    process, tags = Decisions(limit=3), values(5)
    decide(process, location, tags)
    assert apart(process, location, tags) == set(tags[:3])
    assert CountedValues.objects.get().used == 3
    decide(process, location, tags)
    assert CountedValues.objects.get().used == 3


def test_where_more_is_counted_apart_than_there_is_room_nothing_more_is(location: int) -> None:
    tags = values(6)
    decide(Decisions(limit=4), location, tags[:4])
    stricter = Decisions(limit=2)
    decide(stricter, location, tags)
    assert apart(stricter, location, tags) == set(tags[:4])


def test_each_dimension_of_each_location_has_room_of_its_own(location: int) -> None:
    process, tags = Decisions(limit=2), values(2)
    other = Location.objects.create(ref="loc2").pk
    decide(process, location, tags)
    decide(process, other, tags)
    assert apart(process, other, tags) == set(tags)
    assert [row.used for row in CountedValues.objects.all()] == [2, 2]


def test_another_process_learns_what_was_decided(location: int) -> None:
    first, second, tags = Decisions(limit=3), Decisions(limit=3), values(5)
    decide(first, location, tags[2:])
    decide(second, location, tags)
    assert apart(second, location, tags) == set(tags[2:])
    assert CountedValue.objects.count() == CountedValues.objects.get().used == 3


@pytest.fixture
def committed_location(transactional_db: None) -> Iterator[int]:
    yield Location.objects.create(ref="loc1").pk


@pytest.mark.postgresql_only
def test_processes_that_decide_at_once_agree(committed_location: int) -> None:
    location, tags = committed_location, values(2 * LIMIT)
    processes = [Decisions(limit=LIMIT) for _ in range(4)]
    failures: list[BaseException] = []

    def run(process: Decisions, shift: int) -> None:
        mine = tags[shift:] + tags[:shift]
        try:
            for start in range(0, len(mine), 7):
                decide(process, location, mine[start : start + 7])
        except BaseException as error:
            failures.append(error)
        finally:
            connection.close()

    threads = [
        threading.Thread(target=run, args=(process, 20 * n)) for n, process in enumerate(processes)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    recorded = set(CountedValue.objects.values_list("value_id", flat=True))
    assert len(recorded) == CountedValues.objects.get().used == LIMIT
    for process in processes:
        assert apart(process, location, tags) == recorded
