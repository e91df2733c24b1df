"""Sources: the rings and inboxes that one processor, or all of them, claim from."""
from collections import deque

from wsengine.errors import EngineError

from libc.stdint cimport uint64_t
from libcpp.atomic cimport atomic, memory_order_acquire, memory_order_relaxed, memory_order_release
from wsengine.engine.ring cimport Account, Parker, Ring


cdef class Sources:
    """Rings and inboxes on one parker.

    Args:
        parker: where those wait that claim. account: charged with what is here. concurrency: how many claim.
    """

    def __cinit__(self, Parker parker not None, Account account not None, int concurrency):
        self.parker = parker
        self.account = account
        self.rings = []
        self.inboxes = []
        self.workers = new atomic[int](concurrency)
        self.busy = new atomic[int](0)
        self.given = new atomic[int](0)
        self.stalls = new atomic[uint64_t](0)
        self.refused = new atomic[uint64_t](0)

    def __dealloc__(self):
        del self.workers
        del self.busy
        del self.given
        del self.stalls
        del self.refused

    def add_ring(self, Ring ring not None, origin, transformer=None) -> None:
        """Add a slab ring; `origin` knows its connections. Before anybody claims."""
        self.rings.append((ring, origin, transformer))
        self.slabbed.push_back(ring.c)

    def add_inbox(self, inbox, bint unlimited=False) -> None:
        """Add an inbox of messages, one of them perhaps without a limit of its rate. Before anybody claims."""
        self.inboxes.append(inbox)
        if unlimited:
            self.unlimited = inbox

    def tell(self) -> None:
        """A message was put in an inbox: somebody is to claim it. Any thread."""
        self.given.store(1, memory_order_release)   # pairs with the partitioner's exchange, before it looks
        self.parker.c.notify()

    cdef bint anything(self):
        if self.ring_ready():
            return True
        for inbox in self.inboxes:
            if len(inbox.queue):
                return True
        return False

    cdef bint ring_ready(self) noexcept nogil:
        cdef size_t i
        for i in range(self.slabbed.size()):
            if self.slabbed[i].ready():
                return True
        return False

    cdef bint idle_here(self):
        return self.busy.load(memory_order_acquire) == 0 and not self.anything()

    @property
    def idle(self) -> bool:
        """Whether nobody has a chunk from here and there is nothing to claim."""
        return self.idle_here()

    @property
    def depth(self) -> int:
        """About how many messages wait to be claimed."""
        cdef Ring ring
        total = sum([len(inbox.queue) for inbox in self.inboxes])
        for entry in self.rings:
            ring = (<tuple>entry)[0]
            total += ring.c.depth()
        return total


cdef class Queue:
    """An inbox that another thread of the pipeline fills.

    Args:
        taken: called when it has been emptied and somebody waits to hear of that.
    """

    def __cinit__(self, taken):
        self.queue = deque()
        self.taken = taken

    def asked(self) -> None:
        """All messages that were here have been claimed."""
        self.taken()

    def ack_now(self, message) -> None:
        """A message that still waits here cannot be acknowledged."""
        raise EngineError(f"{message!r} waits for a processor; acknowledge it in its handler")
