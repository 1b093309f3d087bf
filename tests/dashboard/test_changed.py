"""What moved a rate: the parts of each dimension, with their own rates and shares."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.http import Http404

from dashboard.access import NOTHING, Rights
from dashboard.changed import CHANGED_BY, changed
from dashboard.filters import FilterError, parse
from ingest.normalize import NormalizedEvent
from tests.dashboard import lives, rows
from tests.ingest.events import event

pytestmark = pytest.mark.django_db
EVERYTHING = Rights(everything=True)
NOW = datetime(2026, 9, 23, 14, 0, tzinfo=UTC)
YESTERDAY, TODAY = 0.5 * lives.DAY, 1.5 * lives.DAY
BAD = {"code": 550, "enhanced": "5.1.1", "message": "no such user"}


def mail(at: float, campaign: str, provider: str, *, good: int, bad: int) -> list[NormalizedEvent]:
    """So many of a campaign's mails to a provider, delivered and bounced."""
    of: dict[str, Any] = {"campaign": campaign, "campaign_rank": 2, "provider": provider}
    of |= {"tags": frozenset({"old", campaign[-2:]})}
    made = []
    for n in range(good + bad):
        kind, detail = ("delivered", {}) if n < good else ("bounced", BAD)
        message = f"{at}-{campaign}-{provider}-{n}"
        made.append(event(kind, at + n, detail=detail, message_id=message, **of))
    return made


@pytest.fixture
def worse_today() -> None:
    """Campaign w2 starts to bounce; everything else stays as it was."""
    made = []
    for at, bad in ((YESTERDAY, 4), (TODAY, 120)):
        made += mail(at, "workflow:w1", "Gmail", good=300, bad=6)
        made += mail(at, "workflow:w2", "Yahoo", good=300 - bad, bad=bad)
    lives.write(made)


def found(by: str, measure: str = "hard_bounce_rate", **options: Any) -> dict[str, Any]:
    filter = parse([("range", "24h")], now=NOW)
    table = changed(filter, EVERYTHING, measure=measure, by=[by], now=NOW, **options).as_json()
    return {"whole": table, **table["by"][0]}


@pytest.mark.parametrize(
    ("by", "key"), [("campaign", "workflow:w2"), ("provider", "Yahoo"), ("tag", "w2")]
)
def test_the_part_that_got_worse_is_named_first(worse_today: None, by: str, key: str) -> None:
    answer = found(by)
    first = answer["parts"][0]
    assert (first["key"], first["cause"]) == (key, "rate")
    assert first["effect"] == pytest.approx(answer["move"], rel=0.1)
    assert answer["move"] == pytest.approx(116 / 606)
    assert "workflow:w1" not in [part["key"] for part in answer["parts"]]


def test_parts_and_rest_add_up_to_the_move_where_rows_do_not_overlap(worse_today: None) -> None:
    for by in ("campaign", "provider", "location"):
        answer = found(by)
        effects = sum(part["effect"] for part in answer["parts"])
        assert effects + answer["rest"] == pytest.approx(answer["move"])
        assert not answer["overlap"]
    assert found("tag")["overlap"]


def test_a_category_counts_for_what_it_refused_of_all_mail(worse_today: None) -> None:
    answer = found("category")
    assert [part["key"] for part in answer["parts"]] == ["invalid_recipient"]
    assert answer["parts"][0]["effect"] == pytest.approx(answer["move"])


def test_both_periods_are_stated(worse_today: None) -> None:
    whole = found("campaign")["whole"]
    assert (whole["before"]["numerator"], whole["before"]["denominator"]) == (10, 606)
    assert (whole["after"]["numerator"], whole["after"]["denominator"]) == (126, 606)
    assert whole["compared"]["as_of"] == (NOW - timedelta(days=1)).isoformat()


def test_every_dimension_is_asked_without_one(worse_today: None) -> None:
    filter = parse([("range", "24h")], now=NOW)
    table = changed(filter, EVERYTHING, measure="bounce_rate", now=NOW).as_json()
    assert [each["by"] for each in table["by"]] == list(CHANGED_BY)


def test_without_mail_in_one_period_nothing_is_said() -> None:
    lives.write(mail(TODAY, "workflow:w1", "Gmail", good=9, bad=1))
    answer = found("campaign")
    assert (answer["move"], answer["rest"], answer["parts"]) == (None, None, [])


@pytest.mark.parametrize(
    "options",
    [
        {"measure": "sent"},
        {"measure": "bounce_rate", "by": ["colour"]},
        {"measure": "bounce_rate", "by": ["hour"]},
        {"measure": "bounce_rate", "compare": "christmas"},
    ],
)
def test_what_cannot_be_asked_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(FilterError):
        changed(parse([("range", "24h")], now=NOW), EVERYTHING, now=NOW, **options)


def test_a_hidden_location_is_refused() -> None:
    rows.location("hidden")
    filter = parse([("range", "24h"), ("location", "hidden")], now=NOW)
    with pytest.raises(Http404):
        changed(filter, NOTHING, measure="bounce_rate", now=NOW)
