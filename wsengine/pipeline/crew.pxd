# The design page of crew: what the processors of one pipeline share.
#
# Belongs here: the sources, the callbacks, the bounds and the counters that more than one processor looks at. Does not:
# what a processor does with them (processor), nor a chunk in hand (chunk).
from libc.stdint cimport int64_t
from libcpp.atomic cimport atomic
from libcpp.vector cimport vector
from wsengine.engine.ring cimport Account, CRing, Parker

cdef class Crew:
    # What the processors of one pipeline share. Fixed before they start, but for the atomics.
    cdef readonly Parker parker
    cdef readonly Account account
    cdef readonly object pipeline    # callbacks are its methods
    cdef readonly str name
    cdef readonly int concurrency, min_demand, max_demand
    cdef readonly list rings         # of (Ring, origin, transformer)
    cdef vector[CRing*] slabbed      # the same rings, for who has no GIL
    cdef readonly list inboxes       # of Inbox
    cdef readonly int64_t spin_ns
    cdef atomic[int]* busy           # processors with a chunk; each its own plus and minus
    cdef atomic[int]* ending         # 1: leave once there is nothing to claim; drain stores release, processors acquire
    cdef atomic[int]* closed         # 1: claim nothing more; drain stores release, processors acquire
    cdef atomic[int]* askers         # threads that wait for demand; they plus and minus
    cdef object handler, chunk_handler, prepare, on_failed   # callbacks, None where there is none
    cdef object log_failure
    cdef choose_lead(self)
    cdef bint ready(self)
    cdef bint ring_ready(self) noexcept nogil
