"""The list as a file: what the list has, in its order, page by page, and no cell a formula."""

import csv
import io
import json
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any

import httpx
import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.contrib.auth.models import User
from django.http import Http404
from django.test import AsyncClient, Client

from dashboard import export as exporting
from dashboard.access import Rights, rights_of
from dashboard.bounded import TookTooLong
from dashboard.export import BOM, COLUMNS, Interrupted, cell, csv_text, export
from dashboard.filters import FilterError, parse
from dashboard.models import ApiToken, Membership
from dashboard.queries import DeliveriesPage, deliveries_page
from ingest.models import Delivery
from tests.dashboard import rows
from tests.serving import TLS, Server

EVERYTHING = Rights(everything=True)
NOW = rows.NOW


def nothing() -> None:
    pass


def stream(
    form: str = "json",
    query: dict[str, str] | None = None,
    rights: Rights = EVERYTHING,
    ask: Callable[[], Rights | None] | None = None,
) -> Any:
    filter = parse((query or {}).items(), now=NOW)
    return export(filter, rights, form, ask or (lambda: rights)).streaming_content


@async_to_sync
async def read(chunks: AsyncIterator[bytes], between: Callable[[], Any] = nothing) -> str:
    """The whole file; ``between`` is called after each piece."""
    whole = b""
    async for chunk in chunks:
        whole += chunk
        await sync_to_async(between)()
    return whole.decode()


def numbers(text: str) -> list[str]:
    return [row["recipient"].partition("@")[0] for row in json.loads(text)]


def send(count: int, **columns: Any) -> None:
    for n in range(1, count + 1):
        rows.delivery(n, sent_at=NOW - timedelta(minutes=n // 2), **columns)


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "ROWS", 2)


@pytest.mark.django_db
@pytest.mark.parametrize("query", [{}, {"tag": "a"}, {"outcome": "bounced"}, {"q": "r1"}])
def test_it_has_what_the_list_has_in_its_order(small_pages: None, query: dict[str, str]) -> None:
    send(9, tags=("a",))
    rows.delivery(10)
    listed = deliveries_page(parse(query.items(), now=NOW), EVERYTHING, limit=100).rows
    found = json.loads(read(stream("json", query)))
    assert [row["id"] for row in found] == [row.id for row in listed]
    for row, of in zip(found, listed, strict=True):
        expected = json.loads(json.dumps(of.as_json()))
        assert {name: row[name] for name in expected} == expected
    text = read(stream("csv", query)).removeprefix(BOM)
    assert [int(row["id"]) for row in csv.DictReader(io.StringIO(text))] == [r.id for r in listed]


@pytest.mark.django_db
def test_an_empty_list_is_a_file_too() -> None:
    assert json.loads(read(stream("json"))) == []
    assert read(stream("csv")) == BOM + ",".join(f'"{name}"' for name in COLUMNS) + "\r\n"


@pytest.mark.django_db
def test_pages_are_read_as_they_are_sent(
    small_pages: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(6)
    asked = []
    real = deliveries_page

    def noted(*args: Any, **kwargs: Any) -> DeliveriesPage:
        asked.append(kwargs["before"])
        return real(*args, **kwargs)

    monkeypatch.setattr(exporting, "deliveries_page", noted)
    sent: list[int] = []
    read(stream(), between=lambda: sent.append(len(asked)))
    assert sent[:3] == [1, 2, 3]


@pytest.mark.django_db
def test_what_comes_or_moves_meanwhile_neither_doubles_nor_breaks(small_pages: None) -> None:
    send(6)
    made = {d.recipient: d for d in Delivery.objects.all()}
    numbers_to_come = iter(range(50, 60))

    def meanwhile() -> None:
        rows.delivery(next(numbers_to_come), sent_at=NOW + timedelta(minutes=1))
        # An earlier event of what has been sent already: it moves down the list.
        moved = made["r1@example.com"]
        moved.sent_at -= timedelta(hours=1)
        moved.save()

    assert sorted(numbers(read(stream(), between=meanwhile))) == [
        "r1",
        "r2",
        "r3",
        "r4",
        "r5",
        "r6",
    ]


@pytest.mark.django_db
def test_who_loses_a_right_gets_no_more(small_pages: None) -> None:
    send(6)
    answers = iter([EVERYTHING, Rights()])
    with pytest.raises(Interrupted):
        read(stream(ask=lambda: next(answers)))


@pytest.mark.django_db
def test_what_takes_too_long_is_said_before_anything_is_sent(
    monkeypatch: pytest.MonkeyPatch, client: Client
) -> None:
    def stopped(*args: Any, **kwargs: Any) -> None:
        raise TookTooLong

    monkeypatch.setattr(exporting, "deliveries_page", stopped)
    client.force_login(User.objects.create_user("anna", is_staff=True))
    answer = client.get("/deliveries/export/?format=csv")
    assert answer.status_code == 503
    assert b"This took too long" in answer.content


@pytest.mark.django_db
def test_later_pages_that_take_too_long_break_it_off(
    small_pages: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(6)
    chunks = stream()

    def stopped(*args: Any, **kwargs: Any) -> None:
        raise TookTooLong

    monkeypatch.setattr(exporting, "deliveries_page", stopped)
    with pytest.raises(Interrupted):
        read(chunks)


@pytest.mark.django_db
def test_only_what_may_be_seen_is_in_it() -> None:
    rows.delivery(1, location_ref="mine")
    rows.delivery(2, location_ref="theirs")
    rights = Rights(location_ids=frozenset([rows.location("mine").pk]))
    assert numbers(read(stream(rights=rights))) == ["r1"]
    with pytest.raises(Http404):
        stream(query={"location": "theirs"}, rights=rights)


def test_no_cell_is_a_formula() -> None:
    for text in ("=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1"):
        assert cell(text) == "'" + text
    for text in ("a=1", "jane+x@example.org", "1-2", ""):
        assert cell(text) == text
    assert cell(("=a", "b")) == "'=a, b"
    assert cell(-5) == "-5"
    assert cell(None) == ""


def test_cells_hold_whatever_is_said() -> None:
    hostile = ['a"b', "c,d", "e;=f", "line\r\nbreak", "ü€"]
    text = csv_text([hostile])
    assert next(csv.reader(io.StringIO(text, newline=""))) == hostile
    assert text.startswith('"a""b","c,d"')


@pytest.mark.django_db
def test_a_format_that_is_none_is_refused() -> None:
    with pytest.raises(FilterError, match="format is one of csv, json"):
        stream("xml")


@pytest.mark.django_db
def test_the_file_has_a_name_that_no_filter_can_bend() -> None:
    filter = parse([("q", '"; rm -rf')], now=NOW)
    answer = export(filter, EVERYTHING, "csv", lambda: EVERYTHING)
    expected = 'attachment; filename="deliveries-20261122-103000.csv"'
    assert answer["Content-Disposition"] == expected
    assert answer["Cache-Control"] == "private, no-store"


# --- Through the door --------------------------------------------------------------------------


@async_to_sync
async def get(path: str, user: User | None = None, **headers: str) -> tuple[int, str]:
    client = AsyncClient()
    if user:
        await client.aforce_login(user)
    answer = await client.get(path, headers=headers)
    if not answer.streaming:
        return answer.status_code, answer.content.decode()
    content: Any = answer
    chunks = [chunk async for chunk in content.streaming_content]
    return answer.status_code, b"".join(chunks).decode()


@pytest.mark.django_db
def test_people_and_programs_get_it_by_the_rights_of_the_list(small_pages: None) -> None:
    vera = User.objects.create_user("vera")
    Membership.objects.create(user=vera, location=rows.location("loc"))
    assert not rights_of(vera).everything
    send(5)
    rows.delivery(6, location_ref="other")
    bearer = f"Bearer {ApiToken.issue(user_id=vera.pk)}"
    query = "format=json&from=2026-11-01"
    for path, user, headers in (
        (f"/deliveries/export/?{query}&tag=&compare=week", vera, {}),
        (f"/api/deliveries/export/?{query}", vera, {}),
        (f"/api/deliveries/export/?{query}", None, {"Authorization": bearer}),
    ):
        status, text = get(path, user, **headers)
        assert status == 200, text
        assert sorted(numbers(text)) == ["r1", "r2", "r3", "r4", "r5"]
    assert get(f"/deliveries/export/?{query}&location=other", vera)[0] == 404
    assert get(f"/deliveries/export/?{query}")[0] == 302
    assert get(f"/api/deliveries/export/?{query}")[0] == 401


def test_servers_send_it_piece_by_piece(server: Server) -> None:
    for n in range(3):
        payload = {
            "event": "delivered", "id": f"export-{n}", "timestamp": 1_760_000_000 + n,
            "message": {"headers": {"message-id": f"x{n}@example.com"}},
            "recipient": f"=x{n}@example.com",
        }  # fmt: skip
        body = {"type": "LCEmailStats", "locationId": "loc-x", "webhookPayload": payload}
        assert server.post(body).status_code == 200
    url = f"{server.url}/api/deliveries/export/?format=csv&location=loc-x"
    headers = {"Authorization": f"Bearer {server.token()}"}
    with httpx.stream("GET", url, headers=headers, verify=TLS, timeout=10) as answer:
        assert answer.status_code == 200
        assert "content-length" not in answer.headers
        text = answer.read().decode("utf-8-sig")
    found = [row["recipient"] for row in csv.DictReader(io.StringIO(text))]
    assert found == ["'=x2@example.com", "'=x1@example.com", "'=x0@example.com"]
