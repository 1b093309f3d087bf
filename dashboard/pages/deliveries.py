"""The list of deliveries: every filter, page by page, with what else could be listed."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from django.db.models import Max, Q
from django.urls import reverse

from dashboard import queries
from dashboard.access import Rights, restrict, shown_text
from dashboard.bounded import within
from dashboard.facets import Choice, Facets, facets
from dashboard.filters import FilterError
from dashboard.names import campaign_name, page_url
from dashboard.pages.common import PULSE
from dashboard.pages.page import Asked, Page, Painted, Region
from dashboard.queries import DeliveryRow
from dashboard.words import MOVED
from ingest import details
from ingest.models import Delivery, Event, Location, Reason, ReasonHour
from ingest.normalize import Detail
from ingest.vocabulary import FAILURES, BounceClass, EventKind, Flag, Outcome

ROWS = 50
SAID = 140  # characters of a reply that a row shows
REASONS = 25  # refusals that a search offers
SEARCHED = "90d"  # so far back a search looks, if nothing else is said
# Newer deliveries are counted while so few events have come, and it takes no longer.
NEWER_EVENTS, NEWER_SECONDS = 20_000, 0.25


# --- Outcomes in words -----------------------------------------------------------------------


class Mark(NamedTuple):
    """An outcome for people: a shape, a word, and the CSS class of its colour."""

    shape: str
    word: str
    level: str


MARKS = {
    Outcome.DELIVERED: Mark("✓", "Delivered", "good"),
    Outcome.BOUNCED: Mark("✕", "Bounced", "bad"),
    Outcome.DEFERRED: Mark("↻", "Deferred", "warn"),
    Outcome.ACCEPTED: Mark("→", "Queued", "quiet"),
    Outcome.SUPPRESSED: Mark("⊘", "Suppressed", "bad"),
    Outcome.REJECTED: Mark("⊘", "Rejected", "bad"),
    Outcome.ORPHAN: Mark("○", "Engagement only", "quiet"),
    Outcome.UNKNOWN: Mark("?", "Unknown", "quiet"),
    Outcome.TEST: Mark("△", "Test", "quiet"),
}
BLOCKED = Mark("■", "Blocked", "bad")

# What else is true of a delivery, where people should know it at a glance.
FLAGS = {
    Flag.LATE: "late",
    Flag.RECOVERED: "recovered",
    Flag.EXPIRED: "gave up",
    Flag.INFERRED: "inferred",
    Flag.COMPLAINED: "complained",
    Flag.UNSUBSCRIBED: "unsubscribed",
    Flag.OPENED: "opened",
    Flag.CLICKED: "clicked",
}


def mark_of(delivery: DeliveryRow) -> Mark:
    """How a delivery stands, for people."""
    if delivery.outcome == Outcome.BOUNCED and delivery.bounce_class == BounceClass.BLOCK:
        return BLOCKED
    return MARKS[delivery.outcome]


def flags_of(delivery: DeliveryRow) -> list[str]:
    """What else is true of it, in words; mail that got through after retries says so."""
    words = [word for flag, word in FLAGS.items() if delivery.flags & flag]
    retried = delivery.flags & Flag.DEFERRED and delivery.outcome != Outcome.DEFERRED
    return ["after retries", *words] if retried else words


def in_words(word: str) -> str:
    """``mailbox_full`` as ``mailbox full``."""
    return word.replace("_", " ")


def delivery_url(pk: int, query: str = "") -> str:
    """The address of a delivery's page, which knows the list that it was found in."""
    url = reverse("dashboard:delivery", args=[pk])
    return f"{url}?{query}" if query else url


# --- Rows ------------------------------------------------------------------------------------


class Row(NamedTuple):
    """A delivery as the list shows it. Texts are raw: the template escapes them."""

    id: int
    url: str
    mark: Mark
    recipient: str
    place: str
    place_url: str
    campaign: str
    campaign_url: str
    provider: str
    category: str
    said: str
    sent_at: datetime
    flags: list[str]


def page_of(asked: Asked) -> queries.DeliveriesPage:
    """The page of the list that is asked for."""
    before, after = (asked.options.get(name, "") for name in ("before", "after"))
    if before and after:
        raise FilterError("Give either before or after, not both.")
    return asked.once(
        "deliveries",
        lambda: queries.deliveries_page(
            asked.filter, asked.rights, before=before, after=after, limit=ROWS
        ),
    )


_WITHOUT_REPLY = (Outcome.DELIVERED, Outcome.ACCEPTED)


def rows_of(deliveries: Sequence[DeliveryRow], query: str, rights: Rights) -> list[Row]:
    """Deliveries as rows, with names and the last replies: two queries. ``query``: the list's."""
    places = Location.objects.in_bulk({delivery.location_id for delivery in deliveries})
    waiting = (row.id for row in deliveries if row.outcome not in _WITHOUT_REPLY)
    said = last_replies(waiting, rights)
    return [_row(delivery, places, said.get(delivery.id, ""), query) for delivery in deliveries]


def _row(delivery: DeliveryRow, places: dict[int, Location], said: str, query: str) -> Row:
    place = places.get(delivery.location_id)
    campaign = delivery.campaign
    return Row(
        id=delivery.id,
        url=delivery_url(delivery.id, query),
        mark=mark_of(delivery),
        recipient=delivery.recipient or "(no recipient)",
        place=(place.name if place else "") or delivery.location,
        place_url=page_url("location", delivery.location),
        campaign=campaign.label or campaign_name(campaign.text) if campaign.text else "",
        campaign_url=page_url("campaign", campaign.text) if campaign.text else "",
        provider=delivery.provider,
        category=_why(delivery),
        said=said,
        sent_at=delivery.sent_at,
        flags=flags_of(delivery),
    )


def _why(delivery: DeliveryRow) -> str:
    """Its category in words; of mail that waits for a retry, those of its temporary failures."""
    if delivery.category:
        return in_words(delivery.category.word)
    waits = delivery.outcome == Outcome.DEFERRED
    return ", ".join(map(in_words, delivery.deferral_categories)) if waits else ""


def last_replies(deliveries: Iterable[int], rights: Rights) -> dict[int, str]:
    """The last refusal of each delivery, in the receiver's words, cut to a line."""
    kinds = [*FAILURES, EventKind.REJECTED]
    failed = Event.objects.filter(delivery_id__in=list(deliveries), kind__in=kinds)
    columns = ("delivery_id", "location_id", "delivery__recipient", *details.COLUMNS)
    return {
        pk: cut(shown_text(rights, location_id, reply_of(details.load(*stored)), recipient or ""))
        for pk, location_id, recipient, *stored in failed.order_by("occurred_at", "id").values_list(
            *columns
        )
        if pk is not None
    }


def reply_of(detail: Detail) -> str:
    """What a receiver said, on one line: code, enhanced code, words."""
    words = detail.message or detail.description or detail.reason
    code = str(detail.code or "")
    parts = [part for part in (code, detail.enhanced) if part and not words.startswith(part)]
    return " ".join(" ".join([*parts, words]).split())


def cut(said: str) -> str:
    """A reply as long as a row has room for."""
    return said if len(said) <= SAID else said[: SAID - 1] + "…"


def _list(asked: Asked) -> dict[str, Any]:
    page = page_of(asked)
    return {
        "rows": rows_of(page.rows, asked.own.canonical(), asked.rights),
        "older": asked.link(before=page.before) if page.before else "",
        "newer": asked.link(after=page.after) if page.after else "",
        "newest": asked.link(),
        "complete_from": queries.deliveries_complete_from(asked.filter),
        "wider": "" if asked.filter.range == SEARCHED else _wider(asked),
    }


def _wider(asked: Asked) -> str:
    """The same, looked for further back."""
    return asked.link(asked.own.with_("range", SEARCHED))


# --- What else could be listed -----------------------------------------------------------------


class Chip(NamedTuple):
    """A choice of outcome or category."""

    word: str
    shape: str
    level: str
    number: int | None
    url: str
    chosen: bool


_BY_WORD = {outcome.word: mark for outcome, mark in MARKS.items()} | {
    "in_flight": Mark("→", "In flight", "quiet"),
    MOVED: Mark("⇢", "Moved on", "quiet"),
}
_RARE = {"rejected", "orphan", "unknown", "test", MOVED}


def _facets(asked: Asked) -> dict[str, Any]:
    found: Facets = facets(asked.own, asked.rights)
    outcomes = [choice for choice in found.outcomes if _shown(choice)]
    categories = sorted(
        (c for c in found.categories if c.chosen or c.count), key=lambda c: -(c.count or 0)
    )
    return {
        "total": found.total,
        "outcomes": [_chip(asked, choice, "outcome") for choice in outcomes],
        "categories": [_chip(asked, choice, "category") for choice in categories],
    }


def _shown(choice: Choice) -> bool:
    return choice.word not in _RARE or choice.chosen or bool(choice.count)


def _chip(asked: Asked, choice: Choice, name: str) -> Chip:
    plain = Mark("", in_words(choice.word), "")
    mark = _BY_WORD.get(choice.word, plain) if name == "outcome" else plain
    filter = asked.own.without(name) if choice.chosen else choice.filter
    return Chip(mark.word, mark.shape, mark.level, choice.count, asked.link(filter), choice.chosen)


# --- Search ------------------------------------------------------------------------------------


class Refusal(NamedTuple):
    """A refusal whose words were searched for, and the list of what it met."""

    text: str
    url: str


def _find(asked: Asked) -> dict[str, Any]:
    """What is in the field, and refusals that hold the words: replies are told apart by these."""
    own = asked.own
    searched = own.values("q")
    text = searched[0] if len(searched) == 1 else ""
    others = own.without("q")
    fields = others.params() if others.since or others.to else others.without("range").params()
    reasons = [] if len(text) < 3 or "@" in text else _reasons(asked, text)
    return {
        "text": text,
        "fields": [*fields, *asked.kept.items()],
        "range": "" if others.since or others.to else SEARCHED,
        "clear": asked.link(others) if searched else "",
        "refusals": [
            Refusal(
                reason.text, asked.link(others.without("reason").with_("reason", str(reason.pk)))
            )
            for reason in reasons
        ],
    }


def _reasons(asked: Asked, text: str) -> list[Reason]:
    """Refusals with all of these words; of those who see some locations only, what these met."""
    found = Reason.objects.filter(*(Q(text__icontains=word) for word in text.split()))
    if not asked.rights.everything:
        met = restrict(ReasonHour.objects.all(), asked.rights)
        found = found.filter(pk__in=met.values("reason_id"))
    some = found.order_by("-pk")[:REASONS]
    return within(NEWER_SECONDS, lambda: list(some)) or []


# --- What has come since -----------------------------------------------------------------------


def mark() -> str:
    """The moment of painting, as a reader's page names it: the newest event and delivery."""
    newest = Delivery.objects.aggregate(newest=Max("id"))["newest"] or 0
    return f"{queries.newest_cursor()}.{newest}"


class Newer(NamedTuple):
    """Deliveries of the list that have come, or changed, since it was painted."""

    new: int = 0
    changed: int = 0
    many: bool = False


def _newer(asked: Asked) -> dict[str, Any]:
    painted = _read_mark(asked.options.get("mark", ""))
    return {"newer": _newer_than(asked, *painted) if painted else Newer(), "newest": asked.link()}


def _newer_than(asked: Asked, cursor: int, pk: int) -> Newer:
    newest = queries.newest_cursor()
    if newest <= cursor:
        return Newer()
    if newest - cursor > NEWER_EVENTS:
        return Newer(many=True)
    found = within(NEWER_SECONDS, lambda: _touched(asked, cursor))
    if found is None:
        return Newer(many=True)
    new = sum(each > pk for each in found)
    return Newer(new, len(found) - new)


def _touched(asked: Asked, cursor: int) -> list[int]:
    """Deliveries of the list that something has happened to since."""
    events = Event.objects.filter(pk__gt=cursor, delivery__isnull=False)
    touched = Delivery.objects.filter(pk__in=events.values("delivery_id"))
    matching = restrict(asked.filter.apply(touched), asked.rights)
    return list(matching.order_by().values_list("pk", flat=True))


def _read_mark(painted: str) -> tuple[int, int] | None:
    """``None`` for what no page gave."""
    parts = painted.split(".")
    if len(parts) != 2 or not all(p.isascii() and p.isdigit() and len(p) < 19 for p in parts):
        return None
    return int(parts[0]), int(parts[1])


class _NewerRegion(Region):
    """Without the page's own mark, as while it polls, nothing is known: what stands there stays."""

    def changes(self, asked: Asked, state: dict[str, Any]) -> str:
        painted = _read_mark(asked.options.get("mark", ""))
        return super().changes(asked, state) if painted else ""


PAGE = Page(
    "deliveries",
    (
        PULSE,
        Painted("find", "dashboard/_find.html", _find),
        Painted("facets", "dashboard/_facets.html", _facets),
        _NewerRegion("newer", "dashboard/_newer.html", _newer, every=1),
        Painted("deliveries", "dashboard/_deliveries.html", _list),
    ),
    params={"before": (), "after": (), "mark": ()},
    feed=False,
)
