# The design page of reader: what becomes of a producer's connections each time that the bell or a socket wants something.
#
# Belongs here: when each connection is read, written, paused and let go; the mail from and to the supervisor. Does not:
# which thread does it, and when it rests (receiver), what the bytes mean (stream, frames), whether to connect again
# (websocket). Nothing here takes the GIL. All of Reader belongs to the thread that has the lead (lead.hpp), but for the
# two mailboxes, the bell and the counters that say otherwise.
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libcpp cimport bool as cbool
from libcpp.atomic cimport atomic
from wsengine.engine.frames cimport Parsed
from wsengine.engine.intake cimport Intake
from wsengine.engine.ring cimport CDoorbell, CParker
from wsengine.engine.stream cimport Wire

cdef extern from "mail.hpp" namespace "wsengine" nogil:
    cdef enum Order "wsengine::Order":
        ORDER_ADD "wsengine::kAdd"
        ORDER_CLOSE "wsengine::kClose"
        ORDER_DISCARD "wsengine::kDiscard"
        ORDER_RELEASE "wsengine::kRelease"
        ORDER_STOP "wsengine::kStop"

    cppclass Command:
        Command* next
        Order order
        uint32_t index
        uint32_t epoch
        void* wire
        uint8_t* leftover
        size_t leftover_size
        uint16_t code
        cbool discard
        uint8_t text_size
        uint8_t* text

    cdef enum Kind "wsengine::Kind":
        KIND_ENDED "wsengine::kEnded"
        KIND_HIGH "wsengine::kHigh"
        KIND_LOW "wsengine::kLow"
        KIND_DROP "wsengine::kDrop"
        KIND_PING "wsengine::kPing"
        KIND_PONG "wsengine::kPong"

    cppclass CNote "wsengine::Note":
        CNote* next
        Kind kind
        uint32_t index
        uint32_t epoch
        uint32_t cause
        int error
        uint16_t code
        uint8_t text_size
        uint8_t* text
        uint64_t detail
        int64_t round_trip_ns

    cppclass CommandBox "wsengine::Stack<wsengine::Command>":
        CommandBox() except +
        void push(Command* command)
        Command* take_in_order()

    cppclass NoteBox "wsengine::Stack<wsengine::Note>":
        NoteBox() except +
        void push(CNote* note)
        cbool empty()
        CNote* take_in_order()

cdef extern from "poller.hpp" namespace "wsengine" nogil:
    cppclass Readiness:
        void* key
        cbool readable
        cbool writable
        cbool broken

    cppclass Poller:
        Poller() except +
        cbool valid()
        void shut()
        cbool add(int fd, void* key, cbool read, cbool write)
        cbool modify(int fd, void* key, cbool read, cbool write)
        void remove(int fd)
        int wait(Readiness* out, int timeout_ms)

cdef enum:
    EVENTS = 64                # events a poll
    NOTES_PENDING = 1024       # pings and pongs noted and not yet taken, at the most
    FAREWELL_MS = 10           # between looks at connections whose Close waits for its moment
    PRESSURE_NS = 100000000    # "high" is noted at most once in this time, and "low" only after a noted "high"

cdef struct Reader:
    Poller* poller
    CDoorbell* bell            # the ring's
    CommandBox* commands       # the supervisor pushes, look() takes
    NoteBox* notes             # post() pushes, the supervisor takes
    CParker* supervisor        # notified after a note
    CParker* timer             # notified when a closing handshake gets its deadline
    Intake intake
    Wire* wires                # all connections, linked by `next`
    Wire** again               # those to be read in the next round without a poll
    size_t again_count, again_room
    uint32_t starved           # connections that wait for room
    uint32_t failing           # connections whose Close waits for its moment
    int64_t high_ns            # when "high" was noted last
    cbool high                 # and "low" not yet
    int64_t drop_ns            # when drops were noted last
    cbool drops                # there have been some since
    atomic[uint32_t]* discards # carried out; here by release, whoever drains by acquire
    cbool met_idle             # a processor waited when the last turn began
    cbool stopping
    atomic[uint32_t]* pending  # pings and pongs noted and not taken; added here, the supervisor subtracts; a bound, relaxed

cdef void free_command(Command* command) noexcept nogil
# Note a ping or a pong; for Intake.note_control, with the Reader as its context.
cdef void note_control(void* context, uint32_t index, uint32_t epoch, bint ping, const Parsed* parsed, int64_t now,
                       int64_t trip) noexcept nogil
# Milliseconds that the next round may wait at the most; below 0: for ever.
cdef int patience(Reader* reader) noexcept nogil
# Wait until something wants a look, and give it one.
cdef void take_round(Reader* reader, int timeout_ms) noexcept nogil
