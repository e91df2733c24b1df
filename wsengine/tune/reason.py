"""Why a pipeline is not faster at a setting: the one thing that is used up, told by the measured shares of threads' time.

    batcher-bound  processors wait, because all batch processors are busy and the batchers ask for no more
    feed-bound     processors wait, and the pipeline is never full: nothing more comes
    ring-bound     processors wait, although more would come: the reader, or a queue that is too small, sets the pace
    GIL-bound      the threads that run Python fill one core together; without a GIL: CPU-bound, all cores are full
    I/O-bound      handlers wait for something outside most of their time
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from wsengine.tune.shares import Shares

if TYPE_CHECKING:
    from wsengine.tune.setting import Point

__all__ = ["Reason", "reason_of"]

#: Shares from which on a thread, or a core, is said to be used up, and processors to be waiting.
FULL, WAITING, MUCH = 0.85, 0.5, 0.5
#: Below it the feed was never idle.
FEED_BUSY = 0.05
#: From this share of looks on a pipeline is said to be full.
PAUSED = 0.1
#: Roles whose threads run the user's Python.
PYTHON = ("processor", "batch_processor", "dispatcher", "partitioner")


@dataclass(frozen=True, slots=True)
class Reason:
    """What a pipeline is bound by, the figures that say so, and what would help."""

    bound: str
    evidence: str
    remedy: str


def reason_of(point: Point, *, gil: bool, cores: int) -> Reason:
    """The reason at a point.

    Args:
        point: with shares.
        gil: whether the interpreter has one. cores: of the machine.
    """
    processor = point.shares.get("processor", Shares())
    if not point.shares:
        return Reason("unknown", "this system does not show what threads wait for", "measure on Linux")
    batch = next((share for role, share in point.shares.items() if role.startswith("batch_processor")), None)
    if processor.idle >= WAITING:
        if batch is not None and batch.idle <= 1 - FULL:
            return Reason("batcher-bound", f"batch processors are busy for {1 - batch.idle:.0%} of their time (waiting for "
                          f"something outside for {batch.blocked:.0%}), processors wait for {processor.idle:.0%} of theirs",
                          "give the batcher more concurrency, or larger batches")
        return _starved(point, processor)
    python = sum(share.running * point.threads[role] for role, share in point.shares.items() if _runs_python(role))
    said = (f"processors run for {processor.running:.0%} of their time, wait for a core for {processor.core:.0%}, for the "
            f"GIL for {processor.gil:.0%}, for something outside for {processor.blocked:.0%}, for work for "
            f"{processor.idle:.0%}")
    room = 1.0 if gil else float(cores)
    if processor.blocked >= MUCH and python < FULL * room:
        return Reason("I/O-bound", said, "more processors, as long as what they wait for bears it")
    if gil:
        return Reason("GIL-bound", f"{said}; together the threads that run Python take {python:.0%} of one core",
                      "cheaper handlers, handle_messages in place of handle_message, or a free-threaded Python: more "
                      "processors add nothing")
    return Reason("CPU-bound", f"{said}; together they take {python / cores:.0%} of {cores} cores",
                  "cheaper handlers, or more cores")


def _starved(point: Point, processor: Shares) -> Reason:
    """Processors wait, and it is not the batchers."""
    reader = point.shares.get("reader", Shares())
    said = f"processors wait for work for {processor.idle:.0%} of their time"
    busy = point.server_idle is not None and point.server_idle < FEED_BUSY
    if reader.running >= FULL or point.paused >= PAUSED:
        return Reason("ring-bound", f"{said}, while the reader runs for {reader.running:.0%} of its, and the pipeline is "
                      f"full at {point.paused:.0%} of the looks", "a larger max_queue, or several producers")
    return Reason("feed-bound", f"{said}, and the pipeline is hardly ever full ({point.paused:.0%} of the looks)"
                  + ("; the feed was never idle" if busy else ""),
                  "nothing here: the pipeline takes all that comes; fewer processors do as well")


def _runs_python(role: str) -> bool:
    return role.startswith(PYTHON)
