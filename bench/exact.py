"""Exactness: many events in no order, some of them twice, through the real endpoint.

Not a matter of time: every event must be stored once, every repetition recognised, and every
counter equal to counting the deliveries.
"""

import random
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.ingest import Wrong, count_events, filled, run_load
from bench.load import read_requests
from bench.requests import Requests
from bench.servers import running

EVENTS = 30_000
TWICE = 0.2  # of them come a second time
SECONDS = 300  # at most
WORKERS = {"sqlite": 1, "postgresql": 2}


def shuffled(requests: Requests, path: Path, *, seed: int = 1) -> Requests:
    """A file of the same requests in no order, a part of them twice."""
    order = random.Random(seed)
    distinct = list(read_requests(requests.path, 0, requests.count))
    sent = distinct + order.sample(distinct, int(len(distinct) * TWICE))
    order.shuffle(sent)
    with path.open("wb") as file:
        for request in sent:
            file.write(len(request).to_bytes(4) + request)
    return replace(requests, path=path, count=len(sent))


def run(engines: list[str], requests: Requests, folder: Path) -> dict[str, Any]:
    """Send them to a server of each engine. Raises ``Wrong`` where a number is not right."""
    results = {}
    sent = shuffled(requests, folder / "shuffled.bin")
    for engine in engines:
        with (
            filled(engine, requests, folder / "exact", events=0) as empty,
            running(
                "uvicorn", empty, folder / f"exact_{engine}", workers=WORKERS[engine]
            ) as server,
        ):
            answers = Counter[str]()
            figures = run_load(server, sent, seconds=SECONDS)
            for answer, n in figures["answers"].items():
                answers[answer.partition('"status":"')[2].rstrip('"}')] += n
            expected = {"stored": requests.count, "duplicate": sent.count - requests.count}
            if answers != expected or count_events(server) != requests.count:
                raise Wrong(f"{engine}: {dict(answers)}, {count_events(server)} rows")
            server.manage("recount", "--check")
            results[engine] = expected | {"seconds": figures["seconds"]}
    return results
