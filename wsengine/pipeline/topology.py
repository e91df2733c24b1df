"""The parts of one running pipeline, put together: parker, account, sources, processors and their threads.

A topology is made at each start and never reused. It knows what there is and starts it; in which order it ends is the
matter of `drain`, who watches it that of `monitor`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wsengine.engine.ring import Account, Parker
from wsengine.engine.threads import exiting, spawn
from wsengine.pipeline.crew import Crew
from wsengine.pipeline.dispatcher import Dispatcher
from wsengine.pipeline.processor import Processor
from wsengine.pipeline.source import Host, Inbox

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Sequence

    from wsengine.pipeline.failure_log import FailureLog
    from wsengine.pipeline.processors import Processors
    from wsengine.pipeline.source import Producer

__all__ = ["DispatcherSeat", "Seat", "Topology"]


class Seat:
    """A place for a processor: the one that sits there now, its thread, and how the one before died.

    `processor` and `thread` are written by the thread that starts the pipeline, then by the monitor.
    """

    def __init__(self, index: int, crew: Crew) -> None:
        self.index = index
        self.processor = Processor(crew, index)
        self.thread: threading.Thread | None = None  # None: not started
        self.death: BaseException | None = None
        self.done = False  # the processor returned, as it was told to; its thread
        self.before = [0, 0, 0]  # successful, failed, busy_ns of those that sat here before; the monitor


class DispatcherSeat:
    """The place of the dispatcher's thread. The dispatcher itself stays: another thread goes on where the first died.

    `thread` is written by the thread that starts the pipeline, then by the monitor.
    """

    def __init__(self, crew: Crew) -> None:
        self.dispatcher = Dispatcher(crew)
        self.thread: threading.Thread | None = None  # None: not started
        self.death: BaseException | None = None
        self.done = False  # the dispatcher returned, as it was told to; its thread

    def occupy(self) -> None:
        """Give the dispatcher a thread."""
        self.death = None

        def body() -> None:
            try:
                self.dispatcher.run()
                self.done = True
            except BaseException as error:
                self.death = error

        self.thread = spawn(self.dispatcher.thread_name, body)


class Topology:
    """The running parts of the pipeline `owner`."""

    def __init__(self, owner: object, name: str, producers: Sequence[Producer], processors: Processors, *, max_queue: int,
                 max_queue_bytes: int, overflow: str, log_failure: FailureLog,
                 finished: Callable[[Producer, BaseException | None], None]) -> None:
        self.name = name
        self.swept = (0, 0)  # successful, failed: acknowledged by a stop in the place of processors; the stop
        self.hurried = False  # a stop shall reach its deadline at once; the main thread sets it, the stop reads it
        self.producers = producers
        self.parker = Parker()
        self.account = Account(max_queue, max_queue_bytes)
        self.crew = Crew(owner, name, self.parker, self.account, concurrency=processors.concurrency,
                         min_demand=processors.min_demand, max_demand=processors.max_demand, spin=processors.spin / 1e6,
                         log_failure=log_failure)
        self.inbox = Inbox(self.account, self.parker, self.demand, self.crew.ask)
        self.crew.add_inbox(self.inbox)
        self.dispatching: DispatcherSeat | None = None  # only where a producer wants it
        self.seats = [Seat(index, self.crew) for index in range(processors.concurrency)]
        for index, producer in enumerate(producers):
            producer.attach(Host(name, index, self.crew, self.demand, finished, self.open_dispatcher, overflow))

    def demand(self) -> int:
        """Messages that the processors would take at once."""
        return self.crew.max_demand * len(self.seats) - sum(seat.processor.outstanding for seat in self.seats)

    def open_dispatcher(self) -> Dispatcher:
        """The dispatcher, made when first asked for. Before anything starts."""
        if self.dispatching is None:
            self.dispatching = DispatcherSeat(self.crew)
            self.crew.add_inbox(self.dispatching.dispatcher)
        return self.dispatching.dispatcher

    @property
    def depth(self) -> int:
        """About how many messages wait to be claimed by a processor or the dispatcher."""
        return self.crew.depth + (self.dispatching.dispatcher.depth if self.dispatching is not None else 0)

    def start(self) -> None:
        """Start processors, dispatcher, then producers. What was started is ended again if one cannot be."""
        for seat in self.seats:
            self.occupy(seat)
        if self.dispatching is not None:
            self.dispatching.occupy()
        for producer in self.producers:
            producer.start()

    def occupy(self, seat: Seat) -> None:
        """Give the seat's processor a thread of its own."""
        processor = seat.processor
        seat.death = None

        def body() -> None:
            try:
                processor.run()
                seat.done = True
            except BaseException as error:
                seat.death = error

        seat.thread = spawn(processor.thread_name, body)

    def refill(self, seat: Seat) -> int:
        """Replace a dead processor: fail what it had in hand, keep its figures; returns how many were failed."""
        dead = seat.processor
        done, failed, late = dead.take_over(f"its processor died: {seat.death!r}")
        seat.before = [seat.before[0] + dead.successful + done, seat.before[1] + dead.failed + failed + late,
                       seat.before[2] + dead.busy_ns]
        dead.retire()
        if exiting():
            seat.done = True
        else:
            seat.processor = Processor(self.crew, seat.index)
            self.occupy(seat)
        return late

    def threads_alive(self) -> list[str]:
        """Names of the threads of this pipeline that have not ended."""
        threads = [seat.thread for seat in self.seats]
        if self.dispatching is not None:
            threads.append(self.dispatching.thread)
        alive = [thread.name for thread in threads if thread is not None and thread.is_alive()]
        for producer in self.producers:
            alive += producer.alive()
        return alive

    def totals(self) -> tuple[int, int]:
        """Messages acknowledged so far: successful, failed."""
        successful = sum(seat.before[0] + seat.processor.successful for seat in self.seats)
        failed = sum(seat.before[1] + seat.processor.failed for seat in self.seats)
        return successful + self.swept[0], failed + self.swept[1]

    def describe(self) -> dict[str, list[dict[str, Any]]]:
        """What `Pipeline.topology` returns, after Broadway's `topology/1`."""
        return {
            "producers": [{"name": f"wsengine:{self.name}:producer_{i}", "type": type(p).__name__,
                           "concurrency": int(getattr(p, "concurrency", 1))} for i, p in enumerate(self.producers)],
            "processors": [{"name": f"wsengine:{self.name}:processor", "processor_key": "default",
                            "concurrency": len(self.seats)}],
            "batchers": [],
        }
