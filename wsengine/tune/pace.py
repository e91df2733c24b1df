"""Latency over concurrency at a pace: so many messages a second as the recommended setting can well bear.

Flat out every queue is full, and a latency is no more than the length of the queue. It says something where messages come
slower than they are handled.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from wsengine.tune.found import Paced

if TYPE_CHECKING:
    from wsengine.tune.found import Found
    from wsengine.tune.measure import Measure
    from wsengine.tune.setting import Setting

__all__ = ["paced"]

#: Of what the recommended setting handles.
PART = 0.5
#: By how much a setting has to be faster than the pace to be looked at, and how many are.
ROOM, MOST = 1.1, 5


def chosen(found: Found, rate: float) -> list[Setting]:
    """The recommended setting, and with other numbers of processors, evenly among those that can keep up."""
    best = found.best
    able = [one.concurrency for one in found.along_concurrency()
            if found.rate(one) >= ROOM * rate and one.concurrency != best.concurrency]
    step = max(1.0, len(able) / (MOST - 1))
    some = [able[int(number * step)] for number in range(min(len(able), MOST - 1))]
    return [replace(best, concurrency=number) for number in sorted({*some, best.concurrency})]


def paced(measure: Measure, found: Found) -> Paced:
    """Measure them."""
    rate = round(PART * found.rate(found.best))
    slow = replace(measure, rate=max(rate, 1))
    points = [slow(setting) for setting in chosen(found, rate)]
    return Paced(rate, [point for point in points if not point.problem])
