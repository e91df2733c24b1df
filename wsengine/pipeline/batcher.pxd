# The design page of batcher: handled messages are sorted into batches, which wait until a batch processor has time.
#
#     processors ── put ──▶ open batches, one a key ── size, timeout, flush ──▶ lanes ── take ──▶ batch processors
#
# Belongs here: whether messages are accepted, where they are while the user's code is asked about them, its thread, whether
# it asks for more, and the deadline. Does not: which batch a message joins and when that is complete (open_batches, its
# base), sizes that a function decides (sized_batcher, a subclass), which batch is next (lane), what becomes of a batch
# (batch_processor), which batcher a message goes to (processor), threads and their replacement (seats, monitor).
#
# Messages are sorted by the processor that brings them, under the batcher's lock, for a list of a hundred takes it a few
# microseconds and a thread's wake would take longer.
#
# The lock is held for steps that call nothing of the user's, not even the hashing and comparison of batch keys: those that are
# the user's code are looked for outside (batch_key), while their messages are in a Hand, where a deadline finds them. Order of
# locks: its own, which it inherits, then Chunk.lock or Crew.gate.
#
#     state of a message           where it is held      failed by a deadline
#     joins no batch yet           Hand.messages[at:]    fail_rest, as left
#     can join none                failing               fail_rest, as left
#     open, or complete            its Batch             fail_rest
#     in hand                      its Batch             the batch processor's take_over
from libc.stdint cimport int64_t, uint64_t
from wsengine.engine.keys cimport KeyExtractor
from wsengine.message cimport Message
from wsengine.pipeline.batch cimport Batch
from wsengine.pipeline.chunk cimport Chunk
from wsengine.pipeline.crew cimport Crew
from wsengine.pipeline.lane cimport Lane
from wsengine.pipeline.listeners cimport Listeners
from wsengine.pipeline.open_batches cimport OpenBatches

# Hand successful messages on to the batchers that they name; those that were not accepted, or None. `to_one`: all name the
# same. `partition`: the number of their processor.
cdef list give_batchers(Crew crew, list messages, bint to_one, int partition)

cdef class Hand:
    # Messages of one processor's that the user's code has to see before they join a batch. Under the batcher's lock.
    cdef list messages
    cdef Py_ssize_t at               # so many have joined one, or failed

cdef class BatcherStage(OpenBatches):
    cdef readonly str key            # its name among the batchers
    cdef readonly str thread_name
    cdef Crew crew
    cdef dict where                  # what telemetry says of it
    cdef object retry                # a Retry, or None
    cdef bint inherits               # a message has the partition of its processor
    cdef KeyExtractor extractor      # else this or the next says which it has; None
    cdef object partitioned_by
    # All that follows under its lock, as what it inherits.
    cdef Listeners listeners         # to its events
    cdef Py_ssize_t bound            # messages that may wait in complete batches before it asks for no more
    cdef list hands                  # of Hand: what is with the user's code
    cdef list failing                # of Chunk: what can join no batch, and has not been acknowledged yet
    cdef Py_ssize_t held             # messages brought and not done with
    cdef bint saturated              # it asks for no more
    cdef bint flushing               # its thread shall emit what is open once it has sorted everything
    cdef bint relieving              # the same, unless a batch is complete by then: the pipeline is full
    cdef bint ending, closed         # its thread shall leave; nothing more is accepted
    cdef readonly uint64_t ticks     # calls of the user's code that its thread has begun; that thread, as the next
    cdef readonly int64_t since_ns   # when it began with the messages that it is at, 0: none
    cdef readonly Py_ssize_t failed  # messages that could join no batch, for their key or by a function of the user's

    cdef list give(self, list messages, int partition)
    cdef list give_apart(self, list messages)
    cdef Hand hold(self, list messages)
    cdef bint put(self, list messages, Py_ssize_t partition) except -1
    cdef accept_rest(self, Hand hand, Py_ssize_t partition)
    cdef bint accept_more(self, Hand hand, Py_ssize_t partition) except -1
    cdef accept_run(self, Hand hand, Py_ssize_t partition)
    cdef Batch take(self, Lane lane)
    cdef bint waits(self, Lane lane)
    cdef bint over(self)
    cdef done(self, Lane lane, Batch batch, Py_ssize_t count)
    cdef int64_t pause_ns(self)
    cdef expire(self)
    cdef bint sorting(self)
    cdef sort_left(self)
    cdef list take_left(self)
    cdef fail_next(self, Hand hand, object error)
    cdef Chunk begin_failing(self, Message message, object error)
    cdef end_failing(self, Chunk chunk)
    cdef Chunk chunk_of(self, list messages)
    cdef wake_lanes(self)
    cdef tuple tell_start(self, list messages)
    cdef tell_stop(self, tuple about)
