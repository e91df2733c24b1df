# The design page of partitioner: the thread that gives each message to the processor of its partition.
#
#     what producers fill (sources) ──▶ partitioner ── key ──▶ a partition's share ──▶ its one processor
#
# Belongs here: when to move, the way of messages that are Python objects, what happens where a partition is full, and the
# change to another number of partitions. Does not: how descriptors move without the GIL (fanout), what a key is (keys), who
# makes partitions (topology), nor that a partition's processor is a processor like any other (processor).
#
# There is one partitioner in a pipeline, or none. It takes the GIL only for messages that are Python objects, for a key that
# only a Python callable knows, and to say something. It belongs to its thread, but for what is marked, and outlives it:
# another thread goes on where the first died.
#
#     state of a message      where it is held             charged to           failed by a deadline
#     waits for partitioning  sources                      the whole            the sweep of the sources
#     in hand, no object      Fan.batch                    the whole            it is moved on, and swept there
#     in hand                 hand[at:]                    the whole            take_over
#     refused                 refusing                     the whole, or both   take_over
#     waits for its processor its partition's share        share and whole      the sweep of the share
cimport cython
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libcpp.atomic cimport atomic
from libcpp.vector cimport vector
from wsengine.engine.fanout cimport Fan
from wsengine.engine.keys cimport KeyExtractor
from wsengine.engine.overflow cimport Overflow
from wsengine.engine.ring cimport Account, CAccount, CDoorbell
from wsengine.message cimport Message
from wsengine.pipeline.chunk cimport Chunk
from wsengine.pipeline.crew cimport Crew
from wsengine.pipeline.materialiser cimport Materialiser
from wsengine.pipeline.sources cimport Sources

cdef enum Need:                # what its thread needs the GIL for
    NEED_END                   # to leave
    NEED_OBJECTS               # there are messages that are objects, or are to be
    NEED_CHANGE                # another number of partitions is wanted
    NEED_FAILURE               # a connection is to fail

cdef class Partitioner:
    cdef readonly object thread_name
    cdef Crew crew
    cdef Sources sources             # what it claims from; constant, as the next four
    cdef KeyExtractor extractor      # or None
    cdef object function             # a callable's partition_by, or None
    cdef Overflow overflow
    cdef Account account             # of the crew; the bell's owner, held here as a collection may take the crew apart first
    cdef CDoorbell* bell             # the account's; rung where a full partition has room again
    cdef object settled, change      # of whoever makes partitions: whether nothing is under way, and make others
    cdef list shares                 # what it gives to, one a partition; its thread
    cdef list fanouts                # of Fanout, one a ring, where there is an extractor
    cdef vector[Fan*] fans           # the same, for who has no GIL
    cdef size_t turn                 # fan to look at first
    cdef Fan* failing                # the one that wants a connection failed
    cdef atomic[int]* ending         # 1: leave once there is nothing to claim; drain stores release, its thread acquires
    cdef atomic[int]* changing       # 1: another number of partitions is wanted; whoever wants stores release, it takes
    cdef Materialiser materialiser
    # figures, read by anyone; its thread writes
    cdef readonly uint64_t failed    # messages that it has acknowledged, all as failed
    cdef readonly uint64_t ticks     # calls of the user's code that were begun, and hands, in which there may be none
    cdef readonly int64_t since_ns   # when it began to give out what is in hand, 0: it does not, or waits for room
    cdef tuple view                  # shares and fanouts, replaced together where partitions change; under lock
    cdef object transformer          # for what is in hand, or None; its thread, as the next two
    cdef Py_ssize_t made             # of what is in hand, so many it has seen
    cdef bint limited                # whether the rate counts those in hand
    cdef cython.pymutex lock
    cdef list hand                   # messages that are objects, or None; under lock
    cdef Py_ssize_t at               # the next of them; under lock
    cdef Chunk refusing              # a message that had no room, until it has been acknowledged, or None; under lock
    cdef bint taken                  # whoever stops the pipeline has taken over what is in hand; under lock

    cdef Need work(self) noexcept nogil
    cdef bint function_waits(self) noexcept nogil
    cdef bint move(self) noexcept nogil
    cdef bint is_over(self) noexcept nogil
    cdef void await_room(self, CAccount* account) noexcept nogil
    cdef void give_up(self) noexcept nogil
    cdef take_objects(self)
    cdef take_inbox(self, object inbox)
    cdef take_hand(self, list messages, object transformer, bint limited)
    cdef claim_ring(self)
    cdef deliver_hand(self)
    cdef bint deliver(self, list hand)
    cdef bint transform(self, list hand)
    cdef tuple snapshot(self)
    cdef Py_ssize_t fail(self, list messages, object reason)
    cdef Py_ssize_t partition_of(self, Message message)
    cdef bint find_room(self, Message message, Sources share, Py_ssize_t partition)
    cdef bint shed(self, Sources share, Py_ssize_t partition)
    cdef refuse_next(self, Message message, Sources share, Py_ssize_t partition)
    cdef Chunk begin_refusing(self, Message message, Py_ssize_t partition, Account account)
    cdef end_refusing(self, Chunk chunk, Sources share)
    cdef fail_connection(self, object origin, uint32_t index, uint32_t epoch)
