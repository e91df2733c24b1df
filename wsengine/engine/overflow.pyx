"""The overflow policies: the oldest or the newest message goes, or the connection, and each that goes is counted.

All of it runs in the thread that has the lead (lead.hpp). The oldest messages are claimed from the ring as a processor
would claim them, so no message is both dropped and handled.
"""
from libc.stdint cimport uint32_t, uint64_t
from wsengine.engine.control cimport Control
from wsengine.engine.intake cimport CREDIT, Intake
from wsengine.engine.ring cimport Descriptor, SlabPool
from wsengine.engine.stream cimport Wire
from wsengine.errors import ConfigurationError

policy_names = ("block", "drop_oldest", "drop_newest", "error")


cdef Overflow policy(object name) except *:
    if name not in policy_names:
        raise ConfigurationError("overflow", name, "give one of " + ", ".join(map(repr, policy_names)))
    return <Overflow><int>policy_names.index(name)


cdef inline Control* owner(Intake* intake, uint32_t index) noexcept nogil:
    return intake.controls[index] if intake.controls != NULL else intake.sole


cdef bint shed(Intake* intake) noexcept nogil:
    """Drop messages that have waited longest; whether there were any."""
    cdef Descriptor[SHED] batch
    cdef uint32_t i, n = intake.ring.pop(batch, SHED)
    for i in range(n):
        Control.add(owner(intake, batch[i].arrival.index).dropped, 1)
        SlabPool.drop(batch[i].arrival.slab, 1)      # of the arrival, too: it is read before
    if n:
        intake.account.release(n, 0)
        intake.drops += n
    return n != 0


cdef bint make_room(Intake* intake) noexcept nogil:
    while not intake.account.admits():
        if intake.overflow != OVERFLOW_DROP_OLDEST or not shed(intake):
            return False
    intake.credit = min(intake.account.room(), <uint64_t>CREDIT)
    return intake.credit != 0


cdef void drop_newest(Wire* wire, Intake* intake) noexcept nogil:
    wire.sequence += 1
    intake.drops += 1
    Control.add(wire.control.dropped, 1)
