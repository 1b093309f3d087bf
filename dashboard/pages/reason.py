"""One refusal: who is hit and whose to fix, what was said, is it draining, and where it falls."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from urllib.parse import urlencode

from django.db.models import Sum
from django.urls import reverse

from dashboard import draining, pivot, reasons
from dashboard.bounded import within
from dashboard.charts import clock_ticks, refusal_chart
from dashboard.conditions import value_ids
from dashboard.draining import Direction, Fate, Steps
from dashboard.failing import reason_url
from dashboard.filters import Filter, FilterError
from dashboard.names import CATEGORY_WORDS
from dashboard.pages.common import PULSE
from dashboard.pages.page import Asked, Page, Painted, Region
from dashboard.pages.reasons import (
    CLASS_WORDS,
    Choice,
    by_event_time,
    chip_of,
    counted,
    given_by,
    heavy,
    length_words,
    level_of,
    mark_of,
)
from dashboard.queries import names_of
from dashboard.reasons import Explained, Sample
from dashboard.refusals import Asked as Refusals
from dashboard.sentences import FIX
from dashboard.spans import hour_of, moment_of
from dashboard.ticket import Reply, Ticket, ticket_text
from ingest.models import ClassificationRule, EventHour
from ingest.operator_rules import PREFIX
from ingest.vocabulary import (
    FLEET_LOCATION,
    NONE_KEY,
    BounceClass,
    Category,
    Dimension,
    EventKind,
)

CHART_STEPS = 120
EVIDENCE = 1_000  # newest refusals whose IPs, pools and sending domains a ticket names
EVIDENCE_SECONDS = 0.8
SIMILAR = 6
OF = ("mails", "refusals")


# --- What is asked ---------------------------------------------------------------------------


def _pk(asked: Asked) -> int:
    """The reason's id. Raises ``FilterError`` for ``(none)``."""
    (value,) = asked.filter.values("reason")
    if value == NONE_KEY:
        raise FilterError("The page is about one reason: name one.")
    return int(value)


def _around(asked: Asked) -> Filter:
    """The page's filter without its reason."""
    return by_event_time(asked.filter.without("reason"))


def _refusals(asked: Asked) -> Refusals:
    return Refusals(_around(asked), asked.rights).of([_pk(asked)])


def _explained(asked: Asked) -> Explained:
    """The reason with its samples and hours. Raises ``Http404`` for one of others."""
    return asked.once("reason", lambda: reasons.reason(_pk(asked), _around(asked), asked.rights))


# --- Who is hit, and whose to fix ------------------------------------------------------------


def _standing(asked: Asked) -> dict[str, Any]:
    row, filter = _explained(asked).row, _around(asked)
    steps = _hourly_steps(asked)
    where = draining.direction(
        steps.gathered(_totals(asked)), running=draining.passed(steps, asked.now)
    )
    whole, kinds = counted(row, filter)
    return {
        "row": row,
        "whole": whole,
        "kinds": kinds,
        "fix": FIX.get(row.rule.fix_by, ""),
        "chip": chip_of(row.reach),
        "mark": mark_of(row, where),
        "category": CATEGORY_WORDS[Category(row.reason.category)],
        "class": CLASS_WORDS.get(BounceClass(row.reason.bounce_class), ""),
        "level": level_of(row.reason.bounce_class),
        "given": given_by(row, filter),
        "locations_url": asked.link(rows="location", columns="pool", count=None) + "#pivot",
        "first": moment_of(row.whole.first_hour),
        "last": moment_of(row.whole.last_hour),
    }  # fmt: skip


STANDING = Region("standing", "dashboard/reasons/_standing.html", heavy(_standing), every=5)


# --- Is it draining? -------------------------------------------------------------------------


class StepRow(NamedTuple):
    """A step of the chart as the table under it shows it."""

    at: datetime
    bounced: int
    deferred: int
    suppressed: int
    delivered: int


def _trend(asked: Asked) -> Sequence[reasons.Hour]:
    return _explained(asked).trend


def _totals(asked: Asked) -> dict[int, int]:
    """Refusals by hour since 1970."""
    trend = _trend(asked)
    return {hour_of(hour.at): hour.deferred + hour.bounced + hour.suppressed for hour in trend}


def _hourly_steps(asked: Asked) -> Steps:
    trend = _trend(asked)
    earliest = trend[0].at if trend else None
    return draining.steps_of(_around(asked), most=CHART_STEPS, earliest=earliest)


def _by_hour(asked: Asked) -> tuple[Steps, dict[str, list[int]]]:
    steps = _hourly_steps(asked)
    return steps, {
        kind: steps.gathered({hour_of(hour.at): getattr(hour, kind) for hour in _trend(asked)})
        for kind in ("bounced", "deferred", "suppressed")
    }


def _attempts(asked: Asked) -> dict[str, Any]:
    of = _refusals(asked)
    by_minute = draining.by_minute(of, asked.now) if asked.filter.range == "1h" else None
    steps, counts = by_minute or _by_hour(asked)
    fate = _fate(asked)
    delivered = [0] * steps.many
    for at in fate.delivered_at if fate else ():
        delivered[steps.place(at)] += 1
    final = [b + s for b, s in zip(counts["bounced"], counts["suppressed"], strict=True)]
    totals = [b + d for b, d in zip(final, counts["deferred"], strict=True)]
    where = draining.direction(totals, running=draining.passed(steps, asked.now))
    ticks = clock_ticks(steps.starts, steps.length, asked.filter.zone)
    names = ("bounced", "deferred", "suppressed")
    return {
        "chart": refusal_chart(final, counts["deferred"], delivered, ticks),
        "steps": steps,
        "rows": [
            StepRow(*each)
            for each in zip(steps.starts, *(counts[name] for name in names), delivered, strict=True)
        ],
        "each": length_words(steps),
        "seconds": int(steps.length.total_seconds()),
        "fate": fate,
        "total": sum(totals),
        "told": drained(where, totals, fate, length_words(steps)),
    }


def _fate(asked: Asked) -> Fate | None:
    if not _explained(asked).row.whole.deferred:
        return None
    return asked.once("fate", lambda: draining.fate(_refusals(asked)))


_WHERE = {
    Direction.RISING: "Rising: more than twice as much as before.",
    Direction.FALLING: "Falling: less than half of what it was.",
    Direction.STOPPED: "It has stopped.",
    Direction.STEADY: "Steady: it goes on as before.",
    Direction.UNTOLD: "Too few refusals to tell whether it rises or falls.",
}


def drained(where: Direction, totals: Sequence[int], fate: Fate | None, each: str) -> str:
    """Whether it drains, in a sentence or two, with the numbers that say so."""
    newest, before = totals[-draining.RECENT :], totals[: -draining.RECENT]
    told = _WHERE[where]
    if before:
        told += (
            f" {sum(newest):,} in the newest {len(newest)} bars ({each} each, the last running),"
            f" {sum(before):,} in the {len(before)} before."
        )
    if fate is None or not fate.put_off:
        return told
    ends = (
        (fate.delivered, "delivered since"),
        (fate.bounced, "given up"),
        (fate.waiting, "waiting"),
    )
    stands = ", ".join(f"{n:,} {word}" for n, word in ends if n) or "none has an end yet"
    mails = f"{fate.put_off:,} mail{'s' * (fate.put_off != 1)}"
    mails = f"the newest {mails}" if fate.newest else mails
    return f"{told} Of {mails} that it put off: {stands}."


ATTEMPTS = Region("attempts", "dashboard/reasons/_attempts.html", heavy(_attempts), every=10)


# --- What was said, and the ticket -----------------------------------------------------------


class Said(NamedTuple):
    """One raw reply, as the page shows it."""

    sample: Sample
    reply: str
    domain: str
    pool: str
    url: str


def _replies(asked: Asked) -> dict[str, Any]:
    row = _explained(asked).row
    return {
        "replies": [_said(sample) for sample in _newest_first(row.samples)],
        "provider": _main_provider(row),
        "ticket": ticket_text(_ticket(asked)) if row.whole.events else "",
        "others": [
            Choice(at.provider, asked.link(asked.own.with_("provider", at.provider)), current=False)
            for at in row.at[1:]
            if at.provider
        ],
    }


def _newest_first(samples: Iterable[Sample]) -> list[Sample]:
    return sorted(samples, key=lambda sample: sample.occurred_at, reverse=True)


def _said(sample: Sample) -> Said:
    detail = sample.detail
    url = reverse("dashboard:delivery", args=[sample.delivery]) if sample.delivery else ""
    return Said(
        sample,
        spoken(sample),
        sample.recipient.rpartition("@")[2],
        detail.pool_name or detail.pool,
        url,
    )


def spoken(sample: Sample) -> str:
    """The receiver's words with the codes in front, if they are not there already."""
    detail = sample.detail
    words = sample.words
    front = [
        text
        for text in (str(detail.code) if detail.code else "", detail.enhanced)
        if text and text not in words
    ]
    return " ".join([*front, words]).strip()


def _main_provider(row: reasons.Row) -> str:
    return row.at[0].provider if row.at else ""


class _Evidence(NamedTuple):
    """What the newest refusals came from and through, the most frequent first."""

    ips: list[tuple[str, int]]
    pools: list[tuple[str, int]]
    sending_domains: list[tuple[str, int]]


def _evidence(of: Refusals, provider: str) -> _Evidence:
    span = (of.filter.start, of.filter.until)
    at = value_ids(Dimension.PROVIDER, [provider or NONE_KEY])
    rows = of.refusals([span]).filter(provider_id__in=at).order_by("-occurred_at")
    columns = ("ip_id", "pool_id", "delivery__sending_domain_id")
    found = list(zip(*rows.values_list(*columns)[:EVIDENCE], strict=True)) or [(), (), ()]
    names = names_of({pk for column in found for pk in column if pk})
    return _Evidence(*(_named(column, names) for column in found))


def _named(pks: Iterable[int | None], names: Mapping[int, Any]) -> list[tuple[str, int]]:
    counts = Counter(names[pk].label or names[pk].text for pk in pks if pk and pk in names)
    counts.pop("", None)
    return counts.most_common()


def _ticket(asked: Asked) -> Ticket:
    """For the provider that gave it most often."""
    row, filter, of = _at_main_provider(asked), _around(asked), _refusals(asked)
    at = row.at[0]
    evidence = within(EVIDENCE_SECONDS, lambda: _evidence(of, at.provider))
    evidence = evidence or _Evidence([], [], [])
    exact = asked.rights.everything  # others know of their own locations' hours
    newest = max((sample.occurred_at for sample in row.samples), default=at.last_seen)
    ended = filter.until is not None and at.last_ever >= filter.until
    return Ticket(
        provider=at.provider,
        reason=row.reason.text,
        permanent=row.whole.bounced + row.whole.suppressed,
        temporary=row.whole.deferred,
        start=filter.start,
        end=filter.end or filter.now,
        first_at=at.first_ever,
        first_exact=exact,
        last_at=at.last_ever if exact and not ended else newest,
        last_exact=bool(row.samples),
        attempts=_tried_at(of, at.provider),
        locations=row.whole.locations,
        ips=evidence.ips,
        pools=evidence.pools,
        sending_domains=evidence.sending_domains,
        tried=_tried(_fate(asked), evidence),
        replies=[_as_reply(sample) for sample in _newest_first(row.samples)],
    )


def _at_main_provider(asked: Asked) -> reasons.Row:
    """The refusal at the provider that gave it most often, alone."""
    row = _explained(asked).row
    if len(row.at) == 1:
        return row
    key = row.at[0].provider or NONE_KEY
    narrowed = _around(asked).with_("provider", key)
    return reasons.reason(row.id, narrowed, asked.rights).row


def _as_reply(sample: Sample) -> Reply:
    detail = sample.detail
    return Reply(
        at=sample.occurred_at,
        said=spoken(sample),
        recipient=sample.recipient,
        ip=detail.ip,
        pool=detail.pool_name or detail.pool,
        mx=detail.mx,
        message_id=sample.message_id,
        temporary=sample.kind is EventKind.DEFERRED,
    )


def _tried(fate: Fate | None, evidence: _Evidence) -> list[str]:
    found = []
    if fate and fate.put_off:
        found.append(
            f"Retried {fate.put_off:,} mails that were put off: {fate.delivered:,} were taken"
            f" later, {fate.bounced:,} were refused for good, {fate.waiting:,} still wait."
        )
    if len(evidence.ips) > 1:
        found.append(f"Sent from {len(evidence.ips):,} IPs; mail from each of them was refused.")
    return found


_ANSWERED = (EventKind.DELIVERED, EventKind.DEFERRED, EventKind.BOUNCED)


def _tried_at(of: Refusals, provider: str) -> int:
    """All attempts at a provider in the hours of the filter; 0 where the counters cannot tell."""
    filter = of.filter
    if filter.names - {"location", "company", "provider"}:
        return 0
    places = {FLEET_LOCATION} if of.locations is None else of.locations
    rows = EventHour.objects.filter(
        location_id__in=places, provider__text=provider, kind__in=_ANSWERED
    )
    if filter.start:
        rows = rows.filter(hour__gte=hour_of(filter.start))
    if filter.until:
        rows = rows.filter(hour__lte=hour_of(filter.until))
    return int(rows.aggregate(n=Sum("events", default=0))["n"])


REPLIES = Painted("replies", "dashboard/reasons/_replies.html", heavy(_replies))


# --- Where it falls --------------------------------------------------------------------------


def _axes(asked: Asked) -> tuple[str, str]:
    rows = asked.options.get("rows", "provider")
    columns = asked.options.get("columns", "pool")
    if rows == columns:
        columns = "provider" if rows != "provider" else "pool"
    return rows, columns


def _pivot(asked: Asked) -> dict[str, Any]:
    whole, by = _explained(asked).row.whole, _axes(asked)
    what = asked.options.get("count", "mails" if whole.bounced + whole.suppressed else "refusals")
    filter = by_event_time(asked.filter)
    if what == "mails":
        table = pivot.count_mails(filter, asked.rights, by)
    else:
        table = pivot.count_refusals(_refusals(asked), by)
    return {"pivot": pivot.pivot_of(table, filter, by), "what": what}


def _pivot_choices(asked: Asked) -> dict[str, Any]:
    rows, columns = _axes(asked)
    hidden = [*asked.own.params(), *((n, t) for n, t in asked.options.items() if n not in PARAMS)]
    return {
        "axes": [("rows", "Rows", rows), ("columns", "Columns", columns)],
        "dimensions": pivot.DIMENSIONS.items(),
        "rows_head": pivot.DIMENSIONS[rows],
        "columns_head": pivot.DIMENSIONS[columns],
        "hidden": hidden,
    }


def _load_pivot(asked: Asked) -> Mapping[str, Any]:
    return _pivot_choices(asked) | dict(_bounded_pivot(asked))


_bounded_pivot = heavy(_pivot)
PIVOT = Region("pivot", "dashboard/reasons/_pivot.html", _load_pivot, every=15)


# --- Which rule said so, and what is like it -------------------------------------------------


class Alike(NamedTuple):
    """Another refusal of the same category at the same provider."""

    events: int
    means: str
    text: str
    url: str


def _beside(asked: Asked) -> dict[str, Any]:
    row = _explained(asked).row
    return {
        "rule": row.rule,
        "own_rule": row.rule.id.startswith(PREFIX),
        "rule_url": _rule_url(row),
        "category": CATEGORY_WORDS[Category(row.reason.category)],
        "provider": _main_provider(row),
        "similar": _similar(asked, row),
    }


def _rule_url(row: reasons.Row) -> str:
    """The form of the rule in Django's admin, or that of a new one, filled in."""
    name = row.rule.id.removeprefix(PREFIX)
    if row.rule.id.startswith(PREFIX):
        pk = ClassificationRule.objects.filter(name=name).values_list("pk", flat=True).first()
        if pk:
            return reverse("admin:ingest_classificationrule_change", args=[pk])
    code = next((sample.detail.code for sample in row.samples if sample.detail.code), None)
    filled = {
        "provider": _main_provider(row),
        "code": code or "",
        "category": row.reason.category,
        "bounce_class": row.reason.bounce_class or "",
        "scope": row.rule.scope,
        "fix_by": row.rule.fix_by,
    }
    query = urlencode({name: value for name, value in filled.items() if value})
    return f"{reverse('admin:ingest_classificationrule_add')}?{query}"


def _similar(asked: Asked, row: reasons.Row) -> list[Alike]:
    filter = _around(asked)
    if not row.reason.category:
        return []
    filter = filter.with_("category", Category(row.reason.category).word)
    if provider := _main_provider(row):
        filter = filter.with_("provider", provider)
    found = reasons.reasons(filter, asked.rights, limit=SIMILAR + 1).rows
    return [
        Alike(
            other.whole.events,
            other.rule.means,
            other.reason.text,
            reason_url(other.id, _around(asked)),
        )
        for other in found
        if other.id != row.id
    ][:SIMILAR]


BESIDE = Region("beside", "dashboard/reasons/_beside.html", heavy(_beside), every=60)


PARAMS: Mapping[str, tuple[str, ...]] = {
    "rows": tuple(pivot.DIMENSIONS),
    "columns": tuple(pivot.DIMENSIONS),
    "count": OF,
}

PAGE = Page(
    "reason",
    (PULSE, STANDING, ATTEMPTS, REPLIES, PIVOT, BESIDE),
    params=PARAMS,
    feed=False,
    by_event=True,
    subject="reason",
)
