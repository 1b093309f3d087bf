"""What a client is told: plain words, numbers, and no address that others could read."""

import re

import pytest

from dashboard.client_message import Trouble, client_message
from dashboard.masking import masked

HARD = Trouble("Bright Smile Dental", "hard", 84, 1377, "24 hours")


def test_it_says_what_went_wrong_in_numbers() -> None:
    text = client_message(HARD)
    assert text.startswith("Hello Bright Smile Dental,")
    assert "84 of your last 1,377 emails (6.1 %, last 24 hours)" in text
    assert "HighLevel stops sending at 5 %" in text


def test_it_names_the_campaign_and_links() -> None:
    trouble = Trouble(
        "Acme", "hard", 9, 100, "7 days", "Reactivation 2019", 7, url="https://watch.example/x/"
    )
    text = client_message(trouble)
    assert "7 of them come from “Reactivation 2019”." in text
    assert text.endswith("https://watch.example/x/")


def test_at_most_three_addresses_and_none_in_full() -> None:
    addresses = [f"jane{n}.doe@example.com" for n in range(5)]
    text = client_message(Trouble("Acme", "hard", 9, 100, "7 days", addresses=addresses))
    assert text.count("j•••@example.com") == 3
    assert "jane" not in text


def test_a_providers_incident_is_not_the_clients_fault() -> None:
    text = client_message(Trouble("Acme", "blocks", 9, 100, "7 days", "Spring", 9, "Outlook"))
    assert "on Outlook's side and not your list" in text
    assert "take old" not in text
    assert "Spring" not in text


@pytest.mark.parametrize("measure", ["hard", "blocks", "complaints"])
def test_no_jargon(measure: str) -> None:
    text = client_message(Trouble("Acme", measure, 9, 0, "7 days"))
    assert not re.search(r"\b(IP|SMTP|MX|pool|bounce|550)\b", text)


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("jane@x.org", "j•••@x.org"),
        ("j@x.org", "j•••@x.org"),
        ("@x.org", "•••@x.org"),
        ("odd", "o•••"),
    ],
)
def test_masked(address: str, shown: str) -> None:
    assert masked(address) == shown
