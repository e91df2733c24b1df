"""The parts of one running pipeline, put together: parker, account, sources, processors, batchers and their threads.

A topology is made at each start and never reused. It knows what there is and starts it; in which order it ends is the
matter of `drain`, who watches it that of `monitor`.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from wsengine import telemetry
from wsengine.engine.ring import Account, Parker
from wsengine.engine.threads import belonging_to
from wsengine.logs import log
from wsengine.pipeline.batch_processor import BatchProcessor
from wsengine.pipeline.batcher import BatcherStage
from wsengine.pipeline.crew import Crew
from wsengine.pipeline.dispatcher import Dispatcher
from wsengine.pipeline.guard import Guard
from wsengine.pipeline.latency import Latency
from wsengine.pipeline.pace import Rate
from wsengine.pipeline.partitions import Partitions
from wsengine.pipeline.processor import Processor
from wsengine.pipeline.rate_limiter import RateLimiter
from wsengine.pipeline.seats import Post, Seat
from wsengine.pipeline.sized_batcher import SizedBatcherStage
from wsengine.pipeline.source import Host, Inbox
from wsengine.pipeline.time_limit import TimeLimit, Watched

if TYPE_CHECKING:
    from collections.abc import Callable

    from wsengine.pipeline.batchers import Batcher
    from wsengine.pipeline.failure_log import FailureLog
    from wsengine.pipeline.plan import Plan
    from wsengine.pipeline.processors import Processors
    from wsengine.pipeline.rate_limiting import RateLimiting
    from wsengine.pipeline.source import Producer
    from wsengine.pipeline.sources import Sources

__all__ = ["Batching", "Topology"]

logger = logging.getLogger("wsengine.pipeline")

#: Bytes that a message in a batch takes beside its payload: two objects of its own, and at the worst a batch of its own.
#: In a ring it takes none of these, but what waits there will come to the batchers.
OBJECT_COST = 768


@dataclass(frozen=True, slots=True)
class Batching:
    """One batcher with the places of its thread and of its batch processors."""

    stage: BatcherStage
    post: Post
    seats: list[Seat[BatchProcessor]]


def _limiter(options: RateLimiting | None) -> RateLimiter | None:
    if options is None:
        return None
    return RateLimiter(options.allowed_messages, options.interval, options.mode == "window")


class Topology:
    """The running parts of the pipeline `owner`."""

    def __init__(self, owner: object, plan: Plan, log_failure: FailureLog,
                 finished: Callable[[Producer, BaseException | None], None]) -> None:
        processors, name = plan.processors, plan.name
        self.name = name
        self.mark = object()  # whose its threads are; it keeps nothing alive
        self.plan = plan
        self.swept = (0, 0)  # successful, failed: acknowledged by a stop in the place of processors; the stop
        self.replacing = threading.Lock()  # over the replacement of a thread, and the next
        self.ended = False  # no thread is replaced any more
        self.hurried = False  # a stop shall reach its deadline at once; the main thread sets it, the stop reads it
        self.producers = plan.producers
        self.rate = Rate()
        self.parker = Parker()
        cost = OBJECT_COST if plan.batchers or callable(plan.partitioned_by) else 0
        self.account = Account(plan.max_queue, plan.max_queue_bytes, cost)
        self.crew = Crew(owner, name, self.parker, self.account, concurrency=processors.concurrency,
                         min_demand=processors.min_demand, max_demand=processors.max_demand, spin=processors.spin / 1e6,
                         log_failure=log_failure, limiter=_limiter(plan.rate_limiting), retry=processors.retry,
                         partitioned=plan.partitioned_by is not None)
        self.inbox = Inbox(self.crew.sources, self.demand, self.crew.ask)
        self.crew.add_inbox(self.inbox)
        self.tests = Inbox(self.crew.sources, self.demand, self.crew.ask)  # of test_message and test_batch
        self.crew.add_inbox(self.tests, True)
        self.dispatching: Post | None = None  # only where a producer wants it
        self._dispatcher: Dispatcher | None = None
        self._watched: list[tuple[TimeLimit, Watched, Post]] = []  # beside the seats: whose runner stays
        self.batching = [self._batching(key, batcher, processors) for key, batcher in plan.batchers.items()]
        self._resizing = threading.Lock()  # over seats, leaving and what was done by those that have left
        self.seats: list[Seat[Processor]] = []
        self.leaving: list[Seat[Processor]] = []  # not replaced, and not ended yet
        self._left = (0, 0)  # successful, failed of those that have
        self._left_latency = Latency()
        self.guard = Guard(log_failure)  # of producers that are stopped; whoever carries out the stop
        self.hosts = [Host(name, index, self.crew, self.demand, finished, self.open_dispatcher, plan.overflow)
                      for index in range(len(plan.producers))]
        self._attach()
        self.partitions: Partitions | None = None  # where there is a partition_by
        self._wanted = processors.concurrency
        if plan.partitioned_by is not None:
            self.partitions = Partitions(self.crew, plan.partitioned_by, plan.overflow, cost, self._settled, self._remap)
            self.partitions.use(self.partitions.make_shares(processors.concurrency))
            if processors.time_limit is not None:
                limit = TimeLimit(name, 0, processors.time_limit, telemetry.PROCESSOR_OVERDUE)
                self._watched.append((limit, self.partitions.partitioner, self.partitions.post))
        shares = self.crew.shares * (1 if self.partitions is not None else processors.concurrency)
        self.seats = [self._seat(index, share) for index, share in enumerate(shares)]

    def _attach(self) -> None:
        """Bring the producers' sources in. If one fails to, none of them keeps anything of a pipeline that will not be."""
        try:
            for producer, host in zip(self.producers, self.hosts, strict=True):
                producer.attach(host)
        except BaseException:
            for host in self.hosts:
                host.close()
                host.release()
            raise

    def update_rate(self, rate_limiting: RateLimiting, reset: bool) -> None:
        """Have another rate allowed, where one is."""
        if self.crew.limiter is not None:
            self.crew.limiter.update(rate_limiting.allowed_messages, rate_limiting.interval, reset)
            self.crew.look_again()

    def _batching(self, key: str, batcher: Batcher, processors: Processors) -> Batching:
        kind = BatcherStage if isinstance(batcher.batch_size, int) else SizedBatcherStage
        stage = kind(self.crew, key, concurrency=batcher.concurrency, size=batcher.batch_size, timeout=batcher.batch_timeout,
                     bound=batcher.bound(processors.concurrency), retry=batcher.retry,
                     by=batcher.partition_by or self.plan.partitioned_by, inherits=batcher.partition_by is None)
        self.crew.add_batcher(key, stage)
        seats = [Seat("batch processor", index, partial(BatchProcessor, stage, index))
                 for index in range(batcher.concurrency)]
        post = Post("batcher", len(self.crew.batchers) - 1, stage)
        if batcher.time_limit is not None:
            for seat in seats:
                seat.time_limit = TimeLimit(self.name, seat.index, batcher.time_limit, telemetry.BATCH_PROCESSOR_OVERDUE)
            limit = TimeLimit(self.name, post.index, batcher.time_limit, telemetry.BATCH_PROCESSOR_OVERDUE)
            self._watched.append((limit, stage, post))
        return Batching(stage, post, seats)

    def _seat(self, index: int, sources: Sources) -> Seat[Processor]:
        seat = Seat("processor", index, partial(Processor, self.crew, index, sources))
        if self.plan.processors.time_limit is not None:
            seat.time_limit = TimeLimit(self.name, index, self.plan.processors.time_limit, telemetry.PROCESSOR_OVERDUE)
        return seat

    def resize(self, concurrency: int) -> None:
        """Have so many processors: new ones are started at once, those too many end behind the chunk in hand. With
        partitions the partitioner does it, when it can."""
        if self.partitions is not None:
            if concurrency == self._wanted:
                return
            self._wanted = concurrency
            self.partitions.partitioner.change_wanted()
            return
        with self._resizing, belonging_to(self.mark):
            self.crew.set_concurrency(concurrency)
            for batching in self.batching:
                batching.stage.set_bound(self.plan.batchers[batching.stage.key].bound(concurrency))
            if concurrency > 1:
                self.crew.choose_lead()
            for index in range(len(self.seats), concurrency):
                seat = self._seat(index, self.crew.sources)
                seat.occupy()
                self.seats = [*self.seats, seat]
            leaving = self.seats[concurrency:]
            for seat in leaving:
                seat.closing = True
                seat.worker.leave()
            self.leaving = [*self.leaving, *leaving]
            self.seats = self.seats[:concurrency]
        self.crew.look_again()

    def _settled(self) -> bool:
        """Whether nothing that was given to partitions is under way any more; what waits in batches is told to go on. The
        partitioner, which gives nothing meanwhile."""
        # The account first: a message acknowledged ahead of its batch is in it no more, but its processor is busy by then.
        if not all(share.account.messages == 0 and share.idle for share in self.crew.shares):
            return False
        for batching in self.batching:
            batching.stage.flush()
        return self.batched == 0

    def _remap(self) -> None:
        """Have as many partitions as are wanted, with processors of their own. The partitioner, when all is settled. What
        cannot be made leaves those that there are."""
        with self.replacing:
            if not self.ended:                   # else nothing comes any more
                self._remap_to(self._wanted)

    def _remap_to(self, wanted: int) -> None:
        assert self.partitions is not None
        before, seats = self.crew.shares, []
        try:
            shares = self.partitions.make_shares(wanted)
            for index, share in enumerate(shares):
                seat = self._seat(index, share)
                seat.occupy()
                seats.append(seat)
        except Exception as fault:               # no thread to be had, or no memory
            log(logger, logging.ERROR, "pipeline %s could not be resized to %d", self.name, wanted, error=fault)
            self._dismiss(seats)
            return
        with self._resizing:
            for batching in self.batching:
                batching.stage.set_bound(self.plan.batchers[batching.stage.key].bound(wanted))
            leaving, self.seats = self.seats, seats
            self.leaving = [*self.leaving, *leaving]
        self.partitions.use(shares)
        self._dismiss(leaving)
        for share in before:
            share.parker.notify_all()
        self.crew.look_again()

    def _dismiss(self, seats: list[Seat[Processor]]) -> None:
        for seat in seats:
            seat.closing = True
            seat.worker.leave()
            seat.worker.sources.parker.notify_all()

    def end_replacements(self, timeout: float) -> None:
        """Have no thread replaced from here on; one under way is there on return, unless an acknowledger holds it up."""
        held = self.replacing.acquire(timeout=timeout)
        self.ended = True
        if held:
            self.replacing.release()

    def bid_farewell(self) -> None:
        """Take those out that were to leave and have ended; the monitor."""
        with self._resizing:
            gone = [seat for seat in self.leaving if seat.done and seat.thread is not None and not seat.thread.is_alive()]
            for seat in gone:
                self._left = (self._left[0] + seat.successful, self._left[1] + seat.failed)
                seat.add_latency(self._left_latency)
            self.leaving = [seat for seat in self.leaving if seat not in gone]
            if gone and not self.leaving and self.partitions is None:
                self.crew.choose_lead()          # one alone may read by itself again

    def demand(self) -> int:
        """Messages that the processors would take at once."""
        return self.crew.max_demand * len(self.seats) - sum(seat.worker.outstanding for seat in self.seats)

    def open_dispatcher(self) -> Dispatcher:
        """The dispatcher, made when first asked for. Before anything starts."""
        if self._dispatcher is None:
            self._dispatcher = Dispatcher(self.crew)
            self.dispatching = Post("dispatcher", 0, self._dispatcher)
            self.crew.add_inbox(self._dispatcher)
        return self._dispatcher

    @property
    def dispatcher(self) -> Dispatcher | None:
        """The dispatcher, None where no producer wants one."""
        return self._dispatcher

    @property
    def workers(self) -> list[Seat[Processor] | Seat[BatchProcessor]]:
        """The places of all that have messages in hand: processors, then batch processors."""
        return [*self.seats, *self.leaving, *(seat for batching in self.batching for seat in batching.seats)]

    @property
    def time_limits(self) -> list[float]:
        """The limits that callbacks have, in seconds."""
        limits = [self.plan.processors.time_limit, *(batcher.time_limit for batcher in self.plan.batchers.values())]
        return [limit for limit in limits if limit is not None]

    @property
    def posts(self) -> list[Post]:
        """The places of all threads, of which each is replaced if it dies."""
        dispatching = [self.dispatching] if self.dispatching is not None else []
        partitioning = [self.partitions.post] if self.partitions is not None else []
        return [*self.workers, *(batching.post for batching in self.batching), *partitioning, *dispatching]

    @property
    def depth(self) -> int:
        """About how many messages wait to be claimed by a processor or the dispatcher."""
        return (self.crew.depth + (self._dispatcher.depth if self._dispatcher is not None else 0)
                + (self.partitions.partitioner.held if self.partitions is not None else 0))

    @property
    def batched(self) -> int:
        """Messages that the batchers and batch processors hold."""
        return sum(batching.stage.depths[0] for batching in self.batching)

    def start(self) -> None:
        """Start the threads from the end of the pipeline to its beginning, then producers."""
        self.observe(time.monotonic())
        self.crew.start()
        for post in reversed(self.posts):
            post.occupy()
        for producer in self.producers:
            producer.start()

    def threads_alive(self) -> list[str]:
        """Names of the threads of this pipeline that have not ended."""
        threads = [post.thread for post in self.posts]
        alive = [thread.name for thread in threads if thread is not None and thread.is_alive()]
        for producer in self.producers:
            alive += self.guard.call(producer, "alive", producer.alive, [])
        return alive

    def totals(self) -> tuple[int, int]:
        """Messages acknowledged so far: successful, failed."""
        with self._resizing:
            workers, (successful, failed) = self.workers, self._left
            successful += sum(seat.successful for seat in workers)
            failed += sum(seat.failed for seat in workers)
        failed += sum(one.stage.failed for one in self.batching)
        if self.partitions is not None:
            failed += self.partitions.partitioner.failed
        return successful + self.swept[0], failed + self.swept[1]

    def observe(self, now: float) -> None:
        """Note how things stand, for figures over the last seconds. The monitor."""
        self.rate.note(now, sum(self.totals()))
        for seat in self.workers:
            seat.observe(now)
        for limit, runner, post in self._watched:
            limit.look(now, runner, post.thread)
        if self.partitions is not None:
            self.partitions.observe(now)

    @property
    def latency(self) -> Latency:
        """How long messages took, from receive to acknowledgement."""
        latency = Latency()
        with self._resizing:
            latency.add(self._left_latency)
            for seat in self.workers:
                seat.add_latency(latency)
        return latency

    def describe(self) -> dict[str, list[dict[str, Any]]]:
        """What `Pipeline.topology` returns, after Broadway's `topology/1`."""
        return {
            "producers": [{"name": f"wsengine:{self.name}:producer_{i}", "type": type(p).__name__,
                           "concurrency": int(getattr(p, "concurrency", 1))} for i, p in enumerate(self.producers)],
            "processors": [{"name": f"wsengine:{self.name}:processor", "processor_key": "default",
                            "concurrency": len(self.seats)}],
            "batchers": [{"name": one.stage.thread_name, "batcher_key": one.stage.key, "concurrency": len(one.seats)}
                         for one in self.batching],
        }
