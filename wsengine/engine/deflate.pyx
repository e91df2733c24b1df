"""Compressing messages of ours with the system's zlib: raw DEFLATE, flushed at each message's end, the tail cut off.

A feed's client sends little, so nothing is allocated before the first message that is worth compressing: with 15 bits of
window and a memory level of 5 a compressor takes 144 KiB. Large messages are compressed without the GIL.
"""
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libcpp.atomic cimport memory_order_acquire, memory_order_release
from wsengine.errors import EngineError

cdef extern from "zlib_binding.hpp" nogil:
    const bint kHaveZlib
    ctypedef struct z_stream:
        uint8_t* next_in
        unsigned avail_in
        uint8_t* next_out
        unsigned avail_out
    int Z_OK, Z_BUF_ERROR, Z_SYNC_FLUSH, Z_DEFLATED, Z_DEFAULT_STRATEGY
    int deflateInit2(z_stream* stream, int level, int method, int window_bits, int memory_level, int strategy)
    int deflate(z_stream* stream, int flush)
    int deflateReset(z_stream* stream)
    int deflateEnd(z_stream* stream)

cdef enum:
    ALONE = 4096                   # bytes of a message from which on the GIL is let go of: below, that costs more than it gives
    SLACK = 64                     # room for the flush, which must not end in two: zlib.h asks for more than 6
    MOST = 1 << 30                 # bytes that zlib is given at a time: it counts in unsigned int


cdef uint8_t* deflate_all(z_stream* stream, const uint8_t* data, size_t size, size_t* made) noexcept nogil:
    """All of a message, flushed, in memory to be freed; NULL if memory is out."""
    cdef size_t room = size // 2 + SLACK, done = 0
    cdef unsigned given, offered
    cdef uint8_t* out = <uint8_t*>malloc(room)
    cdef uint8_t* more
    while out != NULL:
        given = <unsigned>min(size, <size_t>MOST)
        offered = <unsigned>min(room - done, <size_t>MOST)
        stream.next_in = <uint8_t*>data
        stream.avail_in = given
        stream.next_out = out + done
        stream.avail_out = offered
        deflate(stream, Z_SYNC_FLUSH if given == size else 0)
        data += given - stream.avail_in
        size -= given - stream.avail_in
        done += offered - stream.avail_out
        if size == 0 and stream.avail_out:
            made[0] = done
            return out
        if room - done < SLACK:
            room += room // 2 + SLACK
            more = <uint8_t*>realloc(out, room)
            if more == NULL:
                break
            out = more
    free(out)
    return NULL


cdef class Deflater:
    """Compresses the messages that one generation of a connection sends.

    Args:
        window_bits: as agreed for the client, 9 to 15. zlib has no raw window of 8 bits: then nothing may be compressed.
        takeover: whether a message may refer back to earlier ones; False compresses each by itself.
        level: 0 (stored) to 9 (smallest).
        memory_level: 1 to 9, of zlib.
        threshold: bytes below which a message goes as it is.

    Raises:
        ValueError: a number is out of its bounds.
        EngineError: there is no zlib in this build.

    One thread at a time may use it, and messages must go out in the order in which they were compressed: both by the lock
    under which a connection sends. Two threads at once get an EngineError, and nothing else happens.
    """

    def __cinit__(self, *, int window_bits=15, bint takeover=True, int level=6, int memory_level=5,
                  Py_ssize_t threshold=0):
        if not kHaveZlib:
            raise EngineError("this build of wsengine has no zlib")
        for name, value, least, most in (("window_bits", window_bits, 9, 15), ("level", level, 0, 9),
                                         ("memory_level", memory_level, 1, 9)):
            if not least <= value <= most:
                raise ValueError(f"{name}={value}: give a number from {least} to {most}")
        self.busy.store(False, memory_order_release)
        self.window_bits = window_bits
        self.takeover = takeover
        self.level = level
        self.memory_level = memory_level
        self.threshold = threshold

    def __dealloc__(self):
        if self.stream != NULL:
            deflateEnd(<z_stream*>self.stream)
            free(self.stream)

    cdef int open(self) except -1:
        cdef z_stream* stream = <z_stream*>calloc(1, sizeof(z_stream))
        if stream == NULL or deflateInit2(stream, self.level, Z_DEFLATED, -self.window_bits, self.memory_level,
                                          Z_DEFAULT_STRATEGY) != Z_OK:
            free(stream)
            raise MemoryError()
        self.stream = stream
        return 0

    def compress(self, const uint8_t[::1] data not None):
        """Compress one message.

        Args:
            data: its whole payload.

        Returns:
            The payload of a frame with RSV1, or of the first of several; None where the message goes as it is, without
            RSV1, because it is shorter than `threshold`.

        Raises:
            EngineError: another thread compresses at this moment.
            MemoryError: memory is out. Nothing was compressed, and what follows does not refer to this message.

        What it returns must be sent, before anything that is compressed later; if it cannot be, call `reset`.
        """
        cdef size_t size = <size_t>data.shape[0]
        if <Py_ssize_t>size < self.threshold:
            return None
        if size == 0:
            return b"\0"                         # RFC 7692 §7.2.3.6; zlib would make nothing of a second flush
        # acquire: pairs with the release below, so that whoever comes next, in good order, sees the stream as we left it
        if self.busy.exchange(True, memory_order_acquire):
            raise EngineError("two threads compress messages of one connection; send under one lock")
        try:
            return self.run(&data[0], size)
        finally:
            self.busy.store(False, memory_order_release)

    cdef bytes run(self, const uint8_t* data, size_t size):
        cdef size_t made = 0
        cdef uint8_t* out
        if self.stream == NULL:
            self.open()
        if size < ALONE:
            out = deflate_all(<z_stream*>self.stream, data, size, &made)
        else:
            with nogil:
                out = deflate_all(<z_stream*>self.stream, data, size, &made)
        if out == NULL or not self.takeover:
            deflateReset(<z_stream*>self.stream)
        if out == NULL:
            raise MemoryError()
        try:
            return PyBytes_FromStringAndSize(<const char*>out, <Py_ssize_t>made - 4)
        except BaseException:
            deflateReset(<z_stream*>self.stream)
            raise
        finally:
            free(out)

    def reset(self) -> None:
        """Refer back to nothing any more: what was compressed last has not been sent. Raises EngineError as `compress`."""
        if self.busy.exchange(True, memory_order_acquire):  # pairs with the release below
            raise EngineError("two threads compress messages of one connection; send under one lock")
        if self.stream != NULL:
            deflateReset(<z_stream*>self.stream)
        self.busy.store(False, memory_order_release)
