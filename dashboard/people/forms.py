"""What is asked for: whom to invite to what, a name and password, a token."""

from datetime import datetime, timedelta
from typing import Any

from django import forms
from django.contrib.auth.forms import UserCreationForm
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError

from dashboard.access import may_invite, rights_everywhere
from dashboard.models import ApiToken, Invitation
from ingest.models import Location

LASTS = {
    "": "for ever",
    "1": "for a day",
    "7": "for a week",
    "30": "for 30 days",
    "90": "for 90 days",
    "365": "for a year",
}


def lasting_field(label: str, initial: str) -> forms.ChoiceField:
    """How long something is good, in days; "" for ever."""
    choices = list(LASTS.items())
    return forms.ChoiceField(
        label=label, choices=choices, required=False, initial=initial, widget=_select()
    )


def end_of(days: str, now: datetime) -> datetime | None:
    """The end of what begins now and lasts so many days."""
    return now + timedelta(days=int(days)) if days else None


def _select() -> forms.Select:
    return forms.Select({"class": "field"})


def _input(**attributes: str) -> forms.TextInput:
    return forms.TextInput({"class": "field", "autocomplete": "off", **attributes})


class InvitationForm(forms.Form):
    """An invitation by somebody (``by``): what they may not offer is refused."""

    email = forms.EmailField(
        label="E-mail address", widget=forms.EmailInput({"class": "field", "autocomplete": "off"})
    )
    role = forms.ChoiceField(choices=Invitation.Role.choices, widget=_select())
    location = forms.CharField(
        label="Location, by name or id", required=False, widget=_input(list="locations")
    )
    company = forms.CharField(
        label="or company, by id", required=False, max_length=128, widget=_input()
    )
    days = lasting_field("Access lasts", "")

    def __init__(self, *args: Any, by: User, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.by = by
        roles = Invitation.Role.choices
        if not rights_everywhere(by):
            roles = roles[:1]
            del self.fields["company"]
        elif not by.is_superuser:
            roles = roles[:2]
        self.fields["role"].choices = roles  # type: ignore[attr-defined]

    def clean(self) -> dict[str, Any]:
        """One of location, company and staff; and what ``by`` may offer."""
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        if self.errors:
            return cleaned
        wanted, company = cleaned.get("location", "").strip(), cleaned.get("company", "").strip()
        if cleaned["role"] == Invitation.Role.STAFF:
            wanted = company = ""
        elif bool(wanted) == bool(company):
            raise ValidationError("Name a location or a company: one of the two.")
        self.offered = Invitation(
            email=cleaned["email"].lower(),
            role=cleaned["role"],
            location=_location(wanted) if wanted else None,
            company_ref=company,
            access_days=int(cleaned["days"]) if cleaned.get("days") else None,
            by=self.by,
        )
        # What does not exist and what is not theirs to offer are refused in the same words.
        if (wanted and not self.offered.location) or not may_invite(self.by, self.offered):
            raise ValidationError("There is no such location, or it is not yours to offer.")
        if company and not Location.objects.filter(company_ref=company).exists():
            raise ValidationError("No location belongs to this company.")
        return cleaned


def _location(wanted: str) -> Location | None:
    """The location with this id, or the only one with this name."""
    by_ref = Location.objects.filter(ref=wanted).first()
    named = list(Location.objects.filter(name=wanted)[:2])
    return by_ref or (named[0] if len(named) == 1 else None)


class AccountForm(UserCreationForm[User]):
    """A user name and a password, for who accepts an invitation."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        labels = {"username": "User name", "password1": "Password", "password2": "The same again"}
        for name, label in labels.items():
            self.fields[name].label = label
        self.fields["username"].help_text = "Letters, digits and @ . + - _"
        self.fields["password2"].help_text = ""

    class Meta:
        model = User
        fields = ("username",)


class TokenForm(forms.Form):
    """An API token."""

    name = forms.CharField(label="What for", max_length=100, widget=_input())
    scopes = forms.MultipleChoiceField(
        label="Good for",
        choices=ApiToken.Scope.choices,
        initial=[ApiToken.Scope.READ],
        widget=forms.CheckboxSelectMultiple,
    )
    days = lasting_field("Good", "90")
