"""How long it takes to erase a recipient: python -m bench.erasure [--deliveries N] [--others N]
[--engine sqlite|postgresql]

Mail goes through the recorder into a database of its own: so many deliveries to one address, of
2.5 events each with their raw webhooks and a reply that names it, among so many to others. Then
it is erased; every counter is counted again, and no row may hold the name any more.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from bench.large import RESULTS, own_database

NAME = "zebulon.quimby"
ADDRESS = f"{NAME}@example.com"
EVENTS = ("accepted", "failed", "accepted", "delivered", "opened")  # of two deliveries


def main(arguments: list[str]) -> int:
    """Measure, and print the time. Returns 1 if a number or a name is not right."""
    parser = argparse.ArgumentParser(prog="python -m bench.erasure", description=__doc__)
    parser.add_argument("--engine", choices=("sqlite", "postgresql"), default="postgresql")
    parser.add_argument("--deliveries", type=int, default=1_000)
    parser.add_argument("--others", type=int, default=20_000)
    asked = parser.parse_args(arguments, argparse.Namespace(part="erasure", keep=False))
    RESULTS.mkdir(exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="bench-", dir=RESULTS) as folder,
        own_database(asked, Path(folder)),
    ):
        return _measure(asked)


def _measure(asked: argparse.Namespace) -> int:
    from dashboard.erasing import erase_recipient
    from ingest import counting

    now = time.time_ns() // 1_000
    recipients = [ADDRESS] * asked.deliveries
    recipients += [f"somebody{n}@example.com" for n in range(asked.others)]
    _write(_webhooks(recipients, now), now)
    began = time.perf_counter()
    done = erase_recipient(ADDRESS)
    seconds = time.perf_counter() - began
    wrong = sum(1 for _ in counting.differences(now=now))
    left = _naming()
    what = ", ".join(f"{rows:,} {name}" for name, rows in done.items())
    sys.stdout.write(
        f"{asked.engine}: {what} in {seconds:.2f} s among {asked.others:,} other deliveries; "
        f"{wrong} counters differ, {left} rows name the address\n"
    )
    return int(bool(wrong or left))


def _webhooks(recipients: list[str], now: int) -> Iterator[bytes]:
    for number, recipient in enumerate(recipients):
        half = EVENTS[:2] if number % 2 else EVENTS[2:]
        for step, word in enumerate(half):
            payload = {
                "event": word,
                "severity": "permanent",
                "id": f"event-{number}-{step}",
                "timestamp": now / 1e6 - 3_600 + step,
                "message": {"headers": {"message-id": f"m{number}@mg.example.org"}},
                "recipient": recipient,
                "tags": ["promo"],
                "delivery-status": {"code": 550, "message": f"5.1.1 <{recipient}>: no such user"},
                "user-variables": {"note": "x" * 1_000},
            }
            location = f"location-{number % 20}"
            body = {"type": "LCEmailStats", "locationId": location, "webhookPayload": payload}
            yield json.dumps(body).encode()


def _write(bodies: Iterator[bytes], now: int) -> None:
    from ingest.record import item_from_body, write_batch

    while some := list(islice(bodies, 500)):
        write_batch([item_from_body(body, received_at=now) for body in some], now=now)


def _naming() -> int:
    """Rows of deliveries and events, unpacked, that name the address."""
    from ingest import details
    from ingest.models import Delivery, Event
    from ingest.record import payload_of

    def words(event: Any) -> str:
        detail = details.load(event.detail, event.code, event.is_test, "", "", "")
        return f"{detail}{(payload_of(event) or b'').decode(errors='replace')}".lower()

    events = sum(NAME in words(event) for event in Event.objects.iterator(2_000))
    return events + Delivery.objects.filter(recipient__contains=NAME).count()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
