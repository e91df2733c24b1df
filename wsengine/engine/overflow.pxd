# The design page of overflow: what becomes of a message for which the pipeline has no room, where it is not to wait.
#
# Belongs here: the policies, and what each does to the oldest or the newest message, counted exactly. Does not: that a
# reader pauses (reader), which is what happens without any of this, nor who is told of drops (reader, websocket).
from libc.stdint cimport uint16_t
from wsengine.engine.intake cimport Intake
from wsengine.engine.stream cimport Wire

cdef enum Overflow:
    OVERFLOW_BLOCK             # the socket is not read until there is room
    OVERFLOW_DROP_OLDEST       # of the messages that wait in this ring, which may always hold one
    OVERFLOW_DROP_NEWEST
    OVERFLOW_ERROR             # the connection fails

cdef enum:
    OVERFLOW_CODE = 1008       # of the Close that OVERFLOW_ERROR sends: a policy of ours (RFC 6455 §7.4.1)
    SHED = 64                  # oldest messages dropped at a time at the most

cdef object policy_names       # of Overflow, in its order
cdef Overflow policy(object name) except *
# A message has just become complete, for which there was no room: do what the policy says. Whether it may be staged; if not,
# it keeps its number and is counted as dropped, or, where that ends the connection, `wire.discarding` is set.
cdef bint admit(Wire* wire, Intake* intake) noexcept nogil
