"""How make finds a Python, with interpreters made up for the test."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NAMES = ("python3.12", "python3.13", "python3.14", "python3")
# Like a pyenv shim without a version behind it, or a Python too old.
BROKEN = "#!/bin/sh\nexit 127\n"
# Answers the probe, and makes what stands in for a virtual environment.
WORKING = """#!/bin/sh
[ "$1" = -c ] && exit 0
mkdir -p .venv/bin && echo "$0" > .venv/bin/python
"""


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A project folder with a home and a bin in which every Python is broken."""
    for name in ("Makefile", "requirements.lock"):
        shutil.copy(ROOT / name, tmp_path)
    for name in NAMES:
        install(tmp_path / "bin" / name, BROKEN)
    return tmp_path


def install(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def make(machine: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = f"{machine / 'bin'}{os.pathsep}{os.defpath}"
    return subprocess.run(
        ["make", *arguments], cwd=machine, env={"PATH": path, "HOME": str(machine)},
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip


def chosen(machine: Path) -> str:
    return (machine / ".venv/bin/python").read_text().strip()


def test_without_a_python_one_line_says_what_is_missing(machine: Path) -> None:
    done = make(machine, "run")
    ours = [line for line in done.stderr.splitlines() if not line.startswith("make")]
    assert done.returncode != 0
    assert len(ours) == 1 and ours[0].startswith("Sendwatch needs Python 3.12, 3.13 or 3.14")
    assert not (machine / ".venv").exists()


@pytest.mark.parametrize("name", NAMES)
def test_the_one_that_runs_is_found(machine: Path, name: str) -> None:
    install(machine / "bin" / name, WORKING)
    assert make(machine, ".venv/bin/python").returncode == 0
    assert chosen(machine).endswith(f"/{name}")


def test_pyenvs_versions_are_found_behind_its_dead_shims(machine: Path) -> None:
    install(machine / ".pyenv/versions/3.11.7/bin/python3", WORKING)
    install(machine / ".pyenv/versions/3.13.0/bin/python3", WORKING)
    assert make(machine, ".venv/bin/python").returncode == 0
    assert "/3.13.0/" in chosen(machine)


def test_a_python_named_by_hand_comes_first(machine: Path) -> None:
    install(machine / "bin" / "python3.13", WORKING)
    install(machine / "mine", WORKING)
    assert make(machine, ".venv/bin/python", f"PYTHON={machine / 'mine'}").returncode == 0
    assert chosen(machine).endswith("/mine")


def test_a_python_that_is_too_old_does_not_count(machine: Path) -> None:
    (machine / "bin" / "python3.12").unlink()
    install(machine / "bin" / "python3.12", '#!/bin/sh\ncase "$2" in *3,\\ 12*) exit 1;; esac\n')
    assert make(machine, "run").returncode != 0


@pytest.mark.parametrize(
    ("demo", "flag"), [("1", "--demo"), ("0", "--no-demo"), ("no", "--no-demo")]
)
def test_run_passes_its_variables_on(machine: Path, demo: str, flag: str) -> None:
    plan = make(machine, "--dry-run", "run", "PORT=8123", f"DEMO={demo}").stdout
    assert plan.replace("\\\n", " ").split()[-5:] == ["serve", "--prepare", "--port", "8123", flag]


def test_what_is_installed_is_not_installed_again(machine: Path) -> None:
    install(machine / "bin" / "python3.13", WORKING)
    make(machine, ".venv/bin/python")
    (machine / ".venv/run-installed").touch()
    assert "pip" not in make(machine, "--dry-run", "run").stdout
    os.utime(machine / "requirements.lock", (2**31, 2**31))
    assert "--require-hashes" in make(machine, "--dry-run", "run").stdout
