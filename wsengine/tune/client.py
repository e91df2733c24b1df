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
import signal
import sys
import threading
import time
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from wsengine.errors import ConfigurationError
from wsengine.testing.fault import Fault
from wsengine.tune.reach import Reach
from wsengine.tune.target import handled_in_a_loop, load, producer_for
from wsengine.tune.watch import Count, Watch

if TYPE_CHECKING:
    from collections.abc import Callable

    from wsengine.pipeline.pipeline import Pipeline

__all__ = ["distribution_version", "has_gil", "main", "runtime_addresses"]

#: PR_SET_PDEATHSIG of <linux/prctl.h>.
SIGNAL_AT_END_OF_PARENT = 1
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


class Client:
    """One setting, or only the look whether the pipeline is there; `tell` takes what the parent is to know."""

    def __init__(self, given: dict[str, Any], tell: Callable[..., None]) -> None:
        self._given = given
        self._tell = tell
        self._fault = Fault()

    def run(self) -> None:
        given = self._given
        reach = Reach(connections=not given["ours"])
        try:
            reach.begin()
            pipeline = load(given["target"], given["kind"])
            if given["url"] is None:
                self._tell(found=True, chunks=pipeline.handle_messages is not None, gil=has_gil(),
                           python=platform.python_version(), version=distribution_version())
                return
            if given["loop"]:
                handled_in_a_loop(pipeline)
            producer = producer_for(pipeline, given["url"], self._fault, ours=given["ours"])
            pipeline._wsengine_instead(producer, **given["setting"])
        except ConfigurationError as error:
            self._tell(refused=[error.path, str(error.value), error.remedy], problem=str(error))
            return
        reach.allow(pipeline)
        count = Count(pipeline)
        pipeline.start()
        count.began()
        self._measure(pipeline, count)

    def _measure(self, pipeline: Pipeline, count: Count) -> None:
        given = self._given
        until = time.monotonic() + given["patience"]
        while not count().handled:
            if self._fault.error is not None or time.monotonic() > until:
                self._tell(problem=self._why_nothing(count), late=not count().failed and self._fault.error is None)
                return
            time.sleep(0.01)
        time.sleep(given["warmup"])
        self._tell(threads={one.native_id: one.name for one in threading.enumerate() if one.native_id is not None},
                   runtime=runtime_addresses() if sys.platform == "linux" else (0, 0),
                   gil=has_gil())
        self._tell(**Watch(pipeline, count).run(given["seconds"], given["patience"]))
        time.sleep(given["patience"])            # its parent takes a last look, and ends it

    def _why_nothing(self, count: Count) -> str:
        if self._fault.error is not None:
            return self._fault.said()
        if count().failed:
            return "messages fail before their handler is called"
        return f"no message was handled within {self._given['patience']:g} s; give more by --patience if one takes longer"


def end_with_parent(parent: int) -> None:
    """Have this process end when its parent does, however that came. Linux does it also while a handler holds the GIL;
    elsewhere standard input ends with the parent."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(SIGNAL_AT_END_OF_PARENT, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
    threading.Thread(target=_end_with_input, name="end", daemon=True).start()


def _end_with_input() -> None:
    sys.stdin.buffer.read()
    os._exit(1)


def main() -> None:
    given = json.loads(sys.argv[1])
    end_with_parent(given["parent"])
    os.set_inheritable(given["report"], False)   # whatever the handler starts is not to hold it open
    os.dup2(2, 1)
    sys.path[:0] = given["path"]
    with os.fdopen(given["report"], "w", encoding="ascii", buffering=1) as report:
        Client(given, lambda **what: print(json.dumps(what), file=report)).run()
    os._exit(0)                                  # a handler may hang, and nothing that is left has to be handled


if __name__ == "__main__":
    main()
