"""A database of its own with a large history, and how long questions to it take.

python -m bench history [--deliveries N] [--days N] [--engine sqlite|postgresql] [--keep]
python -m bench queries [--sizes N,N,…] [--density N] [--engine sqlite|postgresql] [--keep]
python -m bench queries --of DATABASE_URL

``history`` fills a database and counts it again; ``queries`` fills one of each size, asks it
everything that pages and API ask, and drops it. Each is done by a process of its own. ``--of``
asks one that was kept.
"""

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
from psycopg import sql

from tests.serving import ROOT

if TYPE_CHECKING:
    from bench.history import Ask

RESULTS = Path(__file__).parent / "results"
SIZES = {"postgresql": "100000,1000000,10000000", "sqlite": "100000,1000000"}
DENSITY = 1_000_000  # the smaller of two histories that are equally dense
SERVER = os.environ.get("TEST_DATABASE_URL", "postgres://postgres@127.0.0.1:5432/postgres")


def main(arguments: list[str]) -> int:
    """``history`` and ``queries`` of ``python -m bench``. Returns the exit code."""
    asked = _parse(arguments)
    RESULTS.mkdir(exist_ok=True)
    if asked.of:
        return _of_kept(asked.of)
    if asked.part == "queries" and asked.out is None:
        return _compare(asked)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=RESULTS) as folder:
        return _one(asked, Path(folder))


def _of_kept(url: str) -> int:
    """Ask a history that was kept, as if it were the moment when it ends."""
    with tempfile.TemporaryDirectory(prefix="bench-", dir=RESULTS) as folder:
        _set_up(url, Path(folder))
        from bench import queries
        from ingest.models import Delivery, Event

        newest = Event.objects.latest("id").received_at
        answers = queries.ask_all(int(newest.timestamp() * 1e6), _say)
        _tell([queries.figures(Delivery.objects.count(), answers)], [], url.partition(":")[0])
    return 0


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("part", choices=("history", "queries"))
    parser.add_argument("--engine", choices=("sqlite", "postgresql"), default="postgresql")
    parser.add_argument("--deliveries", type=int, default=1_000_000)
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--locations", type=int, default=1_000)
    parser.add_argument("--sample", type=int, default=24_000, help="webhooks to take lives from")
    parser.add_argument("--sizes", help="of the histories to ask, the largest last")
    parser.add_argument("--density", type=int, default=DENSITY, help="0: no comparison")
    parser.add_argument("--of", metavar="DATABASE_URL", help="ask a history that was kept")
    parser.add_argument("--keep", action="store_true", help="leave the database there")
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    asked.sizes = [int(size) for size in (asked.sizes or SIZES[asked.engine]).split(",")]
    if not 1_000 <= asked.deliveries <= 20_000_000 or not 1 <= asked.days <= 90:
        parser.error("--deliveries is from 1,000 to 20,000,000, --days from 1 to 90")
    return asked


# --- One history ----------------------------------------------------------------------------


def _one(asked: argparse.Namespace, folder: Path) -> int:
    """Fill a database, and ask it if that is wanted."""
    with own_database(asked, folder):
        from bench import history, queries

        ask = history.Ask(
            deliveries=asked.deliveries,
            now=_now(),
            days=asked.days,
            locations=asked.locations,
            domains=min(30_000, max(1_000, asked.deliveries // 10)),
            sample=asked.sample,
        )
        if lacking := _lacking(asked.engine, history.disk_needed(ask), folder):
            sys.stderr.write(f"{lacking}\n")
            return 1
        _fill(ask)
        if asked.part == "queries":
            answers = queries.ask_all(ask.now, _say)
            asked.out.write_text(json.dumps(queries.figures(asked.deliveries, answers)))
            return 0
        return _check(ask)


def _now() -> int:
    return time.time_ns() // 1_000


def _fill(ask: "Ask") -> None:
    from bench import history

    began = time.monotonic()

    def say(step: str) -> None:
        _say(f"{time.monotonic() - began:6.0f} s  {step}")

    history.fill(ask, say)
    say("filled")


def _check(ask: "Ask") -> int:
    """Whether counting the deliveries again finds the same: a small history only."""
    from bench.queries import disk
    from ingest import counting

    for name, size in disk_rows({"disk": disk().as_json()}):
        _say(f"{size:>8} bytes an event: {name}")
    if ask.deliveries > 200_000:
        return 0
    wrong = sum(1 for _ in counting.differences(now=ask.now))
    _say(f"counters that differ from their deliveries: {wrong}")
    return int(wrong > 0)


def _lacking(engine: str, needed: int, folder: Path) -> str:
    """Why there is no room for it, or nothing; says what it takes."""
    place = folder if engine == "sqlite" else _data_directory()
    if place is None:
        _say(f"needs about {needed / 1e9:,.1f} GB where PostgreSQL keeps its data")
        return ""
    free = shutil.disk_usage(place).free
    _say(f"needs about {needed / 1e9:,.1f} GB of disk; {free / 1e9:,.1f} GB are free")
    return "" if free > needed * 1.1 else "that is too little: ask for fewer --deliveries"


def _data_directory() -> Path | None:
    """Where PostgreSQL keeps its data, if that is on this machine and we may know."""
    with contextlib.suppress(psycopg.Error), psycopg.connect(_url("postgres")) as server:
        row = server.execute("SHOW data_directory").fetchone()
        place = Path(row[0]) if row else None
        while place and not os.access(place, os.R_OK) and place != place.parent:
            place = place.parent
        return place
    return None


# --- Its database ------------------------------------------------------------------------------


@contextlib.contextmanager
def own_database(asked: argparse.Namespace, folder: Path) -> Iterator[None]:
    """Django on a migrated database that nobody else uses; dropped at the end unless kept."""
    name = f"bench_{asked.part}_{asked.deliveries}_{os.getpid()}"
    if asked.engine == "postgresql":
        _administer("CREATE DATABASE {}", name)
    try:
        _set_up(_url(name, scheme="postgres") if asked.engine == "postgresql" else "", folder)
        yield
    finally:
        _leave(asked, folder, name)


def _set_up(url: str, folder: Path) -> None:
    os.environ |= {
        "DJANGO_SETTINGS_MODULE": "config.settings", "SECRET_KEY": "bench" * 10,
        "DATA_DIR": str(folder), "DATABASE_URL": url,
    }  # fmt: skip
    import django
    from django.core.management import call_command

    django.setup()
    call_command("migrate", verbosity=0)


def _leave(asked: argparse.Namespace, folder: Path, name: str) -> None:
    from django.db import connection

    connection.close()
    if asked.engine == "postgresql":
        if asked.keep:
            _say(f"kept: DATABASE_URL={_url(name, scheme='postgres')}")
        else:
            _administer("DROP DATABASE IF EXISTS {} WITH (FORCE)", name)
    elif asked.keep:
        kept = RESULTS / name
        shutil.copytree(folder, kept)
        _say(f"kept: DATA_DIR={os.path.relpath(kept)}")


def _administer(statement: str, name: str) -> None:
    with psycopg.connect(_url("postgres"), autocommit=True) as server:
        server.execute(sql.SQL(statement).format(sql.Identifier(name)))


def _url(database: str, *, scheme: str = "postgresql") -> str:
    return urlunsplit(urlsplit(SERVER)._replace(scheme=scheme, path=f"/{database}"))


# --- Histories of several sizes -----------------------------------------------------------------


def _compare(asked: argparse.Namespace) -> int:
    """Ask a history of each size; one of a tenth of the time tells what age alone costs."""
    found: list[dict[str, Any]] = []
    histories = [(size, asked.days) for size in asked.sizes]
    shorter = asked.days * asked.density // asked.sizes[-1]
    dense = [(asked.density, shorter)] if 1 <= shorter < asked.days else []
    for deliveries, days in histories + dense:
        figures = _in_a_process(asked, deliveries, days)
        if figures is None:
            return 1
        found.append(figures)
    _tell(found[: len(histories)], found[len(histories) :], asked.engine)
    return 0


def _tell(sized: list[dict[str, Any]], denser: list[dict[str, Any]], engine: str) -> None:
    """Print what was found, and write it down."""
    from bench.__main__ import _table

    _say("", f"Questions to {engine}, 95th percentile")
    _table(*table(sized))
    largest = sized[-1]
    _say("", f"Bytes on disk an event, of {largest['disk']['events']:,} events")
    _table(("", "bytes"), disk_rows(largest))
    if len(sized) > 1:
        sizes = " to ".join(f"{figures['deliveries']:,}" for figures in sized[-2:])
        _say_growth(f"From {sizes} deliveries", growth(*sized[-2:]))
    for figures in denser:
        times = largest["deliveries"] / figures["deliveries"]
        _say_growth(f"{times:g} times the history at the same density", growth(figures, largest))
    path = RESULTS / f"{time.strftime('%Y%m%d-%H%M%S')}-queries.json"
    path.write_text(json.dumps({"engine": engine, "sizes": sized, "denser": denser}, indent=1))
    _say("", f"written to {os.path.relpath(path)}")


def _in_a_process(asked: argparse.Namespace, deliveries: int, days: int) -> dict[str, Any] | None:
    """The figures of one history, by a process that nothing is left of but these."""
    _say("", f"{deliveries:,} deliveries over {days} days")
    with tempfile.NamedTemporaryFile(suffix=".json") as out:
        command = [
            sys.executable, "-m", "bench", "queries", "--engine", asked.engine,
            "--deliveries", str(deliveries), "--days", str(days), "--sample", str(asked.sample),
            "--locations", str(asked.locations), "--out", out.name,
            *(["--keep"] if asked.keep else []),
        ]  # fmt: skip
        if subprocess.run(command, cwd=ROOT, check=False).returncode:
            return None
        figures: dict[str, Any] = json.loads(Path(out.name).read_text())
        return figures


def _say_growth(what: str, grown: Sequence[tuple[str, float]]) -> None:
    if not grown:
        return
    ratios = sorted(ratio for _, ratio in grown)
    slowest = ", ".join(f"{name} {ratio:.1f}" for name, ratio in sorted(grown, key=_last)[-5:])
    _say("", f"{what}: {ratios[len(ratios) // 2]:.2f} times as long in the median; most: {slowest}")


def _last(pair: tuple[str, float]) -> float:
    return pair[1]


def _say(*lines: str) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()


# --- What was found ------------------------------------------------------------------------------

type Figures = dict[str, Any]
"""Of one size: ``deliveries``, ``disk`` and ``answers``, each as its ``as_json`` says."""


def in_ms(value: float | None) -> str:
    """Milliseconds to read; ``None`` is an answer that was stopped."""
    return "stopped" if value is None else f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def table(sizes: Sequence[Figures]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Head and rows: each question's 95th percentile by size, its target, and if it was met.

    The last size is the one that targets are for; how it was answered first is of it, too.
    """
    head = ("p95 ms, warm", *(f"{size['deliveries']:,}" for size in sizes), "first", "target", "")
    by_name = [{(a["group"], a["name"]): a for a in size["answers"]} for size in sizes]
    rows = []
    for key, last in by_name[-1].items():
        cells = [in_ms(by[key]["p95_ms"]) if key in by else "" for by in by_name]
        target = f"{last['target_ms']:,}" if last["target_ms"] else ""
        name = ": ".join(key)
        rows.append((name, *cells, in_ms(last["first_ms"]), target, last["verdict"]))
    return head, rows


def growth(smaller: Figures, larger: Figures, *, least: float = 5.0) -> list[tuple[str, float]]:
    """How many times longer questions take on the larger history, those of some length at least."""
    before = {(a["group"], a["name"]): a["p95_ms"] for a in smaller["answers"]}
    found = []
    for answer in larger["answers"]:
        was, now = before.get((answer["group"], answer["name"])), answer["p95_ms"]
        if was and now and now >= least:
            found.append((f"{answer['group']}: {answer['name']}", now / max(was, least / 2)))
    return found


def disk_rows(size: Figures) -> list[tuple[str, ...]]:
    """Bytes an event, by table, the largest first."""
    found = size["disk"]
    events = found["events"]
    rows: list[tuple[str, ...]] = [
        (name, f"{bytes_ / events:,.0f}") for name, bytes_ in found["tables"].items()
    ]
    payload = found["bytes_a_payload"]
    return [
        *rows[:8],
        ("all, without payloads", f"{found['bytes_an_event']:,.0f}"),
        (f"all, with every payload (estimated: {payload:,.0f} bytes each)",
         f"{found['bytes_an_event'] + payload:,.0f}"),
    ]  # fmt: skip
