"""The loop of a processor: claim a chunk, have its callbacks run, acknowledge, again.

A processor waits without the GIL, takes it, and only then claims: what it has claimed it will handle next, so nothing
waits in the hands of a thread that waits for the GIL. One claim is one chunk, cut so that a burst spreads over the idle
processors. User code cannot kill the loop: whatever a callback raises fails one message (or the chunk, where the callback
was given the chunk), is logged, and is acknowledged as failed (Broadway's ProcessorStage; reference §6.3 with its repairs).
"""
from wsengine import telemetry
from wsengine.message import Failed

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libcpp.atomic cimport memory_order_acquire, memory_order_relaxed, memory_order_release
from wsengine.engine.ring cimport Ring, monotonic_ns
from wsengine.message cimport Message
from wsengine.pipeline.batcher cimport give_batchers
from wsengine.pipeline.callbacks cimport (call_chunk, call_each, call_handle_failed, call_watched, judge_batchers, prepare,
                                          transform, wall_ns)
from wsengine.pipeline.chunk cimport Chunk, failures, lost
from wsengine.pipeline.crew cimport Crew
from wsengine.pipeline.latency cimport Latency, note_latency
from wsengine.pipeline.listeners cimport Listeners, current, listeners_of
from wsengine.pipeline.materialiser cimport CHUNK, Materialiser
from wsengine.pipeline.sources cimport Sources

cdef extern from "Python.h":
    PyObject* PyList_GET_ITEM(object list, Py_ssize_t i)
    list PyList_GetSlice(list whole, Py_ssize_t low, Py_ssize_t high)

cdef extern from "<sched.h>" nogil:
    int sched_yield()

#: Why a message failed that nobody has handled.
STOPPED = "the pipeline stopped before the message was handled"

cdef int64_t SOON_NS = 50000             # how long what is foretold may take to come, for one that is awake
cdef int64_t SLICE_NS = 1000000000       # a parked processor looks up once a second, whatever became of its wake
cdef int64_t FULL_NS = 20000000          # and sooner where batches may be all that the pipeline is full of

cdef object PROCESSOR_START = telemetry.PROCESSOR_START
cdef object PROCESSOR_STOP = telemetry.PROCESSOR_STOP


cdef class Processor:
    """One processor; `run` is the body of its thread. Figures may be read from any thread.

    Args:
        crew: of the pipeline. index: of it there. sources: what it claims from; None: what producers fill.
    """

    def __cinit__(self, Crew crew not None, int index, Sources sources=None):
        self.crew = crew
        self.sources = crew.sources if sources is None else sources
        self.index = index
        self.thread_name = f"wsengine:{crew.name}:processor_{index}"
        self.where = {"topology_name": crew.name, "name": self.thread_name, "index": index}
        self.turn = index
        self.materialiser = Materialiser.__new__(Materialiser, self.sources.account, crew.spares if crew.batchers else None)
        self.hands_on = bool(crew.batchers)
        self.latency = Latency()
        self.chunk_listeners = listeners_of((PROCESSOR_START, PROCESSOR_STOP, telemetry.PROCESSOR_EXCEPTION))
        self.message_listeners = listeners_of((telemetry.MESSAGE_START, telemetry.MESSAGE_STOP, telemetry.MESSAGE_EXCEPTION))
        self.leaving = new atomic[int](0)

    def __dealloc__(self):
        del self.leaving

    def leave(self) -> None:
        """Have this processor end behind the chunk that it has in hand; whoever calls wakes it (Crew.look_again)."""
        self.leaving.store(1, memory_order_relaxed)   # alone: it finds nothing that was written before

    def run(self) -> None:
        """Claim and handle until the crew ends and nothing is left to claim."""
        cdef Crew crew = self.crew
        cdef Sources sources = self.sources
        cdef uint32_t seen
        cdef int64_t pause
        while True:
            sources.parker.c.arrive()
            if crew.closed.load(memory_order_acquire):
                return
            if self.leaving.load(memory_order_relaxed):
                sources.parker.c.notify()           # a wake that met this one was for somebody
                return
            if self.claim():
                if crew.ready(sources):
                    sources.parker.c.notify()       # the chain: one more, before the handler runs
                self.handle()
                continue
            seen = sources.parker.c.prepare()
            if crew.ready(sources):
                sources.parker.c.leave()
            elif crew.ending.load(memory_order_acquire):
                sources.parker.c.leave()
                sources.parker.c.notify()
                return
            else:
                pause = crew.pause_ns(sources, SLICE_NS)
                if self.hands_on and crew.relieve() and self.index == 0:  # one who looks again is enough
                    pause = min(pause, FULL_NS)
                with nogil:
                    crew.account.c.wake_resting()
                    self.park(seen, pause)

    cdef void park(self, uint32_t seen, int64_t pause) noexcept nogil:
        """Wait for work: in the reader's place, if it lends that; else asleep, with `spin` awake for a while. Woken early,
        look a moment for what the reader reads."""
        cdef int64_t until
        if not self.crew.held.load(memory_order_relaxed) and self.sources.parker.c.wait_in_poll(seen, self.crew.spin_ns):
            self.sources.parker.c.leave()
            return
        if not self.spin(seen):
            self.sources.parker.c.wait(seen, pause)
        if self.sources.parker.c.foretold():
            until = monotonic_ns() + SOON_NS
            while self.sources.parker.c.foretold() and not self.sources.ring_ready() and monotonic_ns() < until:
                sched_yield()                    # the reader may have been on this core

    cdef bint spin(self, uint32_t seen) noexcept nogil:
        """Look for a wake for as long as `spin` says; True if it came, and the parker has been left."""
        cdef int64_t until
        if self.crew.spin_ns == 0:
            return False
        until = monotonic_ns() + self.crew.spin_ns
        while monotonic_ns() < until:
            if self.sources.parker.c.changed(seen):
                self.sources.parker.c.leave()
                return True
        return False

    def take_over(self, reason) -> tuple:
        """Acknowledge what this processor has in hand, because it is dead or stuck; see Chunk.take_over."""
        chunk = self.chunk
        return (0, 0, 0) if chunk is None else chunk.take_over(reason, self.thread_name)

    def retire(self) -> None:
        """The thread of this processor is dead and its chunk taken over: it no longer counts as busy."""
        if self.chunk is not None:
            self.let_go()

    def fail_rest(self, reason) -> int:
        """Claim all that is left in the sources and acknowledge it as failed; how many. At the deadline of a stop."""
        cdef Message message
        cdef int n = 0
        self.sweeping = True                     # handle_failed, which may take its time, is not called either
        self.watched = False
        while self.claim():
            self.transformer = None              # nothing of the user's runs for what is failed anyway, unhandled
            for message in self.chunk.messages:
                message.set_verdict(Failed(reason))
                n += 1
            self.settle()
        return n

    # ------------------------------------------------------------------------------------------------------ claiming

    cdef Py_ssize_t demand(self, uint64_t ready):
        """How many to claim of so many: the demand, cut so that idle processors get their share."""
        cdef Crew crew = self.crew
        cdef Py_ssize_t most = min(crew.max_demand - crew.min_demand, crew.max_demand - self.outstanding)
        # this one among them
        cdef int64_t idle = (self.sources.workers.load(memory_order_relaxed)
                             - self.sources.busy.load(memory_order_relaxed))
        if idle > 1:
            most = min(most, <Py_ssize_t>((ready + idle - 1) // idle))
        most = min(most, <Py_ssize_t>(CHUNK_BYTES // max(self.materialiser.usual, <uint32_t>1)))
        return min(max(most, 1), CHUNK)

    cdef Py_ssize_t allowed(self, Py_ssize_t most):
        """So many of these as the rate allows."""
        return most if self.crew.limiter is None or self.sweeping else self.crew.limiter.take(most, monotonic_ns())

    cdef give_allowance(self, Py_ssize_t n):
        """So many were not there."""
        if n and self.crew.limiter is not None and not self.sweeping:
            self.crew.limiter.give(n)

    cdef Py_ssize_t claim(self):
        """Claim one chunk from the sources in turn; how many messages, 0 if none is ready."""
        cdef Py_ssize_t n = 0, i, at, rings = len(self.sources.rings), places = rings + len(self.sources.inboxes)
        if self.crew.held.load(memory_order_acquire) and not self.sweeping:
            return 0
        for i in range(places):
            at = (self.turn + i) % places
            if at < rings:
                n = self.claim_ring(<tuple>self.sources.rings[at])
            else:
                n = self.claim_inbox(self.sources.inboxes[at - rings])
            if n:
                self.turn = <int>((at + 1) % places)
                return n
        return 0

    cdef Py_ssize_t claim_inbox(self, object inbox):
        """Claim from a deque. Between taking a message and holding it no Python code runs, which an asynchronous exception
        could end: what is taken is held."""
        cdef object queue = inbox.queue
        cdef object take
        cdef Py_ssize_t most, ready = len(queue)
        cdef list messages
        if ready == 0:                           # asked after every chunk of a ring: no exception for that
            return 0
        take = queue.popleft
        most = self.demand(ready) if inbox is self.sources.unlimited else self.allowed(self.demand(ready))
        messages = []
        try:
            while len(messages) < most:
                messages.append(take())
        except IndexError:                       # another processor was first
            if inbox is not self.sources.unlimited:
                self.give_allowance(most - len(messages))
        if not messages:
            return 0
        self.hold_given(messages)
        self.transformer = None
        if self.crew.askers.load(memory_order_relaxed) and len(queue) == 0:
            inbox.asked()                        # a dispatcher may keep the next back until these have been taken
        return len(messages)

    cdef Py_ssize_t claim_ring(self, tuple source):
        cdef Ring ring = <Ring>source[0]
        cdef list messages
        cdef Py_ssize_t most
        if not ring.c.ready():
            return 0
        most = self.allowed(self.demand(ring.c.depth()))
        if most == 0:
            return 0
        chunk = Chunk.__new__(Chunk, self.sources.account, self.hands_on)
        messages = self.materialiser.claim(ring, <uint32_t>most, source[1], chunk)
        self.give_allowance(most if messages is None else most - len(messages))
        if messages is None:                     # another processor was first
            return 0
        self.chunk = chunk
        self.spoiled = self.materialiser.keyless
        if self.spoiled:
            messages = self.spoiled_first(messages)
        self.hold(messages, self.materialiser.size)
        self.transformer = source[2]
        return len(messages)

    cdef hold(self, list messages, uint64_t size):
        """Take a chunk of `size` charged bytes in hand; its messages know it already."""
        cdef Chunk chunk = self.chunk
        chunk.messages = messages
        chunk.left = self.outstanding = len(messages)
        chunk.size = size
        self.since_ns = monotonic_ns()
        self.sources.busy.fetch_add(1, memory_order_relaxed)

    cdef hold_given(self, list messages):
        """Take in hand what came out of an inbox."""
        cdef Message message
        cdef uint64_t size = 0
        self.spoiled = 0
        self.chunk = Chunk.__new__(Chunk, self.sources.account, self.hands_on)
        for message in messages:
            message.holder = self.chunk
            size += message.charged
            self.spoiled += message.verdict is not None
        if self.spoiled:                         # a dispatcher's transformer, or a partitioner, failed on them
            messages = self.spoiled_first(messages)
        self.hold(messages, size)

    cdef list spoiled_first(self, list messages):
        """Put those in front that have failed before: no handler sees them."""
        self.chunk.progress = self.spoiled
        return ([m for m in messages if (<Message>m).verdict is not None]
                + [m for m in messages if (<Message>m).verdict is None])

    # ------------------------------------------------------------------------------------------------------ handling

    cdef handle(self):
        """Run the callbacks over the chunk in hand, then acknowledge it."""
        cdef list messages = self.chunk.messages
        cdef Crew crew = self.crew
        cdef Py_ssize_t first = self.spoiled
        cdef Listeners listeners
        cdef int64_t started = 0
        if self.transformer is not None:
            first = transform(crew, self.chunk, self.transformer)
            self.transformer = None
            messages = self.chunk.messages
        listeners = self.chunk_listeners = current(self.chunk_listeners)
        self.message_listeners = current(self.message_listeners)
        self.watched = listeners.called
        if self.watched:
            started = self.tell_start(messages)
        elif listeners.counted:
            listeners.start()
        self.problem = None
        if first < len(messages) and crew.prepare is not None:
            self.ticks += 1
            self.problem = prepare(crew, self.chunk, messages, first)
        if first < len(messages) and self.problem is None:
            if crew.chunk_handler is not None:
                self.problem = call_chunk(crew, self.chunk, messages, first, self.where, &self.ticks)
            elif self.message_listeners.called:
                call_watched(crew, self.chunk, messages, first, self.where, &self.ticks, self.message_listeners)
            else:
                call_each(crew, self.chunk, messages, first, self.where, &self.ticks,
                          self.message_listeners if self.message_listeners.counted else None)
        self.settle()
        if started:
            self.tell_stop(started)
        elif listeners.counted:
            listeners.end(self.problem)

    cdef int64_t tell_start(self, list messages) except -1:
        cdef int64_t started = monotonic_ns()
        self.outcome = ([], [])                  # if somebody else acknowledges it
        self.shown = None
        self.span = object()
        if self.chunk_listeners.start_called:
            telemetry.execute(PROCESSOR_START, {"system_time": wall_ns(), "monotonic_time": started},
                              {**self.where, "messages": PyList_GetSlice(messages, 0, len(messages)),
                               "telemetry_span_context": self.span})
        return started

    cdef tell_outcome(self, list messages, bint usual):
        """Keep for `tell_stop` what becomes of messages: whether they go on is by their status, what they count as may not
        be. `usual`: none has failed, nor been acknowledged."""
        if usual:
            self.outcome = (PyList_GetSlice(messages, 0, len(messages)), [])
            return
        self.outcome = ([m for m in messages if (<Message>m).verdict is None],
                        [m for m in messages if (<Message>m).verdict is not None]) if self.hands_on else (
                            [m for m in messages if not lost(<Message>m)], [m for m in messages if lost(<Message>m)])

    cdef tell_stop(self, int64_t started):
        cdef int64_t now = monotonic_ns()
        (successful, failed), self.outcome = self.outcome, None
        about = {"topology_name": self.crew.name, "name": self.thread_name, "index": self.index,
                 "successful_messages_to_ack": [] if self.hands_on else successful,
                 "successful_messages_to_forward": successful if self.hands_on else [], "failed_messages": failed,
                 "telemetry_span_context": self.span}
        if self.problem is not None:
            about.update(telemetry.exception_metadata(self.problem))
        telemetry.execute(PROCESSOR_STOP if self.problem is None else telemetry.PROCESSOR_EXCEPTION,
                          {"duration": now - started, "monotonic_time": now}, about)
        self.problem = None
        shown, self.shown = self.shown, None
        about = successful = failed = None       # no reference of ours is to keep them from being used again
        if shown is not None:
            self.materialiser.keep(shown)

    # ------------------------------------------------------------------------------------------------- acknowledging

    cdef settle(self):
        """Acknowledge the chunk in hand: handle_failed for the failed ones, then each group once. What succeeded goes on to
        the batchers, where there are any."""
        cdef Chunk chunk = self.chunk
        cdef Crew crew = self.crew
        cdef Message message
        cdef list messages = chunk.messages
        cdef Py_ssize_t i, failed = 0
        cdef bint acknowledgers = False, to_one = False
        if self.hands_on:
            to_one = judge_batchers(crew, messages)
        for i in range(len(messages)):
            message = <Message>PyList_GET_ITEM(messages, i)
            failed += message.verdict is not None
            acknowledgers |= message.details is not None
        message = None
        if not chunk.still_ours():               # nothing of it is ours any more
            self.let_go()
            return
        if failed and not self.sweeping:
            self.ticks += 1
            call_handle_failed(crew, chunk, [i for i, m in enumerate(messages) if (<Message>m).verdict is not None])
            acknowledgers = True                 # it may have put others in place, or given them acknowledgers
        messages = chunk.close()
        if messages is None:
            self.let_go()
            return
        if self.watched:
            self.tell_outcome(messages, failed == 0 and chunk.left == len(messages))
        if self.hands_on:
            self.hand_on(chunk, messages, failed, to_one)
            return
        if chunk.left != len(messages):          # some were acknowledged before the others
            failed = failures(messages)
        self.failed += failed                    # from here on nobody else counts them
        self.successful += len(messages) - failed
        try:
            if acknowledgers:
                chunk.acknowledge([m for m in messages if (<Message>m).holder is chunk])
        finally:                                 # whatever came of it, nobody will do it again
            note_latency(self.latency, messages)
            if self.watched:
                self.shown = messages            # telemetry is shown them first
            else:
                self.materialiser.keep(messages)
            self.let_go()
            chunk.account.c.release(chunk.left, chunk.size)
        crew.tell_askers()

    cdef hand_on(self, Chunk chunk, list messages, Py_ssize_t failed, bint to_one):
        """Acknowledge those that failed, then give the batchers the others."""
        cdef Message message
        cdef list rest
        cdef uint64_t size = 0, count = 0
        try:
            if failed:
                rest = [m for m in messages if (<Message>m).verdict is not None]
                messages = [m for m in messages if (<Message>m).verdict is None]
                self.count(rest)
                self.acknowledge_now(chunk, rest)
        finally:
            if self.crew.partitioned:
                for message in messages:
                    if not message.acked:
                        size += message.charged
                        count += 1
            rest = give_batchers(self.crew, messages, to_one, self.index)
            if self.crew.partitioned:            # they are the batchers' now, and no more this partition's
                for message in rest or ():
                    if not message.acked:
                        size -= message.charged
                        count -= 1
                self.sources.account.c.leave(count, size)
            self.let_go()
        if rest:                                 # the deadline of a stop has come meanwhile
            for message in rest:
                message.set_verdict(Failed(STOPPED))
            self.count(rest)
            self.acknowledge_now(chunk, rest)
        self.crew.tell_askers()

    cdef count(self, list messages):
        """Count messages that go no further, before they are acknowledged."""
        cdef Py_ssize_t failed = failures(messages)
        self.failed += failed
        self.successful += len(messages) - failed

    cdef acknowledge_now(self, Chunk chunk, list messages):
        """Acknowledge some messages of a chunk that was closed."""
        cdef Message message
        cdef list ours = [m for m in messages if (<Message>m).holder is chunk]
        cdef uint64_t size = 0
        try:
            chunk.acknowledge(ours)
        finally:
            note_latency(self.latency, messages)
            for message in ours:
                size += message.charged
                message.acked = True
                message.holder = None
            self.sources.account.c.release(len(ours), size)

    def let_go(self) -> None:
        """Have no chunk in hand."""
        self.chunk = None
        self.outstanding = 0
        self.busy_ns += monotonic_ns() - self.since_ns
        self.since_ns = 0
        self.sources.busy.fetch_sub(1, memory_order_release)  # pairs with the acquire in Crew.idle
