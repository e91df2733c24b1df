"""One connection's bytes: from the socket through the parser into slabs and the ring.

All functions run without the GIL in whatever thread has the lead (lead.hpp), never block, and report what became of the
call. When to read and write is the reader's matter, the wire format that of `frames`. Payloads are parsed where they were
received; only messages cut by a read, fragmented or compressed have memory of their own (parts), into which large ones are
read straight away.
"""
cimport cython
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, strlen
from libcpp.atomic cimport memory_order_acquire, memory_order_relaxed
from wsengine.engine.control cimport Control, ControlBlock
from wsengine.engine.frames cimport (OP_CLOSE, STEP_CLOSE, STEP_DEFLATED, STEP_FAIL, STEP_MESSAGE, STEP_MORE, STEP_PIECE,
                                     STEP_PING, STEP_PONG, MaskKeys, Parsed, Step, between_messages, parse, parse_any,
                                     parser_start, whole_message)
from wsengine.engine.inflate cimport inflater_as_agreed, inflater_free
from wsengine.engine.intake cimport STAGED, Intake, describe, flush, has_credit, intake_settle, room_in_slab
from wsengine.engine.output cimport (output_close, output_drop, output_pong, output_shut, output_take,
                                     output_write)
from wsengine.engine.parts cimport (TOOK_BROKEN, TOOK_FULL, TOOK_NO_MEMORY, Took, begin_arrival, drop_part, gather, skip,
                                    grow_part, stage, take_deflated)
from wsengine.engine.overflow cimport OVERFLOW_BLOCK, OVERFLOW_CODE, OVERFLOW_ERROR, drop_newest, make_room
from wsengine.engine.ring cimport Arrival, Descriptor, Slab, SlabPool, monotonic_ns
from wsengine.engine.tls cimport TLS_FAILED, Tls, tls_free, tls_new, tls_read

cdef extern from "<sys/socket.h>" nogil:
    ssize_t recv(int fd, void* data, size_t size, int flags)
    int MSG_DONTWAIT


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


# ------------------------------------------------------------------------------------------------------------- staging

cdef size_t stage_whole(Wire* wire, Intake* intake, const uint8_t* data, size_t size, uint64_t* count,
                        uint64_t* payloads) noexcept nogil:
    """Stage the whole messages that the bytes begin with, as far as there is credit; how many bytes they took. The loop
    of the steady path: what it needs it keeps at hand. Adds up messages and bytes of payload."""
    cdef Descriptor* one = &intake.batch[intake.staged]
    cdef const Arrival* arrival = intake.arrival
    cdef uint64_t max_size = wire.parser.max_size
    cdef uint64_t place = intake.ring.tail() + intake.staged + STAGED
    cdef uint32_t ordinal = <uint32_t>(wire.sequence - arrival.sequence)
    cdef uint32_t n = 0, most = <uint32_t>min(intake.credit, <uint64_t>(STAGED - intake.staged))
    cdef size_t at = 0, used, head = 0, heads = 0
    while n < most:
        used = whole_message(data + at, size - at, max_size, &head)
        if used == 0:
            break
        if n & 1 == 0:                # two slots fill a line
            intake.ring.fetch(place + n)
        describe(one, arrival, ordinal + n, data + at + head, used - head, data[at] & 0x0F)
        heads += head
        at += used
        one += 1
        n += 1
    wire.sequence += n
    intake.credit -= n
    intake.staged += n
    intake.in_place += n
    count[0] += n
    payloads[0] += at - heads
    if intake.staged == STAGED:
        flush(intake)
    return at


# -------------------------------------------------------------------------------------------- what control frames do

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


# ------------------------------------------------------------------------------------------------------------- reading

cdef bint take_step(Wire* wire, Intake* intake, Step step, const Parsed* parsed) noexcept nogil:
    """What a step other than a whole message does to the connection; False if memory is out."""
    if step == STEP_PIECE:
        return gather(wire, intake, parsed)
    if step == STEP_PING:
        Control.add(wire.control.pings_heard, 1)
        output_pong(&wire.out, &intake.keys, parsed.payload, parsed.size)
        if intake.loud:
            intake.note_control(intake.notes, wire.index, wire.epoch, True, parsed, intake.now, -1)
    elif step == STEP_PONG:
        on_pong(wire, intake, parsed)
    elif step == STEP_CLOSE:
        on_close(wire, intake, parsed)
    elif step == STEP_FAIL:
        on_failure(wire, intake, parsed)
    return True


cdef void put_rest_by(Wire* wire, Intake* intake, const uint8_t* data, size_t size) noexcept nogil:
    """Keep bytes of `intake.here` for when there is room."""
    wire.rest_slab = intake.here
    wire.rest_arrival = intake.arrival
    SlabPool.add(intake.here, 1)
    wire.rest = data
    wire.rest_size = size


cdef void take_message(Wire* wire, Intake* intake, const Parsed* parsed) noexcept nogil:
    """A message of one frame that lies in `intake.here`."""
    if wire.discarding:
        Control.add(wire.control.discarded, 1)
        return
    if wire.skips_left and skip(wire):
        return
    if intake.dropping:
        drop_newest(wire, intake)
        return
    intake.in_place += 1
    stage(wire, intake, intake.arrival, parsed.payload, parsed.size, parsed.opcode)


cdef void meet_overflow(Wire* wire, Intake* intake) noexcept nogil:
    """There is no room, and the socket is not to wait."""
    if make_room(intake):
        return
    if intake.overflow != OVERFLOW_ERROR:
        intake.dropping = True
        return
    wire_blame(wire, CAUSE_OVERFLOW, OVERFLOW_CODE, 0, NULL, 0)
    wire.discarding = True            # what still comes is counted as discarded
    wire_close(wire, &intake.keys, OVERFLOW_CODE, b"queue overflow", 14)
    drop_part(wire)
    end_begins(wire, intake)


cdef void no_memory(Wire* wire, Intake* intake) noexcept nogil:
    """End the connection: a message of it cannot be held."""
    wire_blame(wire, CAUSE_MEMORY, 1011, 0, NULL, 0)
    wire.parser.over = 1
    wire_close(wire, &intake.keys, 1011, NULL, 0)
    drop_part(wire)
    end_begins(wire, intake)


cdef bint parse_bytes(Wire* wire, Intake* intake, const uint8_t* data, size_t size) noexcept nogil:
    """Parse bytes that lie in `intake.here`; False if it stopped for want of room, with the rest put by."""
    cdef Parsed parsed
    cdef size_t at = 0, used
    cdef uint64_t others = 0, whole = 0, first = wire.sequence, payloads = 0
    cdef Step step
    cdef Took took
    while at < size:
        if not wire.discarding:
            intake.dropping = False
            if not has_credit(intake):
                if intake.overflow == OVERFLOW_BLOCK:
                    put_rest_by(wire, intake, data + at, size - at)
                    break
                meet_overflow(wire, intake)
            elif between_messages(&wire.parser) and not wire.skips_left:
                used = stage_whole(wire, intake, data + at, size - at, &whole, &payloads)
                at += used
                if used:
                    continue
            step = parse_any(&wire.parser, data + at, size - at, &parsed)
        else:
            step = parse(&wire.parser, data + at, size - at, &parsed)
        at += parsed.consumed
        if step == STEP_MORE:
            continue
        others += 1
        if step == STEP_MESSAGE:
            if not wire.discarding and not intake.dropping:
                payloads += parsed.size
            take_message(wire, intake, &parsed)
            continue
        if step == STEP_DEFLATED:
            took = take_deflated(wire, intake, &parsed, &payloads)
            if took == TOOK_FULL and at < size:
                put_rest_by(wire, intake, data + at, size - at)
                break
            if took == TOOK_NO_MEMORY:
                no_memory(wire, intake)
            elif took == TOOK_BROKEN:
                on_failure(wire, intake, &parsed)
            continue
        if step == STEP_PIECE:
            payloads += parsed.size
        if not take_step(wire, intake, step, &parsed):
            no_memory(wire, intake)
    flush(intake)
    Control.add(wire.control.frames, whole + others)
    Control.add(wire.control.messages, wire.sequence - first)
    Control.add(wire.control.bytes, payloads)
    Control.add(wire.control.wire_bytes, at)
    return at >= size


cdef bint parse_here(Wire* wire, Intake* intake, Slab* slab, Arrival* arrival, const uint8_t* data,
                     size_t size) noexcept nogil:
    """Parse bytes of `slab`, holding it meanwhile: a message in parts may make the intake go on to another one."""
    cdef bint room
    intake.here = slab
    intake.arrival = arrival
    SlabPool.add(slab, 1)
    room = parse_bytes(wire, intake, data, size)
    SlabPool.drop(slab, 1)
    intake.here = NULL
    intake.arrival = NULL
    return room


cdef bint parse_rest(Wire* wire, Intake* intake) noexcept nogil:
    """Parse what was put by; False if there is still no room for all of it."""
    cdef Slab* slab = wire.rest_slab
    cdef size_t size = wire.rest_size
    cdef bint room
    if slab == NULL:
        return True
    wire.rest_slab = NULL
    wire.rest_size = 0
    intake.now = wire.rest_arrival.received_ns    # not that of another connection's read
    room = parse_here(wire, intake, slab, wire.rest_arrival, wire.rest, size)
    SlabPool.drop(slab, 1)
    return room


cdef bint wire_feed(Wire* wire, Intake* intake, const uint8_t* data, size_t size) noexcept nogil:
    """Take bytes that somebody else has read: what came behind the handshake. False if memory is out."""
    cdef size_t part
    cdef Arrival* arrival
    cdef uint8_t* place
    intake.now = monotonic_ns()
    intake.credit = 0                 # other sources share the account: ask it anew
    while size:
        arrival = room_in_slab(intake, 1)
        if arrival == NULL:
            return False
        place = <uint8_t*>(arrival + 1)
        part = min(size, <size_t>(intake.pool.slab_bytes() - intake.used - sizeof(Arrival)))
        memcpy(place, data, part)
        intake.used += sizeof(Arrival) + part
        data += part
        size -= part
        begin_arrival(wire, intake, arrival, intake.slab)
        if not parse_here(wire, intake, intake.slab, arrival, place, part):
            return size == 0 or put_by(wire, intake, data, size)
    return True


cdef bint put_by(Wire* wire, Intake* intake, const uint8_t* data, size_t size) noexcept nogil:
    """Join further unparsed bytes to the rest, in memory of their own."""
    cdef Slab* slab = intake.pool.acquire(sizeof(Arrival) + wire.rest_size + size)
    cdef Arrival* arrival
    cdef uint8_t* place
    if slab == NULL:
        return False
    arrival = <Arrival*>slab.data()
    begin_arrival(wire, intake, arrival, slab)
    place = <uint8_t*>(arrival + 1)
    memcpy(place, wire.rest, wire.rest_size)
    memcpy(place + wire.rest_size, data, size)
    SlabPool.drop(wire.rest_slab, 1)
    wire.rest_slab = slab
    wire.rest_arrival = arrival
    wire.rest = place
    wire.rest_size += size
    return True


cdef inline bint part_takes_reads(Wire* wire) noexcept nogil:
    return (wire.part_slab != NULL and wire.parser.in_payload and not wire.discarding
            and wire.parser.opcode < OP_CLOSE and wire.parser.left >= DIRECT and not wire.parser.compressed)


cdef inline ssize_t read_some(Wire* wire, uint8_t* place, size_t size) noexcept nogil:
    cdef ssize_t got
    if wire.tls != NULL:
        return tls_read(wire.tls, place, size)
    while True:
        got = recv(wire.fd, place, size, MSG_DONTWAIT)
        if got >= 0 or errno != EINTR:
            return got


cdef ssize_t receive(Wire* wire, Intake* intake, Slab** slab, Arrival** arrival, uint8_t** place) noexcept nogil:
    """One read: straight into a large message in progress, which has its arrival, else into the slab. -2: memory is out;
    else as recv(), or as tls_read()."""
    cdef size_t size
    cdef ssize_t got
    cdef bint direct = part_takes_reads(wire)
    if direct:
        if wire.part_capacity - wire.part_size < min(wire.parser.left, <uint64_t>DIRECT):
            if not grow_part(wire, intake, wire.part_size + DIRECT, wire.parser.message_size):
                return -2
        slab[0] = wire.part_slab
        arrival[0] = wire.part_arrival
        place[0] = wire.part + wire.part_size
        size = <size_t>min(wire.parser.left, wire.part_capacity - wire.part_size)
    else:
        arrival[0] = room_in_slab(intake, <size_t>(intake.pool.slab_bytes() // 4))
        if arrival[0] == NULL:
            return -2
        slab[0] = intake.slab
        place[0] = <uint8_t*>(arrival[0] + 1)
        size = <size_t>(intake.pool.slab_bytes() - intake.used - sizeof(Arrival))
    got = read_some(wire, place[0], size)
    if got > 0:
        intake.now = monotonic_ns()
        # did it give less than there was room for, it is drained, for now; TLS may have ended behind it, and says so once
        wire.hot = <size_t>got == size or (wire.tls != NULL and wire.tls.over)
        if direct:
            arrival[0].received_ns = intake.now
        else:
            intake.used += sizeof(Arrival) + <size_t>got
            begin_arrival(wire, intake, arrival[0], slab[0])
    return got


cdef Reading end_of_stream(Wire* wire, ssize_t got) noexcept nogil:
    if got == -2:
        wire_blame(wire, CAUSE_MEMORY, 0, 0, NULL, 0)
    elif got == TLS_FAILED:
        wire_blame(wire, CAUSE_TLS, 0, 0, <const uint8_t*>wire.tls.problem, strlen(wire.tls.problem))
    elif got < 0:
        wire_blame(wire, CAUSE_ERROR, 0, errno, NULL, 0)
    else:
        wire_blame(wire, CAUSE_EOF, 0, 0, NULL, 0)
    return READ_END


cdef Reading wire_read(Wire* wire, Intake* intake) noexcept nogil:
    """Read and parse, at most READS times. The caller keeps `hot` and settles the intake."""
    cdef Slab* slab = NULL
    cdef Arrival* arrival = NULL
    cdef uint8_t* place = NULL
    cdef ssize_t got
    cdef int i
    intake.credit = 0                 # other sources share the account: ask it anew
    if not parse_rest(wire, intake):
        return READ_FULL
    for i in range(READS):
        if not wire.discarding and wire.phase < PHASE_FAILING and not intake.account.admits():
            if intake.overflow == OVERFLOW_BLOCK:
                return READ_FULL
            intake.credit = 0         # credit does not count bytes
        got = receive(wire, intake, &slab, &arrival, &place)
        if got <= 0:
            if got == -1 and errno == EAGAIN:
                wire.hot = False
                return READ_DRY
            return end_of_stream(wire, got)
        wire.control.heard(intake.now)
        if not parse_here(wire, intake, slab, arrival, place, <size_t>got):
            return READ_FULL
        if not wire.hot:
            return READ_DRY
        if intake.pushed >= GATHER:
            intake_settle(intake)
    return READ_MORE


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
