# The design page of tls: an SSL* of CPython's own libssl, driven by the thread that has the lead, without the GIL.
#
# Belongs here: the functions of libssl that are borrowed, the guards under which they may be (path A), and what a read or a
# write over TLS answers. Does not: connecting, verifying and the TLS handshake, which CPython's `ssl` has done before
# (websocket), nor what is read and written (stream, output). Where a guard fails, a pump moves the bytes (path B,
# websocket). Nothing of OpenSSL is linked or bundled: the functions are those that `_ssl` has loaded.
from libc.stdint cimport uint8_t
from libcpp cimport bool as cbool

cdef struct Tls:               # of one connection; belongs to the thread that has the lead (lead.hpp)
    void* ssl                  # SSL*; the socket that owns it outlives the wire (Connection closes it after "ended")
    cbool read_wants_write     # a read waits for the socket to take something: a key update, a renegotiation
    cbool write_wants_read     # a write waits for something to be read
    cbool over                 # reading has ended: further reads tell the same end
    int error                  # of that end: errno, 0 for an end of stream
    const char* problem        # of that end: what libssl found wrong, NULL if nothing; a string of libssl's own

cdef enum:
    READ_BUFFER = 17408        # bytes that a read asks the socket for, memory of each connection: the largest record (16 KiB
                               # and its head, RFC 8446 §5.2) and a little. Twice and four times as much won nothing
    TLS_FAILED = -3            # tls_read: the peer broke TLS, see `problem`

cdef Tls* tls_new(object sock) except NULL                                     # with the GIL; EngineError: not for path A
cdef void tls_free(Tls* tls) noexcept nogil
# As much as there is, over as many records as there are. Bytes, 0 at the end of the stream, -1 with errno, TLS_FAILED.
cdef ssize_t tls_read(Tls* tls, uint8_t* place, size_t size) noexcept nogil
# All or nothing: `size`, or -1 with errno; EAGAIN wants a call with the same bytes again.
cdef ssize_t tls_write(Tls* tls, const uint8_t* data, size_t size) noexcept nogil
cdef void tls_shut(Tls* tls) noexcept nogil                                    # one close_notify, without waiting
