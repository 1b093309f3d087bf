"""The closed vocabularies that every layer shares: kinds, outcomes, classes, flags, measures.

Words follow Anymail's event names, RFC 3463 and M3AAWG; numbers are what the tables store
and never change their meaning. Nothing here imports Django.
"""

from enum import IntEnum, IntFlag


class _Word(IntEnum):
    """An integer that is stored, with the lower-case word that is shown and filtered by."""

    @property
    def word(self) -> str:
        """The name as users write it: ``EventKind.DELIVERED.word == "delivered"``."""
        return self.name.lower()

    @classmethod
    def from_word(cls, word: str) -> "_Word":
        """The member for a lower-case word. Raises ``KeyError`` for any other."""
        if word != word.lower():
            raise KeyError(word)
        return cls[word.upper()]


class EventKind(_Word):
    """What one event says about a delivery."""

    ACCEPTED = 1
    DELIVERED = 2
    DEFERRED = 3
    BOUNCED = 4
    SUPPRESSED = 5
    REJECTED = 6
    COMPLAINED = 7
    UNSUBSCRIBED = 8
    OPENED = 9
    CLICKED = 10
    STORED = 11
    UNKNOWN = 12


ENGAGEMENT = frozenset(
    {EventKind.COMPLAINED, EventKind.UNSUBSCRIBED, EventKind.OPENED, EventKind.CLICKED}
)
FAILURES = frozenset({EventKind.DEFERRED, EventKind.BOUNCED, EventKind.SUPPRESSED})


class Outcome(_Word):
    """Where a delivery stands; exactly one each, decided by ``fold.judge``."""

    TEST = 1
    BOUNCED = 2
    DELIVERED = 3
    SUPPRESSED = 4
    REJECTED = 5
    DEFERRED = 6
    ACCEPTED = 7
    ORPHAN = 8
    UNKNOWN = 9


class BounceClass(_Word):
    """Whose problem a permanent failure is (SparkPost's split, M3AAWG's words)."""

    NONE = 0
    HARD = 1
    SOFT = 2
    BLOCK = 3
    SUPPRESSED = 4
    UNDETERMINED = 5


class Category(_Word):
    """Why a receiver refused, or a sender did not try: the 17 categories."""

    NONE = 0
    INVALID_RECIPIENT = 1
    INACTIVE_MAILBOX = 2
    DNS_ROUTING = 3
    MAILBOX_FULL = 4
    RATE_LIMITED = 5
    GREYLISTED = 6
    CONNECTION = 7
    SERVER_ERROR = 8
    MESSAGE_TOO_LARGE = 9
    SPAM_CONTENT = 10
    REPUTATION_BLOCK = 11
    AUTHENTICATION = 12
    POLICY = 13
    TLS = 14
    PROTOCOL_ERROR = 15
    SUPPRESSED = 16
    UNCLASSIFIED = 17


class Flag(IntFlag):
    """What else is true of a delivery. Each is set only where the count of that name counts it.

    So ``COMPLAINED`` is set of reached mail only, ``DEFERRED`` of sent mail only, and the list
    behind a number always has as many rows as the number says.
    """

    LATE = 1
    RECOVERED = 2
    INFERRED = 4
    DEFERRED = 8
    COMPLAINED = 16
    UNSUBSCRIBED = 32
    OPENED = 64
    CLICKED = 128
    MACHINE = 256
    REACHED = 512
    OPENED_HUMAN = 1024
    EXPIRED = 2048  # bounced because the sender gave up trying
    VISIBLE = 4096  # reached, at a provider known to report complaints
    VISIBLE_COMPLAINED = 8192
    BLOCK_LOW = 16384  # HighLevel surely counts it as an ESP block …
    BLOCK_HIGH = 32768  # … or may


class Dimension(_Word):
    """What rates can be broken down by, beside location and time."""

    CAMPAIGN = 1
    TAG = 2
    PROVIDER = 3
    DOMAIN = 4
    SENDING_DOMAIN = 5
    IP = 6
    POOL = 7
    CATEGORY = 8
    STEP = 9
    MX = 10


# The dimensions that counters are kept for. What an attempt went through (IP, pool) counts a
# delivery in each value that tried; ``CATEGORY`` has the category's number as its value.
ROLLED_UP = (
    Dimension.CAMPAIGN,
    Dimension.STEP,
    Dimension.TAG,
    Dimension.PROVIDER,
    Dimension.DOMAIN,
    Dimension.SENDING_DOMAIN,
    Dimension.IP,
    Dimension.POOL,
    Dimension.CATEGORY,
)
# Of these the rows of location 0 hold the whole fleet, as ``LocationHour`` does for all mail.
FLEET = frozenset({Dimension.TAG, Dimension.PROVIDER, Dimension.POOL, Dimension.CATEGORY})
FLEET_LOCATION = 0
# So many values of a dimension are counted apart in a location; later ones share ``(other)``.
MOST_VALUES = 5_000

# The columns of every counter table, in this order everywhere. ``in_flight``, ``settled``,
# ``reached`` and ``undetermined`` follow from these and are never stored.
MEASURES = (
    "sent",
    "delivered",
    "bounced",
    "hard",
    "soft",
    "block",
    "deferred",
    "complained",
    "unsubscribed",
    "opened",
    "opened_human",
    "clicked",
    "suppressed",
    "rejected",
    "orphan",
    "unknown",
    "test",
    "late_bounced",
    "recovered",
    "inferred",
    "visible_reached",
    "visible_complained",
    "block_low",
    "block_high",
    # Only under an IP, pool or MX: tried there, settled elsewhere.
    "moved",
)

NONE_KEY = "(none)"
OTHER_KEY = "(other)"
