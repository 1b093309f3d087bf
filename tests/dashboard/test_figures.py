"""How numbers look: never a zero for what nobody knows, never a verdict on five mails."""

from datetime import UTC, datetime, timedelta

import pytest

from dashboard.rate_tables import RatesRow
from dashboard.rates import Counts, Rate
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
    ("name", "numerator", "denominator", "phi", "verdict"),
    [
        ("bounce_rate", 0, 0, 1, ("none", "")),
        ("bounce_rate", 1, 5, 1, ("early", "too early")),
        ("bounce_rate", 5, 60, 1, ("warn", "probably over 5 %")),
        ("bounce_rate", 4, 60, 1, ("warn", "probably over 3 %")),
        ("bounce_rate", 22, 500, 1, ("warn", "probably over 3 %")),
        ("bounce_rate", 84, 1_000, 1, ("bad", "over 5 %")),
        ("bounce_rate", 84, 1_000, 6, ("warn", "probably over 5 %")),
        ("bounce_rate", 450, 10_000, 1, ("warn", "over 3 %")),
        ("bounce_rate", 0, 200, 1, ("", "")),
        ("complaint_rate", 1, 171, 1, ("early", "too early")),
        ("complaint_rate", 2, 4_000, 1, ("", "")),
        ("complaint_rate", 20, 2_000, 1, ("bad", "over 0.3 %")),
        ("delivery_rate", 1, 100, 1, ("", "")),
    ],
)
def test_lines_are_said_in_the_words_of_the_judgement(
    name: str, numerator: int, denominator: int, phi: float, verdict: tuple[str, str]
) -> None:
    level, words = figures.verdict(name, Rate.of(numerator, denominator, phi))
    assert (level, plain(words)) == verdict


def row(counts: Counts, **phis: float) -> RatesRow:
    return RatesRow("loc1", "Bright Smile", counts, phis=phis)


def test_a_cell_without_data_says_so() -> None:
    cell = figures.rate_cell("Bounces", row(Counts()), "bounce_rate")
    assert "no data" in cell
    assert "0 %" not in plain(cell)


def test_a_cell_says_what_its_rate_is_made_of() -> None:
    counts = Counts(sent=1_377, delivered=1_293, bounced=84)
    cell = plain(figures.rate_cell("Bounces", row(counts), "bounce_rate"))
    assert "6.1 %" in cell
    assert "84 of 1,377" in cell
    assert "over 5 %" in cell
    assert 'title="95 % range 5.0–7.5 %"' in cell


def test_clustered_mail_has_a_wider_range() -> None:
    counts = Counts(sent=1_377, delivered=1_293, bounced=84)
    cell = plain(figures.rate_cell("Bounces", row(counts, bounce_rate=4.0), "bounce_rate"))
    assert 'title="95 % range 4.0–9.1 %"' in cell


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-3, "0 s ago"), (0, "0 s ago"), (59, "59 s ago"), (60, "1 min ago"), (7_200, "2 h ago"),
     (200_000, "2 d ago")],
)  # fmt: skip
def test_ages(seconds: int, text: str) -> None:
    assert figures.ago(NOW - timedelta(seconds=seconds), NOW) == text
