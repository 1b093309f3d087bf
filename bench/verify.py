"""What one signature check costs: ``python -m bench.verify``."""

import base64
import sys
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from nacl.signing import VerifyKey

from bench.timing import ROUNDS, measure
from ingest.verify import Verifier, verify_hmac

CALLS = 200
BODY = (
    Path(__file__).parent.parent / "tests/payloads/documented_wrapped_delivered.json"
).read_bytes()


def main() -> None:
    """Print the table."""
    key = ed25519.Ed25519PrivateKey.generate()
    signature, public = key.sign(BODY), key.public_key()
    nacl_key = VerifyKey(public.public_bytes_raw())
    rsa_key = rsa.generate_private_key(public_exponent=65537, key_size=4096)
    rsa_signature = rsa_key.sign(BODY, padding.PKCS1v15(), SHA256())
    rsa_public = rsa_key.public_key()
    verifier = Verifier([nacl_key], [rsa_public], allow_rsa=True)
    headers = {"x-ghl-signature": base64.b64encode(signature).decode()}
    rsa_headers = {"x-wh-signature": base64.b64encode(rsa_signature).decode()}
    assert verifier.verify(headers, BODY).ok
    assert verifier.verify(rsa_headers, BODY).ok
    calls: dict[str, Callable[[], object]] = {
        "Ed25519, PyNaCl": lambda: nacl_key.verify(BODY, signature),
        "Ed25519, cryptography": lambda: public.verify(signature, BODY),
        "RSA-4096, cryptography": lambda: rsa_public.verify(
            rsa_signature, BODY, padding.PKCS1v15(), SHA256()
        ),
        "Verifier.verify, Ed25519": lambda: verifier.verify(headers, BODY),
        "Verifier.verify, RSA-4096": lambda: verifier.verify(rsa_headers, BODY),
        "verify_hmac, hex": lambda: verify_hmac("secret", "0" * 64, BODY, "hex"),
    }
    sys.stdout.write(f"{len(BODY)} bytes, median of {ROUNDS} rounds of {CALLS} calls\n")
    for name, call in calls.items():
        took = measure(call, calls=CALLS)
        sys.stdout.write(f"{name:<28}{took:>8.1f} µs{1e6 / took:>12,.0f} a second\n")


if __name__ == "__main__":
    main()
