"""Is it receiving, and can the numbers be trusted?"""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, NamedTuple

from asgiref.sync import async_to_sync
from django.conf import settings
from django.db import connection

from dashboard import quality
from dashboard.health import database_problems, layer_problems
from dashboard.names import page_url
from dashboard.pages.common import PULSE, pulse_of
from dashboard.pages.page import Asked, Page, Region
from dashboard.quality import BREAKER, Answered, Endpoint, Quality
from ingest.models import CountersCheck, Event
from ingest.quality import ANSWERS, LATE_AFTER
from ingest.record import recorder

FAILING_LEAST = 5  # signatures: of fewer, all wrong means little
LISTED = 12  # locations whose data is the worst
LAG_LONG = 60.0  # seconds: HighLevel's own are a few
CAUSES = {
    "malformed": "not JSON, on an address without a signature",
    "no signature": "no signature: not from HighLevel, or a proxy drops its headers",
    "wrong signature": "a signature that no key of ours verifies",
    "rsa refused": "an RSA signature only, which is switched off (WEBHOOK_ALLOW_RSA)",
    "no hmac": "a named source's signature is missing",
    "wrong hmac": "a named source's signature is wrong: compare the secrets",
    "unknown source": "an address that was never given out, or was withdrawn",
    "not found": "an address beneath /webhooks/ that does not exist",
    "method not allowed": "not posted: somebody opened the address in a browser",
    "too large": "over 1 MiB",
    "busy": "asked to come again: the database could not take it in time",
    "failed": "asked to come again: an error of ours, see the log",
}


class Sign(NamedTuple):
    """How one thing stands: good, warn, bad or none; a word, and the sentence that explains it."""

    name: str
    level: str
    word: str
    about: str = ""


class SourceRow(NamedTuple):
    """What came in at one address in 24 hours."""

    name: str
    posted: int
    taken: dict[str, Any]
    failures: int
    sign: Sign


# --- Loading ---------------------------------------------------------------------------------


def _quality(asked: Asked) -> Quality:
    return asked.once("quality", lambda: quality.quality(asked.filter, asked.rights, now=asked.now))


def _endpoint(asked: Asked) -> Endpoint | None:
    """What the endpoint answered: only for those who see everything."""
    if not asked.rights.everything:
        return None
    return asked.once("endpoint", lambda: quality.endpoint(now=asked.now))


def _alarm(asked: Asked) -> dict[str, Any]:
    """The banner: nothing verifies, the circuit breaker is near, or nothing comes in."""
    found = _endpoint(asked)
    return {"alarms": list(alarms(found)) if found else []}


def alarms(found: Endpoint) -> Iterable[Sign]:
    """What is wrong enough for a banner, the worst first."""
    wrong, known = found.verdicts.count("0"), len(found.verdicts)
    if known >= FAILING_LEAST and wrong == known:
        said = (
            f"Each of the newest {known} signatures was wrong: nothing is being stored."
            " HighLevel may have changed its key, or a proxy changes the body. Set"
            " WEBHOOK_QUARANTINE=true to keep what comes in until the key is right."
        )
        yield Sign("Signatures", "bad", "Every signature fails", said)
    taken = found.windows["24h"].taken
    if (value := taken["value"]) is not None and value < BREAKER:
        said = (
            f"{taken['numerator']:,} of {taken['denominator']:,} webhooks of 24 hours were"
            " answered 2xx. HighLevel pauses an endpoint that takes fewer than 90 %."
        )
        yield Sign("Answers", "bad", "Too few webhooks are taken", said)
    if found.quarantining:
        said = f"{found.quarantined:,} webhooks wait for a key that verifies them (replay_kept)."
        yield Sign("Quarantine", "warn", "Unverified webhooks are set apart", said)


def _receiving(asked: Asked) -> dict[str, Any]:
    total, found = _quality(asked).total, _endpoint(asked)
    pulse = pulse_of(asked)
    return {
        "pulse": pulse,
        "total": total,
        "duplicate_share": quality.share(total.duplicates, total.events + total.duplicates),
        "late_share": quality.share(total.late, sum(total.lags)),
        "late_minutes": LATE_AFTER // 60,
        "lag": total.lag_p95,
        "lag_long": total.lag_p95 is not None and total.lag_p95 > LAG_LONG,
        "endpoint": found,
        "windows": found.windows if found else {},
        "breaker": BREAKER,
    }


def _sources(asked: Asked) -> dict[str, Any]:
    found = _endpoint(asked)
    rows = [_source(name, one) for name, one in found.sources.items()] if found else []
    return {"sources": rows, "endpoint": found, "refused": _refused(found) if found else []}


def _source(name: str, answered: Answered) -> SourceRow:
    posted = int(answered.taken["denominator"] or 0)
    failures = answered.signature_failures
    title = name or "HighLevel's own address"
    if failures and failures >= posted:
        sign = Sign(title, "bad", "every signature fails")
    elif failures:
        sign = Sign(title, "warn", f"{failures:,} wrong or missing")
    elif posted:
        sign = Sign(title, "good", "signatures verify")
    else:
        sign = Sign(title, "none", "nothing came in")
    return SourceRow(title, posted, answered.taken, failures, sign)


def _refused(found: Endpoint) -> list[tuple[str, int, str]]:
    """(cause, how many in 24 h, what it means) of webhooks that were not taken."""
    causes = found.windows["24h"].causes
    rows = [(c, n, CAUSES.get(c, "")) for c, n in causes.items() if _is_refusal(c)]
    return sorted(rows, key=lambda row: -row[1])


def _is_refusal(cause: str) -> bool:
    return cause not in ANSWERS or ANSWERS[cause].code != 200


def _system(asked: Asked) -> dict[str, Any]:
    """The parts of this installation. What a location's viewer need not know is left out."""
    if not asked.rights.everything:
        return {"signs": []}
    return {"signs": [*_parts(), _counters(asked.now), *_retention()]}


def _parts() -> Iterable[Sign]:
    waiting = recorder.waiting
    word = f"{waiting:,} waiting" if waiting else "idle"
    yield Sign("Recorder", "warn" if waiting > 1_000 else "good", word, "in this process")
    problems = database_problems()
    engine = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}.get(connection.vendor, "")
    said = ", ".join(f"{part}: {what}" for part, what in problems.items())
    yield Sign("Database", "bad" if problems else "good", said or "takes writes", engine)
    layer = async_to_sync(layer_problems)()
    kind = "Redis" if settings.REDIS_URL else "in memory"
    word = f"out of reach ({layer['layer']})" if layer else "in reach"
    yield Sign("Channel layer", "warn" if layer else "good", word, f"{kind}; pages move without it")


def _counters(now: datetime) -> Sign:
    check = CountersCheck.objects.first()
    how = "manage.py recount --check compares every counter with what it counts"
    if check is None:
        return Sign("Counters", "none", "not checked yet", how)
    when = f"{check.checked_at:%Y-%m-%d %H:%M} UTC"
    if check.differences:
        return Sign("Counters", "bad", f"{check.differences:,} differ", f"checked {when}; {how}")
    return Sign("Counters", "good", "every counter is right", f"checked {when}; {how}")


def _retention() -> Iterable[Sign]:
    oldest = Event.objects.order_by("id").values_list("received_at", flat=True).first()
    back = f"received since {oldest:%Y-%m-%d}" if oldest else "nothing yet"
    days = settings.EVENT_RETENTION_DAYS
    yield Sign("Events and deliveries", "none", f"{days} days", back)
    yield Sign("Raw payloads", "none", f"{settings.PAYLOAD_RETENTION_DAYS} days", "then let go of")
    yield Sign("Counts by the hour", "none", "two years", "then by the day, for ever")


class QualityRow(NamedTuple):
    """One location's data, as the table shows it."""

    name: str
    ref: str
    url: str
    counts: quality.Counts
    lag: float | None


def _by_location(asked: Asked) -> dict[str, Any]:
    found = _quality(asked)
    rows = [
        QualityRow(
            row.label or row.key,
            row.key if row.label and row.label != row.key else "",
            page_url("location", row.key),
            row.counts,
            row.counts.lag_p95,
        )
        for row in sorted(found.rows, key=lambda row: -_trouble(row.counts))[:LISTED]
        if _trouble(row.counts)
    ]
    return {"rows": rows, "more": max(0, len(found.rows) - LISTED), "capped": found.values_capped}


def _trouble(counts: quality.Counts) -> int:
    """How many of a location's events or mails are not as they should be."""
    return (
        counts.duplicates + counts.conflicts + counts.late + counts.unattributed + counts.orphan
        + counts.no_final_event + counts.unknown_kinds + counts.undated + counts.no_message_id
    )  # fmt: skip


def _setup(asked: Asked) -> dict[str, Any]:
    """Whether anything has come in yet. The address is the view's to tell."""
    return {"first": pulse_of(asked).last_at, "everything": asked.rights.everything}


PAGE = Page(
    "status",
    (
        PULSE,
        Region("alarms", "dashboard/status/_alarms.html", _alarm, every=5),
        Region("receiving", "dashboard/status/_receiving.html", _receiving, every=2),
        Region("sources", "dashboard/status/_sources.html", _sources, every=5),
        Region("system", "dashboard/status/_system.html", _system, every=10),
        Region("trust", "dashboard/status/_trust.html", _by_location, every=30),
        Region("waiting", "dashboard/status/_waiting.html", _setup),
    ),
    feed=False,
)
