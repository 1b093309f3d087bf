"""How numbers look: never a zero for what nobody knows, never a verdict on five mails."""

from datetime import UTC, datetime, timedelta

import pytest

from dashboard.rates import Rate
from dashboard.templatetags import figures

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def plain(text: str) -> str:
    return text.replace(figures.NBSP, " ")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 %"),
        (0.000001, "< 0.01 %"),
        (0.0004, "0.04 %"),
        (0.0312, "3.1 %"),
        (0.9994, "99.9 %"),
        (0.99999, "> 99.9 %"),
        (1, "100 %"),
    ],
)
def test_a_share_is_never_rounded_to_nothing_or_all(value: float, text: str) -> None:
    assert plain(figures.percent(value)) == text


@pytest.mark.parametrize(
    ("label", "numerator", "denominator", "verdict"),
    [
        ("Bounces", 0, 0, ("none", "")),
        ("Bounces", 1, 5, ("early", "too early")),
        ("Bounces", 2, 100, ("", "")),
        ("Bounces", 2, 60, ("early", "too early")),
        ("Bounces", 3, 100, ("warn", "over 3 %")),
        ("Bounces", 5, 100, ("bad", "over 5 %")),
        ("Complaints", 1, 1_001, ("", "")),
        ("Complaints", 1, 171, ("early", "too early")),
        ("Complaints", 3, 2_000, ("warn", "over 0.1 %")),
        ("Complaints", 3, 1_000, ("bad", "over 0.3 %")),
        ("Delivery", 1, 100, ("", "")),
    ],
)
def test_lines_are_said_in_words(
    label: str, numerator: int, denominator: int, verdict: tuple[str, str]
) -> None:
    assert figures.verdict(label, Rate.of(numerator, denominator)) == verdict


def test_a_cell_without_data_says_so() -> None:
    cell = figures.rate_cell("Bounces", Rate.of(0, 0))
    assert "no data" in cell
    assert "0 %" not in plain(cell)


def test_a_cell_says_what_its_rate_is_made_of() -> None:
    cell = plain(figures.rate_cell("Bounces", Rate.of(84, 1_377)))
    assert "6.1 %" in cell
    assert "84 of 1,377" in cell
    assert "over 5 %" in cell
    assert 'title="95 % range 5.0–7.5 %"' in cell


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-3, "0 s ago"), (0, "0 s ago"), (59, "59 s ago"), (60, "1 min ago"), (7_200, "2 h ago"),
     (200_000, "2 d ago")],
)  # fmt: skip
def test_ages(seconds: int, text: str) -> None:
    assert figures.ago(NOW - timedelta(seconds=seconds), NOW) == text
