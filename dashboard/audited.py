"""What is changed in the Django admin goes into the audit log, by the hooks of the admin's own."""

from collections.abc import Iterable
from typing import Any

from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.db.models import Model
from django.http import HttpRequest

from dashboard import audit


class AuditedAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """Additions, changes, new passwords and deletions are noted, with the names of the fields.

    Not their values: some are secrets.
    """

    def log_addition(self, request: HttpRequest, obj: Model, message: Any) -> LogEntry:
        """Something was added."""
        self._note(request, "add", obj)
        return super().log_addition(request, obj, message)

    def log_change(self, request: HttpRequest, obj: Model, message: Any) -> LogEntry:
        """Something was changed; nothing is noted where nothing was."""
        parts = [each.get("changed", {}) for each in message if isinstance(each, dict)]
        fields = [str(name) for part in parts for name in part.get("fields", ())]
        if message:
            self._note(request, "change", obj, fields=fields)
        return super().log_change(request, obj, message)

    def log_deletions(self, request: HttpRequest, queryset: Iterable[Model]) -> Any:
        """Things are about to be deleted."""
        for obj in queryset:
            self._note(request, "delete", obj)
        return super().log_deletions(request, queryset)  # type: ignore[arg-type]

    def _note(self, request: HttpRequest, verb: str, obj: Model, **detail: Any) -> None:
        action = f"{verb} {self.opts.verbose_name}"
        where = getattr(obj, "location_id", None)
        audit.note(request.user, action, obj, location_id=where, **detail)
