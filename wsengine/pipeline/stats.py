"""The figures of a running pipeline, read at one moment. How they come about stands where they are counted."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wsengine.pipeline.plan import Plan
    from wsengine.pipeline.topology import Topology

__all__ = ["BatchProcessorStats", "BatcherStats", "PartitionStats", "PipelineStats", "ProcessorStats", "collect"]


@dataclass(frozen=True, slots=True)
class ProcessorStats:
    """One processor. `outstanding`: claimed and not acknowledged; `busy_seconds`: spent on chunks; `workload`: the share of
    the last seconds that it was busy, 0 to 1, which decays when it is idle. With batchers it is they who acknowledge:
    `successful` counts only what failed after `ack_immediately`, and so joined no batch."""

    index: int
    outstanding: int
    successful: int
    failed: int
    busy_seconds: float
    workload: float


@dataclass(frozen=True, slots=True)
class BatchProcessorStats:
    """One batch processor. `batches`: acknowledged so far; `busy_seconds`, `workload`: as of a processor."""

    index: int
    batches: int
    successful: int
    failed: int
    busy_seconds: float
    workload: float


@dataclass(frozen=True, slots=True)
class BatcherStats:
    """One batcher. `held`: messages that it or its batch processors have; `waiting`: of those, in complete batches that no
    batch processor has begun; `open_batches`: batches that are not complete; `failed`: messages that could not be put into
    a batch."""

    key: str
    held: int
    waiting: int
    open_batches: int
    failed: int
    batch_processors: tuple[BatchProcessorStats, ...]


@dataclass(frozen=True, slots=True)
class PartitionStats:
    """One partition. `messages`, `bytes`: what it holds, waiting and in its processor's hands, against `max_messages` and
    `max_bytes`; `stalls`: how often a message found it full; `dropped`: messages for which it had no room. The two begin
    anew with another number of partitions."""

    index: int
    messages: int
    bytes: int
    max_messages: int
    max_bytes: int
    stalls: int
    dropped: int


@dataclass(frozen=True, slots=True)
class PipelineStats:
    """A pipeline at one moment.

    Attributes:
        name, state: as of the pipeline.
        successful, failed: messages acknowledged since the start, each counted once.
        rate: messages acknowledged a second, over about the last two seconds.
        latency_p50, latency_p99: seconds from receive to acknowledgement that half of the messages since the start took at
            the most, and 99 %, to an eighth; 0.0 before the first. To acknowledgement is until their acknowledger has
            returned; messages that were pushed count from the push, which may have waited for room.
        depth: messages that wait to be claimed.
        held_messages, held_bytes: what the pipeline holds, from arrival to acknowledgement, against
            max_queue, max_queue_bytes.
        processors, batchers, producers: each by itself. partitions: the same, empty without `partition_by`.
    """

    name: str
    state: str
    successful: int
    failed: int
    rate: float
    latency_p50: float
    latency_p99: float
    depth: int
    held_messages: int
    held_bytes: int
    max_queue: int
    max_queue_bytes: int
    processors: tuple[ProcessorStats, ...]
    batchers: tuple[BatcherStats, ...]
    producers: tuple[dict[str, Any], ...]
    partitions: tuple[PartitionStats, ...]


def collect(topology: Topology, plan: Plan, state: str) -> PipelineStats:
    """The figures of a pipeline as they stand."""
    successful, failed = topology.totals()
    rate = topology.rate.at(time.monotonic(), successful + failed)
    latency = topology.latency
    return PipelineStats(
        name=plan.name, state=state, successful=successful, failed=failed, rate=rate,
        latency_p50=latency.percentile(0.5) / 1e9, latency_p99=latency.percentile(0.99) / 1e9, depth=topology.depth,
        held_messages=topology.account.messages, held_bytes=topology.account.bytes,
        max_queue=plan.max_queue, max_queue_bytes=plan.max_queue_bytes,
        processors=tuple(ProcessorStats(seat.index, seat.worker.outstanding, seat.successful, seat.failed, seat.busy_seconds,
                                        seat.workload) for seat in topology.seats),
        batchers=tuple(BatcherStats(
            one.stage.key, *one.stage.depths, one.stage.failed,
            tuple(BatchProcessorStats(seat.index, seat.worker.batches, seat.successful, seat.failed, seat.busy_seconds,
                                      seat.workload) for seat in one.seats)) for one in topology.batching),
        producers=tuple(producer.stats() for producer in plan.producers),
        partitions=tuple(
            PartitionStats(index, share.account.messages, share.account.bytes, share.account.max_messages,
                           share.account.max_bytes, stalls, dropped)
            for index, (share, stalls, dropped) in enumerate(topology.partitions.figures if topology.partitions else ())),
    )
