"""What became of the mail: sent = delivered + bounced + in flight, and what stands apart."""

from dataclasses import replace
from datetime import timedelta
from typing import Any, NamedTuple

from dashboard.filters import Filter
from dashboard.judging import gathered
from dashboard.names import name_of
from dashboard.pages.page import Asked, Region
from dashboard.pages.subject import by_provider, by_sending, counted, listed, whole_of
from dashboard.rates import Counts

NO_END_AFTER = timedelta(hours=24)  # mail in flight for longer has lost its last webhook


class Part(NamedTuple):
    """A count with its list. ``share`` is its width of all that was sent, in per cent."""

    name: str
    kind: str
    n: int
    url: str
    about: str
    share: str = "0"


_PARTS = (
    ("Delivered", "delivered", "Accepted by the receiving server, which is not yet the inbox"),
    ("Bounced", "bounced", "Refused for good, late bounces included"),
    ("In flight", "in_flight", "Queued or waiting for a retry: neither delivered nor bounced yet"),
    ("Moved on", "moved", "Tried here, decided elsewhere"),
)
_CLASSES = (
    ("bad address", "hard", "The address does not exist or takes no mail"),
    ("blocked", "block", "Refused for reputation, content, authentication or policy"),
    ("soft", "soft", "Given up after temporary trouble"),
    ("class unknown", "undetermined", "Bounced for a reason that tells no class"),
)
_APART = (
    ("Suppressed", "suppressed", "Not tried: the address had failed or opted out before"),
    ("Rejected", "rejected", "Not accepted for sending at all"),
    ("Orphans", "orphan", "Only opens, clicks or complaints are known of them: in no rate"),
    ("Unknown", "unknown", "Failures that cannot be read: in no rate"),
    ("Tests", "test", "Test mode: in no rate"),
)
_RATES = (
    ("Bad addresses", "hard_bounce_rate", "hard"),
    ("Provider blocks", "block_rate", "block"),
    ("Complaints where reported", "visible_complaint_rate", "visible_complained"),
)


def _load(asked: Asked) -> dict[str, Any]:
    filter, row = by_sending(asked), whole_of(asked)
    counts = row.counts

    def parts(known: tuple[tuple[str, str, str], ...]) -> list[Part]:
        return [
            Part(name, kind, n, listed(filter, kind) if n else "", about, _share(n, counts.sent))
            for name, kind, about in known
            for n in [getattr(counts, kind)]
        ]

    return {
        "sent": Part("Sent", "sent", counts.sent, listed(filter, "sent"), ""),
        "parts": [part for part in parts(_PARTS) if part.n or part.kind != "moved"],
        "classes": [part for part in parts(_CLASSES) if part.n],
        "apart": [*_apart(parts(_APART)), _no_end(asked, filter)],
        "rates": [
            {"label": label, "name": name, "row": row, "url": listed(filter, kind)}
            for label, name, kind in _RATES
        ],
        "gathered": _gathered(asked),
        "blind": counts.blind_share,
    }


def _share(n: int, sent: int) -> str:
    return f"{100 * n / sent:.2f}" if sent else "0"


def _apart(parts: list[Part]) -> list[Part]:
    """The usual ones always, the others where there are any."""
    return [part for part in parts if part.n or part.kind in ("suppressed", "orphan")]


def _no_end(asked: Asked, filter: Filter) -> Part:
    """Mail that is in flight for over a day."""
    cut = asked.now.replace(minute=0, second=0, microsecond=0) - NO_END_AFTER
    about = "In flight for over a day: its last webhook is lost, or it waits for very long"
    if filter.start and filter.start >= cut:
        return Part("No final event", "in_flight", 0, "", about)
    to = min(cut, filter.until) if filter.until else cut
    old = replace(filter, range="", since=filter.start, to=to)
    found: Counts = counted(asked, old)
    url = listed(old, "in_flight") if found.in_flight else ""
    return Part("No final event", "in_flight", found.in_flight, url, about)


def _gathered(asked: Asked) -> str:
    """``all blocks at Outlook``, where they come from one provider."""
    table = by_provider(asked)
    if table is None:
        return ""
    rows = table.rows
    found = gathered({row.key: (row.counts.block, row.counts.settled) for row in rows})
    if found is None:
        return ""
    where = name_of("provider", found.key)
    return f"{'all' if found.is_all else 'most'} blocks at {where}"


FUNNEL = Region("funnel", "dashboard/location/_funnel.html", _load, every=2)
