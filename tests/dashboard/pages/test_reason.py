"""The page of one refusal: who is hit, what was said, the ticket, the pivot, and if it drains."""

import re
from html import unescape
from typing import Any

import pytest
from django.test import Client

from dashboard.models import Membership
from ingest.models import Reason
from tests.dashboard.lives import forget
from tests.dashboard.pages.test_reasons import (
    NOW,
    html,
    listed,
    member,
    pk_of,
    staff,
    store,
    words,
)
from tests.dashboard.test_reasons import BLOCKED, NO_USER, SLOW, mail

pytestmark = pytest.mark.django_db
__all__ = ["staff"]
MINUTE = 60


@pytest.fixture(autouse=True)
def _forget_ids() -> Any:
    forget()
    yield
    forget()


def blocked(number: int, **fields: Any) -> Any:
    return mail(number, NOW - number, reply=BLOCKED, **fields)


def ticket_of(page: str) -> str:
    found = re.search(r"<textarea[^>]*>(.*?)</textarea>", page, re.S)
    assert found
    return unescape(found[1])


def test_it_says_who_is_hit_and_whose_to_fix(staff: Client) -> None:
    store(blocked(1), blocked(2, location="b"), mail(3, NOW, location="c"))
    text = words(html(staff, f"/reasons/{pk_of('block list')}/"))
    assert "HighLevel can fix it; your client cannot." in text
    assert "2 of 3" in text
    assert "locations that mail Outlook" in text


def test_replies_are_raw_with_all_that_a_postmaster_asks_for(staff: Client) -> None:
    store(*(blocked(n, location="abcdefg"[n]) for n in range(7)))
    page = html(staff, f"/reasons/{pk_of('block list')}/")
    assert page.count('class="reply"') == 5
    text = words(page)
    assert "[192.0.2.1] is on our block list (S3150)" in text
    times = re.findall(r"At (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) UTC", text)
    assert len(times) == 5
    assert times == sorted(times, reverse=True)
    assert "From 192.0.2.1, pool p" in text
    assert "To mx1 (Outlook)" in text
    assert "Recipient's domain example.org" in text


def test_the_ticket_is_whole_and_masks_recipients(staff: Client) -> None:
    store(*(mail(n, NOW - n, reply=NO_USER) for n in range(3)), mail(9, NOW))
    page = html(staff, f"/reasons/{pk_of('no such user')}/")
    text = ticket_of(page)
    assert "Outlook refuses our mail: 3 refusals since" in text
    assert "Share: 75 % of 4 attempts at Outlook" in text
    assert "Sending IPs: 192.0.2.1 (3)" in text
    assert "Message-ID: <m0>" in text
    assert "r•••@example.org" in text
    assert "r0@example.org" not in text
    copied = re.search(r'data-copy="([^"]*)">Copy for the postmaster ticket', page)
    assert copied
    assert unescape(copied[1]) == text


def test_the_ticket_is_for_the_provider_that_gave_it_most(staff: Client) -> None:
    store(blocked(1), blocked(2), blocked(3, provider="Gmail", ip="192.0.2.9"))
    page = html(staff, f"/reasons/{pk_of('block list')}/")
    assert "2 refusals since" in ticket_of(page)
    assert "192.0.2.9" not in ticket_of(page)
    assert "Gmail refuses our mail: 1 refusal since" in ticket_of(
        html(staff, f"/reasons/{pk_of('block list')}/?provider=Gmail")
    )


@pytest.mark.parametrize("axes", ["", "rows=location&columns=provider", "rows=ip&columns=domain"])
def test_every_number_of_the_pivot_lists_its_mails(staff: Client, axes: str) -> None:
    store(
        blocked(1),
        blocked(2, location="b", ip="192.0.2.2"),
        blocked(3, location="b", provider="Gmail", pool="q"),
        mail(4, NOW, reply=NO_USER),
    )
    page = html(staff, f"/reasons/{pk_of('block list')}/?{axes}")
    table = page[page.index('<table class="grid"') :].partition("</table>")[0]
    cells = re.findall(r'<td class="shade-\d"><a href="([^"]+)">(\d+)</a>', table)
    assert sum(int(n) for _, n in cells) == 3
    assert all(listed(url) == int(n) for url, n in cells)


def test_refused_attempts_can_be_counted_too(staff: Client) -> None:
    slow: dict[str, Any] = {"reply": SLOW, "kind": "deferred"}
    store(mail(1, NOW - 90, **slow), mail(1, NOW - 30, **slow), mail(2, NOW - 60, **slow))
    path = f"/reasons/{pk_of('try again')}/"
    assert "Provider \\ Pool p All Outlook 3 3" in words(html(staff, path))
    assert "Outlook 2 2" in words(html(staff, f"{path}?count=mails"))
    assert "3" in words(html(staff, f"{path}?rows=campaign&columns=ip"))


def test_mail_that_was_put_off_is_followed(staff: Client) -> None:
    slow: dict[str, Any] = {"reply": SLOW, "kind": "deferred"}
    store(
        *(mail(n, NOW - 300, **slow) for n in range(3)),
        mail(0, NOW - 200),
        mail(1, NOW - 100, reply=NO_USER),
    )
    page = html(staff, f"/reasons/{pk_of('try again')}/")
    told = "Of 3 mails that it put off: 1 delivered since, 1 given up, 1 waiting."
    assert told in words(page)
    assert "Delivered after it" in words(page)
    assert "bars (an hour each, the last running), 0 in the 22 before." in words(page)
    assert re.search(
        r'<figure id="attempts" [^>]*data-from="[^"]+" data-to="[^"]+" data-step="3600"', page
    )
    assert 'data-step="60"' in html(staff, f"/reasons/{pk_of('try again')}/?range=1h")


def test_the_rule_that_said_so_can_be_overruled_by_staff_only(
    client: Client, staff: Client
) -> None:
    store(blocked(1))
    path = f"/reasons/{pk_of('block list')}/"
    page = html(staff, path)
    (url,) = re.findall(r'<a href="([^"]+)">Propose a rule', page)
    assert url.startswith("/admin/ingest/classificationrule/add/?provider=Outlook&amp;code=550")
    member(client, "a")
    assert "Propose a rule" not in html(client, path)


def test_refusals_like_it_are_named(staff: Client) -> None:
    gone = {"code": 550, "enhanced": "5.1.1", "message": "unknown user in this place"}
    store(mail(1, NOW, reply=NO_USER), mail(2, NOW, reply=gone), blocked(3))
    text = words(html(staff, f"/reasons/{pk_of('no such user')}/"))
    assert "Also addresses that do not exist at Outlook" in text
    assert "unknown user in this place" in text.partition("Also addresses")[2]


def test_a_member_sees_their_own_part_alone(client: Client) -> None:
    store(blocked(1), blocked(2, location="b", ip="192.0.2.77"))
    member(client, "a")
    page = html(client, f"/reasons/{pk_of('block list')}/")
    assert "1 refusal since" in ticket_of(page)
    assert "192.0.2.77" not in page
    assert "in the hour from" in ticket_of(page)
    Membership.objects.all().delete()
    assert client.get(f"/reasons/{Reason.objects.get().pk}/").status_code == 404


def test_a_quiet_range_is_said_and_offers_no_ticket(staff: Client) -> None:
    store(mail(1, NOW - 10 * 24 * 3_600, reply=NO_USER))
    page = html(staff, f"/reasons/{pk_of('no such user')}/")
    assert "Not given in this range" in words(page)
    assert "data-copy" not in page.partition('id="replies"')[2]
