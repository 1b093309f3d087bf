"""Data quality: by location and hour, and what the endpoint answered."""

from collections import Counter
from datetime import timedelta
from itertools import batched, islice
from typing import Any

import orjson
import pytest
from django.contrib.auth.models import User
from django.http import Http404
from django.test import Client
from hypothesis import given
from hypothesis import strategies as st

from dashboard import api_quality
from dashboard.access import Rights
from dashboard.filters import FilterError, parse
from dashboard.models import ApiToken, Membership
from dashboard.quality import (
    BY,
    CLOCKS,
    FINAL_HOURS,
    REUSE_LOOKS_AT,
    Answered,
    Counts,
    Endpoint,
    Quality,
    endpoint,
    percentile,
    quality,
    share,
)
from ingest import demo
from ingest.ids import ids
from ingest.models import (
    AnswerHour,
    CountedValues,
    Delivery,
    Event,
    HourlyCount,
    KeptWebhook,
    LocationHour,
    QualityHour,
    QuarantinedWebhook,
    RecentSignatures,
    Source,
)
from ingest.quality import ANSWERS, LAG_EDGES
from ingest.record import item_from_body, write_batch
from ingest.vocabulary import FLEET_LOCATION, MOST_VALUES, Dimension, Outcome
from tests.dashboard import rows
from tests.dashboard.rows import NOW
from tests.dashboard.test_bounded import ask_for_ever
from tests.ingest.events import SECOND

HOUR = int(NOW.timestamp()) // 3600
ALL = Rights(everything=True)


def asked(query: str = "range=24h", rights: Rights = ALL, by: str = "location") -> Quality:
    params = [part.split("=") for part in query.split("&") if part]
    filter = parse([(name, value) for name, value in params], now=NOW)
    return quality(filter, rights, now=NOW, by=by)


def came_in(ref: str = "loc", ago: int = 0, **counts: int) -> None:
    """What came in for a location, so many hours ago."""
    QualityHour.objects.create(location=rows.location(ref), hour=HOUR - ago, **counts)


def was_sent(ref: str = "loc", ago: int = 0, **counts: int) -> None:
    LocationHour.objects.create(location=rows.location(ref), hour=HOUR - ago, **counts)


# --- Shares and percentiles -----------------------------------------------------------------


def test_a_share_of_nothing_has_no_value() -> None:
    assert share(0, 0) == {"value": None, "numerator": 0, "denominator": 0}
    assert share(1, 4) == {"value": 0.25, "numerator": 1, "denominator": 4}


@pytest.mark.parametrize(
    ("lags", "seconds"),
    [
        ((0,) * 8, None),
        ((100,) + (0,) * 7, 4.75),
        ((95, 5) + (0,) * 6, 5),
        ((90, 10) + (0,) * 6, 17.5),
        ((0, 0, 0, 0, 0, 0, 0, 1), 86_400),
        ((94, 0, 0, 0, 0, 0, 0, 6), 86_400),
        ((1, 0, 0, 0, 0, 0, 0, 0), 4.75),
    ],
)
def test_the_lag_of_most_is_read_off_the_histogram(
    lags: tuple[int, ...], seconds: float | None
) -> None:
    assert percentile(lags, 0.95) == (None if seconds is None else pytest.approx(seconds))


histograms = st.lists(st.integers(0, 1_000), min_size=8, max_size=8).filter(any)


@given(histograms, st.floats(0.01, 1), st.floats(0.01, 1))
def test_percentiles_grow_and_stay_between_the_edges(
    lags: list[int], low: float, high: float
) -> None:
    low, high = sorted((low, high))
    found = [percentile(lags, part) for part in (low, high)]
    assert found[0] is not None
    assert found[1] is not None
    assert 0 <= found[0] <= found[1] <= LAG_EDGES[-1]


@given(histograms)
def test_a_percentile_lies_in_the_bucket_that_holds_it(lags: list[int]) -> None:
    found = percentile(lags, 0.95)
    assert found is not None
    position = next(n for n in range(8) if sum(lags[: n + 1]) >= 0.95 * sum(lags) - 1e-6)
    edges = (0, *LAG_EDGES, LAG_EDGES[-1])
    assert edges[position] - 1e-3 <= found <= edges[position + 1] + 1e-3


@given(st.lists(st.lists(st.integers(0, 99), min_size=8, max_size=8), max_size=5))
def test_a_total_is_the_sum_of_its_rows(found: list[list[int]]) -> None:
    total = Counts()
    for lags in found:
        total.add(Counts(events=sum(lags), lags=tuple(lags)))
    assert total.events == sum(total.lags) == sum(map(sum, found))
    assert total.late == sum(sum(lags[5:]) for lags in found)


# --- By location and hour -------------------------------------------------------------------


@pytest.mark.django_db
def test_nothing_came_in() -> None:
    found = asked()
    assert (found.rows, found.total.events, found.more) == ([], 0, 0)
    assert found.total.as_json()["duplicate_share"]["value"] is None
    assert found.total.lag_p95 is None


@pytest.mark.django_db
def test_what_came_in_is_added_up_by_location_and_by_hour() -> None:
    came_in("a", 0, events=8, duplicates=2, conflicts=1, lag_0=6, lag_5=1, lag_7=1, undated=1)
    came_in("a", 3, events=2, lag_0=2, no_message_id=2, unattributed=1)
    came_in("b", 0, events=1, unknown_kinds=1, no_recipient=1, before_horizon=1, lag_1=1)
    came_in("b", 25, events=50)
    by_location = asked()
    assert [(row.key, row.counts.events) for row in by_location.rows] == [("a", 10), ("b", 1)]
    first = by_location.rows[0].as_json()
    assert first["duplicate_share"] == share(2, 12)
    assert first["late_share"] == share(2, 10)
    assert [first[name] for name in ("conflicts", "undated", "no_message_id", "no_campaign")] == [
        1, 1, 2, 1,
    ]  # fmt: skip
    by_hour = asked(by="hour")
    assert [(row.key, row.counts.events) for row in by_hour.rows] == [
        ("2026-11-22T07:00:00+00:00", 2),
        ("2026-11-22T10:00:00+00:00", 9),
    ]
    assert by_hour.total == by_location.total
    assert (by_hour.total.before_horizon, by_hour.total.lags[0]) == (1, 8)


@pytest.mark.django_db
def test_mail_counts_by_its_sending_and_the_fleets_rows_do_not() -> None:
    was_sent("a", 1, sent=10, delivered=10, orphan=3, inferred=2)
    LocationHour.objects.create(location_id=FLEET_LOCATION, hour=HOUR - 1, sent=99, orphan=99)
    nowhere, spring = (rows.value(Dimension.CAMPAIGN, text) for text in ("", "spring"))
    for value, sent in ((nowhere, 4), (spring, 6)):
        HourlyCount.objects.create(
            location=rows.location("a"), dimension=Dimension.CAMPAIGN, hour=HOUR - 1,
            value=value, sent=sent,
        )  # fmt: skip
    (row,) = asked().rows
    assert (row.counts.sent, row.counts.orphan, row.counts.inferred) == (10, 3, 2)
    assert row.as_json()["unattributed_share"] == share(4, 10)


@pytest.mark.django_db
def test_mail_whose_last_day_ended_without_a_final_event() -> None:
    was_sent("a", FINAL_HOURS, sent=7)  # its day is not over yet
    was_sent("a", FINAL_HOURS + 1, sent=10, delivered=6, bounced=1)
    was_sent("a", 2 * FINAL_HOURS, sent=5, delivered=4)
    was_sent("a", 2 * FINAL_HOURS + 1, sent=1)  # before the time that is asked for
    (row,) = asked().rows
    assert (row.counts.no_final_event, row.counts.sent_a_day_before) == (4, 15)
    by_hour = {row.key: row.counts.no_final_event for row in asked(by="hour").rows}
    assert by_hour["2026-11-22T09:00:00+00:00"] == 3
    assert by_hour["2026-11-21T10:00:00+00:00"] == 1
    assert asked("range=7d").total.no_final_event == 5


def event(webhook: int | None, ref: str = "loc", ago: float = 0) -> None:
    stored = rows.event(location_ref=ref)
    received_at = NOW - timedelta(hours=ago)
    Event.objects.filter(pk=stored.pk).update(webhook=webhook, received_at=received_at)


@pytest.mark.django_db
def test_a_webhook_id_that_came_again_with_another_event() -> None:
    for webhook in (1, 1, 1, 2, None, None):
        event(webhook)
    event(1, ref="other")
    event(5, ref="other", ago=3)
    event(5, ref="other", ago=2)
    event(6, ref="other", ago=40)
    event(6, ref="other", ago=39)
    found = {row.key: row.counts.webhook_id_reuse for row in asked().rows}
    assert found == {"loc": 2, "other": 1}
    assert asked("location=other&range=24h").total.webhook_id_reuse == 1
    by_hour = {row.key[11:13]: row.counts.webhook_id_reuse for row in asked(by="hour").rows}
    assert by_hour == {"08": 1, "10": 2}
    assert asked().reuse_looked_at == Event.objects.latest("pk").pk <= REUSE_LOOKS_AT


@pytest.mark.django_db
def test_bounds_are_widened_to_whole_hours() -> None:
    for ago in range(4):
        came_in("a", ago, events=10**ago)
    found = asked("from=2026-11-22T08:40Z&to=2026-11-22T09:10Z")
    assert (found.start and found.start.isoformat(), found.end.isoformat()) == (
        "2026-11-22T08:00:00+00:00", "2026-11-22T10:00:00+00:00",
    )  # fmt: skip
    assert found.total.events == 110
    assert asked("to=2026-11-22T09:00Z").total.events == 1_100
    assert asked("range=1h").total.events == 11


@pytest.mark.django_db
def test_values_that_share_a_row_are_named() -> None:
    for ref, used in (("a", MOST_VALUES), ("b", MOST_VALUES - 1)):
        CountedValues.objects.create(
            location=rows.location(ref), dimension=Dimension.TAG, used=used
        )
    capped = [{"location": "a", "dimension": "tag", "values": MOST_VALUES}]
    assert asked().values_capped == capped
    assert asked("location=b").values_capped == []


@pytest.mark.django_db
def test_a_limit_keeps_the_busiest_locations_and_the_newest_hours() -> None:
    for ago, ref in enumerate("abc"):
        came_in(ref, ago, events=ago + 1)
    filter = parse([("range", "24h")], now=NOW)
    by_location = quality(filter, ALL, now=NOW, limit=2)
    assert ([row.key for row in by_location.rows], by_location.more) == (["c", "b"], 1)
    by_hour = quality(filter, ALL, now=NOW, by="hour", limit=2)
    assert [row.counts.events for row in by_hour.rows] == [2, 1]
    assert by_hour.total.events == by_location.total.events == 6


def test_each_number_has_one_clock() -> None:
    named = [name for names in CLOCKS.values() for name in names]
    shares = {name for name in Counts().as_json() if name.endswith("_share")}
    assert sorted(named) == sorted(Counts().as_json().keys() - shares)


@pytest.mark.django_db
def test_what_the_recorder_writes_adds_up_to_what_it_stored() -> None:
    ids.clear()
    now = int(NOW.timestamp() * SECOND)
    came = [*islice(demo.lives(7, now=now - 3 * demo.DAY, rate=0.05, locations=5), 1_500)]
    items = [
        item_from_body(orjson.dumps(body), received_at=at + 20 * SECOND)
        for at, body in came + came[::7]
    ]
    for batch in batched(items, 100):
        write_batch(batch, now=now)
    ids.clear()
    statuses = Counter(item.status for item in items)
    for by in BY:
        found = asked("from=2026-11-01T00:00Z&to=2026-12-15T00:00Z", by=by).total
        assert (found.events, found.duplicates) == (statuses["stored"], statuses["duplicate"])
        assert sum(found.lags) == found.events - found.undated
        assert found.conflicts == 0
        unfinal = Delivery.objects.filter(outcome__in=[Outcome.ACCEPTED, Outcome.DEFERRED])
        day_ago = NOW.replace(minute=0) - timedelta(hours=FINAL_HOURS)
        assert found.no_final_event == unfinal.filter(sent_at__lt=day_ago).count() > 0
        orphans = Delivery.objects.filter(outcome=Outcome.ORPHAN)
        assert found.orphan == orphans.count()


# --- Who may ask, and what ------------------------------------------------------------------


@pytest.mark.django_db
def test_members_see_their_locations_and_nothing_of_the_endpoint() -> None:
    for ref in ("mine", "hidden"):
        came_in(ref, events=5)
        was_sent(ref, 30, sent=3)
        event(1, ref)
        event(1, ref)
        CountedValues.objects.create(
            location=rows.location(ref), dimension=Dimension.TAG, used=MOST_VALUES
        )
    rights = Rights(location_ids=frozenset({rows.location("mine").pk}))
    found = asked("range=24h", rights)
    assert [row.key for row in found.rows] == ["mine"]
    total = found.total
    assert (total.events, total.no_final_event, total.webhook_id_reuse) == (5, 3, 1)
    assert [capped["location"] for capped in found.values_capped] == ["mine"]
    assert found.endpoint is None
    with pytest.raises(Http404):
        asked("location=hidden", rights)
    assert asked("range=24h", Rights()).rows == []


@pytest.mark.django_db
def test_a_company_is_its_locations() -> None:
    rows.location("a", company="agency")
    came_in("a", events=1)
    came_in("b", events=2)
    assert asked("company=agency").total.events == 1
    assert asked("company=-agency").total.events == 2


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("tag=promo", "cannot be asked with tag"),
        ("campaign=spring&location=a", "cannot be asked with campaign"),
        ("q=jane", "cannot be asked with q"),
        ("clock=sent", "clocks of its own"),
    ],
)
def test_other_filters_are_refused(query: str, sentence: str) -> None:
    with pytest.raises(FilterError, match=sentence):
        asked(query)


def test_other_groups_are_refused() -> None:
    with pytest.raises(FilterError, match="by is one of location, hour"):
        asked(by="tag")


# --- The endpoint ---------------------------------------------------------------------------


def answered(cause: str, n: int, *, ago: int = 0, source_id: int = 0) -> None:
    AnswerHour.objects.create(hour=HOUR - ago, source_id=source_id, status=cause, answers=n)


@pytest.mark.django_db
def test_answers_are_told_by_word_and_by_cause() -> None:
    answered("stored", 90)
    answered("another app", 3)
    answered("ignored", 1)
    answered("wrong signature", 4)
    answered("no signature", 2)
    answered("method not allowed", 50)
    answered("stored", 100, ago=2)
    answered("busy", 10, ago=30)
    answered("stored", 1, ago=73)
    windows = endpoint(now=NOW).windows
    hour = windows["1h"]
    assert hour.words == {
        "stored": 90, "ignored": 4, "unverified": 6, "method not allowed": 50,
    }  # fmt: skip
    assert hour.taken == share(94, 100)
    assert hour.signature_failures == 6
    assert windows["24h"].taken == share(194, 200)
    assert windows["3d"].taken == share(194, 210)
    assert hour.since.isoformat() == "2026-11-22T09:00:00+00:00"


@pytest.mark.django_db
def test_answers_are_told_by_source() -> None:
    source = Source.objects.create(name="hoop")
    answered("stored", 5)
    answered("wrong hmac", 2, source_id=source.pk)
    answered("stored", 1, source_id=999)
    answered("stored", 7, source_id=source.pk, ago=30)
    found = {name: answers.words for name, answers in endpoint(now=NOW).sources.items()}
    assert found == {
        "": {"stored": 5}, "hoop": {"unverified": 2}, "withdrawn #999": {"stored": 1},
    }  # fmt: skip


@given(st.dictionaries(st.sampled_from(sorted(ANSWERS)), st.integers(0, 1_000)))
def test_words_lose_no_answer(causes: dict[str, int]) -> None:
    found = Answered(NOW, causes)
    assert sum(found.words.values()) == sum(causes.values())
    posted = sum(n for cause, n in causes.items() if cause != "method not allowed")
    assert found.taken["denominator"] == posted
    assert 0 <= found.signature_failures <= posted


@pytest.mark.parametrize(
    ("verdicts", "quarantining", "offered"),
    [
        ("", False, False),
        ("1" * 100, False, False),
        ("1" * 50 + "0" * 50, False, False),
        ("1" * 49 + "0" * 51, False, True),
        ("1" * 49 + "0" * 51, True, False),
        ("0", False, True),
    ],
)
def test_when_a_quarantine_is_offered(verdicts: str, quarantining: bool, offered: bool) -> None:
    found = Endpoint({}, {}, verdicts, 0, 0, quarantining)
    assert found.offer_quarantine is offered
    assert found.as_json()["signatures"]["numerator"] == verdicts.count("0")


@pytest.mark.django_db
def test_what_waits_for_a_replay(settings: Any) -> None:
    for number, replayed_at in enumerate((None, None, NOW)):
        KeptWebhook.objects.create(
            received_at=NOW, reason="x", body=b"", digest=bytes([number]), replayed_at=replayed_at
        )
    QuarantinedWebhook.objects.create(received_at=NOW, digest=b"q", body=b"")
    RecentSignatures.objects.create(verdicts="001")
    settings.WEBHOOK_QUARANTINE = True
    found = endpoint(now=NOW).as_json()
    waiting = (found["kept_waiting"], found["quarantined"], found["quarantining"])
    assert waiting == (2, 1, True)
    assert found["signatures"] == share(2, 3)


# --- The API --------------------------------------------------------------------------------


def client(user: User) -> Client:
    return Client(headers={"Authorization": f"Bearer {ApiToken.issue(user_id=user.pk)}"})


@pytest.mark.django_db
def test_the_api_answers_in_json() -> None:
    web = client(User.objects.create_user("operator", is_staff=True))
    for by in BY:
        answer = web.get(f"/api/quality/?range=7d&by={by}")
        assert answer.status_code == 200
        found = answer.json()
        assert (found["by"], found["rows"], found["total"]["events"]) == (by, [], 0)
        assert found["endpoint"]["windows"]["24h"]["answered_2xx"]["value"] is None
        assert found["lag_edges_seconds"] == list(LAG_EDGES)


@pytest.mark.django_db
def test_the_api_refuses_in_sentences() -> None:
    web = client(User.objects.create_user("operator", is_staff=True))
    for query in ("by=tag", "tag=promo", "colour=red", "limit=0", "is=late", "by=hour&by=hour"):
        answer = web.get(f"/api/quality/?{query}")
        assert answer.status_code == 400, query
        assert answer.json()["error"].endswith(".")
    assert web.get("/api/quality/?location=nowhere").status_code == 404
    assert Client().get("/api/quality/").status_code == 401


@pytest.mark.django_db
def test_the_api_stops_what_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(*call: object, **options: object) -> None:
        ask_for_ever()

    monkeypatch.setattr(api_quality, "LONGEST", 0.05)
    monkeypatch.setattr(api_quality, "quality", ask)
    web = client(User.objects.create_user("operator", is_staff=True))
    assert web.get("/api/quality/").status_code == 503


@pytest.mark.django_db
def test_a_member_asks_too() -> None:
    came_in("mine", events=1)
    viewer = User.objects.create_user("viewer")
    Membership.objects.create(user=viewer, location=rows.location("mine"))
    found = client(viewer).get("/api/quality/?from=2026-11-22T00:00Z&to=2026-11-23T00:00Z").json()
    assert [row["key"] for row in found["rows"]] == ["mine"]
    assert found["endpoint"] is None
