"""The environment: typed, strict, and with a sentence for what cannot be read."""

import pytest

from config.environment import Environment

KEPT = "sqlite:////data/kept.sqlite3"


@pytest.mark.parametrize(
    ("text", "value"),
    [("1", True), ("TRUE", True), ("yes", True), ("on", True), ("0", False), ("No", False)],
)
def test_a_flag_is_read_in_the_usual_words(
    monkeypatch: pytest.MonkeyPatch, text: str, value: bool
) -> None:
    monkeypatch.setenv("A_FLAG", text)
    read = Environment()
    assert read.flag("A_FLAG", default=not value) is value
    assert read.problems == []


def test_what_cannot_be_read_is_a_problem_and_stays_at_its_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, text in (("A_FLAG", "maybe"), ("A_NUMBER", "abc"), ("A_CHOICE", "loud")):
        monkeypatch.setenv(name, text)
    read = Environment()
    assert read.flag("A_FLAG", default=True) is True
    assert read.number("A_NUMBER", default=180) == 180
    assert read.choice("A_CHOICE", default="INFO", choices=("DEBUG", "INFO")) == "INFO"
    assert [name for p in read.problems for name in ("FLAG", "NUMBER", "CHOICE") if name in p] == [
        "FLAG",
        "NUMBER",
        "CHOICE",
    ]


def test_an_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMPTY", " ")
    read = Environment()
    assert read.flag("EMPTY", default=True) is True
    assert read.number("EMPTY", default=7) == 7
    assert read.text("EMPTY", default="x") == "x"
    assert read.words("EMPTY", default=["x"]) == ["x"]
    assert read.choice("EMPTY", default="INFO", choices=("INFO",)) == "INFO"
    assert read.url("EMPTY", schemes=("redis",)) == ""
    assert read.problems == []


def test_words_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORDS", "a.example, b.example,,")
    assert Environment().words("WORDS", default=[]) == ["a.example", "b.example"]


def test_keys_on_one_line_get_their_line_breaks_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYS", r"BEGIN\nabc\nEND")
    assert Environment().text("KEYS") == "BEGIN\nabc\nEND"


def test_a_choice_is_read_in_any_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_CHOICE", "debug")
    assert Environment().choice("A_CHOICE", default="INFO", choices=("DEBUG", "INFO")) == "DEBUG"


def test_a_url_of_another_kind_is_refused_without_showing_its_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("A_URL", "http://user:secret@host")
    read = Environment()
    assert read.url("A_URL", schemes=("redis", "rediss")) == ""
    assert "redis://, rediss://" in read.problems[0]
    assert "secret" not in read.problems[0]


@pytest.mark.parametrize("url", ["sqlite://", "postgres://host", "mysql://u:secret@host/name"])
def test_a_database_that_cannot_be_meant_is_a_problem(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("A_DATABASE", url)
    read = Environment()
    assert read.database("A_DATABASE", KEPT)["NAME"] == "/data/kept.sqlite3"
    assert len(read.problems) == 1
    assert "secret" not in read.problems[0]


@pytest.mark.parametrize(
    ("url", "engine", "name"),
    [
        ("", "django.db.backends.sqlite3", "/data/kept.sqlite3"),
        ("sqlite:////srv/a.sqlite3", "django.db.backends.sqlite3", "/srv/a.sqlite3"),
        ("postgres://u:p@h:5433/mail", "django.db.backends.postgresql", "mail"),
        ("postgresql://u:p@h/mail", "django.db.backends.postgresql", "mail"),
    ],
)
def test_a_database_url_names_engine_and_database(
    monkeypatch: pytest.MonkeyPatch, url: str, engine: str, name: str
) -> None:
    monkeypatch.setenv("A_DATABASE", url)
    read = Environment()
    config = read.database("A_DATABASE", KEPT)
    assert (config["ENGINE"], config["NAME"], read.problems) == (engine, name, [])


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("smtp://ann:p%40ss@mail.example", ("mail.example", 587, "ann", "p@ss", "use_tls")),
        ("smtps://mail.example:4650", ("mail.example", 4650, "", "", "use_ssl")),
    ],
)
def test_a_mail_server_is_a_url(
    monkeypatch: pytest.MonkeyPatch, url: str, expected: tuple[object, ...]
) -> None:
    monkeypatch.setenv("A_SERVER", url)
    read = Environment()
    options = read.mailers("A_SERVER")["default"]["OPTIONS"]
    assert (*[options[n] for n in ("host", "port", "username", "password")],) == expected[:4]
    assert options[expected[4]] is True
    assert read.problems == []


@pytest.mark.parametrize(
    "url", ["http://u:secret@mail", "smtp:secret", "smtp://u:secret@h:none", "smtp://h/secret"]
)
def test_a_mail_server_that_cannot_be_meant_is_a_problem(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("A_SERVER", url)
    read = Environment()
    assert read.mailers("A_SERVER") == {}
    assert len(read.problems) == 1 and "secret" not in read.problems[0]
    assert Environment().mailers("NOT_SET") == {}
