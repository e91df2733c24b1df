# The design page of processor: the loop that claims chunks, runs the handlers and acknowledges.
#
# Belongs here: when and how much to claim, and the turn of each callback. Does not: how messages are made (materialiser),
# what callbacks make of them (callbacks), who acknowledges them (chunk), threads and their replacement (topology,
# monitor), sources themselves, the order of a stop (drain). A Processor belongs to its thread; its figures may be read from any.
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libcpp.atomic cimport atomic
from wsengine.message cimport Message
from wsengine.pipeline.chunk cimport Chunk
from wsengine.pipeline.crew cimport Crew
from wsengine.pipeline.latency cimport Latency
from wsengine.pipeline.listeners cimport Listeners
from wsengine.pipeline.materialiser cimport Materialiser
from wsengine.pipeline.sources cimport Sources

cdef extern from "Python.h":
    ctypedef struct PyObject:
        pass

cdef enum:
    CHUNK_BYTES = 1048576      # about as many bytes a claim, by the sizes seen before

cdef class Processor:
    cdef readonly Crew crew
    cdef readonly Sources sources    # what it claims from
    cdef readonly int index
    cdef readonly object thread_name
    cdef atomic[int]* leaving        # 1: it is to end; the control plane stores, its thread reads
    cdef dict where                  # what telemetry says of it
    cdef Chunk chunk                 # the one in hand, or None
    cdef readonly uint64_t successful, failed   # messages acknowledged so far; its thread
    cdef readonly Py_ssize_t outstanding        # claimed and not acknowledged; its thread
    cdef readonly uint64_t ticks     # calls of callbacks that were begun; its thread
    cdef readonly int64_t busy_ns    # time spent on chunks; its thread
    cdef readonly int64_t since_ns   # when the chunk in hand was claimed, 0: none; its thread
    cdef readonly Latency latency    # from receive to acknowledgement here; its thread
    cdef Materialiser materialiser   # its thread
    cdef Listeners chunk_listeners   # to the events of a chunk; its thread
    cdef Listeners message_listeners # to those of a message; its thread
    cdef object span                 # telemetry's mark of it; its thread
    cdef bint watched                # telemetry wants to see the chunk in hand afterwards; its thread
    cdef object problem              # what a callback of the whole chunk in hand raised, or None; its thread
    cdef tuple outcome               # of that: successful and failed messages, once it has been decided; its thread
    cdef list shown                  # of that: the messages to be used again behind the event; its thread
    cdef bint hands_on               # what succeeds goes to batchers; constant
    cdef bint sweeping               # it only fails what is left; its thread
    cdef object transformer          # for the chunk in hand, or None; its thread
    cdef Py_ssize_t spoiled          # of the chunk in hand, how many had failed before it was claimed, in front; its thread
    cdef int turn                    # source to look at first; its thread

    cdef void park(self, uint32_t seen, int64_t pause) noexcept nogil
    cdef bint spin(self, uint32_t seen) noexcept nogil
    cdef Py_ssize_t claim(self)
    cdef Py_ssize_t claim_inbox(self, object inbox)
    cdef Py_ssize_t demand(self, uint64_t ready)
    cdef Py_ssize_t allowed(self, Py_ssize_t most)
    cdef give_allowance(self, Py_ssize_t n)
    cdef Py_ssize_t claim_ring(self, tuple source)
    cdef hold(self, list messages, uint64_t size)
    cdef hold_given(self, list messages)
    cdef list spoiled_first(self, list messages)
    cdef handle(self)
    cdef int64_t tell_start(self, list messages) except -1
    cdef tell_outcome(self, list messages, bint usual)
    cdef tell_stop(self, int64_t started)
    cdef settle(self)
    cdef hand_on(self, Chunk chunk, list messages, Py_ssize_t failed, bint to_one)
    cdef count(self, list messages)
    cdef acknowledge_now(self, Chunk chunk, list messages)
