"""How numbers look: thousands, rates with what they are made of, and how long ago."""

from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Protocol

from django import template
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from dashboard import judging
from dashboard.judging import Verdict
from dashboard.rates import Counts, Rate

register = template.Library()

NBSP = "\N{NO-BREAK SPACE}"
# HighLevel's lines and Gmail's, the one that stops the mail first.
LINES = {
    **dict.fromkeys(
        ("bounce_rate", "hard_bounce_rate", "block_rate"), ((0.05, "bad"), (0.03, "warn"))
    ),
    **dict.fromkeys(
        ("complaint_rate", "visible_complaint_rate"), ((0.003, "bad"), (0.001, "warn"))
    ),
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


@register.filter
def seconds(value: float) -> str:
    """How long, in the unit that suits: ``2.4 s``, ``12 min``, ``3.5 h``."""
    for size, unit in ((3600, "h"), (60, "min")):
        if value >= size:
            return f"{value / size:.3g}{NBSP}{unit}"
    return f"{value:.2g}{NBSP}s" if value < 10 else f"{value:.0f}{NBSP}s"


@register.simple_tag
def part(share: Mapping[str, float | None]) -> SafeString:
    """A part of a whole as ``dashboard.quality.share`` gives it; "no data" where there is none."""
    value = share["value"]
    if value is None:
        return format_html('<span class="none">{}</span>', "no data")
    return format_html("{}", percent(value))


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


def verdict(name: str, rate: Rate) -> tuple[str, str]:
    """CSS class and words for a rate beside HighLevel's and Gmail's lines; both may be empty."""
    if rate.value is None:
        return "none", ""
    for line, level in LINES.get(name, ()):
        word = judging.verdict(rate.numerator, rate.denominator, line, rate.phi)
        if word is Verdict.OVER:
            return level, word.words(line)
        if word is Verdict.PROBABLY_OVER:
            return "warn", word.words(line)
        if word is Verdict.TOO_EARLY and (line, level) == LINES[name][-1]:
            return "early", "too early"
    return "", ""


class Counted(Protocol):
    """A row: what was counted, and the dispersions of its rates by their names."""

    @property
    def counts(self) -> Counts: ...
    @property
    def phis(self) -> Mapping[str, float]: ...


def _rate(row: Counted, name: str) -> Rate:
    """A row's rate, its range as wide as its mail is clustered."""
    rate: Rate = getattr(row.counts, name)
    return Rate.of(rate.numerator, rate.denominator, row.phis.get(name, 1.0))


@register.simple_tag
def rate_cell(label: str, row: Counted, name: str, url: str = "") -> SafeString:
    """A table cell: the rate, the line that it is over, and what it is made of.

    ``url`` is the list of what the rate counts.
    """
    rate: Rate = getattr(row.counts, name)
    return _cell(label, name, rate.numerator, rate.denominator, row.phis.get(name, 1.0), url)


# An open page is written again and again, and few of its cells have changed.
@lru_cache(maxsize=4096)
def _cell(label: str, name: str, x: int, n: int, phi: float, url: str) -> SafeString:
    rate = Rate.of(x, n, phi)
    if rate.value is None:
        return format_html('<td data-label="{}" class="none"><span>no data</span></td>', label)
    level, words = verdict(name, rate)
    hint = format_html(' <b class="hint">{}</b>', words) if level in ("warn", "bad") else ""
    early = " · too early" if level == "early" else ""
    counted = made_of(rate)
    if url:
        counted = format_html('<a href="{}">{}</a>', url, counted)
    return format_html(
        '<td data-label="{}" class="{}" title="95 % range {}">'
        "<span>{}{}</span><small>{}{}</small></td>",
        label, level, heading(rate), percent(rate.value), hint, counted, early,
    )  # fmt: skip


@register.simple_tag
def rate_figure(label: str, row: Counted, name: str, base: str) -> SafeString:
    """A rate among the totals: large, in words, and with its range."""
    rate = _rate(row, name)
    if rate.value is None:
        return format_html(
            '<div class="rate none"><dt>{}</dt>'
            '<dd class="figure"><span class="none">no data</span></dd>'
            '<dd class="words">nothing {} yet</dd><dd class="range"></dd></div>',
            label, base,
        )  # fmt: skip
    level, words = verdict(name, rate)
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


@register.simple_tag
def rate_line(label: str, row: Counted, name: str, before: Rate | None, url: str) -> SafeString:
    """A rate in one line of a list: with its range, what it is made of, and how it has moved."""
    rate = _rate(row, name)
    if rate.value is None:
        return format_html(
            '<dt>{}</dt><dd class="figure"><span class="none">no data</span></dd>', label
        )
    level, words = verdict(name, rate)
    counted = format_html('<a href="{}">{}</a>', url, made_of(rate)) if url else made_of(rate)
    hint = format_html(' <b class="hint">{}</b>', words) if level in ("warn", "bad") else ""
    return format_html(
        '<dt>{}</dt><dd class="figure {}"><span>{}</span>{}</dd>'
        '<dd class="words">{}{} <span class="range">range {}</span></dd>'
        '<dd class="moved">{}</dd>',
        label,
        level,
        percent(rate.value),
        hint,
        counted,
        " · too early" if level == "early" else "",
        heading(rate),
        _moved(rate, before),
    )


def _moved(rate: Rate, before: Rate | None) -> SafeString | str:
    """How far a rate has moved since it was as old, in percentage points."""
    if before is None or before.value is None or rate.value is None:
        return ""
    points = 100 * (rate.value - before.value)
    mark = "▲" if points > 0 else "▼"
    number = f"{abs(points):.2f}" if abs(points) < 1 else f"{abs(points):.1f}"
    if float(number) == 0:
        return "unchanged"
    title = f"points beside {percent(before.value)} in the earlier period, when it was as old"
    return format_html('<span title="{}">{} {}</span>', title, mark, number)


@register.simple_tag
def listed(number: int, url: str = "") -> SafeString | str:
    """A count, and if there is one the way to its list."""
    return format_html('<a href="{}">{}</a>', url, count(number)) if url else count(number)


@register.simple_tag
def rate_band(low: float | None, high: float | None) -> str:
    """A band of rates: ``3.1–4.2 %``."""
    if low is None or high is None:
        return "no data"
    if low == high:
        return percent(low)
    return f"{percent(low).removesuffix(f'{NBSP}%')}–{percent(high)}"


@register.simple_tag
def moved_cell(label: str, row: Counted, before: Counts | None, *names: str) -> SafeString:
    """A table cell: how far rates have moved since an earlier period, and how much mail that had.

    ``names`` are pairs of a word and the rate that it stands for.
    """
    if before is None or not before.sent:
        return format_html('<td data-label="{}" class="none"><span>no mail then</span></td>', label)
    moves = format_html_join(
        "",
        '<span class="moved">{} {}</span>',
        (
            (word, _moved(getattr(row.counts, name), getattr(before, name)) or "no data")
            for word, name in zip(names[::2], names[1::2], strict=True)
        ),
    )
    return format_html(
        '<td data-label="{}">{}<small>{} sent then</small></td>', label, moves, count(before.sent)
    )
