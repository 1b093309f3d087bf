"""The pages that are kept fresh over ``/ws/live/``, by their names."""

from dashboard.pages import campaign, deliveries, location, overview, reason, reasons, status
from dashboard.pages.page import Page

_ALL = (
    overview.PAGE,
    location.PAGE,
    campaign.PAGE,
    deliveries.PAGE,
    reasons.PAGE,
    reason.PAGE,
    status.PAGE,
)

PAGES: dict[str, Page] = {page.name: page for page in _ALL}
