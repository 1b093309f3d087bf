"""The load: a process that posts prepared requests to a server on this machine.

Every connection sends its next request when its answer is complete; with a rate, requests start
on schedule as long as a connection is free. Raw protocols on uvloop, some 20 µs a request, so
that the load leaves the machine to what it measures. It can reach no other machine.
"""

import argparse
import asyncio
import itertools
import json
import math
import re
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvloop

LONGEST = 600.0  # seconds
LAST_ANSWERS = 30.0  # seconds that requests under way at the end may take
STAGGER = 0.004  # seconds between connections: each of several workers accepts some of them
TICK = 0.002

_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")


def read_requests(path: Path, skip: int, most: int) -> Iterator[bytes]:
    """At most ``most`` requests of a file (``bench.requests``), after the first ``skip``."""
    data = path.read_bytes()
    at = number = 0
    while at < len(data) and number < skip + most:
        end = at + 4 + int.from_bytes(data[at : at + 4])
        if number >= skip:
            yield data[at + 4 : end]
        at, number = end, number + 1


class Load:
    """What all connections share: the requests, the schedule and the tally."""

    def __init__(self, requests: Iterator[bytes], *, first: int, rate: float) -> None:
        self.requests, self.rate = requests, rate
        self.numbers = itertools.count(first)
        self.sending, self.measuring = True, False
        self.answers: Counter[bytes] = Counter()  # all of them
        self.in_window = self.bad_in_window = 0
        self.latencies: list[float] = []  # seconds, of those in the window
        self.answered_at: list[tuple[int, int]] = []  # request number, time.monotonic_ns()
        self.lost = self.under_way = 0
        self.free: deque[Connection] = deque()
        self.began = 0.0

    def answered(self, connection: "Connection", answer: bytes) -> None:
        """Count one complete answer (its code and body), and send the next request."""
        now = time.monotonic()
        self.under_way -= 1
        self.answers[answer] += 1
        if self.rate and answer.startswith(b"200"):
            self.answered_at.append((connection.number, time.monotonic_ns()))
        if self.measuring:
            self.in_window += 1
            self.bad_in_window += not answer.startswith(b"200")
            self.latencies.append(now - connection.sent_at)
        self.ready(connection)

    def ready(self, connection: "Connection") -> None:
        """A connection is free: it sends at once, or waits for the schedule."""
        if self.rate:
            self.free.append(connection)
        elif self.sending:
            self.send(connection)

    def send(self, connection: "Connection") -> None:
        """Send the next request, if there is one."""
        request = next(self.requests, None)
        if request is None:
            self.sending = False
            return
        connection.number = next(self.numbers)
        self.under_way += 1
        connection.send(request)

    async def keep_rate(self) -> None:
        """Start as many requests as the clock asks for and the connections allow."""
        started, self.began = 0, time.monotonic()
        while self.sending:
            due = int((time.monotonic() - self.began) * self.rate)
            while started < due and self.free and self.sending:
                self.send(self.free.popleft())
                started += 1
            await asyncio.sleep(TICK)


class Connection(asyncio.Protocol):
    """One kept-alive connection, with at most one request under way."""

    def __init__(self, load: Load) -> None:
        self.load, self.rest, self.number, self.sent_at, self.busy = load, b"", 0, 0.0, False

    def connection_made(self, transport: Any) -> None:
        """Connected: ready for work."""
        self.transport = transport
        self.load.ready(self)

    def send(self, request: bytes) -> None:
        """Send a request; its answer goes to the load."""
        self.busy, self.sent_at = True, time.monotonic()
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        """Wait until the answer is complete."""
        data = self.rest + data if self.rest else data
        head = data.find(b"\r\n\r\n")
        length = _LENGTH.search(data, 0, head) if head > 0 else None
        end = head + 4 + int(length[1]) if length else math.inf
        if len(data) < end:
            self.rest = data
            return
        self.rest, self.busy = b"", False
        self.load.answered(self, data[9:13] + data[head + 4 :])

    def connection_lost(self, error: Exception | None) -> None:
        """Connect again, as a real sender would; a request that was under way is lost."""
        load = self.load
        if self.busy:
            load.lost += 1
            load.under_way -= 1
        if load.sending:
            if self in load.free:
                load.free.remove(self)
            port = self.transport.get_extra_info("peername")[1]
            self.task = asyncio.get_running_loop().create_task(connect(load, port))


async def connect(load: Load, port: int) -> None:
    """Open one connection to this machine."""
    await asyncio.get_running_loop().create_connection(lambda: Connection(load), "127.0.0.1", port)


async def run(
    load: Load, port: int, connections: int, warmup: float, seconds: float
) -> dict[str, Any]:
    """Connect, warm up, measure, wait for the last answers. Returns the figures."""
    began_cpu = time.process_time()
    for _ in range(connections):
        await connect(load, port)
        await asyncio.sleep(STAGGER)
    pacing = asyncio.create_task(load.keep_rate()) if load.rate else None
    await asyncio.sleep(warmup)
    load.measuring, began = True, time.monotonic()
    while load.sending and time.monotonic() - began < seconds:
        await asyncio.sleep(min(0.01, seconds))
    took, load.measuring, load.sending = time.monotonic() - began, False, False
    until = time.monotonic() + LAST_ANSWERS
    while load.under_way and time.monotonic() < until:
        await asyncio.sleep(0.01)
    if pacing:
        await pacing
    return figures(load, took, began_cpu)


def figures(load: Load, took: float, began: float) -> dict[str, Any]:
    """The tally as JSON can hold it; ``began`` is the processor time at the start, in seconds."""
    times = sorted(load.latencies)
    return {
        "seconds": took,
        "per_second": (load.in_window - load.bad_in_window) / took,
        "not_200": load.bad_in_window / load.in_window if load.in_window else 0.0,
        "answers": {answer.decode(): n for answer, n in load.answers.items()},
        "lost": load.lost,
        "unanswered": load.under_way,
        "p50_ms": quantile(times, 0.50) * 1e3,
        "p95_ms": quantile(times, 0.95) * 1e3,
        "max_ms": quantile(times, 1.0) * 1e3,
        "load_us_per_request": (time.process_time() - began) / max(load.answers.total(), 1) * 1e6,
        "ran_out": next(load.requests, None) is None,
    }


def quantile(times: list[float], share: float) -> float:
    """The value below which that share of the sorted times lies; 0 where there is none."""
    return times[min(int(len(times) * share), len(times) - 1)] if times else 0.0


def main() -> None:
    """Run as the arguments say, and print the figures as one line of JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("requests", type=Path)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--skip", type=int, default=0)
    parser.add_argument("--most", type=int, default=sys.maxsize)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--warmup", type=float, default=2.0)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rate", type=float, default=0.0, help="0: as fast as it goes")
    parser.add_argument("--answered", type=Path, help="where to write when each 200 came")
    asked = parser.parse_args()
    seconds, warmup = min(asked.seconds, LONGEST), min(asked.warmup, LONGEST)
    requests = read_requests(asked.requests, asked.skip, asked.most)
    load = Load(requests, first=asked.skip, rate=asked.rate)
    result = uvloop.run(run(load, asked.port, asked.connections, warmup, seconds))
    if asked.answered:
        asked.answered.write_text(json.dumps(load.answered_at))
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
