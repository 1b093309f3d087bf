"""What reviewing keeps: cases, what was done with them, changes in bulk, wishes for a re-send.

Cases name deliveries and reasons by key and hold no address, so that nothing of a recipient who
is erased stays here. A delivery without a case needs no review.
"""

from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import models
from django.db.models import Q, QuerySet

from ingest.models import Delivery, Location, Reason, choices
from ingest.vocabulary import Category

LEASE = timedelta(minutes=30)
UNDO = timedelta(hours=24)


def _person(**options: Any) -> Any:
    return models.ForeignKey(
        settings.AUTH_USER_MODEL, models.SET_NULL, null=True, blank=True, related_name="+",
        **options,
    )  # fmt: skip


class CaseQuerySet(models.QuerySet["ReviewCase"]):
    """Cases, by what may be done with them."""

    def waiting(self, now: datetime) -> QuerySet["ReviewCase"]:
        """Those that nobody looks at: open ones, and those whose lease has ended."""
        state = ReviewCase.State
        return self.filter(Q(state=state.OPEN) | Q(state=state.IN_REVIEW, leased_until__lte=now))

    def waiting_for(self, user_id: int, now: datetime) -> QuerySet["ReviewCase"]:
        """These, and those that a person has taken."""
        taken = Q(state=ReviewCase.State.IN_REVIEW, leased_by_id=user_id)
        return self.waiting(now) | self.filter(taken)


class ReviewCase(models.Model):
    """Something that a person should look at: a delivery, an address or a refusal.

    ``subject`` tells which of its queue: ``d:`` and a delivery's key, ``r:`` and a reason's,
    ``s:`` and that of an address on the suppression list. A case without a location belongs to
    all, and is for those who see everything. ``count`` is how many events of its kind there were.
    """

    class Queue(models.IntegerChoices):
        COMPLAINTS = 1, "complaints"
        MAILED_AGAIN = 2, "mailed after a hard bounce or complaint"
        LATE = 3, "late or recovered"
        UNCLASSIFIED = 4, "unclassified"
        NEW_REASONS = 5, "new reasons"
        SAMPLE = 6, "random sample"
        BY_HAND = 7, "put in by hand"

    class State(models.TextChoices):
        OPEN = "open", "open"
        IN_REVIEW = "in_review", "in review"
        RESOLVED = "resolved", "resolved"
        IGNORED = "ignored", "ignored until worse"

    class Finding(models.TextChoices):
        LIST = "list", "the client's list"
        DNS = "dns", "DNS"
        CONTENT = "content", "the content"
        POOL = "pool", "the pool"
        PROVIDER = "provider", "the provider"
        MISCLASSIFIED = "misclassified", "misclassified"
        FALSE_ALARM = "false_alarm", "a false alarm"

    queue = models.PositiveSmallIntegerField(choices=Queue)
    subject = models.CharField(max_length=24)
    location = models.ForeignKey(
        Location, models.CASCADE, null=True, blank=True, db_index=False, related_name="+"
    )
    # Retention lets go of deliveries without asking what names them.
    delivery = models.ForeignKey(
        Delivery, models.DO_NOTHING, null=True, blank=True, db_constraint=False, related_name="+"
    )
    reason = models.ForeignKey(
        Reason, models.DO_NOTHING, null=True, blank=True, db_constraint=False, db_index=False,
        related_name="+",
    )  # fmt: skip
    state = models.CharField(max_length=9, choices=State, default=State.OPEN)
    finding = models.CharField(max_length=13, choices=Finding, blank=True)
    count = models.IntegerField(default=1)
    ignored_count = models.IntegerField(default=0, help_text="The count when it was ignored.")
    opened_at = models.DateTimeField()
    last_event_at = models.DateTimeField()
    leased_by = _person()
    leased_until = models.DateTimeField(null=True, blank=True)
    taken_at = models.DateTimeField(null=True, blank=True)
    settled_at = models.DateTimeField(null=True, blank=True)
    settled_by = _person()
    handled_seconds = models.IntegerField(null=True, blank=True)

    objects = CaseQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["queue", "subject"], name="review_case_unique")
        ]
        indexes = [
            models.Index(fields=["state", "queue", "-count", "-id"], name="review_case_state"),
            models.Index(
                fields=["location", "state", "queue", "-count", "-id"], name="review_case_location"
            ),
            models.Index(fields=["settled_at"], name="review_case_settled"),
        ]
        ordering = ["queue", "-count", "-id"]

    def __str__(self) -> str:
        return f"{self.get_queue_display()} #{self.pk}"


class CaseEntry(models.Model):
    """What was done with a case, by whom, or what a person noted."""

    case = models.ForeignKey(ReviewCase, models.CASCADE, related_name="entries")
    at = models.DateTimeField()
    actor = models.CharField(max_length=150, blank=True, help_text="Empty: Sendwatch itself.")
    what = models.CharField(max_length=60)
    note = models.CharField(max_length=1000, blank=True)

    class Meta:
        ordering = ["at", "id"]

    def __str__(self) -> str:
        return f"{self.at:%Y-%m-%d %H:%M} · {self.actor or 'Sendwatch'} · {self.what}"


class ReviewProgress(models.Model):  # noqa: DJ008 - one row
    """How far the queues have followed the events, and which week was sampled last."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=1)
    cursor = models.BigIntegerField(default=0)
    sampled_hour = models.IntegerField(default=0, help_text="The end of that week, since 1970.")


class BulkChange(models.Model):
    """One answer for all deliveries that were refused alike, and the way back for a day."""

    reason = models.ForeignKey(
        Reason, models.DO_NOTHING, db_constraint=False, db_index=False, related_name="+"
    )
    category = models.PositiveSmallIntegerField(
        choices=[choice for choice in choices(Category) if choice[0]]
    )
    by = _person()
    created_at = models.DateTimeField()
    deliveries = models.IntegerField(default=0, help_text="That it was counted to change.")
    locations = models.IntegerField(default=0)
    finished_at = models.DateTimeField(null=True, blank=True)
    undo_at = models.DateTimeField(null=True, blank=True, help_text="When it was taken back.")
    undone_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        indexes = [
            models.Index(fields=["created_at"], name="bulk_change_created"),
        ]
        ordering = ["-created_at", "-id"]

    def __str__(self) -> str:
        deliveries = f"{self.deliveries:,} deliver{'y' if self.deliveries == 1 else 'ies'}"
        return f"{deliveries} in {self.locations:,} location{'s' * (self.locations != 1)}"

    @property
    def undo_until(self) -> datetime:
        """Until when it can be taken back."""
        return self.created_at + UNDO


class BulkItem(models.Model):  # noqa: DJ008 - a line of a bulk change
    """One delivery of a change in bulk, with the category a person had given it before."""

    class State(models.IntegerChoices):
        WAITING = 0
        CHANGED = 1
        LEFT = 2, "left alone"
        UNDONE = 3
        KEPT = 4, "changed since"

    change = models.ForeignKey(BulkChange, models.CASCADE, db_index=False, related_name="items")
    delivery_id = models.BigIntegerField()
    before = models.PositiveSmallIntegerField(default=0)
    state = models.PositiveSmallIntegerField(choices=State, default=State.WAITING)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["change", "delivery_id"], name="bulk_item_unique")
        ]
        indexes = [models.Index(fields=["change", "state", "id"], name="bulk_item_state")]


class ResendRequest(models.Model):
    """A person's wish that a message be sent again. Nothing sends by itself."""

    delivery = models.OneToOneField(
        Delivery, models.DO_NOTHING, db_constraint=False, related_name="+"
    )
    location = models.ForeignKey(Location, models.CASCADE, related_name="+")
    requested_by = _person()
    requested_at = models.DateTimeField()

    class Meta:
        ordering = ["-requested_at", "-id"]

    def __str__(self) -> str:
        return f"delivery {self.delivery_id}"
