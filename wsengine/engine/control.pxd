# The design page of control: what reader, timer, supervisor and Python share about one connection.
#
# Belongs here: the Control block of control.hpp, which says for each field who writes it, and its Python face. Does not:
# what one thread alone touches (stream, keepalive).
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libcpp.atomic cimport atomic
from wsengine.engine.output cimport Outbox

cdef extern from "control.hpp" namespace "wsengine" nogil:
    cdef enum Ask "wsengine::Ask":
        ASK_IDLE "wsengine::kAskIdle"
        ASK_PONG "wsengine::kAskPong"
        ASK_CLOSE "wsengine::kAskClose"

    cppclass Control:
        Control() except +
        atomic[int64_t] keepalive_ns
        atomic[int64_t] ws_timeout_ns
        atomic[int64_t] pong_timeout_ns
        atomic[int64_t] close_timeout_ns
        atomic[int64_t] started_ns
        atomic[uint32_t] epoch
        atomic[int64_t] heard_ns
        atomic[int64_t] resumed_ns
        atomic[uint32_t] paused
        atomic[uint32_t] pong_number
        atomic[int64_t] round_trip_ns
        atomic[int64_t] close_due_ns
        atomic[uint64_t] messages
        atomic[uint64_t] bytes
        atomic[uint64_t] wire_bytes
        atomic[uint64_t] frames
        atomic[uint64_t] discarded
        atomic[uint64_t] dropped
        atomic[uint64_t] pauses
        atomic[uint64_t] pings_heard
        atomic[uint32_t] ping_number
        atomic[int64_t]* ping_sent_ns
        atomic[uint32_t] asks
        Outbox outbox
        atomic[uint32_t] awaited
        void begin(uint32_t epoch)
        void end()
        void resume(int64_t now)
        void close_within_limit()
        void heard(int64_t now)
        @staticmethod
        void add(atomic[uint64_t]& count, uint64_t n)

cdef class ControlBlock:
    # Owner of one Control, and its Python face.
    cdef Control* c
