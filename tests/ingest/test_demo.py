"""Demo traffic: the same for the same seed, well-formed, and as healthy as it says it is."""

import json
import re
from collections import Counter, defaultdict
from dataclasses import replace
from datetime import datetime
from itertools import islice, takewhile
from random import Random
from typing import Any

import orjson
import pytest

from ingest import demo
from ingest.demo import SECOND, Body, Moment, demo_locations, lives
from ingest.fold import why_of
from ingest.normalize import AppEvent, NormalizedEvent, normalize
from ingest.vocabulary import BounceClass, EventKind

NOW = 1_790_000_000 * SECOND
MANY = 40_000


def mail_of(bodies: list[Body]) -> list[Body]:
    return [body for body in bodies if body["type"] == "LCEmailStats"]


def read(body: Body) -> NormalizedEvent:
    event = normalize(orjson.loads(orjson.dumps(body)), location_ref="", received_at=NOW)
    assert isinstance(event, NormalizedEvent), event
    return event


@pytest.fixture(scope="module")
def bodies() -> list[Body]:
    return [body for _, body in islice(lives(7, now=NOW, rate=40), MANY)]


@pytest.fixture(scope="module")
def events(bodies: list[Body]) -> list[NormalizedEvent]:
    """What ``mail_of(bodies)`` says, one each."""
    return [read(body) for body in mail_of(bodies)]


@pytest.fixture(scope="module")
def whole_lives(events: list[NormalizedEvent]) -> list[list[NormalizedEvent]]:
    """Each message's events in the order in which they happened, repetitions dropped.

    Without the newest messages: of some the first webhook is still under way.
    """
    by_message: dict[str, dict[bytes, NormalizedEvent]] = defaultdict(dict)
    for event in events:
        by_message[event.message_id][event.key] = event
    newest = max(event.occurred_at for event in events)
    made = [sorted(life.values(), key=lambda e: e.occurred_at) for life in by_message.values()]
    return [life for life in made if life[0].occurred_at < newest - 40 * SECOND]


def test_the_same_arguments_give_the_same_webhooks() -> None:
    first, second = (
        list(islice(lives(3, now=NOW, rate=5, history_hours=2), 2_000)) for _ in range(2)
    )
    assert first == second


def test_another_seed_gives_other_mail() -> None:
    first, second = (
        [b["webhookPayload"]["recipient"] for b in mail_of([b for _, b in islice(made, 500)])]
        for made in (lives(1, now=NOW, rate=5), lives(2, now=NOW, rate=5))
    )
    assert first != second


def without_clock(body: Body) -> Any:
    mail = body.get("webhookPayload", {})
    return (
        body["type"], body.get("locationId"), mail.get("event"), mail.get("recipient"),
        mail.get("tags"), mail.get("envelope"), mail.get("severity"), mail.get("url"),
    )  # fmt: skip


def test_another_clock_gives_the_same_mail_with_other_ids() -> None:
    today = [body for _, body in islice(lives(3, now=NOW, rate=5), 2_000)]
    tomorrow = [body for _, body in islice(lives(3, now=NOW + demo.DAY, rate=5), 2_000)]
    assert [*map(without_clock, today)] == [*map(without_clock, tomorrow)]
    assert not {b["webhookId"] for b in today} & {b["webhookId"] for b in tomorrow}
    ids = [{b["webhookPayload"]["id"] for b in mail_of(run)} for run in (today, tomorrow)]
    assert not ids[0] & ids[1]


def test_webhooks_come_in_the_order_in_which_they_are_due() -> None:
    dues = [due for due, _ in islice(lives(1, now=NOW, rate=50, history_hours=6), 20_000)]
    assert dues == sorted(dues)


@pytest.mark.parametrize("rate", [3, 300])
def test_the_rate_is_the_asked_one_from_the_beginning(rate: float) -> None:
    webhooks = lives(5, now=NOW, rate=rate, introduce=False)
    until = NOW + 3_000 * SECOND // int(rate) * 3
    count = sum(1 for _ in takewhile(lambda webhook: webhook[0] < until, webhooks))
    assert count == pytest.approx(9_000, rel=0.05)


def test_the_past_is_bounded_and_lies_in_the_hours_asked_for() -> None:
    webhooks = lives(1, now=NOW, rate=10, history_hours=30, history_events=4_000, introduce=False)
    past = [*takewhile(lambda webhook: webhook[0] < NOW, webhooks)]
    assert len(past) == pytest.approx(4_000, rel=0.1)
    assert all(due >= NOW - 30 * 3_600 * SECOND for due, _ in past)
    quarters = Counter((NOW - due) * 4 // (30 * 3_600 * SECOND) for due, _ in past)
    assert min(quarters.values()) > 400  # all day long, not in one heap


def test_live_mail_begins_at_once_after_the_past() -> None:
    webhooks = lives(1, now=NOW, rate=10, history_hours=30)
    first_live = next(due for due, _ in webhooks if due > NOW)
    assert first_live < NOW + 2 * SECOND


def test_every_body_is_understood(bodies: list[Body], events: list[NormalizedEvent]) -> None:
    refs = {location.ref for location in demo_locations(7, 24)}
    for body, event in zip(mail_of(bodies), events, strict=True):
        assert event.kind is not EventKind.UNKNOWN
        assert not event.time_marked
        assert event.location_ref in refs
        assert event.message_id
        assert event.recipient
        assert event.provider or not body["webhookPayload"].get("recipient-provider")


def test_all_kinds_of_mail_occur(whole_lives: list[list[NormalizedEvent]]) -> None:
    kinds = Counter(event.kind for life in whole_lives for event in life)
    assert kinds.keys() == set(EventKind) - {EventKind.UNKNOWN, EventKind.STORED}
    assert any(event.machine for life in whole_lives for event in life)
    types = {event.campaign.partition(":")[0] for life in whole_lives for event in life}
    assert {"workflow", "campaign", "bulk"} <= types


def test_a_life_is_in_order(whole_lives: list[list[NormalizedEvent]]) -> None:
    for life in whole_lives:
        kinds = [event.kind for event in life]
        assert kinds[0] in (EventKind.ACCEPTED, EventKind.REJECTED)
        assert kinds.count(EventKind.ACCEPTED) <= 1
        assert kinds.count(EventKind.DELIVERED) <= 1
        ends = [k for k in kinds if k in (EventKind.DELIVERED, EventKind.SUPPRESSED)]
        late = [event for event in life if event.delayed_bounce]
        bounces = kinds.count(EventKind.BOUNCED) - len(late)
        assert len(ends) + bounces <= 1
        if EventKind.DELIVERED in kinds:
            delivered = kinds.index(EventKind.DELIVERED)
            assert EventKind.DEFERRED not in kinds[delivered:]
            assert all(event.occurred_at > life[delivered].occurred_at for event in late)
        elif bounces:
            assert kinds[-1] is EventKind.BOUNCED


def test_who_never_reports_complaints_never_does(
    whole_lives: list[list[NormalizedEvent]],
) -> None:
    providers = Counter(
        life[1].provider
        for life in whole_lives
        if any(event.kind is EventKind.COMPLAINED for event in life)
    )
    assert providers
    assert providers.keys() <= {p.name for p in demo.PROVIDERS if p.reports}
    assert not {"Gmail", "Google Workspace", "Apple", "Outlook 365"} & providers.keys()


def settled(life: list[NormalizedEvent]) -> NormalizedEvent | None:
    """The first decisive event of a life."""
    decisive = (EventKind.DELIVERED, EventKind.BOUNCED)
    return next((event for event in life if event.kind in decisive), None)


def close_to(share: float, count: int) -> Any:
    """Within four standard deviations of a share of ``count``."""
    return pytest.approx(share, abs=4 * (share * (1 - share) / count) ** 0.5 + 0.002)


def test_every_location_is_as_healthy_as_it_says(
    whole_lives: list[list[NormalizedEvent]],
) -> None:
    ends = [end for life in whole_lives if (end := settled(life))]
    checked = 0
    for location in demo_locations(7, 24):
        mine = [end for end in ends if end.location_ref == location.ref]
        hard = sum(
            end.kind is EventKind.BOUNCED and end.detail.bounce_type == "hard" for end in mine
        )
        if len(mine) >= 200:
            assert hard / len(mine) == close_to(location.health.hard, len(mine)), location.name
            checked += 1
    assert checked >= 12


def test_one_location_is_refused_at_outlook(whole_lives: list[list[NormalizedEvent]]) -> None:
    location = demo_locations(7, 24)[1]
    assert location.health.refused_at == ("Outlook",)
    ends = [end for life in whole_lives if (end := settled(life))]
    at_outlook = [e for e in ends if e.location_ref == location.ref and e.provider == "Outlook"]
    refused = [e for e in at_outlook if why_of(e)[1] == BounceClass.BLOCK]
    assert len(refused) / len(at_outlook) == close_to(0.36, len(at_outlook))


def test_the_smallest_location_is_tiny_and_unlucky() -> None:
    *others, smallest = demo_locations(1, 24)
    assert smallest.weight < min(location.weight for location in others) / 5
    assert smallest.health.hard == 0.2


def test_some_webhooks_come_twice_and_some_out_of_order(bodies: list[Body]) -> None:
    mail = mail_of(bodies)
    ids = Counter(body["webhookId"] for body in mail)
    twice = sum(count - 1 for count in ids.values())
    assert 0.015 < twice / len(mail) < 0.025
    times = [body["webhookPayload"]["timestamp"] for body in mail]
    backwards = sum(later < earlier - 3 for earlier, later in zip(times, times[1:], strict=False))
    assert backwards > len(mail) * 0.01


def test_nobody_real_is_written_to(bodies: list[Body]) -> None:
    for body in mail_of(bodies):
        mail = body["webhookPayload"]
        if mail["event"] != "rejected":
            assert re.fullmatch(r"[a-z]+\.demo\d{4}@[a-z.-]+", mail["recipient"])
        assert mail["lc-operations"]["domain"].endswith(".example")


def test_names_are_introduced_before_any_mail() -> None:
    webhooks = [body for _, body in islice(lives(1, now=NOW, rate=5, locations=9), 40)]
    types = [body["type"] for body in webhooks]
    assert types[:18] == ["INSTALL", "LocationUpdate"] * 9
    assert set(types[18:]) == {"LCEmailStats"}
    events = [normalize(body, location_ref="", received_at=NOW) for body in webhooks[:18]]
    names = {e.location_ref: e.location_name for e in events[1::2] if isinstance(e, AppEvent)}
    assert names == {location.ref: location.name for location in demo_locations(1, 9)}
    companies = {e.company_name for e in events[::2] if isinstance(e, AppEvent)}
    assert all(companies)


def test_a_thousand_locations_have_a_thousand_names() -> None:
    locations = demo_locations(1, 1_000)
    assert len({location.name for location in locations}) == 1_000
    assert len({location.ref for location in locations}) == 1_000
    assert locations[0].weight > 100 * locations[-1].weight


ATTEMPTS = [
    (provider, kind, reply)
    for provider in demo.PROVIDERS
    for kind in ("hard", "soft", "block", "deferral")
    for reply in getattr(provider, kind)
]
CLASSES = {"hard": BounceClass.HARD, "soft": BounceClass.SOFT, "block": BounceClass.BLOCK}


@pytest.mark.parametrize(("provider", "kind", "reply"), ATTEMPTS)
def test_replies_mean_what_they_stand_for(
    provider: demo.Provider, kind: str, reply: demo.Reply
) -> None:
    if reply.enhanced:
        assert reply.enhanced[0] == str(reply.code)[0]
    location = demo_locations(1, 8)[0]
    rng = Random(1)
    mail = demo._mail(location, location.trickle[0], at=NOW, rng=rng, ids=rng)
    domain = provider.domains[0]
    mx = provider.mx[0].format(domain=domain, dashed=domain.replace(".", "-"))
    mail = replace(
        mail, provider=provider, recipient=f"ana.demo0001@{domain}", domain=domain, mx=mx
    )
    moment = Moment(0, "deferred" if kind == "deferral" else "bounced", reply)
    event = read(demo._body(mail, moment, at=NOW, due=NOW, rng=rng, ids=rng))
    assert event.detail.code == reply.code
    assert event.detail.enhanced == reply.enhanced
    assert "{" not in event.detail.message + event.detail.description
    if kind in CLASSES:
        assert why_of(event)[1] == CLASSES[kind]
    else:
        assert event.kind is EventKind.DEFERRED


def test_bodies_look_like_live_traffic(bodies: list[Body]) -> None:
    delivered = next(b for b in mail_of(bodies) if b["webhookPayload"]["event"] == "delivered")
    assert json.loads(json.dumps(delivered)) == delivered
    assert datetime.fromisoformat(delivered["timestamp"]).tzinfo
    assert {"type", "locationId", "companyId", "appId", "webhookId"} <= delivered.keys()
    mail = delivered["webhookPayload"]
    assert mail["tags"][:2] == [f"loc_{delivered['locationId']}", f"com_{delivered['companyId']}"]
    assert {"domain", "email_message_id", "email_type", "location_id"} <= (
        mail["lc-operations"].keys()
    )
    assert mail["envelope"]["i-ip-pool-name"] in {pool.name for pool in demo.POOLS}
