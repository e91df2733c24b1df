"""Pings of the user's own, and the pongs that they wait for. (Those of keepalive are the engine's, and it alone waits.)

Here belongs which pong answers which ping. How they travel does not (sending, engine).
"""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING

from wsengine.errors import ConfigurationError, ConnectionClosed

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Pong", "Pongs"]

#: Bytes of a ping's payload at the most (RFC 6455 §5.5).
LONGEST = 125


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
        """
        self._done.wait(timeout)
        if self._error is not None:
            raise self._error
        return self.is_set()

    def _come(self, at: float) -> None:
        self._round_trip = max(at - self._sent, 0.0)
        self._done.set()

    def _fail(self, error: ConnectionClosed) -> None:
        self._error = error
        self._done.set()


class Pongs:
    """The pings of one connection that have no answer yet. Thread-safe.

    Args:
        awaiting: called with +1 and -1 as there is one more or less to wait for: the reader then notes each pong.
    """

    def __init__(self, awaiting: Callable[[int], None]) -> None:
        self._awaiting = awaiting
        self._lock = threading.Lock()
        self._waiting: dict[bytes, Pong] = {}  # in the order of sending

    def expect(self, data: str | bytes | None) -> tuple[bytes, Pong]:
        """The payload to send, and its answer; four random bytes where none is given."""
        payload = data.encode() if isinstance(data, str) else data
        if payload is not None and (not isinstance(payload, (bytes, bytearray, memoryview)) or len(payload) > LONGEST):
            raise ConfigurationError("ping.data", data, f"give str or bytes, at most {LONGEST} of them")
        with self._lock:
            while payload is None or (data is None and bytes(payload) in self._waiting):
                payload = os.urandom(4)
            payload = bytes(payload)
            if payload in self._waiting:
                raise ConfigurationError("ping.data", data, "a ping with these bytes still waits for its pong; give others")
            pong = self._waiting[payload] = Pong()
        self._awaiting(1)
        return payload, pong

    def forget(self, payload: bytes) -> None:
        """The ping could not be sent after all."""
        with self._lock:
            gone = self._waiting.pop(payload, None)
        if gone is not None:
            self._awaiting(-1)

    def heard(self, payload: bytes, at: float) -> None:
        """A pong came, at a time of `time.monotonic`; it answers the pings before its own, too (RFC 6455 §5.5.3)."""
        with self._lock:
            if payload not in self._waiting:
                return
            answered: list[tuple[bytes, Pong]] = []
            while not answered or answered[-1][0] != payload:
                first = next(iter(self._waiting))
                answered.append((first, self._waiting.pop(first)))
        self._awaiting(-len(answered))
        for _, pong in answered:
            pong._come(at)

    def fail(self, error: ConnectionClosed) -> None:
        """The connection has ended: no pong will come any more."""
        with self._lock:
            failed, self._waiting = list(self._waiting.values()), {}
        if failed:
            self._awaiting(-len(failed))
        for pong in failed:
            pong._fail(error)
