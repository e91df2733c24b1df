"""The chunk: what one claim brought, and who acknowledges it.

Each of its messages is acknowledged once: by the processor that claimed it, or, if that is dead or stuck, by whoever
takes the chunk over. Handlers and their verdicts are the processor's matter.
"""
from wsengine.message import Failed

cimport cython
from libc.stdint cimport uint64_t
from wsengine.message cimport Message
from wsengine.pipeline.crew cimport Crew


cdef class Chunk:
    """What one claim brought. It acknowledges each of its messages once, whoever does it."""

    def __cinit__(self, Crew crew):
        self.crew = crew
        self.state = CHUNK_OPEN
        self.progress = 0

    def ack_now(self, Message message) -> None:
        """Acknowledge one of the messages before the others; nothing if it has been already."""
        with self.lock:
            if self.state != CHUNK_OPEN or message.holder is not self:
                return
            message.holder = None
            message.acked = True
            self.left -= 1
            self.size -= message.charged
        self.crew.acknowledge([message])
        self.crew.account.c.release(1, message.charged)

    def take_over(self, reason) -> tuple:
        """Acknowledge in the place of a processor that is dead or stuck: messages that its handler is done with by
        their status, the others as failed with `reason`.

        Returns:
            How many it acknowledged: successful, failed by their own status, and failed here. Zeros if it was settled.
        """
        cdef Message message
        cdef list left
        cdef Py_ssize_t at
        cdef uint64_t size = 0
        cdef int successful = 0, failed = 0, late = 0
        with self.lock:
            if self.state != CHUNK_OPEN:
                return 0, 0, 0
            self.state = CHUNK_TAKEN
            left = [(at, entry) for at, entry in enumerate(self.messages) if (<Message>entry).holder is self]
        for at, entry in left:
            message = entry
            message.acked = True
            if at >= self.progress and message.verdict is None:
                message.set_verdict(Failed(reason))
                late += 1
            elif message.verdict is None:
                successful += 1
            else:
                failed += 1
            size += message.charged
        messages = [entry for _, entry in left]
        self.crew.acknowledge(messages)
        for message in messages:
            message.holder = None
        self.crew.account.c.release(len(messages), size)
        return successful, failed, late
