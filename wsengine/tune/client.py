"""The user's pipeline at one setting, in a process of its own: `python -m wsengine.tune.client JSON`.

It tells its parent of itself on a pipe whose number it is given, a line of JSON each: its threads, once they are there; that
the measuring begins; what came of it. What handlers print goes to standard error.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from wsengine import telemetry
from wsengine.event_counter import EventCounter
from wsengine.testing.peers.window import role_of
from wsengine.tune.target import load
from wsengine.websocket.producer import WebSocketProducer

if TYPE_CHECKING:
    from wsengine.pipeline.pipeline import Pipeline

__all__ = ["main", "runtime_addresses"]

#: Seconds between looks at whether the pipeline is full.
LOOK = 0.02
#: Bytes that the interpreter's runtime may have at the most.
LARGEST_RUNTIME = 2**21


def runtime_addresses() -> tuple[int, int]:
    """Where the interpreter's runtime lies in this process, with its lock; from, to."""
    begin = ctypes.addressof(ctypes.c_char.in_dll(ctypes.pythonapi, "_PyRuntime"))
    end = begin
    with open("/proc/self/maps", encoding="ascii", errors="replace") as maps:
        for line in maps:
            low, high = (int(one, 16) for one in line.split()[0].split("-"))
            if low <= end < high:            # a run of mappings without a gap
                end = high
    return begin, min(end, begin + LARGEST_RUNTIME)


class Count:
    """How many messages a pipeline has handled so far.

    Where handle_message ends a message's way, its calls are counted: acknowledgements come a chunk at a time, and a chunk of
    a slow handler may take as long as is measured.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._calls: EventCounter | None = None
        if pipeline.handle_message is not None and not pipeline.stats().batchers:
            self._calls = EventCounter()
            telemetry.attach_many(self, (telemetry.MESSAGE_STOP, telemetry.MESSAGE_EXCEPTION), self._calls)

    def __call__(self) -> tuple[int, int, int]:
        """Handled, acknowledged, and of these the failed ones."""
        stats = self._pipeline.stats()
        acknowledged = stats.successful + stats.failed
        return acknowledged if self._calls is None else self._calls.value, acknowledged, stats.failed


def watch(pipeline: Pipeline, count: Count, seconds: float) -> dict[str, Any]:
    """The figures of so many seconds."""
    before, begun = count(), time.monotonic()
    looks = full = 0
    while (left := begun + seconds - time.monotonic()) > 0:
        time.sleep(min(LOOK, left))
        looks += 1
        full += any(one["paused"] for producer in pipeline.stats().producers for one in producer["connections"])
    (handled, acknowledged, failed), took = (
        [after - early for after, early in zip(count(), before, strict=True)], time.monotonic() - begun)
    stats = pipeline.stats()
    return {"rate": handled / took, "failed": failed / acknowledged if acknowledged else 0.0,
            "latency_p50": stats.latency_p50, "latency_p99": stats.latency_p99, "paused": full / looks}


def main() -> None:
    given = json.loads(sys.argv[1])
    with os.fdopen(given["report"], "w", encoding="ascii", buffering=1) as report:

        def tell(**what: Any) -> None:
            report.write(json.dumps(what) + "\n")

        os.dup2(2, 1)
        sys.path[:0] = given["path"]
        pipeline = load(given["target"], given["kind"])
        pipeline._wsengine_instead(WebSocketProducer(given["url"], proxy=None), **given["setting"])
        pipeline.start()
        count = Count(pipeline)
        until = time.monotonic() + given["patience"]
        while not count()[0]:
            if time.monotonic() > until:
                tell(problem=f"no message was handled within {given['patience']:g} s")
                os._exit(0)
            time.sleep(0.01)
        tell(threads={one.native_id: role_of(one.name) for one in threading.enumerate() if one.native_id is not None},
             runtime=runtime_addresses() if sys.platform == "linux" else (0, 0),
             gil=getattr(sys, "_is_gil_enabled", lambda: True)(), batchers=bool(pipeline.stats().batchers))
        time.sleep(given["warmup"])
        tell(begun=True)
        tell(**watch(pipeline, count, given["seconds"]))
        time.sleep(given["patience"])            # its parent takes a last look, and ends it
    os._exit(0)                                  # a handler may hang, and nothing that is left has to be handled


if __name__ == "__main__":
    main()
