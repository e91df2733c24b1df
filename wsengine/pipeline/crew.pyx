"""The crew: what all processors of one pipeline share, and what the control plane asks of them together.

Fixed before the processors start, but for a few counters, each an atomic of its own. How a processor uses it is its own
matter (processor); which order a stop takes, that of drain.
"""
from libc.stdint cimport int64_t
from libcpp.atomic cimport atomic, memory_order_acquire, memory_order_release
from wsengine.engine.ring cimport Account, Parker, Ring


cdef class Crew:
    """What the processors of one pipeline share.

    Args:
        pipeline: its `handle_message` or `handle_messages`, `prepare_messages` and `handle_failed` are called.
        name: of the pipeline.
        parker, account: of the pipeline.
        concurrency, min_demand, max_demand, spin: as in `Processors`; spin in seconds.
        log_failure: called with (what, exception) for what a callback raised.
    """

    def __cinit__(self, pipeline, str name, Parker parker not None, Account account not None, *, int concurrency,
                  int min_demand, int max_demand, double spin, log_failure):
        self.pipeline = pipeline
        self.name = name
        self.parker = parker
        self.account = account
        self.concurrency = concurrency
        self.min_demand = min_demand
        self.max_demand = max_demand
        self.spin_ns = <int64_t>(spin * 1e9)
        self.rings = []
        self.inboxes = []
        self.handler = pipeline.handle_message
        self.chunk_handler = pipeline.handle_messages
        self.prepare = pipeline.prepare_messages
        self.on_failed = pipeline.handle_failed
        self.log_failure = log_failure
        self.busy = new atomic[int](0)
        self.ending = new atomic[int](0)
        self.closed = new atomic[int](0)
        self.askers = new atomic[int](0)

    def __dealloc__(self):
        del self.askers
        del self.busy
        del self.ending
        del self.closed

    def add_ring(self, Ring ring not None, origin, transformer=None) -> None:
        """Add a slab ring as a source; `origin` knows its connections. Before the processors start."""
        self.rings.append((ring, origin, transformer))
        self.slabbed.push_back(ring.c)
        self.choose_lead()

    def add_inbox(self, inbox) -> None:
        """Add an inbox of messages as a source. Before the processors start."""
        self.inboxes.append(inbox)

    cdef choose_lead(self):
        """Have the one processor, when idle, run the loop of the one reader (lead.hpp). With several, whoever led would
        leave other readers unread, or other processors asleep behind it."""
        cdef bint lent = self.concurrency == 1 and len(self.rings) == 1
        cdef Ring ring
        for entry in self.rings:
            ring = (<tuple>entry)[0]
            ring.lead.set_lent(lent)
            self.parker.c.set_bell(ring.bell if lent else NULL)

    cdef bint ready(self):
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

    @property
    def idle(self) -> bool:
        """Whether no processor has a chunk and no source has a message."""
        return self.busy.load(memory_order_acquire) == 0 and not self.ready()

    @property
    def depth(self) -> int:
        """About how many messages wait to be claimed."""
        cdef Ring ring
        total = sum([len(inbox.queue) for inbox in self.inboxes])
        for entry in self.rings:
            ring = (<tuple>entry)[0]
            total += ring.c.depth()
        return total

    def ask(self, int change) -> None:
        """Somebody begins (1) or ends (-1) to wait for demand, and wants to hear of acknowledgements."""
        self.askers.fetch_add(change, memory_order_release)

    def close(self) -> None:
        """Have the processors claim nothing more: the deadline has come."""
        self.closed.store(1, memory_order_release)  # pairs with the acquire in Processor.run
        self.parker.c.notify_all()

    def end(self) -> None:
        """Have the processors leave once there is nothing to claim."""
        self.ending.store(1, memory_order_release)  # pairs with the acquire in Processor.run
        self.parker.c.notify_all()
