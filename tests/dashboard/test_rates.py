"""Counts, their identities, and the rates that are made of them."""

import random
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dashboard.rates import COUNTS, HL, RATES, SORTS, Counts, Rate, in_order, summed, wilson
from ingest.counted import moved
from ingest.fold import Facts, absorb, counted_measures, judge
from ingest.normalize import NormalizedEvent
from ingest.vocabulary import MEASURES
from tests.ingest.events import contribution, lives


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
        ("visible_complaint_rate", 4, 50),
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
        visible_reached=50, visible_complained=4,
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


def counted_of(life: list[NormalizedEvent], tried: str) -> Counts:
    """What one delivery counts as; ``tried`` as where another address, pool or MX settled it."""
    facts = Facts()
    for each in life:
        absorb(facts, each)
    stands = judge(facts)
    if tried == "here":
        return Counts(*contribution(stands.outcome, stands.flags, stands.bounce_class))
    measures = counted_measures(stands.outcome, stands.flags, stands.bounce_class)
    counted = moved(measures, deferred=tried == "deferred here")
    return Counts(*(int(i in counted) for i in range(len(MEASURES))))


TRIED = st.sampled_from(["here", "deferred here", "elsewhere"])
DELIVERIES = st.lists(st.builds(counted_of, lives(4), TRIED), max_size=4)


@settings(deadline=None)
@given(DELIVERIES)
def test_the_identities_hold_of_whatever_deliveries_contribute(
    deliveries: list[Counts],
) -> None:
    c = summed(deliveries)
    assert c.sent == c.delivered + c.bounced + c.in_flight + c.moved
    assert c.settled == c.delivered + c.bounced
    assert c.bounced == c.hard + c.soft + c.block + c.undetermined
    assert c.reached == c.delivered + c.late_bounced + c.recovered
    assert c.late_bounced + c.recovered <= c.bounced
    assert c.inferred <= c.delivered
    assert c.deferred <= c.sent
    assert max(c.complained, c.unsubscribed, c.opened, c.clicked) <= c.reached
    assert c.opened_human <= c.opened
    assert c.visible_complained <= min(c.complained, c.visible_reached)
    assert c.visible_reached <= c.reached
    assert c.block_low <= c.block_high <= c.sent
    assert min(getattr(c, name) for name in COUNTS) >= 0


@settings(deadline=None)
@given(DELIVERIES)
def test_no_rate_lies_outside_of_nothing_and_all(deliveries: list[Counts]) -> None:
    counts = summed(deliveries)
    rates = [getattr(counts, name) for name in RATES] + list(counts.hl.values())
    for rate in rates:
        assert (
            rate.value is None
            or 0 <= rate.low <= rate.value + 1e-12 <= rate.high + 2e-12 <= 1 + 2e-12
        )
        assert (rate.value is None) == (rate.denominator == 0)
    assert counts.blind_share is None or 0 <= counts.blind_share <= 1
    low, high = counts.hl["hard_low"].value, counts.hl["hard_high"].value
    assert low is None or (high is not None and low <= high)


def test_counts_add_up() -> None:
    one, two = Counts(sent=2, delivered=1), Counts(sent=3, test=1)
    assert one + two == Counts(sent=5, delivered=1, test=1)
    assert summed([one, two, Counts()]) == one + two
    assert summed([]) == Counts()
    assert one
    assert not Counts()


def test_rows_in_json_have_every_count_and_rate() -> None:
    row: dict[str, Any] = Counts(sent=4, delivered=3, bounced=1).as_json()
    assert set(row) == {*COUNTS, *RATES, "hl", "blind_share"}
    assert row["settled"] == 4
    assert row["bounce_rate"]["value"] == 0.25
    assert row["blind_share"] == 1


def test_highlevels_rates_divide_by_what_was_sent() -> None:
    row: dict[str, Any] = Counts(
        sent=1_000, delivered=900, bounced=70, hard=30, suppressed=100, block_low=12, block_high=40
    ).as_json()
    found = {name: (r["numerator"], r["denominator"]) for name, r in row["hl"].items()}
    assert found == {
        "hard_low": (30, 1_000),
        "hard_high": (170, 1_100),
        "block_low": (12, 1_000),
        "block_high": (40, 1_000),
        "bounce": (70, 1_000),
    }
    assert set(row["hl"]["bounce"]) == set(row["bounce_rate"])
    # Beside the rates stand the counts of the same names.
    assert (row["block_low"], row["block_high"]) == (12, 40)


def test_without_mail_there_are_no_rates_of_highlevels_and_no_blind_share() -> None:
    row: dict[str, Any] = Counts(suppressed=0).as_json()
    assert {r["value"] for r in row["hl"].values()} == {None}
    assert row["blind_share"] is None


def test_the_blind_share_is_of_what_was_reached() -> None:
    counts = Counts(sent=100, delivered=80, bounced=20, late_bounced=20, visible_reached=25)
    assert counts.blind_share == 0.75


def test_a_part_can_divide_by_the_whole() -> None:
    whole = Counts(sent=10, delivered=6, bounced=4, suppressed=2, visible_reached=3)
    part: dict[str, Any] = Counts(sent=1, bounced=1, hard=1).as_json(whole)
    assert (part["sent"], part["bounce_rate"]["value"]) == (1, 0.1)
    assert part["hl"]["hard_low"]["value"] == 0.1
    assert part["hl"]["hard_high"]["value"] == 1 / 12
    assert part["blind_share"] == 0.5


def test_a_part_of_an_empty_whole_has_no_rates() -> None:
    part: dict[str, Any] = Counts(sent=1, bounced=1).as_json(Counts())
    assert part["bounce_rate"]["value"] is None


def test_a_dispersion_widens_the_range_and_leaves_the_value() -> None:
    alone, together = Rate.of(28, 500), Rate.of(28, 500, phi=4)
    assert together.value == alone.value
    assert (together.low, together.high) == wilson(7, 125)
    assert alone.low is not None and together.low is not None and together.low < alone.low
    assert alone.high is not None and together.high is not None and together.high > alone.high
    assert (alone.widened, together.widened, Rate.of(1, 9, 1.7).widened) == (1, 2, 1.304)
    assert Rate.of(0, 0, 4).as_json()["widened"] == 2


@given(
    st.integers(1, 10_000_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))),
    st.floats(1, 50),
    st.floats(1, 50),
)
def test_the_larger_the_dispersion_the_wider_the_range(
    counted: tuple[int, int], one: float, two: float
) -> None:
    narrow, wide = (Rate.of(*counted, phi=phi) for phi in sorted((one, two)))
    assert narrow.low is not None and narrow.high is not None and narrow.value is not None
    assert wide.low is not None and wide.high is not None
    assert 0 <= wide.low <= narrow.low + 1e-12
    assert narrow.low <= narrow.value + 1e-12
    assert narrow.value <= narrow.high + 1e-12
    assert narrow.high <= wide.high + 1e-12 <= 1 + 1e-12


def test_each_rate_is_widened_by_its_own_dispersion() -> None:
    counts = Counts(sent=100, delivered=90, bounced=10, hard=6, block=4, block_high=4)
    row: dict[str, Any] = counts.as_json(phis={"hard_bounce_rate": 4.0, "block_rate": 9.0})
    assert {name: row[name]["widened"] for name in RATES if row[name]["widened"] > 1} == {
        "hard_bounce_rate": 2,
        "block_rate": 3,
    }
    assert {name: rate["widened"] for name, rate in row["hl"].items()} == {
        "hard_low": 2, "hard_high": 2, "block_low": 3, "block_high": 3, "bounce": 1,
    }  # fmt: skip
    assert set(HL.values()) <= set(RATES)


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
