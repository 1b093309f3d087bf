"""Mail to addresses that had bounced hard or complained before it was sent: whose it is."""

from collections.abc import Collection
from typing import NamedTuple

from django.db.models import Count, F, Q, QuerySet, Sum
from django.db.models.lookups import GreaterThan

from dashboard.access import Rights, restrict
from dashboard.failing import list_url
from dashboard.filters import Filter, FilterError
from dashboard.models import MailedAgain
from dashboard.names import campaign_name
from dashboard.queries import UNNAMED, names_of
from dashboard.spans import hour_of
from ingest.fold import SENT
from ingest.models import Delivery, Location, LocationHour
from ingest.vocabulary import NONE_KEY, BounceClass, Flag, Outcome

# Mail that was sent, or that the provider itself held back; engagement alone shows no mail.
_MAILED = [*SENT, Outcome.SUPPRESSED]


class Again(NamedTuple):
    """What one campaign or step of a workflow sent in a location to addresses that had died.

    ``hard_points`` and ``complaint_points`` are what it adds to the location's rates, in points
    of percent (0.4 of 6.1 %); ``None`` where the rate has no denominator.
    """

    location: Location
    campaign: str
    campaign_key: str
    step: str
    mails: int
    addresses: int
    hard: int
    complained: int
    delivered: int
    hard_points: float | None
    complaint_points: float | None
    url: str

    @property
    def costs(self) -> list[str]:
        """In words, what raises a rate."""
        named = ((self.hard_points, "hard bounces"), (self.complaint_points, "complaints"))
        return [f"{points:.2f} points of {what}" for points, what in named if points and points > 0]

    def as_json(self) -> dict[str, object]:
        """Ready for JSON."""
        found = self._asdict()
        del found["url"]
        return found | {"location": self.location.ref, "location_name": self.location.name}


def mailed_after_death(filter: Filter, rights: Rights, *, limit: int = 50) -> list[Again]:
    """By location, campaign and step, the most mails first. Raises ``FilterError``."""
    counted = deliveries_after_death(filter, rights).order_by()
    grouped = counted.values_list("location_id", "campaign_id", "step_id").annotate(**_COUNTED)
    most = F("mails").desc()
    rows = list(grouped.order_by(most, "location_id", "campaign_id", "step_id")[:limit])
    places = Location.objects.in_bulk({row[0] for row in rows})
    rates = _rates(filter, places)
    named = names_of({pk for row in rows for pk in row[1:3]})
    found = []
    for location_id, campaign_id, step_id, mails, addresses, hard, bounced, complained, ok in rows:
        campaign, step = named.get(campaign_id, UNNAMED), named.get(step_id, UNNAMED)
        rate, place = rates.get(location_id, _Rates()), places[location_id]
        found.append(
            Again(
                location=place,
                campaign=campaign.label or campaign_name(campaign.text),
                campaign_key=campaign.text,
                step=step.label or step.text,
                mails=mails,
                addresses=addresses,
                hard=hard,
                complained=complained,
                delivered=ok,
                hard_points=_points(rate.hard, rate.settled, hard, bounced + ok),
                complaint_points=_points(rate.complained, rate.reached, complained, ok),
                url=_url(filter, place, campaign.text),
            )
        )
    return found


_COMPLAINED = Q(GreaterThan(F("flags").bitand(int(Flag.COMPLAINED)), 0))
_COUNTED = {
    "mails": Count("pk"),
    "addresses": Count("recipient", distinct=True),
    "hard": Count("pk", filter=Q(outcome=Outcome.BOUNCED, bounce_class=BounceClass.HARD)),
    "bounced": Count("pk", filter=Q(outcome=Outcome.BOUNCED)),
    "complained": Count("pk", filter=_COMPLAINED),
    "arrived": Count("pk", filter=Q(outcome=Outcome.DELIVERED)),
}


class _Rates(NamedTuple):
    """What a location counted of all its mail in the same time."""

    hard: int = 0
    settled: int = 0
    complained: int = 0
    reached: int = 0


def _rates(filter: Filter, places: Collection[int]) -> dict[int, _Rates]:
    """By location; whole hours, so that the edges may have a few mails more."""
    hours = LocationHour.objects.filter(location_id__in=places)
    if filter.start:
        hours = hours.filter(hour__gte=hour_of(filter.start))
    if filter.until:
        hours = hours.filter(hour__lte=hour_of(filter.until))
    names = ("hard", "delivered", "bounced", "complained", "late_bounced", "recovered")
    sums = {f"{name}_sum": Sum(name) for name in names}
    found = {}
    for pk, hard, delivered, bounced, complained, late, recovered in (
        hours.order_by().values_list("location_id").annotate(**sums)
    ):
        found[pk] = _Rates(hard, delivered + bounced, complained, delivered + late + recovered)
    return found


def _points(bad: int, of: int, own_bad: int, own: int) -> float | None:
    """How much lower a rate would be without some mails, in points of percent."""
    if not of:
        return None
    without = (bad - own_bad) / (of - own) if of > own else 0.0
    return round(100 * (bad / of - without), 2)


def _url(filter: Filter, place: Location, campaign: str) -> str:
    try:
        return list_url(filter.with_("location", place.ref).with_("campaign", campaign or NONE_KEY))
    except FilterError:
        return ""


def deliveries_after_death(filter: Filter, rights: Rights) -> QuerySet[Delivery]:
    """The deliveries themselves, of a filter and what may be seen."""
    marked = restrict(MailedAgain.objects.all(), rights)
    if filter.start:
        marked = marked.filter(sent_at__gte=filter.start)
    mails = filter.apply(Delivery.objects.filter(pk__in=marked.values("pk")))
    return restrict(mails.filter(outcome__in=_MAILED), rights)
