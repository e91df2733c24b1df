"""The monitor of one pipeline: replaces threads that died, and carries out a stop that somebody else asked for.

A thread is dead when its loop raised outside a callback; what a processor or batch processor had in hand is failed and
acknowledged, and only it is replaced (reference B-11). A dispatcher or batcher goes on in another thread. The monitor
decides nothing about how a stop goes (drain) or what a processor does.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from wsengine import telemetry
from wsengine.engine.threads import spawn, unstarted
from wsengine.logs import log

if TYPE_CHECKING:
    from collections.abc import Callable

    from wsengine.pipeline.seats import Post
    from wsengine.pipeline.topology import Topology

__all__ = ["Monitor"]

logger = logging.getLogger("wsengine.pipeline")

#: Seconds between looks at the processors.
PERIOD = 0.1
#: The same, where a time limit is short.
SHORTEST = 0.005


class Monitor:
    """Watches `topology`; its thread starts with `start` and ends after a stop has been carried out.

    Args:
        carry_out: called in the monitor's thread when a stop is requested.
    """

    def __init__(self, topology: Topology, carry_out: Callable[[], object]) -> None:
        self._topology = topology
        self._carry_out = carry_out
        self._wake = threading.Event()
        self._requested = False
        self._ended = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start its thread, unless that was done."""
        if self._thread is not None:
            return
        self._thread = unstarted(f"wsengine:{self._topology.name}:monitor", self._run)
        try:
            self._thread.start()
        except (RuntimeError, OSError, MemoryError):  # not what a signal's handler raises: then it runs
            self._thread = None
            raise

    @property
    def alive(self) -> bool:
        """Whether its thread runs."""
        return self._thread is not None and self._thread.is_alive()

    def request_stop(self) -> None:
        """Have a stop carried out in the monitor's thread; returns at once. Any thread, more than once."""
        self._requested = True
        self._wake.set()

    def end(self) -> None:
        """Stop watching: the processors are to end now."""
        self._ended = True
        self._wake.set()

    def join(self, timeout: float) -> None:
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout)

    def _run(self) -> None:
        period = min([PERIOD, *(max(limit / 4, SHORTEST) for limit in self._topology.time_limits)])
        while not self._ended:
            self._wake.wait(period)
            self._wake.clear()
            if self._requested and not self._ended:
                self._requested = False
                self._carry_out_watched()
                return
            self.look()

    def _carry_out_watched(self) -> None:
        """A stop waits for the processors, so somebody must go on replacing dead ones meanwhile."""
        watching = threading.Event()

        def watch() -> None:
            while not watching.wait(PERIOD) and not self._ended:
                self.look()

        watcher: threading.Thread | None = None
        try:
            watcher = spawn(f"wsengine:{self._topology.name}:watch", watch)
        except (RuntimeError, OSError, MemoryError) as fault:  # no thread to be had: better a stop unwatched than none
            log(logger, logging.WARNING, "pipeline %s stops, and processors that die meanwhile are not replaced",
                self._topology.name, error=fault)
        try:
            self._carry_out()
        finally:
            watching.set()
            if watcher is not None:
                watcher.join()

    def look(self) -> None:
        """Note how things stand, tell of callbacks that take too long, and replace the threads that have died."""
        self._topology.observe(time.monotonic())
        if self._topology.leaving:
            self._topology.bid_farewell()
        for post in self._topology.posts:
            if post.deserted:
                try:
                    self._replace(post)
                except BaseException as fault:   # no thread to be had, perhaps: the next look tries again
                    log(logger, logging.ERROR, "pipeline %s: %s could not be replaced yet", self._topology.name,
                        post.name, error=fault)

    def _replace(self, post: Post) -> None:
        name, death = post.name, post.death
        with self._topology.replacing:
            if self._topology.ended:
                return
            failed = post.refill()
        log(logger, logging.ERROR, "pipeline %s: %s died%s; %d of its messages are failed", self._topology.name, name,
            "" if post.done else " and was replaced", failed, error=death)
        if post.done:                            # the interpreter is ending, or its place was to go
            return
        if telemetry.listening(telemetry.WORKER_REPLACED):
            telemetry.execute(telemetry.WORKER_REPLACED, {"count": 1, "failed_messages": failed}, {
                "topology_name": self._topology.name, "name": name, "role": post.role, "index": post.index,
                "reason": death})
