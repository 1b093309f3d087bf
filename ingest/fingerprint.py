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
    r"|ipcheck|proofpoint|junkemailfilter|lashback|gbudb|0spam|psbl|dnsbl|dnsrbl|openspf"
    r"|(?<![a-z])gr[ae]y(?:list\w{0,4})?(?=[.\d-])"
)
# Codes of providers that say what happened; all else that mixes letters and digits is an id.
_STABLE = (
    r"s(?:775|777\d\d|2017062302|\d{4,5})|(?:as)?201806281|as\d{5,10}|tss?\d\d|bl\d\d|ph\d\d"
    r"|cs\d\d|hm\d\d|(?:rp|sc|dy|ou|vs)-?\d{3}|rl\d{6}|ipbl\d{1,6}|cxdns|ub\d\d|e\d{4}"
    r"|aup#[\w-]{1,12}|oxsus\d{4}(?:_\d{1,3})?|(?:lib|vir)_\d{3}|ofr_?\d{3}(?:_\d{1,3})?|lpn\d{3}(?:_\d{1,3})?"
    r"|(?:rtr|rly|dyn|hvu|con|dns):\w{2,3}|ib\d{3}|gl01|urlbl\d{1,5}|hme\d|[ri]\d|ipv[46]"
    r"|base64|utf-?8|sha-?256|md5|rfc-?\d{3,4}|tlsv?1(?:\.\d)?|8-?bit(?:mime)?"
    r"|\d(?:st|nd|rd|th)|[a-z]{1,3}\d{1,2}"
)
_KNOWN = re.compile(f"{_STABLE}|{_LIST.pattern}")
_ENHANCED = re.compile(r"[245]\.\d{1,3}\.\d{1,3}")
_BASIC = re.compile(r"[24-6]\d\d")  # Mailgun's own codes are past 600
_FIRST_BASIC = re.compile(r"(?<![\w.-])[4-6]\d\d(?![\w.])")
_FIRST_ENHANCED = re.compile(r"(?<![\w.])[45]\.\d{1,3}\.\d{1,3}(?![\w.]?\w)")
_BOTH = re.compile(r"([245]\d\d)[-#]{1,2}([245]\.\d{1,3}\.\d{1,3})")
_IP = re.compile(
    r"\d{1,3}(?:\.\d{1,3}){3}(?:[:/]\d{1,5})?"
    r"|(?:ipv6:)?[0-9a-f]{0,4}(?:(?::[0-9a-f]{0,4}){3,7}|::[0-9a-f]{0,4})(?:\.\d{1,3}){0,3}",
    re.IGNORECASE,
)
_QUAD = re.compile(r"\d{1,3}(?:\.\d{1,3}){3}")
_AMOUNT = re.compile(
    r"[.,:/+%-]*\d[\d.,:/+%-]*(?:[kmg]?i?b|bytes?|s|secs?|ms|m|mins?|h|d|z)?", re.IGNORECASE
)
# What Exchange and others sign with: "[host date id]", "[ip count]".
_TAG = re.compile(r"\[‹host› [^\[\]]{0,120}\]|\[‹host›\](?: \[‹host›\])+|\[‹ip› ‹n›\]")
_DATE = re.compile(
    r"(?:(?:mon|tue|wed|thu|fri|sat|sun)[a-z]{0,6},? )?"
    r"(?:‹n›,? (?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]{0,6}"
    r"|(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]{0,6} ‹n›),?(?: [+-]?‹n›){1,5}"
)
_HOST = re.compile(r"(?:[\w-]{1,63}\.){1,12}(?:[a-z][a-z0-9-]{1,23}|[A-Z][A-Z0-9-]{1,23})(?::\d+)?")
# Exchange's own words, which look like host names.
_EXCHANGE = re.compile(r"(?:resolver|storedrv|smtpsend|routing|transport|agent|queue)\.", re.I)
_PIECE = re.compile(r"[!#-&*+,\-./0-9:?@A-Z\\^_`a-z~]+")  # ASCII without quotes, brackets, ;=<>|
_ACCENT = re.compile("[\u0300-\u036f]")
_EDGE = ".,:-!?*#/\\_~+^`&"
_LINK = re.compile(r"(?:https?://|www\.)[^\s<>\"']+", re.IGNORECASE)
_TOPIC = re.compile(r"[?&]p=([A-Za-z]{4,40})\b")  # Google's links name what happened
# A number that counts something, though it looks like a code.
_COUNT = re.compile(
    r"(?<=.)(?<![\w.])[24-6]\d\d(?= (?:sec|min(?:ute)?s?\b|hour|day|byte|[km]i?b\b|messages|mails"
    r"|connections|recipients|times))"
)
_JOINED = re.compile("[:/,]")
_BREAK = re.compile(r"\\[nr]|<br ?/?>", re.IGNORECASE)
_LEAD = re.compile(r"(?:\s{0,9}(?:smtp|x-[a-z_-]{1,20});)+", re.IGNORECASE)


def fingerprint(detail: Detail) -> str:
    """The refusal that a reply stands for, at most 300 characters; "" when there is nothing.

    The basic and the enhanced code stand in front, from the reply where the payload names none.
    """
    words = plain(detail.message) or plain(detail.description)
    code, enhanced = codes(words)
    if _ENHANCED.fullmatch(detail.enhanced):
        enhanced = detail.enhanced
    front = [part for part in (str(detail.code or code or ""), enhanced) if part]
    rest = [word for word in words.split() if word.strip("#()-") not in front]
    return _cut(_tidy(" ".join([*front, *rest])), _KEPT)


def digest(text: str) -> bytes:
    """16 bytes that stand for a fingerprint."""
    return blake2b(text.encode(errors="surrogatepass"), digest_size=16).digest()


def codes(words: str) -> tuple[int | None, str]:
    """The first basic and the first enhanced code of a plain text; None and "" without."""
    basic = _FIRST_BASIC.search(words)
    enhanced = _FIRST_ENHANCED.search(words)
    return int(basic[0]) if basic else None, enhanced[0] if enhanced else ""


@lru_cache(maxsize=1024)
def plain(text: str) -> str:
    """A receiver's words as one lower-case line, with placeholders for what varies.

    Codes that the lines of a reply repeat are there once.
    """
    text = _BREAK.sub(" ", without_accents(text[:_LONGEST])).replace("...", "... ")
    lead = _LEAD.match(text)
    tokens = text[lead.end() if lead else 0 :].split()
    seen: set[str] = set()
    kept: list[str] = []
    for token in tokens:
        if not token.isalpha():
            if token[0].isdigit():
                token = _once(token, seen)
            token = _PIECE.sub(_replaced, _LINK.sub(_linked, token))
        if token:
            kept.append(token.lower())
    words = " ".join(without_accents(" ".join(kept)).split())
    return _cut(_tidy(words), _LONGEST)


def _tidy(words: str) -> str:
    """Dates, counts and signatures of several words as one, until none is left."""
    while True:
        tidied = _COUNT.sub(NUMBER, _DATE.sub(NUMBER, _TAG.sub(_signature, words)))
        if tidied == words:
            return words
        words = tidied


def _signature(match: re.Match[str]) -> str:
    return f"[{IP}]" if match[0].startswith(f"[{IP}") else f"[{HOST}]"


def without_accents(text: str) -> str:
    """Letters without accents, compatible forms as one, so that é, É and e are written alike."""
    if text.isascii():
        return text
    parts = unicodedata.normalize("NFKD", text.replace("’", "'"))
    return unicodedata.normalize("NFC", _ACCENT.sub("", parts))


def _once(token: str, seen: set[str]) -> str:
    """A code where it stands first, "" where it is repeated; other tokens as they are."""
    if both := _BOTH.fullmatch(token):
        new = [code for code in both.groups() if code not in seen]
        seen.update(both.groups())
        return " ".join(new)
    core = token.rstrip("-:")
    if _ENHANCED.fullmatch(core):
        repeated = core in seen
    elif _BASIC.fullmatch(core[:3]) and (core == token[:3] or token[3] == "-"):
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
        return re.sub("[^:,]+", _replaced, core) if set(":,") & set(core) else ADDRESS
    if _ENHANCED.fullmatch(core) or _BASIC.fullmatch(core) or _KNOWN.fullmatch(lower):
        return core
    if _AMOUNT.fullmatch(core) and not _QUAD.search(core):
        return ID if "-" in core and len(core) > 12 else NUMBER
    if _IP.fullmatch(core):
        return core if core.startswith("127.") else IP  # what a blocklist answers
    if _HOST.fullmatch(core) and not _EXCHANGE.match(core):
        return _list_or(HOST, lower)
    if _JOINED.search(core):
        return re.sub("[^:/,]+", _replaced, core)
    return _number_or_id(core)


def _list_or(placeholder: str, lower: str) -> str:
    found = _LIST.search(lower)
    return found[0] if found else placeholder


def _number_or_id(core: str) -> str:
    if not any(map(str.isdigit, core)):
        core = core.replace("_", " ")
        return core if _EXCHANGE.match(core) else core.replace(".", ". ")
    word, dot, _ = core.partition(".")
    if dot and len(word) > 5 and word.isalpha():
        return f"{word}.{ID}"  # "mcspamsignature.sa.9.0"
    return NUMBER if _AMOUNT.fullmatch(core) else ID


def _is_random(word: str) -> bool:
    """Whether a word of letters only is an id: long, and its case changes all the time."""
    if len(word) < 16:
        return False
    changes = sum(a.islower() and b.isupper() for a, b in zip(word, word[1:], strict=False))
    return changes * 4 > len(word)


def _cut(text: str, most: int) -> str:
    """At most so many characters, ending with a whole word where there is more than one."""
    if len(text) <= most:
        return text
    head, _, _ = text[: most + 1].rpartition(" ")
    return head or text[:most]
