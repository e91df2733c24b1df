"""The reader thread of one producer: it runs the loop over its connections, or stands by while a processor does.

Where many messages wait and all processors have work, the reader rests for moments, so that messages are taken up while
they are still in caches. Where little comes and the one processor waits for it, the reader lends it the loop: the message
then reaches its handler in the thread that has read it, without a second wake. What the loop does is written in reader.

    reads ──▶ many wait, all busy ──▶ rests ──▶ half is done, a processor is idle, or 1 ms ──▶ reads
    reads ──▶ little for an idle processor, some rounds long ──▶ stands by
    stands by ──▶ called, or nobody has led for a while ──▶ reads
"""
from typing import NamedTuple

cimport cython
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy
from libcpp.atomic cimport atomic, memory_order_acquire, memory_order_relaxed
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.ref cimport Py_DECREF, Py_INCREF
from wsengine.engine.control cimport Control, ControlBlock
from wsengine.engine.intake cimport Intake, intake_start, intake_stop
from wsengine.engine.overflow cimport OVERFLOW_DROP_OLDEST, policy
from wsengine.engine.reader cimport (KIND_PING, KIND_PONG, ORDER_ADD, ORDER_CLOSE, ORDER_DISCARD, ORDER_RELEASE, ORDER_STOP,
                                     CNote, Command, CommandBox, NoteBox, Order, Poller, Reader, free_command, note_control,
                                     patience, take_round)
from wsengine.engine.ring cimport CAccount, CParker, Parker, Ring, monotonic_ns
from wsengine.engine.stream cimport Stream, Wire, wire_free
from wsengine.errors import ConfigurationError, EngineError


class Note(NamedTuple):
    """What the reader tells the supervisor. Fields that a kind does not use are 0 or empty."""

    kind: str
    index: int
    epoch: int
    cause: str
    code: int
    error: int
    text: bytes
    detail: int
    round_trip: float


KINDS = ("ended", "high", "low", "drop", "ping", "pong")
CAUSES = ("none", "closed", "failed", "eof", "error", "idle", "pong", "released", "memory", "tls", "overflow")


# ----------------------------------------------------------------------------------------------------------- the loops

cdef void rest(Reader* reader) noexcept nogil:
    """While every processor has work, and more waits than caches hold, leave what comes to the kernel until half of it is
    done, or a processor finds nothing to do: what they copy is then still near. Bounded, as handlers may take their
    time, and pings may not."""
    cdef CAccount* account = reader.intake.account
    if account.deep() and reader.intake.ring.depth() >= REST_DEPTH and reader.intake.parker.waiters() == 0:
        account.rest(reader.intake.door)
        if account.deep() and reader.intake.parker.waiters() == 0:    # else the bell may have been rung before
            reader.bell.wire().wait(REST_MS)


cdef bint calm(Reader* reader, uint64_t tail) noexcept nogil:
    """Whether a round, which began with the ring's `tail` there, brought little, and for an idle processor."""
    return reader.met_idle and reader.again_count == 0 and reader.intake.ring.tail() - tail <= FEW


cdef void read_loop(Reader* reader) noexcept nogil:
    """The reader's own."""
    cdef uint64_t tail
    cdef int calm_rounds = 0
    while not reader.stopping:
        rest(reader)
        tail = reader.intake.ring.tail()
        take_round(reader, patience(reader))
        if not reader.bell.lead().lent() or reader.intake.ring.tail() == tail:
            continue
        # one that is not calm undoes two: pings, too, wake the processor, and a message right behind finds it awake
        calm_rounds = calm_rounds + 1 if calm(reader, tail) else max(calm_rounds - 2, 0)
        if calm_rounds == CALM_ROUNDS and not reader.stopping:
            calm_rounds = 0
            reader.bell.hand_over(False)
            reader.intake.parker.notify()     # the processor may have asked for the lead before it was free
            reader.bell.lead().stand_by()


cdef inline bint has_reason(Reader* reader, CParker* parker, uint32_t seen) noexcept nogil:
    """Whether a processor that leads has reason to leave the loop."""
    return reader.stopping or parker.changed(seen) or reader.intake.ring.ready()


cdef void lead_a_while(void* context, CParker* parker, uint32_t seen, int64_t spin_ns) noexcept nogil:
    """A processor's, which has found nothing to do: until it has, or is woken, or a slice is over. With `spin` it polls
    without waiting, for as long as that says."""
    cdef Reader* reader = <Reader*>context
    cdef int64_t now = monotonic_ns(), begun = now
    cdef int most
    if not has_reason(reader, parker, seen):
        reader.bell.lead().count_turn()
    reader.intake.lent = True
    while not has_reason(reader, parker, seen) and now - begun < SLICE_NS:
        most = patience(reader)
        if most < 0 or most > SLICE_MS:
            most = SLICE_MS
        take_round(reader, 0 if now - begun < spin_ns else most)
        now = monotonic_ns()
    reader.intake.lent = False
    reader.bell.hand_over(reader.stopping or reader.again_count != 0 or reader.intake.ring.depth() > FEW)


cdef int open_intake(Intake* intake, Ring ring, Reader* reader) except -1:
    """Have the reader bring messages into a ring, and be woken where the ring's account has room again."""
    if ring.account.doors >= 64:
        raise EngineError("one pipeline takes at most 64 producers")
    if ring.c.capacity() < ring.account.c.max_messages():
        raise ConfigurationError("capacity", ring.c.capacity(), "give the ring at least as many slots as its account "
                                 f"admits messages, {ring.account.c.max_messages()}")
    if not intake_start(intake, ring.c, ring.account.c, ring.parker.c, ring.pool):
        raise MemoryError()
    intake.door = ring.account.doors
    ring.account.doors += 1
    ring.account.c.set_door(intake.door, reader.bell)
    intake.notes = reader
    intake.note_control = note_control
    return 0


@cython.no_gc_clear  # its C++ parts use what its attributes own, until the very end
cdef class Inflow:
    """Where the messages of one connection come in that has a ring to itself, a guest of the receiver's reader.

    Args:
        ring: a guest.
        receiver: which will be given the connection.
        overflow: what happens where there is no room, as of Receiver.
    """

    def __cinit__(self, Ring ring not None, Receiver receiver not None, *, overflow="block"):
        self.ring = ring
        self.receiver = receiver
        self.intake = <Intake*>calloc(1, sizeof(Intake))
        if self.intake == NULL:
            raise MemoryError()
        open_intake(self.intake, ring, receiver.reader)
        self.intake.overflow = policy(overflow)

    def __dealloc__(self):
        if self.intake != NULL:
            if self.intake.slab != NULL:
                self.ring.account.c.set_door(self.intake.door, NULL)
            intake_stop(self.intake)
            free(self.intake)


@cython.no_gc_clear  # its C++ parts use what its attributes own, until the very end
cdef class Receiver:
    """The reader of one producer. `run` is the body of its thread; everything else may be called from any thread.

    Args:
        ring: where messages go; its account pauses and resumes reading, its parker is notified.
        supervisor: notified after each note.
        timer: notified when a closing handshake begins.
        loud: whether pings and pongs are noted.
        overflow: what happens to messages of the ring for which there is no room: "block", "drop_oldest", "drop_newest",
            "error". ConfigurationError for another.
        controls: the blocks of the connections whose messages come into the ring, by index; only "drop_oldest" needs them.
    """

    def __cinit__(self, Ring ring not None, Parker supervisor not None, Parker timer not None, *, bint loud=False,
                  overflow="block", controls=()):
        cdef ControlBlock block
        self.ring = ring
        self.owners = {}
        self.supervisor = supervisor
        self.timer = timer
        self.reader = <Reader*>calloc(1, sizeof(Reader))
        if self.reader == NULL:
            raise MemoryError()
        self.reader.poller = new Poller()
        self.reader.bell = ring.bell
        self.reader.commands = new CommandBox()
        self.reader.notes = new NoteBox()
        self.reader.pending = new atomic[uint32_t](0)
        self.reader.discards = new atomic[uint32_t](0)
        self.reader.supervisor = supervisor.c
        self.reader.timer = timer.c
        ring.lead.set_loop(lead_a_while, self.reader)
        if not self.reader.poller.valid():
            raise OSError("the reader got no descriptor for its poll set; raise the limit of open files")
        self.reader.poller.add(self.reader.bell.wire().fd(), NULL, True, False)
        open_intake(&self.reader.intake, ring, self.reader)
        self.reader.intake.loud = loud
        self.reader.intake.overflow = policy(overflow)
        self.places = list(controls)
        self.reader.intake.controls = <Control**>calloc(len(self.places) + 1, sizeof(Control*))
        if self.reader.intake.controls == NULL:
            raise MemoryError()
        if not self.places and self.reader.intake.overflow == OVERFLOW_DROP_OLDEST:
            raise ConfigurationError("controls", controls, "give the blocks of the connections whose messages may be dropped")
        for i, block in enumerate(self.places):
            self.reader.intake.controls[<int>i] = block.c

    def __dealloc__(self):
        cdef Wire* wire
        cdef Command* command
        cdef Command* next_command
        if self.reader == NULL:
            return
        if self.reader.intake.slab != NULL:
            self.ring.account.c.set_door(self.reader.intake.door, NULL)
        while self.reader.wires != NULL:
            wire = self.reader.wires
            self.reader.wires = wire.next
            wire_free(wire)
        command = self.reader.commands.take_in_order() if self.reader.commands != NULL else NULL
        while command != NULL:
            next_command = command.next
            if command.wire != NULL:
                wire_free(<Wire*>command.wire)
            free_command(command)
            command = next_command
        self.notes()
        intake_stop(&self.reader.intake)
        free(self.reader.intake.controls)
        free(self.reader.again)
        del self.reader.poller
        del self.reader.commands
        del self.reader.notes
        del self.reader.pending
        del self.reader.discards
        free(self.reader)

    def run(self) -> None:
        """Read until `stop`, or stand by while a processor reads; without the GIL all the while. Once: EngineError the
        second time."""
        if self.running:
            raise EngineError("this reader runs, or has run, already")
        self.running = True
        with nogil:
            read_loop(self.reader)

    cdef int send_command(self, Order order, uint32_t index, uint32_t epoch, uint16_t code, bytes text,
                          bint discard=False) except -1:
        cdef Command* command = <Command*>calloc(1, sizeof(Command))
        if command == NULL:
            raise MemoryError()
        command.order = order
        command.index = index
        command.epoch = epoch
        command.code = code
        command.discard = discard
        if len(text) > 123:                      # a Close has room for so many (RFC 6455 §5.5.1); cut between characters
            text = text[:123].decode("utf-8", "ignore").encode()
        command.text_size = <uint8_t>len(text)
        memcpy(command.text, <const char*>text, command.text_size)
        self.reader.commands.push(command)
        self.reader.bell.ring()
        return 0

    def add(self, Stream stream not None, Inflow inflow=None) -> None:
        """Give the reader a connection. It ends in one note "ended", and its descriptor must stay open until then.

        Args:
            inflow: where its messages go; the receiver's own ring by default. `forget` lets go of it, behind that note.
        """
        cdef Command* command
        if stream.wire == NULL:
            raise EngineError("this stream has been given to a reader already")
        command = <Command*>calloc(1, sizeof(Command))
        if command == NULL:
            raise MemoryError()
        command.order = ORDER_ADD
        command.leftover_size = len(stream.leftover)
        if command.leftover_size:
            command.leftover = <uint8_t*>malloc(command.leftover_size)
            if command.leftover == NULL:
                free(command)
                raise MemoryError()
            memcpy(command.leftover, <const char*>stream.leftover, command.leftover_size)
        owned = stream.control_owner, inflow
        self.owners[id(stream.control_owner)] = owned
        if inflow is not None:
            Py_INCREF(owned)      # not the collector's: in a child after a fork nothing shall be freed below the wire
        stream.wire.intake = &self.reader.intake if inflow is None else inflow.intake
        if inflow is not None:
            inflow.intake.sole = stream.wire.control
        command.wire = stream.wire
        stream.wire = NULL
        self.reader.commands.push(command)
        self.reader.bell.ring()

    def forget(self, ControlBlock control not None) -> None:
        """Its connection has ended, which a note has told, and there will be no other soon."""
        owned = self.owners.pop(id(control), None)
        if owned is not None and owned[1] is not None:
            Py_DECREF(owned)

    def close(self, uint32_t index, uint32_t epoch, uint16_t code, bytes reason=b"", *, bint discard=False) -> None:
        """Begin the closing handshake; the note "ended" comes with the peer's Close, or after `close_timeout`.

        Messages are still delivered, unless told to `discard` them.
        """
        self.send_command(ORDER_CLOSE, index, epoch, code, reason, discard)

    def release(self, uint32_t index, uint32_t epoch) -> None:
        """Let go of a connection at once; the note "ended" says when that has happened."""
        self.send_command(ORDER_RELEASE, index, epoch, 0, b"")

    def discard(self) -> None:
        """Deliver nothing more from the connections there are; they go on answering pings. `quiet` says when it is so."""
        self.discards += 1
        self.send_command(ORDER_DISCARD, 0, 0, 0, b"")

    @property
    def quiet(self) -> bool:
        """Whether every `discard` has been carried out: nothing more is pushed by the connections there were."""
        return self.reader.discards[0].load(memory_order_acquire) == self.discards

    def stop(self) -> None:
        """Let go of all connections and make `run` return."""
        self.send_command(ORDER_STOP, 0, 0, 0, b"")

    def dispose(self) -> None:
        """Give the descriptors back; after `run` has returned."""
        self.ring.account.c.set_door(self.reader.intake.door, NULL)
        self.reader.poller.shut()
        self.reader.bell.shut()

    @property
    def lent(self) -> int:
        """How often a processor has read in this thread's place."""
        return self.ring.lead.turns()

    @property
    def noted(self) -> bool:
        """Whether `notes` would return something."""
        return not self.reader.notes.empty()

    def notes(self) -> list:
        """What has happened since the last call, in order. One thread at a time: the supervisor."""
        cdef CNote* note = self.reader.notes.take_in_order()
        cdef CNote* next
        taken = []
        while note != NULL:
            next = note.next
            if note.kind == KIND_PING or note.kind == KIND_PONG:
                self.reader.pending[0].fetch_sub(1, memory_order_relaxed)
            taken.append(Note(KINDS[<int>note.kind], note.index, note.epoch, CAUSES[note.cause], note.code, note.error,
                              PyBytes_FromStringAndSize(<const char*>note.text, note.text_size), note.detail,
                              note.round_trip_ns / 1e9))
            free(note)
            note = next
        return taken
