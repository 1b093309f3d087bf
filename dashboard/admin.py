"""Django's admin for people: who may see which location, and the API tokens that are out.

What is changed here goes into the audit log.
"""

from typing import Any

from allauth.account.models import EmailAddress
from allauth.mfa.models import Authenticator
from django.contrib import admin
from django.contrib.auth import admin as auth_admin
from django.contrib.auth.models import Group, User
from django.db import transaction
from django.db.models import Model
from django.http import HttpRequest, HttpResponse

from dashboard.access import may_manage
from dashboard.audited import AuditedAdmin
from dashboard.frame.guests import is_guest
from dashboard.models import (
    ApiToken,
    AuditEntry,
    ClientLink,
    Membership,
    Note,
    SavedView,
    Suspension,
)
from dashboard.review import bulk_admin, case_admin, delivery_admin  # noqa: F401 - each registers
from ingest.admin import ReadOnlyAdmin

# Addresses are columns of users here, and a second factor is taken away on the page of people.
admin.site.unregister([EmailAddress, Authenticator, User, Group])


@admin.register(User)
class UserAdmin(AuditedAdmin, auth_admin.UserAdmin):  # type: ignore[type-arg]
    """Accounts. Only superusers touch staff, and what makes somebody staff.

    Django's own lets whoever may change users make themselves superusers.
    """

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """As ``access.may_manage`` says; superusers may change themselves too."""
        return super().has_change_permission(request, obj) and _may_change(request.user, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """The same, but nobody deletes themselves."""
        if isinstance(obj, User) and not may_manage(request.user, obj):
            return False
        return super().has_delete_permission(request, obj)

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> Any:
        """What gives rights is read-only but for superusers, a guest's name for everybody.

        No form would take such a name, nor anything beside it.
        """
        fixed = ("is_staff", "is_superuser", "groups", "user_permissions")
        guest = ("username",) if isinstance(obj, User) and is_guest(obj) else ()
        shown = (*super().get_readonly_fields(request, obj), *guest)
        return shown if getattr(request.user, "is_superuser", False) else (*shown, *fixed)

    def user_change_password(
        self, request: HttpRequest, id: str, form_url: str = ""
    ) -> HttpResponse:
        """Another password, in one transaction with its entry in the log."""
        with transaction.atomic():
            return super().user_change_password(request, id, form_url)


def _may_change(user: Any, obj: Model | None) -> bool:
    own = isinstance(obj, User) and obj.pk == user.pk and user.is_superuser
    return own or not isinstance(obj, User) or may_manage(user, obj)


@admin.register(Group)
class GroupAdmin(AuditedAdmin, auth_admin.GroupAdmin):
    """Groups of permissions."""


@admin.register(Membership)
class MembershipAdmin(AuditedAdmin):
    """A user's right to a location or a company. Staff and superusers need none."""

    list_display = ("user", "location", "company_ref", "role", "created_at", "expires_at")
    list_select_related = ("user", "location")
    list_filter = ("role",)
    search_fields = ("user__username", "location__name", "location__ref", "company_ref")
    autocomplete_fields = ("user", "location")
    readonly_fields = ("created_at",)
    ordering = ("user__username", "location__name")


@admin.register(ApiToken)
class ApiTokenAdmin(AuditedAdmin):
    """Tokens: ``manage.py create_api_token`` issues them, deleting one here revokes it."""

    list_display = ("user", "name", "scopes", "created_at", "expires_at", "last_used_at")
    list_select_related = ("user",)
    search_fields = ("user__username", "name")
    ordering = ("user__username", "name")
    fields = ("user", "name", "scopes", "created_at", "expires_at", "last_used_at")

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Never: a token is shown once, to whoever issues it, and not by way of a page."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Never: it can only be revoked."""
        return False


@admin.register(ClientLink)
class ClientLinkAdmin(ReadOnlyAdmin):
    """The links that are out. They are made and revoked on their locations' pages."""

    list_display = ("name", "location", "by", "created_at", "expires_at", "revoked_at")
    list_select_related = ("location", "by")
    search_fields = ("name", "location__name", "location__ref")
    exclude = ("key",)
    ordering = ("-pk",)


@admin.register(Suspension)
class SuspensionAdmin(AuditedAdmin):
    """HighLevel's stops, as people put them in."""

    list_display = ("location", "cause", "level", "since", "until", "lifted_at", "by")
    list_select_related = ("location", "by")
    list_filter = ("cause", "level")
    search_fields = ("location__name", "location__ref", "note")
    autocomplete_fields = ("location",)
    readonly_fields = ("by", "created_at")


@admin.register(Note)
class NoteAdmin(AuditedAdmin):
    """Notes on the charts."""

    list_display = ("at", "text", "location", "by")
    list_select_related = ("location", "by")
    search_fields = ("text", "location__name", "location__ref")
    autocomplete_fields = ("location",)
    readonly_fields = ("by", "created_at")


@admin.register(SavedView)
class SavedViewAdmin(AuditedAdmin):
    """Pages with their filters, as people have named them."""

    list_display = ("name", "owner", "shared", "path", "query", "created_at")
    list_select_related = ("owner",)
    list_filter = ("shared",)
    search_fields = ("name", "owner__username", "path", "query")
    readonly_fields = ("created_at",)
    view_on_site = False

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Never: a view is saved on the page that it shows."""
        return False


@admin.register(AuditEntry)
class AuditEntryAdmin(ReadOnlyAdmin):
    """Who changed what: to be read only."""

    list_display = ("at", "actor", "action", "subject", "location_id")
    list_filter = ("action",)
    search_fields = ("actor", "subject")
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
