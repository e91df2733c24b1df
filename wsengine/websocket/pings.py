"""Pings of the user's own, and the pongs that they wait for. (Those of keepalive are the engine's, and it alone waits.)

Here belongs which pong answers which ping. How they travel does not (sending, engine).
"""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING

from wsengine.errors import ConfigurationError, ConnectionClosed
from wsengine.options import patience
from wsengine.websocket.outcome import afresh

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Pong", "Pongs"]

#: Bytes of a ping's payload at the most (RFC 6455 §5.5).
LONGEST = 125
#: Pings without an answer at the most: `write_limit` does not count them, as they overtake what it counts.
MOST = 256


class Pong:
    """The answer to a ping of ours, to wait for. Thread-safe."""

    def __init__(self) -> None:
        self._sent = time.monotonic()
        self._done = threading.Event()
        self._round_trip: float | None = None  # these two are written before _done is set
        self._error: ConnectionClosed | None = None

    @property
    def round_trip(self) -> float | None:
        """Seconds from the ping to its pong; None while it has not come."""
        return self._round_trip

    def is_set(self) -> bool:
        """Whether it has come."""
        return self._round_trip is not None

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it has come: True, or False after `timeout` seconds.

        Raises:
            ConnectionClosed: the connection has ended without it.
            ConfigurationError: the timeout is no number.
        """
        self._done.wait(patience("wait.timeout", timeout))
        if self._error is not None:
            raise afresh(self._error)
        return self.is_set()

    def _come(self, at: float) -> None:
        self._round_trip = max(at - self._sent, 0.0)
        self._done.set()

    def _fail(self, error: ConnectionClosed) -> None:
        self._error = error
        self._done.set()


def _payload(data: object) -> bytes:
    """Check what a ping is to carry."""
    remedy = f"give str or bytes, at most {LONGEST} bytes in UTF-8"
    try:
        payload = data.encode() if isinstance(data, str) else bytes(memoryview(data))  # type: ignore[arg-type]
    except (UnicodeEncodeError, TypeError):
        raise ConfigurationError("ping.data", type(data).__name__, remedy) from None
    if len(payload) > LONGEST:
        raise ConfigurationError("ping.data", f"{len(payload)} bytes", remedy)
    return payload


class Pongs:
    """The pings of one connection that have no answer yet. Thread-safe.

    Args:
        awaiting: called with +1 and -1 as there is one more or less to wait for: the reader then notes each pong.
    """

    def __init__(self, awaiting: Callable[[int], None]) -> None:
        self._awaiting = awaiting
        self._lock = threading.RLock()  # a signal's handler may close the connection within a ping of its thread
        self._waiting: dict[bytes, Pong] = {}  # in the order of sending

    def expect(self, data: str | bytes | None) -> tuple[bytes, Pong]:
        """The payload to send, and its answer; four random bytes where none is given."""
        given = None if data is None else _payload(data)
        with self._lock:
            if len(self._waiting) >= MOST:
                raise TimeoutError(f"{MOST} pings wait for their pongs: the server does not answer, or does not read; "
                                   "wait for a pong before the next ping")
            payload = os.urandom(4) if given is None else given
            while given is None and payload in self._waiting:
                payload = os.urandom(4)
            if payload in self._waiting:
                raise ConfigurationError("ping.data", f"{len(payload)} bytes", "a ping with these bytes still waits for its "
                                         "pong; give others")
            pong = self._waiting[payload] = Pong()
        self._awaiting(1)
        return payload, pong

    def forget(self, payload: bytes) -> None:
        """The ping could not be sent after all."""
        with self._lock:
            gone = self._waiting.pop(payload, None)
        if gone is not None:
            self._awaiting(-1)

    def heard(self, payload: bytes, at: float) -> float | None:
        """A pong came, at a time of `time.monotonic`; it answers the pings before its own, too (RFC 6455 §5.5.3). The
        seconds that it took, None if it answers none of these."""
        with self._lock:
            if payload not in self._waiting:
                return None
            answered: list[tuple[bytes, Pong]] = []
            while not answered or answered[-1][0] != payload:
                first = next(iter(self._waiting))
                answered.append((first, self._waiting.pop(first)))
        self._awaiting(-len(answered))
        for _, pong in answered:
            pong._come(at)
        return answered[-1][1].round_trip

    def fail(self, error: ConnectionClosed) -> None:
        """The connection has ended: no pong will come any more."""
        with self._lock:
            failed, self._waiting = list(self._waiting.values()), {}
        if failed:
            self._awaiting(-len(failed))
        for pong in failed:
            pong._fail(error)
