"""The JSON API over HTTP: who may ask, what is answered, and what is refused; health checks."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import DatabaseError, connection
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder
from django.test import Client
from django.urls import reverse

from dashboard import bounded, health, queries, urls
from dashboard.models import ApiToken, Membership
from ingest import fold
from ingest.normalize import Detail
from ingest.vocabulary import BounceClass, Category, EventKind, Outcome
from tests.dashboard import rows
from tests.dashboard.test_bounded import ask_for_ever

pytestmark = pytest.mark.django_db
PATHS = ("/api/rates/", "/api/events/", "/api/deliveries/", "/api/deliveries/1/")
RECENT = datetime.now(UTC) - timedelta(minutes=5)


@pytest.fixture
def staff() -> User:
    return User.objects.create_user("operator", is_staff=True)


@pytest.fixture
def viewer() -> User:
    return User.objects.create_user("viewer")


@pytest.fixture
def web(staff: User) -> Client:
    client = Client()
    client.force_login(staff)
    return client


def bearer(user: User, **options: Any) -> Client:
    token = ApiToken.issue(user_id=user.pk, **options)
    return Client(headers={"Authorization": f"Bearer {token}"})


def refusal(client: Client, url: str) -> tuple[int, Any]:
    answer = client.get(url)
    return answer.status_code, answer.json()


# --- Who may ask ---------------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
def test_strangers_are_refused_in_json(path: str) -> None:
    answer = Client().get(path)
    assert answer.status_code == 401
    assert answer["WWW-Authenticate"] == "Bearer"
    assert answer.json() == {"error": "Log in, or send a valid token as a Bearer header."}


def test_session_and_token_open_the_same_door(web: Client, staff: User) -> None:
    rows.delivery(1, sent_at=RECENT)
    by_session, by_token = web.get("/api/rates/"), bearer(staff).get("/api/rates/")
    assert by_session.status_code == by_token.status_code == 200
    assert by_session.json()["total"] == by_token.json()["total"]
    assert "private" in by_session["Cache-Control"]


def test_a_bad_token_is_refused_whatever_the_session_says(web: Client) -> None:
    assert web.get("/api/rates/", headers={"Authorization": "Bearer sw_no"}).status_code == 401
    assert web.get("/api/rates/", headers={"Authorization": "Basic eDp5"}).status_code == 200


def test_an_inactive_user_is_refused(web: Client, staff: User) -> None:
    clients = (web, bearer(staff))
    User.objects.update(is_active=False)
    assert [client.get("/api/rates/").status_code for client in clients] == [401, 401]


def test_a_token_is_good_for_its_scopes_only(staff: User) -> None:
    api = [each for each in urls.urlpatterns if str(each.name).startswith("api-")]
    paths = {"/" + str(each.pattern).replace("<int:pk>", "1") for each in api}
    reads = {"/suggest/", "/metrics"} | paths - {"/api/deliveries/export/"}
    exports = {"/api/deliveries/export/", *(f"{path}?format=csv" for path in reads)}
    assert len(paths) > 8
    for scope, refused in (("read", exports), ("export", reads)):
        client = bearer(staff, scopes=[scope])
        answers = {path: client.get(path) for path in reads | exports}
        assert {path for path, got in answers.items() if got.status_code == 403} == refused
        assert all(list(answers[path].json()) == ["error"] for path in refused)


def test_only_reading_is_allowed(web: Client) -> None:
    answer = web.post("/api/rates/")
    assert (answer.status_code, answer["Allow"]) == (405, "GET, HEAD")
    assert web.head("/api/rates/").status_code == 200


def test_members_see_their_locations_only(viewer: User) -> None:
    mine = rows.delivery(1, location_ref="mine", sent_at=RECENT)
    hidden = rows.delivery(2, location_ref="hidden", sent_at=RECENT)
    for of in (mine, hidden):
        rows.event(of)
    Membership.objects.create(user=viewer, location=mine.location)
    client = bearer(viewer)
    for path in ("/api/events/", "/api/deliveries/"):
        assert [row["location"] for row in client.get(path).json()["results"]] == ["mine"]
    found = client.get("/api/rates/?by=sending_domain&outcome=delivered").json()
    assert found["total"]["sent"] == 1
    assert client.get(f"/api/deliveries/{mine.pk}/").status_code == 200
    assert refusal(client, f"/api/deliveries/{hidden.pk}/") == refusal(client, "/api/deliveries/9/")
    for path in PATHS[:3]:
        missing = refusal(client, f"{path}?location=nowhere")
        assert refusal(client, f"{path}?location=hidden") == missing
        assert missing == (404, {"error": "There is no such location."})


# --- What is refused -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("/api/rates/?colour=red", "There is no filter named “colour”."),
        ("/api/rates/?limit=0", "limit is a number from 1 to 1,000."),
        ("/api/rates/?limit=²", "limit is a number from 1 to 1,000."),
        ("/api/rates/?by=tag&by=hour", "by can be given only once."),
        ("/api/rates/?q=ann", "q searches deliveries and events; rates cannot be asked with it."),
        ("/api/rates/?after=1", "There is no filter named “after”."),
        ("/api/events/?after=-1", "after is a number from 0 to 9,223,372,036,854,775,807."),
        ("/api/events/?after=", "after is a number from 0 to 9,223,372,036,854,775,807."),
        ("/api/events/?outcome=gone", None),
        ("/api/deliveries/?before=x", "before is not the end of a page."),
        ("/api/deliveries/?range=5m", None),
    ],
)
def test_what_cannot_be_asked_is_answered_with_a_sentence(
    web: Client, url: str, sentence: str | None
) -> None:
    answer = web.get(url)
    assert answer.status_code == 400
    assert answer.json()["error"] == sentence or sentence is None


# --- What is answered ----------------------------------------------------------------------


def test_rates_say_what_they_are_of(web: Client) -> None:
    rows.delivery(1, sent_at=RECENT, provider="Gmail")
    rows.delivery(2, sent_at=RECENT, outcome=Outcome.BOUNCED, bounce_class=1)
    rows.delivery(3, sent_at=RECENT - timedelta(days=3))
    found = web.get("/api/rates/?by=provider&sort=key&outcome=-test").json()
    assert [row["key"] for row in found["rows"]] == ["(none)", "Gmail"]
    assert found["rows"][0]["hard_bounce_rate"]["value"] == 1
    rate = found["rows"][1]["hard_bounce_rate"]
    assert (rate["value"], rate["numerator"], rate["denominator"]) == (0, 0, 1)
    assert (found["total"]["sent"], found["overlap"], found["by"]) == (2, False, "provider")
    assert datetime.fromisoformat(found["from"]).minute == 0
    assert datetime.fromisoformat(found["to"]) > RECENT


def test_events_are_followed_to_the_newest(web: Client) -> None:
    ids = [rows.event(rows.delivery(n, tags=("a b",) if n % 2 else ())).pk for n in range(7)]
    url, seen = "/api/events/?tag=a%20b&limit=2", []
    while url:
        found = web.get(url).json()
        seen += [row["cursor"] for row in found["results"]]
        assert found["next"] is None or found["next"].startswith("http://testserver/api/events/?")
        url = found["next"]
    assert seen == ids[1::2]
    assert found["cursor"] == ids[-1]
    assert web.get(f"/api/events/?after={ids[-1]}").json() == {
        "results": [], "next": None, "cursor": ids[-1], "complete_from": None,
    }  # fmt: skip


def test_pruned_events_are_gone_and_said_to_be(web: Client) -> None:
    ids = [rows.event(rows.delivery(n)).pk for n in range(4)]
    assert web.get("/api/events/?after=0").status_code == 200
    with rows.horizon(events_cursor=ids[2], events_hour=500_000, deliveries_hour=500_001):
        answer = web.get(f"/api/events/?after={ids[0]}")
        assert (answer.status_code, answer.json()["oldest"]) == (410, ids[3])
        assert answer.json()["error"].endswith(f" are no longer kept: go on after {ids[2]}.")
        assert web.get(f"/api/events/?after={ids[2] + 1}").json()["complete_from"] is None
        found = [web.get(path).json()["complete_from"] for path in PATHS[1:3]]
        assert found == ["2027-01-15T08:00:00+00:00", "2027-01-15T09:00:00+00:00"]


def test_what_takes_too_long_is_answered_with_a_sentence(
    web: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounded, "LONGEST", 0.05)
    monkeypatch.setattr(queries, "_delivery_rows", lambda deliveries, rights: ask_for_ever())
    assert refusal(web, "/api/deliveries/") == (
        503, {"error": "This took too long and was stopped: ask for less time or one location."},
    )  # fmt: skip


def test_deliveries_are_followed_to_the_oldest(web: Client) -> None:
    made = [rows.delivery(n, sent_at=RECENT - timedelta(minutes=n)).pk for n in range(5)]
    url, seen = "/api/deliveries/?limit=2&domain=example.com", []
    while url:
        found = web.get(url).json()
        seen += [row["id"] for row in found["results"]]
        url = found["next"]
    assert seen == made


def test_a_delivery_comes_with_its_events(web: Client) -> None:
    of = rows.delivery(1)
    event = rows.event(of)
    found = web.get(f"/api/deliveries/{of.pk}/").json()
    assert (found["id"], found["recipient"]) == (of.pk, "r1@example.com")
    assert [row["cursor"] for row in found["events"]] == [event.pk]
    assert (found["classification"], found["attempts"]) == (None, [])
    assert found["events"][0]["classification"] is None


def test_a_refused_delivery_says_why_in_words(web: Client) -> None:
    failure = fold.Failure(3, 2_000_000, rows.key(RECENT, 2).hex(), 550, 1, 1, "5.1.1")
    attempts = [fold.Attempt(EventKind.DEFERRED, "192.0.2.1", "p", "", 1_000_000)]
    of = rows.delivery(
        1, outcome=Outcome.BOUNCED, category=Category.INVALID_RECIPIENT, provider="Gmail",
        bounce_class=BounceClass.HARD, sent_at=RECENT,
        facts=fold.dump_facts(fold.Facts(failure=failure, attempts=attempts)),
    )  # fmt: skip
    for kind, said, category in (
        (EventKind.DEFERRED, "4.7.0 try again later", Category.GREYLISTED),
        (EventKind.BOUNCED, "5.1.1 no such user here", Category.INVALID_RECIPIENT),
    ):
        rows.event(of, kind=kind, category=category, detail=Detail(message=said))
    found = web.get(f"/api/deliveries/{of.pk}/").json()
    assert found["classification"] == found["events"][1]["classification"]
    assert found["classification"].keys() == {
        "rule", "category", "class", "means", "do", "highlevel", "scope", "fix_by",
    }  # fmt: skip
    assert found["classification"]["fix_by"] == "client_list"
    assert found["events"][0]["classification"]["category"] == "greylisted"
    assert found["attempts"] == [
        {"kind": "deferred", "ip": "192.0.2.1", "pool": "p", "mx": None,
         "at": "1970-01-01T00:00:01+00:00"},
    ]  # fmt: skip


# --- Health --------------------------------------------------------------------------------


def test_health_is_open_to_all() -> None:
    assert Client().get("/healthz").content == b"ok\n"
    assert (Client().get("/readyz").status_code, Client().get("/readyz").json()) == (
        200, {"ready": True},
    )  # fmt: skip


def test_a_missing_migration_is_not_ready_until_it_is_applied() -> None:
    health._migrated.cache_clear()
    applied = MigrationRecorder(connection)
    ((app, newest),) = MigrationLoader(connection).graph.leaf_nodes("ingest")
    applied.record_unapplied(app, newest)
    answer = Client().get("/readyz")
    assert (answer.status_code, answer.json()) == (
        503, {"ready": False, "migrations": "not applied"},
    )  # fmt: skip
    applied.record_applied(app, newest)
    assert Client().get("/readyz").status_code == 200


def test_an_unreachable_layer_is_not_ready(settings: Any) -> None:
    settings.CHANNEL_LAYERS = {
        "default": {
            "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
            "CONFIG": {"hosts": ["redis://127.0.0.1:1/0"]},
        }
    }
    answer = Client().get("/readyz")
    assert answer.status_code == 503
    assert set(answer.json()) == {"ready", "layer"}


def test_a_database_that_fails_is_not_ready_and_still_alive() -> None:
    def fail(*call: Any) -> None:
        raise DatabaseError("gone")

    health._migrated.cache_clear()
    with connection.execute_wrapper(fail):
        answer = Client().get("/readyz")
        assert (answer.status_code, answer.json()["database"]) == (503, "DatabaseError")
        assert Client().get("/healthz").status_code == 200


# --- Accounts ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["dashboard:overview", "password_change"])
def test_pages_lead_strangers_to_the_login(name: str) -> None:
    answer = Client().get(reverse(name))
    assert (answer.status_code, answer["Location"].split("?")[0]) == (302, "/login/")


def test_logging_in_and_out() -> None:
    User.objects.create_user("ann", password="correct horse")
    client = Client()
    answer = client.post("/login/", {"username": "ann", "password": "correct horse"})
    assert (answer.status_code, answer["Location"]) == (302, "/")
    assert client.post("/logout/")["Location"] == "/login/"
    assert client.get("/").status_code == 302


def test_metrics_are_for_those_who_see_everything(web: Client, viewer: User) -> None:
    answer = web.get("/metrics")
    assert answer.status_code == 200
    assert b"sendwatch_webhooks_total" in answer.content
    assert Client().get("/metrics").status_code == 401
    assert bearer(viewer).get("/metrics").status_code == 404


def test_browsers_find_an_icon_on_pages_that_name_none() -> None:
    answer = Client().get("/favicon.ico")
    assert (answer.status_code, answer["Location"].endswith(".svg")) == (302, True)
