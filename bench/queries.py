"""How long every question behind the pages and the API takes, by the size of the history.

Questions go through the functions that the views call, with the rights of who sees everything.
Each is asked once on a database that was just filled (first), then again and again (warm).
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl

from django.db import connection
from django.db.models import Avg, Count, Sum
from django.db.models.functions import Length

from bench.large import Figures, in_ms
from dashboard import feed, queries, rate_tables, reasons
from dashboard.access import Rights
from dashboard.bounded import TookTooLong, bounded_reads
from dashboard.filters import Filter, parse
from dashboard.pages import PAGES
from ingest.models import Delivery, Event, HourlyCount, Location, Value
from ingest.vocabulary import Dimension

EVERYTHING = Rights(everything=True)
TIMES = 20
PATIENCE = 8.0  # seconds for a question's repetitions, beyond three of them
LONGEST = 20.0  # seconds for one answer: what takes longer is stopped
SHORT = ("24h", "7d")
RANGES = (*SHORT, "30d")

# What engineering asks for, in milliseconds, by range or for all.
BY_COUNTERS = {"24h": 150, "7d": 150, "30d": 400}
BY_DOMAIN_OF_THE_LARGEST = {"24h": 500, "7d": 500, "30d": 2_000}
BY_MANY_VALUES = {"24h": 500, "7d": 5_000, "30d": 5_000}
COMBINED = 400
NEAR_PAGE, FAR_PAGE = 100, 1_500
FIRST_PAINT = 150

IN_LOCATION = (
    "campaign", "step", "tag", "provider", "sending_domain", "ip", "pool", "category", "hour",
    "day",
)  # fmt: skip
IN_FLEET = ("location", "tag", "provider", "pool", "category", "hour", "day")
OF_MANY_VALUES = ("campaign", "step", "domain", "sending_domain", "ip")


@dataclass(frozen=True)
class Question:
    """Something that a page or the API asks, and how long it may take (0: no target)."""

    group: str
    name: str
    target: int
    ask: Callable[[], object]


@dataclass
class Answer:
    """Milliseconds; infinite where an answer was stopped."""

    question: Question
    first: float
    times: list[float] = field(default_factory=list)

    @property
    def p95(self) -> float:
        """The 95th percentile of the warm ones."""
        return sorted(self.times)[math.ceil(0.95 * len(self.times)) - 1]

    @property
    def verdict(self) -> str:
        """Whether its target was met."""
        if not self.question.target:
            return ""
        return "met" if self.p95 <= self.question.target else "MISSED"

    def as_json(self) -> dict[str, Any]:
        """Ready for JSON."""
        question = self.question
        return {
            "group": question.group,
            "name": question.name,
            "target_ms": question.target,
            "first_ms": _finite(self.first),
            "p95_ms": _finite(self.p95),
            "verdict": self.verdict,
            "times": len(self.times),
        }


def _finite(value: float) -> float | None:
    return None if value == math.inf else round(value, 2)


def measure(question: Question) -> Answer:
    """Ask once, then some twenty times; slow questions less often."""
    answer = Answer(question, _time(question.ask))
    began = time.perf_counter()
    while len(answer.times) < 3 or (
        len(answer.times) < TIMES and time.perf_counter() - began < PATIENCE
    ):
        answer.times.append(_time(question.ask))
        if answer.times[-1] == math.inf:
            break
    return answer


def _time(ask: Callable[[], object]) -> float:
    began = time.perf_counter()
    try:
        with bounded_reads(LONGEST):
            ask()
    except TookTooLong:
        return math.inf
    return (time.perf_counter() - began) * 1_000


# --- Questions -------------------------------------------------------------------------------


class Questions:
    """All questions to a filled database, asked as if it were the moment when it ends."""

    def __init__(self, now: datetime) -> None:
        self._now = now
        by_size = list(
            Location.objects.annotate(n=Sum("locationhour__sent", default=0)).order_by("-n", "pk")
        )
        self.largest, self.median = by_size[0], by_size[len(by_size) // 2]

    def __iter__(self) -> Iterator[Question]:
        yield from self._fleet()
        for size, location in (("largest", self.largest), ("median", self.median)):
            yield from self._location(size, location)
            yield from self._combined(size, location)
            yield from self._lists(size, location)
        yield from self._fleet_lists()
        yield from self._reasons()
        yield from self._pages()

    def _filter(self, query: str) -> Filter:
        return parse(parse_qsl(query), now=self._now)

    def _rates(self, group: str, query: str, by: str, target: int, **more: Any) -> Question:
        filter = self._filter(query)
        name = f"by={by} {query.replace(self.largest.ref, '…').replace(self.median.ref, '…')}"
        if sort := more.get("sort"):
            name += f" sort={sort}"
        return Question(
            group, name, target,
            lambda: rate_tables.rates(
                filter, EVERYTHING, by=by, judge=True, now=self._now, **more
            ),
        )  # fmt: skip

    def _fleet(self) -> Iterator[Question]:
        for within in RANGES:
            for by in IN_FLEET:
                target = BY_COUNTERS[within]
                yield self._rates("fleet, from its rows", f"range={within}", by, target)
            for by in OF_MANY_VALUES:
                yield self._rates(
                    "fleet, many values", f"range={within}", by, BY_MANY_VALUES[within]
                )
        yield self._rates(
            "fleet, from its rows", "range=24h", "location", BY_COUNTERS["24h"], sort="risk"
        )
        provider = "range=7d&provider=Outlook"
        yield self._rates("fleet, one value", provider, "day", BY_COUNTERS["7d"])
        yield self._rates("fleet, one value", provider, "location", BY_COUNTERS["7d"])

    def _location(self, size: str, location: Location) -> Iterator[Question]:
        for within in RANGES:
            query = f"location={location.ref}&range={within}"
            for by in IN_LOCATION:
                yield self._rates(f"{size} location", query, by, BY_COUNTERS[within])
            target = BY_DOMAIN_OF_THE_LARGEST[within]
            yield self._rates(f"{size} location, domains", query, "domain", target)

    def _most(self, location: Location, dimension: Dimension) -> str:
        """The value that a location has most mail under."""
        counted = HourlyCount.objects.filter(location=location, dimension=dimension)
        top = counted.exclude(value__text="").order_by().values_list("value_id")
        (pk,) = top.annotate(n=Sum("sent")).order_by("-n", "value_id").values_list("value_id")[0]
        return Value.objects.get(pk=pk).text

    def _combined(self, size: str, location: Location) -> Iterator[Question]:
        group, within = f"{size} location, combined", f"location={location.ref}&range=30d"
        tag, ip = self._most(location, Dimension.TAG), self._most(location, Dimension.IP)
        for more, by in (
            (f"tag={tag}&provider=Gmail", "campaign"),
            (f"tag={tag}&provider=Gmail", "day"),
            (f"provider=Gmail&campaign={self._most(location, Dimension.CAMPAIGN)}", "hour"),
            ("provider=-Gmail&domain=-yahoo.com", "provider"),
            (f"ip={ip}&provider=Gmail", "ip"),
            (f"tag={tag}&outcome=bounced", "category"),
            ("is=complained", "campaign"),
        ):
            question = self._rates(group, f"{within}&{more}", by, COMBINED)
            yield question

    def _deliveries(self, group: str, query: str, target: int, days: int = 0) -> Question:
        filter = self._filter(query)
        back = int((self._now - timedelta(days=days)).timestamp() * 1e6)
        before = f"{back}.{2**40}" if days else ""
        name = f"deliveries {query.replace(self.largest.ref, '…').replace(self.median.ref, '…')}"
        return Question(
            group, name + (f" {days} days back" if days else ""), target,
            lambda: queries.deliveries_page(filter, EVERYTHING, before=before, limit=50),
        )  # fmt: skip

    def _lists(self, size: str, location: Location) -> Iterator[Question]:
        group, where = f"{size} location, lists", f"location={location.ref}"
        other = self._most(self.median if size == "largest" else self.largest, Dimension.CAMPAIGN)
        for query, target, days in (
            ("", NEAR_PAGE, 0),
            ("", NEAR_PAGE, 2),
            ("", FAR_PAGE, 25),
            ("&outcome=bounced&category=invalid_recipient", NEAR_PAGE, 0),
            ("&provider=Outlook&is=opened&range=7d", NEAR_PAGE, 0),
            ("&is=complained", FAR_PAGE, 0),
            ("&code=599", FAR_PAGE, 0),
            (f"&campaign={other}", FAR_PAGE, 0),
        ):
            yield self._deliveries(group, where + query, target, days)
        yield self._events(group, where, 0)
        yield self._events(group, f"{where}&outcome=bounced&range=24h", 0)

    def _events(self, group: str, query: str, target: int) -> Question:
        filter = self._filter(query)
        after = max(0, queries.newest_cursor() - 100_000)
        name = f"events {query.replace(self.largest.ref, '…').replace(self.median.ref, '…')}"
        return Question(
            group, name, target,
            lambda: queries.events_page(filter, EVERYTHING, after=after, limit=500),
        )  # fmt: skip

    def _fleet_lists(self) -> Iterator[Question]:
        recipient = Delivery.objects.order_by("-pk").values_list("recipient", flat=True)[0]
        for query, target in (
            ("", NEAR_PAGE),
            ("outcome=bounced&category=reputation_block", FAR_PAGE),
            ("is=recovered", FAR_PAGE),
            ("code=599", FAR_PAGE),
            (f"q={recipient}", NEAR_PAGE),
        ):
            yield self._deliveries("fleet, lists", query, target)
        yield self._events("fleet, lists", "", 0)
        yield self._events("fleet, lists", "provider=Yahoo&is=complained", 0)

    def _reasons(self) -> Iterator[Question]:
        where = f"location={self.largest.ref}&"
        tag = self._most(self.largest, Dimension.TAG)
        for query in (
            *(f"range={within}" for within in RANGES),
            *(f"{where}range={within}" for within in RANGES),
            "range=1h",
            "range=7d&provider=Outlook",
            f"{where}range=7d&tag={tag}",
        ):
            filter = self._filter(query)
            yield Question(
                "reasons", f"reasons {query.replace(self.largest.ref, '…')}", 0,
                lambda filter=filter: reasons.reasons(filter, EVERYTHING),  # type: ignore[misc]
            )  # fmt: skip

    def _pages(self) -> Iterator[Question]:
        filter = self._filter("range=24h")
        yield Question(
            "pages", "the last hour's minutes", 0,
            lambda: queries.minutes(filter, EVERYTHING, now=self._now),
        )  # fmt: skip
        yield Question("pages", "the feed", 0, lambda: feed.newest_feed(filter, EVERYTHING))
        yield self._page("overview", "range=24h", FIRST_PAINT)
        yield self._page("overview", "range=7d", 0)
        yield self._page("location", f"location={self.largest.ref}&range=24h", 0)
        campaign = self._most(self.largest, Dimension.CAMPAIGN)
        yield self._page("campaign", f"campaign={campaign}&range=30d", 0)

    def _page(self, name: str, query: str, target: int) -> Question:
        """All that a page shows at first, its markup too, but for what stands around it."""
        page, filter = PAGES[name], self._filter(query)

        def paint() -> None:
            asked = page.ask(filter, EVERYTHING, {})
            with asked.in_zone():
                for region in page.regions:
                    region.html(asked)

        return Question("pages", f"{name}, {query.rpartition('&')[2]}", target, paint)


# --- Disk ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Disk:
    """Bytes that a filled database takes."""

    events: int
    tables: dict[str, int]
    payload: float  # a kept one's, on average
    kept: int

    @property
    def per_event(self) -> float:
        """All tables, without payloads."""
        return (sum(self.tables.values()) - self.payload * self.kept) / self.events

    def as_json(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "events": self.events, "tables": self.tables, "bytes_an_event": self.per_event,
            "bytes_a_payload": self.payload, "payloads": self.kept,
        }  # fmt: skip


def disk() -> Disk:
    """What the tables take on PostgreSQL, and on SQLite the file."""
    kept = Event.objects.exclude(payload=None).aggregate(n=Count("pk"), size=Avg(Length("payload")))
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute(
                "SELECT relname, pg_total_relation_size(oid) FROM pg_class WHERE relkind = 'r'"
                " AND relname LIKE 'ingest_%%' ORDER BY 2 DESC"
            )
            tables = dict(cursor.fetchall())
        else:
            cursor.execute("PRAGMA page_count")
            (pages,) = cursor.fetchone()
            cursor.execute("PRAGMA page_size")
            tables = {"all": pages * cursor.fetchone()[0]}
    return Disk(Event.objects.count(), tables, float(kept["size"] or 0), kept["n"])


def ask_all(now: int, say: Callable[[str], None]) -> list[Answer]:
    """Every question, each told as it was answered. ``now`` in microseconds: the history's end."""
    answers = []
    for question in Questions(datetime.fromtimestamp(now / 1e6, UTC)):
        answer = measure(question)
        answers.append(answer)
        first, warm = in_ms(_finite(answer.first)), in_ms(_finite(answer.p95))
        say(f"{question.group}: {question.name}: {first}, then {warm} ms {answer.verdict}")
    return answers


# --- What was found -----------------------------------------------------------------------------


def figures(deliveries: int, answers: Sequence[Answer]) -> Figures:
    """All figures of the configured database, ready for JSON."""
    found = [answer.as_json() for answer in answers]
    return {"deliveries": deliveries, "disk": disk().as_json(), "answers": found}
