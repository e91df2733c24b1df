# The design page of processor: the loop that claims chunks, runs the handlers and acknowledges.
#
# Belongs here: claim, callbacks of a processor, the verdict on each message, acknowledgement exactly once. Does not:
# threads and their replacement (topology, monitor), sources themselves, the order of a stop (drain).
#
# Who may touch what: a Crew is shared by all processors of a pipeline; a Processor and the chunk that it holds belong to
# its thread, but for `Chunk.state`, which decides under the chunk's mutex who acknowledges: the processor that claimed
# it, or whoever takes it over because that one is dead or the deadline has come.
cimport cython
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libcpp.atomic cimport atomic
from wsengine.engine.ring cimport Account, Descriptor, Parker, Ring
from wsengine.message cimport Message

cdef extern from "Python.h":
    ctypedef struct PyObject:
        pass

cdef enum:
    CHUNK = 256                # messages a claim, at the most, whatever max_demand says
    AHEAD = 6                  # payloads fetched ahead of their copying
    CHUNK_BYTES = 1048576      # about as many bytes a claim, by the sizes seen before

cdef enum ChunkState:          # chunk lifecycle; under Chunk.lock
    CHUNK_OPEN                 # its processor works on it
    CHUNK_SETTLED              # its processor acknowledges or has acknowledged it
    CHUNK_TAKEN                # somebody else has

cdef class Crew:
    # What the processors of one pipeline share. Fixed before they start, but for the atomics.
    cdef readonly Parker parker
    cdef readonly Account account
    cdef readonly object pipeline    # callbacks are its methods
    cdef readonly str name
    cdef readonly int concurrency, min_demand, max_demand
    cdef readonly list rings         # of (Ring, origin, transformer)
    cdef readonly list inboxes       # of Inbox
    cdef readonly int64_t spin_ns
    cdef atomic[int]* busy           # processors with a chunk; each its own plus and minus
    cdef atomic[int]* ending         # 1: leave once there is nothing to claim; drain stores release, processors acquire
    cdef atomic[int]* closed         # 1: claim nothing more; drain stores release, processors acquire
    cdef atomic[int]* askers         # threads that wait for demand; they plus and minus
    cdef object handler, chunk_handler, prepare, on_failed   # callbacks, None where there is none
    cdef object acknowledge, log_failure
    cdef bint ready(self)

cdef class Chunk:
    # What one claim brought, until it is acknowledged.
    cdef cython.pymutex lock
    cdef ChunkState state            # under lock
    cdef list messages               # its processor; whoever takes it over, after CHUNK_TAKEN
    cdef Py_ssize_t left             # messages not acknowledged yet; under lock
    cdef uint64_t size               # bytes charged for those; under lock
    cdef Py_ssize_t progress         # handlers are done with so many; its processor
    cdef Crew crew

cdef class Processor:
    cdef readonly Crew crew
    cdef readonly int index
    cdef readonly object thread_name
    cdef Chunk chunk                 # the one in hand, or None
    cdef readonly uint64_t successful, failed   # messages acknowledged so far; its thread
    cdef readonly Py_ssize_t outstanding        # claimed and not acknowledged; its thread
    cdef readonly int64_t busy_ns    # time spent on chunks; its thread
    cdef readonly int64_t since_ns   # when the chunk in hand was claimed, 0: none; its thread
    cdef uint32_t usual              # bytes a message, by the last claim; its thread
    cdef list kept                   # messages of the chunk before, to be used again; its thread
    cdef object attached             # telemetry's table that the next two were looked up in; its thread
    cdef bint chunks_heard           # somebody listens to the events of a chunk; its thread
    cdef bint messages_heard         # the same of a message; its thread
    cdef object span                 # telemetry's mark of it; its thread
    cdef list watched                # the chunk in hand, while telemetry wants to see it afterwards; its thread
    cdef object transformer          # for the chunk in hand, or None; its thread
    cdef int turn                    # source to look at first; its thread
    cdef Descriptor batch[CHUNK]     # its thread

    cdef void park(self, uint32_t seen) noexcept nogil
    cdef Py_ssize_t claim(self)
    cdef Py_ssize_t claim_inbox(self, object inbox)
    cdef Py_ssize_t demand(self, uint64_t ready)
    cdef Py_ssize_t claim_ring(self, Ring ring, object origin, object transformer)
    cdef materialise(self, uint32_t n, Ring ring, object origin, Chunk chunk)
    cdef keep(self, list messages)
    cdef unusual(self, Py_ssize_t at, list messages, PyObject* result)
    cdef hold(self, list messages, uint64_t size)
    cdef hold_given(self, list messages)
    cdef handle(self)
    cdef look_who_listens(self)
    cdef Py_ssize_t transform(self, object transformer)
    cdef bint prepare(self, list messages, Py_ssize_t first)
    cdef call_each(self, list messages, Py_ssize_t first, object handler)
    cdef call_watched(self, list messages, Py_ssize_t first, object handler)
    cdef call_chunk(self, list messages, Py_ssize_t first, object handler)
    cdef take_results(self, str callback, list messages, Py_ssize_t first, object results)
    cdef take_result(self, Py_ssize_t at, Message message, object result)
    cdef settle(self)
