"""The benchmark: that its parts run end to end, and that its peer writes the same rows."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import orjson
import pytest
from django.db import models

from bench import ingest, sockets
from bench.plain import write as plain
from bench.requests import Requests, make_requests
from bench.servers import Prelude
from ingest import counting, demo, record
from ingest.models import (
    Delivery,
    Event,
    HourlyCount,
    Location,
    LocationHour,
    MinuteCount,
    Value,
    tag_ids,
)
from ingest.record import Item, item_from_body, payload_of, write_batch
from ingest.vocabulary import MEASURES

NOW = 1_790_000_000_000_000
TABLES = (Event, Delivery, HourlyCount, LocationHour, MinuteCount, Value, Location)


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
@pytest.mark.parametrize("kind", ["uvicorn", "daphne", "gunicorn"])
def test_a_round_counts_webhooks_a_second(
    kind: str, template: Prelude, requests: Requests, tmp_path: Path
) -> None:
    workers = 2 if (kind, template.engine) == ("uvicorn", "postgresql") else 1
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
    assert len(ours["events"]) > 350
    assert list(counting.differences(now=NOW)) == []


def _items(webhooks: list[tuple[bytes, int]]) -> list[Item]:
    return [item_from_body(body, received_at=due) for body, due in webhooks]


def _empty() -> None:
    for model in TABLES:
        model._default_manager.all()._raw_delete("default")
    _forget()


@pytest.fixture(autouse=True)
def _forget_ids() -> Iterator[None]:
    _forget()
    yield
    _forget()


def _forget() -> None:
    record.ids.clear()
    plain.forget()


def _tables() -> dict[str, set[tuple[Any, ...]]]:
    """All columns of all tables, with names in place of the ids that each writer gives itself."""
    values = {row.pk: (row.dimension, row.text) for row in Value.objects.all()}
    tags = {
        row.pk: tuple(sorted(values[tag] for tag in tag_ids(row.tags)))
        for row in Delivery.objects.all()
    }
    delivery = _columns(Delivery, "location__ref", "campaign__text", "provider__text")
    return {
        "locations": set(Location.objects.values_list("ref", "company_ref")),
        "values": set(values.values()),
        "events": {
            (*row, bytes(event.key), payload_of(event))
            for row, event in zip(
                Event.objects.order_by("id").values_list(*_columns(Event, "location__ref")),
                Event.objects.order_by("id"),
                strict=True,
            )
        },
        "deliveries": {
            (*row[1:], tags[row[0]]) for row in Delivery.objects.values_list("id", *delivery)
        },
        "hours": set(LocationHour.objects.values_list("location__ref", "hour", *MEASURES)),
        "counts": set(
            HourlyCount.objects.values_list(
                "location__ref", "dimension", "hour", "value__text", *MEASURES
            )
        ),
        "minutes": set(
            MinuteCount.objects.values_list("location__ref", "minute", "kind", "events")
        ),
    }


def _columns(model: type[models.Model], *more: str) -> list[str]:
    """The columns that mean the same in every database."""
    plain_ones = [
        field.name
        for field in model._meta.concrete_fields
        if not (field.is_relation or isinstance(field, models.BinaryField))
    ]
    return [name for name in plain_ones if name not in ("id", "tags", "payload_codec")] + [*more]
