"""The batcher: takes handled messages in, has them join batches, and keeps complete ones for the batch processors.

Batches of one key leave in the order in which they were completed, and one at a time: where several batch processors share
a lane, those of a key wait while one of that key is in hand (reference §6.5, with B-4 repaired).
"""
from wsengine import telemetry
from wsengine.message import Failed

from libc.stdint cimport int64_t, uint32_t
from wsengine.engine.keys cimport KeyExtractor
from wsengine.engine.ring cimport Parker, monotonic_ns
from wsengine.message cimport Message
from wsengine.pipeline.batch cimport WHOLE, Batch, flushes
from wsengine.pipeline.batch_key cimport Search, same_key
from wsengine.pipeline.callbacks cimport call_handle_failed, wall_ns
from wsengine.pipeline.chunk cimport CHUNK_OPEN, Chunk, acknowledge
from wsengine.pipeline.crew cimport Crew
from wsengine.pipeline.lane cimport Lane
from wsengine.pipeline.listeners cimport Listeners, current, listeners_of
from wsengine.pipeline.message_key cimport partition_of_message
from wsengine.pipeline.open_batches cimport NEVER, OpenBatches

cdef extern from "Python.h":
    list PyList_GetSlice(list whole, Py_ssize_t low, Py_ssize_t high)

cdef int64_t SLICE_NS = 1000000000       # its thread looks up once a second, whatever became of a wake

cdef object BATCHER_START = telemetry.BATCHER_START
cdef object BATCHER_STOP = telemetry.BATCHER_STOP


cdef list give_batchers(Crew crew, list messages, bint to_one, int partition):
    cdef Message message
    cdef dict shares
    cdef list refused = None
    if len(messages) == 0:
        return None
    if to_one:                                   # as a rule
        return (<BatcherStage>crew.batchers[(<Message>messages[0]).batcher]).give(messages, partition)
    shares = {}
    for message in messages:
        if message.batcher in shares:
            (<list>shares[message.batcher]).append(message)
        else:
            shares[message.batcher] = [message]
    for name, share in shares.items():
        rest = (<BatcherStage>crew.batchers[name]).give(share, partition)
        if rest is not None:
            refused = rest if refused is None else refused + rest
    return refused


cdef class Hand:
    """Messages that the user's code has to see before they join a batch."""


cdef class BatcherStage(OpenBatches):
    """One batcher; `run` is the body of its thread.

    Args:
        crew: of the pipeline; its processors bring messages.
        key: its name.
        concurrency, size, timeout, bound, retry: as in `Batcher`; the bound for all processors together.
        by: its partition_by, None for no partitions. inherits: a message has the partition of its processor instead.
    """

    def __cinit__(self, Crew crew not None, str key not None, *, int concurrency, size, timeout,
                  Py_ssize_t bound, retry=None, by=None, bint inherits=False):
        self.crew = crew
        self.key = key
        self.thread_name = f"wsengine:{crew.name}:batcher_{key}"
        self.where = {"topology_name": crew.name, "name": self.thread_name, "batcher_key": key}
        self.inherits = inherits
        self.extractor = by if isinstance(by, KeyExtractor) else None
        self.partitioned_by = None if isinstance(by, KeyExtractor) else by
        self.bound = bound
        self.retry = retry
        self.hands = []
        self.failing = []
        self.listeners = listeners_of((BATCHER_START, BATCHER_STOP))

    # ----------------------------------------------------------------------------------------------- from processors

    cdef list give(self, list messages, int partition):
        """Accept handled messages of the processor of that number, in order; those that were not accepted, or None."""
        cdef dict shares
        cdef list refused = None
        if self.partitions == 0:
            return None if self.put(messages, WHOLE) else messages
        if self.inherits:
            return None if self.put(messages, partition % self.partitions) else messages
        return self.give_apart(messages)

    cdef list give_apart(self, list messages):
        """Have each message accepted by the partition that it is asked for. One whose partition can't be told fails alone."""
        cdef Hand hand = self.hold(messages)
        cdef dict shares = {}
        cdef list refused = None, lost = [], errors = []
        cdef Message message
        if hand is None:
            return messages
        for message in messages:
            try:
                at = partition_of_message(self.partitioned_by, self.extractor, message, self.partitions)
            except BaseException as error:
                self.crew.log_failure("partition_by", error)
                lost.append(message)
                errors.append(error)
                continue
            if at in shares:
                (<list>shares[at]).append(message)
            else:
                shares[at] = [message]
        with self.lock:
            if self.closed:                      # and all of it has been taken over
                return None
            self.held -= len(messages) - len(lost)
            hand.messages = lost
        for at, share in shares.items():
            if not self.put(share, at):
                refused = share if refused is None else refused + share
        for error in errors:
            self.fail_next(hand, error)
        with self.lock:
            if not self.closed:
                self.hands.remove(hand)
        return refused

    cdef Hand hold(self, list messages):
        """Have messages in a hand; None if the batcher is closed."""
        cdef Hand hand = Hand.__new__(Hand)
        hand.messages = messages
        with self.lock:
            if self.closed:
                return None
            self.held += len(messages)
            self.hands.append(hand)
        return hand

    cdef bint put(self, list messages, Py_ssize_t partition) except -1:
        """Accept handled messages of one partition, in order; they are the batcher's from here on, the list, too. False if it
        is closed."""
        cdef Hand hand = None
        cdef Py_ssize_t at
        cdef bint left
        about = self.tell_start(messages)
        with self.lock:
            if self.closed:
                return False
            self.held += len(messages)
            at = self.accept(messages, 0, partition)
            if at < len(messages):
                hand = Hand.__new__(Hand)
                hand.messages = messages
                hand.at = at
                self.hands.append(hand)
            left = self.sorting()
        if hand is not None:
            self.accept_rest(hand, partition)
        if left:
            self.parker.c.notify()
        if about is not None:
            self.tell_stop(about)
        return True

    # -------------------------------------------------------------------------------- of whose keys the user's code is asked

    cdef accept_rest(self, Hand hand, Py_ssize_t partition):
        """Have what is in hand join its batches, asking the user's code about keys, outside the lock. A message whose key
        raises fails alone."""
        while self.accept_more(hand, partition):
            try:
                self.accept_run(hand, partition)
            except BaseException as error:
                self.fail_next(hand, error)

    cdef bint accept_more(self, Hand hand, Py_ssize_t partition) except -1:
        """Go on as far as the user's code is not needed; whether something is left."""
        with self.lock:
            if self.closed:                      # it has been taken over
                return False
            hand.at = self.accept(hand.messages, hand.at, partition)
            if hand.at == len(hand.messages):
                self.hands.remove(hand)
                return False
            return True

    cdef accept_run(self, Hand hand, Py_ssize_t partition):
        """Have a run of messages of one key join their batch. Raises what the key of the first raises."""
        cdef list messages = hand.messages
        cdef Py_ssize_t end = hand.at + 1
        cdef Message message = <Message>messages[hand.at]
        cdef object group = message.group
        cdef bint flush = flushes(message)
        cdef Search search = Search(group)
        while end < len(messages):
            message = <Message>messages[end]
            if not same_key(message.group, group):
                break
            flush |= flushes(message)
            end += 1
        while True:
            with self.lock:
                if self.closed:
                    return
                self.partition = partition
                if self.look(search):
                    self.joined = hand.at
                    try:
                        self.join(messages, hand.at, end, group, search.outcome(), flush)
                    finally:
                        hand.at = self.joined
                    return
            search.compare()

    # ------------------------------------------------------------------------------------------- to batch processors

    cdef emitted(self):
        if not self.saturated and self.waiting >= self.bound:
            self.saturated = True
            self.crew.saturate(1)

    cdef Batch take(self, Lane lane):
        """The next batch of a lane, None if there is none. Whoever takes it handles it and says `done`."""
        cdef Batch batch
        with self.lock:
            if self.closed or len(lane.ready) == 0:
                return None
            batch = lane.ready.popleft()
            self.waiting -= len(batch.messages)
            if self.saturated and self.waiting <= self.bound // 2:
                self.saturated = False
                self.crew.saturate(-1)
            with batch.lock:
                batch.state = CHUNK_OPEN
        return batch

    cdef bint waits(self, Lane lane):
        """Whether `take` would find one."""
        with self.lock:
            return not self.closed and len(lane.ready) != 0

    cdef bint over(self):
        """Whether its batch processors are to leave."""
        with self.lock:
            return self.ending or self.closed

    cdef done(self, Lane lane, Batch batch, Py_ssize_t count):
        """A batch of so many messages has been acknowledged."""
        with self.lock:
            self.held -= count
            if not self.closed:
                lane.follow(batch)

    # ----------------------------------------------------------------------------------------------------- its thread

    def run(self) -> None:
        """Emit what is due, and sort what is left to this thread, until `end`. If the thread dies, another may run it."""
        cdef uint32_t seen
        cdef int64_t pause
        self.since_ns = 0                        # whoever ran before may have died with some in hand
        while True:
            self.parker.c.arrive()
            self.sort_left()
            self.expire()
            seen = self.parker.c.prepare()
            with self.lock:
                pause = self.pause_ns()
                if self.ending or self.closed:
                    pause = -1
            if pause < 0:
                self.parker.c.leave()
                return
            if pause == 0:
                self.parker.c.leave()
                continue
            with nogil:
                self.parker.c.wait(seen, pause)

    cdef bint sorting(self):
        """Whether messages are left to its thread, which sorts none here. Under the lock."""
        return False

    cdef sort_left(self):
        """Sort those."""

    cdef list take_left(self):
        """Take those, at a deadline. Under the lock."""
        return []

    cdef int64_t pause_ns(self):
        """How long its thread may sleep. Under the lock."""
        if self.flushing or self.relieving or self.sorting():
            return 0
        self.wake_ns = NEVER if self.oldest is None or self.timeout_ns == 0 else self.oldest.deadline_ns
        return min(max(self.wake_ns - monotonic_ns(), 0), SLICE_NS)

    cdef expire(self):
        """Emit the batches whose time has come, or all, if that is wanted and everything has been sorted."""
        cdef int64_t now = monotonic_ns()
        cdef bint flush
        with self.lock:
            if self.relieving and not self.sorting():
                self.flushing = self.flushing or self.waiting == 0
                self.relieving = False
            flush = self.flushing and not self.sorting()
            if self.oldest is None or self.closed or not flush and (self.timeout_ns == 0 or self.oldest.deadline_ns > now):
                self.flushing = self.flushing and not flush
                return
        about = self.tell_start([])
        with self.lock:
            if not self.closed:
                self.emit_all(NEVER if flush else now, "flush" if flush else "timeout")
            if flush:
                self.flushing = False
        if about is not None:
            self.tell_stop(about)

    cdef fail_next(self, Hand hand, object error):
        """Fail the next message in hand, unless the deadline has come."""
        cdef Message message
        cdef Chunk chunk
        with self.lock:
            if self.closed:
                return
            message = <Message>hand.messages[hand.at]
            hand.at += 1
            self.held -= 1
            chunk = self.begin_failing(message, error)
        self.end_failing(chunk)

    cdef Chunk begin_failing(self, Message message, object error):
        """A message can join no batch. It is where a deadline finds it, whatever handle_failed does. Under the lock."""
        cdef Chunk chunk = Chunk(self.account)
        message.set_verdict(Failed(error, error))
        if not message.acked:
            message.holder = chunk
            chunk.left = 1
            chunk.size = message.charged
        chunk.messages = [message]
        self.failing.append(chunk)
        return chunk

    cdef end_failing(self, Chunk chunk):
        """Have handle_failed see it, and acknowledge it, if nobody else has meanwhile."""
        cdef Message message
        cdef list messages
        call_handle_failed(self.crew, chunk, [0])
        messages = chunk.close()
        if messages is None:
            return
        with self.lock:
            self.failed += len(messages)         # before whoever is told of it can ask
        acknowledge([one for one in messages if (<Message>one).holder is chunk])
        for message in messages:
            message.acked = True
            message.holder = None
        self.account.c.release(chunk.left, chunk.size)
        with self.lock:
            if not self.closed:
                self.failing.remove(chunk)

    # ----------------------------------------------------------------------------------------------- from the control plane

    @property
    def depths(self) -> tuple:
        """Messages held, of these in complete batches that nobody has begun, batches open."""
        with self.lock:
            return self.held, self.waiting, self.opened

    def set_bound(self, Py_ssize_t bound) -> None:
        """Have so many messages wait in complete batches at the most."""
        with self.lock:
            self.bound = bound
            if self.saturated and self.waiting <= bound // 2:
                self.saturated = False
                self.crew.saturate(-1)

    def relieve(self) -> None:
        """Emit all open batches, unless complete ones wait already: the pipeline is full, and nothing else can be done. What is
        still being sorted may complete one, so that is awaited."""
        with self.lock:
            if self.waiting or not (self.opened or self.sorting()):
                return
            self.relieving = True
        self.parker.c.notify()

    def flush(self) -> None:
        """Emit all open batches, once everything has been sorted. Thread-safe."""
        with self.lock:
            self.flushing = True
        self.parker.c.notify()

    def end(self) -> None:
        """Have its threads leave once nothing is left to do."""
        with self.lock:
            self.ending = True
        self.parker.c.notify_all()
        self.wake_lanes()

    def fail_rest(self, reason) -> list:
        """Accept nothing more, and fail all messages that are here and in no hand of a batch processor's: the deadline has
        come. Results of Chunk.take_over."""
        cdef Lane lane
        cdef Hand hand
        cdef list batches, failing, left
        with self.lock:
            self.closed = True
            batches = list(self.open.values())
            self.open = {}
            self.opened = 0
            self.oldest = self.newest = self.last = None
            for lane in self.lanes:
                batches += lane.empty()
            left = self.take_left()
            for hand in self.hands:
                left += hand.messages[hand.at:]
            failing, self.failing, self.hands = self.failing, [], []
            self.waiting = 0
            self.held -= len(left) + sum([len((<Batch>batch).messages) for batch in batches])
        self.parker.c.notify_all()
        self.wake_lanes()
        taken = [(<Chunk>one).take_over(reason) for one in batches]
        taken.append(self.chunk_of(left).take_over(reason))
        for one in failing:                      # handle_failed has not returned: what it has is left as well
            done, broken, late = (<Chunk>one).take_over(reason)
            taken.append((done, 0, broken + late))
        return taken

    cdef Chunk chunk_of(self, list messages):
        """A chunk of messages that have not joined a batch."""
        cdef Chunk chunk = Chunk(self.account, True)
        cdef Message message
        for message in messages:
            if not message.acked:
                message.holder = chunk
                chunk.size += message.charged
        chunk.messages = messages
        return chunk

    cdef wake_lanes(self):
        cdef Lane lane
        for lane in self.lanes:
            lane.parker.c.notify_all()

    # ------------------------------------------------------------------------------------------------------ telemetry

    cdef tuple tell_start(self, list messages):
        """What `tell_stop` is to be given, None if nobody listens. Whatever is thrown into the thread from outside here, the
        messages have to be accepted: nobody else has them."""
        cdef Listeners known, listeners
        cdef int64_t started
        try:
            with self.lock:
                known = self.listeners
            listeners = current(known)           # outside: it runs Python
            if listeners is not known:
                with self.lock:
                    self.listeners = listeners
            if listeners.counted:
                listeners.start()
                return 0, listeners
            if not listeners.called:
                return None
            started = monotonic_ns()
            span = object()
            if listeners.start_called:
                telemetry.execute(BATCHER_START, {"system_time": wall_ns(), "monotonic_time": started},
                                  {**self.where, "messages": PyList_GetSlice(messages, 0, len(messages)),
                                   "telemetry_span_context": span})
            return started, span
        except BaseException:
            return None

    cdef tell_stop(self, tuple about):
        cdef int64_t now = monotonic_ns()
        if isinstance(about[1], Listeners):
            (<Listeners>about[1]).end(None)
            return
        try:
            telemetry.execute(BATCHER_STOP, {"duration": now - <int64_t>about[0], "monotonic_time": now},
                              {**self.where, "telemetry_span_context": about[1]})
        except BaseException:
            pass                                 # as above
