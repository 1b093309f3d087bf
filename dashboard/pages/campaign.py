"""One campaign or workflow: what a location's page shows, of this mail alone, and who sends it."""

from dashboard.pages.breakdown import breakdown, breakdown_params
from dashboard.pages.changes import CHANGES, CHANGES_PARAMS
from dashboard.pages.common import PULSE
from dashboard.pages.funnel import FUNNEL
from dashboard.pages.gauges import CAMPAIGN_GAUGES
from dashboard.pages.heat import HEAT
from dashboard.pages.later import WAIT, Later
from dashboard.pages.overview import FAILING as ALL_FAILING
from dashboard.pages.page import Page
from dashboard.pages.speed import SPEED
from dashboard.pages.subject import whole_of
from dashboard.pages.timeline import TIMELINE

TABS = (
    "location", "step", "tag", "provider", "domain", "sending_domain", "ip", "pool", "category",
    "engagement",
)  # fmt: skip

FAILING_AT_ONCE = 5_000  # mails: reasons are not counted by campaign, but read off its events

FAILING = Later(
    "failing",
    "dashboard/location/_failing.html",
    ALL_FAILING.load,
    every=30,
    is_quick=lambda asked: whole_of(asked).counts.sent <= FAILING_AT_ONCE,
)

PAGE = Page(
    "campaign",
    (
        PULSE,
        CAMPAIGN_GAUGES,
        TIMELINE,
        FUNNEL,
        CHANGES,
        breakdown(*TABS),
        HEAT,
        FAILING,
        SPEED,
    ),
    params={
        **breakdown_params(*TABS),
        **CHANGES_PARAMS,
        WAIT: ("changes", "heat", "failing", "speed"),
    },
    subject="campaign",
    default_range="30d",
    compares=True,
)
