"""How long messages took, as a histogram of fixed size: good enough for percentiles, whatever the length of a run.

What a latency is measured between is decided by who notes it.
"""

from __future__ import annotations

import math
import threading
from itertools import accumulate

__all__ = ["Latencies"]

#: Steps in which a latency doubles; a percentile is off by half a step at the most, some 2 %.
STEPS = 16
#: Doublings from 1 ns: up to two minutes and more.
DOUBLINGS = 37


class Latencies:
    """Counts latencies. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # over the counts
        self._counts = [0] * (STEPS * DOUBLINGS)

    def note(self, nanoseconds: int) -> None:
        """Count one; below 1 ns counts as 1, and above the last step as the last."""
        step = min(int(math.log2(max(nanoseconds, 1)) * STEPS), len(self._counts) - 1)
        with self._lock:
            self._counts[step] += 1

    def percentile(self, share: float) -> float | None:
        """Seconds that `share`, above 0 and up to 1, of those noted did not exceed; None if none was noted."""
        with self._lock:
            counts = list(self._counts)
        wanted = math.ceil(share * sum(counts))
        if wanted <= 0:
            return None
        step = next(step for step, reached in enumerate(accumulate(counts)) if reached >= wanted)
        return float(2 ** ((step + 0.5) / STEPS)) / 1e9
