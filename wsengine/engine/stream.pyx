"""One connection's bytes: from the socket through the parser into slabs and the ring.

All functions run without the GIL in whatever thread has the lead (lead.hpp), never block, and report what became of the
call. When to read and write is the reader's matter, the wire format that of `frames`. Payloads are parsed where they were
received; only messages cut by a read, or fragmented, are gathered, large ones by reading straight into their memory.
Compressed messages are inflated from where they were received, and are never gathered as they were sent.
"""
cimport cython
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, strlen
from libcpp.atomic cimport memory_order_acquire, memory_order_relaxed
from wsengine.engine.inflate import HAVE_ZLIB
from wsengine.errors import EngineError
from wsengine.engine.control cimport Control, ControlBlock
from wsengine.engine.frames cimport (OP_CLOSE, OP_TEXT, STEP_CLOSE, STEP_DEFLATED, STEP_FAIL, STEP_MESSAGE, STEP_MORE,
                                     STEP_PIECE, STEP_PING, STEP_PONG, MaskKeys, Parsed, Step, between_messages, parse,
                                     parse_any, parser_fail, parser_start, whole_message)
from wsengine.engine.inflate cimport (INFLATE_FULL, INFLATE_MEMORY, INFLATE_UNFINISHED, INFLATED, Inflating, inflate_piece,
                                      inflater_free, inflater_new)
from wsengine.engine.intake cimport STAGED, Intake, describe, flush, has_credit, intake_settle, room_in_slab
from wsengine.engine.output cimport (output_close, output_drop, output_pong, output_shut, output_take,
                                     output_write)
from wsengine.engine.ring cimport Arrival, Descriptor, Slab, SlabPool, monotonic_ns
from wsengine.engine.tls cimport TLS_FAILED, Tls, tls_free, tls_new, tls_read
from wsengine.engine.utf8 cimport utf8_feed

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


cdef void drop_part(Wire* wire) noexcept nogil:
    if wire.part_slab != NULL:
        SlabPool.drop(wire.part_slab, 1)
        wire.part_slab = NULL
        wire.part_size = wire.part_capacity = 0


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

cdef inline void begin_arrival(Wire* wire, Intake* intake, Arrival* arrival, Slab* slab) noexcept nogil:
    arrival.slab = slab
    arrival.sequence = wire.sequence
    arrival.received_ns = intake.now
    arrival.epoch = wire.epoch
    arrival.index = wire.index


cdef inline void stage(Wire* wire, Intake* intake, const Arrival* arrival, const uint8_t* data, uint64_t size,
                       uint8_t opcode) noexcept nogil:
    """Stage one message; its slab is `here`, or comes with a reference of its own."""
    describe(&intake.batch[intake.staged], arrival, <uint32_t>(wire.sequence - arrival.sequence), data, size, opcode)
    wire.sequence += 1
    intake.credit -= 1
    intake.staged += 1
    if intake.staged == STAGED:
        flush(intake)


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


# ------------------------------------------------------------------------------------------- messages that arrive in parts

cdef bint grow_part(Wire* wire, Intake* intake, uint64_t needed, uint64_t announced) noexcept nogil:
    """Give the message in progress room for `needed` bytes, at once for all of `announced` unless that is large."""
    cdef uint64_t capacity = min(announced, <uint64_t>GROWTH)
    # the last frame says how long the message is; before it, doubling keeps many small fragments cheap
    if wire.parser.fin:
        capacity = max(max(capacity, needed), min(wire.part_capacity * 2, announced))
    else:
        capacity = max(max(capacity, needed), wire.part_capacity * 2)
    return move_part(wire, intake, capacity)


cdef bint move_part(Wire* wire, Intake* intake, uint64_t capacity) noexcept nogil:
    """Move the message in progress, if there is one, to memory of `capacity` bytes: in the slab being filled if small."""
    cdef Slab* slab
    cdef Arrival* arrival
    if capacity <= intake.pool.slab_bytes() // 4:
        arrival = room_in_slab(intake, capacity)
        if arrival == NULL:
            return False
        slab = intake.slab
        intake.used += sizeof(Arrival) + capacity
        SlabPool.add(slab, 1)
    else:
        slab = intake.pool.acquire(sizeof(Arrival) + capacity)
        if slab == NULL:
            return False
        arrival = <Arrival*>slab.data()
    if wire.part_slab != NULL:
        memcpy(<uint8_t*>(arrival + 1), wire.part, wire.part_size)
        SlabPool.drop(wire.part_slab, 1)
    put_part(wire, slab, arrival, capacity)
    return True


cdef inline void put_part(Wire* wire, Slab* slab, Arrival* arrival, uint64_t capacity) noexcept nogil:
    wire.part_slab = slab
    wire.part_arrival = arrival
    wire.part = <uint8_t*>(arrival + 1)
    wire.part_capacity = capacity


cdef void deliver_part(Wire* wire, Intake* intake, uint8_t opcode) noexcept nogil:
    """The message in progress is complete."""
    begin_arrival(wire, intake, wire.part_arrival, wire.part_slab)
    stage(wire, intake, wire.part_arrival, wire.part, wire.part_size, opcode)
    wire.part_slab = NULL             # its reference went with the message
    wire.part_size = wire.part_capacity = 0


cdef bint gather(Wire* wire, Intake* intake, const Parsed* parsed) noexcept nogil:
    """Append a piece to the message in progress; deliver it if that completes it. False if memory is out."""
    cdef uint64_t needed = wire.part_size + parsed.size
    if wire.discarding:
        drop_part(wire)
        if parsed.last:
            Control.add(wire.control.discarded, 1)
        return True
    if wire.part_slab == NULL or needed > wire.part_capacity:
        if not grow_part(wire, intake, max(needed, <uint64_t>1), parsed.announced):
            return False
    if parsed.size and parsed.payload != wire.part + wire.part_size:
        memcpy(wire.part + wire.part_size, parsed.payload, parsed.size)
    wire.part_size = needed
    if parsed.last:
        deliver_part(wire, intake, parsed.opcode)
    return True


# ------------------------------------------------------------------------------------------------- compressed messages

cdef bint open_part(Wire* wire, Intake* intake, size_t size) noexcept nogil:
    """Begin a message of `size` compressed bytes: all that is left of the slab being filled, until keep_part() says how
    much it takes. So a small message costs no allocation, and no copy."""
    cdef uint64_t most = wire.parser.max_size + 1, want = min(<uint64_t>size * DEFLATED + 256, most)
    cdef Arrival* arrival = room_in_slab(intake, <size_t>min(want, intake.pool.slab_bytes() // 4))
    if arrival == NULL:
        return False
    SlabPool.add(intake.slab, 1)
    put_part(wire, intake.slab, arrival, min(most, intake.pool.slab_bytes() - intake.used - sizeof(Arrival)))
    return True


cdef inline bint part_open(const Wire* wire, Intake* intake) noexcept nogil:
    """Whether the message in progress lies where the next thing in the slab would."""
    return wire.part_slab == intake.slab and <uint8_t*>wire.part_arrival == intake.slab.data() + intake.used


cdef void keep_part(Wire* wire, Intake* intake, bint last) noexcept nogil:
    """Take what an open message needs of the slab: its bytes, and as many again if it goes on."""
    if not part_open(wire, intake):
        return
    if not last:
        wire.part_capacity = min(wire.part_capacity, wire.part_size * 2 + 256)
    intake.used += sizeof(Arrival) + <size_t>(wire.part_size if last else wire.part_capacity)


cdef const char* inflate_into_part(Wire* wire, Intake* intake, const Parsed* parsed, uint16_t* code) noexcept nogil:
    """Inflate a piece of a message. What is wrong with it, with the close code; 1011: memory is out; NULL: nothing.

    No more than max_size + 1 bytes are ever inflated of a message. The RFCs give no close code for what is not DEFLATE:
    1007, as for text that is not UTF-8, says that the message is at fault and not its frames.
    """
    cdef const uint8_t* data = parsed.payload
    cdef size_t left = parsed.size, made = 0
    cdef Inflating inflating = INFLATE_FULL
    if wire.part_slab == NULL and not open_part(wire, intake, left):
        code[0] = 1011
        return b"no memory for a message"
    while True:
        inflating = inflate_piece(wire.inflater, &data, &left, parsed.last, wire.part + wire.part_size,
                                  <size_t>(wire.part_capacity - wire.part_size), &made)
        if parsed.opcode == OP_TEXT and not utf8_feed(&wire.parser.utf8, wire.part + wire.part_size, made):
            code[0] = 1007
            return b"text message that is not UTF-8"
        wire.part_size += made
        if wire.part_size > wire.parser.max_size:
            code[0] = 1009
            return b"message above max_size"
        if inflating != INFLATE_FULL:
            break
        if not move_part(wire, intake, min(wire.part_capacity * 2 + 256, wire.parser.max_size + 1)):
            code[0] = 1011
            return b"no memory for a message"
    code[0] = 1011 if inflating == INFLATE_MEMORY else 1007
    if inflating != INFLATED:
        return (b"compressed message that ends inside a DEFLATE block" if inflating == INFLATE_UNFINISHED else
                b"no memory for a message" if inflating == INFLATE_MEMORY else
                b"compressed message that is not DEFLATE data")
    if parsed.last and parsed.opcode == OP_TEXT and wire.parser.utf8.missing:
        return b"text message that ends within a character"
    return NULL


cdef bint take_deflated(Wire* wire, Intake* intake, Parsed* parsed, uint64_t* payloads) noexcept nogil:
    """Take a piece of a compressed message; deliver it if that completes it. True if it took memory, and the account
    admits no more: a read of compressed bytes may hold a thousand times as many, so it must be able to stop within."""
    cdef Slab* before = intake.slab
    cdef const char* problem
    cdef uint16_t code = 0
    cdef bint elsewhere
    if wire.discarding:               # for good, so what later messages refer to need not be known: nothing is inflated
        drop_part(wire)
        if parsed.last:
            Control.add(wire.control.discarded, 1)
        return False
    problem = inflate_into_part(wire, intake, parsed, &code)
    if problem != NULL:
        if code == 1011:
            no_memory(wire, intake)
        else:
            parsed.announced = wire.part_size
            parser_fail(&wire.parser, parsed, code, problem)
            on_failure(wire, intake, parsed)
        return False
    keep_part(wire, intake, parsed.last)
    if not parsed.last:
        return False
    payloads[0] += wire.part_size
    elsewhere = wire.part_slab != before
    deliver_part(wire, intake, parsed.opcode)
    if elsewhere:
        flush(intake)
    return elsewhere and not intake.account.admits()


# -------------------------------------------------------------------------------------------- what control frames do

cdef void end_begins(Wire* wire, Intake* intake) noexcept nogil:
    wire.phase = PHASE_ENDING
    wire.control.close_within_limit()


cdef void on_close(Wire* wire, Intake* intake, const Parsed* parsed) noexcept nogil:
    wire_blame(wire, CAUSE_CLOSED, parsed.close_code, 0, parsed.payload, parsed.size)
    wire_close(wire, &intake.keys, parsed.close_code, NULL, 0)
    end_begins(wire, intake)


cdef void on_failure(Wire* wire, Intake* intake, const Parsed* parsed) noexcept nogil:
    """Fail the connection (RFC 6455 §7.1.7): tell the peer why, take nothing more from it."""
    cdef const uint8_t* problem = <const uint8_t*>parsed.problem
    wire_blame(wire, CAUSE_FAILED, parsed.close_code, 0, problem, strlen(parsed.problem))
    if parsed.close_code == 1009:
        wire.detail = parsed.announced
    wire_close(wire, &intake.keys, parsed.close_code, problem, strlen(parsed.problem))
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
        intake.note_control(intake.notes, wire.index, wire.epoch, False, parsed, trip)


# ------------------------------------------------------------------------------------------------------------- reading

cdef bint take_step(Wire* wire, Intake* intake, Step step, const Parsed* parsed) noexcept nogil:
    """What a step other than a whole message does to the connection; False if memory is out."""
    if step == STEP_PIECE:
        return gather(wire, intake, parsed)
    if step == STEP_PING:
        Control.add(wire.control.pings_heard, 1)
        output_pong(&wire.out, &intake.keys, parsed.payload, parsed.size)
        if intake.loud:
            intake.note_control(intake.notes, wire.index, wire.epoch, True, parsed, -1)
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
    intake.in_place += 1
    stage(wire, intake, intake.arrival, parsed.payload, parsed.size, parsed.opcode)


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
    while at < size:
        if not wire.discarding:
            if not has_credit(intake):
                put_rest_by(wire, intake, data + at, size - at)
                break
            if between_messages(&wire.parser):
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
            if not wire.discarding:
                payloads += parsed.size
            take_message(wire, intake, &parsed)
            continue
        if step == STEP_DEFLATED:
            if take_deflated(wire, intake, &parsed, &payloads) and at < size:
                put_rest_by(wire, intake, data + at, size - at)
                break
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
        if not wire.discarding and wire.phase < PHASE_ENDING and not intake.account.admits():
            return READ_FULL
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
        tls: the SSLSocket of that descriptor, its handshake done and nobody else using it (path A); None where the
            socket's bytes are the stream's. EngineError where its SSL object cannot be used.
        deflate: what was agreed on with the server about permessage-deflate (inflate.DeflateParameters); None: nothing,
            so that a compressed message is refused with 1002. EngineError where this build has no zlib.
    """

    def __cinit__(self, int fd, ControlBlock control not None, uint32_t index, uint32_t epoch, uint64_t max_size,
                  bytes leftover=b"", *, object tls=None, deflate=None):
        self.control_owner = control
        self.leftover = leftover
        self.wire = wire_new(fd, index, epoch, control.c, max_size)
        if self.wire == NULL:
            raise MemoryError()
        if tls is not None:
            self.wire.tls = tls_new(tls)
        if deflate is not None:
            self.inflate_as(deflate)

    cdef int inflate_as(self, deflate) except -1:
        if not HAVE_ZLIB:
            raise EngineError("this build of wsengine has no zlib, so it cannot take compressed messages")
        self.wire.inflater = inflater_new(deflate.server_max_window_bits, not deflate.server_no_context_takeover)
        if self.wire.inflater == NULL:
            raise MemoryError()
        self.wire.parser.deflate = 1
        return 0

    def __dealloc__(self):
        if self.wire != NULL:
            wire_free(self.wire)
