# The design page of outlet: messages taken from a ring one at a time, as Python's own bytes and strings.
#
# Belongs here: claiming a few ahead, and making an object of each. Does not: waiting (the ring's parker), and who may take
# (websocket). An Outlet belongs to one thread at a time, which is the caller's to see to.
from libc.stdint cimport uint32_t
from wsengine.engine.ring cimport Descriptor, Ring

cdef enum:
    AHEAD = 64                 # messages claimed at a time at the most

cdef class Outlet:
    cdef Ring ring
    cdef Descriptor batch[AHEAD]
    cdef void let_go(self) noexcept
    cdef uint32_t ahead        # messages claimed at a time
    cdef uint32_t at, count    # of those claimed, how many have been handed out, and how many there are
