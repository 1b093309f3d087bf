"""One location: how far it is from a stop, what it sent, what fails, where and since when."""

from typing import Any

from django.urls import reverse

from dashboard import quality
from dashboard.failing import worst_campaigns
from dashboard.filters import FilterError
from dashboard.pages.breakdown import breakdown, breakdown_params
from dashboard.pages.changes import CHANGES, CHANGES_PARAMS
from dashboard.pages.common import PULSE
from dashboard.pages.funnel import FUNNEL
from dashboard.pages.gauges import LOCATION_GAUGES
from dashboard.pages.heat import HEAT
from dashboard.pages.highlevel import HIGHLEVEL
from dashboard.pages.later import WAIT, Later
from dashboard.pages.locations import MARKS
from dashboard.pages.needed import PERIODS, fleet_for, message_for
from dashboard.pages.overview import FAILING
from dashboard.pages.page import Asked, Page, Region
from dashboard.pages.repeats import REPEATS
from dashboard.pages.speed import SPEED
from dashboard.pages.subject import whole_of
from dashboard.pages.timeline import TIMELINE

# --- How it stands ---------------------------------------------------------------------------


def _standing(asked: Asked) -> dict[str, Any]:
    """Its state among all, and the message for the client where there is something to tell."""
    places = fleet_for(asked).places
    if not places:
        return {"place": None}
    place = places[0]
    message = ""
    # Whom addresses are masked for is the client: no message to the client is offered there.
    if place.way and place.way.bad and not asked.rights.masks(place.pk):
        since = asked.now - PERIODS[place.way.window]
        worst = worst_campaigns([place.pk], since, place.way.measure).get(place.pk)
        message = message_for(place, worst, "", asked)
    return {"place": place, "mark": MARKS[place.state], "message": message}


STANDING = Region("standing", "dashboard/location/_standing.html", _standing, every=10)


# --- Can the numbers be trusted? -------------------------------------------------------------


def _quality(asked: Asked) -> dict[str, Any]:
    own = asked.filter.only("location")
    for name, value in asked.filter.params():
        if name in ("range", "from", "to", "tz"):
            own = own.with_(name, value)
    try:
        total = quality.quality(own, asked.rights, now=asked.now).total
    except FilterError as error:
        return {"none": str(error)}
    return {
        "total": total,
        "unattributed": quality.share(total.unattributed, total.sent),
        "status_url": f"{reverse('dashboard:status')}?{own.canonical()}",
    }


QUALITY_AT_ONCE = 20_000  # mails

QUALITY = Later(
    "quality",
    "dashboard/location/_quality.html",
    _quality,
    every=60,
    is_quick=lambda asked: whole_of(asked).counts.sent <= QUALITY_AT_ONCE,
)

TABS = (
    "campaign", "step", "tag", "provider", "domain", "sending_domain", "ip", "pool", "category",
    "engagement",
)  # fmt: skip

PAGE = Page(
    "location",
    (
        PULSE,
        STANDING,
        LOCATION_GAUGES,
        TIMELINE,
        FUNNEL,
        CHANGES,
        breakdown(*TABS),
        HEAT,
        FAILING,
        SPEED,
        REPEATS,
        QUALITY,
        HIGHLEVEL,
    ),
    params={
        **breakdown_params(*TABS),
        **CHANGES_PARAMS,
        WAIT: ("changes", "heat", "speed", "repeats", "quality"),
    },
    subject="location",
    compares=True,
)
