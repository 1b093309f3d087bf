"""What the tables keep of a number that is most often 0."""

from django.db import connection
from django.db.models import F, Sum

from ingest.models import LocationHour
from ingest.statements import statements
from ingest.vocabulary import MEASURES

KEY = (1, 400_000)


def add(**changes: int) -> None:
    counts = [changes.get(name, 0) for name in MEASURES]
    statements().add_location_hours([(KEY, counts)])


def test_a_measure_of_zero_is_null_and_is_read_as_zero(db: None) -> None:
    LocationHour.objects.create(location_id=1, hour=400_000, sent=2)
    with connection.cursor() as cursor:
        cursor.execute("SELECT sent, bounced FROM ingest_locationhour")
        assert cursor.fetchall() == [(2, None)]
    hour = LocationHour.objects.get()
    assert (hour.sent, hour.bounced) == (2, 0)
    sums = LocationHour.objects.aggregate(sent=Sum("sent"), bounced=Sum("bounced"))
    assert sums == {"sent": 2, "bounced": 0}


def test_what_is_added_to_zero_and_taken_away_again_is_zero(db: None) -> None:
    add(sent=1)
    add(sent=1, bounced=1)
    add(bounced=-1, delivered=1)
    hour = LocationHour.objects.get()
    counts = {name: n for name in MEASURES if (n := getattr(hour, name))}
    assert counts == {"sent": 2, "delivered": 1}


def test_an_update_computes_with_what_is_there(db: None) -> None:
    LocationHour.objects.create(location_id=1, hour=400_000, sent=2)
    LocationHour.objects.update(sent=F("sent") + 1, bounced=0)
    assert LocationHour.objects.values_list("sent", "bounced").get() == (3, 0)
