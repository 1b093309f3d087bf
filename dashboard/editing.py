"""Where people's own words are stored: names, suspensions, notes. Each answers with the page.

Who may is ``access.may_operate``; a location that may not even be seen is 404 as everywhere.
"""

from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.forms import BaseForm, ModelForm
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, QueryDict
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.http import require_http_methods, require_POST

from dashboard.access import get_location, may_operate, restrict, rights_of
from dashboard.audit import note
from dashboard.forms import MOMENT, CampaignForm, LocationForm, NamesForm, NoteForm, SuspensionForm
from dashboard.models import Note, Suspension
from dashboard.naming import NamesError, apply_names, read_names
from ingest.models import HourlyCount, Location, Value
from ingest.vocabulary import FLEET_LOCATION, Dimension


@require_POST
def name_location(request: HttpRequest, ref: str) -> HttpResponseBase:
    """Give a location a name and a time zone."""
    location = operated(request, ref)
    return _save(request, LocationForm(request.POST, instance=location), "Saved.")


@require_POST
def mask_location(request: HttpRequest, ref: str) -> HttpResponseBase:
    """Mask recipients' addresses for a location's viewers, or show them: ``masks`` is 1 or 0."""
    location = operated(request, ref)
    masks = request.POST.get("masks") == "1"
    with transaction.atomic():
        if Location.objects.filter(pk=location.pk, masks_recipients=not masks).update(
            masks_recipients=masks
        ):
            action = "mask recipients" if masks else "show recipients"
            note(request.user, action, location, location_id=location.pk)
    messages.success(request, "Viewers see masked addresses." if masks else "All see addresses.")
    return back_to_page(request)


@require_POST
def name_campaign(request: HttpRequest, key: str) -> HttpResponseBase:
    """Give a campaign or workflow a name."""
    rights = rights_of(request.user)
    found = Value.objects.filter(dimension=Dimension.CAMPAIGN, text=key).first()
    used = HourlyCount.objects.filter(dimension=Dimension.CAMPAIGN, value=found)
    used = used.exclude(location_id=FLEET_LOCATION)
    if found is None or not (rights.everything or restrict(used, rights).exists()):
        raise Http404("There is no such campaign.")
    senders = set() if rights.everything else set(used.values_list("location_id", flat=True))
    if not may_operate(request.user, senders):
        raise PermissionDenied
    return _save(request, CampaignForm(request.POST, instance=found), "Saved.")


@require_http_methods(["GET", "POST"])
def names(request: HttpRequest) -> HttpResponse:
    """Give many names at once, from a CSV file. For those who see everything."""
    if not may_operate(request.user):
        raise PermissionDenied
    form = NamesForm(request.POST or None, request.FILES or None)
    done = None
    if request.method == "POST" and form.is_valid():
        try:
            done = apply_names(read_names(form.cleaned_data["file"].read()))
        except NamesError as error:
            form.add_error("file", str(error))
    unnamed = Location.objects.filter(name="").count()
    context = {"form": form, "done": done, "unnamed": unnamed, "title": "Names"}
    return render(request, "dashboard/names.html", context, status=400 if form.errors else 200)


@require_POST
def suspend(request: HttpRequest, ref: str) -> HttpResponseBase:
    """Note that HighLevel stopped a location's sending."""
    location = operated(request, ref)
    with timezone.override(_zone(request)):
        form = SuspensionForm(
            _suspension(request), instance=Suspension(location=location, by_id=request.user.pk)
        )
        return _save(request, form, "Noted: HighLevel stopped this location's sending.")


def _suspension(request: HttpRequest) -> QueryDict:
    """What the form was sent; ``now=<cause> <level>``, as a card's buttons send it: since now."""
    cause, _, level = request.POST.get("now", "").partition(" ")
    if not level:
        return request.POST
    given = QueryDict(mutable=True)
    given.update({"cause": cause, "level": level, "since": f"{timezone.localtime():{MOMENT}}"})
    return given


@require_POST
def lift(request: HttpRequest, ref: str, pk: int) -> HttpResponseBase:
    """Note that a suspension is over; one noted by mistake can be deleted."""
    found = get_object_or_404(Suspension, pk=pk, location=operated(request, ref))
    if "delete" in request.POST:
        found.delete()
    else:
        found.lifted_at = timezone.now()
        found.save(update_fields=["lifted_at"])
    messages.success(request, "Noted: sending is on again.")
    return back_to_page(request)


@require_POST
def add_note(request: HttpRequest) -> HttpResponseBase:
    """Put a note on the charts: of a location, or for those who see everything, of all."""
    ref = request.POST.get("location", "")
    location = operated(request, ref) if ref else None
    if location is None and not may_operate(request.user):
        raise PermissionDenied
    with timezone.override(_zone(request)):
        form = NoteForm(request.POST, instance=Note(location=location, by_id=request.user.pk))
        return _save(request, form, "The note stands on the charts.")


@require_POST
def delete_note(request: HttpRequest, pk: int) -> HttpResponseBase:
    """Take a note away."""
    found = get_object_or_404(Note, pk=pk)
    if found.location is not None:
        operated(request, found.location.ref)
    elif not may_operate(request.user):
        raise Http404
    found.delete()
    messages.success(request, "The note is gone.")
    return back_to_page(request)


def operated(request: HttpRequest, ref: str) -> Location:
    """The location with this HighLevel id, if the user may change it.

    Raises ``Http404`` for one that the user may not see, ``PermissionDenied`` for one that the
    user only views.
    """
    location = get_location(ref, rights_of(request.user))
    if not may_operate(request.user, [location.pk]):
        raise PermissionDenied
    return location


def _zone(request: HttpRequest) -> ZoneInfo:
    """The zone of the times in a form, which the form names."""
    try:
        return ZoneInfo(request.POST.get("tz") or "UTC")
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return ZoneInfo("UTC")


def _save(request: HttpRequest, form: ModelForm, done: str) -> HttpResponseBase:  # type: ignore[type-arg]
    if form.is_valid():
        form.save()
        messages.success(request, done)
    else:
        messages.error(request, sentence_of(form))
    return back_to_page(request)


def sentence_of(form: BaseForm) -> str:
    """Says that nothing was saved, and what is wrong with a form, field by field, in one line."""
    found = form.errors.get_json_data().items()
    said = (f"{name.replace('_', ' ')}: {errors[0]['message']}" for name, errors in found)
    return "Not saved. " + " ".join(said)


def back_to_page(request: HttpRequest) -> HttpResponseBase:
    """To the page that the form was on, and to no other host."""
    there = request.POST.get("next", "")
    safe = url_has_allowed_host_and_scheme(
        there, allowed_hosts={request.get_host()}, require_https=request.is_secure()
    )
    return redirect(there if safe else "/")
