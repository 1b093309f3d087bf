"""What reading one webhook costs: ``python -m bench.normalize``."""

import sys
from pathlib import Path

from bench.timing import ROUNDS, measure
from ingest.fold import why_of
from ingest.normalize import NormalizedEvent, decode, normalize

CALLS = 2000
PAYLOADS = Path(__file__).parent.parent / "tests/payloads"
NAMES = (
    "documented_wrapped_delivered",
    "delivered",
    "failed_permanent",
    "failed_temporary",
    "opened",
    "documented_flat_delivered",
)
RECEIVED_AT = 1_796_000_000_000_000


def costs(name: str) -> tuple[float, float, float]:
    """Microseconds to decode, to normalize (key and content included) and to classify."""
    body = (PAYLOADS / f"{name}.json").read_bytes()
    payload = decode(body)
    event = normalize(payload, location_ref="L1", received_at=RECEIVED_AT)
    assert isinstance(event, NormalizedEvent)
    return (
        measure(lambda: decode(body), calls=CALLS),
        measure(
            lambda: normalize(payload, location_ref="L1", received_at=RECEIVED_AT), calls=CALLS
        ),
        measure(lambda: why_of(event), calls=CALLS),
    )


def main() -> None:
    """Print the table."""
    sys.stdout.write(f"µs a call, median of {ROUNDS} rounds of {CALLS} calls\n")
    sys.stdout.write(f"{'payload':<32}{'decode':>10}{'normalize':>11}{'classify':>10}\n")
    for name in NAMES:
        decoding, normalizing, classifying = costs(name)
        sys.stdout.write(f"{name:<32}{decoding:>10.1f}{normalizing:>11.1f}{classifying:>10.1f}\n")


if __name__ == "__main__":
    main()
