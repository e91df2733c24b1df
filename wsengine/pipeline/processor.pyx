"""The loop of a processor: claim a chunk, run the handlers, judge each message, acknowledge, again.

A processor waits without the GIL, takes it, and only then claims: what it has claimed it will handle next, so nothing
waits in the hands of a thread that waits for the GIL. One claim is one chunk, cut so that a burst spreads over the idle
processors. User code cannot kill the loop: whatever a callback raises fails one message (or the chunk, where the callback
was given the chunk), is logged, and is acknowledged as failed (Broadway's ProcessorStage; reference §6.3 with its repairs).
"""
import time

from wsengine import telemetry
from wsengine.message import Failed

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libcpp.atomic cimport memory_order_acquire, memory_order_relaxed, memory_order_release
from wsengine.engine.ring cimport Ring, monotonic_ns
from wsengine.message cimport Message
from wsengine.pipeline.chunk cimport CHUNK_OPEN, CHUNK_SETTLED, CHUNK_TAKEN, Chunk, acknowledge
from wsengine.pipeline.crew cimport Crew
from wsengine.pipeline.materialiser cimport CHUNK, Materialiser

cdef extern from "Python.h":
    ctypedef PyObject* (*vectorcallfunc)(PyObject* callable, PyObject** args, size_t n, PyObject* names)
    PyObject* PyObject_Vectorcall(PyObject* callable, PyObject** args, size_t n, PyObject* names)
    vectorcallfunc PyVectorcall_Function(PyObject* callable)
    bint PyFunction_Check(PyObject* o)
    PyObject* PyList_GET_ITEM(object list, Py_ssize_t i)
    list PyList_GetSlice(list whole, Py_ssize_t low, Py_ssize_t high)
    bint PyMethod_Check(object o)
    PyObject* PyMethod_GET_FUNCTION(object method)
    PyObject* PyMethod_GET_SELF(object method)
    void Py_DECREF(object o)

cdef int raise_pending() except -1:
    """Let the error that is set already be raised here."""
    return -1

cdef extern from "<sched.h>" nogil:
    int sched_yield()

cdef int64_t SOON_NS = 50000             # how long what is foretold may take to come, for one that is awake
cdef int64_t SLICE_NS = 1000000000       # a parked processor looks up once a second, whatever became of its wake

# Looked up once: what is asked for every chunk.
cdef object ATTACHED = telemetry.attached
cdef object PROCESSOR_START = telemetry.PROCESSOR_START
cdef object PROCESSOR_STOP = telemetry.PROCESSOR_STOP
cdef object MESSAGE_START = telemetry.MESSAGE_START
cdef object MESSAGE_STOP = telemetry.MESSAGE_STOP
cdef object MESSAGE_EXCEPTION = telemetry.MESSAGE_EXCEPTION


cdef class Processor:
    """One processor; `run` is the body of its thread. Figures may be read from any thread."""

    def __cinit__(self, Crew crew not None, int index):
        self.crew = crew
        self.index = index
        self.thread_name = f"wsengine:{crew.name}:processor_{index}"
        self.turn = index
        self.materialiser = Materialiser.__new__(Materialiser, crew.account)

    def run(self) -> None:
        """Claim and handle until the crew ends and nothing is left to claim."""
        cdef Crew crew = self.crew
        cdef uint32_t seen
        while True:
            crew.parker.c.arrive()
            if crew.closed.load(memory_order_acquire):
                return
            if self.claim():
                if crew.ready():
                    crew.parker.c.notify()       # the chain: one more, before the handler runs
                self.handle()
                continue
            seen = crew.parker.c.prepare()
            if crew.ready():
                crew.parker.c.leave()
            elif crew.ending.load(memory_order_acquire):
                crew.parker.c.leave()
                crew.parker.c.notify()
                return
            else:
                with nogil:
                    crew.account.c.wake_resting()
                    self.park(seen)

    cdef void park(self, uint32_t seen) noexcept nogil:
        """Wait for work: in the reader's place, if it lends that; else asleep, with `spin` awake for a while. Woken early,
        look a moment for what the reader reads."""
        cdef int64_t until
        if self.crew.parker.c.wait_in_poll(seen, self.crew.spin_ns):
            self.crew.parker.c.leave()
            return
        if not self.spin(seen):
            self.crew.parker.c.wait(seen, SLICE_NS)
        if self.crew.parker.c.foretold():
            until = monotonic_ns() + SOON_NS
            while self.crew.parker.c.foretold() and not self.crew.ring_ready() and monotonic_ns() < until:
                sched_yield()                    # the reader may have been on this core

    cdef bint spin(self, uint32_t seen) noexcept nogil:
        """Look for a wake for as long as `spin` says; True if it came, and the parker has been left."""
        cdef int64_t until
        if self.crew.spin_ns == 0:
            return False
        until = monotonic_ns() + self.crew.spin_ns
        while monotonic_ns() < until:
            if self.crew.parker.c.changed(seen):
                self.crew.parker.c.leave()
                return True
        return False

    def take_over(self, reason) -> tuple:
        """Acknowledge what this processor has in hand, because it is dead or stuck; see Chunk.take_over."""
        chunk = self.chunk
        return (0, 0, 0) if chunk is None else chunk.take_over(reason)

    def retire(self) -> None:
        """The thread of this processor is dead and its chunk taken over: it no longer counts as busy."""
        if self.chunk is not None:
            self.let_go()

    def fail_rest(self, reason) -> int:
        """Claim all that is left in the sources and acknowledge it as failed; how many. At the deadline of a stop."""
        cdef Message message
        cdef int n = 0
        self.sweeping = True                     # handle_failed, which may take its time, is not called either
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
        cdef int64_t idle = crew.concurrency - crew.busy.load(memory_order_relaxed)   # this one among them
        if idle > 1:
            most = min(most, <Py_ssize_t>((ready + idle - 1) // idle))
        most = min(most, <Py_ssize_t>(CHUNK_BYTES // max(self.materialiser.usual, <uint32_t>1)))
        return min(max(most, 1), CHUNK)

    cdef Py_ssize_t claim(self):
        """Claim one chunk from the sources in turn; how many messages, 0 if none is ready."""
        cdef Py_ssize_t n = 0, i, at, rings = len(self.crew.rings), places = rings + len(self.crew.inboxes)
        for i in range(places):
            at = (self.turn + i) % places
            if at < rings:
                n = self.claim_ring(<tuple>self.crew.rings[at])
            else:
                n = self.claim_inbox(self.crew.inboxes[at - rings])
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
        most = self.demand(ready)
        messages = []
        try:
            while len(messages) < most:
                messages.append(take())
        except IndexError:                       # another processor was first
            if not messages:
                return 0
        self.hold_given(messages)
        self.transformer = None
        return len(messages)

    cdef Py_ssize_t claim_ring(self, tuple source):
        cdef Ring ring = <Ring>source[0]
        cdef list messages
        if not ring.c.ready():
            return 0
        chunk = Chunk.__new__(Chunk, self.crew)
        messages = self.materialiser.claim(ring, <uint32_t>self.demand(ring.c.depth()), source[1], chunk)
        if messages is None:                     # another processor was first
            return 0
        self.chunk = chunk
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
        self.crew.busy.fetch_add(1, memory_order_relaxed)

    cdef hold_given(self, list messages):
        """Take in hand what came out of an inbox."""
        cdef Message message
        cdef uint64_t size = 0
        self.chunk = Chunk.__new__(Chunk, self.crew)
        for message in messages:
            message.holder = self.chunk
            size += message.charged
        self.hold(messages, size)

    # ------------------------------------------------------------------------------------------------------ handling

    cdef handle(self):
        """Run the callbacks over the chunk in hand, then acknowledge it."""
        cdef list messages = self.chunk.messages
        cdef Crew crew = self.crew
        cdef Py_ssize_t first = 0
        if self.transformer is not None:
            first = self.transform(self.transformer)
            self.transformer = None
            messages = self.chunk.messages
        self.look_who_listens()
        started = self.tell_start(messages) if self.chunks_heard else 0
        if first < len(messages) and (crew.prepare is None or self.prepare(messages, first)):
            if crew.chunk_handler is not None:
                self.call_chunk(messages, first, crew.chunk_handler)
            elif self.messages_heard:
                self.call_watched(messages, first, crew.handler)
            else:
                self.call_each(messages, first, crew.handler)
        self.settle()
        if started:
            self.tell_stop(started)

    cdef look_who_listens(self):
        """Ask telemetry once a chunk, and look further only if something was attached or detached meanwhile."""
        table = ATTACHED()
        if table is not self.attached:
            self.attached = table
            self.chunks_heard = PROCESSOR_START in table or PROCESSOR_STOP in table
            self.messages_heard = MESSAGE_START in table or MESSAGE_STOP in table or MESSAGE_EXCEPTION in table

    def tell_start(self, list messages):
        started = time.monotonic_ns()
        self.watched = messages
        self.span = object()
        telemetry.execute(telemetry.PROCESSOR_START, {"system_time": time.time_ns(), "monotonic_time": started},
                          {"topology_name": self.crew.name, "name": self.thread_name, "index": self.index,
                           "messages": list(messages), "telemetry_span_context": self.span})
        return started

    def tell_stop(self, started):
        now = time.monotonic_ns()
        messages, self.watched = self.watched, None
        telemetry.execute(telemetry.PROCESSOR_STOP, {"duration": now - started, "monotonic_time": now},
                          {"topology_name": self.crew.name, "name": self.thread_name, "index": self.index,
                           "successful_messages_to_ack": [m for m in messages if not m.failed],
                           "successful_messages_to_forward": [],
                           "failed_messages": [m for m in messages if m.failed],
                           "telemetry_span_context": self.span})

    cdef Py_ssize_t transform(self, object transformer):
        """Replace each message by what the transformer makes of its payload. Those that it fails on are failed, and go
        to the front of the chunk, where no handler sees them (reference B-19); how many."""
        cdef Message message, made
        cdef Py_ssize_t i
        cdef list messages = self.chunk.messages, spoiled
        for i in range(len(self.chunk.messages)):
            message = self.chunk.messages[i]
            if message.verdict is not None:
                continue
            try:
                result = transformer(message.payload, message.metadata)
                if not isinstance(result, Message):
                    raise TypeError(f"transformer returned {result!r}; return a Message")
                made = result
                if made.holder is not None or made.acked:
                    raise TypeError(f"transformer returned {made!r} again; return a Message of its own for each payload")
            except BaseException as error:
                self.crew.log_failure("transformer", error)
                message.set_verdict(Failed(error, error))
                continue
            made.seq = message.seq
            made.received_ns = message.received_ns
            made.connection_index = message.connection_index
            made.epoch = message.epoch
            made.opcode = message.opcode
            made.origin = message.origin
            made.charged = message.charged
            if made.details is None:
                made.details = message.details
            made.holder = message.holder
            message.holder = None
            self.chunk.messages[i] = made
        spoiled = [m for m in messages if (<Message>m).verdict is not None]
        if spoiled:
            self.chunk.messages = spoiled + [m for m in messages if (<Message>m).verdict is None]
            self.chunk.progress = len(spoiled)
        return len(spoiled)

    cdef bint prepare(self, list messages, Py_ssize_t first):
        """Let `prepare_messages` see the chunk from `first` on; False if that failed it as a whole."""
        cdef Message message
        try:
            prepared = self.crew.prepare(PyList_GetSlice(messages, first, len(messages)))
            if prepared is not None:
                self.take_results("prepare_messages", messages, first, prepared)
            return True
        except BaseException as error:
            self.crew.log_failure("prepare_messages", error)
            for message in messages[first:]:
                message.set_verdict(Failed(error, error))
            return False

    cdef call_each(self, list messages, Py_ssize_t first, object handler):
        """The hot loop: the handler once a message, called without the detour over a bound method."""
        cdef Chunk chunk = self.chunk
        cdef Message message
        cdef PyObject* args[2]
        cdef PyObject* function
        cdef PyObject* result
        cdef vectorcallfunc call = PyObject_Vectorcall
        cdef Py_ssize_t i, n = len(messages), bound = 1 if PyMethod_Check(handler) else 0
        if bound:
            function = PyMethod_GET_FUNCTION(handler)
            args[0] = PyMethod_GET_SELF(handler)
        else:
            function = <PyObject*>handler
        if PyFunction_Check(function):           # the interpreter's own: no look at what it returned on the way
            call = PyVectorcall_Function(function)
        for i in range(first, n):
            args[bound] = <PyObject*>PyList_GET_ITEM(messages, i)
            if chunk.state == CHUNK_TAKEN:       # only a hint here: settle() decides under the lock
                return
            result = call(function, args, bound + 1, NULL)
            if result != args[bound] and result != <PyObject*>None:
                self.unusual(i, messages, result)
            elif result != NULL:
                Py_DECREF(<object>result)
            chunk.progress = i + 1

    cdef unusual(self, Py_ssize_t at, list messages, PyObject* result):
        """The handler raised (NULL), or returned something other than its message."""
        message = <Message>PyList_GET_ITEM(messages, at)
        try:
            if result == NULL:
                raise_pending()
            returned = <object>result
            Py_DECREF(returned)
            self.take_result("handle_message", at, message, returned)
        except BaseException as error:
            self.crew.log_failure("handle_message", error)
            (<Message>message).set_verdict(Failed(error, error))

    cdef call_watched(self, list messages, Py_ssize_t first, object handler):
        """The same with telemetry for each message (reference §7.3)."""
        cdef Chunk chunk = self.chunk
        cdef Message message
        cdef Py_ssize_t i, n = len(messages)
        for i in range(first, n):
            message = <Message>messages[i]
            if chunk.state == CHUNK_TAKEN:
                return
            about = {"topology_name": self.crew.name, "name": self.thread_name, "index": self.index, "message": message,
                     "telemetry_span_context": object()}
            started = time.monotonic_ns()
            telemetry.execute(telemetry.MESSAGE_START, {"system_time": time.time_ns(), "monotonic_time": started}, about)
            try:
                result = handler(message)
                if result is not message and result is not None:
                    self.take_result("handle_message", i, message, result)
            except BaseException as error:
                self.crew.log_failure("handle_message", error)
                message.set_verdict(Failed(error, error))
                now = time.monotonic_ns()
                telemetry.execute(telemetry.MESSAGE_EXCEPTION, {"duration": now - started, "monotonic_time": now},
                                  {**about, **telemetry.exception_metadata(error)})
            else:
                now = time.monotonic_ns()
                telemetry.execute(telemetry.MESSAGE_STOP, {"duration": now - started, "monotonic_time": now},
                                  {**about, "message": messages[i]})
            chunk.progress = i + 1

    cdef call_chunk(self, list messages, Py_ssize_t first, object handler):
        """The handler once for the chunk: by raising it fails all that it had not failed by itself."""
        cdef Message message
        try:
            result = handler(PyList_GetSlice(messages, first, len(messages)))
            if result is not None:
                self.take_results("handle_messages", messages, first, result)
        except BaseException as error:
            self.crew.log_failure("handle_messages", error)
            for message in messages[first:]:
                if message.verdict is None:
                    message.set_verdict(Failed(error, error))
        self.chunk.progress = len(messages)

    cdef take_results(self, str callback, list messages, Py_ssize_t first, object results):
        """Put the messages that a callback returned for the chunk in the places of those that it was given."""
        cdef Py_ssize_t i = 0, n = len(messages) - first
        if isinstance(results, list) and len(<list>results) == n:
            while i < n and PyList_GET_ITEM(results, i) == PyList_GET_ITEM(messages, first + i):
                i += 1
            if i == n:                           # those that it was given, as most callbacks do
                return
            if {id(one) for one in results} == {id(messages[at]) for at in range(first, len(messages))}:
                return                           # the same in another order: each stays in its place
        if not isinstance(results, list) or len(results) != n or not all([isinstance(one, Message) for one in results]):
            raise TypeError(f"{callback} returned {type(results).__name__} "
                            f"{f'of {len(results)} ' if isinstance(results, list) else ''}for {n} messages; return the "
                            "list of as many Messages, or None")
        for i in range(n):
            self.take_result(callback, first + i, messages[first + i], results[i])

    cdef take_result(self, str callback, Py_ssize_t at, Message message, object result):
        """Put another Message in the place of the one that the callback was given."""
        cdef Message other
        if result is message:
            return
        if not isinstance(result, Message):
            raise TypeError(f"{callback} returned {result!r}; return a Message, or None for the one it was given")
        other = result
        if other.holder is not None or other.acked:
            raise TypeError(f"{callback} returned {other!r}, which belongs to another place; return the message it was given, "
                            "or a new one")
        with self.chunk.lock:
            other.holder = message.holder        # None, if it has been acknowledged already
            message.holder = None
        other.charged = message.charged
        self.chunk.messages[at] = other

    # ------------------------------------------------------------------------------------------------- acknowledging

    cdef settle(self):
        """Acknowledge the chunk in hand: handle_failed for the failed ones, then each group once."""
        cdef Chunk chunk = self.chunk
        cdef Message message
        cdef list messages = chunk.messages
        cdef Py_ssize_t i, released, failed = 0
        cdef uint64_t size
        cdef bint acknowledgers = False
        for i in range(len(messages)):
            message = <Message>PyList_GET_ITEM(messages, i)
            failed += message.verdict is not None
            acknowledgers |= message.details is not None
        message = None
        with chunk.lock:
            if chunk.state != CHUNK_OPEN:        # taken over meanwhile: nothing of it is ours any more
                self.let_go()
                return
        if failed and not self.sweeping:
            self.call_handle_failed([i for i, m in enumerate(messages) if (<Message>m).verdict is not None])
        with chunk.lock:
            if chunk.state != CHUNK_OPEN:
                self.let_go()
                return
            chunk.state = CHUNK_SETTLED
            chunk.messages = None                # no cycle, and nobody else's any more
            released = chunk.left
            size = chunk.size
        self.successful += len(messages) - failed    # from here on nobody else counts them
        self.failed += failed
        try:
            if acknowledgers:
                acknowledge([m for m in messages if (<Message>m).holder is chunk])
        finally:                                 # whatever came of it, nobody will do it again
            self.materialiser.keep(messages if self.watched is None else list(messages))
            self.let_go()
            self.crew.account.c.release(released, size)
        if self.crew.askers.load(memory_order_relaxed):
            for inbox in self.crew.inboxes:
                inbox.asked()

    def let_go(self) -> None:
        """Have no chunk in hand."""
        self.chunk = None
        self.outstanding = 0
        self.busy_ns += monotonic_ns() - self.since_ns
        self.since_ns = 0
        self.crew.busy.fetch_sub(1, memory_order_release)  # pairs with the acquire in Crew.idle

    def call_handle_failed(self, list places) -> None:
        """Let `handle_failed` see those at these places of the chunk before they are acknowledged. It may change their
        data and acknowledgement or put others in place, and cannot make them succeed (reference §6.2)."""
        cdef Message message
        cdef list messages = self.chunk.messages
        cdef list failed = [messages[at] for at in places]
        if self.crew.on_failed is None:
            return
        about = {"topology_name": self.crew.name, "messages": list(failed)}
        before = [(<Message>m).verdict for m in failed]
        try:
            with telemetry.span(telemetry.HANDLE_FAILED, about):
                result = self.crew.on_failed(list(failed))
            if result is not None and (not isinstance(result, list) or len(result) != len(failed) or not all(
                    [isinstance(one, Message) for one in result])):
                raise TypeError(f"handle_failed returned {result!r}; return the list of as many Messages, or None")
            if result is not None and {id(one) for one in result} != {id(one) for one in failed}:
                for at, one in zip(places, result):
                    self.take_result("handle_failed", at, messages[at], one)
        except BaseException as error:
            self.crew.log_failure("handle_failed", error)
        for at, verdict in zip(places, before):
            message = messages[at]
            if message.verdict is None:
                message.set_verdict(verdict)
