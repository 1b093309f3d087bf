"""What the layout promises: which way imports go, what templates and locks may hold."""

import ast
import re
import subprocess
from collections.abc import Iterator
from html.parser import HTMLParser
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FORBIDDEN = {
    "ingest": {"dashboard", "config", "bench", "tests"},
    "dashboard": {"config", "bench", "tests"},
}
PURE = (
    "ingest/verify.py",
    "ingest/normalize.py",
    "ingest/classify.py",
    "ingest/fingerprint.py",
    "ingest/fold.py",
    "ingest/counted.py",
    "ingest/vocabulary.py",
    "dashboard/rates.py",
    "dashboard/judging.py",
    "dashboard/sight.py",
    "dashboard/charts.py",
    "config/environment.py",
    "config/secret_key.py",
)
TOP_LEVEL = {
    "CHANGELOG.md", "LICENSE", "Makefile", "README.md", "bench", "config", "dashboard", "docs",
    "ingest", "manage.py", "pyproject.toml", "requirements-dev.lock", "requirements.lock",
    "static", "templates", "tests",
}  # fmt: skip
LOCKS = ("requirements.lock", "requirements-dev.lock")


def tracked() -> list[str]:
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return listed.stdout.splitlines()


def imported(path: Path) -> Iterator[str]:
    """Full names of all that the file imports, inside of functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = path.relative_to(ROOT).parent.parts[: -node.level + 1 or None]
            prefix = ".".join(base) + "." if node.level else ""
            module = f"{prefix}{node.module or ''}".strip(".")
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("package", FORBIDDEN)
def test_imports_go_one_way(package: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in (ROOT / package).rglob("*.py")
        for name in imported(path)
        if name.split(".")[0] in FORBIDDEN[package]
    ]
    assert wrong == []


def test_what_runs_is_locked_for_running() -> None:
    """What only development needs is not installed where mail is watched."""
    locked = set(re.findall(r"^(\S+)==", (ROOT / "requirements.lock").read_text(), re.M))
    packages = packages_distributions()
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for package in (*FORBIDDEN, "config")
        for path in (ROOT / package).rglob("*.py")
        for name in {full.split(".")[0] for full in imported(path)}
        if (found := {re.sub("[_.]", "-", each).lower() for each in packages.get(name, ())})
        and not found & locked
    ]
    assert wrong == []


def django_free(path: Path, seen: set[Path]) -> Iterator[str]:
    """Django's modules that the file imports, also by way of our own modules."""
    seen.add(path)
    for name in imported(path):
        if name.split(".")[0] in ("django", "channels"):
            yield f"{path.relative_to(ROOT)} imports {name}"
        own = ROOT / (name.replace(".", "/") + ".py")
        if own.is_file() and own not in seen:
            yield from django_free(own, seen)


@pytest.mark.parametrize("name", PURE)
def test_pure_modules_know_no_django(name: str) -> None:
    assert list(django_free(ROOT / name, set())) == []


class Inline(HTMLParser):
    """Gathers what a strict content security policy would block, or htmx would evaluate."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._in_script = False

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self._in_script = tag == "script" and dict(attributes).get("type") != "application/json"
        if tag == "style":
            self.found.append("<style>")
        for name, value in attributes:
            evaluated = (value or "").strip().startswith(("js:", "javascript:"))
            if name == "style" or name.startswith(("on", "hx-on", "data-hx-on")) or evaluated:
                self.found.append(f"{name}={value!r}")

    def handle_endtag(self, tag: str) -> None:
        self._in_script = False

    def handle_data(self, data: str) -> None:
        if self._in_script and data.strip():
            self.found.append(f"inline script {data.strip()[:40]!r}")


def inline_in(text: str) -> list[str]:
    # Tags between attributes would end the parser's attribute; comments may talk of anything.
    text = re.sub(r"{#.*?#}|{% comment %}.*?{% endcomment %}", "", text, flags=re.DOTALL)
    parser = Inline()
    parser.feed(re.sub(r"{%.*?%}", " ", text, flags=re.DOTALL))
    return parser.found


TEMPLATES = sorted((ROOT / "templates").rglob("*.*"))


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: str(path.relative_to(ROOT)))
def test_templates_hold_no_inline_style_or_script(path: Path) -> None:
    assert inline_in(path.read_text()) == []


@pytest.mark.parametrize(
    "text",
    [
        '<p style="color: red">',
        '<b {% if x %}style="width: 1px"{% endif %}>',
        "<style>p {}</style>",
        '<a onclick="go()">',
        '<a hx-on:click="go()">',
        "<a hx-vals='js:{a: 1}'>",
        '<a href="javascript:go()">',
        "<script>go()</script>",
    ],
)
def test_each_kind_of_inline_style_and_script_would_be_found(text: str) -> None:
    assert len(inline_in(text)) == 1


@pytest.mark.parametrize(
    "text",
    [
        '<script src="/static/js/live.js" defer></script>',
        '<script type="application/json" id="data">{"a": 1}</script>',
        '<rect height="3" class="style"/> once upon a time',
        "{# style= is not for templates #}",
    ],
)
def test_what_is_allowed_is_not_found(text: str) -> None:
    assert inline_in(text) == []


def test_the_top_level_is_the_plan() -> None:
    top = {name.split("/")[0] for name in tracked()}
    assert {name for name in top if not name.startswith(".")} <= TOP_LEVEL


def test_no_data_is_tracked() -> None:
    kept = re.compile(
        r"(^|/)(var|\.venv|__pycache__)(/|$)|\.sqlite3|\.pem$|secret_key$|login\.txt$"
    )
    assert [name for name in tracked() if kept.search(name)] == []


@pytest.mark.parametrize("name", LOCKS)
def test_locks_name_no_place(name: str) -> None:
    text = (ROOT / name).read_text()
    assert (
        re.findall(r"^.*(?:://|file:|^-|--index|--find|/(?:home|root|opt)/).*$", text, re.M) == []
    )


@pytest.mark.parametrize("name", LOCKS)
def test_locks_pin_and_hash_everything(name: str) -> None:
    requirements = re.sub(r"\\\n\s*", "", (ROOT / name).read_text()).splitlines()
    pinned = [line for line in requirements if not line.startswith("#")]
    assert len(pinned) > 20
    assert [line for line in pinned if "==" not in line or "--hash=sha256:" not in line] == []


def test_the_locks_agree() -> None:
    run, dev = (set(re.findall(r"^\S+==\S+", (ROOT / name).read_text(), re.M)) for name in LOCKS)
    assert run < dev


def test_every_dependency_is_locked_and_explained() -> None:
    project = (ROOT / "pyproject.toml").read_text().partition("[tool.")[0]
    names = [
        re.split(r"[^a-z0-9-]", found)[0]
        for found in re.findall(r'^    "([a-z].*)"', project, re.M)
    ]
    locked = (ROOT / "requirements-dev.lock").read_text()
    readme = (ROOT / "README.md").read_text().lower()
    assert [name for name in names if f"\n{name}==" not in locked] == []
    assert [name for name in names if f"| `{name}" not in readme] == []
