# The design page of stream: one connection of a reader.
#
# Belongs here: what a connection is, how it begins and ends, what control frames and failures do to it, and that it writes.
# Does not: what it receives (input), what goes out and in which order (output), when it reads or writes (reader), who decides
# to connect (websocket). After registration all of a Wire belongs to the thread that has the lead (lead.hpp); what others may
# touch is its Control.
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libcpp cimport bool as cbool
from libcpp.atomic cimport atomic
from wsengine.engine.control cimport Control
from wsengine.engine.frames cimport MaskKeys, Parsed, Parser
from wsengine.engine.inflate cimport Inflater
from wsengine.engine.intake cimport Intake
from wsengine.engine.output cimport Output
from wsengine.engine.ring cimport Arrival, Slab
from wsengine.engine.tls cimport Tls

cdef enum:
    FAREWELL_NS = 50000000     # how long a failing connection stays open for answers to what came before

cdef enum Phase:
    PHASE_OPEN                 # frames both ways
    PHASE_CLOSING              # our Close is on its way, the peer's is awaited
    PHASE_FAILING              # the peer broke the protocol: what answers its messages before that still goes, then our Close
    PHASE_ENDING               # Close received or protocol failed: send what is queued, then wait for the end
    PHASE_DEAD                 # off the socket

cdef enum Cause:               # why a connection ended; the first one found stands
    CAUSE_NONE
    CAUSE_CLOSED               # the peer's Close: code, reason
    CAUSE_FAILED               # the peer broke the protocol: code that we sent, problem
    CAUSE_EOF                  # the peer ended the stream without a Close
    CAUSE_ERROR                # a network error: errno
    CAUSE_IDLE                 # ws_timeout
    CAUSE_PONG                 # pong_timeout
    CAUSE_RELEASED             # we let go of it
    CAUSE_MEMORY               # no memory for a message
    CAUSE_TLS                  # the peer broke TLS: problem
    CAUSE_OVERFLOW             # there was no room, and the policy is to fail

cdef struct Wire:
    int fd
    Tls* tls                   # NULL where the socket's bytes are the stream's: plain, or behind a pump
    uint32_t index             # which connection of the producer
    uint32_t epoch             # which generation of it
    Control* control
    Intake* intake             # where its messages go; set when the reader takes it over
    Parser parser
    Inflater* inflater         # NULL: permessage-deflate was not agreed on
    uint64_t sequence          # of the next message
    Phase phase
    # what the poller knows
    cbool polled, reading, writing
    cbool hot                  # may have something to read
    cbool discarding           # parse and answer, but deliver nothing
    cbool starved              # waits for room in the pipeline
    # the message in progress
    Slab* part_slab            # holds one reference
    Arrival* part_arrival      # in it, before the payload; filled in when the message is complete
    uint8_t* part
    uint64_t part_size
    uint64_t part_capacity
    # bytes read and not parsed, for want of room
    Slab* rest_slab            # holds one reference
    Arrival* rest_arrival      # of the read that they came by
    const uint8_t* rest
    size_t rest_size
    # messages that somebody has taken before the reader: parsed again here, and not delivered
    uint64_t* skips            # their sequence numbers, rising; freed with the wire
    size_t skips_left, skips_met
    Output out                 # what goes to the peer
    # how it ended
    Cause cause
    uint16_t code
    int error                  # errno
    uint64_t detail            # CAUSE_FAILED with 1009: the size announced
    int64_t farewell_ns        # PHASE_FAILING: when our Close goes
    cbool parting              # the reader has counted it among those
    uint8_t text[125]          # reason or problem
    uint8_t text_size
    Wire* next                 # the reader's list

cdef Wire* wire_new(int fd, uint32_t index, uint32_t epoch, Control* control, uint64_t max_size) noexcept nogil
cdef void wire_free(Wire* wire) noexcept nogil

cdef bint wire_write(Wire* wire) noexcept nogil      # True: something waits for the socket to take it
cdef void wire_farewell(Wire* wire, MaskKeys* keys) noexcept nogil   # the Close of a failing connection
cdef void wire_leave(Wire* wire) noexcept nogil
cdef void wire_close(Wire* wire, MaskKeys* keys, uint16_t code, const uint8_t* reason, size_t size) noexcept nogil
cdef void wire_finish(Wire* wire, MaskKeys* keys, uint16_t code, const uint8_t* reason, size_t size) noexcept nogil
cdef void wire_blame(Wire* wire, Cause cause, uint16_t code, int error, const uint8_t* text, size_t size) noexcept nogil


# What happened to it, found by whoever parses (input); each lets its message in progress go, and begins its end.
cdef void on_close(Wire* wire, Intake* intake, const Parsed* parsed) noexcept nogil      # the peer's Close
cdef void on_failure(Wire* wire, Intake* intake, const Parsed* parsed) noexcept nogil    # the peer broke the protocol
cdef void on_overflow(Wire* wire, Intake* intake) noexcept nogil
cdef void on_no_memory(Wire* wire, Intake* intake) noexcept nogil
cdef void on_pong(Wire* wire, Intake* intake, const Parsed* parsed) noexcept nogil       # nothing ends


cdef class Stream:
    # A connection ready for a reader: descriptor, generation, and the bytes that came behind the handshake.
    cdef Wire* wire            # given to the reader at registration, taken back when it has let go
    cdef object control_owner  # keeps the Control alive
    cdef readonly bytes leftover
    cdef readonly tuple consumed
    cdef int pass_over(self, tuple consumed) except -1
