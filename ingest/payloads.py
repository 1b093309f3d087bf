"""Raw webhooks as they are kept: compressed, and with the number of how.

Bodies are bytes, whatever they hold, never json or text: what came is what is shown and replayed.
"""

import threading
from functools import cache
from pathlib import Path

import zstandard

RAW, DICTIONARY_1 = 0, 1
_SMALL = 200  # bytes below which compressing gains nothing
_threads = threading.local()


@cache
def _dictionary() -> zstandard.ZstdCompressionDict:
    """Trained on demo traffic (``bench/dictionary.py``). It never changes; a better one is next."""
    return zstandard.ZstdCompressionDict(Path(__file__).with_name("payloads_1.dict").read_bytes())


def pack(body: bytes) -> tuple[int, bytes]:
    """The codec's number and the stored bytes."""
    if len(body) < _SMALL:
        return RAW, body
    if not hasattr(_threads, "compressor"):  # one a thread: a compressor is no shared thing
        _threads.compressor = zstandard.ZstdCompressor(level=3, dict_data=_dictionary())
    return DICTIONARY_1, _threads.compressor.compress(body)


def unpack(codec: int, stored: bytes) -> bytes:
    """The body that was packed. Raises ``KeyError`` for a codec that this version does not know."""
    if codec not in (RAW, DICTIONARY_1):
        raise KeyError(codec)
    if codec == RAW:
        return bytes(stored)
    return zstandard.ZstdDecompressor(dict_data=_dictionary()).decompress(stored)
