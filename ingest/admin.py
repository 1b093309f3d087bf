"""Django's admin for what came in: deliveries with their events, locations, sources, kept webhooks.

Deliveries and events are written by ``ingest.record`` alone, so they are read-only here. Their
tables are large: every list is bounded by an index, and nothing counts further than it must.
"""

import json
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.paginator import Paginator
from django.db import connection
from django.db.models import Model, Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.functional import cached_property
from django.utils.html import format_html
from django.utils.safestring import SafeString

from ingest import details, operator_rules
from ingest.classify import FIXERS, SCOPES, RuleError
from ingest.management.commands.create_source import webhook_url
from ingest.models import (
    ClassificationRule,
    Delivery,
    Event,
    KeptWebhook,
    Location,
    QuarantinedWebhook,
    Source,
    Value,
    tag_ids,
)
from ingest.normalize import decode
from ingest.record import payload_of
from ingest.vocabulary import Dimension, EventKind, Flag

COUNTED = 10_000  # rows of a list; beyond that it says no more than "more"
OFFERED = 50  # values of a filter
FOUND = 1_000  # deliveries of a search
TIMELINE = 200  # events of a delivery


class BoundedPaginator(Paginator):  # type: ignore[type-arg]
    """Counts no further than ``COUNTED`` + 1: an exact count reads the whole table."""

    @cached_property
    def count(self) -> int:
        """How many rows there are, at most ``COUNTED`` + 1."""
        rows: Any = self.object_list
        return int(rows.order_by()[: COUNTED + 1].count())


class ReadOnlyAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """Looks, and touches nothing."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Never."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Never."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Never."""
        return False


def pretty(body: bytes | None) -> str:
    """A raw body for people: JSON indented, anything else as text. "" for none."""
    if body is None:
        return ""
    try:
        return json.dumps(decode(body), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return body.decode(errors="replace")


class LocationFilter(admin.SimpleListFilter):
    """By location. The table of locations is asked, not the deliveries: DISTINCT reads them all."""

    title = "location"
    parameter_name = "location"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """The first locations by name, and the chosen one; links of the location list name any."""
        chosen = Location.objects.filter(ref=self.value() or "")
        some = Location.objects.order_by("name", "ref")[:OFFERED]
        offered = {location.ref: location.name or location.ref for location in (*chosen, *some)}
        return sorted(offered.items(), key=lambda item: item[1])

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """The deliveries of the chosen location."""
        if not self.value():
            return queryset
        # Its id first: with a join the planners sort instead of walking the index.
        location = Location.objects.filter(ref=self.value()).first()
        return queryset.filter(location_id=location.pk) if location else queryset.none()


class TagFilter(admin.SimpleListFilter):
    """By tag, over the column of value ids."""

    title = "tag"
    parameter_name = "tag"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """The first tags by name, and the chosen one."""
        tags = Value.objects.filter(dimension=Dimension.TAG)
        chosen = tags.filter(text=self.value() or "")
        some = tags.exclude(text="").order_by("text")[:OFFERED]
        return sorted({(value.text, str(value)) for value in (*chosen, *some)})

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """The deliveries with the chosen tag; of the empty one, those without any."""
        if self.value() is None:
            return queryset
        if not self.value():
            return queryset.filter(tags=",")
        value = Value.objects.filter(dimension=Dimension.TAG, text=self.value()).first()
        return queryset.filter(tags__contains=f",{value.pk},") if value else queryset.none()


def found_by(queryset: QuerySet[Any], term: str) -> QuerySet[Any]:
    """The deliveries whose recipient begins with ``term``, or whose message id it is.

    Ids are looked up first, each by its own index: beside an OR and an order the planners
    prefer to walk the whole table.
    """
    recipient = term.lower()
    prefix = Q(recipient__startswith=recipient)
    if connection.vendor == "sqlite":  # its LIKE uses no index
        prefix &= Q(recipient__gte=recipient, recipient__lt=recipient + "\U0010ffff")
    by_recipient = Delivery.objects.filter(prefix).order_by("recipient")
    by_message = Delivery.objects.filter(message_id=term.removeprefix("<").removesuffix(">"))
    ids = {
        pk
        for rows in (by_recipient, by_message)
        for pk in rows.values_list("pk", flat=True)[:FOUND]
    }
    return queryset.filter(pk__in=ids)


@admin.register(Delivery)
class DeliveryAdmin(ReadOnlyAdmin):
    """One message to one recipient, with the timeline of its events."""

    list_display = (
        "recipient", "location_name", "outcome", "category", "class_", "campaign", "sent_at",
    )  # fmt: skip
    list_select_related = ("location", "campaign")
    list_filter = (
        LocationFilter,
        "outcome",
        "category",
        TagFilter,
        ("sent_at", admin.DateFieldListFilter),
    )
    search_fields = ("recipient",)
    search_help_text = (
        "The beginning of a recipient's address, or a whole message id."
        f" Lists end after {COUNTED + 1:,} rows; filter to see others."
    )
    sortable_by = ("sent_at",)
    ordering = ("-sent_at", "-id")
    list_per_page = 50
    list_max_show_all = 0
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER  # they count the table once a choice
    paginator = BoundedPaginator
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
        css = {"all": ["ingest/admin.css"]}

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

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """The deliveries that a search finds; never duplicates."""
        term = search_term.strip().replace("\0", "")
        return (found_by(queryset, term) if term else queryset), False

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
        events = obj.events.select_related("ip", "pool", "mx") if obj else Event.objects.none()
        events = events.order_by("occurred_at", "id")[: TIMELINE + 1]
        moments = [_moment(event) for event in events]
        context |= {"timeline": moments[:TIMELINE], "timeline_goes_on": len(moments) > TIMELINE}
        return super().render_change_form(request, context, add, change, form_url, obj)


def _moment(event: Event) -> dict[str, Any]:
    """One row of a timeline. Times are UTC, to the millisecond."""
    ways = (way.text if way else "" for way in (event.ip, event.pool, event.mx))
    detail = details.load(event.detail, event.code, event.is_test, *ways)
    said = (detail.message, detail.description, detail.url, detail.user_agent)
    return {
        "at": event.occurred_at.isoformat(" ", "milliseconds")[:-6],
        "received_at": event.received_at.isoformat(" ", "milliseconds")[:-6],
        "kind": EventKind(event.kind).word,
        "detail": detail,
        "said": [words for words in said if words],
        "payload": pretty(payload_of(event)),
    }


@admin.register(Location)
class LocationAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """Sub-accounts. Webhooks make them; what webhooks do not tell can be put in by hand."""

    list_display = ("__str__", "company_name", "timezone", "state", "deliveries_link")
    list_filter = ("state",)
    search_fields = ("ref", "name", "company_name")
    ordering = ("name", "ref")
    fields = (
        "ref", "name", "company_ref", "company_name", "timezone", "state", "state_at",
        "created_at", "deliveries_link",
    )  # fmt: skip
    readonly_fields = ("ref", "company_ref", "state", "state_at", "created_at", "deliveries_link")

    @admin.display(description="deliveries")
    def deliveries_link(self, location: Location) -> SafeString:
        """To the list of its deliveries."""
        address = reverse("admin:ingest_delivery_changelist", query={"location": location.ref})
        return format_html('<a href="{}">deliveries</a>', address)

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Never: the first event makes it."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Never: its deliveries refer to it."""
        return False


@admin.register(Source)
class SourceAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """Named webhook addresses. Who may not change one does not see its secrets either."""

    list_display = ("name", "location_ref", "is_signed", "enabled", "created_at")
    search_fields = ("name", "location_ref")
    ordering = ("name",)
    fieldsets = (
        (None, {"fields": ("name", "url", "location_ref", "enabled", "created_at")}),
        (
            "Signature",
            {
                "fields": ("hmac_secret", "hmac_header", "hmac_encoding"),
                "description": "HMAC-SHA256 of the raw body. Without, the address is the proof.",
            },
        ),
    )
    readonly_fields = ("url", "created_at")

    @admin.display(description="signed", boolean=True)
    def is_signed(self, source: Source) -> bool:
        """Whether an HMAC is checked."""
        return bool(source.hmac_secret)

    @admin.display(description="URL to paste")
    def url(self, source: Source) -> str:
        """The whole address, to copy."""
        return webhook_url(source, base=getattr(source, "base", "")) if source.pk else "–"

    def get_object(
        self, request: HttpRequest, object_id: str, from_field: str | None = None
    ) -> Source | None:
        """The source, told under which address this site is read."""
        source = super().get_object(request, object_id, from_field)
        if source is not None:
            source.base = request.build_absolute_uri("/")
        return source

    def get_fieldsets(self, request: HttpRequest, obj: Source | None = None) -> Any:
        """All fields for those who may change it; no secrets for the others."""
        if obj is None or self.has_change_permission(request, obj):
            return self.fieldsets
        return ((None, {"fields": ("name", "location_ref", "enabled", "created_at")}),)


class BodyAdmin(ReadOnlyAdmin):
    """Webhooks that wait for ``replay_kept``, each with its body. Lists do not read the bodies."""

    list_select_related = ("source",)
    ordering = ("-received_at", "-id")
    list_max_show_all = 0
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    paginator = BoundedPaginator

    class Media:
        css = {"all": ["ingest/admin.css"]}

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """The rows; a body is read when its page shows it."""
        return super().get_queryset(request).defer("body")

    @admin.display(description="body")
    def pretty_body(self, row: KeptWebhook | QuarantinedWebhook) -> SafeString:
        """The body as it came, indented if it is JSON."""
        return format_html('<pre class="payload">{}</pre>', pretty(bytes(row.body)))


@admin.register(KeptWebhook)
class KeptWebhookAdmin(BodyAdmin):
    """Authentic webhooks that nobody understood yet."""

    list_display = ("received_at", "reason", "source", "replayed_at")
    list_filter = (("replayed_at", admin.EmptyFieldListFilter), "source")
    search_fields = ("reason",)
    fields = ("received_at", "reason", "source", "replayed_at", "pretty_body")
    readonly_fields = ("pretty_body",)


@admin.register(QuarantinedWebhook)
class QuarantinedWebhookAdmin(BodyAdmin):
    """Webhooks whose signature failed: nobody vouches for what they say."""

    list_display = ("received_at", "source", "header_names")
    list_filter = ("source",)
    fields = ("received_at", "source", "pretty_headers", "pretty_body")
    readonly_fields = ("pretty_headers", "pretty_body")

    @admin.display(description="signature headers")
    def header_names(self, row: QuarantinedWebhook) -> str:
        """Which headers it was signed by, or claims to be."""
        return ", ".join(json.loads(row.headers))

    @admin.display(description="signature headers")
    def pretty_headers(self, row: QuarantinedWebhook) -> SafeString:
        """The headers with their values."""
        return format_html('<pre class="payload">{}</pre>', pretty(row.headers.encode()))


def _word_choices(words: frozenset[str]) -> list[tuple[str, str]]:
    named = [(word, word.replace("_", " ")) for word in sorted(words) if word]
    return [("", "the category's own"), *named]


class RuleForm(forms.ModelForm):  # type: ignore[type-arg]
    """A rule that can be used, or a sentence that says why it cannot."""

    scope = forms.ChoiceField(
        choices=_word_choices(SCOPES), required=False, help_text="What is refused."
    )
    fix_by = forms.ChoiceField(
        choices=_word_choices(FIXERS), required=False, label="Who can fix it"
    )

    class Meta:
        model = ClassificationRule
        fields = (
            "name", "position", "enabled", "text", "provider", "code", "enhanced", "category",
            "bounce_class", "scope", "fix_by", "note",
        )  # fmt: skip
        help_texts = {  # noqa: RUF012 - Django's way
            "position": "Lower ones are tried first.",
            "provider": "Names with commas between, such as Gmail, Yahoo; empty: any.",
            "code": "Such as 550; empty: any.",
            "enhanced": "Such as 5.7.1, or 7.1 for both 4.7.1 and 5.7.1; empty: any.",
        }

    def clean(self) -> dict[str, Any]:
        """Refuse what would never match, match anything, or take long."""
        cleaned = super().clean() or self.cleaned_data
        if not self.errors:
            row = ClassificationRule(**(cleaned | {"code": cleaned["code"] or None}))
            try:
                operator_rules.read_rule(row)
            except RuleError as error:
                raise forms.ValidationError(str(error)) from None
        return cleaned

    def is_valid(self) -> bool:
        """Whether it may be saved: a preview is not."""
        return super().is_valid() and "_preview" not in self.data


@admin.register(ClassificationRule)
class ClassificationRuleAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """Operators' own rules, in the order in which they are tried."""

    form = RuleForm
    list_display = ("name", "position", "enabled", "condition", "category", "bounce_class", "state")
    list_editable = ("position", "enabled")
    list_filter = ("enabled", "category")
    search_fields = ("name", "text", "note")
    ordering = ("position", "name")
    change_form_template = "admin/ingest/classificationrule/change_form.html"
    fieldsets = (
        (None, {"fields": ("name", "position", "enabled", "note")}),
        (
            "If all of these hold",
            {"fields": ("text", "provider", "code", "enhanced")},
        ),
        ("it is", {"fields": ("category", "bounce_class", "scope", "fix_by")}),
    )

    @admin.display(description="if")
    def condition(self, rule: ClassificationRule) -> str:
        """All of its conditions."""
        parts = (rule.text, rule.provider, rule.code, rule.enhanced)
        return " and ".join(str(part) for part in parts if part)

    @admin.display(description="state")
    def state(self, rule: ClassificationRule) -> str:
        """Why it is not used, if it cannot be."""
        try:
            operator_rules.read_rule(rule)
        except RuleError as error:
            return f"left out: {error}"
        return "in use" if rule.enabled else "off"

    def render_change_form(
        self,
        request: HttpRequest,
        context: dict[str, Any],
        add: bool = False,
        change: bool = False,
        form_url: str = "",
        obj: Any = None,
    ) -> HttpResponse:
        """The page of one rule, with what it would catch as it is stored or typed in."""
        form = context["adminform"].form
        if not form.errors and (obj is not None or "_preview" in form.data):
            try:
                context["preview"] = operator_rules.preview(form.instance)
            except RuleError as error:
                self.message_user(request, f"It is left out: {error}", messages.WARNING)
        return super().render_change_form(request, context, add, change, form_url, obj)
