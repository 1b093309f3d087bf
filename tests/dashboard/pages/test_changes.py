"""What changed, in a sentence: moves in percentage points, and the parts that made them."""

import pytest

from dashboard.judging import Cause, Changes, Part
from dashboard.pages.changes import points, sentence


@pytest.mark.parametrize(
    ("share", "said"),
    [
        (0.019, "+1.9"),
        (-0.003, "−0.30"),
        (0.0, "±0"),
        (0.00001, "±0"),
        (0.0099, "+0.99"),
        (0.00999, "+1.0"),
        (-0.25, "−25.0"),
    ],
)
def test_a_move_is_in_points(share: float, said: str) -> None:
    assert points(share) == said


def test_the_parts_and_the_rest_add_up_to_the_move() -> None:
    part = Part("a", Cause.RATE, 0.022, 0.001)
    smaller = Part("b", Cause.MIX, 0.004, 0.001)
    found = Changes(0.012, 0.031, (part, smaller), -0.007)
    said = sentence("Bad addresses", found, [(part, "Reactivation 2019")])
    assert said == "Bad addresses: +1.9 points = “Reactivation 2019” +2.2, rest −0.30."


def test_where_nothing_stands_out_it_says_so() -> None:
    said = sentence("Deferrals", Changes(0.01, 0.02, (), 0.01), [])
    assert said == "Deferrals: +1.0 point, and no part of the mail clearly stands out."
