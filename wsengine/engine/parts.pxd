# The design page of parts: messages that do not lie whole in what was read: cut by a read, fragmented, or compressed.
#
# Belongs here: the memory of the one message in progress, how it grows, what is inflated into it and how much of that there
# may be. Does not: which bytes are a message's (frames), DEFLATE itself (inflate), messages that lie whole in a read, and
# what becomes of a connection whose message is broken (stream). All of it belongs to the thread that has the lead (lead.hpp).
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from wsengine.engine.frames cimport Parsed
from wsengine.engine.intake cimport STAGED, Intake, describe, flush
from wsengine.engine.ring cimport Arrival, Slab
from wsengine.engine.stream cimport Wire

cdef enum:
    DEFLATED = 8               # how many times its size a compressed message is given to begin with
    GROWTH = 1048576           # a message announced above this is given memory as it arrives, not as it is announced

cdef enum Took:
    TOOK
    TOOK_FULL                  # a message took memory, and the account admits no more
    TOOK_BROKEN                # what came with the step is now a failure: code, problem, size
    TOOK_NO_MEMORY

cdef void drop_part(Wire* wire) noexcept nogil
# Give the message in progress room for `needed` bytes, at once for all of `announced` unless that is large. False: no memory.
cdef bint grow_part(Wire* wire, Intake* intake, uint64_t needed, uint64_t announced) noexcept nogil
# Append a piece to the message in progress; deliver it if that completes it. False if memory is out.
cdef bint gather(Wire* wire, Intake* intake, const Parsed* parsed) noexcept nogil
# The same with a piece of a compressed message; `payloads` grows by the bytes of a message that is delivered. A read of
# compressed bytes may hold a thousand times as many, so whoever parses it must be able to stop within: TOOK_FULL.
cdef Took take_deflated(Wire* wire, Intake* intake, Parsed* parsed, uint64_t* payloads) noexcept nogil


# ---- staging, of these and of all other messages

cdef inline void begin_arrival(Wire* wire, Intake* intake, Arrival* arrival, Slab* slab) noexcept nogil:
    arrival.slab = slab
    arrival.sequence = wire.sequence
    arrival.received_ns = intake.now
    arrival.epoch = wire.epoch
    arrival.index = wire.index


# Pass over the next message if it has been taken before the reader; it keeps its number. Only where `skips_left`.
cdef inline bint skip(Wire* wire) noexcept nogil:
    if wire.skips[wire.skips_met] != wire.sequence:
        return False
    wire.sequence += 1
    wire.skips_met += 1
    wire.skips_left -= 1
    return True


cdef inline void stage(Wire* wire, Intake* intake, const Arrival* arrival, const uint8_t* data, uint64_t size,
                       uint8_t opcode) noexcept nogil:
    """Stage one message; its slab is `here`, or comes with a reference of its own."""
    describe(&intake.batch[intake.staged], arrival, <uint32_t>(wire.sequence - arrival.sequence), data, size, opcode)
    wire.sequence += 1
    intake.credit -= 1
    intake.staged += 1
    if intake.staged == STAGED:
        flush(intake)
