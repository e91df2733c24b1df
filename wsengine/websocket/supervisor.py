"""The supervisor: the one thread that changes the state of a producer's connections and tells about it.

It is woken by what dialers and the reader put in front of it, takes these things in order, and drops what belongs to
an older generation of a connection (reference W-1, W-2, W-4). So there is one owner of "the current connection", at
most one pending attempt, and each transition is told once. A slow telemetry hook delays reconnects, and nothing else.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections import deque
from typing import TYPE_CHECKING

from wsengine.errors import (
    ConfigurationError,
    ConnectionClosed,
    ConnectionClosedOK,
    EngineError,
    RetriesExhausted,
)
from wsengine.websocket.deadline import Cancellation
from wsengine.websocket.dialers import Dialers
from wsengine.websocket.lifecycle import Event, State
from wsengine.websocket.outcome import ending, outcome
from wsengine.wording import told

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from wsengine.engine.keepalive import KeepaliveTimer
    from wsengine.engine.receiver import Note, Receiver
    from wsengine.engine.ring import Parker
    from wsengine.websocket.connection import Connection
    from wsengine.websocket.dial import Dialed
    from wsengine.websocket.events import Events

__all__ = ["Supervisor", "Timing"]

#: Seconds that a connection gets to end once it has been told to let go.
RELEASE = 0.25


class Timing:
    """Times of a producer's connections, in seconds, 0 is off; and the size limit, in bytes."""

    def __init__(self, keepalive: float, ws_timeout: float, pong_timeout: float, close_timeout: float,
                 max_size: int) -> None:
        self.keepalive = keepalive
        self.ws_timeout = ws_timeout
        self.pong_timeout = pong_timeout
        self.close_timeout = close_timeout
        self.max_size = max_size


class Supervisor:
    """Owns the lifecycle of `connections`; `run` is the body of its thread.

    Args:
        connections: all places.
        attempt: dials, in a dialer thread: (index, epoch, cancellation) -> Dialed.
        finished: called when every connection has been given up.
        limits: of the pipeline's account, for the queue events.
    """

    def __init__(self, name: str, connections: Sequence[Connection], parker: Parker, receiver: Receiver,
                 timer: KeepaliveTimer, events: Events, timing: Timing, attempt: Callable[[int, int, Cancellation], Dialed],
                 finished: Callable[[BaseException], None], limits: tuple[int, int]) -> None:
        self._name = name
        self._connections = connections
        self._parker = parker
        self._receiver = receiver
        self._timer = timer
        self._events = events
        self._timing = timing
        self._finished = finished
        self._limits = limits
        self.introduce: Callable[[int, int], None] | None = None  # told of each generation, ahead of all that it brings
        self._cancellation = Cancellation()
        self._dialers = Dialers(name, lambda index, epoch: attempt(index, epoch, self._cancellation), self._dialed)
        self._results: deque[tuple[int, int, Dialed | BaseException]] = deque()  # dialers append, the supervisor pops
        self._reports: deque[tuple[int, int, BaseException | int]] = deque()  # the dispatcher appends, the supervisor pops
        self._dues: list[tuple[float, int]] = []  # a heap: when, and which, an entry for each in BACKOFF; the supervisor
        self._draining = False  # drain sets it
        self._deadline: float | None = None  # stop sets it: when all must have ended
        self._woken = False  # drain and stop set it, the supervisor clears it
        self._drained = False  # the supervisor has seen that it drains
        self._closing = False
        self._released = False
        self._dialing = 0  # attempts whose result has not been taken; the supervisor, behind its end under _turning
        self._turning = threading.Lock()
        self._over_and_out = False  # the supervisor, before it looks at `_results` for the last time

    # ---------------------------------------------------------------------------------------------- from other threads

    def drain(self) -> None:
        """Deliver nothing more and connect no more; returns at once."""
        self._draining = True
        self._receiver.discard()
        self._wake()

    @property
    def quiet(self) -> bool:
        """After `drain`: nothing more is delivered, and no connection will be made any more."""
        return self._drained and self._receiver.quiet

    @property
    def dialing(self) -> list[str]:
        """Names of the dialers' threads that have not ended."""
        return self._dialers.join(0)

    def stop(self, deadline: float) -> None:
        """Close all connections and end, by about the monotonic time `deadline`; returns at once."""
        self._draining = True
        self._deadline = deadline
        self._cancellation.cancel()
        self._wake()

    def fail(self, index: int, epoch: int, error: BaseException) -> None:
        """Close this generation of a connection with 1011 and tell `error` as its failure; nothing if it is over."""
        self._reports.append((index, epoch, error))
        self._parker.notify()

    def tell_dropped(self, index: int, epoch: int, count: int) -> None:
        """Tell that so many messages were dropped behind a failure of the frame handler."""
        self._reports.append((index, epoch, count))
        self._parker.notify()

    def _wake(self) -> None:
        self._woken = True
        self._parker.notify()

    def _dialed(self, index: int, epoch: int, result: Dialed | BaseException) -> None:
        self._results.append((index, epoch, result))
        self._parker.notify()
        if self._over_and_out:  # behind the append: either we see it, or the supervisor sees what we have brought
            self._turn_away()

    def _turn_away(self) -> None:
        """Close what dialers bring when nobody takes it any more. The supervisor at its end, and dialers behind it."""
        with self._turning:
            while self._results:
                self._dialing -= 1
                _, _, late = self._results.popleft()
                if not isinstance(late, BaseException):
                    late.sock.close()
            if self._dialing == 0:
                self._cancellation.close()

    # -------------------------------------------------------------------------------------------------------- the loop

    def run(self) -> None:
        """Supervise until `stop`, and all connections have ended."""
        try:
            self._supervise()
        finally:
            self._over_and_out = True
            self._turn_away()
        self._dialers.join(1 if self._dialing == 0 else 0)

    def _supervise(self) -> None:
        for connection in self._connections:
            self._dial(connection)
        while not self._over():
            self._parker.wait(self._has_work, self._patience())
            self._woken = False
            while self._results:
                self._take_result(*self._results.popleft())
            for note in self._receiver.notes():
                self._take_note(note)
            self._take_reports()
            if self._draining:
                self._drain_seen()
            else:
                self._dial_due()
        self._take_reports()

    def _has_work(self) -> bool:
        return bool(self._woken or self._results or self._reports or self._receiver.noted)

    def _over(self) -> bool:
        """Stopped, all have ended, and no dialer is at work; for one that a user's callable blocks nobody waits longer."""
        return (self._deadline is not None and (self._dialing == 0 or self._released)
                and all(connection.state == "stopped" for connection in self._connections))

    def _patience(self) -> float:
        now = time.monotonic()
        due = now + 60
        if self._dues and not self._draining:
            due = self._dues[0][0]
        if self._deadline is not None:
            due = self._deadline if not self._released else now + RELEASE
        return min(max(due - now, 0), 60)

    # -------------------------------------------------------------------------------------------------------- attempts

    def _dial(self, connection: Connection) -> None:
        connection.epoch += 1
        connection._attempt_at = time.monotonic()
        self._dialing += 1
        self._dialers.dial(connection.index, connection.epoch)

    def _dial_due(self) -> None:
        now = time.monotonic()
        while self._dues and self._dues[0][0] <= now:
            connection = self._connections[heapq.heappop(self._dues)[1]]
            connection._lifecycle.fire(Event.DUE)
            self._dial(connection)

    def _take_result(self, index: int, epoch: int, result: Dialed | BaseException) -> None:
        self._dialing -= 1
        connection = self._connections[index]
        if self._draining or connection.epoch != epoch or connection._lifecycle.state is not State.DIALING:
            if not isinstance(result, BaseException):
                result.sock.close()
            return
        if isinstance(result, BaseException):
            self._attempt_failed(connection, result)
        else:
            self._opened(connection, result)

    def _opened(self, connection: Connection, dialed: Dialed) -> None:
        attempt = connection._budget.failures + 1
        try:
            connection.take(dialed, self._name)
            stream = connection.stream(dialed, self._timing.max_size)
        except (OSError, RuntimeError, MemoryError, EngineError) as error:  # no descriptors, no thread, no way to read it
            connection._outgoing.shut(ending(error))  # `take` may have opened it
            connection.let_go()
            dialed.sock.close()
            self._attempt_failed(connection, error)
            return
        connection._lifecycle.fire(Event.OPENED)
        connection._budget.ready(time.monotonic())
        self._events.opened(connection, attempt, dialed.timings.get("total", 0.0))
        timing = self._timing
        connection._control.begin(connection.epoch, keepalive=timing.keepalive, ws_timeout=timing.ws_timeout,
                                  pong_timeout=timing.pong_timeout, close_timeout=timing.close_timeout)
        self._timer.wake()
        if self.introduce is not None:
            self.introduce(connection.index, connection.epoch)
        self._receiver.add(stream)
        connection.repeat_close()

    def _delay(self, connection: Connection, now: float, error: BaseException) -> tuple[float | None, BaseException]:
        """What the retry policy says, and the failure that stands; a policy that fails itself gives up this connection."""
        try:
            delay, last = connection._budget.failed(now, error), connection._budget.last_error
            return delay, error if last is None else last
        except ConfigurationError as wrong:
            return None, wrong
        except BaseException as fault:  # of an object that user code returned or raised: no other connection's trouble
            undecided = EngineError(f"whether to connect again cannot be decided: {type(fault).__name__}: {told(fault)}")
            undecided.__cause__ = fault
            return None, undecided

    def _attempt_failed(self, connection: Connection, error: BaseException) -> None:
        now = time.monotonic()
        attempt = connection._budget.failures + 1
        delay, cause = self._delay(connection, now, error)
        self._events.attempt_failed(connection, attempt, now - connection._attempt_at, error, delay)
        self._next(connection, Event.FAILED, cause, delay)

    def _next(self, connection: Connection, event: Event, error: BaseException, delay: float | None) -> None:
        """Wait for the next attempt, or give up for good (reference W-17)."""
        if delay is not None:
            heapq.heappush(self._dues, (time.monotonic() + delay, connection.index))
            connection._lifecycle.fire(event)
            return
        connection._lifecycle.fire(Event.GIVEN_UP)
        exhausted = RetriesExhausted(connection._budget.failures, error, connection._budget.fatal)
        self._events.gave_up(connection, exhausted)
        if all(c._lifecycle.state is State.STOPPED for c in self._connections):
            self._finished(exhausted)

    # --------------------------------------------------------------------------------------------- of the frame handler

    def _take_reports(self) -> None:
        while self._reports:
            index, epoch, what = self._reports.popleft()
            connection = self._connections[index]
            if isinstance(what, int):
                self._events.dropped(connection, what, "the frame handler had failed", epoch)
            elif (connection.epoch == epoch and connection._lifecycle.state is State.READY and connection._fault is None
                    and not self._draining):
                connection._fault = what
                self._receiver.close(index, epoch, 1011, b"frame handler failed")
            else:
                self._events.failed_late(connection, epoch, what)

    # ----------------------------------------------------------------------------------------------------------- notes

    def tell_overflow(self) -> None:
        """Tell of messages dropped for want of room since the last time. The supervisor, and who stops it behind its end."""
        for connection in self._connections:
            self._tell_overflow_of(connection)

    def _tell_overflow_of(self, connection: Connection) -> None:
        dropped = connection.counts()["dropped"]
        if dropped > connection._told_dropped:
            self._events.dropped(connection, dropped - connection._told_dropped, "the pipeline was full")
            connection._told_dropped = dropped

    def _take_note(self, note: Note) -> None:
        connection = self._connections[note.index]
        if note.kind in ("high", "low"):
            self._events.pressure(connection, note, self._limits)
        elif note.kind == "drop":
            self.tell_overflow()
        elif note.epoch != connection.epoch:
            return
        elif note.kind == "ended":
            self._ended(connection, note)
        else:
            if note.kind == "pong":
                connection._heard_pong(note)
            self._events.control(connection, note)

    def _ended(self, connection: Connection, note: Note) -> None:
        """The reader is off the socket: tell it once, and see to the next attempt."""
        now = time.monotonic()
        duration = now - connection._opened_at
        event, error = outcome(note, self._timing.max_size, connection.pump_error)
        counts = connection.let_go()
        self._tell_overflow_of(connection)
        if isinstance(error, ConnectionClosed):
            connection.close_code, connection.close_reason = error.code, error.reason
        else:
            connection.close_code, connection.close_reason = 1006, ""
        if connection._fault is not None:
            event, error = "failure", connection._fault
        connection._outgoing.shut(ending(error))
        if connection._lifecycle.state is State.CLOSING or self._draining:
            connection._lifecycle.fire(Event.GIVEN_UP)
            self._events.closed(connection, duration)
            return
        delay, cause = self._delay(connection, now, error)
        self._events.lost(connection, event, error, duration, counts, delay)
        self._next(connection, Event.ENDED, cause, delay)

    # --------------------------------------------------------------------------------------------------------- the end

    def end_rest(self) -> None:
        """Behind `run` and the reader's end: end what a fault of ours has left open."""
        for connection in self._connections:
            state = connection._lifecycle.state
            if state is State.CLOSING or connection._lifecycle.fire(Event.CLOSE) is State.CLOSING:
                connection._outgoing.shut(ending(EngineError("the supervisor died")))
                connection.let_go()
                connection._lifecycle.fire(Event.GIVEN_UP)

    def release(self) -> None:
        """Give the descriptors back, where no thread was started; behind `run`, who uses them last has done so."""
        if self._dialing == 0:
            self._cancellation.close()

    def _drain_seen(self) -> None:
        if not self._drained:
            self._receiver.discard()  # again: a connection made while `drain` was called has not heard of it
            self._drained = True
        if self._deadline is None:
            return
        if not self._closing:
            self._closing = True
            for connection in self._connections:
                self._close(connection)
        if time.monotonic() >= self._deadline and not self._released:
            self._released = True
            for connection in self._connections:
                if connection._lifecycle.state is State.CLOSING:
                    self._receiver.release(connection.index, connection.epoch)

    def _close(self, connection: Connection) -> None:
        if connection._lifecycle.fire(Event.CLOSE) is State.CLOSING:
            connection._outgoing.shut(ConnectionClosedOK(1000, "the pipeline is stopping"))
            self._receiver.close(connection.index, connection.epoch, 1000)
