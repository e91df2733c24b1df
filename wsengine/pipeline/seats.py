"""Places for the threads of a pipeline: who works there, in which thread, and how the one before died.

A seat's thread dies only where something raised outside a callback. Then the monitor fills the seat again; nothing is
decided here. A `Seat` is given a new worker, because the one that died may have left anything behind in itself; a `Post` has
one that outlives its threads, because what waits in it must not be lost.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Generic, TypeVar

from wsengine.engine.threads import exiting, spawn
from wsengine.pipeline.latency import Latency
from wsengine.pipeline.pace import Workload
from wsengine.pipeline.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from wsengine.pipeline.time_limit import TimeLimit
    from wsengine.pipeline.worker import Runner

__all__ = ["Post", "Seat"]


W = TypeVar("W", bound=Worker)


class Post:
    """The place of a thread that works for a `runner` that stays.

    `thread` is written by the thread that starts the pipeline, then by the monitor.
    """

    def __init__(self, role: str, index: int, runner: Runner) -> None:
        self.role = role  # for messages to people: "processor", "batcher"
        self.index = index
        self.runner = runner
        self.thread: threading.Thread | None = None  # None: not started
        self.death: BaseException | None = None
        self.done = False  # the runner returned, as it was told to; its thread
        self.closing = False  # whoever dies here is not replaced; whoever makes the place smaller

    @property
    def name(self) -> str:
        return self.runner.thread_name

    @property
    def deserted(self) -> bool:
        """Whether its thread has died."""
        return self.thread is not None and not self.thread.is_alive() and not self.done

    def occupy(self) -> None:
        """Give the runner a thread."""
        runner = self.runner
        self.death = None

        def body() -> None:
            try:
                runner.run()
                self.done = True
            except BaseException as error:
                self.death = error

        self.thread = spawn(runner.thread_name, body)

    def refill(self) -> int:
        """Replace the thread, which is dead; returns how many messages failed because of it."""
        if exiting():
            self.done = True
        else:
            self.occupy()
        return 0


class Seat(Post, Generic[W]):
    """The place of a processor or batch processor, which is replaced with its thread.

    Args:
        role, index: what it is called.
        make: makes a worker for it.
    """

    def __init__(self, role: str, index: int, make: Callable[[], W]) -> None:
        self._make = make
        self.worker = make()  # the thread that starts the pipeline, then the monitor
        self._before = (0, 0, 0)  # successful, failed, busy_ns of those that sat here before; the monitor
        self._latency = Latency()  # the same
        self._figures = threading.Lock()  # over these and the change of the worker: nothing is counted twice meanwhile
        self._workload = Workload()  # the monitor
        self.time_limit: TimeLimit | None = None  # before it is occupied
        super().__init__(role, index, self.worker)

    def refill(self) -> int:
        """Replace a dead worker: fail what it had in hand, keep its figures; returns how many were failed."""
        dead = self.worker
        done, failed, late = dead.take_over(f"its {self.role} died: {self.death!r}")
        fresh = None if exiting() or self.closing else self._make()
        with self._figures:
            before = (self._before[0] + done, self._before[1] + failed + late, self._before[2])
            if fresh is not None:
                before = (before[0] + dead.successful, before[1] + dead.failed, before[2] + dead.busy_ns)
                self._latency.add(dead.latency)
                self.runner = self.worker = fresh
            self._before = before
        dead.retire()
        if fresh is None:
            self.done = True
        else:
            self.occupy()
        return late

    @property
    def successful(self) -> int:
        """Messages acknowledged as successful here so far."""
        with self._figures:
            return self._before[0] + self.worker.successful

    @property
    def failed(self) -> int:
        """Messages acknowledged as failed here so far."""
        with self._figures:
            return self._before[1] + self.worker.failed

    @property
    def busy_seconds(self) -> float:
        """Time spent on messages, with those in hand."""
        with self._figures:
            worker = self.worker
            busy, since = worker.busy_ns, worker.since_ns  # in this order: what ends in between is missed, not counted twice
            return (self._before[2] + busy + (max(time.monotonic_ns() - since, 0) if since else 0)) / 1e9

    def observe(self, now: float) -> None:
        """Note how busy it has been, and tell of a callback that takes too long, at a time of the monotonic clock; called by
        one thread."""
        self._workload.note(now, self.busy_seconds)
        if self.time_limit is not None:
            self.time_limit.look(now, self.worker, self.thread)

    @property
    def workload(self) -> float:
        """The share of the last seconds that it was busy, 0 to 1."""
        return self._workload.share

    def add_latency(self, to: Latency) -> None:
        """Add how long the messages acknowledged here took."""
        with self._figures:
            to.add(self._latency)
            to.add(self.worker.latency)
