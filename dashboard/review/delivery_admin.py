"""Deliveries in the admin: found among millions, each with the timeline of its events.

Deliveries and events are written by ``ingest.record`` alone, so they are read-only here.
"""

from typing import Any, ClassVar, cast
from urllib.parse import urlencode

from django.contrib import admin, messages
from django.contrib.admin.views.main import ChangeList
from django.db.models import Model, QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import URLPattern, path
from django.utils import timezone
from django.utils.functional import cached_property
from django.views.decorators.http import require_POST

from dashboard.access import operating_rights, restrict
from dashboard.review import acting
from dashboard.review.beside import delivery_context, page_of, timeline
from dashboard.review.filters import (
    CampaignFilter,
    CategoryFilter,
    DateFilter,
    DeliveryFilter,
    LocationFilter,
    OutcomeFilter,
    ProviderFilter,
    ReviewFilter,
    TagFilter,
)
from dashboard.review.finding import FOUND, Found, Sought, campaigns_named, find, found_by
from ingest.admin import COUNTED, BoundedPaginator, ReadOnlyAdmin
from ingest.models import Delivery, Value, tag_ids
from ingest.vocabulary import Dimension, Flag

AHEAD = 3  # pages that are found beyond the one that is shown

# From the list's parameters to those of the pages, for the file of the same deliveries.
_EXPORTED = {
    **{name: name for name in ("location", "tag", "campaign", "provider", "outcome", "category")},
    "sent_at__gte": "from",
    "sent_at__lt": "to",
    "q": "q",
}


class OperatorsAdmin(ReadOnlyAdmin):
    """What operators see too: the rows of the locations in which they may change things."""

    location_field = "location_id"

    def has_module_permission(self, request: HttpRequest) -> bool:
        """Whoever enters the admin."""
        return self.admin_site.has_permission(request)

    def has_view_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Whoever enters the admin; which rows they find, ``get_queryset`` says."""
        return self.admin_site.has_permission(request)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """The rows of their locations: any other is not there."""
        rights = operating_rights(request.user)
        return restrict(super().get_queryset(request), rights, self.location_field)


class FoundPaginator(BoundedPaginator):
    """Pages of keys that were found in their order, or else of a query."""

    @property
    def found_pks(self) -> list[int] | None:
        """The keys, if it is a list of such."""
        return getattr(self.object_list, "found_pks", None)

    @cached_property
    def count(self) -> int:
        """How many there are."""
        return super().count if self.found_pks is None else len(self.found_pks)

    def page(self, number: Any) -> Any:
        """One page; of what was found its rows are read, and no others."""
        page = super().page(number)
        if self.found_pks is not None:
            first = (page.number - 1) * self.per_page
            rows: Any = self.object_list
            pks = self.found_pks[first : first + self.per_page]
            page.object_list = rows.filter(pk__in=pks)
        return page


class DeliveryList(ChangeList):
    """The list, looked for by ``finding`` instead of by the filters one by one."""

    def get_queryset(
        self, request: HttpRequest, exclude_parameters: list[str | None] | None = None
    ) -> QuerySet[Any]:
        """The newest of what is sought, in their order."""
        super().get_queryset(request, exclude_parameters)  # makes the filters
        found = self._find(request)
        rows = found.rows.select_related("location", "campaign").order_by("-sent_at", "-pk")
        if found.pks is not None:
            vars(rows)["found_pks"] = found.pks  # for the paginator: it need not sort them again
        return rows

    def _find(self, request: HttpRequest) -> Found:
        sought = Sought(operating_rights(request.user))
        filters = cast(list[DeliveryFilter | DateFilter], self.filter_specs)
        if not all(spec.narrow(sought) for spec in filters):
            return Found(Delivery.objects.none())
        term = self.query.strip().replace("\0", "")
        if term:
            found_pks = self._search(term, sought)
            sought.pks = found_pks if sought.pks is None else found_pks & sought.pks
        # As far as the pages that can be clicked: what nobody turns to need not be found.
        found = find(sought, min(FOUND, self.list_per_page * (max(1, self.page_num) + AHEAD)))
        if found.back_to:
            far = f"{found.back_to:%Y-%m-%d %H:%M} UTC"
            messages.info(request, f"Looked back to {far}: choose a date to look further.")
        return found

    @staticmethod
    def _search(term: str, sought: Sought) -> set[int]:
        pks = found_by(term, sought.rights)
        if "@" not in term and (campaigns := campaigns_named(term)):
            of_campaigns = Sought(sought.rights, sought.location)
            of_campaigns.values[Dimension.CAMPAIGN] = campaigns
            pks |= set(find(of_campaigns).pks or ())
        return pks


@admin.register(Delivery)
class DeliveryAdmin(OperatorsAdmin):
    """One message to one recipient, with the timeline of its events."""

    list_display = (
        "recipient", "location_name", "outcome", "category", "class_", "campaign", "sent_at",
    )  # fmt: skip
    list_filter = (
        LocationFilter,
        OutcomeFilter,
        CategoryFilter,
        ProviderFilter,
        CampaignFilter,
        TagFilter,
        ReviewFilter,
        ("sent_at", DateFilter),
    )
    search_fields = ("recipient",)
    search_help_text = (
        "The beginning of a recipient's address, a whole message id, or a campaign."
        f" Lists end after {COUNTED + 1:,} rows, narrowed ones after {FOUND:,}."
    )
    sortable_by = ()
    ordering = ("-sent_at", "-id")
    list_per_page = 50
    list_max_show_all = 0
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER  # they count the table once a choice
    paginator = FoundPaginator
    change_list_template = "admin/ingest/delivery/change_list.html"
    change_form_template = "admin/ingest/delivery/change_form.html"
    fields = (
        ("recipient", "message_id"),
        ("location", "sent_at"),
        ("outcome", "category", "class_", "code", "flag_words"),
        ("campaign", "step", "tag_names"),
        ("provider", "domain", "sending_domain"),
    )
    readonly_fields = ("class_", "flag_words", "tag_names")

    class Media:
        css: ClassVar = {"all": ["ingest/admin.css", "review/review.css"]}
        js = ("review/review.js",)

    @admin.display(description="location")
    def location_name(self, delivery: Delivery) -> str:
        """Its name, or its id while it has none."""
        return delivery.location.name or delivery.location.ref

    @admin.display(description="class")
    def class_(self, delivery: Delivery) -> str:
        """Whose problem a bounce is."""
        return delivery.get_bounce_class_display()

    @admin.display(description="also")
    def flag_words(self, delivery: Delivery) -> str:
        """What else is true of it."""
        names = (flag.name or "" for flag in Flag(delivery.flags))
        return ", ".join(name.lower().replace("_", " ") for name in names)

    @admin.display(description="tags")
    def tag_names(self, delivery: Delivery) -> str:
        """Its tags, by name."""
        values = Value.objects.filter(pk__in=tag_ids(delivery.tags)).order_by("text")
        return ", ".join(map(str, values))

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        """The list that finds its rows itself."""
        return DeliveryList

    def get_urls(self) -> list[URLPattern]:
        """Django's, and that of what is done with a delivery."""
        act = self.admin_site.admin_view(require_POST(self.act))
        return [path("<int:pk>/act/", act, name="ingest_delivery_act"), *super().get_urls()]

    def act(self, request: HttpRequest, pk: int) -> HttpResponse:
        """Do what a button asks for, and go back to where it is."""
        delivery = self.get_queryset(request).filter(pk=pk).first()
        if delivery is None:
            raise Http404("There is no such delivery.")
        what = request.POST.get("do", "")
        try:
            said = acting.act(delivery, what, request.user, timezone.now(), request.POST)
            self.message_user(request, said, messages.SUCCESS)
        except acting.Refused as no:
            self.message_user(request, str(no), messages.ERROR)
        case = request.POST.get("case", "")
        if case.isdecimal():
            return redirect("admin:dashboard_reviewcase_change", case)
        return redirect(page_of(delivery))

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """The list, with the way to the same deliveries as a file."""
        context = {"export_query": _export_query(request), **(extra_context or {})}
        return super().changelist_view(request, context)

    def render_change_form(
        self,
        request: HttpRequest,
        context: dict[str, Any],
        add: bool = False,
        change: bool = False,
        form_url: str = "",
        obj: Any = None,
    ) -> HttpResponse:
        """The page of one delivery, with its timeline."""
        if obj is not None:
            may_rule = request.user.has_perm("ingest.add_classificationrule")
            context |= delivery_context(obj, may_rule=may_rule) | timeline(obj)
        return super().render_change_form(request, context, add, change, form_url, obj)


def _export_query(request: HttpRequest) -> str:
    """What the pages call the filter of this list."""
    asked = [(_EXPORTED[name], value) for name, value in request.GET.items() if name in _EXPORTED]
    asked = [(name, value or "(none)") for name, value in asked if value or name == "tag"]
    if not any(name in ("from", "to") for name, _ in asked):
        asked.append(("range", "90d"))
    return urlencode([*asked, ("format", "csv")])
