"""Sending from any thread: a frame is masked by whoever sends it, bounded, and left for the reader, which is rung.

One thread at a time sends messages on a connection, and one pings, which is the caller's to see to.
"""
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libcpp.atomic cimport memory_order_relaxed
from wsengine.engine.control cimport ControlBlock
from wsengine.engine.frames cimport OP_CLOSE, build, frame_size, mask_keys_start, next_key
from wsengine.engine.output cimport OutFrame
from wsengine.engine.receiver cimport Receiver

cdef enum:
    LARGE = 16384              # bytes from which on it is worth to let go of the GIL while they are masked


cdef class Sender:
    """Sends on one place for a connection, through all its generations.

    Args:
        control: the block of the place.
        receiver: whose reader has the connection.
        limit: bytes of frames that may wait for the socket when another one is put out; so as many, and one frame.
    """

    def __cinit__(self, ControlBlock control not None, Receiver receiver not None, uint64_t limit):
        self.owners = control
        self.receiver = receiver
        self.control = control.c
        self.limit = limit
        mask_keys_start(&self.keys)
        mask_keys_start(&self.control_keys)

    @property
    def queued(self) -> int:
        """Bytes of data frames that wait for the socket to take them."""
        return self.control.outbox.queued()

    @property
    def admits(self) -> bool:
        """Whether another frame may be put out."""
        return self.control.outbox.queued() < self.limit

    def wait(self, ready, double timeout) -> None:
        """Wait without the GIL until less is queued or `wake` is called, at most `timeout` seconds; not at all if
        `ready()` is true."""
        cdef uint32_t seen = self.control.outbox.room.prepare()
        cdef int64_t ns = <int64_t>(min(max(timeout, 0.0), 1e9) * 1e9)
        try:
            skip = bool(ready())
        except BaseException:
            self.control.outbox.room.leave()
            self.control.outbox.room.arrive()
            raise
        if skip:
            self.control.outbox.room.leave()
        else:
            with nogil:
                self.control.outbox.room.wait(seen, ns)
        self.control.outbox.room.arrive()

    def wake(self) -> None:
        """Have everybody who waits look again: the generation has ended, or another has begun."""
        self.control.outbox.room.notify_all()

    def send(self, int opcode, const uint8_t[::1] payload not None, uint32_t epoch, *, bint fin=True,
             bint compressed=False) -> None:
        """Put a frame out for one generation; it is dropped where another one has begun. Returns at once.

        Raises:
            MemoryError: there is none for the frame.
        """
        cdef size_t size = <size_t>payload.shape[0]
        cdef const uint8_t* data = &payload[0] if size else NULL
        cdef OutFrame* frame = OutFrame.make(<uint32_t>frame_size(size), <uint8_t>opcode, epoch)
        cdef const uint8_t* key
        cdef Receiver receiver = <Receiver>self.receiver
        if frame == NULL:
            raise MemoryError()
        key = next_key(&self.control_keys if opcode >= OP_CLOSE else &self.keys)
        if size < LARGE:
            build(frame.data(), <uint8_t>opcode | (0x40 if compressed else 0), fin, data, size, key)
        else:
            with nogil:
                build(frame.data(), <uint8_t>opcode | (0x40 if compressed else 0), fin, data, size, key)
        self.control.outbox.push(frame)
        receiver.reader.bell.ring()

    def await_pong(self, int more) -> None:
        """Have the reader note each pong, whoever listens, while the sum of `more` over all calls is above 0."""
        self.control.awaited.fetch_add(<uint32_t>more, memory_order_relaxed)
