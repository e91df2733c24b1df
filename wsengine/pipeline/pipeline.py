"""`Pipeline`: the object that users subclass, start and stop.

Here are the public methods and the lifecycle. The parts themselves are elsewhere: what there is to be (plan), what there is
(topology), what watches (monitor), how it ends (drain), what runs handlers (processor, batch_processor).

    state      start()     parts are there    start failed    stop requested, or all producers finished    stop is done
    new        starting    –                  –               –                                            –
    starting   error       running            as before       –                                            –
    running    error       –                  stopping        stopping                                     –
    stopping   error       –                  –               –                                            stopped
    stopped    starting    –                  –               –                                            –
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Self

from wsengine import telemetry
from wsengine.engine.threads import at_exit, belonging_to, check_fork, exiting, within
from wsengine.errors import ConfigurationError, EngineStopped
from wsengine.options import boolean, choice, function, seconds, whole
from wsengine.pipeline import drain
from wsengine.pipeline.delivery import Delivery
from wsengine.pipeline.failure_log import FailureLog
from wsengine.pipeline.monitor import Monitor
from wsengine.pipeline.plan import check_handlers, check_plan, make_plan
from wsengine.pipeline.signals import signals_counted
from wsengine.pipeline.stats import PipelineStats, collect
from wsengine.pipeline.topology import Topology

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from types import TracebackType

    from wsengine.message import Message
    from wsengine.pipeline.batchers import Batcher
    from wsengine.pipeline.delivery import AcknowledgerFunction
    from wsengine.pipeline.drain import StopResult
    from wsengine.pipeline.partition_by import PartitionBy
    from wsengine.pipeline.processors import Processors
    from wsengine.pipeline.rate_limiting import RateLimiting
    from wsengine.pipeline.source import Producer

__all__ = ["Pipeline", "all_running"]

_running: dict[str, Pipeline] = {}
_registry = threading.Lock()  # over _running and over changes of state


def _forget_in_child() -> None:
    """After a fork the parent's pipelines do not run here, and their names are free."""
    global _registry
    _registry = threading.Lock()
    _running.clear()


os.register_at_fork(after_in_child=_forget_in_child)


def all_running() -> list[str]:
    """Names of the pipelines of this process that are starting, running or stopping. Thread-safe."""
    with _registry:
        return sorted(_running)


class Pipeline:
    """A pipeline. Subclass it, with either of these; self is the context that all its threads share:

    - `handle_message(self, message)`: once a message. Return it, another Message, or None for the one given. What it
      raises fails that message only.
    - `handle_messages(self, messages)`: once a claimed chunk, the fast path. Call `message.fail(reason)` on those that
      fail; what it raises fails all of them.

    With batchers, what succeeds goes on to the batcher that `message.batcher` names, by default "default", and then to

    - `handle_batch(self, messages, batch_info)`: once a batch, in a thread of that batcher. Call `message.fail(reason)` on
      those that fail; what it raises fails all of them, and so fails what it does not return. None stands for all.

    Optional are `prepare_messages(self, messages)`, which sees each chunk first, and `handle_failed(self, messages)`,
    which sees the failed ones before they are acknowledged: it may change their data and acknowledgement, or return as
    many others to be acknowledged in their place, as failed. It does not see what a stop failed at its deadline, nor what
    the death of a processor did: the thread that would call it is not there.

    A handler may keep a message, its `data` or anything of it; what nobody keeps is used again for later messages.

    Args:
        producers: a Producer, or a sequence of them.
        processors: how many threads call your handler, and how much each asks for.
        batchers: Batcher by name.
        partition_by: finds the key of a message, so that messages of one key are handled by one processor, in order, and
            their batches by one batch processor. `JSONField` or `ByteSlice`, which look into what was received and need no
            GIL; or `function(message)`, which returns an int from 0, a str or bytes, and is called in one thread. A message
            without a key, or on which the function fails, fails alone. Each processor has a share of `max_queue` and
            `max_queue_bytes`; the others go on until a message comes for one that is full. None: any processor may have it.
        rate_limiting: how many messages may be claimed in an interval; None for no limit.
        name: shown in thread names, telemetry and logs, and unique among running pipelines; by default the class's name.
        max_queue: messages held at the most, from arrival to acknowledgement; 1 to 2**23, rounded up to a power of two.
        max_queue_bytes: bytes held at the most, likewise.
        overflow: what happens at that bound to what connections bring. "block": the socket is not read, so the server has
            to wait. "drop_oldest": messages that have waited longest, and that no processor has claimed, go; "drop_newest":
            those that arrive; each keeps its `seq`, is counted and told as (id, "queue", "drop"). "error": the connection
            fails with QueueOverflow, and its retry policy decides. `push` of other producers waits in any case; with
            `partition_by`, what it has put in fails like the rest where its partition is full, unless it is "block".
        shutdown_timeout: seconds that a stop may take.

    Raises:
        ConfigurationError: for a wrong or unknown option, or a class without a handler.

    All methods are thread-safe. Source: Broadway.
    """

    handle_message: ClassVar[Callable[..., Message | None] | None] = None
    handle_messages: ClassVar[Callable[..., list[Message] | None] | None] = None
    prepare_messages: ClassVar[Callable[..., list[Message] | None] | None] = None
    handle_failed: ClassVar[Callable[..., list[Message] | None] | None] = None
    handle_batch: ClassVar[Callable[..., list[Message] | None] | None] = None

    def __init__(self, producers: Producer | Sequence[Producer], *, processors: Processors | None = None,
                 batchers: Mapping[str, Batcher] | None = None, partition_by: PartitionBy | None = None,
                 rate_limiting: RateLimiting | None = None, name: str | None = None, max_queue: int = 65536,
                 max_queue_bytes: int = 64 * 2**20, overflow: str = "block", shutdown_timeout: float = 30.0,
                 **unknown: object) -> None:
        self.__plan = make_plan(
            producers, processors, batchers, partition_by, rate_limiting, type(self).__name__ if name is None else name,
            max_queue, max_queue_bytes, overflow, shutdown_timeout, unknown)
        check_handlers(self, self.__plan)
        self._wsengine_producers = self.__plan.producers
        self.__name: str = self.__plan.name
        self.__rate_limiting = self.__plan.rate_limiting
        self.__state = "new"
        self.__pid = os.getpid()
        self._wsengine_topology: Topology | None = None
        self.__monitor: Monitor | None = None
        self.__stopped = threading.Event()
        self.__result: StopResult | None = None
        self.__stop_timeout: float | None = None
        self.__unfinished: set[int] = set()  # ids of the producers that may bring more
        self.__error: BaseException | None = None
        self.__life = object()  # one for each start; as all of these, under the registry's lock
        self.__before = "new"  # the state that a start which fails returns to
        self.__changing = threading.Lock()  # over changes of the plan

    # ------------------------------------------------------------------------------------------------------ lifecycle

    def _wsengine_instead(self, producer: Producer, *, concurrency: int, min_demand: int, max_demand: int,
                          max_queue: int) -> None:
        """Before a start: take another producer and other numbers; `wsengine tune` does. All else stays as it was given, but
        for a rate limit, which would be all that is measured, and for an overflow that ends connections.

        Raises:
            ConfigurationError: as the constructor, where the numbers do not go together with the rest.
        """
        processors = dataclasses.replace(self.__plan.processors, concurrency=concurrency, min_demand=min_demand,
                                         max_demand=max_demand)
        plan = dataclasses.replace(self.__plan, producers=(producer,), processors=processors, overflow="block",
                                   max_queue=1 << (max_queue - 1).bit_length(), rate_limiting=None)
        check_plan(plan)
        self.__plan = plan
        self._wsengine_producers = self.__plan.producers
        self.__rate_limiting = None

    def start(self) -> Self:
        """Start all threads. Returns itself.

        Raises:
            ConfigurationError: another pipeline of this name runs. EngineStopped: it runs already.
            ForkedProcessError: the pipeline was made before a fork.
        """
        check_fork(self.__pid)
        if exiting():
            raise EngineStopped("the interpreter is ending; nothing starts any more")
        life = object()
        try:
            self.__reserve(life)
            topology = self.__begin(life)
            assert self.__monitor is not None
            with belonging_to(topology.mark):
                topology.start()
                self.__monitor.start()
            self.__tell_start()
        except BaseException:
            self.__give_up(life)
            raise
        return self

    def __reserve(self, life: object) -> None:
        """Have the name and the producers for this start alone; what fails behind it gives them back."""
        with _registry:
            state, others = self.__state, {name: one for name, one in _running.items() if one is not self}
            worked = [(producer, other) for producer in self._wsengine_producers for other in others.values()
                      if any(producer is one for one in other._wsengine_producers)]
            free = state in ("new", "stopped") and self.__name not in others and not worked
            if free:
                self.__life, self.__before = life, state
                self.__unfinished = {id(producer) for producer in self._wsengine_producers}
                self.__error = None
                self.__state = "starting"
                _running[self.__name] = self
        if free:
            return
        if state not in ("new", "stopped"):
            raise EngineStopped(f"pipeline {self.__name!r} is {state} already")
        if self.__name in others:
            raise ConfigurationError("pipeline.name", self.__name, "another pipeline of this name runs; give another")
        producer, other = worked[0]
        raise ConfigurationError("pipeline.producers", producer, f"it works for pipeline {other.name!r}, which runs; make a "
                                 "producer for each pipeline")

    def __begin(self, life: object) -> Topology:
        """Put the parts together, in which a producer's own code runs; the pipeline runs when there are all of them."""
        rate = self.__rate_limiting
        topology = Topology(
            self, dataclasses.replace(self.__plan, rate_limiting=rate), log_failure=FailureLog(self.__name),
            finished=lambda producer, error: self.__producer_finished(life, producer, error))
        monitor = Monitor(topology, partial(self.__carry_out_stop, life))
        at_exit(self)
        with _registry:
            if rate is not None and self.__rate_limiting is not None and rate is not self.__rate_limiting:
                topology.update_rate(self.__rate_limiting, True)  # it was changed meanwhile
            self._wsengine_topology, self.__monitor = topology, monitor
            self.__stopped.clear()
            self.__result = None
            self.__stop_timeout = None
            self.__state = "running"
            over = self.__error is not None or not self.__unfinished
        if over:                                 # producers that had ended as they were attached
            monitor.request_stop()
        if exiting():                            # the hook may have come before there was anything to stop
            raise EngineStopped("the interpreter is ending; nothing starts any more")
        return topology

    def __tell_start(self) -> None:
        if telemetry.listening(telemetry.TOPOLOGY_INIT):
            telemetry.execute(telemetry.TOPOLOGY_INIT,
                              {"system_time": time.time_ns(), "monotonic_time": time.monotonic_ns()},
                              {"topology_name": self.__name, "config": self.topology()})

    def __give_up(self, life: object) -> None:
        """A start has failed: be as before it, or, where threads may run already, stopped, as after an exception in a
        `with`. That is the monitor's to carry out, so that a signal's handler that raises here leaves nothing half done."""
        with _registry:
            if life is not self.__life:          # it never began
                return
            if self.__state == "starting":
                self.__state = self.__before
                _running.pop(self.__name, None)
                return
            topology, monitor = self._wsengine_topology, self.__monitor
            assert topology is not None
            assert monitor is not None
            self.__stop_timeout = 0.0
        monitor.request_stop()
        with contextlib.suppress(RuntimeError, OSError, MemoryError), belonging_to(topology.mark):  # no thread to be had
            monitor.start()
        while self.__life is life and not self.__stopped.wait(0.05):
            if not monitor.alive:
                self.__carry_out_stop(life)
        monitor.join(1)

    def __producer_finished(self, life: object, producer: Producer, error: BaseException | None) -> None:
        """A producer brings nothing more: when all have ended, or one has failed for good, so does the pipeline. A thread
        of a producer that is left from a start before is not heard."""
        with _registry:
            if life is not self.__life:
                return
            self.__unfinished.discard(id(producer))
            if error is not None and self.__error is None:
                self.__error = error
            if self.__unfinished and error is None:
                return
        self.request_stop()

    def request_stop(self, timeout: float | None = None) -> None:
        """Begin to stop and return at once; `join` waits for it. Legal everywhere, also in a handler."""
        check_fork(self.__pid)
        limit = seconds("stop.timeout", timeout, zero=True)
        if self.__monitor is not None and self.__state == "running":
            self.__stop_timeout = limit
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
        seconds("stop.timeout", timeout, zero=True)
        if self._wsengine_topology is None or self.__monitor is None:
            raise EngineStopped(f"pipeline {self.__name!r} has not been started")
        self.request_stop(timeout)
        if within(self._wsengine_topology.mark):
            return None
        while not self.__stopped.wait(0.1):
            continue
        return self.__result

    def __carry_out_stop(self, life: object) -> None:
        """In the monitor's thread, or in that of a start for which there is none; the first who comes."""
        assert self._wsengine_topology is not None
        assert self.__monitor is not None
        with _registry:
            if life is not self.__life or self.__state != "running":
                return
            self.__state = "stopping"
        timeout = self.__plan.shutdown_timeout if self.__stop_timeout is None else self.__stop_timeout
        try:
            self.__result = drain.stop(self._wsengine_topology, timeout, self.__error)
        finally:
            self.__result = self.__result or drain.unfinished(self._wsengine_topology, self.__error)
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
            return self.join() or drain.unfinished(self._wsengine_topology, self.__error)
        with signals_counted() as seen:
            self.start()
            acted = 0
            while not self.__stopped.wait(0.05):
                if len(seen) > acted:
                    acted = len(seen)
                    self.request_stop()
                if acted > 1 and self._wsengine_topology is not None:
                    drain.hurry(self._wsengine_topology)
                    self.__stopped.wait(0.8)
                    break
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
        """"new", "starting", "running", "stopping" or "stopped". "starting" only while producers are put in place: a start
        that fails then leaves it as it was before."""
        return self.__state

    @property
    def max_queue(self) -> int:
        """The bound in messages, as rounded up to a power of two."""
        return self.__plan.max_queue

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
            EngineStopped: the pipeline does not run. ConfigurationError: something that is not a Message, or a wrong
                time-out.
        """
        check_fork(self.__pid)
        if self._wsengine_topology is None or self.__state != "running":
            raise EngineStopped(f"pipeline {self.__name!r} is {self.__state} and takes no messages")
        return self._wsengine_topology.inbox.push(messages, seconds("push_messages.timeout", timeout, zero=True))

    def test_message(self, data: object, *, metadata: dict[str, Any] | None = None,
                     acknowledger: AcknowledgerFunction | None = None) -> Delivery:
        """Put one message in and see what becomes of it; a batcher emits its batch at once, as its mode is "flush".

        Args:
            data: the message's. metadata: the message's, None for an empty one.
            acknowledger: called as (data, (caller, ref)) for the message's (acknowledger, ack_ref, ack_data) in place of
                (caller, ref, None), where what the caller's `ack` is told for that ref reaches the Delivery.

        Returns:
            A Delivery, to `wait` for.

        Raises:
            EngineStopped: the pipeline does not run. ConfigurationError: for a wrong argument.

        It bypasses transformers, frame handlers and the rate limit, and waits while the pipeline is paused. Thread-safe.
        Source: Broadway.test_message/3.
        """
        return self.__deliver([data], "flush", metadata, acknowledger)

    def test_batch(self, data: Iterable[object], *, batch_mode: str = "bulk", metadata: dict[str, Any] | None = None,
                   acknowledger: AcknowledgerFunction | None = None) -> Delivery:
        """Put several messages in and see what becomes of them. Batchers treat them as any others, unless `batch_mode` is
        "flush". Arguments, errors and the rest as of `test_message`. Source: Broadway.test_batch/3."""
        try:
            several = iter(data)
        except TypeError as error:
            raise ConfigurationError("test_batch.data", data, "give the data of the messages one after the other, such as "
                                     "in a list; of one, use test_message") from error
        return self.__deliver(list(several), batch_mode, metadata, acknowledger)

    def __deliver(self, data: list[object], mode: str, metadata: dict[str, Any] | None,
                  acknowledger: AcknowledgerFunction | None) -> Delivery:
        check_fork(self.__pid)
        function("test_message.acknowledger", acknowledger, "(data, (caller, ref))")
        if self._wsengine_topology is None or self.__state != "running":
            raise EngineStopped(f"pipeline {self.__name!r} is {self.__state} and takes no messages")
        delivery = Delivery()
        flush = choice("test_batch.batch_mode", mode, ("bulk", "flush")) == "flush"
        messages = delivery.messages(data, flush, metadata, acknowledger)
        self._wsengine_topology.tests.push(messages)
        return delivery

    def pause(self) -> None:
        """Claim nothing more until `resume`: what was claimed is handled, and batchers go on. Connections live on, and read
        until the pipeline is full; then the server waits. A stop resumes. Does nothing if it is paused. Any thread, also
        within a handler.

        Raises:
            EngineStopped: the pipeline does not run.
        """
        self.__running().crew.pause(True)

    def resume(self) -> None:
        """Claim again. Does nothing if it is not paused; errors as of `pause`."""
        self.__running().crew.pause(False)

    @property
    def paused(self) -> bool:
        """Whether `pause` holds."""
        return self.__state == "running" and self._wsengine_topology is not None and self._wsengine_topology.crew.paused

    def resize(self, concurrency: int) -> None:
        """Have so many processors from here on, also after another start. New ones begin at once; those that are too many
        end behind the messages that they have in hand, and this does not wait for it. With `partition_by` all keys are
        mapped anew, so first everything that processors and batchers have is handled, and meanwhile nothing is given to
        them. Any thread, also within a handler.

        Raises:
            EngineStopped: the pipeline does not run. ConfigurationError: not a number from 1 to 1024.
        """
        whole("resize.concurrency", concurrency, minimum=1, maximum=1024)
        self.__plan.check_shares("resize.concurrency", concurrency)
        with self.__changing:
            self.__running().resize(concurrency)
            self.__plan = dataclasses.replace(self.__plan, processors=dataclasses.replace(
                self.__plan.processors, concurrency=concurrency))

    def get_rate_limiting(self) -> RateLimiting | None:
        """What is allowed now, or from the next interval on; None if there is no limit."""
        return self.__rate_limiting

    def update_rate_limiting(self, allowed_messages: int | None = None, interval: float | None = None, *,
                             reset: bool = False) -> RateLimiting:
        """Allow another number of messages, or for another interval; what is None stays.

        Args:
            allowed_messages, interval: as of `RateLimiting`.
            reset: begin anew at once, with all allowances there. Else a window ends as it began, and a bucket fills at the
                new rate from now on.

        Returns:
            What is allowed then.

        Raises:
            ConfigurationError: there is no limit to update, or for a wrong argument.
        """
        check_fork(self.__pid)
        boolean("update_rate_limiting.reset", reset)
        with _registry:
            if self.__rate_limiting is None:
                raise ConfigurationError("pipeline.rate_limiting", None, "give rate_limiting=RateLimiting(...) when the "
                                         "pipeline is made")
            old = self.__rate_limiting
            new = self.__rate_limiting = dataclasses.replace(
                old, allowed_messages=old.allowed_messages if allowed_messages is None else allowed_messages,
                interval=old.interval if interval is None else interval)
            if self._wsengine_topology is not None:
                self._wsengine_topology.update_rate(new, reset)
        return new

    def __running(self) -> Topology:
        check_fork(self.__pid)
        if self._wsengine_topology is None or self.__state != "running":
            raise EngineStopped(f"pipeline {self.__name!r} is {self.__state}")
        return self._wsengine_topology

    def stats(self) -> PipelineStats:
        """Figures of this moment. EngineStopped before the first start."""
        topology = self._wsengine_topology
        if topology is None:
            raise EngineStopped(f"pipeline {self.__name!r} has not been started")
        return collect(topology, self.__plan, self.__state)

    def __reduce__(self) -> str:
        raise TypeError("a Pipeline owns threads and cannot be pickled; make one in each process")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.__name!r} {self.__state}>"
