"""What a search and the looks behind it came to: points, and what they say of each setting. Nothing is measured here."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from statistics import median
from typing import TYPE_CHECKING, Any

from wsengine.tune.setting import Point, Setting

if TYPE_CHECKING:
    from wsengine.tune.changes import Change

__all__ = ["Found", "Paced"]


@dataclass(slots=True)
class Paced:
    """Points at a pace.

    Attributes:
        rate: messages a second that were sent.
        part: of what the recommended setting handles flat out, in words.
        points: of some settings, by concurrency; all could keep up.
        problem: why there are none.
    """

    rate: float
    part: str
    points: list[Point] = field(default_factory=list)
    problem: str = ""

    def figures(self) -> dict[str, Any]:
        """For JSON."""
        return {"rate": self.rate, "points": [point.figures() for point in self.points], "problem": self.problem}


@dataclass(slots=True)
class Found:
    """What a search came to.

    Attributes:
        points: each measurement, in order.
        best: the setting that is recommended.
        seconds: that it took. cut: the budget was used up before all was tried.
        changes, paced: what was measured behind the search, see `changes` and `pace`; paced is None where the feed has a
            pace of its own.
    """

    points: list[Point] = field(default_factory=list)
    best: Setting = field(default_factory=Setting)
    seconds: float = 0.0
    cut: bool = False
    changes: list[Change] = field(default_factory=list)
    paced: Paced | None = None

    def of(self, setting: Setting) -> list[Point]:
        """The measurements of one setting that have figures."""
        return [point for point in self.points if point.setting == setting and not point.problem]

    def rate(self, setting: Setting) -> float:
        """Messages a second at a setting, the median of its measurements; 0 without any."""
        rates = [point.rate for point in self.of(setting)]
        return median(rates) if rates else 0.0

    def settings(self) -> list[Setting]:
        """Those that were measured, each once, in order."""
        return list(dict.fromkeys(point.setting for point in self.points))

    @property
    def first(self) -> Setting:
        """The one that the search began with: the first that has figures."""
        return next((point.setting for point in self.points if not point.problem), self.points[0].setting)

    def along_concurrency(self) -> list[Setting]:
        """Those that differ from the first in nothing but concurrency, in its order; those with figures."""
        first = self.first
        return sorted((one for one in self.settings() if self.of(one)
                       and replace(one, concurrency=first.concurrency) == first), key=lambda one: one.concurrency)

    def typical(self, setting: Setting) -> Point:
        """Of the measurements of a setting, the one in the middle."""
        ordered = sorted(self.of(setting), key=lambda point: point.rate)
        return ordered[len(ordered) // 2]
