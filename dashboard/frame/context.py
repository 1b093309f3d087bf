"""Who looks at a custom page, as HighLevel tells it: encrypted with the app's shared secret.

CryptoJS's passphrase form: base64 of ``Salted__``, eight bytes of salt and the ciphertext; AES-256
in CBC mode, key and IV drawn from the secret by OpenSSL's old derivation (MD5, one round). It has
no time, no nonce and no seal: whoever has seen one can send it again, so it is only ever taken over
HTTPS, and all that it names is checked against what webhooks told.
"""

import base64
import binascii
import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.padding import PKCS7

MOST = 8_192  # characters of a payload
_MAGIC = b"Salted__"
_ID = re.compile(r"[A-Za-z0-9_-]{1,60}")


class Unreadable(Exception):
    """A payload that was not made with our secret, or does not say who looks."""


@dataclass(frozen=True, slots=True)
class UserContext:
    """Somebody in HighLevel: of a company, or of one location (``location_ref``) alone."""

    user_ref: str
    company_ref: str
    location_ref: str  # where they are just now; "" at an agency's own level
    is_of_agency: bool
    is_admin: bool
    name: str


def read_context(payload: str, secret: str) -> UserContext:
    """The user context in a payload. Raises ``Unreadable``, whatever is wrong with it."""
    if len(payload) > MOST or not secret:
        raise Unreadable
    try:
        said = json.loads(_decrypted(base64.b64decode(payload, validate=True), secret))
    except (binascii.Error, ValueError, RecursionError) as error:
        raise Unreadable from error
    if type(said) is not dict or said.get("type") not in ("agency", "location"):
        raise Unreadable
    return UserContext(
        user_ref=_id(said.get("userId")),
        company_ref=_id(said.get("companyId")),
        location_ref=_id(said["activeLocation"]) if said.get("activeLocation") else "",
        is_of_agency=said["type"] == "agency",
        is_admin=said.get("role") == "admin",
        name=_shown(said.get("userName")),
    )


def _decrypted(raw: bytes, secret: str) -> str:
    """Raises ``ValueError`` for what this secret did not encrypt."""
    magic, salt, ciphertext = raw[:8], raw[8:16], raw[16:]
    if magic != _MAGIC:
        raise ValueError("not salted")
    drawn = previous = b""
    while len(drawn) < 48:
        mixed = previous + secret.encode() + salt
        previous = hashlib.md5(mixed, usedforsecurity=False).digest()
        drawn += previous
    decryptor = Cipher(algorithms.AES(drawn[:32]), modes.CBC(drawn[32:48])).decryptor()
    padded = decryptor.update(ciphertext) + decryptor.finalize()
    unpadder = PKCS7(128).unpadder()
    return (unpadder.update(padded) + unpadder.finalize()).decode()


def _id(value: Any) -> str:
    if type(value) is not str or not _ID.fullmatch(value):
        raise Unreadable
    return value


def _shown(value: Any) -> str:
    text = value if type(value) is str else ""
    return "".join(letter for letter in text if letter.isprintable()).strip()[:150]
