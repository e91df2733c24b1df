"""The dispatcher: one thread that calls `frame_handler` for each message in order, and hands on what it emits.

    rings ──▶ claim ──▶ frame_handler ──▶ transformer ──▶ queue ──▶ processors
                              │ replies ──▶ the connection
                              └ error ──▶ the connection is failed, the rest of its generation dropped

What waits in the rings, what is in hand here and what is queued are charged to the pipeline's one account: a frame's charge
passes to what is emitted for it. Where an emission is larger than what it replaces, the dispatcher waits for room; if
nothing that was emitted is left with the processors, there is nobody to make room, and it goes on all the same. So an
account may be over its bound by what one frame emits, and never for longer than that is being handled.

Where the reader drops what has waited longest (`overflow="drop_oldest"`), messages have to wait where it finds them: in the
ring. From such a ring a small part of the bound is claimed, and only when the processors have taken all that was emitted
before. A dispatcher that queued whatever comes would leave the ring empty, the reader would find nothing to drop and admit
each message as the newest, and nothing would be bounded.
"""
from collections import deque

from wsengine.errors import EngineError, FrameHandlerError

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libcpp.atomic cimport atomic, memory_order_acquire, memory_order_release
from wsengine.engine.ring cimport CAccount, Descriptor, Parker, Ring, SlabPool
from wsengine.message cimport Message
from wsengine.pipeline.crew cimport Crew
from wsengine.pipeline.emission cimport emit, marker
from wsengine.pipeline.frame_handler cimport Emit, Fail, FrameHandler, Skip, judged
from wsengine.pipeline.materialiser cimport CHUNK, Materialiser

cdef int64_t SLICE_NS = 1000000000       # it looks up once a second, whatever became of a wake
cdef double ROOM_SLICE = 0.02            # the same of a wait for room: not everybody who releases notifies


cdef Emit HAND_ON = Emit((), None)


cdef class Session:
    """One connection as its frame handler knows it."""


cdef class Course:
    """One ring, whose messages a frame handler sees."""

    def __cinit__(self, Ring ring not None, origin, FrameHandler handler not None, transformer, bint markers, bint sheds):
        self.ring = ring
        self.origin = origin
        self.handler = handler
        self.transformer = transformer
        self.markers = markers
        self.sheds = sheds
        self.sessions = {}
        self.opened = deque()


cdef class Dispatcher:
    """Calls frame handlers; `run` is the body of its thread. To the crew it is an inbox: processors claim from `queue`.

    Args:
        crew: of the pipeline; it takes what is emitted.
    """

    def __cinit__(self, Crew crew not None):
        self.crew = crew
        self.thread_name = f"wsengine:{crew.name}:dispatcher"
        self.queue = deque()
        self.parker = Parker()
        self.room = Parker()
        self.courses = []
        self.materialiser = Materialiser.__new__(Materialiser, crew.account)
        self.ending = new atomic[int](0)
        self.closed = new atomic[int](0)

    def __dealloc__(self):
        del self.ending
        del self.closed

    def add_ring(self, Ring ring, origin, FrameHandler handler, transformer=None, bint markers=False,
                 bint sheds=False) -> None:
        """Take a ring, whose parker is this one's; `origin` knows its connections. With `markers` each generation of a
        connection begins with a message that says so, as `open` is told of it. `sheds`: its reader drops the oldest that
        wait in it. Before anything starts."""
        self.courses.append(Course(ring, origin, handler, transformer, markers, sheds))

    # --------------------------------------------------------------------------------------------------------- the loop

    def run(self) -> None:
        """Claim and dispatch until `end` and nothing is left to claim, or `close`. If the thread dies, another may run it:
        the generation that was being worked on is failed, as its state may be half changed, and the rest goes on."""
        cdef uint32_t seen
        cdef Session session = self.working
        if session is not None:
            self.break_session(session, FrameHandlerError("the dispatcher's thread died while it worked on this connection"))
            self.working = None
        while self.handle():
            self.parker.c.arrive()
            if self.claim():
                continue
            self.tell_drops()
            if self.held_back():
                self.await_taking()
                continue
            seen = self.parker.c.prepare()
            if self.wants_no_wait():
                self.parker.c.leave()
                if self.ending.load(memory_order_acquire) and not self.ready():
                    return
                continue
            with nogil:
                self.crew.account.c.wake_resting()
                self.parker.c.wait(seen, SLICE_NS)

    def wants_no_wait(self) -> bool:
        """Whether there is something to do, or it is to end."""
        return self.ready() or self.ending.load(memory_order_acquire) or self.closed.load(memory_order_acquire)

    cdef bint ready(self) noexcept:
        cdef Course course
        for course in self.courses:
            if course.ring.c.ready() or len(course.opened):
                return True
        return False

    cdef bint held_back(self) noexcept:
        """Whether all that there is to claim is to stay where it is, for processors have not taken what was emitted."""
        cdef Course course
        if len(self.queue) == 0 or self.closed.load(memory_order_acquire):
            return False
        for course in self.courses:
            if not course.sheds and (len(course.opened) or course.ring.c.ready()):
                return False
        return self.ready()

    def all_taken(self) -> bool:
        """Whether the processors have taken all that was emitted, or it is to end."""
        return len(self.queue) == 0 or self.closed.load(memory_order_acquire)

    def await_taking(self) -> None:
        """Wait until the processors have taken what was emitted. They tell of it where somebody asks; should one have
        looked for askers just before, the slice ends the wait."""
        self.crew.ask(1)
        try:
            self.room.wait(self.all_taken, ROOM_SLICE)
        finally:
            self.crew.ask(-1)

    cdef uint32_t most_of(self, Course course) noexcept:
        """How many to claim from a ring at the most."""
        cdef uint64_t size = CLAIM_BYTES, count = CHUNK
        if course.sheds:
            size = min(size, self.crew.account.c.max_bytes() // SHARE)
            count = min(count, max(self.crew.account.c.max_messages() // SHARE, <uint64_t>1))
        return <uint32_t>min(max(size // max(self.materialiser.usual, <uint32_t>1), <uint64_t>1), count)

    cdef bint claim(self):
        """Claim from one ring, the next in turn that has something, or deliver markers; whether there was any."""
        cdef Course course
        cdef list frames
        cdef Py_ssize_t i, places = len(self.courses)
        if self.closed.load(memory_order_acquire):
            return False
        for i in range(places):
            course = <Course>self.courses[(self.turn + i) % places]
            if course.sheds and len(self.queue):
                continue
            if len(course.opened) and self.mark_due(course):
                return True
            if not course.ring.c.ready():
                continue
            frames = self.materialiser.claim(course.ring, self.most_of(course), course.origin, None)
            if frames is None:
                continue
            self.turn = <int>((self.turn + i + 1) % places)
            self.course = course
            with self.lock:
                self.at = 0
                self.frames = frames
            course.taken += len(frames)
            return True
        return False

    # ----------------------------------------------------------------------------------------------------------- markers

    cdef bint mark_due(self, Course course):
        """Deliver the markers before which everything has been claimed; whether there were any. Nothing is in hand."""
        cdef bint any_due = False
        cdef tuple entry
        while len(course.opened):
            entry = <tuple>course.opened[0]
            if <uint64_t>entry[0] > course.ring.c.head():
                break
            if not self.mark(course, entry):
                break
            any_due = True
        return any_due

    cdef mark_before(self, Message frame):
        """A generation's first message is in hand: deliver its connection's markers up to that generation's."""
        cdef tuple entry
        for entry in list(self.course.opened):
            if ((<Message>entry[1]).connection_index == frame.connection_index and (<Message>entry[1]).epoch <= frame.epoch
                    and not self.mark(self.course, entry)):
                return

    cdef bint mark(self, Course course, tuple entry):
        """Queue one marker, with the charge that it has; False if it is no longer ours."""
        with self.lock:
            if self.taken:
                return False
            course.opened.remove(entry)
            self.queue.append(entry[1])
        course.emitted += 1
        self.crew.sources.tell()
        return True

    # ------------------------------------------------------------------------------------------------------ what is in hand

    cdef bint handle(self):
        """Dispatch what is in hand; False if that was taken away meanwhile, or is to stay for who will."""
        cdef list frames = self.frames
        if frames is None:
            return not self.closed.load(memory_order_acquire)
        while self.at < len(frames):
            if self.closed.load(memory_order_acquire) or not self.dispatch(<Message>frames[self.at]):
                return False
        with self.lock:
            if self.taken:
                return False
            self.frames = None
        self.materialiser.keep(frames)
        return True

    # --------------------------------------------------------------------------------------------------------- one frame

    cdef bint dispatch(self, Message frame):
        """Have the handler see one message, and do what it wants; False if the pipeline was closed meanwhile."""
        cdef Session session = self.session_of(frame)
        cdef object outcome
        cdef bint done
        if session.broken:
            session.dropped += 1
            self.course.dropped += 1
            self.untold = True
            done = self.deliver(session, frame, None)
        else:
            self.working = session
            outcome = self.ask(frame, session.state)
            if isinstance(outcome, Emit):
                session.state = (<Emit>outcome).state
                done = self.deliver(session, frame, self.emission)
                self.emission = None
                if done and (<Emit>outcome).replies:
                    self.settle_replies(session, (<Emit>outcome).replies)
            elif isinstance(outcome, Skip):
                session.state = (<Skip>outcome).state
                done = self.deliver(session, frame, None)
                if done and (<Skip>outcome).replies:
                    self.settle_replies(session, (<Skip>outcome).replies)
            else:
                session.broken = True
                done = self.deliver(session, frame, None)
                self.break_session(session, outcome)
        self.working = None
        return done

    cdef object ask(self, Message frame, object state):
        """What the handler says to a message: an Emit, whose messages are made then, a Skip, or the failure as an error."""
        cdef object outcome
        try:
            if frame.verdict is not None:
                raise MemoryError("no memory for the payload")
            if self.course.handler.function is None:
                self.emission = emit(self, self.crew.log_failure, self.course.transformer, frame, (frame.payload,))
                return HAND_ON
            outcome = self.course.handler.function(frame.payload, state)
        except BaseException as raised:
            self.crew.log_failure("frame_handler", raised)
            return caused(f"it raised {type(raised).__name__}", raised)
        try:
            outcome = judged(outcome)
            if isinstance(outcome, Emit):
                self.emission = emit(self, self.crew.log_failure, self.course.transformer, frame, (<Emit>outcome).payloads)
        except TypeError as wrong:               # the text is ours, and says what to return instead
            self.crew.log_failure("frame_handler", wrong)
            return caused("it " + str(wrong).removeprefix("frame_handler "), wrong)
        except BaseException as raised:
            self.crew.log_failure("frame_handler", raised)
            return caused(f"what it returned could not be taken: {type(raised).__name__}", raised)
        return FrameHandlerError((<Fail>outcome).reason) if isinstance(outcome, Fail) else outcome

    cdef Session session_of(self, Message frame):
        """The session of a message; a new generation begins one."""
        cdef Session session = self.course.sessions.get(frame.connection_index)
        if session is not None and session.epoch == frame.epoch:
            return session
        if session is not None:
            self.tell_drops()
        session = Session.__new__(Session)
        session.index = frame.connection_index
        session.epoch = frame.epoch
        self.mark_before(frame)
        self.course.sessions[frame.connection_index] = session
        self.working = session
        try:
            session.state = self.course.handler.new_state()
        except BaseException as raised:
            self.crew.log_failure("frame_handler_state", raised)
            self.break_session(session, caused(f"frame_handler_state raised {type(raised).__name__}", raised))
        return session

    cdef break_session(self, Session session, object error):
        """Drop the rest of the generation, and have its connection closed."""
        session.broken = True
        session.state = None
        self.course.handler.sessions.fail(session.index, session.epoch, error)

    cdef settle_replies(self, Session session, object replies):
        """Send what the handler wants sent. What cannot be sent though the connection is there breaks the session."""
        try:
            self.course.mute += self.course.handler.sessions.reply(session.index, session.epoch, replies)
        except BaseException as raised:
            self.crew.log_failure("a reply of frame_handler", raised)
            self.break_session(session, caused(f"a reply could not be sent: {type(raised).__name__}", raised))

    def tell_drops(self) -> None:
        """Tell what was dropped behind failures since the last call; before it waits, and before a new generation."""
        cdef Course course
        cdef Session session
        cdef uint64_t count
        if not self.untold:
            return
        self.untold = False
        for course in self.courses:
            for session in list(course.sessions.values()):
                if session.dropped:
                    count, session.dropped = session.dropped, 0
                    course.handler.sessions.dropped(session.index, session.epoch, count)

    # ---------------------------------------------------------------------------------------------------- what is emitted

    cdef bint fits(self, Py_ssize_t messages, int64_t size) noexcept:
        cdef uint64_t level = self.crew.account.c.level()
        return ((messages <= 0 or CAccount.messages_of(level) + messages <= self.crew.account.c.max_messages())
                and (size <= 0 or CAccount.bytes_of(level) + size <= self.crew.account.c.max_bytes()))

    def has_room(self) -> bool:
        """Whether what is awaited fits, or there is no sense in waiting for it: a reader that sheds fills whatever room
        there is, so behind such a one it is enough that the processors have taken what was emitted before."""
        return (self.fits(self.wanted, self.wanted_size) or self.closed.load(memory_order_acquire)
                or (len(self.queue) == 0 and (self.course.sheds or self.crew.nobody_busy())))

    cdef bint await_room(self, Py_ssize_t messages, int64_t size):
        """Wait until so much more fits, or nobody could make room by acknowledging; False if the pipeline was closed."""
        self.wanted = messages
        self.wanted_size = size
        self.crew.ask(1)
        try:
            while not self.has_room():
                self.room.wait(self.has_room, ROOM_SLICE)
        finally:
            self.crew.ask(-1)
        return not self.closed.load(memory_order_acquire)

    cdef bint deliver(self, Session session, Message frame, list messages):
        """Queue what was emitted for a frame, and pass its charge on; then the frame is done. False if it is no longer ours."""
        cdef Message message
        cdef Py_ssize_t count
        cdef uint64_t size = 0
        cdef int64_t more
        count = 0 if messages is None else len(messages)
        if count:
            for message in messages:
                size += message.charged
        more = <int64_t>size - <int64_t>frame.charged
        if (count > 1 or more > 0) and not self.fits(count - 1, more) and not self.await_room(count - 1, more):
            return False
        with self.lock:
            if self.taken:
                return False
            if count != 1 or more != 0:
                self.crew.account.c.charge(count, size)
                self.crew.account.c.release(1, frame.charged)
            self.at += 1
            if count:
                self.queue.extend(messages)
        if count:
            self.course.emitted += count
            self.crew.sources.tell()
        return True

    # ------------------------------------------------------------------------------------------------ from other threads

    @property
    def depth(self) -> int:
        """About how many messages wait in the rings."""
        return sum([(<Course>course).ring.c.depth() for course in self.courses])

    def asked(self) -> None:
        """Somebody has acknowledged messages, or taken the last that was queued: there may be room."""
        self.room.c.notify_all()

    def ack_now(self, message) -> None:
        """A message that still waits here cannot be acknowledged."""
        raise EngineError(f"{message!r} waits for a processor; acknowledge it in its handler")

    def open(self, Ring ring not None, uint32_t index, uint32_t epoch) -> None:
        """A generation of one of the ring's connections begins: its marker goes behind all that is in the ring now, the end of
        the generation before among it, and ahead of the generation's first message, which must come later. It is charged
        from here on, and no overflow policy drops it. Nothing where no markers are wanted."""
        cdef Course course
        cdef Message message
        for course in self.courses:
            if course.ring is ring and course.markers:
                message = marker(self, course.origin, index, epoch)
                with self.lock:
                    if self.taken:               # whoever stops the pipeline has let go of what waits here
                        return
                    self.crew.account.c.charge(1, 0)
                    course.opened.append((course.ring.c.tail(), message))
        self.parker.c.notify()

    def figures(self, Ring ring not None) -> dict:
        """What became of the messages of one ring: messages taken, messages emitted, messages dropped behind failures, and
        replies that were dropped."""
        cdef Course course
        for course in self.courses:
            if course.ring is ring:
                return {"taken": course.taken, "emitted": course.emitted, "dropped": course.dropped,
                        "replies_dropped": course.mute}
        raise EngineError("this ring is not the dispatcher's")

    def end(self) -> None:
        """Leave once nothing is left to claim."""
        self.ending.store(1, memory_order_release)   # pairs with the acquire in run
        self.parker.c.notify_all()

    def close(self) -> None:
        """Call no handler and emit nothing more: the deadline has come."""
        self.closed.store(1, memory_order_release)   # pairs with the acquire in claim and handle
        self.parker.c.notify_all()
        self.room.c.notify_all()

    def take_over(self) -> int:
        """After `close`: let go of all that waits in the rings, and of what is in hand, even while a handler has not
        returned; how many messages that were. What had been emitted before stays in `queue`."""
        cdef Course course
        cdef Descriptor one
        cdef uint64_t size = 0
        cdef Py_ssize_t count = 0, i
        with self.lock:
            self.taken = True
            if self.frames is not None:
                for i in range(self.at, len(self.frames)):
                    size += (<Message>self.frames[i]).charged
                    count += 1
                self.frames = None
            for course in self.courses:
                count += len(course.opened)
                course.opened.clear()
        if count:
            self.crew.account.c.release(count, size)
        for course in self.courses:
            while course.ring.c.pop(&one, 1):
                SlabPool.drop(one.arrival.slab, 1)
                self.crew.account.c.release(1, 0)
                count += 1
        return count


cdef object caused(str reason, object error):
    failure = FrameHandlerError(reason)
    failure.__cause__ = error
    return failure
