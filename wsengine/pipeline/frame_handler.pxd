# The design page of frame_handler: the session hook that sees each message of a connection in order, and its results.
#
# Belongs here: the three results, the judgement on what a handler returned, and what a dispatcher asks of whoever owns the
# connections. Does not: when the handler is called, and what becomes of what it emits (dispatcher). A result belongs to
# the handler that made it; a FrameHandler is constant.

cdef class Emit:
    cdef readonly object payloads     # list or tuple
    cdef readonly object state
    cdef readonly object replies      # list or tuple of str and bytes

cdef class Skip:
    cdef readonly object state
    cdef readonly object replies      # list or tuple of str and bytes

cdef class Fail:
    cdef readonly object reason
    cdef readonly object state

cdef class FrameHandler:
    cdef readonly object function     # (payload, state) -> result; None hands everything on
    cdef readonly object initial      # the state given, or a callable that makes one
    cdef readonly object sessions     # who owns the connections
    cdef object new_state(self)

# The result as one of the three; TypeError for anything else.
cpdef object judged(object result)
