"""What is stored compressed: raw webhooks as they are kept, facts and details.

Bodies are bytes, whatever they hold, never json or text: what came is what is shown and replayed.
Dictionaries are trained on demo traffic (``bench/dictionary.py``) and never change: what was
packed with one could not be read again. A better one gets the next number.
"""

import threading
from functools import cached_property
from pathlib import Path

import zstandard

RAW, DICTIONARY_1 = 0, 1
MAGIC = b"\x28\xb5\x2f\xfd"  # that every frame of zstd begins with
_SMALL = 200  # bytes below which compressing gains nothing


class Packer:
    """zstd with a dictionary that lies beside this module."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._own = threading.local()  # a compressor is no shared thing

    @cached_property
    def _dictionary(self) -> zstandard.ZstdCompressionDict:
        return zstandard.ZstdCompressionDict(Path(__file__).with_name(self._name).read_bytes())

    def pack(self, raw: bytes) -> bytes:
        """The stored bytes: the same for the same."""
        if not hasattr(self._own, "compressor"):
            self._own.compressor = zstandard.ZstdCompressor(
                level=3, dict_data=self._dictionary, write_dict_id=False
            )
        packed: bytes = self._own.compressor.compress(raw)
        return packed

    def unpack(self, stored: bytes) -> bytes:
        """What was packed. Raises ``zstandard.ZstdError`` for anything else."""
        if not hasattr(self._own, "decompressor"):
            self._own.decompressor = zstandard.ZstdDecompressor(dict_data=self._dictionary)
        raw: bytes = self._own.decompressor.decompress(stored)
        return raw


_BODIES = Packer("payloads_1.dict")


def pack(body: bytes) -> tuple[int, bytes]:
    """The codec's number and the stored bytes."""
    if len(body) < _SMALL:
        return RAW, body
    return DICTIONARY_1, _BODIES.pack(body)


def unpack(codec: int, stored: bytes) -> bytes:
    """The body that was packed. Raises ``KeyError`` for a codec that this version does not know."""
    if codec not in (RAW, DICTIONARY_1):
        raise KeyError(codec)
    return bytes(stored) if codec == RAW else _BODIES.unpack(stored)
