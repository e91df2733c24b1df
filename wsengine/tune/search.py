"""The search for the setting with the highest rate, by as few measurements as are needed, within a budget of time.

    concurrency doubles while that is of use ──▶ between and beyond the best ──▶ the fewest processors that are as good
    ──▶ other demands and queues at that number, taken if they are better each time that they are measured

One thing at a time, as each of them hardly depends on the others: how many threads can work at once is a matter of the
handler, demand of how many messages lie in one chunk, and the queue of how even the feed is. What is recommended has been
measured several times, in turns with what it is compared with: whoever is best of many single measurements was also lucky.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from wsengine.tune.found import Found
from wsengine.tune.setting import Point, Setting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["Search", "exhaustive"]

#: By how much another setting has to be better to be worth it.
WORTH = 1.05
#: Of the best rate, what is close enough to be measured again; and to be taken where it needs less.
CLOSE, SAME = 0.88, 0.95
#: How often those that are compared are measured again; how many numbers of processors below the best are looked at.
AGAIN, CONTENDERS = 2, 3
#: Measurements behind which there is no second look at what is nearly as good.
FEW = 20
DEMANDS = ((0, 10), (0, 1000), (50, 100))
QUEUES = (4096, 524288)
#: Demands to begin with: the default, which is tried twice, and where a chunk of it takes too long, smaller ones.
SMALLER = ((0, 100), (0, 100), (0, 10), (0, 1))


class Search:
    """A search.

    Args:
        measure: takes a setting, and returns its point.
        budget: seconds for all of it.
        most: processors to try at the most.
        told: called with each point.
        enough: whether a point says that no other setting could gain anything; it is believed when it says so twice.
    """

    def __init__(self, measure: Callable[[Setting], Point], *, budget: float, most: int,
                 told: Callable[[Point], object] = lambda point: None,
                 enough: Callable[[Point], bool] = lambda point: False) -> None:
        self._measure = measure
        self._budget = budget
        self._most = most
        self._told = told
        self._enough = enough
        self._began = 0.0
        self._longest = 0.0
        self.found = Found()

    def run(self) -> Found:
        """Search; every point has a problem if nothing could be measured at all."""
        self._began = time.monotonic()
        found = self.found
        first = self._begin()
        if first is not None:
            found.best = first.setting
            if not (self._enough(first) and self._enough(self._once(first.setting))):
                self._double()
                self._refine()
                found.best = self._fewest()
                self._vary([replace(found.best, min_demand=low, max_demand=high) for low, high in DEMANDS])
                self._vary([replace(found.best, max_queue=queue) for queue in QUEUES])
        found.seconds = time.monotonic() - self._began
        return found

    # -------------------------------------------------------------------------------------------------- measuring

    def _try(self, setting: Setting, *, spare: int = 0) -> Point:
        """Measure a setting, unless that has been done; then what is known of it."""
        known = [point for point in self.found.points if point.setting == setting]
        return known[0] if known else self._once(setting, spare=spare)

    def _once(self, setting: Setting, *, spare: int = 0) -> Point:
        """Measure a setting, if that leaves time for `spare` measurements more."""
        begun = time.monotonic()
        if self.found.points and begun - self._began + (1 + spare) * self._longest > self._budget:
            self.found.cut = True
            return Point(setting, problem="no time was left")
        point = self._measure(setting)
        self._longest = max(self._longest, time.monotonic() - begun)
        self.found.points.append(point)
        self._told(point)
        return point

    def _again(self, *settings: Setting) -> bool:
        """Measure these again, in turns; whether there was time for it."""
        for number in range(AGAIN):
            for setting in settings[:: -1 if number % 2 else 1]:
                if self._once(setting).problem and self.found.cut:
                    return False
        return True

    # ------------------------------------------------------------------------------------------------- concurrency

    def _begin(self) -> Point | None:
        """The first point with figures: of the default setting, or, where that took too long, of a smaller demand."""
        for low, high in SMALLER:
            point = self._once(Setting(min_demand=low, max_demand=high))
            if not point.problem:
                return point
            if not point.late:
                return None
        return None

    def _axis(self, concurrency: int) -> Setting:
        """The setting with so many processors, in all else as the first."""
        return replace(self.found.best, concurrency=concurrency)

    def _best(self) -> Setting:
        return max(self.found.settings(), key=self.found.rate)

    def _double(self) -> None:
        """Twice as many processors, until twice in a row that has been of no use."""
        best, useless, concurrency = self.found.rate(self.found.best), 0, 2
        while concurrency <= self._most and useless < 2:
            rate = self._try(self._axis(concurrency), spare=AGAIN).rate
            useless = 0 if rate > best * WORTH else useless + 1
            best = max(best, rate)
            concurrency *= 2

    def _refine(self) -> None:
        """Between the best number of processors and its neighbours."""
        at = self._best().concurrency
        for concurrency in (at * 3 // 4, at * 3 // 2):
            if 1 < concurrency <= self._most and concurrency != at:
                self._try(self._axis(concurrency), spare=AGAIN)

    def _fewest(self) -> Setting:
        """The fewest processors that are as good as the best number: both are measured again before that is said."""
        found = self.found
        top = self._best()
        fewer = sorted((one for one in found.settings() if one.concurrency < top.concurrency
                        and found.rate(one) >= CLOSE * found.rate(top)), key=lambda one: one.concurrency)
        for number, one in enumerate(fewer[:CONTENDERS]):
            sure = self._again(*((one, top) if number == 0 else (one,)))
            if sure and CLOSE * found.rate(top) <= found.rate(one) < SAME * found.rate(top) and len(found.points) < FEW:
                sure = self._again(one, top)     # it may still be chance
            if found.rate(one) >= SAME * found.rate(top):
                return one
            if not sure:
                break
        return top

    # --------------------------------------------------------------------------------------------- demand and queue

    def _vary(self, settings: Iterable[Setting]) -> None:
        """Take one of these in the place of the best, if it is better by far, and stays so when both are measured again."""
        found, base = self.found, self.found.best
        rates = {one: self._try(one, spare=2 * AGAIN).rate for one in settings}
        other = max(rates, key=lambda one: rates[one])
        if rates[other] > WORTH * found.rate(base) and self._again(base, other) and (
                found.rate(other) > WORTH * found.rate(base)):
            found.best = other


def exhaustive(most: int) -> list[Setting]:
    """Every setting of a grid as fine as what the search may come to: what it saves."""
    numbers = sorted({one for step in range(most.bit_length()) for one in (2**step, 3 * 2**step // 2)
                      if 1 <= one <= most})
    return [Setting(concurrency, low, high, queue) for concurrency in numbers for low, high in ((0, 100), *DEMANDS)
            for queue in (65536, *QUEUES)]
