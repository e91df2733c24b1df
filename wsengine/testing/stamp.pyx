"""Writes sequence numbers and time stamps into prebuilt trades in place, and reads them back.

Here is only what must be fast enough that the feed is never the bottleneck of a measurement. How a trade looks
otherwise, and when it is sent, stand in images.py and lane.py.
"""

from libc.stdint cimport uint64_t
from libc.string cimport memcpy

SEQUENCE_OFFSET = <int>SEQUENCE_AT
SEQUENCE_WIDTH = <int>SEQUENCE_DIGITS
STAMP_OFFSET = <int>STAMP_AT
STAMP_WIDTH = <int>STAMP_DIGITS


cdef void render(char* field, int width, uint64_t value) noexcept nogil:
    cdef int i = width - 1
    field[i] = <char>(48 + value % 10)
    value //= 10
    while i > 0:
        i -= 1
        field[i] = <char>(48 + value % 10) if value else 32
        value //= 10


cdef inline void count_up(char* field, int width) noexcept nogil:
    # Adding one to the text costs one store for nine numbers of ten; rendering afresh costs a division per digit.
    cdef int i = width - 1
    while i >= 0:
        if field[i] == 32:
            field[i] = 49
            return
        if field[i] != 57:
            field[i] += 1
            return
        field[i] = 48
        i -= 1


cdef void stamp_run(char* at, Py_ssize_t stride, Py_ssize_t count, uint64_t sequence, uint64_t stamp) noexcept nogil:
    cdef char[SEQUENCE_DIGITS] number
    cdef char[STAMP_DIGITS] clock
    cdef Py_ssize_t i
    render(number, SEQUENCE_DIGITS, sequence)
    render(clock, STAMP_DIGITS, stamp)
    for i in range(count):
        memcpy(at, number, SEQUENCE_DIGITS)
        memcpy(at + (STAMP_AT - SEQUENCE_AT), clock, STAMP_DIGITS)
        count_up(number, SEQUENCE_DIGITS)
        at += stride


def stamp_block(unsigned char[::1] buffer not None, Py_ssize_t offset, Py_ssize_t stride, Py_ssize_t count,
                uint64_t first_sequence, uint64_t stamp_ns):
    """Write consecutive sequence numbers and one time stamp into `count` trades of `buffer`, without the GIL.

    Args:
        buffer: writable; holds one trade every `stride` bytes.
        offset: where the sequence field of the first trade begins in `buffer`.
        stride: bytes from one trade to the next, at least what both fields span.
        count: how many trades.
        first_sequence: below 10**14, as are all that follow from it.
        stamp_ns: `time.monotonic_ns()` of the sender.

    Raises:
        ValueError: a field would lie outside the buffer or overlap, or a sequence number outgrow its field.
    """
    cdef Py_ssize_t span = STAMP_AT + STAMP_DIGITS - SEQUENCE_AT
    if count <= 0:
        return
    if stride < span:
        raise ValueError(f"stride={stride}: two trades would overlap; give at least {span}")
    if offset < 0 or buffer.shape[0] < span or offset > buffer.shape[0] - span:
        raise ValueError(f"offset={offset}: the first trade lies outside the buffer of {buffer.shape[0]} bytes")
    if (buffer.shape[0] - span - offset) // stride < count - 1:
        raise ValueError(f"count={count}: the last trade lies outside the buffer of {buffer.shape[0]} bytes")
    if first_sequence >= 100000000000000 or <uint64_t>count > 100000000000000 - first_sequence:
        raise ValueError(f"first_sequence={first_sequence}: sequence numbers have {SEQUENCE_DIGITS} digits at most")
    if stamp_ns >= 10000000000000000000:
        raise ValueError(f"stamp_ns={stamp_ns}: stamps have {STAMP_DIGITS} digits at most")
    with nogil:
        stamp_run(<char*>&buffer[offset], stride, count, first_sequence, stamp_ns)


cdef uint64_t parse(bytes payload, int at, int width) except? 18446744073709551615:
    cdef const unsigned char* data = payload
    cdef uint64_t value = 0
    cdef int i
    cdef unsigned char c
    if len(payload) < STAMP_AT + STAMP_DIGITS or data[at + width - 1] == 32:
        raise ValueError(f"not a trade of the embedded feed: {payload[:60]!r}")
    for i in range(at, at + width):
        c = data[i]
        if 48 <= c <= 57:
            value = value * 10 + (c - 48)
        elif c != 32 or value:
            raise ValueError(f"not a trade of the embedded feed: {payload[:60]!r}")
    return value


def read_sequence(bytes payload not None):
    """The sequence number of a trade of the feed. Raises ValueError for anything else."""
    return parse(payload, SEQUENCE_AT, SEQUENCE_DIGITS)


def read_stamp(bytes payload not None):
    """When a trade of the feed was sent, on `time.monotonic_ns()`. Raises ValueError for anything else."""
    return parse(payload, STAMP_AT, STAMP_DIGITS)
