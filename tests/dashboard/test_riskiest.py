"""Which location is nearest to a stop, and in what words: by all of its mail, day and week."""

from typing import Any

import pytest

from dashboard import rate_tables, riskiest
from dashboard.access import Rights
from dashboard.filters import parse
from dashboard.judging import Counted
from dashboard.models import Suspension
from dashboard.rates import Counts
from dashboard.refreshed import Refreshed
from dashboard.riskiest import (
    Judges,
    Lately,
    fleet_rates,
    gauges,
    judged_whole,
    read_lately,
    risk_of,
    silences,
    verdicts,
)
from dashboard.spans import hour_of
from ingest.models import LocationHour, QualityHour
from ingest.vocabulary import FLEET_LOCATION
from tests.dashboard import rows
from tests.dashboard.rows import NOW

pytestmark = pytest.mark.django_db
EVERYTHING = Rights(everything=True)
HOUR = hour_of(NOW)
WEEK = 7 * 24


def mail(where: int, ago: int, **counts: int) -> None:
    """A location's counters of an hour so many hours ago."""
    LocationHour.objects.create(location_id=where, hour=HOUR - ago, **counts)


def heard(where: int, ago: int, events: int = 10) -> None:
    QualityHour.objects.create(location_id=where, hour=HOUR - ago, events=events)


@pytest.fixture
def where() -> int:
    return rows.location("a").pk


# --- What is read --------------------------------------------------------------------------


def test_windows_are_a_day_and_a_week_and_the_last_whole_hour(where: int) -> None:
    for ago, sent in ((0, 1), (1, 2), (24, 4), (25, 8), (WEEK, 16), (WEEK + 1, 32)):
        mail(where, ago, sent=sent)
    lately = read_lately([where], now=NOW)[where]
    assert lately.windows["24h"].sent == 1 + 2 + 4
    assert lately.windows["7d"].sent == 1 + 2 + 4 + 8 + 16
    assert lately.hour.sent == 2
    assert lately.mails == 31
    assert lately.expected == 16  # sent in the day that followed, a week ago


def test_a_location_without_mail_has_nothing(where: int) -> None:
    assert read_lately([where], now=NOW) == {}
    assert read_lately([], now=NOW) == {}
    assert Lately().mails == 0


def test_the_fleet_is_that_of_28_days() -> None:
    mail(FLEET_LOCATION, 1, sent=90, bounced=8, suppressed=10, visible_reached=1_000)
    mail(FLEET_LOCATION, 28 * 24 + 1, sent=10, bounced=10)
    assert fleet_rates(now=NOW) == {"hard": 0.18, "blocks": 0.0, "complaints": 0.0}


# --- Risk ----------------------------------------------------------------------------------


def risk(where: int) -> float:
    found = risk_of(read_lately([where], now=NOW)[where], fleet_rates(now=NOW))
    assert found is not None
    return found.value


def test_more_mail_that_bounces_is_more_risk(where: int) -> None:
    other = rows.location("b").pk
    mail(where, 3, sent=500, bounced=28)
    mail(other, 3, sent=500, bounced=10)
    assert risk(where) > risk(other) > 0


def test_what_comes_in_bursts_is_less_sure(where: int) -> None:
    steady, bursts = where, rows.location("b").pk
    for ago in range(20):
        mail(steady, ago, sent=100, bounced=5)
        mail(bursts, ago, sent=100, bounced=0 if ago % 10 else 50)
    assert risk(bursts) < risk(steady)


def test_suppressed_and_blocked_mail_counts_at_its_most(where: int) -> None:
    mail(where, 3, sent=500, bounced=5, hard=5)
    before = risk(where)
    mail(where, 4, sent=500, bounced=5, hard=5, suppressed=60)
    assert risk(where) > before
    found = risk_of(read_lately([where], now=NOW)[where], {})
    assert found is not None
    assert found.measure == "hard"
    waiting = rows.location("b").pk
    mail(waiting, 5, sent=500, block_high=100)
    found = risk_of(read_lately([waiting], now=NOW)[waiting], {})
    assert found is not None
    assert found.measure == "blocks"


def test_without_mail_there_is_no_risk() -> None:
    assert risk_of(Lately(), {}) is None


# --- Silence -------------------------------------------------------------------------------


def test_silence_is_measured_in_what_was_due(where: int) -> None:
    for ago in range(1, 2 * WEEK):
        if ago > 3:
            heard(where, ago)
    # Silent for the three whole hours before this one; a week ago they had ten events each.
    assert silences([where], now=NOW) == {where: 30}


def test_who_was_heard_in_the_last_hour_is_not_silent(where: int) -> None:
    for ago in (1, WEEK, WEEK + 1, WEEK + 2):
        heard(where, ago)
    assert silences([where], now=NOW) == {}


def test_who_was_quiet_a_week_ago_too_is_not_missed(where: int) -> None:
    heard(where, 10)
    heard(where, WEEK + 20)
    assert silences([where], now=NOW).get(where, 0) == 0


# --- Order ---------------------------------------------------------------------------------


def test_the_order_is_stopped_then_silent_then_by_risk_then_without_mail() -> None:
    made = {name: rows.location(name).pk for name in ("calm", "gone", "over", "quiet", "risky")}
    mail(made["calm"], 3, sent=800, bounced=1, hard=1)
    mail(made["risky"], 3, sent=800, bounced=30, hard=5)
    mail(made["over"], 3, sent=800, bounced=60, hard=60)
    mail(made["quiet"], 30, sent=800)
    mail(made["gone"], 9 * 24, sent=800)
    for ago in range(30, 2 * WEEK):
        heard(made["quiet"], ago)
    filter = parse([("range", "30d")], now=NOW)
    table = rate_tables.rates(filter, EVERYTHING, by="location", sort="risk", judge=True, now=NOW)
    assert [row.key for row in table.rows] == ["over", "quiet", "risky", "calm", "gone"]
    tiers = [row.judgement.tier for row in table.rows if row.judgement]
    assert tiers == [0, 1, 2, 2, 3]
    assert table.rows[4].judgement is not None
    assert table.rows[4].judgement.as_json()["risk"] is None


def test_equals_go_by_what_is_expected_and_then_by_name() -> None:
    judges = Judges([], now=NOW)
    assert judges.sort_key(1, "Alpha") < judges.sort_key(2, "beta")


def test_what_is_past_the_limit_is_less_risky() -> None:
    for name, bounced in (("calm", 0), ("risky", 70)):
        mail(rows.location(name).pk, 3, sent=700, bounced=bounced)
    mail(FLEET_LOCATION, 3, sent=1_400, bounced=70)
    filter = parse([("range", "24h")], now=NOW)
    table = rate_tables.rates(
        filter, EVERYTHING, by="location", sort="risk", judge=True, limit=1, now=NOW
    )
    assert [row.key for row in table.rows] == ["risky", "(rest)"]
    assert table.rows[1].judgement is None


def test_a_small_fleet_is_judged_anew_and_a_large_one_now_and_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = [rows.location(name).pk for name in ("a", "b", "c")]
    mail(made[0], 3, sent=700, bounced=70, hard=70)
    assert riskiest.judges_of(made, now=NOW) is not riskiest.judges_of(made, now=NOW)
    monkeypatch.setattr(riskiest, "JUDGED_ANEW", 2)
    monkeypatch.setattr(riskiest, "_all", Refreshed[Judges]())
    first = riskiest.judges_of(made, now=NOW)
    keys = [first.sort_key(pk, "") for pk in made]
    assert keys == [Judges(made, now=NOW).sort_key(pk, "") for pk in made]
    assert first.judgement(made[0], Counts(), {}) == Judges(made, now=NOW).judgement(
        made[0], Counts(), {}
    )
    mail(made[0], 4, sent=1_000)
    again = riskiest.judges_of(made, now=NOW)
    assert [again.sort_key(pk, "") for pk in made] == keys
    Suspension.objects.create(location_id=made[1], since=NOW)
    assert riskiest.judges_of(made, now=NOW).sort_key(made[1], "")[0] == 0


# --- Words ---------------------------------------------------------------------------------


def test_verdicts_are_of_the_numbers_shown() -> None:
    counts = Counts(sent=500, delivered=472, bounced=28, hard=28, visible_reached=2_000)
    assert verdicts(counts, {}) == {
        "hard_bounce_rate": {"3%": "over 3 %", "5%": "close to 5 %"},
        "block_rate": {"3%": "within 3 %", "5%": "within 5 %"},
        "visible_complaint_rate": {"0.1%": "too early to tell", "0.3%": "within 0.3 %"},
    }
    wide = verdicts(counts, {"hard_bounce_rate": 20.0})
    assert wide["hard_bounce_rate"]["3%"] == "too early to tell"


def test_the_gauge_shows_the_worse_window_and_the_way_to_the_stop(where: int) -> None:
    mail(where, 1, sent=100, bounced=2, hard=2)
    mail(where, 3, sent=500, bounced=20, hard=20)
    mail(where, 100, sent=500, bounced=60, hard=60)
    found: dict[str, Any] = dict(gauges(read_lately([where], now=NOW)[where])["hard"])
    assert (found["window"], found["state"]) == ("7d", Counted.COUNTS_OVER)
    assert found["words"] == "HighLevel counts this as over 5 %"
    assert found["low"] == pytest.approx(82 / 1_100)
    assert found["distance"]["most"] == 0
    assert found["distance"]["pace"] == "recovers"
    assert found["windows"]["24h"]["low"] == {
        "value": 22 / 600, "numerator": 22, "denominator": 600,
    }  # fmt: skip
    blocks = gauges(read_lately([where], now=NOW)[where])["blocks"]
    assert blocks["state"] == Counted.INSIDE


def test_all_locations_are_judged_as_one(where: int) -> None:
    other = rows.location("b").pk
    for place, sent in ((where, 300), (other, 300), (FLEET_LOCATION, 600)):
        mail(place, 2, sent=sent, bounced=sent // 10, hard=sent // 10)
    for places in (None, [where, other]):
        found = judged_whole(places, Counts(), {}, now=NOW).as_json()
        assert found["highlevel"]["hard"]["windows"]["24h"]["low"]["denominator"] == 600
        assert found["highlevel"]["hard"]["state"] == Counted.COUNTS_OVER
        assert (found["risk"], found["tier"]) == (None, None)
        assert found["verdicts"]["block_rate"]["3%"] == "no data"
