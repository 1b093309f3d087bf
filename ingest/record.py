"""The one way to write: a batch of webhooks, in one transaction, answered after its commit.

The order inside the transaction is the same for every writer, so that processes neither deadlock
nor count twice: ids of locations and values first, in transactions of their own; lock the
deliveries that exist, in key order; drop the events that are stored; fold; insert the new
deliveries (if another process made one meanwhile, all is rolled back and run again); update the
others; counters in key order; the lock of event ids; events; commit.
"""

import asyncio
import logging
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from django.db import InterfaceError, OperationalError, connection, transaction

from ingest import (
    details,
    erasure,
    fold,
    installs,
    metrics,
    operator_rules,
    payloads,
    publish,
    retention,
)
from ingest.counted import Counted, Places, difference, places, unpacked, write_ways
from ingest.counted_values import decisions
from ingest.ids import domain_of, ids, values_in
from ingest.models import Event, KeptWebhook
from ingest.normalize import AppEvent, NormalizedEvent, NotUnderstood, decode, normalize
from ingest.quality import Tally, answers
from ingest.quarantine import quarantine
from ingest.retention import oldest_minute
from ingest.statements import CountRow, DeliveryKey, Raced, Sql, aware_utc, statements
from ingest.vocabulary import (
    FLEET,
    FLEET_LOCATION,
    Dimension,
)

logger = logging.getLogger(__name__)

SWEEP_SECONDS = 60
SWEEP_ROWS = 200  # some 20 ms


@dataclass(slots=True)
class Item:
    """One authentic webhook on its way to the tables. ``status`` is its answer once written."""

    result: NormalizedEvent | AppEvent | NotUnderstood
    body: bytes
    received_at: int  # µs since 1970
    source_id: int | None = None
    status: str = ""
    conflict: bool = False  # a duplicate by its key, with other content


def item_from_body(
    body: bytes, *, received_at: int, source_id: int | None = None, location_ref: str = ""
) -> Item:
    """Read a webhook's body. Never raises: what is not understood is an item that says so."""
    result: NormalizedEvent | AppEvent | NotUnderstood
    try:
        payload = decode(body)
    except ValueError:
        result = NotUnderstood(reason="not JSON")
    else:
        result = normalize(payload, location_ref=location_ref, received_at=received_at)
    return Item(result=result, body=body, received_at=received_at, source_id=source_id)


def payload_of(event: Event) -> bytes | None:
    """The raw body that an event came in; None once retention has removed it."""
    if event.payload is None:
        return None
    return payloads.unpack(event.payload_codec, bytes(event.payload))


class _Counts:
    """Differences to add to the counters, gathered over a batch."""

    def __init__(self, *, horizon: int) -> None:
        # By (location, hour) and place; as ``counted.packed``.
        self._added: dict[tuple[int, int], dict[tuple[int, int], int]] = defaultdict(
            lambda: defaultdict(int)
        )
        self._horizon = horizon
        self._no_tag = ids.value(Dimension.TAG, "")

    def move(self, location: int, before: Counted | None, after: Counted) -> None:
        """Take away what a delivery counted as, and add what it counts as now."""
        if before == after:
            return
        old = self._places(location, before) if before else {}
        new = self._places(location, after)
        if before is None or before.hour == after.hour:
            self._shift(location, after.hour, old, new)
        else:
            self._shift(location, before.hour, old, {})
            self._shift(location, after.hour, {}, new)

    def _places(self, location: int, counted: Counted) -> Places:
        """Its rows by dimension and value, the location's own under dimension 0.

        What was sent before the horizon is frozen: it counts nowhere any more.
        """
        if counted.hour < self._horizon:
            return {}
        found = places(decisions.cap(location, counted), self._no_tag)
        found[0, 0] = counted.measures
        return found

    def _shift(self, location: int, hour: int, old: Places, new: Places) -> None:
        added = self._added[location, hour]
        for place, measures in new.items():
            if change := difference(old.get(place, ()), measures):
                added[place] += change
        for place, measures in old.items():
            if place not in new:
                added[place] += difference(measures, ())

    def rows(self) -> tuple[list[CountRow], list[CountRow]]:
        """What really changed in the counters of locations and of values, in key order."""
        hours: dict[tuple[int, ...], int] = defaultdict(int)
        values: dict[tuple[int, ...], int] = defaultdict(int)
        for (location, hour), added in self._added.items():
            for (dimension, value), change in added.items():
                if not dimension:
                    hours[location, hour] += change
                    hours[FLEET_LOCATION, hour] += change
                else:
                    values[location, dimension, hour, value] += change
                    if dimension in FLEET:
                        values[FLEET_LOCATION, dimension, hour, value] += change
        return _changed(hours), _changed(values)


def _changed(table: dict[tuple[int, ...], int]) -> list[CountRow]:
    return [(key, unpacked(table[key])) for key in sorted(table) if table[key]]


@dataclass(slots=True)
class _Entry:
    """An event on its way to the tables, with its refusal; one a webhook."""

    item: Item
    event: NormalizedEvent
    why: fold.Why

    @property
    def key(self) -> tuple[int, str, str] | None:
        """Its delivery's; None where nothing says which it belongs to: it is stored alone."""
        event = self.event
        if not event.message_id or not event.recipient:
            return None
        return ids.location(event.location_ref), event.message_id, event.recipient


@dataclass(slots=True)
class Change:
    """A delivery that is written: its facts, and what it counted as before, if it existed."""

    key: tuple[int, str, str]
    facts: fold.Facts = field(default_factory=fold.Facts)
    id: int | None = None
    before: Counted | None = None
    hour: int | None = None  # since 1970, that it counts in now


def _connected() -> Sql:
    """The statements, over a connection that is ready for them. Raises the database's errors."""
    sql = statements()
    if connection.connection is None:
        connection.ensure_connection()
        sql.prepare()
    return sql


def write_batch(items: Sequence[Item], *, now: int) -> None:
    """Write webhooks in one transaction and set each item's status.

    ``now`` is in microseconds. Raises the database's errors; nothing is written then, and the
    statuses mean nothing.
    """
    sql = _connected()
    rules = operator_rules.current()
    entries = [
        _Entry(item, item.result, fold.why_of(item.result, rules))
        for item in items
        if isinstance(item.result, NormalizedEvent)
    ]
    apps = [item.result for item in items if isinstance(item.result, AppEvent)]
    ids.prepare(sql, [entry.event for entry in entries], [entry.why for entry in entries], apps)
    for _ in range(20):
        with suppress(Raced), transaction.atomic():
            _write_others(items)
            if entries:
                _write_events(sql, entries, now=now)
            return
    raise OperationalError("other writers were first twenty times in a row")


def _write_others(items: Sequence[Item]) -> None:
    """Installs and names, and webhooks that are kept because nobody understands them yet."""
    installs.write([item.result for item in items if isinstance(item.result, AppEvent)])
    for item in items:
        if isinstance(item.result, AppEvent):
            item.status = "ignored"
        elif isinstance(item.result, NotUnderstood):
            item.status = "kept"
    kept = [item for item in items if isinstance(item.result, NotUnderstood)]
    if kept:
        KeptWebhook.objects.bulk_create(
            [
                KeptWebhook(
                    received_at=aware_utc(item.received_at),
                    source_id=item.source_id,
                    reason=item.result.reason[:200],  # type: ignore[union-attr]
                    digest=blake2b(item.body, digest_size=16).digest(),
                    body=item.body,
                )
                for item in kept
            ],
            ignore_conflicts=True,
        )


def _write_events(sql: Sql, entries: list[_Entry], *, now: int) -> None:
    changes = {key: Change(key) for entry in entries if (key := entry.key) is not None}
    event_keys = [(ids.location(entry.event.location_ref), entry.event.key) for entry in entries]
    stored, known = sql.read(
        sorted(changes, key=lambda key: (key[1], key[2], key[0])), sorted(set(event_keys))
    )
    for row in stored:
        change = changes[row[1], row[2], row[3]]
        change.id, change.facts, change.before = row[0], fold.load_facts(row[4]), Counted(*row[5:])
    _hide_erased(entries, [key for key, change in changes.items() if change.id is None])
    fresh = _drop_known(entries, event_keys, known)
    if not fresh:
        sql.add_quality(_quality(entries, changes))
        return
    touched: dict[tuple[int, str, str], Change] = {}
    for entry in fresh:
        if (key := entry.key) is not None:
            fold.absorb(changes[key].facts, entry.event, entry.why)
            touched[key] = changes[key]
    counts, old = _fold_deliveries(sql, list(touched.values()))
    rows = [_event_row(entry, changes) for entry in fresh]
    shown = [entry for entry in fresh if not entry.event.test]
    with sql.together():
        _write_counts(sql, counts, old)
        sql.add_event_hours(_event_hours(shown))
        if refused := [entry for entry in shown if entry.why.reason]:
            sql.add_reason_hours(_reason_hours(refused))
            sql.add_reason_providers(_reason_providers(refused))
        sql.add_minutes(_minutes(shown, now=now))
        sql.add_quality(_quality(entries, changes))
        sql.insert_events(rows)


def _hide_erased(entries: list[_Entry], unknown: Sequence[DeliveryKey]) -> None:
    """Make events of erased mail such as are stored. Raises ``Raced`` if there are any.

    Asked of mail that is not there under its own name, after the look for it: who erases holds
    the same locks, so that it was found by one of the two.
    """
    if not unknown or not (found := erasure.erased(unknown)):
        return
    for entry in entries:
        if (key := entry.key) in found:
            entry.event = erasure.nameless_event(entry.event, key, found[key])
            entry.item.body = erasure.STUB
    raise Raced


def _write_counts(sql: Sql, counts: _Counts, old: list[tuple[Any, ...]]) -> None:
    if old:
        sql.update_deliveries(old)
    hours, values = counts.rows()
    sql.add_location_hours(hours)
    sql.add_hourly_counts(values)


def lock_deliveries(sql: Sql, keys: Iterable[DeliveryKey]) -> list[Change]:
    """The stored deliveries of these keys, locked in key order until the transaction's end."""
    stored, _ = sql.read(sorted(keys, key=lambda key: (key[1], key[2], key[0])), [])
    return [
        Change((row[1], row[2], row[3]), fold.load_facts(row[4]), row[0], Counted(*row[5:]))
        for row in stored
    ]


def write_changes(sql: Sql, changes: Sequence[Change]) -> None:
    """Write locked deliveries whose facts were changed, and what that changes in the counters."""
    if changes:
        ids.learn((Dimension.DOMAIN, domain_of(change.key[2])) for change in changes)
        counts, old = _fold_deliveries(sql, list(changes))
        with sql.together():
            _write_counts(sql, counts, old)


def _drop_known(
    entries: list[_Entry],
    keys: list[tuple[int, bytes]],
    known: dict[tuple[int, bytes], int],
) -> list[_Entry]:
    """The events that are new, once each; the others' items are marked as duplicates."""
    fresh = []
    for key, entry in zip(keys, entries, strict=True):
        item, content = entry.item, entry.event.content
        item.status = "duplicate" if key in known else "stored"
        if key in known:
            item.conflict = known[key] != content
        else:
            known[key] = content
            fresh.append(entry)
    return fresh


def _fold_deliveries(sql: Sql, touched: list[Change]) -> tuple[_Counts, list[tuple[Any, ...]]]:
    """Insert the new deliveries. Returns what all of them change in the counters, and the rows
    (id + STATE_COLUMNS) of those to update.
    """
    new, old = [], []
    touched.sort(key=lambda change: (change.key[1], change.key[2], change.key[0]))
    standings = [fold.judge(change.facts) for change in touched]
    ids.learn_reasons(standing.reason for standing in standings)
    found = _count_all(touched, standings)
    decisions.learn(
        (change.key[0], counted) for change, counted in zip(touched, found, strict=True)
    )
    decisions.learn((change.key[0], change.before) for change in touched if change.before)
    counts = _Counts(horizon=retention.horizon().deliveries_hour)
    for change, standing, counted in zip(touched, standings, found, strict=True):
        change.hour = counted.hour
        counts.move(change.key[0], change.before, counted)
        state = _state_row(change, standing, counted)
        if change.id is None:
            new.append((*change.key, *state))
        else:
            old.append((change.id, *state))
    if new:
        made = sql.insert_deliveries(new)
        for change in touched:
            change.id = change.id or made[change.key]
    return counts, old


def _count_all(touched: list[Change], standings: list[fold.Standing]) -> list[Counted]:
    """Where deliveries count. All their values have ids that are known from here on."""
    try:  # nearly always they are known, and looking for one that is not costs more than this
        for standing in standings:
            ids.value(Dimension.MX, standing.ways.mx)
        return list(map(_counted, touched, standings))
    except KeyError:
        ids.learn(value for standing in standings for value in values_in(standing))
        return list(map(_counted, touched, standings))


def _counted(change: Change, standing: fold.Standing) -> Counted:
    """Where a delivery counts, with the ids of its values."""
    ways = standing.ways
    tags = sorted(ids.value(Dimension.TAG, tag) for tag in standing.tags)
    return Counted(
        outcome=int(standing.outcome),
        flags=standing.flags,
        bounce_class=standing.bounce_class,
        category=standing.category,
        hour=standing.hour,
        campaign=ids.value(Dimension.CAMPAIGN, standing.campaign),
        step=ids.value(Dimension.STEP, standing.step),
        provider=ids.value(Dimension.PROVIDER, standing.provider),
        domain=ids.value(Dimension.DOMAIN, domain_of(change.key[2])),
        sending_domain=ids.value(Dimension.SENDING_DOMAIN, standing.sending_domain),
        ip=ids.value(Dimension.IP, ways.ip),
        pool=ids.value(Dimension.POOL, ways.pool),
        tags="," + "".join(f"{tag}," for tag in tags),
        ways=_ways_column(standing),
    )


def _ways_column(standing: fold.Standing) -> str:
    ways = standing.ways
    if not (ways.tried or ways.deferred or standing.deferral_categories):
        return ","
    return write_ways(
        [(dimension, ids.value(dimension, text)) for dimension, text in ways.tried],
        [(dimension, ids.value(dimension, text)) for dimension, text in ways.deferred],
        standing.deferral_categories,
    )


def _state_row(change: Change, standing: fold.Standing, counted: Counted) -> tuple[Any, ...]:
    return (
        standing.sent_at,
        counted.outcome,
        counted.flags,
        counted.bounce_class,
        counted.category,
        standing.code,
        counted.campaign,
        counted.step,
        counted.provider,
        counted.domain,
        counted.sending_domain,
        counted.ip,
        counted.pool,
        ids.value(Dimension.MX, standing.ways.mx),
        ids.reason(standing.reason),
        counted.tags,
        counted.ways,
        fold.dump_facts(change.facts),
    )


def _minutes(shown: list[_Entry], *, now: int) -> list[tuple[int, ...]]:
    """Events by the minute they happened in, as far back as the live chart looks.

    Rows of location, minute, kind and count, in key order.
    """
    oldest = oldest_minute(now)
    minutes: Counter[tuple[int, ...]] = Counter()
    for entry in shown:
        event = entry.event
        minute = event.occurred_at // 60_000_000
        if minute > oldest:
            minutes[ids.location(event.location_ref), minute, int(event.kind)] += 1
    return sorted((*key, n) for key, n in minutes.items())


def _event_hours(shown: list[_Entry]) -> list[tuple[int, ...]]:
    """Events by the hour they happened in: rows of EVENT_HOUR_KEY and count, in key order."""
    hours: Counter[tuple[int, ...]] = Counter()
    for entry in shown:
        event, hour = entry.event, _hour_of(entry.event)
        provider = ids.value(Dimension.PROVIDER, event.provider)
        rest = hour, provider, int(event.kind), entry.why.bounce_class
        hours[ids.location(event.location_ref), *rest] += 1
        hours[FLEET_LOCATION, *rest] += 1
    return sorted((*key, n) for key, n in hours.items())


def _reason_hours(refused: list[_Entry]) -> list[tuple[int, ...]]:
    """Failures by reason: rows of REASON_HOUR_KEY and count, in key order."""
    hours: Counter[tuple[int, ...]] = Counter()
    for entry in refused:
        event, reason = entry.event, ids.reason(entry.why.reason) or 0
        provider = ids.value(Dimension.PROVIDER, event.provider)
        pool = ids.value(Dimension.POOL, event.detail.pool)
        location = ids.location(event.location_ref)
        hours[location, _hour_of(event), reason, provider, pool, int(event.kind)] += 1
    return sorted((*key, n) for key, n in hours.items())


def _reason_providers(refused: list[_Entry]) -> list[tuple[int, ...]]:
    """When providers gave reasons: rows of reason, provider, first and last time, in key order."""
    times: dict[tuple[int, int], list[int]] = defaultdict(list)
    for entry in refused:
        provider = ids.value(Dimension.PROVIDER, entry.event.provider)
        times[ids.reason(entry.why.reason) or 0, provider].append(entry.event.occurred_at)
    return sorted((*key, min(seen), max(seen)) for key, seen in times.items())


def _quality(
    entries: Sequence[_Entry], changes: dict[tuple[int, str, str], Change]
) -> list[tuple[tuple[int, ...], list[int]]]:
    """What the batch says of its locations' quality, in key order."""
    tally, horizon = Tally(), retention.horizon().deliveries_hour
    for entry in entries:
        item, location = entry.item, ids.location(entry.event.location_ref)
        if item.status == "duplicate":
            tally.repeated(location, received_at=item.received_at, conflict=item.conflict)
            continue
        hour = changes[key].hour if (key := entry.key) is not None else None
        frozen = hour is not None and hour < horizon
        tally.stored(location, entry.event, received_at=item.received_at, frozen=frozen)
    return tally.rows()


def _hour_of(event: NormalizedEvent) -> int:
    return event.occurred_at // 3_600_000_000


def _event_row(entry: _Entry, changes: dict[tuple[int, str, str], Change]) -> tuple[Any, ...]:
    item, event, why, key = entry.item, entry.event, entry.why, entry.key
    codec, payload = payloads.pack(item.body)
    return (
        ids.location(event.location_ref),
        changes[key].id if key is not None else None,
        event.key,
        int(event.kind),
        event.occurred_at,
        item.received_at,
        event.detail.code,
        why.category,
        why.bounce_class,
        ids.reason(why.reason),
        ids.value(Dimension.PROVIDER, event.provider),
        _way(Dimension.IP, event.detail.ip),
        _way(Dimension.POOL, event.detail.pool),
        _way(Dimension.MX, event.detail.mx),
        event.test,
        event.content,
        webhook_digest(event.detail.webhook_id),
        codec,
        details.dump(details.kept_of(event)),
        payload,
    )


def _way(dimension: Dimension, text: str) -> int | None:
    return ids.value(dimension, text) if text else None


def webhook_digest(webhook_id: str) -> int | None:
    """A number that stands for a webhookId; None without one."""
    if not webhook_id:
        return None
    words = webhook_id.encode(errors="surrogatepass")
    return int.from_bytes(blake2b(words, digest_size=8).digest(), signed=True)


def write_safely(items: Sequence[Item], *, now: int) -> None:
    """Like ``write_batch``, but one item's bad data does not cost the others.

    A batch whose data the database (or our own reading of it) refuses is split until the culprit
    stands alone; that one is kept whole. Errors of the connection are raised, never split.
    """
    try:
        write_batch(items, now=now)
    except (OperationalError, InterfaceError):
        raise
    except Exception as error:  # any error of one item's data, ours included
        if len(items) > 1:
            half = len(items) // 2
            write_safely(items[:half], now=now)
            write_safely(items[half:], now=now)
        elif isinstance(items[0].result, NotUnderstood):
            raise OperationalError(f"a webhook could not even be kept: {error}") from error
        else:
            logger.exception("a webhook could not be recorded; it is kept")
            items[0].result = NotUnderstood(reason=f"not recorded: {type(error).__name__}")
            write_safely(items, now=now)


class Busy(Exception):
    """It cannot be committed now; the sender should try again."""


@dataclass(slots=True)
class _Waiting:
    item: Item
    future: asyncio.Future[bool]
    loop: asyncio.AbstractEventLoop
    since: float  # time.monotonic()


CHORES = (answers, quarantine)
IDLE = 5.0  # seconds without work until there is time to tidy up
LAST_ANSWERS = 0.05  # seconds until what was taken last has been answered, and so counted
AFTER_FAILURE = 1.0  # seconds until a chore that failed is tried again


class Recorder:
    """One a process: everything that waits goes into the next transaction, then is answered.

    Its thread starts with the first webhook. It holds one connection of its own, closes it after
    any error of the connection, and tries again until the webhooks' patience ends. Between
    batches it does chores, small writes that wait in memory: answers counted, and webhooks set
    apart.
    """

    def __init__(self, *, capacity: int = 10_000, batch: int = 500, patience: float = 4.0) -> None:
        self.capacity, self.batch, self.patience = capacity, batch, patience
        self._queue: deque[_Waiting] = deque()
        self._wake = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._writing = False
        self._nudged = False
        self._next_sweep = 0.0
        self._chores_from = 0.0  # time.monotonic()

    async def submit(self, item: Item) -> Item:
        """Wait until the item is committed; returns it with its status. Raises ``Busy``."""
        loop = asyncio.get_running_loop()
        waiting = _Waiting(item, loop.create_future(), loop, time.monotonic())
        with self._wake:
            if self._closed or len(self._queue) >= self.capacity:
                raise Busy
            self._queue.append(waiting)
            self._wake_up()
        # A sender that hangs up cancels this wait, not the writing of what it sent.
        if not await waiting.future:
            raise Busy
        return item

    def nudge(self) -> None:
        """There is a chore to do. Any thread may call it."""
        with self._wake:
            self._nudged = True
            if not self._closed:
                self._wake_up()

    def _wake_up(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
            self._thread.start()
        self._wake.notify_all()

    @property
    def waiting(self) -> int:
        """How many webhooks wait for their commit."""
        return len(self._queue)

    def close(self) -> None:
        """Take no more work: from now on ``submit`` raises ``Busy``. Any thread may call it."""
        with self._wake:
            self._closed = True
            self._wake.notify_all()

    def drain(self, timeout: float) -> bool:
        """Wait until everything taken is answered and, once closed, every chore is done.

        False if that took longer than the timeout.
        """
        with self._wake:
            return self._wake.wait_for(self._is_done, timeout)

    def _is_done(self) -> bool:
        idle = not self._queue and not self._writing
        return idle and (not self._closed or self._thread is None)

    def _run(self) -> None:
        while taken := self._take():
            self._write(taken)
            with self._wake:
                self._writing = False
                self._wake.notify_all()
            self._do_chores()
            if connection.vendor == "sqlite" and len(self._queue) < self.batch:
                # SQLite has no queue of writers: without a pause nobody else gets a turn.
                time.sleep(0.002)
        time.sleep(LAST_ANSWERS)
        self._do_chores(at_once=True)
        connection.close()
        with self._wake:
            self._thread = None
            self._wake.notify_all()

    def _take(self) -> list[_Waiting]:
        """The next batch, once there is one; none when the recorder is closed and done."""
        tidy = False
        while True:
            due = self._next_chore()
            with self._wake:
                self._wake.wait_for(self._called, due if due is not None or tidy else IDLE)
                nudged, self._nudged = self._nudged, False
                if self._queue or self._closed:
                    return self._next_batch()
            if due is not None:
                self._do_chores()
                tidy = False
            elif not (nudged or tidy):
                self._tidy()
                tidy = True

    def _called(self) -> bool:
        return bool(self._queue) or self._closed or self._nudged

    def _next_batch(self) -> list[_Waiting]:
        count = min(len(self._queue), self.batch)
        taken = [self._queue.popleft() for _ in range(count)]
        self._writing = bool(taken)
        return taken

    def _next_chore(self) -> float | None:
        """Seconds until the next chore; None while there is none."""
        now = time.monotonic()
        dues = [due for chore in CHORES if (due := chore.due(now)) is not None]
        return max(min(dues), self._chores_from - now) if dues else None

    def _do_chores(self, *, at_once: bool = False) -> None:
        if not at_once and time.monotonic() < self._chores_from:
            return
        try:
            for chore in CHORES:
                while (due := chore.due(time.monotonic())) is not None and (at_once or due <= 0):
                    _connected()
                    chore.run()
        except (OperationalError, InterfaceError) as error:
            logger.warning("what waits beside the batches could not be written: %s", error)
            connection.close()
            self._chores_from = time.monotonic() + AFTER_FAILURE
        except Exception:  # the thread must go on for those who wait for its answers
            logger.exception("what waits beside the batches could not be written")
            self._chores_from = time.monotonic() + AFTER_FAILURE

    @staticmethod
    def _tidy() -> None:
        try:
            _connected().idle()
        except (OperationalError, InterfaceError):
            connection.close()

    def _write(self, taken: list[_Waiting]) -> None:
        pause = 0.02
        while True:
            taken = self._refuse_overdue(taken)
            if not taken:
                return
            try:
                write_safely([waiting.item for waiting in taken], now=_now())
            except (OperationalError, InterfaceError) as error:
                logger.warning("the database did not take a batch: %s", error)
                connection.close()
                time.sleep(pause)
                pause = min(pause * 2, 0.5)
            except BaseException:
                _answer(taken, committed=False)
                raise
            else:
                _answer(taken, committed=True)
                metrics.BATCH_SIZE.observe(len(taken))
                metrics.WAITING.set(len(self._queue))
                publish.ring(taken[0].loop)
                self._sweep()
                return

    def _sweep(self) -> None:
        """Let go of what is too old, now and then and little by little, between two batches."""
        if time.monotonic() < self._next_sweep:
            return
        more = False
        try:
            more = retention.prune_some(_now(), SWEEP_ROWS)
        except (OperationalError, InterfaceError) as error:
            logger.warning("what is too old could not be let go of: %s", error)
            connection.close()
        self._next_sweep = time.monotonic() + (1.0 if more else SWEEP_SECONDS)

    def _refuse_overdue(self, taken: list[_Waiting]) -> list[_Waiting]:
        """Give up on webhooks whose sender would soon give up on us."""
        limit = time.monotonic() - self.patience
        overdue = [waiting for waiting in taken if waiting.since < limit]
        _answer(overdue, committed=False)
        return [waiting for waiting in taken if waiting.since >= limit]


def _now() -> int:
    return time.time_ns() // 1000


def _answer(taken: list[_Waiting], *, committed: bool) -> None:
    """Settle the futures, each in its own loop, with one call a loop."""
    by_loop = defaultdict(list)
    for waiting in taken:
        by_loop[waiting.loop].append(waiting.future)
    for loop, futures in by_loop.items():
        if not loop.is_closed():
            loop.call_soon_threadsafe(_settle, futures, committed)


def _settle(futures: list[asyncio.Future[bool]], committed: bool) -> None:
    for future in futures:
        if not future.done():
            future.set_result(committed)


recorder = Recorder()
