"""`Pipeline`: the object that users subclass, start and stop.

Here are the public methods, the validation of a pipeline's options, and its lifecycle. The parts themselves are elsewhere:
what there is (topology), what watches (monitor), how it ends (drain), what runs handlers (processor).

    state      start()    stop requested, or all producers finished    stop is done
    new        running    –                                            –
    running    error      stopping                                     –
    stopping   error      –                                            stopped
    stopped    running    –                                            –
"""

from __future__ import annotations

import inspect
import os
import signal
import threading
import time
from typing import TYPE_CHECKING, Any, ClassVar, Self

from wsengine import telemetry
from wsengine.engine.threads import at_exit, check_fork, exiting, within
from wsengine.errors import ConfigurationError, EngineStopped
from wsengine.options import LATER, choice, reject_unknown, seconds, text, whole
from wsengine.pipeline import drain
from wsengine.pipeline.failure_log import FailureLog
from wsengine.pipeline.monitor import Monitor
from wsengine.pipeline.processors import Processors
from wsengine.pipeline.source import Producer
from wsengine.pipeline.stats import PipelineStats, ProcessorStats
from wsengine.pipeline.topology import Topology

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from types import FrameType, TracebackType

    from wsengine.message import Message
    from wsengine.pipeline.drain import StopResult

__all__ = ["Pipeline", "all_running"]

_running: dict[str, Pipeline] = {}
_registry = threading.Lock()  # over _running and over changes of state

#: What users of other versions or libraries may write, and what it is called here.
RENAMED = {
    "producer": "the first argument", "producers": "the first argument", "context": "attributes of your Pipeline: self is "
    "the context", "shutdown": "shutdown_timeout (seconds)", "queue_size": "max_queue", "max_size": "max_size of the "
    "WebSocketProducer", "concurrency": "processors=Processors(concurrency=...)",
    "batchers": LATER, "partition_by": LATER, "rate_limiting": LATER,
    "max_demand": "processors=Processors(max_demand=...)", "min_demand": "processors=Processors(min_demand=...)",
}
OPTIONS = ("processors", "name", "max_queue", "max_queue_bytes", "overflow", "shutdown_timeout")


def _forget_in_child() -> None:
    """After a fork the parent's pipelines do not run here, and their names are free."""
    global _registry
    _registry = threading.Lock()
    _running.clear()


os.register_at_fork(after_in_child=_forget_in_child)


def all_running() -> list[str]:
    """Names of the pipelines of this process that are running or stopping. Thread-safe."""
    with _registry:
        return sorted(_running)


class Pipeline:
    """A pipeline. Subclass it, with either of these; self is the context that all its threads share:

    - `handle_message(self, message)`: once a message. Return it, another Message, or None for the one given. What it
      raises fails that message only.
    - `handle_messages(self, messages)`: once a claimed chunk, the fast path. Call `message.fail(reason)` on those that
      fail; what it raises fails all of them.

    and optionally `prepare_messages(self, messages)`, which sees each chunk first, and `handle_failed(self, messages)`,
    which sees the failed ones before they are acknowledged: it may change their data and acknowledgement, or return as
    many others to be acknowledged in their place, as failed. It does not see what a stop failed at its deadline, nor what
    the death of a processor did: the thread that would call it is not there.

    A handler may keep a message, its `data` or anything of it; what nobody keeps is used again for later messages.

    Args:
        producers: a Producer, or a sequence of them.
        processors: how many threads call your handler, and how much each asks for.
        name: shown in thread names, telemetry and logs, and unique among running pipelines; by default the class's name.
        max_queue: messages held at the most, from arrival to acknowledgement; 1 to 2**23, rounded up to a power of two.
        max_queue_bytes: bytes held at the most, likewise.
        overflow: what happens at that bound to what connections bring. "block": the socket is not read, so the server has
            to wait. "drop_oldest": messages that have waited longest, and that no processor has claimed, go; "drop_newest":
            those that arrive; each keeps its `seq`, is counted and told as (id, "queue", "drop"). "error": the connection
            fails with QueueOverflow, and its retry policy decides. `push` of other producers waits in any case.
        shutdown_timeout: seconds that a stop may take.

    Raises:
        ConfigurationError: for a wrong or unknown option, or a class without a handler.

    All methods are thread-safe. Source: Broadway.
    """

    handle_message: ClassVar[Callable[..., Message | None] | None] = None
    handle_messages: ClassVar[Callable[..., list[Message] | None] | None] = None
    prepare_messages: ClassVar[Callable[..., list[Message] | None] | None] = None
    handle_failed: ClassVar[Callable[..., list[Message] | None] | None] = None

    def __init__(self, producers: Producer | Sequence[Producer], *, processors: Processors | None = None,
                 name: str | None = None, max_queue: int = 65536, max_queue_bytes: int = 64 * 2**20,
                 overflow: str = "block", shutdown_timeout: float = 30.0, **unknown: object) -> None:
        reject_unknown("pipeline", unknown, OPTIONS, RENAMED)
        self._wsengine_producers = _checked_producers(producers)
        if processors is not None and not isinstance(processors, Processors):
            raise ConfigurationError("pipeline.processors", processors, "give a Processors(...)")
        self.__processors = processors or Processors()
        self.__name = text("pipeline.name", name) if name is not None else type(self).__name__
        self.__max_queue = 1 << (whole("pipeline.max_queue", max_queue, minimum=1, maximum=2**23) - 1).bit_length()
        self.__max_queue_bytes = whole("pipeline.max_queue_bytes", max_queue_bytes, minimum=1, maximum=2**39)
        self.__overflow = choice("pipeline.overflow", overflow, ("block", "drop_oldest", "drop_newest", "error"))
        timeout = seconds("pipeline.shutdown_timeout", shutdown_timeout, optional=False, zero=True)
        self.__shutdown_timeout = timeout if timeout is not None else 0.0
        self.__check_handlers()
        for producer in self._wsengine_producers:
            check = getattr(producer, "check_bounds", None)
            if check is not None:
                check(self.__max_queue_bytes)
        self.__state = "new"
        self.__pid = os.getpid()
        self._wsengine_topology: Topology | None = None
        self.__monitor: Monitor | None = None
        self.__stopped = threading.Event()
        self.__result: StopResult | None = None
        self.__stop_timeout: float | None = None
        self.__unfinished: set[Producer] = set()
        self.__error: BaseException | None = None
        self.__sampled = (0.0, 0)
        self.__life = object()  # one for each start

    def __check_handlers(self) -> None:
        handlers = [n for n in ("handle_message", "handle_messages") if getattr(self, n) is not None]
        if len(handlers) != 1:
            raise ConfigurationError("pipeline", type(self).__name__,
                                     "define either handle_message(self, message) or handle_messages(self, messages)")
        if getattr(self, "handle_batch", None) is not None:
            raise ConfigurationError("pipeline.handle_batch", type(self).__name__, f"{LATER}; remove it, or do its work in "
                                     "handle_messages")
        for hook in (*handlers, "prepare_messages", "handle_failed"):
            if getattr(self, hook) is not None and not callable(getattr(self, hook)):
                raise ConfigurationError(f"pipeline.{hook}", getattr(self, hook), "define a method")
            if inspect.iscoroutinefunction(getattr(self, hook)):
                raise ConfigurationError(f"pipeline.{hook}", type(self).__name__, "define it without async: it is called in "
                                         "a thread, and its result is what counts")

    # ------------------------------------------------------------------------------------------------------ lifecycle

    def start(self) -> Self:
        """Start all threads. Returns itself.

        Raises:
            ConfigurationError: another pipeline of this name runs. EngineStopped: it runs already.
            ForkedProcessError: the pipeline was made before a fork.
        """
        check_fork(self.__pid)
        if exiting():
            raise EngineStopped("the interpreter is ending; nothing starts any more")
        with _registry:
            if self.__state in ("running", "stopping"):
                raise EngineStopped(f"pipeline {self.__name!r} is {self.__state} already")
            if self.__name in _running:
                raise ConfigurationError("pipeline.name", self.__name, "another pipeline of this name runs; give another")
            for producer in self._wsengine_producers:
                for other in _running.values():
                    if producer in other._wsengine_producers:
                        raise ConfigurationError("pipeline.producers", producer, f"it works for pipeline {other.name!r}, "
                                                 "which runs; make a producer for each pipeline")
            self.__begin()
            _running[self.__name] = self
            self.__state = "running"
        at_exit(self)
        assert self._wsengine_topology is not None
        assert self.__monitor is not None
        try:
            self._wsengine_topology.start()
        except BaseException:
            self.__carry_out_stop()
            raise
        self.__monitor.start()
        if telemetry.listening(telemetry.TOPOLOGY_INIT):
            telemetry.execute(telemetry.TOPOLOGY_INIT,
                              {"system_time": time.time_ns(), "monotonic_time": time.monotonic_ns()},
                              {"topology_name": self.__name, "config": self.topology()})
        return self

    def __begin(self) -> None:
        self.__stopped.clear()
        self.__result = None
        self.__stop_timeout = None
        self.__error = None
        self.__unfinished = set(self._wsengine_producers)
        self.__sampled = (time.monotonic(), 0)
        life = self.__life = object()
        self._wsengine_topology = Topology(
            self, self.__name, self._wsengine_producers, self.__processors, max_queue=self.__max_queue,
            max_queue_bytes=self.__max_queue_bytes, overflow=self.__overflow, log_failure=FailureLog(self.__name),
            finished=lambda producer, error: self.__producer_finished(life, producer, error))
        self.__monitor = Monitor(self._wsengine_topology, self.__carry_out_stop)

    def __producer_finished(self, life: object, producer: Producer, error: BaseException | None) -> None:
        """A producer brings nothing more: when all have ended, or one has failed for good, so does the pipeline. A thread
        of a producer that is left from a start before is not heard."""
        with _registry:
            if life is not self.__life:
                return
            self.__unfinished.discard(producer)
            if error is not None and self.__error is None:
                self.__error = error
            if self.__unfinished and error is None:
                return
        self.request_stop()

    def request_stop(self, timeout: float | None = None) -> None:
        """Begin to stop and return at once; `join` waits for it. Legal everywhere, also in a handler."""
        check_fork(self.__pid)
        if self.__monitor is not None and self.__state == "running":
            self.__stop_timeout = seconds("stop.timeout", timeout, zero=True)
            self.__monitor.request_stop()

    def stop(self, timeout: float | None = None) -> StopResult | None:
        """Take no more, handle what was taken, close the connections, end all threads.

        Args:
            timeout: seconds for all of it; None for `shutdown_timeout`. What is not handled by then is failed.

        Returns:
            What it came to; the same again when called again. None from inside a handler, where it only requests the
            stop, because a handler cannot wait for its own end.
        """
        check_fork(self.__pid)
        if self._wsengine_topology is None or self.__monitor is None:
            raise EngineStopped(f"pipeline {self.__name!r} has not been started")
        self.request_stop(timeout)
        if within(self.__name):
            return None
        while not self.__stopped.wait(0.1):
            continue
        return self.__result

    def __carry_out_stop(self) -> None:
        """In the monitor's thread."""
        assert self._wsengine_topology is not None
        assert self.__monitor is not None
        with _registry:
            if self.__state != "running":
                return
            self.__state = "stopping"
        timeout = self.__shutdown_timeout if self.__stop_timeout is None else self.__stop_timeout
        try:
            self.__result = drain.stop(self._wsengine_topology, timeout, self.__error)
        finally:
            self.__monitor.end()
            with _registry:
                self.__state = "stopped"
                _running.pop(self.__name, None)
                self.__stopped.set()  # under the lock: a start() that follows clears it, and nobody sets it after that

    def stop_at_exit(self) -> None:
        """The interpreter is ending: drain, as `stop` does."""
        if self.__state == "running":
            self.stop()
        if self.__monitor is not None:
            self.__monitor.join(5)

    def join(self, timeout: float | None = None) -> StopResult | None:
        """Wait until the pipeline has stopped, without stopping it; None after the time-out.

        In the main thread it waits in short slices, so that signals are seen to.
        """
        check_fork(self.__pid)
        if self._wsengine_topology is None:
            raise EngineStopped(f"pipeline {self.__name!r} has not been started")
        limit = seconds("join.timeout", timeout, zero=True)
        deadline = None if limit is None else time.monotonic() + limit
        while not self.__stopped.wait(0.1 if deadline is None else min(0.1, max(deadline - time.monotonic(), 0))):
            if deadline is not None and time.monotonic() >= deadline:
                return None
        return self.__result

    def run(self) -> StopResult:
        """Start, and wait for the end. In the main thread, SIGINT and SIGTERM drain and stop; a second one ends it
        within a second, with what was not handled failed.

        Returns:
            What the stop came to.
        """
        if threading.current_thread() is not threading.main_thread():
            self.start()
            result = self.join()
            assert result is not None
            return result
        return self.__run_with_signals()

    def __run_with_signals(self) -> StopResult:
        seen = 0

        def on_signal(number: int, frame: FrameType | None) -> None:
            nonlocal seen
            seen += 1

        before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            self.start()
            acted = 0
            while not self.__stopped.wait(0.05):
                if seen > acted:
                    acted = seen
                    self.request_stop()
                if acted > 1 and self._wsengine_topology is not None:
                    drain.hurry(self._wsengine_topology)
                    self.__stopped.wait(0.8)
                    break
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        return self.__result or drain.unfinished(self._wsengine_topology, self.__error)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        """Stop; after an exception without draining. In a child forked meanwhile, where nothing runs, nothing."""
        if self.__state in ("running", "stopping") and self.__pid == os.getpid():
            self.stop(None if kind is None else 0)

    # -------------------------------------------------------------------------------------------------------- figures

    @property
    def name(self) -> str:
        return self.__name

    @property
    def state(self) -> str:
        """"new", "running", "stopping" or "stopped"."""
        return self.__state

    @property
    def max_queue(self) -> int:
        """The bound in messages, as rounded up to a power of two."""
        return self.__max_queue

    def producer_names(self) -> list[str]:
        """Names of the producers, in order."""
        return [f"wsengine:{self.__name}:producer_{i}" for i in range(len(self._wsengine_producers))]

    def topology(self) -> dict[str, list[dict[str, Any]]]:
        """Producers, processors and batchers with name and concurrency each (Broadway's `topology/1`)."""
        if self._wsengine_topology is None:
            raise EngineStopped(f"pipeline {self.__name!r} has not been started")
        return self._wsengine_topology.describe()

    def push_messages(self, messages: Message | Iterable[Message], timeout: float | None = None) -> int:
        """Put messages of your own in, in order; blocks while the pipeline is full.

        Args:
            messages: one Message or several.
            timeout: seconds; None waits for ever.

        Returns:
            How many were put in: fewer than given only after the time-out.

        Raises:
            EngineStopped: the pipeline does not run. ConfigurationError: something that is not a Message.
        """
        check_fork(self.__pid)
        if self._wsengine_topology is None or self.__state != "running":
            raise EngineStopped(f"pipeline {self.__name!r} is {self.__state} and takes no messages")
        return self._wsengine_topology.inbox.push(messages, seconds("push_messages.timeout", timeout, zero=True))

    def stats(self) -> PipelineStats:
        """Figures of this moment. EngineStopped before the first start."""
        topology = self._wsengine_topology
        if topology is None:
            raise EngineStopped(f"pipeline {self.__name!r} has not been started")
        successful, failed = topology.totals()
        now, (before, count) = time.monotonic(), self.__sampled
        self.__sampled = (now, successful + failed)
        return PipelineStats(
            name=self.__name, state=self.__state, successful=successful, failed=failed,
            rate=(successful + failed - count) / max(now - before, 1e-9), depth=topology.depth,
            held_messages=topology.account.messages, held_bytes=topology.account.bytes,
            max_queue=self.__max_queue, max_queue_bytes=self.__max_queue_bytes,
            processors=tuple(
                ProcessorStats(seat.index, seat.processor.outstanding, seat.before[0] + seat.processor.successful,
                               seat.before[1] + seat.processor.failed,
                               (seat.before[2] + seat.processor.busy_ns) / 1e9) for seat in topology.seats),
            producers=tuple(producer.stats() for producer in self._wsengine_producers),
        )

    def __reduce__(self) -> str:
        raise TypeError("a Pipeline owns threads and cannot be pickled; make one in each process")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.__name!r} {self.__state}>"


def _checked_producers(producers: object) -> tuple[Producer, ...]:
    given = producers if isinstance(producers, (list, tuple)) else [producers]
    for producer in given:
        if not isinstance(producer, Producer):
            raise ConfigurationError("pipeline.producers", producer, "give a Producer, such as WebSocketProducer(url), "
                                     "or a sequence of them")
    if not given or len(given) > 60 or len(set(map(id, given))) != len(given):
        raise ConfigurationError("pipeline.producers", producers, "give from 1 to 60 different producers")
    return tuple(given)
