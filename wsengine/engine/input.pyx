"""What a connection receives: from the socket through the parser into slabs and the ring.

All functions run without the GIL in whatever thread has the lead (lead.hpp), never block, and report what became of the
call. Payloads are parsed where they were received; only messages cut by a read, fragmented or compressed have memory of
their own (parts), into which large ones are read straight away.
"""
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, strlen
from wsengine.engine.control cimport Control
from wsengine.engine.frames cimport (OP_CLOSE, STEP_CLOSE, STEP_DEFLATED, STEP_FAIL, STEP_MESSAGE, STEP_MORE, STEP_PIECE,
                                     STEP_PING, STEP_PONG, Parsed, Step, between_messages, parse, parse_any, whole_message)
from wsengine.engine.intake cimport STAGED, Intake, describe, flush, has_credit, intake_settle, room_in_slab
from wsengine.engine.output cimport output_pong
from wsengine.engine.overflow cimport OVERFLOW_BLOCK, admit
from wsengine.engine.parts cimport (TOOK_BROKEN, TOOK_FULL, TOOK_NO_MEMORY, Took, begin_arrival, gather, grow_part, skip,
                                    stage, take_deflated)
from wsengine.engine.ring cimport Arrival, Descriptor, Slab, SlabPool, monotonic_ns
from wsengine.engine.stream cimport (CAUSE_EOF, CAUSE_ERROR, CAUSE_MEMORY, CAUSE_TLS, PHASE_FAILING, Wire, on_close,
                                     on_failure, on_no_memory, on_overflow, on_pong, wire_blame)
from wsengine.engine.tls cimport TLS_FAILED, tls_read

cdef extern from "<sys/socket.h>" nogil:
    ssize_t recv(int fd, void* data, size_t size, int flags)
    int MSG_DONTWAIT


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
    if intake.short and not admit(wire, intake):
        return
    intake.in_place += 1
    stage(wire, intake, intake.arrival, parsed.payload, parsed.size, parsed.opcode)


cdef bint parse_bytes(Wire* wire, Intake* intake, const uint8_t* data, size_t size) noexcept nogil:
    """Parse bytes that lie in `intake.here`; False if it stopped for want of room, with the rest put by."""
    cdef Parsed parsed
    cdef size_t at = 0, used
    cdef uint64_t others = 0, whole = 0, first = wire.sequence, payloads = 0
    cdef Step step
    cdef Took took
    while at < size:
        if not wire.discarding:
            intake.short = not has_credit(intake)
            if intake.short:
                if intake.overflow == OVERFLOW_BLOCK:
                    put_rest_by(wire, intake, data + at, size - at)
                    break
            elif between_messages(&wire.parser) and not wire.skips_left:
                used = stage_whole(wire, intake, data + at, size - at, &whole, &payloads)
                at += used
                if used:
                    continue
            step = parse_any(&wire.parser, data + at, size - at, &parsed)
        else:
            intake.short = False
            step = parse(&wire.parser, data + at, size - at, &parsed)
        at += parsed.consumed
        if step == STEP_MORE:
            continue
        others += 1
        if step == STEP_MESSAGE:
            if not wire.discarding:
                payloads += parsed.size
            take_message(wire, intake, &parsed)
        elif step == STEP_DEFLATED:
            took = take_deflated(wire, intake, &parsed, &payloads)
            if took == TOOK_FULL and at < size:
                put_rest_by(wire, intake, data + at, size - at)
                break
            if took == TOOK_NO_MEMORY:
                on_no_memory(wire, intake)
            elif took == TOOK_BROKEN:
                on_failure(wire, intake, &parsed)
        else:
            if step == STEP_PIECE:
                payloads += parsed.size
            if not take_step(wire, intake, step, &parsed):
                on_no_memory(wire, intake)
        if intake.short and wire.discarding:
            on_overflow(wire, intake)
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
