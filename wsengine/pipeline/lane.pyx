"""The queue between a batcher and its batch processors: complete batches, and those that wait behind others of their key.

Batches of one key leave in the order in which they were completed, and one at a time: where several batch processors share
a lane, those of a key wait while one of that key is in hand (reference B-4, repaired).
"""
from collections import deque

from wsengine.engine.ring cimport Parker
from wsengine.pipeline.batch cimport Batch


cdef class Lane:
    """Complete batches of one batcher, for the batch processors that share them."""

    def __cinit__(self, bint shared):
        self.parker = Parker()
        self.ready = deque()
        self.behind = {} if shared else None

    cdef put(self, Batch batch):
        """Add a batch behind those of its identity."""
        if self.behind is not None:
            if batch.identity in self.behind:
                queue = self.behind[batch.identity]
                if queue is None:
                    queue = self.behind[batch.identity] = deque()
                queue.append(batch)
                return
            self.behind[batch.identity] = None
        self.ready.append(batch)
        self.parker.c.notify()

    cdef follow(self, Batch batch):
        """A batch is done with: the next of its identity may be begun."""
        if self.behind is None:
            return
        queue = self.behind[batch.identity]
        if queue:
            self.ready.append(queue.popleft())
            self.parker.c.notify()
        else:
            del self.behind[batch.identity]

    cdef list empty(self):
        """Take all batches out, at a deadline."""
        cdef list batches = list(self.ready)
        self.ready.clear()
        if self.behind is not None:
            for queue in self.behind.values():
                if queue:
                    batches += queue
                    queue.clear()
        return batches
