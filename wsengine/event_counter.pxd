# The design page of event_counter: a telemetry handler that counts without Python's help.
#
# Belongs here: the count. Does not: who listens to what (telemetry), nor which events may be counted without being put
# together (pipeline/listeners). It is of telemetry's layer, and imports nothing.
from libc.stdint cimport int64_t
from libcpp.atomic cimport atomic, memory_order_relaxed

cdef class EventCounter:
    # Written by every thread that executes an event it is attached to. Relaxed: a count, from which nobody concludes that
    # something else has been written.
    cdef atomic[int64_t] counted

    cdef inline void add(self) noexcept nogil:
        self.counted.fetch_add(1, memory_order_relaxed)
