"""People's side of the store: who may see which location, and API tokens."""

import hashlib
import secrets

from django.conf import settings
from django.db import models

from ingest.models import Location


class Membership(models.Model):
    """A user's right to one location. Superusers and staff need none: they see everything."""

    class Role(models.TextChoices):
        VIEWER = "viewer"
        OPERATOR = "operator"

    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="memberships")
    location = models.ForeignKey(Location, models.CASCADE, related_name="memberships")
    role = models.CharField(max_length=8, choices=Role, default=Role.VIEWER)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["user", "location"], name="membership_unique")
        ]

    def __str__(self) -> str:
        return f"{self.user} · {self.location} · {self.role}"


class ApiToken(models.Model):
    """A bearer token of a user. Only its digest is stored; the token is shown once."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="api_tokens")
    name = models.CharField(max_length=100, blank=True)
    digest = models.CharField(max_length=64, unique=True, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    last_used_at = models.DateTimeField(null=True, blank=True, editable=False)

    def __str__(self) -> str:
        return f"{self.user} · {self.name or self.pk}"

    @staticmethod
    def digest_of(token: str) -> str:
        """SHA-256 of a token. It is random and long, so a fast digest without salt is enough."""
        return hashlib.sha256(token.encode()).hexdigest()

    @classmethod
    def issue(cls, *, user_id: int, name: str = "") -> str:
        """Make a token for a user and return it, the only time that it can be read."""
        token = "sw_" + secrets.token_urlsafe(32)
        cls.objects.create(user_id=user_id, name=name, digest=cls.digest_of(token))
        return token
