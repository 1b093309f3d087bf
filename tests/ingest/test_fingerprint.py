"""Fingerprints: the same refusal is one row, whoever it was for; another refusal is another row."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ingest.fingerprint import codes, digest, fingerprint, plain
from ingest.normalize import Detail

# Each is one refusal as different recipients, servers and days saw it.
FAMILIES = {
    "Gmail's lines, ids and links": (
        "550-5.1.1 The account ana@client.example does not exist. Please try\n"
        "550-5.1.1 another one. Learn more at\n"
        "550 5.1.1 https://support.google.com/mail/?p=NoSuchUser a1-20020a05123si8sor.12 - gsmtp",
        "550 5.1.1 The account bob@other.example does not exist. Please try another one. Learn"
        " more at https://support.google.com/mail/?p=NoSuchUser jn4si9227864lbc.203 - gsmtp",
        "smtp;550-5.1.1 The account c.d+e@x.example does not exist. Please try 550-5.1.1 another"
        " one. Learn more at 550 5.1.1 https://support.google.com/mail/?p=NoSuchUser"
        " 192si9255066lfh.71 - gsmtp",
    ),
    "Exchange's signatures": (
        "550 5.7.1 Messages from [192.0.2.7] were refused (S3150). [BN8NAM12FT043.eop-nam12.prod."
        "protection.outlook.com 2024-01-01T00:00:00.000Z 08DC0123456789AB]",
        "550 5.7.1 Messages from [2001:db8::7] were refused (S3150). [AM5EUR02FT012.eop-eur02.prod."
        "protection.outlook.com 2025-11-21T10:59:59.123Z FFDCABCDEF123456] [X.eurprd02.prod."
        "outlook.com 2025-11-21T10:59:59.123Z ABCDEFABCDEFABCD]",
    ),
    "waiting times": (
        "450 4.7.1 <ana@client.example>: Greylisted, try again in 300 seconds",
        "450 4.7.1 <bob@mx.other.example>: Greylisted, try again in 56 seconds",
    ),
    "sizes": (
        "552 5.3.4 Message size 18876259 exceeds the limit 10485760",
        "552 5.3.4 Message size 8,596,800 exceeds the limit 20MB",
    ),
    "queue ids": (
        "554 5.7.1 Rejected by rule, id=20025-09, queue 4FxYz12ab",
        "554 5.7.1 Rejected by rule, id=13049-38149, queue 9AbC88dEf",
    ),
    "dates": (
        "451 Closed since Mon, 01 Jan 2024 10:00:00 +0000 for repairs",
        "451 Closed since Tue, 12 Dec 2023 9:05:11 -0500 for repairs",
    ),
    "UUIDs": (
        "550 Refused 4a1b2c3d-9f6e-4d1a-8b7c-0123456789ab",
        "550 Refused 00000000-1111-4222-8333-444455556666",
    ),
    "nodes and their banners": (
        "554-mx104.shop.example ESMTP not available\n554 See https://shop.example/c?i=192.0.2.7",
        "554-mx007.shop.example ESMTP not available\n554 See https://shop.example/c?i=192.0.2.9",
    ),
    "counts beside an IP": (
        "421-4.7.28 [192.0.2.7      19] Too much mail\n421 4.7.28 from there",
        "421-4.7.28 [198.51.100.3] Too much mail\n421 4.7.28 from there",
    ),
    "accents and case": ("550 Bo\u00eete PLEINE", "550 boite pleine", "550 Boi\u0302te pleine"),
}

APART = [
    ("550 5.1.1 User unknown", "550 5.1.1 Mailbox full"),
    ("550 5.1.1 Refused", "550 5.7.1 Refused"),
    ("550 Refused", "554 Refused"),
    ("421 [TSS04] Messages deferred", "421 [TSS09] Messages deferred"),
    ("550 Not sent (S3140)", "550 Not sent (S3150)"),
    ("553 5.7.1 [BL21] Refused", "553 5.7.1 [BL23] Refused"),
    ("550 Denied. AS(201806281)", "550 Denied. AS(16012609)"),
    ("554 Host blocked using zen.spamhaus.org", "554 Host blocked using bl.spamcop.net"),
    ("550 Blocked (127.0.0.2)", "550 Blocked (127.255.255.254)"),
    (
        "550 See https://support.google.com/mail/?p=NoSuchUser",
        "550 See https://support.google.com/mail/?p=DisabledUser",
    ),
]  # fmt: skip


def of(text: str, **more: object) -> str:
    return fingerprint(Detail(message=text, **more))  # type: ignore[arg-type]


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_one_refusal_is_one_row(family: tuple[str, ...]) -> None:
    assert len({of(text) for text in family}) == 1


@pytest.mark.parametrize(("one", "other"), APART)
def test_different_refusals_stay_apart(one: str, other: str) -> None:
    assert of(one) != of(other)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "<ana@client.example>: host mx1.client.example[192.0.2.7] said: 450 4.7.1 Try later",
            "450 4.7.1 <‹address›>: host ‹host›[‹ip›] said: try later",
        ),
        ("550 #5.1.0 Address rejected ana@client.example", "550 5.1.0 address rejected ‹address›"),
        ("Connection timed out", "connection timed out"),
        ("550 5.7.1 RESOLVER.ADR.RecipNotFound; not found",
         "550 5.7.1 resolver.adr.recipnotfound; not found"),
        ("550 Unknown user.Please check", "550 unknown user. please check"),
        ("554 Refused: mcSpamSignature.sa.9.0 of x12y",
         "554 refused: mcspamsignature.‹id› of ‹id›"),
    ],
)  # fmt: skip
def test_what_is_left_of_a_reply(text: str, expected: str) -> None:
    assert of(text) == expected


def test_the_payloads_codes_stand_in_front_and_once() -> None:
    split = of("5.1.1 User unknown\n5.1.1 Good bye", code=550, enhanced="5.1.1")
    whole = of("550-5.1.1 User unknown\n550 5.1.1 Good bye")
    assert split == whole == "550 5.1.1 user unknown good bye"


def test_an_enhanced_code_that_is_none_is_left_out() -> None:
    assert of("Refused", code=550, enhanced="policy") == "550 refused"


def test_a_number_after_the_code_is_no_code() -> None:
    assert of("550 messages a day are enough, not 551 messages") == (
        "550 messages a day are enough, not ‹n› messages"
    )


def test_the_description_stands_in_for_no_message() -> None:
    detail = Detail(message=" ", description="No MX for client.example", code=498)
    assert fingerprint(detail) == "498 no mx for ‹host›"


def test_nothing_said_is_no_fingerprint() -> None:
    assert fingerprint(Detail()) == ""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("550 5.1.1 no", (550, "5.1.1")),
        ("smtp;550-5.1.1 no", (550, "5.1.1")),
        ("host x.example[192.0.2.7] said: 451 4.3.0 later", (451, "4.3.0")),
        ("550 no (#5.1.1)", (550, "5.1.1")),
        ("605 suppressed", (605, "")),
        ("250 2.1.5 ok", (None, "")),
        ("from 10.4.2.1 to 4.2.1.7, version 15.5.1.1", (None, "")),
        ("no", (None, "")),
    ],
)
def test_codes_of_a_reply(text: str, expected: tuple[int | None, str]) -> None:
    assert codes(plain(text)) == expected


WORDS = r"""
550 5.1.1 550-5.1.1 421 4.7.0 605 user unknown. full [192.0.2.7 19] <a@b.c>: a@b.example c:d
mx1.example.com ABC12f 2024-01-02T10:00:00Z (S3150) AS(201806281) 300 seconds 1,234 12:30:45
https://x.example/y?p=NoSuchUser fe80::1 é İ ﬁ … ’ ... Foo.Bar a.b x/y 1/2 Mon, 02 Jan 2024
[TSS04] _a_b_ #5.1.1 smtp; \n % -
"""
PIECES = st.sampled_from(WORDS.split())
TEXTS = st.one_of(
    st.text(max_size=60),
    st.lists(PIECES, max_size=12).map(" ".join),
    st.lists(st.one_of(PIECES, st.text(max_size=4)), max_size=8).map("".join),
)


@given(TEXTS)
def test_plain_words_stay_as_they_are(text: str) -> None:
    once = plain(text)
    assert plain(once) == once


@example("2.0.0/200:.0", None, "")
@given(TEXTS, st.sampled_from([None, 421, 550, 605]), st.sampled_from(["", "5.1.1", "4.7.28"]))
def test_a_fingerprint_is_its_own(text: str, code: int | None, enhanced: str) -> None:
    once = of(text, code=code, enhanced=enhanced)
    assert len(once) <= 300
    assert of(once) == once


@given(st.emails(), st.ip_addresses().filter(lambda ip: not ip.is_loopback), st.uuids())
def test_nobody_is_in_a_fingerprint(address: str, ip: object, unique: object) -> None:
    text = of(f"550 5.7.1 <{address}> refused from [{ip}], ticket {unique}")
    assert not re.search(r"@|\d{1,3}\.\d{1,3}\.\d{1,3}\.\d", text)
    assert str(unique) not in text


def test_a_long_text_is_cut_at_a_word() -> None:
    text = of("word " * 1000)
    assert 290 < len(text) <= 300
    assert set(text.split()) == {"word"}


def test_a_digest_has_16_bytes_and_is_the_same_everywhere() -> None:
    assert digest("550 no").hex() == "1f5eb3f7a1181bfe788b91cee00b0ca9"
    assert digest("550 no") != digest("550 yes")
    assert len(digest("")) == 16


def test_codes_of_libero_and_pages_of_spf_stay() -> None:
    assert plain("550 Invalid Domain [192.0.2.7; LIB_420]").endswith("[‹ip›; lib_420]")
    assert plain("550 See http://www.openspf.org/Why?s=mfrom;ip=192.0.2.7") == "550 see openspf"
