"""Taking turns: what one thread at a time may do, in a single step as signals see it.

The exception of a signal's handler comes between two steps of a Python function. Where a lock is taken in the one, and the block
that gives it back is entered in the next, an exception between them leaves the lock taken for ever. Here both lie in one
compiled call. Who may take turns, and with what, is not known here.
"""
from threading import Lock

cdef extern from "Python.h":
    unsigned long PyThread_get_thread_ident() nogil

#: What `take` answers where another thread has the turn.
BUSY = object()


cdef class Turn:
    """A turn that one thread at a time has. Thread-safe."""

    def __cinit__(self):
        self.lock = Lock()

    @property
    def mine(self) -> bool:
        """Whether the calling thread has it: it would wait for itself."""
        return self.holder == PyThread_get_thread_ident()

    @property
    def taken(self) -> bool:
        """Whether somebody has it."""
        return self.lock.locked()

    def take(self, double timeout, body, *args):
        """Run `body(*args)` in our turn, for which `timeout` seconds are waited, below 0 for ever; what it returns, or BUSY
        if the turn has not come."""
        if not self.lock.acquire(True, timeout):
            return BUSY
        self.holder = PyThread_get_thread_ident()
        try:
            return body(*args)
        finally:
            self.holder = 0
            self.lock.release()
