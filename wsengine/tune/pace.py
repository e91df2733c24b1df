"""Latency over concurrency at a pace: so many messages a second as the recommended setting can well bear.

Flat out every queue is full, and a latency is no more than the length of the queue. It says something where messages come
slower than they are handled. A machine that has slowed down since the search may not bear half of what it bore: then a
quarter is tried.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from wsengine.tune.changes import NO_TIME
from wsengine.tune.found import Paced

if TYPE_CHECKING:
    from wsengine.tune.changes import TimeLeft
    from wsengine.tune.found import Found
    from wsengine.tune.measure import Measure
    from wsengine.tune.setting import Setting

__all__ = ["MOST", "paced"]

#: Of what the recommended setting handles, in words; the next one where nobody could keep up with the one before.
PARTS = {"half": 0.5, "a quarter": 0.25}
#: By how much a setting has to be faster than the pace to be looked at, and how many are.
ROOM, MOST = 1.1, 5
#: Of the pace: whoever handled less, by more than a message or two, could not keep up, or the feed could not.
KEPT, SLACK = 0.95, 2.0


def chosen(found: Found, rate: float) -> list[Setting]:
    """The recommended setting, and with other numbers of processors, evenly among those that can keep up."""
    best = found.best
    able = [one.concurrency for one in found.along_concurrency()
            if found.rate(one) >= ROOM * rate and one.concurrency != best.concurrency]
    step = max(1.0, len(able) / (MOST - 1))
    some = [able[int(number * step)] for number in range(min(len(able), MOST - 1))]
    return [replace(best, concurrency=number) for number in sorted({*some, best.concurrency})]


def paced(measure: Measure, found: Found, time_left: TimeLeft) -> Paced:
    """Measure them; who could not keep up is left out, and where that is everyone, or no time was left, it is said.

    `time_left`: whether there is time for so many measurements.
    """
    problem = NO_TIME
    for part, share in PARTS.items():
        rate = max(round(share * found.rate(found.best)), 1)
        settings = chosen(found, rate)
        if not time_left(len(settings)):
            return Paced(rate, part, problem=problem)
        points = [replace(measure, rate=rate)(setting) for setting in settings]
        kept = [point for point in points if not point.problem and point.rate >= KEPT * (1 - point.failed) * rate - SLACK]
        if kept:
            return Paced(rate, part, kept)
        problem = next((point.problem for point in points if point.problem),
                       f"at {rate:,.0f} messages a second, {part} of what it handled flat out, it fell behind")
    return Paced(rate, part, problem=problem)
