"""Who listens to the events of a span. Where only counters do, nothing has to be put together for them."""
from wsengine import telemetry

cimport cython
from wsengine.event_counter cimport EventCounter

cdef object CHANGES = telemetry.changes


@cython.final
cdef class Listeners:
    """Listeners to a start, a stop and an exception."""


cdef Listeners listeners_of(tuple events):
    cdef Listeners made = Listeners.__new__(Listeners)
    made.events = events
    made.changes = CHANGES()                     # first: what is attached meanwhile is seen the next time
    heard = telemetry.functions(*events)
    made.starts, made.stops = heard[0], heard[1]
    made.exceptions = heard[2] if len(events) == 3 else ()
    for one in made.starts + made.stops + made.exceptions:
        made.counted = True
        if not isinstance(one, EventCounter):
            made.called = True
    if made.called:
        made.start_called, made.stop_called = len(made.starts) != 0, len(made.stops) != 0
        made.counted = False
        made.starts = made.stops = made.exceptions = ()
    return made


cdef Listeners current(Listeners known):
    return known if known.changes == <int64_t>CHANGES() else listeners_of(known.events)
