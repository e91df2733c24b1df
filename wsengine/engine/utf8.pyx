"""Incremental UTF-8 validation: a skip over ASCII, eight words at a time, and a branch per lead byte elsewhere.

Only the question "can this be UTF-8?" lives here. The validator fails at the first byte that no continuation could mend,
so that a bad text message is refused at once and not at its end (RFC 6455 §8.1; the fail-fast cases of Autobahn 6.4).
"""
from libc.stdint cimport uint8_t

cdef void utf8_start(Utf8* state) noexcept nogil:
    state.missing = 0
    state.lower = 0x80
    state.upper = 0xBF


cdef inline bint lead(Utf8* state, uint8_t byte) noexcept nogil:
    """Take the first byte of a character above ASCII (RFC 3629 §4, the grammar of UTF8-octets)."""
    state.lower = 0x80
    state.upper = 0xBF
    if 0xC2 <= byte <= 0xDF:
        state.missing = 1
    elif 0xE0 <= byte <= 0xEF:
        state.missing = 2
        if byte == 0xE0:
            state.lower = 0xA0      # below: overlong
        elif byte == 0xED:
            state.upper = 0x9F      # above: surrogates
    elif 0xF0 <= byte <= 0xF4:
        state.missing = 3
        if byte == 0xF0:
            state.lower = 0x90      # below: overlong
        elif byte == 0xF4:
            state.upper = 0x8F      # above: beyond U+10FFFF
    else:
        return False
    return True


cdef bint utf8_feed(Utf8* state, const uint8_t* data, size_t size) noexcept nogil:
    cdef size_t at = 0
    cdef uint8_t byte
    while at < size:
        if state.missing == 0:
            at += ascii_prefix(data + at, size - at)
            while at < size and data[at] < 0x80:
                at += 1
            if at == size:
                return True
            if not lead(state, data[at]):
                return False
            at += 1
            continue
        byte = data[at]
        if byte < state.lower or byte > state.upper:
            return False
        state.lower = 0x80
        state.upper = 0xBF
        state.missing -= 1
        at += 1
    return True


cdef bint utf8_whole(const uint8_t* data, size_t size) noexcept nogil:
    cdef Utf8 state
    utf8_start(&state)
    return utf8_feed(&state, data, size) and state.missing == 0


cdef class Utf8Validator:
    """Incremental UTF-8 validator, as the frame parser uses it; for tests. Not thread-safe."""
    cdef Utf8 state
    cdef bint failed

    def __cinit__(self):
        utf8_start(&self.state)
        self.failed = False

    def feed(self, const uint8_t[::1] data not None) -> bool:
        """Take more bytes; False, now and from now on, once they cannot be the beginning of UTF-8."""
        if data.shape[0] and not self.failed:
            self.failed = not utf8_feed(&self.state, &data[0], <size_t>data.shape[0])
        return not self.failed

    @property
    def complete(self) -> bool:
        """Whether the bytes so far are whole UTF-8 text."""
        return not self.failed and self.state.missing == 0


def is_utf8(const uint8_t[::1] data not None) -> bool:
    """Whether the bytes are UTF-8, as a whole."""
    return data.shape[0] == 0 or utf8_valid(&data[0], <size_t>data.shape[0])
