"""The suppression list: who gets on it, who never does, who is held, and what people do."""

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User

from dashboard.models import AuditEntry, MailedAgain, Suppressed
from dashboard.suppressing import follow_some, look_again
from dashboard.suppression import release, settle_held, suppress
from ingest.models import Delivery, EventHour
from ingest.vocabulary import BounceClass, Dimension, EventKind, Flag, Outcome
from tests.dashboard import rows

pytestmark = pytest.mark.django_db
NOW = rows.NOW
HARD = {"outcome": Outcome.BOUNCED, "bounce_class": BounceClass.HARD}
SOFT = {"outcome": Outcome.BOUNCED, "bounce_class": BounceClass.SOFT}
BLOCK = {"outcome": Outcome.BOUNCED, "bounce_class": BounceClass.BLOCK}
JANE = "jane@example.com"


def mailed(number: int, kind: EventKind, *, days: float = 0, **columns: Any) -> Delivery:
    """A delivery to Jane so many days after NOW, and the event that ended it an hour later."""
    columns.setdefault("recipient", JANE)
    sent_at = NOW + timedelta(days=days)
    made = rows.delivery(number, sent_at=sent_at, **columns)
    rows.event(made, kind=kind, occurred_at=sent_at + timedelta(hours=1))
    return made


def listed() -> dict[str, tuple[str, str]]:
    found = Suppressed.objects.values_list("recipient", "cause", "state")
    return {recipient: (cause, state) for recipient, cause, state in found}


def follow() -> None:
    while follow_some(3):
        pass


@pytest.mark.parametrize(
    ("kind", "columns", "cause"),
    [
        (EventKind.BOUNCED, HARD, "hard"),
        (EventKind.COMPLAINED, {}, "complained"),
        (EventKind.UNSUBSCRIBED, {}, "unsubscribed"),
        (EventKind.BOUNCED, BLOCK, None),
        (EventKind.BOUNCED, SOFT, None),
        (EventKind.BOUNCED, HARD | {"flags": int(Flag.RECOVERED)}, None),
        (EventKind.DEFERRED, {"flags": int(Flag.DEFERRED)}, None),
        (EventKind.BOUNCED, HARD | {"outcome": Outcome.TEST}, None),
    ],
)
def test_who_gets_on_it(kind: EventKind, columns: dict[str, Any], cause: str | None) -> None:
    mailed(1, kind, **columns)
    follow()
    assert listed() == ({JANE: (cause, "on")} if cause else {})


@pytest.mark.parametrize(
    ("days", "campaigns", "between", "listed_as"),
    [
        ((0, 15, 30), ("a", "b", "c"), None, "soft"),
        ((0, 15, 29), ("a", "b", "c"), None, None),
        ((0, 15, 30), ("a", "b", "b"), None, None),
        ((0, 15, 30), ("a", "b", "c"), 20, None),
    ],
)
def test_soft_failures_must_be_hopeless(
    days: tuple[int, ...], campaigns: tuple[str, ...], between: int | None, listed_as: str | None
) -> None:
    if between:
        mailed(9, EventKind.DELIVERED, days=between, flags=int(Flag.REACHED))
    for number, (day, campaign) in enumerate(zip(days, campaigns, strict=True)):
        mailed(number, EventKind.BOUNCED, days=day, campaign=campaign, **SOFT)
    follow()
    assert listed() == ({JANE: (listed_as, "on")} if listed_as else {})


def test_the_weightier_cause_stands_and_following_again_changes_nothing() -> None:
    mailed(1, EventKind.BOUNCED, **HARD)
    mailed(2, EventKind.UNSUBSCRIBED, days=1)
    mailed(3, EventKind.COMPLAINED, days=2)
    follow()
    entry = Suppressed.objects.get()
    assert (entry.cause, entry.died_at) == ("complained", NOW + timedelta(hours=1))
    assert not follow_some()
    assert Suppressed.objects.get().since == entry.since


def test_lists_are_of_a_location() -> None:
    mailed(1, EventKind.BOUNCED, location_ref="one", **HARD)
    mailed(2, EventKind.DELIVERED, location_ref="two", days=1)
    follow()
    assert Suppressed.objects.get().location.ref == "one"
    assert not MailedAgain.objects.exists()


def test_mail_after_death_is_marked_in_whatever_order_it_comes() -> None:
    later = mailed(2, EventKind.ACCEPTED, days=3)
    mailed(1, EventKind.BOUNCED, **HARD)
    latest = mailed(3, EventKind.BOUNCED, days=4, **HARD)
    mailed(4, EventKind.DELIVERED, days=-1)
    follow()
    assert set(MailedAgain.objects.values_list("pk", flat=True)) == {later.pk, latest.pk}


def test_what_is_released_stays_off_until_something_new_happens() -> None:
    who = User.objects.create_user("op")
    mailed(1, EventKind.BOUNCED, days=-400, **HARD)
    follow()
    place = Suppressed.objects.get().location_id
    assert release(place, JANE, who, reason="a typo, corrected")
    assert not release(place, JANE, who, reason="again")
    mailed(2, EventKind.BOUNCED, days=-300, **HARD)
    follow()
    assert listed() == {JANE: ("hard", "released")}
    mailed(3, EventKind.COMPLAINED, days=400)
    follow()
    assert listed() == {JANE: ("complained", "on")}


def test_by_hand_and_back_with_entries_that_name_nobody() -> None:
    who, place = User.objects.create_user("op"), rows.location("loc")
    entry = suppress(place.pk, f" {JANE.upper()}", by=who, reason="asked by phone")
    assert (entry.recipient, entry.cause, entry.by) == (JANE, "hand", who)
    assert suppress(place.pk, JANE, "complained", who).cause == "complained"
    release(place.pk, JANE, who, reason=f"{JANE} asked again")
    entries = AuditEntry.objects.order_by("id")
    assert [e.action for e in entries] == ["suppress", "suppress", "release"]
    assert len({e.subject for e in entries}) == 1
    assert "jane" not in "".join(f"{e.subject} {e.detail}" for e in entries)


def incident(at: int = 0) -> None:
    """Three other locations' mail is refused by Gmail as if nobody were there."""
    gmail = rows.value(Dimension.PROVIDER, "Gmail")
    hour = int(NOW.timestamp()) // 3600 + at
    for ref in ("x", "y", "z", ""):
        place = rows.location(ref).pk if ref else 0
        for bounce_class, n in ((BounceClass.HARD, 20), (BounceClass.NONE, 20)):
            kind = EventKind.BOUNCED if bounce_class else EventKind.DELIVERED
            EventHour.objects.create(
                location_id=place, hour=hour, provider=gmail, kind=kind,
                bounce_class=bounce_class, events=n if place else 3 * n,
            )  # fmt: skip


def test_hard_bounces_are_held_while_their_provider_is_unwell() -> None:
    incident(at=1)
    mailed(1, EventKind.BOUNCED, provider="Gmail", **HARD)
    mailed(2, EventKind.BOUNCED, recipient="a@x.org", provider="Outlook", **HARD)
    mailed(3, EventKind.BOUNCED, recipient="b@x.org", days=2, provider="Gmail", **HARD)
    mailed(4, EventKind.COMPLAINED, recipient="c@x.org", provider="Gmail")
    mailed(5, EventKind.DELIVERED, days=1, provider="Gmail")
    follow()
    assert listed() == {
        JANE: ("hard", "held"),
        "a@x.org": ("hard", "on"),
        "b@x.org": ("hard", "on"),
        "c@x.org": ("complained", "on"),
    }
    assert not MailedAgain.objects.exists()


@pytest.mark.parametrize(("confirm", "state", "again"), [(True, "on", 1), (False, "released", 0)])
def test_what_is_held_is_settled_in_bulk(confirm: bool, state: str, again: int) -> None:
    incident(at=1)
    mailed(1, EventKind.BOUNCED, provider="Gmail", **HARD)
    mailed(2, EventKind.DELIVERED, days=1, provider="Gmail")
    follow()
    place = Suppressed.objects.get().location_id
    assert settle_held("Gmail", [place + 99], None, confirm=confirm) == 0
    assert settle_held("Gmail", [place], None, confirm=confirm) == 1
    assert listed() == {JANE: ("hard", state)}
    assert MailedAgain.objects.count() == again


def test_a_bounce_that_is_classed_anew_takes_nobody_off_but_its_own() -> None:
    wrong = mailed(1, EventKind.BOUNCED, **HARD)
    mailed(2, EventKind.BOUNCED, recipient="a@x.org", **HARD)
    follow()
    assert look_again() == 0
    Delivery.objects.filter(pk=wrong.pk).update(bounce_class=BounceClass.BLOCK)
    assert look_again() == 1
    assert listed() == {JANE: ("hard", "released"), "a@x.org": ("hard", "on")}
