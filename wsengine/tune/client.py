"""The user's pipeline at one setting, in a process of its own: `python -m wsengine.tune.client JSON`.

It tells its parent of itself on a pipe whose number it is given, a line of JSON each: its threads, once they are there and
the measuring begins; what came of it. Or, where it is only to be seen whether there is such a pipeline, that. What handlers
print goes to standard error. It ends with its parent.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import platform
import sys
import threading
import time
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from wsengine import telemetry
from wsengine.errors import ConfigurationError
from wsengine.event_counter import EventCounter
from wsengine.tune.target import handled_in_a_loop, load, producer_for, without_starts

if TYPE_CHECKING:
    from collections.abc import Callable

    from wsengine.pipeline.pipeline import Pipeline

__all__ = ["distribution_version", "has_gil", "main", "runtime_addresses"]

#: Seconds between looks at the pipeline.
LOOK = 0.02
#: From this share of failed messages on, a setting is not worth comparing.
HOPELESS = 0.99
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


def has_gil() -> bool:
    """Whether there is a GIL in this process now: what a module imports may have brought it back."""
    return bool(getattr(sys, "_is_gil_enabled", lambda: True)())


def distribution_version() -> str:
    """Of the package that is measured; "" where it is not installed."""
    with contextlib.suppress(PackageNotFoundError):
        return version("wsengine")
    return ""


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

    @property
    def by_calls(self) -> bool:
        """Whether calls are counted, and not acknowledgements."""
        return self._calls is not None

    def __call__(self) -> tuple[int, int, int]:
        """Handled, acknowledged, and of these the failed ones."""
        stats = self._pipeline.stats()
        acknowledged = stats.successful + stats.failed
        return acknowledged if self._calls is None else self._calls.value, acknowledged, stats.failed


def busy_by_thread(pipeline: Pipeline) -> dict[str, float]:
    """Seconds that each processor and batch processor had messages in hand, by the end of its thread's name."""
    stats = pipeline.stats()
    found = {f"processor_{one.index}": one.busy_seconds for one in stats.processors}
    for batcher in stats.batchers:
        found |= {f"batch_processor_{batcher.key}_{one.index}": one.busy_seconds for one in batcher.batch_processors}
    return found


class Watch:
    """The figures of a stretch of time. Acknowledgements come in lumps: where those are counted, it is from lump to lump."""

    def __init__(self, pipeline: Pipeline, count: Count) -> None:
        self._pipeline = pipeline
        self._count = count
        self._busy = busy_by_thread(pipeline)
        self._begun = time.monotonic()
        self._first = count()
        self._changes: list[tuple[float, int]] = []

    def run(self, seconds: float) -> dict[str, Any]:
        looks = full = 0
        known = self._first[0]
        while (left := self._begun + seconds - time.monotonic()) > 0:
            time.sleep(min(LOOK, left))
            looks += 1
            full += any(one["paused"] for producer in self._pipeline.stats().producers for one in producer["connections"])
            handled = self._count()[0]
            if handled != known:
                known = handled
                self._changes.append((time.monotonic(), handled))
        return self._result(full / looks)

    def _result(self, paused: float) -> dict[str, Any]:
        now = time.monotonic()
        handled, acknowledged, failed = (after - early for after, early in zip(self._count(), self._first, strict=True))
        took = now - self._begun
        if not handled:
            return {"problem": f"no message was handled in the {took:.1f} s measured; measure longer, by --seconds"}
        share = failed / acknowledged if acknowledged else 0.0
        if share >= HOPELESS:
            return {"problem": f"{share:.0%} of the messages fail"}
        rate = handled / took
        if not self._count.by_calls and len(self._changes) > 2:
            (begin, before), (end, after) = self._changes[0], self._changes[-1]
            rate = (after - before) / (end - begin)
        stats = self._pipeline.stats()
        busy = {name: (seconds - self._busy[name]) / took for name, seconds in busy_by_thread(self._pipeline).items()}
        return {"rate": rate * (1 - share), "failed": share, "latency_p50": stats.latency_p50,
                "latency_p99": stats.latency_p99, "paused": paused, "busy": busy}


class Client:
    """One setting, or only the look whether the pipeline is there; `tell` takes what the parent is to know."""

    def __init__(self, given: dict[str, Any], tell: Callable[..., None]) -> None:
        self._given = given
        self._tell = tell

    def run(self) -> None:
        given = self._given
        try:
            with without_starts():
                pipeline = load(given["target"], given["kind"])
            if given["url"] is None:
                self._tell(found=True, chunks=pipeline.handle_messages is not None, gil=has_gil(),
                           python=platform.python_version(), version=distribution_version())
                return
            if given["loop"]:
                handled_in_a_loop(pipeline)
            pipeline._wsengine_instead(producer_for(pipeline, given["url"], ours=given["ours"]), **given["setting"])
        except ConfigurationError as error:
            self._tell(refused=[error.path, str(error.value), error.remedy], problem=str(error))
            return
        pipeline.start()
        self._measure(pipeline)

    def _measure(self, pipeline: Pipeline) -> None:
        given, count = self._given, Count(pipeline)
        until = time.monotonic() + given["patience"]
        while not count()[0]:
            if time.monotonic() > until:
                failed = count()[2]
                self._tell(problem=f"no message was handled within {given['patience']:g} s" if not failed else
                           "messages fail before their handler is called")
                return
            time.sleep(0.01)
        time.sleep(given["warmup"])
        self._tell(threads={one.native_id: one.name for one in threading.enumerate() if one.native_id is not None},
                   runtime=runtime_addresses() if sys.platform == "linux" else (0, 0),
                   gil=has_gil())
        self._tell(**Watch(pipeline, count).run(given["seconds"]))
        time.sleep(given["patience"])            # its parent takes a last look, and ends it


def end_with_parent() -> None:
    """Standard input ends when the parent does, however that came."""
    sys.stdin.buffer.read()
    os._exit(1)


def main() -> None:
    given = json.loads(sys.argv[1])
    os.set_inheritable(given["report"], False)   # whatever the handler starts is not to hold it open
    threading.Thread(target=end_with_parent, name="end", daemon=True).start()
    os.dup2(2, 1)
    sys.path[:0] = given["path"]
    with os.fdopen(given["report"], "w", encoding="ascii", buffering=1) as report:
        Client(given, lambda **what: print(json.dumps(what), file=report)).run()
    os._exit(0)                                  # a handler may hang, and nothing that is left has to be handled


if __name__ == "__main__":
    main()
