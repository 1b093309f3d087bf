"""How numbers look: thousands, rates with what they are made of, and how long ago."""

from datetime import datetime
from typing import TYPE_CHECKING

from django import template
from django.utils.html import format_html
from django.utils.safestring import SafeString

if TYPE_CHECKING:
    from dashboard.rates import Rate

register = template.Library()

NBSP = "\N{NO-BREAK SPACE}"
EARLY = 60  # with fewer mails than this a rate says next to nothing
FEW = 3  # one complaint among 171 mails is 0.58 %, and proves nothing
LINES = {
    "Bounces": ((0.05, "bad", "over 5 %"), (0.03, "warn", "over 3 %")),
    "Complaints": ((0.003, "bad", "over 0.3 %"), (0.001, "warn", "over 0.1 %")),
}


@register.filter
def count(value: int) -> str:
    """``12470`` as ``12,470``."""
    return f"{value:,}"


@register.filter
def ago(moment: datetime, now: datetime) -> str:
    """How long before ``now``: the words that ``live.js`` goes on with."""
    seconds = max(0, round((now - moment).total_seconds()))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit} ago"
    return f"{seconds} s ago"


def percent(value: float) -> str:
    """A share in per cent: two digits after the point under one per cent, else one.

    Never rounds something to nothing, nor nearly everything to everything.
    """
    if 0 < value < 0.00005:
        return f"<{NBSP}0.01{NBSP}%"
    if 0.9995 <= value < 1:
        return f">{NBSP}99.9{NBSP}%"
    if value in (0, 1):
        return f"{100 * value:.0f}{NBSP}%"
    digits = 2 if 0 < value < 0.01 else 1
    return f"{100 * value:.{digits}f}{NBSP}%"


def made_of(rate: "Rate") -> str:
    """The two numbers behind a rate: ``84 of 1,377``."""
    return f"{count(rate.numerator)} of {count(rate.denominator)}"


def heading(rate: "Rate") -> str:
    """Where a rate is heading: its 95 % range, as ``1.4–2.1 %``."""
    if rate.low is None or rate.high is None:
        return ""
    low, high = (percent(bound).removesuffix(f"{NBSP}%") for bound in (rate.low, rate.high))
    return f"{low}–{high}{NBSP}%"


def verdict(label: str, rate: "Rate") -> tuple[str, str]:
    """CSS class and words for a rate beside HighLevel's and Gmail's lines; both may be empty."""
    if rate.value is None:
        return "none", ""
    if rate.denominator < EARLY:
        return "early", "too early"
    for line, level, words in LINES.get(label, ()):
        if rate.value >= line:
            return (level, words) if rate.numerator >= FEW else ("early", "too early")
    return "", ""


@register.simple_tag
def rate_cell(label: str, rate: "Rate") -> SafeString:
    """A table cell: the rate, the line that it is over, and what it is made of."""
    if rate.value is None:
        return format_html('<td data-label="{}" class="none"><span>no data</span></td>', label)
    level, words = verdict(label, rate)
    hint = format_html(' <b class="hint">{}</b>', words) if level in ("warn", "bad") else ""
    early = " · too early" if level == "early" else ""
    return format_html(
        '<td data-label="{}" class="{}" title="95 % range {}">'
        "<span>{}{}</span><small>{}{}</small></td>",
        label, level, heading(rate), percent(rate.value), hint, made_of(rate), early,
    )  # fmt: skip


@register.simple_tag
def rate_figure(label: str, rate: "Rate", base: str) -> SafeString:
    """A rate among the totals: large, in words, and with its range."""
    if rate.value is None:
        return format_html(
            '<div class="rate none"><dt>{}</dt>'
            '<dd class="figure"><span class="none">no data</span></dd>'
            '<dd class="words">nothing {} yet</dd><dd class="range"></dd></div>',
            label, base,
        )  # fmt: skip
    level, words = verdict(label.split()[0] + "s", rate)
    return format_html(
        '<div class="rate {}"><dt>{}{}</dt><dd class="figure"><span>{}</span></dd>'
        '<dd class="words">{} {}</dd><dd class="range">{}95 % range {}</dd></div>',
        level,
        label,
        format_html(' <b class="hint">{}</b>', words) if level in ("warn", "bad") else "",
        percent(rate.value),
        made_of(rate),
        base,
        "too early · " if level == "early" else "",
        heading(rate),
    )
