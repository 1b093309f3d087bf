"""What stands on the charts: notes and suspensions put in by hand, and what the counters tell.

The counters tell when a location's first mail came from an IP or of a campaign, when its bounces
crossed HighLevel's lines, and when no webhook came in at all.
"""

from collections import deque
from collections.abc import Collection, Iterable, Iterator
from datetime import datetime, timedelta
from typing import NamedTuple

from django.db.models import Min, Q, Sum

from dashboard import judging
from dashboard.access import Rights, shown_note
from dashboard.filters import Filter
from dashboard.models import Note, Suspension
from dashboard.names import name_of, page_url
from dashboard.spans import hour_of, moment_of
from ingest.models import AnswerHour, HourlyCount, LocationHour, Value
from ingest.vocabulary import Dimension

MOST = 40  # on one chart; what people wrote goes first
WINDOW = 24  # hours that the rate of a crossing looks at
CROSSED_LEAST = 100  # mails in them: fewer cross lines all the time
HISTORY = 90 * 24  # hours before the chart in which a value is looked for
USUAL = 20  # answers in the hour before: a quiet endpoint's empty hours mean nothing
_NEW = {Dimension.CAMPAIGN: ("campaign", "{} began"), Dimension.IP: ("ip", "First mail from {}")}
_FIRST_OF = {Dimension.CAMPAIGN: 12, Dimension.IP: 6}  # at most so many on a chart


class Mark(NamedTuple):
    """Something that happened at a moment. ``pk`` is of a note that can be taken away."""

    at: datetime
    kind: str  # note, suspended, lifted, campaign, ip, crossed, silent
    text: str
    url: str = ""
    pk: int | None = None


def marks_of(filter: Filter, rights: Rights, *, now: datetime) -> list[Mark]:
    """The marks of a filter's locations and time, in the order of their times.

    New names and crossings are told of one location only: of a thousand they would be everywhere.
    """
    start, end = filter.start or now - timedelta(days=90), filter.end or now
    locations = filter.location_ids(rights)
    by_hand = [*_notes(locations, start, end, rights), *_suspensions(locations, start, end)]
    found = list(_silences(start, end))
    if locations is not None and len(locations) == 1:
        (location,) = locations
        found += _crossings(location, hour_of(start), hour_of(end))
        found += _firsts(location, hour_of(start), hour_of(end), filter)
    return sorted((by_hand + found)[:MOST], key=lambda mark: mark.at)


def _notes(
    locations: Collection[int] | None, start: datetime, end: datetime, rights: Rights
) -> Iterator[Mark]:
    notes = Note.objects.filter(at__gte=start, at__lt=end)
    if locations is not None:
        notes = notes.filter(Q(location=None) | Q(location_id__in=locations))
    for note in notes.select_related("location")[:MOST]:
        yield Mark(note.at, "note", shown_note(rights, note.location_id, note.text), pk=note.pk)


def _suspensions(
    locations: Collection[int] | None, start: datetime, end: datetime
) -> Iterator[Mark]:
    found = Suspension.objects.filter(since__lt=end).exclude(until__lt=start)
    if locations is not None:
        found = found.filter(location_id__in=locations)
    for one in found.select_related("location")[:MOST]:
        who = one.location.name or one.location.ref
        url = page_url("location", one.location.ref)
        if one.since >= start:
            why = f"HighLevel stopped {who}: {one.get_cause_display()}, {one.get_level_display()}"
            yield Mark(one.since, "suspended", why, url)
        if one.ended_at and start <= one.ended_at < end:
            yield Mark(one.ended_at, "lifted", f"{who} may send again", url)


def _silences(start: datetime, end: datetime) -> Iterator[Mark]:
    """Whole hours in which the endpoint answered nobody, after hours in which it was asked."""
    first, last = hour_of(start), hour_of(end)
    rows = AnswerHour.objects.filter(hour__gte=first - 1, hour__lt=last)
    answered = dict(rows.values("hour").annotate(n=Sum("answers")).values_list("hour", "n"))
    for hour in range(first, last):
        if answered.get(hour - 1, 0) >= USUAL and not answered.get(hour):
            until = next((h for h in range(hour, last) if answered.get(h)), last)
            long = f"{until - hour} h" + (" and on" if until == last else "")
            yield Mark(moment_of(hour), "silent", f"No webhook came in for {long}")


def _crossings(location: int, first: int, last: int) -> Iterator[Mark]:
    """When the upper edge of HighLevel's hard-bounce rate, over 24 h, rose over its lines."""
    rows = LocationHour.objects.filter(
        location_id=location, hour__gte=first - WINDOW, hour__lt=last
    ).values_list("hour", "bounced", "suppressed", "sent")
    counted = {hour: (b or 0, s or 0, n or 0) for hour, b, s, n in rows}
    over = dict.fromkeys((judging.STOP, judging.WARNING), True)  # not told at the very edge
    for hour, x, n in _rolling(counted, first, last):
        for line in over:
            above = n >= CROSSED_LEAST and x > line * n
            if above and not over[line]:
                said = f"Bounces of 24 h passed {judging.share(line)}"
                yield Mark(moment_of(hour + 1), "crossed", said)
                over.update({lower: True for lower in over if lower <= line})
            over[line] = above


def _rolling(
    counted: dict[int, tuple[int, int, int]], first: int, last: int
) -> Iterator[tuple[int, int, int]]:
    """(hour, bad, tried) of the 24 hours that end with each hour."""
    window: deque[tuple[int, int]] = deque(maxlen=WINDOW)
    for hour in range(first - WINDOW, last):
        bounced, suppressed, sent = counted.get(hour, (0, 0, 0))
        window.append((bounced + suppressed, sent + suppressed))
        if hour >= first:
            yield hour, sum(x for x, _ in window), sum(n for _, n in window)


def _firsts(location: int, first: int, last: int, filter: Filter) -> Iterator[Mark]:
    """The first mail of a campaign or from an IP. Nothing is new where watching had just begun."""
    began = LocationHour.objects.filter(location_id=location).aggregate(at=Min("hour"))["at"]
    if began is None or began >= first:
        return
    for dimension, (page, words) in _NEW.items():
        new = _new_values(location, dimension, first, last)
        named = Value.objects.in_bulk(new)
        for pk, hour in sorted(new.items(), key=lambda item: -item[1])[: _FIRST_OF[dimension]]:
            value = named[pk]
            name = name_of(page, value.text, value.label)
            url = page_url(page, value.text) if page == "campaign" else ""
            url = url or f"?{filter.with_(page, value.text).canonical()}"
            yield Mark(moment_of(hour), page, words.format(name), url)


def _new_values(location: int, dimension: Dimension, first: int, last: int) -> dict[int, int]:
    """The values that were counted in these hours and never in those before: their first hour."""
    rows = HourlyCount.objects.filter(location_id=location, dimension=dimension)
    within = rows.filter(hour__gte=first, hour__lt=last)
    seen = dict(within.values("value_id").annotate(at=Min("hour")).values_list("value_id", "at"))
    before = rows.filter(hour__gte=first - HISTORY, hour__lt=first, value_id__in=list(seen))
    old = set(before.values_list("value_id", flat=True).distinct())
    unnamed = set(_nameless(seen))
    return {pk: hour for pk, hour in seen.items() if pk not in old | unnamed}


def _nameless(values: Iterable[int]) -> Iterable[int]:
    return Value.objects.filter(pk__in=list(values), text="").values_list("pk", flat=True)
