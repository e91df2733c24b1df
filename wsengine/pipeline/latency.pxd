# The design page of latency: how long messages took, counted in classes.
#
# Belongs here: the classes, and what they come to. Does not: which times are counted (processor, batch_processor). Counted by
# one thread; read by any, which may miss what is being counted.
from libc.stdint cimport int64_t, uint64_t

cdef enum:
    CLASSES = 512              # eight to an octave of nanoseconds, so a class is an eighth wide at the most

# Count messages whose acknowledgers have just returned, from when they were received or pushed.
cdef note_latency(Latency latency, list messages)

cdef class Latency:
    cdef uint64_t counts[CLASSES]
    cdef void note(self, int64_t ns, uint64_t messages) noexcept nogil
