"""TLS without the GIL (path A): the SSL object that CPython's `ssl` has made, driven by the functions of its own libssl.

What makes that sound is checked for each connection, and each check has a sentence that says what failed; a connection
that fails one goes over path B. One thread at a time touches the object (openssl-threads(7)): the dialer up to the
hand-over, then whoever has the lead. Nobody else ever gets hold of it.
"""
import os
import ssl
import sys
import weakref

import _ssl

from wsengine.errors import EngineError

from libc.errno cimport EAGAIN, EIO, errno
from libc.stdint cimport uint8_t
from libc.stdlib cimport calloc, free

cdef extern from *:
    """
    #include <Python.h>
    #include <dlfcn.h>
    #include <errno.h>

    /* How the object behind SSLSocket begins in every CPython of VERSIONS (Modules/_ssl.c); check() compares its first
       field with what must be in it before it believes the second. */
    typedef struct {
      PyObject_HEAD
      PyObject* socket;  /* a weak reference to the SSLSocket */
      void* ssl;
    } ws_ssl_socket;

    typedef struct {
      int (*read)(void* ssl, void* place, size_t size, size_t* got);
      int (*write)(void* ssl, const void* data, size_t size, size_t* took);
      int (*get_error)(const void* ssl, int result);
      int (*get_fd)(const void* ssl);
      const char* (*get_version)(const void* ssl);
      void* (*get_rbio)(const void* ssl);
      void (*set0_rbio)(void* ssl, void* bio);
      const void* (*f_buffer)(void);
      void* (*bio_new)(const void* method);
      void* (*bio_push)(void* bio, void* below);
      int (*bio_up_ref)(void* bio);
      long (*bio_int_ctrl)(void* bio, int what, long value, int of);
      int (*bio_free)(void* bio);
      int (*shutdown)(void* ssl);
      void (*clear_errors)(void);
      unsigned long (*last_error)(void);
      const char* (*reason)(unsigned long error);
    } ws_libssl;

    static void ws_set_errno(int error) { errno = error; }  /* an assignment in Cython would make a local variable */
    static void* ws_open(const char* file) { return dlopen(file, RTLD_NOW | RTLD_NOLOAD); }
    static int ws_find(void* library, const char* name, void** place) {
      return (*place = dlsym(library, name)) != NULL;
    }
    """
    ctypedef struct Head "ws_ssl_socket":
        void* socket
        void* ssl

    ctypedef struct Libssl "ws_libssl":
        int (*read)(void* ssl, void* place, size_t size, size_t* got) noexcept nogil
        int (*write)(void* ssl, const void* data, size_t size, size_t* took) noexcept nogil
        int (*get_error)(const void* ssl, int result) noexcept nogil
        int (*get_fd)(const void* ssl) noexcept nogil
        const char* (*get_version)(const void* ssl) noexcept nogil
        void* (*get_rbio)(const void* ssl) noexcept nogil
        void (*set0_rbio)(void* ssl, void* bio) noexcept nogil
        const void* (*f_buffer)() noexcept nogil
        void* (*bio_new)(const void* method) noexcept nogil
        void* (*bio_push)(void* bio, void* below) noexcept nogil
        int (*bio_up_ref)(void* bio) noexcept nogil
        long (*bio_int_ctrl)(void* bio, int what, long value, int of) noexcept nogil
        int (*bio_free)(void* bio) noexcept nogil
        int (*shutdown)(void* ssl) noexcept nogil
        void (*clear_errors)() noexcept nogil
        unsigned long (*last_error)() noexcept nogil
        const char* (*reason)(unsigned long error) noexcept nogil

    void set_errno "ws_set_errno" (int error) nogil
    void* ws_open(const char* file)
    bint ws_find(void* library, const char* name, void** place)

cdef enum:                     # what SSL_get_error answers, the same in every OpenSSL since 0.9 (openssl/ssl.h)
    WANT_READ = 2
    WANT_WRITE = 3
    SYSCALL = 5
    ZERO_RETURN = 6
    SET_BUFFER_SIZE = 117      # BIO_C_SET_BUFF_SIZE (openssl/bio.h), the same since 0.9, too
    REASON = 0x7FFFFF          # the part of an error that says what
    UNEXPECTED_EOF = 294       # OpenSSL 3: the stream ended without a close_notify

#: Of CPython, whose SSLSocket begins as ws_ssl_socket does.
VERSIONS = ((3, 11), (3, 12), (3, 13), (3, 14))
#: The environment variable that takes every connection over path B, to look into a suspicion.
FORCED = "WSENGINE_TLS_PATH"

cdef Libssl libssl             # written once, by load(), before the first connection; read by all
cdef object problem = None     # why it can't be used: a sentence, "" if nothing is wrong, None before load()


cdef object load():
    """Find the functions in the libssl that `_ssl` has loaded; what is wrong, "" if nothing."""
    cdef void* library
    global problem
    if problem is not None:
        return problem
    if sys.implementation.name != "cpython" or sys.version_info[:2] not in VERSIONS:
        problem = f"{sys.implementation.name} {sys.version_info[0]}.{sys.version_info[1]} has not been checked"
        return problem
    file = getattr(_ssl, "__file__", None)
    if file is None:
        problem = "this Python has OpenSSL built in, where its functions cannot be found"
        return problem
    library = ws_open(os.fsencode(file))
    found = library != NULL and (
        ws_find(library, b"SSL_read_ex", <void**>&libssl.read)
        and ws_find(library, b"SSL_write_ex", <void**>&libssl.write)
        and ws_find(library, b"SSL_get_error", <void**>&libssl.get_error)
        and ws_find(library, b"SSL_get_fd", <void**>&libssl.get_fd)
        and ws_find(library, b"SSL_get_version", <void**>&libssl.get_version)
        and ws_find(library, b"SSL_get_rbio", <void**>&libssl.get_rbio)
        and ws_find(library, b"SSL_set0_rbio", <void**>&libssl.set0_rbio)
        and ws_find(library, b"BIO_f_buffer", <void**>&libssl.f_buffer)
        and ws_find(library, b"BIO_new", <void**>&libssl.bio_new)
        and ws_find(library, b"BIO_push", <void**>&libssl.bio_push)
        and ws_find(library, b"BIO_up_ref", <void**>&libssl.bio_up_ref)
        and ws_find(library, b"BIO_int_ctrl", <void**>&libssl.bio_int_ctrl)
        and ws_find(library, b"BIO_free", <void**>&libssl.bio_free)
        and ws_find(library, b"SSL_shutdown", <void**>&libssl.shutdown)
        and ws_find(library, b"ERR_clear_error", <void**>&libssl.clear_errors)
        and ws_find(library, b"ERR_peek_last_error", <void**>&libssl.last_error)
        and ws_find(library, b"ERR_reason_error_string", <void**>&libssl.reason))
    problem = "" if found else "the functions of its libssl cannot be found"
    return problem


def why_not(context) -> object:
    """Why connections of this context cannot go over path A; None if they can.

    Args:
        context: an `ssl.SSLContext`.

    May be called from any thread.
    """
    if os.environ.get(FORCED, "").upper() == "B":
        return f"{FORCED}=B"
    if load():
        return problem
    if context.keylog_filename is not None:
        return "the context has a key log file, which needs the GIL"
    if getattr(context, "_msg_callback", None) is not None:
        return "the context has a message callback, which needs the GIL"
    return None


def check(sock) -> object:
    """Why this connection cannot go over path A, though its context can; None if it can.

    Args:
        sock: an `ssl.SSLSocket` whose handshake is done; in use by nobody else.
    """
    cdef Head* head
    cdef const char* version
    inner = getattr(sock, "_sslobj", None)
    if load():
        return problem
    if not isinstance(sock, ssl.SSLSocket) or inner is None or type(inner).__name__ != "_SSLSocket":
        return f"{type(sock).__name__} is not an SSLSocket after its handshake"
    if type(inner).__basicsize__ < <Py_ssize_t>sizeof(Head):
        return "the SSL object is not where it is expected"
    head = <Head*><void*>inner
    owner = weakref.ref(sock)     # the same object that `_ssl` has made: a plain weak reference is made once
    if head.socket != <void*>owner or head.ssl == NULL:
        return "the SSL object is not where it is expected"
    if libssl.get_fd(head.ssl) != sock.fileno():
        return "the SSL object has another descriptor"
    version = libssl.get_version(head.ssl)
    if version == NULL or version.decode() != sock.version():
        return "the SSL object has another version of TLS"
    return None


cdef Tls* tls_new(object sock) except NULL:
    cdef Tls* tls
    reason = check(sock)
    if reason is not None:
        raise EngineError(f"this connection cannot be read without the GIL: {reason}")
    if sock.gettimeout() != 0:
        raise EngineError("this TLS connection is blocking; call setblocking(False)")
    tls = <Tls*>calloc(1, sizeof(Tls))
    if tls == NULL:
        raise MemoryError()
    tls.ssl = (<Head*><void*>sock._sslobj).ssl
    if not read_by_the_buffer(tls.ssl):
        free(tls)
        raise MemoryError()
    return tls


cdef bint read_by_the_buffer(void* ssl) noexcept nogil:
    """Put a buffer between the SSL object and its socket, so that a system call reads many records. (SSL_set_read_ahead does
    that, too, and for each record moves all that lies behind it to the front: a tenth of a flood's time.) False: no memory."""
    cdef void* below = libssl.get_rbio(ssl)
    cdef void* buffer = libssl.bio_new(libssl.f_buffer())
    if buffer == NULL:
        return False
    if libssl.bio_int_ctrl(buffer, SET_BUFFER_SIZE, READ_BUFFER, 0) <= 0:
        libssl.bio_free(buffer)
        return False
    libssl.bio_up_ref(below)          # for the buffer; the one that reading had is given back below
    libssl.set0_rbio(ssl, libssl.bio_push(buffer, below))
    return True


cdef void tls_free(Tls* tls) noexcept nogil:
    free(tls)


# ------------------------------------------------------------------------------------------------------------- reading

cdef bint reading_ends(Tls* tls, int why, int error) noexcept nogil:
    """Whether a read that gave nothing was the last; notes the reason."""
    cdef unsigned long code
    if why == WANT_READ:
        return False
    if why == WANT_WRITE:
        tls.read_wants_write = True
        return False
    tls.over = True
    if why == SYSCALL:
        tls.error = error             # 0: the stream ended without a close_notify, as an OpenSSL before 3 tells it
    elif why != ZERO_RETURN:
        code = libssl.last_error()
        if code & REASON != UNEXPECTED_EOF:
            tls.problem = libssl.reason(code)
            if tls.problem == NULL:
                tls.problem = b"unknown TLS error"
    return True


cdef ssize_t the_end(const Tls* tls) noexcept nogil:
    if tls.problem != NULL:
        return TLS_FAILED
    if tls.error:
        set_errno(tls.error)
        return -1
    return 0


cdef ssize_t tls_read(Tls* tls, uint8_t* place, size_t size) noexcept nogil:
    cdef size_t done = 0, got = 0
    tls.read_wants_write = False
    while done < size and not tls.over:
        libssl.clear_errors()         # the queue belongs to the thread: what others left there is not of this call
        set_errno(0)
        if libssl.read(tls.ssl, place + done, size - done, &got) == 1:
            done += got
        elif not reading_ends(tls, libssl.get_error(tls.ssl, 0), errno):
            break
    if done:
        return <ssize_t>done          # an end, if there was one, is told by the next call
    if tls.over:
        return the_end(tls)
    set_errno(EAGAIN)
    return -1


# ------------------------------------------------------------------------------------------------------------- writing

cdef ssize_t tls_write(Tls* tls, const uint8_t* data, size_t size) noexcept nogil:
    cdef size_t took = 0
    cdef int why, error
    tls.write_wants_read = False
    libssl.clear_errors()
    set_errno(0)
    if libssl.write(tls.ssl, data, size, &took) == 1:
        return <ssize_t>took
    error = errno
    why = libssl.get_error(tls.ssl, 0)
    if why == WANT_READ or why == WANT_WRITE:
        tls.write_wants_read = why == WANT_READ
        set_errno(EAGAIN)
    else:
        set_errno(error if why == SYSCALL and error else EIO)
    return -1


cdef void tls_shut(Tls* tls) noexcept nogil:
    if tls.problem == NULL and tls.error == 0:    # not after a fatal error (SSL_shutdown(3))
        libssl.clear_errors()
        libssl.shutdown(tls.ssl)      # what it answers changes nothing: the peer may have gone
