"""Looking at the threads of another process, by what Linux shows of them below /proc; elsewhere nothing can be seen.

Looks cost the machine time that the other process may want: they are spaced so that they take a few percent of one core.
"""

from __future__ import annotations

import contextlib
import os
import platform
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING

from wsengine.tune.shares import FUTEX, Looks, classified

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType
    from typing import Self

__all__ = ["Sampler", "can_look"]

#: Of a core that looking may take.
COST = 0.03
#: Seconds between rounds of looks at the least.
LEAST = 0.002


def can_look(pid: int) -> bool:
    """Whether this system shows what the threads of that process wait for, and we know its numbers."""
    try:
        with open(f"/proc/{pid}/task/{pid}/syscall", encoding="ascii") as file:
            return bool(file.read()) and platform.machine() in FUTEX
    except OSError:
        return False


class Sampler:
    """Looks at threads for as long as its `with` lasts.

    Args:
        pid: of their process. threads: names by the system's numbers of the threads. runtime: see `classified`.
    """

    def __init__(self, pid: int, threads: Mapping[int, str], runtime: range) -> None:
        self._folder = f"/proc/{pid}/task"
        self._threads = dict(threads)
        self._runtime = runtime
        self._machine = platform.machine()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampling", daemon=True)
        #: What was seen of each thread; complete behind the `with`.
        self.looks = {number: Looks(Counter()) for number in threads}
        self._before: dict[int, tuple[float, float]] = {}
        self._ended: set[int] = set()
        self._began = 0.0

    def __enter__(self) -> Self:
        self._before = {number: self._counted(number) for number in self._threads}
        self._began = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()
        seconds = time.monotonic() - self._began
        for number, looks in self.looks.items():
            ran, ready = self._counted(number)
            looks.ran, looks.ready = ran - self._before[number][0], ready - self._before[number][1]
            looks.seconds = seconds

    def named(self) -> list[tuple[str, Looks]]:
        """The same with the names of the threads, of those that were there all the time."""
        return [(name, self.looks[number]) for number, name in self._threads.items()
                if self.looks[number].states and number not in self._ended]

    def _run(self) -> None:
        files: dict[int, int] = {}
        try:
            for number in self._threads:
                with contextlib.suppress(OSError):   # it has ended meanwhile
                    files[number] = os.open(f"{self._folder}/{number}/syscall", os.O_RDONLY)
            while True:
                begun = time.thread_time()
                for number, file in files.items():
                    self._look(number, file)
                if self._over.wait(max((time.thread_time() - begun) / COST, LEAST)):
                    return
        finally:
            for file in files.values():
                os.close(file)

    def _look(self, number: int, file: int) -> None:
        try:
            line = os.pread(file, 256, 0).decode("ascii")
        except OSError:                      # the thread has ended
            return
        self.looks[number].states[classified(line, self._machine, self._runtime)] += 1

    def _counted(self, number: int) -> tuple[float, float]:
        """Seconds that the thread has run, and that it was ready and had to wait for a core."""
        try:
            with open(f"{self._folder}/{number}/schedstat", encoding="ascii") as file:
                ran, ready, _ = file.read().split()
        except OSError:
            self._ended.add(number)
            return self._before.get(number, (0.0, 0.0))
        return int(ran) / 1e9, int(ready) / 1e9
