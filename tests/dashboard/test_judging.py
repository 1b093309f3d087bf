"""How numbers are judged: ranges, verdicts, distances, ranking, changes; by hand and at large."""

import math
import random
from collections.abc import Iterable
from fractions import Fraction
from itertools import pairwise

import mpmath
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from dashboard.judging import (
    BLOCKS_LEAST,
    CELL_LEAST,
    DANGERS,
    PRIORS,
    STOP,
    WARNING,
    Band,
    Cause,
    Cells,
    Changes,
    Counted,
    Distance,
    Pace,
    Risk,
    Verdict,
    block_band,
    changes,
    dispersion,
    distance,
    duration,
    exact,
    fewest,
    further,
    gathered,
    hard_band,
    incomplete_beta,
    is_over,
    more_until,
    risk,
    share,
    sort_key,
    tails,
    tier,
    verdict,
    way_gone,
    widest,
    worst,
)
from dashboard.rates import RATES, Counts, Rate

LINES = st.sampled_from([0.001, 0.003, 0.02, 0.03, 0.05])
PHIS = st.floats(1, 40)


@st.composite
def parts_of(draw: st.DrawFn, most: int = 10_000_000) -> tuple[int, int]:
    """(x, n) with n above 0, small x as often as large ones."""
    n = draw(st.integers(1, most))
    return draw(st.integers(0, min(n, 50)) | st.integers(0, n)), n


# --- Dispersion ---

CELLS = st.lists(st.integers(0, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))


def by_the_book(cells: Iterable[tuple[int, int]], phi0: float) -> float:
    """The formula as it is written, cell by cell, in fractions."""
    large = [(x, n) for x, n in cells if n >= 5]
    p = Fraction(sum(x for x, _ in large), sum(n for _, n in large))
    chi2 = sum((x - n * p) ** 2 / (n * p * (1 - p)) for x, n in large)
    return max(1.0, (10 * phi0 + float(chi2)) / (10 + len(large) - 1))


@given(CELLS, st.sampled_from(sorted(set(PRIORS.values()))))
def test_dispersion_from_sums_is_that_of_the_cells(
    cells: list[tuple[int, int]], phi0: float
) -> None:
    sums = Cells.of(cells)
    if 0 < sums.x < sums.n:
        assert dispersion(sums, phi0) == pytest.approx(by_the_book(cells, phi0), rel=1e-6)
    else:
        assert dispersion(sums, phi0) == phi0
    assert dispersion(cells, phi0) == dispersion(sums, phi0) >= 1


@given(CELLS, CELLS)
def test_cells_add_up(one: list[tuple[int, int]], two: list[tuple[int, int]]) -> None:
    added, together = Cells.of(one) + Cells.of(two), Cells.of(one + two)
    assert (added.k, added.x, added.n) == (together.k, together.x, together.n)
    assert added.xx_n == pytest.approx(together.xx_n)


def test_small_cells_are_passed_over() -> None:
    assert Cells.of([(4, CELL_LEAST - 1), (1, CELL_LEAST)]) == Cells(1, 1, 5, 0.2)
    assert Cells.of([]) == Cells()


@pytest.mark.parametrize(
    "cells", [Cells(), Cells.of([(1, 4)]), Cells.of([(0, 500)] * 9), Cells.of([(50, 50)] * 9)]
)
def test_cells_that_tell_nothing_leave_the_prior(cells: Cells) -> None:
    assert dispersion(cells, 6) == 6
    assert dispersion(cells, 0.5) == 1


def test_one_cell_leaves_the_prior() -> None:
    assert dispersion([(3, 100)], 2) == pytest.approx(2)


def test_rounding_in_sums_makes_no_negative_dispersion() -> None:
    same = Cells.of([(1, 10_000_000)] * 7)
    assert dispersion(Cells(same.k, same.x, same.n, same.xx_n * (1 - 1e-9)), 1.2) == 1


def test_mail_that_fails_in_bursts_is_dispersed_and_single_failures_are_not() -> None:
    bursts = [(0, 100)] * 19 + [(100, 100)]
    assert dispersion(bursts, 2) == pytest.approx((20 + 2_000) / 29)
    evenly = [(5, 100)] * 20
    assert dispersion(evenly, 2) == 1


def test_independent_mail_comes_near_one_however_the_prior_was() -> None:
    chance = random.Random(5)  # noqa: S311
    cells = [(sum(chance.random() < 0.05 for _ in range(60)), 60) for _ in range(400)]
    assert dispersion(cells, 6) == pytest.approx(1.1, abs=0.2)


def test_correlated_mail_has_the_dispersion_of_its_correlation() -> None:
    """Clusters of m mails with an intra-class correlation r: 1 + (m − 1)·r."""
    chance = random.Random(5)  # noqa: S311
    spread = 1 / 0.05 - 1
    cells = []
    for _ in range(600):
        p = chance.betavariate(0.05 * spread, 0.95 * spread)
        cells.append((sum(chance.random() < p for _ in range(100)), 100))
    assert dispersion(cells, 2) == pytest.approx(1 + 99 * 0.05, rel=0.2)


def test_widened_ranges_hold_the_truth_where_others_do_not() -> None:
    """Blasts of 50 mails with a correlation of 0.05: the plain 95 % range covers 7 of 10."""
    chance = random.Random(4)  # noqa: S311
    plain, widened = 0, 0
    for _ in range(150):
        rates = [chance.betavariate(0.05 * 19, 0.95 * 19) for _ in range(20)]
        cells = [(sum(chance.random() < p for _ in range(50)), 50) for p in rates]
        for phi in (1.0, dispersion(cells, PRIORS["hard_bounce_rate"])):
            rate = Rate.of(sum(x for x, _ in cells), 1_000, phi)
            assert rate.low is not None
            assert rate.high is not None
            covers = rate.low <= 0.05 <= rate.high
            plain, widened = plain + (covers and phi == 1), widened + (covers and phi > 1)
    assert plain < 0.8 * 150 < 0.87 * 150 < widened


def test_the_widest_kind_of_cells_counts() -> None:
    campaigns, providers = Cells.of([(5, 100)] * 20), Cells.of([(0, 100)] * 19 + [(100, 100)])
    assert widest([campaigns, providers], 2) == dispersion(providers, 2)
    assert widest([], 2) == 2


def test_every_rate_has_a_prior_of_one_or_more() -> None:
    assert set(PRIORS) == set(RATES)
    assert min(PRIORS.values()) >= 1
    assert PRIORS["delivery_rate"] == PRIORS["bounce_rate"]


# --- Tails ---


@settings(deadline=None)
@given(st.floats(0.01, 500), st.floats(0.01, 500), st.floats(0.0005, 0.9995))
@example(1, 1, 0.3)
@example(0.5, 1_000.5, 0.001)
@example(25, 476, 0.05)
def test_the_incomplete_beta_is_that_of_mpmath(a: float, b: float, x: float) -> None:
    expected = float(mpmath.betainc(a, b, 0, x, regularized=True))
    assert incomplete_beta(a, b, x) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@given(st.floats(0.01, 1e6), st.floats(0.01, 1e6), st.floats(1e-4, 1 - 1e-4))
def test_the_incomplete_beta_is_a_chance_and_both_tails_make_one(
    a: float, b: float, x: float
) -> None:
    assert 0 <= incomplete_beta(a, b, x) <= 1
    assert incomplete_beta(a, b, x) + incomplete_beta(b, a, 1 - x) == pytest.approx(1, abs=1e-7)


def test_the_incomplete_beta_ends_at_nothing_and_at_all() -> None:
    assert (incomplete_beta(3, 4, 0), incomplete_beta(3, 4, 1)) == (0, 1)


def binomial_over(x: int, n: int, p: Fraction) -> float:
    """P[X ≥ x], summed up term by term in whole numbers."""
    return float(sum(math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(x, n + 1)))


@settings(deadline=None)
@given(parts_of(most=150), LINES)
def test_tails_are_those_of_the_binomial(counted: tuple[int, int], line: float) -> None:
    x, n = counted
    over, under = tails(x, n, line)
    p = exact(line)
    assert over == pytest.approx(binomial_over(x, n, p), rel=1e-9, abs=1e-13)
    assert under == pytest.approx(1 - binomial_over(x + 1, n, p), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(
    ("x", "n", "line", "over"),
    [
        # The term at x in 40 digits, and the sum of those after it.
        (130, 100_000, 0.001, 0.002271263866),
        (27_000, 500_000, 0.05, 6.594691438e-38),
        (30_500, 1_000_000, 0.03, 0.00174333519),
        (501_000, 10_000_000, 0.05, 0.07353103947),
    ],
)
def test_tails_of_huge_counts(x: int, n: int, line: float, over: float) -> None:
    assert tails(x, n, line)[0] == pytest.approx(over, rel=1e-7)


@given(parts_of(), LINES, PHIS)
def test_both_tails_hold_what_was_counted(
    counted: tuple[int, int], line: float, phi: float
) -> None:
    over, under = tails(counted[0] / phi, counted[1] / phi, line)
    assert 0 <= over <= 1
    assert 0 <= under <= 1
    assert over + under >= 1 - 1e-6


@given(parts_of(most=100_000), LINES, PHIS)
def test_more_failures_are_never_less_over(
    counted: tuple[int, int], line: float, phi: float
) -> None:
    x, n = counted
    assume(x < n)
    before, after = tails(x / phi, n / phi, line), tails((x + 1) / phi, n / phi, line)
    assert after[0] <= before[0] + 1e-9
    assert after[1] >= before[1] - 1e-9


@pytest.mark.parametrize(
    ("line", "mails"), [(0.03, 125), (0.05, 73), (0.003, 1_277), (0.001, 3_837)]
)
def test_from_how_many_mails_on_a_rate_can_be_told(line: float, mails: int) -> None:
    assert fewest(line) == mails


# --- Verdicts ---


@pytest.mark.parametrize(
    ("x", "n", "line", "phi", "expected"),
    [
        (1, 5, 0.03, 1, Verdict.TOO_EARLY),
        (1, 26, 0.003, 1, Verdict.TOO_EARLY),
        (5, 60, 0.03, 1, Verdict.PROBABLY_OVER),
        (28, 500, 0.03, 1, Verdict.OVER),
        (28, 500, 0.05, 1, Verdict.CLOSE),
        (40, 1_000, 0.03, 1, Verdict.PROBABLY_OVER),
        (40, 1_000, 0.03, 4, Verdict.CLOSE),
        (450, 10_000, 0.05, 1, Verdict.WITHIN),
        (450, 10_000, 0.05, 6, Verdict.PROBABLY_WITHIN),
        (0, 125, 0.03, 1, Verdict.WITHIN),
        (0, 500, 0.001, 1, Verdict.TOO_EARLY),
        (2, 4_000, 0.001, 1, Verdict.CLOSE),
        (85, 3_000, 0.03, 1, Verdict.CLOSE),
        # And at the edges:
        (0, 0, 0.03, 1, Verdict.NO_DATA),
        (0, 1, 0.03, 1, Verdict.TOO_EARLY),
        (1, 1, 0.03, 1, Verdict.TOO_EARLY),
        (2, 2, 0.03, 1, Verdict.TOO_EARLY),
        (3, 3, 0.03, 1, Verdict.PROBABLY_OVER),
        (4, 4, 0.03, 1, Verdict.PROBABLY_OVER),
        (5, 5, 0.03, 1, Verdict.OVER),
        (5, 5, 0.03, 40, Verdict.TOO_EARLY),
        (0, 124, 0.03, 1, Verdict.WITHIN),
        (0, 121, 0.03, 1, Verdict.TOO_EARLY),
        (0, 125, 0.03, 2, Verdict.TOO_EARLY),
        (500_000, 10_000_000, 0.05, 1, Verdict.CLOSE),
        (510_000, 10_000_000, 0.05, 6, Verdict.OVER),
        (490_000, 10_000_000, 0.05, 6, Verdict.WITHIN),
        (10_000_000, 10_000_000, 0.05, 1, Verdict.OVER),
        (0, 10_000_000, 0.05, 1, Verdict.WITHIN),
        (61, 60, 0.05, 2, Verdict.OVER),
    ],
)
def test_verdicts(x: int, n: int, line: float, phi: float, expected: Verdict) -> None:
    assert verdict(x, n, line, phi) is expected


@given(parts_of(), LINES, PHIS)
def test_a_verdict_never_contradicts_what_was_counted(
    counted: tuple[int, int], line: float, phi: float
) -> None:
    x, n = counted
    word = verdict(x, n, line, phi)
    if word is Verdict.OVER:
        assert x / n > line
    if word is Verdict.WITHIN:
        assert x / n < line


_HEAT = [
    Verdict.WITHIN,
    Verdict.PROBABLY_WITHIN,
    Verdict.CLOSE,
    Verdict.PROBABLY_OVER,
    Verdict.OVER,
]


@settings(deadline=None)
@given(st.integers(200, 20_000), LINES, PHIS)
def test_verdicts_only_rise_with_failures(n: int, line: float, phi: float) -> None:
    assume(n / phi >= fewest(line))
    words = [
        verdict(x, n, line, phi) for x in range(0, min(n, int(3 * n * line) + 10), 1 + n // 500)
    ]
    assert [_HEAT.index(word) for word in words] == sorted(map(_HEAT.index, words))


def test_verdicts_in_words() -> None:
    assert [word.words(0.03) for word in Verdict] == [
        "no data", "over 3 %", "probably over 3 %", "within 3 %", "too early to tell",
        "probably within 3 %", "close to 3 %",
    ]  # fmt: skip
    assert [share(line) for line in (0.05, 0.003, 0.001, 0.02)] == ["5 %", "0.3 %", "0.1 %", "2 %"]


# --- HighLevel's band ---


def band(low: tuple[int, int], high: tuple[int, int], floor: int = 0) -> Band:
    return Band(Rate.of(*low), Rate.of(*high), floor)


@pytest.mark.parametrize(
    ("low", "high", "state"),
    [
        ((0, 0), (0, 0), Counted.NO_DATA),
        ((0, 0), (3, 3), Counted.TOO_FEW),
        ((499, 499), (499, 499), Counted.TOO_FEW),
        ((25, 500), (25, 500), Counted.COUNTS_OVER),
        ((24, 500), (25, 500), Counted.MAY_COUNT_OVER),
        ((24, 500), (24, 500), Counted.WARNS),
        ((15, 500), (24, 500), Counted.WARNS),
        ((14, 500), (15, 500), Counted.MAY_WARN),
        ((14, 500), (14, 500), Counted.INSIDE),
        ((0, 500), (0, 500), Counted.INSIDE),
        ((0, 10_000), (500, 10_000), Counted.MAY_COUNT_OVER),
        # Suppressed mail counts into the upper edge alone: there are 500 for it, not for the other.
        ((100, 400), (300, 600), Counted.MAY_COUNT_OVER),
    ],
)
def test_where_a_band_lies(low: tuple[int, int], high: tuple[int, int], state: Counted) -> None:
    assert band(low, high).state is state


@pytest.mark.parametrize(
    ("low", "high", "state"),
    [
        ((25, 500), (25, 500), Counted.COUNTS_OVER),
        ((24, 500), (24, 500), Counted.TOO_FEW),
        ((15, 500), (24, 500), Counted.TOO_FEW),
        ((24, 700), (25, 700), Counted.MAY_WARN),
        ((25, 700), (30, 700), Counted.WARNS),
        ((3, 10_000), (4, 10_000), Counted.INSIDE),
        ((0, 499), (0, 499), Counted.TOO_FEW),
    ],
)
def test_blocks_have_a_floor_of_their_own(
    low: tuple[int, int], high: tuple[int, int], state: Counted
) -> None:
    assert band(low, high, BLOCKS_LEAST).state is state


def test_no_interval_softens_what_highlevel_counts() -> None:
    wide = Band(Rate.of(25, 500, phi=20), Rate.of(25, 500, phi=20))
    assert wide.state is Counted.COUNTS_OVER
    assert wide.sentence == "HighLevel counts this as over 5 %"


def test_states_in_words() -> None:
    sentences = {state: made.sentence for state, made in EVERY_STATE.items()}
    assert sentences == {
        Counted.NO_DATA: "no mail yet",
        Counted.TOO_FEW: "too few for HighLevel to act on",
        Counted.INSIDE: "under 3 % in every way that HighLevel may count",
        Counted.MAY_WARN: "HighLevel may count this as over 3 %",
        Counted.WARNS: "HighLevel counts this as over 3 %",
        Counted.MAY_COUNT_OVER: "HighLevel may count this as over 5 %",
        Counted.COUNTS_OVER: "HighLevel counts this as over 5 %",
    }


EVERY_STATE = {
    Counted.NO_DATA: band((0, 0), (0, 0)),
    Counted.TOO_FEW: band((9, 9), (9, 9)),
    Counted.INSIDE: band((1, 900), (2, 900)),
    Counted.MAY_WARN: band((1, 900), (30, 900)),
    Counted.WARNS: band((30, 900), (31, 900)),
    Counted.MAY_COUNT_OVER: band((1, 900), (60, 900)),
    Counted.COUNTS_OVER: band((60, 900), (61, 900)),
}


def test_the_worst_of_several_windows_is_that_of_the_worst_state() -> None:
    assert list(EVERY_STATE) == list(Counted)
    for milder, worse in pairwise(EVERY_STATE.values()):
        assert worst({"24 h": milder, "7 d": worse}) == "7 d"
        assert worst({"24 h": worse, "7 d": milder}) == "24 h"
        assert milder.state.severity < worse.state.severity
    assert worst({"24 h": band((1, 900), (2, 900)), "7 d": band((1, 900), (3, 900))}) == "7 d"
    assert worst({}) is None


def test_bands_are_made_of_counts() -> None:
    counts = Counts(
        sent=1_000, delivered=930, bounced=70, hard=30, soft=20, block=20, suppressed=100,
        block_low=12, block_high=40,
    )  # fmt: skip
    hard, block = hard_band(counts), block_band(counts)
    assert (hard.low.numerator, hard.low.denominator) == (30, 1_000)
    assert (hard.high.numerator, hard.high.denominator) == (170, 1_100)
    assert (block.low.numerator, block.low.denominator) == (12, 1_000)
    assert (block.high.numerator, block.high.denominator) == (40, 1_000)
    assert hard.state is Counted.MAY_COUNT_OVER
    assert block.state is Counted.MAY_WARN


@given(
    st.integers(0, 2_000).flatmap(
        lambda sent: st.tuples(st.just(sent), st.integers(0, sent), st.integers(0, 2_000))
    ),
    st.data(),
)
def test_a_band_has_its_lower_edge_below_its_upper_one(
    counted: tuple[int, int, int], data: st.DataObject
) -> None:
    sent, bounced, suppressed = counted
    hard = data.draw(st.integers(0, bounced))
    made = hard_band(Counts(sent=sent, bounced=bounced, hard=hard, suppressed=suppressed))
    if made.low.value is not None and made.high.value is not None:
        assert made.low.value <= made.high.value
        near, far = (
            more_until(edge.numerator, edge.denominator, STOP) for edge in (made.high, made.low)
        )
        assert near <= far


# --- Distance ---


@pytest.mark.parametrize(
    ("x", "n", "line", "more"),
    [
        (0, 0, 0.05, 0),
        (0, 1, 0.05, 1),
        (0, 20, 0.05, 1),
        (0, 21, 0.05, 2),
        (24, 500, 0.05, 1),
        (25, 500, 0.05, 0),
        (26, 500, 0.05, 0),
        (0, 1_000, 0.003, 3),  # 0.003 · 1000 is 3.0 and a little in floats
        (2, 1_000, 0.003, 1),
        (3, 1_000, 0.003, 0),
        (0, 10_000_000, 0.03, 300_000),
        (290_000, 10_000_000, 0.03, 10_000),
    ],
)
def test_how_many_more_reach_a_line(x: int, n: int, line: float, more: int) -> None:
    assert more_until(x, n, line) == more


@given(parts_of(), LINES)
def test_so_many_more_reach_the_line_and_one_less_does_not(
    counted: tuple[int, int], line: float
) -> None:
    x, n = counted
    more = more_until(x, n, line)
    assert is_over(x + more, n, line)
    assert (more == 0) == is_over(x, n, line)
    assert not more or not is_over(x + more - 1, n, line)


@given(st.integers(0, 10_000), st.sampled_from([1, 3, 20, 30, 50]))
def test_lines_are_whole_numbers_in_per_mille(n: int, per_mille: int) -> None:
    assert exact(per_mille / 1000) == Fraction(per_mille, 1000)
    assert more_until(0, n, per_mille / 1000) == -(-n * per_mille // 1000)


@pytest.mark.parametrize(
    ("counted", "hour", "pace", "mails"),
    [
        ((0, 0), (0, 100), Pace.UNKNOWN, None),
        ((20, 500), (0, 0), Pace.UNKNOWN, None),
        ((20, 500), (10, 100), Pace.CROSSES, 100),
        ((20, 500), (5, 100), Pace.NEVER, None),
        ((20, 500), (4, 100), Pace.NEVER, None),
        ((24, 500), (100, 100), Pace.CROSSES, 2),
        ((25, 500), (0, 100), Pace.RECOVERS, 1),
        ((30, 500), (0, 100), Pace.RECOVERS, 101),
        ((30, 500), (5, 100), Pace.NEVER, None),
        ((30, 500), (9, 100), Pace.NEVER, None),
    ],
)
def test_where_the_last_hour_leads(
    counted: tuple[int, int], hour: tuple[int, int], pace: Pace, mails: int | None
) -> None:
    assert further(counted, 0.05, hour) == (pace, mails)


@given(parts_of(100_000), LINES, parts_of(5_000))
def test_after_the_further_mails_the_line_is_crossed_and_not_before(
    counted: tuple[int, int], line: float, hour: tuple[int, int]
) -> None:
    (x, n), rate = counted, Fraction(*hour)
    pace, mails = further(counted, line, hour)
    assert pace is not Pace.UNKNOWN
    assert (mails is None) == (pace is Pace.NEVER)
    if mails is not None:
        after = [x + rate * m >= exact(line) * (n + m) for m in (0, mails - 1, mails)]
        over = is_over(x, n, line)
        assert after == [over, over, not over]
        assert pace is (Pace.RECOVERS if over else Pace.CROSSES)


@pytest.mark.parametrize(
    ("low", "high", "hour", "sentence"),
    [
        ((10, 1_000), (12, 1_000), (40, 400),
         "38 to 40 more until 5 %; crossed after 760 mails at this pace, about 2 hours"),
        ((12, 1_000), (12, 1_000), (1, 400), "38 more until 5 %; not at this pace"),
        ((12, 1_000), (12, 1_000), (0, 0), "38 more until 5 %; no mail in the last hour"),
        ((12, 1_000), (60, 1_000), (0, 400),
         "perhaps over 5 %, surely after 38 more; "
         "under it again after 201 mails at this pace, about 30 minutes"),
        ((70, 1_000), (80, 1_000), (90, 400), "over 5 %; not under it again at this pace"),
    ],
)  # fmt: skip
def test_distances_in_words(
    low: tuple[int, int], high: tuple[int, int], hour: tuple[int, int], sentence: str
) -> None:
    found = distance(band(low, high), 0.05, Rate.of(*hour))
    assert found is not None
    assert found.sentence == sentence


def test_a_distance_has_both_edges_and_the_time_at_this_pace() -> None:
    found = distance(band((10, 1_000), (12, 1_000)), STOP, Rate.of(40, 400))
    assert found == Distance(STOP, 38, 40, Pace.CROSSES, 760, 1.9)


def test_without_mail_there_is_no_distance() -> None:
    assert distance(band((0, 0), (0, 0)), STOP, Rate.of(0, 0)) is None
    assert distance(band((0, 0), (3, 3)), WARNING, Rate.of(3, 3)) is None


@pytest.mark.parametrize(
    ("hours", "words"),
    [
        (0, "about 1 minute"),
        (0.4, "about 24 minutes"),
        (1.4, "about 84 minutes"),
        (1.6, "about 2 hours"),
        (2.1, "about 2 hours"),
        (47, "about 47 hours"),
        (49, "about 2 days"),
        (24 * 4_000, "about 4,000 days"),
    ],
)
def test_durations(hours: float, words: str) -> None:
    assert duration(hours) == words


# --- Risk ---

FLEET = {"hard": 0.01, "blocks": 0.01, "complaints": 0.0005}


@pytest.mark.parametrize(
    ("x", "n", "phi", "expected"),
    [
        (1, 5, 1, 2),
        (3, 20, 1, 6),
        (5, 60, 1, 14),
        (10, 200, 1, 30),
        (40, 1_000, 1, 62),
        (40, 1_000, 4, 42),
        (28, 500, 1, 74),
        (450, 10_000, 1, 85),
        (600, 10_000, 1, 114),
    ],
)
def test_risks_in_a_fleet_of_which_one_per_cent_bounces(
    x: int, n: int, phi: float, expected: int
) -> None:
    found = risk({("hard", "24 h"): (x, n)}, FLEET, {"hard": phi})
    assert found is not None
    assert round(found.value) == expected


def test_the_furthest_measure_and_window_counts() -> None:
    counted = {
        ("hard", "24 h"): (1, 5),
        ("hard", "7 d"): (450, 10_000),
        ("blocks", "24 h"): (10, 200),
        ("blocks", "7 d"): (0, 0),
        ("complaints", "7 d"): (3, 4_000),
    }
    found = risk(counted, FLEET)
    assert found is not None
    assert (found.measure, found.window) == ("hard", "7 d")
    assert found.sentence == "85 % of the way · hard"


def test_complaints_have_a_stop_and_weights_of_their_own() -> None:
    found = risk({("complaints", "7 d"): (40, 10_000), ("hard", "7 d"): (40, 10_000)}, FLEET)
    assert found is not None
    assert found.measure == "complaints"
    assert found.value == pytest.approx(100, abs=10)
    assert way_gone(3, 500, DANGERS["complaints"], 0.0005) < way_gone(
        6, 1_000, DANGERS["complaints"], 0.0005
    )


def test_without_mail_there_is_no_risk() -> None:
    assert risk({}, FLEET) is None
    assert risk({("hard", "24 h"): (0, 0), ("blocks", "7 d"): (0, 0)}, FLEET) is None


def test_without_failures_and_without_a_fleet_the_risk_is_nothing() -> None:
    assert risk({("hard", "24 h"): (0, 900)}, {}) == Risk(0.0, "hard", "24 h")


@given(parts_of(100_000), st.floats(0, 0.2), PHIS, st.sampled_from(sorted(DANGERS)))
def test_one_more_failure_is_never_less_of_a_risk(
    counted: tuple[int, int], fleet: float, phi: float, measure: str
) -> None:
    x, n = counted
    assume(x < n)
    less, more = (way_gone(bad, n, DANGERS[measure], fleet, phi) for bad in (x, x + 1))
    assert 0 <= less <= more


@given(parts_of(100_000), st.floats(0, 0.02))
def test_what_is_80_percent_sure_is_never_more_than_counted_and_known(
    counted: tuple[int, int], fleet: float
) -> None:
    x, n = counted
    assert way_gone(x, n, DANGERS["hard"], fleet) <= 100 * max(x / n, fleet) / STOP + 1e-9


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, 2),
        ({"counts_over": True, "silent_expected": 50.0, "mails_7d": 0}, 0),
        ({"suspended": True, "mails_7d": 0}, 0),
        ({"silent_expected": 20.0}, 1),
        ({"silent_expected": 20.0, "mails_7d": 0}, 1),
        ({"silent_expected": 19.9}, 2),
        ({"silent_expected": 19.9, "mails_7d": 0}, 3),
    ],
)
def test_tiers(given: dict[str, float], expected: int) -> None:
    facts = {"counts_over": False, "suspended": False, "silent_expected": 0.0, "mails_7d": 9}
    assert tier(**facts | given) == expected  # type: ignore[arg-type]


def test_riskiest_first() -> None:
    rows = [
        sort_key(0, None, 0, "stopped"),
        sort_key(1, Risk(3, "hard", "7 d"), 0, "silent"),
        sort_key(2, Risk(90, "hard", "7 d"), 0, "nearly there"),
        sort_key(2, Risk(20, "hard", "7 d"), 500, "busy"),
        sort_key(2, Risk(20, "hard", "7 d"), 10, "Alpha"),
        sort_key(2, Risk(20, "hard", "7 d"), 10, "beta"),
        sort_key(2, Risk(0, "hard", "7 d"), 10, "nothing wrong"),
        sort_key(2, None, 10, "no mail in its windows"),
        sort_key(3, Risk(200, "hard", "7 d"), 0, "long gone"),
    ]
    assert sorted(random.Random(3).sample(rows, len(rows))) == rows  # noqa: S311


# --- What changed ---

TALLIES = st.dictionaries(
    st.sampled_from("abcdefgh"),
    st.integers(0, 5_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))),
)


def with_all_parts(before: object, after: object) -> Changes:
    """Where nothing is put down to chance: a dispersion of nearly 0."""
    found = changes(before, after, lambda key: 1e-30)  # type: ignore[arg-type]
    assert found is not None
    return found


@given(TALLIES, TALLIES, PHIS)
def test_parts_and_rest_add_up_to_the_move(
    before: dict[str, tuple[int, int]], after: dict[str, tuple[int, int]], phi: float
) -> None:
    found = changes(before, after, lambda key: phi)
    sizes = [sum(n for _, n in tally.values()) for tally in (before, after)]
    if 0 in sizes:
        assert found is None
        return
    assert found is not None
    assert found.before == sum(x for x, _ in before.values()) / sizes[0]
    assert found.after == sum(x for x, _ in after.values()) / sizes[1]
    for each in (found, with_all_parts(before, after)):
        assert sum(p.effect for p in each.parts) + each.rest == pytest.approx(each.move, abs=1e-12)
    assert with_all_parts(before, after).rest == 0


@given(TALLIES, TALLIES)
def test_backwards_every_part_is_turned_around(
    before: dict[str, tuple[int, int]], after: dict[str, tuple[int, int]]
) -> None:
    assume(all(sum(n for _, n in tally.values()) for tally in (before, after)))
    there, back = with_all_parts(before, after), with_all_parts(after, before)
    assert {(p.key, p.cause): pytest.approx(-p.effect) for p in there.parts} == {
        (p.key, p.cause): p.effect for p in back.parts
    }


@given(TALLIES)
def test_nothing_changes_a_period_into_itself(tally: dict[str, tuple[int, int]]) -> None:
    if found := changes(tally, tally):
        assert (found.parts, found.rest, found.move) == ((), 0, 0)


def test_a_worse_rate_is_told_from_more_mail() -> None:
    before = {"gmail": (10, 1_000), "outlook": (10, 1_000)}
    worse = changes(before, {"gmail": (10, 1_000), "outlook": (310, 1_000)})
    assert worse is not None
    assert [(p.key, p.cause) for p in worse.parts] == [("outlook", Cause.RATE)]
    assert worse.parts[0].effect == pytest.approx(0.15)
    assert worse.move == pytest.approx(0.15)

    mixed = {"gmail": (10, 1_000), "outlook": (300, 1_000)}
    shifted = changes(mixed, {"gmail": (5, 500), "outlook": (450, 1_500)})
    assert shifted is not None
    assert {p.cause for p in shifted.parts} == {Cause.MIX}
    assert sum(p.effect for p in shifted.parts) == pytest.approx(shifted.move)


def test_more_mail_at_an_average_rate_changes_nothing() -> None:
    before = {"a": (50, 1_000), "b": (0, 500), "c": (50, 500)}
    found = with_all_parts(before, {"a": (100, 2_000), "b": (0, 500), "c": (50, 500)})
    assert found.move == pytest.approx(0)
    assert max((abs(p.effect) for p in found.parts if p.key == "a"), default=0) < 1e-12


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"old": (10, 1_000)}, {"old": (10, 1_000), "new": (300, 1_000)}),
        ({"old": (10, 1_000), "new": (0, 0)}, {"old": (10, 1_000), "new": (300, 1_000)}),
        ({"old": (10, 1_000), "new": (300, 1_000)}, {"old": (10, 1_000)}),
    ],
)
def test_what_comes_or_goes_changes_the_mix_alone(
    before: dict[str, tuple[int, int]], after: dict[str, tuple[int, int]]
) -> None:
    found = changes(before, after)
    assert found is not None
    assert {p.cause for p in found.parts} == {Cause.MIX}
    assert found.rest == pytest.approx(0)


def test_chance_is_summed_up_as_the_rest() -> None:
    before = {"a": (10, 500), "b": (3, 300), "c": (200, 9_000)}
    after = {"a": (12, 510), "b": (2, 290), "c": (900, 9_100)}
    found = changes(before, after)
    assert found is not None
    assert [(p.key, p.cause) for p in found.parts] == [("c", Cause.RATE)]
    assert found.rest == pytest.approx(found.move - found.parts[0].effect)


def test_a_dispersed_rate_needs_a_larger_move() -> None:
    before, after = {"a": (50, 1_000), "b": (50, 1_000)}, {"a": (80, 1_000), "b": (50, 1_000)}
    surely, perhaps = changes(before, after), changes(before, after, lambda key: 6)
    assert surely is not None
    assert perhaps is not None
    assert [p.key for p in surely.parts] == ["a"]
    assert perhaps.parts == ()
    assert perhaps.rest == pytest.approx(perhaps.move)


def test_a_handful_of_mails_is_never_a_cause() -> None:
    found = changes({"a": (50, 1_000), "b": (0, 1)}, {"a": (50, 1_000), "b": (1, 1)})
    assert found is not None
    assert found.parts == ()


def test_parts_are_in_the_order_of_their_size() -> None:
    before = {"a": (10, 1_000), "b": (500, 1_000), "c": (10, 1_000)}
    found = changes(before, {"a": (100, 1_000), "b": (250, 1_000), "c": (200, 1_000)})
    assert found is not None
    assert [p.key for p in found.parts] == ["b", "c", "a"]


def test_the_error_of_a_part_is_that_of_two_shares() -> None:
    found = changes({"a": (100, 1_000)}, {"a": (200, 1_000)}, lambda key: 2)
    assert found is not None
    expected = math.sqrt(2 * (0.1 * 0.9 + 0.2 * 0.8) / 1_000)
    assert [(p.key, p.cause) for p in found.parts] == [("a", Cause.RATE)]
    assert found.parts[0].effect == pytest.approx(0.1)
    assert found.parts[0].error == pytest.approx(expected, rel=0.01)


def test_chance_alone_seldom_names_a_cause() -> None:
    """Twice the standard error: about one part in twenty."""
    chance = random.Random(9)  # noqa: S311
    keys = "abcdef"

    def period() -> dict[str, tuple[int, int]]:
        return {k: (sum(chance.random() < 0.05 for _ in range(400)), 400) for k in keys}

    found = [changes(period(), period()) for _ in range(100)]
    named = sum(len(each.parts) for each in found if each)
    assert 5 <= named <= 50  # of 600 rates


# --- Where it gathers ---


def test_what_gathers_in_one_place_is_told() -> None:
    found = gathered({"gmail": (0, 5_000), "outlook": (120, 387), "yahoo": (0, 900)})
    assert found is not None
    assert (found.key, found.is_all) == ("outlook", True)
    assert found.here.value == pytest.approx(0.31, abs=0.001)
    assert found.elsewhere == Rate.of(0, 5_900)


@pytest.mark.parametrize(
    ("tally", "key"),
    [
        ({}, None),
        ({"a": (9, 10)}, None),
        ({"a": (9, 10), "b": (0, 0)}, None),
        ({"a": (2, 10), "b": (0, 10)}, None),
        ({"a": (3, 10), "b": (0, 10)}, "a"),
        ({"a": (7, 10), "b": (3, 10)}, "a"),
        ({"a": (6, 10), "b": (4, 10)}, None),
        ({"a": (0, 10), "b": (0, 10)}, None),
    ],
)
def test_most_of_it_in_one_of_several_places(
    tally: dict[str, tuple[int, int]], key: str | None
) -> None:
    found = gathered(tally)
    assert (found.key if found else None) == key
