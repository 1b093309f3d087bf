"""What the pages of a location and of a campaign have in common: what counts, and its lists.

All of it goes by the time of sending. Tables alone follow ``clock=event``.
"""

from collections.abc import Sequence
from dataclasses import replace

from django.db.models import QuerySet

from dashboard import rate_tables
from dashboard.access import restrict
from dashboard.conditions import campaign_ids, capped_places
from dashboard.failing import list_url
from dashboard.filters import Filter
from dashboard.lists import list_filter
from dashboard.pages.page import Asked
from dashboard.rate_tables import RatesRow, RatesTable
from dashboard.rates import Counts
from dashboard.sources import count
from dashboard.tallies import PLACES, Question
from ingest.models import CountedValue, Delivery
from ingest.vocabulary import Dimension


def by_sending(asked: Asked) -> Filter:
    """The page's filter by the clock of sending."""
    return replace(asked.filter, clock="") if asked.filter.clock else asked.filter


def by_provider(asked: Asked) -> RatesTable | None:
    """The table by provider, asked once for all regions; ``None`` where no counter has it."""
    if asked.filter.names - set(PLACES):
        return None
    return asked.once("rates by provider", lambda: _rates(asked, "provider"))


def whole_of(asked: Asked) -> RatesRow:
    """All mail of the page's filter."""
    known = by_provider(asked)
    if known is None:  # days are counted of every dimension
        known = asked.once("rates by day", lambda: _rates(asked, "day"))
    return known.whole


def _rates(asked: Asked, by: str) -> RatesTable:
    return rate_tables.rates(by_sending(asked), asked.rights, by=by, limit=50, now=asked.now)


def counted(asked: Asked, filter: Filter) -> Counts:
    """What was counted of a filter in all, without dispersions."""
    return asked.once(
        f"counted {filter.canonical()}",
        lambda: Counts(*count(Question(filter.at(asked.now), asked.rights, "day"))[0].total),
    )


def listed(filter: Filter, name: str, by: str = "", key: str = "") -> str:
    """The address of the list of what a count counts; "" where there is none."""
    return list_url(list_filter(filter, by, key, name))


# --- Its deliveries --------------------------------------------------------------------------


def mail_of(asked: Asked, name: str) -> tuple[Filter, QuerySet[Delivery]] | None:
    """The deliveries that a count of the page counts, and their filter; ``None`` without a list.

    Those of a campaign are looked for at its senders alone: no index leads to a campaign.
    """
    filter = list_filter(by_sending(asked), "", "", name)
    if filter is None:
        return None
    found = restrict(filter.apply(Delivery.objects.all()), asked.rights).order_by()
    if asked.subject == "campaign":
        found = found.filter(location_id__in=_senders(asked.filter.values("campaign")))
    return filter, found


def _senders(campaigns: Sequence[str]) -> list[int]:
    """The locations that may have sent one of these campaigns."""
    known = CountedValue.objects.filter(value_id__in=campaign_ids(campaigns))
    return [*known.values_list("location_id", flat=True), *capped_places(Dimension.CAMPAIGN)]
