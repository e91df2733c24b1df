# The design page of receiver: the reader thread, which alone reads and writes the sockets of one producer.
#
# Belongs here: when each connection is read, written, paused and let go; the mail from and to the supervisor. Does not:
# what the bytes mean (stream, frames) or whether to connect again (websocket). It never takes the GIL between start and
# stop. All of Reader belongs to the reader thread, but for the two mailboxes, the bell and `loud`.
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libcpp cimport bool as cbool
from libcpp.atomic cimport atomic
from wsengine.engine.ring cimport CAccount, CDoorbell, CParker, Parker, Ring
from wsengine.engine.stream cimport Intake, Wire

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
        uint8_t text_size
        uint8_t* text

    cdef enum Kind "wsengine::Kind":
        KIND_ENDED "wsengine::kEnded"
        KIND_HIGH "wsengine::kHigh"
        KIND_LOW "wsengine::kLow"
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
    REST_DEPTH = 1024          # messages that wait in the ring, below which the reader does not rest: many chunks
    REST_MS = 1                # how long a rest lasts at the most: nothing that a peer waits for shall notice it
    PRESSURE_NS = 100000000    # "high" is noted at most once in this time, and "low" only after a noted "high"

cdef struct Reader:
    Poller* poller
    CDoorbell* bell
    CommandBox* commands       # the supervisor pushes, the reader takes
    NoteBox* notes             # the reader pushes, the supervisor takes
    CParker* supervisor        # notified after a note
    CParker* timer             # notified when a closing handshake gets its deadline
    Intake intake
    unsigned door              # ours in the account
    Wire* wires                # all connections, linked by `next`
    Wire** again               # those to be read in the next round without a poll
    size_t again_count, again_room
    uint32_t starved           # connections that wait for room
    int64_t high_ns            # when "high" was noted last
    cbool high                 # and "low" not yet
    atomic[uint32_t]* discards # carried out; the reader by release, whoever drains by acquire
    cbool stopping
    atomic[uint32_t]* pending  # pings and pongs noted and not taken; reader adds, supervisor subtracts; a bound, relaxed


cdef class Receiver:
    cdef Reader* reader
    cdef readonly Ring ring    # keeps the ring alive
    cdef dict owners           # control blocks of connections given to the reader, kept alive; add
    cdef unsigned discards     # asked for; whoever drains
    cdef Parker supervisor     # the same
    cdef Parker timer
    cdef cbool running         # run() has been called; the thread that calls it
    cdef int send_command(self, Order order, uint32_t index, uint32_t epoch, uint16_t code, bytes text) except -1
