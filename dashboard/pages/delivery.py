"""One delivery: what happened, why, whose to fix, and every event of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from django.conf import settings
from django.urls import reverse

from dashboard import queries, reasons
from dashboard.access import Rights, shown_text
from dashboard.bounded import within
from dashboard.explained import Explained, Explanation, explain
from dashboard.feed import MARKS as KIND_MARKS
from dashboard.feed import WORDS as KIND_WORDS
from dashboard.filters import Filter
from dashboard.names import campaign_name, page_url
from dashboard.pages.deliveries import (
    Row,
    delivery_url,
    flags_of,
    in_words,
    mark_of,
    reply_of,
    rows_of,
)
from dashboard.queries import DeliveryRow
from dashboard.sentences import FIXERS, SCOPES, sentences
from dashboard.spans import moment_of
from ingest import details
from ingest.admin import pretty
from ingest.fold import load_facts
from ingest.models import Delivery, Event, Location
from ingest.normalize import Detail
from ingest.record import payload_of
from ingest.vocabulary import Category, EventKind, Outcome

MOST = 200  # events of a timeline
OTHERS = 5  # deliveries of the same recipient
BESIDE = 0.3  # seconds for what is only nice to know: neighbours, what was refused likewise
RECENT = timedelta(hours=24)
TIMES = ("happened", "received")
_LEVELS = {
    EventKind.DELIVERED: "good",
    EventKind.DEFERRED: "warn",
    EventKind.BOUNCED: "bad",
    EventKind.SUPPRESSED: "bad",
    EventKind.REJECTED: "bad",
    EventKind.COMPLAINED: "complaint",
}
_OUTCOME_KINDS = {
    Outcome.BOUNCED: EventKind.BOUNCED,
    Outcome.DELIVERED: EventKind.DELIVERED,
    Outcome.SUPPRESSED: EventKind.SUPPRESSED,
    Outcome.REJECTED: EventKind.REJECTED,
    Outcome.DEFERRED: EventKind.DEFERRED,
    Outcome.ACCEPTED: EventKind.ACCEPTED,
}


# --- The timeline ------------------------------------------------------------------------------


class Fact(NamedTuple):
    """Something that an event says, with where it leads."""

    name: str
    value: str
    url: str = ""


class Moment(NamedTuple):
    """One event as the timeline shows it. Texts are raw: the template escapes them."""

    id: int
    kind: EventKind
    shape: str
    word: str
    level: str
    at: datetime  # by the clock that is asked for
    occurred_at: datetime
    received_at: datetime
    since: str  # after the one before, such as "+12 min"
    reply: str
    facts: list[Fact]
    explanation: Explanation | None
    payload: str  # "" when it is no longer kept
    payload_until: datetime


def timeline(
    delivery: DeliveryRow, explained: Explained, shown: "Shown", day: Filter
) -> list[Moment]:
    """Every event of a delivery in the order in which it happened, or was received."""
    recipient = queries.recipient_of(delivery)
    times = shown.times
    field = "received_at" if times == "received" else "occurred_at"
    events = Event.objects.filter(delivery_id=delivery.id).select_related("ip", "pool", "mx")
    found: list[Moment] = []
    for event in events.order_by(field, "id")[:MOST]:
        at = getattr(event, field)
        since = f"+{lasting(at - found[-1].at)}" if found else ""
        moment = _moment(event, at, since, explained, day)
        found.append(_covered(moment, recipient, delivery.location_id, shown.rights))
    return found


def _covered(moment: Moment, recipient: str, location_id: int, rights: Rights) -> Moment:
    """A moment as it may be seen: raw payloads name the recipient in many places."""
    if not rights.masks(location_id):
        return moment
    facts = [
        fact._replace(value=shown_text(rights, location_id, fact.value, recipient))
        for fact in moment.facts
    ]
    reply = shown_text(rights, location_id, moment.reply, recipient)
    return moment._replace(reply=reply, facts=facts, payload="")


def _moment(event: Event, at: datetime, since: str, explained: Explained, day: Filter) -> Moment:
    ways = (way.text if way else "" for way in (event.ip, event.pool, event.mx))
    detail = details.load(event.detail, event.code, event.is_test, *ways)
    kind = EventKind(event.kind)
    return Moment(
        id=event.pk,
        kind=kind,
        shape=KIND_MARKS[kind],
        word=KIND_WORDS.get(kind, kind.word.capitalize()),
        level=_LEVELS.get(kind, "quiet"),
        at=at,
        occurred_at=event.occurred_at,
        received_at=event.received_at,
        since=since,
        reply=reply_of(detail),
        facts=_facts(detail, day),
        explanation=explained.failures.get(event.pk),
        payload=pretty(payload_of(event)),
        payload_until=event.received_at + timedelta(days=settings.PAYLOAD_RETENTION_DAYS),
    )


def _facts(detail: Detail, day: Filter) -> list[Fact]:
    """What is known of an attempt, in the order in which engineers ask for it."""
    tls = {None: "", True: "yes", False: "no"}[detail.tls]
    pool = detail.pool_name or detail.pool
    facts = [
        Fact("attempt", _number(detail.attempt)),
        Fact("mail server", detail.mx, _list_url(day, "mx", detail.mx)),
        Fact("IP", detail.ip, _list_url(day, "ip", detail.ip)),
        Fact("pool", pool, _list_url(day, "pool", detail.pool)),
        Fact("TLS", tls),
        Fact("session", f"{detail.session_seconds:.1f} s" if detail.session_seconds else ""),
        Fact("next try in", _seconds(detail.retry_seconds)),
        Fact("reason", detail.reason),
        Fact("link", detail.url),
        Fact("reader", detail.user_agent),
    ]
    return [fact for fact in facts if fact.value]


def _number(value: int | None) -> str:
    return "" if value is None else str(value)


def _seconds(value: int | None) -> str:
    return "" if value is None else lasting(timedelta(seconds=value))


def _list_url(day: Filter, name: str, value: str) -> str:
    if not value or len(value) > 400:
        return ""
    return f"{reverse('dashboard:deliveries')}?{day.with_(name, value).canonical()}"


def lasting(span: timedelta) -> str:
    """How long: ``2 s``, ``12 min``, ``3 h 5 min``, ``2 d 3 h``; below a second ``0.4 s``."""
    seconds = span.total_seconds()
    if seconds < 60:
        return f"{seconds:.1f} s" if 0 < seconds < 1 else f"{seconds:.0f} s"
    minutes = int(seconds // 60)
    if minutes < 60:
        rest = int(seconds % 60)
        return f"{minutes} min {rest} s" if minutes < 5 and rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if hours else f"{days} d"


# --- Beside it ---------------------------------------------------------------------------------


class Likewise(NamedTuple):
    """What else was refused for the same reason."""

    refusals: int
    locations: int
    since: datetime
    recent: bool  # within the last day, or within half a day of it
    url: str


def likewise(
    delivery: DeliveryRow, ended: datetime | None, filter: Filter, rights: Rights
) -> Likewise | None:
    """The refusals with the same words, around the same time; ``None`` where it stands alone."""
    if delivery.reason_id is None or ended is None:
        return None
    bounds = Filter(now=filter.now, tz=filter.tz)
    recent = ended > filter.now - RECENT
    if recent:
        around = bounds.with_("range", "24h")
    else:
        half = RECENT / 2
        around = bounds.with_("from", _iso(ended - half)).with_("to", _iso(ended + half))
    pk = delivery.reason_id
    found = within(BESIDE, lambda: reasons.reason(pk, around, rights))
    if found is None or found.row.whole.events < 2:
        return None
    whole = found.row.whole
    url = page_url("reason", str(pk), query=around.canonical())
    url = url or f"{reverse('dashboard:deliveries')}?{around.with_('reason', str(pk)).canonical()}"
    return Likewise(whole.events, whole.locations, moment_of(whole.first_hour), recent, url)


def _iso(moment: datetime) -> str:
    return moment.isoformat()


def neighbours(delivery: DeliveryRow, filter: Filter, rights: Rights) -> tuple[str, str]:
    """The addresses of the next newer and older one of the list; "" where there is none."""
    query, end = filter.canonical(), queries.end_of(delivery)
    if not query:
        return "", ""
    found = within(
        BESIDE,
        lambda: (
            queries.deliveries_page(filter, rights, after=end, limit=1).rows,
            queries.deliveries_page(filter, rights, before=end, limit=1).rows,
        ),
    )
    newer, older = found or ([], [])
    place = (delivery.sent_at, delivery.id)
    newer = [row for row in newer if (row.sent_at, row.id) > place]
    first, second = (delivery_url(rows[0].id, query) if rows else "" for rows in (newer, older))
    return first, second


# --- The page ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shown:
    """What the page of one delivery is asked for."""

    filter: Filter  # of the list that it was found in
    rights: Rights
    times: str = TIMES[0]


def delivery_context(delivery: DeliveryRow, shown: Shown) -> dict[str, Any]:
    """Everything that the page of one delivery shows; times are printed in the filter's zone."""
    explained = explain(delivery)
    filter, rights = shown.filter, shown.rights
    day = Filter(now=filter.now, tz=filter.tz).with_("range", "24h")
    moments = timeline(delivery, explained, shown, day)
    ended = ended_at(delivery, moments)
    newer, older = neighbours(delivery, filter, rights)
    place = Location.objects.get(pk=delivery.location_id)
    return {
        "delivery": delivery,
        "mark": mark_of(delivery),
        "flags": flags_of(delivery),
        "sentences": sentences(
            delivery, explained.failure, ended and ended.astimezone(filter.zone), filter.now
        ),
        "failure": explained.failure,
        "fixer": FIXERS.get(explained.failure.fix_by, "") if explained.failure else "",
        "scope": SCOPES.get(explained.failure.scope, "") if explained.failure else "",
        "category": in_words(explained.failure.category.word) if explained.failure else "",
        "assigned": _assigned(delivery),
        "moments": moments,
        "goes_on": len(moments) == MOST,
        "retries": sum(moment.kind == EventKind.DEFERRED for moment in moments),
        "likewise": likewise(delivery, ended, filter, rights),
        "same": same_recipient(delivery, rights, filter),
        "same_url": "" if rights.masks(delivery.location_id) else _same_url(delivery, filter),
        "masks": rights.masks(delivery.location_id),
        "place": place,
        "place_url": page_url("location", place.ref),
        "campaign": _campaign(delivery),
        "campaign_url": page_url("campaign", delivery.campaign.text)
        if delivery.campaign.text
        else "",
        "tags": [Fact("tag", tag, _list_url(day, "tag", tag)) for tag in delivery.tags],
        "kept_until": kept_until(delivery, moments),
        "newer": newer,
        "older": older,
        "categories": [(c.word, in_words(c.word)) for c in Category if c],
    }


def _campaign(delivery: DeliveryRow) -> str:
    campaign = delivery.campaign
    return campaign.label or campaign_name(campaign.text) if campaign.text else ""


def _assigned(delivery: DeliveryRow) -> bool:
    """Whether a person gave it its category."""
    stored = Delivery.objects.values_list("facts", flat=True).get(pk=delivery.id)
    return bool(load_facts(stored).assigned)


def ended_at(delivery: DeliveryRow, moments: Sequence[Moment]) -> datetime | None:
    """When the last event happened that its outcome rests on."""
    kind = _OUTCOME_KINDS.get(delivery.outcome)
    return max((m.occurred_at for m in moments if m.kind == kind), default=None)


def kept_until(delivery: DeliveryRow, moments: Sequence[Moment]) -> datetime:
    """When it is let go of, unless more happens to it."""
    last = max([delivery.sent_at, *(moment.received_at for moment in moments)])
    return last + timedelta(days=settings.EVENT_RETENTION_DAYS)


def same_recipient(delivery: DeliveryRow, rights: Rights, filter: Filter) -> list[Row]:
    """The last others to the same address, wherever the reader may look."""
    found = queries.deliveries_like(delivery, rights, limit=OTHERS + 1)
    others = [row for row in found if row.id != delivery.id][:OTHERS]
    return rows_of(others, filter_query(filter), rights)


def filter_query(filter: Filter) -> str:
    """What links to other deliveries keep: the zone that times are printed in."""
    return Filter(now=filter.now, tz=filter.tz).canonical()


def _same_url(delivery: DeliveryRow, filter: Filter) -> str:
    if not delivery.recipient:
        return ""
    all_of = Filter(now=filter.now, tz=filter.tz).with_("range", "90d")
    return f"{reverse('dashboard:deliveries')}?{all_of.with_('q', delivery.recipient).canonical()}"
