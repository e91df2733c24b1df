# The design page of sources: what a processor claims from, and where it waits for it.
#
# Belongs here: slab rings and inboxes on one parker, charged to one account, with who is busy on what came from them. Does
# not: how a chunk is claimed (processor), what all processors of a pipeline share (crew), nor how messages come here.
# Without partitions all processors have the same sources; with them each has its own, filled by the partitioner, which is
# then the only one that claims from the pipeline's.
from libc.stdint cimport uint64_t
from libcpp.atomic cimport atomic
from libcpp.vector cimport vector
from wsengine.engine.ring cimport Account, CRing, Parker

cdef class Sources:
    cdef readonly Parker parker      # where those wait that claim from here
    cdef readonly Account account    # charged with what is here, and with what was claimed from here until it is acknowledged
    cdef readonly list rings         # of (Ring, origin, transformer); fixed before anybody claims, as the next three
    cdef vector[CRing*] slabbed      # the same rings, for who has no GIL
    cdef readonly list inboxes       # of what has a `queue` (Inbox, Dispatcher, Queue)
    cdef readonly object unlimited   # that of these whose messages do not count for the rate, or None
    cdef atomic[int]* workers        # processors that there are to be; the control plane stores, processors read
    cdef atomic[int]* busy           # of them, with a chunk; each its own plus and minus
    cdef atomic[uint64_t]* stalls    # of a partition: how often an object found it full; the partitioner adds, as to the next
    cdef atomic[uint64_t]* refused   # and how many objects it had no room for
    cdef atomic[int]* given          # 1: an inbox may have messages; whoever puts one in stores release, a partitioner takes
    cdef bint anything(self)
    cdef bint ring_ready(self) noexcept nogil
    cdef bint idle_here(self)

cdef class Queue:
    # An inbox that others fill: messages in order, and whom to tell when they have been taken.
    cdef readonly object queue       # deque of Message: a partitioner appends, a processor pops from the left
    cdef object taken                # called
