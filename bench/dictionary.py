"""Makes a dictionary, and says what it saves: ``bench.dictionary [payloads|facts|details] [file]``.

A dictionary that has been used never changes (what it packed could not be read again): a better
one gets the next number, here and where it is used.
"""

import sys
import time
from itertools import islice
from pathlib import Path

import orjson
import zstandard

from ingest.demo import lives
from ingest.details import kept_of, rest_of
from ingest.fold import Facts, absorb, facts_json
from ingest.normalize import NormalizedEvent, normalize

SIZES = {"payloads": 24 * 1024, "facts": 12 * 1024, "details": 16 * 1024}
NOW = 1_795_000_000_000_000


def bodies(seed: int, count: int) -> list[bytes]:
    """Webhooks as demo traffic sends them."""
    sent = lives(seed, now=NOW + seed, rate=50, locations=60)
    return [orjson.dumps(body) for _, body in islice(sent, count)]


def facts(seed: int, count: int) -> list[bytes]:
    """Deliveries' facts, after their last event."""
    found: dict[tuple[str, str], Facts] = {}
    for body in bodies(seed, 4 * count):
        event = normalize(orjson.loads(body), received_at=NOW)
        if isinstance(event, NormalizedEvent) and event.message_id:
            absorb(found.setdefault((event.message_id, event.recipient), Facts()), event)
    return [facts_json(each) for each in list(found.values())[:count]]


def details(seed: int, count: int) -> list[bytes]:
    """What is kept of events and is no column; of many that is nothing."""
    found = (normalize(orjson.loads(body), received_at=NOW) for body in bodies(seed, 3 * count))
    events = [event for event in found if isinstance(event, NormalizedEvent)]
    kept = [rest_of(kept_of(event)) for event in events]
    return [each for each in kept if each != b"{}"][:count]


def main() -> None:
    """Train on some traffic, measure on other, write where the last argument says."""
    what = next(iter(sys.argv[1:]), "payloads")
    make = {"payloads": bodies, "facts": facts, "details": details}[what]
    trained = zstandard.train_dictionary(SIZES[what], [*make(1, 6_000)], level=3)
    tried = make(2, 2_000)
    raw = sum(map(len, tried)) / len(tried)
    print(f"raw: {raw:.0f} bytes each")
    compressors = {
        "zstd": zstandard.ZstdCompressor(level=3),
        "zstd with dictionary": zstandard.ZstdCompressor(level=3, dict_data=trained),
    }
    for name, compressor in compressors.items():
        began = time.perf_counter()
        size = sum(len(compressor.compress(each)) for each in tried) / len(tried)
        spent = (time.perf_counter() - began) / len(tried) * 1e6
        print(f"{name}: {size:.0f} bytes, {spent:.1f} µs")
    if sys.argv[2:]:
        Path(sys.argv[2]).write_bytes(trained.as_bytes())


if __name__ == "__main__":
    main()
