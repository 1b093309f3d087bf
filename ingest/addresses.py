"""How the name of a recipient, what stands before its @, is found in texts. Pure."""

import re
from functools import lru_cache
from urllib.parse import quote

_SHORT = 3  # names of fewer letters are words of every text, but for those before an @
_AT = r"(?=@|%40|=|&#64;)"


@lru_cache(maxsize=1024)
def name_in(recipient: str) -> re.Pattern[str]:
    """What finds a recipient's name in a text, whatever its case and however it is escaped.

    A short name only where an @ follows it.
    """
    name = recipient.rpartition("@")[0] or recipient
    forms = {name, quote(name), name.replace("+", " ")}
    any_of = "|".join(re.escape(form) for form in sorted(forms, key=len, reverse=True))
    after = r"(?![^\W_])" if len(name) >= _SHORT else _AT
    return re.compile(rf"(?<![^\W_])(?:{any_of}){after}", re.IGNORECASE)
