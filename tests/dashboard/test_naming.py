"""Names from CSV files: what is read, what is refused, and that all lines count or none."""

import pytest

from dashboard.naming import Import, Named, NamesError, apply_names, read_names
from ingest.models import Location, Value
from ingest.vocabulary import Dimension
from tests.dashboard import rows


def read(text: str) -> list[Named]:
    return read_names(text.encode())


@pytest.mark.parametrize("text", [
    "id,name\nloc,Bright Smile\n",
    "\N{BYTE ORDER MARK}Location ID;Name\r\nloc;Bright Smile\r\n\r\n",
    'name\tref\n"Bright Smile"\tloc',
    "kind,id,name,timezone,more\nLocation, loc ,Bright Smile,,x\n",
])  # fmt: skip
def test_what_spreadsheets_write_is_read(text: str) -> None:
    assert [(n.kind, n.id, n.name) for n in read(text)] == [("location", "loc", "Bright Smile")]


@pytest.mark.parametrize(("text", "sentence"), [
    ("", "The first line must name the columns: id and name."),
    ("loc,Bright Smile", "The first line must name the columns: id and name."),
    ("id,name\nloc,x\n,y", "Line 3 has no id."),
    ("id,name,kind\nloc,x,person", "Line 2: kind is location or campaign."),
    ("id,name,timezone\nloc,x,Denver", "Line 2: the time zone is no IANA name, such as "),
    (f"id,name\nloc,{'x' * 201}", "Line 2: a name has at most 200 characters."),
])  # fmt: skip
def test_what_cannot_be_read_is_said_with_its_line(text: str, sentence: str) -> None:
    with pytest.raises(NamesError, match=sentence):
        read(text)


def test_a_file_too_large_is_refused() -> None:
    with pytest.raises(NamesError, match="larger than 5 MB"):
        read_names(b"x" * (5 * 1024 * 1024 + 1))


@pytest.mark.django_db
def test_names_are_set_and_counted() -> None:
    rows.location("loc")
    rows.value(Dimension.CAMPAIGN, "bulk:1")
    lines = "kind,id,name\n,loc,First\n,loc,Bright Smile\ncampaign,bulk:1,Spring\n,gone,Gone\n"
    done = apply_names(read(lines))
    assert (done.changed, done.unchanged, done.unknown) == (2, 0, ["gone"])
    assert Location.objects.get(ref="loc").name == "Bright Smile"
    assert Value.objects.get(text="bulk:1").label == "Spring"
    again = apply_names(read(lines))
    assert (again.changed, again.unchanged) == (0, 2)


@pytest.mark.django_db
def test_an_empty_name_leaves_what_is_there() -> None:
    rows.location("loc")
    apply_names(read("id,name,timezone\nloc,Bright Smile,America/Denver\n"))
    apply_names(read("id,name,timezone\nloc,,Europe/Paris\n"))
    found = Location.objects.get(ref="loc")
    assert (found.name, found.timezone) == ("Bright Smile", "Europe/Paris")


def test_many_unknown_ids_are_counted() -> None:
    done = Import(unknown=[f"x{n}" for n in range(7)])
    assert done.sentence.endswith("x0, x1, x2, x3, x4 and 2 more.")
