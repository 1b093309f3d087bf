"""The mail of a location or campaign by one dimension: a table a tab, every count with its list."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from dashboard import rate_tables
from dashboard.failing import list_url
from dashboard.filters import FilterError
from dashboard.lists import list_filter
from dashboard.names import name_of, page_url, row_id
from dashboard.pages.page import Asked, Rows, State
from dashboard.rate_tables import RatesRow, RatesTable
from dashboard.rates import Counts, Rate
from dashboard.tallies import REST_KEY
from ingest.vocabulary import NONE_KEY

ROWS = 50
ENGAGEMENT = "engagement"
DEFAULT_SORT = "-sent"
HEAVY = ("domain", "sending_domain")  # many values an hour: read again less often
OFTEN, SELDOM = 5.0, 60.0  # seconds
TABS = {
    "location": "Locations",
    "campaign": "Campaigns and workflows",
    "step": "Steps",
    "tag": "Tags",
    "provider": "Mailbox providers",
    "domain": "Recipient domains",
    "sending_domain": "Sending domains",
    "ip": "IPs",
    "pool": "Pools",
    "category": "Reasons by category",
    ENGAGEMENT: "Engagement",
}
_HEADS = {
    "location": "Location",
    "campaign": "Campaign",
    "step": "Step",
    "tag": "Tag",
    "provider": "Provider",
    "domain": "Domain",
    "sending_domain": "Sending domain",
    "ip": "IP",
    "pool": "Pool",
    "category": "Category",
}
_OVERLAPS = {
    "tag": "A mail counts in each of its tags: rows overlap.",
    "ip": "A mail counts with each IP that tried: rows overlap.",
    "pool": "A mail counts with each pool that tried: rows overlap.",
    "category": "Bounced counts the final refusal, deferred the temporary ones: rows overlap.",
}
LINKED = (
    "sent", "delivered", "hard", "block", "visible_complained", "deferred", "in_flight",
    "bounced", "opened", "opened_human", "clicked", "unsubscribed", "reached",
)  # fmt: skip
# (order that a first click asks for, head, what it is)
_RISK_COLUMNS = (
    ("-sent", "Sent", "Delivered + bounced + in flight"),
    ("-delivered", "Delivered", "Accepted by the receiving server"),
    ("-hard_bounce_rate", "Hard", "Bad addresses ÷ settled. Lines: 3 % warning, 5 % stop"),
    ("-block_rate", "Block", "Refused for reputation, content or policy ÷ settled"),
    ("-visible_complaint_rate", "Complaints", "Where they are reported. Lines: 0.1 % and 0.3 %"),
    ("-deferred", "Deferred", "Put off at least once"),
    ("-in_flight", "In flight", "Queued or waiting for a retry"),
)
_CATEGORY_COLUMNS = (
    ("-bounced", "Bounced", "Refused for good for this reason"),
    ("-bounce_rate", "Of all settled", "Of all mail that was delivered or bounced"),
    ("-deferred", "Deferred", "Put off for this reason at least once"),
)
_ENGAGEMENT_COLUMNS = (
    ("-reached", "Reached", "Accepted by the receiving server at least once"),
    ("-open_rate", "Opens", "By people or machines ÷ reached"),
    ("-human_open_rate", "Human opens", "As far as the webhook tells ÷ reached"),
    ("-click_rate", "Clicks", "People and link scanners ÷ reached"),
    ("-unsubscribe_rate", "Unsubscribes", "Unsubscribed ÷ reached"),
)
_COLUMNS = {"category": _CATEGORY_COLUMNS, ENGAGEMENT: _ENGAGEMENT_COLUMNS}


class Row(NamedTuple):
    """A row as its partial shows it; equal as long as it looks the same."""

    id: str
    kind: str  # "risk", "category" or "engagement": which cells it has
    name: str
    ref: str
    url: str
    counts: Counts
    phis: Mapping[str, float]
    links: Mapping[str, str]
    before: Counts | None
    compared: bool
    part: Rate | None  # of a category: its part of all that settled


def tab_of(asked: Asked, tabs: tuple[str, ...]) -> str:
    """The open tab: the one asked for, or the first; a workflow's own page opens its steps."""
    if chosen := asked.options.get("by", ""):
        return chosen
    is_workflow = asked.filter.values(asked.subject)[0].startswith("workflow:")
    return "step" if "step" in tabs and is_workflow else tabs[0]


def _table(asked: Asked, by: str) -> RatesTable:
    options = asked.options
    sort = options.get("sort", "-bounced" if by == "category" else DEFAULT_SORT)
    return rate_tables.rates(
        asked.filter,
        asked.rights,
        by=by,
        limit=ROWS,
        sort=sort,
        compare=options.get("compare", ""),
        now=asked.now,
    )


def _load(asked: Asked, tabs: tuple[str, ...]) -> dict[str, Any]:
    tab = tab_of(asked, tabs)
    by = tabs[0] if tab == ENGAGEMENT else tab
    kind = tab if tab in _COLUMNS else "risk"
    table = _table(asked, by)
    rows = [_row(asked, table, by, kind, row) for row in table.rows]
    return {
        "tabs": _tabs(asked, tabs, tab),
        "title": TABS[tab],
        "head": _HEADS[by],
        "kind": kind,
        "columns": _columns(asked, kind),
        "rows": rows,
        "compared": table.compared is not None,
        "then": table.compared and table.compared.question.filter,
        "overlap": _OVERLAPS.get(by, "") if table.overlap else "",
        "rest": next((row for row in table.rows if row.key == REST_KEY), None) and ROWS,
        "nameless": any(row.key == NONE_KEY for row in table.rows) and name_of(by, NONE_KEY),
        "complete_from": table.complete_from,
        "clock": table.clock,
    }


def _row(asked: Asked, table: RatesTable, by: str, kind: str, row: RatesRow) -> Row:
    key, name = row.key, name_of(by, row.key, row.label)
    return Row(
        id=row_id("by", key),
        kind=kind,
        name=name,
        ref=key if by in ("campaign", "location") and name != key and key != NONE_KEY else "",
        url=_url(asked, by, key),
        counts=row.counts,
        phis=row.phis,
        links=_links(asked, by, key, row.counts),
        before=row.before,
        compared=table.compared is not None,
        part=Rate.of(row.counts.bounced, table.total.settled) if kind == "category" else None,
    )


def _links(asked: Asked, by: str, key: str, counts: Counts) -> dict[str, str]:
    """The lists of what a row counts, by the count's name."""
    found = {}
    for name in LINKED:
        if getattr(counts, name) and key != REST_KEY:
            try:
                found[name] = list_url(list_filter(asked.filter, by, key, name))
            except FilterError:
                break  # a value that no address can say
    return found


def _url(asked: Asked, by: str, key: str) -> str:
    """A campaign's or location's own page; of all else this page with that filter."""
    if key == REST_KEY:
        return ""
    if by in ("campaign", "location") and key != NONE_KEY:
        return page_url(by, key, query=asked.own.without(by).canonical())
    try:
        return asked.link(asked.own.with_(by, key), by=None, sort=None)
    except FilterError:
        return ""


def _tabs(asked: Asked, tabs: tuple[str, ...], chosen: str) -> list[dict[str, Any]]:
    return [
        {
            "label": TABS[tab],
            "url": asked.link(by=tab, sort=None) + "#breakdown-title",
            "current": tab == chosen,
        }
        for tab in tabs
    ]


def _columns(asked: Asked, kind: str) -> list[dict[str, str]]:
    """The heads that order the table. A second click turns the order around."""
    sort = asked.options.get("sort", "-bounced" if kind == "category" else DEFAULT_SORT)
    known = (("key", "", "By name"), *_COLUMNS.get(kind, _RISK_COLUMNS))
    columns = []
    for first, label, about in known:
        other = first[1:] if first.startswith("-") else f"-{first}"
        direction = {
            first.removeprefix("-"): "ascending",
            f"-{first.removeprefix('-')}": "descending",
        }.get(sort, "")
        chosen = other if sort == first else first
        url = asked.link(sort=chosen) + "#breakdown-title"
        columns.append({"label": label, "about": about, "url": url, "direction": direction})
    return columns


@dataclass(frozen=True)
class _Breakdown(Rows):
    """The open tab's table; those that read much are read again less often."""

    tabs: tuple[str, ...] = ()

    def is_due(self, asked: Asked, state: State) -> bool:
        last = state.get(f"{self.name} at")
        heavy = asked.options.get("by") in HEAVY or asked.options.get("compare")
        if last is not None and (asked.now - last).total_seconds() < (SELDOM if heavy else OFTEN):
            return False
        state[f"{self.name} at"] = asked.now
        return True


def breakdown(*tabs: str) -> Rows:
    """The region ``breakdown`` with these tabs, of ``TABS``; the first one is open."""
    return _Breakdown(
        "breakdown",
        "dashboard/location/_breakdown.html",
        lambda asked: _load(asked, tabs),
        body="breakdown-rows",
        row="dashboard/location/_breakdown.html#breakdown-row",
        around="dashboard/location/_breakdown.html#breakdown-around",
        tabs=tabs,
    )


def breakdown_params(*tabs: str) -> dict[str, tuple[str, ...]]:
    """The page parameters of ``breakdown`` with these tabs."""
    return {"sort": (), "by": tabs}
