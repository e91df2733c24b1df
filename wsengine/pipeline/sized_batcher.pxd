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
    cdef bint next_list(self) except -1
    cdef judge(self, Message message)
    cdef reject(self, Message message, object error)
    cdef bint place(self, Message message, str verdict, object accumulator) except -1
    cdef bint last_of_run(self, object group) except -1
