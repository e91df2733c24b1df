"""Who listens to the events of a span. Where only counters do, nothing has to be put together for them."""
from wsengine import telemetry

cimport cython
from wsengine.event_counter cimport EventCounter

cdef object ATTACHED = telemetry.attached


@cython.final
cdef class Listeners:
    """Listeners to a start, a stop and an exception."""


cdef Listeners listeners_of(tuple events):
    cdef Listeners made = Listeners.__new__(Listeners)
    made.events = events
    made.table = ATTACHED()                      # first: what is attached meanwhile is seen the next time
    made.starts, made.stops = telemetry.functions(events[0]), telemetry.functions(events[1])
    made.exceptions = telemetry.functions(events[2]) if len(events) == 3 else ()
    for one in made.starts + made.stops + made.exceptions:
        made.counted = True
        if not isinstance(one, EventCounter):
            made.called = True
    if made.called:
        made.start_called, made.stop_called = len(made.starts) != 0, len(made.stops) != 0
        made.counted = False
    return made


cdef Listeners current(Listeners known):
    return known if known.table is ATTACHED() else listeners_of(known.events)
