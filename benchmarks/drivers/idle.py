"""What many connections of one process cost: the time until all are there, memory, threads, and CPU while they are idle.

How they are made is not known here. Memory is that of the process; what the kernel holds for a socket is no part of it.
"""

from __future__ import annotations

import gc
import time
from typing import Any

import psutil

__all__ = ["PATIENCE", "Idle"]

#: Seconds that connecting may take at the most.
PATIENCE = 120.0


class Idle:
    """Made before the many, but after a first one: what that takes, the others do not take again."""

    def __init__(self, connections: int) -> None:
        self._connections = connections
        self._process = psutil.Process()
        gc.collect()
        self._before = self._process.memory_info().rss
        self._begun = time.monotonic()

    def connected(self) -> None:
        """All of them have had their one message. From here on CPU is counted."""
        self._connect_seconds = time.monotonic() - self._begun
        gc.collect()
        self._each = (self._process.memory_info().rss - self._before) / self._connections
        self._threads = self._process.num_threads()
        self._idle_since = time.monotonic()
        self._spent = time.process_time()

    def result(self) -> dict[str, Any]:
        """The figures, after a while of nothing."""
        share = (time.process_time() - self._spent) / (time.monotonic() - self._idle_since)
        return {"connect_seconds": self._connect_seconds, "bytes_each": self._each, "idle_cpu_share": share,
                "threads": self._threads}
