"""Believable mail for a demonstration: lives of messages as HighLevel's webhooks tell them.

Pure and seedable: no Django, no clock, no network. ``lives`` yields webhook bodies in the order
in which they are due; ``send_demo_events`` signs and posts them. Recipients are plainly
invented, sending domains end in ``.example`` and addresses come from the documentation ranges.
"""

import base64
import heapq
import math
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from random import Random
from typing import Any, NamedTuple

SECOND = 1_000_000  # all times here are whole microseconds, since 1970 or as a length
DAY = 24 * 3600 * SECOND
APP_ID = "6720c0ffee0ddba11ca5e001"
DUPLICATE_SHARE = 0.02
DISORDER_SHARE = 0.03
# Delays of the past are real ones; those of live lives are shortened so that a watcher sees
# a deferral end within a minute.
PAST_STRETCH = 20.0

Body = dict[str, Any]


class Reply(NamedTuple):
    """What a receiver (or Mailgun itself, codes 498 and above) answers; ``text`` is a template."""

    weight: float
    category: str
    code: int
    enhanced: str
    text: str


def _replies(*rows: tuple[float, str, int, str, str]) -> tuple[Reply, ...]:
    return tuple(Reply(*row) for row in rows)


@dataclass(frozen=True)
class Provider:
    """Who receives. ``bot`` names its machine that opens mail, ``bot_opens`` how often it does."""

    name: str
    weight: float
    domains: tuple[str, ...]
    mx: tuple[str, ...]
    hard: tuple[Reply, ...]
    soft: tuple[Reply, ...]
    block: tuple[Reply, ...]
    deferral: tuple[Reply, ...]
    reports: bool = False  # sends complaints back to the sender
    bot: str = ""
    bot_opens: float = 0.0


_BUSINESSES = tuple(
    f"{name}.example"
    for name in (
        "juniper-accounting", "oak-and-ember", "lakeside-legal", "redbrick-cafe", "polaris-freight",
        "meadow-vets", "ironwood-builders", "blue-door-realty", "tidal-fitness", "sage-interiors",
    )
)  # fmt: skip

_GOOGLE_HARD = _replies(
    (9, "invalid_recipient", 550, "5.1.1",
     "The email account {rcpt} was not found. Check the address for typing errors.\n"
     "5.1.1 https://support.google.com/mail/?p=NoSuchUser {token} - gsmtp"),
    (1.5, "inactive_mailbox", 550, "5.2.1",
     "The email account {rcpt} is disabled.\n"
     "5.2.1 https://support.google.com/mail/?p=DisabledUser {token} - gsmtp"),
)  # fmt: skip
_GOOGLE_SOFT = _replies(
    (1, "mailbox_full", 552, "5.2.2",
     "The recipient's inbox is out of storage space and takes no mail.\n"
     "5.2.2 https://support.google.com/mail/?p=OverQuotaPerm {token} - gsmtp"),
)  # fmt: skip
_GOOGLE_BLOCK = _replies(
    (4, "spam_content", 550, "5.7.1",
     "[{ip}] This message was blocked because it looks like unsolicited mail (spam).\n"
     "5.7.1 https://support.google.com/mail/?p=UnsolicitedMessageError {token} - gsmtp"),
    (2, "reputation_block", 550, "5.7.1",
     "[{ip}] Blocked because of the very low reputation of the sending domain {sender}.\n"
     "5.7.1 https://support.google.com/mail/answer/188131 {token} - gsmtp"),
    (2, "authentication", 550, "5.7.26",
     "Unauthenticated email from {sender} is not accepted due to the domain's DMARC policy.\n"
     "5.7.26 https://support.google.com/mail/?p=DmarcRejection {token} - gsmtp"),
)  # fmt: skip
_GOOGLE_DEFERRAL = _replies(
    (4, "rate_limited", 421, "4.7.28",
     "Unusual rate of mail from IP address [{ip}]; it is limited for a while.\n"
     "4.7.28 https://support.google.com/mail/?p=UnsolicitedRateLimitError {token} - gsmtp"),
    (3, "rate_limited", 450, "4.2.1",
     "The account {rcpt} is receiving mail too quickly. Please send it again later.\n"
     "4.2.1 https://support.google.com/mail/?p=ReceivingRate {token} - gsmtp"),
    (2, "mailbox_full", 452, "4.2.2",
     "The recipient's inbox is out of storage space.\n"
     "4.2.2 https://support.google.com/mail/?p=OverQuotaTemp {token} - gsmtp"),
)  # fmt: skip

PROVIDERS = (
    Provider(
        "Gmail", 44, ("gmail.com",),
        ("gmail-smtp-in.l.google.com", "alt1.gmail-smtp-in.l.google.com",
         "alt2.gmail-smtp-in.l.google.com"),
        _GOOGLE_HARD, _GOOGLE_SOFT, _GOOGLE_BLOCK, _GOOGLE_DEFERRAL,
        bot="gmail", bot_opens=0.10,
    ),
    Provider(
        "Google Workspace", 11, _BUSINESSES[:5],
        ("aspmx.l.google.com", "alt1.aspmx.l.google.com", "alt2.aspmx.l.google.com"),
        _GOOGLE_HARD, _GOOGLE_SOFT, _GOOGLE_BLOCK, _GOOGLE_DEFERRAL,
        bot="gmail", bot_opens=0.05,
    ),
    Provider(
        "Outlook", 13, ("outlook.com", "hotmail.com", "live.com", "msn.com"),
        ("{dashed}.olc.protection.outlook.com",),
        hard=_replies(
            (9, "invalid_recipient", 550, "5.5.0",
             "Requested action not taken: mailbox unavailable (S2017062302). [{node}]"),
        ),
        soft=_replies(
            (1, "mailbox_full", 552, "5.2.2", "Mailbox full: quota of {rcpt} exceeded. [{node}]"),
        ),
        block=_replies(
            (6, "reputation_block", 550, "5.7.1",
             "Messages from [{ip}] were not sent: part of their network is on our block list"
             " (S3150). Ask your provider to see the postmaster pages. [{node}]"),
            (1, "authentication", 550, "5.7.515",
             "Access denied, sending domain {sender} does not meet the required authentication"
             " level. [{node}]"),
        ),
        deferral=_replies(
            (3, "reputation_block", 451, "4.7.650",
             "The mail server [{ip}] is rate limited for now because of its IP reputation"
             " (S775). [{node}]"),
            (3, "rate_limited", 451, "4.7.652",
             "The mail server [{ip}] has exceeded the maximum number of connections (S3115)."
             " [{node}]"),
        ),
        reports=True,
    ),
    Provider(
        "Outlook 365", 10, _BUSINESSES[5:8], ("{dashed}.mail.protection.outlook.com",),
        hard=_replies(
            (5, "invalid_recipient", 550, "5.1.10",
             "RESOLVER.ADR.RecipientNotFound; recipient {rcpt} not found by SMTP address lookup"
             " [{node}]"),
            (4, "invalid_recipient", 550, "5.4.1",
             "Recipient address rejected: Access denied. [{node}]"),
        ),
        soft=_replies(
            (1, "mailbox_full", 554, "5.2.2",
             "STOREDRV.Deliver; the mailbox of {rcpt} is full (QuotaExceeded) [{node}]"),
        ),
        block=_replies(
            (3, "reputation_block", 550, "5.7.606",
             "Access denied, banned sending IP [{ip}]. (AS16012609) [{node}]"),
            (2, "policy", 550, "5.7.133",
             "RESOLVER.RST.SenderNotAuthenticatedForGroup; the group takes mail from inside"
             " only. [{node}]"),
            (2, "authentication", 550, "5.7.509",
             "Access denied, sending domain {sender} does not pass DMARC verification and has a"
             " DMARC policy of reject. [{node}]"),
        ),
        deferral=_replies(
            (4, "server_error", 451, "4.7.500",
             "Server busy. Please try again later from [{ip}]. (S77719) [{node}]"),
        ),
        bot="generic", bot_opens=0.12,
    ),
    Provider(
        "Yahoo", 10, ("yahoo.com", "aol.com", "ymail.com"),
        ("mta5.am0.yahoodns.net", "mta6.am0.yahoodns.net", "mta7.am0.yahoodns.net"),
        hard=_replies(
            (7, "invalid_recipient", 554, "",
             "delivery error: dd This user doesn't have a {domain} account ({rcpt}) [0]"
             " - mta{number}.mail.bf1.yahoo.com"),
            (3, "inactive_mailbox", 554, "",
             "delivery error: dd This mailbox is disabled (554.30). -"
             " mta{number}.mail.gq1.yahoo.com"),
        ),
        soft=_replies(
            (1, "mailbox_full", 552, "5.2.2", "The mailbox of this user is over quota ({rcpt})"),
        ),
        block=_replies(
            (3, "policy", 554, "5.7.9",
             "Message not accepted for policy reasons. See"
             " https://postmaster.yahooinc.com/error-codes"),
            (2, "reputation_block", 553, "5.7.1",
             "[BL21] Connections from {ip} are not accepted: the address is listed by Spamhaus."),
        ),
        deferral=_replies(
            (5, "reputation_block", 421, "4.7.0",
             "[TSS04] Messages from {ip} temporarily deferred due to unexpected volume or user"
             " complaints - 4.16.55.1"),
        ),
        reports=True,
    ),
    Provider(
        "Apple", 7, ("icloud.com", "me.com", "mac.com"),
        ("mx01.mail.icloud.com", "mx02.mail.icloud.com"),
        hard=_replies(
            (1, "invalid_recipient", 550, "5.1.1", "<{rcpt}>: user does not exist"),
        ),
        soft=_replies((1, "mailbox_full", 552, "5.2.2", "<{rcpt}>: user is over quota")),
        block=_replies(
            (1, "policy", 554, "5.7.1",
             "[CS01] Message rejected due to local policy. See"
             " https://support.apple.com/en-us/102322"),
            (1, "reputation_block", 550, "5.7.1",
             "[HM08] Mail from IP {ip} was rejected due to the reputation of its sender"),
        ),
        deferral=_replies(
            (1, "rate_limited", 450, "4.7.1", "[{ip}] too many messages, try again later"),
        ),
        bot="apple", bot_opens=0.80,
    ),
    Provider(
        "Comcast", 2, ("comcast.net",), ("mx1a1.comcast.net", "mx2h1.comcast.net"),
        hard=_replies(
            (1, "invalid_recipient", 550, "5.1.1", "<{rcpt}> recipient not known here [R3]"),
        ),
        soft=_replies(
            (1, "mailbox_full", 552, "5.2.2", "<{rcpt}> the mailbox is over its quota"),
        ),
        block=_replies(
            (1, "reputation_block", 554, "5.7.1",
             "{ip} found on one or more DNSBLs, see https://www.spamhaus.org/query/ip/{ip} [BL]"),
        ),
        deferral=_replies(
            (1, "rate_limited", 421, "4.1.0", "{ip} throttled, try again later [RL]"),
        ),
        reports=True,
    ),
    Provider(
        "Other", 3, _BUSINESSES[8:], ("mail.{domain}", "mx1.{domain}"),
        hard=_replies(
            (5, "invalid_recipient", 550, "5.1.1",
             "<{rcpt}>: Recipient address rejected: user unknown in virtual mailbox table"),
            (2, "dns_routing", 550, "5.1.2", "<{rcpt}>: Recipient rejected: domain not found"),
        ),
        soft=_replies(
            (1, "dns_routing", 550, "5.7.1", "<{rcpt}>: Relay access denied"),
            (2, "mailbox_full", 552, "5.2.2", "<{rcpt}>: quota exceeded (mailbox is full)"),
            (1, "message_too_large", 552, "5.3.4", "Message size exceeds the fixed limit"),
        ),
        block=_replies(
            (3, "reputation_block", 554, "5.7.1",
             "Service unavailable; client host [{ip}] blocked using zen.spamhaus.org;"
             " https://www.spamhaus.org/query/ip/{ip}"),
            (1, "spam_content", 550, "5.7.1", "Message scored as spam (BAYES_99, URIBL_BLACK)"),
        ),
        deferral=_replies(
            (5, "greylisted", 450, "4.2.0",
             "<{rcpt}>: Recipient address rejected: greylisted, try again in 60 seconds"),
            (2, "connection", 499, "", "Could not connect to any mail server of {domain}"),
            (1, "server_error", 451, "4.3.0", "Temporary lookup failure"),
        ),
    ),
)  # fmt: skip
_PROVIDER_WEIGHTS = [provider.weight for provider in PROVIDERS]


@dataclass(frozen=True)
class Health:
    """Shares of a location's mail. ``complaint`` is of what reaches providers that report."""

    hard: float
    soft: float = 0.002
    block: float = 0.003
    complaint: float = 0.0004
    deferral: float = 0.04
    suppressed: float = 0.004
    refused_at: tuple[str, ...] = ()  # providers that refuse more than a third of it


# By rank of size; all other locations are healthy, and the smallest is unlucky.
_TROUBLED = {
    1: Health(hard=0.008, refused_at=("Outlook",), deferral=0.06),
    2: Health(hard=0.034, soft=0.004),
    3: Health(hard=0.066, soft=0.005, block=0.006, suppressed=0.02),
    4: Health(hard=0.011, complaint=0.05, block=0.008),
    5: Health(hard=0.042, soft=0.003),
}
_TINY = Health(hard=0.2)
_REFUSED_SHARE = 0.36


@dataclass(frozen=True)
class MailSource:
    """A workflow, campaign or bulk action: what HighLevel names as the reason of a message."""

    email_type: str
    ref: str  # "" for one-to-one mail
    steps: tuple[str, ...]
    tags: tuple[str, ...]
    subjects: tuple[str, ...]


@dataclass(frozen=True)
class Pool:
    """A set of sending addresses that locations share."""

    ref: str
    name: str
    ips: tuple[str, ...]


POOLS = (
    Pool("65cc66e77a4d4f63649d3901", "shared-a", tuple(f"203.0.113.{n}" for n in range(10, 16))),
    Pool("65cc66e77a4d4f63649d3902", "shared-b", tuple(f"198.51.100.{n}" for n in range(20, 24))),
    Pool("65cc66e77a4d4f63649d3903", "dedicated-1", ("192.0.2.40", "192.0.2.41")),
)


@dataclass(frozen=True)
class DemoLocation:
    """A client's sub-account with its size, health and the mail that it sends."""

    ref: str
    name: str
    company_ref: str
    company_name: str
    weight: float
    health: Health
    sending_domain: str
    pool: Pool
    trickle: tuple[MailSource, ...]
    blasts: tuple[MailSource, ...]


_COMPANIES = ("Harborlight Marketing", "Copper & Pine Digital", "Tallgrass Media")
_NAMES = (
    "Summit Ridge Roofing", "Bright Smile Dental", "Evergreen Lawn Care", "Prime Lane Realty",
    "Ironclad Fitness", "Harbor Family Law", "Sunny Day Solar", "Blue Heron Med Spa",
    "Cedar Street Chiropractic", "Old Mill Auto Repair", "Happy Paws Grooming", "Maple Tax Group",
    "Northside Plumbing", "Velvet Rose Weddings", "Granite Peak Insurance", "Little Oaks Preschool",
    "Coastline Pools", "Red Lantern Kitchen", "Willow Creek Counseling", "Keystone Mortgage",
    "Bluebird Home Cleaning", "Anchor Physical Therapy", "Silver Fern Yoga", "Two Rivers Kayaks",
)  # fmt: skip
_PLACES = (
    "Aspen", "Birchwood", "Canyon", "Dogwood", "Eastgate", "Foxglove", "Glenview", "Hillcrest",
    "Indigo", "Juniper", "Kingsley", "Lakewood", "Magnolia", "Newport", "Orchard", "Pinehurst",
)  # fmt: skip
_TRADES = (
    "Dental", "Roofing", "Realty", "Fitness", "Med Spa", "Plumbing", "Law Group", "Landscaping",
    "Insurance", "Chiropractic", "Auto Care", "Photography", "Veterinary", "Solar", "Tutoring",
    "Catering", "Flooring", "Bookkeeping", "Pediatrics", "Travel",
)  # fmt: skip
_FIRST_NAMES = (
    "ana", "ben", "carla", "david", "elena", "frank", "grace", "hugo", "iris", "james", "kate",
    "liam", "maria", "noah", "olga", "paul", "quinn", "rosa", "sam", "tina", "uma", "victor",
    "wendy", "xena", "yusuf", "zoe",
)  # fmt: skip
_WORKFLOWS = (
    (("new-lead",), ("Thanks for reaching out", "A few questions before we start")),
    (("reminder",), ("Your appointment tomorrow", "See you in an hour")),
    (("review-request",), ("How did we do?", "One small favor")),
    (("nurture", "long-term"), ("Still thinking about it?", "What our clients say")),
    (("onboarding", "vip"), ("Welcome aboard", "Your first week with us")),
)
_CAMPAIGNS = (
    (("newsletter",), ("This month at a glance",)),
    (("promo", "spring"), ("20% off until Friday",)),
    (("reactivation", "2019-list"), ("We have not seen you in a while",)),
    (("event",), ("You are invited",)),
)


def _random(*seeds: object) -> Random:
    """Repeatable, not secret: nothing is protected by these ids."""
    return Random(" ".join(map(str, seeds)))  # noqa: S311


def _letters(rng: Random, length: int) -> str:
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
    return "".join(rng.choices(alphabet, k=length))


def _uuid(rng: Random) -> str:
    return str(uuid.UUID(int=rng.getrandbits(128), version=4))


def _name(index: int) -> str:
    if index < len(_NAMES):
        return _NAMES[index]
    rest = index - len(_NAMES)
    place, trade = _PLACES[rest % len(_PLACES)], _TRADES[rest // len(_PLACES) % len(_TRADES)]
    number = rest // (len(_PLACES) * len(_TRADES))
    return f"{place} {trade}" + (f" {number + 1}" if number else "")


def _health(index: int, size: int, rng: Random) -> Health:
    if size >= 8 and index == size - 1:
        return _TINY
    healthy = Health(hard=rng.uniform(0.004, 0.012), block=rng.uniform(0.001, 0.004))
    return _TROUBLED.get(index, healthy)


def _mail_source(rng: Random, email_type: str) -> MailSource:
    kinds = _WORKFLOWS if email_type == "workflow" else _CAMPAIGNS
    tags, subjects = rng.choice(kinds)
    steps = rng.randint(2, 5) if email_type == "workflow" else 0
    ref = _uuid(rng) if email_type == "workflow" else f"{rng.getrandbits(96):024x}"
    return MailSource(email_type, ref, tuple(_uuid(rng) for _ in range(steps)), tags, subjects)


def _location(index: int, size: int, rng: Random, company: tuple[str, str]) -> DemoLocation:
    name = _name(index)
    slug = "".join(letter for letter in name.lower() if letter.isalnum())
    health = _health(index, size, rng)
    one_to_one = MailSource("other", "", (), (), ("Re: your question", "Your estimate"))
    return DemoLocation(
        ref=_letters(rng, 20),
        name=name,
        company_ref=company[0],
        company_name=company[1],
        weight=(0.1 if health is _TINY else 1.0) / (index + 1) ** 0.9,
        health=health,
        sending_domain=f"{rng.choice(('mail', 'send', 'reply'))}.{slug}.example",
        pool=POOLS[1] if health.refused_at else rng.choices(POOLS, (6, 3, 1))[0],
        trickle=(*(_mail_source(rng, "workflow") for _ in range(rng.randint(1, 4))), one_to_one),
        blasts=tuple(_mail_source(rng, rng.choice(("campaign", "bulk"))) for _ in range(3)),
    )


def demo_locations(seed: int, size: int) -> tuple[DemoLocation, ...]:
    """The locations of a seed, largest first; the same whenever they are asked for."""
    rng = _random("locations", seed)
    companies = [(_letters(rng, 20), name) for name in _COMPANIES]
    return tuple(_location(i, size, rng, rng.choice(companies)) for i in range(size))


# --- One message ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Mail:
    """What all webhooks of one message share."""

    location: DemoLocation
    source: MailSource
    step: str
    subject: str
    provider: Provider
    recipient: str
    domain: str
    mx: str
    ip: str
    message_id: str
    email_message_id: str
    secret: str  # the opaque ciphertext that HighLevel sends along
    size: int


class Moment(NamedTuple):
    """One event of a message: ``at`` is its time after the start of the life."""

    at: int
    kind: str  # a key of ``_PARTS``
    reply: Reply | None = None
    attempt: int = 1
    machine: bool = False


def _mail(location: DemoLocation, source: MailSource, *, at: int, rng: Random, ids: Random) -> Mail:
    provider = rng.choices(PROVIDERS, _PROVIDER_WEIGHTS)[0]
    domain = rng.choice(provider.domains)
    person = f"{rng.choice(_FIRST_NAMES)}.demo{rng.randint(1, 9999):04d}"
    stamp = datetime.fromtimestamp(at / SECOND, UTC).strftime("%Y%m%d%H%M%S")
    return Mail(
        location=location,
        source=source,
        step=rng.choice(source.steps) if source.steps else "",
        subject=rng.choice(source.subjects),
        provider=provider,
        recipient=f"{person}@{domain}",
        domain=domain,
        mx=rng.choice(provider.mx).format(domain=domain, dashed=domain.replace(".", "-")),
        ip=rng.choice(location.pool.ips),
        message_id=f"{stamp}.{ids.getrandbits(64):016x}@{location.sending_domain}",
        email_message_id=_letters(ids, 20),
        secret=base64.b64encode(b"Salted__" + ids.randbytes(120)).decode(),
        size=rng.randint(9_000, 90_000),
    )


def _pick(rng: Random, replies: tuple[Reply, ...]) -> Reply:
    return rng.choices(replies, [reply.weight for reply in replies])[0]


def _fate(rng: Random, mail: Mail) -> str:
    """How a message ends: one draw against the shares of its location."""
    health = mail.location.health
    refused = mail.provider.name in health.refused_at
    shares = (
        ("suppressed", health.suppressed),
        ("rejected", 0.0004),
        ("hard", health.hard),
        ("soft", health.soft),
        ("block", _REFUSED_SHARE if refused else health.block),
    )
    draw = rng.random()
    for fate, share in shares:
        draw -= share
        if draw < 0:
            return fate
    return "delivered"


_SUPPRESSIONS = _replies(
    (7, "bounce", 605, "", "Not delivering: this address bounced before"),
    (4, "unsubscribe", 606, "", "Not delivering: the recipient has unsubscribed"),
    (1, "complaint", 607, "", "Not delivering: the recipient has complained"),
)
_TOO_OLD = Reply(1, "connection", 602, "", "Too old")
_LATE = _replies(
    (3, "invalid_recipient", 550, "5.1.1", "The user does not exist at the final host"),
    (2, "mailbox_full", 552, "5.2.2", "The final host says that the mailbox is full"),
)


def _deferrals(rng: Random, mail: Mail, *, most: int, stretch: float) -> list[Moment]:
    at, moments = 0, []
    for attempt in range(1, rng.randint(1, most) + 1):
        at += _seconds(rng.uniform(0.8, 3.0))
        moments.append(Moment(at, "deferred", _pick(rng, mail.provider.deferral), attempt))
        at += _seconds(rng.uniform(20, 60) * stretch)
    return moments


def _seconds(value: float) -> int:
    return int(value * SECOND)


def _attempts(rng: Random, mail: Mail, fate: str, stretch: float) -> list[Moment]:
    """Deferrals, if any, and the decisive answer of the receiver."""
    too_old = fate == "soft" and rng.random() < 0.3
    waits = too_old or rng.random() < mail.location.health.deferral
    moments = _deferrals(rng, mail, most=5 if too_old else 2, stretch=stretch) if waits else []
    at = _seconds(rng.uniform(0.6, 3.5))
    if moments:
        at += moments[-1].at + _seconds(rng.uniform(20, 60) * stretch)
    attempt = len(moments) + 1
    if fate == "delivered":
        return [*moments, Moment(at, "delivered", attempt=attempt)]
    reply = _TOO_OLD if too_old else _pick(rng, getattr(mail.provider, fate))
    return [*moments, Moment(at, "bounced", reply, attempt)]


def _opens(rng: Random, mail: Mail, at: int, stretch: float) -> Iterator[Moment]:
    if rng.random() < mail.provider.bot_opens:
        yield Moment(at + _seconds(rng.uniform(1, 25)), "opened", machine=True)
        if mail.provider.bot == "generic":  # a security scanner follows the links too
            yield Moment(at + _seconds(rng.uniform(2, 26)), "clicked", machine=True)
    if rng.random() >= 0.27:
        return
    opened = at + _seconds(rng.lognormvariate(3.6, 1.1) * stretch)
    yield Moment(opened, "opened")
    if rng.random() < 0.2:
        yield Moment(opened + _seconds(rng.uniform(30, 300) * stretch), "opened")
    if rng.random() < 0.14:
        yield Moment(opened + _seconds(rng.uniform(3, 40)), "clicked")
    if rng.random() < 0.015:
        yield Moment(opened + _seconds(rng.uniform(5, 60)), "unsubscribed")


def _aftermath(rng: Random, mail: Mail, at: int, stretch: float) -> Iterator[Moment]:
    """What follows a delivery: opens and clicks, a complaint, a bounce that comes late."""
    yield from _opens(rng, mail, at, stretch)
    if mail.provider.reports and rng.random() < mail.location.health.complaint:
        yield Moment(at + _seconds(rng.uniform(20, 180) * stretch), "complained")
    if rng.random() < 0.0015:
        yield Moment(at + _seconds(rng.uniform(15, 90) * stretch), "late", _pick(rng, _LATE))


def _life(rng: Random, mail: Mail, stretch: float) -> list[Moment]:
    fate = _fate(rng, mail)
    if fate == "rejected":
        return [Moment(0, "rejected")]
    accepted = Moment(0, "accepted")
    if fate == "suppressed":
        return [accepted, Moment(_seconds(0.4), "suppressed", _pick(rng, _SUPPRESSIONS))]
    attempts = _attempts(rng, mail, fate, stretch)
    last = attempts[-1]
    if last.kind != "delivered":
        return [accepted, *attempts]
    return [accepted, *attempts, *_aftermath(rng, mail, last.at, stretch)]


# --- Bodies ---------------------------------------------------------------------------------


def _iso(at: int) -> str:
    return datetime.fromtimestamp(at / SECOND, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def _status(mail: Mail, moment: Moment, rng: Random) -> Body:
    reply = moment.reply
    text = {
        "rcpt": mail.recipient, "ip": mail.ip, "domain": mail.domain,
        "sender": mail.location.sending_domain, "token": f"d2-{rng.getrandbits(52):013x}si",
        "node": f"BN8NAM1{rng.randint(0, 9)}FT{rng.randint(10, 99)}.protection.outlook.com",
        "number": rng.randint(4001, 4199),
    }  # fmt: skip
    own = reply is not None and reply.code >= 498 and reply.code not in range(500, 600)
    words = reply.text.format(**text) if reply else "OK"
    return {
        "attempt-no": moment.attempt,
        "code": reply.code if reply else 250,
        "message": "" if own else words,
        "description": words if own else "",
        "enhanced-code": reply.enhanced if reply else rng.choice(("", "2.0.0", "2.6.0")),
        "mx-host": "" if own else mail.mx,
        "session-seconds": round(rng.uniform(0.08, 2.4), 3),
        "i-first-delivery-attempt-seconds": round(rng.uniform(0.03, 0.3), 3),
        "utf8": True,
        "tls": True,
        "certificate-verified": True,
    }


def _envelope(mail: Mail, *, sent: bool) -> Body:
    pool = mail.location.pool
    envelope: Body = {
        "sender": f"hello@{mail.location.sending_domain}",
        "targets": mail.recipient,
        "transport": "smtp",
    }
    if sent:
        envelope |= {"sending-ip": mail.ip, "i-ip-pool-id": pool.ref, "i-ip-pool-name": pool.name}
    return envelope


def _attempted(mail: Mail, moment: Moment, rng: Random) -> Body:
    flags = dict.fromkeys(("is-routed", "is-big", "is-system-test", "is-test-mode"), False)
    return {
        "flags": {"is-authenticated": True, **flags, "is-delayed-bounce": False},
        "envelope": _envelope(mail, sent=True),
        "delivery-status": _status(mail, moment, rng),
        # Live traffic leaves it out now and then: the receiver is told by MX host then.
        "recipient-provider": None if rng.random() < 0.02 else mail.provider.name,
        "primary-dkim": f"lc1._domainkey.{mail.location.sending_domain}",
    }


def _accepted(mail: Mail, moment: Moment, rng: Random) -> Body:
    return {
        "method": "HTTP",
        "flags": {"is-authenticated": True, "is-test-mode": False},
        "envelope": _envelope(mail, sent=False),
        "delivery-status": None,
        "storage": {"key": _letters(rng, 24), "env": "production", "region": "us-west1"},
        "primary-dkim": f"lc1._domainkey.{mail.location.sending_domain}",
    }


def _failed(mail: Mail, moment: Moment, rng: Random, severity: str, reason: str) -> Body:
    return _attempted(mail, moment, rng) | {
        "severity": severity,
        "reason": reason,
        "log-level": "warn" if severity == "temporary" else "error",
    }


def _deferred(mail: Mail, moment: Moment, rng: Random) -> Body:
    greylisted = moment.reply is not None and moment.reply.category == "greylisted"
    part = _failed(mail, moment, rng, "temporary", "greylisted" if greylisted else "generic")
    part["delivery-status"]["retry-seconds"] = 300 * moment.attempt
    return part


_ESP_BLOCKS = frozenset({"reputation_block", "spam_content", "authentication"})


def _bounced(mail: Mail, moment: Moment, rng: Random) -> Body:
    category = moment.reply.category if moment.reply else ""
    if moment.reply is _TOO_OLD:
        part = _failed(mail, moment, rng, "permanent", "old")
        last = _pick(rng, mail.provider.deferral)
        words = _status(mail, moment._replace(reply=last), rng)
        last_words = words["message"] or words["description"]
        return _with_status(part, {"last-code": last.code, "last-message": last_words})
    reason = "espblock" if category in _ESP_BLOCKS and rng.random() < 0.6 else "bounce"
    hard = category in ("invalid_recipient", "inactive_mailbox", "dns_routing")
    part = _failed(mail, moment, rng, "permanent", reason)
    return _with_status(part, {"bounce-type": "hard" if hard else "soft"})


def _with_status(part: Body, more: Body) -> Body:
    part["delivery-status"] |= more
    return part


def _suppressed(mail: Mail, moment: Moment, rng: Random) -> Body:
    reason = f"suppress-{moment.reply.category}" if moment.reply else "suppress-bounce"
    part = _failed(mail, moment, rng, "permanent", reason)
    return part | {"envelope": _envelope(mail, sent=False)}


def _late(mail: Mail, moment: Moment, rng: Random) -> Body:
    part = _failed(mail, moment, rng, "permanent", "generic")
    part["flags"]["is-delayed-bounce"] = True
    status = part["delivery-status"]
    prose = f"Your message to {mail.recipient} could not be delivered. {status['message']}."
    more = {"message": "", "description": prose, "bounce-code": status["enhanced-code"]}
    return _with_status(part, more) | {"envelope": {}}


def _rejected(mail: Mail, moment: Moment, rng: Random) -> Body:
    return {
        "reject": {"reason": "Sending disabled", "description": "The domain may not send now"},
        "recipient": None,
        "log-level": "error",
    }


_BROWSERS = (
    ("Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 Mobile/15E148",
     "Mobile Safari", "iOS", "mobile browser", "mobile"),
    ("Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/141.0 Safari/537.36",
     "Chrome", "Windows", "browser", "desktop"),
    ("Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 Version/18.5 Safari",
     "Safari", "macOS", "browser", "desktop"),
)  # fmt: skip
_MACHINES = {
    "apple": ("Mozilla/5.0", "unknown", "unknown", "unknown", "unknown"),
    "gmail": ("Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com"
              " GoogleImageProxy)", "Firefox", "Windows", "browser", "desktop"),
    "generic": ("python-requests/2.32.3", "python-requests", "unknown", "library", "other"),
}  # fmt: skip
_CITIES = (
    ("Denver", "CO", "America/Denver"),
    ("Austin", "TX", "America/Chicago"),
    ("Tampa", "FL", "America/New_York"),
    ("Unknown", "Unknown", "America/Los_Angeles"),
)


def _engaged(mail: Mail, moment: Moment, rng: Random) -> Body:
    bot = mail.provider.bot if moment.machine else None
    agent, client, system, kind, device = _MACHINES[bot] if bot else rng.choice(_BROWSERS)
    city, region, zone = rng.choice(_CITIES)
    return {
        "ip": f"192.0.2.{rng.randint(60, 250)}",
        "client-info": {
            "client-name": client, "client-os": system, "client-type": kind,
            "device-type": device, "user-agent": agent, "bot": bot,
        },
        "geolocation": {"country": "US", "region": region, "city": city, "timezone": zone},
        "message": {"headers": {"message-id": mail.message_id}},
        "tags": _tenancy(mail),
    }  # fmt: skip


def _clicked(mail: Mail, moment: Moment, rng: Random) -> Body:
    page = rng.choice(("book", "offers", "reviews", "contact"))
    site = mail.location.sending_domain.partition(".")[2]
    return _engaged(mail, moment, rng) | {"url": f"https://www.{site}/{page}"}


def _unsubscribed(mail: Mail, moment: Moment, rng: Random) -> Body:
    return _engaged(mail, moment, rng) | {"tags": ["*"], "storage": []}


def _complained(mail: Mail, moment: Moment, rng: Random) -> Body:
    return {"envelope": {"sending-ip": mail.ip}, "tags": _tenancy(mail), "storage": []}


# The word that the provider uses, and what its body holds beside what all bodies hold.
_PARTS: dict[str, tuple[str, Callable[[Mail, Moment, Random], Body]]] = {
    "accepted": ("accepted", _accepted),
    "delivered": ("delivered", _attempted),
    "deferred": ("failed", _deferred),
    "bounced": ("failed", _bounced),
    "late": ("failed", _late),
    "suppressed": ("failed", _suppressed),
    "rejected": ("rejected", _rejected),
    "opened": ("opened", _engaged),
    "clicked": ("clicked", _clicked),
    "unsubscribed": ("unsubscribed", _unsubscribed),
    "complained": ("complained", _complained),
}


def _tenancy(mail: Mail) -> list[str]:
    return [f"loc_{mail.location.ref}", f"com_{mail.location.company_ref}"]


def _operations(mail: Mail) -> Body:
    """HighLevel's own addition: what the message belongs to. Ids only where there are any."""
    source = mail.source
    ids = {"email_type_id": source.ref, "email_type_step_id": mail.step}
    return {
        "domain": mail.location.sending_domain,
        "email_message_id": mail.email_message_id,
        "email_type": source.email_type,
        "lc_email_internal": mail.secret,
        "location_id": mail.location.ref,
        "company_id": mail.location.company_ref,
    } | {key: value for key, value in ids.items() if value}


def _headers(mail: Mail) -> Body:
    return {
        "message-id": mail.message_id,
        "from": f"{mail.location.name} <hello@{mail.location.sending_domain}>",
        "to": mail.recipient,
        "subject": mail.subject,
    }


def _app_body(type_: str, *, at: int, ids: Random, more: Body) -> Body:
    head = {"type": type_, "appId": APP_ID, "versionId": APP_ID, "timestamp": _iso(at)}
    return {**head, "webhookId": _uuid(ids), **more}


def _body(mail: Mail, moment: Moment, *, at: int, due: int, rng: Random, ids: Random) -> Body:
    """The whole webhook of one moment that happened ``at`` and is sent at ``due``."""
    word, part = _PARTS[moment.kind]
    payload = {
        "event": word,
        "id": _letters(ids, 22),
        "timestamp": at / SECOND,
        "log-level": "info",
        "recipient": mail.recipient,
        "recipient-domain": mail.domain,
        "tags": [*_tenancy(mail), f"et_{mail.source.email_type}", *mail.source.tags],
        "campaigns": [],
        "user-variables": {} if rng.random() < 0.5 else [],
        "message": {"headers": _headers(mail), "attachments": [], "size": mail.size},
        "lc-operations": _operations(mail),
    } | part(mail, moment, rng)
    tenant = {"locationId": mail.location.ref, "companyId": mail.location.company_ref}
    return _app_body("LCEmailStats", at=due, ids=ids, more={**tenant, "webhookPayload": payload})


# --- Traffic --------------------------------------------------------------------------------


@dataclass
class _Blast:
    """A campaign that is going out: most new mail belongs to it until ``left`` are sent."""

    location: DemoLocation
    source: MailSource
    left: int


@dataclass
class _Traffic:
    """The mail under way: a heap of what is due when, and what decides on new mail."""

    locations: tuple[DemoLocation, ...]
    rng: Random
    ids: Random
    heap: list[tuple[int, int, Callable[[int], Body]]] = field(default_factory=list)
    order: Iterator[int] = field(default_factory=count)
    blast: _Blast | None = None

    def __post_init__(self) -> None:
        self.weights = [location.weight for location in self.locations]

    def push(self, due: int, make: Callable[[int], Body]) -> None:
        heapq.heappush(self.heap, (due, next(self.order), make))

    def pop(self, at: int) -> Body:
        """What is due first, as sent ``at``; now and then it is planned once more."""
        body = heapq.heappop(self.heap)[2](at)
        if self.rng.random() < DUPLICATE_SHARE:
            self.push(at + _seconds(self.rng.uniform(0.5, 20)), lambda _at: body)
        return body

    def origin(self) -> tuple[DemoLocation, MailSource]:
        """Where the next message comes from: the running blast, or the steady trickle."""
        blast = self.blast
        if blast and self.rng.random() < 0.7:
            blast.left -= 1
            if blast.left <= 0:
                self.blast = None
            return blast.location, blast.source
        location = self.rng.choices(self.locations, self.weights)[0]
        if blast is None and self.rng.random() < 0.004:
            size = int(40 + 400 * location.weight)
            self.blast = _Blast(location, self.rng.choice(location.blasts), size)
        return location, self.rng.choice(location.trickle)

    def start_life(self, at: int, stretch: float) -> None:
        """Plan a message whose first webhook is due ``at``."""
        mail = _mail(*self.origin(), at=at, rng=self.rng, ids=self.ids)
        planned = [(m, m.at + self.delay()) for m in _life(self.rng, mail, stretch)]
        begin = at - min(due for _, due in planned)
        for moment, due in planned:
            self.push(begin + due, self.maker(mail, moment, begin + moment.at))

    def maker(self, mail: Mail, moment: Moment, at: int) -> Callable[[int], Body]:
        """Makes the body when it is due, so that what is under way stays small."""
        return lambda due: _body(mail, moment, at=at, due=due, rng=self.rng, ids=self.ids)

    def delay(self) -> int:
        """From an event to its webhook; now and then so long that the order breaks."""
        if self.rng.random() < DISORDER_SHARE:
            return _seconds(self.rng.uniform(4, 30))
        return _seconds(self.rng.uniform(0.1, 0.9))


def _introductions(traffic: _Traffic, at: int) -> Iterator[Body]:
    """INSTALL tells the company's name, LocationUpdate the location's."""
    for location in traffic.locations:
        company = {"companyId": location.company_ref, "companyName": location.company_name}
        install = {"installType": "Location", "locationId": location.ref, **company}
        update = {"id": location.ref, "companyId": location.company_ref, "name": location.name}
        update["email"] = f"hello@{location.sending_domain}"
        yield _app_body("INSTALL", at=at, ids=traffic.ids, more=install)
        yield _app_body("LocationUpdate", at=at, ids=traffic.ids, more=update)


def _wave(since: int) -> float:
    """How busy a time of the day was, around 1."""
    return 1 + 0.35 * math.sin(2 * math.pi * since / DAY)


def lives(
    seed: int,
    *,
    now: int,
    rate: float,
    locations: int = 24,
    history_hours: float = 0,
    history_events: int = 12_000,
    introduce: bool = True,
) -> Iterator[tuple[int, Body]]:
    """Webhooks without end: (when due, body), in that order; times are microseconds since 1970.

    First comes the past, ``history_hours`` back and at most ``history_events``, then ``rate``
    a second from ``now`` on: a new message starts only when nothing under way is due. The same
    arguments give the same webhooks; another ``now`` gives the same mail with other ids.
    """
    traffic = _Traffic(
        demo_locations(seed, locations), _random("lives", seed), _random("ids", seed, now)
    )
    clock = now - _seconds(history_hours * 3600)
    if introduce:
        yield from ((clock, body) for body in _introductions(traffic, clock))
    past_rate = min(rate, history_events / max(history_hours * 3600, 1))
    while True:
        past = clock < now
        pace = past_rate * _wave(clock - now) if past else rate
        step = _seconds(traffic.rng.expovariate(pace))
        clock = min(clock + step, now) if past else clock + step
        if not traffic.heap or traffic.heap[0][0] > clock:
            traffic.start_life(clock, PAST_STRETCH if past else 1.0)
        yield clock, traffic.pop(clock)
