"""The message in progress of a connection: gathered from its pieces, or inflated from them, in memory of its own.

Small ones lie in the slab being filled, larger ones in a slab made for them, which grows by doubling. Compressed bytes are
never gathered: each piece is inflated from where it was received.
"""
from libc.stdint cimport uint8_t, uint16_t, uint64_t
from libc.string cimport memcpy
from wsengine.engine.control cimport Control
from wsengine.engine.frames cimport OP_TEXT, Parsed, parser_fail
from wsengine.engine.inflate cimport (INFLATE_CORRUPT, INFLATE_FULL, INFLATE_MEMORY, INFLATE_UNFINISHED, Inflating,
                                      inflate_piece)
from wsengine.engine.intake cimport Intake, flush, room_in_slab
from wsengine.engine.overflow cimport OVERFLOW_BLOCK, admit
from wsengine.engine.ring cimport Arrival, Slab, SlabPool
from wsengine.engine.stream cimport Wire
from wsengine.engine.utf8 cimport utf8_feed


cdef void drop_part(Wire* wire) noexcept nogil:
    if wire.part_slab != NULL:
        SlabPool.drop(wire.part_slab, 1)
        wire.part_slab = NULL
        wire.part_size = wire.part_capacity = 0


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
    if wire.skips_left and skip(wire):
        drop_part(wire)
        return
    if intake.short and not admit(wire, intake):
        drop_part(wire)
        return
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
    """Inflate a piece of a message. What is wrong with it, with the close code, 1011 if memory is out; NULL: nothing.

    No more than max_size + 1 bytes are ever inflated of a message. The RFCs give no close code for what is not DEFLATE:
    1007, as for text that is not UTF-8, says that the message is at fault and not its frames.
    """
    cdef const uint8_t* data = parsed.payload
    cdef size_t left = parsed.size, made = 0
    cdef Inflating inflating = INFLATE_FULL
    if wire.part_slab == NULL and not open_part(wire, intake, left):
        code[0] = 1011
        return NULL
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
            return NULL
    code[0] = 1011 if inflating == INFLATE_MEMORY else 1007
    if inflating == INFLATE_UNFINISHED:
        return b"compressed message that ends inside a DEFLATE block"
    if inflating == INFLATE_CORRUPT:
        return b"compressed message that is not DEFLATE data"
    if parsed.last and parsed.opcode == OP_TEXT and wire.parser.utf8.missing:
        return b"text message that ends within a character"
    return NULL


cdef Took take_deflated(Wire* wire, Intake* intake, Parsed* parsed, uint64_t* payloads) noexcept nogil:
    cdef Slab* before = intake.slab
    cdef const char* problem
    cdef uint16_t code = 0
    cdef bint elsewhere
    if wire.discarding:               # for good, so what later messages refer to need not be known: nothing is inflated
        drop_part(wire)
        if parsed.last:
            Control.add(wire.control.discarded, 1)
        return TOOK
    problem = inflate_into_part(wire, intake, parsed, &code)
    if code == 1011:
        return TOOK_NO_MEMORY
    if problem != NULL:
        parsed.announced = wire.part_size
        parser_fail(&wire.parser, parsed, code, problem)
        return TOOK_BROKEN
    keep_part(wire, intake, parsed.last)
    if not parsed.last:
        return TOOK
    payloads[0] += wire.part_size
    elsewhere = wire.part_slab != before
    deliver_part(wire, intake, parsed.opcode)
    if not elsewhere:
        return TOOK
    flush(intake)
    if intake.account.admits():
        return TOOK
    intake.credit = 0                 # the bound in bytes is met, which credit does not count
    return TOOK_FULL if intake.overflow == OVERFLOW_BLOCK else TOOK
