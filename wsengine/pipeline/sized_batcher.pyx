"""A batcher whose sizes a function decides: it is asked message by message, in the batcher's own thread.

The function may complete a batch behind a message or before it, and what it returns as the accumulator is what it is given
next (reference §4.4, with B-3 repaired).
"""
from collections import OrderedDict, deque

from wsengine.errors import EngineError

from wsengine.engine.ring cimport monotonic_ns
from wsengine.message cimport Message
from wsengine.pipeline.batch cimport Batch, flushes
from wsengine.pipeline.batch_key cimport Search, is_plain, same_key
from wsengine.pipeline.batcher cimport BatcherStage
from wsengine.pipeline.chunk cimport Chunk

cdef enum:
    KEPT = 10000                         # accumulators kept at the most for keys that have no message here (batchers)


cdef class SizedBatcherStage(BatcherStage):
    """As BatcherStage; `size` is (initial, function), as in `Batcher`."""

    def __cinit__(self, *args, size, **options):
        self.initial, self.function = size
        self.unsorted = deque()
        self.kept = OrderedDict()
        self.dropped = []

    # ----------------------------------------------------------------------------------------------- from processors

    cdef Py_ssize_t accept(self, list messages, Py_ssize_t first, Py_ssize_t partition):
        """Leave messages to the batcher's thread; nobody acknowledges them meanwhile."""
        cdef Message message
        for message in messages:
            if not message.acked:
                message.holder = self
        self.unsorted.append((partition, messages))
        return len(messages)

    def ack_now(self, message) -> None:
        """A message that still waits here cannot be acknowledged."""
        raise EngineError(f"{message!r} waits for its batch; acknowledge it in handle_batch")

    # ----------------------------------------------------------------------------------------------------- its thread

    cdef bint sorting(self):
        """Whether messages are left to this thread."""
        return self.hand is not None or len(self.unsorted) != 0

    cdef bint next_list(self) except -1:
        """Take the next list to sort in hand; whether there is one."""
        with self.lock:
            if self.closed:
                return False
            if self.hand is None:
                if not self.unsorted:
                    return False
                self.partition, self.hand = self.unsorted.popleft()
                self.at = 0
            return True

    cdef sort_left(self):
        """Sort what is left to this thread."""
        while self.next_list():
            self.since_ns = monotonic_ns()
            self.sort_list()
            self.since_ns = 0

    cdef sort_list(self):
        """Sort what is in hand, asking the size function message by message."""
        cdef Message message, following
        cdef Py_ssize_t at
        while True:
            with self.lock:
                if self.closed:
                    return
                at = self.at
                if at == len(self.hand):
                    self.hand = None
                    return
                message = <Message>self.hand[at]
                following = <Message>self.hand[at + 1] if at + 1 < len(self.hand) else None
            self.judge(message, following)

    cdef judge(self, Message message, Message following):
        """Ask the size function about one message, and have it join its batch as that says. `following`: the one behind it,
        or None."""
        cdef Batch batch
        cdef Py_ssize_t at = self.at             # nobody else moves it
        cdef object group = message.group
        cdef bint last
        try:
            key = self.key_of(group)
            with self.lock:
                batch = self.open.get(self.identity_of(key))
            self.ticks += 1
            verdict, accumulator = verdict_of(self.function(message, self.initial if batch is None else batch.accumulator))
            if message.group is not group:       # the function has given it another
                key = self.key_of(message.group)
            last = following is None or not same_key(following.group, message.group)
            self.place(message, key, verdict, accumulator, last)
        except BaseException as error:
            self.crew.log_failure("batch_size", error)
            if self.at == at:                    # it has joined no batch
                self.reject(message, error)
        if self.dropped:
            self.clear_dropped()

    cdef reject(self, Message message, object error):
        """The message in hand fails."""
        cdef Chunk chunk
        with self.lock:
            if self.closed:
                return
            self.at += 1
            self.held -= 1
            chunk = self.begin_failing(message, error)
        self.ticks += 1
        self.end_failing(chunk)

    cdef object key_of(self, object group):
        """What a key is known by. As nobody else opens batches, that still holds afterwards. Raises what the key raises."""
        cdef Search search
        if is_plain(group) and not self.strange:
            return group
        search = Search(group)
        while True:
            with self.lock:
                self.strange = True
                if self.look(search):
                    return search.outcome()
            self.ticks += 1
            search.compare()

    cdef bint place(self, Message message, object key, str verdict, object accumulator, bint last) except -1:
        """Have the message in hand join its batch; False if that is no longer ours to decide. `last`: the next one is of
        another key, or there is none."""
        cdef Batch batch
        cdef list only = [message]
        cdef object before                       # the lock is free when it goes
        with self.lock:
            if self.closed:
                return False
            batch = self.batch_of(message.group, key)
            if verdict == "emit_before" and len(batch.messages):
                self.emit(batch, "size")
                batch = self.batch_of(message.group, key)
            elif len(batch.messages) == 0:       # kept for its accumulator: its time begins with its first message
                self.kept.pop(batch.identity, None)
                self.unlink(batch)
                self.link(batch)
            self.add(batch, only, 0, 1)
            self.at += 1
            before, batch.accumulator = batch.accumulator, accumulator
            batch.due |= flushes(message)
            if verdict == "emit" or batch.due and last:
                self.emit(batch, "size" if verdict == "emit" else "flush")
                if accumulator is not self.initial:
                    self.keep(message, key, accumulator)
        return True

    cdef keep(self, Message message, object key, object accumulator):
        """Keep an accumulator for the next message of its key, and no more than there is a bound for. Under the lock."""
        cdef Batch batch = self.batch_of(message.group, key)
        batch.accumulator = accumulator
        self.kept[batch.identity] = batch
        if len(self.kept) > KEPT:
            self.emit(next(iter(self.kept.values())), "size")

    cdef forget(self, Batch batch):
        """A batch without a message is kept no longer."""
        self.kept.pop(batch.identity, None)
        self.dropped.append(batch)

    cdef expire(self):
        BatcherStage.expire(self)
        if self.dropped:
            self.clear_dropped()

    cdef clear_dropped(self):
        """Let accumulators go, now that the lock is free."""
        cdef list dropped
        with self.lock:
            dropped, self.dropped = self.dropped, []

    # ----------------------------------------------------------------------------------------------- from the control plane

    cdef list take_left(self):
        """Take what has not been sorted, at a deadline."""
        cdef list left = ([] if self.hand is None else self.hand[self.at:]) + [one for _, few in self.unsorted for one in few]
        self.unsorted.clear()
        self.kept.clear()
        self.hand = None
        return left


cdef tuple verdict_of(object result):
    """A size function's result, checked."""
    if isinstance(result, tuple) and len(result) == 2 and result[0] in ("cont", "emit", "emit_before"):
        return result
    raise TypeError(f"the function of batch_size returned {result!r}; return ('cont', accumulator), ('emit', accumulator) "
                    "or ('emit_before', accumulator)")
