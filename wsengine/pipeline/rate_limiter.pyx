"""The rate limiter of a pipeline: a bucket that fills evenly, or the ancestor's window that is refilled at once.

Its time is given by whoever asks, so that it can be tested by the nanosecond.
"""
from libc.math cimport ceil
from libc.stdint cimport int64_t
from wsengine.engine.ring cimport monotonic_ns

cdef double GRAIN_NS = 1000000.0         # allowances that come faster are waited for by the millisecond


cdef class RateLimiter:
    """Allowances for messages. Thread-safe.

    Args:
        allowed, interval, windowed: as in `RateLimiting`; seconds.
        now: of the monotonic clock, nanoseconds; None reads it.
    """

    def __cinit__(self, double allowed, double interval, bint windowed, now=None):
        self.allowed = self.left = allowed
        self.interval_ns = interval * 1e9
        self.windowed = windowed
        self.at_ns = monotonic_ns() if now is None else now

    cdef Py_ssize_t take(self, Py_ssize_t most, int64_t now):
        cdef Py_ssize_t n
        with self.lock:
            self.advance(now)
            n = <Py_ssize_t>min(<double>most, max(self.left, 0.0))
            self.left -= n
        return n

    cdef give(self, Py_ssize_t n):
        with self.lock:
            self.left = min(self.left + n, self.allowed)

    cdef int64_t pause_ns(self, int64_t now):
        cdef double each, wanted
        with self.lock:
            self.advance(now)
            if self.left >= 1:
                return 0
            if self.windowed:
                return <int64_t>max(self.at_ns + self.interval_ns - now, 1)
            each = self.interval_ns / self.allowed
            wanted = min(max(1.0, GRAIN_NS / each), self.allowed)
            return <int64_t>max(ceil((wanted - self.left) * each), 1)

    cdef advance(self, int64_t now):
        """Bring what there is up to date. Under the lock."""
        cdef double passed = now - self.at_ns
        if self.windowed:
            if passed >= self.interval_ns:
                self.at_ns += <int64_t>(self.interval_ns * <int64_t>(passed / self.interval_ns))
                if self.coming is not None:
                    self.allowed, self.interval_ns = self.coming
                    self.coming = None
                self.left = self.allowed
        elif passed > 0:
            self.left = min(self.left + self.allowed * passed / self.interval_ns, self.allowed)
            self.at_ns = now

    def update(self, double allowed, double interval, bint reset, now=None) -> None:
        """Allow another number, or for another interval: with `reset` at once and in full; else from the next interval on,
        or for a bucket from now on, with what is in it."""
        cdef int64_t at = monotonic_ns() if now is None else now
        with self.lock:
            self.advance(at)
            if self.windowed and not reset:
                self.coming = (allowed, interval * 1e9)
                return
            self.coming = None
            self.allowed = allowed
            self.interval_ns = interval * 1e9
            self.left = allowed if reset else min(self.left, allowed)
            self.at_ns = at

    def claim(self, Py_ssize_t most, now) -> int:
        """`take`, for tests by the clock of a test."""
        return self.take(most, now)

    def pause(self, now) -> int:
        """`pause_ns`, likewise."""
        return self.pause_ns(now)
