"""The ping timer thread: pings at their due times, whatever the handlers do, and asks for connections that fell silent.

Its clock is monotonic and its state is a schedule a connection, so a tick is a function of `now`. It never judges: a
connection is lost only when the reader, asked, has read once more and found nothing (reference W-1, W-3, W-21). Deadlines
of one generation die with it, because each tick compares generations before anything else.
"""
cimport cython
from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset
from libcpp.atomic cimport atomic, memory_order_acquire, memory_order_relaxed, memory_order_release
from wsengine.engine.frames cimport OP_PING, mask_keys_start
from wsengine.engine.receiver cimport Receiver
from wsengine.engine.ring cimport Parker, monotonic_ns
from wsengine.engine.control cimport ASK_CLOSE, ASK_IDLE, ASK_PONG, Control, ControlBlock
from wsengine.engine.output cimport OutFrame, frame_make
from wsengine.errors import EngineError

cdef int64_t NEVER = 0x7FFFFFFFFFFFFFFF


cdef void send_ping(Control* control, Schedule* plan, KeepaliveTimer timer, int64_t now) noexcept nogil:
    """Our pings carry generation and number, big-endian, so that a pong is matched with its own ping."""
    cdef uint8_t payload[8]
    cdef OutFrame* frame
    cdef int i
    plan.number += 1
    for i in range(4):
        payload[i] = <uint8_t>(plan.epoch >> (24 - 8 * i))
        payload[4 + i] = <uint8_t>(plan.number >> (24 - 8 * i))
    frame = frame_make(&timer.keys, OP_PING, payload, 8, plan.epoch)
    if frame == NULL:
        return
    control.ping_sent_ns[plan.number % 16].store(now, memory_order_relaxed)
    # release: pairs with the reader's acquire, so that it finds the time of a ping it knows of
    control.ping_number.store(plan.number, memory_order_release)
    control.outbox.push(frame)
    timer.bell.ring()


cdef int64_t ask(Control* control, Schedule* plan, KeepaliveTimer timer, uint32_t what, int64_t now) noexcept nogil:
    """Ask the reader, unless it was asked just now; returns when to look again."""
    if now - plan.asked_ns >= RETRY_NS:
        plan.asked_ns = now
        control.asks.fetch_or(what, memory_order_release)  # pairs with the reader's exchange acquire
        timer.bell.ring()
    return plan.asked_ns + RETRY_NS


cdef int64_t watch_silence(Control* control, Schedule* plan, KeepaliveTimer timer, int64_t now) noexcept nogil:
    cdef int64_t due, limit = control.ws_timeout_ns.load(memory_order_relaxed)
    if not limit:
        return NEVER
    if control.paused.load(memory_order_relaxed):
        return now + limit                     # resuming resets the clock, so nothing is due before that
    due = control.heard_ns.load(memory_order_relaxed) + limit
    return due if now < due else ask(control, plan, timer, ASK_IDLE, now)


cdef int64_t watch_pong(Control* control, Schedule* plan, KeepaliveTimer timer, int64_t now) noexcept nogil:
    cdef uint32_t oldest = control.pong_number.load(memory_order_relaxed) + 1
    cdef int64_t due, limit = control.pong_timeout_ns.load(memory_order_relaxed)
    if not limit or oldest > plan.number:
        return NEVER
    if control.paused.load(memory_order_relaxed):
        return now + limit
    if plan.number - oldest > 15:
        oldest = plan.number - 15
    due = max(control.ping_sent_ns[oldest % 16].load(memory_order_relaxed),
              control.resumed_ns.load(memory_order_relaxed)) + limit
    return due if now < due else ask(control, plan, timer, ASK_PONG, now)


cdef int64_t tick(Control* control, Schedule* plan, KeepaliveTimer timer, int64_t now) noexcept nogil:
    """Do what is due for one connection; returns when something will be due next."""
    # acquire: pairs with Control::begin, so that the generation's constants are seen
    cdef uint32_t epoch = control.epoch.load(memory_order_acquire)
    cdef int64_t next = NEVER, close_due, period = control.keepalive_ns.load(memory_order_relaxed)
    if epoch == 0:
        plan.epoch = 0
        return NEVER
    if epoch != plan.epoch:
        plan.epoch = epoch
        plan.number = 0
        plan.asked_ns = now - RETRY_NS
        plan.ping_ns = control.started_ns.load(memory_order_relaxed) + period
    close_due = control.close_due_ns.load(memory_order_relaxed)
    if close_due:                              # closing: nothing but its deadline matters
        return close_due if now < close_due else ask(control, plan, timer, ASK_CLOSE, now)
    if period:
        if now >= plan.ping_ns:
            send_ping(control, plan, timer, now)
            plan.ping_ns += period * ((now - plan.ping_ns) // period + 1)
        next = plan.ping_ns
    next = min(next, watch_silence(control, plan, timer, now))
    return min(next, watch_pong(control, plan, timer, now))


@cython.no_gc_clear  # its C++ parts use what its attributes own, until the very end
cdef class KeepaliveTimer:
    """The ping timer of one producer. `run` is the body of its thread.

    Args:
        receiver: whose bell is rung when a ping has been put out or a question asked.
        controls: the control blocks of all places that there are from the beginning.
        parker: wakes the timer when a generation begins or a closing handshake gets its deadline.
        room: how many places there may be in the end; `add` makes others.
    """

    def __cinit__(self, Receiver receiver not None, controls, Parker parker not None, *, uint32_t room=0):
        cdef ControlBlock block
        self.owners = list(controls)
        self.receiver = receiver
        self.bell = receiver.reader.bell
        self.parker = parker
        self.room = max(room, <uint32_t>len(self.owners))
        self.places = new atomic[uint32_t](0)
        self.controls = <Control**>calloc(self.room + 1, sizeof(Control*))
        self.schedules = <Schedule*>calloc(self.room + 1, sizeof(Schedule))
        self.stopping = new atomic[uint32_t](0)
        if self.controls == NULL or self.schedules == NULL:
            raise MemoryError()
        for i, block in enumerate(self.owners):
            self.controls[<int>i] = block.c
        self.places.store(<uint32_t>len(self.owners), memory_order_release)
        mask_keys_start(&self.keys)

    def __dealloc__(self):
        free(self.controls)
        free(self.schedules)
        del self.stopping
        del self.places

    cdef int64_t tick_all(self, int64_t now) noexcept nogil:
        cdef int64_t next = NEVER
        cdef uint32_t i
        for i in range(self.places.load(memory_order_acquire)):
            next = min(next, tick(self.controls[i], &self.schedules[i], self, now))
        return next

    def tick(self, int64_t now):
        """Do what is due at `now` (monotonic nanoseconds); when something is due next, None for never. For tests."""
        cdef int64_t next = self.tick_all(now)
        return None if next == NEVER else next

    def run(self) -> None:
        """Keep time until `stop`; without the GIL all the while."""
        cdef uint32_t seen
        cdef int64_t now, next
        with nogil:
            while not self.stopping.load(memory_order_acquire):
                seen = self.parker.c.prepare()
                now = monotonic_ns()
                next = self.tick_all(now)
                if self.stopping.load(memory_order_acquire):
                    self.parker.c.leave()
                    break
                self.parker.c.wait(seen, -1 if next == NEVER else max(next - monotonic_ns(), <int64_t>0))

    def add(self, ControlBlock control not None) -> int:
        """Make another place; its number. One thread at a time. EngineError where there is no room for it."""
        cdef uint32_t number = self.places.load(memory_order_relaxed)
        if number == self.room:
            raise EngineError(f"there is room for {self.room} connections at a time")
        self.owners.append(control)
        self.controls[number] = control.c
        self.places.store(number + 1, memory_order_release)
        return number

    def wake(self) -> None:
        """Look again at what is due: a generation has begun."""
        self.parker.notify()

    def stop(self) -> None:
        """Make `run` return."""
        self.stopping.store(1, memory_order_release)
        self.parker.notify_all()
