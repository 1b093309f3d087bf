"""The text for a postmaster ticket: what a provider asks for before it looks at anything. Pure.

Who, from which addresses, since when to the second in UTC, how much, what was answered in full,
with message ids, and what was tried. Recipients are masked, in what servers said as well.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from dashboard.masking import hidden, masked

_NAMED = 8  # addresses of a kind


@dataclass(frozen=True)
class Reply:
    """One refusal as the receiver said it; texts are empty where unknown."""

    at: datetime
    said: str
    recipient: str = ""
    ip: str = ""
    pool: str = ""
    mx: str = ""
    message_id: str = ""
    temporary: bool = False


@dataclass(frozen=True)
class Ticket:
    """What is known of a refusal at one provider.

    ``ips``, ``pools`` and ``sending_domains`` come with how often each was refused; ``attempts``
    are all at that provider in the time, 0 if not known. Of ``start`` to ``end`` is the volume;
    ``first_at`` may lie before. What is not ``exact`` is an hour.
    """

    provider: str
    reason: str
    permanent: int
    temporary: int
    start: datetime | None
    end: datetime
    first_at: datetime
    last_at: datetime
    first_exact: bool = True
    last_exact: bool = True
    attempts: int = 0
    locations: int = 0
    ips: Sequence[tuple[str, int]] = ()
    pools: Sequence[tuple[str, int]] = ()
    sending_domains: Sequence[tuple[str, int]] = ()
    tried: Sequence[str] = ()
    replies: Sequence[Reply] = ()


def ticket_text(ticket: Ticket) -> str:
    """The whole text, ready to paste."""
    total = ticket.permanent + ticket.temporary
    who = ticket.provider or "The receiving server"
    facts = [
        ("Reply", _line(ticket.reason)),
        ("First seen", _when(ticket.first_at, exact=ticket.first_exact)),
        ("Last seen", _when(ticket.last_at, exact=ticket.last_exact)),
        ("Volume", _volume(ticket)),
        ("Share", _share(ticket, total)),
        ("Sending IPs", _list(ticket.ips)),
        ("IP pools", _list(ticket.pools)),
        ("Sending domains", _list(ticket.sending_domains)),
        ("Senders", f"{ticket.locations:,} of our customers" if ticket.locations > 1 else ""),
    ]
    lines = [
        f"Subject: {who} refuses our mail: {total:,} refusal{'s' * (total != 1)}"
        f" since {stamp(_since(ticket))}",
        "",
        f"{who} refuses mail that we send. Please tell us what has to change,"
        " or lift the refusal if it is in error.",
        "",
        *(f"{name}: {text}" for name, text in facts if text),
    ]
    if ticket.tried:
        lines += ["", "Tried so far:", *(f"- {sentence}" for sentence in ticket.tried)]
    if ticket.replies:
        lines += ["", f"{len(ticket.replies)} of the replies, times in UTC:"]
        for number, reply in enumerate(ticket.replies, start=1):
            lines += ["", *_reply(number, reply)]
    # Names come from outside: none of them begins a line, or a header where this is pasted.
    return "\n".join(" ".join(line.splitlines()) for line in lines)


def _since(ticket: Ticket) -> datetime:
    return max(ticket.first_at, ticket.start) if ticket.start else ticket.first_at


def stamp(moment: datetime) -> str:
    """``2026-11-22 10:14:07 UTC``."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _line(said: str) -> str:
    """What a server said on one line, with the addresses in it masked."""
    return hidden(" ".join(said.split()))


def _when(moment: datetime, *, exact: bool) -> str:
    if exact:
        return stamp(moment)
    return f"in the hour from {moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _volume(ticket: Ticket) -> str:
    kinds = ((ticket.permanent, "permanent"), (ticket.temporary, "temporary"))
    counted = ", ".join(f"{n:,} {word}" for n, word in kinds if n) or "none"
    bounds = f"until {stamp(ticket.end)}"
    if ticket.start:
        bounds = f"from {stamp(ticket.start)} {bounds}"
    return f"{counted}, {bounds}"


def _share(ticket: Ticket, total: int) -> str:
    if not ticket.attempts:
        return ""
    share = 100 * total / ticket.attempts
    return f"{share:.2g} % of {ticket.attempts:,} attempts at {ticket.provider or 'all providers'}"


def _list(named: Sequence[tuple[str, int]]) -> str:
    shown = ", ".join(f"{name} ({n:,})" for name, n in named[:_NAMED])
    more = len(named) - _NAMED
    return f"{shown} and {more:,} more" if more > 0 else shown


def _reply(number: int, reply: Reply) -> list[str]:
    way = f"from {reply.ip or 'an unknown IP'}"
    if reply.pool:
        way += f" (pool {reply.pool})"
    if reply.mx:
        way += f" to {reply.mx}"
    lines = [f"{number}. {stamp(reply.at)} {way}"]
    if reply.message_id:
        lines.append(f"   Message-ID: <{reply.message_id.strip('<>')}>")
    if reply.recipient:
        lines.append(f"   Recipient: {masked(reply.recipient)}")
    kind = "temporary" if reply.temporary else "permanent"
    lines.append(f"   Reply ({kind}): {_line(reply.said) or '(no words)'}")
    return lines
