"""The hub: the one reader, the one timer and the one supervising thread that all connections made by `connect()` share.

Here belongs where they run: places, generations, and the notes of the reader brought to the connection that they are for.
What a connection does with them stands in client, how it came about in dial.

::

    none ── the first connection ──▶ running ── the last one has ended ──▶ ending ── threads are joined ──▶ none
                                        ▲  │                                  │
                     further ones join  └──┘          a connection now begins another hub
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from wsengine.engine.control import ControlBlock
from wsengine.engine.keepalive import KeepaliveTimer
from wsengine.engine.receiver import Inflow, Receiver
from wsengine.engine.ring import Account, Parker, Ring
from wsengine.engine.threads import at_exit, spawn

if TYPE_CHECKING:
    from wsengine.engine.receiver import Note
    from wsengine.engine.stream import Stream
    from wsengine.websocket.client import ClientConnection

__all__ = ["Hub", "Place"]

#: Connections of a process at a time at the most.
ROOM = 65_536


class Place:
    """Where a connection lives: a control block that the timer watches. Used again, with a new generation each time."""

    def __init__(self, index: int, control: ControlBlock) -> None:
        self.index = index
        self.epoch = 0
        self.control = control


class Hub:
    """Runs the connections of one process; thread-safe. Get it by `Hub.join`, which counts you in."""

    _present: Hub | None = None
    _lock = threading.Lock()  # guards _present, and of every hub `_places`, `_free`, `_live` and `_joined`

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._parker, timer_parker = Parker(), Parker()
        self._own = Ring(2, Account(2, 2**20), Parker(), slab_bytes=4096)  # its bell is what wakes the reader
        self.receiver = Receiver(self._own, self._parker, timer_parker)
        self._timer = KeepaliveTimer(self.receiver, [], timer_parker, room=ROOM)
        self._free: list[Place] = []
        self._live: dict[tuple[int, int], ClientConnection] = {}
        self._joined = 0  # connections counted in, of which some may not be live yet
        self._threads: list[threading.Thread] = []  # before the hub's own, which joins the others
        at_exit(self)

    def _start(self) -> None:
        """Start the threads; if the system has not all to give, none."""
        try:
            for name, body in (("reader", self.receiver.run), ("timer", self._timer.run)):
                self._threads.append(spawn(f"wsengine:connect:{name}", body))
            spawn("wsengine:connect:hub", self._run)
        except BaseException:
            self._end_threads()
            raise

    @classmethod
    def join(cls) -> Hub:
        """The present hub, or a new one; it lives until `leave` has been called as often as this, or `add` and the end."""
        with cls._lock:
            hub = cls._present
            if hub is None or hub._pid != os.getpid():
                hub = Hub()
                hub._joined = 1
                hub._start()
                cls._present = hub
            else:
                hub._joined += 1
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

    def add(self, connection: ClientConnection, place: Place, stream: Stream, ring: Ring) -> None:
        """Give the reader a connection, whose generation has begun. Its end comes as `connection._take_note`."""
        inflow = Inflow(ring, self.receiver)
        with self._lock:
            self._live[place.index, place.epoch] = connection
        self._timer.wake()
        self.receiver.add(stream, inflow)

    def leave(self, place: Place | None) -> None:
        """Count a connection out that never was live, or has ended."""
        with self._lock:
            self._joined -= 1
            if place is not None:
                self._live.pop((place.index, place.epoch), None)
                self._free.append(place)
            if self._joined == 0 and Hub._present is self:
                Hub._present = None
        if place is not None:
            self.receiver.forget(place.control)
        self._parker.notify()

    def stop_at_exit(self) -> None:
        """The interpreter ends: say 1001 to all servers, then let go of them; who waits for a message learns of it."""
        with self._lock:
            live = list(self._live)
        for index, epoch in live:
            self.receiver.close(index, epoch, 1001, b"", discard=True)
        self.receiver.stop()

    # ---------------------------------------------------------------------------------------------------- the thread

    def _run(self) -> None:
        while self._joined:
            self._parker.wait(lambda: self.receiver.noted or not self._joined, 60)
            for note in self.receiver.notes():
                self._take_note(note)
        self._end_threads()

    def _end_threads(self) -> None:
        self.receiver.stop()
        self._timer.stop()
        for thread in self._threads:
            thread.join()
        self.receiver.dispose()

    def _take_note(self, note: Note) -> None:
        connection = self._live.get((note.index, note.epoch))
        if connection is not None:
            connection._take_note(note)
