"""The control block of one place for a connection, seen from Python: its generation is begun and ended here, its figures read.

The block itself, with who writes what and in which order, is in control.hpp.
"""
from libc.stdint cimport int64_t, uint32_t
from libcpp.atomic cimport memory_order_relaxed


cdef class ControlBlock:
    """The control block of one place for a connection: its figures, read at any time from any thread."""

    def __cinit__(self):
        self.c = new Control()

    def __dealloc__(self):
        del self.c

    def begin(self, uint32_t epoch, *, double keepalive, double ws_timeout, double pong_timeout,
              double close_timeout) -> None:
        """Publish a new generation to timer and reader; seconds, 0 is off. The supervisor only."""
        self.c.keepalive_ns.store(<int64_t>(keepalive * 1e9), memory_order_relaxed)
        self.c.ws_timeout_ns.store(<int64_t>(ws_timeout * 1e9), memory_order_relaxed)
        self.c.pong_timeout_ns.store(<int64_t>(pong_timeout * 1e9), memory_order_relaxed)
        self.c.close_timeout_ns.store(<int64_t>(close_timeout * 1e9), memory_order_relaxed)
        self.c.begin(epoch)

    def end(self) -> None:
        """Take the generation back: nothing is watched any more. The supervisor only."""
        self.c.end()

    @property
    def round_trip(self):
        """Seconds from the newest answered ping to its pong; None before the first."""
        cdef int64_t ns = self.c.round_trip_ns.load(memory_order_relaxed)
        return None if ns < 0 else ns / 1e9

    def measured(self, double seconds) -> None:
        """A ping of the user's has been answered; of the present generation. The thread that takes the reader's notes."""
        self.c.round_trip_ns.store(<int64_t>(seconds * 1e9), memory_order_relaxed)

    @property
    def paused(self) -> bool:
        """Whether the connection is not read at the moment, because the pipeline is full."""
        return self.c.paused.load(memory_order_relaxed) != 0

    @property
    def heard_ns(self) -> int:
        return self.c.heard_ns.load(memory_order_relaxed)

    def counts(self) -> dict:
        """Messages, payload bytes, bytes parsed as they came on the wire, frames, discarded messages, pauses and pings heard
        over all generations, and the pings sent in the present one."""
        return {
            "messages": self.c.messages.load(memory_order_relaxed),
            "bytes": self.c.bytes.load(memory_order_relaxed),
            "wire_bytes": self.c.wire_bytes.load(memory_order_relaxed),
            "frames": self.c.frames.load(memory_order_relaxed),
            "discarded": self.c.discarded.load(memory_order_relaxed),
            "dropped": self.c.dropped.load(memory_order_relaxed),
            "pauses": self.c.pauses.load(memory_order_relaxed),
            "pings_heard": self.c.pings_heard.load(memory_order_relaxed),
            "pings_sent": self.c.ping_number.load(memory_order_relaxed),
        }
