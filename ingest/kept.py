"""Kept and quarantined webhooks, read again: after a parser, a rule or a key has changed.

What is understood now goes the way of every webhook (``ingest.record``), with the time of its
receipt and the source that it came by; what is not stays where it is. Whatever is cut off can be
run again: an event that is stored is a duplicate.
"""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db.models import Q, QuerySet

from ingest import publish
from ingest.edge import NamedSource, find_source, of_another_app, refusal
from ingest.models import Event, KeptWebhook, Location, QuarantinedWebhook
from ingest.normalize import NormalizedEvent, NotUnderstood
from ingest.record import Item, item_from_body, write_safely

BATCH = 500
PAUSE = 0.02  # seconds: without it a bulk writer starves the recorder of a running server
QUARANTINED = "quarantined"  # stands for the reason of a webhook whose signature failed
BECAME = ("stored", "duplicate", "ignored", "kept", QUARANTINED)

type Row = KeptWebhook | QuarantinedWebhook
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(slots=True)
class _Candidate:
    """A webhook that was read again. Without an item it is still not authentic."""

    row: Row
    reason: str
    item: Item | None

    @property
    def is_understood(self) -> bool:
        return self.item is not None and not isinstance(self.item.result, NotUnderstood)


@dataclass(slots=True)
class Rereading:
    """Reads waiting webhooks again; ``reason`` keeps those whose reason contains it.

    ``foresee`` only counts, ``run`` does it: both a batch a step, yielding how many it held.
    ``counts`` tells what became (or would become) of them: by reason and a word of ``BECAME``.
    """

    reason: str = ""
    pause: float = PAUSE
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    _sources: dict[tuple[int, bool], NamedSource | None] = field(default_factory=dict)

    def waiting(self) -> int:
        """How many there are to read."""
        kept, quarantined = self._rows()
        return kept.count() + quarantined.count()

    def foresee(self) -> Iterator[int]:
        """Count what ``run`` would do, and write nothing."""
        self.counts.clear()
        seen: set[tuple[str, bytes]] = set()
        for batch in self._batches():
            stored = _stored_keys(batch)
            for candidate in batch:
                self.counts[candidate.reason, self._would_become(candidate, stored, seen)] += 1
            yield len(batch)

    def run(self) -> Iterator[int]:
        """Store what is understood now. Raises the database's errors; what was done stays done."""
        self.counts.clear()
        for batch in self._batches():
            self._store(batch)
            for candidate in batch:
                self.counts[candidate.reason, self._became(candidate)] += 1
            yield len(batch)
            time.sleep(self.pause)

    def total(self, became: str) -> int:
        """How many became this, whatever their reason."""
        return sum(n for (_, word), n in self.counts.items() if word == became)

    # --- Reading ----------------------------------------------------------------------------

    def _rows(self) -> tuple[QuerySet[KeptWebhook], QuerySet[QuarantinedWebhook]]:
        kept = KeptWebhook.objects.filter(replayed_at=None)
        quarantined = QuarantinedWebhook.objects.all()
        if self.reason:
            kept = kept.filter(reason__icontains=self.reason)
            if self.reason.lower() not in QUARANTINED:
                quarantined = quarantined.none()
        return kept, quarantined

    def _batches(self) -> Iterator[list[_Candidate]]:
        kept, quarantined = self._rows()
        yield from _in_batches(kept, self._reread_kept)
        yield from _in_batches(quarantined, self._reread_quarantined)

    def _reread_kept(self, row: KeptWebhook) -> _Candidate:
        return _Candidate(row, row.reason, self._item(row))

    def _reread_quarantined(self, row: QuarantinedWebhook) -> _Candidate:
        """Authentic by the keys of now, or by its source's rules of now."""
        source = self._source(row.source_id, enabled=True)
        withdrawn = row.source_id is not None and source is None
        wrong = withdrawn or refusal(json.loads(row.headers), bytes(row.body), source)
        return _Candidate(row, QUARANTINED, None if wrong else self._item(row))

    def _item(self, row: Row) -> Item:
        source = self._source(row.source_id)
        return item_from_body(
            bytes(row.body),
            received_at=(row.received_at - _EPOCH) // timedelta(microseconds=1),
            source_id=row.source_id,
            location_ref=source.location_ref if source else "",
        )

    def _source(self, pk: int | None, **state: bool) -> NamedSource | None:
        if pk is None:
            return None
        wanted = pk, bool(state)
        if wanted not in self._sources:
            self._sources[wanted] = find_source(pk=pk, **state)
        return self._sources[wanted]

    # --- Foreseeing -------------------------------------------------------------------------

    @staticmethod
    def _would_become(
        candidate: _Candidate, stored: set[tuple[str, bytes]], seen: set[tuple[str, bytes]]
    ) -> str:
        item = candidate.item
        if item is None:
            return QUARANTINED
        if isinstance(item.result, NotUnderstood):
            return "kept"
        if of_another_app(item) or not isinstance(item.result, NormalizedEvent):
            return "ignored"
        key = item.result.location_ref, item.result.key
        repeated = key in stored or key in seen
        seen.add(key)
        return "duplicate" if repeated else "stored"

    # --- Doing ------------------------------------------------------------------------------

    def _store(self, batch: Sequence[_Candidate]) -> None:
        """Write what is understood, then take it from where it waited."""
        now = time.time_ns() // 1000
        items = []
        for candidate in batch:
            item = candidate.item
            if item is None:
                continue
            if of_another_app(item):
                item.status = "ignored"
            elif candidate.is_understood or isinstance(candidate.row, QuarantinedWebhook):
                items.append(item)
            else:
                item.status = "kept"
        if items:
            write_safely(items, now=now)
            publish.ring()
        _let_go(batch, at=datetime.fromtimestamp(now / 1e6, UTC))

    @staticmethod
    def _became(candidate: _Candidate) -> str:
        return candidate.item.status if candidate.item else QUARANTINED


def _in_batches[R: Row](
    rows: QuerySet[R], reread: Callable[[R], _Candidate]
) -> Iterator[list[_Candidate]]:
    """All rows in the order of their ids, ``BATCH`` at a time."""
    after = 0
    while found := list(rows.filter(pk__gt=after).order_by("pk")[:BATCH]):
        after = found[-1].pk
        yield [reread(row) for row in found]


def _stored_keys(batch: Sequence[_Candidate]) -> set[tuple[str, bytes]]:
    """Which of these events are stored: by their location's HighLevel id and their key."""
    wanted: dict[str, set[bytes]] = {}
    for candidate in batch:
        result: Any = candidate.item and candidate.item.result
        if isinstance(result, NormalizedEvent):
            wanted.setdefault(result.location_ref, set()).add(result.key)
    refs = dict(Location.objects.filter(ref__in=wanted).values_list("pk", "ref"))
    condition = Q(pk__in=[])
    for pk, ref in refs.items():
        condition |= Q(location_id=pk, key__in=wanted[ref])
    rows = Event.objects.filter(condition).values_list("location_id", "key")
    return {(refs[location], bytes(key)) for location, key in rows}


def _let_go(batch: Sequence[_Candidate], *, at: datetime) -> None:
    """Mark the kept ones that were replayed, and empty the quarantine of what was authentic."""
    done = [c.row for c in batch if c.item and c.item.status != "kept"]
    kept = [row.pk for row in done if isinstance(row, KeptWebhook)]
    KeptWebhook.objects.filter(pk__in=kept, replayed_at=None).update(replayed_at=at)
    authentic = [c.row.pk for c in batch if c.item and isinstance(c.row, QuarantinedWebhook)]
    QuarantinedWebhook.objects.filter(pk__in=authentic).delete()
    _note_reasons(batch)


def _note_reasons(batch: Sequence[_Candidate]) -> None:
    """What is still not understood says why by the parser of now."""
    changed: dict[str, list[int]] = {}
    for candidate in batch:
        result: Any = candidate.item and candidate.item.result
        if isinstance(candidate.row, KeptWebhook) and isinstance(result, NotUnderstood):
            reason = result.reason[:200]
            if reason != candidate.row.reason:
                changed.setdefault(reason, []).append(candidate.row.pk)
    for reason, pks in sorted(changed.items()):
        KeptWebhook.objects.filter(pk__in=pks).update(reason=reason)
