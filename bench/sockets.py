"""From commit to socket: how long after a webhook's 200 its row reaches every watcher."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from bench.ingest import NAMES, check, cost, count_events, run_load
from bench.requests import Requests
from bench.servers import MeasuredServer, Prelude, running
from tests.serving import ROOT

KINDS = ("uvicorn", "daphne")
SERVERS = {"uvicorn": "uvicorn", "daphne": "Daphne"}
WATCHERS = 2  # processes
PATIENCE = 10.0  # seconds that the last rows may take


@dataclass(frozen=True)
class Ask:
    """How many sockets watch, and how many webhooks a second come for how many seconds."""

    sockets: int = 200
    rate: float = 500.0
    seconds: float = 15.0


def measure(
    kind: str, template: Prelude, requests: Requests, folder: Path, ask: Ask
) -> dict[str, Any]:
    """One server. Raises ``Wrong`` where rows or counters are not what was answered."""
    with running(kind, template, folder) as server:
        there = count_events(server)
        with watching(server, folder, ask.sockets) as finish:
            before, began = server.used(), time.monotonic()
            answered = folder / "answered.json"
            figures = run_load(
                server, requests, "--skip", str(there), "--rate", str(ask.rate),
                "--answered", str(answered), seconds=ask.seconds,
            )  # fmt: skip
            took, used = time.monotonic() - began, cost(before, server.used())
            cursors = [row[0] for row in server.query("SELECT id FROM ingest_event ORDER BY id")]
            heard = finish(cursors[-1])
        check(server, figures, before=there)
        ids = requests.event_ids()
        at = {ids[number]: at for number, at in json.loads(answered.read_text())}
        return {
            "asked_per_second": ask.rate,
            "per_second": figures["per_second"],
            "sockets": ask.sockets,
            "server_cpu": used["cpu_seconds"] / took,
            "memory_mb": used["memory_mb"],
            "watchers_cpu": sum(part["cpu_seconds"] for part in heard) / took,
            "load_us_per_request": figures["load_us_per_request"],
            **_arrivals(heard, at),
            "complete": all(_complete(part, cursors) for part in heard),
        }


@contextlib.contextmanager
def watching(
    server: MeasuredServer, folder: Path, sockets: int
) -> Iterator[Callable[[int], list[dict[str, Any]]]]:
    """Watchers that have begun; what it gives waits for a last cursor and returns what came."""
    env = os.environ | {"BENCH_TOKEN": server.token()}
    outs = [folder / f"heard_{number}.json" for number in range(min(WATCHERS, sockets))]
    shares = [sockets // len(outs) + (n < sockets % len(outs)) for n in range(len(outs))]
    with contextlib.ExitStack() as stack:
        watchers = [
            stack.enter_context(watcher(server.port, out, share, env))
            for out, share in zip(outs, shares, strict=True)
        ]

        def finish(last: int) -> list[dict[str, Any]]:
            return [heard(each, out, last) for each, out in zip(watchers, outs, strict=True)]

        for each in watchers:
            await_ready(each)
        yield finish


def await_ready(process: subprocess.Popen[str]) -> None:
    """Wait until all its sockets have their first frame."""
    assert process.stdout is not None
    if process.stdout.readline() != "ready\n":
        raise RuntimeError("a process of watchers did not start")


def heard(
    process: subprocess.Popen[str], out: Path, last: int, patience: float = PATIENCE
) -> dict[str, Any]:
    """What came, once all sockets have the last cursor or patience has ended."""
    process.communicate(f"{last} {patience}\n", timeout=patience + 30)
    found: dict[str, Any] = orjson.loads(out.read_bytes())
    return found


@contextlib.contextmanager
def watcher(
    port: int, out: Path, sockets: int, env: dict[str, str], *more: str
) -> Iterator[subprocess.Popen[str]]:
    """A process that watches (``bench.watch``); ended with all its sockets at the end."""
    command = [sys.executable, "-m", "bench.watch", str(out), "--port", str(port)]
    process = subprocess.Popen(
        [*command, "--sockets", str(sockets), *more],
        cwd=ROOT, env=env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        start_new_session=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def _complete(heard: dict[str, Any], cursors: list[int]) -> bool:
    """Whether each socket got every event after its first frame, once each and in order."""
    for socket in heard["sockets"]:
        if socket["closed"] or not socket["received"]:
            return False
        start = heard["cursors"][socket["received"][0][0]]
        got = [row[0] for number, _ in socket["received"] for row in heard["frames"][number]]
        if got != [cursor for cursor in cursors if cursor > start]:
            return False
    return True


def _arrivals(heard: list[dict[str, Any]], answered: dict[str, int]) -> dict[str, Any]:
    """Milliseconds from each webhook's 200 to its row, over all rows and sockets."""
    delays: Counter[int] = Counter()
    for part in heard:
        told = [[answered[id] for _, id in rows if id in answered] for rows in part["frames"]]
        for socket in part["sockets"]:
            for number, at in socket["received"]:
                delays.update([max(0, at - then) // 1_000_000 for then in told[number]])
    return {
        "rows_received": delays.total(),
        "p50_ms": quantile(delays, 0.50),
        "p95_ms": quantile(delays, 0.95),
        "max_ms": max(delays, default=0),
    }


def quantile(delays: Counter[int], share: float) -> int:
    """The delay within which that share of them is."""
    left = delays.total() * share
    for delay, n in sorted(delays.items()):
        left -= n
        if left <= 0:
            return delay
    return 0


def run(
    templates: dict[str, Prelude], requests: Requests, folder: Path, ask: Ask
) -> dict[str, dict[str, Any]]:
    """Each server on each engine, by name."""
    return on_each(
        templates,
        lambda kind, template, own: measure(kind, template, requests, own, ask),
        folder / "sockets",
    )


def on_each(
    templates: dict[str, Prelude],
    measured: Callable[[str, Prelude, Path], dict[str, Any]],
    folder: Path,
) -> dict[str, dict[str, Any]]:
    """What is measured of each server on each engine, by name; files go beside ``folder``."""
    results = {}
    for engine, template in templates.items():
        for kind in KINDS:
            name = f"{NAMES[engine]}, {SERVERS[kind]}"
            own = folder.with_name(f"{folder.name}_{engine}_{kind}")
            results[name] = measured(kind, template, own)
            sys.stderr.write(f"  {name}: 95 % within {results[name]['p95_ms']} ms\n")
    return results
