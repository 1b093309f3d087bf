"""The rules: what they know of providers, what an operator's rule may be, what they may cost."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from ingest.classify import (
    BUILT_IN,
    FIXERS,
    SCOPES,
    Rule,
    RuleError,
    classify_failure,
    ways,
)
from ingest.normalize import Detail
from ingest.vocabulary import BounceClass, Category, EventKind

DEFERRED, BOUNCED = EventKind.DEFERRED, EventKind.BOUNCED


def rule_of(text: str, provider: str = "", kind: EventKind = BOUNCED, **detail: Any) -> str:
    return classify_failure(kind, Detail(message=text, **detail), provider).rule


@pytest.mark.parametrize("rule", list(BUILT_IN), ids=lambda rule: rule.id)
def test_a_rule_catches_its_examples(rule: Rule) -> None:
    BUILT_IN.try_examples(rule)


@pytest.mark.parametrize("rule", list(BUILT_IN), ids=lambda rule: rule.id)
def test_a_rule_says_what_it_means_and_what_to_do(rule: Rule) -> None:
    assert rule.means.endswith(".")
    assert rule.do[0].isupper() and rule.do.endswith(".")
    assert rule.highlevel
    assert rule.scope in SCOPES - {""}
    assert rule.fix_by in FIXERS - {""}


# Providers' codes and words, and the rule that has to know them.
KNOWN = [
    # Gmail's rate has four texts, refused for good or put off.
    ("421-4.7.28 Unusual rate of unsolicited mail originating from your IP address.",
     "gmail-rate-ip"),
    ("421-4.7.28 Unusual rate of unsolicited mail from your IP Netblock.", "gmail-rate-ip"),
    ("421-4.7.28 Unusual rate of mail originating from your SPF domain [a.example 35].",
     "gmail-rate-spf"),
    ("421-4.7.28 Unusual rate of mail originating from your DKIM domain [a.example 36].",
     "gmail-rate-dkim"),
    ("421-4.7.28 Unusual rate of mail containing one of your URL domains [a.example].",
     "gmail-rate-url"),
    ("550-5.7.28 Unusual rate of unsolicited mail originating from your IP address.",
     "gmail-rate-refused-ip"),
    ("550-5.7.28 Unusual rate of mail originating from your SPF domain [a.example].",
     "gmail-rate-refused-spf"),
    ("550-5.7.28 Unusual rate of mail originating from your DKIM domain [a.example].",
     "gmail-rate-refused-dkim"),
    ("550-5.7.28 Unusual rate of mail containing one of your URL domains [a.example].",
     "gmail-rate-refused-url"),
    ("421 4.7.0 Unusual rate of unsolicited mail from your IP address. Mail has been blocked.",
     "gmail-rate-blocked-ip"),
    ("550 5.7.1 very low reputation of the sending domain", "gmail-domain-reputation"),
    ("550 5.7.1 suspicious due to the nature of the content", "gmail-nature-of-content"),
    ("552-5.7.0 blocked because its content presents a potential security issue", "attachment"),
    ("550 5.7.1 denied by the administrator a1-2b - gcdp", "gmail-workspace-rule"),
    ("421 4.7.27 rate limited because SPF did not pass", "spf"),
    ("421 4.7.30 rate limited because DKIM did not pass", "dkim"),
    ("421 4.7.31 rate limited because there is no DMARC record", "dmarc"),
    ("421 4.7.32 rate limited: From is not aligned with SPF or DKIM", "dkim"),
    ("421 4.7.40 rate limited: no DMARC policy", "dmarc"),
    ("421 4.7.29 rate limited: the connection does not use TLS", "gmail-tls"),
    # Microsoft.
    ("550 5.7.1 Not sent (S3140)", "ms-network-blocked"),
    ("550 5.7.1 Not sent (S3150)", "ms-network-blocked"),
    ("451 4.7.500 Server busy from [192.0.2.7]. (S77714)", "ms-throttled"),
    ("451 4.7.500 Server busy from [192.0.2.7]. (S77719)", "ms-throttled"),
    ("451 4.7.650 The mail server is temporarily rate limited due to IP reputation",
     "ms-ip-reputation"),
    ("421 4.7.651 no", "enhanced-7.651"),
    ("421 4.7.652 no", "enhanced-7.652"),
    ("550 5.7.515 does not meet the required authentication level", "unauthenticated"),
    ("550 5.7.509 Access denied, no DMARC", "dmarc"),
    ("550 5.4.1 Access denied. AS(201806281)", "ms-no-recipient"),
    ("550 5.7.129 RESOLVER.RST.RestrictedToRecipientsPermission; no", "ms-group"),
    # Yahoo.
    ("421 4.7.0 [TSS04] no", "yahoo-deferred"),
    ("421 4.7.1 [TSS09] no", "yahoo-deferred-for-good"),
    ("553 5.7.2 [TSS11] no", "yahoo-deferred-for-good"),
    ("553 5.7.1 [BL21] no", "yahoo-listed"),
    ("553 5.7.1 [BL23] no", "yahoo-listed"),
    ("554 Message not allowed - [PH01] no", "yahoo-phishing"),
    # Others.
    ("554 5.7.1 [CS01] no", "apple-local-policy"),
    ("550 5.7.1 [HM07] no", "apple-reputation"),
    ("550 5.7.1 [HM08] no", "apple-reputation"),
    ("550 5.7.0 Blocked - see https://ipcheck.proofpoint.com/?ip=192.0.2.7", "proofpoint-blocked"),
    ("550 5.7.1 blocked using Cloudmark Sender Intelligence", "cloudmark"),
    ("554 Your access to this mail system has been rejected due to poor reputation",
     "cisco-banner"),
    ("554 blocked using Barracuda Reputation", "dnsbl"),
    ("554 5.7.1 192.0.2.7 found on one or more DNSBLs", "comcast-blocked"),
    ("554 IP=192.0.2.7 - None/bad reputation. (NOWL)", "t-online-reputation"),
    ("550-Requested action not taken: mailbox unavailable\n550 Reject due to policy restrictions.",
     "gmx-policy"),
    ("550 5.2.0 Mail rejected. OFR_506 [506]", "orange-spam"),
    ("554 blocked using zen.spamhaus.org; Error: open resolver", "dnsbl-no-answer"),
    ("550 Blocked by zen.spamhaus.org (127.255.255.252)", "dnsbl-no-answer"),
    ("550 Sender verify failed", "sender-verify"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "rule"), KNOWN)
def test_what_providers_say(text: str, rule: str) -> None:
    kind = DEFERRED if text.startswith("4") else BOUNCED
    assert rule_of(text, kind=kind) == rule


# The other way round: words that stand for something else elsewhere.
TRAPS = [
    ("550 5.1.1 User unknown, says our antispam gateway", Category.INVALID_RECIPIENT),
    ("550 Mailbox unavailable. Your IP address 192.0.2.7 is blacklisted",
     Category.REPUTATION_BLOCK),
    ("550 Your account ana@client.example is blocked", Category.INACTIVE_MAILBOX),
    ("550 Your IP 192.0.2.7 is blocked", Category.REPUTATION_BLOCK),
    ("450 4.7.3 Organization queue quota exceeded", Category.RATE_LIMITED),
    ("550 5.4.5 Daily sending quota exceeded", Category.RATE_LIMITED),
    ("552 5.1.1 Recipient over quota", Category.MAILBOX_FULL),
    ("550 4.2.2 no", Category.MAILBOX_FULL),
    ("450 5.1.6 no", Category.INVALID_RECIPIENT),
    ("450 4.2.1 The user receives mail: receiving mail too quickly", Category.RATE_LIMITED),
    ("550 5.2.1 The account is disabled", Category.INACTIVE_MAILBOX),
    ("550 said: 450 4.2.2 mailbox full", Category.MAILBOX_FULL),
    ("450 blocked using grey.rbl.example", Category.GREYLISTED),
    ("550 5.7.1 no, see https://rbl.example/spam/virus.html", Category.POLICY),
    ("550 5.7.1 <spam@junk.example>: no", Category.POLICY),
    ("554 5.7.1 <ana@virus.example>: Relay access denied", Category.DNS_ROUTING),
    ("550 Callout verification failed: 550 invalid recipient", Category.INVALID_RECIPIENT),
    ("550 Verification failed for <a@b.example>\n550 Unrouteable address", Category.AUTHENTICATION),
    ("550 5.7.26 unauthenticated; to protect our users from spam it was blocked",
     Category.AUTHENTICATION),
    ("550 5.1.2 <a@b.example>... Host unknown", Category.DNS_ROUTING),
    ("550 No such domain shop.example known here", Category.DNS_ROUTING),
    ("550 No such user shop.example", Category.INVALID_RECIPIENT),
    ("451 4.3.0 Mail server temporarily rejected message", Category.SERVER_ERROR),
    ("552 5.3.4 Message too large for mailbox", Category.MESSAGE_TOO_LARGE),
]  # fmt: skip


@pytest.mark.parametrize(("text", "category"), TRAPS)
def test_words_that_mislead(text: str, category: Category) -> None:
    kind = DEFERRED if text.startswith("4") else BOUNCED
    assert classify_failure(kind, Detail(message=text), "").category is category


@pytest.mark.parametrize(
    ("text", "category"),
    [
        ("550 Boîte aux lettres inexistante", Category.INVALID_RECIPIENT),
        ("552 La boîte du destinataire est pleine", Category.MAILBOX_FULL),
        ("550 Empfänger unbekannt", Category.INVALID_RECIPIENT),
        ("550 Das Konto wurde gesperrt", Category.INACTIVE_MAILBOX),
        ("550 La dirección no existe", Category.INVALID_RECIPIENT),
        ("552 Buzón lleno", Category.MAILBOX_FULL),
        ("550 Indirizzo inesistente", Category.INVALID_RECIPIENT),
        ("552 Casella di posta piena", Category.MAILBOX_FULL),
        ("550 Conta inexistente", Category.INVALID_RECIPIENT),
        ("552 Caixa postal cheia", Category.MAILBOX_FULL),
        ("550 用户不存在", Category.INVALID_RECIPIENT),
        ("552 邮箱已满", Category.MAILBOX_FULL),
        ("554 垃圾邮件", Category.SPAM_CONTENT),
        ("550 宛先が存在しません", Category.INVALID_RECIPIENT),
        ("550 Пользователь не найден", Category.INVALID_RECIPIENT),
        ("552 Почтовый ящик переполнен", Category.MAILBOX_FULL),
    ],
)
def test_other_languages(text: str, category: Category) -> None:
    assert classify_failure(BOUNCED, Detail(message=text), "").category is category


# --- Operators' rules -----------------------------------------------------------------------


def read(**entry: Any) -> Rule:
    whole = {
        "id": "own",
        "category": "policy",
        "text": "purple",
        "examples": ["550 Purple mail is not taken"],
    }
    return BUILT_IN.read({name: value for name, value in (whole | entry).items() if value})


def test_a_rule_of_ones_own_goes_first() -> None:
    rules = BUILT_IN.with_first([read(phrase="User unknown (42)", text="", category="server_error",
                                      examples=["550 User unknown (42)"])])  # fmt: skip
    found = classify_failure(BOUNCED, Detail(message="550 5.1.1 USER  unknown (42)"), "", rules)
    assert (found.rule, found.category) == ("own", Category.SERVER_ERROR)
    other = classify_failure(BOUNCED, Detail(message="550 5.1.1 User unknown"), "", rules)
    assert other.rule == "no-user"
    assert rule_of("550 5.1.1 User unknown (42)") == "no-user"


def test_what_a_rule_leaves_out_is_its_categorys() -> None:
    rule = read()
    assert (rule.scope, rule.fix_by) == ("receiver", "receiver")
    assert (rule.bounce_class, rule.highlevel) == (BounceClass.BLOCK, "Blocked")
    named = read(bounce_class="soft", scope="content", fix_by="wait", highlevel="Rejection")
    assert (named.bounce_class, named.scope) == (BounceClass.SOFT, "content")
    assert (named.fix_by, named.highlevel) == ("wait", "Rejection")


def test_a_phrase_is_taken_as_it_is_written() -> None:
    rules = BUILT_IN.with_first([read(text="", phrase="a.b (c)*", examples=["550 a.b (c)*"])])
    assert classify_failure(BOUNCED, Detail(message="550 axb c"), "", rules).rule == "unclassified"


@pytest.mark.parametrize(
    ("condition", "meets", "fails"),
    [
        ({"provider": ["google"]}, {"provider": "Gmail"}, {"provider": "Yahoo"}),
        ({"provider": ["Yahoo"]}, {"provider": "yahoo"}, {"provider": ""}),
        ({"mx": ["Client.Example"]}, {"mx": "MX1.client.example."}, {"mx": "mx1notclient.example"}),
        ({"code": [550]}, {"code": 550}, {"code": 554}),
        ({"enhanced": ["5.7.1"]}, {"enhanced": "5.7.1"}, {"enhanced": "4.7.1"}),
        ({"enhanced": ["7.1"]}, {"enhanced": "4.7.1"}, {"enhanced": "5.7.2"}),
        ({"reason": ["espblock"]}, {"reason": "ESPblock "}, {"reason": "bounce"}),
        ({"kind": "temporary"}, {"kind": DEFERRED}, {"kind": BOUNCED}),
        ({"not_text": "green"}, {}, {"message": "purple and green"}),
    ],
)
def test_each_condition_counts(
    condition: dict[str, Any], meets: dict[str, Any], fails: dict[str, Any]
) -> None:
    rules = BUILT_IN.with_first([read(examples=["purple"], **condition)])
    for asked, expected in ((meets, True), (fails, False)):
        detail = {"message": "purple"} | asked
        kind, provider = detail.pop("kind", BOUNCED), detail.pop("provider", "")
        found = classify_failure(kind, Detail(**detail), provider, rules)
        assert (found.rule == "own") is expected


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ({"category": "nonsense"}, "there is no category 'nonsense'"),
        ({"category": "none"}, "no refusal is of the category 'none'"),
        ({"bounce_class": "very hard"}, "there is no class 'very hard'"),
        ({"scope": "world"}, "there is no scope 'world'"),
        ({"fix_by": "magic"}, "there is no fix_by 'magic'"),
        ({"kind": "sometimes"}, "there is no kind 'sometimes'"),
        ({"text": ""}, "it has no condition"),
        ({"text": "", "kind": "permanent"}, "it has no condition"),
        ({"phrase": "purple"}, "give a phrase or a pattern, not both"),
        ({"text": "%nobody%"}, "there is no part %nobody%"),
        ({"colour": "purple"}, "unknown field `colour`"),
        ({"code": ["550"]}, "Expected `int`, got `str`"),
    ],
)
def test_a_rule_that_cannot_be_read_is_refused(entry: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RuleError, match="Rule 'own': ") as refused:
        read(**entry)
    assert sentence in str(refused.value)


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ({"text": "(purple"}, "is no pattern"),
        ({"text": "purple["}, "is no pattern"),
        ({"text": "Purple"}, "has a capital letter"),
        ({"text": "purple.*mail"}, "repeats without a limit"),
        ({"text": "(?:pu+)+rple"}, "repeats without a limit"),
        ({"text": "purple.{0,5000}mail"}, "repeats without a limit"),
        ({"text": "(?:a{1,9}){1,9}b"}, "may take long"),
        ({"text": "a.{0,90}b.{0,90}c"}, "may take long"),
        ({"not_text": "a.{0,90}b.{0,90}c"}, "may take long"),
        ({"text": "(?=purple)"}, "looks around or back"),
        ({"text": r"(purple) \1"}, "looks around or back"),
        ({"examples": ["550 green"]}, "catches its example"),
        ({"id": "no-user"}, "Two rules have the id 'no-user'"),
        ({"id": "enhanced-7.1"}, "Two rules have the id 'enhanced-7.1'"),
    ],
)
def test_a_rule_that_cannot_be_used_is_refused(entry: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RuleError, match="[Rr]ule") as refused:
        BUILT_IN.with_first([read(**({"examples": ["550 purple"]} | entry))])
    assert sentence in str(refused.value)


def test_a_rule_behind_another_of_ones_own_is_refused() -> None:
    broad = read(id="broad", text="mail")
    with pytest.raises(RuleError, match="'broad' catches its example"):
        BUILT_IN.with_first([broad, read()])
    assert BUILT_IN.with_first([read(), read(id="other", text="green", examples=["550 green"])])


def test_a_rule_of_ones_own_needs_no_example() -> None:
    rules = BUILT_IN.with_first([read(examples=[])])
    assert classify_failure(BOUNCED, Detail(message="purple"), "", rules).rule == "own"


def test_a_built_in_rule_needs_one() -> None:
    with pytest.raises(RuleError, match="'own' has no example"):
        BUILT_IN.try_examples(read(examples=[]))


def test_a_rule_needs_an_id() -> None:
    with pytest.raises(RuleError, match="Rule ''"):
        BUILT_IN.read({"category": "policy", "text": "purple"})


def test_every_answer_can_be_explained() -> None:
    assert BUILT_IN.explain("ms-network-blocked").fix_by == "highlevel"
    assert BUILT_IN.explain("enhanced-7.620").category is Category.REPUTATION_BLOCK
    assert BUILT_IN.explain("suppressed-605").highlevel == "Invalid address"
    assert BUILT_IN.explain("unclassified").do
    with pytest.raises(KeyError):
        BUILT_IN.explain("nobody")


# --- What they may cost ---------------------------------------------------------------------


def literals(text: str) -> Iterator[str]:
    """The letters that stand together in a pattern."""
    run = ""
    for letter in text:
        if letter.isalpha() or letter == " ":
            run += letter
        else:
            yield run.strip()
            run = ""
    yield run.strip()


def test_built_in_patterns_are_bounded() -> None:
    for rule in BUILT_IN:
        assert ways(rule) <= 40_000, rule.id


def hostile_texts() -> Iterator[str]:
    """For each rule: its words in a circle, and those that most begin with, over and over."""
    for rule in BUILT_IN:
        words = [word for word in literals(f"{rule.text}|{rule.not_text}") if len(word) > 2]
        if words:
            yield (" ".join(words) * 2000)[:2000]
            yield ((words[0] + " ") * 2000)[:2000]
            yield (max(words, key=words.count) * 2000)[:2000]


def test_no_reply_holds_the_recorder_up() -> None:
    texts = list(hostile_texts())
    assert len(texts) > 250
    done: list[str] = []

    def classify_all() -> None:
        for text in texts:
            classify_failure(BOUNCED, Detail(message=text, description=text[::-1]), "")
            done.append(text)

    worker = threading.Thread(target=classify_all, daemon=True)
    worker.start()
    worker.join(120)
    assert len(done) == len(texts), f"hangs at {texts[len(done)][:40]!r}"
