"""Taking messages from a ring one at a time: what `recv` of a connection with a ring to itself stands on.

What is handed out is the caller's: it leaves the account at once.
"""
cimport cython
from libc.stdint cimport uint32_t
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.unicode cimport PyUnicode_DecodeUTF8
from wsengine.engine.frames cimport OP_TEXT
from wsengine.engine.ring cimport Descriptor, Ring, SlabPool


@cython.no_gc_clear  # the ring must be there until what was claimed of it is let go
cdef class Outlet:
    """Takes messages from `ring`. One thread at a time.

    Args:
        ahead: messages claimed at a time, 1 to 64.
    """

    def __cinit__(self, Ring ring not None, *, uint32_t ahead=AHEAD):
        self.ring = ring
        self.ahead = min(max(ahead, 1), <uint32_t>AHEAD)

    def __dealloc__(self):
        while self.at < self.count:
            self.let_go()

    cdef void let_go(self) noexcept:
        """The next one has been copied, or nobody wants it."""
        SlabPool.drop(self.batch[self.at].arrival.slab, 1)
        self.at += 1
        self.ring.account.c.release(1, 0)

    @property
    def waiting(self) -> bool:
        """Whether there is something to take."""
        return self.at < self.count or self.ring.c.ready()

    def take(self, decode=None):
        """The next message, None if there is none: a text as str, a binary one as bytes; `decode` True makes any str, False
        any bytes. UnicodeDecodeError where a binary message is not UTF-8; it is taken all the same."""
        cdef Descriptor* one
        cdef bint text
        if self.at == self.count:
            self.at = 0
            self.count = self.ring.c.pop(self.batch, self.ahead)
            if self.count == 0:
                return None
        one = &self.batch[self.at]
        text = one.opcode == OP_TEXT if decode is None else decode
        try:
            if text:
                return PyUnicode_DecodeUTF8(<const char*>one.data, one.size, NULL)
            return PyBytes_FromStringAndSize(<const char*>one.data, one.size)
        finally:
            self.let_go()
