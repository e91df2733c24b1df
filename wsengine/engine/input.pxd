# The design page of input: what a connection receives, from its socket to the ring.
#
# Belongs here: non-blocking reads, parsing what they gave, messages that lie whole in it, and what is put by for want of
# room. Does not: messages that do not (parts), what control frames and failures do to the connection (stream), when it is
# read (reader), how messages come into the ring (intake), the wire format (frames). All of it belongs to the thread that
# has the lead (lead.hpp).
from libc.stdint cimport uint8_t
from wsengine.engine.intake cimport Intake
from wsengine.engine.stream cimport Wire

cdef enum:
    GATHER = 2048              # messages pushed before a processor is notified, while the socket has more to read at once
    READS = 4                  # reads of one connection in a row, so that the others get their turn
    DIRECT = 16384             # payload bytes still to come from which on they are read straight into the message

cdef enum Reading:             # what became of an attempt to read
    READ_DRY                   # the socket has nothing more
    READ_MORE                  # there may be more: come again
    READ_FULL                  # no room in the pipeline
    READ_END                   # the stream has ended or failed

cdef Reading wire_read(Wire* wire, Intake* intake) noexcept nogil
# Take bytes that somebody else has read: what came behind the handshake. False if memory is out.
cdef bint wire_feed(Wire* wire, Intake* intake, const uint8_t* data, size_t size) noexcept nogil
