"""How clustered the mail of a row is: cells as the counters keep them, of what is shown."""

from collections.abc import Mapping
from typing import Any

import pytest

from dashboard import dispersions as module
from dashboard import rate_tables
from dashboard.access import Rights
from dashboard.dispersions import TOTAL, dispersions, priors
from dashboard.filters import parse
from dashboard.judging import PRIORS, Cells, dispersion
from dashboard.rates import RATES
from dashboard.refreshed import Kept
from dashboard.sources import count
from dashboard.spans import hour_of, moment_of
from dashboard.tallies import Question
from ingest.models import HourlyCount, LocationHour
from ingest.vocabulary import FLEET_LOCATION, Dimension
from tests.dashboard import rows
from tests.dashboard.rows import NOW

pytestmark = pytest.mark.django_db
EVERYTHING = Rights(everything=True)
HOUR = hour_of(NOW)


def cell(
    where: int, hour: int, *, bounced: int, of: int, value: int | None = None,
    dimension: Dimension = Dimension.CAMPAIGN,
) -> None:  # fmt: skip
    """A counter row of hard bounces among settled mail."""
    counts = {"sent": of, "delivered": of - bounced, "bounced": bounced, "hard": bounced}
    if value is None:
        LocationHour.objects.create(location_id=where, hour=hour, **counts)
    else:
        HourlyCount.objects.create(
            location_id=where, dimension=dimension, hour=hour, value_id=value, **counts
        )


def found(query: str, by: str, keys: Mapping[str, list[int]]) -> dict[str, dict[str, float]]:
    params = [tuple(p.split("=", 1)) for p in query.split("&") if p]
    question = Question(parse(params, now=NOW), EVERYTHING, by)  # type: ignore[arg-type]
    return dispersions(question, keys, NOW)


def hard(*cells: tuple[int, int]) -> float:
    return dispersion(Cells.of(cells), PRIORS["hard_bounce_rate"])


@pytest.fixture
def where() -> int:
    return rows.location("a").pk


def test_a_row_of_a_value_has_its_hours_for_cells(where: int) -> None:
    first, second = (rows.value(Dimension.CAMPAIGN, text).pk for text in ("w1", "w2"))
    for at, (bounced, of) in enumerate([(0, 50), (20, 50), (1, 3)]):
        cell(where, HOUR - at, bounced=bounced, of=of, value=first)
    cell(where, HOUR, bounced=5, of=100, value=second)
    phis = found("range=24h", "campaign", {"w1": [first], "w2": [second], "none": []})
    assert phis["w1"]["hard_bounce_rate"] == pytest.approx(hard((0, 50), (20, 50)))
    assert phis["w2"]["hard_bounce_rate"] == pytest.approx(hard((5, 100)))
    assert phis["none"] == priors()
    assert phis["w1"].keys() == set(RATES)
    assert phis["w1"]["delivery_rate"] == phis["w1"]["bounce_rate"]


def test_a_location_has_its_campaigns_and_providers_and_the_wider_counts(where: int) -> None:
    campaign = rows.value(Dimension.CAMPAIGN, "w1").pk
    provider = rows.value(Dimension.PROVIDER, "Gmail").pk
    for at, bounced in enumerate([10, 10]):
        cell(where, HOUR - at, bounced=bounced, of=100, value=campaign)
    for at, bounced in enumerate([0, 20]):
        of_provider: dict[str, Any] = {"value": provider, "dimension": Dimension.PROVIDER}
        cell(where, HOUR - at, bounced=bounced, of=100, **of_provider)
    expected = hard((0, 100), (20, 100))
    assert expected > hard((10, 100), (10, 100))
    by_location = found("range=24h", "location", {"a": [where]})
    assert by_location["a"]["hard_bounce_rate"] == pytest.approx(expected)
    of_one = found("range=24h&location=a", "tag", {})
    assert of_one[TOTAL]["hard_bounce_rate"] == pytest.approx(expected)


def test_of_a_long_table_of_locations_their_hours_are_the_cells(
    where: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MANY_ROWS", 0)
    for at, bounced in enumerate([0, 20]):
        cell(where, HOUR - at, bounced=bounced, of=100)
    by_location = found("range=24h", "location", {"a": [where]})
    assert by_location["a"]["hard_bounce_rate"] == pytest.approx(hard((0, 100), (20, 100)))


def test_of_many_values_of_the_fleet_only_the_newest_day_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tag = rows.value(Dimension.TAG, "t").pk
    for days, bounced in ((0, 5), (3, 25)):
        of_tag: dict[str, Any] = {"value": tag, "dimension": Dimension.TAG}
        cell(FLEET_LOCATION, HOUR - 24 * days, bounced=bounced, of=100, **of_tag)
    few = found("range=7d", "tag", {"t": [tag]})["t"]["hard_bounce_rate"]
    monkeypatch.setattr(module, "MANY_VALUES", 0)
    many = found("range=7d", "tag", {"t": [tag]})["t"]["hard_bounce_rate"]
    assert few == pytest.approx(hard((5, 100), (25, 100)))
    assert many == pytest.approx(hard((5, 100)))


def test_of_the_whole_fleet_locations_stand_for_campaigns(where: int) -> None:
    other = rows.location("b").pk
    for place, bounced in ((where, 0), (other, 30), (FLEET_LOCATION, 30)):
        cell(place, HOUR, bounced=bounced, of=200)
    phis = found("range=24h", "tag", {})
    assert phis[TOTAL]["hard_bounce_rate"] == pytest.approx(hard((0, 200), (30, 200)))


def test_the_hours_of_a_large_fleet_are_read_once_a_minute(
    where: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell(where, HOUR, bounced=30, of=200)
    monkeypatch.setattr(module, "_kept", Kept(module._is_large))
    anew = found("range=24h", "tag", {})
    cell(where, HOUR - 1, bounced=0, of=200)
    assert found("range=24h", "tag", {}) != anew
    monkeypatch.setattr(module, "KEPT_FROM", 2)
    kept = found("range=24h", "tag", {})
    cell(where, HOUR - 2, bounced=0, of=200)
    assert found("range=24h", "tag", {}) == kept
    assert found("range=24h", "hour", {})[TOTAL] == kept[TOTAL]


def test_an_hour_has_what_was_sent_in_it_for_cells(where: int) -> None:
    campaigns = [rows.value(Dimension.CAMPAIGN, text).pk for text in ("w1", "w2")]
    for campaign, bounced in zip(campaigns, (0, 40), strict=True):
        cell(where, HOUR, bounced=bounced, of=100, value=campaign)
        cell(where, HOUR - 1, bounced=5, of=100, value=campaign)
    keys = [moment_of(hour).isoformat() for hour in (HOUR, HOUR - 1)]
    phis = found("range=24h&location=a", "hour", {key: [] for key in keys})
    this, before = (phis[key]["hard_bounce_rate"] for key in keys)
    assert this == pytest.approx(hard((0, 100), (40, 100)))
    assert before == pytest.approx(hard((5, 100), (5, 100)))


def test_combined_filters_use_the_mail_of_the_locations(where: int) -> None:
    campaign = rows.value(Dimension.CAMPAIGN, "w1").pk
    for at, bounced in enumerate([0, 30]):
        cell(where, HOUR - at, bounced=bounced, of=100, value=campaign)
    phis = found("range=24h&location=a&class=hard", "provider", {"Gmail": [1], "Yahoo": [2]})
    assert phis["Gmail"] == phis["Yahoo"] == phis[TOTAL]
    assert phis[TOTAL]["hard_bounce_rate"] == pytest.approx(hard((0, 100), (30, 100)))


def test_cells_are_of_the_time_asked_for_and_no_older_than_seven_days(where: int) -> None:
    campaign = rows.value(Dimension.CAMPAIGN, "w1").pk
    for days, bounced in ((0, 5), (3, 25), (8, 90)):
        cell(where, HOUR - 24 * days, bounced=bounced, of=100, value=campaign)
    newest, week = (
        found(f"range={range}&location=a", "campaign", {"w1": [campaign]})["w1"]["hard_bounce_rate"]
        for range in ("24h", "30d")
    )
    assert newest == pytest.approx(hard((5, 100)))
    assert week == pytest.approx(hard((5, 100), (25, 100)))


def test_of_many_locations_only_the_newest_day_is_read(
    where: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MANY", 0)
    campaign = rows.value(Dimension.CAMPAIGN, "w1").pk
    for days, bounced in ((0, 5), (3, 25)):
        cell(where, HOUR - 24 * days, bounced=bounced, of=100, value=campaign)
    phis = found("range=7d&location=a", "campaign", {"w1": [campaign]})
    assert phis["w1"]["hard_bounce_rate"] == pytest.approx(hard((5, 100)))


def test_ranges_are_wider_where_mail_is_clustered(where: int) -> None:
    campaign = rows.value(Dimension.CAMPAIGN, "w1").pk
    for at, bounced in enumerate([0, 30, 0, 30]):
        cell(where, HOUR - at, bounced=bounced, of=100, value=campaign)
    filter = parse([("range", "24h"), ("location", "a")], now=NOW)
    table = rate_tables.rates(filter, EVERYTHING, by="campaign", now=NOW).as_json()
    (row,) = table["rows"]
    rate: dict[str, Any] = row["hard_bounce_rate"]
    assert rate["value"] == pytest.approx(0.15)
    phi = hard(*[(0, 100), (30, 100)] * 2)
    assert rate["widened"] == pytest.approx(phi**0.5, abs=1e-3)
    independent = count(Question(filter, EVERYTHING, "campaign"))[0].counted()[campaign]
    plain = independent.hard_bounce_rate
    assert plain.low is not None
    assert rate["low"] < plain.low


def test_without_mail_there_are_the_priors(where: int) -> None:
    assert found("range=24h", "tag", {"t": [1]}) == {TOTAL: priors(), "t": priors()}
