import pytest

from config.environment import DATABASE_SCHEMES, Environment


@pytest.mark.parametrize(
    ("text", "value"),
    [("1", True), ("TRUE", True), ("yes", True), (" on ", True), ("0", False), ("No", False)],
)
def test_a_flag_is_read_in_the_usual_words(text: str, value: bool) -> None:
    read = Environment({"DEBUG": text})
    assert read.flag("DEBUG", default=not value) is value
    assert read.problems == []


@pytest.mark.parametrize("default", [True, False])
def test_an_unreadable_flag_is_a_problem_and_stays_at_its_default(default: bool) -> None:
    read = Environment({"DEBUG": "maybe"})
    assert read.flag("DEBUG", default=default) is default
    assert read.problems == ["DEBUG='maybe' is neither on (1, true, yes) nor off (0, false, no)"]


def test_an_unreadable_number_is_a_problem() -> None:
    read = Environment({"EVENT_RETENTION_DAYS": "abc"})
    assert read.number("EVENT_RETENTION_DAYS", default=180) == 180
    assert read.problems == ["EVENT_RETENTION_DAYS='abc' is not a whole number"]


def test_an_empty_variable_counts_as_not_set() -> None:
    read = Environment({"A": ""})
    assert read.flag("A", default=True) is True
    assert read.number("A", default=7) == 7
    assert read.text("A", default="x") == "x"
    assert read.words("A", default=["x"]) == ["x"]
    assert read.choice("A", default="INFO", choices=("INFO",)) == "INFO"
    assert read.url("A", schemes=("redis",)) == ""
    assert read.problems == []


def test_words_are_separated_by_commas() -> None:
    read = Environment({"ALLOWED_HOSTS": "a.example, b.example,,"})
    assert read.words("ALLOWED_HOSTS", default=[]) == ["a.example", "b.example"]


def test_keys_on_one_line_get_their_line_breaks_back() -> None:
    assert Environment({"KEYS": r"BEGIN\nabc\nEND"}).multiline("KEYS") == "BEGIN\nabc\nEND"


def test_a_choice_is_read_in_any_case_and_refused_otherwise() -> None:
    read = Environment({"A": "debug", "B": "loud"})
    assert read.choice("A", default="INFO", choices=("DEBUG", "INFO")) == "DEBUG"
    assert read.choice("B", default="INFO", choices=("DEBUG", "INFO")) == "INFO"
    assert read.problems == ["B='loud' is none of DEBUG, INFO"]


def test_a_url_of_another_kind_is_refused_without_showing_its_password() -> None:
    read = Environment({"REDIS_URL": "http://user:secret@host"})
    assert read.url("REDIS_URL", schemes=("redis", "rediss")) == ""
    assert read.problems == ["REDIS_URL does not begin with one of redis://, rediss://"]


@pytest.mark.parametrize("url", ["sqlite://", "postgres://host:port/name", "postgres://host"])
def test_a_database_that_cannot_be_meant_is_a_problem(url: str) -> None:
    read = Environment({})
    config = read.database("DATABASE_URL", url, default="sqlite:////tmp/kept.sqlite3")
    assert config["NAME"] == "/tmp/kept.sqlite3"
    assert len(read.problems) == 1


@pytest.mark.parametrize(
    ("url", "engine", "name"),
    [
        ("", "django.db.backends.sqlite3", "/data/x.sqlite3"),
        ("sqlite:////srv/a.sqlite3", "django.db.backends.sqlite3", "/srv/a.sqlite3"),
        ("postgres://u:p@h:5433/mail", "django.db.backends.postgresql", "mail"),
        ("postgresql://u:p@h/mail", "django.db.backends.postgresql", "mail"),
    ],
)
def test_a_database_url_names_engine_and_database(url: str, engine: str, name: str) -> None:
    read = Environment({"DATABASE_URL": url})
    asked = read.url("DATABASE_URL", schemes=DATABASE_SCHEMES)
    config = read.database("DATABASE_URL", asked, default="sqlite:////data/x.sqlite3")
    assert (config["ENGINE"], config["NAME"], read.problems) == (engine, name, [])
