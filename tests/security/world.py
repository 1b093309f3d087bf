"""Two clients' worlds that must not meet, and people who stand in one, in both or in neither.

Every text of a side holds one of its two words: ``typed`` is in what somebody may type into an
address (ids, keys, tags), ``told`` in what only its own people may read.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
from django.contrib.auth.models import Group, User
from django.test import Client
from django.utils import timezone

from dashboard import audit
from dashboard.models import (
    ApiToken,
    ClientLink,
    Invitation,
    Membership,
    Note,
    SavedView,
    Suppressed,
    Suspension,
)
from dashboard.review.models import BulkChange, CaseEntry, ResendRequest, ReviewCase
from ingest.ids import ids
from ingest.models import (
    ClassificationRule,
    Company,
    Delivery,
    Event,
    KeptWebhook,
    Location,
    QuarantinedWebhook,
    Source,
    Value,
)
from ingest.record import item_from_body, write_batch
from ingest.vocabulary import Category, Dimension, Outcome

PEOPLE = ("anonymous", "stranger", "viewer", "operator", "staff", "superuser")


@dataclass
class Side:
    """One client: its words, how many mails it sent, and the keys of what it has."""

    typed: str
    told: str
    mails: int
    ip: str
    pks: dict[str, Any] = field(default_factory=dict)

    @property
    def ref(self) -> str:
        return f"loc-{self.typed}"

    @property
    def campaign(self) -> str:
        return f"workflow:camp-{self.typed}"

    @property
    def recipient(self) -> str:
        return f"{self.told}.jane@{self.told}.example"


@dataclass
class World:
    """Ours, in which the viewer and the operator are; theirs, in which the stranger is."""

    ours: Side
    theirs: Side
    users: dict[str, User]

    def client(self, person: str, *, checks: bool = False) -> Client:
        """A browser of theirs; ``checks``: one whose posts need our token."""
        client = Client(enforce_csrf_checks=checks, raise_request_exception=True)
        if person != "anonymous":
            client.force_login(self.users[person])
        return client

    def side_of(self, person: str) -> Side | None:
        """What they may see of; ``None`` where that is nothing, or everything."""
        if person in ("viewer", "operator"):
            return self.ours
        return self.theirs if person == "stranger" else None


def make_world() -> World:
    """Two clients with mail of every kind, and people."""
    ids.clear()  # of the database that another test has rolled back
    ours = Side("aardvark", "albatross", mails=3, ip="203.0.113.7")
    theirs = Side("quokka", "wombat", mails=5, ip="198.51.100.9")
    users = {
        name: User.objects.create_user(name, f"{name}@example.com", "a long passphrase")
        for name in PEOPLE[1:]
    }
    User.objects.filter(username__in=("staff", "superuser")).update(is_staff=True)
    User.objects.filter(username="superuser").update(is_superuser=True)
    users = {user.username: user for user in User.objects.all()}
    for side, people in ((ours, ("viewer", "operator")), (theirs, ("stranger",))):
        _receive(side)
        location = Location.objects.get(ref=side.ref)
        for name in people:
            role = "operator" if name == "operator" else "viewer"
            Membership.objects.create(user=users[name], location=location, role=role)
        _put_in(side, location, users["superuser"])
        side.pks["user"] = users[people[0]].pk
    BulkChange.objects.filter(pk=ours.pks["bulkchange"]).update(by=users["operator"])
    return World(ours, theirs, users)


def _receive(side: Side) -> None:
    """Mail that was delivered, refused, put off and complained about, by the way that all comes."""
    now = datetime.now(UTC) - timedelta(minutes=20)
    bodies = [
        {
            "type": "INSTALL", "locationId": side.ref, "companyId": f"com-{side.typed}",
            "companyName": f"{side.told} agency",
            "whitelabelDetails": {"domain": f"app.{side.told}.example"},
        },
        {"type": "LocationUpdate", "id": side.ref, "name": f"{side.told} dental"},
    ]  # fmt: skip
    for number in range(side.mails):
        for event in ("accepted", "failed" if number % 2 else "delivered", "complained"):
            bodies.append(_event(side, event, number, now + timedelta(seconds=number)))
    received_at = int(now.timestamp() * 1e6)
    items = [item_from_body(orjson.dumps(body), received_at=received_at) for body in bodies]
    write_batch(items, now=received_at)
    assert {item.status for item in items} == {"stored", "ignored"}
    campaigns = Value.objects.filter(dimension=Dimension.CAMPAIGN, text=side.campaign)
    assert campaigns.update(label=f"{side.told} spring") == 1


def _event(side: Side, event: str, number: int, at: datetime) -> dict[str, Any]:
    mail = {
        "event": event, "id": f"{side.typed}-{event}-{number}", "timestamp": at.timestamp(),
        "severity": "permanent", "recipient": side.recipient.replace("jane", f"jane{number}"),
        "tags": [f"tag-{side.typed}"], "recipient-provider": "Gmail",
        "message": {"headers": {"message-id": f"{side.typed}-{number}@{side.told}.example"}},
        "envelope": {"sending-ip": side.ip, "i-ip-pool-name": f"pool-{side.typed}",
                     "sender": f"bounce@send.{side.typed}.example"},
        "delivery-status": {
            "code": 550, "mx-host": f"mx.{side.typed}.example",
            "message": f"5.1.1 refused by {side.told}policy for <script>alert('{side.told}')",
        },
        "lc-operations": {
            "email_type": "workflow", "email_type_id": f"camp-{side.typed}",
            "email_type_step_id": f"step-{side.typed}", "domain": f"send.{side.typed}.example",
        },
    }  # fmt: skip
    return {"type": "LCEmailStats", "locationId": side.ref, "webhookPayload": mail}


def _put_in(side: Side, location: Location, by: User) -> None:
    """What people put in: one of each kind, with its key in ``side.pks``."""
    now, soon = timezone.now(), timezone.now() + timedelta(days=1)
    bounced = Delivery.objects.filter(location=location, outcome=Outcome.BOUNCED).latest("pk")
    refused = Event.objects.filter(location=location).exclude(reason=None).latest("pk")
    reason_id = refused.reason_id or 0
    common: dict[str, Any] = {"opened_at": now, "last_event_at": now}
    made: dict[str, Any] = {
        "suspension": Suspension.objects.create(
            location=location, since=now, until=soon, note=f"{side.told} stopped"
        ),
        "note": Note.objects.create(location=location, at=now, text=f"{side.told} list bought"),
        "clientlink": ClientLink.objects.create(
            location=location, name=f"Dr. {side.told}", expires_at=soon, by=by
        ),
        "membership": Membership.objects.filter(location=location).latest("pk"),
        "invitation": Invitation.objects.create(
            location=location, email=f"new@{side.told}.example", digest=side.typed, by=by,
            expires_at=soon,
        ),
        "suppressed": Suppressed.objects.create(
            location=location, recipient=side.recipient, cause="hard", since=now,
            reason=f"{side.told} bounced",
        ),
        "savedview": SavedView.objects.create(
            owner=by, name=f"{side.told} view", path=f"/locations/{side.ref}/", shared=True
        ),
        "reviewcase": ReviewCase.objects.create(
            queue=ReviewCase.Queue.LATE, subject=f"d:{bounced.pk}", location=location,
            delivery=bounced, **common,
        ),
        "bulkchange": BulkChange.objects.create(
            reason_id=reason_id, category=Category.POLICY, by=by, created_at=now, deliveries=2
        ),
        "quarantinedwebhook": QuarantinedWebhook.objects.create(
            received_at=now, digest=side.typed.encode(), body=side.told.encode()
        ),
        "group": Group.objects.create(name=f"{side.told} group"),
        "resendrequest": ResendRequest.objects.create(
            delivery=bounced, location=location, requested_by=by, requested_at=now
        ),
        "apitoken": ApiToken.objects.create(user=by, name=side.told, digest=side.typed),
        "auditentry": audit.note(by, "name", f"{side.told} dental", location_id=location.pk),
        "source": Source.objects.create(name=f"{side.told} source", location_ref=side.ref),
        "keptwebhook": KeptWebhook.objects.create(
            received_at=now, reason=f"{side.told}", digest=side.typed.encode(), body=b"{}"
        ),
        "classificationrule": ClassificationRule.objects.create(
            name=f"{side.told}-rule", text=f"{side.told}policy", category=Category.POLICY
        ),
        "company": Company.objects.get(ref=f"com-{side.typed}"),
        "location": location,
        "delivery": bounced,
    }  # fmt: skip
    CaseEntry.objects.create(case=made["reviewcase"], at=now, what="noted", note=side.told)
    side.pks = {name: row.pk for name, row in made.items()} | {"reason": reason_id}
    side.pks["token"] = made["clientlink"].token
