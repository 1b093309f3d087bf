"""Review cases in the admin: the queues, one case with all that tells of it, and the answers."""

from collections.abc import Callable
from typing import Any, ClassVar, cast
from urllib.parse import parse_qs

from django.contrib import admin, messages
from django.contrib.admin.views.main import ChangeList
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.views.decorators.http import require_POST

from dashboard.access import Rights, operating_rights
from dashboard.models import MailedAgain
from dashboard.review import acting, cases, figures, proposing
from dashboard.review.beside import delivery_context, export_url, page_of, timeline
from dashboard.review.cases import Finding, Queue, State, Taken
from dashboard.review.delivery_admin import OperatorsAdmin
from dashboard.review.filters import LocationFilter
from dashboard.review.models import CaseEntry, CaseQuerySet, ResendRequest, ReviewCase
from ingest import details
from ingest.admin import BoundedPaginator
from ingest.models import Delivery, Event
from ingest.vocabulary import FAILURES

SAMPLES = 5  # replies of a refusal
MAILS = 20  # to an address that had died
NEIGHBOURS = 500  # cases among which the next one is found

WHY = {
    Queue.COMPLAINTS: "The recipient said that it was spam.",
    Queue.MAILED_AGAIN: "The address had bounced hard or complained, and was mailed again.",
    Queue.LATE: "It was delivered and bounced later, or the other way about.",
    Queue.UNCLASSIFIED: "No rule knows this refusal: one answer classifies all of them.",
    Queue.NEW_REASONS: "Nobody had seen this refusal before.",
    Queue.SAMPLE: "Drawn at random: is its category right? It measures our own error.",
    Queue.BY_HAND: "Somebody wants this looked at.",
}


class StateFilter(admin.SimpleListFilter):
    """By state; without one, what waits for somebody."""

    title = parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """What can be chosen beside what waits."""
        return [("all", "All"), *((str(state), str(state.label)) for state in State)]

    def choices(self, changelist: ChangeList) -> Any:
        """With what is shown by itself in the place of "All"."""
        first, *others = super().choices(changelist)
        yield {**first, "display": "To look at"}
        yield from others

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """The cases of the chosen state."""
        if self.value() == "all":
            return queryset
        if self.value() in State.values:
            return queryset.filter(state=self.value())
        waiting = cast(CaseQuerySet, queryset)
        return waiting.waiting_for(request.user.pk or 0, timezone.now())


class PlaceFilter(LocationFilter):
    """By location."""

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """The cases of the chosen location."""
        return queryset.filter(location__ref=self.value()) if self.value() else queryset


def subject_of(case: ReviewCase) -> str:
    """What a case is about, in one line."""
    if case.reason_id:
        return case.reason.text if case.reason else "a refusal that is no longer kept"
    return case.delivery.recipient if case.delivery else "mail that is no longer kept"


@admin.register(ReviewCase)
class CaseAdmin(OperatorsAdmin):
    """What somebody should look at, the most pressing queue first and the largest case of each."""

    list_display = ("what", "queue", "place", "count", "standing", "last_event_at")
    list_filter = (
        StateFilter,
        "queue",
        PlaceFilter,
        ("finding", admin.ChoicesFieldListFilter),
    )
    list_select_related = ("location", "delivery", "reason", "leased_by")
    list_per_page = 50
    list_max_show_all = 0
    sortable_by = ()
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    paginator = BoundedPaginator
    actions = ("ignore_chosen", "settle_false_alarms")
    change_list_template = "admin/dashboard/reviewcase/change_list.html"
    change_form_template = "admin/dashboard/reviewcase/change_form.html"
    fields = (("queue", "what", "place"), ("count", "opened_at", "last_event_at"), "standing")
    readonly_fields = ("what", "place", "standing")

    class Media:
        css: ClassVar = {"all": ["ingest/admin.css", "review/review.css"]}
        js = ("review/review.js",)

    @admin.display(description="what")
    def what(self, case: ReviewCase) -> str:
        """The address, or the refusal."""
        said = subject_of(case)
        return said if len(said) <= 160 else f"{said[:159]}…"

    @admin.display(description="location")
    def place(self, case: ReviewCase) -> str:
        """Where; refusals belong to all."""
        return (case.location.name or case.location.ref) if case.location else "all"

    @admin.display(description="state")
    def standing(self, case: ReviewCase) -> str:
        """Its state, with who looks at it or what was found."""
        if case.state == State.IN_REVIEW and case.leased_by and case.leased_until:
            return f"in review: {case.leased_by}, until {case.leased_until:%H:%M} UTC"
        if case.state == State.RESOLVED:
            return f"resolved: {case.get_finding_display() or 'by itself'}"
        if case.state == State.IGNORED:
            return f"ignored until there are {cases.WORSE * case.ignored_count:,}"
        return str(case.get_state_display())

    # --- The list -------------------------------------------------------------------------------

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """The list, opened by how much there is and how long that takes."""
        rights, now = operating_rights(request.user), timezone.now()
        context = {
            "title": "Review",
            "to_do": figures.to_do(rights, request.user, now),
            "own_error": figures.own_error(rights, now).sentence,
            "chosen_queue": request.GET.get("queue__exact", ""),
            "is_operator": not rights.everything,
            **(extra_context or {}),
        }
        return super().changelist_view(request, context)

    @admin.action(description="Ignore until worse")
    def ignore_chosen(self, request: HttpRequest, queryset: QuerySet[ReviewCase]) -> None:
        """Each of them."""
        self._each(request, queryset, lambda case: cases.ignore(case, request.user, timezone.now()))

    @admin.action(description="Resolve: a false alarm")
    def settle_false_alarms(self, request: HttpRequest, queryset: QuerySet[ReviewCase]) -> None:
        """Each of them."""
        self._each(
            request,
            queryset,
            lambda case: cases.resolve(case, Finding.FALSE_ALARM, request.user, timezone.now()),
        )

    def _each(
        self,
        request: HttpRequest,
        queryset: QuerySet[ReviewCase],
        do: Callable[[ReviewCase], None],
    ) -> None:
        done = others = 0
        for case in queryset[: self.list_per_page]:
            try:
                do(case)
                done += 1
            except Taken:
                others += 1
        self.message_user(request, f"{done} settled.", messages.SUCCESS)
        if others:
            self.message_user(request, f"{others} left to who looks at them.", messages.WARNING)

    # --- One case -------------------------------------------------------------------------------

    def get_urls(self) -> list[URLPattern]:
        """Django's, and those of the answers."""
        guarded = self.admin_site.admin_view
        return [
            path("start/", guarded(require_POST(self.start)), name="dashboard_reviewcase_start"),
            path(
                "<int:pk>/answer/",
                guarded(require_POST(self.answer)),
                name="dashboard_reviewcase_answer",
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
        """The page of one case."""
        context |= _shown(obj, request) if obj is not None else {}
        return super().render_change_form(request, context, add, change, form_url, obj)

    def _next(self, request: HttpRequest, queue: str, after: int = 0) -> HttpResponse:
        """To the next case, taken; to the list where there is none."""
        rights, now = operating_rights(request.user), timezone.now()
        number = int(queue) if queue.isdecimal() and int(queue) in Queue.values else None
        case = cases.next_of(rights, request.user, now, number, [after])
        if case is None:
            self.message_user(request, "There is nothing left to look at.", messages.SUCCESS)
            return redirect("admin:dashboard_reviewcase_changelist")
        try:
            cases.take(case, request.user, now)
        except Taken:  # somebody was quicker
            return redirect("admin:dashboard_reviewcase_changelist")
        return redirect(_address(case, queue))

    def start(self, request: HttpRequest) -> HttpResponse:
        """Take the first case of a queue, or of all."""
        return self._next(request, request.POST.get("queue", ""))

    def answer(self, request: HttpRequest, pk: int) -> HttpResponse:
        """What a person says of a case."""
        case = self.get_queryset(request).filter(pk=pk).first()
        if case is None:
            raise Http404("There is no such case.")
        queue, what = request.POST.get("queue", ""), request.POST.get("do", "")
        try:
            said = _answer(case, what.removesuffix("_next"), request)
        except (Taken, acting.Refused) as no:
            self.message_user(request, str(no), messages.ERROR)
            return redirect(_address(case, queue))
        self.message_user(request, said, messages.SUCCESS)
        if what.endswith("_next"):
            return self._next(request, queue, after=pk)
        return redirect(_address(case, queue))


def _address(case: ReviewCase, queue: str) -> str:
    query = {"queue": queue} if queue.isdecimal() else {}
    return reverse("admin:dashboard_reviewcase_change", args=[case.pk], query=query)


def _answer(case: ReviewCase, what: str, request: HttpRequest) -> str:
    """Do it, and say so. Raises ``Taken`` and ``Refused``."""
    by, now, text = request.user, timezone.now(), request.POST.get("note", "").strip()
    if what == "take":
        cases.take(case, by, now)
        return "It is yours for half an hour."
    if what == "ignore":
        cases.ignore(case, by, now, text)
        return "It is ignored until it is worse."
    if what == "reopen":
        cases.open_again(case, by, now, text)
        return "It is open again."
    if what == "resolve":
        finding = request.POST.get("finding", "")
        if finding not in Finding.values:
            raise acting.Refused("Say what you found.")
        cases.resolve(case, finding, by, now, text)
        return f"{case} is resolved."
    if what == "note" and text:
        cases.remark(case, by, now, text)
        return "It is noted."
    raise acting.Refused("There is nothing to note." if what == "note" else "No such answer.")


# --- What its page shows -------------------------------------------------------------------------


def _shown(case: ReviewCase, request: HttpRequest) -> dict[str, Any]:
    rights, queue = operating_rights(request.user), _queue_of(request)
    may_rule = request.user.has_perm("ingest.add_classificationrule")
    context: dict[str, Any] = {
        "case": case,
        "why": WHY[Queue(case.queue)],
        "queue": queue,
        "findings": Finding.choices,
        "suggested": _suggested(case),
        "is_settled": case.state in (State.RESOLVED, State.IGNORED),
        "entries": CaseEntry.objects.filter(case=case),
        **_neighbours(case, rights, request, queue),
    }
    if case.reason:
        context |= {
            "samples": _samples(case),
            "reason_url": reverse("dashboard:reason", args=[case.reason_id]),
            "export_url": export_url(reason=case.reason_id),
            "rule_url": proposing.rule_url(case.reason) if may_rule else "",
            "bulk_url": reverse("admin:dashboard_bulkchange_begin", args=[case.reason_id]),
        }
    if case.delivery:
        context |= delivery_context(case.delivery, may_rule=may_rule) | timeline(case.delivery)
    if case.queue == Queue.MAILED_AGAIN and case.delivery:
        context["mails"] = _mails(case.delivery)
    return context


def _queue_of(request: HttpRequest) -> str:
    """The queue that one goes through: named in the address, or by the list one came from."""
    came_from = parse_qs(request.GET.get("_changelist_filters", "")).get("queue__exact", [""])
    queue = request.GET.get("queue", "") or came_from[0]
    return queue if queue.isdecimal() and int(queue) in Queue.values else ""


def _suggested(case: ReviewCase) -> str:
    """The finding that is the likeliest of its queue; a person decides."""
    return Finding.LIST if case.queue in (Queue.COMPLAINTS, Queue.MAILED_AGAIN) else ""


def _samples(case: ReviewCase) -> list[dict[str, Any]]:
    """The newest replies of a refusal, as they were said."""
    rows = Event.objects.filter(reason=case.reason, kind__in=FAILURES)
    events = rows.select_related("delivery", "location", "provider").order_by("-id")[:SAMPLES]
    found = []
    for event in events:
        detail = details.load(event.detail, event.code, event.is_test, "", "", "")
        found.append(
            {
                "at": event.occurred_at,
                "code": f"{event.code or ''} {detail.enhanced}".strip(),
                "said": detail.message or detail.description,
                "provider": event.provider.text if event.provider_id else "",
                "location": event.location.name or event.location.ref,
                "url": page_of(event.delivery) if event.delivery else "",
            }
        )
    return found


def _mails(delivery: Delivery) -> list[Delivery]:
    """What the address was sent after it had died, newest first: which campaign, which step."""
    same = Delivery.objects.filter(recipient=delivery.recipient, location_id=delivery.location_id)
    marked = MailedAgain.objects.filter(delivery_id__in=same.values("pk"))
    rows = Delivery.objects.filter(pk__in=marked.values("delivery_id"))
    return list(rows.select_related("campaign", "step").order_by("-sent_at")[:MAILS])


def _neighbours(
    case: ReviewCase, rights: Rights, request: HttpRequest, queue: str
) -> dict[str, str]:
    """Addresses of the cases before and after it, of those that wait."""
    waiting = cases.visible(rights).waiting_for(request.user.pk or 0, timezone.now())
    if queue:
        waiting = waiting.filter(queue=int(queue))
    rows = list(waiting[:NEIGHBOURS])
    at = next((i for i, row in enumerate(rows) if row.pk == case.pk), None)
    before = rows[at - 1] if at else None
    after = (
        rows[0 if at is None else at + 1] if rows and (at is None or at + 1 < len(rows)) else None
    )
    return {
        "previous_url": _address(before, queue) if before else "",
        "next_url": _address(after, queue) if after else "",
    }


@admin.register(ResendRequest)
class ResendRequestAdmin(OperatorsAdmin):
    """Which mail people want sent again. Nothing is sent by itself."""

    list_display = ("requested_at", "location", "delivery_link", "requested_by")
    list_select_related = ("location", "delivery", "requested_by")
    sortable_by = ()
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    paginator = BoundedPaginator
    fields = ("requested_at", "requested_by", "location", "delivery_link")
    readonly_fields = ("delivery_link",)

    @admin.display(description="mail to")
    def delivery_link(self, request_: ResendRequest) -> str:
        """Whom it was for."""
        return str(request_.delivery) if request_.delivery else "mail that is no longer kept"
