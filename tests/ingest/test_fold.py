"""The fold: whatever the order, the same facts; and the rules of outcomes, flags and counts."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.classify import classify
from ingest.fold import SENT, Facts, absorb, contribution, dump_facts, judge, load_facts
from ingest.normalize import NormalizedEvent
from ingest.vocabulary import MEASURES, BounceClass, Flag, Outcome
from tests.ingest.events import START, event, lives


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
    assert judge(fold(no_domain)).bounce_class == classify(no_domain)[1] == BounceClass.HARD
    no_route = event("bounced", detail={"code": 550, "enhanced": "5.4.4"})
    assert judge(fold(no_route)).bounce_class == classify(no_route)[1] == BounceClass.SOFT


def test_contribution_is_defined_for_every_combination() -> None:
    for outcome, bounce_class in product(Outcome, BounceClass):
        counted = contribution(outcome, 0, bounce_class)
        assert len(counted) == len(MEASURES)
        assert set(counted) <= {0, 1}
