"""The status page: what it says of the receiving, to whom, and what raises an alarm."""

import re
from datetime import UTC, datetime, timedelta
from html import unescape

import pytest
from django.contrib.auth.models import User
from django.test import Client

from dashboard.models import Membership
from dashboard.pages.status import alarms
from dashboard.quality import Answered, Endpoint
from ingest import counting
from ingest.models import AnswerHour, CountersCheck, KeptWebhook, RecentSignatures
from tests.dashboard import rows

pytestmark = pytest.mark.django_db
NOW = datetime.now(UTC)
HOUR = int(NOW.timestamp()) // 3600


@pytest.fixture
def staff(client: Client) -> Client:
    client.force_login(User.objects.create_user("anna", is_staff=True))
    return client


def words(client: Client, path: str = "/status/") -> str:
    answer = client.get(path)
    assert answer.status_code == 200
    text = re.sub(r"<[^>]+>", " ", answer.content.decode())
    return " ".join(unescape(text).replace("\xa0", " ").split())


def answered(**causes: int) -> None:
    for cause, number in causes.items():
        AnswerHour.objects.create(
            hour=HOUR, source_id=0, status=cause.replace("_", " "), answers=number
        )


def test_before_the_first_event_it_says_what_to_paste_and_waits(staff: Client) -> None:
    text = words(staff)
    assert "http://testserver/webhooks/lc-email/" in text
    assert "Waiting for the first event" in text
    assert "Last webhook none yet" in text
    assert "Receipt lag no data" in text
    assert "Counters not checked yet" in text


def test_what_came_in_and_what_was_refused(staff: Client) -> None:
    rows.event(rows.delivery(1, sent_at=NOW), occurred_at=NOW, received_at=NOW)
    counting.rebuild(now=int(NOW.timestamp() * 1e6))
    answered(stored=95, wrong_signature=4, too_large=1)
    text = words(staff)
    assert "Receiving: the first event has come in." in text
    assert "Answered 2xx, 24h 95.0 % 95 of 100" in text
    assert "HighLevel's own address 4 wrong or missing 100 95.0 %" in text
    assert "4 wrong signature a signature that no key of ours verifies" in text
    assert "1 too large over 1 MiB" in text


def test_when_every_signature_fails_a_banner_says_so(staff: Client) -> None:
    RecentSignatures.objects.create(verdicts="0" * 20)
    answered(wrong_signature=20)
    text = words(staff)
    assert "Every signature fails Each of the newest 20 signatures was wrong" in text
    assert "Too few webhooks are taken 0 of 20 webhooks of 24 hours were answered 2xx" in text


@pytest.mark.parametrize(
    ("verdicts", "causes", "names"),
    [
        ("1" * 100, {"stored": 90, "busy": 10}, []),
        ("1" * 100, {"stored": 89, "busy": 11}, ["Answers"]),
        ("0" * 4, {}, []),
        ("0" * 5, {}, ["Signatures"]),
        ("0" * 99 + "1", {}, []),
    ],
)
def test_alarms(verdicts: str, causes: dict[str, int], names: list[str]) -> None:
    window = Answered(NOW, causes)
    found = Endpoint({"24h": window}, {}, verdicts, 0, 0, quarantining=False)
    assert [sign.name for sign in alarms(found)] == names


def test_kept_webhooks_are_counted(staff: Client) -> None:
    KeptWebhook.objects.create(received_at=NOW, reason="no location", digest=b"x", body=b"{}")
    assert "1 authentic, not understood kept whole" in words(staff)


@pytest.mark.parametrize(("differences", "said"), [(0, "every counter is right"), (7, "7 differ")])
def test_the_last_check_of_the_counters_is_told(staff: Client, differences: int, said: str) -> None:
    CountersCheck.objects.create(checked_at=NOW, differences=differences, seconds=1)
    assert f"Counters {said} checked {NOW:%Y-%m-%d %H:%M} UTC" in words(staff)


def test_a_member_sees_the_data_of_theirs_and_nothing_of_the_endpoint(client: Client) -> None:
    user = User.objects.create_user("vera")
    Membership.objects.create(user=user, location=rows.location("loc"))
    client.force_login(user)
    ago = NOW - timedelta(hours=2)
    for number, ref in enumerate(("loc", "other")):
        rows.event(rows.delivery(number, location_ref=ref, sent_at=ago), occurred_at=ago)
    counting.rebuild(now=int(NOW.timestamp() * 1e6))
    answered(wrong_signature=20)
    text = words(client)
    assert "is shown to those who see all locations" in text
    for hidden in ("other", "wrong signature", "Recorder", "webhooks/lc-email", "Send a signed"):
        assert hidden not in text
    assert client.post("/status/test-event/").status_code == 403


def test_a_test_event_that_nobody_takes_is_said(staff: Client) -> None:
    answer = staff.post("/status/test-event/", SERVER_NAME="127.0.0.1", SERVER_PORT="9")
    assert answer["Location"] == "/status/"
    assert "The test event did not get through" in words(staff)
