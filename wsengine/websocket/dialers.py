"""A pool of at most eight dialer threads: attempts queue here, so that a mass of reconnects stays bounded.

A thread lives while there are attempts. What an attempt does is `dial`; what becomes of it is the supervisor's matter.
"""

from __future__ import annotations

import errno
import threading
from collections import deque
from typing import TYPE_CHECKING

from wsengine.engine.threads import exiting, spawn
from wsengine.websocket.deadline import Cancelled

if TYPE_CHECKING:
    from collections.abc import Callable

    from wsengine.websocket.dial import Dialed

__all__ = ["MOST", "Dialers"]

MOST = 8


class Dialers:
    """Runs attempts; thread-safe.

    Args:
        name: of the producer, for thread names.
        attempt: called in a dialer thread with (index, epoch); returns a Dialed or raises.
        done: called in a dialer thread with (index, epoch, Dialed or the exception).
    """

    def __init__(self, name: str, attempt: Callable[[int, int], Dialed],
                 done: Callable[[int, int, Dialed | BaseException], None]) -> None:
        self._name = name
        self._attempt = attempt
        self._done = done
        self._lock = threading.Lock()
        self._waiting: deque[tuple[int, int]] = deque()
        self._threads: list[threading.Thread] = []
        self._live = 0

    def dial(self, index: int, epoch: int) -> None:
        """Queue an attempt. At interpreter exit none starts: it is done with Cancelled.

        Where the system gives no thread and none of ours lives, it is done with an OSError, here and now: a failed attempt
        like any other, after which the retry policy says when to ask again.
        """
        if exiting():
            self._done(index, epoch, Cancelled())
            return
        with self._lock:
            self._waiting.append((index, epoch))
            if self._live >= MOST:
                return
            self._threads = [thread for thread in self._threads if thread.is_alive()]
            try:
                self._threads.append(spawn(f"{self._name}:dialer_{self._live}", self._work))
            except RuntimeError as error:  # out of memory or of processes
                if self._live:  # whoever lives looks at the queue before it ends
                    return
                self._waiting.pop()
                failed = OSError(errno.EAGAIN, f"no thread for the attempt: {error}")
            else:
                self._live += 1  # the thread's own look at it waits for the lock
                return
        self._done(index, epoch, failed)

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._live -= 1
                    return
                index, epoch = self._waiting.popleft()
            try:
                result: Dialed | BaseException = self._attempt(index, epoch)
            except BaseException as error:
                result = error
            self._done(index, epoch, result)

    def join(self, timeout: float) -> list[str]:
        """Wait for the threads; names of those that are still there."""
        for thread in list(self._threads):
            thread.join(timeout)
        return [thread.name for thread in self._threads if thread.is_alive()]
