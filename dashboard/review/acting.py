"""What people do with one delivery: its category, our suppression list, a re-send, a case.

Each of these says in a sentence what came of it, and is in the audit log.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from django.db import transaction

from dashboard import suppression
from dashboard.audit import note
from dashboard.models import Suppressed
from dashboard.review.cases import Person, put_in
from dashboard.review.models import ResendRequest
from ingest.models import Delivery
from ingest.reclassify import assign_category
from ingest.vocabulary import BounceClass, Category, Flag, Outcome

NOT_READ = "HighLevel does not read this list: it mails the address until you stop it there."


class Refused(Exception):
    """It cannot be done. Its text is a sentence for people."""


def give_category(delivery: Delivery, word: str, by: Person) -> str:
    """Give a bounced delivery a category that outlives every rule; "" takes it back.

    Raises ``Refused``.
    """
    if word and word not in {category.word for category in Category if category}:
        raise Refused("There is no such category.")
    if delivery.outcome != Outcome.BOUNCED:
        raise Refused("Only bounced mail has a category to change.")
    category = Category(Category.from_word(word)) if word else Category.NONE
    if not assign_category([delivery.pk], category, by=by.get_username()):
        raise Refused("Nothing was changed: it is so already, or too old to be changed.")
    note(
        by, "assign category", f"delivery {delivery.pk}", location_id=delivery.location_id,
        category=word, before=Category(delivery.category).word,
    )  # fmt: skip
    if not word:
        return "The rules' own category holds again. All numbers have followed."
    return f"The category is {word.replace('_', ' ')} now. All numbers have followed."


def listed(delivery: Delivery) -> Suppressed | None:
    """Its recipient's entry in the location's suppression list, if that holds."""
    rows = Suppressed.objects.filter(location_id=delivery.location_id, recipient=delivery.recipient)
    return rows.exclude(state=Suppressed.State.RELEASED).first()


def add_to_list(delivery: Delivery, by: Person, text: str) -> str:
    """Put its recipient on our suppression list. Raises ``Refused``."""
    if not delivery.recipient:
        raise Refused("It has no recipient.")
    if listed(delivery):
        raise Refused("The address is on our suppression list already.")
    suppression.suppress(
        delivery.location_id, delivery.recipient, Suppressed.Cause.HAND, by,
        reason=text, delivery_id=delivery.pk,
    )  # fmt: skip
    return f"The address is on our suppression list now. {NOT_READ}"


def take_off_list(delivery: Delivery, by: Person, text: str) -> str:
    """Release its recipient. Raises ``Refused``."""
    reason = text or "Looked at in review"
    if not suppression.release(delivery.location_id, delivery.recipient, by, reason=reason):
        raise Refused("The address is not on our suppression list.")
    return "The address is off our suppression list, until something new speaks against it."


def why_no_resend(delivery: Delivery) -> str:
    """Why it must not be sent again; "" where it may be."""
    if delivery.outcome != Outcome.BOUNCED or delivery.flags & Flag.RECOVERED:
        return "Only mail that finally failed can be sent again."
    if delivery.bounce_class != BounceClass.SOFT:
        return "Only soft failures can be sent again: another try would do harm."
    if delivery.flags & (Flag.COMPLAINED | Flag.UNSUBSCRIBED) or listed(delivery):
        return "The recipient is on our suppression list, complained or unsubscribed."
    return ""


def request_resend(delivery: Delivery, by: Person, now: datetime) -> str:
    """Note that a person wants it sent again, once. Raises ``Refused``."""
    if why := why_no_resend(delivery):
        raise Refused(why)
    with transaction.atomic():
        _, is_new = ResendRequest.objects.get_or_create(
            delivery_id=delivery.pk,
            defaults={
                "location_id": delivery.location_id, "requested_by_id": by.pk, "requested_at": now,
            },
        )  # fmt: skip
        if not is_new:
            raise Refused("A re-send was requested already.")
        subject = f"delivery {delivery.pk}"
        note(by, "request re-send", subject, location_id=delivery.location_id)
    return "The re-send is requested. Nothing is sent by itself."


def act(delivery: Delivery, what: str, by: Person, now: datetime, said: Mapping[str, Any]) -> str:
    """Do what a button asks for. Raises ``Refused``, also where there is no such button."""
    text = str(said.get("note", "")).strip()
    ways: dict[str, Callable[[], str]] = {
        "category": lambda: give_category(delivery, str(said.get("category", "")), by),
        "suppress": lambda: add_to_list(delivery, by, text),
        "release": lambda: take_off_list(delivery, by, text),
        "resend": lambda: request_resend(delivery, by, now),
        "review": lambda: f"It is case #{put_in(delivery, by, now, text).pk} now.",
    }
    if what not in ways:
        raise Refused("There is no such action.")
    return ways[what]()
