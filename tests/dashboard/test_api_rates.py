"""Rates and what changed them over HTTP: what is answered, to whom, and what is refused."""

import csv
import io
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from dashboard.filters import parse
from dashboard.lists import list_filter
from dashboard.models import Membership
from dashboard.rates import COUNTS, RATES
from ingest import counting
from ingest.models import Location
from ingest.vocabulary import Outcome
from tests.dashboard import lives, rows

pytestmark = pytest.mark.django_db
FROM, TO = "2026-09-21T00:00Z", "2026-09-25T09:41Z"
BOUNDS = f"from={FROM}&to={TO}"


@pytest.fixture
def web() -> Client:
    client = Client()
    client.force_login(User.objects.create_user("operator", is_staff=True))
    return client


@pytest.fixture
def mail() -> None:
    lives.write(lives.lives(80))


def rates(web: Client, query: str) -> dict[str, Any]:
    answer = web.get(f"/api/rates/?{query}")
    assert answer.status_code == 200, answer.content
    found: dict[str, Any] = answer.json()
    return found


@pytest.mark.parametrize("by", ["campaign", "ip", "category", "day"])
def test_every_number_has_a_list_of_deliveries(web: Client, mail: None, by: str) -> None:
    table = rates(web, f"by={by}&{BOUNDS}&tz=Asia/Kolkata")
    asked = parse([("from", FROM), ("to", TO), ("tz", "Asia/Kolkata")], now=datetime.now(UTC))
    for row in [{"key": "", **table["total"]}, *table["rows"]]:
        for count in COUNTS:
            behind = list_filter(asked, by, row["key"], count)
            if behind is None:  # only at an IP, a pool or an MX
                assert (count, row[count]) == ("moved", 0)
                continue
            url = f"/api/deliveries/?{behind.canonical()}&limit=1000"
            assert len(web.get(url).json()["results"]) == row[count], (row["key"], count, url)


def test_a_row_has_counts_rates_and_the_band(web: Client, mail: None) -> None:
    table = rates(web, f"by=provider&{BOUNDS}")
    for row in (table["total"], *table["rows"]):
        assert {*COUNTS, *RATES, "blind_share", "hl"} <= row.keys()
        for name in RATES:
            rate = row[name]
            assert rate.keys() == {"value", "low", "high", "numerator", "denominator", "widened"}
            if rate["value"] is not None:
                assert rate["low"] <= rate["value"] <= rate["high"]
            assert rate["widened"] >= 1
        assert row["hl"].keys() == {"hard_low", "hard_high", "block_low", "block_high", "bounce"}


def test_locations_and_the_total_are_judged(web: Client, mail: None) -> None:
    table = rates(web, f"by=location&sort=risk&{BOUNDS}")
    for row in table["rows"]:
        judgement = row["judgement"]
        assert judgement["tier"] == 3  # of weeks ago
        assert judgement["risk"] is None
        assert judgement["verdicts"]["hard_bounce_rate"].keys() == {"3%", "5%"}
        assert judgement["verdicts"]["visible_complaint_rate"].keys() == {"0.1%", "0.3%"}
        assert judgement["highlevel"]["hard"]["state"] == "no_data"
    assert table["total"]["judgement"]["verdicts"].keys() == judgement["verdicts"].keys()
    assert [row["key"] for row in table["rows"]] == ["a", "b", "c"]
    assert "judgement" not in rates(web, f"by=tag&{BOUNDS}")["rows"][0]


def test_a_comparison_states_its_period(web: Client, mail: None) -> None:
    table = rates(web, f"by=location&compare=previous&{BOUNDS}")
    assert table["compared"]["to"] == "2026-09-21T00:00:00+00:00"
    assert table["total"]["before"]["sent"] == 0
    assert table["rows"][0]["before"]["bounce_rate"]["value"] is None
    assert "compared" not in rates(web, f"by=location&{BOUNDS}")


def test_what_changed_is_answered_by_dimension(web: Client, mail: None) -> None:
    answer = web.get(f"/api/changes/?measure=bounce_rate&compare=week&{BOUNDS}")
    found = answer.json()
    assert answer.status_code == 200
    assert [each["by"] for each in found["by"]][0] == "campaign"
    one = web.get(f"/api/changes/?measure=bounce_rate&by=provider&{BOUNDS}").json()
    assert [each["by"] for each in one["by"]] == ["provider"]


def test_members_count_their_own_mail_only(mail: None) -> None:
    viewer = User.objects.create_user("viewer")
    Membership.objects.create(user=viewer, location=Location.objects.get(ref="a"))
    client = Client()
    client.force_login(viewer)
    for by in ("location", "tag", "provider", "category"):
        table = rates(client, f"by={by}&{BOUNDS}")
        assert (
            table["total"]["sent"] == rates(client, f"by=day&{BOUNDS}&location=a")["total"]["sent"]
        )
    assert [row["key"] for row in rates(client, f"by=location&{BOUNDS}")["rows"]] == ["a"]
    for url in ("/api/rates/?location=b", "/api/changes/?measure=bounce_rate&location=b"):
        assert client.get(url).status_code == 404


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("/api/rates/?by=mx", "by is one of location, company,"),
        ("/api/rates/?by=tag&sort=risk", "sort=risk is for by=location."),
        ("/api/rates/?compare=christmas", "compare is one of previous, week."),
        ("/api/rates/?compare=week&to=2026-01-01", "compare needs a range, or from and to."),
        ("/api/rates/?outcome=moved", "outcome=moved is what was tried"),
        ("/api/changes/", "Say which rate:"),
        ("/api/changes/?measure=sent", "measure is one of delivery_rate,"),
        ("/api/changes/?measure=bounce_rate&by=hour", "by is one of campaign,"),
        ("/api/changes/?measure=bounce_rate&by=tag&by=ip", "by can be given only once."),
    ],
)
def test_what_cannot_be_asked_is_answered_with_a_sentence(
    web: Client, url: str, sentence: str
) -> None:
    answer = web.get(url)
    assert answer.status_code == 400
    assert answer.json()["error"].startswith(sentence)


def test_strangers_are_refused() -> None:
    for path in ("/api/rates/", "/api/changes/?measure=bounce_rate"):
        assert Client().get(path).status_code == 401


def test_a_range_ends_now(web: Client) -> None:
    table = rates(web, "range=24h")
    ended = datetime.fromisoformat(table["to"])
    assert timedelta(0) <= datetime.now(UTC) - ended < timedelta(minutes=1)
    assert ended - datetime.fromisoformat(table["from"]) >= timedelta(hours=24)


def test_a_table_of_rates_as_a_file(web: Client) -> None:
    rows.delivery(1, campaign="=cmd|calc", outcome=Outcome.BOUNCED, sent_at=rows.NOW)
    rows.delivery(2, campaign="bulk:1", sent_at=rows.NOW)
    counting.rebuild(now=int(rows.NOW.timestamp() * 1e6))
    query = "?by=campaign&from=2026-11-22T00:00Z&to=2026-11-23T00:00Z"
    answer = web.get(f"/api/rates/{query}&format=csv")
    assert answer["Content-Type"] == "text/csv; charset=utf-8"
    assert answer["Content-Disposition"].startswith('attachment; filename="rates-by-campaign-')
    table = list(csv.DictReader(io.StringIO(answer.content.decode("utf-8-sig"))))
    assert [row["campaign"] for row in table] == ["'=cmd|calc", "bulk:1", "(total)"]
    assert [row["sent"] for row in table] == ["1", "1", "2"]
    wanted = web.get(f"/api/rates/{query}").json()["rows"]
    assert [row["bounce_rate"] for row in table[:2]] == [
        str(row["bounce_rate"]["value"]) for row in wanted
    ]
    assert web.get(f"/api/rates/{query}&format=xls").status_code == 400
