# The design page of batch: messages of one key on their way from the first that joined to their acknowledgement.
#
# Belongs here: what a batch is and what `handle_batch` is told of it. Does not: when it is complete (open_batches), who is
# next (lane); what becomes of it (batch_processor).
from libc.stdint cimport int64_t
from wsengine.message cimport Message
from wsengine.pipeline.chunk cimport Chunk

cdef enum:
    WHOLE = -1                       # in place of a partition, where there are none

cdef inline bint flushes(Message message):
    return message.details is not None and message.details.batch_mode == "flush"

cdef class BatchInfo:
    cdef readonly str batcher
    cdef readonly object batch_key
    cdef readonly object partition
    cdef readonly Py_ssize_t size
    cdef readonly str trigger

cdef class Batch(Chunk):
    # While it is CHUNK_WAITING all is under the batcher's lock; then it belongs to the batch processor that begins it.
    cdef object group                # of its messages (message.pxd)
    cdef object partition            # int, or None where the batcher has no partitions
    cdef Py_ssize_t lane             # the same, or WHOLE
    cdef object key                  # what that is known by (batch_key)
    cdef object identity             # what is one batch, and handled in order: that and the partition together
    cdef object accumulator          # of the size function
    cdef bint due                    # a message wants it flushed
    cdef int64_t deadline_ns         # emitted at this time at the latest; 0: never
    cdef Batch older, newer          # its neighbours among the open ones
    cdef str trigger                 # why it was emitted
