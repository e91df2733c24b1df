# The design page of receiver: the reader thread of one producer, and how it shares its loop with a processor.
#
# Belongs here: which thread runs the loop and when it rests; the producer's face of the reader. Does not: what the loop
# does with connections (reader), how the lead changes hands without loss (lead.hpp). No thread takes the GIL in the loop.
from libc.stdint cimport uint16_t, uint32_t
from libcpp cimport bool as cbool
from wsengine.engine.intake cimport Intake
from wsengine.engine.reader cimport Order, Reader
from wsengine.engine.ring cimport Parker, Ring

cdef enum:
    REST_DEPTH = 1024          # messages that wait in the ring, below which the reader does not rest: many chunks
    REST_MS = 1                # how long a rest lasts at the most: nothing that a peer waits for shall notice it
    FEW = 256                  # messages a round, up to which one thread may read and handle in turn: a chunk
    CALM_ROUNDS = 8            # rounds with few messages for an idle processor, after which it may lead
    SLICE_MS = 1000            # a processor that leads looks up once a second, as one that is parked does
    SLICE_NS = 1000000000      # the same

cdef class Inflow:
    cdef Intake* intake        # the reader's, from Receiver.add to the note "ended"
    cdef readonly Ring ring    # keeps the ring alive
    cdef readonly Receiver receiver  # keeps the bell alive

cdef class Receiver:
    cdef Reader* reader
    cdef readonly Ring ring    # keeps the ring alive
    cdef dict owners           # control blocks and inflows of connections given to the reader, kept alive; add, forget
    cdef list places           # keeps the control blocks of the ring's connections alive
    cdef unsigned discards     # asked for; whoever drains
    cdef Parker supervisor     # the same
    cdef Parker timer
    cdef cbool running         # run() has been called; the thread that calls it
    cdef int send_command(self, Order order, uint32_t index, uint32_t epoch, uint16_t code, bytes text,
                          bint discard=*) except -1
