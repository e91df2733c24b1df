"""A batch, and what `handle_batch` is told of it. Batches are made and completed by a batcher."""
from libc.stdint cimport int64_t
from wsengine.engine.ring cimport Account
from wsengine.message cimport batch_key_of
from wsengine.pipeline.chunk cimport CHUNK_WAITING, Chunk


cdef class BatchInfo:
    """What `handle_batch` is told of its messages.

    Attributes:
        batcher: name of the batcher. batch_key: of all the messages.
        partition: number of the batcher's partition, None without partitions.
        size: messages in the batch.
        trigger: why it was emitted: "size", "timeout" or "flush"; a stop flushes.

    Source: Broadway.BatchInfo.
    """

    def __init__(self, str batcher not None, batch_key, partition, Py_ssize_t size, str trigger not None):
        self.batcher = batcher
        self.batch_key = batch_key
        self.partition = partition
        self.size = size
        self.trigger = trigger

    def __repr__(self):
        return (f"BatchInfo(batcher={self.batcher!r}, batch_key={self.batch_key!r}, partition={self.partition!r}, "
                f"size={self.size}, trigger={self.trigger!r})")


cdef class Batch(Chunk):
    """Messages that are handled together."""

    def __cinit__(self, Account account not None, bint hands_on=False):
        self.state = CHUNK_WAITING
        self.messages = []

    def info(self, str batcher not None, Py_ssize_t size) -> BatchInfo:
        """What its handler is told, of so many of its messages."""
        return BatchInfo(batcher, batch_key_of(self.group), self.partition, size, self.trigger)
