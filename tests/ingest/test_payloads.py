"""Kept payloads come back byte for byte, whatever they hold."""

import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest import payloads

FOLDER = Path(payloads.__file__).parent


@given(st.binary(max_size=2_000))
def test_any_bytes_come_back(body: bytes) -> None:
    assert payloads.unpack(*payloads.pack(body)) == body


def test_a_real_payload_shrinks_to_less_than_half() -> None:
    body = (Path(__file__).parent.parent / "payloads" / "delivered.json").read_bytes()
    codec, stored = payloads.pack(body)
    assert codec == payloads.DICTIONARY_1
    assert len(stored) < len(body) / 2


@pytest.mark.parametrize(
    ("name", "crc"),
    [
        ("payloads_1.dict", 2774211874),
        ("facts_1.dict", 271375878),
        ("details_1.dict", 1918727976),
    ],
)
def test_a_dictionary_never_changes(name: str, crc: int) -> None:
    # What was packed with another could not be read again: a better one gets the next number.
    assert zlib.crc32((FOLDER / name).read_bytes()) == crc


def test_an_unknown_codec_is_an_error() -> None:
    with pytest.raises(KeyError):
        payloads.unpack(99, b"")
