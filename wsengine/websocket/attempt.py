"""One attempt on its way: the phase it is in, what it has tried, and the one wait that all its phases go through.

Here belongs what every phase shares. What ends a wait stands in deadline, what a phase does in its own file (addresses,
racing, channel, proxy, dial).
"""

from __future__ import annotations

import math
import select
from contextlib import contextmanager
from typing import TYPE_CHECKING

from wsengine.websocket.deadline import Cancelled, Deadline

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from wsengine.websocket.deadline import Cancellation

__all__ = ["Attempt"]

# poll() takes its time-out as a C int of milliseconds; a longer wait is taken in slices.
LONGEST_POLL_MS = 3_600_000


class Attempt:
    """What the phases of one dial share. Used by one thread.

    Attributes:
        deadline: of the whole attempt.
        phase: what it is doing, for errors.
        peer: with whom, as host:port; the proxy's while it is talked to.
        notes: the addresses that failed so far, each with the reason.
        timings: seconds of each phase; 0 of those that there were not.
    """

    def __init__(self, peer: str, open_timeout: float | None, cancellation: Cancellation | None) -> None:
        self.deadline = Deadline(open_timeout)
        self.phase = "the headers callable"
        self.peer = peer
        self.notes: list[str] = []
        self.timings = dict.fromkeys(("dns", "tcp", "proxy", "tls", "upgrade", "total"), 0.0)
        self._open_timeout = open_timeout
        self._cancellation = cancellation

    @contextmanager
    def timed(self, name: str, phase: str) -> Iterator[None]:
        """Be in a phase, and add its seconds to a timing."""
        self.phase = phase
        before = self.deadline.elapsed
        try:
            yield
        finally:
            self.timings[name] += self.deadline.elapsed - before

    def check(self) -> None:
        """Raise if the dial is cancelled or out of time."""
        if self._cancellation is not None and self._cancellation.cancelled:
            raise Cancelled(f"cancelled during {self.phase} (to {self.peer})")
        if self.deadline.expired:
            notes = f"; before: {'; '.join(self.notes)}" if self.notes else ""
            raise TimeoutError(f"timed out during {self.phase} to {self.peer} after {self.deadline.elapsed:.1f} s "
                               f"(open_timeout={self._open_timeout}){notes}")

    def wait(self, fd: int, events: int, limit: Deadline | None = None) -> bool:
        """Wait until a poll reports `fd`; False if `limit` expires first. Raises as `check`."""
        return bool(self.wait_any({fd: events}, limit))

    def wait_any(self, interests: Mapping[int, int], limit: Deadline | None = None) -> list[int]:
        """Wait until a poll reports one of the descriptors for its events; none if `limit` expires first."""
        poller = select.poll()
        for fd, events in interests.items():
            poller.register(fd, events)
        if self._cancellation is not None:
            poller.register(self._cancellation.fileno(), select.POLLIN)
        while True:
            self.check()
            if limit is not None and limit.expired:
                return []
            ready = poller.poll(self._milliseconds(limit))
            found = [fd for fd, _ in ready if fd in interests]
            if found:
                self.check()
                return found

    def _milliseconds(self, limit: Deadline | None) -> int | None:
        deadlines = (self.deadline,) if limit is None else (self.deadline, limit)
        times = [one for one in (each.remaining() for each in deadlines) if one is not None]
        # Rounded up: rounding down would poll without waiting through the last millisecond.
        return min(math.ceil(min(times) * 1000), LONGEST_POLL_MS) if times else None
