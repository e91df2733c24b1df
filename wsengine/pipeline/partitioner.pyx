"""The partitioner: one thread that gives each message to the processor of its partition.

With a compiled key it moves what readers have put in their rings without the GIL, so that a busy handler holds up nobody
else's partition. Messages that are objects already, and keys that a Python callable finds, need the GIL.

A partition that is full holds up nothing until a message comes for it; then the pipeline's overflow policy decides. To wait
means that all wait, for what comes behind that message may be read only later (reference B-21).
"""
from wsengine.errors import EngineError, QueueOverflow
from wsengine.message import Failed

cimport cython
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libcpp.atomic cimport atomic, memory_order_acq_rel, memory_order_acquire, memory_order_relaxed, memory_order_release
from wsengine.engine.fanout cimport MOVED_FAILED, MOVED_NONE, MOVED_STUCK, Fan, Fanout, Moved, fan_drop, fan_move, fan_rest
from wsengine.engine.keys cimport KeyExtractor
from wsengine.engine.overflow cimport OVERFLOW_BLOCK, OVERFLOW_DROP_OLDEST, OVERFLOW_ERROR, policy, policy_names
from wsengine.engine.ring cimport Account, CAccount, Ring, monotonic_ns
from wsengine.message cimport Message
from wsengine.pipeline.callbacks cimport call_handle_failed
from wsengine.pipeline.chunk cimport Chunk, acknowledge
from wsengine.pipeline.crew cimport Crew
from wsengine.pipeline.emission cimport emit
from wsengine.pipeline.materialiser cimport CHUNK, Materialiser
from wsengine.pipeline.message_key cimport partition_of_message
from wsengine.pipeline.sources cimport Queue, Sources

cdef extern from "<unistd.h>" nogil:
    int usleep(unsigned int us)

#: Why a message failed that no partition was given.
STOPPED = "the pipeline stopped before the message was handled"

cdef int64_t SLICE_NS = 1000000000       # it looks up once a second, whatever became of a wake
cdef int ROOM_SLICE_MS = 50              # the same of a wait for room: a stop rings no bell
cdef unsigned int SETTLE_US = 250         # between looks whether all is settled, the first time


@cython.no_gc_clear  # its bell is the account's, which must be there until the very end
cdef class Partitioner:
    """Gives messages to partitions; `run` is the body of its thread.

    Args:
        crew: of the pipeline, which is partitioned.
        by: a KeyExtractor, or a callable that is given a Message and returns an int from 0, a str or bytes.
        overflow: what becomes of messages for which their partition has no room: as of a pipeline.
        settled: called to ask whether nothing is under way to or behind the processors.
        change: called to make another number of partitions, once that was asked for and all is settled.
    """

    def __cinit__(self, Crew crew not None, by, str overflow not None, *, settled, change):
        self.crew = crew
        self.sources = crew.sources
        self.thread_name = f"wsengine:{crew.name}:partitioner"
        if isinstance(by, KeyExtractor):
            self.extractor = by
        else:
            self.function = by
        self.overflow = policy(overflow)
        self.settled = settled
        self.change = change
        self.account = crew.account
        self.bell = crew.account.new_bell()
        self.fanouts = []
        self.materialiser = Materialiser.__new__(Materialiser, crew.account)
        self.ending = new atomic[int](0)
        self.changing = new atomic[int](0)

    def __dealloc__(self):
        if self.bell != NULL:
            self.bell.shut()
        del self.ending
        del self.changing

    def connect(self) -> None:
        """Give to the crew's shares from here on. Before its thread starts, or in it with no objects in hand."""
        cdef Sources share
        cdef Fanout fanout
        cdef Py_ssize_t at
        self.shares = self.crew.current_shares()
        for share in self.shares:
            share.account.c.set_door(0, self.bell)
        before, self.fanouts = self.fanouts, []
        self.fans.clear()
        self.failing = NULL
        for at, entry in enumerate(self.sources.rings if self.extractor is not None else []):
            fanout = Fanout((<tuple>entry)[0], self.extractor,
                            [(<tuple>(<Sources>one).rings[at])[0] for one in self.shares],
                            policy_names[<int>self.overflow])
            if before:
                fanout.inherit(before[at])
            self.fanouts.append(fanout)
            self.fans.push_back(&fanout.c)
        with self.lock:
            self.view = (self.shares, self.fanouts)

    # --------------------------------------------------------------------------------------------------------- the loop

    def run(self) -> None:
        """Move messages until `end` and nothing is left to claim, or the crew is closed. If the thread dies, another may run
        it, and goes on where that was."""
        cdef Need need
        self.since_ns = 0
        self.sources.given.store(1, memory_order_relaxed)      # alone: whoever ran before may have died with it taken
        while True:
            self.deliver_hand()
            with nogil:
                need = self.work()
            if need == NEED_END:
                return
            if need == NEED_FAILURE:
                origin = (<tuple>self.sources.rings[self.index_of_failing()])[1]
                self.fail_connection(origin, self.failing.failed_index, self.failing.failed_epoch)
            elif need == NEED_CHANGE:
                self.change_partitions()
            else:
                self.take_objects()

    def index_of_failing(self):
        """Which ring's fan wants a connection failed."""
        cdef size_t i
        for i in range(self.fans.size()):
            if self.fans[i] == self.failing:
                return i
        raise EngineError("no ring of the partitioner's")

    cdef bint is_over(self) noexcept nogil:
        return self.crew.closed.load(memory_order_acquire) != 0

    cdef Need work(self) noexcept nogil:
        """Move descriptors until something needs the GIL. When all is over, what is in hand is moved on for whoever sweeps."""
        cdef uint32_t seen
        cdef bint objects
        cdef Fan* fan
        while True:
            self.sources.parker.c.arrive()
            if self.is_over():
                self.give_up()
                return NEED_END
            if self.changing.load(memory_order_acquire):     # pairs with change_wanted
                return NEED_CHANGE
            if self.move():
                if self.failing != NULL:
                    return NEED_FAILURE
                if self.sources.given.load(memory_order_relaxed):
                    return NEED_OBJECTS
                continue
            seen = self.sources.parker.c.prepare()
            # pairs with Sources.tell; taken over by take_objects
            objects = self.sources.given.load(memory_order_acquire) or self.function_waits()
            if objects or self.sources.ring_ready() or self.changing.load(memory_order_acquire) or self.is_over():
                self.sources.parker.c.leave()
                if objects:
                    return NEED_OBJECTS
                continue
            if self.ending.load(memory_order_acquire):
                self.sources.parker.c.leave()
                for fan in self.fans:
                    fan_rest(fan)
                return NEED_END
            self.crew.account.c.wake_resting()
            if self.sources.parker.c.wait_in_poll(seen, self.crew.spin_ns):
                self.sources.parker.c.leave()
            else:
                self.sources.parker.c.wait(seen, SLICE_NS)

    cdef void give_up(self) noexcept nogil:
        """All is over: move on what is in hand, for whoever sweeps; if that has been done, drop it."""
        cdef Fan* fan
        with self.lock:
            for fan in self.fans:
                if self.taken:
                    self.failed += fan_drop(fan)
                else:
                    fan_move(fan, True)
                fan_rest(fan)

    cdef bint function_waits(self) noexcept nogil:
        """Whether a ring has messages whose key only a callable knows."""
        return self.fans.size() == 0 and self.sources.ring_ready()

    cdef bint move(self) noexcept nogil:
        """Move a batch of the next ring in turn that has one, and wait where its partition is full; whether there was any."""
        cdef size_t i, places = self.fans.size()
        cdef Fan* fan
        cdef Moved moved
        for i in range(places):
            fan = self.fans[(self.turn + i) % places]
            moved = fan_move(fan, False)
            if moved == MOVED_NONE:
                continue
            if moved == MOVED_STUCK:
                self.turn = (self.turn + i) % places         # its rest is in hand
                self.await_room(fan.parts[fan.stuck].account)
                return True
            self.turn = (self.turn + i + 1) % places
            self.failing = fan if moved == MOVED_FAILED else NULL
            return True
        return False

    cdef void await_room(self, CAccount* account) noexcept nogil:
        """Wait until half of a partition's share is free, or all is over."""
        while account.starve(0) and not self.is_over():
            self.bell.wire().wait(ROOM_SLICE_MS)
            self.bell.answer()

    # ---------------------------------------------------------------------------------------------------------- objects

    cdef take_objects(self):
        """Give all messages that are objects now to their partitions, and what a callable has to see."""
        cdef list inboxes = self.sources.inboxes
        cdef Py_ssize_t i
        self.sources.given.exchange(0, memory_order_acq_rel)   # pairs with Sources.tell: what comes later tells again
        for i in range(len(inboxes)):
            self.take_inbox(inboxes[i])
        if self.function is not None and not self.is_over():
            self.claim_ring()

    cdef take_inbox(self, object inbox):
        """Give some of an inbox's messages to their partitions. The rest waits for the next turn: whoever pushes faster than
        keys are found holds up nobody else."""
        if len(inbox.queue) == 0 or self.is_over():
            return
        self.take_hand(taken_of(inbox.queue), None, inbox is not self.sources.unlimited)
        self.deliver_hand()
        if len(inbox.queue):
            self.sources.given.store(1, memory_order_relaxed)  # alone: its own thread looks
        if self.crew.askers.load(memory_order_relaxed):
            inbox.asked()

    cdef take_hand(self, list messages, object transformer, bint limited):
        """Have messages in hand, which the transformer has not seen, if there is one."""
        cdef Message message
        for message in messages:
            message.holder = self
        self.transformer = transformer
        self.made = 0
        self.limited = limited
        with self.lock:
            if not self.taken:
                self.hand = messages
                self.at = 0
                return
        self.failed += self.fail(messages, STOPPED)            # whoever stops the pipeline has looked already

    cdef claim_ring(self):
        """Make messages of what the next ring in turn has, and give them to their partitions."""
        cdef tuple entry
        cdef list messages
        cdef size_t i, places = len(self.sources.rings)
        for i in range(places):
            entry = <tuple>self.sources.rings[(self.turn + i) % places]
            if (<Ring>entry[0]).c.ready():
                messages = self.materialiser.claim(<Ring>entry[0], CHUNK, entry[1], None)
                if messages is not None:
                    self.turn = (self.turn + i + 1) % places
                    self.take_hand(messages, entry[2], True)
                    self.deliver_hand()
                    return

    cdef deliver_hand(self):
        """Give what is in hand to its partitions, as long as that is ours to do."""
        cdef list hand
        with self.lock:
            hand = self.hand
        if hand is None:
            return
        self.ticks += 1
        self.since_ns = monotonic_ns()
        while self.at < len(hand):
            if not self.deliver(hand):
                break
        else:
            with self.lock:
                if not self.taken:
                    self.hand = None
        self.since_ns = 0

    cdef bint deliver(self, list hand):
        """Give the next message in hand to its partition; False if that is no longer ours to do."""
        cdef Message message
        cdef Sources share
        cdef Py_ssize_t partition
        cdef object inbox
        if self.transformer is not None and self.made <= self.at and not self.transform(hand):
            return False
        message = <Message>hand[self.at]
        partition = self.partition_of(message)
        share = <Sources>self.shares[partition]
        if not share.account.c.admits() and not self.find_room(message, share, partition):
            return not self.is_over()            # it was refused, and the next one's turn has come
        inbox = share.inboxes[0] if self.limited else share.unlimited
        with self.lock:
            if self.taken:
                return False
            self.at += 1
            message.holder = inbox
            share.account.c.enter(1, message.charged)
            (<Queue>inbox).queue.append(message)
        share.parker.c.notify()
        return True

    cdef bint transform(self, list hand):
        """Have the next message in hand replaced by what the transformer makes of it; False if it is no longer ours."""
        cdef Message message = <Message>hand[self.at]
        cdef Message other
        if message.verdict is not None:          # there was no memory for its payload
            self.made = self.at + 1
            return True
        self.ticks += 1
        other = <Message>emit(self, self.crew.log_failure, self.transformer, message, (message.payload,))[0]
        with self.lock:
            if self.taken:
                return False
            hand[self.at] = other
            self.made = self.at + 1
            self.crew.account.c.charge(0, other.charged)
            self.crew.account.c.release(0, message.charged)
        return True

    cdef Py_ssize_t partition_of(self, Message message):
        """The number of a message's partition. One without a key has failed, and may go to any."""
        cdef Py_ssize_t n = len(self.shares)
        if message.verdict is None:
            self.ticks += 1
            try:
                return partition_of_message(self.function, self.extractor, message, n)
            except BaseException as error:
                self.crew.log_failure("partition_by", error)
                message.set_verdict(Failed(error, error))
        return <Py_ssize_t>(message.seq % <uint64_t>n)

    # ------------------------------------------------------------------------------------------------- where there is no room

    cdef bint find_room(self, Message message, Sources share, Py_ssize_t partition):
        """Have room made in a full partition, as the policy says; False if the message is not to go there."""
        share.stalls.fetch_add(1, memory_order_relaxed)
        while not share.account.c.admits():
            if self.is_over():
                return False
            if self.overflow == OVERFLOW_BLOCK or not self.limited:
                self.since_ns = 0                # it waits, and runs no callback
                with nogil:
                    self.await_room(share.account.c)
                self.ticks += 1
                self.since_ns = monotonic_ns()
            elif self.overflow == OVERFLOW_DROP_OLDEST:
                if not self.shed(share, partition):
                    return True                  # all of it is in hand, and the newest is what this policy is chosen for
            else:
                self.refuse_next(message, share, partition)
                return False
        return True

    cdef bint shed(self, Sources share, Py_ssize_t partition):
        """Fail the object that has waited longest in a partition; whether there was any."""
        cdef Chunk chunk
        with self.lock:                          # in the queue or refused: whoever sweeps first this, then that, finds it
            if self.taken:                       # and from then on only the queue is looked at
                return True
            try:
                message = (<Queue>share.inboxes[0]).queue.popleft()
            except IndexError:
                return False
            chunk = self.begin_refusing(message, partition, share.account)
        self.end_refusing(chunk, share)
        return True

    cdef refuse_next(self, Message message, Sources share, Py_ssize_t partition):
        """Fail the next message in hand, unless that is no longer ours; and its connection, where the policy wants it."""
        cdef Chunk chunk
        with self.lock:
            if self.taken:
                return
            self.at += 1
            chunk = self.begin_refusing(message, partition, self.account)
        self.end_refusing(chunk, share)
        if self.overflow == OVERFLOW_ERROR and message.origin is not None:
            self.fail_connection(message.origin, message.connection_index, message.epoch)

    cdef Chunk begin_refusing(self, Message message, Py_ssize_t partition, Account account):
        """A message fails for which its partition had no room; `account` is charged with it. It is where whoever stops the
        pipeline finds it, whatever handle_failed does. Under the lock."""
        cdef Chunk chunk = Chunk(account)
        if message.verdict is None:
            message.set_verdict(Failed(f"partition {partition} was full"))
        fill(chunk, [message])
        self.refusing = chunk
        return chunk

    cdef end_refusing(self, Chunk chunk, Sources share):
        """Have handle_failed see it, and acknowledge it, if nobody else has meanwhile."""
        share.refused.fetch_add(1, memory_order_relaxed)
        self.ticks += 1
        try:
            if not self.is_over():               # else whoever stops the pipeline may have looked already
                call_handle_failed(self.crew, chunk, [0])
        finally:
            messages = chunk.close()
            if messages is not None:
                self.failed += 1                 # before whoever is told of it can ask
                acknowledge([one for one in messages if (<Message>one).holder is chunk])
                chunk.account.c.release(chunk.left, chunk.size)
            with self.lock:
                self.refusing = None

    cdef fail_connection(self, object origin, uint32_t index, uint32_t epoch):
        """Have the connection closed whose message found no room, if it is still that generation."""
        try:
            origin.fail(index, epoch, QueueOverflow('there was no room for a message in its partition, and overflow is '
                                                    '"error"'))
        except BaseException as raised:          # its producer is another kind, or has ended
            self.crew.log_failure("overflow", raised)

    # ------------------------------------------------------------------------------------------------ from other threads

    def change_wanted(self) -> None:
        """Have another number of partitions made, once everything under way is settled. Thread-safe."""
        self.changing.store(1, memory_order_release)           # pairs with the acquire in work
        self.sources.parker.c.notify_all()
        self.bell.ring()

    def change_partitions(self):
        """Give nothing to anybody until all that was given is settled, then have the partitions changed."""
        cdef unsigned int pause = SETTLE_US
        while not self.is_over():
            if self.settled():
                self.changing.exchange(0, memory_order_acq_rel)
                self.change()
                return
            with nogil:
                usleep(pause)
            pause = min(pause * 2, 64 * SETTLE_US)

    def end(self) -> None:
        """Leave once nothing is left to claim."""
        self.ending.store(1, memory_order_release)             # pairs with the acquire in work
        self.sources.parker.c.notify_all()

    def take_over(self, reason) -> int:
        """After the crew was closed: fail what is in hand, even while a callable or handle_failed has not returned; how many
        those were."""
        cdef list rest = []
        cdef Chunk refused
        with self.lock:
            self.taken = True
            refused, self.refusing = self.refusing, None
            if self.hand is not None:
                rest = self.hand[self.at:]
                self.hand = None
        return self.fail(rest, reason) + (0 if refused is None else sum(refused.take_over(reason)))

    cdef Py_ssize_t fail(self, list messages, object reason):
        """Acknowledge messages as failed that are in no partition; how many."""
        cdef Chunk chunk
        if messages:
            chunk = Chunk(self.account)
            fill(chunk, messages)
            chunk.take_over(reason)
        return len(messages)

    def release(self) -> None:
        """Give the bell's descriptor back: its thread has ended."""
        self.bell.shut()

    def move_hand(self) -> None:
        """Move on what is in hand and no object, whatever room there is, for whoever sweeps; its thread has ended."""
        self.give_up()

    @property
    def held(self) -> int:
        """About how many messages are in hand that are no objects yet."""
        return sum([fanout.held for fanout in self.snapshot()[1]])

    def ack_now(self, message) -> None:
        """A message that is in hand here cannot be acknowledged."""
        raise EngineError(f"{message!r} waits for a processor; acknowledge it in its handler")

    @property
    def figures(self) -> list:
        """Of each partition: its sources, how often a message found it full, and for how many it had no room. All of one
        moment's partitions, whoever changes them meanwhile."""
        cdef list shares, fanouts
        cdef Sources share
        shares, fanouts = self.snapshot()
        return [(share, share.stalls.load(memory_order_relaxed) + sum([fanout.stalls(at) for fanout in fanouts]),
                 share.refused.load(memory_order_relaxed) + sum([fanout.dropped(at) for fanout in fanouts]))
                for at, share in enumerate(shares)]

    cdef tuple snapshot(self):
        """Shares and fanouts that belong together."""
        with self.lock:
            return self.view


cdef list taken_of(object queue):
    """Take what waits in a queue out, some of it at a time."""
    cdef list messages = []
    try:
        while len(messages) < CHUNK:
            messages.append(queue.popleft())
    except IndexError:                           # that was all
        pass
    return messages


cdef fill(Chunk chunk, list messages):
    """Have a chunk hold messages that are charged to its account."""
    cdef Message message
    for message in messages:
        message.holder = chunk
        chunk.size += message.charged
    chunk.messages = messages
    chunk.left = len(messages)
