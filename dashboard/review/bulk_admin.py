"""Changes in bulk in the admin: counted, confirmed, and taken back."""

from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils import timezone
from django.views.decorators.http import require_POST

from dashboard.access import Rights, operating_rights
from dashboard.review import bulk, cases, proposing
from dashboard.review.beside import categories
from dashboard.review.cases import Finding, Queue, Taken
from dashboard.review.delivery_admin import OperatorsAdmin
from dashboard.review.models import BulkChange, BulkItem, ReviewCase
from ingest.admin import BoundedPaginator
from ingest.models import Reason
from ingest.vocabulary import Category


def _is_seen(reason: Reason, rights: Rights) -> bool:
    """Whether a refusal came in a location that may be changed."""
    try:
        return rights.everything or any(True for _ in bulk.alike(reason, rights))
    except bulk.TooMany:
        return True


@admin.register(BulkChange)
class BulkChangeAdmin(OperatorsAdmin):
    """One answer for all mail that was refused alike. Operators see their own."""

    list_display = ("created_at", "category", "extent", "by", "standing")
    list_select_related = ("by", "reason")
    sortable_by = ()
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    paginator = BoundedPaginator
    change_form_template = "admin/dashboard/bulkchange/change_form.html"
    fields = ("refusal", "category", "extent", "by", "created_at", "standing")
    readonly_fields = ("refusal", "extent", "standing")

    class Media:
        css = {"all": ["review/review.css"]}  # noqa: RUF012 - Django's way

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """All for who sees everything, one's own for others: a change may span locations."""
        rows = BulkChange.objects.all()
        if operating_rights(request.user).everything:
            return rows
        return rows.filter(by_id=request.user.pk)

    @admin.display(description="refusal")
    def refusal(self, change: BulkChange) -> str:
        """What was said."""
        return change.reason.text

    @admin.display(description="how far")
    def extent(self, change: BulkChange) -> str:
        """How many deliveries where."""
        return str(change)

    @admin.display(description="state")
    def standing(self, change: BulkChange) -> str:
        """How far it has come."""
        if change.undone_at:
            return "taken back"
        if change.finished_at and not change.undo_at:
            return "done"
        waiting = BulkItem.State.CHANGED if change.undo_at else BulkItem.State.WAITING
        left = change.items.filter(state=waiting).count()
        return f"{'is taken back' if change.undo_at else 'goes on'}: {left:,} left"

    def get_urls(self) -> list[URLPattern]:
        """Django's, the page that a change begins on, and the way back."""
        guarded = self.admin_site.admin_view
        return [
            path("begin/<int:pk>/", guarded(self.begin), name="dashboard_bulkchange_begin"),
            path(
                "<int:pk>/undo/", guarded(require_POST(self.undo)), name="dashboard_bulkchange_undo"
            ),
            *super().get_urls(),
        ]

    def render_change_form(
        self,
        request: HttpRequest,
        context: dict[str, Any],
        add: bool = False,
        change: bool = False,
        form_url: str = "",
        obj: Any = None,
    ) -> HttpResponse:
        """The page of one change, with the way back while it is open."""
        context["may_undo"] = obj is not None and bulk.may_undo(obj, timezone.now())
        return super().render_change_form(request, context, add, change, form_url, obj)

    def begin(self, request: HttpRequest, pk: int) -> HttpResponse:
        """How far it would reach; and, once confirmed, the change."""
        rights, reason = operating_rights(request.user), Reason.objects.filter(pk=pk).first()
        if reason is None or not _is_seen(reason, rights):
            raise Http404("There is no such refusal.")
        try:
            word = request.POST.get("category", "")
            if request.method == "POST" and word in {c.word for c in Category if c}:
                category = Category(Category.from_word(word))
                change = bulk.begin(reason, category, rights, request.user, timezone.now())
                return self._worked(request, change)
            extent, too_many = bulk.extent(reason, rights), ""
        except bulk.TooMany as no:
            extent, too_many = None, str(no)
        return self._asked(request, reason, extent, too_many)

    def _asked(
        self, request: HttpRequest, reason: Reason, extent: bulk.Extent | None, too_many: str
    ) -> HttpResponse:
        may_rule = request.user.has_perm("ingest.add_classificationrule")
        context = {
            **self.admin_site.each_context(request),
            "title": "Class all alike",
            "opts": self.opts,
            "media": self.media,
            "reason": reason,
            "extent": extent,
            "too_many": too_many,
            "rule_url": proposing.rule_url(reason) if may_rule else "",
            "categories": [(c.word, words) for c, words in categories()],
        }
        return TemplateResponse(request, "admin/dashboard/bulkchange/begin.html", context)

    def _worked(self, request: HttpRequest, change: BulkChange) -> HttpResponse:
        """Do what can be done while somebody waits, settle the case, and show the change."""
        done = bulk.work(change)
        rights, now = operating_rights(request.user), timezone.now()
        unknown = ReviewCase.objects.filter(queue=Queue.UNCLASSIFIED, reason_id=change.reason_id)
        for case in cases.visible(rights).filter(pk__in=unknown.values("pk")):
            try:
                cases.resolve(case, Finding.MISCLASSIFIED, request.user, now, f"Classed: {change}")
            except Taken as no:
                self.message_user(request, str(no), messages.WARNING)
        later = "" if done else " The rest follows beside."
        self.message_user(
            request, f"Classed anew: {change}. It can be taken back for a day.{later}"
        )
        return redirect("admin:dashboard_bulkchange_change", change.pk)

    def undo(self, request: HttpRequest, pk: int) -> HttpResponse:
        """Take a change back."""
        change = self.get_queryset(request).filter(pk=pk).first()
        if change is None:
            raise Http404("There is no such change.")
        if bulk.undo(change, request.user, timezone.now()):
            done = bulk.work(change)
            said = "It is taken back." if done else "It is being taken back: the rest follows."
            self.message_user(request, said, messages.SUCCESS)
        else:
            self.message_user(request, "It cannot be taken back any more.", messages.ERROR)
        return redirect("admin:dashboard_bulkchange_change", change.pk)
