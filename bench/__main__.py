"""``make bench``: what Sendwatch takes and how fast it shows it, on this machine, side by side.

python -m bench [ingest|sockets|pixels|verify|normalize|all|exact]
                [--seconds N] [--rounds N] [--engines sqlite,postgresql]
python -m bench [history|queries] …: ``bench.large`` says what they take
python -m bench admin --of DATABASE_URL: the admin's lists on a history that was kept
"""

import argparse
import contextlib
import json
import os
import platform
import signal
import sqlite3
import sys
import tempfile
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench import admin, exact, ingest, large, normalize, pixels, sockets, verify
from bench.requests import Requests, make_requests
from tests.__main__ import _probe_postgresql, _probe_redis

RESULTS = Path(__file__).parent / "results"
PARTS = ("ingest", "sockets", "pixels", "verify", "normalize")
ENGINES = ("sqlite", "postgresql")
FASTEST = 4_500  # webhooks a second that the prepared requests suffice for
PACKAGES = ("django", "daphne", "uvicorn", "gunicorn", "psycopg", "pynacl", "uvloop")


def main(arguments: list[str]) -> int:
    """Measure what was asked for; prints tables, and writes the figures as JSON."""
    # Ended from outside, it must drop its databases as it does on Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    RESULTS.mkdir(exist_ok=True)
    try:
        if arguments[:1] == ["admin"]:
            return admin.main(arguments)
        if arguments[:1] in (["history"], ["queries"]):
            return large.main(arguments)
        _measure(_parse(arguments))
    except KeyboardInterrupt:
        sys.stderr.write("stopped\n")
        return 130
    except ingest.Wrong as wrong:
        sys.stderr.write(f"wrong: {wrong}\n")
        return 1
    return 0


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("part", nargs="?", default="all", choices=(*PARTS, "all", "exact"))
    parser.add_argument("--seconds", type=float, help="measured a round (5; sockets 15, pixels 20)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--engines", default=",".join(ENGINES))
    asked = parser.parse_args(arguments)
    asked.engines = asked.engines.split(",")
    if not asked.engines or set(asked.engines) - set(ENGINES):
        parser.error(f"--engines takes {' and '.join(ENGINES)}, separated by a comma")
    if asked.rounds < 1 or (asked.seconds is not None and not 0 < asked.seconds <= 600):
        parser.error("--rounds is at least 1, --seconds at most 600")
    return asked


def _measure(asked: argparse.Namespace) -> None:
    parts = PARTS if asked.part == "all" else (asked.part,)
    machine = _machine()
    _say(*(f"{name}: {text}" for name, text in machine.items()), "")
    results: dict[str, Any] = {"at": datetime.now(UTC).isoformat(), "machine": machine}
    if "exact" in parts:
        with tempfile.TemporaryDirectory(prefix="bench-", dir=RESULTS) as folder:
            results["exact"] = _count_exactly(asked.engines, Path(folder))
    if {"ingest", "sockets", "pixels"} & set(parts):
        # Beside the results: the temporary folder may be memory, which would flatter SQLite.
        with tempfile.TemporaryDirectory(prefix="bench-", dir=RESULTS) as folder:
            results |= _measure_servers(asked, parts, Path(folder))
    if "verify" in parts:
        _say("What one signature costs")
        verify.main()
        _say("")
    if "normalize" in parts:
        _say("What reading one webhook costs")
        normalize.main()
        _say("")
    if len(results) > 2:
        path = RESULTS / f"{time.strftime('%Y%m%d-%H%M%S')}.json"
        path.write_text(json.dumps(results, indent=1))
        _say(f"written to {os.path.relpath(path)}")


def _measure_servers(
    asked: argparse.Namespace, parts: tuple[str, ...], folder: Path
) -> dict[str, Any]:
    engines = _reachable(asked.engines)
    seconds = asked.seconds or 5.0
    ask = sockets.Ask(seconds=asked.seconds or 15.0)
    longest = max((ingest.WARMUP + seconds) * FASTEST, ask.rate * ask.seconds)
    if parts == ("pixels",):
        longest = pixels.Ask.rate * (asked.seconds or pixels.Ask.seconds) * 2
    requests = make_requests(folder / "requests.bin", ingest.PRELUDE + int(longest))
    _say(_load_line(requests), "")
    results: dict[str, Any] = {}
    with contextlib.ExitStack() as stack:
        templates = {
            engine: stack.enter_context(ingest.filled(engine, requests, folder))
            for engine in engines
        }
        if "ingest" in parts:
            results["ingest"] = ingest.run(
                templates, requests, folder, seconds=seconds, rounds=asked.rounds
            )
            _say_ingest(results["ingest"], asked.rounds, seconds)
        if "sockets" in parts:
            results["sockets"] = sockets.run(templates, requests, folder, ask)
            _say_sockets(results["sockets"], ask)
        if "pixels" in parts:
            pages = pixels.Ask(seconds=asked.seconds or 20.0)
            results["pixels"] = pixels.run(templates, requests, folder, pages)
            _say_pixels(results["pixels"], pages)
    return results


def _count_exactly(engines: list[str], folder: Path) -> dict[str, Any]:
    requests = make_requests(folder / "requests.bin", exact.EVENTS)
    results = exact.run(_reachable(engines), requests, folder)
    for engine, found in results.items():
        _say(
            f"{engine}: {found['stored']:,} events in no order, {found['duplicate']:,} of them"
            " twice: each is stored once, and every counter equals its deliveries"
        )
    return results


def _reachable(engines: list[str]) -> list[str]:
    """The engines that answer; the others are named."""
    lacking = "postgresql" in engines and (_probe_postgresql() or _probe_redis())
    if lacking:
        _say(f"left out: PostgreSQL with Redis, because {lacking}", "")
    return [engine for engine in engines if engine == "sqlite" or not lacking]


def _machine() -> dict[str, str]:
    return {
        "machine": f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        **{name: version(name) for name in PACKAGES},
        "load before": " ".join(f"{load:.1f}" for load in os.getloadavg()),
    }


def _load_line(requests: Requests) -> str:
    return (
        f"load: {ingest.CONNECTIONS} connections, Ed25519 signatures, bodies of "
        f"{requests.body_bytes:,.0f} bytes, {requests.events_a_delivery:.1f} events a delivery, "
        f"{ingest.PRELUDE:,} events in the database at the start"
    )


def _say_ingest(results: dict[str, dict[str, Any]], rounds: int, seconds: float) -> None:
    _say(f"Webhooks a second, median of {rounds} rounds of {seconds:g} s")
    head = ("", "a second", "× plain", "p50 ms", "p95 ms", "not 200", "memory MB", "processes")
    _table(
        head,
        [
            (
                name,
                f"{row['per_second']:,.0f}",
                f"{row['times_plain']:.1f}",
                f"{row['p50_ms']:,.0f}",
                f"{row['p95_ms']:,.0f}",
                f"{row['not_200']:.1%}",
                f"{row['memory_mb']:,.0f}",
                ":".join(f"{share * 100:.0f}" for share in row["rounds"][-1]["cpu_shares"]),
            )
            for name, row in results.items()
        ],
    )
    _say("Every event count equals the answers, and every counter its deliveries.", "")


def _say_sockets(results: dict[str, dict[str, Any]], ask: sockets.Ask) -> None:
    _say(f"From a webhook's 200 to its row on {ask.sockets} sockets, {ask.seconds:g} s")
    head = ("", "webhooks/s", "p50 ms", "p95 ms", "max ms", "once, in order", "CPU", "memory MB")
    _table(
        head,
        [
            (
                name,
                f"{row['per_second']:,.0f}",
                f"{row['p50_ms']:,}",
                f"{row['p95_ms']:,}",
                f"{row['max_ms']:,}",
                "yes" if row["complete"] else "NO",
                f"{row['server_cpu']:.0%}",
                f"{row['memory_mb']:,.0f}",
            )
            for name, row in results.items()
        ],
    )
    _say("")


def _say_pixels(results: dict[str, dict[str, Any]], ask: pixels.Ask) -> None:
    _say(f"From a webhook's 200 to its row on {ask.pages} different pages, {ask.seconds:g} s")
    head = (
        "", "webhooks/s", "p50 ms", "p95 ms", "max ms", "frames/s", "regions every", "closed",
        "CPU", "load",
    )  # fmt: skip
    _table(
        head,
        [
            (
                name,
                f"{row['per_second']:,.0f}",
                f"{row['p50_ms']:,}",
                f"{row['p95_ms']:,}",
                f"{row['max_ms']:,}",
                f"{row['frames_per_second']:.1f}",
                f"{row['regions_every_seconds']:.1f} s",
                str(row["closed"]),
                f"{row['server_cpu']:.0%}",
                f"{row['load_average']:.1f}",
            )
            for name, row in results.items()
        ],
    )
    _say("")


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    """A table in columns: the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for row in (head, *rows):
        name, *cells = (
            f"{cell:{'<' if i == 0 else '>'}{width}}"
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        _say("  ".join((name, *cells)))


def _say(*lines: str) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
