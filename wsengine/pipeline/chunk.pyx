"""The chunk: messages that one thread has in hand, and who acknowledges them.

Each of them is acknowledged once: by the thread that has the chunk, or, if that is dead or stuck, by whoever takes the chunk
over; or it is handed on to a batcher. Handlers and their verdicts are the processor's matter.

Grouping is compiled, so that no exception thrown into the thread from outside can end it half-way: such a one strikes
within an acknowledger, which it fails like any other.
"""
import logging

from wsengine.engine.threads import spawn
from wsengine.errors import EngineError
from wsengine.message import Failed

cimport cython
from libc.stdint cimport uint64_t
from wsengine.engine.ring cimport Account
from wsengine.message cimport ACKED, ACKED_FAILED, Message


logger = logging.getLogger("wsengine.pipeline")


cdef tuple group_of(dict groups, object acknowledger, object ref):
    """The group of an acknowledger, by its identity, and an ack_ref: by its value or, where that has no hash or cannot be
    compared with the others, by its identity. Nothing raises here, whatever of the user's it is: the messages are settled."""
    cdef tuple fresh = (acknowledger, ref, [], [])
    try:
        return <tuple>groups.setdefault((id(acknowledger), True, ref), fresh)
    except BaseException:
        return <tuple>groups.setdefault((id(acknowledger), False, id(ref)), fresh)


cdef list grouped(list messages):
    """The groups of messages that have acknowledgers, each as `tell` wants it."""
    cdef dict groups = {}
    cdef Message message
    cdef tuple triple, group = None
    for message in messages:
        triple = None if message.details is None else <tuple>message.details.acknowledger
        if triple is None:
            continue
        if group is None or group[0] is not triple[0] or group[1] is not triple[1]:
            group = group_of(groups, triple[0], triple[1])
        (<list>group[2 if message.verdict is None else 3]).append(message)
    return list(groups.values())


cdef tell(tuple group):
    """Call the acknowledger of a group. If it raises, that is logged, and the others are not touched (reference B-1)."""
    acknowledger, ref, successful, failed = group
    try:
        acknowledger.ack(ref, successful, failed)
    except BaseException:
        tell_raised(acknowledger, ref, len(<list>group[2]), len(<list>group[3]))


cpdef acknowledge(list messages):
    """Call each group's acknowledger once, with its successful and failed messages in order."""
    for group in grouped(messages):
        tell(<tuple>group)


cdef tell_raised(acknowledger, ref, successful, failed):
    try:
        logger.exception("acknowledger %r raised for ack_ref %r; its %d successful and %d failed messages count as "
                         "acknowledged", acknowledger, ref, successful, failed)
    except BaseException:
        pass                                     # a log that fails, or an exception from outside: the next group's turn


cdef tell_beside(list groups, str name):
    """Call the acknowledgers of groups, from the last on, in another thread, for whose end nobody waits; here, if there is
    none to be had. A signal's handler may raise when it has begun already: each takes what the other has not."""
    def body():
        while groups:
            try:
                group = groups.pop()
            except IndexError:
                return
            tell(<tuple>group)

    try:
        spawn(f"{name}:acknowledger", body)
    except BaseException as error:
        body()
        if not isinstance(error, Exception):
            raise


cdef bint lost(Message message):
    return message.verdict is not None if message.acked == 0 else message.acked == ACKED_FAILED


cdef Py_ssize_t failures(list messages):
    cdef Py_ssize_t count = 0
    for message in messages:
        count += lost(<Message>message)
    return count


cdef class Chunk:
    """Messages in one hand. It acknowledges each of them once, whoever does it.

    Args:
        account: of the pipeline. hands_on: what succeeds goes to a batcher, and is not done before.
    """

    def __cinit__(self, Account account not None, bint hands_on=False):
        self.account = account
        self.hands_on = hands_on
        self.state = CHUNK_OPEN

    def ack_now(self, Message message) -> None:
        """Acknowledge one of the messages before the others; nothing if it has been already.

        Raises:
            EngineError: no handler has it, because it waits for its batch.
        """
        cdef bint failed = False, waits
        cdef tuple triple
        with self.lock:
            if message.holder is not self or self.state == CHUNK_TAKEN or self.state == CHUNK_SETTLED:
                return
            waits = self.state == CHUNK_WAITING
            if not waits:
                failed = message.verdict is not None
                message.holder = None
                message.acked = ACKED_FAILED if failed else ACKED
                self.left -= 1
                self.size -= message.charged
        if waits:                                # outside: its data is the user's
            raise EngineError(f"{message!r} waits for its batch; acknowledge it in handle_batch")
        triple = None if message.details is None else <tuple>message.details.acknowledger
        if triple is not None:                   # as what it counts, whatever its verdict is by now
            tell((triple[0], triple[1], [] if failed else [message], [message] if failed else []))
        self.account.c.release(1, message.charged)

    cdef list close(self):
        """Take the messages out: from here on nobody else acknowledges them. None if somebody else has taken them over."""
        cdef list messages
        with self.lock:
            if self.state != CHUNK_OPEN:
                return None
            self.state = CHUNK_SETTLED
            messages, self.messages = self.messages, None    # no cycle, and nobody else's any more
        return messages

    cdef acknowledge(self, list messages):
        """Have the acknowledgers called of messages that were taken out. Where there are several groups, those whose turn
        has not come can be taken over, for an acknowledger may never return."""
        cdef list groups = grouped(messages)
        cdef tuple group
        if len(groups) < 2:                      # as a rule
            for group in groups:
                tell(group)
            return
        groups.reverse()
        with self.lock:
            self.untold = groups
        groups = None
        group = self.next_untold()
        while group is not None:
            tell(group)
            group = None                         # before the lock: what it refers to may end with it
            group = self.next_untold()

    cdef tuple next_untold(self):
        """The group that is the thread's to tell next, None behind the last."""
        with self.lock:
            if not self.untold:
                return None
            group = <tuple>self.untold.pop()
            self.telling = <Py_ssize_t><void*>group[0]
            return group

    cdef list take_untold(self):
        """Take the groups that have not been told, but for those of the acknowledger that the thread is calling: that one
        would hold up the others, and they are told behind it if it returns. Under the lock."""
        cdef list taken, kept
        if not self.untold:
            return []
        taken = [one for one in self.untold if <Py_ssize_t><void*>(<tuple>one)[0] != self.telling]
        kept = [one for one in self.untold if <Py_ssize_t><void*>(<tuple>one)[0] == self.telling]
        self.untold = kept
        return taken

    cdef bint still_ours(self):
        """Whether nobody has taken the chunk over."""
        with self.lock:
            return self.state == CHUNK_OPEN

    def take_over(self, reason, str name=None) -> tuple:
        """Acknowledge in the place of a thread that is dead or stuck: messages that all handlers are done with by their
        status, the others as failed with `reason`. If it was settled, have the acknowledgers called whose turn has not come,
        in a thread of that name: one is stuck, and the next may be.

        Returns:
            How many it acknowledged: successful, failed by their own status, and failed here. Zeros if it was settled, for
            then they have been counted.
        """
        cdef Message message
        cdef list left, untold = None
        cdef Py_ssize_t at
        cdef uint64_t size
        cdef int successful = 0, failed = 0, late = 0
        with self.lock:
            if self.state == CHUNK_OPEN or self.state == CHUNK_WAITING:
                self.state = CHUNK_TAKEN
                size = self.size
                left = [(at, entry) for at, entry in enumerate(self.messages) if (<Message>entry).holder is self]
                for message in self.messages:
                    if message.holder is not self:   # acknowledged by itself, before the others
                        successful += not lost(message)
                        failed += lost(message)
            else:
                untold = self.take_untold()
        if untold is not None:
            if untold:
                tell_beside(untold, name)
            return 0, 0, 0
        for at, entry in left:
            message = entry
            message.acked = True
            if message.verdict is None and (self.hands_on or at >= self.progress):
                message.set_verdict(Failed(reason))
                late += 1
            elif message.verdict is None:
                successful += 1
            else:
                failed += 1
        messages = [entry for _, entry in left]
        acknowledge(messages)
        for message in messages:
            message.holder = None
        self.account.c.release(len(messages), size)
        return successful, failed, late
