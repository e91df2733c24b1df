"""The hub: the one reader, the one timer and the one supervising thread that all connections made by `connect()` share.

Here belongs where they run: places, generations, and the notes of the reader brought to the connection that they are for.
What a connection does with them stands in client, how it came about in dial.

::

    none ── the first connection ──▶ running ── the last one has ended, ──▶ ending ── threads are joined ──▶ none
                                        ▲  │    or is gone without a trace     │
                     further ones join  └──┘           a connection now begins another hub
"""

from __future__ import annotations

import logging
import os
import threading
import weakref
from typing import TYPE_CHECKING, Protocol

from wsengine.engine.control import ControlBlock
from wsengine.engine.keepalive import KeepaliveTimer
from wsengine.engine.receiver import Receiver
from wsengine.engine.ring import Account, Parker, Ring
from wsengine.engine.threads import at_exit, exiting, spawn, unstarted
from wsengine.errors import EngineError, EngineStopped

if TYPE_CHECKING:
    from wsengine.engine.receiver import Inflow, Note
    from wsengine.engine.stream import Stream

__all__ = ["Hub", "Place"]

logger = logging.getLogger("wsengine.connection")

#: Connections of a process at a time at the most.
ROOM = 65_536


class Guest(Protocol):
    """A connection, as far as its hub knows it."""

    def take_note(self, note: Note) -> None:
        """The reader has noted something; the hub's thread."""


class Place:
    """Where a connection lives: a control block that the timer watches. Used again, with a new generation each time."""

    def __init__(self, index: int, control: ControlBlock) -> None:
        self.index = index
        self.epoch = 0
        self.control = control


class Hub:
    """Runs the connections of one process; thread-safe. Get it by `Hub.join`, which counts you in.

    A signal's handler may raise anywhere in `connect()`. So nothing is counted that somebody would have to count out again:
    a connection that has joined and never became live counts as long as it exists.
    """

    _present: Hub | None = None
    _lock = threading.Lock()  # guards _present, and of every hub `_free`, `_live`, `_joined` and `stopping`

    def __init__(self) -> None:
        self._parker, timer_parker = Parker(), Parker()
        self._own = Ring(2, Account(2, 2**20), Parker(), slab_bytes=4096)  # its bell is what wakes the reader
        self.receiver = Receiver(self._own, self._parker, timer_parker)
        self._timer = KeepaliveTimer(self.receiver, [], timer_parker, room=ROOM)
        self._free: list[Place] = []
        self._live: dict[tuple[int, int], Guest] = {}
        self._joined: weakref.WeakSet[Guest] = weakref.WeakSet()  # some are not live yet
        self.stopping = False  # the interpreter ends: the reader takes no more connections
        self._begun = threading.Event()  # the threads run, or `_fault` is set; the hub's thread
        self._fault: BaseException | None = None  # why they do not
        self._thread = unstarted("wsengine:connect:hub", self._run)
        at_exit(self)

    def _start(self) -> None:
        """Start the threads; if the system has not all to give, none. The hub's own starts and joins the others, so that a
        signal in the caller leaves none behind."""
        if self._thread.ident is None:       # also where a signal came before the first connection had started it
            self._thread.start()
        self._begun.wait()
        if self._fault is not None:
            raise self._fault

    @classmethod
    def join(cls, connection: Guest) -> Hub:
        """The present hub, or a new one; it lives until the connection leaves it, or is no more.

        Raises:
            EngineStopped: the interpreter ends.
            RuntimeError, OSError: the system has no thread, or no descriptor, to give.
        """
        with cls._lock:
            if exiting():
                raise EngineStopped("the interpreter is ending: no connection begins any more")
            hub = cls._present = cls._present or Hub()
            hub._joined.add(connection)
            weakref.finalize(connection, hub._parker.notify).atexit = False  # it is looked whether others are left
            try:
                hub._start()
            except Exception:
                hub._joined.discard(connection)
                cls._present = None
                raise
            return hub

    def place(self) -> Place:
        """A place with a new generation, for a connection that has joined."""
        with self._lock:
            if self._free:
                place = self._free.pop()
            else:
                control = ControlBlock()
                place = Place(self._timer.add(control), control)
            place.epoch += 1
            return place

    def add(self, connection: Guest, place: Place, stream: Stream, inflow: Inflow) -> None:
        """Give the reader a connection, whose generation has begun. Its end comes as `connection.take_note`.

        Raises EngineStopped if the interpreter ends.
        """
        with self._lock:                  # held to the end: the reader gets it before the order to stop, or never
            if self.stopping or exiting():
                raise EngineStopped("the interpreter is ending: no connection begins any more")
            self._live[place.index, place.epoch] = connection  # before: no signal comes between, but behind the call
            try:
                self.receiver.add(stream, inflow)
            except (EngineError, MemoryError):
                del self._live[place.index, place.epoch]
                raise
        self._timer.wake()

    def has(self, place: Place | None) -> bool:
        """Whether the reader has been given the connection of this place, so that its end will be noted."""
        with self._lock:
            return place is not None and (place.index, place.epoch) in self._live

    def leave(self, connection: Guest, place: Place | None) -> None:
        """Count a connection out that never was live, or has ended."""
        with self._lock:
            self._joined.discard(connection)
            if place is not None:
                self._live.pop((place.index, place.epoch), None)
                self.receiver.forget(place.control)  # before another connection can have the place
                self._free.append(place)
        self._parker.notify()

    def stop_at_exit(self) -> None:
        """The interpreter ends: say 1001 to all servers, then let go of them; who waits for a message learns of it."""
        with self._lock:
            self.stopping = True
            live = list(self._live)
        for index, epoch in live:
            self.receiver.close(index, epoch, 1001, b"", discard=True)
        self.receiver.stop()
        self._parker.notify_all()

    @classmethod
    def forget_parent(cls) -> None:
        """A child after a fork: the hub's threads are the parent's, and its lock may be held by one of them."""
        cls._lock = threading.Lock()
        cls._present = None

    # ---------------------------------------------------------------------------------------------------- the thread

    def _run(self) -> None:
        threads: list[threading.Thread] = []
        try:
            for name, body in (("reader", self.receiver.run), ("timer", self._timer.run)):
                threads.append(spawn(f"wsengine:connect:{name}", body, deaf=True))
        except BaseException as fault:    # raised by whoever waits for us to begin
            self._fault = fault
        self._begun.set()
        while self._fault is None and not self._retired():
            self._parker.wait(lambda: self.receiver.noted or self._unused(), 60)
            for note in self.receiver.notes():
                self._take_note(note)
        self.receiver.stop()
        self._timer.stop()
        for thread in threads:
            thread.join()
        self.receiver.dispose()

    def _unused(self) -> bool:
        """Whether nobody is left. At exit it is not waited for one that a signal lost as it began."""
        return not self._joined or (self.stopping and not self._live)

    def _retired(self) -> bool:
        """Whether nobody is left, and nobody comes any more: who joins now begins another hub."""
        with self._lock:
            if not self._unused():
                return False
            if Hub._present is self:
                Hub._present = None
            return True

    def _take_note(self, note: Note) -> None:
        with self._lock:
            connection = self._live.get((note.index, note.epoch))
        if connection is None:
            return
        try:
            connection.take_note(note)
        except Exception:                 # one connection's trouble, such as a logger's, must not end all others
            logger.exception("the note of a connection failed")


os.register_at_fork(after_in_child=Hub.forget_parent)
