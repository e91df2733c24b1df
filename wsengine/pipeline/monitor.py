"""The monitor of one pipeline: replaces threads that died, and carries out a stop that somebody else asked for.

A processor is dead when its loop raised outside a callback; what it had in hand is failed and acknowledged, and only it
is replaced (reference B-11). The dispatcher's thread likewise; the dispatcher itself goes on in another. The monitor decides
nothing about how a stop goes (drain) or what a processor does.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from wsengine import telemetry
from wsengine.engine.threads import exiting, spawn

if TYPE_CHECKING:
    from collections.abc import Callable

    from wsengine.pipeline.topology import DispatcherSeat, Seat, Topology

__all__ = ["Monitor"]

logger = logging.getLogger("wsengine.pipeline")

#: Seconds between looks at the processors.
PERIOD = 0.1


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
        self._thread = spawn(f"wsengine:{self._topology.name}:monitor", self._run)

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
        while not self._ended:
            self._wake.wait(PERIOD)
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

        watcher = spawn(f"wsengine:{self._topology.name}:watch", watch)
        try:
            self._carry_out()
        finally:
            watching.set()
            watcher.join()

    def look(self) -> None:
        """Replace the processors that have died, and the dispatcher's thread."""
        for seat in self._topology.seats:
            if seat.thread is not None and not seat.thread.is_alive() and not seat.done:
                try:
                    self._replace(seat)
                except BaseException:            # no thread to be had, perhaps: the next look tries again
                    logger.exception("pipeline %s: processor %d could not be replaced yet", self._topology.name, seat.index)

        dispatching = self._topology.dispatching
        if (dispatching is not None and dispatching.thread is not None and not dispatching.thread.is_alive()
                and not dispatching.done and not exiting()):
            try:
                self._replace_dispatcher(dispatching)
            except BaseException:
                logger.exception("pipeline %s: the dispatcher's thread could not be replaced yet", self._topology.name)

    def _replace_dispatcher(self, seat: DispatcherSeat) -> None:
        death = seat.death
        seat.occupy()
        logger.error("pipeline %s: the dispatcher's thread died and was replaced; the connection that it worked on is "
                     "failed", self._topology.name, exc_info=death)
        if telemetry.listening(telemetry.WORKER_REPLACED):
            telemetry.execute(telemetry.WORKER_REPLACED, {"count": 1, "failed_messages": 0}, {
                "topology_name": self._topology.name, "name": seat.dispatcher.thread_name, "index": 0, "reason": death})

    def _replace(self, seat: Seat) -> None:
        death = seat.death
        failed = self._topology.refill(seat)
        logger.error("pipeline %s: processor %d died and was replaced; %d of its messages are failed",
                     self._topology.name, seat.index, failed, exc_info=death)
        if telemetry.listening(telemetry.WORKER_REPLACED):
            telemetry.execute(telemetry.WORKER_REPLACED, {"count": 1, "failed_messages": failed}, {
                "topology_name": self._topology.name, "name": seat.processor.thread_name, "index": seat.index,
                "reason": death})
