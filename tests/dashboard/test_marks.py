"""Marks on the charts: what people wrote, and what the counters tell of one location."""

from datetime import timedelta

import pytest

from dashboard.access import Rights
from dashboard.filters import parse
from dashboard.marks import Mark, marks_of
from dashboard.models import Note, Suspension
from ingest import counting
from ingest.models import AnswerHour
from ingest.vocabulary import Outcome
from tests.dashboard import rows
from tests.dashboard.rows import NOW

pytestmark = [pytest.mark.django_db, pytest.mark.both_engines]
ALL = Rights(everything=True)
HOUR = timedelta(hours=1)


def marks(query: str = "location=loc&range=7d", rights: Rights = ALL) -> list[Mark]:
    params = [part.split("=") for part in query.split("&")]
    return marks_of(parse([(n, v) for n, v in params], now=NOW), rights, now=NOW)


def count() -> None:
    counting.rebuild(now=int(NOW.timestamp() * 1e6))


def test_notes_of_the_location_and_of_all() -> None:
    mine, other = rows.location("loc"), rows.location("other")
    for place, text in ((mine, "mine"), (other, "other's"), (None, "all")):
        Note.objects.create(location=place, at=NOW - HOUR, text=text)
    Note.objects.create(location=mine, at=NOW - timedelta(days=8), text="before")
    assert {mark.text for mark in marks()} == {"mine", "all"}
    seen = marks("range=7d", Rights(location_ids=frozenset({other.pk})))
    assert {mark.text for mark in seen} == {"other's", "all"}


def test_stops_begin_and_end() -> None:
    place = rows.location("loc")
    Suspension.objects.create(location=place, since=NOW - 30 * HOUR, until=NOW - 18 * HOUR)
    found = [(mark.at, mark.kind) for mark in marks()]
    assert found == [(NOW - 30 * HOUR, "suspended"), (NOW - 18 * HOUR, "lifted")]


def test_the_first_mail_of_a_campaign_and_from_an_ip() -> None:
    for number, (campaign, ip, ago) in enumerate([
        ("bulk:old", "192.0.2.1", 300), ("bulk:old", "192.0.2.1", 20), ("bulk:new", "192.0.2.2", 9),
    ]):  # fmt: skip
        rows.delivery(number, campaign=campaign, ip=ip, sent_at=NOW - ago * HOUR)
    count()
    found = [(mark.kind, mark.text) for mark in marks()]
    assert sorted(found) == [("campaign", "Bulk new began"), ("ip", "First mail from 192.0.2.2")]
    assert marks("range=7d") == []


def test_nothing_is_new_where_watching_has_just_begun() -> None:
    rows.delivery(1, campaign="bulk:1", sent_at=NOW - 9 * HOUR)
    count()
    assert marks() == []


def test_a_line_is_crossed_once() -> None:
    for number in range(120):
        rows.delivery(number, sent_at=NOW - 50 * HOUR)
    for number in range(120, 130):
        rows.delivery(number, outcome=Outcome.BOUNCED, sent_at=NOW - 40 * HOUR)
    count()
    crossed = [mark for mark in marks() if mark.kind == "crossed"]
    assert [mark.text.replace("\xa0", " ") for mark in crossed] == ["Bounces of 24 h passed 5 %"]
    assert crossed[0].at == (NOW - 39 * HOUR).replace(minute=0)


def test_hours_without_any_webhook() -> None:
    hour = int(NOW.timestamp()) // 3600
    for ago, answers in ((9, 500), (8, 20), (4, 3), (3, 1)):
        AnswerHour.objects.create(hour=hour - ago, source_id=0, status="stored", answers=answers)
    (silent,) = marks("range=24h")
    assert (silent.kind, silent.text) == ("silent", "No webhook came in for 3 h")
    assert silent.at == (NOW - 7 * HOUR).replace(minute=0)
