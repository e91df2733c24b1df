# The design page of crew: what the processors of one pipeline share.
#
# Belongs here: the callbacks, the bounds and the counters that more than one processor looks at. Does not: what there is to
# claim (sources), what a processor does with it (processor), nor a chunk in hand (chunk).
cimport cython
from libc.stdint cimport int64_t
from libcpp.atomic cimport atomic
from wsengine.engine.ring cimport Account
from wsengine.message cimport Message
from wsengine.pipeline.rate_limiter cimport RateLimiter
from wsengine.pipeline.sources cimport Sources

cdef enum Held:                # why nothing is claimed
    HELD_PAUSED = 1            # the pipeline was told to
    HELD_SATURATED = 2         # no batcher asks for more

cdef class Crew:
    # What the processors of one pipeline share. Fixed before they start, but for the atomics.
    cdef readonly Sources sources    # what producers and pushers fill
    cdef list given_shares           # of Sources, what each processor claims from: `sources`, for all, or one a partition; the
                                     # partitioner puts another list in its place while all are idle; under the gate
    cdef readonly bint partitioned   # one a partition
    cdef readonly Account account    # of the whole pipeline
    cdef readonly object pipeline    # callbacks are its methods
    cdef readonly str name
    cdef readonly int min_demand, max_demand
    cdef bint started                # there are processors; before they start
    cdef readonly RateLimiter limiter   # None: no limit
    cdef readonly int64_t spin_ns
    cdef atomic[int]* ending         # 1: leave once there is nothing to claim; drain stores release, processors acquire
    cdef atomic[int]* closed         # 1: claim nothing more; drain stores release, processors acquire
    cdef atomic[int]* askers         # threads that wait for demand; they plus and minus
    cdef atomic[int]* held           # bits of Held; whoever holds the gate stores release, processors acquire
    cdef cython.pymutex gate         # over changes of `held`, and the list of shares
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
    cdef bint relieve(self)
    cdef list current_shares(self)
    cdef bint all_idle(self)
    cdef bint nobody_busy(self)
    cdef bint ready(self, Sources sources)
    cdef bint more_than_limited(self, Sources sources)
    cdef int64_t pause_ns(self, Sources sources, int64_t longest)
