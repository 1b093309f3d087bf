"""Providers: the tables are sound, and the longest suffix of whole labels decides."""

import pytest

from ingest.providers import _DATA, NAMES, derive, spell


@pytest.mark.parametrize("table", ["mx", "domain"])
def test_the_tables_are_sound(table: str) -> None:
    suffixes = [suffix for found in _DATA[table].values() for suffix in found]
    assert len(suffixes) == len(set(suffixes))
    assert all(suffix == suffix.lower().strip(".") and "." in suffix for suffix in suffixes)
    assert len({name.lower() for name in NAMES}) == len(NAMES)


@pytest.mark.parametrize(
    ("mx", "domain", "name"),
    [
        ("alt1.gmail-smtp-in.l.google.com", "", "Gmail"),
        ("alt2.aspmx.l.google.com", "example.com", "Google Workspace"),
        ("example-com.mail.protection.outlook.com", "example.com", "Outlook 365"),
        ("outlook-com.olc.protection.outlook.com", "outlook.com", "Outlook"),
        ("mta5.am0.yahoodns.net", "aol.com", "Yahoo"),
        ("mxa-001.pphosted.com", "example.com", "Proofpoint"),
        ("mx.example.com", "gmail.com", "Gmail"),
        ("", "mail.yahoo.com", "Yahoo"),
        ("notgmail-smtp-in.l.google.com.example.org", "example.org", ""),
        ("evilyahoodns.net", "notyahoo.com", ""),
        ("", "", ""),
        ("...", ".", ""),
    ],
)
def test_derive(mx: str, domain: str, name: str) -> None:
    assert derive(mx, domain) == name


def test_spelling() -> None:
    assert spell("google workspace") == "Google Workspace"
    assert spell("Somebody Else") == "Somebody Else"
