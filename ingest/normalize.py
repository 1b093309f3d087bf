"""Any payload form of a webhook, as one ``NormalizedEvent``. Pure; never raises on JSON.

Shapes and their traps: HighLevel's ``LCEmailStats`` wraps Mailgun's event object; white labels
document a flat form in Mailgun's older words.
"""

import msgspec

from ingest.vocabulary import EventKind


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

    The four named ones change the location; any other changes nothing (``location_ref`` "").
    """

    type: str
    app_id: str = ""
    location_ref: str = ""
    location_name: str = ""
    company_ref: str = ""
    company_name: str = ""
    state: str = ""  # "active", "gone" or "" for no change
    occurred_at: int = 0


class NotUnderstood(msgspec.Struct, frozen=True, kw_only=True):
    """Authentic, but not readable as any of the above; kept whole, with the reason."""

    reason: str
