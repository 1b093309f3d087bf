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
from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, NamedTuple

import msgspec
from django.db import InterfaceError, OperationalError, connection, transaction

from ingest import fold, metrics, payloads, publish
from ingest.models import Event, KeptWebhook, Location, Value, tag_ids
from ingest.normalize import AppEvent, NormalizedEvent, NotUnderstood, decode, normalize
from ingest.retention import oldest_minute, prune_minutes
from ingest.statements import Raced, Sql, aware_utc, statements
from ingest.vocabulary import MEASURES, Dimension

logger = logging.getLogger(__name__)

SWEEP_SECONDS = 60


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


class _Ids:
    """Ids of locations and values: looked up once, made in a transaction of their own.

    Filled only from what is committed, so a batch that is rolled back leaves nothing behind.
    """

    _most = 200_000

    def __init__(self) -> None:
        self._locations: dict[str, int] = {}
        self._companies: dict[str, str] = {}
        self._named: set[str] = set()
        self._values: dict[tuple[int, str], int] = {}

    def clear(self) -> None:
        """Forget everything: another database is behind the connection."""
        self._locations.clear()
        self._companies.clear()
        self._named.clear()
        self._values.clear()

    def location(self, ref: str) -> int:
        """The id of a location that ``prepare`` has seen."""
        return self._locations[ref]

    def value(self, dimension: Dimension, text: str) -> int:
        """The id of a value that ``prepare`` has seen."""
        return self._values[dimension, text]

    def prepare(
        self, sql: Sql, events: Iterable[NormalizedEvent], apps: Iterable[AppEvent]
    ) -> None:
        """Make sure that everything these events name has an id."""
        events = list(events)
        companies = {app.location_ref: app.company_ref for app in apps}
        companies |= {event.location_ref: event.company_ref for event in events}
        self._prepare_locations(companies)
        wanted = {value for event in events for value in _values_of(event)}
        self._make_values(sql, wanted)
        self._name_campaigns(events)

    def _make_values(self, sql: Sql, wanted: set[tuple[int, str]]) -> None:
        missing = sorted(value for value in wanted if value not in self._values)
        if not missing:
            return
        if len(self._values) > self._most:
            self._values.clear()
            self._named.clear()
            missing = sorted(wanted)
        with sql.unsynced():
            Value.objects.bulk_create(
                [Value(dimension=dimension, text=text) for dimension, text in missing],
                ignore_conflicts=True,
            )
        self.learn(missing)

    def _name_campaigns(self, events: Iterable[NormalizedEvent]) -> None:
        """Keep the name that a payload gives its campaign, unless it has one by now."""
        for event in events:
            if event.campaign_name and event.campaign not in self._named:
                unnamed = Value.objects.filter(
                    dimension=Dimension.CAMPAIGN, text=event.campaign, label=""
                )
                unnamed.update(label=event.campaign_name)
                self._named.add(event.campaign)

    def _prepare_locations(self, companies: dict[str, str]) -> None:
        companies.pop("", None)
        missing = sorted(ref for ref in companies if ref not in self._locations)
        if missing:
            Location.objects.bulk_create(
                [Location(ref=ref, company_ref=companies[ref]) for ref in missing],
                ignore_conflicts=True,
            )
            for location in Location.objects.filter(ref__in=missing):
                self._locations[location.ref] = location.pk
                self._companies[location.ref] = location.company_ref
        for ref, company in companies.items():
            if company and not self._companies[ref]:
                Location.objects.filter(ref=ref, company_ref="").update(company_ref=company)
                self._companies[ref] = company

    def learn(self, wanted: Iterable[tuple[int, str]]) -> None:
        """Look up values that are stored already. They were committed: remembering is safe."""
        by_dimension: dict[int, list[str]] = defaultdict(list)
        for dimension, text in wanted:
            if (dimension, text) not in self._values:
                by_dimension[dimension].append(text)
        for dimension, texts in by_dimension.items():
            rows = Value.objects.filter(dimension=dimension, text__in=texts)
            self._values.update(
                {(dimension, text): pk for pk, text in rows.values_list("id", "text")}
            )


def _values_of(event: NormalizedEvent) -> Iterable[tuple[int, str]]:
    """What the event may put its delivery under; the empty text stands for "has none"."""
    yield from _NO_VALUES
    yield Dimension.CAMPAIGN, event.campaign
    yield Dimension.PROVIDER, event.provider
    yield Dimension.DOMAIN, domain_of(event.recipient)
    yield Dimension.SENDING_DOMAIN, event.sending_domain
    for tag in event.tags:
        yield Dimension.TAG, tag


def domain_of(recipient: str) -> str:
    """The recipient's domain. Of the key alone, so that no event can say otherwise."""
    return recipient.rpartition("@")[2]


def _values_in(standing: fold.Standing) -> Iterable[tuple[int, str]]:
    """What a delivery is put under: earlier events may have named what this batch does not."""
    yield Dimension.CAMPAIGN, standing.campaign
    yield Dimension.PROVIDER, standing.provider
    yield Dimension.SENDING_DOMAIN, standing.sending_domain
    for tag in standing.tags:
        yield Dimension.TAG, tag


_NO_VALUES = [
    (d, "")
    for d in (
        Dimension.CAMPAIGN,
        Dimension.TAG,
        Dimension.PROVIDER,
        Dimension.DOMAIN,
        Dimension.SENDING_DOMAIN,
    )
]

ids = _Ids()


def _zeros() -> list[int]:
    return [0] * len(MEASURES)


class _Counted(NamedTuple):
    """What a delivery counts as, and where: the stored columns that say so."""

    outcome: int
    flags: int
    bounce_class: int
    hour: int
    campaign: int
    tags: str


class _Counts:
    """Differences to add to the counters, gathered over a batch."""

    def __init__(self) -> None:
        self.hours: dict[tuple[int, ...], list[int]] = defaultdict(_zeros)
        self.values: dict[tuple[int, ...], list[int]] = defaultdict(_zeros)

    def move(self, location: int, before: _Counted | None, after: _Counted) -> None:
        """Take away what a delivery counted as, and add what it counts as now."""
        if before == after:
            return
        if before is not None:
            self._add(location, before, -1)
        self._add(location, after, 1)

    def _add(self, location: int, counted: _Counted, sign: int) -> None:
        hour = counted.hour
        keys = [(location, Dimension.TAG, hour, tag) for tag in tag_ids(counted.tags)]
        keys = keys or [(location, Dimension.TAG, hour, ids.value(Dimension.TAG, ""))]
        keys.append((location, Dimension.CAMPAIGN, hour, counted.campaign))
        rows = [self.hours[location, hour], *(self.values[key] for key in keys)]
        for measure in fold.counted_measures(counted.outcome, counted.flags, counted.bounce_class):
            for row in rows:
                row[measure] += sign

    def rows(
        self, table: dict[tuple[int, ...], list[int]]
    ) -> list[tuple[tuple[int, ...], list[int]]]:
        """What really changed, in key order."""
        return sorted((key, counts) for key, counts in table.items() if any(counts))


@dataclass(slots=True)
class _Change:
    """A delivery that a batch touches: its facts, and what it counted as before, if it existed."""

    key: tuple[int, str, str]
    facts: fold.Facts = field(default_factory=fold.Facts)
    id: int | None = None
    before: _Counted | None = None


def write_batch(items: Sequence[Item], *, now: int) -> None:
    """Write webhooks in one transaction and set each item's status.

    ``now`` is in microseconds. Raises the database's errors; nothing is written then, and the
    statuses mean nothing.
    """
    sql = statements()
    if connection.connection is None:
        connection.ensure_connection()
        sql.prepare()
    events = [(item, item.result) for item in items if isinstance(item.result, NormalizedEvent)]
    apps = [item.result for item in items if isinstance(item.result, AppEvent)]
    ids.prepare(sql, (event for _, event in events), apps)
    for _ in range(20):
        try:
            with transaction.atomic():
                _write_others(items)
                if events:
                    _write_events(sql, events, now=now)
            return
        except Raced:
            continue
    raise OperationalError("other writers were first twenty times in a row")


def _write_others(items: Sequence[Item]) -> None:
    """Location changes, and webhooks that are kept because nobody understands them yet."""
    for item in items:
        if isinstance(item.result, AppEvent):
            item.status = "ignored"
            if item.result.location_ref:
                _update_location(item.result)
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


def _update_location(app: AppEvent) -> None:
    location = Location.objects.select_for_update().get(ref=app.location_ref)
    for column, text in (
        ("name", app.location_name),
        ("company_ref", app.company_ref),
        ("company_name", app.company_name),
    ):
        if text:
            setattr(location, column, text)
    changed_at = aware_utc(app.occurred_at)
    if app.state and (location.state_at is None or location.state_at <= changed_at):
        location.state, location.state_at = app.state, changed_at
    location.save()


def _write_events(sql: Sql, events: list[tuple[Item, NormalizedEvent]], *, now: int) -> None:
    changes = {
        key: _Change(key) for _, event in events if (key := _delivery_key(event)) is not None
    }
    event_keys = [(ids.location(event.location_ref), event.key) for _, event in events]
    stored, known = sql.read(
        sorted(changes, key=lambda key: (key[1], key[2], key[0])), sorted(set(event_keys))
    )
    for row in stored:
        change = changes[row[1], row[2], row[3]]
        change.id, change.facts, change.before = row[0], fold.load_facts(row[4]), _Counted(*row[5:])
    fresh = _drop_known(events, event_keys, known)
    touched: dict[tuple[int, str, str], _Change] = {}
    for _, event in fresh:
        key = _delivery_key(event)
        if key is not None:
            fold.absorb(changes[key].facts, event)
            touched[key] = changes[key]
    if not fresh:
        return
    counts, old = _fold_deliveries(sql, list(touched.values()))
    events_to_insert = [_event_row(item, event, changes) for item, event in fresh]
    with sql.together():
        if old:
            sql.update_deliveries(old)
        if rows := counts.rows(counts.hours):
            sql.add_location_hours(rows)
        if rows := counts.rows(counts.values):
            sql.add_hourly_counts(rows)
        if minutes := _minutes(fresh, now=now):
            sql.add_minutes(minutes)
        sql.insert_events(events_to_insert)


def _delivery_key(event: NormalizedEvent) -> tuple[int, str, str] | None:
    """None where nothing says which delivery the event belongs to: it is stored alone."""
    if not event.message_id or not event.recipient:
        return None
    return ids.location(event.location_ref), event.message_id, event.recipient


def _drop_known(
    events: list[tuple[Item, NormalizedEvent]],
    keys: list[tuple[int, bytes]],
    known: dict[tuple[int, bytes], int],
) -> list[tuple[Item, NormalizedEvent]]:
    """The events that are new, once each; the others' items are marked as duplicates."""
    fresh = []
    for key, (item, event) in zip(keys, events, strict=True):
        item.status = "duplicate" if key in known else "stored"
        if key in known:
            item.conflict = known[key] != event.content
        else:
            known[key] = event.content
            fresh.append((item, event))
    return fresh


def _fold_deliveries(sql: Sql, touched: list[_Change]) -> tuple[_Counts, list[tuple[Any, ...]]]:
    """Insert the new deliveries. Returns what all of them change in the counters, and the rows
    (id + STATE_COLUMNS) of those to update.
    """
    counts, new, old = _Counts(), [], []
    touched.sort(key=lambda change: (change.key[1], change.key[2], change.key[0]))
    standings = [fold.judge(change.facts) for change in touched]
    ids.learn(value for standing in standings for value in _values_in(standing))
    for change, standing in zip(touched, standings, strict=True):
        campaign = ids.value(Dimension.CAMPAIGN, standing.campaign)
        tags = _tags_column(standing.tags)
        counted = _Counted(
            standing.outcome,
            standing.flags,
            standing.bounce_class,
            standing.hour,
            campaign,
            tags,
        )
        counts.move(change.key[0], change.before, counted)
        state = _state_row(change, standing, campaign, tags)
        if change.id is None:
            new.append((*change.key, *state))
        else:
            old.append((change.id, *state))
    if new:
        made = sql.insert_deliveries(new)
        for change in touched:
            change.id = change.id or made[change.key]
    return counts, old


def _tags_column(tags: Iterable[str]) -> str:
    found = sorted(ids.value(Dimension.TAG, tag) for tag in tags)
    return "," + "".join(f"{tag}," for tag in found)


def _state_row(
    change: _Change, standing: fold.Standing, campaign: int, tags: str
) -> tuple[Any, ...]:
    return (
        standing.sent_at,
        int(standing.outcome),
        int(standing.flags),
        int(standing.bounce_class),
        int(standing.category),
        standing.code,
        campaign,
        standing.step,
        ids.value(Dimension.PROVIDER, standing.provider),
        ids.value(Dimension.DOMAIN, domain_of(change.key[2])),
        ids.value(Dimension.SENDING_DOMAIN, standing.sending_domain),
        tags,
        fold.dump_facts(change.facts),
    )


def _minutes(
    fresh: list[tuple[Item, NormalizedEvent]], *, now: int
) -> list[tuple[int, int, int, int]]:
    """Events by the minute they happened in, as far back as the live chart looks.

    Rows of location, minute, kind and count, in key order.
    """
    oldest = oldest_minute(now)
    minutes: dict[tuple[int, int, int], int] = defaultdict(int)
    for _, event in fresh:
        minute = event.occurred_at // 60_000_000
        if minute > oldest and not event.test:
            minutes[ids.location(event.location_ref), minute, int(event.kind)] += 1
    return sorted((*key, n) for key, n in minutes.items())


_encode_detail = msgspec.json.Encoder().encode


def _event_row(
    item: Item, event: NormalizedEvent, changes: dict[tuple[int, str, str], _Change]
) -> tuple[Any, ...]:
    key = _delivery_key(event)
    codec, payload = payloads.pack(item.body)
    detail = event.detail
    if event.test:
        detail = msgspec.structs.replace(detail, test=True)
    return (
        ids.location(event.location_ref),
        changes[key].id if key is not None else None,
        event.key,
        int(event.kind),
        event.occurred_at,
        item.received_at,
        event.detail.code,
        _encode_detail(detail).decode(),
        event.content,
        payload,
        codec,
    )


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


class Recorder:
    """One a process: everything that waits goes into the next transaction, then is answered.

    Its thread starts with the first webhook. It holds one connection of its own, closes it after
    any error of the connection, and tries again until the webhooks' patience ends.
    """

    def __init__(self, *, capacity: int = 10_000, batch: int = 500, patience: float = 4.0) -> None:
        self.capacity, self.batch, self.patience = capacity, batch, patience
        self._queue: deque[_Waiting] = deque()
        self._wake = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._writing = False
        self._next_sweep = 0.0

    async def submit(self, item: Item) -> Item:
        """Wait until the item is committed; returns it with its status. Raises ``Busy``."""
        loop = asyncio.get_running_loop()
        waiting = _Waiting(item, loop.create_future(), loop, time.monotonic())
        with self._wake:
            if self._closed or len(self._queue) >= self.capacity:
                raise Busy
            self._queue.append(waiting)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
                self._thread.start()
            self._wake.notify_all()
        # A sender that hangs up cancels this wait, not the writing of what it sent.
        if not await waiting.future:
            raise Busy
        return item

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
        """Wait until everything taken is answered. False if that took longer than the timeout."""
        with self._wake:
            return self._wake.wait_for(lambda: not self._queue and not self._writing, timeout)

    def _run(self) -> None:
        while taken := self._take():
            self._write(taken)
            with self._wake:
                self._writing = False
                self._wake.notify_all()
            if connection.vendor == "sqlite" and len(self._queue) < self.batch:
                # SQLite has no queue of writers: without a pause nobody else gets a turn.
                time.sleep(0.002)
        connection.close()

    def _take(self) -> list[_Waiting]:
        """The next batch, once there is one; none when the recorder is closed and done."""
        with self._wake:
            if not self._wake.wait_for(self._called, timeout=5):
                self._tidy()
                self._wake.wait_for(self._called)
            count = min(len(self._queue), self.batch)
            taken = [self._queue.popleft() for _ in range(count)]
            self._writing = bool(taken)
            if not taken:
                self._thread = None
            return taken

    def _called(self) -> bool:
        return bool(self._queue) or self._closed

    @staticmethod
    def _tidy() -> None:
        try:
            statements().idle()
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
        """Let go of old minutes, now and then; nobody waits for an answer meanwhile."""
        if time.monotonic() < self._next_sweep:
            return
        self._next_sweep = time.monotonic() + SWEEP_SECONDS
        try:
            prune_minutes(now=_now())
        except (OperationalError, InterfaceError) as error:
            logger.warning("old minutes could not be let go of: %s", error)
            connection.close()

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
