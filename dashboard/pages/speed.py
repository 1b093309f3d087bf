"""How fast the mail reaches the receiving servers, and at which attempt: of a sample, the newest.

From the times in the deliveries' facts: accepted by HighLevel's sender to delivered.
"""

from collections.abc import Sequence
from typing import Any

from dashboard.pages.later import Later
from dashboard.pages.page import Asked
from dashboard.pages.subject import mail_of, whole_of
from ingest.fold import Facts, load_facts
from ingest.vocabulary import EventKind

SAMPLE = 2_000  # delivered mails, the newest
AT_ONCE = 2_000  # mails of a campaign: among so many the newest are found at once
_MICROS = 1e6


def _load(asked: Asked) -> dict[str, Any]:
    mail = mail_of(asked, "delivered")
    if mail is None:
        return {"sampled": 0}
    newest = mail[1].order_by("-sent_at", "-id").values_list("facts", flat=True)[:SAMPLE]
    facts = [load_facts(packed) for packed in newest]
    took = sorted(filter(None, map(seconds, facts)))
    direct = sum(1 for each in facts if EventKind.DEFERRED not in each.first)
    return {
        "sampled": len(facts),
        "is_all": len(facts) < SAMPLE,
        "timed": len(took),
        "median": quantile(took, 0.5),
        "p95": quantile(took, 0.95),
        "direct": direct,
        "retried": len(facts) - direct,
        "direct_share": direct / len(facts) if facts else None,
    }


def seconds(facts: Facts) -> float | None:
    """From acceptance for sending to the receiving server; ``None`` where one end is not known."""
    accepted = facts.first.get(EventKind.ACCEPTED)
    delivered = facts.delivered_at or facts.first.get(EventKind.DELIVERED)
    if not accepted or not delivered or delivered < accepted:
        return None
    return (delivered - accepted) / _MICROS


def quantile(ordered: Sequence[float], part: float) -> float | None:
    """The value that this part of ordered values does not exceed; ``None`` of none."""
    if not ordered:
        return None
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def _is_quick(asked: Asked) -> bool:
    return asked.subject == "location" or whole_of(asked).counts.sent <= AT_ONCE


SPEED = Later("speed", "dashboard/location/_speed.html", _load, every=30, is_quick=_is_quick)
