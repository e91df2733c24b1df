# Where a synthetic trade carries its two fixed-width fields, and the loop that writes them. The layout of the rest of a
# trade stands in images.py.
#
#     {"seq":             0,"ts":                  0,"sym":...
#      0      7             21    27                 46
#
# Both numbers are padded with spaces in front, which JSON allows before a value and leading zeros are not.

from libc.stdint cimport uint64_t

cdef enum Layout:
    SEQUENCE_AT = 7         # offset of the sequence field in the payload
    SEQUENCE_DIGITS = 14    # at ten million messages a second, enough for 115 days
    STAMP_AT = 27           # offset of the stamp field in the payload
    STAMP_DIGITS = 19       # every int64

# `at` is the first sequence field; the caller has checked that every field lies inside the buffer.
cdef void stamp_run(char* at, Py_ssize_t stride, Py_ssize_t count, uint64_t sequence, uint64_t stamp) noexcept nogil
