import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ingest.checks import check_settings, is_sqlite_repaired, refuse_wrong_settings

ROOT = Path(__file__).resolve().parents[2]


def ids() -> set[str | None]:
    # The version of SQLite is the machine's, not a setting.
    return {message.id for message in check_settings()} - {"sendwatch.W001"}


def test_the_settings_as_they_come_are_right() -> None:
    assert ids() == set()


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("ENVIRONMENT_PROBLEMS", ["DEBUG='maybe' is neither"], "sendwatch.E001"),
        ("WEBHOOK_ED25519_KEYS", "no key", "sendwatch.E003"),
        ("WEBHOOK_EXTRA_ED25519_KEYS", "/no/such/file.pem", "sendwatch.E003"),
        ("WEBHOOK_RSA_KEYS", "-----BEGIN PUBLIC KEY-----", "sendwatch.E004"),
        ("WEBHOOK_QUARANTINE", True, "sendwatch.W003"),
        ("EVENT_RETENTION_DAYS", 0, "sendwatch.E005"),
        ("PAYLOAD_RETENTION_DAYS", -1, "sendwatch.E005"),
        ("PAYLOAD_RETENTION_DAYS", 400, "sendwatch.W002"),
        ("PUBLIC_URL", "mail.example.com", "sendwatch.E006"),
        ("PUBLIC_URL", "https://mail.example.com/path", "sendwatch.E006"),
        ("PUBLIC_URL", "https://mail.example.com:port", "sendwatch.E006"),
        ("PUBLIC_URL", "https://[::1", "sendwatch.E006"),
        ("PUBLIC_URL", "ftp://mail.example.com", "sendwatch.E006"),
    ],
)
def test_a_wrong_setting_has_an_id_and_a_hint(
    settings: Any, name: str, value: Any, expected: str
) -> None:
    setattr(settings, name, value)
    assert ids() == {expected}
    assert all(message.hint for message in check_settings())


@pytest.mark.parametrize("url", ["https://mail.example.com", "http://127.0.0.1:8000"])
def test_a_public_url_is_scheme_and_host(settings: Any, url: str) -> None:
    settings.PUBLIC_URL = url
    assert ids() == set()


def test_postgresql_needs_a_secret_key(settings: Any) -> None:
    settings.EMBEDDED, settings.SECRET_KEY = False, ""
    assert ids() == {"sendwatch.E002"}


@pytest.mark.parametrize(
    ("version", "repaired"),
    [
        ((3, 40, 1), False),
        ((3, 44, 5), False),
        ((3, 44, 6), True),
        ((3, 45, 0), False),
        ((3, 50, 6), False),
        ((3, 50, 7), True),
        ((3, 51, 2), False),
        ((3, 51, 3), True),
        ((3, 52, 0), True),
        ((4, 0, 0), True),
    ],
)
def test_which_sqlite_is_repaired(version: tuple[int, int, int], repaired: bool) -> None:
    assert is_sqlite_repaired(version) is repaired


def test_a_server_that_runs_no_checks_ends_with_the_sentences(settings: Any) -> None:
    settings.PUBLIC_URL = "nonsense"
    with pytest.raises(SystemExit, match=r"sendwatch\.E006: PUBLIC_URL='nonsense'"):
        refuse_wrong_settings()


def test_a_warning_stops_nothing(settings: Any) -> None:
    settings.PAYLOAD_RETENTION_DAYS = 400
    refuse_wrong_settings()


@pytest.mark.parametrize(
    "wrong",
    [
        {"DEBUG": "maybe", "EVENT_RETENTION_DAYS": "abc", "DATABASE_URL": "mysql://host/name"},
        {"DATABASE_URL": "postgres://postgres@127.0.0.1/mail"},  # and no SECRET_KEY
        {"DATA_DIR": "/dev/null/data", "WEBHOOK_ED25519_KEYS": "/no/such/file.pem"},
    ],
    ids=lambda wrong: "=".join(next(iter(wrong.items()))).partition("://")[0],
)
def test_whatever_is_wrong_in_the_environment_ends_in_a_sentence(
    wrong: dict[str, str], tmp_path: Path
) -> None:
    environment = {"PATH": os.environ["PATH"], "DATA_DIR": str(tmp_path)} | wrong
    done = subprocess.run(
        [sys.executable, "manage.py", "serve", "--prepare", "--port", "0"],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "sendwatch.E00" in done.stderr
    assert "Traceback" not in done.stderr
    assert "does not start" in done.stderr.splitlines()[-1]
