# The design page of utf8: incremental validation of UTF-8 (RFC 3629, RFC 6455 §8.1).
#
# Belongs here: whether bytes are UTF-8, also across cuts anywhere. Does not: what to do when they are not (frames).
# Single-threaded: each state belongs to one parser.
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy

cdef struct Utf8:
    uint8_t missing     # continuation bytes that the present character still lacks; 0 between characters
    uint8_t lower       # bounds of the next of them: they refuse overlong forms, surrogates and what is above U+10FFFF
    uint8_t upper

cdef void utf8_start(Utf8* state) noexcept nogil
# False as soon as the bytes so far cannot begin any UTF-8 text.
cdef bint utf8_feed(Utf8* state, const uint8_t* data, size_t size) noexcept nogil
cdef bint utf8_whole(const uint8_t* data, size_t size) noexcept nogil


# What every text of the steady path goes through, so it stands here, to become part of its callers' code.

cdef inline uint64_t eight(const uint8_t* data) noexcept nogil:
    cdef uint64_t word
    memcpy(&word, data, 8)
    return word

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>
    typedef uint64_t ws_pair __attribute__((vector_size(16)));  /* a vector register where there is one */
    static inline int ascii_64(const uint8_t* data) {
      ws_pair a, b, c, d;
      memcpy(&a, data, 16), memcpy(&b, data + 16, 16), memcpy(&c, data + 32, 16), memcpy(&d, data + 48, 16);
      a = (a | b) | (c | d);
      return !((a[0] | a[1]) & UINT64_C(0x8080808080808080));
    }
    """
    bint ascii_64(const uint8_t* data) nogil

# How many bytes at the start are ASCII; may stop up to seven bytes early.
cdef inline size_t ascii_prefix(const uint8_t* data, size_t size) noexcept nogil:
    cdef size_t at = 0
    while at + 64 <= size and ascii_64(data + at):
        at += 64
    while at + 8 <= size:
        if eight(data + at) & <uint64_t>0x8080808080808080:
            return at
        at += 8
    while at < size and data[at] < 0x80:
        at += 1
    return at

# The verdict on a whole text.
cdef inline bint utf8_valid(const uint8_t* data, size_t size) noexcept nogil:
    cdef size_t at = ascii_prefix(data, size)
    return at == size or utf8_whole(data + at, size - at)
