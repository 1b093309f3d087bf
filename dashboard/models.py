"""People's side of the store: who may see what, what they put in, and what they have done."""

import hashlib
import secrets
from collections.abc import Collection
from datetime import datetime
from typing import Any, Self

from django.conf import settings
from django.core import signing
from django.core.exceptions import PermissionDenied
from django.db import models
from django.db.models import Q

from dashboard.review import models as review  # noqa: F401 - tables of this app too
from ingest.models import Location


class MembershipQuerySet(models.QuerySet["Membership"]):
    """Memberships, by the moment."""

    def at(self, moment: datetime) -> Self:
        """Those that hold at a moment."""
        return self.filter(Q(expires_at=None) | Q(expires_at__gt=moment))


class Membership(models.Model):
    """A user's right to one location, or to all of a company's, those to come included.

    Superusers and staff need none: they see everything. Names one of the two, never both.
    """

    class Role(models.TextChoices):
        VIEWER = "viewer"
        OPERATOR = "operator"

    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="memberships")
    location = models.ForeignKey(
        Location, models.CASCADE, null=True, blank=True, related_name="memberships"
    )
    company_ref = models.CharField("company id", max_length=128, blank=True)
    role = models.CharField(max_length=8, choices=Role, default=Role.VIEWER)
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField(null=True, blank=True)

    objects = MembershipQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["user", "location"],
                condition=Q(location__isnull=False),
                name="membership_unique",
            ),
            models.UniqueConstraint(
                fields=["user", "company_ref"],
                condition=~Q(company_ref=""),
                name="membership_company_unique",
            ),
            models.CheckConstraint(
                condition=Q(location__isnull=False, company_ref="")
                | (Q(location__isnull=True) & ~Q(company_ref="")),
                name="membership_of_one",
                violation_error_message="Name a location or a company: one of the two.",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.user} · {self.location or self.company_ref} · {self.role}"


class InvitationQuerySet(models.QuerySet["Invitation"]):
    """Invitations, by the moment."""

    def at(self, moment: datetime) -> Self:
        """Those that can be accepted at a moment."""
        return self.filter(accepted_at=None, revoked_at=None, expires_at__gt=moment)


class Invitation(models.Model):
    """A membership that somebody is offered by e-mail, or staff's rights. Good once.

    Only the digest of what the link holds is stored. The membership will end ``access_days`` after
    it was accepted; never where none are given.
    """

    class Role(models.TextChoices):
        VIEWER = "viewer"
        OPERATOR = "operator"
        STAFF = "staff"

    email = models.EmailField()
    role = models.CharField(max_length=8, choices=Role, default=Role.VIEWER)
    location = models.ForeignKey(
        Location, models.CASCADE, null=True, blank=True, related_name="invitations"
    )
    company_ref = models.CharField("company id", max_length=128, blank=True)
    access_days = models.PositiveIntegerField(null=True, blank=True)
    digest = models.CharField(max_length=64, unique=True, editable=False)
    by = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.CASCADE, related_name="invitations_made"
    )
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField()
    accepted_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)

    objects = InvitationQuerySet.as_manager()

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(role="staff", location=None, company_ref="")
                | (~Q(role="staff") & Q(location__isnull=False, company_ref=""))
                | (~Q(role="staff") & Q(location=None) & ~Q(company_ref="")),
                name="invitation_of_one",
            )
        ]

    def __str__(self) -> str:
        return f"{self.email} · {self.what}"

    @property
    def what(self) -> str:
        """What is offered, in words."""
        if self.role == self.Role.STAFF:
            return "staff, who see everything"
        return f"{self.role} of {self.location or f'company {self.company_ref}'}"


class AuditEntry(models.Model):
    """Who changed what, and when. Written by ``dashboard.audit``; nobody edits it.

    It outlives the people and things that it names: their keys are plain numbers, and ``actor``
    and ``subject`` are the names they had.
    """

    at = models.DateTimeField(auto_now_add=True, db_index=True)
    actor_id = models.IntegerField(null=True, editable=False)
    actor = models.CharField(max_length=150, help_text="Empty: Sendwatch itself.")
    action = models.CharField(max_length=40)
    subject = models.CharField(max_length=200)
    location_id = models.IntegerField(null=True, help_text="Where it holds; none: everywhere.")
    detail = models.JSONField(default=dict)

    class Meta:
        verbose_name_plural = "audit log"
        indexes = [models.Index(fields=["location_id", "at"], name="audit_location")]
        ordering = ["-at", "-id"]

    def __str__(self) -> str:
        return f"{self.at:%Y-%m-%d %H:%M} · {self.actor or 'Sendwatch'} · {self.action}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Write it, once. Raises ``PermissionDenied`` for one that stands."""
        if not self._state.adding:
            raise PermissionDenied("The audit log is only added to.")
        super().save(*args, **kwargs)

    def delete(self, *args: Any, **kwargs: Any) -> Any:
        """Never."""
        raise PermissionDenied("The audit log is only added to.")


class ApiTokenQuerySet(models.QuerySet["ApiToken"]):
    """Tokens, by the moment."""

    def at(self, moment: datetime) -> Self:
        """Those that let somebody in at a moment."""
        lasting = Q(expires_at=None) | Q(expires_at__gt=moment)
        return self.filter(lasting, user__is_active=True)


class ApiToken(models.Model):
    """A bearer token of a user. Only its digest is stored; the token is shown once.

    ``scopes`` are what it is good for, separated by spaces.
    """

    class Scope(models.TextChoices):
        READ = "read", "read: what pages show, and the sockets"
        EXPORT = "export", "export: lists and tables as files"

    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="api_tokens")
    name = models.CharField(max_length=100, blank=True)
    digest = models.CharField(max_length=64, unique=True, editable=False)
    scopes = models.CharField(max_length=60, default="read export", editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField(null=True, blank=True, editable=False)
    last_used_at = models.DateTimeField(null=True, blank=True, editable=False)

    objects = ApiTokenQuerySet.as_manager()

    def __str__(self) -> str:
        return f"{self.user} · {self.name or self.pk}"

    @staticmethod
    def digest_of(token: str) -> str:
        """SHA-256 of a token. It is random and long, so a fast digest without salt is enough."""
        return hashlib.sha256(token.encode()).hexdigest()

    @classmethod
    def issue(
        cls,
        *,
        user_id: int,
        name: str = "",
        scopes: Collection[str] = tuple(Scope),
        expires_at: datetime | None = None,
    ) -> str:
        """Make a token for a user and return it, the only time that it can be read."""
        token = "sw_" + secrets.token_urlsafe(32)
        cls.objects.create(
            user_id=user_id,
            name=name,
            digest=cls.digest_of(token),
            scopes=" ".join(scopes),
            expires_at=expires_at,
        )
        return token


class ClientLinkQuerySet(models.QuerySet["ClientLink"]):
    """Client links, by the moment."""

    def at(self, moment: datetime) -> Self:
        """Those that open their page at a moment."""
        return self.filter(revoked_at=None, expires_at__gt=moment)


def new_link_key() -> str:
    """What tells a client link from all others: 96 random bits."""
    return secrets.token_urlsafe(12)


class ClientLink(models.Model):
    """A link that shows one location's page, masked, to whoever has it, without an account.

    Its token is its key with our signature. So what is stored opens nothing, and those who
    operate the location can still copy a link that they have given out.
    """

    location = models.ForeignKey(Location, models.CASCADE, related_name="client_links")
    name = models.CharField("for whom", max_length=100)
    key = models.CharField(max_length=16, unique=True, default=new_link_key, editable=False)
    by = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.SET_NULL, null=True, blank=True, related_name="+"
    )
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField()
    revoked_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True, editable=False)

    objects = ClientLinkQuerySet.as_manager()

    def __str__(self) -> str:
        return f"{self.location} · {self.name}"

    @property
    def token(self) -> str:
        """The part of its address that opens it."""
        return _link_signer().sign(self.key)

    @staticmethod
    def key_of(token: str) -> str:
        """The key in a token that we signed; "" in any other text."""
        try:
            return _link_signer().unsign(token)
        except signing.BadSignature:
            return ""


def _link_signer() -> signing.Signer:
    return signing.Signer(salt="dashboard.client-link", sep=".")


class SuspensionQuerySet(models.QuerySet["Suspension"]):
    """Suspensions, by the moment."""

    def at(self, moment: datetime) -> Self:
        """Those that hold at a moment."""
        ended = Q(until__lte=moment) | Q(lifted_at__lte=moment)
        return self.filter(since__lte=moment).exclude(ended)


class Suspension(models.Model):
    """HighLevel stopped a location's sending. No webhook tells it: a person puts it in.

    The levels are HighLevel's own: hard bounces 12 h, 12 h, then permanent; ESP blocks 12 h, 24 h,
    then permanent (help.gohighlevel.com, articles 48001214786 and 155000007341).
    """

    class Cause(models.TextChoices):
        BOUNCES = "bounces", "hard bounces"
        BLOCKS = "blocks", "ESP blocks"
        OTHER = "other", "another reason"

    class Level(models.IntegerChoices):
        FIRST = 1, "first time"
        SECOND = 2, "second time"
        PERMANENT = 3, "permanent"

    location = models.ForeignKey(Location, models.CASCADE, related_name="suspensions")
    cause = models.CharField(max_length=7, choices=Cause, default=Cause.BOUNCES)
    level = models.PositiveSmallIntegerField(choices=Level, default=Level.FIRST)
    since = models.DateTimeField()
    until = models.DateTimeField(null=True, blank=True)
    lifted_at = models.DateTimeField(null=True, blank=True)
    note = models.CharField(max_length=200, blank=True)
    by = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.SET_NULL, null=True, blank=True, related_name="+"
    )
    created_at = models.DateTimeField(auto_now_add=True)

    objects = SuspensionQuerySet.as_manager()

    class Meta:
        indexes = [models.Index(fields=["location", "since"], name="suspension_location")]
        ordering = ["-since"]

    def __str__(self) -> str:
        return f"{self.location} · {self.get_level_display()} · {self.since:%Y-%m-%d %H:%M}"

    @property
    def ended_at(self) -> datetime | None:
        """When it ended or will end; ``None`` while nobody knows."""
        known = [moment for moment in (self.until, self.lifted_at) if moment]
        return min(known, default=None)


class Note(models.Model):
    """What a person writes beside the numbers, at a moment; without a location it is for all."""

    location = models.ForeignKey(
        Location, models.CASCADE, null=True, blank=True, related_name="notes"
    )
    at = models.DateTimeField()
    text = models.CharField(max_length=200)
    by = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.SET_NULL, null=True, blank=True, related_name="+"
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        indexes = [models.Index(fields=["location", "at"], name="note_location")]
        ordering = ["-at"]

    def __str__(self) -> str:
        return f"{self.at:%Y-%m-%d %H:%M} · {self.text}"


class SavedView(models.Model):
    """A page with its filter, under a name. What it shows is bound by the rights of who opens it.

    ``query`` is canonical and without its ``?``; a relative range stays relative.
    """

    owner = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="saved_views")
    name = models.CharField(max_length=80)
    path = models.CharField(max_length=500)
    query = models.TextField(blank=True)
    shared = models.BooleanField(default=False, help_text="Everybody who logs in finds it.")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["owner", "name"], name="saved_view_name_unique")
        ]
        indexes = [
            models.Index(fields=["name"], condition=Q(shared=True), name="saved_view_shared")
        ]

    def __str__(self) -> str:
        return f"{self.owner} · {self.name}"

    @property
    def address(self) -> str:
        """Where it leads."""
        return f"{self.path}?{self.query}" if self.query else self.path


class Look(models.Model):
    """When a user saw the overview last, and which locations needed somebody then.

    ``before_at`` and ``before_needing`` are the end of the visit before this one: what "since you
    last looked" compares with. Locations are their keys: ``"3,14"``.
    """

    user = models.OneToOneField(
        settings.AUTH_USER_MODEL, models.CASCADE, primary_key=True, related_name="look"
    )
    seen_at = models.DateTimeField()
    needing = models.TextField(blank=True)
    before_at = models.DateTimeField(null=True)
    before_needing = models.TextField(blank=True)

    def __str__(self) -> str:
        return f"{self.user} · {self.seen_at:%Y-%m-%d %H:%M}"


class Suppressed(models.Model):
    """An address that a location had better not mail again, and why.

    It is ours: HighLevel does not read it. ``died_at`` is the first hard bounce or complaint
    since it was last released; what is sent later is mailed after death.
    """

    class Cause(models.TextChoices):
        COMPLAINED = "complained"
        HARD = "hard", "bounced hard"
        UNSUBSCRIBED = "unsubscribed"
        SOFT = "soft", "failed again and again"
        HAND = "hand", "put in by hand"

    class State(models.TextChoices):
        ON = "on", "on the list"
        HELD = "held"
        RELEASED = "released"

    location = models.ForeignKey(
        Location, models.CASCADE, db_index=False, related_name="suppressed"
    )
    recipient = models.CharField(max_length=320)
    cause = models.CharField(max_length=12, choices=Cause)
    state = models.CharField(max_length=8, choices=State, default=State.ON)
    since = models.DateTimeField()
    died_at = models.DateTimeField(null=True, blank=True)
    released_at = models.DateTimeField(null=True, blank=True)
    reason = models.CharField(max_length=300, blank=True)
    provider = models.CharField(max_length=200, blank=True)
    # Of the mail that shows it; none where a person put it in.
    delivery_id = models.BigIntegerField(null=True, editable=False)
    by = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.SET_NULL, null=True, blank=True, related_name="+"
    )

    class Meta:
        verbose_name_plural = "suppressed"
        constraints = [
            models.UniqueConstraint(fields=["location", "recipient"], name="suppressed_unique")
        ]
        indexes = [
            models.Index(fields=["state", "since", "id"], name="suppressed_since"),
            models.Index(
                fields=["location", "state", "since", "id"], name="suppressed_location_since"
            ),
            models.Index(
                fields=["recipient"], name="suppressed_recipient", opclasses=["varchar_pattern_ops"]
            ),
        ]

    def __str__(self) -> str:
        return f"{self.recipient} · {self.get_cause_display()}"


class SuppressionProgress(models.Model):  # noqa: DJ008 - one row
    """How far the suppression list has followed the events, and which entry it looked at last."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=1)
    cursor = models.BigIntegerField(default=0)
    looked_at = models.BigIntegerField(default=0)


class MailedAgain(models.Model):  # noqa: DJ008 - a mark on a delivery
    """A delivery to an address that had bounced hard or complained before it was sent."""

    delivery_id = models.BigIntegerField(primary_key=True)
    location = models.ForeignKey(
        Location, models.CASCADE, db_constraint=False, db_index=False, related_name="+"
    )
    sent_at = models.DateTimeField()

    class Meta:
        indexes = [
            models.Index(fields=["location", "sent_at"], name="mailed_again_location"),
            models.Index(fields=["sent_at"], name="mailed_again_sent"),
        ]


class Mute(models.Model):
    """A card of what needs somebody that a user wants to hear no more of for a while.

    ``rank`` and ``weight`` are how bad it was then: once it is worse, it is shown again.
    """

    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="mutes")
    card = models.CharField(max_length=200)
    rank = models.PositiveSmallIntegerField()
    weight = models.FloatField()
    until = models.DateTimeField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["user", "card"], name="mute_unique")]

    def __str__(self) -> str:
        return f"{self.user} · {self.card} · {self.until:%Y-%m-%d %H:%M}"
