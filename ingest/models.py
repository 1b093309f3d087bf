"""What Sendwatch stores: facts (events), what they add up to (deliveries), and counters.

Only ``ingest.record`` writes events, deliveries and counters. The hot tables' foreign keys
carry no database constraint: their one writer makes both ends in one transaction, and the
triggers would cost a look-up a row (``bench/``).
"""

import secrets
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self

from django.db import models
from django.db.models import functions

from ingest.folded import Folded
from ingest.vocabulary import (
    BounceClass,
    Category,
    Dimension,
    EventKind,
    Outcome,
)

_EVER = models.Value(datetime(1970, 1, 1, tzinfo=UTC), models.DateTimeField())


def choices(words: type) -> list[tuple[int, str]]:
    """A vocabulary as Django choices, shown by its words."""
    return [(int(member), member.word.replace("_", " ")) for member in words]  # type: ignore[attr-defined]


def new_source_key() -> str:
    """An unguessable part of a URL: 192 random bits."""
    return secrets.token_urlsafe(24)


class InstallState(models.TextChoices):
    """Whether the app is installed, by HighLevel's last word."""

    ACTIVE = "active"
    GONE = "gone"


class CompanyQuerySet(models.QuerySet["Company"]):
    """Companies, by whether the app is installed."""

    def installed(self) -> Self:
        """Those that installed the app, or of which a location that we know still has it."""
        theirs = Location.objects.there().filter(company_ref=models.OuterRef("ref"))
        return self.filter(models.Q(state=InstallState.ACTIVE) | models.Exists(theirs))


class Company(models.Model):
    """An agency on HighLevel, as its INSTALL tells of it. Locations name it by its ``ref``."""

    ref = models.CharField("HighLevel id", max_length=128, unique=True)
    name = models.CharField(max_length=200, blank=True)
    domain = models.CharField(
        "white-label domain",
        max_length=253,
        blank=True,
        help_text="Where its people use HighLevel; pages there may show ours in a frame.",
    )
    name_at = models.DateTimeField("name as of", null=True, blank=True)
    domain_at = models.DateTimeField("domain as of", null=True, blank=True)
    # Of installs and uninstalls of the whole company alone, which name no location.
    state = models.CharField(max_length=8, blank=True, choices=InstallState)
    state_at = models.DateTimeField(null=True, blank=True)

    objects = CompanyQuerySet.as_manager()

    class Meta:
        verbose_name_plural = "companies"

    def __str__(self) -> str:
        return f"{self.name} ({self.ref})" if self.name else self.ref


class LocationQuerySet(models.QuerySet["Location"]):
    """Locations, by whether the app is installed there."""

    def gone(self) -> Self:
        """Those where it was uninstalled: there, or later in their whole company."""
        return self.filter(models.Q(state=InstallState.GONE) | models.Exists(_companies_gone()))

    def there(self) -> Self:
        """The others."""
        return self.exclude(models.Q(state=InstallState.GONE) | models.Exists(_companies_gone()))


def _companies_gone() -> models.QuerySet[Company]:
    """The outer location's company, if it uninstalled after the location installed."""
    installed_at = functions.Coalesce(models.OuterRef("state_at"), _EVER)
    gone = Company.objects.filter(ref=models.OuterRef("company_ref"), state=InstallState.GONE)
    return gone.filter(state_at__gt=installed_at)


class Location(models.Model):
    """A client's sub-account on HighLevel. Made when its first event or INSTALL arrives."""

    # Four bytes, as every id that the large tables repeat.
    id = models.AutoField(primary_key=True)
    ref = models.CharField("HighLevel id", max_length=128, unique=True)
    name = models.CharField(max_length=200, blank=True)
    company_ref = models.CharField("company id", max_length=128, blank=True)
    company_name = models.CharField(max_length=200, blank=True)
    # When HighLevel said so, or somebody here: what was said before does not replace it.
    name_at = models.DateTimeField(null=True, blank=True, editable=False)
    company_ref_at = models.DateTimeField(null=True, blank=True, editable=False)
    timezone = models.CharField(max_length=64, blank=True)
    state = models.CharField(max_length=8, choices=InstallState, default=InstallState.ACTIVE)
    state_at = models.DateTimeField(null=True, blank=True)
    masks_recipients = models.BooleanField(
        "masks recipients",
        default=False,
        help_text="Viewers see a•••@example.com; operators see whole addresses.",
    )
    created_at = models.DateTimeField(auto_now_add=True)

    objects = LocationQuerySet.as_manager()

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

    id = models.AutoField(primary_key=True)
    dimension = models.PositiveSmallIntegerField(choices=choices(Dimension))
    text = models.CharField(max_length=400, blank=True)
    label = models.CharField(max_length=200, blank=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["dimension", "text"], name="value_unique")]
        # For the suggestions under a field: what begins like this, whatever its case.
        indexes = [models.Index("dimension", Folded("text"), name="value_folded")]

    def __str__(self) -> str:
        return self.label or self.text or "(none)"


def _value(**options: Any) -> Any:
    """A reference to a value: no constraint and no index of its own, 0 where not known yet."""
    return models.ForeignKey(
        Value, models.PROTECT, db_constraint=False, db_index=False, related_name="+", **options
    )


class CountedValue(models.Model):  # noqa: DJ008 - a decision, never shown as an object
    """The recorded decision that a value is counted apart in a location.

    Written once and never changed or taken back. A value without one is counted in ``(other)``.
    """

    pk = models.CompositePrimaryKey("location_id", "value_id")
    location = models.ForeignKey(Location, models.PROTECT, db_constraint=False, db_index=False)
    value = _value()


class CountedValues(models.Model):  # noqa: DJ008
    """How many values of a dimension are counted apart in a location; its row is their lock."""

    pk = models.CompositePrimaryKey("location_id", "dimension")
    location = models.ForeignKey(Location, models.PROTECT, db_constraint=False, db_index=False)
    dimension = models.PositiveSmallIntegerField(choices=choices(Dimension))
    used = models.IntegerField(default=0)


class Reason(models.Model):
    """One refusal, whomever it met: a receiver's reply with all that varies taken out."""

    id = models.AutoField(primary_key=True)
    digest = models.BinaryField(max_length=8, unique=True)
    text = models.CharField(max_length=400)
    category = models.PositiveSmallIntegerField(choices=choices(Category), default=0)
    bounce_class = models.PositiveSmallIntegerField(choices=choices(BounceClass), default=0)

    def __str__(self) -> str:
        return self.text


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
    flags = models.PositiveIntegerField(default=0)
    bounce_class = models.PositiveSmallIntegerField(choices=choices(BounceClass), default=0)
    category = models.PositiveSmallIntegerField(choices=choices(Category), default=0)
    code = models.PositiveSmallIntegerField(null=True, blank=True)
    campaign = _value()
    step = _value(default=0)
    provider = _value()
    domain = _value()
    sending_domain = _value()
    # Where the decisive event came from; ``ways`` tells of the other attempts.
    ip = _value(default=0)
    pool = _value(default=0)
    mx = _value(default=0)
    reason = models.ForeignKey(
        Reason, models.PROTECT, null=True, blank=True, db_constraint=False, db_index=False,
        related_name="+",
    )  # fmt: skip
    # ",12,45,": the ids of its tags' values, ready for LIKE '%,12,%' on both databases.
    tags = models.TextField(default=",")
    # ",a12,c5,d12,": values (of IP, pool, MX) that tried too, with an "a"; those that a temporary
    # failure came from, with a "d"; categories of temporary failures, with a "c".
    ways = models.TextField(default=",")
    facts = models.BinaryField(default=b"{}")  # see ``fold.load_facts``

    class Meta:
        verbose_name_plural = "deliveries"
        constraints = [
            # Message id first: the same index finds a delivery and answers a search for one.
            models.UniqueConstraint(
                fields=["message_id", "recipient", "location"], name="delivery_unique"
            )
        ]
        indexes = [
            # It holds what combined filters ask for, so that PostgreSQL need not read the rows.
            models.Index(
                fields=["location", "sent_at", "id"],
                include=[
                    "outcome",
                    "flags",
                    "bounce_class",
                    "category",
                    "campaign",
                    "step",
                    "provider",
                    "domain",
                    "sending_domain",
                    "ip",
                    "pool",
                    "tags",
                    "ways",
                ],
                name="delivery_location_sent",
            ),
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
    """An immutable fact about one delivery. Its id is the cursor: ids commit in their order.

    The columns stand in the order of their widths, as they are stored: no byte is lost between.
    """

    id = models.BigAutoField(primary_key=True)
    delivery = models.ForeignKey(
        Delivery,
        models.PROTECT,
        null=True,
        db_constraint=False,
        db_index=False,
        related_name="events",
    )
    occurred_at = models.DateTimeField()
    received_at = models.DateTimeField()
    content = models.BigIntegerField(help_text="Digest that tells a conflicting duplicate.")
    webhook = models.BigIntegerField(null=True, help_text="Digest of the webhookId, if any.")
    location = models.ForeignKey(
        Location, models.PROTECT, db_constraint=False, db_index=False, related_name="events"
    )
    provider = _value(default=0)  # as this event names it
    reason = models.ForeignKey(
        Reason, models.PROTECT, null=True, db_constraint=False, db_index=False, related_name="+"
    )
    # Of its attempt; most events tell of none.
    ip = _value(null=True)
    pool = _value(null=True)
    mx = _value(null=True)
    kind = models.PositiveSmallIntegerField(choices=choices(EventKind))
    code = models.PositiveSmallIntegerField(null=True, blank=True)
    # A failure's, as it was classified when it came.
    category = models.PositiveSmallIntegerField(choices=choices(Category), default=0)
    bounce_class = models.PositiveSmallIntegerField(choices=choices(BounceClass), default=0)
    payload_codec = models.PositiveSmallIntegerField(default=0)
    is_test = models.BooleanField(default=False)
    key = models.BinaryField(max_length=16)
    # What else the fold and the pages read of the payload (``ingest.details``): it stays when
    # the payload has been pruned.
    detail = models.BinaryField(default=b"")
    payload = models.BinaryField(null=True)

    class Meta:
        # The key begins with the hour it happened in: this finds a location's events by time too.
        constraints = [models.UniqueConstraint(fields=["location", "key"], name="event_unique")]
        indexes = [
            models.Index(fields=["location", "id"], name="event_location_id"),
            models.Index(fields=["delivery"], name="event_delivery"),
            models.Index(
                fields=["reason", "id"],
                condition=models.Q(reason__isnull=False),
                name="event_reason",
            ),
            # It holds what finds a reason's mail of some time, so that the rows need not be read.
            models.Index(
                fields=["reason", "occurred_at"],
                include=["delivery"],
                condition=models.Q(reason__isnull=False),
                name="event_reason_time",
            ),
        ]

    def __str__(self) -> str:
        return f"{EventKind(self.kind).word} #{self.pk}"


if TYPE_CHECKING:
    _Integers = models.IntegerField[int, int]
else:
    _Integers = models.IntegerField


class CountField(_Integers):
    """A number that is most often 0, and then stored as NULL, which takes no room on PostgreSQL.

    Objects and sums have 0 for both. SQL that computes with it needs ``counted_sql``.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **(kwargs | {"null": True, "default": 0}))

    def deconstruct(self) -> Any:
        """Without what all of them have."""
        name, path, args, kwargs = super().deconstruct()
        return name, path, args, {k: v for k, v in kwargs.items() if k not in ("null", "default")}

    def from_db_value(self, value: int | None, *_: Any) -> int:
        """NULL read as 0, of sums too."""
        return value or 0

    def get_db_prep_save(self, value: Any, connection: Any) -> Any:
        """0 written as NULL."""
        is_zero = not hasattr(value, "as_sql") and value == 0
        return super().get_db_prep_save(None if is_zero else value, connection)


def counted_sql(names: str) -> str:
    """A sum of such columns, ``"delivered + bounced"``, as SQL can compute with it."""
    return " + ".join(f"coalesce({name}, 0)" for name in names.split(" + "))


class Counters(models.Model):  # noqa: DJ008 - a counter is never shown as an object
    """The columns of ``vocabulary.MEASURES``: deliveries, counted in the hour of their sending."""

    sent = CountField()
    delivered = CountField()
    bounced = CountField()
    hard = CountField()
    soft = CountField()
    block = CountField()
    deferred = CountField()
    complained = CountField()
    unsubscribed = CountField()
    opened = CountField()
    opened_human = CountField()
    clicked = CountField()
    suppressed = CountField()
    rejected = CountField()
    orphan = CountField()
    unknown = CountField()
    test = CountField()
    late_bounced = CountField()
    recovered = CountField()
    inferred = CountField()
    visible_reached = CountField()
    visible_complained = CountField()
    block_low = CountField()
    block_high = CountField()
    moved = CountField()

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


class EventHour(models.Model):  # noqa: DJ008
    """Events by the hour they happened in: for charts, incidents and ``clock=event``.

    Events of test mode are not in it. Location 0 holds the whole fleet.
    """

    pk = models.CompositePrimaryKey("location_id", "hour", "provider_id", "kind", "bounce_class")
    location = models.ForeignKey(Location, models.PROTECT, db_constraint=False, db_index=False)
    hour = models.IntegerField()
    provider = _value()
    kind = models.PositiveSmallIntegerField(choices=choices(EventKind))
    bounce_class = models.PositiveSmallIntegerField(choices=choices(BounceClass), default=0)
    events = models.IntegerField(default=0)

    class Meta:
        indexes = [models.Index(fields=["hour"], name="event_hour_hour")]


class ReasonHour(models.Model):  # noqa: DJ008
    """Failures (temporary ones too) of a reason by the hour they happened in, and where."""

    pk = models.CompositePrimaryKey(
        "location_id", "hour", "reason_id", "provider_id", "pool_id", "kind"
    )
    location = models.ForeignKey(Location, models.PROTECT, db_constraint=False, db_index=False)
    hour = models.IntegerField()
    reason = models.ForeignKey(Reason, models.PROTECT, db_constraint=False, db_index=False)
    provider = _value()
    pool = _value()
    kind = models.PositiveSmallIntegerField(choices=choices(EventKind))
    events = models.IntegerField(default=0)

    class Meta:
        indexes = [
            models.Index(fields=["hour"], name="reason_hour_hour"),
            models.Index(fields=["reason", "hour"], name="reason_hour_reason"),
        ]


class ReasonProvider(models.Model):  # noqa: DJ008
    """When a provider first and last gave a reason, by the events' own time."""

    pk = models.CompositePrimaryKey("reason_id", "provider_id")
    reason = models.ForeignKey(Reason, models.PROTECT, db_constraint=False, db_index=False)
    provider = _value()
    first_at = models.DateTimeField()
    last_at = models.DateTimeField()


class QualityHour(models.Model):  # noqa: DJ008
    """What came in for a location in an hour of receipt, and how good it was.

    ``lag_n`` counts events by the time from happening to receipt: see ``ingest.quality``.
    """

    pk = models.CompositePrimaryKey("location_id", "hour")
    location = models.ForeignKey(Location, models.PROTECT, db_constraint=False, db_index=False)
    hour = models.IntegerField()
    events = models.IntegerField(default=0)
    duplicates = models.IntegerField(default=0)
    conflicts = models.IntegerField(default=0)
    unknown_kinds = models.IntegerField(default=0)
    undated = models.IntegerField(default=0)
    no_message_id = models.IntegerField(default=0)
    no_recipient = models.IntegerField(default=0)
    unattributed = models.IntegerField(default=0)
    before_horizon = models.IntegerField(default=0)
    lag_0 = models.IntegerField(default=0)
    lag_1 = models.IntegerField(default=0)
    lag_2 = models.IntegerField(default=0)
    lag_3 = models.IntegerField(default=0)
    lag_4 = models.IntegerField(default=0)
    lag_5 = models.IntegerField(default=0)
    lag_6 = models.IntegerField(default=0)
    lag_7 = models.IntegerField(default=0)

    class Meta:
        indexes = [models.Index(fields=["hour"], name="quality_hour_hour")]


class AnswerHour(models.Model):  # noqa: DJ008
    """The endpoint's answers in an hour, by their words; source 0 is the unnamed address."""

    pk = models.CompositePrimaryKey("hour", "source_id", "status")
    hour = models.IntegerField()
    source = models.ForeignKey(
        Source, models.DO_NOTHING, db_constraint=False, db_index=False, related_name="+"
    )
    status = models.CharField(max_length=20)
    answers = models.IntegerField(default=0)


class RecentSignatures(models.Model):  # noqa: DJ008 - one row
    """Whether the newest signatures verified, oldest first: "1" for each that did, "0" if not."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=1)
    verdicts = models.CharField(max_length=100, blank=True)


class CountersCheck(models.Model):  # noqa: DJ008 - one row
    """The last comparison of all counters with what they count (``recount --check``)."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=1)
    checked_at = models.DateTimeField()
    differences = models.IntegerField()
    seconds = models.FloatField()


class Horizon(models.Model):  # noqa: DJ008 - one row
    """How far back each table goes; only ``ingest.retention`` moves it, and only forward."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=1)
    # Deliveries sent before this hour are gone or about to go, and count no more.
    deliveries_hour = models.IntegerField(default=0)
    events_cursor = models.BigIntegerField(default=0, help_text="The newest event let go of.")
    events_hour = models.IntegerField(default=0, help_text="Received before it: let go of.")
    payloads_cursor = models.BigIntegerField(default=0)
    days_hour = models.IntegerField(default=0, help_text="Before it, hours are kept as days.")


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


class QuarantinedWebhook(models.Model):
    """A webhook whose signature failed, set apart to be verified again with other keys.

    Never counted and never shown as mail; bounded by number and age.
    """

    received_at = models.DateTimeField()
    source = models.ForeignKey(Source, models.SET_NULL, null=True, blank=True)
    headers = models.TextField(default="{}", help_text="The signature headers, as JSON.")
    digest = models.BinaryField(max_length=16, unique=True)
    body = models.BinaryField()

    class Meta:
        indexes = [models.Index(fields=["received_at"], name="quarantined_received")]

    def __str__(self) -> str:
        return f"#{self.pk}"


class ErasedMail(models.Model):  # noqa: DJ008 - a trace of nobody
    """That a mail's recipient was erased: what comes later for it is stored erased.

    ``digest`` is a keyed one of location, message id and recipient (``ingest.erasure``).
    """

    digest = models.BinaryField(max_length=16, unique=True)
    pseudonym = models.CharField(max_length=320)
    erased_at = models.DateTimeField(db_index=True)


class ClassificationRule(models.Model):
    """An operator's own rule, tried before the built-in ones, in the order of ``position``."""

    position = models.PositiveIntegerField(default=100)
    name = models.SlugField(max_length=60, unique=True)
    text = models.CharField(
        max_length=300, blank=True, help_text="A phrase of the reply, or a pattern in /slashes/."
    )
    provider = models.CharField(max_length=200, blank=True)
    code = models.PositiveSmallIntegerField(null=True, blank=True)
    enhanced = models.CharField(max_length=12, blank=True)
    category = models.PositiveSmallIntegerField(
        choices=[choice for choice in choices(Category) if choice[0]]
    )
    bounce_class = models.PositiveSmallIntegerField(
        choices=choices(BounceClass), default=0, help_text="None: the category's own."
    )
    scope = models.CharField(max_length=20, blank=True)
    fix_by = models.CharField("who can fix it", max_length=20, blank=True)
    note = models.CharField(max_length=300, blank=True)
    enabled = models.BooleanField(default=True)
    changed_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["position", "name"]

    def __str__(self) -> str:
        return self.name
