"""How long the admin's list of deliveries takes on a history that was kept: page, filters, search.

python -m bench admin --of DATABASE_URL

Whole requests of Django's test client by a superuser, markup and all. Nothing stays in the
database: the superuser and the session are rolled back.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlencode

if TYPE_CHECKING:
    from django.test import Client

    from bench.queries import Answer, Question

RESULTS = Path(__file__).parent / "results"
TARGET = 300  # milliseconds, at the 95th percentile
LIST = "/admin/ingest/delivery/"


def main(arguments: list[str]) -> int:
    """Ask every question, print the times. Returns 1 where a target was missed."""
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("part", choices=("admin",))
    parser.add_argument("--of", metavar="DATABASE_URL", required=True)
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=RESULTS) as folder:
        _set_up(asked.of, folder)
        return int(any(answer.verdict == "MISSED" for answer in _ask_all()))


def _set_up(url: str, folder: str) -> None:
    """Django on the database as it is: this one must not be changed, so it is not migrated."""
    os.environ |= {
        "DJANGO_SETTINGS_MODULE": "config.settings", "SECRET_KEY": "bench" * 10,
        "DATA_DIR": folder, "DATABASE_URL": url,
    }  # fmt: skip
    import django

    django.setup()


def _ask_all() -> list["Answer"]:
    from django.conf import settings
    from django.contrib.auth.models import User
    from django.db import transaction
    from django.test import Client

    from bench.queries import measure

    plain = {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}
    settings.STORAGES = {**settings.STORAGES, "staticfiles": plain}  # nothing is collected
    with transaction.atomic():
        client = Client(SERVER_NAME="127.0.0.1")
        client.force_login(User.objects.create_superuser("bench-admin"))
        answers = []
        for question in _questions(client):
            answers.append(measure(question))
            _say(answers[-1])
        transaction.set_rollback(True)
    return answers


def _say(answer: "Answer") -> None:
    name, first = answer.question.name, answer.first
    sys.stdout.write(f"{name}: {first:.0f}, then {answer.p95:.0f} ms {answer.verdict}\n")
    sys.stdout.flush()


# --- Questions -------------------------------------------------------------------------------


def _questions(client: "Client") -> Iterator["Question"]:
    from bench.queries import Question

    def asking(name: str, **terms: str) -> Question:
        address = f"{LIST}?{urlencode(terms)}"

        def ask() -> None:
            answer = client.get(address)
            if answer.status_code != 200:
                raise RuntimeError(f"{address}: {answer.status_code}")

        return Question("admin", name, TARGET, ask)

    yield asking("first page")
    yield asking("page 100", p="100")
    for name, terms in _chosen():
        yield asking(name, **terms)


def _chosen() -> Iterator[tuple[str, dict[str, str]]]:
    """Filters by what there is much and little of, alone and together; searches."""
    from ingest.models import Delivery
    from ingest.vocabulary import Category, Dimension, Outcome

    large, small = _locations()
    for name, ref in (("largest location", large), ("median location", small)):
        yield name, {"location": ref}
        yield f"{name}, bounced", {"location": ref, "outcome": "bounced"}
    for outcome in Outcome:
        yield f"outcome {outcome.word}", {"outcome": outcome.word}
    for category in (Category.INVALID_RECIPIENT, Category.UNCLASSIFIED, Category.TLS):
        yield f"category {category.word}", {"category": category.word}
    for dimension in (Dimension.TAG, Dimension.PROVIDER, Dimension.CAMPAIGN):
        for text in _most_and_least(dimension):
            yield f"{dimension.word} {text}", {dimension.word: text}
    yield "no tag", {"tag": ""}
    yield "provider, bounced", {"provider": "Gmail", "outcome": "bounced"}
    newest = Delivery.objects.order_by("-sent_at", "-id").select_related("location")[0]
    day = newest.sent_at.date()
    dates = {"sent_at__gte": f"{day.replace(day=1)}", "sent_at__lt": f"{day}"}
    yield "dates", dates
    yield "dates, category", dates | {"category": "policy"}
    yield "recipient", {"q": newest.recipient}
    yield "beginning of a recipient", {"q": newest.recipient[:3]}
    yield "a recipient that there is not", {"q": "nobody-was-ever-called-so@"}
    yield "message id", {"q": newest.message_id}
    (campaign, *_) = _most_and_least(Dimension.CAMPAIGN)
    yield "campaign by its id", {"q": campaign.rpartition(":")[2]}
    yield "recipient and outcome", {"q": newest.recipient[:3], "outcome": "bounced"}


def _locations() -> tuple[str, str]:
    """The ids of the largest location and the median one."""
    from django.db.models import Sum

    from ingest.models import Location

    counted = Location.objects.exclude(pk=0).annotate(n=Sum("locationhour__sent", default=0))
    refs = list(counted.order_by("-n", "pk").values_list("ref", flat=True))
    return refs[0], refs[len(refs) // 2]


def _most_and_least(dimension: int) -> list[str]:
    """Values that much and little mail of the newest hours has."""
    from django.db.models import Max, Sum

    from ingest.models import HourlyCount, LocationHour, Value

    last = LocationHour.objects.filter(location_id=0).aggregate(last=Max("hour"))["last"]
    rows = HourlyCount.objects.filter(dimension=dimension, hour__in=range(last - 6, last + 1))
    by_size = rows.exclude(location_id=0).values_list("value_id").annotate(n=Sum("sent"))
    ids = [pk for pk, _ in by_size.order_by("-n")]
    texts = dict(Value.objects.filter(pk__in=ids).values_list("pk", "text"))
    named = [texts[pk] for pk in ids if texts.get(pk)]
    return [named[0], named[-1]]
