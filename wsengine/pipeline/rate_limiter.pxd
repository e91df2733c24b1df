# The design page of rate_limiter: how many messages may be claimed now.
#
# Belongs here: allowances that come with time, taken and given back by any thread. Does not: who claims, and how long
# they wait (processor). A pure function of `now`, but for the lock.
cimport cython
from libc.stdint cimport int64_t

cdef class RateLimiter:
    cdef cython.pymutex lock         # over all that follows
    cdef double allowed              # messages an interval
    cdef double interval_ns
    cdef bint windowed               # all at the beginning of an interval; else evenly
    cdef double left                 # allowances that there are; below 0 after an update that allows less
    cdef int64_t at_ns               # when that was; windowed: when the interval began
    cdef object coming               # (allowed, interval_ns) from the next interval on, or None

    # Up to `most` allowances, 0 if there is none.
    cdef Py_ssize_t take(self, Py_ssize_t most, int64_t now)
    # Allowances that were not used.
    cdef give(self, Py_ssize_t n)
    # How long until it is worth asking again; 0: now.
    cdef int64_t pause_ns(self, int64_t now)
    cdef advance(self, int64_t now)
