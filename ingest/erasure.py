"""Recipients who asked to be erased: their mail stays and counts, under a name of nobody.

The address becomes ``erased-<random>`` at the same domain, so that no counter changes. What was
said of the mail loses the name, raw webhooks go, and of each mail a keyed digest stays: what comes
later for it is stored erased, and a repetition is a duplicate as ever, for an event's key is made
of the provider's own words. A new mail to the same person is new.
"""

import re
import secrets
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple

import msgspec
from django.conf import settings
from django.db import connection, transaction
from django.db.models import QuerySet
from django.utils import timezone
from django.utils.crypto import salted_hmac

from ingest import details, payloads
from ingest.addresses import name_in
from ingest.fingerprint import plain
from ingest.models import Delivery, ErasedMail, Event, KeptWebhook, QuarantinedWebhook, Reason
from ingest.normalize import Detail, NormalizedEvent
from ingest.statements import DeliveryKey

STUB = b'{"erased":true}'  # in place of a raw webhook
STEP = 200  # deliveries a transaction
WINDOW = 500  # other rows that are looked through at once
_PSEUDONYM = re.compile(r"erased-[0-9a-f]{16}(@|$)")
# What may name somebody; of the rest only the provider's words are kept.
_TEXTS = ("reason", "message", "description", "message_id", "recipient")


def is_pseudonym(recipient: str) -> bool:
    """Whether a recipient is one who was erased."""
    return _PSEUDONYM.match(recipient) is not None


def pseudonym_for(recipient: str) -> str:
    """A name of nobody, at the same domain: domains are counted."""
    _, at, domain = recipient.rpartition("@")
    return f"erased-{secrets.token_hex(8)}{at}{domain if at else '@'}"


@lru_cache(maxsize=4)
def _key_of(secret: str) -> bytes:
    return salted_hmac("sendwatch.erased", "mail", secret=secret, algorithm="sha256").digest()


def digest_of(key: DeliveryKey) -> bytes:
    """What stays of a mail's location, message id and recipient: nothing without ``SECRET_KEY``."""
    words = "\0".join(map(str, key)).encode(errors="surrogatepass")
    return blake2b(words, key=_key_of(settings.SECRET_KEY), digest_size=16).digest()


def erased(keys: Collection[DeliveryKey]) -> dict[DeliveryKey, str]:
    """Which of these mails were erased, with their recipients' pseudonyms."""
    if not ErasedMail.objects.exists():  # as nearly always
        return {}
    digests = {digest_of(key): key for key in keys}
    found = ErasedMail.objects.filter(digest__in=digests)
    return {
        digests[bytes(digest)]: pseudonym
        for digest, pseudonym in found.values_list("digest", "pseudonym")
    }


# --- Texts ---------------------------------------------------------------------------------------


def nameless(text: str, recipient: str, pseudonym: str) -> str:
    """A text with the recipient's name replaced by that of nobody."""
    return name_in(recipient).sub(pseudonym.partition("@")[0], text)


def message_id_of(key: DeliveryKey) -> str:
    """The message id that an erased mail goes by: its own, unless that names the recipient."""
    _, message_id, recipient = key
    if name_in(recipient).search(message_id) or recipient in message_id.lower():
        return f"erased-{digest_of(key).hex()}"
    return message_id


def nameless_detail(detail: Detail, recipient: str, pseudonym: str) -> Detail:
    """A detail that names nobody: readers' software and the questions of links go altogether."""
    texts = {name: nameless(getattr(detail, name), recipient, pseudonym) for name in _TEXTS}
    url = nameless(detail.url.partition("?")[0].partition("#")[0], recipient, pseudonym)
    return msgspec.structs.replace(detail, url=url, user_agent="", **texts)


def nameless_event(event: NormalizedEvent, key: DeliveryKey, pseudonym: str) -> NormalizedEvent:
    """An event of an erased mail, as it is stored. Its own key stays: it tells repetitions."""
    return msgspec.structs.replace(
        event,
        message_id=message_id_of(key),
        recipient=pseudonym,
        detail=nameless_detail(event.detail, event.recipient, pseudonym),
    )


# --- A run ---------------------------------------------------------------------------------------


class Step(NamedTuple):
    """One transaction of a run: what it was about, and how many rows it erased."""

    what: str
    rows: int


class _Mail(NamedTuple):
    """A delivery, as far as it names anybody."""

    id: int
    location_id: int
    message_id: str
    recipient: str

    @property
    def key(self) -> DeliveryKey:
        """Its own, by which later events find it."""
        return self.location_id, self.message_id, self.recipient


@dataclass
class Erasure:
    """One run over everything that names an address: ``steps`` does it.

    ``location_id``: in this location only. A run that is cut off leaves everything true; the next
    goes on where it ended.
    """

    address: str
    location_id: int | None = None
    location_ref: str = ""
    limit: int = STEP
    pseudonyms: dict[int, str] = field(default_factory=dict)  # by location
    _reasons: set[int] = field(default_factory=set)

    def steps(self) -> Iterator[Step]:
        """Erase, a transaction a step, in the recorder's order of locks."""
        yield from self._deliveries()
        yield Step("reasons", self._erase_reasons())
        yield from self._lonely_events()
        yield from self._webhooks("kept webhooks", KeptWebhook)
        yield from self._webhooks("quarantined webhooks", QuarantinedWebhook)

    def _pseudonym(self, location_id: int) -> str:
        return self.pseudonyms.setdefault(location_id, pseudonym_for(self.address))

    def _deliveries(self) -> Iterator[Step]:
        mails = Delivery.objects.filter(recipient=self.address)
        if self.location_id is not None:
            mails = mails.filter(location_id=self.location_id)
        ordered = mails.order_by("message_id", "recipient", "location_id")
        columns = ordered.values_list(*_Mail._fields)
        while True:
            with transaction.atomic():
                found = [_Mail(*row) for row in columns.select_for_update()[: self.limit]]
                if not found:
                    return
                events = self._erase_mails(found)
            yield Step("deliveries", len(found))
            yield Step("events", events)

    def _erase_mails(self, mails: Sequence[_Mail]) -> int:
        """Erase locked deliveries with their events. Returns how many events these had."""
        now = timezone.now()
        ErasedMail.objects.bulk_create(
            (
                ErasedMail(
                    digest=digest_of(mail.key),
                    pseudonym=self._pseudonym(mail.location_id),
                    erased_at=now,
                )
                for mail in mails
            ),
            ignore_conflicts=True,
        )
        erased = self._erase_events(Event.objects.filter(delivery_id__in=[m.id for m in mails]))
        _many(
            "UPDATE ingest_delivery SET message_id = %s, recipient = %s WHERE id = %s",
            [(message_id_of(m.key), self._pseudonym(m.location_id), m.id) for m in mails],
        )
        return erased

    def _erase_events(self, events: QuerySet[Event], lonely: bool = False) -> int:
        """Take the name out of events; of lonely ones, out of those that have it."""
        columns = ("id", "location_id", "reason_id", *details.COLUMNS)
        rows = []
        for pk, location_id, reason_id, *stored in events.order_by("id").values_list(*columns):
            detail = details.load(*stored)
            if lonely and detail.recipient != self.address:
                continue
            self._reasons |= {reason_id} - {None}
            new = nameless_detail(detail, self.address, self._pseudonym(location_id))
            rows.append((details.dump(new), STUB, payloads.RAW, pk))
        _many(
            "UPDATE ingest_event SET detail = %s, payload = %s, payload_codec = %s WHERE id = %s",
            rows,
        )
        return len(rows)

    def _erase_reasons(self) -> int:
        """Take the name out of refusals that only this recipient met; others' words stay."""
        done, ours = 0, list(self.pseudonyms.values())
        for reason in Reason.objects.filter(pk__in=self._reasons).order_by("pk"):
            text = nameless(reason.text, self.address, "erased")
            # Hosts are told apart in reasons: jane.doe became "jane. doe" in some.
            text = text.replace(plain(self.address.rpartition("@")[0]), "erased")
            others = Event.objects.filter(reason=reason).exclude(delivery__recipient__in=ours)
            if text != reason.text and not others.exists():
                Reason.objects.filter(pk=reason.pk).update(text=text)
                done += 1
        return done

    def _lonely_events(self) -> Iterator[Step]:
        """Events that no delivery could be told of."""
        events = Event.objects.filter(delivery=None)
        if self.location_id is not None:
            events = events.filter(location_id=self.location_id)
        pks = sorted(events.order_by().values_list("pk", flat=True))
        for start in range(0, len(pks), WINDOW):
            window = Event.objects.filter(pk__in=pks[start : start + WINDOW])
            with transaction.atomic():
                rows = self._erase_events(window, lonely=True)
            yield Step("events", rows)

    def _webhooks(
        self, what: str, model: type[KeptWebhook] | type[QuarantinedWebhook]
    ) -> Iterator[Step]:
        """Bodies that nobody has counted go whole."""
        after = 0
        while window := list(
            model._default_manager.filter(pk__gt=after)
            .order_by("pk")
            .values_list("pk", "body")[:WINDOW]
        ):
            after = window[-1][0]
            named = [pk for pk, body in window if self._is_named(bytes(body))]
            if named:
                model._default_manager.filter(pk__in=named).delete()
            yield Step(what, len(named))

    def _is_named(self, body: bytes) -> bool:
        if self.location_ref and self.location_ref.encode() not in body:
            return False
        text = body.lower()
        return any(form in text for form in _forms(self.address))


def _forms(address: str) -> Iterable[bytes]:
    """An address as bodies have it: as it is, in JSON's escapes, in those of links."""
    plain = address.encode(errors="surrogatepass")
    yield plain
    for at in (b"%40", b"\\u0040"):
        yield plain.replace(b"@", at)
    yield address.encode("ascii", "backslashreplace")


def _many(statement: str, rows: Sequence[tuple[bytes | str | int, ...]]) -> None:
    if rows:
        with connection.cursor() as cursor:
            cursor.executemany(statement, rows)
