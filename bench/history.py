"""A history of up to ten million deliveries, put straight into the configured database.

A sample of demo traffic goes through the recorder; every delivery of the history then lives one
of the sampled lives, at another time, in another location, with a campaign, tags and a recipient
of its own. So each row is one that the recorder could have written, and what it decides is not
said here a second time. Counters are summed in SQL from the same draws; what a life counts for
comes from ``ingest.counted``. ``recount --check`` finds no difference.

The same ask gives the same history on both databases. Times are microseconds since 1970.
"""

import contextlib
import heapq
import re
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import accumulate, count, islice
from math import cos, pi
from random import Random
from typing import Any, NamedTuple, Self

import orjson
from django.core.management.color import no_style
from django.db import connection, models

from bench import draws
from bench.draws import HOUR, execute, fetch
from ingest import demo
from ingest.counted import Counted
from ingest.fold import facts_json, load_facts, pack_facts
from ingest.ids import ids
from ingest.models import (
    CountedValue,
    CountedValues,
    Delivery,
    Event,
    EventHour,
    Horizon,
    HourlyCount,
    Location,
    LocationHour,
    MinuteCount,
    QualityHour,
    ReasonHour,
    ReasonProvider,
    Value,
)
from ingest.record import item_from_body, write_batch
from ingest.statements import naive_utc
from ingest.vocabulary import (
    Dimension,
    Outcome,
)

# What it needs while it is made, on PostgreSQL: its tables, and what sorting and the log take.
BYTES_A_DELIVERY, BYTES_AT_LEAST = 3_400, 1_200_000_000
_SAMPLE_NOW = 1_790_000_000_000_000
_SAMPLE_LOCATIONS = 24
_SHARDS = 8  # sets of sending addresses that locations share
_LARGEST = 0.1  # of all mail
_TOPICS = 400  # tags that locations choose theirs from
_CAMPAIGN_RANK = -2  # named by lc-operations, in the facts' words
_CHUNK = 20_000
_2000 = 946_684_800_000_000  # where PostgreSQL's time begins
_FIRST_NAMES = (
    "ada", "ben", "cora", "dan", "eve", "finn", "gwen", "hugo", "iris", "jack", "kira", "liam",
    "mona", "nils", "olga", "paul",
)  # fmt: skip


@dataclass(frozen=True)
class Ask:
    """How large a history, ending when."""

    deliveries: int
    now: int
    days: int = 30
    seed: int = 1
    locations: int = 1_000
    domains: int = 30_000  # of recipients, beside the large providers'
    sample: int = 24_000  # webhooks that the lives are taken from
    payloads: int = 200_000  # so many of the newest events keep theirs

    @property
    def began(self) -> int:
        """Where the first hour begins."""
        return (self.now // HOUR - self.days * 24 + 1) * HOUR


def disk_needed(ask: Ask) -> int:
    """Bytes that the history and its making take, about."""
    return BYTES_AT_LEAST + BYTES_A_DELIVERY * ask.deliveries


def fill(ask: Ask, say: Callable[[str], None]) -> None:
    """Put the history into the configured database, which is migrated and empty."""
    with _loading():
        say("a sample of lives")
        lives = _sample(ask)
        rng = Random(ask.seed)
        plan = _Planner(ask, rng).plan(lives)
        say(f"{ask.deliveries:,} deliveries, their events and most counters")
        with _without_indexes(Delivery, Event, *draws.COUNTED):
            counted = [
                (life.pk, life.counted, [told.counted for told in life.told])
                for group in lives
                for life in group
            ]
            draws.make(counted, plan.tag_sets)
            _write(ask, plan, rng)
            say("counters of domains, of the fleet and of events")
            draws.count_rest(ask.began, ask.now)
            draws.drop()
            say("indexes")
    say("statistics")
    _settle()


# --- Lives --------------------------------------------------------------------------------


class _Told(NamedTuple):
    """One event of a life: ``at`` after the sending, ``lag`` until its receipt."""

    at: int
    lag: int
    payload: bytes
    codec: int
    shared: tuple[Any, ...]
    counted: tuple[int, ...]  # what counters of events ask for, as ``_TOLD`` names it


class _Life(NamedTuple):
    """What one delivery of the sample went through, without its own time and names.

    ``facts`` is a pattern of its stored facts; ``slots`` say what goes in: ("at", an offset),
    ("key", the number of an event), ("names", 0) or ("sender", 0).
    """

    pk: int
    facts: str
    slots: list[tuple[str, int]]
    told: list[_Told]
    length: int  # until the last receipt
    domain: str  # "" where the recipient may have any of the long tail
    shared: tuple[Any, ...]
    counted: Counted


def _columns(model: type[models.Model]) -> list[str]:
    return [str(field.column) for field in model._meta.concrete_fields]


_D = {name: i for i, name in enumerate(_columns(Delivery))}
_E = {name: i for i, name in enumerate(_columns(Event))}


def _sample(ask: Ask) -> list[list[_Life]]:
    """Lives by the rank of the demo location they were lived in; last, those not over yet."""
    ids.clear()
    ranks = _record_sample(ask)
    rank_of = {pk: ranks[ref] for pk, ref in Location.objects.values_list("id", "ref")}
    domains = dict(Value.objects.filter(dimension=Dimension.DOMAIN).values_list("id", "text"))
    no_pool = Value.objects.get(dimension=Dimension.POOL, text="").pk
    told = _sampled_events()
    lives: list[list[_Life]] = [[] for _ in range(_SAMPLE_LOCATIONS + 1)]
    for pk, row in enumerate(Delivery.objects.order_by("id").values_list(*_D)):
        life = _life(pk, row, told[row[_D["id"]]], domains[row[_D["domain_id"]]], no_pool)
        over = row[_D["outcome"]] not in (Outcome.ACCEPTED, Outcome.DEFERRED)
        lives[rank_of[row[_D["location_id"]]] if over else -1].append(life)
    _empty()
    ids.clear()
    return lives


def _record_sample(ask: Ask) -> dict[str, int]:
    """Let the recorder write some demo traffic; the demo locations' ranks by their ids."""
    located = demo.demo_locations(ask.seed, _SAMPLE_LOCATIONS)
    ranks = {location.ref: rank for rank, location in enumerate(located)}
    past = demo.lives(
        ask.seed, now=_SAMPLE_NOW, rate=100, locations=_SAMPLE_LOCATIONS, history_hours=48,
        history_events=ask.sample, introduce=False,
    )  # fmt: skip
    sent = islice(past, ask.sample)
    while batch := list(islice(sent, 500)):
        bodies = [(due, _varied(body, ranks[body["locationId"]])) for due, body in batch]
        items = [item_from_body(body, received_at=due) for due, body in bodies]
        write_batch(items, now=items[-1].received_at)
    return ranks


_IP = re.compile(rb"(203\.0\.113|198\.51\.100|192\.0\.2)\.(\d+)")
_POOL = re.compile(rb"65cc66e77a4d4f63649d39(\d\d)")
_POOL_NAME = re.compile(rb'"(shared-[ab]|dedicated-1)"')


def _varied(body: dict[str, Any], rank: int) -> bytes:
    """A webhook with the addresses and pools of its location's shard.

    Some attempts went another way than the last one, and some mail is a test.
    """
    shard, payload = rank % _SHARDS, body["webhookPayload"]
    chance = sum(payload["id"].encode()) % 100
    if payload.get("severity") == "temporary" and chance < 40:
        _detour(payload["envelope"], other_pool=chance < 15)
    message_id = payload.get("message", {}).get("headers", {}).get("message-id", "")
    if sum(message_id.encode()) % 120 == 0:
        payload.setdefault("flags", {})["is-test-mode"] = True
    text = orjson.dumps(body)
    text = _IP.sub(lambda found: b"%s.%d" % (found[1], int(found[2]) + 16 * shard), text)
    text = _POOL.sub(lambda found: b"65cc66e77a4d4f63649d%d%s" % (40 + shard, found[1]), text)
    return _POOL_NAME.sub(lambda found: b'"%s-%d"' % (found[1], shard), text)


def _detour(envelope: dict[str, Any], *, other_pool: bool) -> None:
    """Send it through the address before in its pool, or from another pool."""
    pool = next(pool for pool in demo.POOLS if envelope["sending-ip"] in pool.ips)
    before = pool.ips[pool.ips.index(envelope["sending-ip"]) - 1]
    if other_pool:
        pool = demo.POOLS[demo.POOLS.index(pool) - 1]
        before = pool.ips[0]
    envelope["i-ip-pool-id"], envelope["i-ip-pool-name"] = pool.ref, pool.name
    envelope["sending-ip"] = before


def _sampled_events() -> dict[int, list[Sequence[Any]]]:
    """The stored events by their delivery; an event without one is no part of a life."""
    events: dict[int, list[Sequence[Any]]] = defaultdict(list)
    for row in Event.objects.exclude(delivery=None).order_by("id").values_list(*_E):
        events[row[_E["delivery_id"]]].append(row)
    return events


def _life(
    pk: int, row: Sequence[Any], events: list[Sequence[Any]], domain: str, no_pool: int
) -> _Life:
    sent_at = _micros(row[_D["sent_at"]])
    keys = [bytes(event[_E["key"]]).hex() for event in events]
    facts, slots = _pattern(row[_D["facts"]], sent_at, keys)
    told = [_told(event, sent_at, no_pool) for event in events]
    return _Life(
        pk=pk, facts=facts, slots=slots, told=told,
        length=max(event.at + event.lag for event in told),
        domain="" if domain.endswith(".example") else domain,
        shared=_shared(_D, _OWN_DELIVERY, row),
        counted=_counted(row, sent_at // HOUR),
    )  # fmt: skip


def _counted(row: Sequence[Any], hour: int) -> Counted:
    named = {name.removesuffix("_id"): row[at] for name, at in _D.items()} | {"hour": hour}
    return Counted(**{name: named[name] for name in Counted._fields})


def _told(row: Sequence[Any], sent_at: int, no_pool: int) -> _Told:
    occurred, received = _micros(row[_E["occurred_at"]]), _micros(row[_E["received_at"]])
    return _Told(
        at=occurred - sent_at,
        lag=received - occurred,
        payload=bytes(row[_E["payload"]]),
        codec=row[_E["payload_codec"]],
        shared=_shared(_E, _OWN_EVENT, row),
        counted=(
            occurred - sent_at, received - occurred, row[_E["kind"]], row[_E["bounce_class"]],
            row[_E["provider_id"]], row[_E["reason_id"]] or 0, row[_E["pool_id"]] or no_pool,
            int(row[_E["is_test"]]),
        ),
    )  # fmt: skip


_SLOT = re.compile(
    r',"tg":\["@tags@"\],"c":\[0,"@campaign@",0,""\]|@sender@|(?<!["\w])1\d{15}(?!\w)'
    r'|(?<=")[0-9a-f]{32}(?=")'
)


def _pattern(stored: bytes, sent_at: int, keys: list[str]) -> tuple[str, list[tuple[str, int]]]:
    """A delivery's facts with ``%s`` for times, event keys and names, and what goes in there."""
    facts = load_facts(stored)
    facts.tags, facts.campaign = ["@tags@"], (0, "@campaign@", 0, "")
    if facts.sending_domain[3]:
        facts.sending_domain = (*facts.sending_domain[:3], "@sender@")
    slots: list[tuple[str, int]] = []

    def slot(found: re.Match[str]) -> str:
        text = found[0]
        if text == "@sender@":
            slots.append(("sender", 0))
        elif text.startswith(","):
            slots.append(("names", 0))
        elif len(text) == 32:
            slots.append(("key", keys.index(text)))
        else:
            slots.append(("at", int(text) - sent_at))
        return "%s"

    return _SLOT.sub(slot, facts_json(facts).decode().replace("%", "%%")), slots


def _micros(moment: datetime) -> int:
    return int(moment.timestamp()) * 1_000_000 + moment.microsecond


def _empty() -> None:
    """Take the sample away again; values and reasons stay."""
    for model in (
        Event, Delivery, LocationHour, HourlyCount, EventHour, ReasonHour, ReasonProvider,
        MinuteCount, QualityHour, CountedValue, CountedValues, Location,
    ):  # fmt: skip
        model._default_manager.all()._raw_delete("default")


# --- Who sends what -----------------------------------------------------------------------


class _Mailing(NamedTuple):
    """A step of a campaign, or mail of none: what its deliveries share."""

    campaign: int
    step: int
    tags: str  # the column
    names: str  # a piece of the facts
    tag_set: int


class _Place(NamedTuple):
    """A location with its mailings: those that run always, and one for each day's blast."""

    pk: int
    lives: list[_Life]
    always: list[_Mailing]
    blasts: list[_Mailing]
    senders: list[tuple[int, str]]


class _Values:
    """Values that the history names, with ids given ahead of their rows."""

    def __init__(self) -> None:
        known = Value.objects.values_list("dimension", "text", "id")
        self._known = {(dimension, text): pk for dimension, text, pk in known}
        self._next = count(max(self._known.values()) + 1)
        self._made: list[Value] = []

    def id_of(self, dimension: Dimension, text: str, label: str = "") -> int:
        """The value's id."""
        pk = self._known.get((dimension, text))
        if pk is None:
            pk = self._known[dimension, text] = next(self._next)
            self._made.append(Value(pk=pk, dimension=dimension, text=text, label=label))
        return pk

    def save(self) -> None:
        """Make their rows."""
        Value.objects.bulk_create(self._made, batch_size=5_000)
        _reset_sequences(Value)


class _Plan(NamedTuple):
    """All that deliveries are drawn from."""

    places: list[_Place]
    weights: list[float]  # cumulative shares of all mail
    underway: list[_Life]  # not over yet, the shortest first
    tail: list[tuple[int, str]]
    domains: dict[str, int]
    tag_sets: list[tuple[int, ...]]


class _Planner:
    """Makes locations of very unequal size, each with mailings of its own."""

    def __init__(self, ask: Ask, rng: Random) -> None:
        self._ask, self._rng = ask, rng
        self._values = _Values()
        self._topics = [f"topic-{number:03d}" for number in range(_TOPICS)]
        self._tag_sets: dict[tuple[int, ...], int] = {}

    def plan(self, lives: list[list[_Life]]) -> _Plan:
        """Make locations and values; say who sends what, and to which domains."""
        domain = partial(self._values.id_of, Dimension.DOMAIN)
        names = [f"business-{number:05d}.example" for number in range(self._ask.domains)]
        tail = [(domain(name), name) for name in names]
        large = {life.domain for group in lives for life in group if life.domain}
        domains = {name: domain(name) for name in sorted(large)}
        places = [
            self._place(pk, rank, lives[rank % _SAMPLE_LOCATIONS] or lives[0])
            for rank, pk in enumerate(self._locations())
        ]
        self._values.save()
        underway = sorted(lives[-1] or lives[0], key=lambda life: life.length)
        weights = _shares(self._ask.locations)
        return _Plan(places, weights, underway, tail, domains, list(self._tag_sets))

    def _locations(self) -> list[int]:
        """Primary keys, the largest location's first."""
        named = demo.demo_locations(self._ask.seed, min(self._ask.locations, 100))
        made = Location.objects.bulk_create(
            Location(
                ref=f"history{rank:04d}{self._rng.getrandbits(36):09x}",
                name=f"{named[rank % len(named)].name} {rank + 1}",
                company_ref=f"company{rank % 40:02d}",
                company_name=f"Agency {rank % 40 + 1}",
            )
            for rank in range(self._ask.locations)
        )
        return [location.pk for location in made]

    def _place(self, pk: int, rank: int, lives: list[_Life]) -> _Place:
        rng = self._rng
        topics = rng.sample(self._topics, 12)
        always = [self._mailing("", "", "", topics[: rng.randint(0, 1)])]
        for number in range(max(3, 40 - 4 * (rank + 1).bit_length())):
            ref, tags = self._ref("workflow"), ["et_workflow", *rng.sample(topics, 2)]
            for _ in range(rng.randint(1, 4)):
                step = self._ref("step").partition(":")[2]
                always.append(self._mailing(ref, f"Workflow {number + 1}", step, tags))
        blasts = [
            self._mailing(
                self._ref("bulk"), f"Blast {day + 1}", "", ["et_bulk", rng.choice(topics)]
            )
            for day in range(self._ask.days + 1)
        ]
        names = [f"{kind}.client-{rank + 1}.example" for kind in ("mail", "news")]
        senders = [(self._values.id_of(Dimension.SENDING_DOMAIN, name), name) for name in names]
        return _Place(pk, lives, always, blasts, senders)

    def _ref(self, kind: str) -> str:
        return f"{kind}:{self._rng.getrandbits(96):024x}"

    def _mailing(self, campaign: str, label: str, step: str, tags: Sequence[str]) -> _Mailing:
        pks = tuple(sorted(self._values.id_of(Dimension.TAG, tag) for tag in tags))
        names = f',"tg":{orjson.dumps(sorted(tags)).decode()}' if tags else ""
        if campaign:
            names += f',"c":[{_CAMPAIGN_RANK},"{campaign}",{int(not step)},"{step}"]'
        return _Mailing(
            self._values.id_of(Dimension.CAMPAIGN, campaign, label),
            self._values.id_of(Dimension.STEP, step),
            "," + "".join(f"{pk}," for pk in pks),
            names,
            self._tag_sets.setdefault(pks, len(self._tag_sets)),
        )


def _shares(locations: int) -> list[float]:
    """Cumulative: the first has a tenth of all mail, the others less and less."""
    shares = [rank**-0.9 for rank in range(2, locations + 1)]
    rest = (1 - _LARGEST) / (sum(shares) or 1)
    return list(accumulate([_LARGEST, *(share * rest for share in shares)]))


# --- Deliveries and events ------------------------------------------------------------------

# The columns that are a row's own; the others it shares with the life that it is drawn from.
_OWN_DELIVERY = (
    "id", "location_id", "message_id", "recipient", "sent_at", "campaign_id", "step_id",
    "domain_id", "sending_domain_id", "tags", "facts",
)  # fmt: skip
_OWN_EVENT = (
    "id", "location_id", "delivery_id", "key", "occurred_at", "received_at", "content", "webhook",
    "payload", "payload_codec",
)  # fmt: skip


def _shared(columns: dict[str, int], own: Sequence[str], row: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(row[at] for name, at in columns.items() if name not in own)


def _write(ask: Ask, plan: _Plan, rng: Random) -> None:
    """Write all deliveries and events, and the counters of most."""
    with _Writer() as writer:
        deliveries = _Sink(writer, "ingest_delivery", Delivery, _OWN_DELIVERY)
        drawn = _Sink(writer, "bench_draw")
        events = _Events(ask, rng, _Sink(writer, "ingest_event", Event, _OWN_EVENT))
        days = _Days(ask, writer, drawn)
        for sent, row, draw in _deliveries(ask, plan, rng, events):
            days.pass_by(sent // HOUR)
            deliveries.add(row)
            drawn.add(draw)
        for sink in (deliveries, events):
            sink.close()
        days.count()
    events.note_payloads()
    _reset_sequences(Delivery, Event)


def _deliveries(
    ask: Ask, plan: _Plan, rng: Random, events: "_Events"
) -> Iterator[tuple[int, tuple[Any, ...], tuple[int, ...]]]:
    """Draw every delivery in the order of their sending: when, its row, and what was drawn."""
    stamp, random, bits = _STAMPS[connection.vendor], rng.random, rng.getrandbits
    for pk, (sent, place) in enumerate(_sendings(ask, plan, rng), 1):
        life = place.lives[int(random() * len(place.lives))]
        if sent + life.length > ask.now:
            life = _fitting(plan.underway, ask.now - sent)
        mailing = _pick_mailing(place, sent, rng)
        sender, sender_name = place.senders[random() < 0.3]
        name = life.domain
        if name:
            domain = plan.domains[name]
        else:
            domain, name = plan.tail[int(ask.domains ** random()) - 1]
        message_id = f"{sent // 1_000_000}.{bits(88):022x}@{sender_name}"
        recipient = f"{_FIRST_NAMES[bits(4)]}.{bits(17):06d}@{name}"
        facts = events.tell(life, pk, place.pk, sent, mailing.names, sender_name)
        row = (
            pk, place.pk, message_id, recipient, stamp(sent), mailing.campaign, mailing.step,
            domain, sender, mailing.tags, facts, *life.shared,
        )  # fmt: skip
        draw = (
            place.pk, sent, sent // HOUR, life.pk, mailing.campaign, mailing.step, domain, sender,
            mailing.tag_set,
        )  # fmt: skip
        yield sent, row, draw


def _sendings(ask: Ask, plan: _Plan, rng: Random) -> Iterator[tuple[int, _Place]]:
    """Times and locations of all deliveries, as busy as office hours and weekdays are."""
    shares = list(accumulate(_busy(ask.began // HOUR + hour) for hour in range(ask.days * 24)))
    done = 0
    for hour, share in enumerate(shares):
        begin = ask.began + hour * HOUR
        number = round(ask.deliveries * share / shares[-1]) - done
        done += number
        step = min(HOUR, ask.now - begin) / max(1, number)
        chosen = rng.choices(plan.places, cum_weights=plan.weights, k=number)
        for at, place in enumerate(chosen):
            yield begin + int((at + rng.random()) * step), place


def _busy(hour: int) -> float:
    """How much is sent in an hour since 1970, of some unit: most at 17:00 UTC, half at weekends."""
    weekend = (hour // 24 + 4) % 7 in (0, 6)
    return (1.1 - cos((hour % 24 - 5) * pi / 12)) * (0.5 if weekend else 1.0)


def _fitting(underway: list[_Life], room: int) -> _Life:
    """A life that has not come further by now; the least one if none has."""
    return next((life for life in reversed(underway) if life.length <= room), underway[0])


def _pick_mailing(place: _Place, sent: int, rng: Random) -> _Mailing:
    """In the hours of a day's blast mostly that, else mail of a workflow or of none."""
    hour = sent // HOUR
    if 14 <= hour % 24 < 18 and rng.random() < 0.6:
        return place.blasts[hour // 24 % len(place.blasts)]
    return place.always[int(len(place.always) * rng.random() ** 2)]


class _Events:
    """The events of all lives: gathered by delivery, written in the order of their receipt."""

    def __init__(self, ask: Ask, rng: Random, sink: "_Sink") -> None:
        self._sink = sink
        self._stamp, self._bits = _STAMPS[connection.vendor], rng.getrandbits
        self._coming: list[tuple[int, bytes, int, int, int, _Told]] = []
        self._cursor = self._payloads_cursor = 0
        self._bare_until = ask.deliveries - ask.payloads * 2 // 5  # 2.5 events a delivery

    def tell(
        self, life: _Life, delivery: int, location: int, sent: int, names: str, sender: str
    ) -> bytes:
        """Take the events of one delivery; its facts. Sendings come in order."""
        keys = []
        for told in life.told:
            occurred = sent + told.at
            key = (occurred // HOUR << 96 | self._bits(96)).to_bytes(16)
            keys.append(key)
            coming = (occurred + told.lag, key, location, delivery, occurred, told)
            heapq.heappush(self._coming, coming)
        while self._coming[0][0] < sent:
            self._receive(bare=delivery < self._bare_until)
        given: list[object] = []
        for kind, n in life.slots:
            if kind == "at":
                given.append(sent + n)
            elif kind == "key":
                given.append(keys[n].hex())
            else:
                given.append(names if kind == "names" else sender)
        return pack_facts((life.facts % tuple(given)).encode())

    def _receive(self, *, bare: bool) -> None:
        received, key, location, delivery, occurred, told = heapq.heappop(self._coming)
        self._cursor += 1
        if bare:
            self._payloads_cursor = self._cursor
        stamp, bits = self._stamp, self._bits
        self._sink.add((
            self._cursor, location, delivery, key, stamp(occurred), stamp(received), bits(62),
            bits(62), None if bare else told.payload, 0 if bare else told.codec, *told.shared,
        ))  # fmt: skip

    def close(self) -> None:
        """Write what is still to come."""
        while self._coming:
            self._receive(bare=False)
        self._sink.close()

    def note_payloads(self) -> None:
        """Record from where on there are payloads."""
        if self._payloads_cursor:
            Horizon.objects.create(payloads_cursor=self._payloads_cursor)


class _Writer:
    """Writes and counts in a thread while more is drawn: the database works meanwhile."""

    most = 12  # waiting at once; each of them holds some megabytes

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._waiting: deque[Future[None]] = deque()
        self._database = connection.connection

    def take(self, work: Callable[[Any], None]) -> None:
        """Have it called with the database, in its turn. Raises what earlier work raised."""
        self._waiting.append(self._thread.submit(work, self._database))
        while len(self._waiting) > self.most:
            self._waiting.popleft().result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """Wait until everything is done; what waits when something went wrong is left undone."""
        try:
            while self._waiting and error[0] is None:
                self._waiting.popleft().result()
        finally:
            # Nobody may close the connection under the thread.
            self._thread.shutdown(cancel_futures=True)


class _Days:
    """Has each day counted when the last of its deliveries is drawn."""

    def __init__(self, ask: Ask, writer: _Writer, drawn: "_Sink") -> None:
        self._writer, self._drawn = writer, drawn
        self._first = ask.began // HOUR

    def pass_by(self, hour: int) -> None:
        """Sendings come in order: now one in this hour."""
        while hour >= self._first + 24:
            self.count()

    def count(self) -> None:
        """Count the day, after what was drawn of it."""
        self._drawn.close()
        statements = [*draws.statements_of(self._first, self._first + 24)]
        self._first += 24

        def work(database: Any) -> None:
            for statement in statements:
                database.execute(statement)

        self._writer.take(work)


class _Sink:
    """Rows for a table, written many at a time: the columns ``own``, then the others in order."""

    def __init__(
        self,
        writer: "_Writer",
        table: str,
        model: type[models.Model] | None = None,
        own: Sequence[str] = (),
    ) -> None:
        self._writer = writer
        others = _columns(model) if model else draws.DRAW
        columns = [*own, *(name for name in others if name not in own)]
        self._rows: list[Sequence[Any]] = []
        self._types = [_type_of(model, name) for name in columns]
        self._into = f"{table} ({', '.join(columns)})"

    def add(self, row: Sequence[Any]) -> None:
        """Take a row: numbers, texts, bytes, and times as ``_STAMPS`` makes them."""
        self._rows.append(row)
        if len(self._rows) >= _CHUNK:
            self.close()

    def close(self) -> None:
        """Have what was gathered written, after what came before it."""
        rows, self._rows = self._rows, []
        if not rows:
            return
        write = self._insert if connection.vendor == "sqlite" else self._copy
        self._writer.take(partial(write, rows))

    def _insert(self, rows: list[Sequence[Any]], database: Any) -> None:
        marks = ", ".join(["?"] * len(rows[0]))
        alone = not database.in_transaction  # then every row would be a transaction
        if alone:
            database.execute("BEGIN")
        database.executemany(f"INSERT INTO {self._into} VALUES ({marks})", rows)
        if alone:
            database.execute("COMMIT")

    def _copy(self, rows: list[Sequence[Any]], database: Any) -> None:
        with database.cursor().copy(f"COPY {self._into} FROM STDIN (FORMAT BINARY)") as copy:
            copy.set_types(self._types)
            for row in rows:
                copy.write_row(row)


def _type_of(model: type[models.Model] | None, column: str) -> str:
    """What PostgreSQL's binary format calls a column's type; of draws all are numbers."""
    if connection.vendor != "postgresql":
        return ""
    if model is None:
        return "int8" if draws.width(column) == "bigint" else "int4"
    field = next(field for field in model._meta.concrete_fields if field.column == column)
    return _BINARY[(field.db_type(connection) or "").partition("(")[0]]


# In PostgreSQL's binary format a time is a number of microseconds.
_BINARY = {
    "bigint": "int8", "integer": "int4", "smallint": "int2", "timestamp with time zone": "int8",
    "varchar": "text", "text": "text", "bytea": "bytea", "boolean": "bool",
}  # fmt: skip
_STAMPS: dict[str, Callable[[int], int | str]] = {
    "postgresql": lambda time: time - _2000,
    "sqlite": lambda time: str(naive_utc(time)),
}


# --- The database ------------------------------------------------------------------------------


@contextlib.contextmanager
def _loading() -> Iterator[None]:
    """Settings for loading much at once; inside of a test's transaction as far as they go."""
    connection.ensure_connection()
    local = connection.in_atomic_block
    if connection.vendor == "postgresql":
        for setting in (
            "statement_timeout = 0", "idle_in_transaction_session_timeout = 0",
            "synchronous_commit = off", "maintenance_work_mem = '1GB'", "work_mem = '512MB'",
            "enable_seqscan = on", "enable_hashjoin = on", "jit = off",
        ):  # fmt: skip
            execute(f"SET {'LOCAL ' if local else ''}{setting}")
    elif not local:
        execute("PRAGMA synchronous = OFF")
        execute("PRAGMA cache_size = -500000")
    yield
    if not local:
        connection.close()  # and with it these settings


@contextlib.contextmanager
def _without_indexes(*tables: type[models.Model]) -> Iterator[None]:
    """Filling tables first and making their indexes then costs far less."""
    names = [model._meta.db_table for model in tables]
    again = (
        _drop_of_postgres(names) if connection.vendor == "postgresql" else _drop_of_sqlite(names)
    )
    yield
    for statement in again:
        execute(statement)


def _drop_of_postgres(names: list[str]) -> list[str]:
    constraints = fetch(
        "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint "
        "WHERE contype IN ('p', 'u') AND conrelid::regclass::text = ANY(%s) ORDER BY 1, 2",
        [names],
    )
    for table, name, _ in constraints:
        execute(f"ALTER TABLE {table} DROP CONSTRAINT {name}")
    indexes = fetch(
        "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = ANY(%s) ORDER BY 1", [names]
    )
    for name, _ in indexes:
        execute(f"DROP INDEX {name}")
    return [
        *(f"ALTER TABLE {table} ADD CONSTRAINT {name} {how}" for table, name, how in constraints),
        *(how for _, how in indexes),
    ]


def _drop_of_sqlite(names: list[str]) -> list[str]:
    """Keys stay: they are part of the tables."""
    marks = ", ".join(["%s"] * len(names))
    found = fetch(
        "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL "
        f"AND tbl_name IN ({marks}) ORDER BY name",
        names,
    )
    for name, _ in found:
        execute(f'DROP INDEX "{name}"')
    return [how for _, how in found]


def _reset_sequences(*tables: type[models.Model]) -> None:
    """Ids that the database gives next follow those given here."""
    for statement in connection.ops.sequence_reset_sql(no_style(), tables):
        execute(statement)


def _settle() -> None:
    """What autovacuum would have done by now."""
    if connection.vendor == "postgresql" and not connection.in_atomic_block:
        execute("VACUUM ANALYZE")
    else:
        execute("ANALYZE")
