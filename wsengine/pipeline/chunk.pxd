# The design page of chunk: messages in one hand, until they are acknowledged or handed on.
#
# Belongs here: the decision who acknowledges, once for each message. Does not: what becomes of the messages before
# (processor, batch_processor). A chunk belongs to one thread, but for `state`, which decides under the chunk's mutex who
# acknowledges: the thread that has it in hand, or whoever takes it over because that one is dead or the deadline has come.
#
#     state      its thread is done      taken over
#     WAITING    OPEN (begins it)        TAKEN          a batch that no batch processor has begun
#     OPEN       SETTLED                 TAKEN
#     SETTLED    -                       -              acknowledged, or handed on to a batcher. Groups that are `untold`,
#                                                       because the acknowledger of another is stuck, can be taken over
#     TAKEN      -                       -              somebody else has acknowledged it
cimport cython
from libc.stdint cimport uint64_t
from wsengine.engine.ring cimport Account
from wsengine.message cimport Message

cdef enum ChunkState:          # under Chunk.lock
    CHUNK_WAITING
    CHUNK_OPEN
    CHUNK_SETTLED
    CHUNK_TAKEN

cpdef acknowledge(list messages)
# Whether a message counts as failed: as what it was acknowledged by ack_immediately, else by its verdict.
cdef bint lost(Message message)
cdef Py_ssize_t failures(list messages)

cdef class Chunk:
    cdef cython.pymutex lock
    cdef ChunkState state            # under lock
    cdef list messages               # its thread; whoever takes it over, after CHUNK_TAKEN
    cdef Py_ssize_t left             # messages not acknowledged yet; under lock
    cdef uint64_t size               # bytes charged for those; under lock
    cdef Py_ssize_t progress         # handlers are done with so many; its thread
    cdef list untold                 # groups whose acknowledgers are to be called yet, the next last; or None; under lock
    cdef Py_ssize_t telling          # of whose acknowledger its thread calls now: id(); under lock
    cdef Account account             # constant, as the next
    cdef bint hands_on               # what succeeds goes to a batcher
    cdef list close(self)
    cdef acknowledge(self, list messages)
    cdef tuple next_untold(self)
    cdef list take_untold(self)
    cdef bint still_ours(self)
