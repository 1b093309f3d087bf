"""What the admin shows of a delivery beside its columns: its events, and what can be done."""

from typing import Any

from django.urls import reverse

from dashboard.review import acting, proposing
from dashboard.review.models import ResendRequest
from ingest import details
from ingest.admin import pretty
from ingest.models import Delivery, Event, choices
from ingest.record import payload_of
from ingest.vocabulary import Category, EventKind, Outcome

TIMELINE = 200  # events of a delivery


def timeline(delivery: Delivery) -> dict[str, Any]:
    """A delivery's first ``TIMELINE`` events, for the template of a timeline."""
    events = delivery.events.select_related("ip", "pool", "mx").order_by("occurred_at", "id")[
        : TIMELINE + 1
    ]
    moments = [_moment(event) for event in events]
    return {"timeline": moments[:TIMELINE], "timeline_goes_on": len(moments) > TIMELINE}


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


def page_of(delivery: Delivery) -> str:
    """The address of a delivery in the admin."""
    return reverse("admin:ingest_delivery_change", args=[delivery.pk])


def delivery_context(delivery: Delivery, *, may_rule: bool) -> dict[str, Any]:
    """What the buttons of a delivery show."""
    resend = ResendRequest.objects.filter(delivery_id=delivery.pk).select_related("requested_by")
    reason = delivery.reason if delivery.reason_id else None
    return {
        "delivery": delivery,
        "delivery_url": page_of(delivery),
        "pages_url": reverse("dashboard:delivery", args=[delivery.pk]),
        "act_url": reverse("admin:ingest_delivery_act", args=[delivery.pk]),
        "is_bounced": delivery.outcome == Outcome.BOUNCED,
        "categories": [(c.word, words) for c, words in categories()],
        "listed": acting.listed(delivery),
        "not_read": acting.NOT_READ,
        "resend": resend.first(),
        "no_resend": acting.why_no_resend(delivery),
        "export_url": export_url(q=delivery.recipient) if delivery.recipient else "",
        "rule_url": proposing.rule_url(reason) if reason and may_rule else "",
        "bulk_url": reverse("admin:dashboard_bulkchange_begin", args=[reason.pk])
        if reason and delivery.outcome == Outcome.BOUNCED
        else "",
    }


def categories() -> list[tuple[Category, str]]:
    """All that mail can be classed as, in words."""
    words = dict(choices(Category))
    return [(category, words[int(category)]) for category in Category if category]


def export_url(**terms: Any) -> str:
    """The address of the file of the deliveries that a filter keeps."""
    return reverse("dashboard:export", query={**terms, "range": "90d", "format": "csv"})
