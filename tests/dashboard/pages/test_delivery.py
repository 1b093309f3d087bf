"""One delivery's page: what happened, why, every event, and a category by hand."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from dashboard.models import Membership
from dashboard.pages.delivery import lasting
from ingest.models import Delivery, Event, Location
from ingest.normalize import Detail
from ingest.payloads import pack
from ingest.vocabulary import Category, EventKind, Outcome
from tests.dashboard import lives, rows
from tests.dashboard.test_views import HOSTILE, page, words
from tests.ingest.events import event

pytestmark = pytest.mark.django_db


@pytest.fixture
def staff(client: Client) -> Iterator[Client]:
    client.force_login(User.objects.create_user("anna", is_staff=True))
    yield client


def write(*events: Any) -> Delivery:
    """Let the recorder store events of one message."""
    lives.write(events)
    return Delivery.objects.get()


def life(kind: str, after: float = 0, **more: Any) -> Any:
    more.setdefault("provider", "Outlook")
    detail = more.pop("detail", {})
    return event(
        kind, after, key=lives.key_of(after, kind), message_id="m1", recipient="jane@example.org",
        location_ref="loc", detail=detail, **more,
    )  # fmt: skip


REFUSED = {
    "code": 550, "enhanced": "5.7.1", "ip": "203.0.113.5", "pool": "p-b", "pool_name": "pool B",
    "mx": "mx1.example.org", "session_seconds": 0.4, "tls": True, "attempt": 3,
    "message": "blocked using a block list (S3150)",
}  # fmt: skip


def bounced() -> Delivery:
    return write(
        life("accepted"),
        life("deferred", 2, detail={"code": 421, "message": "try again later"}),
        life("bounced", 722, detail=REFUSED),
    )


def test_it_says_what_happened_and_whose_to_fix(staff: Client) -> None:
    text = words(page(staff, f"/deliveries/{bounced().pk}/"))
    assert "jane@example.org ■ Blocked after 1 deferral" in text
    assert "Outlook refused this at" in text
    assert "The address is not at fault." in text
    assert "HighLevel can fix it; your client cannot." in text


def test_the_timeline_tells_each_event(staff: Client) -> None:
    text = words(page(staff, f"/deliveries/{bounced().pk}/"))
    assert text.index("→ Queued") < text.index("↻ Deferred") < text.index("✕ Bounced")
    assert "+2 s" in text
    assert "+12 min" in text
    assert "550 5.7.1 blocked using a block list (S3150)" in text
    for fact in (
        "attempt 3", "mail server mx1.example.org", "IP 203.0.113.5", "pool pool B", "TLS yes",
        "session 0.4 s",
    ):  # fmt: skip
        assert fact in text


def test_events_can_be_shown_as_they_were_received(staff: Client) -> None:
    found = bounced()
    newest = Event.objects.order_by("id").last()
    assert newest
    first = newest.received_at - timedelta(hours=1)
    Event.objects.filter(kind=EventKind.BOUNCED).update(received_at=first)
    text = words(page(staff, f"/deliveries/{found.pk}/?times=received"))
    assert text.index("✕ Bounced") < text.index("→ Queued")
    page(staff, f"/deliveries/{found.pk}/?times=never", status=400)


def test_why_is_classified_with_its_rule(staff: Client) -> None:
    text = words(page(staff, f"/deliveries/{bounced().pk}/"))
    assert "Category reputation block" in text
    assert "Class block" in text
    assert "HighLevel says" in text
    assert "Rule" in text


def test_raw_payloads_are_shown_while_they_are_kept(staff: Client) -> None:
    found = bounced()
    codec, body = pack(b'{"a": {"b": 1}}')
    Event.objects.update(payload=body, payload_codec=codec)
    html = page(staff, f"/deliveries/{found.pk}/")
    assert "{\n  &quot;a&quot;: {\n    &quot;b&quot;: 1\n  }\n}" in html
    assert "Raw payload, kept until" in html
    Event.objects.update(payload=None)
    html = page(staff, f"/deliveries/{found.pk}/")
    assert '<pre class="payload"' not in html
    assert "The raw payload was kept until" in html


def test_what_servers_and_clients_send_is_escaped(staff: Client) -> None:
    made = rows.delivery(
        recipient=HOSTILE, campaign=HOSTILE, tags=(HOSTILE,), message_id=HOSTILE, provider=HOSTILE,
        outcome=Outcome.DELIVERED,
    )  # fmt: skip
    names = (
        "message", "description", "reason", "mx", "ip", "pool", "pool_name", "url", "user_agent",
    )  # fmt: skip
    hostile: dict[str, Any] = dict.fromkeys(names, HOSTILE)
    codec, body = pack(HOSTILE.encode())
    rows.event(
        made,
        kind=EventKind.DEFERRED,
        detail=Detail(**hostile),
        payload=body,
        payload_codec=codec,
    )
    Location.objects.update(name=HOSTILE)
    html = page(staff, f"/deliveries/{made.pk}/")
    assert "<script>alert" not in html
    assert "<img src=x" not in html


def test_a_delivery_of_others_is_missing_like_one_that_never_was(client: Client) -> None:
    user = User.objects.create_user("vera")
    Membership.objects.create(user=user, location=rows.location("mine"))
    client.force_login(user)
    made = rows.delivery(location_ref="theirs")
    unseen = client.get(f"/deliveries/{made.pk}/")
    missing = client.get(f"/deliveries/{made.pk + 999}/")
    assert unseen.status_code == missing.status_code == 404
    assert words(unseen.content.decode()) == words(missing.content.decode())


def test_the_same_recipient_is_shown_only_where_one_may_look(client: Client) -> None:
    user = User.objects.create_user("vera")
    Membership.objects.create(user=user, location=rows.location("mine"))
    client.force_login(user)
    to = "jane@example.org"
    one = rows.delivery(1, location_ref="mine", recipient=to)
    mine = rows.delivery(2, location_ref="mine", recipient=to)
    theirs = rows.delivery(3, location_ref="theirs", recipient=to)
    html = page(client, f"/deliveries/{one.pk}/")
    assert f'"/deliveries/{mine.pk}/"' in html
    assert f'"/deliveries/{theirs.pk}/"' not in html


def test_neighbours_are_those_of_the_list_it_was_found_in(staff: Client) -> None:
    made = [
        rows.delivery(n, sent_at=rows.NOW - timedelta(minutes=n), tags=(["a", "b"][n % 2],))
        for n in range(5)
    ]
    query = "?tag=a&amp;from=2026-11-01T00:00:00Z"
    html = page(staff, f"/deliveries/{made[2].pk}/{query.replace('&amp;', '&')}")
    assert f'rel="prev" href="/deliveries/{made[0].pk}/{query}"' in html
    assert f'rel="next" href="/deliveries/{made[4].pk}/{query}"' in html
    html = page(staff, f"/deliveries/{made[0].pk}/{query.replace('&amp;', '&')}")
    assert 'rel="prev"' not in html
    assert 'rel="next"' not in page(staff, f"/deliveries/{made[0].pk}/")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"), (0.4, "0.4 s"), (2, "2 s"), (90, "1 min 30 s"), (720, "12 min"),
        (11_100, "3 h 5 min"), (7_200, "2 h"), (183_600, "2 d 3 h"), (172_800, "2 d"),
    ],
)  # fmt: skip
def test_durations_read_easily(seconds: float, words: str) -> None:
    assert lasting(timedelta(seconds=seconds)) == words


# --- A category by hand --------------------------------------------------------------------------


def test_staff_may_give_another_category_and_take_it_back(staff: Client) -> None:
    found = bounced()
    address = f"/deliveries/{found.pk}/"
    answer = staff.post(f"{address}category/", {"category": "spam_content", "query": "range=24h"})
    assert answer.status_code == 302
    assert answer["Location"] == f"{address}?range=24h"
    found.refresh_from_db()
    assert found.category == Category.SPAM_CONTENT
    text = words(page(staff, answer["Location"]))
    assert "The category is spam content now." in text
    assert "Category spam content by hand" in text
    staff.post(f"{address}category/", {"category": ""})
    found.refresh_from_db()
    assert found.category == Category.REPUTATION_BLOCK


@pytest.mark.parametrize(("role", "status"), [("operator", 302), ("viewer", 403), ("", 404)])
def test_only_operators_of_the_location_may(client: Client, role: str, status: int) -> None:
    found = bounced()
    user = User.objects.create_user("vera")
    if role:
        Membership.objects.create(user=user, location=found.location, role=role)
    client.force_login(user)
    answer = client.post(f"/deliveries/{found.pk}/category/", {"category": "spam_content"})
    assert answer.status_code == status
    found.refresh_from_db()
    assert (found.category == Category.SPAM_CONTENT) == (status == 302)
    if role:
        offered = "Wrong? Assign another" in page(client, f"/deliveries/{found.pk}/")
        assert offered == (role == "operator")


def test_a_category_needs_the_token_of_the_form() -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(User.objects.create_user("anna", is_staff=True))
    made = rows.delivery(outcome=Outcome.BOUNCED)
    answer = client.post(f"/deliveries/{made.pk}/category/", {"category": "spam_content"})
    assert answer.status_code == 403


@pytest.mark.parametrize("word", ["nonsense", "none", "SPAM_CONTENT"])
def test_no_other_word_is_a_category(staff: Client, word: str) -> None:
    found = bounced()
    staff.post(f"/deliveries/{found.pk}/category/", {"category": word, "query": "outcome=x"})
    assert "There is no such category." in page(staff, f"/deliveries/{found.pk}/")


def test_delivered_mail_has_no_category_to_change(staff: Client) -> None:
    found = write(life("delivered"))
    staff.post(f"/deliveries/{found.pk}/category/", {"category": "spam_content"})
    assert "Only bounced mail has a category" in page(staff, f"/deliveries/{found.pk}/")


def test_the_way_back_cannot_lead_elsewhere(staff: Client) -> None:
    found = bounced()
    answer = staff.post(
        f"/deliveries/{found.pk}/category/", {"category": "policy", "query": "//evil.example"}
    )
    assert answer["Location"] == f"/deliveries/{found.pk}/"
