"""The ledger of the demo: which sequence numbers were handled, and which of them never, or more than once.

It is exact whatever the length of a run, and small: a chunk is one run of numbers, and runs that meet are merged, so
that what is held is only what some processors are ahead of the slowest. How long messages took is in latencies.py.
"""

from __future__ import annotations

import heapq
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["Ledger", "Reckoning"]


@dataclass(frozen=True, slots=True)
class Reckoning:
    """What the ledger comes to, against the numbers 0 to `sent` − 1.

    Attributes:
        handled: how many entries there are in all.
        twice: entries of a number that had been entered before.
        missing: runs of numbers that were never entered, as (first, last), both included.
        unsent: entries of numbers that were never sent.
    """

    handled: int
    twice: int
    missing: tuple[tuple[int, int], ...]
    unsent: int

    @property
    def missing_count(self) -> int:
        """How many numbers were never entered."""
        return sum(last - first + 1 for first, last in self.missing)


class Ledger:
    """Counts sequence numbers, from 0, in any order. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # over all below
        self._handled = 0
        self._twice = 0
        self._reached = 0  # all numbers below have been entered
        self._ahead: list[tuple[int, int]] = []  # a heap of runs (first, one after the last) that begin above

    @property
    def handled(self) -> int:
        """How many entries there are so far."""
        return self._handled

    def enter(self, sequences: Sequence[int]) -> None:
        """Enter the numbers of one chunk."""
        runs = list(_runs(sequences))
        with self._lock:
            self._handled += len(sequences)
            for run in runs:
                heapq.heappush(self._ahead, run)
            while self._ahead and self._ahead[0][0] <= self._reached:
                first, end = heapq.heappop(self._ahead)
                self._twice += min(end, self._reached) - first
                self._reached = max(self._reached, end)

    def reckon(self, sent: int) -> Reckoning:
        """Compare with a sender that has sent the numbers 0 to `sent` − 1. May be called at any time."""
        with self._lock:
            handled, twice, reached, ahead = self._handled, self._twice, self._reached, sorted(self._ahead)
        missing = []
        unsent = max(reached - sent, 0)
        for first, end in [*ahead, (sent, sent)]:
            if first > reached and reached < sent:
                missing.append((reached, min(first, sent) - 1))
            twice += max(min(end, reached) - first, 0)
            unsent += max(end - max(first, reached, sent), 0)
            reached = max(reached, end)
        return Reckoning(handled, twice, tuple(missing), unsent)


def _runs(sequences: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Cut into runs of consecutive numbers, as (first, one after the last). A chunk is usually one run."""
    if not sequences:
        return
    first, count = sequences[0], len(sequences)
    if sequences[-1] - first == count - 1 and sequences == list(range(first, first + count)):
        yield first, first + count
        return
    end = first
    for sequence in sequences:
        if sequence != end:
            yield first, end
            first = sequence
        end = sequence + 1
    yield first, end
