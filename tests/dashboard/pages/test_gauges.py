"""HighLevel's gauges in words: what it makes of a band, and how far it is to the stop."""

from datetime import UTC, datetime

from dashboard.filters import Filter, parse
from dashboard.pages.gauges import Gauge, gauge
from dashboard.rates import Counts
from dashboard.riskiest import Lately

NOW = datetime(2026, 11, 22, 10, 30, tzinfo=UTC)


def lists(window: str) -> Filter:
    return parse([("location", "loc"), ("range", window)], now=NOW)


def gauge_of(
    name: str, day: Counts, week: Counts | None = None, hour: Counts | None = None
) -> Gauge:
    windows = {"24h": day, "7d": week or day}
    return gauge(name, Lately(windows=windows, hour=hour or Counts()), lists)


def test_a_band_in_words_with_the_way_to_the_stop() -> None:
    day = Counts(sent=1_377, delivered=1_319, bounced=58, hard=43, soft=15)
    found = gauge_of("hard", day, Counts(sent=5_000), Counts(sent=100, delivered=99, bounced=1))
    assert found.figure.replace("\xa0", " ") == "3.1 % – 4.2 %"
    assert found.words == "HighLevel counts this as over 3 %"
    assert found.ahead == "11 to 26 more reach 5 % at this volume. Not at this pace."
    assert "HighLevel does not publish which" in found.between
    assert [(w.name, w.is_worse) for w in found.windows] == [("24h", True), ("7d", False)]
    assert found.windows[0].low.made_of == "43 of 1,377"
    assert "class=hard" in found.windows[0].low.url
    assert found.level == "warn"


def test_blocks_wait_for_their_floors() -> None:
    day = Counts(sent=600, delivered=588, bounced=12, block=12, block_low=12, block_high=12)
    assert gauge_of("blocks", day).needed == "25 blocks are needed: 12 so far."
    few = Counts(sent=230, delivered=230)
    assert gauge_of("hard", few).needed == "HighLevel acts from 500 mails on: 230 so far."


def test_over_the_stop() -> None:
    day = Counts(sent=1_000, delivered=940, bounced=60, hard=60)
    found = gauge_of("hard", day)
    assert found.ahead.startswith("Over 5 %.")
    assert found.level == "bad"
    assert found.band
    assert not found.band.beyond


def test_without_mail_there_is_no_data() -> None:
    found = gauge_of("hard", Counts())
    assert found.band is None
    assert found.figure == ""
    assert found.level == "none"
    assert found.ahead == ""
