"""Figures over the last seconds: how fast messages are acknowledged, and how busy a thread is. Whoever calls `note` decides
how often; what matters is the time that has really passed (reference D-2, D-3)."""

from __future__ import annotations

import math
from collections import deque

__all__ = ["Rate", "Workload"]


class Rate:
    """A count's growth a second, over about the last `window` seconds. Thread-safe under one caller of `note`.

    Args:
        window: seconds.
    """

    def __init__(self, window: float = 2.0) -> None:
        self._window = window
        self._samples: deque[tuple[float, int]] = deque()

    def note(self, now: float, count: int) -> None:
        """The count stood so at a time of the monotonic clock."""
        self._samples.append((now, count))
        while len(self._samples) > 2 and now - self._samples[1][0] >= self._window:
            self._samples.popleft()

    def at(self, now: float, count: int) -> float:
        """The growth a second, where the count stands so now; 0.0 before the first note."""
        try:
            began, before = self._samples[0]
        except IndexError:
            return 0.0
        return (count - before) / (now - began) if now > began else 0.0


class Workload:
    """The share of its time that a thread was busy, with what lies back counting less and less.

    Args:
        memory: seconds after which a share counts by a third.
    """

    def __init__(self, memory: float = 2.0) -> None:
        self.share = 0.0
        self._memory = memory
        self._last: tuple[float, float] | None = None

    def note(self, now: float, busy: float) -> None:
        """The thread had been busy for so many seconds in all at a time of the monotonic clock."""
        if self._last is not None and now > self._last[0]:
            passed = now - self._last[0]
            share = min(max((busy - self._last[1]) / passed, 0.0), 1.0)
            self.share += (1 - math.exp(-passed / self._memory)) * (share - self.share)
        self._last = (now, busy)
