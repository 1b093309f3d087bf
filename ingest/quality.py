"""How good what comes in is: by location and hour of receipt, and what the endpoint answered.

A batch's quality is written in its own transaction (``ingest.record``). Answers are counted in
memory, since most of them come without a transaction, and added to the tables about once a
second: a process that is killed loses the last second's.
"""

import threading
import time
from bisect import bisect_right
from collections import Counter, defaultdict
from typing import NamedTuple

from django.db import connection, transaction

from ingest.models import RecentSignatures
from ingest.normalize import NormalizedEvent
from ingest.vocabulary import ENGAGEMENT, EventKind

# ``lag_0`` counts what was received within the first of these numbers of seconds after it
# happened, ``lag_1`` what took no longer than the second, …, and ``lag_7`` the rest.
LAG_EDGES = (5, 30, 120, 600, 3_600, 21_600, 86_400)
LATE_AFTER = 3_600  # seconds; an edge, so that the histogram tells what was late
LAGS = tuple(f"lag_{n}" for n in range(len(LAG_EDGES) + 1))
KEY = ("location_id", "hour")
COLUMNS = (
    "events", "duplicates", "conflicts", "unknown_kinds", "undated", "no_message_id",
    "no_recipient", "unattributed", "before_horizon", *LAGS,
)  # fmt: skip
_POSITION = {name: position for position, name in enumerate(COLUMNS)}
_EVENTS, _DUPLICATES, _CONFLICTS = (_POSITION[n] for n in ("events", "duplicates", "conflicts"))
_BEFORE_HORIZON, _LAG_0 = _POSITION["before_horizon"], _POSITION["lag_0"]
_HOUR = 3_600_000_000  # µs


def lag_position(seconds: float) -> int:
    """Which ``lag_n`` counts a lag. A sender whose clock is ahead has the shortest."""
    return bisect_right(LAG_EDGES, seconds)


class Tally:
    """What a batch of webhooks adds to the quality of its locations. Times are microseconds."""

    def __init__(self) -> None:
        self._rows: dict[tuple[int, ...], list[int]] = defaultdict(lambda: [0] * len(COLUMNS))

    def stored(
        self, location: int, event: NormalizedEvent, *, received_at: int, frozen: bool = False
    ) -> None:
        """An event that was new. ``frozen``: its delivery lies before the horizon."""
        row = self._rows[location, received_at // _HOUR]
        row[_EVENTS] += 1
        for position in _flaws(event):
            row[position] += 1
        if frozen:
            row[_BEFORE_HORIZON] += 1
        if not event.time_marked:  # otherwise its time is that of the receipt, and tells nothing
            row[_LAG_0 + lag_position((received_at - event.occurred_at) / 1e6)] += 1

    def repeated(self, location: int, *, received_at: int, conflict: bool) -> None:
        """An event that was stored before, with other content if it is a conflict."""
        row = self._rows[location, received_at // _HOUR]
        row[_DUPLICATES] += 1
        row[_CONFLICTS] += conflict

    def rows(self) -> list[tuple[tuple[int, ...], list[int]]]:
        """(KEY, COLUMNS), in key order."""
        return sorted(self._rows.items())


def _flaws(event: NormalizedEvent) -> list[int]:
    """The columns of what is missing or unknown in an event."""
    flaws = []
    if event.kind is EventKind.UNKNOWN:
        flaws.append(_POSITION["unknown_kinds"])
    if event.time_marked:
        flaws.append(_POSITION["undated"])
    if not event.message_id or event.detail.message_id_from:
        flaws.append(_POSITION["no_message_id"])
    if not event.recipient:
        flaws.append(_POSITION["no_recipient"])
    # Engagement never names a campaign: it inherits that of its delivery.
    if not event.campaign_rank and event.kind not in ENGAGEMENT:
        flaws.append(_POSITION["unattributed"])
    return flaws


# --- The endpoint's answers -----------------------------------------------------------------


class Answer(NamedTuple):
    """An answer of the contract."""

    code: int
    word: str


_UNVERIFIED = Answer(401, "unverified")
# By what is counted: the contract's word, or the cause behind it where there are several.
ANSWERS = {
    "stored": Answer(200, "stored"),
    "duplicate": Answer(200, "duplicate"),
    "ignored": Answer(200, "ignored"),
    "another app": Answer(200, "ignored"),
    "kept": Answer(200, "kept"),
    "quarantined": Answer(200, "quarantined"),
    "malformed": Answer(400, "malformed"),
    "no signature": _UNVERIFIED,
    "wrong signature": _UNVERIFIED,
    "rsa refused": _UNVERIFIED,
    "no hmac": _UNVERIFIED,
    "wrong hmac": _UNVERIFIED,
    "unknown source": _UNVERIFIED,
    "not found": Answer(404, "not found"),
    "method not allowed": Answer(405, "method not allowed"),
    "too large": Answer(413, "too large"),
    "busy": Answer(429, "busy"),
    "failed": Answer(429, "busy"),
}
# What has a signature that other keys may verify, and what has none to verify.
WRONG = frozenset({"wrong signature", "rsa refused", "wrong hmac"})
SIGNATURE_FAILURES = WRONG | {"no signature", "no hmac", "quarantined"}
SIGNATURES = 100  # the newest so many are remembered

_ADD_ANSWERS = (
    "INSERT INTO ingest_answerhour (hour, source_id, status, answers) VALUES (%s, %s, %s, %s) "
    "ON CONFLICT (hour, source_id, status) DO UPDATE "
    "SET answers = ingest_answerhour.answers + excluded.answers"
)


class Answers:
    """Answers of one process on their way to the tables. Any thread may count.

    The recorder's thread writes them: ``due`` tells it when, ``run`` does it.
    """

    interval = 1.0  # seconds between two writes

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[tuple[int, int, str]] = Counter()
        self._verdicts = ""
        self._next = 0.0

    def count(self, cause: str, *, source_id: int = 0) -> bool:
        """Count one answer by its key in ``ANSWERS``; source 0 is the unnamed address.

        True for the first one since the last write: the thread may be asleep.
        """
        hour = time.time_ns() // 1000 // _HOUR
        with self._lock:
            first = not self._counts
            self._counts[hour, source_id, cause] += 1
        return first

    def signed(self, *, right: bool) -> None:
        """Remember whether a signature verified."""
        with self._lock:
            self._verdicts = self._verdicts[1 - SIGNATURES :] + ("1" if right else "0")

    def due(self, now: float) -> float | None:
        """Seconds until ``run`` should be called; None while there is nothing to write.

        ``now`` is ``time.monotonic()``.
        """
        return max(0.0, self._next - now) if self._counts else None

    def run(self) -> None:
        """Write what was counted. Raises the database's errors; nothing is lost then."""
        self._next = time.monotonic() + self.interval
        with self._lock:
            counts, self._counts = self._counts, Counter()
            verdicts, self._verdicts = self._verdicts, ""
        try:
            with transaction.atomic():
                _write_answers(counts, verdicts)
        except BaseException:
            with self._lock:
                self._counts.update(counts)
                self._verdicts = (verdicts + self._verdicts)[-SIGNATURES:]
            raise


def _write_answers(counts: Counter[tuple[int, int, str]], verdicts: str) -> None:
    with connection.cursor() as cursor:
        cursor.executemany(_ADD_ANSWERS, sorted((*key, n) for key, n in counts.items()))
    if verdicts:
        recent, _ = RecentSignatures.objects.select_for_update().get_or_create(id=1)
        recent.verdicts = (recent.verdicts + verdicts)[-SIGNATURES:]
        recent.save()


answers = Answers()
