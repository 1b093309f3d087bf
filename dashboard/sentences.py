"""What happened to a delivery and whose it is to fix, in a few plain sentences."""

from datetime import datetime, timedelta

from dashboard.explained import Explanation
from dashboard.queries import DeliveryRow
from ingest.vocabulary import Flag, Outcome

NO_END = timedelta(hours=24)  # in flight for longer: a webhook was lost

FIX = {
    "client_list": "Your client can fix it: the address does not belong on the list.",
    "client_dns": "Your client can fix it, in the DNS of the sending domain.",
    "content": "Who writes the mail can fix it: it is about what the mail says or links to.",
    "highlevel": "HighLevel can fix it; your client cannot.",
    "receiver": "Only the receiver can fix it; neither your client nor HighLevel can.",
    "wait": "Nobody has to do anything: it passes.",
}
FIXERS = {
    "client_list": "your client's list",
    "client_dns": "your client's DNS",
    "content": "the content",
    "highlevel": "HighLevel or its pool",
    "receiver": "the receiver",
    "wait": "nobody: wait",
}
SCOPES = {
    "recipient": "this recipient",
    "recipient_domain": "the recipient's domain",
    "sending_domain": "the sending domain",
    "ip_pool": "the sending IP or pool",
    "content": "the content",
    "message": "this message",
    "receiver": "the receiver itself",
}
_NOT_THE_ADDRESS = frozenset(SCOPES) - {"recipient", "recipient_domain"}


def sentences(
    delivery: DeliveryRow, failure: Explanation | None, ended: datetime | None, now: datetime
) -> str:
    """What happened, why, and who can fix it. ``ended``: when its last word came, in its zone."""
    told = [_what(delivery, ended, now)]
    if failure is not None and delivery.outcome != Outcome.DELIVERED:
        told += [failure.means, _address(failure), FIX.get(failure.fix_by, "")]
    return " ".join(sentence for sentence in told if sentence)


def _address(failure: Explanation) -> str:
    return "The address is not at fault." if failure.scope in _NOT_THE_ADDRESS else ""


def _what(delivery: DeliveryRow, ended: datetime | None, now: datetime) -> str:
    who = delivery.provider or delivery.domain or "The receiver"
    at = f" at {ended:%H:%M:%S} on {ended.day} {ended:%b %Y}" if ended else ""
    if delivery.outcome == Outcome.DELIVERED:
        return _delivered(delivery, who, at)
    if delivery.outcome == Outcome.BOUNCED:
        return _bounced(delivery, who, at)
    if delivery.outcome in (Outcome.DEFERRED, Outcome.ACCEPTED):
        return _in_flight(delivery, who, at, now)
    return _OTHERS[delivery.outcome].format(at=at)


def _delivered(delivery: DeliveryRow, who: str, at: str) -> str:
    if delivery.flags & Flag.INFERRED:
        told = f"{who} must have accepted this: there are signs of its arrival, but no receipt."
    else:
        told = f"{who} accepted this{at}. That is the receiving server, not yet the inbox."
    if delivery.flags & Flag.COMPLAINED:
        told += " The recipient marked it as spam."
    return told


def _bounced(delivery: DeliveryRow, who: str, at: str) -> str:
    if delivery.flags & Flag.LATE:
        return f"{who} accepted this and refused it afterwards{at}: a late bounce."
    if delivery.flags & Flag.RECOVERED:
        return f"{who} refused this{at}; a later try got through, but it counts as bounced."
    if delivery.flags & Flag.EXPIRED:
        return f"{who} put this off until the retries were used up{at}."
    return f"{who} refused this{at}."


def _in_flight(delivery: DeliveryRow, who: str, at: str, now: datetime) -> str:
    if delivery.outcome == Outcome.DEFERRED:
        told = f"{who} put this off{at}; it is tried again."
    else:
        told = f"Queued{at}; the receiver has not answered yet."
    if now - delivery.sent_at > NO_END:
        told += " That is over a day ago: a webhook with the end was probably lost."
    return told


_OTHERS = {
    Outcome.SUPPRESSED: "This was not sent{at}: the address is on a suppression list.",
    Outcome.REJECTED: "HighLevel's mail service did not take this{at}: nothing was sent.",
    Outcome.ORPHAN: (
        "Only opens, clicks or complaints are known of this: it was sent before Sendwatch watched,"
        " or its other webhooks were lost. It is in no rate."
    ),
    Outcome.UNKNOWN: "What happened to this is in words that Sendwatch does not know yet.",
    Outcome.TEST: "A test: it counts in no rate.",
}
