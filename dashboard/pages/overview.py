"""The overview: who needs somebody, how the fleet stands, what fails, and why."""

from dataclasses import dataclass
from time import monotonic
from typing import Any

from dashboard import rate_tables
from dashboard.bounded import within
from dashboard.failing import list_url
from dashboard.filters import FilterError
from dashboard.fleet import State
from dashboard.judging import gathered
from dashboard.lists import list_filter
from dashboard.names import FIXERS, name_of
from dashboard.pages.changes import CHANGES, CHANGES_PARAMS
from dashboard.pages.common import MINUTES_CHART, PULSE, pulse_of
from dashboard.pages.later import WAIT
from dashboard.pages.locations import LOCATIONS, LOCATIONS_PARAMS, MARKS
from dashboard.pages.needed import NEEDS, failures_of, fleet_for
from dashboard.pages.page import Asked, Page, Region
from dashboard.pages.page import State as Sent
from dashboard.rate_tables import RatesRow, RatesTable
from dashboard.rates import Counts

FAILING_ROWS = 6
STRIP = (
    State.OVER, State.WARNING, State.HEADING, State.INSIDE, State.EARLY, State.SILENT, State.QUIET,
    State.GONE,
)  # fmt: skip


# --- The fleet, by state ---------------------------------------------------------------------


def _fleet(asked: Asked) -> dict[str, Any]:
    fleet, chosen = fleet_for(asked), asked.options.get("state", "")
    parts = [
        {
            "state": state.value,
            "mark": MARKS[state],
            "words": state.words,
            "count": fleet.counts[state],
            "chosen": state == chosen,
            "url": asked.link(state=None if state == chosen else state.value, page=None, find=None),
        }
        for state in STRIP
        if state is not State.GONE or fleet.counts[state] or state == chosen
    ]
    return {"parts": parts, "locations": len(fleet.places)}


FLEET = Region("fleet", "dashboard/_fleet.html", _fleet)


# --- Rates of all of them --------------------------------------------------------------------

COMPARED_EVERY = 60.0  # seconds
COMPARED_WITHIN = 1.0  # seconds; a comparison that takes longer is left out
COMPARED_AT_ONCE = 20_000  # mails: so few are compared while the page is painted
_MOST_KEPT = 64
_before: dict[Any, tuple[float, Counts | None]] = {}


def _by_provider(asked: Asked) -> RatesTable:
    return asked.once(
        "rates by provider",
        lambda: rate_tables.rates(
            asked.filter, asked.rights, by="provider", limit=200, now=asked.now
        ),
    )


def _earlier(asked: Asked, *, wait: bool) -> Counts | None:
    """What the earlier period had counted when it was as old; ``None`` if that is not known.

    It is asked for at most once a minute: every delivery that failed late is judged again.
    """
    filter = asked.filter
    if filter.clock or not (filter.range or (filter.since and filter.to)):
        return None
    key, clock = (filter.canonical(), _beside(asked), asked.rights), monotonic()
    at, known = _before.get(key, (0.0, None))
    if key in _before and (clock - at < COMPARED_EVERY or not wait):
        return known
    if not wait:
        return None
    if len(_before) >= _MOST_KEPT:
        _before.clear()
    found = within(COMPARED_WITHIN, lambda: _compare(asked))
    _before[key] = clock, found
    return found


def _compare(asked: Asked) -> Counts | None:
    table = rate_tables.rates(
        asked.filter, asked.rights, by="day", compare=_beside(asked), now=asked.now
    )
    return table.whole.before


def _beside(asked: Asked) -> str:
    """With what it is compared."""
    return asked.options.get("compare", "previous")


_RATES = (
    ("hard_bounce_rate", "hard", "Bad addresses"),
    ("block_rate", "block", "Provider blocks"),
    ("visible_complaint_rate", "visible_complained", "Complaints where reported"),
)
_COUNTS = (
    ("sent", "Sent", "Delivered + bounced + in flight"),
    ("delivered", "Delivered", "Accepted by the receiving server, which is not yet the inbox"),
    ("bounced", "Bounced", "Refused for good, late bounces included"),
)


def _totals(asked: Asked) -> dict[str, Any]:
    table = _by_provider(asked)
    counts = table.total
    before = _earlier(asked, wait=counts.sent <= COMPARED_AT_ONCE)
    return {
        "counts": [
            {
                "label": label,
                "about": about,
                "n": getattr(counts, name),
                "url": list_url(list_filter(asked.filter, "", "", name)),
            }
            for name, label, about in _COUNTS
        ],
        "rates": [_rate(asked, table, before, name, count, label) for name, count, label in _RATES],
        "waiting": counts.in_flight,
        "waiting_url": list_url(list_filter(asked.filter, "", "", "in_flight")),
    }


def _rate(
    asked: Asked,
    table: RatesTable,
    before: Counts | None,
    name: str,
    count: str,
    label: str,
) -> dict[str, Any]:
    row: RatesRow = table.whole
    return {
        "name": name,
        "label": label,
        "row": row,
        "url": list_url(list_filter(asked.filter, "", "", count)),
        "before": getattr(before, name) if before else None,
        "note": _note(name, table),
    }


def _note(name: str, table: RatesTable) -> str:
    if name == "visible_complaint_rate":
        blind = table.total.blind_share
        return f"{100 * blind:.0f} % of the mail is blind" if blind else ""
    if name != "block_rate":
        return ""
    tally = {row.key: (row.counts.block, row.counts.settled) for row in table.rows}
    found = gathered(tally)
    if found is None:
        return ""
    provider = name_of("provider", found.key)
    return f"all at {provider}" if found.is_all else f"most at {provider}"


@dataclass(frozen=True)
class _Totals(Region):
    """Compares while the page is open, so that its first paint need not wait for that."""

    def changes(self, asked: Asked, state: Sent) -> str:
        _earlier(asked, wait=True)
        return super().changes(asked, state)


TOTALS = _Totals("totals", "dashboard/_fleet_rates.html", _totals)


# --- Failing now, and why --------------------------------------------------------------------


def _failing(asked: Asked) -> dict[str, Any]:
    try:
        found = failures_of(asked, asked.filter)
    except FilterError as error:
        return {"failures": [], "sentence": str(error)}
    rows = [
        {"failure": failure, "fixer": FIXERS.get(failure.fix_by, "")}
        for failure in found[:FAILING_ROWS]
    ]
    return {"failures": rows, "sentence": "Nothing was refused in this range."}


FAILING = Region("failing", "dashboard/_failing.html", _failing, every=2)

# Put away by the first event. Without one it stands in the page, and says what to paste where.
SETUP_DONE = Region(
    "setup",
    "dashboard/_setup_done.html",
    lambda asked: {"done": pulse_of(asked).last_at},
)


PAGE = Page(
    "overview",
    (PULSE, NEEDS, FLEET, TOTALS, MINUTES_CHART, LOCATIONS, FAILING, CHANGES, SETUP_DONE),
    params={**LOCATIONS_PARAMS, **CHANGES_PARAMS, WAIT: ("changes",)},
    compares=True,
    personal=True,
)
