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

__all__ = ["MOST", "paced"]

#: Of what the recommended setting handles.
PART = 0.5
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


def paced(measure: Measure, found: Found) -> Paced | None:
    """Measure them; None where none of them could keep up."""
    rate = max(round(PART * found.rate(found.best)), 1)
    points = [replace(measure, rate=rate)(setting) for setting in chosen(found, rate)]
    kept = [point for point in points if not point.problem and point.rate >= KEPT * (1 - point.failed) * rate - SLACK]
    return Paced(rate, kept) if kept else None
