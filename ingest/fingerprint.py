"""A refusal with what varies taken out, so that the same refusal is one row everywhere.

Pure. ``plain`` makes receivers' words comparable: one line, lower case, placeholders for
addresses, hosts, numbers and ids. ``fingerprint`` is that with the codes in front.
"""

import re
import unicodedata
from functools import lru_cache
from hashlib import blake2b

from ingest.normalize import Detail

ADDRESS, HOST, IP, ID, LINK, NUMBER = "‹address›", "‹host›", "‹ip›", "‹id›", "‹link›", "‹n›"

_LONGEST = 2000  # characters of a text that are looked at
_KEPT = 300  # characters of a fingerprint

# Blocklists and their like keep their names: who lists whom is the point of a refusal.
_LIST = re.compile(
    r"spamhaus|barracudacentral|spamcop|sorbs|spamrats|abuseat|uceprotect|surriel|invaluement"
    r"|mailspike|manitu|spfbl|abusix|surbl|uribl|senderscore|senderbase|talosintelligence"
    r"|trustedsource|cloudmark|trendmicro|nordspam|blocklist|dronebl|backscatterer|truncate"
    r"|ipcheck|proofpoint|junkemailfilter|lashback|gbudb|0spam|psbl|dnsbl|dnsrbl"
)
# Codes of providers that say what happened; all else that mixes letters and digits is an id.
_STABLE = re.compile(
    r"s(?:775|777\d\d|2017062302|\d{4,5})|(?:as)?201806281|as\d{5,10}|tss?\d\d|bl\d\d|ph\d\d"
    r"|cs\d\d|hm\d\d|(?:rp|sc|dy|ou|vs)-?\d{3}|rl\d{6}|ipbl\d{1,6}|cxdns|ub\d\d|e\d{4}"
    r"|aup#[\w-]{1,12}|oxsus\d{4}(?:_\d{1,3})?|ofr_?\d{3}(?:_\d{1,3})?|lpn\d{3}(?:_\d{1,3})?"
    r"|(?:rtr|rly|dyn|hvu|con|dns):\w{2,3}|ib\d{3}|gl01|urlbl\d{1,5}|hme\d|[ri]\d|ipv[46]|base64|utf-?8|sha-?256|md5|rfc-?\d{3,4}|tlsv?1(?:\.\d)?|8-?bit(?:mime)?"
    r"|\d(?:st|nd|rd|th)|[a-z]{1,3}\d{1,2}"
)
_ENHANCED = re.compile(r"[245]\.\d{1,3}\.\d{1,3}")
_BASIC = re.compile(r"[245]\d\d")
_BOTH = re.compile(r"([245]\d\d)[-#]{1,2}([245]\.\d{1,3}\.\d{1,3})")
_IP = re.compile(
    r"\d{1,3}(?:\.\d{1,3}){3}(?:[:/]\d{1,5})?|(?:ipv6:)?[0-9a-f]{0,4}(?::[0-9a-f]{0,4}){2,7}",
    re.IGNORECASE,
)
_ADDRESS = re.compile(r"[^@:]*@[^@:]*")
_HOST = re.compile(r"(?:[\w-]{1,63}\.){1,12}(?:[a-z][a-z0-9-]{1,23}|[A-Z][A-Z0-9-]{1,23})(?::\d+)?")
# Exchange's own words, which look like host names.
_EXCHANGE = re.compile(r"(?:resolver|storedrv|smtpsend|routing|transport|agent|queue)\.", re.I)
_PIECE = re.compile(r"[!#-&*+\-./0-9:?@A-Z\\^_`a-z~]+")  # ASCII without quotes, brackets, ,;=<>|
_ACCENT = re.compile("[\u0300-\u036f]")
_EDGE = ".:-!?*#/\\_~+^`&"
_LINK = re.compile(r"(?:https?://|www\.)[^\s<>\"']+", re.IGNORECASE)
_TOPIC = re.compile(r"[?&]p=([A-Za-z]{4,40})\b")  # Google's links name what happened
_UNIT = re.compile(
    r"(?:sec|min(?:ute)?s?\b|hour|day|byte|[km]i?b\b|messages|mails|connections|recipients|times)"
)
_LEAD = re.compile(r"\s{0,9}(?:(?:smtp|x-[a-z]{1,12});\s{0,3})")


def fingerprint(detail: Detail) -> str:
    """The refusal that a reply stands for, at most 300 characters; "" when there is nothing.

    The basic and the enhanced code stand in front, from the reply where the payload names none.
    """
    words = plain(detail.message) or plain(detail.description)
    code, enhanced = codes(words)
    front = [str(detail.code or code or ""), detail.enhanced or enhanced]
    rest = words.split(" ")
    while rest and rest[0].strip("#()-") in front:
        rest.pop(0)
    return _cut(" ".join(filter(None, [*front, *rest])))


def digest(text: str) -> bytes:
    """16 bytes that stand for a fingerprint."""
    return blake2b(text.encode(errors="surrogatepass"), digest_size=16).digest()


def codes(words: str) -> tuple[int | None, str]:
    """The first basic and the first enhanced code of a plain text; None and "" without."""
    basic = re.search(r"(?<![\w.-])[45]\d\d(?![\w.])", words)
    enhanced = re.search(r"(?<![\w.])[45]\.\d{1,3}\.\d{1,3}(?![\w.]?\w)", words)
    return int(basic[0]) if basic else None, enhanced[0] if enhanced else ""


@lru_cache(maxsize=1024)
def plain(text: str) -> str:
    """A receiver's words as one lower-case line, with placeholders for what varies.

    Codes that the lines of a reply repeat are there once.
    """
    text = without_accents(text[:_LONGEST]).replace("\\n", "\n").replace("<br>", " ")
    text = text.replace("...", "... ")
    tokens = _LEAD.sub("", text, count=1).split()
    seen: set[str] = set()
    kept: list[str] = []
    for token, after in zip(tokens, [*tokens[1:], ""], strict=False):
        if not token.isalpha():
            if token[0].isdigit():
                token = _counted(token, after, seen)
            token = _PIECE.sub(_replaced, _LINK.sub(_linked, token))
        if token:
            kept.append(token.lower())
    return " ".join(kept)


def without_accents(text: str) -> str:
    """Letters without accents, compatible forms as one, so that é, É and e are written alike."""
    if text.isascii():
        return text
    parts = unicodedata.normalize("NFKD", text.replace("’", "'"))
    return unicodedata.normalize("NFC", _ACCENT.sub("", parts))


def _counted(token: str, after: str, seen: set[str]) -> str:
    """A code where it stands first, "" where it is repeated, a number that counts as such."""
    if both := _BOTH.fullmatch(token):
        new = [code for code in both.groups() if code not in seen]
        seen.update(both.groups())
        return " ".join(new)
    core = token.rstrip("-:")
    if _ENHANCED.fullmatch(core):
        repeated = core in seen
    elif _BASIC.fullmatch(core[:3]) and (core == token[:3] or token[3] == "-"):
        if _UNIT.match(after.lower()):
            return NUMBER
        core, token = core[:3], token.replace("-", " ", 1).rstrip()
        repeated = core in seen
    else:
        return token
    seen.add(core)
    return token[len(core) :].lstrip(" -:") if repeated else token


def _linked(match: re.Match[str]) -> str:
    topic = _TOPIC.search(match[0])
    return f"‹link:{topic[1]}›" if topic else _list_or(LINK, match[0].lower())


def _replaced(match: re.Match[str]) -> str:
    piece = match[0]
    if piece.isalpha():
        return ID if _is_random(piece) else piece
    core = piece.strip(_EDGE)
    if not core or core.isalpha():
        return piece
    start = piece.index(core)
    return piece[:start] + _placeholder(core) + piece[start + len(core) :]


def _placeholder(core: str) -> str:
    lower = core.lower()
    if "@" in core:
        return _ADDRESS.sub(ADDRESS, core)
    if _ENHANCED.fullmatch(core) or _BASIC.fullmatch(core) or _STABLE.fullmatch(lower):
        return core
    if _IP.fullmatch(core):
        return core if core.startswith("127.") else IP  # what a blocklist answers
    if _HOST.fullmatch(core) and not _EXCHANGE.match(core):
        return _list_or(HOST, lower)
    if ":" in core or "/" in core:
        return re.sub(r"[^:/]+", lambda part: _placeholder(part[0]), core)
    return _number_or_id(core)


def _list_or(placeholder: str, lower: str) -> str:
    found = _LIST.search(lower)
    return found[0] if found else placeholder


def _number_or_id(core: str) -> str:
    if not any(map(str.isdigit, core)):
        return core.replace("_", " ")
    word, dot, _ = core.partition(".")
    if dot and len(word) > 5 and word.isalpha():
        return f"{word}.{ID}"  # "mcspamsignature.sa.9.0"
    return NUMBER if not re.search("[A-Za-z]{3}", core) and core[0].isdigit() else ID


def _is_random(word: str) -> bool:
    """Whether a word of letters only is an id: long, and its case changes all the time."""
    if len(word) < 16:
        return False
    changes = sum(a.islower() and b.isupper() for a, b in zip(word, word[1:], strict=False))
    return changes * 4 > len(word)


def _cut(text: str) -> str:
    """At most 300 characters, ending with a whole word where there is more than one."""
    if len(text) <= _KEPT:
        return text
    head, _, _ = text[: _KEPT + 1].rpartition(" ")
    return head or text[:_KEPT]
