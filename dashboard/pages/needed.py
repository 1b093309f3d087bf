"""The region "Needs you": at most three cards, each a cause, since when, and whose it is to fix."""

from datetime import datetime, timedelta
from typing import Any, NamedTuple

from django.conf import settings

from dashboard import failing, needs
from dashboard.client_message import Trouble, client_message
from dashboard.failing import failures
from dashboard.filters import Filter
from dashboard.fleet import Fleet, Place, State, Way, fleet_of
from dashboard.judging import DANGERS
from dashboard.names import page_url, path_of
from dashboard.needs import AT_MOST, Card, Failure, Incident, Rank
from dashboard.pages.page import Asked, Region
from dashboard.refreshed import Kept
from ingest.models import RecentSignatures

FAILURES = 12  # reasons among which incidents are looked for
LOOKED_AT = 50  # locations whose reasons are looked at, to see if they are a provider's
MUTE_FOR = {"4": "4 hours", "24": "a day", "168": "a week"}
MUCH = 2_000  # mails of a location, whose trouble is looked into every few seconds only
PERIODS = {"24h": timedelta(hours=24), "7d": timedelta(days=7)}
PERIOD_WORDS = {"24h": "24 hours", "7d": "7 days"}


def fleet_for(asked: Asked) -> Fleet:
    """The locations of a page's filter, as they stand."""
    return asked.once(
        "fleet", lambda: fleet_of(asked.filter.location_ids(asked.rights), now=asked.now)
    )


def lately_of(asked: Asked) -> Filter:
    """The last day of a page's locations, whatever else it is filtered by."""
    return asked.filter.only("location", "company").with_("range", "24h")


def failures_of(asked: Asked, filter: Filter) -> list[Failure]:
    """The most frequent reasons of a filter, asked once for the whole page."""
    return asked.once(
        f"failures {filter.canonical()}",
        lambda: failures(filter, asked.rights, limit=FAILURES),
    )


def cards_of(asked: Asked) -> list[Card]:
    """Everything that needs somebody, the most pressing first, muted or not."""
    return asked.once("cards", lambda: _cards(asked))


def _cards(asked: Asked) -> list[Card]:
    fleet = fleet_for(asked)
    incidents = needs.incidents(failures_of(asked, lately_of(asked)))
    risky = [place for place in fleet.places if place.state in (State.OVER, State.WARNING)]
    blameless = _blameless(risky[:LOOKED_AT], incidents, asked)
    found = needs.location_cards(fleet.places, blameless)
    found += needs.silent_cards(fleet.places)
    found += [needs.incident_card(incident) for incident in incidents]
    if asked.rights.everything:
        verdicts = RecentSignatures.objects.values_list("verdicts", flat=True).first()
        found += needs.signature_card(verdicts or "")
    return needs.ranked(found)


def _unmuted(asked: Asked) -> list[Card]:
    return [card for card in cards_of(asked) if not asked.viewer.hides(card, asked.now)]


def _muted(asked: Asked) -> list[Card]:
    return [card for card in cards_of(asked) if asked.viewer.hides(card, asked.now)]


def _blameless(places: list[Place], incidents: list[Incident], asked: Asked) -> dict[int, str]:
    found: dict[int, str] = {}
    for window, period in PERIODS.items():
        there = [place for place in places if place.way and place.way.window == window]
        if there and incidents:
            met = failing.refused([place.pk for place in there], asked.now - period)
            found |= needs.blameless(there, met, incidents)
    return found


def _in_full(card: Card, asked: Asked) -> Card:
    """With what only few cards are asked for: its campaign, since when, the client's message."""
    card = needs.told(card)
    place = card.place
    if place is None:
        return card.with_(url=card.url or _more_url(card, asked))
    url = page_url("location", place.ref, query=lately_of(asked).without("location").canonical())
    if place.way is None or card.rank is Rank.SILENT:
        return card.with_(url=url)
    way = place.way
    behind = _kept_behind.get(
        (place.pk, way.measure, way.window, way.high >= 100),
        lambda: _behind(place.pk, way, asked),
    )
    worst = behind.worst
    detail = f"{card.detail} {worst.bad:,} come from “{worst.campaign}”." if worst else card.detail
    return card.with_(
        url=url,
        detail=detail,
        since=behind.since,
        message=_message(place, way, worst, card.incident, behind.addresses),
    )


class Behind(NamedTuple):
    """What is behind a location's trouble; ``of`` so many mails."""

    of: int
    worst: failing.Share | None
    since: datetime | None
    addresses: list[str]


_kept_behind = Kept[tuple[int, str, str, bool], Behind](
    lambda found: found.of >= MUCH, fresh=failing.KEPT_FRESH
)


def _behind(location: int, way: Way, asked: Asked) -> Behind:
    since = asked.now - PERIODS[way.window]
    line = DANGERS[way.measure].stop * (1 if way.high >= 100 else 0.6)
    return Behind(
        way.of,
        failing.worst_campaigns([location], since, way.measure).get(location),
        failing.over_since(location, way.measure, since, line),
        _addresses(location, way, asked),
    )


def message_for(place: Place, worst: failing.Share | None, provider: str, asked: Asked) -> str:
    """What to tell the client of a location; ``provider`` is the one to blame, if one is."""
    if place.way is None:
        return ""
    addresses = _addresses(place.pk, place.way, asked)
    return _message(place, place.way, worst, provider, addresses)


def _message(
    place: Place, way: Way, worst: failing.Share | None, provider: str, addresses: list[str]
) -> str:
    trouble = Trouble(
        name=place.title,
        measure=way.measure,
        bad=way.bad,
        of=way.of,
        period=PERIOD_WORDS[way.window],
        campaign=worst.campaign if worst else "",
        campaign_bad=worst.bad if worst else 0,
        provider=provider,
        addresses=addresses,
        url=f"{settings.PUBLIC_URL}{page_url('location', place.ref)}"
        if settings.PUBLIC_URL
        else "",
    )
    return client_message(trouble)


def _addresses(location: int, way: Way, asked: Asked) -> list[str]:
    if way.measure == "complaints":
        return []
    since = asked.now - PERIODS[way.window]
    return failing.bounced_addresses(location, since, hard=way.measure == "hard")


def _more_url(card: Card, asked: Asked) -> str:
    if card.rank is Rank.SILENT:
        return asked.link(state=State.SILENT.value, page=None, find=None)
    return ""


class Shown(NamedTuple):
    """A card, and what its reader can do about it."""

    card: Card
    suspend_url: str = ""  # where it is noted that HighLevel stopped the location, if one may
    cause: str = ""  # why HighLevel stops such a location, as a suspension names it


_CAUSES = {"hard": "bounces", "blocks": "blocks"}


def _shown(card: Card, asked: Asked) -> Shown:
    place = card.place
    if place is None or place.standing.is_suspended or not asked.viewer.operates.sees(place.pk):
        return Shown(_in_full(card, asked))
    cause = _CAUSES.get(place.way.measure if place.way else "", "other")
    return Shown(_in_full(card, asked), path_of("suspend", place.ref), cause)


def _load(asked: Asked) -> dict[str, Any]:
    cards = _unmuted(asked)
    return {
        "cards": [_shown(card, asked) for card in cards[:AT_MOST]],
        "muted": _muted(asked),
        "mute_for": MUTE_FOR,
        "count": len(cards),
        "more": max(0, len(cards) - AT_MOST),
        "more_url": asked.link(state="needs", page=None, find=None) + "#locations-title",
        "counts": {state.value: n for state, n in fleet_for(asked).counts.items()},
        "locations": len(fleet_for(asked).places),
    }


NEEDS = Region("needs", "dashboard/_needs.html", _load, every=2)
