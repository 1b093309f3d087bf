"""A refusal's category and class: the provider's own codes first, then words, then SMTP codes.

Pure. The tables hold facts of RFC 3463, 5248, 7372, 7505 and of providers' published lists.
Words come before codes because 550 and 5.7.1 stand for anything, and 5.2.1 is a disabled
mailbox to some and a busy one to others.
"""

import re
from functools import lru_cache

from ingest.normalize import NormalizedEvent
from ingest.vocabulary import FAILURES, BounceClass, Category, EventKind

_CLASSES = {
    Category.NONE: BounceClass.NONE,
    Category.INVALID_RECIPIENT: BounceClass.HARD,
    Category.INACTIVE_MAILBOX: BounceClass.HARD,
    # Hard only for a domain that is not there or takes no mail: see ``_class``.
    Category.DNS_ROUTING: BounceClass.SOFT,
    Category.MAILBOX_FULL: BounceClass.SOFT,
    Category.RATE_LIMITED: BounceClass.SOFT,
    Category.GREYLISTED: BounceClass.SOFT,
    Category.CONNECTION: BounceClass.SOFT,
    Category.SERVER_ERROR: BounceClass.SOFT,
    Category.MESSAGE_TOO_LARGE: BounceClass.SOFT,
    Category.SPAM_CONTENT: BounceClass.BLOCK,
    Category.REPUTATION_BLOCK: BounceClass.BLOCK,
    Category.AUTHENTICATION: BounceClass.BLOCK,
    Category.POLICY: BounceClass.BLOCK,
    Category.TLS: BounceClass.SOFT,
    Category.PROTOCOL_ERROR: BounceClass.SOFT,
    Category.SUPPRESSED: BounceClass.SUPPRESSED,
    Category.UNCLASSIFIED: BounceClass.UNDETERMINED,
}

# Codes that Mailgun makes itself: no receiver said anything.
_MAILGUN_CODES = {
    498: Category.DNS_ROUTING,
    499: Category.CONNECTION,
    680: Category.CONNECTION,
}
# Reasons that say it all, and those that stand only if the receiver's words say nothing.
_REASONS = {"greylisted": Category.GREYLISTED}
_WEAK_REASONS = {
    "espblock": Category.REPUTATION_BLOCK,
    "blacklisted": Category.REPUTATION_BLOCK,
    "old": Category.CONNECTION,
}

# In lower case, as the text then is. The first that matches decides, so the particular stands
# before the general: a mailbox that is "unavailable" because of an IP's reputation is a block,
# a "blocked" account is an inactive one.
_WORDS: tuple[tuple[Category, str], ...] = (
    # A blocklist that refuses to answer the receiver's resolver lists nobody.
    (Category.SERVER_ERROR, r"open resolver|127\.255\.255\.25"),
    (Category.GREYLISTED, r"gr[ea]y-?list"),
    (
        Category.MAILBOX_FULL,
        r"over ?quota|quota (?:exceeded|full|limit)|exceed\w* (?:\w+ )?(?:quota|storage)"
        r"|(?:mailbox|inbox|storage|disk) (?:is )?(?:almost )?full|out of storage"
        r"|insufficient (?:system )?storage|not enough storage",
    ),
    (
        Category.INACTIVE_MAILBOX,
        r"(?:account|mailbox|user|recipient|address)[^.]{0,40}\b(?:is|been|was|currently)? ?"
        r"(?:disabled|deactivated|inactive|suspended|frozen|expired|locked)"
        r"|(?:inactive|disabled|suspended|expired) (?:account|mailbox|user|recipient)"
        r"|account (?:is|has been) blocked|no longer (?:active|in use)",
    ),
    (
        Category.RATE_LIMITED,
        r"too many (?:messages|connections|recipients|emails|mails|concurrent|sessions|requests)"
        r"|rate[ -]?limit|throttl|receiving mail (?:too quickly|at a rate)|unusual rate"
        r"|sending (?:mail )?too fast|rate of (?:unsolicited|mail)|try again later.{0,20}limit",
    ),
    (
        Category.AUTHENTICATION,
        r"\b(?:dmarc|dkim|spf|ptr|fcrdns)\b|unauthenticated|reverse (?:dns|lookup)|rdns"
        r"|sender verif\w+ failed|domain of sender|sender (?:address )?rejected: domain"
        r"|authentication (?:checks? )?(?:failed|required by)",
    ),
    (
        Category.REPUTATION_BLOCK,
        r"reputation|black-?list|block-?list|block list|spamhaus|barracudacentral|spamcop|sorbs"
        r"|cloudmark|\bs3140\b|\bs3150\b|\btss0\d|banned sending ip|poor history"
        r"|(?:ip|ip address|host|network)[^\n]{0,60}?\b(?:is|been|was) (?:banned|blocked|listed)",
    ),
    (
        Category.SPAM_CONTENT,
        r"\bspam|unsolicited|virus|phish|malware|malicious|message content"
        r"|content (?:rejected|denied)|bulk mail|prohibited attachment|nature of the content"
        r"|looks like junk",
    ),
    (
        Category.INVALID_RECIPIENT,
        r"(?:user|mailbox|recipient|account|address|alias)[^\n]{0,80}?\b"
        r"(?:unknown|not (?:be )?found|doesn'?t exist|does not exist|not exist|invalid|unrouteable)"
        r"|(?:unknown|no such|invalid|non-?existent) (?:\w+ )?"
        r"(?:user|mailbox|recipient|account|address)"
        r"|(?:recipient|address) (?:address )?rejected: (?:user|undeliverable|access denied)"
        r"|as\(201806281\)|no mailbox (?:here|by that name)|doesn'?t have an? .{0,40}account"
        r"|mailbox unavailable|mailbox not available|not a valid (?:mailbox|user|recipient)"
        r"|address no longer|bad destination mailbox",
    ),
    (
        Category.MESSAGE_TOO_LARGE,
        r"message (?:is )?too (?:large|big)|message size|size limit|exceeds .{0,20}size",
    ),
    (Category.TLS, r"starttls|tls (?:is )?required|requires? tls|must use tls|encryption required"),
    (
        Category.DNS_ROUTING,
        r"relay(?:ing)? (?:access )?(?:denied|not (?:permitted|allowed))|unable to relay|nxdomain"
        r"|(?:domain|host)[^.]{0,30} (?:not found|does not exist|doesn'?t exist)|null ?mx"
        r"|no mx\b|does not accept mail|mail loop|too many hops|unrouteable",
    ),
    (
        Category.CONNECTION,
        r"timed? ?out|connection (?:refused|reset|lost|closed|dropped)|could not connect"
        r"|unable to connect|network is unreachable|no route to host",
    ),
)
_COMPILED = tuple((category, re.compile(pattern)) for category, pattern in _WORDS)
# Links name blocklists and "spam" pages whatever the refusal is about.
_LINK = re.compile(r"https?://\S+|www\.\S+")

# RFC 3463 subject and detail, whatever the class; providers' own three-digit details with them.
_ENHANCED: dict[str, Category] = {
    **dict.fromkeys(("1.0", "1.1", "1.3", "1.6"), Category.INVALID_RECIPIENT),
    **dict.fromkeys(("1.2", "1.10", "4.4", "4.6"), Category.DNS_ROUTING),
    **dict.fromkeys(("1.8", "7.20", "7.21", "7.22", "7.23", "7.24"), Category.AUTHENTICATION),
    **dict.fromkeys(("7.25", "7.26", "7.27", "7.29"), Category.AUTHENTICATION),
    **dict.fromkeys(("7.509", "7.515"), Category.AUTHENTICATION),
    **dict.fromkeys(("2.0", "2.1", "7.13"), Category.INACTIVE_MAILBOX),
    **dict.fromkeys(("2.2",), Category.MAILBOX_FULL),
    **dict.fromkeys(("2.3", "3.4"), Category.MESSAGE_TOO_LARGE),
    **dict.fromkeys(("1.4", "2.4", "3.0", "3.1", "3.2", "3.5", "4.3"), Category.SERVER_ERROR),
    **dict.fromkeys(("4.0", "4.1", "4.2", "4.7"), Category.CONNECTION),
    **dict.fromkeys(("4.5", "5.3", "7.28", "2.121", "2.122"), Category.RATE_LIMITED),
    **dict.fromkeys(("7.651", "7.652"), Category.RATE_LIMITED),
    **dict.fromkeys(("7.0", "7.1", "7.2", "7.8", "7.9", "7.12"), Category.POLICY),
    **dict.fromkeys(("7.124", "7.129", "7.133", "7.134", "7.135", "7.136"), Category.POLICY),
    **dict.fromkeys(("7.10", "7.11", "7.30", "4.317"), Category.TLS),
    **dict.fromkeys(("7.321", "7.322", "7.323", "7.324", "7.325"), Category.TLS),
    **dict.fromkeys(("7.511", "7.650"), Category.REPUTATION_BLOCK),
    **dict.fromkeys((f"7.{detail}" for detail in range(606, 650)), Category.REPUTATION_BLOCK),
    **dict.fromkeys(("1.7", "7.512"), Category.PROTOCOL_ERROR),
    **dict.fromkeys((f"5.{detail}" for detail in (0, 1, 2, 4, 5, 6)), Category.PROTOCOL_ERROR),
    **dict.fromkeys((f"6.{detail}" for detail in range(11)), Category.PROTOCOL_ERROR),
}

# Basic codes say little: 450, 550 and 554 are left to the words and the enhanced code.
_BASIC: dict[int, Category] = {
    421: Category.SERVER_ERROR,
    451: Category.SERVER_ERROR,
    452: Category.SERVER_ERROR,
    **dict.fromkeys((500, 501, 502, 503, 504, 555), Category.PROTOCOL_ERROR),
    **dict.fromkeys((521, 556), Category.DNS_ROUTING),
    523: Category.MESSAGE_TOO_LARGE,
    **dict.fromkeys((551, 553), Category.INVALID_RECIPIENT),
    552: Category.MAILBOX_FULL,
    602: Category.CONNECTION,
}

_NO_SUCH_DOMAIN = re.compile(
    r"nxdomain|null ?mx|does not accept mail"
    r"|(?:domain|host)[^.]{0,30} (?:not found|does not exist|doesn'?t exist)",
    re.IGNORECASE,
)
_NO_SUCH_DOMAIN_CODES = frozenset({"1.2", "1.10"})


def class_of(category: Category) -> BounceClass:
    """The class that a category has where nothing particular is known of the refusal."""
    return _CLASSES[category]


def classify(event: NormalizedEvent) -> tuple[Category, BounceClass]:
    """Why an event's mail was refused; (NONE, NONE) unless it is a failure."""
    if event.kind not in FAILURES:
        return Category.NONE, BounceClass.NONE
    if event.kind is EventKind.SUPPRESSED:
        return Category.SUPPRESSED, BounceClass.SUPPRESSED
    category = _category(event)
    return category, _class(event, category)


def _category(event: NormalizedEvent) -> Category:
    detail = event.detail
    reason = detail.reason.strip().lower()
    return (
        _REASONS.get(reason)
        or _MAILGUN_CODES.get(detail.code or 0)
        or _by_words(f"{detail.message}\n{detail.description}")
        or _ENHANCED.get(detail.enhanced[2:])
        or _WEAK_REASONS.get(reason)
        or _BASIC.get(detail.code or 0)
        or Category.UNCLASSIFIED
    )


@lru_cache(maxsize=1024)
def _by_words(text: str) -> Category | None:
    if text.isspace():
        return None
    text = _LINK.sub(" ", text.lower())
    return next((category for category, words in _COMPILED if words.search(text)), None)


def _class(event: NormalizedEvent, category: Category) -> BounceClass:
    if category is Category.DNS_ROUTING and event.kind is EventKind.BOUNCED:
        detail = event.detail
        if (
            detail.enhanced[2:] in _NO_SUCH_DOMAIN_CODES
            or detail.code == 556
            or _NO_SUCH_DOMAIN.search(f"{detail.message}\n{detail.description}")
        ):
            return BounceClass.HARD
    return class_of(category)
