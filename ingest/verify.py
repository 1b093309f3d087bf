"""Whether a webhook is HighLevel's: Ed25519, RSA, or a named source's HMAC, over the raw body.

Pure. Everything that is not plainly right is wrong: no check here raises on what came over
the wire, and a present ``X-GHL-Signature`` is never rescued by the older header.
"""

import base64
import hashlib
import hmac
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key
from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

ED25519_HEADER = "x-ghl-signature"
RSA_HEADER = "x-wh-signature"

# Both keys are platform-wide and published in HighLevel's "Webhook Integration Guide"
# (marketplace.gohighlevel.com/docs/webhook/WebhookIntegrationGuide, read on 2026-08-30).
HIGHLEVEL_ED25519_KEY = """\
-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAi2HR1srL4o18O8BRa7gVJY7G7bupbN3H9AwJrHCDiOg=
-----END PUBLIC KEY-----
"""
# The same guide; byte for byte the key of docs/oauth/WebhookAuthentication.md in
# github.com/GoHighLevel/highlevel-api-docs. HighLevel announced its end for 2026-09-01.
HIGHLEVEL_RSA_KEY = """\
-----BEGIN PUBLIC KEY-----
MIICIjANBgkqhkiG9w0BAQEFAAOCAg8AMIICCgKCAgEAokvo/r9tVgcfZ5DysOSC
Frm602qYV0MaAiNnX9O8KxMbiyRKWeL9JpCpVpt4XHIcBOK4u3cLSqJGOLaPuXw6
dO0t6Q/ZVdAV5Phz+ZtzPL16iCGeK9po6D6JHBpbi989mmzMryUnQJezlYJ3DVfB
csedpinheNnyYeFXolrJvcsjDtfAeRx5ByHQmTnSdFUzuAnC9/GepgLT9SM4nCpv
uxmZMxrJt5Rw+VUaQ9B8JSvbMPpez4peKaJPZHBbU3OdeCVx5klVXXZQGNHOs8gF
3kvoV5rTnXV0IknLBXlcKKAQLZcY/Q9rG6Ifi9c+5vqlvHPCUJFT5XUGG5RKgOKU
J062fRtN+rLYZUV+BjafxQauvC8wSWeYja63VSUruvmNj8xkx2zE/Juc+yjLjTXp
IocmaiFeAO6fUtNjDeFVkhf5LNb59vECyrHD2SQIrhgXpO4Q3dVNA5rw576PwTzN
h/AMfHKIjE4xQA1SZuYJmNnmVZLIZBlQAF9Ntd03rfadZ+yDiOXCCs9FkHibELhC
HULgCsnuDJHcrGNd5/Ddm5hxGQ0ASitgHeMZ0kcIOwKDOzOU53lDza6/Y09T7sYJ
PQe7z0cvj7aE4B+Ax1ZoZGPzpJlZtGXCsu9aTEGEnKzmsFqwcSsnw3JB31IGKAyk
T1hhTiaCeIY/OwwwNUY2yvcCAwEAAQ==
-----END PUBLIC KEY-----
"""


class Result(StrEnum):
    """What a check came to."""

    OK = "ok"
    MISSING = "missing"
    WRONG = "wrong"


class Scheme(StrEnum):
    """Which signature was looked at; ``NONE`` when there was none at all."""

    NONE = ""
    ED25519 = "ed25519"
    RSA = "rsa"


class Verdict(NamedTuple):
    """The outcome and its scheme. (MISSING, RSA): only the older header, and it is not allowed."""

    result: Result
    scheme: Scheme

    @property
    def ok(self) -> bool:
        """True only for a signature that verified."""
        return self.result is Result.OK


def collect_headers(raw: Iterable[tuple[bytes, bytes]], names: Collection[bytes]) -> dict[str, str]:
    """ASGI's header pairs of these lower-case names; what comes twice is joined by a comma."""
    headers: dict[str, str] = {}
    for raw_name, raw_value in raw:
        if raw_name.lower() in names:
            name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
            headers[name] = f"{headers[name]},{value}" if name in headers else value
    return headers


class Verifier:
    """Checks webhooks against HighLevel's keys. Built once; safe in any thread."""

    def __init__(
        self,
        ed25519_keys: Sequence[VerifyKey],
        rsa_keys: Sequence[RSAPublicKey] = (),
        *,
        allow_rsa: bool = False,
    ) -> None:
        self._ed25519_keys = tuple(ed25519_keys)
        self._rsa_keys = tuple(rsa_keys)
        self._allow_rsa = allow_rsa

    def verify(self, headers: Mapping[str, str], body: bytes) -> Verdict:
        """Whether any key signed exactly these bytes. ``headers`` by lower-case name."""
        value = header_value(headers, ED25519_HEADER)
        if value:
            right = self._is_ed25519(value, body)
            return Verdict(Result.OK if right else Result.WRONG, Scheme.ED25519)
        value = header_value(headers, RSA_HEADER)
        if not value:
            return Verdict(Result.MISSING, Scheme.NONE)
        if not self._allow_rsa:
            return Verdict(Result.MISSING, Scheme.RSA)
        return Verdict(Result.OK if self._is_rsa(value, body) else Result.WRONG, Scheme.RSA)

    def _is_ed25519(self, value: str, body: bytes) -> bool:
        signature = _unbase64(value)
        return len(signature) == 64 and any(
            _signed_ed25519(key, signature, body) for key in self._ed25519_keys
        )

    def _is_rsa(self, value: str, body: bytes) -> bool:
        signature = _unbase64(value)
        return any(_signed_rsa(key, signature, body) for key in self._rsa_keys)


def header_value(headers: Mapping[str, str], name: str) -> str:
    """The header's one value; "" if absent, empty or ``N/A``, and ``,`` if it has several."""
    value = headers.get(name, "").strip()
    if "," in value:
        values = {part.strip() for part in value.split(",")}
        # Two different values: no telling which one the sender meant, so neither will verify.
        value = values.pop() if len(values) == 1 else ","
    return "" if value.upper() == "N/A" else value


def _unbase64(value: str) -> bytes:
    """The bytes of strict, padded base64; none for anything else."""
    try:
        return base64.b64decode(value, validate=True)
    except ValueError:
        return b""


def _signed_ed25519(key: VerifyKey, signature: bytes, body: bytes) -> bool:
    try:
        key.verify(body, signature)
    except BadSignatureError:
        return False
    return True


def _signed_rsa(key: RSAPublicKey, signature: bytes, body: bytes) -> bool:
    if len(signature) * 8 != key.key_size:
        return False
    try:
        key.verify(signature, body, PKCS1v15(), SHA256())
    except InvalidSignature:
        return False
    return True


def verify_hmac(secret: str, value: str, body: bytes, encoding: str) -> bool:
    """Whether a header value is the body's HMAC-SHA256, ``encoding`` being "hex" or "base64".

    A ``sha256=`` in front is allowed. An empty secret verifies nothing. Raises ``ValueError``
    for another encoding.
    """
    if encoding not in ("hex", "base64"):
        raise ValueError(f"An HMAC is encoded as hex or base64, not as {encoding!r}.")
    value = value.strip()
    if value[:7].lower() == "sha256=":
        value = value[7:]
    digest = hmac.digest(secret.encode(), body, hashlib.sha256)
    if encoding == "hex":
        given, expected = value.lower().encode(errors="replace"), digest.hex().encode()
    else:
        given, expected = _unbase64(value), digest
    return hmac.compare_digest(given, expected) and bool(secret)


def load_ed25519_keys(text: str) -> list[VerifyKey]:
    """The Ed25519 keys of a setting: PEM text, or paths to PEM files, several one after another.

    HighLevel's published key if the text is empty. Raises ``ValueError`` with a sentence to show.
    """
    keys = []
    for key in _load_keys(text.strip() or HIGHLEVEL_ED25519_KEY):
        if not isinstance(key, Ed25519PublicKey):
            raise ValueError("One of the keys is a public key, but not an Ed25519 one.")
        keys.append(VerifyKey(key.public_bytes_raw()))
    return keys


def load_rsa_keys(text: str) -> list[RSAPublicKey]:
    """The RSA keys of a setting; see ``load_ed25519_keys``."""
    keys = []
    for key in _load_keys(text.strip() or HIGHLEVEL_RSA_KEY):
        if not isinstance(key, RSAPublicKey):
            raise ValueError("One of the keys is a public key, but not an RSA one.")
        keys.append(key)
    return keys


_PEM = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----(.*?)-----END \1-----", re.DOTALL)
_NEWLINE = re.compile(r"\\r|\\n|\s")  # escaped ones too: environment files hold one line a value


def _load_keys(text: str) -> list[object]:
    """Every key of the text itself and of the files that it names."""
    keys = [_load_key(label, body) for label, body in _PEM.findall(text)]
    for part in re.split(r"[,\n]", _PEM.sub("\n", text)):
        path = part.strip().strip("\"'")
        if _NEWLINE.sub("", path):
            keys += _load_file(path)
    if not keys:
        raise ValueError("There is no key in it: neither PEM text nor a path to a PEM file.")
    return keys


def _load_file(path: str) -> list[object]:
    if "-----" in path:
        raise ValueError("A PEM block is incomplete: it needs both its BEGIN and its END line.")
    try:
        blocks = _PEM.findall(Path(path).read_text(encoding="ascii"))
    except (OSError, ValueError):
        raise ValueError(
            f"{path[:80]!r} is neither PEM text nor a PEM file that can be read."
        ) from None
    if not blocks:
        raise ValueError(f"The file {path[:80]!r} holds no PEM block.")
    return [_load_key(label, body) for label, body in blocks]


def _load_key(label: str, body: str) -> object:
    if not label.endswith("PUBLIC KEY"):
        raise ValueError(f"A PEM block is a {label.lower()}; only public keys belong here.")
    try:
        return load_der_public_key(_unbase64(_NEWLINE.sub("", body)))
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("A PEM block is damaged: it holds no public key.") from None
