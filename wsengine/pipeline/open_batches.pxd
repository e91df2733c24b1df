# The design page of open_batches: the batches of a batcher that are not complete yet.
#
# Belongs here: which batch a message joins, and when a batch is complete, by size, time or flush. Does not: which messages
# the batcher accepts, what it does about keys of which the user's code has to be asked, and its thread (batcher, which
# inherits this); sizes that a function decides (sized_batcher); which complete batch is next (lane).
#
#     open ── by key ──▶ Batch ◀── oldest … newest, by deadline            complete ──▶ lanes
#
# A batch is open from its first message on, or from the accumulator on that is kept for its key. Nothing of the user's is
# called here: each method is a step under the lock, which the batcher takes.
cimport cython
from libc.stdint cimport int64_t
from wsengine.engine.ring cimport Account, Parker
from wsengine.pipeline.batch cimport Batch
from wsengine.pipeline.batch_key cimport Search

cdef int64_t NEVER                   # a time that does not come, in nanoseconds; constant

cdef class OpenBatches:
    cdef readonly Parker parker      # where the batcher's thread waits; constant, as all up to the lock
    cdef readonly list lanes         # where complete batches go
    cdef Account account             # of the pipeline
    cdef Py_ssize_t count            # messages of a batch; 0: a function decides
    cdef Py_ssize_t partitions       # how many; 0: none. Each has a lane
    cdef int64_t timeout_ns          # from the first message to emission; 0: never
    cdef cython.pymutex lock         # over all that follows, and all of the batcher's that is not constant
    cdef dict open                   # Batch by identity
    cdef Py_ssize_t opened           # of those, how many hold a message; the others keep an accumulator
    cdef Batch oldest, newest        # of those, by deadline
    cdef Batch last                  # the one that the last message joined, or None
    cdef Py_ssize_t partition        # of the list being sorted, or WHOLE
    cdef Py_ssize_t joined           # of the list being sorted, how far it has been
    cdef bint strange                # there have been keys that are not plain (batch_key)
    cdef Py_ssize_t waiting          # messages in complete batches that nobody has begun
    cdef int64_t wake_ns             # when the batcher's thread will look by itself

    cdef Py_ssize_t accept(self, list messages, Py_ssize_t first, Py_ssize_t partition)
    cdef Py_ssize_t sort_run(self, list messages, Py_ssize_t first)
    cdef object known_by(self, object group)
    cdef bint look(self, Search search)
    cdef join(self, list messages, Py_ssize_t first, Py_ssize_t end, object group, object key, bint flush)
    cdef add(self, Batch batch, list messages, Py_ssize_t first, Py_ssize_t end)
    cdef object identity_of(self, object key)
    cdef Batch batch_of(self, object group, object key)
    cdef link(self, Batch batch)
    cdef unlink(self, Batch batch)
    cdef emit(self, Batch batch, str trigger)
    cdef emitted(self)
    cdef forget(self, Batch batch)
    cdef emit_all(self, int64_t until_ns, str trigger)
