# The design page of keepalive: the ping timer thread of one producer.
#
# Belongs here: when a ping is due, and when to ask the reader whether a connection is lost. Does not: judging that
# (receiver), sending (stream). It never takes the GIL between start and stop. One tick is a pure function of `now`,
# of its schedules and of what the control blocks say.
from libc.stdint cimport int64_t, uint32_t
from libcpp cimport bool as cbool
from libcpp.atomic cimport atomic
from wsengine.engine.frames cimport MaskKeys
from wsengine.engine.ring cimport CDoorbell, CParker, Parker
from wsengine.engine.control cimport Control

cdef struct Schedule:          # the timer's own, one a place; made anew with each generation
    uint32_t epoch             # generation that it is for; 0: nothing to watch
    uint32_t number            # of the newest ping
    int64_t ping_ns            # when the next one is due
    int64_t asked_ns           # when the reader was asked last: not again within RETRY_NS

cdef enum:
    RETRY_NS = 20000000

cdef class KeepaliveTimer:
    cdef Control** controls    # the first `places` of them; constructor and add, each before it is counted
    cdef Schedule* schedules   # the timer thread
    cdef atomic[uint32_t]* places    # store release by add, load acquire by the thread: it sees the place as well
    cdef uint32_t room         # places that there can be
    cdef list owners           # keep the Controls alive
    cdef object receiver       # keeps the bell alive
    cdef CDoorbell* bell
    cdef readonly Parker parker
    cdef MaskKeys keys         # the timer thread
    cdef atomic[uint32_t]* stopping  # 1: end; store release by stop, load acquire by the thread
    cdef int64_t tick_all(self, int64_t now) noexcept nogil
