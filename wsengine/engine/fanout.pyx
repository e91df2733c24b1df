"""Fanout: descriptors of one ring move on to the rings of partitions, without the GIL.

Two messages of one key come into the same ring, in order. Nothing here waits: where a partition is full and the policy is
to wait, the mover says so, and keeps what it has in hand.
"""
cimport cython
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy
from libcpp.atomic cimport atomic, memory_order_relaxed
from wsengine.engine.keys cimport KeyExtractor, key_of
from wsengine.engine.overflow cimport (OVERFLOW_BLOCK, OVERFLOW_DROP_OLDEST, OVERFLOW_ERROR, Overflow, policy)
from wsengine.engine.ring cimport Arrival, CAccount, Descriptor, Ring, Slab, SlabPool

cdef extern from "<sched.h>" nogil:
    int sched_yield()


cdef void flush(Part* part) noexcept nogil:
    """Push what is staged, and wake the partition's processor."""
    cdef uint32_t done = 0
    if part.count == 0:
        return
    part.account.enter(part.count, 0)
    while True:
        done += part.ring.push(part.staged + done, part.count - done)
        if done == part.count:
            break
        sched_yield()             # a consumer was preempted between claim and release of just this slot
    part.count = 0
    part.parker.notify()


cdef void flush_all(Fan* fan) noexcept nogil:
    cdef uint32_t i
    for i in range(fan.n):
        flush(&fan.parts[i])


cdef bint shed(Part* part) noexcept nogil:
    """Drop what has waited longest in a partition, a sixteenth of its share at the most; whether there was any."""
    cdef Descriptor[FAN_SHED] batch
    cdef uint32_t i, n = part.ring.pop(batch, <uint32_t>max(1, min(part.account.max_messages() // 16, <uint64_t>FAN_SHED)))
    for i in range(n):
        SlabPool.drop(batch[i].arrival.slab, 1)
    if n:
        part.account.release(n, 0)
        part.dropped.fetch_add(n, memory_order_relaxed)
    return n != 0


# As where a reader drops the oldest (overflow.pyx): one message is admitted above the bound if none waits that could go.
cdef bint make_room(Fan* fan, Part* part) noexcept nogil:
    """Whether a message may come into the partition now."""
    flush(part)
    if not part.account.admits() and not fan.stalled:
        part.stalls.fetch_add(1, memory_order_relaxed)
        fan.stalled = True        # told once of the message at hand, however often it is tried
    while not part.account.admits():
        if fan.overflow != OVERFLOW_DROP_OLDEST:
            return False
        if not shed(part):
            part.credit = 1
            return True
    part.credit = min(part.account.room(), <uint64_t>FAN_BATCH)
    return part.credit != 0


cdef bint copy_arrival(Part* part, const Arrival* arrival, size_t size) noexcept nogil:
    """Have a copy of the arrival with `size` bytes behind it, or `size` bytes behind what is there; False: no memory."""
    cdef Slab* slab
    part.used = (part.used + 7) & ~<size_t>7
    if part.slab == NULL or part.used + sizeof(Arrival) + size > part.slab.capacity:
        slab = part.pool.acquire(sizeof(Arrival) + size if sizeof(Arrival) + size > part.pool.slab_bytes() else 0)
        if slab == NULL:
            return False
        if part.slab != NULL:
            SlabPool.drop(part.slab, 1)
        part.slab = slab
        part.used = 0
    part.copy = <Arrival*>(part.slab.data() + part.used)
    part.copy[0] = arrival[0]
    part.copy.slab = part.slab
    part.used += sizeof(Arrival)
    part.seen = arrival
    return True


cdef bint stage(Part* part, const Descriptor* one) noexcept nogil:
    """Copy a message and stage it; False: no memory."""
    cdef Descriptor* copy = &part.staged[part.count]
    if part.seen != one.arrival or part.used + one.size > part.slab.capacity:
        if not copy_arrival(part, one.arrival, one.size):
            return False
    copy[0] = one[0]
    copy.arrival = part.copy
    copy.data = part.slab.data() + part.used
    memcpy(part.slab.data() + part.used, one.data, one.size)
    part.used += one.size
    SlabPool.add(part.slab, 1)
    part.count += 1
    return True


cdef Part* part_of(Fan* fan, Descriptor* one) noexcept nogil:
    """The partition of a message; one without a key is marked so, and may go to any, to fail there."""
    cdef uint64_t key = 0
    if one.keyless == 0 and not key_of(fan.key, one.data, one.size, &key):
        one.keyless = 1
    if one.keyless:
        key = one.arrival.sequence + one.ordinal
    return &fan.parts[key % fan.n]


cdef void let_go(Fan* fan, uint32_t first) noexcept nogil:
    """Drop the references of those messages of the batch that have moved."""
    cdef Slab* slab = NULL
    cdef uint32_t i, run = 0
    for i in range(first, fan.at):
        if fan.batch[i].arrival.slab != slab:
            if run:
                SlabPool.drop(slab, run)
            slab = fan.batch[i].arrival.slab
            run = 0
        run += 1
    if run:
        SlabPool.drop(slab, run)
    for i in range(fan.n):
        fan.parts[i].seen = NULL


cdef Moved fan_move(Fan* fan, bint force) noexcept nogil:
    cdef Descriptor* one
    cdef Part* part
    cdef uint32_t first
    cdef Moved moved = MOVED_SOME
    if fan.at == fan.count:
        fan.at = fan.count = 0
        if not force:
            fan.count = fan.source.pop(fan.batch, FAN_BATCH)
        if fan.count == 0:
            return MOVED_NONE
    first = fan.at
    for i in range(fan.n):
        fan.parts[i].credit = 0   # others use up room, too
    while fan.at < fan.count and moved == MOVED_SOME:
        one = &fan.batch[fan.at]
        part = part_of(fan, one)
        if part.credit == 0 and not force and not make_room(fan, part):
            if fan.overflow == OVERFLOW_BLOCK:
                fan.stuck = <uint32_t>(part - fan.parts)
                moved = MOVED_STUCK
                break
            if fan.overflow == OVERFLOW_ERROR and (fan.failed_epoch != one.arrival.epoch
                                                   or fan.failed_index != one.arrival.index):
                fan.failed_index = one.arrival.index
                fan.failed_epoch = one.arrival.epoch
                moved = MOVED_FAILED
            drop(fan, part)
        elif not stage(part, one):
            drop(fan, part)
        else:
            part.credit -= min(part.credit, <uint64_t>(1 + one.size // FAN_UNIT))
            if part.count == FAN_BATCH:
                flush(part)
        fan.at += 1
        fan.stalled = False
    flush_all(fan)
    let_go(fan, first)
    return moved


cdef uint32_t fan_drop(Fan* fan) noexcept nogil:
    cdef uint32_t first = fan.at
    fan.at = fan.count
    fan.whole.release(fan.count - first, 0)
    let_go(fan, first)
    return fan.count - first


cdef void fan_rest(Fan* fan) noexcept nogil:
    cdef uint32_t i
    for i in range(fan.n):
        if fan.parts[i].slab != NULL:
            SlabPool.drop(fan.parts[i].slab, 1)
            fan.parts[i].slab = NULL
            fan.parts[i].seen = NULL


cdef void drop(Fan* fan, Part* part) noexcept nogil:
    """Count a message as dropped that has not come into its partition."""
    part.dropped.fetch_add(1, memory_order_relaxed)
    fan.whole.release(1, 0)


@cython.no_gc_clear  # its buffers are the targets', which must be there until the very end
cdef class Fanout:
    """The way of the messages of one ring into partitions. One thread moves; counts may be read from any.

    Args:
        source: the ring. key: finds the key of a payload. targets: a Ring for each partition, charged to its share of the
            source's account.
        overflow: what becomes of messages that have no room in their partition: as of a pipeline.
    """

    def __cinit__(self, Ring source not None, KeyExtractor key not None, list targets not None, overflow="block"):
        cdef Ring ring
        cdef Part* part
        self.c.overflow = policy(overflow)
        self.source = source
        self.key = key
        self.targets = tuple(targets)
        self.c.source = source.c
        self.c.whole = source.account.c
        self.c.key = &key.spec
        self.c.parts = <Part*>calloc(max(len(targets), 1), sizeof(Part))
        if self.c.parts == NULL:
            raise MemoryError()
        for ring in targets:
            part = &self.c.parts[self.c.n]
            part.ring = ring.c
            part.pool = ring.pool
            part.account = ring.account.c
            part.parker = ring.parker.c
            part.dropped = new atomic[uint64_t](0)
            part.stalls = new atomic[uint64_t](0)
            self.c.n += 1

    def __dealloc__(self):
        self.clear()

    cdef clear(self):
        cdef uint32_t i
        if self.c.parts == NULL:
            return
        for i in range(self.c.at, self.c.count):
            SlabPool.drop(self.c.batch[i].arrival.slab, 1)
        fan_rest(&self.c)
        for i in range(self.c.n):
            del self.c.parts[i].dropped
            del self.c.parts[i].stalls
        free(self.c.parts)
        self.c.parts = NULL

    def move(self, bint force=False) -> int:
        """Move a batch; for tests. 0: nothing was there, 1: done, 2: stuck, 3: a connection is to fail."""
        cdef Moved moved
        with nogil:
            moved = fan_move(&self.c, force)
        return moved

    def inherit(self, Fanout other not None) -> None:
        """Have in hand what the other one, which moves nothing more, has of the same ring. Before this one moves."""
        cdef uint32_t i
        for i in range(other.c.at, other.c.count):
            self.c.batch[self.c.count] = other.c.batch[i]
            self.c.count += 1
        other.c.at = other.c.count

    @property
    def held(self) -> int:
        """Messages in hand."""
        return self.c.count - self.c.at

    def dropped(self, uint32_t partition) -> int:
        """Messages for which this partition had no room."""
        return self.c.parts[partition].dropped.load(memory_order_relaxed)

    def stalls(self, uint32_t partition) -> int:
        """How often this partition was found full."""
        return self.c.parts[partition].stalls.load(memory_order_relaxed)
