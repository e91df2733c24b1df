# The design page of callbacks: what the user's code makes of a chunk.
#
# Belongs here: calling transformer, prepare_messages, the handlers, handle_batch and handle_failed, and the verdict on what
# they return or raise. Does not: when they are called, and acknowledgement (processor, chunk). All of it runs in the thread of the
# processor that has the chunk; `messages` is that chunk's list, from `first` on, where those before have failed already.
from libc.stdint cimport int64_t, uint64_t
from posix.time cimport CLOCK_REALTIME, clock_gettime, timespec
from wsengine.pipeline.batch cimport Batch
from wsengine.pipeline.chunk cimport Chunk
from wsengine.pipeline.crew cimport Crew
from wsengine.pipeline.listeners cimport Listeners

cdef enum:
    BETWEEN = 0x8000000000000000   # set in `ticks` while no callback runs: a retry is waited for

# The `system_time` of an event: `time.time_ns()`, without a call of Python's.
cdef inline int64_t wall_ns() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_REALTIME, &now)
    return <int64_t>now.tv_sec * 1000000000 + now.tv_nsec

cdef Py_ssize_t transform(Crew crew, Chunk chunk, object transformer)
# What it raised, or None; the same of those that follow.
cdef object prepare(Crew crew, Chunk chunk, list messages, Py_ssize_t first)
# `where`: what telemetry says of the thread. `ticks`: of the thread, raised by each call.
cdef call_each(Crew crew, Chunk chunk, list messages, Py_ssize_t first, dict where, uint64_t* ticks, Listeners counters)
cdef call_watched(Crew crew, Chunk chunk, list messages, Py_ssize_t first, dict where, uint64_t* ticks, Listeners listeners)
cdef object call_chunk(Crew crew, Chunk chunk, list messages, Py_ssize_t first, dict where, uint64_t* ticks)
cdef object call_batch(Crew crew, Batch batch, str key, object retry, dict where, uint64_t* ticks)
# Whether all that have not failed name the same batcher.
cdef bint judge_batchers(Crew crew, list messages)
# `places`: of the failed ones in the chunk.
cdef call_handle_failed(Crew crew, Chunk chunk, list places)
