# The design page of chunk: the messages of one claim until they are acknowledged.
#
# Belongs here: the decision who acknowledges, once for each message. Does not: what becomes of the messages before
# (processor). A chunk belongs to its processor's thread, but for `state`, which decides under the chunk's mutex who
# acknowledges: the processor that claimed it, or whoever takes it over because that one is dead or the deadline has come.
cimport cython
from libc.stdint cimport uint64_t
from wsengine.pipeline.crew cimport Crew

cdef enum ChunkState:          # chunk lifecycle; under Chunk.lock
    CHUNK_OPEN                 # its processor works on it
    CHUNK_SETTLED              # its processor acknowledges or has acknowledged it
    CHUNK_TAKEN                # somebody else has

cpdef acknowledge(list messages)

cdef class Chunk:
    # What one claim brought, until it is acknowledged.
    cdef cython.pymutex lock
    cdef ChunkState state            # under lock
    cdef list messages               # its processor; whoever takes it over, after CHUNK_TAKEN
    cdef Py_ssize_t left             # messages not acknowledged yet; under lock
    cdef uint64_t size               # bytes charged for those; under lock
    cdef Py_ssize_t progress         # handlers are done with so many; its processor
    cdef Crew crew
