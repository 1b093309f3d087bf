"""What one call costs."""

import statistics
import time
from collections.abc import Callable

ROUNDS = 9


def measure(call: Callable[[], object], *, calls: int) -> float:
    """The median over the rounds of so many calls, in microseconds a call."""
    rounds = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        for _ in range(calls):
            call()
        rounds.append((time.perf_counter() - began) / calls * 1e6)
    return statistics.median(rounds)
