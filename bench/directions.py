"""How often a refusal is said to rise, fall or have stopped, when its true course is known.

Refusals come in bursts: a blast meets a block, and its mails are refused together. Each step draws
bursts (Poisson) of so many mails (geometric, so that the counts' variance is the dispersion times
their mean); the newest three steps get so many times as many as those before.
``python -m bench.directions`` prints the shares.
"""

import math
import os
import random
import sys
from collections import Counter
from collections.abc import Iterator

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
django.setup()  # before the import below: it loads the models

from dashboard.draining import RECENT, Direction, direction  # noqa: E402

STEPS = 24
DRAWS = 2_000
DISPERSION = 6.0
A_STEP = (2, 10, 50, 250)  # refusals a step before the change
TIMES = (0.0, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0)


def main() -> None:
    """Print the share of each word, by how many there are and what truly happened."""
    words = (Direction.RISING, Direction.FALLING, Direction.STOPPED, Direction.STEADY)
    print_line("a step", "now ×", *words, Direction.UNTOLD)
    for mean in A_STEP:
        for times in TIMES:
            found = Counter(said(mean, times))
            shares = (f"{found[word] / DRAWS:.1%}" for word in (*words, Direction.UNTOLD))
            print_line(str(mean), f"{times:g}", *shares)


def said(mean: float, times: float) -> Iterator[Direction]:
    """What ``direction`` says of as many draws."""
    draw = random.Random(f"{mean} {times}")  # noqa: S311 - repeatable, no secret
    means = [mean] * (STEPS - RECENT) + [mean * times] * RECENT
    for _ in range(DRAWS):
        yield direction([refusals(draw, each) for each in means])


def refusals(draw: random.Random, mean: float) -> int:
    """A step's refusals, in bursts."""
    size = (DISPERSION + 1) / 2  # geometric bursts of this mean: variance = DISPERSION × mean
    chance = 1 / size
    bursts = poisson(draw, mean / size)
    return sum(1 + int(math.log(1 - draw.random()) / math.log(1 - chance)) for _ in range(bursts))


def poisson(draw: random.Random, mean: float) -> int:
    """A Poisson draw, by the times between arrivals."""
    arrivals, passed = 0, draw.expovariate(1.0)
    while passed < mean:
        arrivals, passed = arrivals + 1, passed + draw.expovariate(1.0)
    return arrivals


def print_line(*cells: str) -> None:
    """A row of the table."""
    sys.stdout.write("".join(f"{cell:>16}" for cell in cells) + "\n")


if __name__ == "__main__":
    main()
