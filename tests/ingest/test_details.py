"""What is kept of an event comes back as it was, in far fewer bytes."""

import string

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest import details
from ingest.normalize import Detail

ID = string.ascii_letters + string.digits + "-_"
IDS = st.one_of(st.text(ID, min_size=22, max_size=22), st.text(max_size=30))
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)
DETAILS = st.builds(
    Detail,
    event_id=IDS,
    code=st.none() | st.integers(200, 699),
    message=TEXTS,
    pool_name=TEXTS,
    attempt=st.none() | st.integers(0, 9),
    session_seconds=st.none() | st.floats(0, 1e6),
    tls=st.none() | st.booleans(),
    ip=TEXTS,
    pool=TEXTS,
    mx=TEXTS,
    test=st.booleans(),
)


def back(detail: Detail) -> Detail:
    """Stored and read again."""
    columns = (detail.code, detail.test, detail.ip or None, detail.pool or None, detail.mx or None)
    return details.load(details.dump(detail), *columns)


@given(DETAILS)
def test_any_detail_comes_back(detail: Detail) -> None:
    assert back(detail) == detail


@pytest.mark.parametrize(
    ("event_id", "size"),
    [
        ("czsjqFATSlC3QtAK-C80nw", 17),  # 128 bits, as Mailgun makes them
        ("CPgfbmQMTCKtHW6uIWtuVe", 18),
        ("", 1),
    ],
)
def test_an_event_with_nothing_else_to_say_takes_little_more_than_its_id(
    event_id: str, size: int
) -> None:
    assert len(details.dump(Detail(event_id=event_id))) == size
    assert back(Detail(event_id=event_id)).event_id == event_id


def test_a_delivery_s_words_shrink_to_a_fifth() -> None:
    detail = Detail(
        event_id="NfrRUQOMjFw3qIZUAskZh9", code=250, enhanced="2.0.0", message="OK", attempt=1,
        session_seconds=1.138, first_attempt_seconds=0.25, tls=True, ip="198.51.100.69",
        mx="hotmail-com.olc.protection.outlook.com", pool="65cc66e77a4d4f63649d4302",
        pool_name="shared-b",
    )  # fmt: skip
    assert len(details.dump(detail)) < len(msgspec.json.encode(detail)) / 5
    assert back(detail) == detail


def test_an_event_without_a_detail_has_an_empty_one() -> None:
    assert details.load(b"", None, False, None, None, None) == Detail()
