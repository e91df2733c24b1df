"""What becomes of a producer's connections: each is polled, read, written, paused and let go here, one round at a time.

Every connection gets the same quota a round. A connection that finds the pipeline full leaves the poll set, so that a
peer that resets meanwhile cannot spin it, and comes back when half of the bound is free. A connection ends in exactly one
note to the supervisor, after which its descriptor is not known here any more.

What becomes of a wire (phases: stream.pxd):

    registered ──▶ read at once, without a poll
    read: dry ──▶ polled          more ──▶ again next round     full ──▶ starved (off the poll set)
          end ──▶ ended (noted, freed)
    bell: commands ▸ asks of the timer ▸ outboxes ▸ starved ones, if half of the bound is free
"""
from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcpy
from libcpp.atomic cimport memory_order_acquire, memory_order_relaxed, memory_order_release
from wsengine.engine.control cimport ASK_CLOSE, ASK_IDLE, ASK_PONG, Control
from wsengine.engine.frames cimport Parsed
from wsengine.engine.input cimport READ_END, READ_FULL, READ_MORE, Reading, wire_feed, wire_read
from wsengine.engine.intake cimport Intake, intake_settle
from wsengine.engine.output cimport output_waits
from wsengine.engine.ring cimport CParker, monotonic_ns
from wsengine.engine.stream cimport (CAUSE_IDLE, CAUSE_MEMORY, CAUSE_PONG, CAUSE_RELEASED, PHASE_CLOSING, PHASE_ENDING,
                                     PHASE_FAILING, PHASE_OPEN, Wire, wire_blame, wire_close, wire_farewell, wire_finish,
                                     wire_free, wire_leave, wire_write)


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


cdef void note_control(void* context, uint32_t index, uint32_t epoch, bint ping, const Parsed* parsed, int64_t now,
                       int64_t trip) noexcept nogil:
    """Note a ping or pong for telemetry; beyond a bound they are not noted: they are never a matter of liveness."""
    cdef Reader* reader = <Reader*>context
    cdef CNote* note
    if reader.pending[0].load(memory_order_relaxed) >= NOTES_PENDING:
        return
    note = note_of(KIND_PING if ping else KIND_PONG, NULL)
    if note == NULL:
        return
    note.index = index
    note.epoch = epoch
    note.text_size = <uint8_t>parsed.size
    memcpy(note.text, parsed.payload, parsed.size)
    note.round_trip_ns = trip
    note.detail = <uint64_t>now
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
    note.detail = (wire.intake if wire != NULL else &reader.intake).account.level()
    post(reader, note)


cdef void note_drops(Reader* reader) noexcept nogil:
    """Note that messages were dropped, at most once in PRESSURE_NS. Those behind the last note are told with the end."""
    cdef CNote* note
    cdef int64_t now = monotonic_ns()
    if now - reader.drop_ns < PRESSURE_NS:
        return
    note = note_of(KIND_DROP, NULL)
    if note == NULL:
        return
    reader.drop_ns = now
    reader.drops = False
    post(reader, note)


# ---------------------------------------------------------------------------------------------------------- poll set

cdef void set_interest(Reader* reader, Wire* wire, bint write) noexcept nogil:
    """Be polled for what is of use: never for reading while starved, nor for anything if there is nothing to wait for.
    TLS may have to read before it can write, and the other way round."""
    cdef bint read = not wire.starved
    if wire.tls != NULL:
        read = read or (write and wire.tls.write_wants_read)
        write = write and not wire.tls.write_wants_read or wire.tls.read_wants_write and not wire.starved
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
    intake_settle(wire.intake)
    if wire.parting:
        reader.failing -= 1
    if wire.phase == PHASE_FAILING:   # it ends before its Close's moment, perhaps in the turn that found the failure
        wire_farewell(wire, &reader.intake.keys)
    wire_leave(wire)
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
    if not wire.intake.account.starve(wire.intake.door):
        keep(reader, wire)
        return
    wire.starved = True
    wire.hot = False
    reader.starved += 1
    wire.control.paused.store(1, memory_order_relaxed)
    Control.add(wire.control.pauses, 1)
    set_interest(reader, wire, output_waits(&wire.out))
    note_pressure(reader, wire, True)


cdef void feed(Reader* reader, Wire* wire, int64_t now) noexcept nogil:
    """Read again, from what is there, without a poll."""
    wire.starved = False
    reader.starved -= 1
    wire.control.resume(now)
    wire.control.paused.store(0, memory_order_relaxed)
    set_interest(reader, wire, output_waits(&wire.out))


cdef void feed_starved(Reader* reader) noexcept nogil:
    cdef Wire* wire = reader.wires
    cdef Intake* full = NULL          # connections of one intake stand side by side: it is asked once
    cdef int64_t now
    if reader.starved == 0:
        return
    now = monotonic_ns()
    while wire != NULL:
        if wire.starved and wire.intake != full:
            if wire.intake.account.starve(wire.intake.door):
                full = wire.intake
            else:
                feed(reader, wire, now)
                wire.hot = True
                keep(reader, wire)
        wire = wire.next
    if reader.starved == 0:
        note_pressure(reader, NULL, False)


cdef void take_turn(Reader* reader, Wire* wire) noexcept nogil:
    """Read the wire's quota, answer what wants an answer, and see to its next turn."""
    cdef CParker* parker = wire.intake.parker
    cdef Reading reading
    cdef bint early
    if wire.starved:
        return
    wire.hot = True
    reader.met_idle = parker.waiters() != 0
    early = reader.met_idle and not wire.intake.lent and wire.part_slab == NULL and not wire.discarding
    if early:
        parker.foretell()             # what there is to read is likely to be, or to complete, a message
    reading = wire_read(wire, wire.intake)
    intake_settle(wire.intake)
    if wire.intake.drops:
        wire.intake.drops = 0
        reader.drops = True
        note_drops(reader)
    if early:
        parker.fulfil()
    if reading == READ_END:
        end(reader, wire)
        return
    if wire.phase == PHASE_FAILING and not wire.parting:
        wire.parting = True
        reader.failing += 1
        reader.timer.notify()
    if wire.out.control_first != NULL or wire.phase == PHASE_ENDING or (wire.tls != NULL and wire.tls.read_wants_write):
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
    return now - since >= control.pong_timeout_ns.load(memory_order_relaxed)


cdef void hear_ask(Reader* reader, Wire* wire) noexcept nogil:
    """The timer holds this connection for lost: one last read, then judge."""
    cdef Control* control = wire.control
    cdef uint32_t asks = control.asks.exchange(0, memory_order_acquire)  # pairs with the timer's fetch_or release
    cdef uint32_t index = wire.index, epoch = wire.epoch
    cdef int64_t now, silent
    if asks == 0:
        return
    if asks & (ASK_IDLE | ASK_PONG):
        take_turn(reader, wire)
        wire = find(reader, index, epoch)
        if wire == NULL or wire.starved:
            return
    now = monotonic_ns()
    silent = now - control.heard_ns.load(memory_order_relaxed)
    if asks & ASK_IDLE and silent >= control.ws_timeout_ns.load(memory_order_relaxed):
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
    if command.leftover_size and not wire_feed(wire, wire.intake, command.leftover, command.leftover_size):
        wire_blame(wire, CAUSE_MEMORY, 0, 0, NULL, 0)
        end(reader, wire)
        return
    set_interest(reader, wire, False)
    take_turn(reader, wire)


cdef void begin_close(Reader* reader, Wire* wire, Command* command) noexcept nogil:
    wire_finish(wire, &reader.intake.keys, command.code, command.text, command.text_size)
    if wire.phase == PHASE_OPEN:
        wire.phase = PHASE_CLOSING
        wire.control.close_within_limit()
        reader.timer.notify()
    put_out(reader, wire)
    if command.discard and not wire.discarding:
        discard(reader, wire)


cdef void discard(Reader* reader, Wire* wire) noexcept nogil:
    """Deliver nothing more of it. It may end by that."""
    wire.discarding = True
    if wire.starved:
        feed(reader, wire, monotonic_ns())
    take_turn(reader, wire)


cdef void discard_all(Reader* reader) noexcept nogil:
    """Deliver nothing from here on; reading goes on, for control frames, and needs no room any more."""
    cdef Wire* wire = reader.wires
    cdef Wire* next
    while wire != NULL:
        next = wire.next
        discard(reader, wire)
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


# ----------------------------------------------------------------------------------------------------------- one round

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
    cdef Wire* wire = reader.wires
    cdef int64_t left
    if reader.again_count:
        return 0
    if reader.failing:
        return FAREWELL_MS            # few, and seldom: each is looked at several times
    if reader.drops:
        left = reader.drop_ns + PRESSURE_NS - monotonic_ns()
        if left > 0:
            return <int>(left // 1000000) + 1
        note_drops(reader)
    if reader.starved == 0 or reader.high:
        return -1
    left = reader.high_ns + PRESSURE_NS - monotonic_ns()
    if left > 0:
        return <int>(left // 1000000) + 1
    while wire != NULL and not wire.starved:
        wire = wire.next
    note_pressure(reader, wire, True)
    return -1


cdef void say_farewells(Reader* reader) noexcept nogil:
    cdef Wire* wire = reader.wires
    cdef int64_t now = monotonic_ns()
    while wire != NULL:
        if wire.phase == PHASE_FAILING and now >= wire.farewell_ns:
            wire.parting = False
            reader.failing -= 1
            wire_farewell(wire, &reader.intake.keys)
            put_out(reader, wire)
        wire = wire.next


cdef inline bint wants_read_to_write(const Wire* wire) noexcept nogil:
    return wire.tls != NULL and wire.tls.write_wants_read


cdef inline bint wants_write_to_read(const Wire* wire) noexcept nogil:
    return wire.tls != NULL and wire.tls.read_wants_write


cdef void take_round(Reader* reader, int timeout_ms) noexcept nogil:
    cdef Readiness events[EVENTS]
    cdef Wire* wire
    cdef int i, n = reader.poller.wait(events, timeout_ms)
    cdef bint rang = False
    for i in range(n):
        wire = <Wire*>events[i].key
        if wire == NULL:
            reader.bell.answer()
            rang = True
            continue
        if events[i].writable or (events[i].broken and wire.writing) or wants_read_to_write(wire):
            put_out(reader, wire)
        if (events[i].readable or wants_write_to_read(wire)) and not wire.hot:
            take_turn(reader, wire)   # ends this wire at the most; each stands once in `events`
    take_again(reader)
    if rang:
        look(reader)
    if reader.failing:
        say_farewells(reader)
