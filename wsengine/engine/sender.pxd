# The design page of sender: frames that other threads than the reader's put on a connection's way out.
#
# Belongs here: masking them where they are made, the bound on how many bytes may wait, waiting for room, ringing the
# reader. Does not: what a message is in frames, who may send when, and what a generation's end means to a sender
# (websocket); in which order frames go (output).
from libc.stdint cimport uint32_t, uint64_t
from wsengine.engine.control cimport Control
from wsengine.engine.frames cimport MaskKeys

cdef class Sender:
    cdef Control* control
    cdef object owners         # keeps control and bell alive
    cdef object receiver
    cdef uint64_t limit        # bytes that may wait when another frame is put out
    cdef MaskKeys keys         # whoever sends messages; one at a time
    cdef MaskKeys control_keys # whoever pings; one at a time
