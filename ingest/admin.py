"""Django's admin for what came in: deliveries with their events, locations, sources, kept webhooks.

Deliveries and events are written by ``ingest.record`` alone, so they are read-only here. Their
tables are large: every list is bounded by an index, and nothing counts further than it must.
"""

import json
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.paginator import Paginator
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.functional import cached_property
from django.utils.html import format_html
from django.utils.safestring import SafeString

from ingest import operator_rules
from ingest.classify import FIXERS, SCOPES, RuleError
from ingest.management.commands.create_source import webhook_url
from ingest.models import (
    ClassificationRule,
    Company,
    KeptWebhook,
    Location,
    QuarantinedWebhook,
    Source,
)
from ingest.normalize import decode

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

    def save_model(
        self, request: HttpRequest, obj: Location, form: "forms.ModelForm[Location]", change: bool
    ) -> None:
        """Note when it was named, for what HighLevel said of it before and comes late."""
        if "name" in form.changed_data:
            obj.name_at = timezone.now()
        super().save_model(request, obj, form, change)

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Never: the first event makes it."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Never: its deliveries refer to it."""
        return False


@admin.register(Company)
class CompanyAdmin(ReadOnlyAdmin):
    """Agencies, as INSTALL tells of them."""

    list_display = ("__str__", "domain", "state", "state_at")
    list_filter = ("state",)
    search_fields = ("ref", "name", "domain")
    ordering = ("name", "ref")


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
