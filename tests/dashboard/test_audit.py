"""The audit log: what it says, and that it stays."""

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.core.exceptions import PermissionDenied
from django.db import DatabaseError, transaction

from dashboard import audit
from dashboard.models import AuditEntry

pytestmark = pytest.mark.django_db


def test_an_entry_says_who_did_what_and_outlives_them() -> None:
    jane = User.objects.create_user("jane")
    audit.note(jane, "assign category", "delivery 5", location_id=3, category="policy", count=2)
    jane.delete()
    entry = AuditEntry.objects.get()
    assert (entry.actor, entry.action, entry.subject) == ("jane", "assign category", "delivery 5")
    assert entry.location_id == 3
    assert entry.detail == {"category": "policy", "count": 2}


def test_what_nobody_did_sendwatch_did() -> None:
    for nobody in (None, AnonymousUser()):
        assert audit.note(nobody, "prune", "events").actor == ""


def test_nobody_edits_it_in_any_way() -> None:
    entry = audit.note(None, "prune", "events")
    with pytest.raises(PermissionDenied):
        entry.save()
    with pytest.raises(PermissionDenied):
        entry.delete()
    with pytest.raises(DatabaseError, match="only added to"), transaction.atomic():
        AuditEntry.objects.update(actor="somebody else")
    assert AuditEntry.objects.get().actor == ""
