# The design page of sized_batcher: a batcher whose sizes a function of the user's decides, message by message.
#
# Belongs here: when that function is asked, and what its answers do. Does not: what holds for each batcher (batcher).
#
# What processors bring is left to the batcher's own thread, so that the function holds up nobody else; it runs outside the
# lock. Only that thread opens and completes batches here, so what it has seen under the lock still holds after the call.
from wsengine.message cimport Message
from wsengine.pipeline.batcher cimport BatcherStage

cdef class SizedBatcherStage(BatcherStage):
    cdef object function, initial    # of `batch_size`
    # All that follows under the batcher's lock.
    cdef object unsorted             # deque of (partition, messages) that are left to its thread
    cdef list hand                   # the one of these that its thread is at, or None
    cdef Py_ssize_t at               # so far in it
    cdef object kept                 # of the open batches those without a message, by identity, the oldest first
    cdef list dropped                # of those, what is to go once the lock is free: an accumulator is the user's
    cdef bint next_list(self) except -1
    cdef sort_list(self)
    cdef judge(self, Message message, Message following)
    cdef reject(self, Message message, object error)
    cdef bint place(self, Message message, object key, str verdict, object accumulator, bint last) except -1
    cdef keep(self, Message message, object key, object accumulator)
    cdef object key_of(self, object group)
    cdef clear_dropped(self)
