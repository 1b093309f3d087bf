"""The benchmark: that its parts run end to end, and that its peer writes the same rows."""

import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import orjson
import pytest
from django.db import models

from bench import history, ingest, large, queries, sockets
from bench.draws import HOUR
from bench.plain import write as plain
from bench.requests import Requests, make_requests
from bench.servers import Prelude
from dashboard.bounded import TookTooLong
from ingest import counting, demo
from ingest.counted_values import decisions
from ingest.fold import dump_facts, judge, load_facts
from ingest.ids import ids
from ingest.models import (
    CountedValue,
    CountedValues,
    Delivery,
    Event,
    Horizon,
    HourlyCount,
    Location,
    LocationHour,
    QualityHour,
    Value,
    tag_ids,
)
from ingest.quality import COLUMNS as QUALITY_COLUMNS
from ingest.record import Item, item_from_body, payload_of, write_batch
from ingest.statements import aware_utc
from ingest.vocabulary import OTHER_KEY, ROLLED_UP, Dimension
from tests.ingest.tables import empty, tables
from tests.serving import ROOT

NOW = 1_790_000_000_000_000


@pytest.fixture(scope="module")
def requests(tmp_path_factory: pytest.TempPathFactory) -> Requests:
    return make_requests(tmp_path_factory.mktemp("bench") / "requests.bin", 3_000)


@pytest.fixture(scope="module")
def template(
    engine: str, requests: Requests, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prelude]:
    folder = tmp_path_factory.mktemp(f"bench_{engine}")
    with ingest.filled(engine, requests, folder, events=200) as made:
        yield made


@pytest.mark.both_engines
@pytest.mark.parametrize("whose", ["ours", "the plain view"])
def test_a_round_counts_webhooks_a_second(
    whose: str, template: Prelude, requests: Requests, tmp_path: Path
) -> None:
    kind, workers = ("uvicorn", 2) if template.engine == "postgresql" else ("daphne", 1)
    if whose == "the plain view":
        kind = "gunicorn"
    scenario = ingest.Scenario(kind, template.engine, workers)
    figures = ingest.measure(
        scenario, template, requests, tmp_path / f"round_{kind}", seconds=0.5, warmup=0.5
    )
    assert figures["per_second"] > 0
    assert figures["p95_ms"] >= figures["p50_ms"] > 0
    assert figures["not_200"] == figures["lost"] == figures["unanswered"] == 0


@pytest.mark.both_engines
def test_every_socket_hears_every_event_once(
    template: Prelude, requests: Requests, tmp_path: Path
) -> None:
    ask = sockets.Ask(sockets=5, rate=40, seconds=1)
    figures = sockets.measure("uvicorn", template, requests, tmp_path / "sockets", ask)
    assert figures["complete"]
    assert figures["rows_received"] >= 5 * 20
    assert 0 <= figures["p50_ms"] <= figures["p95_ms"] <= figures["max_ms"]


def test_a_socket_that_missed_or_repeated_an_event_is_not_complete() -> None:
    def heard(*frames: list[int]) -> dict[str, Any]:
        rows = [[(cursor, "") for cursor in frame] for frame in frames]
        received = [(number, 0) for number in range(len(frames))]
        cursors = [frame[-1] if frame else 3 for frame in frames]
        socket = {"closed": "", "received": received}
        return {"sockets": [socket], "frames": rows, "cursors": cursors}

    assert sockets._complete(heard([], [4, 5], [6]), [1, 2, 3, 4, 5, 6])
    for wrong in ([4], [6]), ([4, 5], [5, 6]), ([5, 4], [6]), ([4, 5],):
        assert not sockets._complete(heard([], *wrong), [1, 2, 3, 4, 5, 6])


@pytest.mark.django_db
def test_the_plain_view_writes_the_same_rows() -> None:
    bodies = islice(demo.lives(3, now=NOW, rate=20, locations=5, introduce=False), 400)
    webhooks = [(orjson.dumps(body), due) for due, body in bodies]

    for item in _items(webhooks):
        write_batch([item], now=NOW)
    ours = _tables()
    _empty()
    for item in _items(webhooks):
        plain.write(item, now=NOW)

    assert ours == _tables()
    assert len(ours[-1]) > 350
    assert list(counting.differences(now=NOW)) == []


def _items(webhooks: list[tuple[bytes, int]]) -> list[Item]:
    return [item_from_body(body, received_at=due) for body, due in webhooks]


def _empty() -> None:
    empty()
    _forget()


@pytest.fixture(autouse=True)
def _forget_ids() -> Iterator[None]:
    _forget()
    yield
    _forget()


def _forget() -> None:
    ids.clear()
    plain.forget()


def _tables() -> list[Any]:
    """All that both write, with names in place of the ids that each gives itself."""
    refs = dict(Location.objects.values_list("id", "ref"))
    return [
        *tables(),
        set(Location.objects.values_list("ref", "company_ref")),
        set(Value.objects.values_list("dimension", "text")),
        {
            (refs[location], Value.objects.get(pk=value).text)
            for location, value in CountedValue.objects.values_list("location_id", "value_id")
        },
        {
            (refs[location], dimension, used)
            for location, dimension, used in CountedValues.objects.values_list(
                "location_id", "dimension", "used"
            )
        },
        [
            (refs[location], *rest)
            for location, *rest in QualityHour.objects.order_by("hour").values_list(
                "location_id", "hour", *QUALITY_COLUMNS
            )
        ],
        {
            (*row, bytes(event.key), bytes(event.detail), payload_of(event))
            for row, event in zip(
                Event.objects.order_by("id").values_list(
                    "received_at",
                    "code",
                    "ip__text",
                    "pool__text",
                    "mx__text",
                    "is_test",
                    "content",
                    "webhook",
                    "delivery__message_id",
                ),
                Event.objects.order_by("id"),
                strict=True,
            )
        },
    ]


# --- A large history, made small ---------------------------------------------------------------

ASK = history.Ask(deliveries=800, now=NOW, locations=30, domains=300, sample=1_000, payloads=300)


@pytest.fixture
def filled(db: None) -> None:
    history.fill(ASK, lambda line: None)


@pytest.mark.usefixtures("filled")
def test_a_history_is_counted_as_recount_counts() -> None:
    assert Delivery.objects.count() == ASK.deliveries
    assert list(counting.differences(now=NOW)) == []
    counted = HourlyCount.objects.values_list("dimension", flat=True).distinct()
    assert {*counted} == {int(dimension) for dimension in ROLLED_UP}
    assert HourlyCount.objects.filter(moved__gt=0).exists()
    assert LocationHour.objects.filter(test__gt=0).exists()


@pytest.mark.usefixtures("filled")
def test_a_history_s_columns_follow_from_its_facts() -> None:
    texts: dict[int | None, str] = dict(Value.objects.values_list("id", "text"))
    for row in Delivery.objects.all():
        facts = load_facts(row.facts)
        stands = judge(facts)
        assert dump_facts(facts) == bytes(row.facts)
        assert row.sent_at == aware_utc(stands.sent_at)
        assert (row.outcome, row.flags, row.bounce_class, row.category, row.code) == stands[:5]
        assert texts[row.campaign_id] == stands.campaign
        assert texts[row.step_id] == stands.step
        assert texts[row.provider_id] == stands.provider
        assert texts[row.sending_domain_id] == stands.sending_domain
        assert texts[row.domain_id] == row.recipient.rpartition("@")[2]
        assert sorted(texts[tag] for tag in tag_ids(row.tags)) == [*stands.tags]
        assert texts[row.ip_id] == stands.ways.ip


@pytest.mark.usefixtures("filled")
def test_a_history_s_events_are_those_of_its_facts_in_the_order_of_receipt() -> None:
    first: dict[int | None, dict[int, int]] = defaultdict(dict)
    received = []
    for event in Event.objects.order_by("id"):
        at = round(event.occurred_at.timestamp() * 1e6)
        assert int.from_bytes(bytes(event.key)[:4]) == at // HOUR
        of = first[event.delivery_id]
        of[event.kind] = min(of.get(event.kind, at), at)
        received.append(event.received_at)
    assert received == sorted(received)
    told = {row.pk: load_facts(row.facts).first for row in Delivery.objects.all()}
    assert first == told


@pytest.mark.usefixtures("filled")
def test_a_history_keeps_the_newest_payloads() -> None:
    oldest = Horizon.objects.get().payloads_cursor
    kept = Event.objects.filter(pk__gt=oldest)
    assert 200 < kept.count() < 500
    assert not Event.objects.filter(pk__lte=oldest).exclude(payload=None).exists()
    for event in kept:
        assert orjson.loads(payload_of(event) or b"")["type"] == "LCEmailStats"


@pytest.mark.usefixtures("filled")
def test_a_history_s_largest_location_has_a_tenth_of_the_mail() -> None:
    largest = Location.objects.order_by("ref")[0]
    assert 0.08 < largest.deliveries.count() / ASK.deliveries < 0.12


@pytest.mark.django_db
def test_a_history_counts_no_more_domains_apart_than_the_recorder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(decisions, "limit", 100)
    history.fill(replace(ASK, locations=3, deliveries=1_600, domains=9_000), lambda line: None)
    used = dict(CountedValues.objects.values_list("dimension").annotate(models.Max("used")))
    assert {d for d, n in used.items() if n >= 100} == {Dimension.DOMAIN}
    others = HourlyCount.objects.filter(value__text=OTHER_KEY)
    assert sum(others.values_list("sent", flat=True)) > 20
    assert list(counting.differences(now=NOW)) == []


@pytest.mark.usefixtures("filled")
def test_the_recorder_goes_on_from_a_history() -> None:
    bodies = islice(demo.lives(9, now=NOW, rate=20, locations=5, introduce=False), 200)
    items = _items([(orjson.dumps(body), due) for due, body in bodies])
    write_batch(items, now=NOW)
    assert {item.status for item in items} == {"stored"}
    assert Delivery.objects.count() > ASK.deliveries
    assert list(counting.differences(now=NOW)) == []


# --- Questions to it ---------------------------------------------------------------------------


@pytest.mark.usefixtures("filled")
def test_every_question_is_answered() -> None:
    asked = list(queries.Questions(datetime.fromtimestamp(NOW / 1e6, UTC)))
    names = [(question.group, question.name) for question in asked]
    assert len(names) == len({*names}) > 120
    for question in asked:
        question.ask()
    figures = queries.figures(ASK.deliveries, [queries.measure(asked[0])])
    assert figures["disk"]["events"] == Event.objects.count()
    assert 100 < figures["disk"]["bytes_a_payload"] < 1_000
    assert [answer["verdict"] in ("met", "MISSED") for answer in figures["answers"]] == [True]


@pytest.mark.django_db
def test_an_answer_that_takes_too_long_has_missed_its_target() -> None:
    def ask() -> None:
        raise TookTooLong

    answer = queries.measure(queries.Question("lists", "deliveries", 100, ask))
    assert (answer.verdict, answer.as_json()["p95_ms"]) == ("MISSED", None)


def figures(deliveries: int, **p95: float | None) -> large.Figures:
    answers = [
        {"group": "g", "name": name, "target_ms": 100, "first_ms": 9.0, "p95_ms": ms, "verdict": ""}
        for name, ms in p95.items()
    ]
    return {"deliveries": deliveries, "answers": answers}


def test_answers_are_shown_by_size_beside_their_targets() -> None:
    head, rows = large.table([figures(1_000, a=1.26), figures(10_000, a=1_200.4, b=None)])
    assert head == ("p95 ms, warm", "1,000", "10,000", "first", "target", "")
    assert rows == [
        ("g: a", "1.3", "1,200", "9.0", "100", ""),
        ("g: b", "", "stopped", "9.0", "100", ""),
    ]


def test_growth_is_of_answers_that_take_some_time() -> None:
    grown = large.growth(figures(1, a=10, b=1, c=0.1, d=9), figures(2, a=30, b=4, c=25, d=None))
    assert grown == [("g: a", 3.0), ("g: c", 10.0)]


def test_bytes_an_event_are_given_with_and_without_payloads() -> None:
    disk = queries.Disk(events=100, tables={"e": 50_000, "d": 20_000}, payload=400.0, kept=25)
    assert large.disk_rows({"disk": disk.as_json()}) == [
        ("e", "500"),
        ("d", "200"),
        ("all, without payloads", "600"),
        ("all, with every payload (estimated: 400 bytes each)", "1,000"),
    ]


@pytest.mark.both_engines
def test_a_history_is_made_in_a_database_of_its_own(engine: str) -> None:
    command = [
        sys.executable, "-m", "bench", "history", "--engine", engine,
        "--deliveries", "1000", "--locations", "20", "--sample", "600",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "GB of disk" in done.stdout
    assert "counters that differ from their deliveries: 0" in done.stdout


def test_a_history_that_the_disk_has_no_room_for_is_refused(tmp_path: Path) -> None:
    assert large._lacking("sqlite", 10**6, tmp_path) == ""
    assert "too little" in large._lacking("sqlite", 10**18, tmp_path)
