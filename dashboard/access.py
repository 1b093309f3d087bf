"""Who sees what. Pages, fragments, API, export and both sockets all ask here, and only here."""

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from importlib import import_module

from django.conf import settings
from django.contrib.auth import HASH_SESSION_KEY, SESSION_KEY
from django.contrib.auth.models import AbstractBaseUser, AnonymousUser, User
from django.db.models import Model, Q, QuerySet
from django.http import Http404
from django.utils import timezone
from django.utils.crypto import constant_time_compare

from dashboard.masking import hidden, masked, unnamed, without
from dashboard.models import ApiToken, ClientLink, Invitation, Membership
from ingest.models import Location

_USE_NOTED_EVERY = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Rights:
    """What one person may see: everything, or these locations (primary keys).

    In the ``masked_ids`` among them recipients' addresses are masked.
    """

    everything: bool = False
    location_ids: frozenset[int] = frozenset()
    masked_ids: frozenset[int] = frozenset()

    def sees(self, location_id: int) -> bool:
        """Whether the location with this primary key may be seen."""
        return self.everything or location_id in self.location_ids

    def masks(self, location_id: int) -> bool:
        """Whether recipients' addresses of this location are masked."""
        return location_id in self.masked_ids


NOTHING = Rights()


def rights_of(user: AbstractBaseUser | AnonymousUser) -> Rights:
    """The rights of a user as they are now: one query for those who live by memberships."""
    if not user.is_authenticated or not user.is_active:
        return NOTHING
    if rights_everywhere(user):
        return Rights(everything=True)
    found = list(_joined(user).values_list("id", "masks_recipients"))
    masking = [pk for pk, masks in found if masks]
    operated = set(operated_by(user).filter(pk__in=masking).values_list("pk", flat=True))
    return Rights(
        location_ids=frozenset(pk for pk, _ in found),
        masked_ids=frozenset(masking) - operated if masking else frozenset(),
    )


def rights_everywhere(user: AbstractBaseUser | AnonymousUser) -> bool:
    """Whether a user needs no memberships: superusers, and staff."""
    standing = getattr(user, "is_superuser", False) or getattr(user, "is_staff", False)
    return bool(standing and user.is_authenticated and user.is_active)


def _joined(user: AbstractBaseUser | AnonymousUser, **terms: str) -> QuerySet[Location]:
    """The locations that a user's memberships name, by themselves or by their company."""
    mine = Membership.objects.at(timezone.now()).filter(user_id=user.pk or 0, **terms)
    by_company = mine.exclude(company_ref="").values("company_ref")
    by_location = mine.exclude(location=None).values("location_id")
    return Location.objects.filter(Q(pk__in=by_location) | Q(company_ref__in=by_company))


def operated_by(user: AbstractBaseUser | AnonymousUser) -> QuerySet[Location]:
    """The locations in which a user may change what people put in."""
    if not user.is_authenticated or not user.is_active:
        return Location.objects.none()
    if rights_everywhere(user):
        return Location.objects.all()
    return _joined(user, role=Membership.Role.OPERATOR)


def operating_rights(user: AbstractBaseUser | AnonymousUser) -> Rights:
    """The locations in which a user may change things, as rights: what the admin shows."""
    if rights_everywhere(user):
        return Rights(everything=True)
    return Rights(location_ids=frozenset(operated_by(user).values_list("pk", flat=True)))


def may_enter_admin(user: AbstractBaseUser | AnonymousUser) -> bool:
    """Whether a user may enter the admin: who operates anything sees that much of it."""
    return rights_everywhere(user) or operated_by(user).exists()


def restrict[M: Model](
    queryset: QuerySet[M], rights: Rights, field: str = "location_id"
) -> QuerySet[M]:
    """The part of a queryset that may be seen. ``field`` names its path to the location's key."""
    if rights.everything:
        return queryset
    if not rights.location_ids:
        return queryset.none()
    return queryset.filter(**{f"{field}__in": rights.location_ids})


def shown_recipient(rights: Rights, location_id: int, recipient: str) -> str:
    """A recipient's address as it may be seen: whole, or masked."""
    return masked(recipient) if rights.masks(location_id) else recipient


def shown_text(rights: Rights, location_id: int, text: str, recipient: str) -> str:
    """What a server said to a recipient's mail, as it may be seen."""
    return without(text, recipient) if rights.masks(location_id) else text


def shown_note(rights: Rights, location_id: int | None, text: str) -> str:
    """What a person wrote of a location, or of all, as it may be seen."""
    masks = bool(rights.masked_ids) if location_id is None else rights.masks(location_id)
    return hidden(text) if masks else text


def shown_id(rights: Rights, location_id: int, message_id: str, recipient: str) -> str:
    """A message id as it may be seen: some name the recipient."""
    return unnamed(message_id, recipient) if rights.masks(location_id) else message_id


def get_location(ref: str, rights: Rights) -> Location:
    """The location with this HighLevel id.

    Raises ``Http404``, in the same words, for one that does not exist and for one that may not
    be seen: the answer must not tell which.
    """
    location = Location.objects.filter(ref=ref).first()
    if location is None or not rights.sees(location.pk):
        raise Http404("There is no such location.")
    return location


def may_operate(user: AbstractBaseUser | AnonymousUser, locations: Collection[int] = ()) -> bool:
    """Whether a user may change what people put in: names, notes, suspensions, categories.

    Superusers and staff may everywhere; operators where they are members. ``locations`` are
    primary keys: the change must lie within the user's for each of them; none named means what
    belongs to all.
    """
    if rights_everywhere(user) or not locations:
        return rights_everywhere(user)
    return operated_by(user).filter(pk__in=locations).count() == len(set(locations))


# --- Who decides about others --------------------------------------------------------------


def memberships_shown(user: AbstractBaseUser | AnonymousUser) -> QuerySet[Membership]:
    """What others hold that a user may know of.

    Staff all; operators what names their locations, and of companies only those that they operate.
    """
    if rights_everywhere(user):
        return Membership.objects.all()
    own = Membership.objects.at(timezone.now()).filter(user_id=user.pk or 0, role="operator")
    companies = own.exclude(company_ref="").values("company_ref")
    return Membership.objects.filter(
        Q(location__in=operated_by(user)) | Q(company_ref__in=companies)
    )


def may_invite(user: AbstractBaseUser | AnonymousUser, offered: Invitation) -> bool:
    """Whether a user may offer this: staff anything but staff's own rights, superusers these too.

    Operators may offer to view a location that they operate, if they can log in by themselves:
    what somebody gives who was let in for a while would outlast their own rights.
    """
    if offered.role == Invitation.Role.STAFF:
        return bool(getattr(user, "is_superuser", False) and rights_everywhere(user))
    if rights_everywhere(user):
        return True
    if not user.is_authenticated or not user.has_usable_password():
        return False
    return offered.role == Invitation.Role.VIEWER and _operates(user, offered.location_id)


def may_remove(user: AbstractBaseUser | AnonymousUser, held: Membership) -> bool:
    """Whether a user may take a membership away: staff any, operators their locations' viewers."""
    if rights_everywhere(user):
        return True
    return held.role == Membership.Role.VIEWER and _operates(user, held.location_id)


def _operates(user: AbstractBaseUser | AnonymousUser, location_id: int | None) -> bool:
    return location_id is not None and operated_by(user).filter(pk=location_id).exists()


def may_manage(user: AbstractBaseUser | AnonymousUser, other: User) -> bool:
    """Whether a user may let another account in anew, or shut it out.

    Superusers may everybody's but their own; staff those of who is neither.
    """
    if user.pk == other.pk or not rights_everywhere(user):
        return False
    return bool(getattr(user, "is_superuser", False) or not (other.is_staff or other.is_superuser))


def may_make_tokens(user: AbstractBaseUser | AnonymousUser) -> bool:
    """Whether a user may have API tokens: not who was only let in for a while, without a password.

    A token would outlast that.
    """
    return user.is_authenticated and user.is_active and user.has_usable_password()


# --- By what somebody is let in ------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Pass:
    """What lets somebody in: the key of a session, or an API token's primary key."""

    user: User = field(compare=False)
    session_key: str = ""
    token_id: int | None = None
    scopes: frozenset[str] = frozenset(ApiToken.Scope.values)

    def allows(self, scope: ApiToken.Scope) -> bool:
        """Whether it is good for this; a session is for everything."""
        return scope in self.scopes


@dataclass(frozen=True, slots=True)
class LinkPass:
    """What lets in somebody without an account: the token of a client link."""

    token: str


def pass_of_session(user: User | AnonymousUser, session_key: str | None) -> Pass | None:
    """The pass of who is logged in; ``None`` for anybody else."""
    if isinstance(user, AnonymousUser) or not user.is_active:
        return None
    return Pass(user, session_key=session_key or "")


def pass_of_bearer(header: str, *, now: datetime) -> Pass | None:
    """The pass of the token that an ``Authorization`` header carries; ``None`` if it is no good.

    Refuses what has expired, and inactive users. Notes the token's use, at most once a minute.
    """
    scheme, _, token = header.strip().partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        return None
    digest = ApiToken.digest_of(token.strip())
    found = ApiToken.objects.at(now).select_related("user").filter(digest=digest).first()
    if found is None:
        return None
    _note_use(found, now)
    return Pass(found.user, token_id=found.pk, scopes=frozenset(found.scopes.split()))


def rights_by(held: Pass | LinkPass, *, now: datetime) -> Rights | None:
    """The rights that a pass gives as things are now; ``None`` once it is no good any more.

    A session ends by logging out, by its age, and when its user's password changes; a token by its
    end or by being revoked; both when the user is deactivated. A client link ends as tokens do.
    """
    if isinstance(held, LinkPass):
        link = client_link(held.token, now=now)
        return rights_of_link(link) if link else None
    if held.token_id is not None:
        token = ApiToken.objects.at(now).select_related("user").filter(pk=held.token_id).first()
        return rights_of(token.user) if token else None
    user = User.objects.filter(pk=held.user.pk, is_active=True).first()
    return rights_of(user) if user and _is_in_session(user, held.session_key) else None


def _is_in_session(user: User, key: str) -> bool:
    session = import_module(settings.SESSION_ENGINE).SessionStore(key).load()
    return session.get(SESSION_KEY) == str(user.pk) and constant_time_compare(
        session.get(HASH_SESSION_KEY, ""), user.get_session_auth_hash()
    )


def client_link(token: str, *, now: datetime) -> ClientLink | None:
    """The client link with this token; ``None`` alike for a wrong, an ended and a revoked one.

    Notes its use, at most once a minute.
    """
    key = ClientLink.key_of(token)
    links = ClientLink.objects.at(now).select_related("location")
    found = links.filter(key=key).first() if key else None
    if found is not None:
        _note_use(found, now)
    return found


def rights_of_link(link: ClientLink) -> Rights:
    """What a client link shows: its location, with masked recipients."""
    own = frozenset({link.location_id})
    return Rights(location_ids=own, masked_ids=own)


def _note_use(used: ApiToken | ClientLink, now: datetime) -> None:
    stale = now - _USE_NOTED_EVERY
    if used.last_used_at is None or used.last_used_at <= stale:
        type(used).objects.filter(
            Q(last_used_at=None) | Q(last_used_at__lte=stale), pk=used.pk
        ).update(last_used_at=now)
