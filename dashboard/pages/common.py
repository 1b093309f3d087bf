"""Regions that several pages have: the pulse, the totals, the last hour's minutes, rates tables."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from django.db.models import Sum

from dashboard import queries, rate_tables
from dashboard.charts import Minute, minute_chart
from dashboard.marks import Mark, marks_of
from dashboard.names import name_of, page_url, row_id
from dashboard.pages.page import Asked, Region, Rows
from dashboard.rates import Counts
from dashboard.tallies import REST_KEY
from ingest.models import Event, MinuteCount
from ingest.vocabulary import NONE_KEY

TABLE_ROWS = 1_000
DEFAULT_SORT = "-sent"
MINUTES = 60


# --- The pulse -------------------------------------------------------------------------------


class Pulse(NamedTuple):
    """When the newest webhook came, and how many events the last whole minute had."""

    last_at: datetime | None
    per_minute: int


def pulse_of(asked: Asked) -> Pulse:
    """The newest webhook, and the events of the last whole minute, of the filter's locations."""
    return asked.once("pulse", lambda: _pulse(asked))


def _pulse(asked: Asked) -> Pulse:
    locations = asked.filter.location_ids(asked.rights)
    events, minutes = Event.objects.order_by("-id"), MinuteCount.objects.all()
    if locations is not None:
        events = events.filter(location_id__in=locations)
        minutes = minutes.filter(location_id__in=locations)
    last_minute = int(asked.now.timestamp()) // 60 - 1
    found = minutes.filter(minute=last_minute).aggregate(events=Sum("events", default=0))
    return Pulse(events.values_list("received_at", flat=True).first(), found["events"])


PULSE = Region("pulse", "dashboard/_pulse.html", lambda asked: {"pulse": pulse_of(asked)})


# --- Rates -----------------------------------------------------------------------------------


class Row(NamedTuple):
    """A row of a table of rates, as its partial shows it."""

    id: str
    name: str
    ref: str
    url: str
    counts: Counts
    phis: Mapping[str, float]  # how much its mail is clustered, by rate


class Table(NamedTuple):
    """A table of rates, as its partials show it."""

    id: str
    title: str
    head: str
    note: str
    rows: list[Row]


def rates_of(asked: Asked, by: str) -> rate_tables.RatesTable:
    """The table of rates of a page's filter, by one dimension."""
    sort = asked.options.get("sort", DEFAULT_SORT)
    return asked.once(
        f"rates by {by}",
        lambda: rate_tables.rates(
            asked.filter, asked.rights, by=by, limit=TABLE_ROWS, sort=sort, now=asked.now
        ),
    )


def totals(by: str) -> Region:
    """The totals; ``by`` is a table of the same page, whose whole they are."""
    return Region(
        "totals",
        "dashboard/_totals.html",
        lambda asked: {"totals": rates_of(asked, by).whole, "since": asked.filter.start},
    )


def rates_table(name: str, by: str, title: str, head: str) -> Rows:
    """A table with a row of counts and rates for each location, campaign, tag and so on."""

    def load(asked: Asked) -> dict[str, Any]:
        rows = [_row(name, by, asked, row) for row in rates_of(asked, by).rows]
        table = Table(name, title, head, _note(by, len(rows)), rows)
        return {"table": table, "rows": rows, "columns": _columns(asked)}

    return Rows(
        name,
        "dashboard/_rates.html",
        load,
        body=name,
        row="dashboard/_rates.html#rates-row",
        around="dashboard/_rates.html#rates-around",
    )


def _row(table: str, by: str, asked: Asked, row: rate_tables.RatesRow) -> Row:
    url, key = "", row.key
    if by == "tag" and key != REST_KEY:
        url = f"?{asked.filter.without('location').with_('tag', key).canonical()}"
    elif key not in (NONE_KEY, REST_KEY):
        url = page_url(by, key, query=asked.filter.without(by).canonical())
    name = name_of(by, key, row.label)
    ref = key if url and name != key else ""
    return Row(row_id(table, key), name, ref, url, row.counts, row.phis)


def _note(by: str, rows: int) -> str:
    if by == "tag":
        return "A mail counts in each of its tags: rows overlap."
    return f"{rows:,}" if rows < TABLE_ROWS else f"the first {rows:,}"


COLUMNS = (
    ("key", "", ""),
    ("sent", "Sent", "Delivered + bounced + in flight"),
    ("delivered", "Delivered", "Accepted by the receiving server"),
    ("bounced", "Bounced", "Refused for good, late bounces included"),
    ("complained", "Complained", "Marked as spam by somebody who got it"),
    ("in_flight", "In flight", "Queued or waiting for a retry"),
    ("delivery_rate", "Delivery", "Delivered ÷ settled (delivered + bounced)"),
    ("bounce_rate", "Bounces", "Bounced ÷ settled. Lines: 3 % warning, 5 % sending stops"),
    ("complaint_rate", "Complaints", "Complained ÷ reached. Lines: 0.1 % and 0.3 %"),
)


def _columns(asked: Asked) -> list[dict[str, str]]:
    """The heads of a table of rates. A second click turns the order around."""
    sort = asked.options.get("sort", DEFAULT_SORT)
    columns = []
    for name, label, about in COLUMNS:
        direction = {name: "ascending", f"-{name}": "descending"}.get(sort, "")
        first = name if name in ("key", "delivery_rate") else f"-{name}"
        other = name if first.startswith("-") else f"-{name}"
        chosen = other if sort == first else first
        url = asked.link(sort=None if chosen == DEFAULT_SORT else chosen)
        columns.append({"label": label, "about": about, "url": url, "direction": direction})
    return columns


# --- The last hour, minute by minute ---------------------------------------------------------


class MinuteRow(NamedTuple):
    """A minute as a row of the table under the chart."""

    id: str
    minute: Minute


def _minutes(asked: Asked) -> dict[str, Any]:
    minutes = queries.minutes(asked.filter, asked.rights, now=asked.now, count=MINUTES)
    marks = [mark for mark in _marks(asked) if mark.at >= minutes[0].at]
    chart = minute_chart(minutes, [(mark.at, mark.text) for mark in marks])
    return {
        "chart": chart,
        "marks": list(enumerate(marks, start=1)),
        "rows": [MinuteRow(f"minute-{minute.at:%s}", minute) for minute in chart.minutes],
        # The chart's counters know locations only.
        "chart_is_wider": bool(asked.filter.names - {"location", "company"}),
    }


def _marks(asked: Asked) -> list[Mark]:
    """What people noted of the chart's hour, and what the counters tell of it."""
    hour = asked.filter.only("location", "company").with_("range", "1h")
    return marks_of(hour, asked.rights, now=asked.now)


MINUTES_CHART = Rows(
    "minutes",
    "dashboard/_minutes.html",
    _minutes,
    body="minutes-rows",
    row="dashboard/_minutes.html#minutes-row",
    around="dashboard/_minutes.html#minutes-plot",
)
