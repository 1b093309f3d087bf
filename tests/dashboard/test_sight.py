"""What deliveries count for where a row looks at some attempts or some refusals only."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboard.sight import Alike, Sight, Words
from ingest.counted import Counted, places
from ingest.fold import SENT, counted_measures
from ingest.vocabulary import MEASURES, BounceClass, Category, Dimension, Flag, Outcome

IP, POOL = Dimension.IP, Dimension.POOL
DEFERRED, REACHED = int(Flag.DEFERRED), int(Flag.REACHED)


def names(sight: Sight, alike: Alike) -> set[str]:
    return {MEASURES[i] for i in sight.measures(alike)}


def at(value: int, words: Words = Words(), dimension: Dimension = IP) -> Sight:  # noqa: B008
    return Sight(words).through(dimension, frozenset({value}))


DELIVERED = Alike(int(Outcome.DELIVERED), REACHED | DEFERRED, 0, ip=1, ways=",ai2,di2,")
BOUNCED = Alike(
    int(Outcome.BOUNCED), DEFERRED, int(BounceClass.HARD), int(Category.INVALID_RECIPIENT),
    ip=1, pool=7, ways=",ai2,c6,di1,di2,",
)  # fmt: skip


def test_where_it_was_decided_all_counts_but_deferrals_from_elsewhere() -> None:
    assert names(at(1), DELIVERED) == {"sent", "delivered"}
    assert names(at(1), BOUNCED) == {"sent", "bounced", "hard", "deferred"}


def test_elsewhere_it_was_sent_and_moved() -> None:
    assert names(at(2), DELIVERED) == {"sent", "moved", "deferred"}
    assert names(at(2), DELIVERED._replace(ways=",ai2,")) == {"sent", "moved"}


def test_words_speak_of_what_was_decided_there() -> None:
    bounced = Words.of({"outcome": ["bounced"]}, {})
    assert "bounced" in names(at(1, bounced), BOUNCED)
    assert names(at(2, bounced), BOUNCED) == set()
    assert names(at(2, Words.of({"class": ["hard"]}, {})), BOUNCED) == set()
    assert names(at(2, Words.of({"code": ["550"]}, {})), BOUNCED._replace(flags=0)) == set()
    assert "moved" in names(at(2, Words.of({}, {"outcome": ["bounced"]})), BOUNCED)


def test_moved_is_an_outcome_there() -> None:
    moved = Words.of({"outcome": ["moved"]}, {})
    assert names(at(1, moved), BOUNCED) == set()
    assert "moved" in names(at(2, moved), BOUNCED)
    sent = Words.of({"outcome": ["delivered", "bounced", "deferred", "accepted"]}, {})
    assert "moved" in names(at(2, sent), BOUNCED)
    assert names(at(2, Words.of({}, {"outcome": ["moved"]})), BOUNCED) == set()


def test_deferred_is_where_the_temporary_failure_was() -> None:
    deferred = Words.of({"is": ["deferred"]}, {})
    assert names(at(1, deferred), DELIVERED) == set()
    assert names(at(2, deferred), DELIVERED) == {"sent", "moved", "deferred"}
    assert names(at(1, Words.of({}, {"is": ["deferred"]})), DELIVERED) == {"sent", "delivered"}


def test_several_attempts_must_all_hold() -> None:
    both = at(1).through(POOL, frozenset({7}))
    assert "bounced" in names(both, BOUNCED)
    assert names(at(1).through(POOL, frozenset({8})), BOUNCED) >= {"sent", "moved"}
    assert names(both.without(POOL), BOUNCED) == names(at(1), BOUNCED)


def test_a_category_counts_its_refusals_and_its_deferrals() -> None:
    refused, put_off = Category.INVALID_RECIPIENT, Category.GREYLISTED
    assert names(Sight().of_category(refused), BOUNCED) == {"sent", "bounced", "hard"}
    assert names(Sight().of_category(put_off), BOUNCED) == {"deferred"}
    assert names(Sight().of_category(Category.TLS), BOUNCED) == set()
    assert names(at(2).of_category(put_off), BOUNCED) == {"deferred"}
    assert BOUNCED.refusals() == {refused, put_off}


# Every row of the counters is what a look from there counts.

_flags = st.integers(0, 2**16 - 1)
_ids = st.integers(1, 4)


@st.composite
def alikes(draw: st.DrawFn) -> Alike:
    ip, pool = draw(_ids), draw(st.integers(11, 14))
    tokens = {f"ai{other}" for other in draw(st.sets(_ids)) - {ip}}
    tokens |= {f"ap{other}" for other in draw(st.sets(st.integers(11, 14))) - {pool}}
    tried = {"i": {ip}, "p": {pool}}
    for token in tokens:
        tried[token[1]].add(int(token[2:]))
    for letter, values in tried.items():
        deferring = draw(st.sets(st.sampled_from(sorted(values))))
        if deferring - {ip, pool}:
            tokens |= {f"d{letter}{value}" for value in deferring}
    tokens |= {f"c{category}" for category in draw(st.sets(st.integers(1, 17), max_size=2))}
    outcome = draw(st.sampled_from(list(Outcome)))
    flags = draw(_flags) if outcome in SENT else 0  # they are set where they are counted
    return Alike(
        outcome=int(outcome),
        flags=flags,
        bounce_class=draw(st.sampled_from([0, 1, 2, 3, 5])),
        category=draw(st.sampled_from([0, 1, 6, 11])),
        ip=ip,
        pool=pool,
        ways="," + "".join(f"{token}," for token in sorted(tokens)),
    )


@given(alikes())
def test_rows_count_as_the_counters_do(alike: Alike) -> None:
    counted = Counted(
        alike.outcome, alike.flags, alike.bounce_class, alike.category, 0, 0, 0, 0, 0, 0,
        alike.ip, alike.pool, ",", alike.ways,
    )  # fmt: skip
    found = places(counted, no_tag=0)
    for dimension in (IP, POOL):
        for value in alike.tried(dimension):
            assert at(value, dimension=dimension).measures(alike) == found[dimension, value]
    for category in alike.refusals():
        seen = Sight().of_category(category).measures(alike)
        assert seen == found[Dimension.CATEGORY, category]


@given(alikes())
def test_without_a_look_everything_counts(alike: Alike) -> None:
    whole = counted_measures(alike.outcome, alike.flags, alike.bounce_class)
    assert Sight().measures(alike) == whole


@pytest.mark.parametrize(
    ("outcome", "bounce_class", "words"),
    [
        (Outcome.BOUNCED, BounceClass.HARD, "hard"),
        (Outcome.BOUNCED, BounceClass.NONE, "undetermined"),
        (Outcome.SUPPRESSED, BounceClass.SUPPRESSED, "suppressed"),
        (Outcome.DELIVERED, BounceClass.NONE, "(none)"),
    ],
)
def test_classes_are_those_of_the_filters(
    outcome: Outcome, bounce_class: BounceClass, words: str
) -> None:
    sight = Sight(Words.of({"class": [words]}, {}))
    assert sight.measures(Alike(int(outcome), 0, int(bounce_class))) != ()
    others = Sight(Words.of({}, {"class": [words]}))
    assert others.measures(Alike(int(outcome), 0, int(bounce_class))) == ()
