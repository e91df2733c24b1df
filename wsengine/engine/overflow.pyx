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
    """Drop messages that have waited longest, a sixteenth of the bound at the most; whether there were any."""
    cdef Descriptor[SHED] batch
    cdef uint32_t i, n = intake.ring.pop(batch, <uint32_t>max(1, min(intake.account.max_messages() // 16, <uint64_t>SHED)))
    for i in range(n):
        Control.add(owner(intake, batch[i].arrival.index).dropped, 1)
        SlabPool.drop(batch[i].arrival.slab, 1)      # of the arrival, too: it is read before
    if n:
        intake.account.release(n, 0)
        intake.drops += n
    return n != 0


# Where the ring is empty, all that is held is with the processors, on its way to them, or in the rings of other readers,
# which are theirs to shed; and yet the newest is to be kept. So one message is admitted above the bound, and the next is
# not before that has been claimed, as it is found in the ring and shed. This holds only as long as nobody claims more than is
# taken up: a processor claims when it has nothing in hand, a dispatcher when processors have taken all that it has emitted
# (`sheds`). Each reader may so be above the bound by one message that waits, whatever the number of its connections.
cdef bint make_room(Intake* intake) noexcept nogil:
    while not intake.account.admits():
        if intake.overflow != OVERFLOW_DROP_OLDEST:
            return False
        if not shed(intake):          # what is held is being handled; the newest is what this policy is chosen for
            intake.credit = 1
            return True
    intake.credit = min(intake.account.room(), <uint64_t>CREDIT)
    return intake.credit != 0


cdef bint admit(Wire* wire, Intake* intake) noexcept nogil:
    if make_room(intake):
        return True
    if intake.overflow == OVERFLOW_ERROR:
        wire.discarding = True        # what still comes is counted so, and this is the first
        Control.add(wire.control.discarded, 1)
        return False
    wire.sequence += 1
    intake.drops += 1
    Control.add(wire.control.dropped, 1)
    return False
