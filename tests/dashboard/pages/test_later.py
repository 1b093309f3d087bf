"""Regions that are filled in later: what the first paint, the open page and a reader's wish get."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from dashboard.access import Rights
from dashboard.bounded import TookTooLong
from dashboard.filters import parse
from dashboard.pages.later import Later
from dashboard.pages.page import Asked

pytestmark = pytest.mark.django_db
NOW = datetime(2026, 11, 22, 10, 30, tzinfo=UTC)
LATER, LONG = "it is filled in by itself", "This took too long"


def asked(**options: str) -> Asked:
    return Asked(parse([("range", "24h")], now=NOW), Rights(everything=True), NOW, options)


def region(*, quick: bool, found: Mapping[str, Any] | None = None) -> Later:
    def load(asked: Asked) -> Mapping[str, Any]:
        if found is None:
            raise TookTooLong
        return found

    template = "dashboard/location/_heat.html"
    return Later("heat", template, load, is_quick=lambda asked: quick)


def test_what_is_quick_is_there_at_once() -> None:
    assert "nothing yet" in region(quick=True, found={"none": "nothing yet"}).html(asked())


def test_all_else_comes_once_the_page_is_open() -> None:
    slow = region(quick=False, found={"none": "nothing yet"})
    assert LATER in slow.html(asked())
    assert "wait=heat#heat" in slow.html(asked())
    assert "nothing yet" in slow.changes(asked(), {})


def test_who_asks_for_it_waits_for_it() -> None:
    slow = region(quick=False, found={"none": "nothing yet"})
    assert "nothing yet" in slow.html(asked(wait="heat"))


def test_what_takes_too_long_is_put_off_at_first_and_then_said() -> None:
    endless = region(quick=True)
    assert LATER in endless.html(asked())
    assert LONG in endless.html(asked(wait="heat"))
    assert LONG in endless.changes(asked(), {})
