"""Logging in over HTTP: names, limits, second factors, forgotten passwords, and no way around."""

import re
import time
from datetime import timedelta
from typing import Any

import pytest
from allauth.mfa.models import Authenticator
from allauth.mfa.totp.internal import auth as totp
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.core import mail
from django.core.cache import cache
from django.core.management import CommandError, call_command
from django.test import Client
from django.utils import timezone

from dashboard.models import AuditEntry

pytestmark = pytest.mark.django_db
PASSWORD, OTHER = "a long passphrase", "quite another passphrase"


@pytest.fixture(autouse=True)
def no_attempts_yet() -> None:
    cache.clear()


@pytest.fixture
def ann() -> User:
    return User.objects.create_user("ann", "Ann@example.com", PASSWORD, is_staff=True)


def log_in(client: Client, name: str = "ann", password: str = PASSWORD, query: str = "") -> Any:
    return client.post(f"/login/{query}", {"username": name, "password": password})


def link_of(message: Any) -> str:
    return str(re.findall(r"https://mail\.example\.com(/password/reset/\S+)", message.body)[0])


def words(answer: Any) -> str:
    return " ".join(re.sub("<[^>]*>", " ", answer.content.decode()).split())


def code_of(secret: str) -> str:
    return str(totp.format_hotp_value(totp.hotp_value(secret, int(time.time()) // 30)))


@pytest.mark.parametrize("name", ["ann", "ann@example.com"])
def test_user_name_or_address_and_password_let_in(client: Client, ann: User, name: str) -> None:
    assert "do not match" in words(log_in(client, name, OTHER))
    assert log_in(client, name)["Location"] == "/"
    assert client.get("/").status_code == 200


def test_a_session_that_somebody_planted_does_not_become_the_users(
    client: Client, ann: User
) -> None:
    client.session["planted"] = True
    client.session.save()
    planted = client.cookies["sessionid"].value
    log_in(client)
    assert client.cookies["sessionid"].value != planted
    assert not Session.objects.filter(pk=planted).exists()
    assert client.session.get_expiry_age() == 7 * 86_400
    assert client.cookies["sessionid"]["httponly"]


def test_who_logs_in_sweeps_up_sessions_that_have_ended(client: Client, ann: User) -> None:
    for number, ends in enumerate((timezone.now(), timezone.now() + timedelta(hours=1))):
        Session.objects.create(pk=f"old{number}", session_data="", expire_date=ends)
    log_in(client)
    assert set(Session.objects.values_list("pk", flat=True)) == {"old1", client.session.session_key}


@pytest.mark.parametrize("next", ["https://evil.example/", "//evil.example", "javascript:alert(1)"])
def test_next_leads_nowhere_else(client: Client, ann: User, next: str) -> None:
    assert log_in(client, query=f"?next={next}")["Location"] == "/"
    assert client.post("/logout/", {"next": next})["Location"] == "/login/"
    assert log_in(client, query="?next=/reasons/")["Location"] == "/reasons/"


def test_after_five_wrong_passwords_the_right_one_must_wait(client: Client, ann: User) -> None:
    for _ in range(5):
        assert "do not match" in words(log_in(client, password="wrong"))
    for each in (client, Client(REMOTE_ADDR="203.0.113.9"), Client(SERVER_NAME="localhost")):
        assert "Too many attempts" in words(log_in(each))
        assert each.get("/").status_code == 302


def test_one_address_tries_only_so_many_names(client: Client, ann: User) -> None:
    for number in range(10):
        log_in(client, f"somebody{number}", "wrong")
    assert "Too many attempts" in words(log_in(client))
    for number in range(20):
        answer = log_in(client, f"anybody{number}", "wrong")
    assert answer.status_code == 429 and "Wait a minute" in words(answer)


def test_the_admin_is_entered_by_the_same_door(client: Client, ann: User) -> None:
    for path in ("/admin/", "/admin/login/"):
        assert client.get(path, follow=True).redirect_chain[-1][0].startswith("/login/?next=")
    sent = client.post("/admin/login/", {"username": "ann", "password": PASSWORD})
    assert sent["Location"].startswith("/login/") and client.get("/admin/").status_code == 302
    assert log_in(client, query="?next=/admin/")["Location"] == "/admin/"
    assert client.get("/admin/").status_code == 200


def set_up_factor(client: Client) -> tuple[str, list[str]]:
    """The secret, and the recovery codes."""
    asked = client.get("/account/second-factor/add/")["Location"]
    assert asked.startswith("/login/again/")
    page = client.post(asked, {"password": PASSWORD}, follow=True).content.decode()
    (secret,) = re.findall(r"<code>([A-Z2-7]{16,})</code>", page)
    assert "data:image/svg+xml;base64," in page
    wrong = client.post("/account/second-factor/add/", {"code": "000000"})
    assert "Incorrect code" in words(wrong)
    shown = client.post("/account/second-factor/add/", {"code": code_of(secret)}, follow=True)
    return secret, re.findall(r"<code>([0-9]{8})</code>", shown.content.decode())


def test_a_second_factor_is_asked_for_at_every_door(client: Client, ann: User) -> None:
    log_in(client)
    secret, recovery = set_up_factor(client)
    assert len(recovery) == 10
    again = client.get("/account/second-factor/codes/").content.decode()
    assert recovery[0] not in again  # they are shown once
    stored = str(list(Authenticator.objects.values_list("data", flat=True)))
    assert secret not in stored and recovery[0] not in stored
    client.post("/logout/")

    for target in ("/", "/admin/"):
        assert log_in(client, query=f"?next={target}")["Location"].startswith("/login/code/")
        assert client.get(target)["Location"].startswith(("/login/", "/admin/login/"))
        assert client.get("/api/rates/").status_code == 401
        assert "Incorrect code" in words(client.post("/login/code/", {"code": "11111111"}))
        client.post("/logout/")
    cache.clear()
    log_in(client)
    assert client.post("/login/code/", {"code": recovery[3]})["Location"] == "/"
    assert client.get("/").status_code == 200
    client.post("/logout/")
    log_in(client)
    assert "Incorrect code" in words(client.post("/login/code/", {"code": recovery[3]}))
    assert client.post("/login/code/", {"code": code_of(secret)}).status_code == 302
    assert client.get("/").status_code == 200


def test_codes_are_not_to_be_guessed(client: Client, ann: User) -> None:
    log_in(client)
    secret, _ = set_up_factor(client)
    client.post("/logout/")
    log_in(client)
    for number in range(5):
        client.post("/login/code/", {"code": f"00000{number}"})
    client.post("/login/code/", {"code": code_of(secret)})
    assert client.get("/").status_code == 302


def test_switching_it_off_asks_who_it_is_and_is_noted(
    client: Client, ann: User, django_capture_on_commit_callbacks: Any
) -> None:
    log_in(client)
    with django_capture_on_commit_callbacks(execute=True):
        set_up_factor(client)
    session = client.session
    for each in session["account_authentication_methods"]:
        each["at"] -= 3600
    session.save()
    asked = client.post("/account/second-factor/remove/")["Location"]
    assert asked.startswith("/login/again/") and Authenticator.objects.exists()
    client.post(asked, {"password": PASSWORD})  # and what was asked for is done
    assert not Authenticator.objects.exists()
    noted = list(AuditEntry.objects.values_list("actor", "action", "detail__kind"))
    assert ("ann", "add second factor", "totp") in noted
    assert ("ann", "remove second factor", "totp") in noted


def test_who_lost_phone_and_codes_is_helped_by_a_command(ann: User) -> None:
    with pytest.raises(CommandError, match="no second factor"):
        call_command("remove_second_factor", "ann")
    Authenticator.objects.create(user=ann, type="totp", data={})
    call_command("remove_second_factor", "ann")
    assert not Authenticator.objects.exists()
    assert AuditEntry.objects.get().subject == "ann"
    with pytest.raises(CommandError, match="No user"):
        call_command("remove_second_factor", "nobody")


def test_another_password_by_mail(client: Client, ann: User, settings: Any) -> None:
    settings.SENDS_MAIL, settings.PUBLIC_URL = True, "https://mail.example.com"
    for address in ("ann@example.com", "nobody@example.com"):
        answer = client.post("/password/reset/", {"email": address}, follow=True)
        assert "If an account has this address" in words(answer)
    (sent,) = mail.outbox
    assert sent.to == ["ann@example.com"]
    link = link_of(sent)
    page = client.get(link, follow=True)
    form = page.redirect_chain[-1][0]
    assert "common" in words(client.post(form, {"password1": "password", "password2": "password"}))
    client.post(form, {"password1": OTHER, "password2": OTHER})
    assert "used up" in words(client.get(link, follow=True))
    assert "do not match" in words(log_in(client))
    assert log_in(client, password=OTHER)["Location"] == "/"
    assert AuditEntry.objects.get().action == "reset password"


def test_without_a_mail_server_the_page_says_so(client: Client, ann: User) -> None:
    assert "has no mail server" in words(client.get("/password/reset/"))
    assert client.post("/password/reset/", {"email": "ann@example.com"}).status_code == 405
    assert mail.outbox == []


def test_a_mail_server_that_fails_tells_nobody_who_is_known(
    client: Client, ann: User, settings: Any
) -> None:
    settings.SENDS_MAIL = True
    closed = {"host": "127.0.0.1", "port": 9, "timeout": 1}
    smtp = "django.core.mail.backends.smtp.EmailBackend"
    settings.MAILERS = {"default": {"BACKEND": smtp, "OPTIONS": closed}}
    answer = client.post("/password/reset/", {"email": "ann@example.com"}, follow=True)
    assert "If an account has this address" in words(answer)


def test_another_password_ends_other_sessions_only(client: Client, ann: User) -> None:
    elsewhere = Client()
    for each in (client, elsewhere):
        log_in(each)
    changed = {"oldpassword": PASSWORD, "password1": OTHER, "password2": OTHER}
    assert "the same password" in words(client.post("/password/", changed | {"password2": "x"}))
    assert client.post("/password/", changed).status_code == 302
    assert client.get("/").status_code == 200
    assert elsewhere.get("/").status_code == 302
