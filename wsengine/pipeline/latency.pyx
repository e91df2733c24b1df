"""Times of messages in classes that grow with them, as HdrHistogram keeps them (Gil Tene): constant memory, one addition a
run of messages, and a percentile that is right to an eighth."""
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memset
from wsengine.engine.ring cimport monotonic_ns
from wsengine.message cimport Message

cdef extern from *:
    """
    static inline int ws_octave(unsigned long long value) { return 63 - __builtin_clzll(value); }
    """
    int ws_octave(uint64_t value) nogil

cdef extern from "Python.h":
    ctypedef struct PyObject:
        pass
    PyObject* PyList_GET_ITEM(object list, Py_ssize_t i)


cdef note_latency(Latency latency, list messages):
    cdef Py_ssize_t i, n = len(messages)
    cdef int64_t received = 0, now
    cdef uint64_t run = 0
    cdef Message message
    if n == 0:
        return
    now = monotonic_ns()
    for i in range(n):
        message = <Message>PyList_GET_ITEM(messages, i)
        if message.received_ns != received:      # messages of one read have the same time
            if received:
                latency.note(now - received, run)
            received = message.received_ns
            run = 0
        run += 1
    if received:
        latency.note(now - received, run)


cdef class Latency:
    """How long messages took. `note` is called by one thread."""

    def __cinit__(self):
        memset(self.counts, 0, sizeof(self.counts))

    cdef void note(self, int64_t ns, uint64_t messages) noexcept nogil:
        cdef uint64_t value = <uint64_t>max(ns, 8)
        cdef int octave = ws_octave(value)
        self.counts[octave * 8 + <int>((value >> (octave - 3)) & 7)] += messages

    def count(self, int64_t ns, uint64_t messages=1) -> None:
        """Count so many messages that took so many nanoseconds."""
        self.note(ns, messages)

    def add(self, Latency other not None) -> None:
        """Add what another has counted."""
        cdef int i
        for i in range(CLASSES):
            self.counts[i] += other.counts[i]

    @property
    def total(self) -> int:
        """Messages counted."""
        cdef int i
        cdef uint64_t total = 0
        for i in range(CLASSES):
            total += self.counts[i]
        return total

    def percentile(self, double share) -> float:
        """Nanoseconds that this share of the messages, 0 to 1, took at the most, give or take the width of a class; 0.0 if
        none has been counted."""
        cdef uint64_t wanted, seen = 0
        cdef int i, octave
        cdef uint64_t total = self.total
        if total == 0:
            return 0.0
        wanted = max(<uint64_t>(share * total + 0.999999), <uint64_t>1)
        for i in range(CLASSES):
            seen += self.counts[i]
            if seen >= wanted:
                octave = i // 8
                return 2.0 ** octave * (1 + (i % 8 + 0.5) / 8)
        return 0.0
