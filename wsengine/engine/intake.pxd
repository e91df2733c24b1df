# The design page of intake: from parsed messages to the ring, for all connections of a reader together.
#
# Belongs here: the slab being filled, descriptors that are staged and pushed, credit from the account, the wake that
# follows. Does not: what a message is, and where its bytes came from (input, frames). An Intake belongs to the thread
# that has the lead (lead.hpp).
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libcpp cimport bool as cbool
from wsengine.engine.control cimport Control
from wsengine.engine.frames cimport MaskKeys, Parsed
from wsengine.engine.ring cimport Arrival, CAccount, CParker, CRing, Descriptor, Slab, SlabPool

cdef enum:
    STAGED = 64                # descriptors pushed at a time
    CREDIT = 1024              # messages staged between two looks at the account, which other producers share

cdef struct Intake:            # the reader's, one a ring: its connections share one, or each has its own
    CRing* ring
    CAccount* account
    unsigned door              # ours in the account
    CParker* parker
    SlabPool* pool
    Slab* slab                 # being filled; holds one reference
    size_t used                # bytes of it
    Descriptor batch[STAGED]
    uint32_t staged
    uint32_t in_place          # of those, how many lie in `here` and have no reference of their own yet
    Slab* here                 # what is being parsed
    Arrival* arrival           # of that
    uint64_t credit            # messages that may still be staged before the account is asked again
    uint32_t pushed            # since the last notify
    cbool lent                 # read by a processor, which looks for messages itself: nobody needs to be notified
    MaskKeys keys
    int64_t now                # of the read under way
    int overflow               # an Overflow: what to do where there is no room
    cbool short                # there is none: a message that becomes complete now goes by the policy
    uint64_t drops             # messages dropped since the reader told of drops last
    Control** controls         # of its connections, by index; NULL where it has one connection, `sole`
    Control* sole
    cbool loud                 # pings and pongs are noted, and not only pongs that somebody waits for
    void* notes                # reader: where they are noted
    void (*note_control)(void* notes, uint32_t index, uint32_t epoch, bint ping, const Parsed* parsed, int64_t now,
                         int64_t round_trip) noexcept nogil

cdef bint intake_start(Intake* intake, CRing* ring, CAccount* account, CParker* parker, SlabPool* pool) noexcept nogil
cdef void intake_stop(Intake* intake) noexcept nogil
# Push what is staged. There is room: `credit` never exceeds the account's, and the ring holds as much.
cdef void flush(Intake* intake) noexcept nogil
# Push what is staged, and wake one processor if anything was pushed: once a read.
cdef void intake_settle(Intake* intake) noexcept nogil
# Where in the slab being filled an arrival with `size` bytes behind it may lie; NULL if memory is out.
cdef Arrival* room_in_slab(Intake* intake, size_t size) noexcept nogil

cdef inline bint has_credit(Intake* intake) noexcept nogil:
    if intake.credit == 0:
        flush(intake)
        # where room is made, or messages dropped, bytes count as well: nothing else keeps them within the bound
        if intake.overflow == 0 or intake.account.admits():
            intake.credit = min(intake.account.room(), <uint64_t>CREDIT)
    return intake.credit != 0

cdef inline void describe(Descriptor* one, const Arrival* arrival, uint32_t ordinal, const uint8_t* data, uint64_t size,
                          uint8_t opcode) noexcept nogil:
    one.data = data
    one.arrival = arrival
    one.size = <uint32_t>size
    one.ordinal = ordinal
    one.keyless = 0
    one.opcode = opcode
