"""From webhook to pixel: how long after a webhook's 200 its row is in a fragment of an open page.

Every socket is a page of its own: another filter, so that none shares its rendering with another.
"""

import contextlib
import json
import os
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.ingest import check, cost, count_events, run_load
from bench.requests import Requests
from bench.servers import MeasuredServer, Prelude, running
from bench.sockets import await_ready, heard, on_each, quantile, watcher

PATIENCE = 3.0  # seconds that the last rows may take
WIDE = ("", "range=1h", "range=7d", "range=30d", "range=1h&view=status")


@dataclass(frozen=True)
class Ask:
    """How many pages are open, and how many webhooks a second come for how many seconds."""

    pages: int = 100
    rate: float = 300.0
    seconds: float = 20.0


def queries(server: MeasuredServer, count: int) -> list[str]:
    """Query strings of different pages: some of all mail, the others of one location each."""
    refs = [row[0] for row in server.query("SELECT ref FROM ingest_location ORDER BY id")]
    narrow = [f"location={ref}" for ref in refs]
    narrow += [f"view=location&location={ref}" for ref in refs]
    found = [*WIDE, *narrow][:count]
    if len(found) < count:
        raise RuntimeError(f"{len(refs)} locations are too few for {count} different pages")
    return found


def measure(
    kind: str, template: Prelude, requests: Requests, folder: Path, ask: Ask
) -> dict[str, Any]:
    """One server, with its pages open. Raises ``Wrong`` where rows are not what was answered."""
    with running(kind, template, folder) as server, contextlib.ExitStack() as stack:
        there = count_events(server)
        asked = folder / "pages.json"
        asked.write_text(json.dumps([f"{q}&after=0" for q in queries(server, ask.pages)]))
        outs = folder / "events.json", folder / "fragments.json"
        env = os.environ | {"BENCH_TOKEN": server.token()}
        events = stack.enter_context(watcher(server.port, outs[0], 1, env))
        pages = stack.enter_context(watcher(server.port, outs[1], 0, env, "--pages", str(asked)))
        await_ready(events)
        await_ready(pages)
        before, began = server.used(), time.monotonic()
        answered = folder / "answered.json"
        figures = run_load(
            server, requests, "--skip", str(there), "--rate", str(ask.rate),
            "--answered", str(answered), seconds=ask.seconds,
        )  # fmt: skip
        took, used = time.monotonic() - began, cost(before, server.used())
        [[last]] = server.query("SELECT max(id) FROM ingest_event")
        rows, fragments = heard(events, outs[0], last), heard(pages, outs[1], last, PATIENCE)
        check(server, figures, before=there)
        ids = requests.event_ids()
        at = {ids[number]: then for number, then in json.loads(answered.read_text())}
        answers = {c: at[id] for row in rows["frames"] for c, id in row if id in at}
        return {
            "per_second": figures["per_second"],
            "pages": ask.pages,
            "closed": sum(bool(socket["closed"]) for socket in fragments["sockets"]),
            "server_cpu": used["cpu_seconds"] / took,
            "memory_mb": used["memory_mb"],
            "load_average": os.getloadavg()[0],
            "webhook_p95_ms": figures["p95_ms"],
            **_arrivals(fragments, answers, took),
        }


def _arrivals(found: dict[str, Any], answers: dict[int, int], took: float) -> dict[str, Any]:
    """Milliseconds from each webhook's 200 to its row, and how often pages had new regions."""
    delays: Counter[int] = Counter()
    frames = patches = 0
    for socket in found["sockets"]:
        for number, at in socket["received"][1:]:  # the first has what came before
            frames += 1
            patches += found["patched"][number]
            told = [answers[cursor] for cursor, _ in found["frames"][number] if cursor in answers]
            delays.update([max(0, at - then) // 1_000_000 for then in told])
    sockets = len(found["sockets"])
    return {
        "rows_received": delays.total(),
        "frames_per_second": frames / sockets / took,
        "regions_every_seconds": took * sockets / max(1, patches),
        "p50_ms": quantile(delays, 0.50),
        "p95_ms": quantile(delays, 0.95),
        "max_ms": max(delays, default=0),
    }


def run(
    templates: dict[str, Prelude], requests: Requests, folder: Path, ask: Ask
) -> dict[str, dict[str, Any]]:
    """Each server on each engine, by name."""
    return on_each(
        templates,
        lambda kind, template, own: measure(kind, template, requests, own, ask),
        folder / "pixels",
    )
