"""What a delivery is, in the words of the filters."""

from collections.abc import Collection

from ingest.fold import SENT
from ingest.vocabulary import NONE_KEY, BounceClass, Dimension, Flag, Outcome

# The names whose values are ``Value``s; of all but tags a delivery has one, in this column.
VALUE_NAMES = {
    dimension.word: dimension for dimension in Dimension if dimension != Dimension.CATEGORY
}
ATTEMPT_NAMES = ("ip", "pool", "mx")
MOVED = "moved"  # an outcome beside an IP, pool or MX
DEFERRED = "deferred"  # the flag
SENT_WORDS = frozenset(outcome.word for outcome in SENT)


def class_word(outcome: int, bounce_class: int) -> str:
    """Whose problem it was: every bounced delivery has one of four, so that they add up."""
    if outcome == Outcome.BOUNCED:
        return BOUNCED_CLASSES.get(bounce_class, "undetermined")
    return "suppressed" if outcome == Outcome.SUPPRESSED else NONE_KEY


BOUNCED_CLASSES = {int(c): c.word for c in (BounceClass.HARD, BounceClass.SOFT, BounceClass.BLOCK)}


def flag_words(flags: int) -> tuple[str, ...]:
    """The words of the flags that are set, as ``is`` takes them."""
    return tuple(word for flag, word in FLAG_WORDS if flags & flag)


FLAG_WORDS = [(int(flag), flag.name.lower()) for flag in Flag if flag.name]


def campaign_keys(key: str) -> tuple[str, ...]:
    """The full key and, where it names its type (``workflow:abc``), the bare id."""
    bare = key.partition(":")[2]
    return (key, bare) if bare else (key or NONE_KEY,)


def keeps_moved(outcomes: Collection[str]) -> bool:
    """All that was sent holds what moved on, too: the list of ``sent`` counts to it."""
    return MOVED in outcomes or SENT_WORDS.issubset(outcomes)
