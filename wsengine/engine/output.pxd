# The design page of output: the frames that one connection has still to send, in the order in which they go.
#
# Belongs here: queues of masked frames, who overtakes whom, what is sent of the first, what a Close means for those behind
# it. Does not: the wire format (frames), when to write (receiver), what a frame received asks for (stream). An Output
# belongs to the thread that has the lead (lead.hpp); other threads hand frames in by an Outbox, which is lock-free.
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libcpp cimport bool as cbool
from wsengine.engine.frames cimport MaskKeys
from wsengine.engine.ring cimport CParker
from wsengine.engine.tls cimport Tls

cdef extern from "outbox.hpp" namespace "wsengine" nogil:
    cppclass OutFrame:
        OutFrame* next
        uint32_t size
        uint32_t epoch
        uint8_t opcode
        uint8_t* data()
        @staticmethod
        OutFrame* make(uint32_t size, uint8_t opcode)
        @staticmethod
        OutFrame* make(uint32_t size, uint8_t opcode, uint32_t epoch)

    cppclass Outbox:
        uint64_t queued()
        void push(OutFrame* frame)
        cbool empty()
        OutFrame* take_in_order()
        void done(OutFrame* frame)
        CParker room

cdef enum:
    PONGS_PENDING = 64         # unsent pongs kept; above, the newest replaces the one before (RFC 6455 §5.5.3)

cdef struct Output:            # control frames overtake between frames, never inside one
    Outbox* box                # where other threads put theirs, and which counts them until they are done with
    OutFrame* sending
    uint32_t sent              # bytes of it
    OutFrame* control_first
    OutFrame* control_last
    OutFrame* data_first
    OutFrame* data_last
    uint32_t pongs             # unsent pongs
    cbool close_queued         # our Close is queued or sent: nothing follows it
    cbool dead                 # a write failed: nothing more is sent
    cbool shut                 # our side is shut

cdef OutFrame* frame_make(MaskKeys* keys, uint8_t opcode, const uint8_t* payload, size_t size,
                          uint32_t epoch) noexcept nogil

cdef void output_take(Output* out, uint32_t epoch) noexcept nogil      # what other threads want to send in this generation
cdef void output_pong(Output* out, MaskKeys* keys, const uint8_t* payload, size_t size) noexcept nogil
# Queue our Close: behind the messages that are queued, or `at_once`, which drops those that have not been begun.
cdef void output_close(Output* out, MaskKeys* keys, uint16_t code, const uint8_t* reason, size_t size,
                       bint at_once) noexcept nogil
cdef bint output_waits(const Output* out) noexcept nogil               # something is queued
cdef bint output_write(Output* out, int fd, Tls* tls) noexcept nogil   # True: the socket took less than there is
cdef void output_shut(Output* out, int fd, Tls* tls) noexcept nogil    # end our side of the stream
cdef void output_drop(Output* out) noexcept nogil
