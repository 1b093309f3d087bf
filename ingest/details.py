"""What is kept of an event when its payload has gone, packed; what is a column is not in it.

The first byte says how the provider's id is stored. Ids of 22 characters of URL-safe base64, as
Mailgun's are, follow as 16 or 17 bytes. Then comes the rest, if there is any: JSON, compressed,
without the four bytes that every frame of zstd begins with.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error

import msgspec

from ingest.normalize import Detail, NormalizedEvent
from ingest.payloads import MAGIC, Packer

# An event's columns that ``load`` takes, as a query names them.
COLUMNS = ("detail", "code", "is_test", "ip__text", "pool__text", "mx__text")

_IN_REST, _ID_OF_16, _ID_OF_17 = 0x10, 0x11, 0x12  # the first byte
_PACKED = Packer("details_1.dict")
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Detail).decode
_NOTHING = b"{}"
_BARE = Detail()


def kept_of(event: NormalizedEvent) -> Detail:
    """What stays of an event's detail when its payload has gone."""
    detail = event.detail
    return msgspec.structs.replace(
        detail,
        word="" if detail.word == event.kind.word else detail.word,
        form="" if detail.form == "wrapped" else detail.form,
        webhook_id="",  # a column has its digest
    )


def dump(detail: Detail) -> bytes:
    """A detail as an event stores it beside its columns: the same for the same."""
    mark, identity = _pack_id(detail.event_id)
    rest = rest_of(detail, event_id="" if identity else detail.event_id)
    packed = b"" if rest == _NOTHING else _PACKED.pack(rest)[len(MAGIC) :]
    return bytes((mark,)) + identity + packed


def rest_of(detail: Detail, *, event_id: str = "") -> bytes:
    """The JSON of what is no column, with this for the provider's id."""
    return _encode(
        msgspec.structs.replace(
            detail, event_id=event_id, code=None, ip="", pool="", mx="", test=False
        )
    )


def load(
    stored: bytes | memoryview,
    code: int | None,
    is_test: bool,
    ip: str | None,
    pool: str | None,
    mx: str | None,
) -> Detail:
    """The detail of a stored event, from its ``COLUMNS``; ``None`` and "" say the same.

    Raises ``zstandard.ZstdError`` or ``msgspec.DecodeError`` for bytes that ``dump`` never made.
    """
    stored = bytes(stored)
    size = {_ID_OF_16: 16, _ID_OF_17: 17}.get(stored[0], 0) if stored else 0
    packed = stored[1 + size :]
    detail = _decode(_PACKED.unpack(MAGIC + packed)) if packed else _BARE
    return msgspec.structs.replace(
        detail,
        event_id=_read_id(stored[1 : 1 + size]) if size else detail.event_id,
        code=code,
        test=bool(is_test),
        ip=ip or "",
        pool=pool or "",
        mx=mx or "",
    )


def _pack_id(event_id: str) -> tuple[int, bytes]:
    """An id of 22 characters is 132 bits, of which base64 leaves the last four zero."""
    if len(event_id) == 22:
        try:
            packed = urlsafe_b64decode(event_id + "AA")[:17]
        except (Error, ValueError):
            return _IN_REST, b""
        if _read_id(packed) == event_id:
            return (_ID_OF_16, packed[:16]) if packed[16] == 0 else (_ID_OF_17, packed)
    return _IN_REST, b""


def _read_id(packed: bytes) -> str:
    return urlsafe_b64encode(packed.ljust(18, b"\0"))[:22].decode()
