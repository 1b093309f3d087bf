"""What Sendwatch stores: facts (events), what they add up to (deliveries), and counters.

Only ``ingest.record`` writes events, deliveries and counters. The hot tables' foreign keys
carry no database constraint: their one writer makes both ends in one transaction, and the
triggers would cost a look-up a row (``bench/``).
"""

import secrets

from django.db import models

from ingest.vocabulary import BounceClass, Category, Dimension, EventKind, Outcome


def choices(words: type) -> list[tuple[int, str]]:
    """A vocabulary as Django choices, shown by its words."""
    return [(int(member), member.word.replace("_", " ")) for member in words]  # type: ignore[attr-defined]


def new_source_key() -> str:
    """An unguessable part of a URL: 192 random bits."""
    return secrets.token_urlsafe(24)


class Location(models.Model):
    """A client's sub-account on HighLevel. Made when its first event or INSTALL arrives."""

    class State(models.TextChoices):
        ACTIVE = "active"
        GONE = "gone"

    ref = models.CharField("HighLevel id", max_length=128, unique=True)
    name = models.CharField(max_length=200, blank=True)
    company_ref = models.CharField("company id", max_length=128, blank=True)
    company_name = models.CharField(max_length=200, blank=True)
    timezone = models.CharField(max_length=64, blank=True)
    state = models.CharField(max_length=8, choices=State, default=State.ACTIVE)
    state_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return f"{self.name} ({self.ref})" if self.name else self.ref


class Source(models.Model):
    """A named webhook address, for white labels that sign differently or name no location."""

    class Encoding(models.TextChoices):
        HEX = "hex"
        BASE64 = "base64"

    name = models.CharField(max_length=100, unique=True)
    key = models.CharField(max_length=64, unique=True, default=new_source_key, editable=False)
    location_ref = models.CharField(
        "location id",
        max_length=128,
        blank=True,
        help_text="Used for payloads that carry no location of their own.",
    )
    hmac_secret = models.CharField("HMAC secret", max_length=200, blank=True)
    hmac_header = models.CharField("HMAC header", max_length=100, blank=True)
    hmac_encoding = models.CharField(
        "HMAC encoding", max_length=6, choices=Encoding, default=Encoding.HEX
    )
    enabled = models.BooleanField(default=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                name="source_hmac_needs_both",
                condition=models.Q(hmac_secret="", hmac_header="")
                | (~models.Q(hmac_secret="") & ~models.Q(hmac_header="")),
                violation_error_message="An HMAC needs both its secret and its header.",
            )
        ]

    def __str__(self) -> str:
        return self.name


class Value(models.Model):
    """One value of one dimension; counters and deliveries refer to it by its small id.

    An empty text is the value of what has none, shown as ``(none)``.
    """

    dimension = models.PositiveSmallIntegerField(choices=choices(Dimension))
    text = models.CharField(max_length=400, blank=True)
    label = models.CharField(max_length=200, blank=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["dimension", "text"], name="value_unique")]

    def __str__(self) -> str:
        return self.label or self.text or "(none)"


class Delivery(models.Model):
    """One message to one recipient. Its facts are folded; the other columns follow from them."""

    id = models.BigAutoField(primary_key=True)
    location = models.ForeignKey(
        Location, models.PROTECT, db_constraint=False, db_index=False, related_name="deliveries"
    )
    message_id = models.CharField(max_length=400)
    recipient = models.CharField(max_length=320)
    sent_at = models.DateTimeField()
    outcome = models.PositiveSmallIntegerField(choices=choices(Outcome))
    flags = models.PositiveSmallIntegerField(default=0)
    bounce_class = models.PositiveSmallIntegerField(choices=choices(BounceClass), default=0)
    category = models.PositiveSmallIntegerField(choices=choices(Category), default=0)
    code = models.PositiveSmallIntegerField(null=True, blank=True)
    campaign = models.ForeignKey(
        Value, models.PROTECT, db_constraint=False, db_index=False, related_name="+"
    )
    step = models.CharField(max_length=128, blank=True)
    provider = models.ForeignKey(
        Value, models.PROTECT, db_constraint=False, db_index=False, related_name="+"
    )
    domain = models.ForeignKey(
        Value, models.PROTECT, db_constraint=False, db_index=False, related_name="+"
    )
    sending_domain = models.ForeignKey(
        Value, models.PROTECT, db_constraint=False, db_index=False, related_name="+"
    )
    # ",12,45,": the ids of its tags' values, ready for LIKE '%,12,%' on both databases.
    tags = models.TextField(default=",")
    facts = models.TextField(default="{}", editable=False)

    class Meta:
        verbose_name_plural = "deliveries"
        constraints = [
            # Message id first: the same index finds a delivery and answers a search for one.
            models.UniqueConstraint(
                fields=["message_id", "recipient", "location"], name="delivery_unique"
            )
        ]
        indexes = [
            models.Index(fields=["location", "sent_at", "id"], name="delivery_location_sent"),
            models.Index(fields=["sent_at", "id"], name="delivery_sent"),
            # The operator class lets PostgreSQL find a prefix by it, whatever the collation.
            models.Index(
                fields=["recipient"], name="delivery_recipient", opclasses=["varchar_pattern_ops"]
            ),
        ]

    def __str__(self) -> str:
        return f"{self.recipient} <{self.message_id}>"


def tag_ids(tags: str) -> list[int]:
    """The value ids in a delivery's ``tags`` column: ``",12,45,"`` → ``[12, 45]``."""
    return [int(pk) for pk in tags.split(",") if pk]


class Event(models.Model):
    """An immutable fact about one delivery. Its id is the cursor: ids commit in their order."""

    id = models.BigAutoField(primary_key=True)
    location = models.ForeignKey(
        Location, models.PROTECT, db_constraint=False, db_index=False, related_name="events"
    )
    delivery = models.ForeignKey(
        Delivery, models.PROTECT, null=True, db_constraint=False, related_name="events"
    )
    key = models.BinaryField(max_length=16)
    kind = models.PositiveSmallIntegerField(choices=choices(EventKind))
    occurred_at = models.DateTimeField()
    received_at = models.DateTimeField()
    code = models.PositiveSmallIntegerField(null=True, blank=True)
    # What the fold and the pages read of the payload, as JSON (``normalize.Detail``): it stays
    # when the payload has been pruned.
    detail = models.TextField(default="{}")
    content = models.BigIntegerField(help_text="Digest that tells a conflicting duplicate.")
    payload = models.BinaryField(null=True)
    payload_codec = models.PositiveSmallIntegerField(default=0)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["location", "key"], name="event_unique")]
        indexes = [models.Index(fields=["location", "id"], name="event_location_id")]

    def __str__(self) -> str:
        return f"{EventKind(self.kind).word} #{self.pk}"


class Counters(models.Model):  # noqa: DJ008 - a counter is never shown as an object
    """The columns of ``vocabulary.MEASURES``: deliveries, counted in the hour of their sending."""

    sent = models.IntegerField(default=0)
    delivered = models.IntegerField(default=0)
    bounced = models.IntegerField(default=0)
    hard = models.IntegerField(default=0)
    soft = models.IntegerField(default=0)
    block = models.IntegerField(default=0)
    deferred = models.IntegerField(default=0)
    complained = models.IntegerField(default=0)
    unsubscribed = models.IntegerField(default=0)
    opened = models.IntegerField(default=0)
    opened_human = models.IntegerField(default=0)
    clicked = models.IntegerField(default=0)
    suppressed = models.IntegerField(default=0)
    rejected = models.IntegerField(default=0)
    orphan = models.IntegerField(default=0)
    unknown = models.IntegerField(default=0)
    test = models.IntegerField(default=0)
    late_bounced = models.IntegerField(default=0)
    recovered = models.IntegerField(default=0)
    inferred = models.IntegerField(default=0)

    class Meta:
        abstract = True


class LocationHour(Counters):  # noqa: DJ008
    """Counters of a location in one hour of sending. ``hour`` is whole hours since 1970, UTC."""

    pk = models.CompositePrimaryKey("location_id", "hour")
    location = models.ForeignKey(Location, models.PROTECT, db_constraint=False, db_index=False)
    hour = models.IntegerField()

    class Meta:
        indexes = [models.Index(fields=["hour"], name="location_hour_hour")]


class HourlyCount(Counters):  # noqa: DJ008
    """Counters of one value of a dimension, in a location, in one hour of sending."""

    pk = models.CompositePrimaryKey("location_id", "dimension", "hour", "value_id")
    location = models.ForeignKey(Location, models.PROTECT, db_constraint=False, db_index=False)
    dimension = models.PositiveSmallIntegerField(choices=choices(Dimension))
    hour = models.IntegerField()
    value = models.ForeignKey(Value, models.PROTECT, db_constraint=False, db_index=False)

    class Meta:
        indexes = [
            models.Index(fields=["dimension", "hour", "value"], name="hourly_count_dimension")
        ]


class MinuteCount(models.Model):  # noqa: DJ008
    """Events of a kind a minute, by the events' own time; kept 48 hours, for the live chart."""

    pk = models.CompositePrimaryKey("location_id", "minute", "kind")
    location = models.ForeignKey(Location, models.PROTECT, db_constraint=False, db_index=False)
    minute = models.IntegerField()
    kind = models.PositiveSmallIntegerField(choices=choices(EventKind))
    events = models.IntegerField(default=0)

    class Meta:
        indexes = [models.Index(fields=["minute"], name="minute_count_minute")]


class KeptWebhook(models.Model):
    """An authentic webhook that was not understood: kept whole, shown, replayable."""

    received_at = models.DateTimeField()
    source = models.ForeignKey(Source, models.SET_NULL, null=True, blank=True)
    reason = models.CharField(max_length=200)
    digest = models.BinaryField(max_length=16, unique=True)
    body = models.BinaryField()
    replayed_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        indexes = [models.Index(fields=["received_at"], name="kept_webhook_received")]

    def __str__(self) -> str:
        return f"{self.reason} (#{self.pk})"
