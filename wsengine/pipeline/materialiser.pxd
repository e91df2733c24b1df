# The design page of materialiser: descriptors of a ring become messages.
#
# Belongs here: copying payloads out of slabs, letting the slabs go, using messages and their bytes objects again. Does
# not: how many to claim, handlers, acknowledgement (processor, chunk). One materialiser belongs to one processor's thread.
from libc.stdint cimport uint32_t, uint64_t
from wsengine.engine.ring cimport Account, Descriptor, Ring
from wsengine.pipeline.chunk cimport Chunk

cdef extern from "Python.h":
    ctypedef struct PyObject:
        pass

cdef enum:
    CHUNK = 256                # messages a claim, at the most, whatever max_demand says
    AHEAD = 6                  # payloads fetched ahead of their copying
    SPARE = 8192               # messages that may wait to be used again

cdef class Materialiser:
    cdef Account account
    cdef Descriptor batch[CHUNK]
    cdef list kept             # messages of the chunk before, to be used again; None: somebody has kept one, or they went on
    cdef object spares         # deque of lists of messages that came back from batches; None where there are no batchers
    cdef list pool             # of these, what is left of the last ones
    cdef uint64_t size         # bytes of the payloads of the last claim
    cdef Py_ssize_t keyless    # messages of the last claim that have failed, for want of a partition's key
    cdef uint32_t usual        # bytes a message, by the last claim

    # Claim up to `most` messages for `chunk`; None if there are none.
    cdef list claim(self, Ring ring, uint32_t most, object origin, Chunk chunk)
    cdef list spare(self, Py_ssize_t n)
    # Take back the messages of a chunk that has been acknowledged.
    cdef keep(self, list messages)

cdef bint let_go_of(list messages)
cdef give_back(list messages, object spares)
