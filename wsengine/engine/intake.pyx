"""How what has been read comes into the ring: staged by the batch, charged, pushed, and told to one processor.

Whatever is called once a message is inline, on the design page. All of it runs without the GIL and never blocks.
"""
from libc.stdint cimport uint32_t
from wsengine.engine.frames cimport mask_keys_start
from wsengine.engine.ring cimport Arrival, CAccount, CParker, CRing, Slab, SlabPool

cdef extern from "<sched.h>" nogil:
    int sched_yield()


cdef bint intake_start(Intake* intake, CRing* ring, CAccount* account, CParker* parker, SlabPool* pool) noexcept nogil:
    intake.ring = ring
    intake.account = account
    intake.parker = parker
    intake.pool = pool
    intake.used = intake.staged = intake.in_place = intake.pushed = 0
    intake.credit = 0
    intake.overflow = 0
    intake.short = False
    intake.drops = 0
    intake.here = NULL
    mask_keys_start(&intake.keys)
    intake.slab = pool.acquire(0)
    return intake.slab != NULL


cdef void intake_stop(Intake* intake) noexcept nogil:
    if intake.slab != NULL:
        SlabPool.drop(intake.slab, 1)
        intake.slab = NULL


cdef void flush(Intake* intake) noexcept nogil:
    cdef uint32_t done = 0
    if intake.staged == 0:
        return
    if intake.in_place:
        SlabPool.add(intake.here, intake.in_place)
        intake.in_place = 0
    intake.account.charge(intake.staged, 0)
    while True:
        done += intake.ring.push(intake.batch + done, intake.staged - done)
        if done == intake.staged:
            break
        sched_yield()             # a consumer was preempted between claim and release of just this slot
    intake.pushed += intake.staged
    intake.staged = 0


cdef void intake_settle(Intake* intake) noexcept nogil:
    flush(intake)
    if intake.pushed:
        intake.pushed = 0
        if not intake.lent:
            intake.parker.notify()


cdef Arrival* room_in_slab(Intake* intake, size_t size) noexcept nogil:
    cdef Slab* fresh
    intake.used = (intake.used + 7) & ~<size_t>7
    if intake.used + sizeof(Arrival) + size > intake.pool.slab_bytes():
        fresh = intake.pool.acquire(0)
        if fresh == NULL:
            return NULL
        SlabPool.drop(intake.slab, 1)     # `here` has a reference of its own while it is parsed
        intake.slab = fresh
        intake.used = 0
    return <Arrival*>(intake.slab.data() + intake.used)
