# The design page of crew: what the processors of one pipeline share.
#
# Belongs here: the sources, the callbacks, the bounds and the counters that more than one processor looks at. Does not:
# what a processor does with them (processor), nor a chunk in hand (chunk).
cimport cython
from libc.stdint cimport int64_t
from libcpp.atomic cimport atomic
from libcpp.vector cimport vector
from wsengine.engine.ring cimport Account, CRing, Parker
from wsengine.message cimport Message
from wsengine.pipeline.rate_limiter cimport RateLimiter

cdef enum Held:                # why nothing is claimed
    HELD_PAUSED = 1            # the pipeline was told to
    HELD_SATURATED = 2         # no batcher asks for more

cdef class Crew:
    # What the processors of one pipeline share. Fixed before they start, but for the atomics.
    cdef readonly Parker parker
    cdef readonly Account account
    cdef readonly object pipeline    # callbacks are its methods
    cdef readonly str name
    cdef readonly int min_demand, max_demand
    cdef atomic[int]* workers        # processors that there are to be; the control plane stores, processors read
    cdef bint started                # there are processors; before they start
    cdef readonly list rings         # of (Ring, origin, transformer)
    cdef vector[CRing*] slabbed      # the same rings, for who has no GIL
    cdef readonly list inboxes       # of Inbox
    cdef readonly object unlimited   # that of these whose messages do not count for the rate, or None
    cdef readonly RateLimiter limiter   # None: no limit
    cdef readonly int64_t spin_ns
    cdef atomic[int]* busy           # processors with a chunk; each its own plus and minus
    cdef atomic[int]* ending         # 1: leave once there is nothing to claim; drain stores release, processors acquire
    cdef atomic[int]* closed         # 1: claim nothing more; drain stores release, processors acquire
    cdef atomic[int]* askers         # threads that wait for demand; they plus and minus
    cdef atomic[int]* held           # bits of Held; whoever holds the gate stores release, processors acquire
    cdef cython.pymutex gate         # over changes of `held`
    cdef int saturated               # batchers that ask for no more; under the gate
    cdef readonly dict batchers      # of BatcherStage by name; empty: what is handled is acknowledged
    cdef object spares               # deque of lists of messages that batch processors have done with (materialiser)
    cdef object handler, chunk_handler, prepare, on_failed, batch_handler   # callbacks, None where there is none
    cdef object log_failure
    cdef object retry                # a Retry, or None
    cdef object over                 # threading.Event, set by close: whoever waits to retry stops waiting
    cdef int check_batcher(self, Message message) except -1
    cdef hold(self, int reason, bint on)
    cdef saturate(self, int change)
    cdef tell_askers(self)
    cdef relieve(self)
    cdef bint ready(self)
    cdef bint more_than_limited(self)
    cdef int64_t pause_ns(self, int64_t longest)
    cdef bint anything(self)
    cdef bint ring_ready(self) noexcept nogil
