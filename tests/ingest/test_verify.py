"""Signatures with real keys: what verifies, what does not, and that nothing raises."""

import base64
import hashlib
import hmac
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from hypothesis import given
from hypothesis import strategies as st

from ingest.verify import (
    HIGHLEVEL_ED25519_KEY,
    HIGHLEVEL_RSA_KEY,
    Result,
    Scheme,
    Verdict,
    Verifier,
    collect_headers,
    load_ed25519_keys,
    load_rsa_keys,
    verify_hmac,
)

BODY = b'{"type":"LCEmailStats","locationId":"x"}'
ED25519, OTHER_ED25519 = ed25519.Ed25519PrivateKey.generate(), ed25519.Ed25519PrivateKey.generate()
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OK = Verdict(Result.OK, Scheme.ED25519)
WRONG = Verdict(Result.WRONG, Scheme.ED25519)


def pem(key: ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey) -> str:
    return (
        key.public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        .decode()
    )


def signed(body: bytes = BODY, key: ed25519.Ed25519PrivateKey = ED25519) -> str:
    return base64.b64encode(key.sign(body)).decode()


def signed_rsa(body: bytes = BODY) -> str:
    return base64.b64encode(RSA.sign(body, padding.PKCS1v15(), SHA256())).decode()


def verifier(*, allow_rsa: bool = True) -> Verifier:
    keys = load_ed25519_keys(pem(OTHER_ED25519) + pem(ED25519))
    return Verifier(keys, load_rsa_keys(pem(RSA)), allow_rsa=allow_rsa)


def test_a_right_signature_verifies_by_any_of_the_keys() -> None:
    for key in (ED25519, OTHER_ED25519):
        assert verifier().verify({"x-ghl-signature": signed(key=key)}, BODY) == OK
    assert OK.ok
    assert not WRONG.ok


def test_the_body_counts_byte_by_byte() -> None:
    headers = {"x-ghl-signature": signed()}
    assert verifier().verify(headers, BODY + b" ") == WRONG
    assert verifier().verify(headers, b"") == WRONG
    assert verifier().verify({"x-ghl-signature": signed(b"")}, b"") == OK


@pytest.mark.parametrize(
    "value",
    [
        signed(key=ed25519.Ed25519PrivateKey.generate()),
        signed()[:-1],
        signed().rstrip("="),
        signed() + "=",
        signed()[:40] + "\n" + signed()[40:],
        signed()[:40] + " " + signed()[40:],
        signed()[:-4],
        base64.b64encode(b"x" * 63).decode(),
        base64.b64encode(b"x" * 65).decode(),
        base64.b64encode(bytes(64)).decode(),
        ED25519.sign(BODY).hex(),
        "hello",
        "=",
        "ü",
        "\x00",
        "\ud800",
        "null",
        "x" * 100_000,
        signed_rsa(),
    ],
    ids=range(19),
)
def test_anything_else_is_wrong_and_never_raises(value: str) -> None:
    assert verifier().verify({"x-ghl-signature": value}, BODY) == WRONG
    rescued = {"x-ghl-signature": value, "x-wh-signature": signed_rsa()}
    assert verifier().verify(rescued, BODY) == WRONG


@pytest.mark.parametrize("value", ["", "  ", "N/A", " n/a ", "N/a"])
def test_absent_in_other_words(value: str) -> None:
    missing = Verdict(Result.MISSING, Scheme.NONE)
    assert verifier().verify({}, BODY) == missing
    assert verifier().verify({"x-ghl-signature": value}, BODY) == missing
    assert verifier().verify({"x-ghl-signature": value, "x-wh-signature": value}, BODY) == missing
    fallback = {"x-ghl-signature": value, "x-wh-signature": signed_rsa()}
    assert verifier().verify(fallback, BODY) == Verdict(Result.OK, Scheme.RSA)


def test_rsa_only_where_allowed() -> None:
    headers = {"x-wh-signature": signed_rsa()}
    assert verifier().verify(headers, BODY).ok
    refused = verifier(allow_rsa=False).verify(headers, BODY)
    assert refused == Verdict(Result.MISSING, Scheme.RSA)


@pytest.mark.parametrize(
    "value", [signed_rsa(b"other"), signed_rsa()[:-4], signed(), "hello", "x" * 9999], ids=range(5)
)
def test_a_wrong_rsa_signature(value: str) -> None:
    assert verifier().verify({"x-wh-signature": value}, BODY) == Verdict(Result.WRONG, Scheme.RSA)


def test_a_repeated_header_counts_only_if_it_says_the_same() -> None:
    name, one = b"X-GHL-Signature", signed().encode()
    other = signed(key=OTHER_ED25519).encode()

    def verdict(*values: bytes) -> Verdict:
        return verifier().verify(
            collect_headers([(name, value) for value in values], {name.lower()}), BODY
        )

    assert verdict(one, one) == OK
    assert verdict(one, other) == WRONG  # though each alone would verify
    assert verdict(b"N/A", one) == WRONG
    assert verdict(one, b"") == WRONG
    assert verdict(b"N/A", b"N/A") == Verdict(Result.MISSING, Scheme.NONE)


@given(st.text(), st.text(), st.binary())
def test_no_header_raises(first: str, second: str, body: bytes) -> None:
    headers = {"x-ghl-signature": first, "x-wh-signature": second}
    assert not verifier().verify(headers, body).ok


# --- Keys ------------------------------------------------------------------------------------


def test_highlevels_published_keys_are_the_default() -> None:
    (key,) = load_ed25519_keys("")
    assert bytes(key).hex() == "8b61d1d6cacbe28d7c3bc0516bb815258ec6edbba96cddc7f40c09ac708388e8"
    assert load_ed25519_keys(HIGHLEVEL_ED25519_KEY) == [key]
    (rsa_key,) = load_rsa_keys(" \n")
    spki = rsa_key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    assert rsa_key.key_size == 4096
    digest = "2f62045d413b1b7747e26770ce7f57840cbf86288cd20ceb90d299a62501fd25"
    assert hashlib.sha256(spki).hexdigest() == digest
    assert load_rsa_keys(HIGHLEVEL_RSA_KEY)[0].public_numbers() == rsa_key.public_numbers()


@pytest.mark.parametrize(
    "text",
    [
        "{a}{b}",
        "{a},{b}",
        "{a}\n\n{b}",
        "  {a} , \n {b}  ",
        "{a_escaped}{b_escaped}",
        "{a_escaped},{b_escaped}",
        '"{a_escaped}","{b_escaped}"',
        "{a_one_line} {b_one_line}",
        "{a_crlf}{b_crlf}",
        "{a_path},{b_path}",
        "{a_path}\n{b_path}\n",
        "'{a_path}', {b}",
        "{both_path}",
    ],
)
def test_keys_as_text_and_as_files(text: str, tmp_path: Path) -> None:
    parts = {}
    for name, key in (("a", ED25519), ("b", OTHER_ED25519)):
        parts[name] = pem(key)
        parts[f"{name}_escaped"] = pem(key).replace("\n", "\\n")
        parts[f"{name}_one_line"] = pem(key).replace("\n", " ")
        parts[f"{name}_crlf"] = pem(key).replace("\n", "\r\n")
        (tmp_path / f"new-{name}.pem").write_text(pem(key))
        parts[f"{name}_path"] = str(tmp_path / f"new-{name}.pem")
    (tmp_path / "both.pem").write_text("# Two keys.\n" + parts["a"] + parts["b"])
    parts["both_path"] = str(tmp_path / "both.pem")
    keys = load_ed25519_keys(text.format(**parts))
    expected = [key.public_key().public_bytes_raw() for key in (ED25519, OTHER_ED25519)]
    assert sorted(map(bytes, keys)) == sorted(expected)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("no-such-file.pem", "'no-such-file.pem' is neither PEM text nor a PEM file"),
        ("x" * 5000, "neither PEM text nor a PEM file"),
        ("a\x00b", "neither PEM text nor a PEM file"),
        (",", "There is no key in it"),
        (pem(ED25519).replace("MCow", "MCox"), "damaged"),
        (pem(ED25519).replace("MCow", "!"), "damaged"),
        (pem(ED25519)[:60], "incomplete"),
        (pem(RSA), "not an Ed25519 one"),
        ("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----", "only public keys"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----", "only public keys"),
    ],
    ids=range(10),
)
def test_a_bad_setting_says_what_is_wrong(text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        load_ed25519_keys(text)


def test_an_ed25519_key_is_no_rsa_key() -> None:
    with pytest.raises(ValueError, match="not an RSA one"):
        load_rsa_keys(pem(ED25519))


def test_a_file_without_keys(tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_text("nothing")
    with pytest.raises(ValueError, match="holds no PEM block"):
        load_ed25519_keys(str(tmp_path / "empty.pem"))
    with pytest.raises(ValueError, match="can be read"):
        load_ed25519_keys(str(tmp_path))


# --- HMAC ------------------------------------------------------------------------------------

SECRET = "s3cret-ü"
DIGEST = hmac.digest(SECRET.encode(), BODY, "sha256")
HEX, BASE64 = DIGEST.hex(), base64.b64encode(DIGEST).decode()


@pytest.mark.parametrize(
    ("value", "encoding"),
    [
        (HEX, "hex"),
        (HEX.upper(), "hex"),
        (f" sha256={HEX} ", "hex"),
        (f"SHA256={HEX}", "hex"),
        (BASE64, "base64"),
        (f"sha256={BASE64}", "base64"),
    ],
)
def test_hmac(value: str, encoding: str) -> None:
    assert verify_hmac(SECRET, value, BODY, encoding)
    assert not verify_hmac(SECRET, value, BODY + b"\n", encoding)
    assert not verify_hmac("other", value, BODY, encoding)


@pytest.mark.parametrize("encoding", ["hex", "base64"])
@pytest.mark.parametrize(
    "value", ["", "N/A", "sha256=", HEX[:-1], HEX + "0", BASE64[:-1], "ü", "\ud800", "=", "zz"]
)
def test_a_wrong_hmac_is_wrong_and_never_raises(value: str, encoding: str) -> None:
    assert not verify_hmac(SECRET, value, BODY, encoding)


def test_hmac_of_an_empty_secret_or_another_encoding() -> None:
    assert not verify_hmac("", hmac.digest(b"", BODY, "sha256").hex(), BODY, "hex")
    with pytest.raises(ValueError, match="hex or base64"):
        verify_hmac(SECRET, HEX, BODY, "base32")
