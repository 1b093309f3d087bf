"""Ids of what events name: locations, values, reasons. Made before the batch that needs them."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager

from ingest.counted_values import CAPPED, decisions
from ingest.fold import Standing, Why
from ingest.models import Company, Location, Reason, Value
from ingest.normalize import AppEvent, NormalizedEvent
from ingest.statements import Sql
from ingest.vocabulary import OTHER_KEY, Dimension


class Ids:
    """Ids of locations, values and reasons: looked up once, made in transactions of their own.

    Filled only from what is committed, so a batch that is rolled back leaves nothing behind.
    """

    _most = 200_000

    def __init__(self) -> None:
        self._locations: dict[str, int] = {}
        self._companies: dict[str, str] = {}
        self._named: set[tuple[int, str]] = set()
        self._values: dict[tuple[int, str], int] = {}
        self._reasons: dict[str, int] = {}
        self._ready: set[tuple[str, int, str]] = set()  # values with an id, and decided on
        self._exempt = False

    def clear(self) -> None:
        """Forget everything: another database is behind the connection."""
        self._locations.clear()
        self._companies.clear()
        self._named.clear()
        self._values.clear()
        self._reasons.clear()
        self._ready.clear()
        self._exempt = False
        decisions.clear()

    def location(self, ref: str) -> int:
        """The id of a location that ``prepare`` has seen."""
        return self._locations[ref]

    def value(self, dimension: Dimension, text: str) -> int:
        """The id of a value that ``prepare`` has seen."""
        return self._values[dimension, text]

    def reason(self, digest: str) -> int | None:
        """The id of a reason by its digest; None for an empty digest."""
        return self._reasons[digest] if digest else None

    def prepare(
        self,
        sql: Sql,
        events: Sequence[NormalizedEvent],
        whys: Iterable[Why],
        apps: Iterable[AppEvent],
    ) -> None:
        """Make sure that everything these events name has an id."""
        companies = {app.location_ref: app.company_ref for app in apps}
        companies |= {event.location_ref: event.company_ref for event in events}
        self._prepare_locations(companies)
        self._make_room()
        placed = {(event.location_ref, *value) for event in events for value in values_of(event)}
        placed -= self._ready
        values = {pair[1:] for pair in placed} | _NO_VALUES
        new_values = sorted(values - self._values.keys())
        reasons = {why.reason: why for why in whys if why.reason}
        new_reasons = [reasons[digest] for digest in sorted(reasons.keys() - self._reasons.keys())]
        if new_values or new_reasons or decisions.undecided(self._pairs(placed)):
            with self._made_together(sql):
                self._make_values(new_values)
                self._make_reasons(new_reasons)
                decisions.decide(sql, decisions.undecided(self._pairs(placed)))
        self._ready |= placed
        self._name_values(events)

    def _pairs(self, placed: Iterable[tuple[str, int, str]]) -> Iterator[tuple[int, int, int]]:
        """The (location, dimension, value) that need a decision, as ids."""
        for ref, dimension, text in placed:
            if text and dimension in CAPPED:
                yield self._locations[ref], dimension, self._values[dimension, text]

    @contextmanager
    def _made_together(self, sql: Sql) -> Iterator[None]:
        """A transaction that what is known may be filled in: forgotten if it fails."""
        try:
            with sql.unsynced():
                yield
        except BaseException:
            self.clear()
            raise

    def _make_room(self) -> None:
        if len(self._values) + len(self._reasons) > self._most or len(self._ready) > self._most:
            self._values.clear()
            self._reasons.clear()
            self._named.clear()
            self._ready.clear()

    def _make_values(self, missing: Sequence[tuple[int, str]]) -> None:
        if not missing:
            return
        Value.objects.bulk_create(
            [Value(dimension=dimension, text=text) for dimension, text in missing],
            ignore_conflicts=True,
        )
        self.learn(missing)
        if not self._exempt:
            empty = [self._values[d, text] for d, text in _NO_VALUES if not text]
            decisions.exempt(empty, {d: self._values[d, OTHER_KEY] for d in CAPPED})
            self._exempt = True

    def _make_reasons(self, missing: list[Why]) -> None:
        if not missing:
            return
        Reason.objects.bulk_create(
            [
                Reason(
                    digest=bytes.fromhex(why.reason),
                    text=why.text,
                    category=why.category,
                    bounce_class=why.bounce_class,
                )
                for why in missing
            ],
            ignore_conflicts=True,
        )
        self.learn_reasons(why.reason for why in missing)

    def learn_reasons(self, digests: Iterable[str]) -> None:
        """Look up reasons that are stored already."""
        missing = [digest for digest in digests if digest and digest not in self._reasons]
        if missing:
            rows = Reason.objects.filter(digest__in=[bytes.fromhex(digest) for digest in missing])
            found = rows.values_list("digest", "id")
            self._reasons.update({bytes(digest).hex(): pk for digest, pk in found})

    def _name_values(self, events: Iterable[NormalizedEvent]) -> None:
        """Keep the names that payloads give campaigns and pools, unless they have one by now."""
        given = {
            (dimension, text, name)
            for event in events
            for dimension, text, name in (
                (Dimension.CAMPAIGN, event.campaign, event.campaign_name),
                (Dimension.POOL, event.detail.pool, event.detail.pool_name),
            )
            if name and name != text and (dimension, text) not in self._named
        }
        for dimension, text, name in sorted(given):
            Value.objects.filter(dimension=dimension, text=text, label="").update(label=name)
            self._named.add((dimension, text))

    def _prepare_locations(self, companies: dict[str, str]) -> None:
        companies.pop("", None)
        missing = sorted(ref for ref in companies if ref not in self._locations)
        if missing:
            names = _company_names({companies[ref] for ref in missing})
            Location.objects.bulk_create(
                [
                    Location(
                        ref=ref,
                        company_ref=companies[ref],
                        company_name=names.get(companies[ref], ""),
                    )
                    for ref in missing
                ],
                ignore_conflicts=True,
            )
            for location in Location.objects.filter(ref__in=missing):
                self._locations[location.ref] = location.pk
                self._companies[location.ref] = location.company_ref
        for ref, company in companies.items():
            if company and not self._companies[ref]:
                Location.objects.filter(ref=ref, company_ref="").update(
                    company_ref=company, company_name=_company_names({company}).get(company, "")
                )
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


def values_of(event: NormalizedEvent) -> list[tuple[Dimension, str]]:
    """What the event may put its delivery under; the empty text stands for "has none"."""
    detail = event.detail
    values = [
        (Dimension.CAMPAIGN, event.campaign),
        (Dimension.STEP, event.step),
        (Dimension.PROVIDER, event.provider),
        (Dimension.DOMAIN, domain_of(event.recipient)),
        (Dimension.SENDING_DOMAIN, event.sending_domain),
        (Dimension.IP, detail.ip),
        (Dimension.POOL, detail.pool),
        (Dimension.MX, detail.mx),
    ]
    values += [(Dimension.TAG, tag) for tag in event.tags]
    return values


def domain_of(recipient: str) -> str:
    """The recipient's domain. Of the key alone, so that no event can say otherwise."""
    return recipient.rpartition("@")[2]


def values_in(standing: Standing) -> Iterable[tuple[Dimension, str]]:
    """What a delivery is put under: earlier events may have named what this batch does not."""
    ways = standing.ways
    yield Dimension.CAMPAIGN, standing.campaign
    yield Dimension.STEP, standing.step
    yield Dimension.PROVIDER, standing.provider
    yield Dimension.SENDING_DOMAIN, standing.sending_domain
    yield Dimension.IP, ways.ip
    yield Dimension.POOL, ways.pool
    yield Dimension.MX, ways.mx
    yield from ways.tried
    yield from ways.deferred
    for tag in standing.tags:
        yield Dimension.TAG, tag


def _company_names(refs: Collection[str]) -> dict[str, str]:
    """The names of those companies of which INSTALL has told."""
    found = Company.objects.filter(ref__in=[ref for ref in refs if ref])
    return dict(found.values_list("ref", "name"))


# What every database has: the values of what has none, and of what is not counted apart.
_NO_VALUES = {(d, "") for d in Dimension if d is not Dimension.CATEGORY} | {
    (d, OTHER_KEY) for d in CAPPED
}

ids = Ids()
