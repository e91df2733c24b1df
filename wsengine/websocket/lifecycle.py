"""The lifecycle of one connection of a producer, as a table. Everything that decides a connection's state is here.

The supervisor fires events; what it then does belongs to it. An event that has no row is a mistake of the program and
raises, except those of an older generation, which the supervisor drops before they get here.

    dialing   an attempt is under way, or waits for a dialer
    ready     the reader has it; status 1 has been told
    backoff   the next attempt has a due time
    closing   ready, and told to close
    stopped   for good: told to stop, or the retry policy gave up
"""

from __future__ import annotations

from enum import Enum

__all__ = ["TRANSITIONS", "Event", "Lifecycle", "State"]


class State(Enum):
    DIALING = "dialing"
    READY = "ready"
    BACKOFF = "backoff"
    CLOSING = "closing"
    STOPPED = "stopped"


class Event(Enum):
    OPENED = "opened"  # the handshake is done
    FAILED = "failed"  # the attempt failed, and there will be another
    ENDED = "ended"  # the reader has let go, and there will be another attempt
    DUE = "due"  # the next attempt's time has come
    GIVEN_UP = "given up"  # there will be no other attempt
    CLOSE = "close"  # told to stop


TRANSITIONS: dict[tuple[State, Event], State] = {
    (State.DIALING, Event.OPENED): State.READY,
    (State.DIALING, Event.FAILED): State.BACKOFF,
    (State.DIALING, Event.GIVEN_UP): State.STOPPED,
    (State.DIALING, Event.CLOSE): State.STOPPED,
    (State.READY, Event.ENDED): State.BACKOFF,
    (State.READY, Event.GIVEN_UP): State.STOPPED,
    (State.READY, Event.CLOSE): State.CLOSING,
    (State.BACKOFF, Event.DUE): State.DIALING,
    (State.BACKOFF, Event.CLOSE): State.STOPPED,
    (State.CLOSING, Event.GIVEN_UP): State.STOPPED,
    (State.STOPPED, Event.CLOSE): State.STOPPED,
}


class Lifecycle:
    """The state of one connection. Written by the supervisor alone; read by anyone."""

    def __init__(self) -> None:
        self.state = State.DIALING

    def fire(self, event: Event) -> State:
        """Take an event; the new state. KeyError-free: an event without a row raises RuntimeError."""
        target = TRANSITIONS.get((self.state, event))
        if target is None:
            raise RuntimeError(f"a connection that is {self.state.value} cannot take {event.value!r}")
        self.state = target
        return target
