"""Whether the cores run at one speed: a short loop on each of them, all at once. What is measured beside it is not here.

Cores that are lent out by a larger machine, or that share one core's units, run at half their speed for seconds at a
time, each by itself. A client of two busy threads and one of a single thread suffer differently from that, so a ratio
of the two says something about them only where the cores ran alike.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

__all__ = ["Cores"]

#: Seconds that one look takes.
LOOK = 0.02
#: By how much the fastest may surpass the slowest where they are said to run alike.
ALIKE = 1.15


class Cores:
    """A process on each core that this one may use; in a `with` statement. Linux only: elsewhere OSError."""

    def __init__(self) -> None:
        if not hasattr(os, "sched_setaffinity"):
            raise OSError("--even pins a process to each core, which this system does not offer; leave it out")
        self._pipes: list[Connection] = []
        self._workers: list[multiprocessing.Process] = []
        self._last: list[float] = []

    def __enter__(self) -> Cores:
        for core in sorted(os.sched_getaffinity(0)):
            ours, theirs = multiprocessing.Pipe()
            worker = multiprocessing.Process(target=_work, args=(core, theirs), daemon=True)
            worker.start()
            self._pipes.append(ours)
            self._workers.append(worker)
        self.look()
        return self

    def __exit__(self, *exception: object) -> None:
        for pipe in self._pipes:
            pipe.send(False)
        for worker in self._workers:
            worker.join()

    def look(self) -> bool:
        """Whether all cores run alike now, and did so at the look before, at the same speed."""
        for pipe in self._pipes:
            pipe.send(True)
        now = [pipe.recv() for pipe in self._pipes]
        seen = self._last + now
        self._last = now
        return max(seen) <= ALIKE * min(seen)


def _work(core: int, pipe: Connection) -> None:
    os.sched_setaffinity(0, {core})
    while pipe.recv():
        pipe.send(_speed())


def _speed() -> float:
    """Rounds of a loop a second, the median over one look."""
    speeds = []
    end = time.perf_counter() + LOOK
    while time.perf_counter() < end:
        began = time.perf_counter()
        for _ in range(20_000):
            pass
        speeds.append(20_000 / (time.perf_counter() - began))
    return median(speeds)
