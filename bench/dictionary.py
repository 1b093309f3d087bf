"""Makes a dictionary for the kept payloads, and says what it saves: ``python -m bench.dictionary``.

A dictionary that has been used never changes (its payloads could not be read again): a better one
gets the next number, here and in ``ingest/payloads.py``.
"""

import sys
import time
from itertools import islice
from pathlib import Path
from typing import Any

import orjson
import zstandard

from ingest.demo import lives

SIZE = 24 * 1024
NOW = 1_795_000_000_000_000


def bodies(seed: int, count: int) -> list[Any]:
    """Webhooks as demo traffic sends them."""
    sent = lives(seed, now=NOW + seed, rate=50, locations=60)
    return [orjson.dumps(body) for _, body in islice(sent, count)]


def main() -> None:
    """Train on some traffic, measure on other, write where the first argument says."""
    trained = zstandard.train_dictionary(SIZE, bodies(1, 6_000), level=3)
    tried = bodies(2, 2_000)
    raw = sum(map(len, tried)) / len(tried)
    print(f"raw: {raw:.0f} bytes a webhook")
    compressors = {
        "zstd": zstandard.ZstdCompressor(level=3),
        "zstd with dictionary": zstandard.ZstdCompressor(level=3, dict_data=trained),
    }
    for name, compressor in compressors.items():
        began = time.perf_counter()
        size = sum(len(compressor.compress(body)) for body in tried) / len(tried)
        spent = (time.perf_counter() - began) / len(tried) * 1e6
        print(f"{name}: {size:.0f} bytes, {spent:.1f} µs")
    if sys.argv[1:]:
        Path(sys.argv[1]).write_bytes(trained.as_bytes())


if __name__ == "__main__":
    main()
