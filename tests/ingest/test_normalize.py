"""Normalizing: every documented shape field by field, every trap, any JSON, and stable keys."""

import copy
import json
import random
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.normalize import (
    AppEvent,
    Detail,
    NormalizedEvent,
    NotUnderstood,
    decode,
    normalize,
)
from ingest.vocabulary import EventKind

PAYLOADS = Path(__file__).parent.parent / "payloads"
RECEIVED_AT = 1_796_000_000_000_000
LOCATION, COMPANY = "ve9EPM428h8vShlRW1KT", "f3rBPevH93JANjvqtrK0"
APP = "6a5f8aafdb5067f4319b1bb4"
MESSAGE_ID = "20260203190220.7c1f0a9e@mg.example.net"


def load(name: str) -> Any:
    return decode((PAYLOADS / f"{name}.json").read_bytes())


def event_of(payload: object, *, location_ref: str = "") -> NormalizedEvent:
    event = normalize(payload, location_ref=location_ref, received_at=RECEIVED_AT)
    assert isinstance(event, NormalizedEvent), event
    return event


def altered(name: str = "delivered", /, **fields: Any) -> Any:
    """A payload with fields of its event object replaced; ``...`` removes one."""
    payload = load(name)
    for key, value in fields.items():
        key = key.replace("_", "-") if key.replace("_", "-") in KEBAB else key
        if value is ...:
            payload["webhookPayload"].pop(key, None)
        else:
            payload["webhookPayload"][key] = value
    return payload


KEBAB = {
    "delivery-status",
    "log-level",
    "lc-operations",
    "primary-dkim",
    "recipient-domain",
    "recipient-provider",
    "client-info",
    "user-variables",
    "delivered-at",
}

# --- The documented and the live shapes, every field -------------------------------------------

WITHOUT = {
    field.name: None if field.default is msgspec.NODEFAULT else field.default
    for field in msgspec.structs.fields(NormalizedEvent)
    if field.name not in ("key", "content", "detail")
}
LIVE = WITHOUT | {
    "location_ref": LOCATION,
    "company_ref": COMPANY,
    "app_id": APP,
    "message_id": MESSAGE_ID,
    "recipient": "jo.doe@gmail.com",
    "tags": frozenset({"et_workflow"}),
    "provider": "Gmail",
    "domain": "gmail.com",
}
SENT = LIVE | {
    "campaign_rank": 2,
    "campaign": "workflow:9f2b6c1e-wf",
    "step": "step-4",
    "sending_domain": "mg.example.net",
    "sending_domain_rank": 3,
}
FLAT = WITHOUT | {
    "location_ref": "source-location",
    "message_id": "20231212.09:27:42@example.com",
    "recipient": "contact@example.com",
    "domain": "example.com",
    "sending_domain": "mg.example.net",
    "sending_domain_rank": 2,
}
LEGACY = FLAT | {
    "message_id": "20130503182626.18666.16540@mg.example.net",
    "recipient": "alice@example.com",
    "tags": frozenset({"newsletter"}),
}
WEBHOOK = {"webhook_id": "f4ef22e3-c4c1-4ce5-996d-297890460e7d", "form": "wrapped"}
POOL = {"ip": "198.51.100.7", "pool": "65cc66e77a4d4f63649d394c", "pool_name": "shared-2"}
CHROME = "Mozilla/5.0 (Windows NT 10.0) Chrome/120"
DOCUMENTED = {
    "kind": EventKind.DELIVERED,
    "occurred_at": 1_714_032_441_000_000,
    "location_ref": LOCATION,
    "company_ref": LOCATION,
    "message_id": "message-id",
    "recipient": "test@example.com",
    "tags": frozenset({"et_other"}),
    "provider": "Other",
    "provider_rank": 1,
    "domain": "example.com",
    "sending_domain": "example.com",
    "sending_domain_rank": 1,
}
DOCUMENTED_DETAIL = {
    "word": "delivered",
    "code": 250,
    "message": "OK",
    "attempt": 1,
    "session_seconds": 0.087,
    "first_attempt_seconds": 0.047,
    "mx": "mail.example.com",
    "ip": "127.0.0.1",
    "pool": "65cc66e77a4d4f63649d394c",
    "pool_name": "<pool-name>",
    "form": "wrapped",
}
FLAT_DETAIL = {
    "attempt": 1,
    "session_seconds": 0.087,
    "mx": "mx.example.com",
    "ip": "123.45.67.89",
    "tls": True,
    "form": "flat",
}

SHAPES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "documented_wrapped_delivered": (WITHOUT | DOCUMENTED, DOCUMENTED_DETAIL),
    "documented_flat_delivered": (
        FLAT
        | {
            "kind": EventKind.DELIVERED,
            "occurred_at": 1_702_376_862_000_000,
            "sending_domain": "example.com",
        },
        FLAT_DETAIL | {"word": "delivered", "code": 250, "message": "OK"},
    ),
    "mailgun_delivered": (
        WITHOUT | DOCUMENTED | {"sending_domain": "mg.example.net", "sending_domain_rank": 2},
        DOCUMENTED_DETAIL | {"event_id": "mg-1"},
    ),
    "accepted": (
        SENT | {"kind": EventKind.ACCEPTED, "occurred_at": 1_770_145_340_102_938},
        WEBHOOK | {"event_id": "a1-accepted", "word": "accepted"},
    ),
    "delivered": (
        SENT
        | {
            "kind": EventKind.DELIVERED,
            "occurred_at": 1_770_145_345_658_528,
            "provider_rank": 2,
        },
        WEBHOOK
        | POOL
        | {
            "event_id": "d1-delivered",
            "word": "delivered",
            "code": 250,
            "message": "OK",
            "attempt": 2,
            "session_seconds": 1.25,
            "first_attempt_seconds": 0.31,
            "mx": "gmail-smtp-in.l.google.com",
            "tls": True,
        },
    ),
    "failed_permanent": (
        SENT
        | {
            "kind": EventKind.BOUNCED,
            "occurred_at": 1_770_145_346_000_000,
            "provider_rank": 2,
        },
        WEBHOOK
        | POOL
        | {
            "event_id": "f1-permanent",
            "word": "failed",
            "severity": "permanent",
            "reason": "bounce",
            "code": 550,
            "enhanced": "5.1.1",
            "message": "5.1.1 The email account that you tried to reach does not exist.\n"
            "5.1.1 Please try double-checking the address",
            "bounce_type": "hard",
            "attempt": 1,
            "session_seconds": 0.9,
            "mx": "gmail-smtp-in.l.google.com",
            "tls": True,
        },
    ),
    "failed_temporary": (
        SENT
        | {
            "kind": EventKind.DEFERRED,
            "occurred_at": 1_770_145_347_500_000,
            "provider": "Other",
            "provider_rank": 1,
        },
        WEBHOOK
        | POOL
        | {
            "event_id": "f2-temporary",
            "word": "failed",
            "severity": "temporary",
            "reason": "greylisted",
            "code": 451,
            "enhanced": "4.7.1",
            "message": "4.7.1 Greylisted, please try again later",
            "attempt": 1,
            "session_seconds": 0.4,
            "retry_seconds": 600,
            "mx": "mx.example.org",
        },
    ),
    "failed_no_mx": (
        SENT | {"kind": EventKind.DEFERRED, "occurred_at": 1_770_145_348_000_000},
        WEBHOOK
        | {
            "event_id": "f3-no-mx",
            "word": "failed",
            "severity": "temporary",
            "reason": "generic",
            "code": 498,
            "message": "No MX for gmail.com",
            "description": "No MX for gmail.com",
            "attempt": 1,
            "session_seconds": 0.0,
            "retry_seconds": 900,
        },
    ),
    "failed_suppressed": (
        SENT | {"kind": EventKind.SUPPRESSED, "occurred_at": 1_770_145_349_000_000},
        WEBHOOK
        | {
            "event_id": "f4-suppressed",
            "word": "failed",
            "severity": "permanent",
            "reason": "suppress-bounce",
            "code": 605,
            "description": "Not delivering to previously bounced address",
            "attempt": 1,
            "session_seconds": 0.0,
        },
    ),
    "failed_old": (
        SENT | {"kind": EventKind.BOUNCED, "occurred_at": 1_770_174_346_000_000},
        WEBHOOK
        | POOL
        | {
            "event_id": "f5-old",
            "word": "failed",
            "severity": "permanent",
            "reason": "old",
            "code": 602,
            "enhanced": "4.2.2",
            "message": "4.2.2 The recipient's inbox is out of storage space",
            "description": "Too old",
            "attempt": 14,
            "session_seconds": 1.1,
            "mx": "gmail-smtp-in.l.google.com",
        },
    ),
    "failed_delayed_bounce": (
        SENT
        | {
            "kind": EventKind.BOUNCED,
            "occurred_at": 1_770_149_999_000_000,
            "delayed_bounce": True,
        },
        WEBHOOK
        | {
            "event_id": "f6-delayed",
            "word": "failed",
            "severity": "permanent",
            "reason": "generic",
            "code": 550,
            "enhanced": "5.2.1",
            "description": "The account of the recipient is disabled.\n"
            "Reporting-MTA: dns; mx.example.org",
        },
    ),
    "failed_unstated": (
        SENT | {"kind": EventKind.BOUNCED, "occurred_at": 1_770_145_350_000_000},
        WEBHOOK
        | POOL
        | {
            "event_id": "f7-unstated",
            "word": "failed",
            "code": 550,
            "enhanced": "5.7.1",
            "message": "550-5.7.1 refused by policy",
            "attempt": 1,
            "session_seconds": 0.2,
        },
    ),
    "opened": (
        LIVE
        | {
            "kind": EventKind.OPENED,
            "occurred_at": 1_770_150_000_250_000,
            "delivered_at": 1_770_145_345_000_000,
        },
        WEBHOOK | {"event_id": "o1-opened", "word": "opened", "user_agent": CHROME},
    ),
    "opened_machine": (
        LIVE
        | {
            "kind": EventKind.OPENED,
            "occurred_at": 1_770_145_400_000_000,
            "machine": True,
        },
        WEBHOOK | {"event_id": "o2-machine", "word": "opened", "user_agent": "Mozilla/5.0"},
    ),
    "clicked": (
        LIVE
        | {
            "kind": EventKind.CLICKED,
            "occurred_at": 1_770_150_100_500_000,
            "delivered_at": 1_770_145_345_000_000,
            "machine": True,
        },
        WEBHOOK
        | {
            "event_id": "c1-clicked",
            "word": "clicked",
            "url": "https://example.net/book?x=1",
            "user_agent": CHROME,
        },
    ),
    "unsubscribed": (
        LIVE
        | {
            "kind": EventKind.UNSUBSCRIBED,
            "occurred_at": 1_770_150_200_000_000,
            "tags": frozenset(),
        },
        WEBHOOK | {"event_id": "u1-unsubscribed", "word": "unsubscribed", "user_agent": CHROME},
    ),
    "complained": (
        LIVE
        | {
            "kind": EventKind.COMPLAINED,
            "occurred_at": 1_770_150_300_000_000,
            "sending_domain": "mg.example.net",
            "sending_domain_rank": 1,
        },
        WEBHOOK | {"event_id": "k1-complained", "word": "complained", "ip": "198.51.100.7"},
    ),
    "rejected": (
        SENT | {"kind": EventKind.REJECTED, "occurred_at": 1_770_145_351_000_000},
        WEBHOOK
        | {
            "event_id": "r1-rejected",
            "word": "rejected",
            "reason": "Sandbox subdomains are for test purposes only.",
            "description": "Please add your own domain",
        },
    ),
    "stored": (
        SENT | {"kind": EventKind.STORED, "occurred_at": 1_770_145_352_000_000},
        WEBHOOK | {"event_id": "s1-stored", "word": "stored"},
    ),
    "flat_bounced": (
        FLAT
        | {
            "kind": EventKind.BOUNCED,
            "occurred_at": 1_702_376_900_000_000,
            "test": True,
        },
        FLAT_DETAIL
        | {
            "word": "bounced",
            "code": 550,
            "enhanced": "5.1.1",
            "message": "5.1.1 No such user",
            "test": True,
        },
    ),
    "flat_complained": (
        FLAT | {"kind": EventKind.COMPLAINED, "occurred_at": 1_702_377_000_000_000},
        {"word": "complained", "form": "flat"},
    ),
    "flat_enveloped": (
        FLAT
        | {
            "kind": EventKind.DELIVERED,
            "occurred_at": 1_702_376_862_000_000,
            "location_ref": LOCATION,
            "sending_domain": "example.com",
        },
        FLAT_DETAIL | {"word": "delivered", "code": 250, "message": "OK"},
    ),
    "legacy_bounced": (
        LEGACY | {"kind": EventKind.BOUNCED, "occurred_at": 1_769_800_001_000_000},
        {
            "word": "bounced",
            "code": 550,
            "enhanced": "5.1.1",
            "message": "smtp; 550-5.1.1 The email account does not exist",
            "form": "flat",
        },
    ),
    "legacy_dropped": (
        LEGACY
        | {
            "kind": EventKind.SUPPRESSED,
            "occurred_at": 1_769_800_000_000_000,
            "campaign_rank": 1,
            "campaign": "fbv",
            "campaign_name": "Spring",
        },
        {
            "word": "dropped",
            "reason": "hardfail",
            "code": 605,
            "description": "Not delivering to previously bounced address",
            "form": "flat",
        },
    ),
}


@pytest.mark.parametrize("name", SHAPES)
def test_shape(name: str) -> None:
    event = event_of(load(name), location_ref="source-location")
    fields, detail = SHAPES[name]
    assert {field: getattr(event, field) for field in WITHOUT} == fields
    assert event.detail == Detail(**detail)
    assert len(event.key) == 16
    assert -(2**63) <= event.content < 2**63


APP_EVENTS = {
    "install": AppEvent(
        type="INSTALL",
        app_id=APP,
        location_ref=LOCATION,
        company_ref=COMPANY,
        company_name="North Agency",
        domain="",
        state="active",
        occurred_at=1_786_957_619_366_000,
    ),
    "install_agency": AppEvent(
        type="INSTALL",
        app_id=APP,
        company_ref=COMPANY,
        company_name="North Agency",
        state="active",
        occurred_at=1_786_957_619_366_000,
    ),
    "uninstall": AppEvent(
        type="UNINSTALL",
        app_id=APP,
        location_ref=LOCATION,
        state="gone",
        occurred_at=RECEIVED_AT,
    ),
    "location_create": AppEvent(
        type="LocationCreate",
        location_ref=LOCATION,
        location_name="Harbour Dental",
        company_ref=COMPANY,
        occurred_at=RECEIVED_AT,
    ),
    "location_update": AppEvent(
        type="LocationUpdate",
        location_ref=LOCATION,
        location_name="Harbour Dental (2)",
        company_ref=COMPANY,
        occurred_at=RECEIVED_AT,
    ),
    "contact_create": AppEvent(type="ContactCreate", occurred_at=RECEIVED_AT),
}


@pytest.mark.parametrize("name", APP_EVENTS)
def test_app_event(name: str) -> None:
    assert normalize(load(name), received_at=RECEIVED_AT) == APP_EVENTS[name]


def test_every_payload_file_has_its_test() -> None:
    assert {path.stem for path in PAYLOADS.glob("*.json")} == {*SHAPES, *APP_EVENTS}


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        ([], "not a JSON object"),
        (None, "not a JSON object"),
        ("LCEmailStats", "not a JSON object"),
        ({}, "no known form"),
        ({"hello": 1}, "no known form"),
        ({"event": "delivered"}, "no known form"),
        ({"type": 5, "id": "x"}, "no known form"),
        ({"type": "  ", "id": "x"}, "no known form"),
        ({"event": 7, "recipient": "a@example.com"}, "no known form"),
        ({"type": "LCEmailStats"}, "no readable webhookPayload"),
        ({"type": "LCEmailStats", "webhookPayload": None}, "no readable webhookPayload"),
        ({"type": "LCEmailStats", "webhookPayload": [1]}, "no readable webhookPayload"),
        ({"type": "LCEmailStats", "webhookPayload": "{no"}, "no readable webhookPayload"),
        ({"type": "LCEmailStats", "webhookPayload": {}}, "no event word"),
        ({"type": "LCEmailStats", "webhookPayload": {"event": " "}}, "no event word"),
        ({"type": "LCEmailStats", "webhookPayload": {"event": ["x"]}}, "no event word"),
        ({"type": "LCEmailStats", "webhookPayload": {"event": "delivered"}}, "no location"),
        ({"event": "delivered", "recipient": "a@example.com"}, "no location"),
    ],
)
def test_not_understood(payload: object, reason: str) -> None:
    assert normalize(payload, received_at=RECEIVED_AT) == NotUnderstood(reason=reason)


# --- Traps, one each -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        # Types that differ from the documentation's.
        ({"user_variables": []}, {}),
        ({"user_variables": "Could not load user-variables"}, {}),
        ({"tags": None}, {"tags": frozenset({"et_workflow"})}),
        ({"tags": ["*"]}, {"tags": frozenset({"et_workflow"})}),
        ({"tags": "news"}, {"tags": frozenset({"et_workflow", "news"})}),
        ({"tags": [" a ", "", 5, None, "b"]}, {"tags": frozenset({"a", "b", "et_workflow"})}),
        ({"flags": None}, {"test": False}),
        ({"flags": {"is-test-mode": True}}, {"test": True}),
        ({"flags": {"is-system-test": "true"}}, {"test": True}),
        ({"flags": {"is-routed": None, "is-test-mode": None}}, {"test": False}),
        # Message ids.
        ({"message": {"headers": {"message-id": f"<{MESSAGE_ID}>"}}}, {}),
        ({"message": {"headers": {"Message-Id": f" <{MESSAGE_ID}> "}}}, {}),
        ({"message": {"headers": [["Message-ID", f"<{MESSAGE_ID}>"]]}}, {}),
        ({"message": {"headers": {"message-id": [f"<{MESSAGE_ID}>"]}}}, {}),
        # Recipients.
        ({"recipient": "Jo Doe <JO.DOE@gmail.com>"}, {}),
        ({"recipient": " JO.DOE@GMAIL.COM "}, {}),
        ({"recipient": ""}, {}),
        ({"recipient": None}, {}),
        ({"recipient": ["jo.doe@gmail.com"]}, {}),
        ({"recipient": "jo@xn--bcher-kva.example."}, {"domain": "xn--bcher-kva.example"}),
        ({"recipient": "jo@Bücher.example"}, {"domain": "bücher.example"}),
        # Providers.
        ({"recipient_provider": "gmail"}, {"provider": "Gmail", "provider_rank": 2}),
        ({"recipient_provider": "Free FR"}, {"provider": "Free FR", "provider_rank": 2}),
        ({"recipient_provider": "Nobody yet"}, {"provider": "Nobody yet", "provider_rank": 2}),
        ({"recipient_provider": "Other"}, {"provider": "Other", "provider_rank": 1}),
        ({"recipient_provider": None}, {"provider": "Gmail", "provider_rank": 0}),
        ({"recipient_provider": 5.5}, {"provider": "Gmail", "provider_rank": 0}),
        (
            {"recipient_provider": "", "delivery_status": {"mx-host": "aspmx.l.google.com"}},
            {"provider": "Google Workspace", "provider_rank": 0},
        ),
        (
            {
                "recipient_provider": "",
                "delivery_status": {"mx-host": "x-com.mail.protection.outlook.com"},
            },
            {"provider": "Outlook 365", "provider_rank": 0},
        ),
        (
            {
                "recipient_provider": "",
                "delivery_status": {"mx-host": "hotmail-com.olc.protection.outlook.com"},
            },
            {"provider": "Outlook", "provider_rank": 0},
        ),
        (
            {
                "recipient_provider": "",
                "recipient": "a@example.com",
                "delivery_status": {"mx-host": "notgoogle.com"},
            },
            {"provider": "", "provider_rank": 0},
        ),
        # Sending domains.
        (
            {"lc_operations": ..., "primary_dkim": "k1._domainkey.News.example.net"},
            {"sending_domain": "news.example.net", "sending_domain_rank": 2},
        ),
        (
            {"lc_operations": ..., "primary_dkim": "nonsense"},
            {"sending_domain": "mg.example.net", "sending_domain_rank": 1},
        ),
        (
            {"lc_operations": ..., "primary_dkim": ..., "envelope": {}},
            {"sending_domain": "mg.example.net", "sending_domain_rank": 1},
        ),
        (
            {"lc_operations": ..., "primary_dkim": None, "envelope": None, "message": None},
            {"sending_domain": "", "sending_domain_rank": 0},
        ),
        # Campaigns.
        (
            {"lc_operations": {"email_type": "other"}, "campaigns": [{"id": "c2"}, "c1"]},
            {"campaign_rank": 1, "campaign": "c1", "step": ""},
        ),
        (
            {"lc_operations": [], "campaigns": [{"id": 5, "name": "Spring"}]},
            {"campaign_rank": 1, "campaign": "5", "campaign_name": "Spring"},
        ),
        (
            {"lc_operations": None, "campaigns": [{"name": "Spring"}]},
            {"campaign_rank": 1, "campaign": "Spring", "campaign_name": "Spring"},
        ),
        (
            {"lc_operations": None, "campaigns": [{}, None, [], ""]},
            {"campaign_rank": 0, "campaign": ""},
        ),
        (
            {"lc_operations": {"email_type_id": "x"}},
            {"campaign_rank": 2, "campaign": "other:x"},
        ),
        # Times.
        ({"timestamp": 1770145345}, {"occurred_at": 1_770_145_345_000_000}),
        ({"timestamp": 1770145345123}, {"occurred_at": 1_770_145_345_123_000}),
        ({"timestamp": 1770145345123456}, {"occurred_at": 1_770_145_345_123_456}),
        ({"timestamp": 1770145345123456789}, {"occurred_at": 1_770_145_345_123_456}),
        ({"timestamp": "1770145345"}, {"occurred_at": 1_770_145_345_000_000}),
        ({"timestamp": "1770145345.25"}, {"occurred_at": 1_770_145_345_250_000}),
        ({"timestamp": "1770145345123"}, {"occurred_at": 1_770_145_345_123_000}),
        ({"timestamp": "2026-02-03T19:02:25.5Z"}, {"occurred_at": 1_770_145_345_500_000}),
        ({"timestamp": "2026-02-03T20:02:25+01:00"}, {"occurred_at": 1_770_145_345_000_000}),
        ({"timestamp": "2026-02-03T19:02:25"}, {"occurred_at": 1_770_145_345_000_000}),
    ],
)
def test_trap(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    event = event_of(altered("delivered", **fields))
    assert {field: getattr(event, field) for field in expected} == expected
    if "recipient" in fields and not expected:
        assert event.recipient == "jo.doe@gmail.com"
    if "message" in fields and fields["message"]:
        assert event.message_id == MESSAGE_ID


@pytest.mark.parametrize(
    "timestamp",
    [
        None,
        True,
        "",
        "soon",
        "nan",
        "inf",
        pytest.param(float("nan"), id="not a number"),
        pytest.param(float("inf"), id="infinite"),
        -1,
        0,
        1_400_000_000,  # 2014
        1_796_000_000 + 86_401,  # more than a day after its receipt
        10**30,
        -(10**400),
        "1e400",
        {"seconds": 5},
        [1770145345],
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-14:00",
    ],
)
def test_an_unusable_time_is_the_receipt_and_marked(timestamp: object) -> None:
    event = event_of(altered("delivered", timestamp=timestamp))
    assert (event.occurred_at, event.time_marked) == (RECEIVED_AT, True)


def test_a_time_up_to_a_day_ahead_stands() -> None:
    event = event_of(altered("delivered", timestamp=RECEIVED_AT // 1_000_000 + 86_400))
    assert (event.occurred_at, event.time_marked) == (RECEIVED_AT + 86_400_000_000, False)


@pytest.mark.parametrize(
    ("status", "detail"),
    [
        (None, {"code": None, "attempt": None}),
        ("250 OK", {"code": None}),
        ({"code": 250}, {"code": 250}),
        ({"code": "250"}, {"code": 250}),
        ({"code": 250.0}, {"code": 250}),
        ({"code": True}, {"code": None}),
        ({"code": 0}, {"code": None}),
        ({"code": 99999}, {"code": None}),
        ({"code": "5.1.1"}, {"code": None, "enhanced": "5.1.1"}),
        ({"code": None, "message": "550 5.1.1 no"}, {"code": 550, "enhanced": "5.1.1"}),
        ({"message": ["550-5.1.1 a", "550 5.1.1 b"]}, {"message": "550-5.1.1 a\n550 5.1.1 b"}),
        ({"message": None, "description": None, "enhanced-code": None}, {"enhanced": ""}),
        ({"message": {"text": 1}}, {"message": ""}),
        ({"enhanced-code": " 4.2.2 "}, {"enhanced": "4.2.2"}),
        ({"enhanced-code": "nonsense"}, {"enhanced": ""}),
        ({"bounce-code": "5.2.1"}, {"enhanced": "5.2.1"}),
        ({"message": "host 5.1.1.1 with Exim 4.94.2 at 10.5.1.1"}, {"enhanced": ""}),
        ({"attempt-no": "3"}, {"attempt": 3}),
        ({"attempt-no": -1}, {"attempt": None}),
        ({"attempt-no": 10**9}, {"attempt": None}),
        ({"attempt-no": float("nan")}, {"attempt": None}),
        ({"session-seconds": "x"}, {"session_seconds": None}),
        ({"i-first-delivery-attempt-seconds": 2}, {"first_attempt_seconds": 2.0}),
        ({"first-delivery-attempt-seconds": 2}, {"first_attempt_seconds": 2.0}),
        ({"retry-seconds": 300}, {"retry_seconds": 300}),
        ({"mx-host": "MX.Example.COM."}, {"mx": "mx.example.com"}),
        ({"mx-host": None}, {"mx": ""}),
        ({"tls": "yes"}, {"tls": None}),
        ({"tls": False}, {"tls": False}),
        ({"message": "Too old", "last-message": "452 full"}, {"message": "452 full"}),
    ],
)
def test_delivery_status_trap(status: object, detail: dict[str, Any]) -> None:
    event = event_of(altered("delivered", delivery_status=status))
    assert {field: getattr(event.detail, field) for field in detail} == detail


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        # The order of the design: suppressions first, whatever the severity says.
        ({"severity": "temporary", "delivery_status": {"code": 605}}, EventKind.SUPPRESSED),
        ({"severity": "permanent", "delivery_status": {"code": "606"}}, EventKind.SUPPRESSED),
        ({"delivery_status": {"code": 607, "retry-seconds": 5}}, EventKind.SUPPRESSED),
        ({"delivery_status": {"code": 625}}, EventKind.SUPPRESSED),
        ({"severity": "permanent", "reason": "suppress-complaint"}, EventKind.SUPPRESSED),
        ({"reason": "Suppress-Unsubscribe"}, EventKind.SUPPRESSED),
        ({"reason": "hardfail"}, EventKind.SUPPRESSED),
        # Then the severity as stated.
        ({"severity": "temporary", "delivery_status": {"code": 550}}, EventKind.DEFERRED),
        ({"severity": "Permanent", "delivery_status": {"code": 450}}, EventKind.BOUNCED),
        ({"severity": "temporary", "reason": "bounce"}, EventKind.DEFERRED),
        # Then what stands for it where it is missing, or says nothing.
        ({"delivery_status": {"code": 550, "retry-seconds": 600}}, EventKind.DEFERRED),
        ({"log_level": "warn", "reason": "bounce"}, EventKind.DEFERRED),
        ({"severity": "unknown", "log_level": "WARN"}, EventKind.DEFERRED),
        ({"reason": "bounce"}, EventKind.BOUNCED),
        ({"reason": "old", "delivery_status": {"code": 421}}, EventKind.BOUNCED),
        ({"reason": "delayed-bounce"}, EventKind.BOUNCED),
        ({"flags": {"is-delayed-bounce": True}}, EventKind.BOUNCED),
        ({"delivery_status": {"bounce-type": "soft", "code": 450}}, EventKind.BOUNCED),
        ({"delivery_status": {"code": 602}}, EventKind.BOUNCED),
        ({"reason": "generic", "delivery_status": {"code": 550}}, EventKind.BOUNCED),
        ({"delivery_status": {"code": "421"}}, EventKind.DEFERRED),
        ({"delivery_status": {"code": 498}, "log_level": "error"}, EventKind.DEFERRED),
        ({"delivery_status": {"code": 499}}, EventKind.DEFERRED),
        ({"delivery_status": {"code": 680}, "log_level": "error"}, EventKind.DEFERRED),
        ({"delivery_status": {"code": 0, "message": "550 no such user"}}, EventKind.BOUNCED),
        ({"delivery_status": {"message": "host x said: 451 busy"}}, EventKind.DEFERRED),
        ({"delivery_status": {"message": "smtp; 452 4.2.2 full"}}, EventKind.DEFERRED),
        ({"delivery_status": {"description": "it was (#5.1.1)"}}, EventKind.BOUNCED),
        ({"delivery_status": {"bounce-code": "5.2.1"}}, EventKind.BOUNCED),
        ({"delivery_status": {"bounce-code": "4.2.1"}}, EventKind.DEFERRED),
        ({"delivery_status": {"last-code": 550}}, EventKind.BOUNCED),
        ({"log_level": "error"}, EventKind.BOUNCED),
        # And never a bounce by default.
        ({}, EventKind.UNKNOWN),
        ({"delivery_status": {"code": 250}}, EventKind.UNKNOWN),
        ({"delivery_status": {"message": "waited 450 ms for 5 of 10"}}, EventKind.UNKNOWN),
        ({"severity": 5, "reason": [], "log_level": {}}, EventKind.UNKNOWN),
        ({"severity": "internal"}, EventKind.UNKNOWN),
        # Words.
        ({"event": "permanent_fail"}, EventKind.BOUNCED),
        ({"event": "temporary_fail"}, EventKind.DEFERRED),
        ({"event": "Temporary-Fail"}, EventKind.DEFERRED),
        ({"event": "bounced"}, EventKind.BOUNCED),
        ({"event": "bounced", "delivery_status": {"code": 605}}, EventKind.SUPPRESSED),
        ({"event": "dropped", "delivery_status": {"code": 607}}, EventKind.SUPPRESSED),
        ({"event": "dropped", "delivery_status": {"code": 550}}, EventKind.BOUNCED),
        ({"event": "dropped"}, EventKind.BOUNCED),
        ({"event": " DELIVERED "}, EventKind.DELIVERED),
        ({"event": "Opened"}, EventKind.OPENED),
        ({"event": "list_member_uploaded"}, EventKind.UNKNOWN),
        ({"event": "quarantined", "severity": "permanent"}, EventKind.UNKNOWN),
    ],
)
def test_kind(fields: dict[str, Any], kind: EventKind) -> None:
    bare: dict[str, Any] = {
        "event": "failed",
        "severity": ...,
        "reason": ...,
        "log_level": ...,
        "delivery_status": ...,
        "flags": ...,
    }
    assert event_of(altered("failed_permanent", **(bare | fields))).kind is kind


@pytest.mark.parametrize(
    ("client", "machine"),
    [
        (None, False),
        ({"bot": None}, False),
        ({"bot": ""}, False),
        ({"bot": "apple"}, True),
        ({"user-agent": "Mozilla/5.0"}, True),
        ({"user-agent": "Mozilla/5.0 (iPhone)"}, False),
    ],
)
def test_machine_opens(client: object, machine: bool) -> None:
    assert event_of(altered("opened", client_info=client)).machine is machine


@pytest.mark.parametrize(
    ("payload", "location", "company"),
    [
        ({"locationId": "L1", "companyId": "C1"}, "L1", "C1"),
        ({"locationId": None, "companyId": ""}, LOCATION, COMPANY),
        ({"locationId": {"id": 5}}, LOCATION, COMPANY),
    ],
)
def test_the_wrapper_names_the_location_first(
    payload: dict[str, Any], location: str, company: str
) -> None:
    event = event_of(load("delivered") | payload, location_ref="source")
    assert (event.location_ref, event.company_ref) == (location, company)


def test_a_location_is_found_in_lc_operations_tags_or_source_in_this_order() -> None:
    payload = altered("delivered", tags=["loc_FromTag", "com_FromTag"])
    del payload["locationId"], payload["companyId"]
    assert event_of(payload, location_ref="source").location_ref == LOCATION
    del payload["webhookPayload"]["lc-operations"]
    event = event_of(payload, location_ref="source")
    assert (event.location_ref, event.company_ref) == ("FromTag", "FromTag")
    payload["webhookPayload"]["tags"] = ["*"]
    assert event_of(payload, location_ref="source").location_ref == "source"


@pytest.mark.parametrize(
    ("fields", "message_id", "source"),
    [
        ({}, MESSAGE_ID, ""),
        ({"message": None}, "6981f2a0c4b1d2e3f4a5b6c7", "lc-operations"),
        ({"message": {}, "lc_operations": ...}, "BAABAQ-key", "storage"),
        ({"message": [], "lc_operations": ..., "storage": []}, "a1-accepted", "event"),
        ({"message": [], "lc_operations": ..., "storage": ..., "id": LOCATION}, "", ""),
    ],
)
def test_message_id_sources(fields: dict[str, Any], message_id: str, source: str) -> None:
    event = event_of(altered("accepted", **fields))
    assert (event.message_id, event.detail.message_id_from) == (message_id, source)


@pytest.mark.parametrize("name", ["opened", "clicked", "unsubscribed", "complained"])
def test_engagement_without_a_message_id_is_an_event_only(name: str) -> None:
    event = event_of(altered(name, message={}, storage=...))
    assert (event.message_id, event.detail.message_id_from) == ("", "")
    assert event.detail.recipient == event.recipient == "jo.doe@gmail.com"
    lc = altered(name, message={}, lc_operations={"email_message_id": "<x>"})
    assert event_of(lc).message_id == "x"


def test_without_a_recipient_the_detail_says_the_message() -> None:
    headers = {"message-id": "<m@x>"}
    event = event_of(altered("rejected", message={"headers": headers}))
    assert (event.recipient, event.detail.message_id, event.detail.recipient) == ("", "m@x", "")


@pytest.mark.parametrize(
    ("to", "recipient"),
    [
        ("a@example.com", "a@example.com"),
        ("Ann <A@example.com>", "a@example.com"),
        ('"Doe, Jane" <jane@example.com>, b@example.com', "jane@example.com"),
        ("Doe, Jane <jane@example.com>", "jane@example.com"),
        ('"x@y.example" <jane@example.com>', "jane@example.com"),
        ("jane@x.example <jane@example.com>", "jane@example.com"),
        (["jane@example.com", "b@example.com"], "jane@example.com"),
        ([], ""),
        (None, ""),
        (5, ""),
    ],
)
def test_recipient_from_the_to_header(to: object, recipient: str) -> None:
    message = {"headers": {"message-id": "m", "to": to}}
    assert event_of(altered("rejected", message=message)).recipient == recipient


@pytest.mark.parametrize(
    ("tag", "shown"),
    [
        ("newsletter", "newsletter"),
        ("et_bulk", "et_bulk"),
        ("spring-2026", "spring-2026"),
        ("batch-20260203", "batch-20260203"),
        ("batch-202602031", "(other)"),
        (f"msg-{MESSAGE_ID}", "(other)"),
        ("to:Jo.Doe@gmail.com", "(other)"),
        ("run-F4EF22E3-c4c1-4ce5-996d-297890460e7d", "(other)"),
        ("f4ef22e3c4c14ce5996d297890460e7d", "(other)"),
    ],
)
def test_a_tag_that_differs_by_message_becomes_other(tag: str, shown: str) -> None:
    assert event_of(altered(tags=[tag], lc_operations=...)).tags == {shown}


def test_the_first_twenty_tags_in_their_order_are_kept() -> None:
    tags = [f"tag-{number:03}" for number in range(200)]
    random.Random(1).shuffle(tags)
    assert event_of(altered(tags=tags, lc_operations=...)).tags == set(sorted(tags)[:20])


def test_long_names_are_cut_and_stay_different() -> None:
    long = [
        event_of(
            altered(
                message={"headers": {"message-id": "m" * 500 + end}},
                recipient="é" * 500 + f"{end}@example.com",
                tags=["t" * 200 + end],
                lc_operations={"email_type_id": "c" * 400 + end, "email_type_step_id": "s" * 300},
                delivery_status={"message": "x" * 5000},
            )
        )
        for end in ("1", "2")
    ]
    for event in long:
        assert len(event.message_id) == 400
        assert len(event.recipient.encode()) <= 320
        assert all(len(tag) <= 128 for tag in event.tags)
        assert len(event.campaign) <= 200
        assert len(event.step) <= 128
        assert len(event.detail.message) == 2000
    first, second = long
    assert first.message_id != second.message_id
    assert first.recipient != second.recipient
    assert first.tags != second.tags
    assert first.campaign != second.campaign
    assert first.key != second.key


def test_the_limit_of_what_is_indexed_counts_bytes() -> None:
    event = event_of(altered(message={"headers": {"message-id": "é" * 250}}))
    assert len(event.message_id.encode()) <= 400


def test_what_no_database_holds_is_replaced() -> None:
    event = event_of(
        altered(
            message={"headers": {"message-id": "a\x00b\ud800c"}},
            delivery_status={"message": "5\x00\udfff"},
            tags=["x\x00"],
            lc_operations=...,
        )
    )
    assert event.message_id == "a\ufffdb\ufffdc"
    assert event.detail.message == "5\ufffd\ufffd"
    assert event.tags == {"x\ufffd"}


def test_a_payload_spelled_as_text_is_read() -> None:
    payload = load("delivered")
    as_text = payload | {"webhookPayload": json.dumps(payload["webhookPayload"])}
    assert event_of(as_text) == event_of(payload)


# --- decode ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b'{"a": 1}', {"a": 1}),
        (b'\xef\xbb\xbf{"a": 1}', {"a": 1}),
        (b'{"a": NaN, "b": 18446744073709551616}', None),
        (b'["\\ud800", "\\u0000"]', ["\ud800", "\x00"]),
        (b'{"a": 1e400}', {"a": float("inf")}),
        (b'{"a": 1, "a": 2}', {"a": 2}),
        (b"NaN", None),
    ],
)
def test_decode_tolerates_what_some_senders_write(body: bytes, value: object) -> None:
    decoded = decode(body)
    assert value is None or decoded == value


def test_decode_reads_great_numbers_alike_on_both_ways() -> None:
    digits = b"123456789012345678901234567890"
    assert decode(b"[" + digits + b"]") == decode(b"[" + digits + b", NaN]")[:1]  # type: ignore[index]
    assert decode(b"[NaN, " + b"9" * 5000 + b"]")[1] == float("inf")  # type: ignore[index]


@pytest.mark.parametrize(
    "body", [b"", b"{", b"hello", b"\xff\xfe\xfd", b"[" * 200_000, b'{"a": "\xff"}']
)
def test_decode_refuses_what_is_no_json(body: bytes) -> None:
    with pytest.raises(ValueError, match="."):
        decode(body)


# --- Keys ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("documented_wrapped_delivered", "000743d8bcaf5bd0b1b41c7ed7f2d3cb"),
        ("documented_flat_delivered", "00073732df4a9bdec49eb0b21352c380"),
        ("delivered", "000780bbf36cb1bd85cd831bf78003c6"),
        ("failed_permanent", "000780bb687321980fbcf0acfb2285bd"),
    ],
)
def test_keys_never_change(name: str, key: str) -> None:
    # A new key for an old event would count it again when its webhook is replayed.
    assert event_of(load(name), location_ref="L1").key.hex() == key


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_a_retry_has_the_same_key_and_content(name: str) -> None:
    first = load(name)
    again = shuffled(load(name), random.Random(7))
    if "webhookPayload" in again:
        again |= {"webhookId": "another", "timestamp": "2026-02-04T00:00:00Z", "versionId": "2"}
    elif "event-data" not in again:
        again |= {"webhookId": "another", "token": "t2", "signature": "s2", "appId": "A"}
    one, two = event_of(first, location_ref="L1"), event_of(again, location_ref="L1")
    assert (one.key, one.content) == (two.key, two.content)
    later = normalize(first, location_ref="L1", received_at=RECEIVED_AT + 90_000_000_000)
    assert isinstance(later, NormalizedEvent)
    assert later.key == one.key


def shuffled(value: Any, rng: random.Random) -> Any:
    """The same JSON with the keys of every object in another order."""
    if isinstance(value, list):
        return [shuffled(item, rng) for item in value]
    if not isinstance(value, dict):
        return value
    items = list(value.items())
    rng.shuffle(items)
    return {key: shuffled(item, rng) for key, item in items}


@pytest.mark.parametrize(
    "fields",
    [
        {"id": "another"},
        {"event": "accepted"},
        {"severity": "temporary"},
        {"timestamp": 1770145345 + 86_400},
        {"timestamp": None},
        {"recipient": "other@example.com"},
        {"message": {"headers": {"message-id": "other"}}},
    ],
)
def test_another_event_has_another_key(fields: dict[str, Any]) -> None:
    assert event_of(altered(**fields)).key != event_of(altered()).key


def test_the_location_is_part_of_the_key() -> None:
    assert event_of(load("delivered") | {"locationId": "L2"}).key != event_of(altered()).key


@pytest.mark.parametrize(
    "fields",
    [
        {"message": {"headers": {"message-id": f"<{MESSAGE_ID}>"}}},
        {"recipient": "JO.DOE@GMAIL.COM"},
        {"tags": []},
        {"delivery_status": {"code": 605}},
    ],
)
def test_other_content_under_the_same_key(fields: dict[str, Any]) -> None:
    one, two = event_of(altered()), event_of(altered(**fields))
    assert one.key == two.key
    assert one.content != two.content


def test_the_key_begins_with_the_hour_of_the_provider() -> None:
    assert event_of(altered()).key[:4] == (1_770_145_345 // 3600).to_bytes(4)
    assert event_of(altered(timestamp="never")).key[:4] == bytes(4)
    # Absurd to us, but the provider's own: our clock has no say in the key.
    assert event_of(altered(timestamp=4_000_000_000)).key[:4] == (4_000_000_000 // 3600).to_bytes(4)


def test_without_an_id_the_content_is_the_identity() -> None:
    for missing in (..., "", None, LOCATION):
        one = event_of(altered(id=missing))
        assert one.detail.event_id == ""
        assert one.key == event_of(altered(id=missing)).key
        assert one.key != event_of(altered(id=missing, tags=["x"])).key


# --- Any JSON --------------------------------------------------------------------------------

TEXT = st.text(st.characters(codec=None), max_size=40)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | TEXT
    | st.sampled_from([10**400, -(10**30), "N/A", "x" * 5000, "@", "<>", "1e999", "5.1.1"])
)
JSON = st.recursive(
    SCALARS,
    lambda children: st.lists(children, max_size=4) | st.dictionaries(TEXT, children, max_size=4),
    max_leaves=12,
)
NAMES = sorted({*SHAPES, *APP_EVENTS})


def paths(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [at] if at else []
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        found += paths(inner, (*at, key)) if isinstance(inner, dict | list) else [(*at, key)]
    return found


ALL_PATHS = {name: paths(load(name)) for name in NAMES}


@st.composite
def mutated_payloads(draw: st.DrawFn) -> Any:
    """A real payload in which some values, however deep, are any JSON at all."""
    name = draw(st.sampled_from(NAMES))
    payload = copy.deepcopy(load(name))
    for path in draw(st.lists(st.sampled_from(ALL_PATHS[name]), min_size=1, max_size=4)):
        target = payload
        for step in path[:-1]:
            target = target[step] if has(target, step) else None
        if has(target, path[-1]):
            target[path[-1]] = draw(JSON)
    return payload


def has(container: Any, key: Any) -> bool:
    if isinstance(container, list):
        return isinstance(key, int) and key < len(container)
    return isinstance(container, dict) and key in container


def assert_storable(result: object) -> None:
    """Every text is one that PostgreSQL takes, and within its column; times are in range."""
    for text in texts(msgspec.to_builtins(result, builtin_types=(bytes, frozenset))):
        assert "\x00" not in text
        text.encode()
    if isinstance(result, NormalizedEvent):
        assert len(result.message_id.encode()) <= 400
        assert len(result.recipient.encode()) <= 320
        assert len(result.location_ref) <= 128
        assert all(0 < len(tag) <= 128 for tag in result.tags)
        assert len(result.campaign) <= 200
        assert len(result.step) <= 128
        assert len(result.detail.message) <= 2000
        assert 0 < result.occurred_at <= RECEIVED_AT + 86_400_000_000
        assert len(result.key) == 16
        assert result.detail.code is None or 200 <= result.detail.code < 700
        assert msgspec.json.decode(msgspec.json.encode(result.detail), type=Detail) == result.detail


def texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        value = value.values()
    if isinstance(value, bytes | int | float | None):
        return []
    return [text for item in value for text in texts(item)]


@settings(max_examples=300, deadline=None)
@given(JSON)
def test_any_json_gives_one_of_the_three(payload: object) -> None:
    result = normalize(payload, location_ref="L1", received_at=RECEIVED_AT)
    assert isinstance(result, NormalizedEvent | AppEvent | NotUnderstood)
    assert_storable(result)


@settings(max_examples=600, deadline=None)
@given(mutated_payloads())
def test_any_mutation_of_a_real_payload_gives_one_of_the_three(payload: object) -> None:
    result = normalize(payload, location_ref="L1", received_at=RECEIVED_AT)
    assert isinstance(result, NormalizedEvent | AppEvent | NotUnderstood)
    assert_storable(result)
    again = normalize(
        shuffled(payload, random.Random(3)), location_ref="L1", received_at=RECEIVED_AT
    )
    if isinstance(result, NormalizedEvent) and isinstance(again, NormalizedEvent):
        assert (again.key, again.content) == (result.key, result.content)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(sorted(KEBAB | {"flags", "tags"})), JSON), max_size=6))
def test_any_values_under_known_names_give_an_event(fields: list[tuple[str, Any]]) -> None:
    payload = load("failed_permanent")
    payload["webhookPayload"] |= dict(fields)
    assert_storable(event_of(payload))


def test_deep_nesting_is_no_trouble() -> None:
    deep: Any = "x"
    for _ in range(900):
        deep = {"a": [deep]}
    one, two = event_of(altered(extra=deep)), event_of(altered(extra=deep))
    assert (one.key, one.content) == (two.key, two.content)
    assert event_of(altered(extra=[deep])).content != one.content
    assert_storable(event_of(altered(delivery_status=deep, tags=[deep], envelope={"sender": deep})))
