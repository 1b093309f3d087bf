"""Where a delivery counts: by hand, and as identities over whatever hypothesis draws."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest import counted
from ingest.counted import (
    Counted,
    capped,
    difference,
    moved,
    places,
    read_ways,
    unpacked,
    write_ways,
)
from ingest.vocabulary import MEASURES, BounceClass, Category, Dimension, Flag, Outcome

NO_TAG = 1


def delivery(**columns: Any) -> Counted:
    """A delivered mail whose values are told apart by their hundreds."""
    plain = Counted(
        outcome=Outcome.DELIVERED, flags=Flag.REACHED, bounce_class=0, category=0, hour=9,
        campaign=100, step=200, provider=300, domain=400, sending_domain=500, ip=600, pool=700,
        tags=",", ways=",",
    )  # fmt: skip
    return plain._replace(**columns)


def words(measures: counted.Measures) -> set[str]:
    return {MEASURES[position] for position in measures}


def by(dimension: Dimension, of: Counted) -> dict[int, set[str]]:
    """What each row of a dimension counts."""
    found = places(of, NO_TAG)
    return {value: words(found[d, value]) for d, value in found if d == dimension}


def test_a_delivery_counts_once_in_each_dimension_of_one_value() -> None:
    found = places(delivery(), NO_TAG)
    assert {key: words(measures) for key, measures in found.items()} == {
        (Dimension.CAMPAIGN, 100): {"sent", "delivered"},
        (Dimension.STEP, 200): {"sent", "delivered"},
        (Dimension.PROVIDER, 300): {"sent", "delivered"},
        (Dimension.DOMAIN, 400): {"sent", "delivered"},
        (Dimension.SENDING_DOMAIN, 500): {"sent", "delivered"},
        (Dimension.IP, 600): {"sent", "delivered"},
        (Dimension.POOL, 700): {"sent", "delivered"},
        (Dimension.TAG, NO_TAG): {"sent", "delivered"},
    }


def test_a_delivery_counts_in_each_of_its_tags_and_then_not_without_any() -> None:
    assert by(Dimension.TAG, delivery(tags=",12,45,")).keys() == {12, 45}


def test_sent_where_it_was_tried_and_settled_where_it_was_decided() -> None:
    ways = write_ways([(Dimension.IP, 601)], [(Dimension.IP, 601)], [Category.RATE_LIMITED])
    tried = delivery(ways=ways, flags=Flag.REACHED | Flag.DEFERRED)
    assert by(Dimension.IP, tried) == {
        600: {"sent", "delivered"},
        601: {"sent", "deferred", "moved"},
    }
    # The pool was the same both times.
    assert by(Dimension.POOL, tried) == {700: {"sent", "delivered", "deferred"}}
    assert by(Dimension.CATEGORY, tried) == {Category.RATE_LIMITED: {"deferred"}}


def test_deferred_at_both_is_deferred_at_both() -> None:
    both = [(Dimension.IP, 600), (Dimension.IP, 601)]
    tried = delivery(ways=write_ways(both[1:], both, []), flags=Flag.REACHED | Flag.DEFERRED)
    assert by(Dimension.IP, tried) == {
        600: {"sent", "delivered", "deferred"},
        601: {"sent", "deferred", "moved"},
    }


def test_a_category_counts_the_final_failure_and_the_temporary_ones_apart() -> None:
    bounced = delivery(
        outcome=Outcome.BOUNCED,
        bounce_class=BounceClass.SOFT,
        category=Category.MAILBOX_FULL,
        flags=Flag.DEFERRED,
        ways=write_ways([], [], [Category.MAILBOX_FULL, Category.GREYLISTED]),
    )
    assert by(Dimension.CATEGORY, bounced) == {
        Category.MAILBOX_FULL: {"sent", "bounced", "soft", "deferred"},
        Category.GREYLISTED: {"deferred"},
    }


def test_what_was_never_sent_is_moved_nowhere() -> None:
    test = delivery(outcome=Outcome.TEST, flags=0, ways=write_ways([(Dimension.IP, 601)], [], []))
    assert by(Dimension.IP, test) == {600: {"test"}, 601: set()}


def test_values_that_are_not_counted_apart_count_once_among_the_others() -> None:
    others = {601: 1, 602: 1, 12: 2, 45: 2, 100: 3}
    ways = write_ways([(Dimension.IP, 601), (Dimension.IP, 602)], [], [Category.POLICY])
    put = capped(delivery(tags=",12,45,7,", ways=ways), lambda d, value: others.get(value, value))
    assert by(Dimension.TAG, put).keys() == {2, 7}
    assert by(Dimension.IP, put) == {600: {"sent", "delivered"}, 1: {"sent", "moved"}}
    assert by(Dimension.CAMPAIGN, put).keys() == {3}
    assert read_ways(put.ways, "c") == [Category.POLICY]


def test_the_decisive_one_among_the_others_is_not_moved_to_them() -> None:
    ways = write_ways([(Dimension.IP, 601)], [], [])
    put = capped(delivery(ways=ways), lambda d, value: 1 if value in (600, 601) else value)
    assert by(Dimension.IP, put) == {1: {"sent", "delivered"}}


@pytest.mark.parametrize(
    ("before", "after", "change"),
    [((), (0, 1), {0: 1, 1: 1}), ((0, 1), (0, 2), {1: -1, 2: 1}), ((3,), (3,), {})],
)
def test_a_difference_says_what_changes(before: Any, after: Any, change: Any) -> None:
    counts = unpacked(difference(before, after))
    assert {position: n for position, n in enumerate(counts) if n} == change


some_measures = st.sets(st.integers(0, len(MEASURES) - 1)).map(lambda found: tuple(sorted(found)))


@given(st.lists(st.tuples(some_measures, some_measures)))
def test_differences_add_up_measure_by_measure(changes: list[tuple[Any, Any]]) -> None:
    expected = [
        sum((i in after) - (i in before) for before, after in changes) for i in range(len(MEASURES))
    ]
    assert list(unpacked(sum(difference(*change) for change in changes))) == expected


ids = st.sets(st.integers(1, 99), max_size=4)


@given(tried=ids, deferred=ids, categories=st.sets(st.integers(1, 17), max_size=3))
def test_ways_are_read_as_they_were_written(
    tried: set[int], deferred: set[int], categories: set[int]
) -> None:
    column = write_ways(
        [(Dimension.IP, pk) for pk in tried], [(Dimension.MX, pk) for pk in deferred], categories
    )
    assert set(read_ways(column, "ai")) == tried
    assert set(read_ways(column, "dm")) == deferred
    assert set(read_ways(column, "c")) == categories
    assert read_ways(column, "ap") == read_ways(column, "di") == []
    assert column == "," or (column.startswith(",") and column.endswith(","))


counteds = st.builds(
    lambda outcome, flags, bounce_class, category, tried, deferred, categories, tags: delivery(
        outcome=outcome,
        flags=flags if outcome in (2, 3, 6, 7) else 0,
        bounce_class=bounce_class if outcome == Outcome.BOUNCED else 0,
        category=category if outcome == Outcome.BOUNCED else 0,
        ways=write_ways(
            [(Dimension.IP, ip) for ip in tried - {600}],
            [(Dimension.IP, ip) for ip in deferred if deferred - {600}],
            categories,
        ),
        tags="," + "".join(f"{tag}," for tag in sorted(tags)),
    ),
    st.sampled_from(list(Outcome)),
    st.integers(0, 65_535),
    st.integers(1, 5),
    st.integers(1, 17),
    st.sets(st.sampled_from([600, 601, 602])),
    st.sets(st.sampled_from([600, 601, 602])),
    st.sets(st.integers(1, 17), max_size=3),
    st.sets(st.integers(10, 13)),
)


@given(of=counteds)
def test_settled_once_and_sent_wherever_it_was_tried(of: Counted) -> None:
    """Over the rows of an IP: sent = delivered + bounced + in flight + moved; all but sent,
    deferred and moved is counted at one of them.
    """
    rows = by(Dimension.IP, of).values()
    whole = words(of.measures)
    for measure in set(MEASURES) - {"sent", "deferred", "moved"}:
        assert sum(measure in row for row in rows) == (measure in whole)
    if "sent" in whole:
        assert all("sent" in row for row in rows)
        assert sum("moved" in row for row in rows) == len(rows) - 1


@given(of=counteds)
def test_every_row_counts_a_part_of_the_whole(of: Counted) -> None:
    whole = words(of.measures)
    for (dimension, _), measures in places(of, NO_TAG).items():
        more = {"moved"} if dimension in (Dimension.IP, Dimension.POOL) else set()
        assert words(measures) <= whole | more


@given(of=counteds)
def test_what_nobody_caps_stays_as_it_is(of: Counted) -> None:
    assert places(capped(of, lambda dimension, value: value), NO_TAG) == places(of, NO_TAG)


def test_moved_needs_to_be_sent() -> None:
    assert moved((), deferred=True) == ()
