# The design page of listeners: who listens to the events of a span that is executed for every chunk, batch or message.
#
#     current(known) ──▶ nobody ──▶ nothing is done
#                    ──▶ counters alone ──▶ start, end: counted, and nothing is put together
#                    ──▶ somebody is called ──▶ the measurements and metadata are put together, telemetry.execute
#
# Belongs here: the answer, for as long as nothing is attached or detached. Does not: what the events say (where they are
# executed), nor counting itself (event_counter).
from wsengine.event_counter cimport EventCounter

cdef class Listeners:
    # Of one state of telemetry's table; never changed, so it may be read by any thread that has a reference.
    cdef tuple events                # start, stop, and the exception if there is one
    cdef object table
    cdef bint called                 # a handler is to be called for one of the three
    cdef bint start_called           # for the start
    cdef bint stop_called            # for the stop
    cdef bint counted                # else counters listen
    cdef tuple starts, stops, exceptions  # of EventCounter; where nobody is called

    cdef inline void start(self):
        count(self.starts)

    cdef inline void end(self, object problem):
        count(self.stops if problem is None else self.exceptions)

cdef inline void count(tuple counters):
    for one in counters:
        (<EventCounter>one).add()

# Listeners to a span, for the first time.
cdef Listeners listeners_of(tuple events)

# The same where nothing has been attached or detached since, else others of the same events.
cdef Listeners current(Listeners known)
