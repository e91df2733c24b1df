# The design page of inflate: what a server has compressed becomes payloads again (RFC 7692 §7.2.2), one connection's at a time.
#
# Belongs here: one DEFLATE stream cut into messages, where it may end, and what is left of it between two of them. Does
# not: which frames are compressed (frames), where the bytes go and how many there may be (parts), what was agreed on
# with the server (websocket), the way out (deflate). Each Inflater belongs to one thread at a time.
from libc.stdint cimport uint8_t

cdef enum Inflating:               # what became of a piece
    INFLATED                       # all of it is used; behind the last one the message is complete
    INFLATE_FULL                   # the room is used up, and there may be more
    INFLATE_CORRUPT                # not DEFLATE: nothing that follows can be understood
    INFLATE_UNFINISHED             # the message ends inside a DEFLATE block: the same
    INFLATE_MEMORY                 # memory is out

cdef struct Inflater:
    void* stream                   # zlib's z_stream, made once and never made anew: that costs six times a message
    uint8_t takeover               # the server refers back to earlier messages (RFC 7692 §7.1.1.1)
    uint8_t begun                  # bytes of this message have come
    uint8_t final                  # and the last of them ended a block with BFINAL (RFC 7692 §7.2.3.5)
    uint8_t tail                   # bytes of 00 00 ff ff that are given to zlib behind the message

# `window_bits` as agreed, 8 to 15. NULL if memory is out, or there is no zlib.
cdef Inflater* inflater_new(int window_bits, bint takeover) noexcept nogil
# For a connection with these DeflateParameters. EngineError where this build has no zlib.
cdef Inflater* inflater_as_agreed(object deflate) except NULL
cdef void inflater_free(Inflater* inflater) noexcept nogil
# Inflate a piece of a message's payload, `data` and `size` moving on as it is used, into `room` bytes at `out`, of which
# `made` are written. After INFLATE_FULL come again with more room and what is left of the piece, also if that is nothing.
cdef Inflating inflate_piece(Inflater* inflater, const uint8_t** data, size_t* size, bint last, uint8_t* out, size_t room,
                             size_t* made) noexcept nogil
