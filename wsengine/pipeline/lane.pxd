# The design page of lane: in which order complete batches are begun.
#
# Belongs here: which of the complete batches is next, and which have to wait for another of their key. Does not: when a
# batch is complete (open_batches), what becomes of it (batch_processor). Its batcher's lock is over all of it, so it has none.
# Identities hash and compare without anything of the user's (batch_key), so no look-up here can fail.
from wsengine.engine.ring cimport Parker
from wsengine.pipeline.batch cimport Batch

cdef class Lane:
    # Complete batches for the batch processors that share it. All under the batcher's lock but the parker.
    cdef Parker parker               # where those batch processors wait
    cdef object ready                # deque of Batch: any of them may be begun
    cdef dict behind                 # by identity, while one of it is ready or in hand: deque of those that come behind it,
                                     # or None if there are none. None where one batch processor keeps the order by itself
    cdef put(self, Batch batch)
    cdef follow(self, Batch batch)
    cdef list empty(self)
