"""``make test`` itself: what it says of what it leaves out, and that CI leaves out nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MIXED = """
import os, pytest
def test_a(): pytest.skip('no such thing here')
def test_b(): assert not {'DEBUG', 'WEBHOOK_APP_ID'} & set(os.environ)  # settings of the shell
"""
SKIPPED_MODULE = "import pytest\npytest.importorskip('no_such_module')\n"


def run_tests(folder: Path, text: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """``python -m tests`` for one file with our conftest, where no engine can be reached."""
    (folder / "test_it.py").write_text(text)
    (folder / "conftest.py").write_text("from tests.conftest import *\n")
    kept = {name: text for name, text in os.environ.items() if not name.startswith("SENDWATCH_")}
    nowhere = {
        "TEST_DATABASE_URL": "postgres://postgres@127.0.0.1:1/sendwatch",
        "TEST_REDIS_URL": "redis://127.0.0.1:1/0",
        "CI": "",
    }
    command = [
        sys.executable,
        "-m",
        "tests",
        "-n0",
        "--dist=no",
        "--rootdir",
        str(ROOT),
        str(folder),
    ]
    return subprocess.run(
        [*command, "-c", str(ROOT / "pyproject.toml")],
        cwd=ROOT, env=kept | nowhere | variables,
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_what_is_missing_is_named_and_the_rest_is_run(tmp_path: Path) -> None:
    done = run_tests(tmp_path, MIXED, DEBUG="maybe", WEBHOOK_APP_ID="x")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed, 1 skipped" in done.stdout
    assert "no such thing here" in done.stdout
    assert "because PostgreSQL does not answer at 127.0.0.1" in done.stdout
    assert "because Redis does not answer at 127.0.0.1" in done.stdout


def test_under_ci_a_missing_engine_is_a_failure(tmp_path: Path) -> None:
    done = run_tests(tmp_path, "def test_a(): pass\n", CI="true")
    assert "1 passed" in done.stdout
    assert done.returncode == 1


@pytest.mark.parametrize(("text", "failed"), [(MIXED, "1 failed"), (SKIPPED_MODULE, "1 error")])
def test_under_ci_a_skipped_test_is_a_failure(tmp_path: Path, text: str, failed: str) -> None:
    done = run_tests(tmp_path, text, CI="true")
    assert "skipped, which CI does not allow" in done.stdout
    assert failed in done.stdout
