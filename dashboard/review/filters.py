"""What the admin's list of deliveries can be narrowed to. ``finding`` looks for it."""

from datetime import datetime
from typing import Any, ClassVar

from django.contrib import admin
from django.contrib.admin.options import IncorrectLookupParameters
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone

from dashboard.access import operating_rights, restrict
from dashboard.review.finding import FOUND, Sought
from dashboard.review.models import ReviewCase
from ingest.models import CountedValue, Delivery, Location, Value, choices
from ingest.vocabulary import Category, Dimension, Outcome

OFFERED = 50  # values of a filter

type Choices = list[tuple[str, str]]


class DeliveryFilter(admin.SimpleListFilter):
    """A filter that says what is sought, and leaves the looking to the list."""

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """As it is: see ``narrow``."""
        return queryset

    def narrow(self, sought: Sought) -> bool:
        """Add what was chosen. False: nothing can be found."""
        raise NotImplementedError


class LocationFilter(DeliveryFilter):
    """By location. The table of locations is asked, not the deliveries: DISTINCT reads them all."""

    title = "location"
    parameter_name = "location"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Choices:
        """The first locations by name, and the chosen one; links of the location list name any."""
        mine = restrict(Location.objects.all(), operating_rights(request.user), "pk")
        mine = mine.exclude(pk=0)
        chosen = mine.filter(ref=self.value() or "")
        some = mine.order_by("name", "ref")[:OFFERED]
        offered = {location.ref: location.name or location.ref for location in (*chosen, *some)}
        return sorted(offered.items(), key=lambda item: item[1])

    def narrow(self, sought: Sought) -> bool:
        """To the chosen location."""
        if self.value():
            found = Location.objects.filter(ref=self.value()).values_list("pk", flat=True)
            sought.location = found.first()
            return sought.location is not None
        return True


class ValueFilter(DeliveryFilter):
    """By a value of a dimension."""

    dimension: ClassVar[Dimension]

    def lookups(self, request: HttpRequest, model_admin: Any) -> Choices:
        """The first values by name, and the chosen one."""
        values = self._mine(request)
        chosen = values.filter(text=self.value() or "")
        some = values.order_by("text")[:OFFERED]
        return sorted({(value.text, str(value)) for value in (*chosen, *some)})

    def _mine(self, request: HttpRequest) -> QuerySet[Value]:
        """Those that mail of the user's locations has."""
        values = Value.objects.filter(dimension=self.dimension).exclude(text="")
        rights = operating_rights(request.user)
        if rights.everything:
            return values
        # Which values a location has is told by the decisions to count them apart.
        counted = CountedValue.objects.filter(location_id__in=rights.location_ids)
        return values.filter(pk__in=counted.values("value_id"))

    def narrow(self, sought: Sought) -> bool:
        """To the chosen value."""
        if self.value() is None:
            return True
        found = Value.objects.filter(dimension=self.dimension, text=self.value())
        ids = tuple(found.values_list("pk", flat=True))
        sought.values[self.dimension] = ids
        return bool(ids)


class CampaignFilter(ValueFilter):
    """By campaign."""

    title = parameter_name = "campaign"
    dimension = Dimension.CAMPAIGN


class ProviderFilter(ValueFilter):
    """By the receiver's provider."""

    title = parameter_name = "provider"
    dimension = Dimension.PROVIDER


class TagFilter(ValueFilter):
    """By tag; of the empty one, those without any."""

    title = parameter_name = "tag"
    dimension = Dimension.TAG

    def narrow(self, sought: Sought) -> bool:
        """To the chosen tag."""
        if self.value() == "":
            sought.values[Dimension.TAG] = ()
            return True
        return super().narrow(sought)


class OutcomeFilter(DeliveryFilter):
    """By where it stands."""

    title = parameter_name = "outcome"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Choices:
        """All of them."""
        return [(outcome.word, outcome.word) for outcome in Outcome]

    def narrow(self, sought: Sought) -> bool:
        """To the chosen outcome."""
        if self.value():
            if self.value() not in {outcome.word for outcome in Outcome}:
                return False
            sought.outcome = Outcome(Outcome.from_word(str(self.value())))
        return True


class CategoryFilter(DeliveryFilter):
    """By why it was refused."""

    title = parameter_name = "category"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Choices:
        """All of them."""
        words = dict(choices(Category))
        return [(category.word, words[int(category)]) for category in Category if category]

    def narrow(self, sought: Sought) -> bool:
        """To the chosen category."""
        if self.value():
            if self.value() not in {category.word for category in Category if category}:
                return False
            sought.values[Dimension.CATEGORY] = (int(Category.from_word(str(self.value()))),)
        return True


class ReviewFilter(DeliveryFilter):
    """By the state of its review cases."""

    title = "review"
    parameter_name = "review"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Choices:
        """All states; mail without a case has none."""
        return [(str(state), str(state.label)) for state in ReviewCase.State]

    def narrow(self, sought: Sought) -> bool:
        """To the mail of the newest cases in the chosen state."""
        if self.value():
            rows = ReviewCase.objects.filter(state=self.value(), delivery_id__isnull=False)
            pks = restrict(rows, sought.rights).order_by("-pk").values_list("delivery_id")
            sought.pks = {pk for (pk,) in pks[:FOUND] if pk}
        return True


class DateFilter(admin.DateFieldListFilter):
    """By date, as Django writes it in the address."""

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """As it is: see ``narrow``."""
        return queryset

    def narrow(self, sought: Sought) -> bool:
        """To the chosen dates."""
        for name, value in self.used_parameters.items():
            if (moment := _moment(value)) is None:
                return False
            if name == "sent_at__gte":
                sought.since = moment
            elif name == "sent_at__lt":
                sought.until = moment
        return True


def _moment(value: Any) -> datetime | None:
    text = value[-1] if isinstance(value, list) else value
    try:
        moment = Delivery._meta.get_field("sent_at").to_python(text)
    except ValidationError as error:
        raise IncorrectLookupParameters(error) from error
    if moment is None or not isinstance(moment, datetime):
        return None
    return moment if timezone.is_aware(moment) else timezone.make_aware(moment)
