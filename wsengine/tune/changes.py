"""What two changes outside the settings would bring: `handle_messages`, and a Python without the GIL. Both are measured.

Each is measured in turns with the recommended setting as it is, so that a machine whose speed changes slows both sides
alike. Which interpreter is taken stands in `interpreters`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import TYPE_CHECKING, Any

from wsengine.testing.peers.cores import usable_cores

if TYPE_CHECKING:
    from collections.abc import Callable

    from wsengine.tune.interpreters import Interpreter
    from wsengine.tune.measure import Measure
    from wsengine.tune.setting import Setting

    TimeLeft = Callable[[int], bool]

__all__ = ["Change", "by_chunk", "without_gil"]

#: How often both sides are measured.
TURNS = 2
#: What is no more than chance, as a ratio.
NOTHING = 1.05
NO_TIME = "no time was left; give more by --budget"


@dataclass(frozen=True, slots=True)
class Change:
    """What one change brings.

    Attributes:
        name: "handle_messages" or "free-threaded".
        what: it is, in words.
        setting: at which it was measured; that of the other side differs in concurrency at the most.
        ratios: of the rates with it and without it, turn by turn; none where it was not measured.
        problem: why not.
    """

    name: str
    what: str
    setting: Setting
    ratios: tuple[float, ...] = ()
    problem: str = ""

    @property
    def ratio(self) -> float:
        """In the middle."""
        return median(self.ratios)

    def said(self) -> str:
        """In a sentence."""
        if not self.ratios:
            return f"{self.what}: not measured, {self.problem}"
        spread = f"{self.ratio:.2f} x as many messages a second ({min(self.ratios):.2f} … {max(self.ratios):.2f})"
        if self.name == "free-threaded":
            return f"{self.what}, with concurrency={self.setting.concurrency}: {spread}"
        little = "" if self.ratio >= NOTHING else "; it gains only where work can be done for many messages at once"
        return f"{self.what}: {spread}{little}"

    def figures(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"ratio": self.ratio if self.ratios else None, "said": self.said()}


def by_chunk(measure: Measure, best: Setting, time_left: TimeLeft) -> Change:
    """What is gained by a `handle_messages` that calls `handle_message` in a loop: the least that a chunk handler brings.

    `time_left`: whether there is time for so many measurements.
    """
    what = "handle_messages that calls the same code in a loop"
    if not time_left(2 * TURNS):
        return Change("handle_messages", what, best, problem=NO_TIME)
    return _in_turns("handle_messages", what, measure, best, replace(measure, loop=True), best)


def without_gil(measure: Measure, best: Setting, interpreter: Interpreter | str, time_left: TimeLeft) -> Change:
    """What a Python without the GIL brings, with as many processors as are best there: as many as here, or as there are
    cores, or twice as many. `interpreter`: that Python, or why there is none."""
    if isinstance(interpreter, str):
        return Change("free-threaded", "Python without the GIL", best, problem=interpreter)
    what = f"Python {interpreter.version} without the GIL"
    other, cores = replace(measure, python=interpreter.path), max(int(usable_cores()), 1)
    settings = [replace(best, concurrency=number) for number in sorted({best.concurrency, cores, 2 * cores})]
    if not time_left(len(settings) + 2 * TURNS):
        return Change("free-threaded", what, best, problem=NO_TIME)
    points = [other(setting) for setting in settings]
    fastest = max(points, key=lambda point: point.rate)
    if fastest.problem:
        return Change("free-threaded", what, best, problem=fastest.problem)
    return _in_turns("free-threaded", what, measure, best, other, fastest.setting)


def _in_turns(name: str, what: str, measure: Measure, best: Setting, other: Measure, setting: Setting) -> Change:
    ratios: list[float] = []
    for number in range(TURNS):
        pair = ((measure, best), (other, setting))
        points = [side(at) for side, at in pair[:: -1 if number % 2 else 1]][:: -1 if number % 2 else 1]
        problem = next((point.problem for point in points if point.problem), "")
        if problem:
            return Change(name, what, setting, problem=problem)
        ratios.append(points[1].rate / points[0].rate)
    return Change(name, what, setting, tuple(ratios))
