"""The reader thread of one producer: it polls its connections and one bell, and alone reads and writes their sockets.

Every connection gets the same quota a round. A connection that finds the pipeline full leaves the poll set, so that a
peer that resets meanwhile cannot spin it, and comes back when half of the bound is free. Where many messages wait and all
processors have work, the reader rests for moments, so that messages are taken up while they are still in caches. A
connection ends in exactly one note to the supervisor, after which the reader does not know its descriptor any more.

What becomes of a wire in the reader (phases: stream.pxd):

    registered ──▶ read at once, without a poll
    read: dry ──▶ polled          more ──▶ again next round     full ──▶ starved (off the poll set)
          end ──▶ ended (noted, freed)
    bell: commands ▸ asks of the timer ▸ outboxes ▸ starved ones, if half of the bound is free
"""
from typing import NamedTuple

cimport cython
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy
from libcpp cimport bool as cbool
from libcpp.atomic cimport atomic, memory_order_acquire, memory_order_relaxed, memory_order_release
from cpython.bytes cimport PyBytes_FromStringAndSize
from wsengine.engine.frames cimport Parsed
from wsengine.engine.ring cimport CAccount, CDoorbell, CParker, Parker, Ring, monotonic_ns
from wsengine.engine.control cimport ASK_CLOSE, ASK_IDLE, ASK_PONG, Control
from wsengine.engine.output cimport output_waits
from wsengine.engine.stream cimport (CAUSE_EOF, CAUSE_IDLE, CAUSE_MEMORY, CAUSE_PONG, CAUSE_RELEASED, PHASE_CLOSING,
                                     PHASE_DEAD, PHASE_ENDING, PHASE_OPEN, READ_DRY, READ_END, READ_FULL, READ_MORE, Intake,
                                     Reading, Stream, Wire, intake_settle, intake_start, intake_stop, wire_blame,
                                     wire_close, wire_feed, wire_free, wire_read, wire_write)
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


KINDS = ("ended", "high", "low", "ping", "pong")
CAUSES = ("none", "closed", "failed", "eof", "error", "idle", "pong", "released", "memory")


# --------------------------------------------------------------------------------------------------------------- notes

cdef void post(Reader* reader, CNote* note) noexcept nogil:
    reader.notes.push(note)
    reader.supervisor.notify()


cdef CNote* note_of(Kind kind, Wire* wire) noexcept nogil:
    cdef CNote* note = <CNote*>calloc(1, sizeof(CNote))
    if note != NULL:
        note.kind = kind
        if wire != NULL:
            note.index = wire.index
            note.epoch = wire.epoch
    return note


cdef void note_control(void* context, Wire* wire, bint ping, const Parsed* parsed, int64_t trip) noexcept nogil:
    """Note a ping or pong for telemetry; beyond a bound they are not noted: they are never a matter of liveness."""
    cdef Reader* reader = <Reader*>context
    cdef CNote* note
    if reader.pending[0].load(memory_order_relaxed) >= NOTES_PENDING:
        return
    note = note_of(KIND_PING if ping else KIND_PONG, wire)
    if note == NULL:
        return
    note.text_size = <uint8_t>parsed.size
    memcpy(note.text, parsed.payload, parsed.size)
    note.round_trip_ns = trip
    reader.pending[0].fetch_add(1, memory_order_relaxed)
    post(reader, note)


cdef void note_pressure(Reader* reader, Wire* wire, bint high) noexcept nogil:
    """Note that reading pauses or goes on. A "high" that comes too soon is noted later, if it lasts: see patience()."""
    cdef CNote* note
    cdef int64_t now = monotonic_ns()
    if high == reader.high or (high and now - reader.high_ns < PRESSURE_NS):
        return
    note = note_of(KIND_HIGH if high else KIND_LOW, wire)
    if note == NULL:
        return
    reader.high = high
    if high:
        reader.high_ns = now
    note.detail = reader.intake.account.level()
    post(reader, note)


# ---------------------------------------------------------------------------------------------------------- poll set

cdef void set_interest(Reader* reader, Wire* wire, bint write) noexcept nogil:
    """Be polled for what is of use: never for reading while starved, nor for anything if there is nothing to wait for."""
    cdef bint read = not wire.starved
    if wire.polled and read == wire.reading and write == wire.writing:
        return
    if not read and not write:
        if wire.polled:
            reader.poller.remove(wire.fd)
            wire.polled = False
    elif wire.polled:
        reader.poller.modify(wire.fd, wire, read, write)
    else:
        wire.polled = reader.poller.add(wire.fd, wire, read, write)
    wire.reading = read
    wire.writing = write


cdef void keep(Reader* reader, Wire* wire) noexcept nogil:
    """Have the wire read in the next round, without a poll."""
    cdef Wire** more
    if reader.again_count == reader.again_room:
        more = <Wire**>realloc(reader.again, (reader.again_room * 2 + 64) * sizeof(Wire*))
        if more == NULL:
            return                    # the poll set reports it anyway
        reader.again = more
        reader.again_room = reader.again_room * 2 + 64
    reader.again[reader.again_count] = wire
    reader.again_count += 1


cdef void forget(Reader* reader, Wire* wire) noexcept nogil:
    cdef size_t i, n = 0
    for i in range(reader.again_count):
        if reader.again[i] != wire:
            reader.again[n] = reader.again[i]
            n += 1
    reader.again_count = n


# ------------------------------------------------------------------------------------------------- one connection's turn

cdef void end(Reader* reader, Wire* wire) noexcept nogil:
    """Leave the socket for good: everything parsed has been pushed before. The supervisor may close it from here on."""
    cdef Wire** link = &reader.wires
    cdef CNote* note
    intake_settle(&reader.intake)
    wire_write(wire)                  # a last chance for a Close that is queued
    if wire.polled:
        reader.poller.remove(wire.fd)
    while link[0] != wire:
        link = &link[0].next
    link[0] = wire.next
    forget(reader, wire)
    if wire.starved:
        reader.starved -= 1
    wire.control.paused.store(0, memory_order_relaxed)
    note = NULL
    while note == NULL:               # this one must not get lost, and is small
        note = note_of(KIND_ENDED, wire)
    note.cause = wire.cause
    note.code = wire.code
    note.error = wire.error
    note.detail = wire.detail
    note.text_size = wire.text_size
    memcpy(note.text, wire.text, wire.text_size)
    wire_free(wire)
    post(reader, note)


cdef void put_out(Reader* reader, Wire* wire) noexcept nogil:
    cdef bint waits = wire_write(wire)
    set_interest(reader, wire, waits)


cdef void starve(Reader* reader, Wire* wire) noexcept nogil:
    """The pipeline is full: leave the poll set until half of the bound is free, unless it is by now."""
    if not reader.intake.account.starve(reader.door):
        keep(reader, wire)
        return
    wire.starved = True
    wire.hot = False
    reader.starved += 1
    wire.control.paused.store(1, memory_order_relaxed)
    Control.add(wire.control.pauses, 1)
    set_interest(reader, wire, output_waits(&wire.out))
    note_pressure(reader, wire, True)


cdef void feed_starved(Reader* reader) noexcept nogil:
    cdef Wire* wire = reader.wires
    cdef int64_t now
    if reader.starved == 0 or reader.intake.account.starve(reader.door):
        return
    now = monotonic_ns()
    while wire != NULL:
        if wire.starved:
            wire.starved = False
            reader.starved -= 1
            wire.control.resume(now)
            wire.control.paused.store(0, memory_order_relaxed)
            set_interest(reader, wire, output_waits(&wire.out))
            wire.hot = True
            keep(reader, wire)
        wire = wire.next
    note_pressure(reader, NULL, False)


cdef void take_turn(Reader* reader, Wire* wire) noexcept nogil:
    """Read the wire's quota, answer what wants an answer, and see to its next turn."""
    cdef CParker* parker = reader.intake.parker
    cdef Reading reading
    cdef bint early
    if wire.starved:
        return
    wire.hot = True
    early = parker.waiters() != 0 and wire.part_slab == NULL and not wire.discarding
    if early:
        parker.foretell()             # what there is to read is likely to be, or to complete, a message
    reading = wire_read(wire, &reader.intake)
    intake_settle(&reader.intake)
    if early:
        parker.fulfil()
    if reading == READ_END:
        end(reader, wire)
        return
    if wire.out.control_first != NULL or wire.phase == PHASE_ENDING:
        put_out(reader, wire)
        if wire.phase == PHASE_ENDING:
            reader.timer.notify()
    if reading == READ_FULL:
        starve(reader, wire)
    elif reading == READ_MORE:
        keep(reader, wire)


# ------------------------------------------------------------------------------------------------------- asks, commands

cdef bint pong_overdue(Control* control, int64_t now) noexcept nogil:
    # acquire: pairs with the timer's release of ping_number after the time of that ping
    cdef uint32_t newest = control.ping_number.load(memory_order_acquire)
    cdef uint32_t oldest = control.pong_number.load(memory_order_relaxed) + 1
    cdef int64_t since
    if oldest > newest:
        return False
    if newest - oldest > 15:
        oldest = newest - 15
    since = max(control.ping_sent_ns[oldest % 16].load(memory_order_relaxed), control.resumed_ns.load(memory_order_relaxed))
    return now - since >= control.pong_timeout_ns


cdef void hear_ask(Reader* reader, Wire* wire) noexcept nogil:
    """The timer holds this connection for lost: one last read, then judge."""
    cdef Control* control = wire.control
    cdef uint32_t asks = control.asks.exchange(0, memory_order_acquire)  # pairs with the timer's fetch_or release
    cdef uint32_t index = wire.index, epoch = wire.epoch
    cdef int64_t now
    if asks == 0:
        return
    if asks & (ASK_IDLE | ASK_PONG):
        take_turn(reader, wire)
        wire = find(reader, index, epoch)
        if wire == NULL or wire.starved:
            return
    now = monotonic_ns()
    if asks & ASK_IDLE and now - control.heard_ns.load(memory_order_relaxed) >= control.ws_timeout_ns:
        wire_blame(wire, CAUSE_IDLE, 0, 0, NULL, 0)
        wire_close(wire, &reader.intake.keys, 1001, b"idle timeout", 12)
        end(reader, wire)
    elif asks & ASK_PONG and pong_overdue(control, now):
        wire_blame(wire, CAUSE_PONG, 0, 0, NULL, 0)
        wire_close(wire, &reader.intake.keys, 1011, b"keepalive ping timeout", 22)
        end(reader, wire)
    elif asks & ASK_CLOSE and wire.phase != PHASE_OPEN:
        wire_blame(wire, CAUSE_RELEASED, 0, 0, NULL, 0)
        end(reader, wire)


cdef Wire* find(Reader* reader, uint32_t index, uint32_t epoch) noexcept nogil:
    cdef Wire* wire = reader.wires
    while wire != NULL and (wire.index != index or wire.epoch != epoch):
        wire = wire.next
    return wire


cdef void take_over(Reader* reader, Command* command) noexcept nogil:
    cdef Wire* wire = <Wire*>command.wire
    wire.next = reader.wires
    reader.wires = wire
    if reader.stopping:
        wire_blame(wire, CAUSE_RELEASED, 0, 0, NULL, 0)
        end(reader, wire)
        return
    if command.leftover_size and not wire_feed(wire, &reader.intake, command.leftover, command.leftover_size):
        wire_blame(wire, CAUSE_MEMORY, 0, 0, NULL, 0)
        end(reader, wire)
        return
    set_interest(reader, wire, False)
    take_turn(reader, wire)


cdef void begin_close(Reader* reader, Wire* wire, Command* command) noexcept nogil:
    wire_close(wire, &reader.intake.keys, command.code, command.text, command.text_size)
    if wire.phase == PHASE_OPEN:
        wire.phase = PHASE_CLOSING
        wire.control.close_due_ns.store(monotonic_ns() + wire.control.close_timeout_ns, memory_order_relaxed)
        reader.timer.notify()
    put_out(reader, wire)


cdef void discard_all(Reader* reader) noexcept nogil:
    """Deliver nothing from here on; reading goes on, for control frames, and needs no room any more."""
    cdef Wire* wire = reader.wires
    cdef Wire* next
    while wire != NULL:
        next = wire.next
        wire.discarding = True
        if wire.starved:
            wire.starved = False
            reader.starved -= 1
            wire.control.resume(monotonic_ns())
            wire.control.paused.store(0, memory_order_relaxed)
            set_interest(reader, wire, output_waits(&wire.out))
        take_turn(reader, wire)
        wire = next
    # release: who sees this sees all that was pushed before, and nothing is pushed after
    reader.discards[0].fetch_add(1, memory_order_release)


cdef void obey(Reader* reader, Command* command) noexcept nogil:
    cdef Wire* wire = NULL
    if command.order == ORDER_ADD:
        take_over(reader, command)
        return
    if command.order == ORDER_DISCARD:
        discard_all(reader)
        return
    if command.order == ORDER_STOP:
        reader.stopping = True
        while reader.wires != NULL:
            wire_blame(reader.wires, CAUSE_RELEASED, 0, 0, NULL, 0)
            end(reader, reader.wires)
        return
    wire = find(reader, command.index, command.epoch)
    if wire == NULL:
        return                        # it has ended meanwhile, and has been noted as such
    if command.order == ORDER_CLOSE:
        begin_close(reader, wire, command)
    else:
        wire_blame(wire, CAUSE_RELEASED, 0, 0, NULL, 0)
        end(reader, wire)


cdef void free_command(Command* command) noexcept nogil:
    free(command.leftover)
    free(command)


cdef void look(Reader* reader) noexcept nogil:
    """The bell rang: find out why."""
    cdef Command* command = reader.commands.take_in_order()
    cdef Command* next_command
    cdef Wire* wire
    cdef Wire* next
    while command != NULL:
        next_command = command.next
        obey(reader, command)
        free_command(command)
        command = next_command
    wire = reader.wires
    while wire != NULL:
        next = wire.next              # end() frees this one at the most
        if not wire.control.outbox.empty():
            put_out(reader, wire)
        if wire.control.asks.load(memory_order_relaxed):
            hear_ask(reader, wire)
        wire = next
    feed_starved(reader)


# ------------------------------------------------------------------------------------------------------------ the loop

cdef void take_again(Reader* reader) noexcept nogil:
    """A turn for those that had more to read than their quota. The list is rebuilt by their turns."""
    cdef size_t i, n = reader.again_count
    cdef Wire* wire
    for i in range(n):
        if reader.again_count == 0:
            return
        wire = reader.again[0]
        forget_first(reader)
        take_turn(reader, wire)


cdef inline void forget_first(Reader* reader) noexcept nogil:
    cdef size_t i
    reader.again_count -= 1
    for i in range(reader.again_count):
        reader.again[i] = reader.again[i + 1]


cdef int patience(Reader* reader) noexcept nogil:
    """Milliseconds to poll for at the most; below 0: for ever."""
    cdef Wire* wire = reader.wires
    cdef int64_t left
    if reader.again_count:
        return 0
    if reader.starved == 0 or reader.high:
        return -1
    left = reader.high_ns + PRESSURE_NS - monotonic_ns()
    if left > 0:
        return <int>(left // 1000000) + 1
    while wire != NULL and not wire.starved:
        wire = wire.next
    note_pressure(reader, wire, True)
    return -1


cdef void rest(Reader* reader) noexcept nogil:
    """While every processor has work, and more waits than caches hold, leave what comes to the kernel until half of it is
    done, or a processor finds nothing to do: what they copy is then still near. Bounded, as handlers may take their
    time, and pings may not."""
    cdef CAccount* account = reader.intake.account
    if account.deep() and reader.intake.ring.depth() >= REST_DEPTH and reader.intake.parker.waiters() == 0:
        account.rest(reader.door)
        if account.deep() and reader.intake.parker.waiters() == 0:    # else the bell may have been rung before
            reader.bell.wire().wait(REST_MS)


cdef void read_loop(Reader* reader) noexcept nogil:
    cdef Readiness events[EVENTS]
    cdef Wire* wire
    cdef int i, n
    cdef bint rang
    while not reader.stopping:
        rest(reader)
        n = reader.poller.wait(events, patience(reader))
        rang = False
        for i in range(n):
            wire = <Wire*>events[i].key
            if wire == NULL:
                reader.bell.answer()
                rang = True
                continue
            if events[i].writable or (events[i].broken and wire.writing):
                put_out(reader, wire)
            if events[i].readable and not wire.hot:
                take_turn(reader, wire)   # ends this wire at the most; each stands once in `events`
        take_again(reader)
        if rang:
            look(reader)


@cython.no_gc_clear  # its C++ parts use what its attributes own, until the very end
cdef class Receiver:
    """The reader of one producer. `run` is the body of its thread; everything else may be called from any thread.

    Args:
        ring: where messages go; its account pauses and resumes reading, its parker is notified.
        supervisor: notified after each note.
        timer: notified when a closing handshake begins.
        loud: whether pings and pongs are noted.
    """

    def __cinit__(self, Ring ring not None, Parker supervisor not None, Parker timer not None, *, bint loud=False):
        if ring.account.doors >= 64:
            raise EngineError("one pipeline takes at most 64 producers")
        if ring.c.capacity() < ring.account.c.max_messages():
            raise ConfigurationError("capacity", ring.c.capacity(), "give the ring at least as many slots as its account "
                                     f"admits messages, {ring.account.c.max_messages()}")
        self.ring = ring
        self.owners = {}
        self.supervisor = supervisor
        self.timer = timer
        self.reader = <Reader*>calloc(1, sizeof(Reader))
        if self.reader == NULL:
            raise MemoryError()
        self.reader.poller = new Poller()
        self.reader.bell = new CDoorbell()
        self.reader.commands = new CommandBox()
        self.reader.notes = new NoteBox()
        self.reader.pending = new atomic[uint32_t](0)
        self.reader.discards = new atomic[uint32_t](0)
        self.reader.supervisor = supervisor.c
        self.reader.timer = timer.c
        self.reader.door = ring.account.doors
        ring.account.doors += 1
        ring.account.c.set_door(self.reader.door, self.reader.bell)
        if not self.reader.poller.valid() or self.reader.bell.wire().fd() < 0:
            raise OSError("the reader got no descriptors for its poll set and its bell; raise the limit of open files")
        self.reader.poller.add(self.reader.bell.wire().fd(), NULL, True, False)
        if not intake_start(&self.reader.intake, ring.c, ring.account.c, ring.parker.c, ring.pool):
            raise MemoryError()
        self.reader.intake.notes = self.reader
        if loud:
            self.reader.intake.note_control = note_control

    def __dealloc__(self):
        cdef Wire* wire
        cdef Command* command
        cdef Command* next_command
        if self.reader == NULL:
            return
        if self.ring is not None:
            self.ring.account.c.set_door(self.reader.door, NULL)
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
        free(self.reader.again)
        del self.reader.poller
        del self.reader.bell
        del self.reader.commands
        del self.reader.notes
        del self.reader.pending
        del self.reader.discards
        free(self.reader)

    def run(self) -> None:
        """Read until `stop`; without the GIL all the while. Once: EngineError the second time."""
        if self.running:
            raise EngineError("this reader runs, or has run, already")
        self.running = True
        with nogil:
            read_loop(self.reader)

    cdef int send_command(self, Order order, uint32_t index, uint32_t epoch, uint16_t code, bytes text) except -1:
        cdef Command* command = <Command*>calloc(1, sizeof(Command))
        if command == NULL:
            raise MemoryError()
        command.order = order
        command.index = index
        command.epoch = epoch
        command.code = code
        if len(text) > 123:                      # a Close has room for so many (RFC 6455 §5.5.1); cut between characters
            text = text[:123].decode("utf-8", "ignore").encode()
        command.text_size = <uint8_t>len(text)
        memcpy(command.text, <const char*>text, command.text_size)
        self.reader.commands.push(command)
        self.reader.bell.ring()
        return 0

    def add(self, Stream stream not None) -> None:
        """Give the reader a connection. It ends in one note "ended", and its descriptor must stay open until then."""
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
        self.owners[id(stream.control_owner)] = stream.control_owner
        command.wire = stream.wire
        stream.wire = NULL
        self.reader.commands.push(command)
        self.reader.bell.ring()

    def close(self, uint32_t index, uint32_t epoch, uint16_t code, bytes reason=b"") -> None:
        """Begin the closing handshake; the note "ended" comes with the peer's Close, or after `close_timeout`."""
        self.send_command(ORDER_CLOSE, index, epoch, code, reason)

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
        self.ring.account.c.set_door(self.reader.door, NULL)
        self.reader.poller.shut()
        self.reader.bell.wire().shut()

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
