# The design page of deflate: payloads of ours become compressed messages (RFC 7692 §7.2.1), one connection's in order.
#
# Belongs here: the compressor of one generation of a connection, and which messages are not worth it. Does not: frames,
# their order on the wire and the lock that keeps it (whoever sends), the way in (inflate).
from libc.stdint cimport uint8_t
from libcpp cimport bool as cbool
from libcpp.atomic cimport atomic

cdef class Deflater:
    # One thread at a time: the lock that orders the sends also guards this. `busy` turns a breach of that into an error.
    cdef void* stream              # zlib's z_stream; NULL until the first message that is compressed
    cdef atomic[cbool] busy        # set and cleared by whoever compresses
    cdef readonly int window_bits
    cdef readonly bint takeover
    cdef readonly int level
    cdef readonly int memory_level
    cdef readonly Py_ssize_t threshold
    cdef int open(self) except -1
    cdef bytes run(self, const uint8_t* data, size_t size)
