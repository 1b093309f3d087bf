"""Who needs somebody first, and whose fault is whose."""

from datetime import timedelta
from typing import Any

import pytest

from dashboard import needs
from dashboard.fleet import Place, State, state_of, way_of
from dashboard.judging import Risk
from dashboard.needs import Failure, Rank
from dashboard.rates import Counts
from dashboard.riskiest import Lately, Standing
from tests.dashboard.rows import NOW


def place(
    pk: int = 1, tier: int = 2, measure: str = "hard", risk: float = 40, **more: Any
) -> Place:
    """A location with these counts in both windows."""
    silent, suspended = more.pop("silent", 0), more.pop("suspended", False)
    counts = Counts(**more)
    lately = Lately(windows={"24h": counts, "7d": counts})
    found = Risk(risk, measure, "24h") if counts else None
    standing = Standing(lately, found, tier, silent, suspended)
    name = f"Place {pk}"
    return Place(pk, f"loc-{pk}", name, state_of(standing), standing, way_of(standing))


def failure(pk: int = 1, **changes: Any) -> Failure:
    """Outlook refuses a pool's IPs, in 37 locations."""
    found = Failure(
        id=pk,
        events=212,
        bounced=212,
        locations=37,
        provider="Outlook",
        pool="B",
        scope="ip_pool",
        fix_by="highlevel",
        means="The sending IP is on its block list.",
        reach="37 of 41 locations that mail Outlook through pool B",
        chip="one pool",
        since=NOW,
        is_new=True,
        url="",
    )
    return found._replace(**changes)


OVER: dict[str, Any] = {"tier": 0, "sent": 1377, "bounced": 84, "hard": 84, "risk": 114}
MAY: dict[str, Any] = {"sent": 1000, "bounced": 60, "hard": 10, "block": 50, "risk": 90}


# --- States --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "state"),
    [
        (OVER, State.OVER),
        ({"tier": 1, "sent": 100}, State.SILENT),
        ({"tier": 3}, State.QUIET),
        (MAY, State.WARNING),
        ({"sent": 1000, "bounced": 40, "hard": 40}, State.WARNING),
        ({"sent": 60, "bounced": 14, "hard": 14, "risk": 30}, State.WARNING),
        ({"sent": 1000, "bounced": 32, "hard": 2, "soft": 30}, State.HEADING),
        ({"sent": 5000, "risk": 60}, State.HEADING),
        ({"sent": 5000, "risk": 10}, State.INSIDE),
        ({"sent": 60, "risk": 1}, State.EARLY),
        ({"sent": 9000, "visible_reached": 9000, "visible_complained": 40}, State.WARNING),
    ],
)
def test_the_state_of_a_location(given: dict[str, Any], state: State) -> None:
    assert place(**given).state is state


def test_the_way_of_few_mails_is_what_is_sure() -> None:
    few = place(sent=20, bounced=3, risk=6)
    assert few.way is not None
    assert few.way.words == "6 % hard · few mails"
    many = place(**MAY)
    assert many.way is not None
    assert many.way.words == "20–120 % hard"


# --- Cards ---------------------------------------------------------------------------------


def test_a_location_that_is_over_says_of_what_and_by_whose_line() -> None:
    (card,) = map(needs.told, needs.location_cards([place(**OVER)], {}))
    assert card.rank is Rank.OVER
    assert card.cause == "6.1 % hard bounces; HighLevel counts this as over 5 %."
    assert card.detail == "84 of 1,377 in 24 hours."
    assert card.fixer == "your client's list"


def test_what_is_inside_or_too_early_needs_nobody() -> None:
    inside = place(1, sent=5000)
    early = place(2, sent=20)
    heading = place(3, sent=5000, risk=60)
    assert needs.location_cards([inside, early, heading], {}) == []
    far = place(4, sent=5000, risk=80)
    assert [card.rank for card in needs.location_cards([far], {})] == [Rank.FAR]


def test_a_mark_by_a_person_is_said() -> None:
    marked = place(tier=0, suspended=True, sent=5000)
    (card,) = map(needs.told, needs.location_cards([marked], {}))
    assert card.rank is Rank.OVER
    assert "marked as stopped by HighLevel" in card.cause


def test_the_most_pressing_comes_first() -> None:
    places = [place(1, **MAY), place(2, **OVER), place(3, **(OVER | {"risk": 150}))]
    cards = needs.location_cards(places, {})
    cards += [needs.incident_card(each) for each in needs.incidents([failure()])]
    cards += needs.silent_cards([place(4, tier=1, silent=140)])
    cards += needs.signature_card("0" * 20)
    order = [(card.rank, card.title) for card in needs.ranked(cards)]
    assert order == [
        (Rank.SIGNATURES, "No webhook is believed"),
        (Rank.OVER, "Place 3"),
        (Rank.OVER, "Place 2"),
        (Rank.INCIDENT, "Outlook is refusing mail through pool B"),
        (Rank.MAY_BE_OVER, "Place 1"),
        (Rank.SILENT, "Place 4"),
    ]


def test_signatures_are_believed_as_long_as_one_is_right() -> None:
    assert needs.signature_card("") == []
    assert needs.signature_card("0" * 9) == []
    assert needs.signature_card("0" * 50 + "1") == []


def test_many_silent_locations_are_one_card() -> None:
    (card,) = needs.silent_cards([place(n, tier=1, silent=30) for n in range(5)])
    assert card.title == "5 locations are silent"
    assert card.detail == "Place 0, Place 1, Place 2 and 2 more."
    assert "150 were due" in card.cause
    assert needs.silent_cards([place(1, sent=100)]) == []


# --- Incidents -----------------------------------------------------------------------------


def test_an_incident_says_whom_it_hits_and_whose_it_is() -> None:
    (incident,) = needs.incidents(
        [failure(), failure(2, events=40, since=NOW - timedelta(hours=1))]
    )
    card = needs.incident_card(incident)
    assert card.cause == (
        "The sending IP is on its block list: 37 of 41 locations that mail Outlook through pool B."
    )
    assert card.detail == "252 times so far."
    assert card.since == NOW - timedelta(hours=1)
    assert "not your clients" in card.fixer


@pytest.mark.parametrize(
    "changes",
    [
        {"locations": 2},
        {"events": 19},
        {"fix_by": "client_list"},
        {"scope": "recipient"},
        {"fix_by": "wait"},
        {"provider": "", "pool": ""},
    ],
)
def test_what_is_no_incident(changes: dict[str, Any]) -> None:
    assert needs.incidents([failure(**changes)]) == []


def test_a_location_is_blameless_if_it_were_inside_without_the_incident() -> None:
    hit, own = place(1, **MAY), place(2, **MAY)
    found = needs.incidents([failure(7)])
    met = {1: {7: 50, 8: 10}, 2: {7: 5, 8: 55}}
    assert needs.blameless([hit, own], met, found) == {1: "Outlook"}


def test_a_blameless_location_gets_no_card_of_its_own_unless_it_is_over() -> None:
    may, over = place(1, **MAY), place(2, **OVER)
    cards = needs.location_cards([may, over], {1: "Outlook", 2: "Outlook"})
    (card,) = map(needs.told, cards)
    assert card.title == "Place 2"
    assert card.fixer == "Outlook: not your client"


def test_nobody_complains_because_of_a_provider() -> None:
    complained = place(
        1, measure="complaints", sent=9000, visible_reached=9000, visible_complained=40
    )
    found = needs.incidents([failure(7)])
    assert needs.blameless([complained], {1: {7: 500}}, found) == {}
