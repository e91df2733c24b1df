# The design page of utf8: incremental validation of UTF-8 (RFC 3629, RFC 6455 §8.1).
#
# Belongs here: whether bytes are UTF-8, also across cuts anywhere. Does not: what to do when they are not (frames).
# Single-threaded: each state belongs to one parser.
from libc.stdint cimport uint8_t

cdef struct Utf8:
    uint8_t missing     # continuation bytes that the present character still lacks; 0 between characters
    uint8_t lower       # bounds of the next of them: they refuse overlong forms, surrogates and what is above U+10FFFF
    uint8_t upper

cdef enum Utf8Verdict:
    UTF8_INVALID = 0
    UTF8_VALID = 1
    UTF8_ASCII = 2      # valid, and no byte above 127

cdef void utf8_start(Utf8* state) noexcept nogil
# False as soon as the bytes so far cannot begin any UTF-8 text.
cdef bint utf8_feed(Utf8* state, const uint8_t* data, size_t size) noexcept nogil
# The verdict on a whole text.
cdef Utf8Verdict utf8_check(const uint8_t* data, size_t size) noexcept nogil
