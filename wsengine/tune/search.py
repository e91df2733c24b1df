"""The search for the setting with the highest rate, by as few measurements as are needed, within a budget of time.

    concurrency doubles while that is of use ──▶ between and beyond the best ──▶ demand ──▶ queue ──▶ the best ones again

One thing at a time, as each of them hardly depends on the others: how many threads can work at once is a matter of the
handler, demand of how many messages lie in one chunk, and the queue of how even the feed is. The last step, in turns, is
against chance: whoever was best of many measurements was also lucky.
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
#: How often the best ones are measured again, and how many of them.
AGAIN, CONTENDERS = 2, 4
DEMANDS = ((0, 10), (0, 1000), (50, 100))
QUEUES = (4096, 524288)


class Search:
    """A search.

    Args:
        measure: takes a setting, and returns its point.
        budget: seconds for all of it.
        most: processors to try at the most.
        told: called with each point.
        enough: whether the first point says that no other setting could gain anything.
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
        self._finalists: list[Setting] = []
        self.found = Found()

    def run(self) -> Found:
        """Search; the first point has a problem if nothing could be measured at all."""
        self._began = time.monotonic()
        found = self.found
        first = self._try(Setting())
        if not first.problem and not self._enough(first):
            self._double()
            self._refine()
            self._vary(replace(self._best(), min_demand=low, max_demand=high) for low, high in DEMANDS)
            self._vary(replace(self._best(), max_queue=queue) for queue in QUEUES)
            self._again()
        found.best = self._choice()
        found.seconds = time.monotonic() - self._began
        return found

    def _try(self, setting: Setting) -> Point:
        """Measure a setting, unless that has been done, or there is no time left; then what is known of it."""
        known = [point for point in self.found.points if point.setting == setting]
        return known[0] if known else self._once(setting)

    def _once(self, setting: Setting) -> Point:
        begun = time.monotonic()
        if self.found.points and begun - self._began + self._longest > self._budget:
            self.found.cut = True
            return Point(setting, problem="no time was left")
        point = self._measure(setting)
        self._longest = max(self._longest, time.monotonic() - begun)
        self.found.points.append(point)
        self._told(point)
        return point

    def _best(self) -> Setting:
        return max(self.found.settings(), key=self.found.rate)

    def _double(self) -> None:
        """Twice as many processors, until twice in a row that has been of no use."""
        best, useless, concurrency = self.found.points[0].rate, 0, 2
        while concurrency <= self._most and useless < 2:
            rate = self._try(Setting(concurrency=concurrency)).rate
            useless = 0 if rate > best * WORTH else useless + 1
            best = max(best, rate)
            concurrency *= 2

    def _refine(self) -> None:
        """Between the best number of processors and its neighbours."""
        at = self._best().concurrency
        for concurrency in (at * 3 // 4, at * 3 // 2):
            if 1 < concurrency <= self._most and concurrency != at:
                self._try(Setting(concurrency=concurrency))

    def _vary(self, settings: Iterable[Setting]) -> None:
        for setting in list(settings):
            self._try(setting)

    def _again(self) -> None:
        """The best ones once more, in turns: what one of them was lucky with, the others may be then."""
        rates = {setting: self.found.rate(setting) for setting in self.found.settings()}
        top = max(rates.values())
        contenders = sorted((one for one in rates if rates[one] >= CLOSE * top), key=lambda one: -rates[one])[:CONTENDERS]
        if len(contenders) > 1:
            for number in range(AGAIN):
                for setting in contenders[:: -1 if number % 2 else 1]:
                    self._once(setting)
        if not self.found.cut:
            self._finalists = contenders

    def _choice(self) -> Setting:
        """Of those that are as good as the best, the one that needs the fewest threads, then what is nearest the defaults.
        Where the best were all measured again, only they are asked."""
        found = self.found
        known = self._finalists or [one for one in found.settings() if found.of(one)]
        if not known:
            return Setting()
        top = max(map(found.rate, known))
        plain = Setting()
        return min((one for one in known if found.rate(one) >= SAME * top), key=lambda one: (
            one.concurrency, one.max_queue != plain.max_queue,
            (one.min_demand, one.max_demand) != (plain.min_demand, plain.max_demand), -found.rate(one)))


def exhaustive(most: int) -> list[Setting]:
    """Every setting of a grid as fine as what the search may come to: what it saves."""
    numbers = sorted({one for step in range(most.bit_length()) for one in (2**step, 3 * 2**step // 2)
                      if 1 <= one <= most})
    return [Setting(concurrency, low, high, queue) for concurrency in numbers for low, high in ((0, 100), *DEMANDS)
            for queue in (65536, *QUEUES)]
