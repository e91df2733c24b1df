"""The end of a pipeline: in which order its parts stop, under one deadline, and what is said about it afterwards.

    take no more ──▶ dispatcher, partitioner and processors empty the sources ──▶ open batches are emitted and handled
    ──▶ threads end ──▶ connections close ──▶ all is joined
          │ deadline at any point: the remainder is failed, acknowledged once, and counted as `left`

Nothing else decides about stopping: `Pipeline` calls this, from whatever thread wanted the stop.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from wsengine.pipeline.processor import STOPPED, Processor

if TYPE_CHECKING:
    from wsengine.pipeline.source import Producer
    from wsengine.pipeline.topology import Topology

__all__ = ["StopResult", "stop"]

#: Seconds that closing handshakes and joins get beyond a deadline that the handlers have used up.
GRACE = 0.5
#: Seconds that a reader, which never blocks, may take to hear that nothing more is to be delivered.
QUIET = 0.2


@dataclass(frozen=True, slots=True)
class StopResult:
    """What a stop came to.

    Attributes:
        drained: everything that was taken was handled before the deadline.
        successful, failed: messages acknowledged over the life of the pipeline.
        left: messages failed because the deadline came first; they are among `failed`.
        discarded: messages that arrived and were not taken, because of the stop.
        threads_alive: names of threads that had not ended: handlers that have not returned.
        seconds: how long the stop took.
        error: why the pipeline stopped by itself, such as RetriesExhausted, or else the first error that a producer raised
            as it was stopped; None if it was told to stop and no producer raised.
    """

    drained: bool
    successful: int
    failed: int
    left: int
    discarded: int
    threads_alive: tuple[str, ...]
    seconds: float
    error: BaseException | None


def stop(topology: Topology, timeout: float, error: BaseException | None) -> StopResult:
    """Stop all parts of a topology within about `timeout` seconds; 0 drains nothing."""
    started = time.monotonic()
    deadline = started + timeout
    topology.inbox.close()
    topology.tests.close()
    topology.crew.pause(False)                   # what was taken is handled
    _drain_producers(topology)
    drained = _wait_until_idle(topology, deadline)
    for host in topology.hosts:                  # whatever a producer of the user's does: nothing comes behind the last look
        host.close()
    topology.end_replacements(max(deadline - time.monotonic(), GRACE))
    topology.crew.end()
    if topology.dispatcher is not None:
        topology.dispatcher.end()
    if topology.partitions is not None:
        topology.partitions.partitioner.end()
    for batching in topology.batching:
        batching.stage.end()
    left = 0 if drained else _fail_the_rest(topology)
    drained = drained or (left == 0 and topology.account.messages == 0)
    patience = min(deadline, started) if topology.hurried or not drained else deadline
    for post in topology.posts:
        if post.thread is not None:
            post.thread.join(max(patience - time.monotonic(), GRACE / len(topology.posts)))
    discarded = _end_producers(topology, deadline)
    successful, failed = topology.totals()
    alive = tuple(topology.threads_alive())
    return StopResult(
        drained=drained, successful=successful, failed=failed, left=left, discarded=discarded, threads_alive=alive,
        seconds=time.monotonic() - started, error=error if error is not None else topology.guard.error,
    )


def _drain_producers(topology: Topology) -> None:
    """Have all producers take no more; of one that fails to, nothing more is taken."""
    failed = object()
    for producer, host in zip(topology.producers, topology.hosts, strict=True):
        if topology.guard.call(producer, "drain", producer.drain, failed) is failed:
            host.close()


def _end_producers(topology: Topology, deadline: float) -> int:
    """Have all producers end and release what they hold; how many messages they discarded."""
    call = topology.guard.call
    closing = time.monotonic() + GRACE if topology.hurried else max(deadline, time.monotonic() + GRACE)
    for producer in topology.producers:
        call(producer, "stop", partial(producer.stop, closing), None)
    topology.inbox.release()
    topology.tests.release()
    for producer in topology.producers:
        call(producer, "release", producer.release, None)
    if topology.partitions is not None:
        topology.partitions.release()
    return sum(call(producer, "discarded", partial(_discarded, producer), 0) for producer in topology.producers)


def _discarded(producer: Producer) -> int:
    return int(producer.discarded)


def _is_quiet(producer: Producer) -> bool:
    return bool(producer.quiet)


def _quiet(topology: Topology) -> bool:
    """Whether nothing more comes from any producer; one that cannot say is not waited for."""
    return all(topology.guard.call(producer, "quiet", partial(_is_quiet, producer), True) for producer in topology.producers)


def _wait_until_idle(topology: Topology, deadline: float) -> bool:
    """Wait until nothing is left to claim and nobody holds a message; dead threads are the monitor's to replace."""
    pause = 0.0005
    while time.monotonic() < deadline and not topology.hurried:
        if _idle(topology):
            return True
        if topology.batching and topology.crew.idle and topology.account.messages <= topology.batched:
            for batching in topology.batching:   # nothing that could still join a batch is anywhere else
                batching.stage.flush()
        time.sleep(pause)
        pause = min(pause * 2, 0.02)
    return _idle(topology)


def _wait_until_quiet(topology: Topology) -> None:
    """Give the readers a moment to carry out that nothing more is delivered, so that nothing comes behind the sweep."""
    until = time.monotonic() + QUIET
    while time.monotonic() < until and not _quiet(topology):
        time.sleep(0.0005)


def _idle(topology: Topology) -> bool:
    """Nothing can come any more, and nothing is there; in this order."""
    return (_quiet(topology) and topology.account.messages == 0 and topology.crew.idle and topology.batched == 0)


def _fail_the_rest(topology: Topology) -> int:
    """At the deadline: acknowledge what the threads still hold, and what nobody has claimed (see Chunk.take_over); how many
    were failed because of it."""
    dispatcher = topology.dispatcher
    if dispatcher is not None:
        dispatcher.close()
    topology.crew.close()
    _wait_until_quiet(topology)
    undispatched = dispatcher.take_over() if dispatcher is not None else 0
    if topology.partitions is not None:
        topology.partitions.wait_until_over(GRACE)
        undispatched += topology.partitions.partitioner.take_over(STOPPED)
    taken = [seat.worker.take_over(STOPPED) for seat in topology.workers]
    unclaimed = sum(Processor(topology.crew, len(topology.seats), sources).fail_rest(STOPPED)
                    for sources in dict.fromkeys([topology.crew.sources, *topology.crew.shares]))
    for batching in topology.batching:
        taken += batching.stage.fail_rest(STOPPED)
    taken += [seat.worker.take_over(STOPPED) for seat in topology.workers]  # claimed just before all was closed
    undispatched += dispatcher.take_over() if dispatcher is not None else 0  # likewise
    left = sum(late for _, _, late in taken) + unclaimed + undispatched
    topology.swept = (sum(done for done, _, _ in taken), sum(broken for _, broken, _ in taken) + left)
    return left


def hurry(topology: Topology) -> None:
    """A second signal: let the stop under way reach its deadline now."""
    topology.hurried = True


def unfinished(topology: Topology | None, error: BaseException | None) -> StopResult:
    """The result of a stop that was not waited for to its end."""
    successful, failed = topology.totals() if topology is not None else (0, 0)
    alive = tuple(topology.threads_alive()) if topology is not None else ()
    return StopResult(drained=False, successful=successful, failed=failed, left=0, discarded=0, threads_alive=alive,
                      seconds=0.0, error=error)
