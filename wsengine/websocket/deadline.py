"""What ends a wait before its time: a deadline that has come, a cancellation from another thread.

Here belongs neither who waits nor for what (dial).
"""

from __future__ import annotations

import math
import os
import threading
import time

__all__ = ["Cancellation", "Cancelled", "Deadline"]


class Cancelled(Exception):
    """The dial was cancelled by its `Cancellation`: no failure of the connection, so not a WebSocketException."""


class Deadline:
    """A point in monotonic time, or none. Immutable, so safe to share between threads.

    Args:
        seconds: from now; None for a deadline that never comes.
    """

    def __init__(self, seconds: float | None) -> None:
        self._start = time.monotonic()
        self._end = math.inf if seconds is None else self._start + seconds

    @property
    def elapsed(self) -> float:
        """Seconds since the deadline was set."""
        return time.monotonic() - self._start

    @property
    def expired(self) -> bool:
        """Whether the time is up."""
        return time.monotonic() >= self._end

    def remaining(self) -> float | None:
        """Return the seconds left, at least 0; None if there is no deadline."""
        return None if self._end == math.inf else max(0.0, self._end - time.monotonic())

    def share(self, parts: int) -> Deadline:
        """Return a deadline after one of `parts` equal parts of the time left; this one itself if there is one part."""
        remaining = self.remaining()
        return self if remaining is None or parts == 1 else Deadline(remaining / parts)


class Cancellation:
    """A one-shot event that a poll can wait for. Thread-safe; one may serve any number of dials.

    Close it when no dial uses it any more; a context manager does.
    """

    def __init__(self) -> None:
        # Re-entrant: a signal handler may cancel while the thread it interrupts is inside `cancel`.
        self._lock = threading.RLock()  # guards the two descriptors
        self._read_fd, self._write_fd = os.pipe()
        self._cancelled = False  # written once, before the byte: whoever sees the byte sees it True

    @property
    def cancelled(self) -> bool:
        """Whether `cancel` was called."""
        return self._cancelled

    def cancel(self) -> None:
        """Cancel every dial that uses this object, now and later; further calls do nothing."""
        with self._lock:
            if not self._cancelled:
                self._cancelled = True
                if self._write_fd >= 0:
                    os.write(self._write_fd, b"\0")

    def fileno(self) -> int:
        """Return a descriptor that is readable from `cancel` on. Never read from it. Raises ValueError once closed."""
        if self._read_fd < 0:
            raise ValueError("this Cancellation is closed")
        return self._read_fd

    def close(self) -> None:
        """Release the descriptors; idempotent."""
        with self._lock:
            descriptors, self._read_fd, self._write_fd = (self._read_fd, self._write_fd), -1, -1
            for fd in descriptors:
                if fd >= 0:
                    os.close(fd)

    def __enter__(self) -> Cancellation:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
