"""Soft time limits: callbacks that take too long are told, once each. Nothing is done to them (reference B-7).

A thread cannot be ended from outside without leaving locks behind; but somebody can be told which callback it is in, and
where. How often `look` is called, and in which thread, is the monitor's matter.
"""

from __future__ import annotations

import logging
import sys
import time
import traceback
from typing import TYPE_CHECKING, Protocol

from wsengine import telemetry
from wsengine.logs import log

if TYPE_CHECKING:
    import threading

__all__ = ["TimeLimit", "Watched"]

logger = logging.getLogger("wsengine.pipeline")

#: In a worker's `ticks`: it waits for a retry, and runs no callback (callbacks.pxd).
BETWEEN = 1 << 63


class Watched(Protocol):
    """What runs callbacks: a worker, a batcher, a partitioner."""

    @property
    def thread_name(self) -> str: ...
    @property
    def ticks(self) -> int: ...
    @property
    def since_ns(self) -> int: ...


class TimeLimit:
    """Watches the callbacks of one place; used by one thread.

    Args:
        pipeline: its name.
        index: of the place.
        limit: seconds.
        event: executed when a callback has taken longer.
    """

    def __init__(self, pipeline: str, index: int, limit: float, event: telemetry.Event) -> None:
        self.limit = limit
        self._pipeline = pipeline
        self._index = index
        self._event = event
        self._seen: tuple[object, int] | None = None  # the worker, and the callback that it was in
        self._since = 0.0
        self._told = False

    def look(self, now: float, worker: Watched, thread: threading.Thread | None) -> None:
        """Tell if one and the same callback of a worker, in its thread, has run for longer than the limit; `now` is of the
        monotonic clock."""
        if worker.since_ns == 0 or worker.ticks & BETWEEN:
            self._seen = None
            return
        at = (worker, worker.ticks)
        if at != self._seen:
            self._seen, self._since, self._told = at, now, False
        elif now - self._since >= self.limit and not self._told:
            self._told = True
            self._tell(now - self._since, worker.thread_name, thread)

    def _tell(self, duration: float, name: str, thread: threading.Thread | None) -> None:
        frame = sys._current_frames().get(thread.ident) if thread is not None and thread.ident is not None else None
        stack = "".join(traceback.format_stack(frame)) if frame is not None else ""
        log(logger, logging.WARNING, "pipeline %s: a callback of %s has taken more than %.3g s and has not returned\n%s",
            self._pipeline, name, self.limit, stack)
        if telemetry.listening(self._event):
            telemetry.execute(self._event, {"duration": int(duration * 1e9), "monotonic_time": time.monotonic_ns()}, {
                "topology_name": self._pipeline, "name": name, "index": self._index, "limit": self.limit,
                "stack": stack})
