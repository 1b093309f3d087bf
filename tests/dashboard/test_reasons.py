"""Why mail is refused: each refusal once, how far it reaches, since when, and to whom it shows."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.http import Http404
from django.test import Client
from django.test.utils import CaptureQueriesContext

from dashboard import reasons
from dashboard.access import Rights
from dashboard.filters import Filter, FilterError, parse
from dashboard.models import Membership
from dashboard.refusals import Asked
from ingest.models import Event, Location, Reason, ReasonHour, Value, tag_ids
from ingest.normalize import NormalizedEvent
from tests.dashboard.lives import BEGAN, forget, lives, write
from tests.ingest.events import START, event

pytestmark = pytest.mark.django_db
ALL = Rights(everything=True)
HOUR = 3_600
NO_USER = {"code": 550, "enhanced": "5.1.1", "message": "no such user {rcpt} here"}
BLOCKED = {"code": 550, "enhanced": "5.7.1", "message": "[{ip}] is on our block list (S3150)"}
SLOW = {"code": 421, "enhanced": "4.7.0", "message": "try again later"}


@pytest.fixture(autouse=True)
def _forget_ids() -> Iterator[None]:
    forget()
    yield
    forget()


def keyed(told: NormalizedEvent) -> NormalizedEvent:
    """With a key that begins with its hour, as webhooks' have."""
    fields = {name: getattr(told, name) for name in told.__struct_fields__}
    fields["key"] = (told.occurred_at // 3_600_000_000).to_bytes(4) + told.key[4:]
    return NormalizedEvent(**fields)


def mail(
    number: int, at: float = 0, *, reply: dict[str, Any] | None = None, kind: str = "bounced",
    location: str = "a", provider: str = "Outlook", pool: str = "p", ip: str = "192.0.2.1",
    **fields: Any,
) -> NormalizedEvent:  # fmt: skip
    """One event of a message of its own; delivered unless there is a reply."""
    recipient = f"r{number}@example.org"
    detail = dict(reply or {"code": 250, "message": "OK"}) | {"pool": pool, "ip": ip, "mx": "mx1"}
    detail["message"] = detail["message"].format(rcpt=recipient, ip=ip)
    return keyed(
        event(
            kind if reply else "delivered", at, location_ref=location, message_id=f"m{number}",
            recipient=recipient, provider=provider, detail=detail, **fields,
        )
    )  # fmt: skip


def asked(query: str = "", *, after: float = 20 * HOUR) -> Filter:
    """A filter, read so many seconds after the first event could happen."""
    now = BEGAN + timedelta(seconds=after)
    return parse(parse_qsl(query), now=now, default_range="24h")


def found(query: str = "", rights: Rights = ALL, **more: Any) -> list[reasons.Row]:
    return reasons.reasons(asked(query), rights, **more).rows


def counts(query: str = "", rights: Rights = ALL) -> dict[str, tuple[int, int, int]]:
    """Deferred, bounced and suppressed by text."""
    return {
        row.reason.text: (row.whole.deferred, row.whole.bounced, row.whole.suppressed)
        for row in found(query, rights)
    }


# --- Each refusal once -----------------------------------------------------------------------


def test_a_refusal_is_one_row_whomever_it_met() -> None:
    write(
        [
            mail(1, reply=NO_USER),
            mail(2, reply=NO_USER, location="b", ip="192.0.2.9"),
            mail(3, HOUR, reply=NO_USER, provider="Gmail", pool="q"),
            mail(4, reply=SLOW, kind="deferred"),
        ]
    )
    first, second = found()
    assert (first.whole.bounced, first.whole.deferred, first.whole.locations) == (3, 0, 2)
    assert (second.whole.bounced, second.whole.deferred, second.whole.locations) == (0, 1, 1)
    assert [(at.provider, at.events, at.locations) for at in first.at] == [
        ("Outlook", 2, 2),
        ("Gmail", 1, 1),
    ]
    assert [(way.pool, way.events) for way in first.through] == [("p", 2), ("q", 1)]
    assert first.reason.category == second.reason.category or first.id != second.id


def test_a_row_says_what_it_means_and_who_can_help() -> None:
    write([mail(1, reply=NO_USER)])
    row = found()[0].as_json()
    assert (row["category"], row["class"]) == ("invalid_recipient", "hard")
    assert row["fix_by"] == "client_list"
    assert row["scope"] == "recipient"
    assert "." in row["means"]
    assert row["do"]


def test_tests_are_no_refusals() -> None:
    write([mail(1, reply=NO_USER, test=True), mail(2, reply=SLOW, kind="deferred")])
    assert [row.whole.deferred for row in found()] == [1]
    assert [row.whole.deferred for row in found("code=550&code=421")] == [1]


def test_a_day_without_refusals_has_no_rows() -> None:
    write([mail(1)])
    assert found() == []
    assert found("tag=none-such") == []


@pytest.mark.parametrize(
    ("sort", "order"),
    [
        ("-count", ["no such user", "try again", "block list"]),
        ("-last_seen", ["block list", "try again", "no such user"]),
        ("first_seen", ["no such user", "try again", "block list"]),
    ],
)
def test_rows_come_in_the_order_asked_for(sort: str, order: list[str]) -> None:
    write(
        [mail(n, reply=NO_USER) for n in range(3)]
        + [mail(n, HOUR, reply=SLOW, kind="deferred") for n in (3, 4)]
        + [mail(5, 2 * HOUR, reply=BLOCKED)]
    )
    texts = [row.reason.text for row in found(sort=sort)]
    assert [word for text in texts for word in order if word in text] == order
    page = reasons.reasons(asked(), ALL, sort=sort, limit=2, offset=2)
    assert order[2] in page.rows[0].reason.text
    assert not page.more
    assert reasons.reasons(asked(), ALL, sort=sort, limit=2).more


def test_other_orders_and_the_clock_of_sending_are_refused() -> None:
    with pytest.raises(FilterError, match="sort is one of"):
        found(sort="text")
    with pytest.raises(FilterError, match="clock=sent"):
        found("clock=sent")
    with pytest.raises(FilterError, match="other"):
        found("ip=(other)")


# --- How far it reaches ----------------------------------------------------------------------


def reach(*events: NormalizedEvent) -> reasons.Reach:
    write([*events])
    return found()[0].reach


def test_a_refusal_of_one_location_alone() -> None:
    others = [mail(n, location=where) for n, where in enumerate("bcd")]
    found = reach(mail(9, reply=BLOCKED), *others)
    assert (found.scope, found.locations, found.of) == ("one location", 1, 4)
    assert found.sentence == "1 of 4 locations that mail Outlook through pool p"


def test_a_refusal_of_one_pool_s_mail() -> None:
    hit = [mail(n, reply=BLOCKED, location=where) for n, where in enumerate("abc")]
    others = [mail(n + 10, location=where, pool="q") for n, where in enumerate("bcdef")]
    found = reach(*hit, *others, mail(20, location="g"))
    assert (found.scope, found.locations, found.of) == ("one pool", 3, 4)
    assert found.sentence == "3 of 4 locations that mail Outlook through pool p"


def test_a_refusal_of_all_mail_at_a_provider() -> None:
    hit = [
        mail(n, reply=BLOCKED, location=where, pool=pool)
        for n, (where, pool) in enumerate(zip("abcd", "ppqq", strict=True))
    ]
    elsewhere = [mail(n + 10, location=where, provider="Gmail") for n, where in enumerate("aef")]
    found = reach(*hit, *elsewhere)
    assert (found.scope, found.locations, found.of) == ("all mail at Outlook", 4, 4)
    assert found.sentence == "4 of 4 locations that mail Outlook"


def test_a_refusal_here_and_there() -> None:
    hit = [
        mail(n, reply=BLOCKED, location=where, provider=provider, pool=where)
        for n, (where, provider) in enumerate([("a", "Gmail"), ("b", "Yahoo"), ("c", "Outlook")])
    ]
    found = reach(*hit, *(mail(n + 10, location=where) for n, where in enumerate("defg")))
    assert (found.scope, found.provider, found.pool) == ("mixed", "", "")
    assert found.sentence == "3 of 7 locations that send mail"


def test_only_mail_within_the_bounds_could_have_met_it() -> None:
    write([mail(1, location="b"), mail(2, 5 * HOUR, reply=BLOCKED)])
    late = f"from={(BEGAN + timedelta(hours=3)).isoformat().replace('+00:00', 'Z')}"
    assert found(late)[0].reach.of == 1
    assert found()[0].reach.of == 2


# --- Since when ------------------------------------------------------------------------------


def test_a_refusal_is_new_where_a_provider_first_gives_it() -> None:
    write(
        [
            mail(1, reply=BLOCKED),
            mail(2, 60 * HOUR, reply=BLOCKED),
            mail(3, 61 * HOUR, reply=BLOCKED, provider="Yahoo"),
        ]
    )
    (row,) = reasons.reasons(asked("range=7d", after=62 * HOUR), ALL).rows
    assert row.new_at == ["Yahoo"]
    outlook = next(at for at in row.at if at.provider == "Outlook")
    assert outlook.first_ever == BEGAN
    assert outlook.last_ever == BEGAN + timedelta(hours=60)
    (row,) = reasons.reasons(asked("range=24h", after=62 * HOUR), ALL).rows
    assert row.whole.first_hour == (START // 1_000_000 + 60 * HOUR) // HOUR
    assert row.new_at == ["Yahoo"]


def test_who_sees_one_location_learns_nothing_of_the_others() -> None:
    write(
        [
            mail(1, reply=BLOCKED, location="b"),
            mail(2, 60 * HOUR, reply=BLOCKED),
            mail(3, 60 * HOUR, reply=NO_USER, location="b"),
            mail(4, 60 * HOUR, location="b"),
        ]
    )
    own = Location.objects.get(ref="a").pk
    rights = Rights(location_ids=frozenset({own}))
    (row,) = reasons.reasons(asked("range=7d", after=62 * HOUR), rights).rows
    hour = datetime.fromtimestamp((START // 1_000_000 + 60 * HOUR) // HOUR * HOUR, UTC)
    assert [(at.first_ever, at.locations, at.is_new) for at in row.at] == [(hour, 1, True)]
    assert (row.reach.locations, row.reach.of) == (1, 1)
    assert {sample.location for sample in row.samples} == {"a"}
    others = Reason.objects.exclude(pk=row.id).get()
    with pytest.raises(Http404):
        reasons.reason(others.pk, asked(), rights)
    assert reasons.reason(row.id, asked(after=62 * HOUR), rights).row.whole.bounced == 1
    with pytest.raises(Http404):
        reasons.reasons(asked("location=b"), rights)
    assert reasons.reasons(asked("range=7d"), Rights()).rows == []


# --- Filters ---------------------------------------------------------------------------------

OF_COUNTERS = (
    "", "location=a", "location=-a", "company=acme", "company=(none)", "provider=Gmail",
    "provider=-Gmail", "provider=(none)", "provider=Gmail&provider=Yahoo", "pool=p", "pool=-p",
    "category=mailbox_full", "category=-mailbox_full", "class=soft", "class=-soft", "reason=1",
    "location=a&provider=Gmail&pool=p&class=soft", "reason=(none)",
)  # fmt: skip


def at(hours: float) -> str:
    return (BEGAN + timedelta(hours=hours)).isoformat().replace("+00:00", "Z")


BOUNDS = ("range=90d", f"from={at(20.3)}&to={at(71.7)}", f"from={at(4.05)}&to={at(4.45)}",
          f"from={at(3)}")  # fmt: skip


@pytest.mark.parametrize("bounds", BOUNDS)
def test_counters_and_events_say_the_same(bounds: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write([keyed(told) for told in lives(90)])
    first = Reason.objects.order_by("pk")[0].pk
    queries = [f"{query}&{bounds}".replace("reason=1", f"reason={first}") for query in OF_COUNTERS]
    by_counters = [[row.as_json() for row in found(query)] for query in queries]
    monkeypatch.setattr(Asked, "in_counters", False)
    assert by_counters == [[row.as_json() for row in found(query)] for query in queries]
    assert any(by_counters)


OF_EVENTS: dict[str, Callable[[Any], bool]] = {
    "code=550": lambda e: e.code == 550,
    "code=-550": lambda e: e.code != 550,
    "ip=192.0.2.1": lambda e: e.ip and e.ip.text == "192.0.2.1",
    "ip=(none)": lambda e: e.ip is None,
    "mx=mx1": lambda e: e.mx and e.mx.text == "mx1",
    "pool=q&code=550": lambda e: e.pool and e.pool.text == "q" and e.code == 550,
    "provider=Gmail&tag=t1": lambda e: e.provider.text == "Gmail" and _tagged(e, "t1"),
    "tag=t1": lambda e: _tagged(e, "t1"),
    "tag=-t1": lambda e: e.delivery is not None and not _tagged(e, "t1"),
    "campaign=w1": lambda e: e.delivery and e.delivery.campaign.text == "workflow:w1",
    "q=jane": lambda e: e.delivery and e.delivery.recipient.startswith("jane"),
    "outcome=delivered": lambda e: e.delivery and e.delivery.outcome == 3,
}


def _tagged(told: Event, tag: str) -> bool:
    held = tag_ids(told.delivery.tags) if told.delivery else []
    return Value.objects.filter(pk__in=held, text=tag).exists()


@pytest.mark.parametrize("bounds", BOUNDS)
def test_other_filters_are_answered_from_events_and_deliveries(bounds: str) -> None:
    write([keyed(told) for told in lives(90)])
    window = asked(bounds)
    refused = [
        told
        for told in Event.objects.exclude(reason=None).select_related("delivery", "provider")
        if not told.is_test
        and (window.start is None or told.occurred_at >= window.start)
        and (window.until is None or told.occurred_at < window.until)
    ]
    for query, holds in OF_EVENTS.items():
        expected: dict[int, int] = {}
        for told in refused:
            if holds(told):
                expected[told.reason_id or 0] = expected.get(told.reason_id or 0, 0) + 1
        assert {r.id: r.whole.events for r in found(f"{query}&{bounds}")} == expected, query


@pytest.mark.parametrize("hour", [0, 24 * 365])
def test_events_whose_own_time_was_unusable_are_found_by_their_receipt(hour: int) -> None:
    undated = mail(1, reply=NO_USER)
    fields = {name: getattr(undated, name) for name in undated.__struct_fields__}
    write([NormalizedEvent(**fields | {"key": hour.to_bytes(4) + undated.key[4:]})])
    assert counts("code=550") == counts()
    assert [len(row.samples) for row in found()] == [1]


# --- One -------------------------------------------------------------------------------------


def test_samples_show_what_was_said_in_several_locations() -> None:
    write(
        [mail(n, n, reply=BLOCKED, location="a") for n in range(9)]
        + [mail(n, reply=BLOCKED, location="b") for n in (10, 11)]
    )
    (row,) = found()
    samples = reasons.reason(row.id, asked(), ALL).row.samples
    assert len(samples) == reasons.SAMPLES
    assert {sample.location for sample in samples} == {"a", "b"}
    newest = max(samples, key=lambda sample: sample.occurred_at)
    assert newest.as_json() | {"event": 0, "delivery": 0} == {
        "event": 0,
        "kind": "bounced",
        "occurred_at": (BEGAN + timedelta(seconds=8)).isoformat(),
        "reply": "[192.0.2.1] is on our block list (S3150)",
        "code": 550,
        "enhanced": "5.7.1",
        "ip": "192.0.2.1",
        "pool": "p",
        "mx": "mx1",
        "provider": "Outlook",
        "location": "a",
        "message_id": "m8",
        "delivery": 0,
    }
    assert newest.delivery is not None


def test_samples_are_of_what_was_asked_for() -> None:
    write([mail(n, reply=BLOCKED, tags=frozenset({f"t{n}"})) for n in range(8)])
    (row,) = found("tag=t3")
    assert [sample.message_id for sample in row.samples] == ["m3"]


def test_the_hours_of_a_refusal_add_up_to_its_count() -> None:
    write([keyed(told) for told in lives(90)])
    for row in found("range=90d"):
        explained = reasons.reason(row.id, asked("range=90d"), ALL)
        assert explained.row.whole == row.whole
        assert sum(hour.deferred for hour in explained.trend) == row.whole.deferred
        assert sum(hour.bounced for hour in explained.trend) == row.whole.bounced
        assert sum(hour.suppressed for hour in explained.trend) == row.whole.suppressed
        hours = [hour.at for hour in explained.trend]
        assert hours == sorted(set(hours))


def test_a_refusal_without_events_in_the_bounds_is_shown_with_none() -> None:
    write([mail(1, reply=NO_USER)])
    pk = Reason.objects.get().pk
    explained = reasons.reason(pk, asked("range=24h", after=90 * HOUR), ALL)
    assert (explained.row.whole.events, explained.trend, explained.row.samples) == (0, [], [])
    assert explained.row.as_json()["first_seen"] is None
    with pytest.raises(Http404):
        reasons.reason(pk + 1_000, asked(), ALL)


def test_many_refusals_cost_no_more_queries_than_few() -> None:
    write([keyed(told) for told in lives(90)])

    def queries(limit: int) -> int:
        with CaptureQueriesContext(connection) as captured:
            reasons.reasons(asked("range=90d"), ALL, limit=limit)
        return len(captured)

    queries(1)  # what is remembered between questions
    assert queries(50) == queries(1) <= 10
    assert ReasonHour.objects.values("reason").distinct().count() > 5


# --- Over HTTP -------------------------------------------------------------------------------


@pytest.fixture
def web() -> Client:
    client = Client()
    client.force_login(User.objects.create_user("operator", is_staff=True))
    return client


def test_the_api_lists_refusals_and_leads_on(web: Client) -> None:
    write([mail(1, reply=NO_USER), mail(2, reply=NO_USER), mail(3, reply=BLOCKED)])
    window = f"from={at(-1)}&to={at(20)}"
    first = web.get(f"/api/reasons/?{window}&limit=1").json()
    assert [row["count"] for row in first["results"]] == [2]
    second = web.get(first["next"]).json()
    assert [row["count"] for row in second["results"]] == [1]
    assert second["next"] is None
    assert web.get(f"/api/reasons/?{window}&sort=-last_seen").status_code == 200


def test_the_api_explains_one_refusal(web: Client) -> None:
    write([mail(1, reply=NO_USER)])
    pk = Reason.objects.get().pk
    row = web.get(f"/api/reasons/{pk}/?from={at(-1)}&to={at(20)}").json()
    assert (row["id"], row["count"], len(row["samples"]), len(row["trend"])) == (pk, 1, 1, 1)


def test_the_api_refuses_what_it_cannot_answer_or_may_not_say(web: Client) -> None:
    write([mail(1, reply=NO_USER, location="b")])
    pk = Reason.objects.get().pk
    for query in ("clock=sent", "sort=text", "limit=0", "offset=x", "colour=red"):
        assert web.get(f"/api/reasons/?{query}").status_code == 400, query
    assert Client().get("/api/reasons/").status_code == 401
    viewer = User.objects.create_user("viewer")
    Membership.objects.create(user=viewer, location=Location.objects.create(ref="other"))
    client = Client()
    client.force_login(viewer)
    assert client.get(f"/api/reasons/{pk}/").status_code == 404
    assert client.get(f"/api/reasons/?from={at(-1)}").json()["results"] == []
    assert web.get(f"/api/reasons/{pk}/").status_code == 200
