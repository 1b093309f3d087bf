"""Counts, their identities, and the rates that are made of them."""

import random
from dataclasses import fields

import pytest

from dashboard.rates import COUNTS, RATES, SORTS, Counts, Rate, in_order, summed, wilson
from ingest.fold import contribution
from ingest.vocabulary import MEASURES, BounceClass, Flag, Outcome


def test_counts_have_the_stored_measures_in_their_order() -> None:
    assert tuple(field.name for field in fields(Counts)) == MEASURES


def test_what_follows_from_the_counts() -> None:
    counts = Counts(
        sent=100, delivered=80, bounced=12, hard=5, soft=3, block=2, late_bounced=4, recovered=1
    )
    assert counts.in_flight == 8
    assert counts.settled == 92
    assert counts.reached == 85
    assert counts.undetermined == 2


@pytest.mark.parametrize(
    ("name", "numerator", "denominator"),
    [
        ("delivery_rate", 80, 92),
        ("bounce_rate", 12, 92),
        ("hard_bounce_rate", 5, 92),
        ("soft_bounce_rate", 3, 92),
        ("block_rate", 2, 92),
        ("complaint_rate", 6, 85),
        ("unsubscribe_rate", 7, 85),
        ("open_rate", 40, 85),
        ("human_open_rate", 30, 85),
        ("click_rate", 9, 85),
        ("deferral_rate", 11, 100),
    ],
)
def test_each_rate_has_its_numerator_and_denominator(
    name: str, numerator: int, denominator: int
) -> None:
    counts = Counts(
        sent=100, delivered=80, bounced=12, hard=5, soft=3, block=2, late_bounced=4, recovered=1,
        complained=6, unsubscribed=7, opened=40, opened_human=30, clicked=9, deferred=11,
    )  # fmt: skip
    rate = getattr(counts, name)
    assert (rate.numerator, rate.denominator) == (numerator, denominator)
    assert rate.value == numerator / denominator
    assert rate.low < rate.value < rate.high
    assert name in RATES


def test_a_rate_of_nothing_has_no_value() -> None:
    assert Rate.of(0, 0).as_json() == {
        "value": None, "low": None, "high": None, "numerator": 0, "denominator": 0, "widened": 1.0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("x", "n", "low", "high"),
    [
        (1, 5, 0.0362, 0.6245),
        (28, 500, 0.0390, 0.0797),
        (0, 125, 0.0, 0.0298),
        (125, 125, 0.9702, 1.0),
        (450, 10_000, 0.0411, 0.0492),
    ],
)
def test_wilson_intervals_are_those_of_the_books(x: int, n: int, low: float, high: float) -> None:
    assert wilson(x, n) == pytest.approx((low, high), abs=5e-5)


def test_an_interval_stays_within_its_bounds() -> None:
    for n in (1, 2, 3, 1_000_000):
        assert wilson(0, n)[0] == 0
        assert wilson(n, n)[1] == 1
        assert all(0 <= bound <= 1 for bound in (*wilson(0, n), *wilson(n, n)))


def test_the_identities_hold_of_whatever_deliveries_contribute() -> None:
    """Of every possible delivery: flags are only ever set as ``fold.judge`` sets them."""
    for outcome in Outcome:
        for bounce_class in BounceClass:
            for flags in (Flag(0), Flag.REACHED | Flag.COMPLAINED, Flag.DEFERRED):
                counts = Counts(*contribution(outcome, flags, bounce_class))
                assert counts.sent == counts.delivered + counts.bounced + counts.in_flight
                assert counts.bounced == (
                    counts.hard + counts.soft + counts.block + counts.undetermined
                )
                assert min(getattr(counts, name) for name in COUNTS) >= 0


def test_counts_add_up() -> None:
    one, two = Counts(sent=2, delivered=1), Counts(sent=3, test=1)
    assert one + two == Counts(sent=5, delivered=1, test=1)
    assert summed([one, two, Counts()]) == one + two
    assert summed([]) == Counts()
    assert one
    assert not Counts()


def test_rows_in_json_have_every_count_and_rate() -> None:
    row = Counts(sent=4, delivered=3, bounced=1).as_json()
    assert set(row) == {*COUNTS, *RATES, "hl", "blind_share"}
    assert row["settled"] == 4
    assert row["bounce_rate"]["value"] == 0.25  # type: ignore[index]


def test_a_part_can_divide_by_the_whole() -> None:
    whole = Counts(sent=10, delivered=6, bounced=4)
    part = Counts(sent=1, bounced=1).as_json(whole)
    assert (part["sent"], part["bounce_rate"]["value"]) == (1, 0.1)  # type: ignore[index]


ROWS = [
    ("a", "Zebra", Counts(sent=5, delivered=5)),
    ("b", "apple", Counts(sent=9, delivered=1, bounced=8)),
    ("c", "Mango", Counts(sent=5)),
]


@pytest.mark.parametrize(
    ("sort", "keys"),
    [
        ("key", "bca"),
        ("-key", "acb"),
        ("-sent", "bca"),
        ("sent", "cab"),
        ("-bounce_rate", "bac"),
        ("bounce_rate", "abc"),
    ],
)
def test_rows_are_sorted_and_rates_without_a_value_come_last(sort: str, keys: str) -> None:
    shuffled = random.Random(1).sample(ROWS, 3)  # noqa: S311
    assert "".join(row[0] for row in in_order(shuffled, sort)) == keys


@pytest.mark.parametrize("name", SORTS)
def test_everything_can_be_sorted_by(name: str) -> None:
    assert len(in_order(ROWS, f"-{name}")) == 3
