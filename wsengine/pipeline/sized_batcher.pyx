"""A batcher whose sizes a function decides: it is asked message by message, in the batcher's own thread.

The function may complete a batch behind a message or before it, and what it returns as the accumulator is what it is given
next (reference §4.4, with B-3 repaired).
"""
from collections import deque

from wsengine.errors import EngineError

from wsengine.message cimport Message
from wsengine.pipeline.batch cimport Batch
from wsengine.pipeline.batcher cimport BatcherStage, flushes, same_key


cdef class SizedBatcherStage(BatcherStage):
    """As BatcherStage; `size` is (initial, function), as in `Batcher`."""

    def __cinit__(self, *args, size, **options):
        self.initial, self.function = size
        self.unsorted = deque()

    # ----------------------------------------------------------------------------------------------- from processors

    cdef list accept(self, list messages, Py_ssize_t partition):
        """Leave messages to the batcher's thread; nobody acknowledges them meanwhile."""
        cdef Message message
        for message in messages:
            if not message.acked:
                message.holder = self
        self.unsorted.append((partition, messages))
        return None

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
        """Sort what is left to this thread, asking the size function message by message."""
        cdef Message message
        cdef Py_ssize_t at
        while self.next_list():
            while True:
                with self.lock:
                    if self.closed:
                        return
                    at = self.at
                    if at == len(self.hand):
                        self.hand = None
                        break
                    message = <Message>self.hand[at]
                self.judge(message)

    cdef judge(self, Message message):
        """Ask the size function about one message, and have it join its batch as that says."""
        cdef Batch batch
        cdef Py_ssize_t at = self.at             # nobody else moves it
        try:
            with self.lock:
                batch = self.open.get(self.identity_of(message.group))
            verdict, accumulator = verdict_of(self.function(message, self.initial if batch is None else batch.accumulator))
            self.place(message, verdict, accumulator)
        except BaseException as error:
            self.crew.log_failure("batch_size", error)
            if self.at == at:                    # it has joined no batch
                self.reject(message, error)

    cdef reject(self, Message message, object error):
        """The message in hand fails."""
        with self.lock:
            if self.closed:
                return
            self.at += 1
            self.held -= 1
        self.fail([message], error)

    cdef bint place(self, Message message, str verdict, object accumulator) except -1:
        """Have the message in hand join its batch; False if that is no longer ours to decide."""
        cdef Batch batch
        cdef list only = [message]
        cdef bint last
        with self.lock:
            if self.closed:
                return False
            last = self.last_of_run(message.group)
            batch = self.batch_of(message.group)
            if verdict == "emit_before" and len(batch.messages):
                self.emit(batch, "size")
                batch = self.batch_of(message.group)
            elif len(batch.messages) == 0:       # kept for its accumulator: its time begins with its first message
                self.unlink(batch)
                self.link(batch)
            self.add(batch, only, 0, 1)
            self.at += 1
            batch.accumulator = accumulator
            batch.due |= flushes(message)
            if verdict == "emit" or batch.due and last:
                self.emit(batch, "size" if verdict == "emit" else "flush")
                if accumulator is not self.initial:
                    self.batch_of(message.group).accumulator = accumulator
        return True

    cdef bint last_of_run(self, object group) except -1:
        """Whether the message behind the one that is being sorted is of another key, or there is none."""
        cdef Message following
        if self.at + 1 == len(self.hand):
            return True
        following = <Message>self.hand[self.at + 1]
        return not same_key(following.group, group)

    # ----------------------------------------------------------------------------------------------- from the control plane

    cdef list take_left(self):
        """Take what has not been sorted, at a deadline."""
        cdef list left = ([] if self.hand is None else self.hand[self.at:]) + [one for _, few in self.unsorted for one in few]
        self.unsorted.clear()
        self.hand = None
        return left


cdef tuple verdict_of(object result):
    """A size function's result, checked."""
    if isinstance(result, tuple) and len(result) == 2 and result[0] in ("cont", "emit", "emit_before"):
        return result
    raise TypeError(f"the function of batch_size returned {result!r}; return ('cont', accumulator), ('emit', accumulator) "
                    "or ('emit_before', accumulator)")
