"""One connection of a reader: its beginning and its ends, what control frames and failures do to it, and what it writes.

All functions run without the GIL in whatever thread has the lead (lead.hpp), and never block.
"""
cimport cython
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, strlen
from libcpp.atomic cimport memory_order_acquire, memory_order_relaxed
from wsengine.engine.control cimport Control, ControlBlock
from wsengine.engine.frames cimport MaskKeys, Parsed, parser_start
from wsengine.engine.inflate cimport inflater_as_agreed, inflater_free
from wsengine.engine.intake cimport Intake
from wsengine.engine.output cimport output_close, output_drop, output_shut, output_take, output_write
from wsengine.engine.overflow cimport OVERFLOW_CODE
from wsengine.engine.parts cimport drop_part
from wsengine.engine.ring cimport SlabPool
from wsengine.engine.tls cimport tls_free, tls_new


# ------------------------------------------------------------------------------------------------------ birth and death

cdef Wire* wire_new(int fd, uint32_t index, uint32_t epoch, Control* control, uint64_t max_size) noexcept nogil:
    cdef Wire* wire = <Wire*>calloc(1, sizeof(Wire))
    if wire != NULL:
        wire.fd = fd
        wire.index = index
        wire.epoch = epoch
        wire.control = control
        wire.out.box = &control.outbox
        parser_start(&wire.parser, max_size)
    return wire


cdef void drop_rest(Wire* wire) noexcept nogil:
    if wire.rest_slab != NULL:
        SlabPool.drop(wire.rest_slab, 1)
        wire.rest_slab = NULL
        wire.rest_size = 0


cdef void wire_free(Wire* wire) noexcept nogil:
    output_drop(&wire.out)
    drop_part(wire)
    drop_rest(wire)
    tls_free(wire.tls)
    inflater_free(wire.inflater)
    free(wire.skips)
    free(wire)


cdef void wire_blame(Wire* wire, Cause cause, uint16_t code, int error, const uint8_t* text, size_t size) noexcept nogil:
    """Note why the connection ends; what was noted first stands."""
    if wire.cause != CAUSE_NONE:
        return
    wire.cause = cause
    wire.code = code
    wire.error = error
    wire.text_size = <uint8_t>min(size, sizeof(wire.text))
    if wire.text_size:
        memcpy(wire.text, text, wire.text_size)


# ------------------------------------------------------------------------------- what control frames and failures do

cdef void end_begins(Wire* wire, Intake* intake) noexcept nogil:
    wire.phase = PHASE_ENDING
    wire.control.close_within_limit()


cdef void on_close(Wire* wire, Intake* intake, const Parsed* parsed) noexcept nogil:
    wire_blame(wire, CAUSE_CLOSED, parsed.close_code, 0, parsed.payload, parsed.size)
    wire_close(wire, &intake.keys, parsed.close_code, NULL, 0)
    end_begins(wire, intake)


cdef void on_failure(Wire* wire, Intake* intake, const Parsed* parsed) noexcept nogil:
    """Fail the connection (RFC 6455 §7.1.7): tell the peer why, take nothing more from it. It may have sent messages right
    before: handlers get a moment to answer them, which nothing could follow once our Close is out."""
    cdef const uint8_t* problem = <const uint8_t*>parsed.problem
    wire_blame(wire, CAUSE_FAILED, parsed.close_code, 0, problem, strlen(parsed.problem))
    if parsed.close_code == 1009:
        wire.detail = parsed.announced
    drop_part(wire)
    wire.control.close_within_limit()
    if wire.sequence == 0 or wire.phase != PHASE_OPEN:
        wire_farewell(wire, &intake.keys)
    else:
        wire.phase = PHASE_FAILING
        wire.farewell_ns = intake.now + FAREWELL_NS


cdef void wire_farewell(Wire* wire, MaskKeys* keys) noexcept nogil:
    output_take(&wire.out, wire.epoch)
    output_close(&wire.out, keys, wire.code, wire.text, wire.text_size, wire.farewell_ns == 0)
    wire.phase = PHASE_ENDING


cdef void on_overflow(Wire* wire, Intake* intake) noexcept nogil:
    """A message found no room, and that is to end the connection."""
    wire_blame(wire, CAUSE_OVERFLOW, OVERFLOW_CODE, 0, NULL, 0)
    wire_close(wire, &intake.keys, OVERFLOW_CODE, b"queue overflow", 14)
    drop_part(wire)
    end_begins(wire, intake)


cdef void on_no_memory(Wire* wire, Intake* intake) noexcept nogil:
    """End the connection: a message of it cannot be held."""
    wire_blame(wire, CAUSE_MEMORY, 1011, 0, NULL, 0)
    wire.parser.over = 1
    wire_close(wire, &intake.keys, 1011, NULL, 0)
    drop_part(wire)
    end_begins(wire, intake)


cdef void on_pong(Wire* wire, Intake* intake, const Parsed* parsed) noexcept nogil:
    """Match a pong with the ping that it answers: our pings carry generation and number, big-endian."""
    cdef uint32_t epoch = 0, number = 0, newest
    cdef int64_t trip = -1
    cdef bint ours = False
    cdef int i
    if parsed.size == 8:
        for i in range(4):
            epoch = (epoch << 8) | parsed.payload[i]
            number = (number << 8) | parsed.payload[4 + i]
        # acquire: pairs with the timer's release of ping_number after the time of that ping
        newest = wire.control.ping_number.load(memory_order_acquire)
        if epoch == wire.epoch and 0 < number <= newest and newest - number < 16:
            ours = True
            trip = intake.now - wire.control.ping_sent_ns[number % 16].load(memory_order_relaxed)
        if ours and number > wire.control.pong_number.load(memory_order_relaxed):
            wire.control.round_trip_ns.store(trip, memory_order_relaxed)
            wire.control.pong_number.store(number, memory_order_relaxed)
    if intake.loud or wire.control.awaited.load(memory_order_relaxed):
        intake.note_control(intake.notes, wire.index, wire.epoch, False, parsed, intake.now, trip)


# ------------------------------------------------------------------------------------------------------------- writing

cdef bint wire_write(Wire* wire) noexcept nogil:
    """Send what is queued; True if the socket took less."""
    output_take(&wire.out, wire.epoch)
    if output_write(&wire.out, wire.fd, wire.tls):
        return True
    if wire.phase == PHASE_ENDING:
        output_shut(&wire.out, wire.fd, wire.tls)   # nothing of ours follows a Close; the peer sees that it may end, too
    return False


cdef void wire_leave(Wire* wire) noexcept nogil:
    """A last chance for what is queued, a Close perhaps, and for TLS to end properly."""
    if not wire_write(wire) and wire.tls != NULL:
        output_shut(&wire.out, wire.fd, wire.tls)


cdef void wire_close(Wire* wire, MaskKeys* keys, uint16_t code, const uint8_t* reason, size_t size) noexcept nogil:
    output_close(&wire.out, keys, code, reason, size, True)


cdef void wire_finish(Wire* wire, MaskKeys* keys, uint16_t code, const uint8_t* reason, size_t size) noexcept nogil:
    """Close on our own account: behind whatever was put out before."""
    output_take(&wire.out, wire.epoch)
    output_close(&wire.out, keys, code, reason, size, False)


# -------------------------------------------------------------------------------------------------------- Python's face

@cython.no_gc_clear  # its C++ parts use what its attributes own, until the very end
cdef class Stream:
    """A connection that is ready for a reader.

    Args:
        fd: a connected, non-blocking socket. It is not closed here: whoever opened it closes it, once the reader has
            let go.
        control: the block of its place; `begin` has been called for this generation.
        index, epoch: which connection of the producer, which generation of it.
        max_size: bytes of a message's payload at the most.
        leftover: bytes that came behind the opening handshake.
        consumed: sequence numbers, rising, of messages in `leftover` that have been taken already: they are parsed, as the
            bytes behind them may depend on them, and not delivered.
        tls: the SSLSocket of that descriptor, its handshake done and nobody else using it (path A); None where the
            socket's bytes are the stream's. EngineError where its SSL object cannot be used.
        deflate: what was agreed on with the server about permessage-deflate (inflate.DeflateParameters); None: nothing,
            so that a compressed message is refused with 1002. EngineError where this build has no zlib.
    """

    def __cinit__(self, int fd, ControlBlock control not None, uint32_t index, uint32_t epoch, uint64_t max_size,
                  bytes leftover=b"", tuple consumed=(), *, object tls=None, deflate=None):
        self.control_owner = control
        self.leftover = leftover
        self.consumed = consumed
        self.wire = wire_new(fd, index, epoch, control.c, max_size)
        if self.wire == NULL:
            raise MemoryError()
        if tls is not None:
            self.wire.tls = tls_new(tls)
        if deflate is not None:
            self.wire.inflater = inflater_as_agreed(deflate)
            self.wire.parser.deflate = 1
        if consumed:
            self.pass_over(consumed)

    cdef int pass_over(self, tuple consumed) except -1:
        cdef size_t i
        self.wire.skips = <uint64_t*>malloc(len(consumed) * sizeof(uint64_t))
        if self.wire.skips == NULL:
            raise MemoryError()
        for i in range(len(consumed)):
            self.wire.skips[i] = consumed[i]
        self.wire.skips_left = len(consumed)
        return 0

    def __dealloc__(self):
        if self.wire != NULL:
            wire_free(self.wire)
