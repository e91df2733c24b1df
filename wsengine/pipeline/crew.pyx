"""The crew: what all processors of one pipeline share, and what the control plane asks of them together.

Fixed before the processors start, but for a few counters, each an atomic of its own. How a processor uses it is its own
matter (processor); which order a stop takes, that of drain.
"""
import threading
from collections import deque

from wsengine.errors import ConfigurationError

from libc.stdint cimport int64_t
from libcpp.atomic cimport atomic, memory_order_acquire, memory_order_relaxed, memory_order_release
from wsengine.engine.ring cimport Account, Parker, Ring, monotonic_ns
from wsengine.message cimport Message
from wsengine.pipeline.rate_limiter cimport RateLimiter
from wsengine.pipeline.sources cimport Sources


cdef class Crew:
    """What the processors of one pipeline share.

    Args:
        pipeline: its `handle_message` or `handle_messages`, `prepare_messages`, `handle_batch` and `handle_failed` are
            called.
        name: of the pipeline. limiter: of its rate, or None. retry: a Retry for its messages, or None.
        parker, account: of the pipeline.
        concurrency, min_demand, max_demand, spin: as in `Processors`; spin in seconds.
        log_failure: called with (what, exception) for what a callback raised.
        partitioned: each processor claims from sources of its own (`set_shares`), and not from what producers fill.
    """

    def __cinit__(self, pipeline, str name, Parker parker not None, Account account not None, *, int concurrency,
                  int min_demand, int max_demand, double spin, log_failure, RateLimiter limiter=None, retry=None,
                  bint partitioned=False):
        self.pipeline = pipeline
        self.name = name
        self.sources = Sources(parker, account, 1 if partitioned else concurrency)
        self.partitioned = partitioned
        self.given_shares = [] if partitioned else [self.sources]
        self.account = account
        self.min_demand = min_demand
        self.max_demand = max_demand
        self.spin_ns = <int64_t>(spin * 1e9)
        self.handler = pipeline.handle_message
        self.chunk_handler = pipeline.handle_messages
        self.prepare = pipeline.prepare_messages
        self.on_failed = pipeline.handle_failed
        self.batch_handler = pipeline.handle_batch
        self.batchers = {}
        self.spares = deque()
        self.log_failure = log_failure
        self.limiter = limiter
        self.retry = retry
        self.over = threading.Event()
        self.ending = new atomic[int](0)
        self.closed = new atomic[int](0)
        self.askers = new atomic[int](0)
        self.held = new atomic[int](0)

    def __dealloc__(self):
        del self.askers
        del self.held
        del self.ending
        del self.closed

    def add_ring(self, Ring ring not None, origin, transformer=None) -> None:
        """Add a slab ring as a source; `origin` knows its connections. Before the processors start."""
        self.sources.add_ring(ring, origin, transformer)
        self.choose_lead()

    def add_inbox(self, inbox, bint unlimited=False) -> None:
        """Add an inbox of messages as a source, one of them perhaps without a limit of its rate. Before the processors
        start."""
        self.sources.add_inbox(inbox, unlimited)

    def choose_lead(self) -> None:
        """Have the one that claims from the one reader's ring, when idle, run the reader's loop (lead.hpp): the only processor,
        or the partitioner. With several processors, whoever led would leave other readers unread, or other processors
        asleep behind it; and one that waits for its rate reads nothing. Called again when their number has changed: for
        more of them at once, for one only when the others have ended."""
        cdef bint single = len(self.sources.rings) == 1 and (self.limiter is None or self.partitioned)
        cdef bint lent = single and self.sources.workers.load(memory_order_relaxed) == 1
        cdef Ring ring
        self.sources.parker.c.allow_polls(lent)
        for entry in self.sources.rings:
            ring = (<tuple>entry)[0]
            ring.lead.set_lent(lent)
            if not self.started:
                self.sources.parker.c.set_bell(ring.bell if single else NULL)

    def start(self) -> None:
        """There are processors from here on."""
        self.started = True

    def set_shares(self, list shares not None) -> None:
        """Have each processor claim from its own of these; where there are partitions."""
        with self.gate:
            self.given_shares = shares

    @property
    def shares(self) -> list:
        """Sources, what each processor claims from: `sources`, for all, or one a partition."""
        return self.current_shares()

    cdef list current_shares(self):
        with self.gate:
            return self.given_shares

    @property
    def concurrency(self) -> int:
        """How many processors there are to be."""
        return len(self.current_shares()) if self.partitioned else self.sources.workers.load(memory_order_relaxed)

    def set_concurrency(self, int concurrency) -> None:
        """Have claims cut for another number of processors; without partitions."""
        self.sources.workers.store(concurrency, memory_order_relaxed)

    def add_batcher(self, str key not None, stage) -> None:
        """Add a batcher for what is handled. Before the processors start."""
        self.batchers[key] = stage

    cdef int check_batcher(self, Message message) except -1:
        """Raise ConfigurationError if the message names a batcher that there is not."""
        if message.batcher not in self.batchers:
            raise ConfigurationError("message.batcher", message.batcher, "give the name of one of the pipeline's batchers: "
                                     + ", ".join(map(repr, self.batchers)))
        return 0

    cdef hold(self, int reason, bint on):
        """Have the processors claim nothing, for one more reason, or for one less. Under the gate."""
        cdef int now = self.held.load(memory_order_relaxed)
        self.held.store(now | reason if on else now & ~reason, memory_order_release)  # pairs with the acquire in ready
        cdef Sources share
        if not on:
            for share in self.given_shares:
                share.parker.c.notify()          # the chain wakes more, as for messages that have come

    cdef saturate(self, int change):
        """A batcher asks for no more (1), or does again (-1); while none asks, nothing is claimed."""
        cdef bint before, now
        with self.gate:
            before = self.saturated == len(self.batchers)
            self.saturated += change
            now = self.saturated == len(self.batchers)
            if now != before:
                self.hold(HELD_SATURATED, now)

    cdef bint relieve(self):
        """Nothing is left to claim: if a source waits for room all the same, what is held waits in batches for messages that
        cannot come, and has to go. True: look again soon, for the pipeline is full of what waits in batches, and nobody tells
        of what changes then: a source begins to wait, or the batches that are complete, which go first, have gone."""
        if self.held.load(memory_order_relaxed):
            return False                         # whoever lets go tells
        if self.account.c.starves() and self.all_idle():
            for stage in self.batchers.values():
                stage.relieve()
        return (self.account.c.starves() or not self.account.c.admits()) and self.nobody_busy()

    cdef bint all_idle(self):
        cdef Sources share
        for share in self.current_shares():
            if not share.idle_here():
                return False
        return not self.sources.anything()

    cdef bint nobody_busy(self):
        """Whether no processor has a chunk, nor one in sight that a partitioner has given it."""
        cdef Sources share
        for share in self.current_shares():
            if share.busy.load(memory_order_acquire) != 0 or self.partitioned and share.anything():
                return False
        return True

    cdef tell_askers(self):
        """Messages have been acknowledged or handed on: whoever waits for demand looks again."""
        if self.askers.load(memory_order_relaxed):
            for inbox in self.sources.inboxes:
                inbox.asked()

    cdef bint ready(self, Sources sources):
        """Whether there is something to claim, and it may be claimed."""
        if self.held.load(memory_order_acquire) or not sources.anything():
            return False
        return self.limiter is None or self.limiter.pause_ns(monotonic_ns()) == 0 or self.more_than_limited(sources)

    cdef bint more_than_limited(self, Sources sources):
        return sources.unlimited is not None and len(sources.unlimited.queue) != 0

    cdef int64_t pause_ns(self, Sources sources, int64_t longest):
        """How long a processor that may claim nothing sleeps at the most: until the rate allows something."""
        if self.limiter is None or not sources.anything():
            return longest
        return min(self.limiter.pause_ns(monotonic_ns()), longest)

    def pause(self, bint on) -> None:
        """Have the processors claim nothing, or claim again."""
        with self.gate:
            self.hold(HELD_PAUSED, on)

    @property
    def paused(self) -> bool:
        """Whether `pause` holds."""
        return self.held.load(memory_order_relaxed) & HELD_PAUSED != 0

    def look_again(self) -> None:
        """Wake all that claim: something has changed that they wait for."""
        cdef Sources share
        self.sources.parker.c.notify_all()
        for share in self.current_shares():
            share.parker.c.notify_all()

    def tell_taken(self) -> None:
        """As `tell_askers`, for those that fill queues."""
        self.tell_askers()

    @property
    def idle(self) -> bool:
        """Whether no processor has a chunk and no source has a message."""
        return self.all_idle()

    @property
    def depth(self) -> int:
        """About how many messages wait to be claimed by a processor."""
        return self.sources.depth + (sum([share.depth for share in self.current_shares()]) if self.partitioned else 0)

    def ask(self, int change) -> None:
        """Somebody begins (1) or ends (-1) to wait for demand, and wants to hear of acknowledgements."""
        self.askers.fetch_add(change, memory_order_release)

    def close(self) -> None:
        """Have the processors claim nothing more: the deadline has come."""
        self.over.set()
        self.closed.store(1, memory_order_release)  # pairs with the acquire in Processor.run
        self.look_again()

    def end(self) -> None:
        """Have the processors leave once there is nothing to claim."""
        self.ending.store(1, memory_order_release)  # pairs with the acquire in Processor.run
        self.look_again()
