"""The message for a client: what went wrong with their mail, in words that they can act on. Pure.

Numbers, at most three addresses that nobody else could read off it, and a link. It names no IPs
and no codes, and blames nobody for what a provider does.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from dashboard.masking import masked

ADDRESSES = 3

_WHAT = {
    "hard": (
        "could not be delivered because the address is no longer good",
        "Please take old and unused addresses off your list, and send to people who have heard"
        " from you in the last months.",
    ),
    "blocks": (
        "were refused by the receiving servers",
        "We are looking at the reasons. Please send nothing large until you hear from us.",
    ),
    "complaints": (
        "were marked as spam by the people who got them",
        "Please send only to people who asked for your mail, and make it easy to unsubscribe.",
    ),
}
_LIMITS = {"hard": "5 %", "blocks": "5 %", "complaints": "0.3 %"}


@dataclass(frozen=True)
class Trouble:
    """What went wrong at one location. ``measure`` is one of ``hard``, ``blocks``, ``complaints``.

    ``provider`` is the one whose incident it is, "" if the mail itself is the cause.
    """

    name: str
    measure: str
    bad: int
    of: int
    period: str  # "24 hours"
    campaign: str = ""
    campaign_bad: int = 0
    provider: str = ""
    addresses: Sequence[str] = ()
    url: str = ""


def client_message(trouble: Trouble) -> str:
    """The whole message, ready to paste."""
    what, please = _WHAT[trouble.measure]
    share = f"{100 * trouble.bad / trouble.of:.3g} %" if trouble.of else "some"
    lines = [
        f"Hello {trouble.name},",
        "",
        f"{trouble.bad:,} of your last {trouble.of:,} emails ({share}, last {trouble.period})"
        f" {what}.",
    ]
    if trouble.provider:
        lines.append(
            f"The cause is on {trouble.provider}'s side and not your list:"
            " other senders are hit too. You need not do anything; we will tell you"
            " when it is over."
        )
    else:
        if trouble.campaign and trouble.campaign_bad:
            lines.append(f"{trouble.campaign_bad:,} of them come from “{trouble.campaign}”.")
        lines.append(f"HighLevel stops sending at {_LIMITS[trouble.measure]}. {please}")
    if shown := [masked(address) for address in trouble.addresses[:ADDRESSES]]:
        lines.append(f"For example: {', '.join(shown)}")
    if trouble.url:
        lines += ["", f"All the numbers: {trouble.url}"]
    return "\n".join(lines)
