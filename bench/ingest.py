"""Webhooks a second: ours on uvicorn and on Daphne, and a plain Django view, side by side."""

import contextlib
import json
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.requests import Requests
from bench.servers import MeasuredServer, Prelude, Use, prelude, running
from tests.serving import ROOT

CONNECTIONS = 64
WARMUP = 2.0  # seconds
FAIR = 0.4  # of an equal share of the work: a process with less makes the round be repeated
TRIES = 3
PRELUDE = 6_000  # events: by then new names are rare
NAMES = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}


@dataclass(frozen=True)
class Scenario:
    """A server on a database; ``workers`` are uvicorn's."""

    kind: str
    engine: str
    workers: int = 1

    @property
    def processes(self) -> int:
        """How many processes take webhooks."""
        return 2 if self.kind == "gunicorn" else self.workers

    @property
    def name(self) -> str:
        """As the table shows it."""
        server = {"gunicorn": "plain view, gunicorn 2 × 4", "daphne": "Daphne"}.get(self.kind)
        server = server or ("uvicorn" if self.workers == 1 else f"uvicorn, {self.workers} workers")
        return f"{NAMES[self.engine]}, {server}"


def scenarios(engine: str) -> tuple[Scenario, ...]:
    """What is compared on an engine; the plain view comes last."""
    workers = 2 if engine == "postgresql" else 1
    return (
        Scenario("uvicorn", engine, workers),
        Scenario("daphne", engine),
        Scenario("gunicorn", engine),
    )


class Wrong(Exception):
    """The rows are not what was answered: a figure would be worth nothing."""


@contextlib.contextmanager
def filled(
    engine: str, requests: Requests, folder: Path, *, events: int = PRELUDE
) -> Iterator[Prelude]:
    """A database that the first requests have gone into, for every scenario to begin with.

    So nobody pays for names and counter rows that are all new; a slow server, which gets less
    far into the same requests, would pay more of that.
    """

    def fill(server: MeasuredServer) -> None:
        answers = run_load(server, requests, "--most", str(events), seconds=120)["answers"]
        if sum(answers.values()) != events:
            raise Wrong(f"the prelude of {events} webhooks was answered {answers}")

    with prelude(engine, folder / f"prelude_{engine}", requests.signer, fill) as template:
        yield template


def measure(
    scenario: Scenario,
    template: Prelude,
    requests: Requests,
    folder: Path,
    *,
    seconds: float,
    warmup: float = WARMUP,
) -> dict[str, Any]:
    """One round. Raises ``Wrong`` where rows or counters are not what was answered."""
    with running(scenario.kind, template, folder, workers=scenario.workers) as server:
        there, before = count_events(server), server.used()
        skip = ("--skip", str(there))
        figures = run_load(server, requests, *skip, seconds=seconds, warmup=warmup)
        figures |= cost(before, server.used())
        check(server, figures, before=there)
        return figures


def run_load(
    server: MeasuredServer,
    requests: Requests,
    *options: str,
    seconds: float,
    warmup: float = 0.0,
) -> dict[str, Any]:
    """Let the load generator run to its end; its figures."""
    command = [
        sys.executable, "-m", "bench.load", str(requests.path), "--port", str(server.port),
        "--connections", str(CONNECTIONS), "--seconds", str(seconds), "--warmup", str(warmup),
    ]  # fmt: skip
    done = subprocess.run(
        [*command, *options],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for us; we end it
        timeout=seconds + warmup + 60,
        check=True,
    )
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


def cost(before: list[Use], after: list[Use]) -> dict[str, Any]:
    """Memory of all processes together, and how the work was shared among those that did any."""
    earlier = {use.pid: use.cpu for use in before}
    cpu = [use.cpu - earlier.get(use.pid, 0.0) for use in after]
    return {
        "memory_mb": sum(use.memory for use in after) / 1e6,
        "largest_process_mb": max((use.memory for use in after), default=0) / 1e6,
        "cpu_seconds": sum(cpu),
        "cpu_shares": [c / sum(cpu) for c in cpu if c > 0.02 * sum(cpu)],
    }


def count_events(server: MeasuredServer) -> int:
    """How many events its database holds."""
    return int(server.query("SELECT count(*) FROM ingest_event")[0][0])


def check(server: MeasuredServer, figures: dict[str, Any], *, before: int) -> None:
    """Every webhook answered ``stored`` is one row, and every counter is right."""
    answers = figures["answers"]
    stored = sum(n for answer, n in answers.items() if '"stored"' in answer)
    if any(answer.startswith("200") and '"stored"' not in answer for answer in answers):
        raise Wrong(f"the requests are distinct events, but were answered {answers}")
    rows = count_events(server) - before
    unknown = figures["lost"] + figures["unanswered"]  # may have been committed
    if not stored <= rows <= stored + unknown:
        raise Wrong(f"{stored} were answered stored, {rows} are: {answers}")
    server.manage("recount", "--check")


def is_shared(scenario: Scenario, figures: dict[str, Any]) -> bool:
    """Whether every process got work: the kernel may give one of them all connections."""
    shares = figures["cpu_shares"]
    busy = [share for share in shares if share * scenario.processes >= FAIR]
    return not shares or len(busy) >= scenario.processes


def median(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """The median of each number, over the rounds of a scenario."""
    numbers = [name for name, value in rounds[0].items() if isinstance(value, int | float)]
    middle = {name: statistics.median(figures[name] for figures in rounds) for name in numbers}
    return middle | {"rounds": rounds}


def run(
    templates: dict[str, Prelude],
    requests: Requests,
    folder: Path,
    *,
    seconds: float,
    rounds: int,
) -> dict[str, dict[str, Any]]:
    """All scenarios, interleaved round by round; medians by the scenario's name."""
    results: dict[Scenario, list[dict[str, Any]]] = defaultdict(list)
    for number in range(rounds):
        for place, scenario in enumerate(s for engine in templates for s in scenarios(engine)):
            own, template = folder / f"ingest_{number}_{place}", templates[scenario.engine]
            for _ in range(TRIES):
                figures = measure(scenario, template, requests, own, seconds=seconds)
                if is_shared(scenario, figures):
                    break
            results[scenario].append(figures)
            rate = f"{figures['per_second']:,.0f} a second"
            sys.stderr.write(f"  round {number + 1}: {scenario.name}: {rate}\n")
    return compared({scenario: median(found) for scenario, found in results.items()})


def compared(medians: dict[Scenario, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The figures by the scenario's name, each with how many times the plain view's rate it is."""
    for scenario, figures in medians.items():
        plain = medians[Scenario("gunicorn", scenario.engine)]
        figures["times_plain"] = figures["per_second"] / plain["per_second"]
    return {scenario.name: figures for scenario, figures in medians.items()}
