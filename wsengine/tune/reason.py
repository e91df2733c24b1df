"""Why a pipeline is not faster at a setting: the one thing that is used up, told by the measured shares of threads' time.

    batcher-bound    processors wait, because a batch processor is always busy and the batchers ask for no more
    partition-bound  most processors wait, because the messages of one partition keep one of them busy, or the partitioner
    feed-bound       processors wait, and the pipeline is never full: nothing more comes
    ring-bound       processors wait, although more would come: the reader, or a queue that is too small, sets the pace
    GIL-bound        the threads that run Python fill one core together while they hold the GIL, or wait for their turn
    CPU-bound        what runs, without the GIL, wants all the cores that there are, or one for each processor
    I/O-bound        handlers wait for something outside most of their time
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from wsengine.tune.shares import Shares

if TYPE_CHECKING:
    from wsengine.tune.setting import Point

__all__ = ["Reason", "reason_of"]

#: Shares from which on a thread is said to be used up, and processors to be waiting.
FULL, WAITING, MUCH = 0.85, 0.5, 0.5
#: From this share of waiting for the GIL on, more threads are of no use; cores that one thread at a time can want.
CROWDED, ONE_CORE = 0.2, (0.7, 1.3)
#: Of the time of a thread that wakes up now and then, from which on others hold the GIL: with one that never lets go, 0.2.
KEPT_WAITING = 0.05
#: Threads that wait for the GIL at a time, in the mean, from which on it is what is short.
QUEUE = 0.3
#: Below it the feed was never idle.
FEED_BUSY = 0.05
#: From this share of looks on a pipeline is said to be full.
PAUSED = 0.1
#: Threads whose time is not the handler's.
OTHERS = ("reader", "MainThread")


@dataclass(frozen=True, slots=True)
class Reason:
    """What a pipeline is bound by, the figures that say so, and what would help."""

    bound: str
    evidence: str
    remedy: str


def reason_of(point: Point, *, gil: bool, cores: float) -> Reason:
    """The reason at a point.

    Args:
        point: with shares.
        gil: whether the interpreter has one. cores: that may be used.
    """
    processor = point.shares.get("processor")
    if processor is None:
        return Reason("unknown", "what threads wait for could not be seen", "measure on Linux, on x86-64 or ARM64")
    if processor.idle >= WAITING:
        return _held_up(point, processor) or _starved(point, processor)
    running, wanted = _cores(point)
    said = (f"processors run for {processor.running:.0%} of their time, wait for a core for {processor.core:.0%}, for the "
            f"GIL for {processor.gil:.0%}, for something outside for {processor.blocked:.0%}, for work for "
            f"{processor.idle:.0%}; together the threads that run handlers take {running:.0%} of one core")
    if gil and (processor.gil >= CROWDED or (_fills_one(processor, running, wanted) and _held(point))):
        return Reason("GIL-bound", f"{said}, and hold the GIL meanwhile",
                      "cheaper handlers, handle_messages in place of handle_message, or a free-threaded Python: more "
                      "processors add nothing")
    if processor.blocked >= MUCH or processor.blocked > processor.running + processor.core:
        return Reason("I/O-bound", said, "more processors, as long as what they wait for bears it")
    if processor.running + processor.core >= FULL and wanted < FULL * cores:
        return Reason("CPU-bound", f"{said}, without the GIL", "more processors: there are cores for them")
    if wanted >= FULL * cores or processor.core >= max(processor.idle, processor.gil, processor.blocked):
        return Reason("CPU-bound", f"{said}, of {cores:.3g}, and other programs, the feed among them, take some, too",
                      "cheaper handlers, or more cores")
    if processor.idle >= processor.gil:
        return _starved(point, processor)
    return Reason("GIL-bound", said, "cheaper handlers, or a free-threaded Python")


def _cores(point: Point) -> tuple[float, float]:
    """How many cores the threads that run handlers took, and how many they wanted."""
    shares = [(share, point.threads[role]) for role, share in point.shares.items() if role not in OTHERS]
    running = sum(share.running * number for share, number in shares)
    return running, running + sum(share.core * number for share, number in shares)


def _fills_one(processor: Shares, running: float, wanted: float) -> bool:
    """Whether one core is what they take together, or want. Many threads that mostly wait are each late for a core now and
    then: together that does not say that it was full."""
    low, high = ONE_CORE
    return low <= running <= high or (processor.blocked < MUCH and low <= wanted <= high)


def _held(point: Point) -> bool:
    """Whether they hold the GIL while they run. Those that hold it for long keep the thread waiting that watches the
    pipeline, which wakes up some fifty times a second; those that hold it shortly and often keep one another waiting."""
    watching = point.shares.get("MainThread")
    queue = sum(share.gil * point.threads[role] for role, share in point.shares.items() if role not in OTHERS)
    return watching is None or watching.gil >= KEPT_WAITING or queue >= QUEUE


def _held_up(point: Point, processor: Shares) -> Reason | None:
    """Most processors wait, because others do not keep up."""
    batch = [(role, share) for role, share in point.busiest.items() if role.startswith("batch_processor")]
    if batch:
        role, share = min(batch, key=lambda one: one[1].idle)
        if share.idle <= 1 - FULL:
            name = role.removeprefix("batch_processor").strip("_")
            return Reason("batcher-bound", f"a batch processor of {name!r} is busy for {1 - share.idle:.0%} of its time "
                          f"(waiting for something outside for {share.blocked:.0%}), processors wait for work for "
                          f"{processor.idle:.0%} of theirs",
                          "give the batcher more concurrency if its batches have several keys, or larger batches")
    for role, who in (("processor", "one of the processors"), ("partitioner", "the partitioner")):
        share = point.busiest.get(role, processor)
        if share.idle <= 1 - FULL:
            return Reason("partition-bound", f"{who} is busy for {1 - share.idle:.0%} of its time, while in the mean all "
                          f"processors wait for work for {processor.idle:.0%}", "keys that spread the messages more evenly")
    return None


def _starved(point: Point, processor: Shares) -> Reason:
    """Processors wait, and nobody else holds them up."""
    reader = point.shares.get("reader", Shares())
    said = f"processors wait for work for {processor.idle:.0%} of their time"
    busy = point.server_idle is not None and point.server_idle < FEED_BUSY
    if reader.running >= FULL or point.paused >= PAUSED:
        return Reason("ring-bound", f"{said}, while the reader runs for {reader.running:.0%} of its, and the pipeline is "
                      f"full at {point.paused:.0%} of the looks",
                      "several producers; a larger max_queue only where it is what is recommended here")
    return Reason("feed-bound", f"{said}, and the pipeline is hardly ever full ({point.paused:.0%} of the looks)"
                  + ("; the feed was never idle" if busy else ""),
                  "nothing here: the pipeline takes all that comes; fewer processors do as well")
