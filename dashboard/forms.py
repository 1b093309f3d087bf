"""What people put in by hand: names, suspensions, notes."""

from datetime import timedelta
from typing import Any
from zoneinfo import available_timezones

from django import forms
from django.core.exceptions import ValidationError
from django.utils import timezone

from dashboard.models import ClientLink, Note, Suspension
from ingest.models import Location, Value

MOMENT = "%Y-%m-%dT%H:%M"
# How long HighLevel stops sending, by cause and level; the third time for good.
LASTS = {
    ("bounces", 1): timedelta(hours=12),
    ("bounces", 2): timedelta(hours=12),
    ("blocks", 1): timedelta(hours=12),
    ("blocks", 2): timedelta(hours=24),
}


def moment_field(**options: Any) -> forms.DateTimeField:
    """A date and time of the zone that is active."""
    widget = forms.DateTimeInput({"type": "datetime-local", "class": "field"}, format=MOMENT)
    return forms.DateTimeField(
        input_formats=[MOMENT, "%Y-%m-%dT%H:%M:%S"], widget=widget, **options
    )


class LocationForm(forms.ModelForm):  # type: ignore[type-arg]
    """A location's name and time zone."""

    class Meta:
        model = Location
        fields = ("name", "timezone")

    def save(self, commit: bool = True) -> Location:
        """Note when it was named, for what HighLevel said of it before and comes late."""
        if "name" in self.changed_data:
            self.instance.name_at = timezone.now()
        saved: Location = super().save(commit)
        return saved

    def clean_timezone(self) -> str:
        """An IANA time zone, or nothing."""
        zone: str = self.cleaned_data["timezone"].strip()
        if zone and zone not in available_timezones():
            raise ValidationError("That is no IANA time zone, such as America/Chicago.")
        return zone


class CampaignForm(forms.ModelForm):  # type: ignore[type-arg]
    """A campaign's or workflow's name."""

    class Meta:
        model = Value
        fields = ("label",)


class SuspensionForm(forms.ModelForm):  # type: ignore[type-arg]
    """That HighLevel stopped a location's sending. Without an end: the usual one of its level."""

    since = moment_field()
    until = moment_field(required=False)

    class Meta:
        model = Suspension
        fields = ("cause", "level", "since", "until", "note")

    def clean(self) -> dict[str, Any]:
        """The end lies after the beginning; where none is given, HighLevel's usual one."""
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        since, until = cleaned.get("since"), cleaned.get("until")
        if since and until and until <= since:
            self.add_error("until", "It ends before it begins.")
        lasts = LASTS.get((cleaned.get("cause", ""), cleaned.get("level", 0)))
        if since and until is None and lasts:
            cleaned["until"] = since + lasts
        return cleaned


class NoteForm(forms.ModelForm):  # type: ignore[type-arg]
    """A note on the charts."""

    at = moment_field()

    class Meta:
        model = Note
        fields = ("at", "text")


class ClientLinkForm(forms.ModelForm):  # type: ignore[type-arg]
    """Whom a client link is for, and how long it opens its page."""

    days = forms.TypedChoiceField(
        choices=[(7, "a week"), (30, "30 days"), (90, "90 days"), (365, "a year")], coerce=int
    )

    class Meta:
        model = ClientLink
        fields = ("name",)


class NamesForm(forms.Form):
    """A CSV file of names."""

    file = forms.FileField(
        label="CSV file", help_text="Columns: id, name; also kind (location or campaign), timezone."
    )
