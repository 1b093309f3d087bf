"""Recipients' addresses, hidden: by themselves, and in what servers said. Pure."""

import re

from ingest.addresses import name_in

DOTS = "•••"
# As it is written in replies, and in links with its sign escaped.
_ADDRESS = re.compile(r"([^\s<>()\[\]\"',;:=&?/]+)(@|%40)([^\s<>()\[\]\"',;:&?/]+)")


def masked(address: str) -> str:
    """``jane.doe@outlook.com`` as ``j•••@outlook.com``: the list's owner knows whom it means."""
    name, at, domain = address.rpartition("@") if "@" in address else (address, "", "")
    return f"{name[:1]}{DOTS}{at}{domain}" if address else ""


def hidden(text: str) -> str:
    """A text with the addresses in it masked."""
    return _ADDRESS.sub(lambda found: f"{found[1][:1]}{DOTS}{found[2]}{found[3]}", text)


def without(text: str, recipient: str) -> str:
    """A text without its recipient: addresses are masked, and so is the name that is before the @.

    Servers also say it alone ("user jane is unknown"), or inside of another address.
    """
    return unnamed(hidden(text), recipient)


def unnamed(text: str, recipient: str) -> str:
    """A text without the name before a recipient's @; what else looks like an address stays."""
    if not recipient or recipient.startswith("@"):
        return text
    return name_in(recipient).sub(lambda found: f"{found[0][:1]}{DOTS}", text)
