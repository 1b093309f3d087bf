"""Every address × everybody: what it answers, that nothing of another client is in any answer.

An address without a row fails, and so does a row without an address.
"""

import logging
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from asgiref.sync import async_to_sync
from django.core.cache import cache
from django.db import transaction
from django.http import HttpResponseBase
from django.test import Client

from tests.security.addresses import Address, addresses
from tests.security.world import PEOPLE, Side, World, make_world

pytestmark = pytest.mark.django_db

# What everybody is answered, in the order of PEOPLE, who ask for what is ours: the anonymous, a
# stranger (a viewer elsewhere), a viewer and an operator of ours, staff, and a superuser.
PAGE = "302 200 200 200 200 200"
SUBJECT = "302 404 200 200 200 200"
STAFFS = "302 403 403 403 200 200"
FORM = "302 405 405 405 405 405"  # what takes POST alone, asked by GET; and the reverse
API = "401 200 200 200 200 200"
API_SUBJECT = "401 404 200 200 200 200"
API_FORM = "405 405 405 405 405 405"
OPEN = "200 200 200 200 200 200"
UNREADABLE = "302 400 400 400 400 400"
OPERATED = "302 404 403 302 302 302"  # changed by those who operate it
OFF = "404 404 404 404 404 404"
ENTERED = "302 403 403 200 200 200"  # the admin
ELSEWHERE = "302 302 302 302 302 302"
NOBODYS = "302 404 404 404 404 404"
SAME = ""

# By name: what GET is answered, and POST with nothing in it.
ROWS: dict[str, tuple[str, str]] = {
    "dashboard:overview": (PAGE, FORM),
    "dashboard:location": (SUBJECT, FORM),
    "dashboard:name-location": (FORM, OPERATED),
    "dashboard:mask-location": (FORM, OPERATED),
    "dashboard:suspend": (FORM, OPERATED),
    "dashboard:lift": (FORM, OPERATED),
    "dashboard:make-link": (FORM, OPERATED),
    "dashboard:revoke-link": (FORM, OPERATED),
    "dashboard:frame": (OFF, API_FORM),
    "dashboard:frame-enter": (API_FORM, OFF),
    "dashboard:shared": (OPEN, API_FORM),
    "dashboard:name-campaign": (FORM, OPERATED),
    "dashboard:reasons": (PAGE, FORM),
    "dashboard:reason": (SUBJECT, FORM),
    "dashboard:status": (PAGE, FORM),
    "dashboard:test-event": (FORM, "302 403 403 403 302 302"),
    "dashboard:people": (ENTERED, ENTERED),
    "dashboard:manage-person": (FORM, "302 403 403 404 404 404"),
    "dashboard:remove-membership": (FORM, "302 403 403 404 302 302"),
    "dashboard:revoke-invitation": (FORM, "302 403 403 302 302 302"),
    "dashboard:invitation": (OFF, OFF),
    "dashboard:tokens": (PAGE, PAGE),
    "dashboard:revoke-token": (FORM, "302 404 404 404 404 302"),
    "dashboard:names": (STAFFS, STAFFS),
    "dashboard:add-note": (FORM, "302 403 403 403 302 302"),
    "dashboard:delete-note": (FORM, OPERATED),
    "dashboard:campaign": (SUBJECT, FORM),
    "dashboard:mute": (FORM, ELSEWHERE),
    "dashboard:narrow": (UNREADABLE, FORM),
    "dashboard:save-view": (FORM, ELSEWHERE),
    "dashboard:change-view": (FORM, "302 404 403 403 302 302"),
    "dashboard:suggest": ("401 400 400 400 400 400", API_FORM),
    "dashboard:suppressions": (PAGE, FORM),
    "dashboard:erasure": (STAFFS, "302 403 403 403 400 400"),
    "dashboard:suppress": (FORM, NOBODYS),
    "dashboard:settle-held": (FORM, "302 403 403 302 302 302"),
    "dashboard:export-suppressions": (PAGE, FORM),
    "dashboard:release": (FORM, OPERATED),
    "dashboard:deliveries": (PAGE, FORM),
    "dashboard:export": (UNREADABLE, FORM),
    "dashboard:delivery": (SUBJECT, FORM),
    "dashboard:assign": (FORM, OPERATED),
    "dashboard:api-rates": (API, API_FORM),
    "dashboard:api-changes": ("401 400 400 400 400 400", API_FORM),
    "dashboard:api-quality": (API, API_FORM),
    "dashboard:api-events": (API, API_FORM),
    "dashboard:api-deliveries": (API, API_FORM),
    "dashboard:api-export": ("401 400 400 400 400 400", API_FORM),
    "dashboard:api-delivery": (API_SUBJECT, API_FORM),
    "dashboard:api-suppressions": (API, API_FORM),
    "dashboard:api-again": (API, API_FORM),
    "dashboard:api-reasons": (API, API_FORM),
    "dashboard:api-reason": (API_SUBJECT, API_FORM),
    "account_login": ("200 302 302 302 302 302", SAME),
    "login": ("200 302 302 302 302 302", SAME),
    "mfa_authenticate": (ELSEWHERE, SAME),
    "account_reauthenticate": (PAGE, SAME),
    "mfa_reauthenticate": (ELSEWHERE, SAME),
    "account_inactive": (OPEN, API_FORM),
    "account_logout": (PAGE, ELSEWHERE),
    "logout": (PAGE, ELSEWHERE),
    "account_change_password": (PAGE, SAME),
    "password_change": (PAGE, SAME),
    "account_reset_password": (OPEN, API_FORM),
    "account_reset_password_done": (OPEN, API_FORM),
    "account_reset_password_from_key_done": (OPEN, API_FORM),
    "account_reset_password_from_key": (OPEN, SAME),
    "account_set_password": (ELSEWHERE, SAME),
    "mfa_index": (PAGE, FORM),
    "mfa_activate_totp": (ELSEWHERE, SAME),
    "mfa_deactivate_totp": (NOBODYS, SAME),
    "mfa_view_recovery_codes": (NOBODYS, FORM),
    "mfa_generate_recovery_codes": (ELSEWHERE, SAME),
    "admin:index": (ENTERED, SAME),
    "admin:login": ("302 403 403 302 302 302", SAME),
    "admin:logout": ("302 403 403 405 405 405", "302 403 403 302 302 302"),
    "admin:password_change": (ENTERED, SAME),
    "admin:password_change_done": (ENTERED, "302 403 403 405 405 405"),
    "admin:autocomplete": ("302 403 403 403 403 403", "302 403 403 405 405 405"),
    "admin:jsi18n": (ENTERED, "302 403 403 405 405 405"),
    "admin:view_on_site": ("302 403 403 404 404 404", SAME),
    "admin:app_list": (ENTERED, SAME),
    "admin:catch-all": ("302 403 403 404 404 404", SAME),
    "admin:old": ("302 403 403 302 302 302", SAME),
    "admin:auth_user_password_change": ("302 403 403 403 403 200", SAME),
    "admin:ingest_delivery_act": ("302 403 403 405 405 405", "302 403 403 302 302 302"),
    "admin:dashboard_bulkchange_begin": (ENTERED, SAME),
    "admin:dashboard_bulkchange_undo": (
        "302 403 403 405 405 405", "302 403 403 302 302 302",
    ),
    "admin:dashboard_reviewcase_start": (
        "302 403 403 405 405 405", "302 403 403 302 302 302",
    ),
    "admin:dashboard_reviewcase_answer": (
        "302 403 403 405 405 405", "302 403 403 302 302 302",
    ),
    "healthz": (OPEN, SAME),
    "readyz": (OPEN, SAME),
    "metrics": ("401 404 404 404 200 200", API_FORM),
    "favicon": (ELSEWHERE, SAME),
}  # fmt: skip
# The admin's models: whose they are, and whether rows of them are added and deleted there.
SUPERUSERS, OPERATORS = "302 403 403 403 403 200", ENTERED
NOT_EVEN_THEIRS = "302 403 403 403 403 403"
MODELS: dict[str, tuple[str, str]] = {
    "ingest_location": (SUPERUSERS, ""),
    "ingest_company": (SUPERUSERS, ""),
    "ingest_source": (SUPERUSERS, "add delete"),
    "ingest_keptwebhook": (SUPERUSERS, ""),
    "ingest_quarantinedwebhook": (SUPERUSERS, ""),
    "ingest_classificationrule": (SUPERUSERS, "add delete"),
    "ingest_delivery": (OPERATORS, ""),
    "dashboard_bulkchange": (OPERATORS, ""),
    "dashboard_reviewcase": (OPERATORS, ""),
    "dashboard_resendrequest": (OPERATORS, ""),
    "auth_user": (SUPERUSERS, "add delete"),
    "auth_group": (SUPERUSERS, "add delete"),
    "dashboard_membership": (SUPERUSERS, "add delete"),
    "dashboard_apitoken": (SUPERUSERS, "delete"),
    "dashboard_clientlink": (SUPERUSERS, ""),
    "dashboard_suspension": (SUPERUSERS, "add delete"),
    "dashboard_note": (SUPERUSERS, "add delete"),
    "dashboard_savedview": (SUPERUSERS, "delete"),
    "dashboard_auditentry": (SUPERUSERS, ""),
}


@pytest.fixture
def world(settings: Any) -> Iterator[World]:
    cache.clear()
    # Static files are none of these; with it a loop would be made for each request.
    static = "servestatic.middleware.ServeStaticMiddleware"
    settings.MIDDLEWARE = [name for name in settings.MIDDLEWARE if name != static]
    logging.disable()  # a line and a traceback for each refusal take longer than the refusals
    yield make_world()
    logging.disable(logging.NOTSET)


ADDRESSES = list(addresses())


def test_every_address_has_a_row_and_every_row_an_address() -> None:
    names = {address.name for address in ADDRESSES if not address.model}
    models = {address.model for address in ADDRESSES} - {""}
    assert (names ^ ROWS.keys(), models ^ MODELS.keys()) == (set(), set())


def expected(address: Address, method: str) -> str:
    if not address.model:
        get, post = ROWS[address.name]
        return post if method == "post" and post != SAME else get
    whose, more = MODELS[address.model]
    return (
        whose
        if address.kind not in ("add", "delete") or address.kind in more
        else (NOT_EVEN_THEIRS)
    )


def ask(client: Client, method: str, path: str, data: Any = None) -> tuple[HttpResponseBase, str]:
    """The answer, and its content. Nothing is changed by it."""
    with transaction.atomic():
        answer: Any = getattr(client, method)(path, data)
        content = _content(answer).decode()
        transaction.set_rollback(True)
    return answer, content


def _content(answer: Any) -> bytes:
    if not (answer.streaming and answer.is_async):
        return bytes(answer.getvalue())

    async def read() -> bytes:
        return b"".join([part async for part in answer])

    return async_to_sync(read)()


def test_everybody_is_answered_as_the_rows_say(world: World) -> None:
    wrong = []
    for person in PEOPLE:
        client = world.client(person)
        for address in ADDRESSES:
            for method in ("get", "post"):
                if method == "post" and address.model:
                    continue  # below
                asking = world.client(person) if "logout" in address.name else client
                status = str(ask(asking, method, address.path(world.ours))[0].status_code)
                if status != (row := expected(address, method).split()[PEOPLE.index(person)]):
                    wrong.append(f"{person} {method} {address.name}: {status}, not {row}")
    assert not wrong, "\n".join(wrong)


def test_who_may_not_see_an_admin_page_changes_nothing_by_it(world: World) -> None:
    wrong = []
    for person in PEOPLE[:-1]:
        client = world.client(person)
        for address in ADDRESSES:
            row = expected(address, "get").split()[PEOPLE.index(person)] if address.model else ""
            if row in ("302", "403"):
                data = {"post": "yes", "action": "delete_selected", "_selected_action": "1"}
                answer, _ = ask(client, "post", address.path(world.ours), data)
                if str(answer.status_code) != row:
                    wrong.append(f"{person} {address.name}: {answer.status_code}, not {row}")
    assert not wrong, "\n".join(wrong)


# --- Nothing of another client is in any answer ------------------------------------------------

LISTS = (
    "/", "/?range=7d&compare=previous", "/?state=needs", "/reasons/?range=7d", "/status/?range=7d",
    "/deliveries/?range=7d", "/suppressions/?range=7d", "/suppressions/export/?format=csv",
    "/deliveries/export/?format=csv&range=7d", "/api/deliveries/export/?format=json&range=7d",
    "/api/deliveries/?range=7d", "/api/events/?after=0", "/api/reasons/?range=7d",
    "/api/quality/?by=location&range=7d", "/api/changes/?measure=hard_bounce_rate&range=7d",
    "/people/?q=a", "/admin/ingest/delivery/?q=jane", "/admin/ingest/delivery/?all=1",
    "/admin/dashboard/reviewcase/?state=all",
    *(
        f"/api/rates/?range=7d&by={by}"
        for by in ("location", "company", "campaign", "step", "tag", "provider", "domain",
                   "sending_domain", "ip", "pool", "category", "hour", "day")
    ),
    *(
        f"/admin/autocomplete/?app_label=dashboard&model_name={model}&field_name={name}&term=a"
        for model, name in (
            ("membership", "location"), ("membership", "user"), ("note", "location"),
        )
    ),
    *(
        f"/suggest/?name={name}&text="
        for name in ("location", "company", "campaign", "step", "tag", "provider", "domain",
                     "sending_domain", "ip", "pool", "mx", "code", "reason", "category")
    ),
)  # fmt: skip


def filters(side: Side) -> Iterator[str]:
    """Filters that name what one side has."""
    of = {
        "location": side.ref, "company": f"com-{side.typed}", "campaign": side.campaign,
        "step": f"step-{side.typed}", "tag": f"tag-{side.typed}", "pool": f"pool-{side.typed}",
        "sending_domain": f"send.{side.typed}.example", "mx": f"mx.{side.typed}.example",
        "reason": str(side.pks["reason"]), "ip": side.ip,
    }  # fmt: skip
    for name, value in of.items():
        yield f"{name}={quote(value)}"
        yield f"{name}=-{quote(value)}"


def leaks(text: str, side: Side, *typed: str) -> list[str]:
    """The words of a side in a text, without what was typed into the address."""
    for known in (*typed, *(quote(word, safe="") for word in typed)):
        text = text.replace(known, "")
    words = [side.told] if typed else [side.told, side.typed, side.ip]
    return [word for word in words if word in text.lower()]


@pytest.mark.parametrize("person", ["anonymous", "viewer", "operator"])
def test_nothing_of_another_client_is_in_any_answer(world: World, person: str) -> None:
    client, found = world.client(person), []
    own = world.side_of(person)
    others = [side for side in (world.ours, world.theirs) if side is not own]
    paths: list[tuple[str, tuple[str, ...]]] = [(path, ()) for path in LISTS]
    for side in others:
        typed: tuple[str, ...] = (side.ref, side.campaign, f"camp-{side.typed}", side.typed)
        for address in ADDRESSES:
            if address.name != "dashboard:shared" and "logout" not in address.name:
                paths.append((address.path(side), typed if address.arguments else ()))
        for query in filters(side):
            given = (*typed, query.partition("=")[2])
            pages = ("/deliveries/", "/api/rates/")  # all pages have the one bar
            paths += [(f"{page}?range=7d&{query}", given) for page in pages]
    if own is not None:
        paths += [(address.path(own), ()) for address in ADDRESSES if "logout" not in address.name]
    for path, typed in paths:
        answer, text = ask(client, "get", path)
        text += f"{answer.headers}{answer.cookies}"
        found += [f"{path}: {words}" for side in others if (words := leaks(text, side, *typed))]
    assert not found, "\n".join(found)


def test_counts_are_of_what_one_may_see(world: World) -> None:
    for person, mails in (("viewer", 3), ("operator", 3), ("stranger", 5), ("staff", 8)):
        client = world.client(person)
        total = client.get("/api/rates/?range=7d").json()["total"]
        assert total["sent"] == mails, person
        assert client.get("/api/quality/?by=location").json()["total"]["events"] == 3 * mails
        listed = client.get("/api/deliveries/?range=7d").json()["results"]
        assert len(listed) == mails
        assert f"<b>{mails}</b> deliveries" in client.get("/deliveries/?range=7d").text
        excluded = client.get(f"/api/rates/?range=7d&tag=-tag-{world.theirs.typed}").json()
        assert excluded["total"]["sent"] == {3: 3, 5: 0, 8: 3}[mails]


# --- What is not there, and what one may not see -------------------------------------------------

_CSRF = re.compile(r"[A-Za-z0-9]{64}")


def told(answer: HttpResponseBase, text: str, path: str) -> str:
    """An answer without its own address, and without the tokens of its forms and cookies."""
    varying = ("Content-Length", "Expires")
    headers = {name: word for name, word in answer.headers.items() if name not in varying}
    said = f"{answer.status_code} {headers} {sorted(answer.cookies)} {text}"
    return _CSRF.sub("", said.replace(path, "").replace(quote(path), ""))


@pytest.mark.parametrize("person", ["anonymous", "viewer", "operator"])
def test_what_one_may_not_see_is_as_if_it_were_not_there(world: World, person: str) -> None:
    differing = []
    for address in ADDRESSES:
        if not address.arguments or address.name in ("dashboard:shared", "admin:app_list"):
            continue
        for method in ("get", "post"):
            client = world.client(person)
            theirs, nothing = address.path(world.theirs), address.path_of_nothing(world.theirs)
            answers = [(*ask(client, method, path), path) for path in (theirs, nothing)]
            if len({told(*answer) for answer in answers}) != 1:
                statuses = [answer.status_code for answer, _, _ in answers]
                differing.append(f"{method} {theirs} {statuses}")
    assert not differing, "\n".join(differing)


def test_a_filter_tells_not_whether_others_have_such_a_thing(world: World) -> None:
    client, differing = world.client("viewer"), []
    for query in filters(world.theirs):
        name, _, value = query.partition("=")
        sign = "-" if value.startswith("-") else ""
        nothing = f"{sign}{'999999' if name == 'reason' else 'nothing'}"
        for page in ("/deliveries/", "/api/rates/"):
            if name == "ip":
                nothing = f"{sign}198.51.100.254"
            paths = [f"{page}?range=7d&{name}={text}" for text in (value, nothing)]
            answers = [ask(client, "get", path) for path in paths]
            if len({answer.status_code for answer, _ in answers}) != 1:
                differing.append(f"{paths[0]} {[answer.status_code for answer, _ in answers]}")
    assert not differing, "\n".join(differing)
