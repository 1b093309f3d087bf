"""How far the numbers can be trusted: what came twice, late, incomplete, or not at all.

Three clocks meet here, each in whole hours: what came in counts in the hour of its receipt, what
was sent in the hour of its sending, and mail without a final event in the hour in which its last
day ended. The endpoint's own answers belong to no location: only who sees everything sees them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from django.conf import settings
from django.db import connection
from django.db.models import Max, Model, Sum

from dashboard.access import Rights
from dashboard.filters import Filter, FilterError
from dashboard.spans import hour_of, moment_of
from ingest.models import (
    AnswerHour,
    CountedValues,
    Event,
    HourlyCount,
    KeptWebhook,
    Location,
    LocationHour,
    QualityHour,
    QuarantinedWebhook,
    RecentSignatures,
    Source,
    Value,
)
from ingest.quality import ANSWERS, COLUMNS, LAG_EDGES, LAGS, LATE_AFTER, SIGNATURE_FAILURES
from ingest.vocabulary import FLEET_LOCATION, MOST_VALUES, Dimension

BY = ("location", "hour")
MAX_ROWS = 3_000  # every hour of 90 days
REUSE_LOOKS_AT = 50_000  # events, the newest: a repeated webhookId shows soon or never
FINAL_HOURS = 24  # mail that is in flight for longer has lost its last webhook
BREAKER = 0.9  # HighLevel pauses an endpoint that answers fewer of its webhooks with 2xx
WINDOWS = {"1h": 1, "24h": 24, "3d": 72}  # the last is the time that HighLevel looks at
COUNTED = 100_000  # kept webhooks are counted no further


# --- Rows -----------------------------------------------------------------------------------


@dataclass(slots=True)
class Counts:
    """What one row counts. Of ``lags`` the n-th was received within ``LAG_EDGES[n]`` seconds."""

    # By the hour of receipt:
    events: int = 0
    duplicates: int = 0
    conflicts: int = 0
    unknown_kinds: int = 0
    undated: int = 0
    no_message_id: int = 0
    no_recipient: int = 0
    no_campaign: int = 0
    before_horizon: int = 0
    webhook_id_reuse: int = 0
    lags: tuple[int, ...] = (0,) * len(LAGS)
    # By the hour of sending:
    sent: int = 0
    unattributed: int = 0
    orphan: int = 0
    inferred: int = 0
    # By the hour in which a day had passed since the sending:
    sent_a_day_before: int = 0
    no_final_event: int = 0

    @property
    def late(self) -> int:
        """Events received over ``LATE_AFTER`` seconds after they happened."""
        return sum(self.lags[LAG_EDGES.index(LATE_AFTER) + 1 :])

    @property
    def lag_p95(self) -> float | None:
        """Seconds that 95 % of the dated events took at most; None without any."""
        return percentile(self.lags, 0.95)

    def add(self, other: "Counts") -> None:
        """Count what another row counts too."""
        self.lags = tuple(a + b for a, b in zip(self.lags, other.lags, strict=True))
        for name in _NUMBERS:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def as_json(self) -> dict[str, Any]:
        """The counts, and the shares that they come to."""
        return {name: getattr(self, name) for name in _NUMBERS} | {
            "late": self.late,
            "duplicate_share": share(self.duplicates, self.events + self.duplicates),
            "late_share": share(self.late, sum(self.lags)),
            "unattributed_share": share(self.unattributed, self.sent),
            "no_final_event_share": share(self.no_final_event, self.sent_a_day_before),
            "receipt_lag_p95": self.lag_p95,
        }


_NUMBERS = [field.name for field in fields(Counts) if field.name != "lags"]


def share(numerator: int, denominator: int) -> dict[str, float | int | None]:
    """A part of a whole as the API writes it; its value is null where there is no whole."""
    value = numerator / denominator if denominator else None
    return {"value": value, "numerator": numerator, "denominator": denominator}


def percentile(lags: Iterable[int], part: float) -> float | None:
    """Where this part of a histogram of lags ends, in seconds; None for an empty one.

    Between two edges as if all lay evenly there; beyond the last edge, that edge: "a day or more".
    """
    counts = list(lags)
    wanted = part * sum(counts)
    if not wanted:
        return None
    low = 0.0
    for count, high in zip(counts, LAG_EDGES, strict=False):
        if wanted <= count:
            return low + (high - low) * wanted / count
        wanted -= count
        low = float(high)
    return low


class Row(NamedTuple):
    """One location or hour: its key in filters, and the name to show."""

    key: str
    label: str
    counts: Counts

    def as_json(self) -> dict[str, Any]:
        """The API's row."""
        return {"key": self.key, "label": self.label} | self.counts.as_json()


@dataclass(frozen=True)
class Quality:
    """The whole answer. ``start`` and ``end`` are whole hours: the bounds, widened."""

    by: str
    start: datetime | None
    end: datetime
    total: Counts
    rows: list[Row]
    more: int  # rows beyond the limit
    reuse_looked_at: int
    values_capped: list[dict[str, Any]]
    endpoint: "Endpoint | None"

    def as_json(self) -> dict[str, Any]:
        """``/api/quality/``, ready for JSON."""
        return {
            "by": self.by,
            "from": self.start.isoformat() if self.start else None,
            "to": self.end.isoformat(),
            "clocks": CLOCKS,
            "late_after_seconds": LATE_AFTER,
            "lag_edges_seconds": LAG_EDGES,
            "webhook_ids_of_newest_events": self.reuse_looked_at,
            "total": self.total.as_json(),
            "rows": [row.as_json() for row in self.rows],
            "more": self.more,
            "values_capped": self.values_capped,
            "endpoint": self.endpoint.as_json() if self.endpoint else None,
        }


CLOCKS = {
    "received": [
        "events", "duplicates", "conflicts", "webhook_id_reuse", "late", "receipt_lag_p95",
        "unknown_kinds", "undated", "no_message_id", "no_recipient", "no_campaign",
        "before_horizon",
    ],
    "sent": ["sent", "unattributed", "orphan", "inferred"],
    "sent_and_a_day": ["sent_a_day_before", "no_final_event"],
}  # fmt: skip


# --- What is asked --------------------------------------------------------------------------


@dataclass(frozen=True)
class _Asked:
    """Hours from ``first`` (in) to ``last`` (out), of these locations (None: all), by what."""

    first: int
    last: int
    now: int  # the present hour
    locations: frozenset[int] | None
    by: str

    def conditions(self, shift: int = 0) -> dict[str, Any]:
        """As conditions on an hourly table, ``shift`` hours earlier."""
        found: dict[str, Any] = {
            "hour__gte": self.first - shift,
            "hour__lt": min(self.last, self.now if shift else self.last) - shift,
        }
        if self.locations is not None:
            found["location_id__in"] = self.locations
        return found

    def sums(
        self, model: type[Model], columns: Iterable[str], *, shift: int = 0, **more: Any
    ) -> dict[int, list[int]]:
        """Sums of columns, by the id of a location or by an hour since 1970."""
        key = "location_id" if self.by == "location" else "hour"
        names = {f"sum_{column}": Sum(column) for column in columns}
        rows = model._default_manager.filter(**self.conditions(shift), **more)
        rows = rows.exclude(location_id=FLEET_LOCATION).order_by()
        moved = shift if self.by == "hour" else 0
        found = rows.values(key).annotate(**names).values_list(key, *names)
        return {row[0] + moved: list(row[1:]) for row in found}


def quality(
    filter: Filter,
    rights: Rights,
    *,
    now: datetime,
    by: str = "location",
    limit: int = MAX_ROWS,
) -> Quality:
    """Data quality of a filter's locations in its time, by location or hour.

    Raises ``FilterError`` for what it cannot be asked with, ``Http404`` for a location that may
    not be seen.
    """
    _check(filter, by)
    filter.check_locations(rights)
    asked = _Asked(
        first=hour_of(filter.start) if filter.start else 0,
        last=_hour_after(filter.end or now),
        now=hour_of(now),
        locations=filter.location_ids(rights),
        by=by,
    )
    found = _count(asked)
    looked_at = _count_reuse(asked, found)
    rows = _named(asked, found)
    return Quality(
        by=by,
        start=moment_of(asked.first) if filter.start else None,
        end=moment_of(asked.last),
        total=_total(found.values()),
        rows=rows[-limit:] if by == "hour" else rows[:limit],
        more=max(0, len(rows) - limit),
        reuse_looked_at=looked_at,
        values_capped=_values_capped(asked),
        endpoint=endpoint(now=now) if rights.everything else None,
    )


def _check(filter: Filter, by: str) -> None:
    if by not in BY:
        raise FilterError(f"by is one of {', '.join(BY)}.")
    if others := sorted(filter.names - {"location", "company"}):
        raise FilterError(
            f"Data quality cannot be asked with {others[0]}:"
            " only with location, company and a time."
        )
    if filter.clock:
        raise FilterError("Data quality has clocks of its own: leave clock out.")


def _hour_after(moment: datetime) -> int:
    return hour_of(moment + timedelta(hours=1) - timedelta(microseconds=1))


# --- Counting -------------------------------------------------------------------------------

_RECEIVED = {name: "no_campaign" if name == "unattributed" else name for name in COLUMNS[:9]}


def _count(asked: _Asked) -> dict[int, Counts]:
    """What the hourly tables know, by location id or hour."""
    found: dict[int, Counts] = {}
    for key, sums in asked.sums(QualityHour, COLUMNS).items():
        row = found.setdefault(key, Counts())
        row.lags = tuple(sums[len(_RECEIVED) :])
        for name, n in zip(_RECEIVED.values(), sums, strict=False):
            setattr(row, name, n)
    for key, sums in asked.sums(LocationHour, ("sent", "orphan", "inferred")).items():
        row = found.setdefault(key, Counts())
        row.sent, row.orphan, row.inferred = sums
    nowhere = Value.objects.filter(dimension=Dimension.CAMPAIGN, text="").values("pk")
    unattributed: dict[str, Any] = {"dimension": Dimension.CAMPAIGN, "value_id__in": nowhere}
    for key, (sent,) in asked.sums(HourlyCount, ("sent",), **unattributed).items():
        found.setdefault(key, Counts()).unattributed = sent
    ended = ("sent", "delivered", "bounced")
    for key, (sent, *final) in asked.sums(LocationHour, ended, shift=FINAL_HOURS).items():
        row = found.setdefault(key, Counts())
        row.sent_a_day_before, row.no_final_event = sent, sent - sum(final)
    return found


_REUSED = """
SELECT location_id, max(received_at), count(*) - 1 FROM ingest_event
WHERE id > %s AND webhook IS NOT NULL {locations}
GROUP BY location_id, webhook HAVING count(*) > 1
"""


def _count_reuse(asked: _Asked, found: dict[int, Counts]) -> int:
    """Add the webhookIds that came again with another event. Returns how many events it saw.

    Only the newest events are looked at: there is no index by webhookId, and none is worth it.
    """
    newest = Event.objects.aggregate(newest=Max("id"))["newest"] or 0
    where = ""
    if asked.locations is not None:
        where = f"AND location_id IN ({','.join(map(str, sorted(asked.locations))) or 'NULL'})"
    with connection.cursor() as cursor:
        cursor.execute(_REUSED.format(locations=where), [newest - REUSE_LOOKS_AT])
        rows = cursor.fetchall()
    for location, seen, times in rows:
        hour = hour_of(seen if isinstance(seen, datetime) else _read(seen))
        if asked.first <= hour < asked.last:
            key = location if asked.by == "location" else hour
            found.setdefault(key, Counts()).webhook_id_reuse += times
    return min(newest, REUSE_LOOKS_AT)


def _read(stored: str) -> datetime:
    """A time as SQLite's functions give it."""
    return datetime.fromisoformat(stored + "+00:00")


def _total(rows: Iterable[Counts]) -> Counts:
    total = Counts()
    for row in rows:
        total.add(row)
    return total


def _named(asked: _Asked, found: Mapping[int, Counts]) -> list[Row]:
    """Rows with their keys: locations with the most events first, hours in their order."""
    if asked.by == "hour":
        moments = ((moment_of(hour).isoformat(), found[hour]) for hour in sorted(found))
        return [Row(moment, moment, counts) for moment, counts in moments]
    named = Location.objects.filter(pk__in=found).values_list("pk", "ref", "name")
    rows = [Row(ref, name or ref, found[pk]) for pk, ref, name in named]
    return sorted(rows, key=lambda row: (-row.counts.events, row.label.casefold(), row.key))


def _values_capped(asked: _Asked) -> list[dict[str, Any]]:
    """Where a dimension has so many values that later ones share ``(other)``."""
    capped = CountedValues.objects.filter(used__gte=MOST_VALUES)
    if asked.locations is not None:
        capped = capped.filter(location_id__in=asked.locations)
    rows = capped.order_by("location_id", "dimension")
    return [
        {"location": ref, "dimension": Dimension(dimension).word, "values": used}
        for ref, dimension, used in rows.values_list("location__ref", "dimension", "used")
    ]


# --- The endpoint ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Answered:
    """What the endpoint answered since a whole hour, by cause (keys of ``ANSWERS``)."""

    since: datetime
    causes: dict[str, int]

    @property
    def words(self) -> dict[str, int]:
        """By the contract's words."""
        found: dict[str, int] = {}
        for cause, n in self.causes.items():
            word = ANSWERS[cause].word if cause in ANSWERS else cause
            found[word] = found.get(word, 0) + n
        return found

    @property
    def taken(self) -> dict[str, float | int | None]:
        """The share answered 2xx of all that was posted: HighLevel posts and nothing else."""
        posted = {c: n for c, n in self.causes.items() if c != "method not allowed"}
        taken = sum(n for c, n in posted.items() if c in ANSWERS and ANSWERS[c].code == 200)
        return share(taken, sum(posted.values()))

    @property
    def signature_failures(self) -> int:
        """Webhooks whose signature was missing or wrong, also those set apart."""
        return sum(n for cause, n in self.causes.items() if cause in SIGNATURE_FAILURES)

    def as_json(self) -> dict[str, Any]:
        """One of the API's windows."""
        return {
            "from": self.since.isoformat(),
            "answers": self.words,
            "causes": self.causes,
            "answered_2xx": self.taken,
            "signature_failures": self.signature_failures,
        }


@dataclass(frozen=True)
class Endpoint:
    """The receiving side: answers, signatures, and what waits for ``replay_kept``."""

    windows: dict[str, Answered]
    sources: dict[str, Answered]  # the last 24 h by source; "" is the unnamed address
    verdicts: str  # of the newest signatures, oldest first: "1" right, "0" wrong
    kept_waiting: int  # at most ``COUNTED``
    quarantined: int
    quarantining: bool

    @property
    def failing(self) -> dict[str, float | int | None]:
        """How many of the newest signatures were wrong."""
        return share(self.verdicts.count("0"), len(self.verdicts))

    @property
    def offer_quarantine(self) -> bool:
        """Whether keys seem to have changed, and what comes meanwhile is being refused."""
        return not self.quarantining and 2 * self.verdicts.count("0") > len(self.verdicts)

    def as_json(self) -> dict[str, Any]:
        """The API's ``endpoint``."""
        return {
            "windows": {name: window.as_json() for name, window in self.windows.items()},
            "sources": {name: answered.as_json() for name, answered in self.sources.items()},
            "breaker": BREAKER,
            "signatures": self.failing,
            "kept_waiting": self.kept_waiting,
            "quarantined": self.quarantined,
            "quarantining": self.quarantining,
            "offer_quarantine": self.offer_quarantine,
        }


def endpoint(*, now: datetime) -> Endpoint:
    """What the endpoint answered, and what waits. Windows begin with a whole hour."""
    hour = hour_of(now)
    oldest = hour - max(WINDOWS.values())
    columns = ("hour", "source_id", "status", "answers")
    rows = list(AnswerHour.objects.filter(hour__gte=oldest).values_list(*columns))
    names = dict(Source.objects.values_list("pk", "name")) | {0: ""}
    by_source = {
        names.get(pk, f"withdrawn #{pk}"): _answered(
            hour - 24, (row for row in rows if row[1] == pk)
        )
        for pk in sorted({row[1] for row in rows if row[0] >= hour - 24})
    }
    waiting = KeptWebhook.objects.filter(replayed_at=None)[:COUNTED]
    return Endpoint(
        windows={name: _answered(hour - hours, rows) for name, hours in WINDOWS.items()},
        sources=by_source,
        verdicts=RecentSignatures.objects.values_list("verdicts", flat=True).first() or "",
        kept_waiting=waiting.count(),
        quarantined=QuarantinedWebhook.objects.count(),
        quarantining=settings.WEBHOOK_QUARANTINE,
    )


def _answered(first: int, rows: Iterable[tuple[int, int, str, int]]) -> Answered:
    causes: dict[str, int] = {}
    for hour, _, cause, n in rows:
        if hour >= first:
            causes[cause] = causes.get(cause, 0) + n
    return Answered(moment_of(first), dict(sorted(causes.items())))
