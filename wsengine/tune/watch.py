"""What is counted of a running pipeline: messages, by calls or by acknowledgements, and the rate of a stretch of time.

Acknowledgements come in lumps, a chunk or a batch at a time, and the lump of a slow handler may take longer than is
measured. So each thread that acknowledges has a rate of its own, from one of its lumps to another, and that of the pipeline
is their sum.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

from wsengine import telemetry
from wsengine.event_counter import EventCounter

if TYPE_CHECKING:
    from wsengine.pipeline.pipeline import Pipeline
    from wsengine.pipeline.stats import BatchProcessorStats, PipelineStats, ProcessorStats

__all__ = ["Count", "Watch"]

#: Seconds between looks at the pipeline.
LOOK = 0.02
#: From this share of failed messages on, a setting is not worth comparing.
HOPELESS = 0.99
#: A thread that has messages in hand for this share of the time is waited for until it has acknowledged twice.
AT_WORK = 0.5


class Counted(NamedTuple):
    """Messages so far: handled; of these, by calls that raised; acknowledged; of these, as failed."""

    handled: int
    raised: int
    acknowledged: int
    failed: int

    def since(self, before: Counted) -> Counted:
        return Counted(*(now - then for now, then in zip(self, before, strict=True)))

    @property
    def share(self) -> float:
        """Of those that failed, by whichever says more: a call that raised is known long before it is acknowledged."""
        return max(self.raised / self.handled if self.handled else 0.0,
                   self.failed / self.acknowledged if self.acknowledged else 0.0)


class Count:
    """How many messages a pipeline has handled.

    Where handle_message ends a message's way, its calls are counted. It is made before the pipeline starts, as a chunk whose
    first call was not counted is not counted at all; `began` is called when it has started.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._returned, self._raised = EventCounter(), EventCounter()
        self.by_calls = pipeline.handle_message is not None
        if self.by_calls:
            telemetry.attach(self, telemetry.MESSAGE_STOP, self._returned)
            telemetry.attach(self._raised, telemetry.MESSAGE_EXCEPTION, self._raised)

    def began(self) -> None:
        """The pipeline has started, and tells whether it has batchers: then messages are handled when those are done."""
        if self.by_calls and self._pipeline.stats().batchers:
            self.by_calls = False
            telemetry.detach(self)
            telemetry.detach(self._raised)

    def __call__(self) -> Counted:
        stats = self._pipeline.stats()
        acknowledged = stats.successful + stats.failed
        if not self.by_calls:
            return Counted(acknowledged, 0, acknowledged, stats.failed)
        raised = self._raised.value
        return Counted(self._returned.value + raised, raised, acknowledged, stats.failed)


class Thread(NamedTuple):
    """Of a processor or batch processor: messages that it has acknowledged, and seconds that it had some in hand."""

    acknowledged: int
    busy: float


def by_thread(stats: PipelineStats) -> dict[str, Thread]:
    """All of them by the end of their threads' names."""
    found: dict[str, ProcessorStats | BatchProcessorStats] = {f"processor_{one.index}": one for one in stats.processors}
    for batcher in stats.batchers:
        found |= {f"batch_processor_{batcher.key}_{one.index}": one for one in batcher.batch_processors}
    return {name: Thread(one.successful + one.failed, one.busy_seconds) for name, one in found.items()}


class Lumps:
    """What one thread acknowledges: when a lump came first and last, and how much it had acknowledged by then."""

    def __init__(self, at: float, count: int) -> None:
        self.begun, self.count = (at, count), count
        self.first: tuple[float, int] | None = None
        self.last: tuple[float, int] | None = None

    def look(self, at: float, count: int) -> None:
        """It has acknowledged so many by now."""
        if count != self.count:
            self.count = count
            self.first, self.last = self.first or (at, count), (at, count)

    @property
    def enough(self) -> bool:
        """Whether one lump has come behind another."""
        return self.first != self.last

    def rate(self, now: float, *, at_work: bool) -> float:
        """Messages a second: from lump to lump of a thread that always has work, else over all of the time."""
        if at_work and self.first is not None and self.last is not None and self.enough:
            return (self.last[1] - self.first[1]) / (self.last[0] - self.first[0])
        return (self.count - self.begun[1]) / (now - self.begun[0])


class Watch:
    """The figures of a stretch of time, which begins when this is made."""

    def __init__(self, pipeline: Pipeline, count: Count) -> None:
        self._pipeline = pipeline
        self._count = count
        self._first = count()
        self._begun = time.monotonic()
        self._before = by_thread(pipeline.stats())
        self._lumps = {name: Lumps(self._begun, one.acknowledged) for name, one in self._before.items()}

    def run(self, seconds: float, patience: float) -> dict[str, Any]:
        """Look for so long, and for `patience` longer at the most until enough has been acknowledged; the fields of a point,
        or its problem."""
        looks = full = 0
        while (left := self._left(seconds, patience)) > 0:
            time.sleep(min(LOOK, left))
            looks += 1
            stats = self._pipeline.stats()
            full += any(one["paused"] for producer in stats.producers for one in producer["connections"])
            now = time.monotonic()
            for name, one in by_thread(stats).items():
                if name in self._lumps:
                    self._lumps[name].look(now, one.acknowledged)
        return self._result(full / looks)

    def _left(self, seconds: float, patience: float) -> float:
        """Until the end: of `seconds`, or behind those, as long as a thread at work has not acknowledged twice."""
        gone = time.monotonic() - self._begun
        if gone < seconds or self._count.by_calls:
            return seconds - gone
        shares = self._shares(gone)
        waited_for = [one for name, one in self._lumps.items() if shares.get(name, 0.0) >= AT_WORK and not one.enough]
        return min(LOOK, seconds + patience - gone) if waited_for else 0.0

    def _shares(self, gone: float) -> dict[str, float]:
        """Of the time, for which each thread had messages in hand."""
        now = by_thread(self._pipeline.stats())
        return {name: (now[name].busy - before.busy) / gone for name, before in self._before.items() if name in now}

    def _result(self, paused: float) -> dict[str, Any]:
        now = time.monotonic()
        took = now - self._begun
        counted = self._count().since(self._first)
        if not counted.handled:
            return {"problem": f"no call of the handler has ended in the {took:.1f} s measured: it hangs, or takes longer; "
                               "give more by --seconds if it does", "late": True}
        if counted.share >= HOPELESS:
            return {"problem": f"{counted.share:.0%} of the messages fail"}
        shares = self._shares(took)
        rate = counted.handled / took
        if not self._count.by_calls:
            rate = sum(one.rate(now, at_work=shares.get(name, 0.0) >= AT_WORK) for name, one in self._lumps.items())
        stats = self._pipeline.stats()
        known = stats.latency_p99 > 0            # where nothing has been acknowledged yet, nothing is known
        return {"rate": rate * (1 - counted.share), "failed": counted.share, "paused": paused, "busy": shares,
                "latency_p50": stats.latency_p50 if known else None, "latency_p99": stats.latency_p99 if known else None}
