"""INSTALL, UNINSTALL, LocationCreate and LocationUpdate, through the signed endpoint."""

from collections.abc import Iterator
from itertools import count, permutations
from typing import Any

import pytest
from django.test import Client

from dashboard.models import Note
from ingest.models import Company, InstallState, Location
from tests.dashboard import rows
from tests.serving import Server, running

_number = count()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, engine: str) -> Iterator[Server]:
    with running("uvicorn", engine, tmp_path_factory.mktemp("installs")) as server:
        yield server


def said(kind: str, at: int, **more: Any) -> dict[str, Any]:
    """A webhook of an app event, as HighLevel writes it, at this minute."""
    return {"type": kind, "appId": "app", "timestamp": f"2026-11-20T10:{at:02}:00.000Z", **more}


def install(at: int, location: str, company: str, name: str, domain: str = "") -> dict[str, Any]:
    label = {"logoUrl": "", "domain": domain}
    return said(
        "INSTALL", at, locationId=location, companyId=company, companyName=name,
        isWhitelabelCompany=bool(domain), whitelabelDetails=label,
    )  # fmt: skip


def post(server: Server, *bodies: dict[str, Any]) -> None:
    for body in bodies:
        answer = server.post(body)
        assert (answer.status_code, answer.json()) == (200, {"status": "ignored"})


def names() -> tuple[str, str]:
    """Ids of a location and a company that nobody has told of yet."""
    number = next(_number)
    return f"loc-{number}", f"com-{number}"


def location_of(server: Server, ref: str) -> tuple[Any, ...]:
    """Name, company, its name, state."""
    columns = "name, company_ref, company_name, state"
    return server.query(f"SELECT {columns} FROM ingest_location WHERE ref = '{ref}'")[0]  # noqa: S608


def company_of(server: Server, ref: str) -> tuple[Any, ...]:
    """Name, domain, state."""
    columns = "name, domain, state"
    return server.query(f"SELECT {columns} FROM ingest_company WHERE ref = '{ref}'")[0]  # noqa: S608


@pytest.mark.both_engines
def test_an_install_makes_its_location_and_keeps_its_company(server: Server) -> None:
    loc, com = names()
    post(server, install(1, loc, com, "North Agency", "App.North.example"))
    assert location_of(server, loc) == ("", com, "North Agency", "active")
    assert company_of(server, com) == ("North Agency", "app.north.example", "")
    post(server, said("LocationUpdate", 2, id=loc, companyId=com, name="Harbour Dental"))
    post(server, {"type": "UNINSTALL", "appId": "app", "locationId": loc})
    assert location_of(server, loc) == ("Harbour Dental", com, "North Agency", "gone")


@pytest.mark.both_engines
def test_whatever_the_order_of_arrival_the_last_word_holds(server: Server) -> None:
    def bodies(loc: str, com: str) -> list[dict[str, Any]]:
        return [
            install(1, loc, com, "North", "old.north.example"),
            said("LocationCreate", 2, id=loc, companyId=com, name="First"),
            said("UNINSTALL", 3, locationId=loc),
            said("LocationUpdate", 4, id=loc, companyId=com, name="Second"),
            install(5, loc, com, "North Agency", "app.north.example"),
        ]

    for order in list(permutations(range(5)))[::7]:
        loc, com = names()
        found = bodies(loc, com)
        post(server, *(found[i] for i in order))
        assert location_of(server, loc) == ("Second", com, "North Agency", "active"), order
        assert company_of(server, com)[:2] == ("North Agency", "app.north.example"), order


@pytest.mark.both_engines
def test_a_company_s_name_is_that_of_all_its_locations(server: Server) -> None:
    loc, com = names()
    other, third = names()[0], names()[0]
    post(server, install(1, loc, com, "North"), install(1, other, com, "North"))
    post(server, install(2, other, com, "North Agency"))
    assert location_of(server, loc)[2] == "North Agency"
    mail = {"event": "delivered", "id": "e", "recipient": "jane@example.com", "timestamp": 1.8e9}
    headers = {"message": {"headers": {"message-id": "m@example.com"}}}
    body = {"type": "LCEmailStats", "locationId": third, "companyId": com}
    assert server.post({**body, "webhookPayload": mail | headers}).json() == {"status": "stored"}
    assert location_of(server, third) == ("", com, "North Agency", "active")
    post(server, said("LocationUpdate", 3, id=loc, companyId="com-moved"))
    assert location_of(server, loc)[1:3] == ("com-moved", "")


@pytest.mark.both_engines
@pytest.mark.parametrize(
    ("domain", "kept"),
    [
        ("https://app.north.example/", "app.north.example"),
        ("app.north.example; script-src *", ""),
        ("*.north.example", ""),
        ("north.example:8443", ""),
        ("127.0.0.1", ""),
        ("localhost", ""),
        ("a.example\nX-Evil: 1", ""),
        ("-a.example", ""),
        (["a.example"], None),
    ],
)
def test_a_white_label_s_domain_is_a_host_name_or_nothing(
    server: Server, domain: Any, kept: str | None
) -> None:
    loc, com = names()
    post(server, install(1, loc, com, "North", "old.example"))
    post(server, install(2, loc, com, "North", domain))
    assert company_of(server, com)[1] == ("old.example" if kept is None else kept)


@pytest.mark.both_engines
def test_a_company_that_leaves_takes_its_locations_along_till_they_install_again(
    server: Server,
) -> None:
    loc, com = names()
    back = names()[0]
    post(server, said("UNINSTALL", 3, companyId=com))
    post(server, install(1, loc, com, "North"), install(4, back, com, "North"))
    assert company_of(server, com)[2] == "gone"
    assert gone_of(server, com) == [loc]
    post(server, said("INSTALL", 2, companyId=com), said("INSTALL", 5, companyId=com))
    assert gone_of(server, com) == []


def gone_of(server: Server, company: str) -> list[str]:
    return server.shell(
        "from ingest.models import Location;"
        f"print(*Location.objects.gone().filter(company_ref={company!r})"
        ".values_list('ref', flat=True))"
    ).split()


@pytest.mark.django_db
@pytest.mark.parametrize("whole", [False, True])
def test_a_location_that_is_gone_keeps_its_page_and_needs_nobody(
    admin_client: Client, whole: bool
) -> None:
    left = rows.location("loc-left", "com")
    rows.delivery(1, location_ref="loc-left")
    Note.objects.create(location=left, at=rows.NOW, text="moved away")
    if whole:
        Company.objects.create(ref="com", state=InstallState.GONE, state_at=rows.NOW)
    else:
        Location.objects.update(state=InstallState.GONE, state_at=rows.NOW)
    page = admin_client.get("/locations/loc-left/").content.decode()
    assert "app uninstalled" in page
    overview = admin_client.get("/").content.decode()
    assert 's-gone"' in overview and "app uninstalled" in overview
    gone = admin_client.get("/?state=gone").content.decode()
    assert "loc-left" in gone
    assert ">loc-left<" not in admin_client.get("/?state=needs").content.decode()
    assert list(Location.objects.there()) == []
    assert not Company.objects.installed().exists()


@pytest.mark.django_db
def test_a_name_given_here_is_not_replaced_by_an_older_one(admin_client: Client) -> None:
    rows.location("loc")
    admin_client.post("/locations/loc/name/", {"name": "Ours", "timezone": ""})
    named_at = Location.objects.values_list("name_at", flat=True).get()
    assert named_at is not None
    admin_client.post("/locations/loc/name/", {"name": "Ours", "timezone": "Europe/Berlin"})
    assert Location.objects.values_list("name_at", flat=True).get() == named_at
