"""Inflating messages with the system's zlib: raw DEFLATE, in place from the receive buffer, into memory of the caller.

A message is a stretch of one endless DEFLATE stream. Its end is where 00 00 ff ff, which the sender cut off, ends an empty
stored block (RFC 7692 §7.2.2); a message that does not end so was cut short, and is refused, as nothing tells what is
missing. How much may come out is the caller's matter: no more is ever inflated than it has given room for.

Three things that zlib alone would not take are taken, since servers send them:
  - a block with BFINAL (§7.2.3.5): zlib ends its stream there; it begins a new one, which keeps the window;
  - a message whose last byte ends such a block, with no empty block behind it: it is complete, without the tail;
  - a message of no bytes at all, which is what comes of an empty one where a compressor is flushed twice: it is empty.
    The RFC wants one byte, 00 (§7.2.3.6).
"""
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t
from libc.stdlib cimport calloc, free, realloc
from typing import NamedTuple

from wsengine.errors import EngineError

cdef extern from "zlib_binding.hpp" nogil:
    const bint kHaveZlib
    ctypedef struct z_stream:
        uint8_t* next_in
        unsigned avail_in
        uint8_t* next_out
        unsigned avail_out
        int data_type
    int Z_OK, Z_STREAM_END, Z_BUF_ERROR, Z_MEM_ERROR, Z_SYNC_FLUSH
    int inflateInit2(z_stream* stream, int window_bits)
    int inflate(z_stream* stream, int flush)
    int inflateReset(z_stream* stream)
    int inflateResetKeep(z_stream* stream)
    int inflateEnd(z_stream* stream)

#: Whether this build can compress at all: zlib.h was there.
HAVE_ZLIB = bool(kHaveZlib)

cdef uint8_t[4] TAIL = [0x00, 0x00, 0xFF, 0xFF]

cdef enum:
    BETWEEN_BLOCKS = 128           # zlib.h on data_type: right behind a block, with no bit of the next one
    MOST = 1 << 30                 # bytes that zlib is given at a time: it counts in unsigned int


class DeflateParameters(NamedTuple):
    """What client and server have agreed on (RFC 7692 §7.1).

    Attributes:
        server_no_context_takeover: each message of the server is inflated by itself.
        client_no_context_takeover: each message of ours is compressed by itself.
        server_max_window_bits: 8 to 15; the server refers back no further than 2 to the power of it, in bytes.
        client_max_window_bits: 8 to 15; the same for us.
    """

    server_no_context_takeover: bool = False
    client_no_context_takeover: bool = False
    server_max_window_bits: int = 15
    client_max_window_bits: int = 15


cdef Inflater* inflater_new(int window_bits, bint takeover) noexcept nogil:
    cdef Inflater* inflater = <Inflater*>calloc(1, sizeof(Inflater))
    if inflater == NULL:
        return NULL
    inflater.takeover = takeover
    inflater.stream = calloc(1, sizeof(z_stream))
    # A window of 8 bits is inflated with 9: servers on older zlibs agree on 8 and use 9, which zlib made of it.
    if inflater.stream == NULL or inflateInit2(<z_stream*>inflater.stream, -max(window_bits, 9)) != Z_OK:
        free(inflater.stream)
        free(inflater)
        return NULL
    return inflater


cdef Inflater* inflater_as_agreed(object deflate) except NULL:
    cdef Inflater* inflater
    cdef int bits = deflate.server_max_window_bits
    cdef bint alone = deflate.server_no_context_takeover
    if not kHaveZlib:
        raise EngineError("this build of wsengine has no zlib, so it cannot take compressed messages")
    if not 8 <= bits <= 15:
        raise ValueError(f"server_max_window_bits={bits}: give a number from 8 to 15")
    inflater = inflater_new(bits, not alone)
    if inflater == NULL:
        raise MemoryError()
    return inflater


cdef void inflater_free(Inflater* inflater) noexcept nogil:
    if inflater == NULL:
        return
    inflateEnd(<z_stream*>inflater.stream)
    free(inflater.stream)
    free(inflater)


cdef Inflating run(Inflater* inflater, const uint8_t** data, size_t* size, uint8_t** out, size_t* room) noexcept nogil:
    """Inflate until the input or the room is used up. Without input: what zlib still holds for want of room."""
    cdef z_stream* stream = <z_stream*>inflater.stream
    cdef unsigned given, offered, used, made
    cdef int verdict
    while True:
        given = <unsigned>min(size[0], <size_t>MOST)
        offered = <unsigned>min(room[0], <size_t>MOST)
        stream.next_in = <uint8_t*>data[0]
        stream.avail_in = given
        stream.next_out = out[0]
        stream.avail_out = offered
        verdict = inflate(stream, Z_SYNC_FLUSH)
        used = given - stream.avail_in
        made = offered - stream.avail_out
        data[0] += used
        size[0] -= used
        out[0] += made
        room[0] -= made
        if verdict == Z_STREAM_END:
            inflateResetKeep(stream)      # unlike inflateReset it keeps the window, to which later messages refer
            inflater.final = True
        elif verdict == Z_MEM_ERROR:
            return INFLATE_MEMORY         # the window, which zlib allocates when it needs it
        elif verdict != Z_OK and verdict != Z_BUF_ERROR:
            return INFLATE_CORRUPT
        elif used:
            inflater.final = False
        if size[0] == 0:
            return INFLATED
        if room[0] == 0 and verdict != Z_STREAM_END:
            return INFLATE_FULL


cdef Inflating end_message(Inflater* inflater, uint8_t** out, size_t* room) noexcept nogil:
    """Give zlib what the sender cut off, and judge whether the message was whole."""
    cdef z_stream* stream = <z_stream*>inflater.stream
    cdef const uint8_t* data = TAIL + inflater.tail
    cdef size_t size = 4 - inflater.tail
    cdef Inflating inflating
    if inflater.begun and not inflater.final:
        inflating = run(inflater, &data, &size, out, room)
        inflater.tail = <uint8_t>(4 - size)
        if inflating != INFLATED:
            return inflating
        if stream.data_type != BETWEEN_BLOCKS:
            return INFLATE_UNFINISHED
    inflater.begun = inflater.final = inflater.tail = 0
    if not inflater.takeover:
        inflateReset(stream)
    return INFLATED


cdef Inflating inflate_piece(Inflater* inflater, const uint8_t** data, size_t* size, bint last, uint8_t* out, size_t room,
                             size_t* made) noexcept nogil:
    cdef uint8_t* at = out
    cdef Inflating inflating = INFLATED
    if size[0]:
        inflater.begun = True
    if inflater.begun and not inflater.tail:
        inflating = run(inflater, data, size, &at, &room)
        if last and inflating == INFLATED and room == 0 and not inflater.final:
            inflating = INFLATE_FULL      # zlib may hold more, even the end of a last block: see before the tail comes
    if last and inflating == INFLATED:
        inflating = end_message(inflater, &at, &room)
    made[0] = at - out
    return inflating


# -------------------------------------------------------------------------------------------------- the face for tests

cdef class MessageInflater:
    """The inflater by itself, for tests, oracles and benchmarks; the engine itself uses the functions above.

    Args:
        window_bits: as agreed for the server, 8 to 15.
        takeover: whether messages refer back to earlier ones.

    Raises:
        EngineError: there is no zlib in this build.
        ValueError: the window is none of these.
        MemoryError: memory is out.

    Not thread-safe.
    """
    cdef Inflater* inflater
    cdef uint8_t* out
    cdef size_t room               # bytes at `out`

    def __cinit__(self, int window_bits=15, bint takeover=True):
        self.inflater = inflater_as_agreed(DeflateParameters(not takeover, False, window_bits))

    def __dealloc__(self):
        inflater_free(self.inflater)
        free(self.out)

    cdef int give_room(self, size_t room) except -1:
        cdef uint8_t* out
        if room != self.room:
            out = <uint8_t*>realloc(self.out, room)
            if out == NULL:
                raise MemoryError()
            self.out, self.room = out, room
        return 0

    def feed(self, const uint8_t[::1] data not None, *, bint last=True, size_t room=65536,
             size_t most=2**40) -> bytes:
        """Inflate a piece of a message, the last one by default, `room` bytes at a time.

        More than `most` bytes are not inflated.

        Raises:
            ValueError: "corrupt", "unfinished" or "large"; the inflater is of no use any more. Also if `room` is 0.
        """
        cdef size_t size = <size_t>data.shape[0], made = 0, all_made = 0
        cdef const uint8_t* at = &data[0] if size else TAIL
        cdef Inflating inflating = INFLATE_FULL
        if room == 0:
            raise ValueError("room=0: give at least one byte")
        self.give_room(room)
        pieces = []
        while inflating == INFLATE_FULL:
            inflating = inflate_piece(self.inflater, &at, &size, last, self.out, room, &made)
            pieces.append(PyBytes_FromStringAndSize(<const char*>self.out, <Py_ssize_t>made))
            all_made += made
            if all_made > most:
                raise ValueError("large")
        if inflating == INFLATE_MEMORY:
            raise MemoryError()
        if inflating != INFLATED:
            raise ValueError("corrupt" if inflating == INFLATE_CORRUPT else "unfinished")
        return b"".join(pieces) if len(pieces) > 1 else pieces[0]
