"""What all tests share: files of their own, signed bodies, a browser, and no silent skips."""

import base64
import os
import shutil
import tempfile
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.conf import settings as django_settings

from tests.serving import CHROMIUM_FLAGS, Server, find_chromium, running, templates

IN_CI = os.environ.get("CI", "").lower() in ("1", "true")
FILES_VARIABLE = "SENDWATCH_TEST_FILES"
DATABASE_FIXTURES = {"db", "transactional_db", "django_db_reset_sequences", "live_server"}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--only-database",
        action="store_true",
        help="Run only what touches the database: the rest was run on another engine already.",
    )


def pytest_configure(config: pytest.Config) -> None:
    # One folder a run, shared by xdist's workers (each has its own suffix): never DATA_DIR's own.
    if FILES_VARIABLE not in os.environ:
        os.environ[FILES_VARIABLE] = tempfile.mkdtemp(prefix="sendwatch-tests-")
        config.add_cleanup(_remove_files)
    files = Path(os.environ[FILES_VARIABLE])
    django_settings.DATA_DIR = files
    django_settings.STATIC_ROOT = files / "static"
    django_settings.STATIC_ROOT.mkdir(exist_ok=True)
    # Of this run alone, so that two runs on one machine do not drop each other's.
    name = str(files / "test.sqlite3") if django_settings.EMBEDDED else f"test_{files.name}"
    django_settings.DATABASES["default"].setdefault("TEST", {})["NAME"] = name
    # Accounts are many in tests, and their passwords no secrets.
    django_settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    # Names without hashes: nothing is collected for tests. `serve --prepare` tests the others.
    plain = {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}
    django_settings.STORAGES = {**django_settings.STORAGES, "staticfiles": plain}


def _remove_files() -> None:
    shutil.rmtree(os.environ.pop(FILES_VARIABLE), ignore_errors=True)


def pytest_sessionfinish() -> None:
    templates.close()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    only_database = config.getoption("--only-database")
    left_out = [item for item in items if not _belongs(item, only_database)]
    config.hook.pytest_deselected(items=left_out)
    # The browser's last: Playwright leaves a running event loop behind, in which none can be begun.
    items[:] = sorted((item for item in items if _belongs(item, only_database)), key=_in_browser)


def _belongs(item: pytest.Item, only_database: bool) -> bool:
    if django_settings.EMBEDDED and item.get_closest_marker("postgresql_only"):
        return False
    return _touches_database(item) or not only_database


def _in_browser(item: pytest.Item) -> bool:
    return "playwright" in getattr(item, "fixturenames", ())


def _touches_database(item: pytest.Item) -> bool:
    marked = any(item.get_closest_marker(name) for name in ("django_db", "both_engines"))
    return marked or bool(DATABASE_FIXTURES & set(getattr(item, "fixturenames", ())))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """Under CI a skipped test is a failed one: what the machine lacks must be seen."""
    report: Any = yield
    if IN_CI and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid}: skipped, which CI does not allow: {report.longrepr}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Generator[None, Any, Any]:
    report: Any = yield
    if IN_CI and report.skipped:
        report.outcome = "failed"
        report.longrepr = f"{collector.nodeid}: skipped, which CI does not allow: {report.longrepr}"
    return report


@pytest.fixture(autouse=True)
def forget_answers(request: pytest.FixtureRequest) -> None:
    """What a process keeps of large fleets for seconds is not kept for the next test."""
    if _touches_database(request.node):
        from dashboard.refreshed import forget_all  # not for tests that need no Django

        forget_all()


@pytest.fixture(scope="session")
def engine() -> str:
    """The database that this run tests with: "sqlite" or "postgresql"."""
    return "sqlite" if django_settings.EMBEDDED else "postgresql"


# On PostgreSQL the one that serves there; what stops and is killed is tested with both on both.
SERVERS = ["uvicorn"] if "DATABASE_URL" in os.environ else ["daphne", "uvicorn"]


@pytest.fixture(scope="module", params=SERVERS)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, engine: str
) -> Iterator[Server]:
    """A real server of a kind, with a database of its own that a module's tests share."""
    with running(request.param, engine, tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture
def signing_key(settings: Any) -> Ed25519PrivateKey:
    """A private key whose signatures this test's webhooks are verified with."""
    key = Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    settings.WEBHOOK_ED25519_KEYS = public.decode()
    return key


@pytest.fixture
def sign(signing_key: Ed25519PrivateKey) -> Callable[[bytes], str]:
    """``sign(body)`` is the value of X-GHL-Signature for the raw body."""
    return lambda body: base64.b64encode(signing_key.sign(body)).decode()


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of a Chromium. Skips without one."""
    found = find_chromium()
    if found is None:
        pytest.skip("no Chromium: install chromium, or name one in CHROMIUM")
    return found


@pytest.fixture(scope="session")
def browser_type_launch_args(
    browser_type_launch_args: dict[str, Any], chromium: str
) -> dict[str, Any]:
    """Playwright drives the machine's Chromium, so that none has to be downloaded."""
    return {**browser_type_launch_args, "executable_path": chromium, "args": [*CHROMIUM_FLAGS]}
