"""What `doctor` does on an open connection: pings and their round trips, what comes by itself, the closing handshake.

It holds the bare channel, without the engine, so that each frame is seen at its time. What it finds is worded in doctor.py.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from wsengine.engine.frames import FrameParser, build_frame
from wsengine.errors import ConnectionClosedError
from wsengine.websocket.deadline import Deadline

if TYPE_CHECKING:
    from wsengine.websocket.channel import Channel
    from wsengine.websocket.dial import Dialed

__all__ = ["Probe"]

CLOSE, PING, PONG = 8, 9, 10
NORMAL = (1000).to_bytes(2, "big")
LARGEST = 2**26


class Probe:
    """Pings a server. Used by one thread.

    Attributes:
        messages: that came.
        server_pings: that came; they are answered.
        closed: code and reason of the server's Close, None before it.

    Raises (all methods): OSError: the network. ConnectionClosedError: the server ended the connection, or broke RFC 6455.
    """

    def __init__(self, channel: Channel, dialed: Dialed) -> None:
        self.messages = 0
        self.server_pings = 0
        self.closed: tuple[int, str] | None = None
        self._channel = channel
        self._parser = FrameParser(LARGEST, deflate=dialed.deflate is not None)
        self._pongs: set[bytes] = set()
        self._has_closed = False  # we have sent our Close, of which there is one (RFC 6455 §5.5.1)
        self._unread = dialed.leftover

    def ping(self, patience: float) -> float | None:
        """Send a ping; seconds to its pong, None if it does not come within `patience` seconds."""
        payload = os.urandom(4)
        limit = Deadline(patience)
        begun = time.monotonic()
        self._channel.send(build_frame(PING, payload))
        while payload not in self._pongs:
            if not self._receive(limit):
                return None
            if self.closed is not None:
                raise ConnectionClosedError(*self.closed)
        return time.monotonic() - begun

    def listen(self, seconds: float) -> None:
        """Take what comes, for a time or until the server closes."""
        limit = Deadline(seconds)
        while self.closed is None and self._receive(limit):
            pass

    def close(self, patience: float) -> bool:
        """Close with 1000; whether the server answers in time."""
        if self.closed is None:
            self._send_close(NORMAL)
            self.listen(patience)
        return self.closed is not None

    def _receive(self, limit: Deadline) -> bool:
        """Read once and take what came; False if the limit comes first."""
        data: bytes | None = self._unread
        self._unread = b""
        if limit.expired:  # a server that sends without pause would keep us here
            return False
        if not data:
            data = self._channel.receive(limit=limit)
        if data is None:
            return False
        if not data:
            raise ConnectionClosedError(1006, "the server ended the connection without a Close frame")
        for event in self._parser.feed(data):
            self._take(event)
        return True

    def _take(self, event: tuple[Any, ...]) -> None:
        kind = event[0]
        if kind == "pong":
            self._pongs.add(event[1])
        elif kind == "ping":
            self.server_pings += 1
            if not self._has_closed:
                self._channel.send(build_frame(PONG, event[1]))
        elif kind == "close":
            self.closed = event[1], event[2]
            if not self._has_closed:
                self._send_close(b"" if event[1] == 1005 else event[1].to_bytes(2, "big"))
        elif kind == "fail":
            raise ConnectionClosedError(event[1], f"the server broke RFC 6455: {event[2]}")
        else:
            self.messages += 1

    def _send_close(self, payload: bytes) -> None:
        self._has_closed = True
        self._channel.send(build_frame(CLOSE, payload))
