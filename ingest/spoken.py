"""Recipients' names in what servers said, taken out before it becomes a refusal. Pure.

"user jane.doe unknown" is the same refusal whomever it met, and a list of refusals names nobody.
"""

import re
from collections import Counter
from functools import cache

import msgspec

from ingest.classify import BUILT_IN
from ingest.fingerprint import ADDRESS, fingerprint
from ingest.normalize import Detail

_SHORT = 3  # names of fewer letters are words of every text
_EXAMPLE = "ana"  # whom the rules' examples are about
_WORD = re.compile(r"[a-z]+")


def unnamed_fingerprint(detail: Detail, recipient: str) -> str:
    """The fingerprint of a reply, whomever it met."""
    name = recipient.rpartition("@")[0]
    if len(name) < _SHORT or name in _common_words():
        return fingerprint(detail)
    message, description = (_without(text, name) for text in (detail.message, detail.description))
    if (message, description) != (detail.message, detail.description):
        detail = msgspec.structs.replace(detail, message=message, description=description)
    return fingerprint(detail)


@cache
def _common_words() -> frozenset[str]:
    """What servers say of everybody: of mail to user@ or support@ it is no name."""
    said = (fingerprint(example.detail) for rule in BUILT_IN for example in rule.examples)
    words = Counter(word for text in said for word in {*_WORD.findall(text)})
    return frozenset(word for word, n in words.items() if n > 1 and word != _EXAMPLE)


def _without(text: str, name: str) -> str:
    """A text with a name replaced where it stands alone; an address is found as such.

    By hand: names are as many as recipients, too many to make patterns of.
    """
    folded = text.lower()
    at = folded.find(name)
    if at < 0 or len(folded) != len(text):
        return text
    parts, begin = [], 0
    while at >= 0:
        end = at + len(name)
        before, after = folded[at - 1 : at], folded[end : end + 1]
        if not (before.isalnum() or after.isalnum() or after == "@"):
            parts += [text[begin:at], ADDRESS]
            begin = end
        at = folded.find(name, end)
    return "".join([*parts, text[begin:]])
