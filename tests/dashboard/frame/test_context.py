"""User contexts: what OpenSSL encrypts is read, and nothing else is."""

import base64
from itertools import count
from typing import Any

import pytest

from dashboard.frame.context import MOST, Unreadable, UserContext, read_context
from tests.dashboard.frame.payloads import BY_OPENSSL, SECRET, context, encrypted


def test_what_openssl_encrypts_is_read() -> None:
    assert read_context(BY_OPENSSL, SECRET) == UserContext(
        user_ref="K6MePugfKQPdgEicKzVJ",
        company_ref="f3rBPevH93JANjvqtrK0",
        location_ref="ve9EPM428h8vShlRW1KT",
        is_of_agency=False,
        is_admin=True,
        name="Zoë Miller",
    )


@pytest.mark.parametrize(
    "payload",
    [
        "",
        "not base64!",
        base64.b64encode(b"Salted__").decode(),
        base64.b64encode(b"Salted__12345678" + b"x" * 15).decode(),
        base64.b64encode(b"Unsalted12345678" + b"x" * 32).decode(),
        encrypted(context(), "another secret"),
        encrypted(b""),
        encrypted(b"[" * 4_000),
        encrypted(b'\xff{"userId": "a"}'),
        encrypted([context()]),
        encrypted(context(userName="x" * MOST)),
        *(
            encrypted(context(**wrong))
            for wrong in (
                {"userId": None},
                {"userId": ""},
                {"userId": "a:b"},
                {"companyId": "x" * 61},
                {"companyId": ["com"]},
                {"type": "superuser"},
                {"activeLocation": "../loc"},
            )
        ),
    ],
    ids=map(str, count()),  # they are salted: no two processes would call them the same
)
def test_anything_else_is_unreadable(payload: str) -> None:
    with pytest.raises(Unreadable):
        read_context(payload, SECRET)


def test_no_secret_reads_nothing() -> None:
    with pytest.raises(Unreadable):
        read_context(encrypted(context(), ""), "")


@pytest.mark.parametrize(
    ("said", "name"),
    [("Zoë\r\nX: 1\u202e", "ZoëX: 1"), ("x" * 500, "x" * 150), (None, ""), (7, "")],
)
def test_a_name_is_what_can_be_shown(said: Any, name: str) -> None:
    assert read_context(encrypted(context(userName=said)), SECRET).name == name
