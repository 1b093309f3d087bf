"""User contexts, encrypted as HighLevel encrypts them."""

import base64
import hashlib
import json
import os
from typing import Any

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

SECRET = "a shared secret"
# printf %s '{"userId":…}' | openssl enc -aes-256-cbc -md md5 -salt -pass 'pass:a shared secret'
#     -base64 -A
BY_OPENSSL = (
    "U2FsdGVkX1+RlWS2p+GxZiNtBYy57LCUcxjpGCv056cGSN+jbHIWPuNob1YXGY/wn61tm3tmFj7dp5Px3czOJodGvNnp"
    "nA3xvbGZMyohjw7HSQ+cTFJjidt4Kjn2NrowKIZGHj+ojsmyYfM4FsGnN7BYz9xuA8JOourhdOOI75qDfWjHU1MvtjR7"
    "8482v3W3ndGz0xNlffLWzNVUAKifJYt+BUj4UAfiPoRwp56kV9gh9L43cZkHyP00fkljygA7R6YqrohBc7mgZprbuL8Z"
    "Wo5Oen19mrDos1iT2213Hyo="
)


def context(**changes: Any) -> dict[str, Any]:
    """What HighLevel says of somebody in the location ``loc`` of the company ``com``."""
    return {
        "userId": "user1",
        "companyId": "com",
        "role": "user",
        "type": "location",
        "activeLocation": "loc",
        "userName": "Zoë Miller",
        "email": "zoe@example.com",
    } | changes


def encrypted(said: Any, secret: str = SECRET) -> str:
    """A payload that says this: JSON, or bytes as they are."""
    plain = said if isinstance(said, bytes) else json.dumps(said, ensure_ascii=False).encode()
    salt, drawn, last = os.urandom(8), b"", b""
    while len(drawn) < 48:
        last = hashlib.md5(last + secret.encode() + salt, usedforsecurity=False).digest()
        drawn += last
    encryptor = Cipher(algorithms.AES(drawn[:32]), modes.CBC(drawn[32:48])).encryptor()
    padding = 16 - len(plain) % 16
    sealed = encryptor.update(plain + bytes([padding]) * padding) + encryptor.finalize()
    return base64.b64encode(b"Salted__" + salt + sealed).decode()
