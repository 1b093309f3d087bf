"""The same mail in HighLevel's words and by its definitions, to lay beside its own statistics.

The definitions are those of its API (``/emails/locations/…/campaigns/stats``): sent is delivered,
accepted and bounced; opens, clicks, unsubscribes and complaints are shares of what was delivered,
bounces of what was sent. Where its pages disagree, both readings are given.
"""

from typing import Any, NamedTuple

from dashboard.pages.page import Asked, Region
from dashboard.pages.subject import by_sending, listed, whole_of
from dashboard.rates import Counts
from dashboard.templatetags.figures import percent


class Line(NamedTuple):
    """One of HighLevel's numbers: ``n`` mails are the lower reading, ``most`` the upper one."""

    name: str
    n: int
    most: int
    url: str
    share: str  # "" where HighLevel gives none
    about: str


# (HighLevel's word, our counts in the lower and the upper reading, of which mail it is a share)
_LINES = (
    ("Sent", ("sent",), (), "", "Delivered, accepted and bounced. Suppressed mail was not sent"),
    ("Accepted", ("in_flight",), (), "", "Still on its way: what we call in flight"),
    ("Delivered", ("delivered",), (), "sent", "Taken by the receiving server"),
    (
        "Hard bounces", ("hard",), ("bounced", "suppressed"), "sent",
        "Bad addresses only, or every permanent failure and suppressed mail too:"
        " its pages disagree",
    ),
    (
        "Soft bounces", ("deferred",), (), "sent",
        "Mails that were put off at least once. It may count each time",
    ),
    ("Complained", ("complained",), (), "delivered", "The same events, as providers report them"),
    (
        "Opened", ("opened",), (), "delivered",
        "Mails. Its Email Analytics counts every opening, its summaries count mails",
    ),
    ("Clicked", ("clicked",), (), "delivered", "Mails, by people and link scanners"),
    ("Unsubscribed", ("unsubscribed",), (), "delivered", "By the link of the mail"),
    ("Rejected", ("rejected",), (), "", "Not accepted for sending at all"),
)  # fmt: skip


def _load(asked: Asked) -> dict[str, Any]:
    counts = whole_of(asked).counts
    return {"lines": [_line(asked, counts, *line) for line in _LINES]}


def _line(
    asked: Asked,
    counts: Counts,
    name: str,
    least: tuple[str, ...],
    most: tuple[str, ...],
    of: str,
    about: str,
) -> Line:
    low = _sum(counts, least)
    high = _sum(counts, most or least)
    base = getattr(counts, of) if of else 0
    shares = dict.fromkeys(percent(min(1.0, n / base)) for n in (low, high)) if base else {}
    url = listed(by_sending(asked), least[0]) if low else ""
    return Line(name, low, high, url, " – ".join(shares), about)


def _sum(counts: Counts, names: tuple[str, ...]) -> int:
    return sum(getattr(counts, name) for name in names)


HIGHLEVEL = Region("highlevel", "dashboard/location/_highlevel.html", _load, every=10)
