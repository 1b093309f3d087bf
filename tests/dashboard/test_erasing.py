"""A recipient erased by command or by form: from lists and notes too, and the log names nobody."""

import re
from datetime import timedelta

import pytest
from django.apps import apps
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth.models import User
from django.contrib.contenttypes.models import ContentType
from django.core.management import CommandError, call_command
from django.test import Client
from django.utils import timezone

from dashboard import erasing, suppressing
from dashboard.erasing import Unfinished, erase_recipient
from dashboard.models import AuditEntry, Membership, Note, SavedView, Suppressed
from dashboard.review.models import CaseEntry, ReviewCase
from dashboard.suppression import suppress
from ingest import counting
from ingest.models import Delivery, Event, Location
from ingest.normalize import Detail
from ingest.vocabulary import BounceClass, EventKind, Outcome
from tests.dashboard import rows

pytestmark = pytest.mark.django_db
LOCAL = "zebulon.q"
JANE = f"{LOCAL}@example.com"


@pytest.fixture
def mail() -> Delivery:
    """Mail to Jane, and her name wherever people may have put it."""
    hard = {"outcome": Outcome.BOUNCED, "bounce_class": BounceClass.HARD}
    detail = Detail(message=f"no {LOCAL} here, {JANE.upper()}")
    for number in (1, 2):
        made = rows.delivery(number, recipient=JANE, **hard)  # type: ignore[arg-type]
        rows.event(made, kind=EventKind.BOUNCED, detail=detail)
    user, now = User.objects.create_user("somebody"), timezone.now()
    suppress(made.location_id, JANE, "complained", user, reason=f"{JANE} wrote")
    Note.objects.create(location=made.location, at=now, text=f"{JANE} called")
    SavedView.objects.create(owner=user, name="x", path="/deliveries/", query=f"q={JANE}")
    case = ReviewCase.objects.create(queue=7, subject="d:1", opened_at=now, last_event_at=now)
    CaseEntry.objects.create(case=case, at=now, what="note", note=f"ask {JANE.title()}")
    LogEntry.objects.create(
        user=user, content_type=ContentType.objects.get_for_model(Delivery), object_id="1",
        object_repr=str(made), action_flag=CHANGE, change_message="x",
    )  # fmt: skip
    return made


def named() -> list[str]:
    """Rows of all tables that name her."""
    found = []
    for model in apps.get_models():
        for row in model._default_manager.values():
            text = repr(row).lower()
            if LOCAL in text:
                found.append(f"{model.__name__}: {text}")
    return found


def test_the_command_erases_everywhere_and_the_log_names_nobody(
    mail: Delivery, capsys: pytest.CaptureFixture[str]
) -> None:
    rows.delivery(3, recipient="max@example.com")
    counting.rebuild(now=int(timezone.now().timestamp() * 1e6))
    call_command("erase_recipient", JANE.upper())
    assert named() == []
    said = capsys.readouterr().out
    assert re.fullmatch(r"erased: 2 deliveries, 2 events, 1 suppressions, .*\n", said)
    assert list(counting.differences(now=int(timezone.now().timestamp() * 1e6))) == []
    entry = AuditEntry.objects.get(action="erase recipient")
    assert entry.detail["rows"]["deliveries"] == 2
    assert AuditEntry.objects.filter(action="suppress", subject=entry.subject).exists()
    assert Delivery.objects.filter(recipient="max@example.com").exists()
    call_command("erase_recipient", JANE)
    assert capsys.readouterr().out == "nothing names this address\n"


def test_only_a_location(mail: Delivery) -> None:
    other = rows.delivery(9, location_ref="other", recipient=JANE)
    call_command("erase_recipient", JANE, "--location", "loc")
    assert [d.pk for d in Delivery.objects.filter(recipient=JANE)] == [other.pk]
    assert not Suppressed.objects.exists()
    for wrong in ([JANE, "--location", "none"], ["jane"]):
        with pytest.raises(CommandError):
            call_command("erase_recipient", *wrong)


def test_who_was_erased_is_not_listed_again(mail: Delivery) -> None:
    event = Event.objects.order_by("-pk")[0]
    erase_recipient(JANE)
    rows.event(event.delivery, kind=EventKind.COMPLAINED)
    while suppressing.follow_some():
        pass
    assert not Suppressed.objects.exists()


def test_a_step_that_read_her_before_enters_her_no_more(
    mail: Delivery, monkeypatch: pytest.MonkeyPatch
) -> None:
    Suppressed.objects.all().delete()
    found = suppressing._is_ours

    def meanwhile(cursor: int) -> bool:
        erase_recipient(JANE)
        return found(cursor)

    monkeypatch.setattr(suppressing, "_is_ours", meanwhile)
    suppressing.follow_some()
    assert not Suppressed.objects.exists()


def test_it_ends_in_time_and_goes_on(mail: Delivery) -> None:
    with pytest.raises(Unfinished):
        erase_recipient(JANE, seconds=-1)
    assert AuditEntry.objects.filter(action="erase recipient").count() == 1
    erase_recipient(JANE)
    assert named() == []


@pytest.mark.parametrize(("role", "status"), [("staff", 200), ("operator", 403), ("none", 403)])
def test_the_form_is_for_staff(client: Client, mail: Delivery, role: str, status: int) -> None:
    user = User.objects.create_user(role, is_staff=role == "staff")
    if role == "operator":
        Membership.objects.create(user=user, location=Location.objects.get(), role=role)
    client.force_login(user)
    assert client.get("/erasure/").status_code == status
    assert client.post("/erasure/", {"address": JANE, "erase": "1"}).status_code == status
    assert bool(named()) == (status != 200)


def test_the_form_looks_first(client: Client, mail: Delivery) -> None:
    client.force_login(User.objects.create_user("staff", is_staff=True))
    text = client.post("/erasure/", {"address": JANE}).content.decode()
    assert "2 deliveries in 1 location name this address" in text
    assert Delivery.objects.filter(recipient=JANE).count() == 2
    assert client.post("/erasure/", {"address": "jane"}).status_code == 400
    assert client.post("/erasure/", {"address": JANE, "location": "no"}).status_code == 404
    text = client.post("/erasure/", {"address": JANE, "erase": "1"}).content.decode()
    assert "2 deliveries" in text
    assert LOCAL not in text
    assert erasing.mails_to(JANE) == (0, 0)
    assert timedelta(0) <= timezone.now() - AuditEntry.objects.latest("at").at
