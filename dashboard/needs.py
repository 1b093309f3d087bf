"""What needs a person, the most pressing first: a card of one cause each. Pure.

A provider's incident is one card, however many locations it hits, and none of these is blamed for
it: see ``incidents`` and ``blameless``.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import IntEnum
from typing import Any, NamedTuple, Self

from dashboard.fleet import FAR, Place, State, Way, band_of
from dashboard.judging import WARNING, Band, is_over
from dashboard.names import FIXERS

AT_MOST = 3
# A refusal is an incident from so many locations and failures on: fewer may be a client's own.
INCIDENT_LOCATIONS, INCIDENT_EVENTS = 3, 20
# Who is to fix it where no client can.
_NOT_CLIENTS = frozenset({"highlevel", "receiver"})
_NOT_PLACES = frozenset({"recipient", "recipient_domain", "message", "content", "sending_domain"})


class Rank(IntEnum):
    """How pressing: what a person can still prevent, and what makes all else unsure, first."""

    SIGNATURES = 0
    OVER = 1
    INCIDENT = 2
    MAY_BE_OVER = 3
    SILENT = 4
    WARNING = 5
    FAR = 6


_OF_PLACES = frozenset({Rank.OVER, Rank.MAY_BE_OVER, Rank.WARNING, Rank.FAR})


@dataclass(frozen=True)
class Card:
    """One cause in plain words. Texts are raw: the template escapes them."""

    rank: Rank
    key: str  # tells cards of a rank apart
    title: str
    cause: str
    weight: float = 0.0  # the larger, the more pressing within its rank
    detail: str = ""
    since: datetime | None = None
    fixer: str = ""
    url: str = ""
    message: str = ""  # for the client
    place: Place | None = None
    incident: str = ""  # a provider's, that the place's failures mostly are

    def with_(self, **changes: Any) -> Self:
        """The card with some of its texts changed."""
        return replace(self, **changes)

    @property
    def name(self) -> str:
        """The same for the same cause, however pressing it is."""
        kind = "place" if self.rank in _OF_PLACES else self.rank.name.lower()
        return f"{kind}:{self.key}"[:200]

    @property
    def level(self) -> str:
        """``bad`` or ``warn``."""
        return "bad" if self.rank <= Rank.MAY_BE_OVER else "warn"


def ranked(cards: Iterable[Card]) -> list[Card]:
    """The most pressing first."""
    return sorted(cards, key=lambda card: (card.rank, -card.weight, card.title, card.key))


# --- Locations -----------------------------------------------------------------------------

NOUNS = {
    "hard": "hard bounces",
    "blocks": "blocked by receivers",
    "complaints": "spam complaints where they are reported",
}


def location_cards(places: Iterable[Place], blameless: Mapping[int, str]) -> list[Card]:
    """A card for each location that is over, may be, or is far on its way; none for silent ones.

    ``blameless`` has the locations whose failures are mostly a provider's incident, with its
    name: they get a card only where HighLevel already counts them over. Many cards are made and
    few are read: ``told`` puts the words in.
    """
    cards = []
    for place in places:
        rank = _rank(place)
        if rank is None or (place.pk in blameless and rank is not Rank.OVER):
            continue
        risk = place.standing.risk
        weight, incident = risk.value if risk else 0.0, blameless.get(place.pk, "")
        key = str(place.pk)
        cards.append(Card(rank, key, place.title, "", weight, place=place, incident=incident))
    return cards


def _rank(place: Place) -> Rank | None:
    if place.state is State.OVER:
        return Rank.OVER
    if place.state is State.WARNING:
        return Rank.MAY_BE_OVER if place.may_be_over else Rank.WARNING
    risk = place.standing.risk
    far = place.state is State.HEADING and risk is not None and risk.value >= FAR
    return Rank.FAR if far else None


def told(card: Card) -> Card:
    """A location's card in words."""
    place = card.place
    if place is None or card.cause:
        return card
    way = place.way
    if way is None:
        return replace(card, cause="Marked as stopped by HighLevel.")
    counts = place.standing.lately.windows[way.window]
    band = band_of(way.measure, counts)
    shares = {f"{100 * (edge.value or 0):.2g}" for edge in (band.low, band.high)}
    rate = "–".join(sorted(shares, key=float))
    period = {"24h": "24 hours", "7d": "7 days"}[way.window]
    return replace(
        card,
        cause=f"{rate} % {NOUNS[way.measure]}; {_said(place, way, band)}.",
        detail=f"{way.bad:,} of {way.of:,} in {period}.",
        fixer=f"{card.incident}: not your client" if card.incident else _FIXERS[way.measure],
    )


def _said(place: Place, way: Way, band: Band) -> str:
    """What that means for the location."""
    if place.standing.is_suspended:
        return "marked as stopped by HighLevel"
    if way.measure == "complaints":
        return "Gmail enforces 0.3 %, and 0.1 % is good"
    if way.few:
        return "few mails, but probably over HighLevel's warning at 3 %"
    return band.sentence


_FIXERS = {
    "hard": FIXERS["client_list"],
    "blocks": "you: look at the reasons",
    "complaints": "your client's list and text",
}


def silent_cards(places: Sequence[Place]) -> list[Card]:
    """One card for the locations of which nothing comes though mail was due."""
    silent = [place for place in places if place.state is State.SILENT]
    due = sum(place.standing.silent_expected for place in silent)
    if not silent:
        return []
    alone = silent[0] if len(silent) == 1 else None
    return [
        Card(
            Rank.SILENT,
            "silent",
            alone.title if alone else f"{len(silent):,} locations are silent",
            f"No event came for over an hour; {due:,} were due by the week before.",
            weight=due,
            detail="" if alone else f"{_names(silent)}.",
            fixer="you: is the app installed, does it still send?",
            place=alone,
        )
    ]


def _names(places: Sequence[Place], most: int = 3) -> str:
    named = ", ".join(place.title for place in places[:most])
    return named + (f" and {len(places) - most:,} more" if len(places) > most else "")


def signature_card(verdicts: str, least: int = 10) -> list[Card]:
    """A card if every one of the newest signatures was wrong; ``verdicts``: "1" right, "0" wrong.

    Then nothing that the page shows is new.
    """
    if len(verdicts) < least or "1" in verdicts:
        return []
    return [
        Card(
            Rank.SIGNATURES,
            "signatures",
            "No webhook is believed",
            f"All of the last {len(verdicts):,} signatures were wrong: nothing new is stored.",
            detail="HighLevel has changed its key, or somebody else posts to this address.",
            fixer="you: the signing keys",
        )
    ]


# --- Incidents -----------------------------------------------------------------------------


class Failure(NamedTuple):
    """A reason as the overview shows it: how often, what, where, how far, whose, since when."""

    id: int
    events: int
    bounced: int
    locations: int
    provider: str
    pool: str
    scope: str  # what is refused, by its rule
    fix_by: str
    means: str
    reach: str
    chip: str
    since: datetime | None
    is_new: bool
    url: str
    of: int = 0  # locations that could have met it


@dataclass(frozen=True)
class Incident:
    """A provider, or a pool at it, that refuses the mail of several locations."""

    provider: str
    pool: str
    refusals: list[Failure] = field(default_factory=list)

    @property
    def name(self) -> str:
        """``Outlook``, or the pool."""
        return self.provider or f"pool {self.pool}"

    @property
    def events(self) -> int:
        """All that were refused."""
        return sum(each.events for each in self.refusals)


def incidents(failures: Iterable[Failure]) -> list[Incident]:
    """Refusals that no client can help, of several locations, by provider and pool."""
    found: dict[tuple[str, str], Incident] = {}
    for failure in failures:
        if _is_incident(failure):
            key = (failure.provider, failure.pool)
            incident = found.setdefault(key, Incident(*key))
            incident.refusals.append(failure)
    return sorted(found.values(), key=lambda incident: -incident.events)


def _is_incident(failure: Failure) -> bool:
    return (
        bool(failure.provider or failure.pool)
        and failure.locations >= INCIDENT_LOCATIONS
        and failure.events >= INCIDENT_EVENTS
        and failure.fix_by in _NOT_CLIENTS
        and failure.scope not in _NOT_PLACES
    )


def incident_card(incident: Incident) -> Card:
    """Who refuses whose mail, how much of it, since when."""
    first = max(incident.refusals, key=lambda failure: failure.events)
    through = f" through pool {incident.pool}" if incident.provider and incident.pool else ""
    sinces = [each.since for each in incident.refusals if each.since]
    return Card(
        Rank.INCIDENT,
        f"{incident.provider} {incident.pool}",
        f"{incident.name} is refusing mail{through}",
        f"{first.means.rstrip('.')}: {first.reach}.",
        weight=incident.events,
        detail=f"{incident.events:,} times so far.",
        since=min(sinces, default=None),
        fixer=f"{FIXERS.get(first.fix_by, '')}, not your clients",
        url=first.url,
    )


def blameless(
    places: Iterable[Place],
    refused: Mapping[int, Mapping[int, int]],
    found: Iterable[Incident],
) -> dict[int, str]:
    """Locations that would be under the warning without the incidents, with the incident's name.

    ``refused`` has how often each reason met each location, in the window of its way: location →
    reason → failures. Nobody complains because of a provider.
    """
    named = {each.id: incident.name for incident in found for each in incident.refusals}
    blamed = {}
    for place in places:
        met = refused.get(place.pk, {})
        theirs = {reason: n for reason, n in met.items() if reason in named}
        if not theirs or place.way is None or place.way.measure == "complaints":
            continue
        own = max(0, place.way.bad - sum(theirs.values()))
        if not is_over(own, place.way.of, WARNING):
            blamed[place.pk] = named[max(theirs, key=lambda reason: theirs[reason])]
    return blamed
