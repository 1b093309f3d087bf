"""The rules of today over the failures of yesterday, and categories that people put in by hand.

A failure is classified when it comes and stays so; this is the one place where that changes. It
reads what is kept of each event (``Event.detail``), needs no payload, and writes in the recorder's
order: deliveries locked in key order, then their failures, then counters. What the deliveries and
the events' own clock count moves with it; hours before the horizon are frozen and left alone.
"""

import logging
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from itertools import batched
from typing import Any, NamedTuple

from django.db import OperationalError, connection, transaction
from django.db.models import QuerySet, Sum

from ingest import fold, operator_rules, record
from ingest.classify import Rules
from ingest.ids import ids
from ingest.models import Delivery, Event, LocationHour, Reason
from ingest.rejudge import (
    HOUR,
    Failure,
    Found,
    Judge,
    Judged,
    Refusal,
    Report,
    failures_of,
)
from ingest.retention import read_horizon
from ingest.statements import Sql, aware_utc, statements
from ingest.vocabulary import FAILURES, FLEET_LOCATION, MEASURES, Category, Dimension, Outcome

logger = logging.getLogger(__name__)

WINDOW = 10_000  # ids of events that are looked through at once
BATCH = 100  # deliveries (or events without one) a transaction: with their events some 300 rows
TRIES = 5  # of a transaction that met a deadlock or a lock time-out


class Filter(NamedTuple):
    """Which failures are looked at; whole deliveries are changed."""

    locations: frozenset[int] = frozenset()
    since: datetime | None = None  # received then or later
    categories: frozenset[Category] = frozenset()  # as they are now

    def of(self, events: QuerySet[Event]) -> QuerySet[Event]:
        """Those that it keeps."""
        if self.locations:
            events = events.filter(location_id__in=self.locations)
        if self.since:
            events = events.filter(received_at__gte=self.since)
        if self.categories:
            events = events.filter(category__in=self.categories)
        return events


# --- A run --------------------------------------------------------------------------------------


class Step(NamedTuple):
    """How far a run has come, in ids of events, and whether a transaction was just committed."""

    reached: int
    newest: int
    wrote: bool = False


@dataclass(slots=True)
class Reclassification:
    """One run over the stored failures; ``steps`` does it, and ``report`` says what came of it.

    A dry run reads only. Raises the database's errors; what is committed stays, and the next run
    finds the rest.
    """

    filter: Filter = Filter()
    dry: bool = False
    rules: Rules = field(default_factory=operator_rules.current)
    report: Report = field(default_factory=Report)
    _judge: Judge = field(init=False)

    def __post_init__(self) -> None:
        self._judge = Judge(self.rules)

    def steps(self) -> Iterator[Step]:
        """Look through all events that are kept, those that come meanwhile included."""
        reached, newest = read_horizon().events_cursor, _newest()
        while reached < newest:
            until = min(reached + WINDOW, newest)
            for _ in self._window(Event.objects.filter(id__gt=reached, id__lte=until)):
                yield Step(reached, newest, wrote=True)
            reached, newest = until, _newest()
            yield Step(reached, newest)

    def _window(self, events: QuerySet[Event]) -> Iterator[None]:
        """Change what the rules see otherwise, whole deliveries, a transaction a step."""
        chosen = self.filter.of(events.filter(kind__in=FAILURES))
        pairs = list(chosen.values_list("id", "delivery_id"))
        self.report.looked_at += len(pairs)
        deliveries = {delivery for _, delivery in pairs if delivery is not None}
        lone = {pk for pk, delivery in pairs if delivery is None}
        for found, write in (
            (self._deliveries(deliveries), self._write_deliveries),
            (self._lone(lone), self._write_lone),
        ):
            for some in batched([each for each in found if each.any], BATCH):
                self._do(some, write)
                yield

    def _do(self, found: Sequence[Found], write: Callable[[Collection[int]], list[Found]]) -> None:
        """Write them: under their locks they are looked at once more."""
        if not self.dry:
            whys = [why for each in found for _, why in each.changed]
            found = _persistently(partial(write, [each.pk for each in found]), whys)
            _rename_reasons(found)
        for each in found:
            self.report.add(each)

    def _lone(self, events: Collection[int], *, lock: bool = False) -> list[Found]:
        """Failures that belong to no delivery."""
        rows = Event.objects.filter(id__in=events)
        return self._judge.lone(failures_of(_locked(rows) if lock else rows, _first_hour()))

    def _deliveries(self, deliveries: Collection[int]) -> list[Found]:
        """Deliveries with their failures, but for those that are frozen; nothing is locked."""
        since = _first_hour()
        failures = _by_delivery(failures_of(Event.objects.filter(delivery__in=deliveries), since))
        rows = Delivery.objects.filter(id__in=deliveries, sent_at__gte=aware_utc(since * HOUR))
        return [
            self._judge.delivery(
                Found(pk, location, Judged(outcome, flags, Refusal(*refusal))),
                fold.load_facts(facts),
                failures[pk],
            )
            for pk, location, outcome, flags, facts, *refusal in rows.values_list(
                "id", "location_id", "outcome", "flags", "facts", "category", "bounce_class"
            )
        ]

    def _write_lone(self, events: Collection[int]) -> list[Found]:
        found = self._lone(events, lock=True)
        _write(statements(), found, [])
        return found

    def _write_deliveries(self, deliveries: Collection[int]) -> list[Found]:
        sql, changes = statements(), _lock(deliveries)
        pks = [change.id for change in changes]
        events = _locked(Event.objects.filter(delivery__in=pks))
        failures = _by_delivery(failures_of(events, _first_hour()))
        found = [
            self._judge.delivery(_found(change), change.facts, failures[change.id])
            for change in changes
        ]
        touched = []
        for change, each in zip(changes, found, strict=True):
            if each.facts is not None:
                change.facts = each.facts
                touched.append(change)
        _write(sql, found, touched)
        return found


def _newest() -> int:
    return Event.objects.order_by("-id").values_list("id", flat=True).first() or 0


def _first_hour() -> int:
    """What was sent or happened before it is frozen."""
    return read_horizon().deliveries_hour


def _lock(deliveries: Collection[int]) -> list[record.Change]:
    """These deliveries, locked, but for those that are frozen."""
    keys = Delivery.objects.filter(id__in=deliveries)
    found = record.lock_deliveries(
        statements(), keys.values_list("location_id", "message_id", "recipient")
    )
    since = _first_hour()
    return [change for change in found if change.before and change.before.hour >= since]


def _found(change: record.Change) -> Found:
    before = change.before
    assert before is not None  # noqa: S101 - it is a stored one
    judged = Judged(before.outcome, before.flags, Refusal(before.category, before.bounce_class))
    return Found(change.id or 0, change.key[0], judged)


def _write(sql: Sql, found: Iterable[Found], touched: list[record.Change]) -> None:
    """Events, then deliveries, then counters."""
    changed = [pair for each in found for pair in each.changed]
    ids.learn_reasons(why.reason for _, why in changed)
    _update_events(changed)
    record.write_changes(sql, touched)
    if shown := [pair for pair in changed if not pair[0].detail.test]:
        _move_events(sql, shown)


class _Unnamed(Exception):
    """A failure came meanwhile whose reason has no id yet."""

    def __init__(self, why: fold.Why) -> None:
        super().__init__(why.text)
        self.why = why


def _persistently(write: Callable[[], list[Found]], whys: Sequence[fold.Why] = ()) -> list[Found]:
    """Write in one transaction, again where others were in the way. Raises ``OperationalError``.

    Ids for the reasons come first, in a transaction of their own.
    """
    for left in reversed(range(TRIES)):
        ids.prepare(statements(), [], whys, [])
        try:
            with transaction.atomic():
                return write()
        except _Unnamed as unnamed:
            whys = [*whys, unnamed.why]
        except OperationalError:
            if not left or connection.in_atomic_block:
                raise
            time.sleep(0.1)
    raise OperationalError(f"others were in the way {TRIES} times in a row")


def _locked(events: QuerySet[Event]) -> QuerySet[Event]:
    """To be read and held in the order of ids, as retention holds them."""
    return events.select_for_update(of=("self",))


def _by_delivery(failures: Iterable[Failure]) -> dict[int | None, list[Failure]]:
    found: dict[int | None, list[Failure]] = defaultdict(list)
    for failure in failures:
        found[failure.delivery].append(failure)
    return found


def _update_events(changed: Sequence[tuple[Failure, fold.Why]]) -> None:
    rows = [
        (why.category, why.bounce_class, _reason_id(why), failure.id) for failure, why in changed
    ]
    if rows:
        with connection.cursor() as cursor:
            cursor.executemany(
                "UPDATE ingest_event SET category = %s, bounce_class = %s, reason_id = %s "
                "WHERE id = %s",
                rows,
            )


def _reason_id(why: fold.Why) -> int | None:
    try:
        return ids.reason(why.reason)
    except KeyError:
        raise _Unnamed(why) from None


def _move_events(sql: Sql, shown: Sequence[tuple[Failure, fold.Why]]) -> None:
    """The counters of the events' own clock, and those of the reasons."""
    ids.learn((Dimension.POOL, failure.detail.pool) for failure, _ in shown)
    ids.learn_reasons(failure.reason for failure, _ in shown)
    classes: Counter[tuple[int, ...]] = Counter()
    reasons: Counter[tuple[int, ...]] = Counter()
    seen = []
    for failure, why in shown:
        hour, kind = failure.time // HOUR, int(failure.kind)
        for bounce_class, n in ((failure.refusal.bounce_class, -1), (why.bounce_class, 1)):
            for location in (failure.location, FLEET_LOCATION):
                classes[location, hour, failure.provider, kind, bounce_class] += n
        if failure.reason != why.reason:
            pool = ids.value(Dimension.POOL, failure.detail.pool)
            for digest, n in ((failure.reason, -1), (why.reason, 1)):
                if (pk := ids.reason(digest)) is not None:
                    reasons[failure.location, hour, pk, failure.provider, pool, kind] += n
            seen.append((ids.reason(why.reason) or 0, failure.provider, failure.time))
    sql.add_event_hours(sorted((*key, n) for key, n in classes.items() if n))
    if reasons:
        sql.add_reason_hours(sorted((*key, n) for key, n in reasons.items() if n))
        sql.add_reason_providers(_times(seen))


def _times(seen: Iterable[tuple[int, int, int]]) -> list[tuple[int, ...]]:
    """First and last time by reason and provider, in key order."""
    times: dict[tuple[int, int], list[int]] = defaultdict(list)
    for reason, provider, at in seen:
        times[reason, provider].append(at)
    return sorted((*key, min(found), max(found)) for key, found in times.items())


def _rename_reasons(found: Iterable[Found]) -> None:
    """A reason is of the category that its newest failure has."""
    digests = {
        bytes.fromhex(digest)
        for each in found
        for failure, why in each.changed
        for digest in (failure.reason, why.reason)
    }
    for reason in Reason.objects.filter(digest__in=digests).order_by("id"):
        newest = Event.objects.filter(reason=reason).order_by("-id")
        refusal = newest.values_list("category", "bounce_class").first()
        if refusal is not None and refusal != (reason.category, reason.bounce_class):
            reason.category, reason.bounce_class = refusal
            reason.save(update_fields=["category", "bounce_class"])


# --- By hand ------------------------------------------------------------------------------------


type Noted = Callable[[dict[int, Category]], None]
"""Is told the deliveries that were changed, each with what a person had given it before."""


def assign_category(delivery_ids: Collection[int], category: Category, *, by: str) -> int:
    """Give bounced deliveries a category that outlives every rule; ``NONE`` takes it back.

    Returns how many were changed. Those that have not bounced, and those sent before the horizon,
    are left alone. ``by`` names the person in the log. Raises the database's errors.
    """
    return assign_categories(dict.fromkeys(delivery_ids, category), by=by)


def assign_categories(
    wanted: Mapping[int, Category],
    *,
    by: str,
    over: Category | None = None,
    noted: Noted | None = None,
) -> int:
    """The same, for each delivery its own; with ``over``, only where a person had given that.

    ``noted`` is called in every transaction, after the change: what it writes is committed with
    it, and undone where the transaction is tried again.
    """
    done = 0
    for some in batched(sorted(wanted), BATCH):
        asked = {pk: wanted[pk] for pk in some}
        done += len(_persistently(partial(_assign, asked, over, noted)))
    words = ", ".join(sorted({category.word for category in wanted.values()}))
    logger.info("%s gave %d deliveries the category %s", by, done, words)
    return done


def _assign(
    wanted: Mapping[int, Category], over: Category | None, noted: Noted | None
) -> list[Found]:
    changes = [
        change
        for change in _lock(wanted.keys())
        if change.before
        and change.before.outcome == Outcome.BOUNCED
        and change.facts.assigned != wanted[change.id or 0]
        and over in (None, change.facts.assigned)
    ]
    before = {change.id or 0: Category(change.facts.assigned) for change in changes}
    for change in changes:
        change.facts.assigned = int(wanted[change.id or 0])
    record.write_changes(statements(), changes)
    if noted:
        noted(before)
    return [_found(change) for change in changes]


# --- How rates move -----------------------------------------------------------------------------


def totals(chosen: Filter) -> Counter[str]:
    """What the counters hold of the filter's locations and time, whatever the category."""
    since = _first_hour()
    if chosen.since:
        since = max(since, int(chosen.since.timestamp()) // 3600)
    locations = chosen.locations or {FLEET_LOCATION}
    rows = LocationHour.objects.filter(location_id__in=locations, hour__gte=since)
    sums: dict[str, Any] = rows.aggregate(**{f"{name}_sum": Sum(name) for name in MEASURES})
    return Counter({name: sums[f"{name}_sum"] or 0 for name in MEASURES})
