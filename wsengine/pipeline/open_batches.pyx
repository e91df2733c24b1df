"""The open batches of a batcher: which of them a message joins, and when one is complete.

A batch is complete by size, by time, counted from its first message and not extended, or by a message that flushes it
(reference §6.5, with B-3 repaired). Then it goes to its lane.
"""
from libc.stdint cimport int64_t
from wsengine.engine.ring cimport Parker, monotonic_ns
from wsengine.message cimport Message
from wsengine.pipeline.batch cimport WHOLE, Batch, flushes
from wsengine.pipeline.batch_key cimport Search, is_plain
from wsengine.pipeline.crew cimport Crew
from wsengine.pipeline.lane cimport Lane

cdef extern from "Python.h":
    ctypedef struct PyObject:
        pass
    PyObject* PyList_GET_ITEM(object list, Py_ssize_t i)
    list PyList_GetSlice(list whole, Py_ssize_t low, Py_ssize_t high)

cdef int64_t NEVER = 2**62
cdef object UNKNOWN = object()           # in place of what a key is known by


cdef class OpenBatches:
    """What a batcher sorts messages into. Its arguments are the batcher's, of which those here concern it."""

    def __cinit__(self, Crew crew not None, *args, int concurrency, size, timeout, by=None, **others):
        self.account = crew.account
        self.parker = Parker()
        self.lanes = [Lane(concurrency > 1)] if by is None else [Lane(False) for _ in range(concurrency)]
        self.partitions = 0 if by is None else concurrency
        self.partition = WHOLE
        self.count = size if isinstance(size, int) else 0
        self.timeout_ns = 0 if timeout is None else <int64_t>(timeout * 1e9)
        self.open = {}
        self.wake_ns = NEVER

    cdef Py_ssize_t accept(self, list messages, Py_ssize_t first, Py_ssize_t partition):
        """Have messages from the first on join their batches, up to one whose key the user's code has to be asked about; how
        many have joined with those before. Under the lock."""
        cdef Py_ssize_t n = len(messages)
        self.partition = partition
        self.joined = first
        try:
            while first < n:
                first = self.sort_run(messages, first)
        except BaseException:                    # no memory: the rest is tried again, message by message
            pass
        return self.joined

    cdef Py_ssize_t sort_run(self, list messages, Py_ssize_t first):
        """Have a run of messages of one key join their batch; where the next begins. Under the lock."""
        cdef Py_ssize_t end = first + 1, n = len(messages)
        cdef Message message = <Message>PyList_GET_ITEM(messages, first)
        cdef object group = message.group
        cdef bint flush = flushes(message), plain
        cdef object key = self.known_by(group)
        if key is UNKNOWN:
            return n
        plain = is_plain(group)
        while end < n:
            message = <Message>PyList_GET_ITEM(messages, end)
            if message.group is not group and not (plain and is_plain(message.group) and message.group == group):
                break
            flush |= flushes(message)
            end += 1
        self.join(messages, first, end, group, key, flush)
        return end

    cdef object known_by(self, object group):
        """What a key is known by, UNKNOWN if it takes the user's code to tell. Under the lock."""
        cdef Batch batch = self.last
        if batch is not None and batch.group is group and batch.lane == self.partition:
            return batch.key
        if not is_plain(group):
            self.strange = True
            return UNKNOWN
        if self.strange and self.identity_of(group) not in self.open and not self.look(Search(group)):
            return UNKNOWN                       # it may equal one of the user's
        return group

    cdef bint look(self, Search search):
        """Have a search meet the keys of its hash that there are, in the partition at hand; whether it has been compared with
        all of them. Under the lock."""
        cdef Lane lane = <Lane>self.lanes[0 if self.partition == WHOLE else self.partition]
        identity = self.identity_of(search)
        search.begin()
        self.open.get(identity)                  # not to find anything, but to be compared
        if lane.behind is not None:              # batches of a key that is not open are in order, too
            lane.behind.get(identity)
        return search.over()

    cdef join(self, list messages, Py_ssize_t first, Py_ssize_t end, object group, object key, bint flush):
        """Have a run of messages of one key join their batch, or as many batches as they fill. Under the lock."""
        cdef Batch batch = None
        cdef Py_ssize_t share
        while first < end:
            batch = self.batch_of(group, key)
            share = min(end - first, self.count - <Py_ssize_t>len(batch.messages))
            self.add(batch, messages, first, first + share)
            self.joined = first = first + share
            if len(batch.messages) >= self.count:
                self.emit(batch, "size")
                batch = None
        if flush and batch is not None:
            self.emit(batch, "flush")

    cdef add(self, Batch batch, list messages, Py_ssize_t first, Py_ssize_t end):
        cdef Message message
        cdef Py_ssize_t i
        for i in range(first, end):
            message = <Message>PyList_GET_ITEM(messages, i)
            if not message.acked:
                message.holder = batch
                batch.left += 1
                batch.size += message.charged
        self.opened += len(batch.messages) == 0
        if len(batch.messages) == 0 and first == 0 and end == len(messages):
            batch.messages = messages
        else:
            batch.messages += PyList_GetSlice(messages, first, end)

    cdef object identity_of(self, object key):
        """What the open batch of what a key is known by is looked up by, in the partition at hand."""
        return key if self.partition == WHOLE else (self.partition, key)

    cdef Batch batch_of(self, object group, object key):
        """The open batch of a key, made if there is none."""
        cdef Batch batch = self.last
        if batch is not None and batch.group is group and batch.lane == self.partition:
            return batch
        identity = self.identity_of(key)
        batch = self.open.get(identity)
        if batch is None:
            batch = Batch(self.account)
            batch.group = group
            batch.key = key
            batch.identity = identity
            batch.lane = self.partition
            batch.partition = None if self.partition == WHOLE else self.partition
            self.open[identity] = batch
            self.link(batch)
        self.last = batch
        return batch

    cdef link(self, Batch batch):
        """Put a batch behind the other open ones: its time begins. The thread is woken if it would sleep too long."""
        batch.older, batch.newer = self.newest, None
        if self.newest is None:
            self.oldest = batch
        else:
            self.newest.newer = batch
        self.newest = batch
        batch.deadline_ns = 0
        if self.timeout_ns:
            batch.deadline_ns = monotonic_ns() + self.timeout_ns
            if batch.deadline_ns < self.wake_ns:
                self.wake_ns = batch.deadline_ns
                self.parker.c.notify()

    cdef unlink(self, Batch batch):
        if batch.older is None:
            self.oldest = batch.newer
        else:
            batch.older.newer = batch.newer
        if batch.newer is None:
            self.newest = batch.older
        else:
            batch.newer.older = batch.older
        batch.older = batch.newer = None

    cdef emit(self, Batch batch, str trigger):
        """A batch is complete: it waits for a batch processor from here on."""
        cdef Lane lane = <Lane>self.lanes[0 if batch.lane == WHOLE else batch.lane]
        del self.open[batch.identity]
        self.unlink(batch)
        if self.last is batch:
            self.last = None
        if len(batch.messages) == 0:             # it was kept for its accumulator
            self.forget(batch)
            return
        self.opened -= 1
        batch.trigger = trigger
        self.waiting += len(batch.messages)
        lane.put(batch)
        self.emitted()

    cdef emitted(self):
        """A batch waits that did not before. Under the lock."""

    cdef forget(self, Batch batch):
        """A batch without a message is open no longer; only where a function decides sizes there are such. Under the lock."""

    cdef emit_all(self, int64_t until_ns, str trigger):
        """Emit the open batches whose time comes until then."""
        while self.oldest is not None and self.oldest.deadline_ns <= until_ns:
            self.emit(self.oldest, trigger)
