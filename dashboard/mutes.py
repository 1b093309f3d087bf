"""What of a page is its reader's own: where they may change things, and which cards they muted."""

from datetime import datetime
from typing import NamedTuple

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser

from dashboard.access import NOTHING, Rights, operating_rights
from dashboard.models import Mute
from dashboard.needs import Card

WORSE = 1.5  # times the weight that a card had when it was muted


class Muted(NamedTuple):
    """A card that somebody wants to hear no more of, unless it gets worse than it was then."""

    card: str  # its name
    rank: int
    weight: float
    until: datetime

    def hides(self, card: Card, now: datetime) -> bool:
        """Whether it still holds for this card."""
        is_worse = card.rank < self.rank or card.weight >= WORSE * max(self.weight, 1.0)
        return self.card == card.name and now < self.until and not is_worse


class Viewer(NamedTuple):
    """What a page shows of its reader's own: pages of equal viewers are written once."""

    operates: Rights = NOTHING
    mutes: frozenset[Muted] = frozenset()

    def hides(self, card: Card, now: datetime) -> bool:
        """Whether the reader has muted a card, and it has not become worse since."""
        return any(muted.hides(card, now) for muted in self.mutes)


NOBODY = Viewer()


def viewer_of(user: AbstractBaseUser | AnonymousUser, *, now: datetime) -> Viewer:
    """The viewer that a user is at this moment."""
    mutes = Mute.objects.filter(user_id=user.pk or 0, until__gt=now)
    found = mutes.values_list("card", "rank", "weight", "until")
    return Viewer(operating_rights(user), frozenset(Muted(*row) for row in found))
