"""A campaign's page: its own mail alone, its senders, a workflow's steps."""

from datetime import UTC, datetime

import pytest
from django.contrib.auth.models import User
from django.test import Client

from dashboard.models import Membership
from tests.dashboard import rows
from tests.dashboard.pages.test_location import count, hard, html_of, region, send, words

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """However busy the machine is, the first paint waits for what should be quick."""
    monkeypatch.setattr("dashboard.pages.later.AT_FIRST", 60.0)


@pytest.fixture
def now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture
def staff(client: Client) -> Client:
    client.force_login(User.objects.create_user("anna", is_staff=True))
    return client


def test_it_counts_its_own_mail_and_names_its_senders(staff: Client, now: datetime) -> None:
    send(now, 1, campaign="bulk:1", recipient="in@example.com", **hard())
    send(now, 2, campaign="bulk:2", recipient="out@example.com")
    count(now)
    html = html_of(staff, "/campaigns/bulk:1/")
    assert "Sent 1 = Delivered 0 + Bounced 1" in region(html, "funnel")
    assert '<a href="/locations/loc/' in html
    assert "out@example.com" not in html
    assert "Of this campaign alone" in region(html, "gauges")
    assert 'data-step="86400"' in html


def test_a_workflow_opens_its_steps(staff: Client, now: datetime) -> None:
    send(now, 1, campaign="workflow:91b8bbfe", step="step-one")
    send(now, 2, campaign="bulk:1")
    count(now)
    assert "step-one 1" in region(
        html_of(staff, "/campaigns/workflow:91b8bbfe/"), "breakdown-title"
    )
    assert "Location" in region(html_of(staff, "/campaigns/bulk:1/"), "breakdown-title")


def test_others_locations_are_not_named(client: Client, now: datetime) -> None:
    user = User.objects.create_user("vera")
    Membership.objects.create(user=user, location=rows.location("mine"))
    client.force_login(user)
    send(now, 1, location_ref="mine", campaign="bulk:1")
    send(now, 2, location_ref="theirs", campaign="bulk:1")
    count(now)
    html = html_of(client, "/campaigns/bulk:1/")
    assert "theirs" not in words(html)
    assert "Sent 1 =" in region(html, "funnel")
