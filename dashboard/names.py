"""What things are called on pages, and where their own pages are."""

from functools import lru_cache
from hashlib import blake2b

from django.urls import NoReverseMatch, get_script_prefix, reverse

from dashboard.tallies import REST_KEY
from ingest.vocabulary import NONE_KEY, Category


def name_of(by: str, key: str, label: str = "") -> str:
    """The name of a row of a table by location, campaign, tag and others."""
    if key == REST_KEY:
        return "All others"
    if key == NONE_KEY:
        return f"No {by.replace('_', ' ')}"
    if label and label != key:
        return label
    return campaign_name(key) if by == "campaign" else key


def campaign_name(key: str) -> str:
    """A name for a campaign that has none: ``workflow:91b8bbfe-9ce8…`` is ``Workflow 91b8bbfe``."""
    kind, _, ref = key.partition(":")
    return f"{kind.capitalize()} {ref[:8]}" if ref else key


def page_url(page: str, key: str, *, query: str = "") -> str:
    """The address of a location's or campaign's page; "" for ids that no address can hold."""
    url = path_of(page, key)
    return f"{url}?{query}" if url and query else url


def path_of(page: str, *keys: str) -> str:
    """The path of a page; "" where there is none, as for ids that no address can hold."""
    return _path_of(get_script_prefix(), page, keys)


# A page has hundreds of links, to few paths.
@lru_cache(maxsize=8192)
def _path_of(prefix: str, page: str, keys: tuple[str, ...]) -> str:
    try:
        return reverse(f"dashboard:{page}", args=keys)
    except NoReverseMatch:
        return ""


def row_id(table: str, key: str) -> str:
    """The DOM id of a row: keys hold any text, ids must not."""
    return f"{table}-{blake2b(key.encode(), digest_size=6).hexdigest()}"


# --- Refusals, in a few words ----------------------------------------------------------------

# Who can do something about a refusal, by a rule's ``fix_by``.
FIXERS = {
    "client_list": "your client's list",
    "client_dns": "your client's DNS",
    "content": "the campaign's content",
    "highlevel": "HighLevel's to fix",
    "receiver": "the receiver's to fix",
    "wait": "nobody: it passes",
}

CATEGORY_WORDS = {
    Category.NONE: "no reason given",
    Category.INVALID_RECIPIENT: "addresses that do not exist",
    Category.INACTIVE_MAILBOX: "disabled mailboxes",
    Category.DNS_ROUTING: "broken domains",
    Category.MAILBOX_FULL: "full mailboxes",
    Category.RATE_LIMITED: "too much at once",
    Category.GREYLISTED: "greylisting",
    Category.CONNECTION: "no connection",
    Category.SERVER_ERROR: "faults of the receiver",
    Category.MESSAGE_TOO_LARGE: "mail too large",
    Category.SPAM_CONTENT: "taken for spam",
    Category.REPUTATION_BLOCK: "sender's reputation",
    Category.AUTHENTICATION: "SPF, DKIM or DMARC",
    Category.POLICY: "the receiver's policy",
    Category.TLS: "encryption",
    Category.PROTOCOL_ERROR: "protocol errors",
    Category.SUPPRESSED: "addresses that failed before",
    Category.UNCLASSIFIED: "replies that no rule knows",
}
