"""The fold: whatever the order, the same facts; and the rules of outcomes, flags and counts."""

import json
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.fold import (
    SENT,
    Facts,
    absorb,
    dump_facts,
    facts_json,
    judge,
    load_facts,
    why_of,
)
from ingest.normalize import NormalizedEvent
from ingest.vocabulary import MEASURES, BounceClass, Category, Dimension, Flag, Outcome
from tests.ingest.events import START, contribution, event, lives


def fold(*events: NormalizedEvent) -> Facts:
    facts = Facts()
    for each in events:
        absorb(facts, each)
    return facts


def flags_of(*events: NormalizedEvent) -> set[str]:
    return {str(flag.name).lower() for flag in Flag(judge(fold(*events)).flags)}


@given(life=lives(), data=st.data())
def test_any_permutation_and_repetition_gives_the_same_facts(
    life: list[NormalizedEvent], data: st.DataObject
) -> None:
    shuffled = data.draw(st.permutations(life))
    repeated = shuffled + data.draw(st.lists(st.sampled_from(life)))
    assert fold(*repeated) == fold(*life)


@given(life=lives(), split=st.integers(0, 8))
def test_facts_survive_being_stored_between_batches(
    life: list[NormalizedEvent], split: int
) -> None:
    facts = load_facts(dump_facts(fold(*life[:split])))
    for each in life[split:]:
        absorb(facts, each)
    assert facts == fold(*life)
    assert judge(facts) == judge(fold(*life))


@given(life=lives())
def test_counts_are_subsets_of_their_denominators(life: list[NormalizedEvent]) -> None:
    standing = judge(fold(*life))
    n = dict(
        zip(
            MEASURES,
            contribution(standing.outcome, standing.flags, standing.bounce_class),
            strict=True,
        )
    )
    reached = n["delivered"] + n["late_bounced"] + n["recovered"]
    assert reached == bool(standing.flags & Flag.REACHED)
    assert n["sent"] == (standing.outcome in SENT)
    assert n["delivered"] + n["bounced"] <= n["sent"]
    assert n["hard"] + n["soft"] + n["block"] <= n["bounced"]
    assert n["deferred"] <= n["sent"]
    for measure in ("complained", "unsubscribed", "opened", "opened_human", "clicked"):
        assert n[measure] <= reached
    assert n["late_bounced"] + n["recovered"] <= n["bounced"]
    assert n["inferred"] <= n["delivered"]
    outside = n["suppressed"] + n["rejected"] + n["orphan"] + n["unknown"] + n["test"]
    assert outside + n["sent"] == 1


@pytest.mark.parametrize(
    ("kinds", "outcome"),
    [
        ("accepted", Outcome.ACCEPTED),
        ("accepted deferred", Outcome.DEFERRED),
        ("accepted deferred delivered", Outcome.DELIVERED),
        ("delivered bounced", Outcome.BOUNCED),
        ("bounced delivered", Outcome.BOUNCED),
        ("accepted opened", Outcome.DELIVERED),
        ("deferred complained", Outcome.DELIVERED),
        ("accepted unsubscribed", Outcome.DELIVERED),
        ("suppressed", Outcome.SUPPRESSED),
        ("accepted suppressed", Outcome.SUPPRESSED),
        ("deferred suppressed", Outcome.SUPPRESSED),
        ("suppressed bounced", Outcome.BOUNCED),
        ("suppressed delivered", Outcome.DELIVERED),
        ("rejected", Outcome.REJECTED),
        ("rejected accepted deferred", Outcome.REJECTED),
        ("suppressed rejected", Outcome.SUPPRESSED),
        ("opened", Outcome.ORPHAN),
        ("complained clicked", Outcome.ORPHAN),
        ("unknown", Outcome.UNKNOWN),
        ("stored", Outcome.UNKNOWN),
        ("unknown delivered", Outcome.DELIVERED),
        ("unknown opened", Outcome.ORPHAN),
    ],
)
def test_outcome(kinds: str, outcome: Outcome) -> None:
    events = [event(kind, at) for at, kind in enumerate(kinds.split())]
    assert judge(fold(*events)).outcome == outcome
    assert judge(fold(*reversed(events))).outcome == outcome


def test_one_test_event_makes_the_whole_delivery_test() -> None:
    standing = judge(fold(event("delivered", test=True), event("opened", 5), event("bounced", 9)))
    assert standing.outcome == Outcome.TEST
    counted = contribution(standing.outcome, standing.flags, standing.bounce_class)
    assert [m for m, n in zip(MEASURES, counted, strict=True) if n] == ["test"]


def test_a_bounce_after_delivery_is_late_and_was_reached() -> None:
    assert flags_of(event("delivered", 1), event("bounced", 60)) == {"late", "reached"}


def test_a_bounce_at_the_same_moment_as_the_delivery_is_late() -> None:
    assert "late" in flags_of(event("delivered", 1), event("bounced", 1))


def test_a_delivery_after_the_last_bounce_is_recovered_and_stays_bounced() -> None:
    events = event("bounced", 1), event("delivered", 60)
    assert judge(fold(*events)).outcome == Outcome.BOUNCED
    assert flags_of(*events) == {"recovered", "reached"}


def test_delivered_bounced_delivered_is_recovered_not_late_too() -> None:
    events = event("delivered", 1), event("bounced", 30), event("delivered", 60)
    assert flags_of(*events) == {"recovered", "reached"}


def test_a_complaint_makes_a_bounce_late_but_an_open_never_does() -> None:
    assert "late" in flags_of(event("bounced", 1), event("complained", 60))
    assert flags_of(event("bounced", 1), event("opened", 60), event("clicked", 61)) == set()


def test_a_delayed_bounce_is_late_without_a_delivered_event() -> None:
    assert "late" in flags_of(event("bounced", 1, delayed_bounce=True))


def test_delivery_is_inferred_from_proof_only_while_its_event_is_missing() -> None:
    assert "inferred" in flags_of(event("accepted"), event("opened", 9))
    assert "inferred" not in flags_of(event("accepted"), event("opened", 9), event("delivered", 3))


def test_a_complaint_about_an_orphan_counts_in_no_rate() -> None:
    assert flags_of(event("complained"), event("opened", 1)) == set()


def test_machine_opens_are_told_apart() -> None:
    machine = flags_of(event("delivered"), event("opened", 5, machine=True))
    assert {"opened", "machine"} <= machine
    assert "opened_human" not in machine
    assert "opened_human" in flags_of(
        event("delivered"), event("opened", 5, machine=True), event("opened", 9)
    )


def test_a_suppressed_delivery_counts_only_as_suppressed() -> None:
    standing = judge(fold(event("deferred", 1), event("suppressed", 2)))
    counted = contribution(standing.outcome, standing.flags, standing.bounce_class)
    assert [m for m, n in zip(MEASURES, counted, strict=True) if n] == ["suppressed"]


def test_it_counts_in_the_hour_of_its_first_sign_of_sending() -> None:
    facts = fold(event("opened", -9_999), event("delivered", 600), event("accepted", 30))
    assert judge(facts).sent_at == START + 30_000_000


def test_delivered_at_of_an_engagement_event_is_a_sign_of_sending() -> None:
    facts = fold(event("opened", 5_000, delivered_at=START + 1_000_000), event("accepted", 9))
    assert judge(facts).sent_at == START + 1_000_000


def test_mail_without_a_sign_of_sending_counts_where_its_first_event_is() -> None:
    facts = fold(event("opened", 50), event("complained", 20))
    assert judge(facts).sent_at == START + 20_000_000


def test_the_best_campaign_source_wins_then_the_lexically_first() -> None:
    weak = event("accepted", campaign_rank=1, campaign="a-first")
    strong = event("delivered", 1, campaign_rank=2, campaign="workflow:z", step="s2")
    other = event("delivered", 2, campaign_rank=2, campaign="workflow:b", step="s9")
    assert judge(fold(weak, strong)).campaign == "workflow:z"
    assert judge(fold(weak, strong, other)).campaign == "workflow:b"
    assert judge(fold(weak, strong, other)).step == "s9"


def test_engagement_inherits_what_other_events_say_even_when_it_came_first() -> None:
    opened = event("opened", 60)
    delivered = event("delivered", 1, tags=frozenset({"promo"}), provider="Gmail", provider_rank=2)
    for order in ((opened, delivered), (delivered, opened)):
        standing = judge(fold(*order))
        assert (standing.tags, standing.provider) == (("promo",), "Gmail")


def test_a_named_provider_beats_other_and_derived_whatever_is_later() -> None:
    named = event("accepted", 1, provider="Google Workspace", provider_rank=2)
    other = event("delivered", 9, provider="Other", provider_rank=1)
    derived = event("bounced", 99, provider="Gmail", provider_rank=0)
    assert judge(fold(derived, other, named)).provider == "Google Workspace"


def test_of_two_permanent_failures_the_later_one_decides() -> None:
    first = event("bounced", 1, detail={"code": 552, "enhanced": "5.2.2"})
    last = event("bounced", 9, detail={"code": 550, "enhanced": "5.1.1"})
    deferral = event("deferred", 99, detail={"code": 450, "enhanced": "4.2.1"})
    for order in ((first, last, deferral), (deferral, last, first)):
        standing = judge(fold(*order))
        assert (standing.code, standing.bounce_class) == (550, BounceClass.HARD)


def test_at_most_twenty_tags_count_and_always_the_same_ones() -> None:
    tags = [f"tag{n:02}" for n in range(30)]
    facts = fold(
        event("delivered", tags=frozenset(tags[15:])), event("opened", tags=frozenset(tags[:15]))
    )
    assert judge(facts).tags == tuple(tags[:20])


def test_the_class_is_the_one_of_the_reply_not_of_its_category() -> None:
    no_domain = event("bounced", detail={"code": 550, "message": "NXDOMAIN"})
    assert judge(fold(no_domain)).bounce_class == why_of(no_domain)[1] == BounceClass.HARD
    no_route = event("bounced", detail={"code": 550, "enhanced": "5.4.4"})
    assert judge(fold(no_route)).bounce_class == why_of(no_route)[1] == BounceClass.SOFT


def test_contribution_is_defined_for_every_combination() -> None:
    for outcome, bounce_class in product(Outcome, BounceClass):
        counted = contribution(outcome, 0, bounce_class)
        assert len(counted) == len(MEASURES)
        assert set(counted) <= {0, 1}


FAILED = {"code": 421, "message": "too many connections from your host"}


def test_a_message_given_up_takes_the_category_of_the_last_reply() -> None:
    full = {"code": 452, "message": "4.2.2 mailbox full"}
    old = {"code": 602, "reason": "old", "message": "Too old"}
    standing = judge(
        fold(event("deferred", 1, detail=FAILED), event("deferred", 2, detail=full),
             event("bounced", 9, detail=old))
    )  # fmt: skip
    assert (standing.category, standing.bounce_class) == (Category.MAILBOX_FULL, BounceClass.SOFT)
    assert standing.flags & Flag.EXPIRED
    assert set(standing.deferral_categories) == {Category.MAILBOX_FULL, Category.RATE_LIMITED}


def test_a_message_given_up_with_a_word_of_why_keeps_it() -> None:
    told = {"code": 602, "reason": "old", "message": "452 4.2.2 mailbox full"}
    standing = judge(fold(event("deferred", 1, detail=FAILED), event("bounced", 9, detail=told)))
    assert standing.category == Category.MAILBOX_FULL


def test_a_category_given_by_hand_stands_above_the_rules() -> None:
    facts = fold(event("bounced", detail={"code": 550, "message": "user unknown"}))
    facts.assigned = Category.POLICY
    standing = judge(load_facts(dump_facts(facts)))
    assert (standing.category, standing.bounce_class) == (Category.POLICY, BounceClass.BLOCK)
    assert standing.flags & Flag.BLOCK_HIGH


def test_complaints_are_visible_where_the_provider_reports_them() -> None:
    at_yahoo: dict[str, Any] = {"provider": "Yahoo", "provider_rank": 2}
    at_gmail: dict[str, Any] = {"provider": "Gmail", "provider_rank": 2}
    assert "visible" in flags_of(event("delivered", **at_yahoo))
    assert "visible" not in flags_of(event("delivered", **at_gmail))
    complained = flags_of(event("delivered", **at_yahoo), event("complained", 60))
    assert {"visible", "visible_complained", "complained"} <= complained


LISTED = {"code": 550, "message": "5.7.1 service unavailable, client host blocked using spamhaus"}


@pytest.mark.parametrize(
    ("provider", "detail", "expected"),
    [
        ("Gmail", LISTED, {"block_low", "block_high"}),
        ("Some Host", LISTED, {"block_high"}),
        ("Gmail", {"code": 550, "message": "5.1.1 no such user"}, set()),
        ("Outlook", {"code": 550, "reason": "espblock"}, {"block_low", "block_high"}),
    ],
)
def test_what_highlevel_counts_as_a_block(
    provider: str, detail: dict[str, object], expected: set[str]
) -> None:
    bounced = event("bounced", detail=detail, provider=provider, provider_rank=2)
    assert flags_of(bounced) & {"block_low", "block_high"} == expected


def test_mail_in_flight_may_count_as_blocked_until_it_is_delivered() -> None:
    deferred = event("deferred", detail=LISTED | {"code": 451}, provider="Gmail", provider_rank=2)
    assert "block_high" in flags_of(deferred)
    assert "block_low" not in flags_of(deferred)
    assert "block_high" not in flags_of(deferred, event("delivered", 60))


def test_the_ways_of_several_attempts() -> None:
    first = {"ip": "192.0.2.1", "pool": "a", "mx": "mx1.example.net"}
    second = {"ip": "192.0.2.2", "pool": "a", "mx": "mx1.example.net"}
    ways = judge(
        fold(event("deferred", 1, detail=first), event("delivered", 2, detail=second))
    ).ways
    assert (ways.ip, ways.pool, ways.mx) == ("192.0.2.2", "a", "mx1.example.net")
    assert ways.tried == ((Dimension.IP, "192.0.2.1"),)
    assert ways.deferred == ((Dimension.IP, "192.0.2.1"),)


def test_a_final_failure_without_a_way_is_that_of_the_last_attempt_that_says() -> None:
    ways = judge(fold(event("delivered", 1, detail={"ip": "192.0.2.1"}), event("bounced", 99))).ways
    assert ways.ip == "192.0.2.1"
    assert ways.tried == ways.deferred == ()


def test_the_reason_is_that_of_the_final_failure_or_of_the_last_in_flight() -> None:
    deferred = event("deferred", 1, detail=FAILED)
    bounced = event("bounced", 2, detail={"code": 550, "message": "5.1.1 no such user"})
    assert judge(fold(deferred)).reason == why_of(deferred).reason != ""
    assert judge(fold(deferred, bounced)).reason == why_of(bounced).reason
    assert judge(fold(deferred, event("delivered", 9))).reason == ""


@given(life=lives())
def test_facts_written_by_an_older_version_are_still_read(life: list[NormalizedEvent]) -> None:
    stored = json.loads(facts_json(fold(*life)))
    stored["a"] = [attempt[:4] for attempt in stored.get("a", [])]
    if "x" in stored:
        stored["x"] = stored["x"][:7]
    for witness in ("p", "sd"):
        if witness in stored:
            stored[witness].insert(3, "00079bf4f33abaf72b1f9886a7a3eb27")
    read, known = judge(load_facts(json.dumps(stored).encode())), judge(fold(*life))
    assert (read.outcome, read.provider, read.sending_domain) == (
        known.outcome, known.provider, known.sending_domain
    )  # fmt: skip


def test_facts_that_were_stored_as_json_are_still_read() -> None:
    facts = fold(event("delivered"))
    assert load_facts(facts_json(facts)) == load_facts(dump_facts(facts)) == facts


def test_facts_are_stored_in_less_than_half_of_their_json() -> None:
    detail = {"ip": "192.0.2.1", "pool": "65cc66e77a4d4f63649d3901", "mx": "mx1.example.net"}
    facts = fold(event("accepted"), event("delivered", 2, detail=detail), event("opened", 60))
    assert len(dump_facts(facts)) < len(facts_json(facts)) / 2
