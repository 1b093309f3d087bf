"""Any payload form of a webhook, as one ``NormalizedEvent``. Pure; never raises on JSON.

Shapes and their traps: HighLevel's ``LCEmailStats`` wraps Mailgun's event object; white labels
document a flat form in Mailgun's older words.
"""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from math import isfinite
from typing import Any

import msgspec
import orjson

from ingest import providers
from ingest.vocabulary import ENGAGEMENT, OTHER_KEY, EventKind


class Detail(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What is kept of an event beside its columns when its payload has been pruned.

    Texts are as the provider sent them, with NUL and lone surrogates replaced by U+FFFD.
    """

    event_id: str = ""  # the provider's own id; "" when absent or equal to the location's
    word: str = ""  # the provider's event word, as it came
    severity: str = ""
    reason: str = ""
    code: int | None = None  # basic SMTP code, 200 to 699 (Mailgun's own 498, 605 … included)
    enhanced: str = ""  # RFC 3463, "5.1.1"
    message: str = ""  # the receiver's words
    description: str = ""
    bounce_type: str = ""
    attempt: int | None = None
    session_seconds: float | None = None
    first_attempt_seconds: float | None = None
    retry_seconds: int | None = None
    mx: str = ""
    ip: str = ""
    pool: str = ""  # pool id; its name where it has no id
    pool_name: str = ""
    tls: bool | None = None
    url: str = ""
    user_agent: str = ""
    message_id: str = ""  # without <>; only set where the event has no delivery to say it
    recipient: str = ""  # likewise
    message_id_from: str = ""  # "" a header; "lc-operations", "storage" or "event" otherwise
    webhook_id: str = ""
    form: str = ""  # "wrapped" or "flat"
    test: bool = False  # test-mode or a system test


class NormalizedEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One provider event, whatever form it came in. Times are microseconds since 1970, UTC."""

    kind: EventKind
    key: bytes  # 16 bytes, unique with the location: ``dedupe_key``
    content: int  # signed 64-bit digest of the payload: tells a conflicting duplicate
    location_ref: str
    company_ref: str = ""
    app_id: str = ""
    occurred_at: int  # the receipt time where the payload's own is unusable
    time_marked: bool = False  # … and then this says so
    delivered_at: int | None = None  # engagement events may carry it
    message_id: str  # without <>; "" where nothing identifies the message (event only)
    recipient: str  # lower case; may be "" (event only)
    tags: frozenset[str] = frozenset()  # shown tags: no loc_, com_ or "*"; et_<type> included
    campaign_rank: int = 0  # 2 lc-operations, 1 campaigns[], 0 none
    campaign: str = ""  # "workflow:<id>" from lc-operations, the id or string from campaigns[]
    campaign_name: str = ""
    step: str = ""
    provider: str = ""  # "Gmail", "Outlook", …
    provider_rank: int = 0  # 2 named by the payload, 1 named as Other, 0 derived
    domain: str = ""  # the recipient's, lower case
    sending_domain: str = ""
    sending_domain_rank: int = 0  # 3 lc-operations, 2 primary-dkim, 1 sender, 0 none
    test: bool = False  # test-mode or a system test
    delayed_bounce: bool = False
    machine: bool = False  # an open or click by a proxy or bot
    detail: Detail


class AppEvent(msgspec.Struct, frozen=True, kw_only=True):
    """A webhook of another type: INSTALL, UNINSTALL, LocationCreate, LocationUpdate, others.

    The four named ones change the location, or the company where they name none; any other changes
    nothing (both ids "").
    """

    type: str
    app_id: str = ""
    location_ref: str = ""
    location_name: str = ""
    company_ref: str = ""
    company_name: str = ""
    domain: str | None = None  # the company's own for the app; "" if it has none, None if not said
    state: str = ""  # "active", "gone" or "" for no change
    occurred_at: int = 0


class NotUnderstood(msgspec.Struct, frozen=True, kw_only=True):
    """Authentic, but not readable as any of the above; kept whole, with the reason."""

    reason: str


# How much of each text is kept: the columns that hold it, or what a page can show.
_REF, _MESSAGE_ID, _RECIPIENT, _TAG, _CAMPAIGN, _STEP = 128, 400, 320, 128, 200, 128
_HOST, _WORD, _LABEL, _TEXT, _URL, _AGENT = 253, 64, 200, 2000, 2000, 500
_MAX_TAGS = 20
_YEAR_2015, _DAY, _HOUR = 1_420_070_400_000_000, 86_400_000_000, 3_600_000_000  # µs
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NOTHING: dict[str, Any] = {}

_APP_TYPES = {"install", "uninstall", "locationcreate", "locationupdate"}
_ENVELOPE_KEYS = frozenset(
    {"type", "locationId", "companyId", "appId", "versionId", "webhookId", "token", "signature"}
)


def decode(body: bytes) -> object:
    """The JSON of a body. Raises ``ValueError`` if it is none.

    What strict readers refuse and some senders write (a byte order mark, NaN, lone surrogates,
    1e400) is read too, by the standard library.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        pass
    try:
        return json.loads(body, parse_int=_read_int)
    except RecursionError:
        raise ValueError("The JSON is nested too deeply.") from None


def _read_int(digits: str) -> int | float:
    """A whole number as orjson reads it: past 64 bits as a float."""
    if len(digits) <= 20:
        number = int(digits)
        if -(2**63) <= number < 2**64:
            return number
    return float(digits)


def normalize(
    payload: object, *, location_ref: str = "", received_at: int
) -> NormalizedEvent | AppEvent | NotUnderstood:
    """What a decoded webhook says. Never raises, whatever the JSON.

    ``location_ref`` is the location of the named source it came through, used where the payload
    names none; ``received_at`` is in microseconds.
    """
    if type(payload) is not dict:
        return NotUnderstood(reason="not a JSON object")
    webhook_type = payload.get("type")
    named = _name(webhook_type, _LABEL) if type(webhook_type) is str else ""
    if named and named.lower() != "lcemailstats":
        return _app_event(payload, named, received_at)
    mail, form = _find_mail(payload)
    if mail is None:
        return NotUnderstood(reason="no readable webhookPayload" if named else "no known form")
    word = mail.get("event")
    if type(word) is not str or not word.strip():
        return NotUnderstood(
            reason="no event word" if named or form == "wrapped" else "no known form"
        )
    return _mail_event(_Parts(payload, mail, form), location_ref, received_at)


def _find_mail(payload: dict[str, Any]) -> tuple[dict[str, Any] | None, str]:
    """Mailgun's event object, and whether it came wrapped or flat."""
    for key, form in (("webhookPayload", "wrapped"), ("event-data", "wrapped"), ("body", "flat")):
        inner = payload.get(key)
        if key == "body" and "event" in payload:
            break
        if type(inner) is str and inner.lstrip()[:1] == "{":
            inner = _decode_text(inner)
        if type(inner) is dict:
            if type(inner.get("event-data")) is dict:
                return inner["event-data"], form
            return inner, form
    return (payload, "flat") if _is_flat(payload) else (None, "")


def _decode_text(text: str) -> object:
    try:
        return decode(text.encode("utf-8", "surrogatepass"))
    except ValueError:
        return None


def _is_flat(payload: dict[str, Any]) -> bool:
    return "event" in payload and any(
        key in payload
        for key in ("recipient", "Message-Id", "message-id", "message-headers", "message", "id")
    )


class _Parts:
    """A mail event's objects, each a dict whatever came: the places where its fields lie."""

    __slots__ = (
        "client",
        "envelope",
        "flags",
        "form",
        "headers",
        "lc",
        "mail",
        "status",
        "wrapper",
    )

    def __init__(self, wrapper: dict[str, Any], mail: dict[str, Any], form: str) -> None:
        self.wrapper = wrapper
        self.mail = mail
        self.form = form
        self.headers = _headers(mail)
        self.status = _dict(mail.get("delivery-status"))
        self.envelope = _dict(mail.get("envelope"))
        self.flags = _dict(mail.get("flags"))
        self.lc = _dict(mail.get("lc-operations"))
        self.client = _dict(mail.get("client-info"))


def _dict(value: object) -> dict[str, Any]:
    return value if type(value) is dict else _NOTHING


def _headers(mail: dict[str, Any]) -> dict[str, Any]:
    """The message's headers by lower-case name, from wherever this form keeps them."""
    headers = _dict(mail.get("message")).get("headers")
    if type(headers) is dict and "message-id" in headers:
        return headers
    found = dict(_header_pairs(headers))
    pairs = mail.get("message-headers")
    for name, value in _header_pairs(_decode_text(pairs) if type(pairs) is str else pairs):
        found.setdefault(name, value)
    for name in ("Message-Id", "message-id", "Message-ID"):
        if mail.get(name):
            found["message-id"] = found.get("message-id") or mail[name]
    return found


def _header_pairs(headers: object) -> Iterator[tuple[str, Any]]:
    if type(headers) is dict:
        yield from ((name.lower(), value) for name, value in headers.items())
    elif type(headers) is list:
        for pair in headers:
            if type(pair) is list and len(pair) == 2 and type(pair[0]) is str:
                yield pair[0].lower(), pair[1]


# --- Texts and numbers -----------------------------------------------------------------------

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def _clean(text: str) -> str:
    """The text with what PostgreSQL or UTF-8 cannot hold replaced by U+FFFD."""
    if text.isascii() and "\x00" not in text:
        return text
    return _UNSTORABLE.sub("\ufffd", text)


def _text(value: object, limit: int) -> str:
    """A text to show: as it came, but storable and cut. "" for what is no text."""
    if type(value) is str:
        return _clean(value[:limit]) if value else ""
    if value is None:
        return ""
    if type(value) is int and -(2**63) <= value < 2**64:
        return str(value)
    if type(value) is list:
        return _clean("\n".join(part for part in value if type(part) is str)[:limit])
    return ""


def _name(value: object, limit: int) -> str:
    """A text that identifies: stripped, and cut so that different ones stay different.

    ``limit`` counts UTF-8 bytes, as the database's index does.
    """
    if type(value) is not str:
        return _text(value, limit) if type(value) is int else ""
    text = value.strip()
    if text.isascii() and len(text) <= limit and "\x00" not in text:
        return text
    text = _clean(text)
    raw = text.encode()
    if len(raw) <= limit:
        return text
    digest = blake2b(raw, digest_size=8).hexdigest()
    return f"{raw[: limit - 17].decode(errors='ignore')}~{digest}"


def _number(value: object) -> float | None:
    """A finite number, also from text; nothing for booleans and the rest."""
    if type(value) is str and len(value) < 40:
        try:
            value = float(value)
        except ValueError:
            return None
    if type(value) is float:
        return value if isfinite(value) else None
    return value if type(value) is int and -(2**63) <= value < 2**64 else None


def _count(value: object, limit: int = 1_000_000_000) -> int | None:
    number = _number(value)
    return int(number) if number is not None and 0 <= number <= limit else None


def _seconds(value: object) -> float | None:
    number = _number(value)
    return float(number) if number is not None and 0 <= number <= 1e9 else None


def _truth(value: object) -> bool:
    return value is True or (type(value) is str and value.strip().lower() == "true")


# --- Times -----------------------------------------------------------------------------------


def _time(value: object) -> int | None:
    """A provider's time in microseconds; its magnitude tells seconds from ms, µs and ns."""
    if type(value) is int:
        return _scale(value)
    number = _number(value)
    if number is not None:
        if type(value) is str and value.strip().isdecimal():
            return _scale(int(value))
        return _scale(number)
    return _iso_time(value) if type(value) is str else None


def _scale(number: float) -> int | None:
    size = abs(number)
    if size < 1e11:
        return round(number * 1_000_000)
    if size < 1e14:
        return round(number * 1000)
    if size < 1e17:
        return round(number)
    return round(number) // 1000 if size < 1e20 else None


def _iso_time(text: str) -> int | None:
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // timedelta(microseconds=1)


def _plausible(time: int | None, received_at: int) -> bool:
    return time is not None and _YEAR_2015 <= time <= received_at + _DAY


# --- Who and what ----------------------------------------------------------------------------


def _location(parts: _Parts, tags: list[str], source_ref: str) -> str:
    return (
        _name(parts.wrapper.get("locationId"), _REF)
        or _name(parts.mail.get("locationId"), _REF)
        or _name(parts.lc.get("location_id"), _REF)
        or _tagged(tags, "loc_")
        or _name(source_ref, _REF)
    )


def _company(parts: _Parts, tags: list[str]) -> str:
    return (
        _name(parts.wrapper.get("companyId"), _REF)
        or _name(parts.lc.get("company_id"), _REF)
        or _tagged(tags, "com_")
    )


def _tagged(tags: list[str], prefix: str) -> str:
    """The id in a tag such as ``loc_<id>``; of several the lexically first."""
    found = [tag for tag in tags if tag.startswith(prefix) and len(tag) > 4]
    return _name(min(found)[4:], _REF) if found else ""


def _raw_tags(mail: dict[str, Any]) -> list[str]:
    tags = mail.get("tags")
    if tags is None:
        tags = mail.get("tag") or mail.get("X-Mailgun-Tag")
    if type(tags) is str:
        tags = [tags]
    return [tag.strip() for tag in tags if type(tag) is str] if type(tags) is list else []


_UNIQUE = re.compile(
    r"[0-9]{9}|[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}|[0-9a-f]{32}", re.IGNORECASE
)


def _shown_tags(parts: _Parts, raw: list[str], message_id: str, recipient: str) -> frozenset[str]:
    """The tags that count: not HighLevel's own, and what differs by message as ``(other)``."""
    names = {tag for tag in raw if tag and tag != "*" and not tag.startswith(("loc_", "com_"))}
    if email_type := _name(parts.lc.get("email_type"), _WORD):
        names.add(f"et_{email_type}")
    shown = {_shown_tag(tag, message_id, recipient) for tag in names}
    # The first twenty of each event hold the first twenty of the delivery's union.
    return frozenset(sorted(shown)[:_MAX_TAGS] if len(shown) > _MAX_TAGS else shown)


def _shown_tag(tag: str, message_id: str, recipient: str) -> str:
    if (
        _UNIQUE.search(tag)
        or (len(message_id) >= 8 and message_id in tag)
        or ("@" in recipient and recipient in tag.lower())
    ):
        return OTHER_KEY
    return _name(tag, _TAG)


def _recipient(value: object) -> str:
    """The first address of a recipient or To field, in lower case; "" for none."""
    if type(value) is list:
        value = value[0] if value else None
    if type(value) is not str:
        return ""
    text = value.strip()
    if "<" in text or "," in text or " " in text:
        text = _first_address(text[:2000]) or text
    return _name(text.lower(), _RECIPIENT)


_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')


def _first_address(text: str) -> str:
    """``a@b`` of ``"Doe, Jane" <a@b>, c@d``; "" if nothing looks like an address."""
    for part in re.split(r"[,;]", _QUOTED.sub(" ", text)):
        inside = part.rpartition("<")[2].partition(">")[0].strip()
        if "@" in inside:
            return inside.split()[-1]
    return ""


def _recipient_domain(parts: _Parts, recipient: str) -> str:
    # Of the recipient first: all events of a delivery then agree.
    domain = recipient.rpartition("@")[2] if "@" in recipient else ""
    return _host(domain or parts.mail.get("recipient-domain"))


def _host(value: object) -> str:
    return _name(value.strip().strip(".").lower(), _HOST) if type(value) is str else ""


def _message_id(parts: _Parts, header: str, event_id: str, kind: EventKind) -> tuple[str, str]:
    """(The message's id, where it was found if not in a header.)"""
    if header:
        return _name(header, _MESSAGE_ID), ""
    for value, source in (
        (parts.lc.get("email_message_id"), "lc-operations"),
        (_dict(parts.mail.get("storage")).get("key"), "storage"),
    ):
        if found := _name(_unbracket(value), _MESSAGE_ID):
            return found, source
    if event_id and kind not in ENGAGEMENT:
        return event_id, "event"
    return "", ""


def _unbracket(value: object) -> str:
    if type(value) is list:
        value = value[0] if value else None
    return value.strip().strip("<>").strip() if type(value) is str else ""


def _campaign(parts: _Parts) -> tuple[int, str, str, str]:
    """(rank of the source, campaign, its name, step); rank 0 without any."""
    lc = parts.lc
    if lc and (campaign_id := _name(lc.get("email_type_id"), _REF)):
        email_type = _name(lc.get("email_type"), _WORD) or "other"
        return 2, f"{email_type}:{campaign_id}", "", _name(lc.get("email_type_step_id"), _STEP)
    mail = parts.mail
    campaigns = mail.get("campaigns")
    if not campaigns and ("campaign-id" in mail or "campaign-name" in mail):
        campaigns = {"id": mail.get("campaign-id"), "name": mail.get("campaign-name")}
    if not campaigns:
        return 0, "", "", ""
    if type(campaigns) is not list:
        campaigns = [campaigns]
    named = [found for found in map(_named_campaign, campaigns) if found[0]]
    return (1, *min(named), "") if named else (0, "", "", "")


def _named_campaign(campaign: object) -> tuple[str, str]:
    if type(campaign) is dict:
        name = _text(campaign.get("name"), _LABEL).strip()
        return _name(campaign.get("id"), _CAMPAIGN) or _name(campaign.get("name"), _CAMPAIGN), name
    return _name(campaign, _CAMPAIGN), ""


def _provider(parts: _Parts, mx: str, domain: str) -> tuple[str, int]:
    """(name, rank): the payload's own, else by MX host, else by the recipient's domain."""
    name = _name(parts.mail.get("recipient-provider"), _LABEL)
    if name:
        return providers.spell(name), 1 if name.lower() == "other" else 2
    return providers.derive(mx, domain), 0


def _sending_domain(parts: _Parts) -> tuple[str, int]:
    """(domain, rank of its source)."""
    if domain := _host(parts.lc.get("domain")):
        return domain, 3
    dkim = parts.mail.get("primary-dkim")
    if type(dkim) is str and (domain := _host(dkim.partition("._domainkey.")[2])):
        return domain, 2
    own = parts.mail.get("domain")
    if domain := _host(own.get("name") if type(own) is dict else own):
        return domain, 2
    for sender in (parts.envelope.get("sender"), parts.headers.get("from")):
        if type(sender) is str and (found := _AFTER_AT.search(sender, max(0, len(sender) - 400))):
            return _host(found[1]), 1
    return "", 0


_AFTER_AT = re.compile(r"@([^@\s<>,;]+)[>\s]*$")


# --- Kinds -----------------------------------------------------------------------------------

_KINDS = {
    "accepted": EventKind.ACCEPTED,
    "delivered": EventKind.DELIVERED,
    "rejected": EventKind.REJECTED,
    "complained": EventKind.COMPLAINED,
    "unsubscribed": EventKind.UNSUBSCRIBED,
    "opened": EventKind.OPENED,
    "clicked": EventKind.CLICKED,
    "stored": EventKind.STORED,
}
# Failures, with the severity that the word itself states.
_FAILURE_WORDS = {
    "failed": "",
    "permanent_fail": "permanent",
    "temporary_fail": "temporary",
    "bounced": "permanent",
    "dropped": "permanent",
}
_SUPPRESSED_CODES = frozenset({605, 606, 607, 625})
_BOUNCE_REASONS = frozenset({"bounce", "old", "delayed-bounce"})

# A reply's basic code: first in a line (after "smtp;", "#", "550-…"), or where words announce it.
_BASIC = re.compile(
    r"(?:^[ \t]*(?:smtp;[ \t]*)?#?|(?:said|code|error|reply|status|response)\b:?\s*#?)"
    r"([2456][0-9]{2})(?![0-9.])\b",
    re.IGNORECASE | re.MULTILINE,
)
_ENHANCED = re.compile(r"(?<![0-9.])([245])\.([0-9])\.([0-9]{1,3})(?![0-9]|\.[0-9])")


def _kind(parts: _Parts, detail_reason: str, severity: str, code: int | None) -> EventKind:
    word = parts.mail["event"].strip().lower().replace("-", "_").replace(" ", "_")
    if (implied := _FAILURE_WORDS.get(word)) is None:
        return _KINDS.get(word, EventKind.UNKNOWN)
    reason = detail_reason.strip().lower()
    if code in _SUPPRESSED_CODES or reason.startswith("suppress-") or reason == "hardfail":
        return EventKind.SUPPRESSED
    severity = severity.strip().lower()
    if severity not in ("permanent", "temporary"):
        severity = implied
    if severity:
        return EventKind.BOUNCED if severity == "permanent" else EventKind.DEFERRED
    return _unstated_kind(parts, reason, code)


def _unstated_kind(parts: _Parts, reason: str, code: int | None) -> EventKind:
    """The kind of a failure that names no severity, by the first sign that tells."""
    status, level = parts.status, _text(parts.mail.get("log-level"), _WORD).strip().lower()
    if _count(status.get("retry-seconds")) or level == "warn":
        return EventKind.DEFERRED
    if (
        reason in _BOUNCE_REASONS
        or _truth(parts.flags.get("is-delayed-bounce"))
        or _text(status.get("bounce-type"), _WORD).strip()
        or code == 602
    ):
        return EventKind.BOUNCED
    if first := _reply_class(parts):
        return EventKind.BOUNCED if first == 5 else EventKind.DEFERRED
    return EventKind.BOUNCED if level == "error" else EventKind.UNKNOWN


def _replies(parts: _Parts) -> Iterator[object]:
    """Where a reply's code may stand, the likeliest first."""
    status, mail = parts.status, parts.mail
    for key, legacy_key in (("code", "code"), ("message", "error"), ("description",) * 2):
        yield status.get(key)
        yield mail.get(legacy_key)
    for key in ("bounce-code", "last-code", "last-message"):
        yield status.get(key)


def _reply_class(parts: _Parts) -> int:
    """4 or 5 by the first SMTP code that can be read anywhere; 0 without any."""
    for value in _replies(parts):
        code = _basic_code(value)
        if code is not None and code // 100 in (4, 5):
            return code // 100
        if code == 680:
            return 4
        enhanced = _enhanced_code(value)
        if enhanced[:1] in ("4", "5"):
            return int(enhanced[0])
    return 0


def _basic_code(value: object) -> int | None:
    """The SMTP code (or Mailgun's own, up to 699) of a code field or a reply."""
    number = _number(value)
    if number is not None:
        return int(number) if 200 <= number < 700 else None
    found = _BASIC.search(_text(value, _TEXT)) if value else None
    return int(found[1]) if found else None


def _enhanced_code(value: object) -> str:
    found = _ENHANCED.search(_text(value, _TEXT)) if value else None
    return found[0] if found else ""


def _code(parts: _Parts) -> int | None:
    own = parts.status.get("code")
    if type(own) is int and 200 <= own < 700:
        return own
    for value in _replies(parts):
        if value and (code := _basic_code(value)) is not None:
            return code
    return None


def _enhanced(parts: _Parts, code: int | None) -> str:
    status = parts.status
    own = _enhanced_code(status.get("enhanced-code"))
    if own or (code is not None and code < 400):
        return own
    for value in (status.get("bounce-code"), *_replies(parts)):
        if type(value) in (str, list) and (found := _enhanced_code(value)):
            return found
    return ""


# --- Keys ------------------------------------------------------------------------------------


def _canonical(parts: _Parts) -> bytes:
    """The event object's JSON with sorted keys, without what belongs to its envelope."""
    mail = parts.mail
    if parts.form == "flat":
        mail = {key: value for key, value in mail.items() if key not in _ENVELOPE_KEYS}
    try:
        return orjson.dumps(mail, option=orjson.OPT_SORT_KEYS)
    except (TypeError, ValueError):  # deeper than 254, lone surrogates, numbers past 64 bits
        return _spell_out(mail)


def _spell_out(value: object) -> bytes:
    """Any JSON value as bytes, keys sorted, however deep: the same for equal values."""
    pending, spelled = [value], []
    while pending:
        item = pending.pop()
        if type(item) is dict:
            spelled.append(f"{{{len(item)}")
            for key in sorted(item, reverse=True):
                pending += (item[key], key)
        elif type(item) is list:
            spelled.append(f"[{len(item)}")
            pending.extend(reversed(item))
        elif type(item) is int:
            spelled.append(f"{item:x}")
        else:
            spelled.append(repr(item))
    return "\n".join(spelled).encode("utf-8", "surrogatepass")


def _dedupe_key(
    parts: _Parts, location: str, event_id: str, header: str, canonical: bytes
) -> bytes:
    """The event's identity in 16 bytes: the hour of the provider's own time, then a hash.

    Made of the provider's raw words only: what rules derive from them may change with a
    version, and a changed key would store a replayed event twice. The hour comes first so that
    insertions stay together in the index.
    """
    mail = parts.mail
    time = _time(mail.get("timestamp", mail.get("@timestamp")))
    hour = -1 if time is None else time // _HOUR
    dated = 0 < hour < 2**32
    if event_id:
        identity = "\x00".join(
            (
                location,
                event_id,
                _raw(mail.get("event")),
                _raw(mail.get("severity")),
                header,
                _raw(mail.get("recipient")).strip().lower(),
                str(hour // 24) if dated else "undated",
            )
        ).encode("utf-8", "surrogatepass")
    else:
        identity = location.encode() + b"\x00" + canonical
    return (hour if dated else 0).to_bytes(4) + blake2b(identity, digest_size=12).digest()


def _raw(value: object) -> str:
    if type(value) is str:
        return value
    return "" if value is None else _spell_out(value).decode("utf-8", "surrogatepass")


def _content(canonical: bytes) -> int:
    return int.from_bytes(blake2b(canonical, digest_size=8).digest(), signed=True)


# --- Events ----------------------------------------------------------------------------------


def _mail_event(
    parts: _Parts, source_ref: str, received_at: int
) -> NormalizedEvent | NotUnderstood:
    mail, raw_tags = parts.mail, _raw_tags(parts.mail)
    location = _location(parts, raw_tags, source_ref)
    if not location:
        return NotUnderstood(reason="no location")
    detail = _detail(parts, location)
    kind = _kind(parts, detail.reason, detail.severity, detail.code)
    header = _unbracket(parts.headers.get("message-id"))
    message_id, message_id_from = _message_id(parts, header, detail.event_id, kind)
    recipient = _recipient(mail.get("recipient")) or _recipient(parts.headers.get("to"))
    if message_id_from or not (message_id and recipient):
        detail = _with_identity(detail, message_id, recipient, message_id_from)
    time = _time(mail.get("timestamp", mail.get("@timestamp")))
    delivered_at = _time(mail["delivered-at"]) if "delivered-at" in mail else None
    canonical = _canonical(parts)
    campaign_rank, campaign, campaign_name, step = _campaign(parts)
    domain = _recipient_domain(parts, recipient)
    provider, provider_rank = _provider(parts, detail.mx, domain)
    sending_domain, sending_domain_rank = _sending_domain(parts)
    event_id = _raw(mail.get("id")) if detail.event_id else ""
    return NormalizedEvent(
        kind=kind,
        key=_dedupe_key(parts, location, event_id, header, canonical),
        content=_content(canonical),
        location_ref=location,
        company_ref=_company(parts, raw_tags),
        app_id=_name(parts.wrapper.get("appId"), _REF),
        occurred_at=time if time is not None and _plausible(time, received_at) else received_at,
        time_marked=not _plausible(time, received_at),
        delivered_at=delivered_at if _plausible(delivered_at, received_at) else None,
        message_id=message_id,
        recipient=recipient,
        tags=_shown_tags(parts, raw_tags, message_id, recipient),
        campaign_rank=campaign_rank,
        campaign=campaign,
        campaign_name=campaign_name,
        step=step,
        provider=provider,
        provider_rank=provider_rank,
        domain=domain,
        sending_domain=sending_domain,
        sending_domain_rank=sending_domain_rank,
        test=detail.test,
        delayed_bounce=_is_delayed(parts, detail.reason),
        machine=(kind is EventKind.OPENED or kind is EventKind.CLICKED)
        and _is_machine(parts, detail.user_agent),
        detail=detail,
    )


def _is_delayed(parts: _Parts, reason: str) -> bool:
    return _truth(parts.flags.get("is-delayed-bounce")) or reason.lower() == "delayed-bounce"


def _is_machine(parts: _Parts, user_agent: str) -> bool:
    bot = parts.client.get("bot")
    named = bot.strip() if type(bot) is str else bot is True
    # Apple's and other proxies that fetch images ahead of people call themselves just this.
    return bool(named) or user_agent.strip() == "Mozilla/5.0"


def _with_identity(detail: Detail, message_id: str, recipient: str, source: str) -> Detail:
    """The detail of an event that no delivery can speak for, or whose message id is derived."""
    whole = bool(message_id and recipient)
    return msgspec.structs.replace(
        detail,
        message_id="" if whole else message_id,
        recipient="" if whole else recipient,
        message_id_from=source,
    )


def _detail(parts: _Parts, location: str) -> Detail:
    mail, status, envelope = parts.mail, parts.status, parts.envelope
    reject = _dict(mail.get("reject"))
    event_id = _name(mail.get("id"), _REF)
    code = _code(parts)
    message, description = _words(parts, reject)
    pool_name = _text(envelope.get("i-ip-pool-name"), _LABEL).strip()
    return Detail(
        event_id="" if event_id == location else event_id,
        word=_text(mail.get("event"), _WORD),
        severity=_text(mail.get("severity"), _WORD),
        reason=_text(mail.get("reason"), _LABEL) or _text(reject.get("reason"), _LABEL),
        code=code,
        enhanced=_enhanced(parts, code),
        message=message,
        description=description,
        bounce_type=_text(status.get("bounce-type"), _WORD),
        attempt=_count(status.get("attempt-no"), 32_767),
        session_seconds=_seconds(status.get("session-seconds")),
        first_attempt_seconds=_seconds(
            status.get(
                "i-first-delivery-attempt-seconds", status.get("first-delivery-attempt-seconds")
            )
        ),
        retry_seconds=_count(status.get("retry-seconds")),
        mx=_host(status.get("mx-host")),
        ip=_name(envelope.get("sending-ip"), _WORD),
        pool=_name(envelope.get("i-ip-pool-id"), _REF) or pool_name,
        pool_name=pool_name,
        tls=status["tls"] if type(status.get("tls")) is bool else None,
        url=_text(mail.get("url"), _URL),
        user_agent=_text(parts.client.get("user-agent") or mail.get("user-agent"), _AGENT),
        webhook_id=_name(parts.wrapper.get("webhookId"), _REF),
        form=parts.form,
        test=_truth(parts.flags.get("is-test-mode")) or _truth(parts.flags.get("is-system-test")),
    )


def _words(parts: _Parts, reject: dict[str, Any]) -> tuple[str, str]:
    """(The receiver's words, the provider's.) Of a message given up, the last reply's words."""
    status, mail = parts.status, parts.mail
    message = _text(status.get("message"), _TEXT) or _text(mail.get("error"), _TEXT)
    description = (
        _text(status.get("description"), _TEXT)
        or _text(mail.get("description"), _TEXT)
        or _text(reject.get("description"), _TEXT)
    )
    if last := _text(status.get("last-message"), _TEXT):
        return last, description or message
    return message, description


# --- Other webhooks --------------------------------------------------------------------------


def _app_event(payload: dict[str, Any], webhook_type: str, received_at: int) -> AppEvent:
    word, time = webhook_type.lower(), _time(payload.get("timestamp"))
    app_id = _name(payload.get("appId"), _REF)
    occurred_at = time if time is not None and _plausible(time, received_at) else received_at
    if word not in _APP_TYPES:
        return AppEvent(type=webhook_type, app_id=app_id, occurred_at=occurred_at)
    ids = ("id", "locationId") if word.startswith("location") else ("locationId",)
    return AppEvent(
        type=webhook_type,
        app_id=app_id,
        location_ref=next(filter(None, (_name(payload.get(key), _REF) for key in ids)), ""),
        location_name=_app_text(payload, "name") if word.startswith("location") else "",
        company_ref=_name(payload.get("companyId"), _REF),
        company_name=_app_text(payload, "companyName"),
        domain=_domain(payload.get("whitelabelDetails")),
        state={"install": "active", "uninstall": "gone"}.get(word, ""),
        occurred_at=occurred_at,
    )


# A name of the public DNS: no address, no port, no wildcard.
_DOMAIN = re.compile(
    r"(?=.{4,253}$)(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z][a-z0-9-]*[a-z0-9]"
)


def _domain(details: object) -> str | None:
    """The host name of a white label; "" for anything that is none, None where nothing is said."""
    if type(details) is not dict or type(details.get("domain")) is not str:
        return None
    host = details["domain"].strip().lower().removeprefix("https://").removesuffix("/")
    return host if _DOMAIN.fullmatch(host) else ""


def _app_text(payload: dict[str, Any], key: str) -> str:
    return _text(payload.get(key), _LABEL).strip()
