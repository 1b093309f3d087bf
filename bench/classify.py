"""What classifying one failure costs: ``python -m bench.classify``."""

import statistics
import sys
import time
from collections.abc import Callable, Iterable

from bench.timing import ROUNDS, measure
from ingest.classify import BUILT_IN, classify_failure
from ingest.fingerprint import fingerprint, plain
from ingest.normalize import Detail
from ingest.vocabulary import EventKind

CALLS = 200
HOSTILE = 2000  # characters


def examples() -> list[Detail]:
    """A reply of each kind that the rules know."""
    return [example.detail for rule in BUILT_IN for example in rule.examples]


def hostile() -> list[Detail]:
    """The longest reply there can be, full of words that many rules begin with."""
    words = [
        *("user ", "mailbox ", "recipient ", "message ", "your ip ", "too many ", "blocked "),
        *("server ", "a", "sender domain ", "‹host› ", "550 5.7.1 ", "a@b.c ", "邮箱", "1.2."),
    ]
    return [Detail(message=(word * HOSTILE)[:HOSTILE]) for word in words]


def forget() -> None:
    """Empty what is remembered of earlier replies."""
    plain.cache_clear()
    BUILT_IN.forget()


def uncached(call: Callable[[Detail], object], details: Iterable[Detail]) -> list[float]:
    """Microseconds for each reply, seen for the first time; the median of the rounds."""
    return [statistics.median(_once(call, detail) for _ in range(ROUNDS)) for detail in details]


def _once(call: Callable[[Detail], object], detail: Detail) -> float:
    forget()
    began = time.perf_counter()
    call(detail)
    return (time.perf_counter() - began) * 1e6


def classify(detail: Detail) -> object:
    return classify_failure(EventKind.BOUNCED, detail, "Gmail")


def main() -> None:
    """Print the table."""
    replies, worst = examples(), hostile()
    for detail in (*replies, *worst):
        classify(detail)  # patterns are compiled when they are first needed
    sys.stdout.write(f"{len(list(BUILT_IN))} rules, {len(replies)} replies; µs each\n")
    sys.stdout.write(f"{'':<28}{'median':>10}{'95 %':>10}{'most':>10}\n")
    for name, call, details in (
        ("classify, new reply", classify, replies),
        ("fingerprint, new reply", fingerprint, replies),
        ("classify, hostile", classify, worst),
        ("fingerprint, hostile", fingerprint, worst),
    ):
        costs = sorted(uncached(call, details))
        at_95 = costs[int(len(costs) * 0.95)]
        sys.stdout.write(
            f"{name:<28}{statistics.median(costs):>10.1f}{at_95:>10.1f}{costs[-1]:>10.1f}\n"
        )
    again = measure(lambda: classify(replies[0]), calls=CALLS)
    sys.stdout.write(f"{'classify, seen before':<28}{again:>10.1f}\n")


if __name__ == "__main__":
    main()
