# The design page of callbacks: what the user's code makes of a chunk.
#
# Belongs here: calling transformer, prepare_messages, the handlers and handle_failed, and the verdict on what they return
# or raise. Does not: when they are called, and acknowledgement (processor, chunk). All of it runs in the thread of the
# processor that has the chunk; `messages` is that chunk's list, from `first` on, where those before have failed already.
from wsengine.message cimport Message
from wsengine.pipeline.chunk cimport Chunk
from wsengine.pipeline.crew cimport Crew

cdef Py_ssize_t transform(Crew crew, Chunk chunk, object transformer)
cdef bint prepare(Crew crew, Chunk chunk, list messages, Py_ssize_t first)
cdef call_each(Crew crew, Chunk chunk, list messages, Py_ssize_t first)
# `where`: what telemetry says of the processor.
cdef call_watched(Crew crew, Chunk chunk, list messages, Py_ssize_t first, dict where)
cdef call_chunk(Crew crew, Chunk chunk, list messages, Py_ssize_t first)
# `places`: of the failed ones in the chunk.
cdef call_handle_failed(Crew crew, Chunk chunk, list places)
