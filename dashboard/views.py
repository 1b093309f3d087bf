"""The pages. Page and live fragments share their URL, their filter and their markup."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.utils.cache import patch_cache_control, patch_vary_headers
from django.utils.http import urlencode
from django.views.decorators.http import require_GET

from dashboard import live
from dashboard.access import Rights, get_location, restrict, rights_of
from dashboard.filters import RANGES, Chip, Filter, FilterError, parse
from ingest.models import Event, HourlyCount, Location, Value
from ingest.vocabulary import Dimension

PAGE_PARAMS = ("sort",)
LISTED = 1_000  # suggestions under a field
COLUMNS = (
    ("key", "", ""),
    ("sent", "Sent", "Delivered + bounced + in flight"),
    ("delivered", "Delivered", "Accepted by the receiving server"),
    ("bounced", "Bounced", "Refused for good, late bounces included"),
    ("complained", "Complained", "Marked as spam by somebody who got it"),
    ("in_flight", "In flight", "Queued or waiting for a retry"),
    ("delivery_rate", "Delivery", "Delivered ÷ settled (delivered + bounced)"),
    ("bounce_rate", "Bounces", "Bounced ÷ settled. Lines: 3 % warning, 5 % sending stops"),
    ("complaint_rate", "Complaints", "Complained ÷ reached. Lines: 0.1 % and 0.3 %"),
)

type Page = Callable[..., HttpResponse]


def explain_bad_filter(page: Page) -> Page:
    """Answer an unreadable filter with 400 and the sentence that says what is wrong."""

    @wraps(page)
    def explained(request: HttpRequest, **kwargs: str) -> HttpResponse:
        try:
            return page(request, **kwargs)
        except FilterError as error:
            return render(request, "400.html", {"sentence": str(error)}, status=400)

    return explained


@require_GET
@explain_bad_filter
def overview(request: HttpRequest) -> HttpResponse:
    """All locations that the user may see."""
    rights = rights_of(request.user)
    asked = _asked(request, rights)
    context = {"title": "Overview"}
    if rights.everything and not Event.objects.exists():
        context["setup_url"] = _webhook_url(request)
    return _page(request, "overview", asked, asked, rights, context)


@require_GET
@explain_bad_filter
def location(request: HttpRequest, ref: str) -> HttpResponse:
    """One location with its campaigns and tags. 404 for one that the user may not see."""
    rights = rights_of(request.user)
    found = get_location(ref, rights)
    asked = _asked(request, rights)
    whole = asked.with_("location", ref)
    context = {"title": found.name or found.ref, "location": found}
    return _page(request, "location", asked, whole, rights, context)


@require_GET
@explain_bad_filter
def campaign(request: HttpRequest, key: str) -> HttpResponse:
    """One campaign or workflow and the locations that send it."""
    rights = rights_of(request.user)
    found = _get_campaign(key, rights)
    asked = _asked(request, rights, default_range="30d")
    whole = asked.with_("campaign", key)
    named = found.label not in ("", found.text)
    title = found.label if named else live.campaign_name(found.text)
    context = {"title": title, "campaign": found}
    return _page(request, "campaign", asked, whole, rights, context)


def _get_campaign(key: str, rights: Rights) -> Value:
    """The campaign with this key. 404 for one that only others send."""
    found = Value.objects.filter(dimension=Dimension.CAMPAIGN, text=key).first()
    if found is not None and not rights.everything:
        used = HourlyCount.objects.filter(dimension=Dimension.CAMPAIGN, value=found)
        found = found if restrict(used, rights).exists() else None
    if found is None:
        raise Http404("There is no such campaign.")
    return found


def _asked(request: HttpRequest, rights: Rights, *, default_range: str = "24h") -> Filter:
    params = [(name, value) for name, values in request.GET.lists() for value in values]
    asked = parse(
        params, now=timezone.now(), also=PAGE_PARAMS, default_range=default_range, blanks=True
    )
    asked.check_locations(rights)
    return asked


def _page(
    request: HttpRequest,
    view: str,
    asked: Filter,
    whole: Filter,
    rights: Rights,
    extra: dict[str, Any],
) -> HttpResponse:
    """The page, or for htmx all of its fragments. ``whole`` is ``asked`` and the page's own."""
    if request.htmx:  # type: ignore[attr-defined]
        text = live.fragments(view, whole, rights, now=whole.now, rows=[], state={})
        return _private(HttpResponse(text))
    sort = request.GET.get("sort", live.DEFAULT_SORT)
    context = live.regions(view, whole, rights, now=whole.now, sort=sort) | extra
    context["columns"] = _columns(asked, sort)
    context["bar"] = _bar(asked, rights, sort)
    context["feed"] = live.newest_feed(whole, rights)
    context["live_url"] = f"/ws/live/?{whole.canonical()}&view={view}"
    return _private(render(request, f"dashboard/{view}.html", context))


def _private(response: HttpResponse) -> HttpResponse:
    patch_vary_headers(response, ["HX-Request", "Cookie"])
    patch_cache_control(response, private=True, no_cache=True)
    return response


def _webhook_url(request: HttpRequest) -> str:
    base: str = settings.PUBLIC_URL or request.build_absolute_uri("/").rstrip("/")
    return f"{base}/webhooks/lc-email/"


# --- The filter bar, and the links that sort a table -----------------------------------------


def _link(query: str, sort: str) -> str:
    """A link to this page with another filter, which keeps the order of its tables."""
    return f"?{query}" if sort == live.DEFAULT_SORT else f"?{query}&{urlencode({'sort': sort})}"


def _columns(asked: Filter, sort: str) -> list[dict[str, str]]:
    """The heads of a table of rates. A second click turns the order around."""
    columns = []
    for name, label, about in COLUMNS:
        direction = {name: "ascending", f"-{name}": "descending"}.get(sort, "")
        first = name if name in ("key", "delivery_rate") else f"-{name}"
        other = name if first.startswith("-") else f"-{name}"
        url = _link(asked.canonical(), other if sort == first else first)
        columns.append({"label": label, "about": about, "url": url, "direction": direction})
    return columns


def _bar(asked: Filter, rights: Rights, sort: str) -> dict[str, Any]:
    """What the filter bar shows: suggestions, active terms, ranges; all as links or fields."""
    locations = restrict(Location.objects.order_by("name", "ref"), rights, "pk")[:LISTED]
    names = {found.ref: found.name or found.ref for found in locations}
    sorting = [("sort", sort)] if sort != live.DEFAULT_SORT else []
    return {
        "locations": locations,
        "tags": _tags(rights),
        "kept": [*asked.params(), *sorting],
        "chips": [_chip(chip, names, sort) for chip in asked.chips()],
        "ranges": [(name, _link(asked.with_("range", name).canonical(), sort)) for name in RANGES],
        "range": asked.range,
    }


def _chip(chip: Chip, names: dict[str, str], sort: str) -> dict[str, str]:
    name, value, excluded = chip.term
    return {
        "name": f"not {name}" if excluded else name.replace("_", " "),
        "value": names.get(value, value) if name == "location" else value,
        "without": _link(chip.without, sort),
    }


def _tags(rights: Rights) -> list[str]:
    """Tags to suggest: only those of locations that may be seen."""
    tags = Value.objects.filter(dimension=Dimension.TAG).exclude(text="")
    if not rights.everything:
        used = restrict(HourlyCount.objects.filter(dimension=Dimension.TAG), rights)
        tags = tags.filter(pk__in=used.values("value_id"))
    return list(tags.order_by("text").values_list("text", flat=True)[:LISTED])
