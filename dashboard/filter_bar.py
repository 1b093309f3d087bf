"""The filter bar: what holds on a page, in words, and the links and forms that change it.

All of it is in the address. An address without a time zone is read in the reader's own default
(a cookie, see ``remembered_zone``), which a script then writes into the address; what "Copy link"
copies always names its zone. So an address that is sent to somebody says the same to everybody.
"""

from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import NamedTuple
from urllib.parse import parse_qsl

from django.contrib.auth.models import User
from django.db.models import Exists, OuterRef
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.utils import timezone
from django.utils.encoding import escape_uri_path
from django.views.decorators.http import require_GET

from dashboard.access import Rights, restrict, rights_of
from dashboard.filters import RANGES, TERM_NAMES, Filter, FilterError, Term, parse
from dashboard.names import name_of
from dashboard.pages.page import PLACES, Asked, Page
from dashboard.saved_views import Entry, entries, joined, page_address, split
from dashboard.suggest import meant, values_seen
from dashboard.words import VALUE_NAMES
from ingest.models import Location, Reason, ReasonHour

ZONE_COOKIE = "zone"
# The names of the filters, as people look for them.
LABELS = {
    "location": "Location",
    "company": "Company",
    "campaign": "Campaign or workflow",
    "step": "Step",
    "tag": "Tag",
    "provider": "Provider",
    "domain": "Recipient domain",
    "sending_domain": "Sending domain",
    "outcome": "Outcome",
    "class": "Class of failure",
    "category": "Category of failure",
    "reason": "Reason",
    "code": "SMTP code",
    "is": "Mark (late, clicked …)",
    "ip": "IP",
    "pool": "Pool",
    "mx": "MX host",
    "q": "Address or message id",
}
_RANGE_WORDS = {
    "1h": "Last hour",
    "24h": "Last 24 h",
    "7d": "Last 7 days",
    "30d": "Last 30 days",
    "90d": "Last 90 days",
}
_COMPARE_WORDS = {
    "": "Nothing",
    "previous": "The period before",
    "week": "The same weekday, a week before",
}
_CHIP_LENGTH = 60


class Link(NamedTuple):
    """A choice of the bar."""

    label: str
    url: str
    current: bool


class Chip(NamedTuple):
    """A term of the filter, and the address without it."""

    name: str
    value: str
    without: str


def remembered_zone(request: HttpRequest) -> str:
    """The time zone that the reader chose last, as a script has noted it; any text."""
    return request.COOKIES.get(ZONE_COOKIE, "")


def in_remembered_zone(filter: Filter, request: HttpRequest) -> Filter:
    """The filter in the reader's own zone, if it names none. Its bounds stay the same moments."""
    zone = remembered_zone(request)
    if filter.tz or not zone:
        return filter
    try:
        return filter.with_("tz", zone)
    except FilterError:
        return filter


@dataclass(frozen=True)
class Bar:
    """What the filter bar of a page shows. ``here`` is the page's path, ``origin`` the site.

    ``can_compare``: the page shows what ``compare`` asks for. ``by_event``: it goes by the time of
    events and no other. ``default_zone``: its address names
    no time zone, and a remembered one holds.
    """

    asked: Asked
    here: str
    origin: str = ""
    user: User | None = None
    can_compare: bool = False
    by_event: bool = False
    default_zone: bool = False

    def _link(self, filter: Filter | None = None, **options: str | None) -> str:
        return self.asked.link(filter, **options)

    @cached_property
    def address(self) -> str:
        """The page as it is, for forms to come back to."""
        return self.here + self._link()

    @cached_property
    def shared_address(self) -> str:
        """The page as it is, for others: its time zone is named."""
        own = self.asked.own
        return self.origin + self.here + self._link(own.with_("tz", own.zone.key))

    @cached_property
    def views(self) -> list[Entry]:
        """The views that the reader has saved or shares."""
        return entries(self.user, self.asked.rights) if self.user else []

    # --- What mail ---

    @property
    def names(self) -> list[tuple[str, str]]:
        """The filters that may be added; not the one that the page itself asks for."""
        return [item for item in LABELS.items() if item[0] != self.asked.subject]

    @property
    def within(self) -> tuple[str, ...]:
        """The locations whose values are suggested; none: all."""
        return self.asked.filter.values("location")

    @cached_property
    def chips(self) -> list[Chip]:
        """The terms of the filter, by the names that people know."""
        names = _names(self.asked)
        return [
            Chip(
                f"not {term.name}".replace("_", " ") if term.excluded else _word(term.name),
                names.get((term.name, term.value), term.value),
                self.asked.link_of(without),
            )
            for term, without in self.asked.own.chips()
        ]

    @property
    def cleared(self) -> str:
        """The page without any term."""
        return self._link(self.asked.own.only())

    # --- When ---

    @property
    def zone(self) -> str:
        """The name of the time zone that holds."""
        return self.asked.filter.zone.key

    @cached_property
    def period(self) -> str:
        """Which time is shown, in words."""
        filter = self.asked.filter
        if filter.range:
            return _RANGE_WORDS[filter.range]
        since, to = (
            self._moment(moment, "%-d %b %Y %H:%M") for moment in (filter.since, filter.to)
        )
        if since and to:
            return f"{since} – {to}"
        return f"Since {since}" if since else f"Until {to}" if to else "All time"

    @property
    def clock(self) -> str:
        """By which of a mail's times."""
        by_event = self.by_event or self.asked.filter.clock == "event"
        return "by event time" if by_event else "by send time"

    @property
    def since(self) -> str:
        """The first moment, as a field of the browser takes it."""
        return self._moment(self.asked.filter.start, "%Y-%m-%dT%H:%M")

    @property
    def to(self) -> str:
        """The last moment, as a field of the browser takes it; "" where it is now."""
        return self._moment(self.asked.filter.until, "%Y-%m-%dT%H:%M")

    def _moment(self, moment: datetime | None, form: str) -> str:
        return moment.astimezone(self.asked.filter.zone).strftime(form) if moment else ""

    @property
    def ranges(self) -> list[Link]:
        """The ranges that are one click away."""
        own = self.asked.own
        return [
            Link(name, self._link(own.with_("range", name)), own.range == name) for name in RANGES
        ]

    @property
    def kept(self) -> list[tuple[str, str]]:
        """All but the bounds: what the form of the bounds sends along."""
        params = [p for p in self.asked.own.params() if p[0] not in ("range", "from", "to", "tz")]
        return [*params, ("tz", self.zone), *self.asked.kept.items()]

    @property
    def clocks(self) -> list[Link]:
        """By send time, as rates go, or by when things happened; none where there is no choice."""
        if self.by_event:
            return []
        own = self.asked.own
        by_event = own.clock == "event"
        return [
            Link("Send time", self._link(own.without("clock")), not by_event),
            Link("Event time", self._link(own.with_("clock", "event"), compare=None), by_event),
        ]

    @cached_property
    def zones(self) -> list[Link]:
        """UTC, the location's own time zone, and the one that holds."""
        found = {"UTC": "UTC"}
        for location in _locations(self.asked).values():
            found.setdefault(location.timezone, f"Location’s: {location.timezone}")
        found.setdefault(self.zone, self.zone)
        links = []
        for zone, label in found.items():
            try:
                url = self._link(self.asked.own.with_("tz", zone))
            except FilterError:
                continue  # what HighLevel calls a zone need not be one
            links.append(Link(label, url, zone == self.zone))
        return links

    @property
    def zone_url(self) -> str:
        """The start of the address with another zone: the browser's, which a script appends."""
        link = self._link(self.asked.own.without("tz"))
        return f"{link}{'' if link == '?' else '&'}tz="

    @cached_property
    def compares(self) -> list[Link]:
        """What the page may compare with; nothing where it does not, or cannot."""
        offered = self.can_compare and self.asked.filter.clock != "event"
        chosen = self.asked.options.get("compare", "")
        return [
            Link(label, self._link(compare=name or None), name == chosen)
            for name, label in _COMPARE_WORDS.items()
            if offered
        ]

    @property
    def compared(self) -> str:
        """With what the page compares, in words; "" if it does not."""
        chosen = [link.label for link in self.compares if link.current]
        return chosen[0].lower() if chosen and chosen[0] != _COMPARE_WORDS[""] else ""


def bar_of(asked: Asked, page: Page, request: HttpRequest) -> Bar:
    """The bar of a page that this request is for."""
    origin = f"{request.scheme}://{request.get_host()}"
    default_zone = bool(asked.own.tz) and not request.GET.get("tz")
    user = request.user if isinstance(request.user, User) else None
    return Bar(
        asked,
        escape_uri_path(request.path),
        origin,
        user,
        can_compare=page.compares,
        by_event=page.by_event,
        default_zone=default_zone,
    )


def _word(name: str) -> str:
    return name.replace("_", " ")


def _locations(asked: Asked) -> dict[str, Location]:
    """The locations that the filter names and the reader may see, by their ids."""

    def read() -> dict[str, Location]:
        refs = {term.value for term in asked.filter.terms if term.name == "location"}
        if not refs:
            return {}
        found = restrict(Location.objects.filter(ref__in=refs), asked.rights, "pk")
        return {location.ref: location for location in found}

    return asked.once("named locations", read)


def _names(asked: Asked) -> dict[tuple[str, str], str]:
    """What people call the values of the filter, where that is not what they are."""
    names = {("location", ref): found.name or ref for ref, found in _locations(asked).items()}
    wanted: dict[str, set[str]] = {}
    for term in asked.own.terms:
        wanted.setdefault(term.name, set()).add(term.value)
    for name in wanted.keys() & {"campaign", "step"}:
        found = values_seen(VALUE_NAMES[name], asked.rights).filter(text__in=wanted[name])
        labels = dict(found.values_list("text", "label"))
        names |= {(name, key): name_of(name, key, labels.get(key, "")) for key in wanted[name]}
    if companies := wanted.get("company"):
        seen = restrict(Location.objects.filter(company_ref__in=companies), asked.rights, "pk")
        rows = seen.exclude(company_name="").values_list("company_ref", "company_name").distinct()
        names |= {("company", ref): name for ref, name in rows}
    if numbers := {value for value in wanted.get("reason", ()) if value.isdecimal()}:
        reasons = Reason.objects.filter(pk__in=numbers)
        if not asked.rights.everything:
            met = restrict(ReasonHour.objects.filter(reason_id=OuterRef("pk")), asked.rights)
            reasons = reasons.filter(Exists(met))
        texts = reasons.values_list("pk", "text")
        names |= {("reason", str(pk)): f"{pk}: {_short(text)}" for pk, text in texts}
    return names


def _short(text: str) -> str:
    return text if len(text) <= _CHIP_LENGTH else text[: _CHIP_LENGTH - 1] + "…"


# --- The form that adds a value ----------------------------------------------------------------


@require_GET
def narrow(request: HttpRequest) -> HttpResponse:
    """``/filter/?at=ADDRESS&name=tag&how=is|not&value=promo``: on to that page, filtered.

    The form of the bar comes here, so that it needs no script to give one field many names.
    """
    given = request.GET
    try:
        address = page_address(given.get("at", ""))
        if value := given.get("value", "").strip():
            rights = rights_of(request.user)
            excluded = given.get("how") == "not"
            address = narrowed(address, Term(given.get("name", ""), value, excluded), rights)
    except FilterError as error:
        return render(request, "400.html", {"sentence": str(error)}, status=400)
    return HttpResponseRedirect(address)


def narrowed(address: str, term: Term, rights: Rights) -> str:
    """A page's address with one more term. Raises ``FilterError``, and ``Http404`` for strangers.

    ``term`` holds what somebody typed: a location's name will do for its id.
    """
    path, _, query = address.partition("?")
    times_and_terms, rest = split(parse_qsl(query))
    filter = parse(times_and_terms, now=timezone.now())
    value = meant(term.name, term.value, rights) if term.name in TERM_NAMES else term.value
    filter = filter.plus(term.name, value, excluded=term.excluded)
    filter.check_locations(rights)
    rest = [param for param in rest if param[0] not in PLACES]
    return joined(path, filter.canonical(), rest)
