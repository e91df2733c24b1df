# The design page of listeners: who listens to the events of a span that is executed for every chunk, batch or message.
#
#     current(known) ──▶ nobody ──▶ nothing is done
#                    ──▶ counters alone ──▶ start, end: counted, and nothing is put together
#                    ──▶ somebody is called ──▶ the measurements and metadata are put together, telemetry.execute
#
# Belongs here: the answer, for as long as nothing is attached or detached. Does not: what the events say (where they are
# executed), nor counting itself (event_counter).
from libc.stdint cimport int64_t
from wsengine.event_counter cimport EventCounter

cdef extern from "Python.h":
    ctypedef struct PyObject:
        pass
    Py_ssize_t PyTuple_GET_SIZE(PyObject* whole)
    PyObject* PyTuple_GET_ITEM(PyObject* whole, Py_ssize_t i)

cdef class Listeners:
    # Of one state of telemetry's table; never changed, so it may be read by any thread that has a reference.
    cdef tuple events                # start, stop, and the exception if there is one
    cdef int64_t changes             # telemetry's, of that state
    cdef bint called                 # a handler is to be called for one of the three
    cdef bint start_called           # for the start
    cdef bint stop_called            # for the stop
    cdef bint counted                # else counters listen
    cdef tuple starts, stops, exceptions  # of EventCounter; where nobody is called, else empty

    cdef inline void start(self) noexcept:
        count(<PyObject*>self.starts)

    cdef inline void end(self, object problem) noexcept:
        count(<PyObject*>self.stops if problem is None else <PyObject*>self.exceptions)

# Borrowed references: threads that count at the same time would else meet at the counter's own count of references, too.
cdef inline void count(PyObject* counters) noexcept:
    cdef Py_ssize_t i
    for i in range(PyTuple_GET_SIZE(counters)):
        (<EventCounter>PyTuple_GET_ITEM(counters, i)).add()

# Listeners to a span, for the first time.
cdef Listeners listeners_of(tuple events)

# The same where nothing has been attached or detached since, else others of the same events.
cdef Listeners current(Listeners known)
