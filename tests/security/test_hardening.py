"""What holds everywhere: the deployment check, headers, tokens of forms, sessions, redirects."""

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.cache import cache
from django.test import Client

from tests.security.addresses import addresses
from tests.security.test_matrix import ask
from tests.security.world import World, make_world
from tests.serving import ROOT

PASSWORD = "a long passphrase"  # noqa: S105 - a test's


def test_the_deployment_check_is_clean() -> None:
    """With the settings of the README's production."""
    production = {
        "SECRET_KEY": "".join(chr(33 + i) for i in range(64)),
        "DATABASE_URL": "postgres://127.0.0.1/sendwatch",
        "REDIS_URL": "redis://127.0.0.1",
        "PUBLIC_URL": "https://mail.example.com",
        "ALLOWED_HOSTS": "mail.example.com",
        "BEHIND_PROXY": "1",
    }
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    done = subprocess.run(
        [sys.executable, "manage.py", "check", "--deploy", "--fail-level", "INFO"],
        cwd=ROOT, env=kept | production, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.fixture
def world(settings: Any) -> Iterator[World]:
    cache.clear()
    logging.disable()
    settings.MIDDLEWARE = [name for name in settings.MIDDLEWARE if "ServeStatic" not in name]
    yield make_world()
    logging.disable(logging.NOTSET)


@pytest.mark.django_db
@pytest.mark.parametrize("person", ["anonymous", "superuser"])
def test_no_post_without_our_token_does_anything(world: World, person: str) -> None:
    client, wrong = world.client(person, checks=True), []
    for address in addresses():
        for method in ("post", "put", "patch", "delete"):
            status = ask(client, method, address.path(world.ours))[0].status_code
            if status != 403:
                wrong.append(f"{method} {address.name}: {status}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.django_db
def test_every_answer_carries_the_headers(world: World) -> None:
    wrong = []
    for person in ("anonymous", "superuser"):
        client = world.client(person)
        for address in addresses():
            if "logout" in address.name:
                continue
            answer, _ = ask(client, "get", address.path(world.ours))
            policy = answer.headers.get("Content-Security-Policy", "")
            held = {
                "policy": "default-src 'self'" in policy and "unsafe" not in policy,
                "frames": "frame-ancestors 'none'" in policy,
                "no frame": answer.headers.get("X-Frame-Options") == "DENY",
                "no sniffing": answer.headers.get("X-Content-Type-Options") == "nosniff",
                "referrer": answer.headers.get("Referrer-Policy") in ("same-origin", "no-referrer"),
                "opener": answer.headers.get("Cross-Origin-Opener-Policy") == "same-origin",
            }
            wrong += [
                f"{person} {address.name}: {name}" for name, is_so in held.items() if not is_so
            ]
    assert not wrong, "\n".join(wrong)


# --- Sessions ------------------------------------------------------------------------------------


def login(client: Client, **more: str) -> Any:
    return client.post("/login/", {"username": "anna", "password": PASSWORD, **more})


@pytest.mark.django_db
def test_a_session_that_somebody_else_began_is_not_logged_in(client: Client) -> None:
    User.objects.create_user("anna", password=PASSWORD)
    client.get("/login/")
    session = client.session
    session["planted"] = 1
    session.save()
    planted = str(session.session_key)
    client.cookies["sessionid"] = planted
    assert login(client).status_code == 302
    own = client.cookies["sessionid"].value
    assert own != planted
    thief = Client()
    thief.cookies["sessionid"] = planted
    assert thief.get("/").status_code == 302, "the planted key is nobody's"
    client.post("/logout/")
    late = Client()
    late.cookies["sessionid"] = own
    assert late.get("/").status_code == 302, "what was logged out stays so"


@pytest.mark.django_db
def test_a_session_cookie_is_not_for_scripts_nor_other_sites(client: Client, settings: Any) -> None:
    settings.SESSION_COOKIE_SECURE = True
    User.objects.create_user("anna", password=PASSWORD)
    login(client)
    cookie = client.cookies["sessionid"]
    assert (cookie["httponly"], cookie["samesite"], cookie["secure"]) == (True, "Lax", True)


# --- Redirects -----------------------------------------------------------------------------------

OUTSIDE = (
    "https://evil.example/", "//evil.example/", "///evil.example", "/\\evil.example",
    "\\\\evil.example", "https:evil.example", "http:///evil.example", "javascript:alert(1)",
    "/%0d%0aLocation:%20https://evil.example", " https://evil.example", "\thttps://evil.example",
)  # fmt: skip


def leads_outside(answer: Any) -> bool:
    """Whether a browser would leave our site."""
    to = answer.headers.get("Location", "")
    return bool(to) and (not to.startswith("/") or to.startswith(("//", "/\\")))


@pytest.mark.django_db
def test_no_next_leads_out(world: World) -> None:
    client, wrong = world.client("superuser"), []
    takers = [
        address.path(world.ours) for address in addresses()
        if address.name.startswith("dashboard:") and address.name != "dashboard:shared"
    ]  # fmt: skip
    for there in OUTSIDE:
        for path in ("/login/", "/admin/login/", "/logout/", "/login/again/"):
            for asking in (Client(), world.client("superuser")):
                got = [ask(asking, "get", f"{path}?next={there}")[0]]
                got.append(ask(asking, "post", path, {"next": there})[0])
                wrong += [f"{path} {there}" for answer in got if leads_outside(answer)]
    for there in OUTSIDE[:4]:
        for path in takers:
            answer, _ = ask(client, "post", path, {"next": there, "at": there, "name": "x"})
            wrong += [f"{path} {there}"] * leads_outside(answer)
        answer, _ = ask(client, "get", f"/filter/?at={there}")
        wrong += [f"/filter/ {there}"] * leads_outside(answer)
    assert not wrong, "\n".join(wrong)


@pytest.mark.django_db
def test_logging_in_leads_nowhere_else() -> None:
    User.objects.create_user("anna", password=PASSWORD)
    for there in OUTSIDE:
        cache.clear()
        answer = login(Client(), next=there)
        assert answer.status_code == 302 and not leads_outside(answer), there
