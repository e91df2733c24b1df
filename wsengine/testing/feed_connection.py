"""One connection of the feed's server, driven by one thread: what is sent next, what the client says, how it ends.

What there is to send stands in lane.py; which connections there are, and what the parent asks, in feed_server.py.
The thread never blocks in a call on the socket: it waits in poll only, for the client, for the next due message, and
for an order of the parent.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import ssl
import struct
import threading
import time
from typing import TYPE_CHECKING, Any

from wsengine.testing import wire
from wsengine.testing.tls import ServerSocket

if TYPE_CHECKING:
    from collections.abc import Callable

    from wsengine.testing.lane import Lane

__all__ = ["FeedConnection"]

#: The largest request head; that of a browser with many cookies stays below.
_MAX_HEAD = 64 * 1024
#: Seconds a client may take to end its side after the closing handshake.
_CLOSE_GRACE = 5.0
#: poll counts in milliseconds; what is due sooner than this is slept for instead, with the precision of the clock.
_SLEEP_BELOW = 2_000_000


class _Ended(Exception):
    """The connection is over; the argument says how."""


class FeedConnection:
    """Streams a lane to one client.

    Args:
        index: counts the connections of the server.
        sock: as accepted; belongs to this object from here on.
        claim: gives the lane, once the handshake is done.
        release: takes it back, once its last byte is sent.
        ping_interval: seconds between pings of the server, None for none.
        context: of TLS, None for none.
        compression: how what the lane holds is compressed, as `Feed` takes it.

    `run` belongs to the connection's own thread. `order` and `snapshot` may be called from any.
    """

    def __init__(
        self, index: int, sock: socket.socket,
        claim: Callable[[], Lane], release: Callable[[Lane], None], ping_interval: float | None,
        context: ssl.SSLContext | None = None, compression: str | None = None,
    ) -> None:
        sock.setblocking(False)
        self._tls = None if context is None else ServerSocket(sock, context)
        self._sock = self._tls or sock
        self._compression = compression
        self._claim, self._release = claim, release
        self._ping_interval = None if ping_interval is None else int(ping_interval * 1e9)
        self._next_ping: int | None = None
        self._lane: Lane | None = None
        self._frames = wire.ClientFrames()
        self._control = bytearray()  # control frames to send
        self._control_cut = False  # the first of them is partly sent
        self._pings_leaving: list[int] = []  # pings in `_control`, by number
        self._pings_sent: dict[bytes, int] = {}
        self._last: str | None = None  # set: nothing follows the message on the wire, and this is how it ends
        # Guards the record below, `_lane` while it advances, and `_order_pipe` against its closing.
        self._lock = threading.Lock()
        self._order: str | None = None
        self._order_pipe: tuple[int, int] | None = os.pipe()
        self._waits = {"blocked": 0, "idle": 0}
        self._waiting: tuple[str, int] | None = None
        self._record: dict[str, Any] = {
            "index": index, "lane": None, "opened_ns": time.monotonic_ns(), "ended_ns": None, "ended": None,
            "first_sequence": None, "messages": 0, "bytes_written": 0, "client_messages": 0,
            "pings": [], "pongs": [], "close_code": None, "close_reason": "",
        }

    def order(self, order: str) -> bool:
        """Have the connection end by "cut", "reset" or "stop"; return whether it was alive. The thread does it."""
        with self._lock:
            if self._order_pipe is None:
                return False
            self._order = order
            os.write(self._order_pipe[1], b"!")
            return True

    def snapshot(self) -> dict[str, Any]:
        """The record as of now; its counts are those of the bytes the kernel has taken, exactly."""
        with self._lock:
            waits = dict(self._waits)
            if self._waiting is not None:
                kind, since = self._waiting
                waits[kind] += time.monotonic_ns() - since
            record = self._record
            return {
                **record, "pings": list(record["pings"]), "pongs": list(record["pongs"]),
                "blocked_seconds": waits["blocked"] / 1e9, "idle_seconds": waits["idle"] / 1e9,
            }

    def run(self) -> None:
        """Serve the connection to its end; closes the socket."""
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        assert self._order_pipe is not None
        self._wake = self._order_pipe[0]
        self._poll = select.poll()
        self._poll.register(self._sock, select.POLLIN)
        self._poll.register(self._wake, select.POLLIN)
        ended = "server error"
        try:
            self._open()
            while True:
                self._turn()
        except _Ended as end:
            ended = str(end)
        except ssl.SSLError as error:
            ended = f"TLS failed ({error.reason or error})"
        except OSError:
            ended = "connection reset by client"
        finally:
            self._finish(ended)

    def _open(self) -> None:
        received = b""
        while (parsed := wire.parse_request(received)) is None:
            if len(received) > _MAX_HEAD:
                raise _Ended("request head too large")
            self._wait(select.POLLIN, "idle")
            self._obey()
            if self._last is not None:
                raise _Ended(self._last)
            received += self._receive()
        request, rest = parsed
        key = request.header("Sec-WebSocket-Key")
        if key is None or (request.header("Upgrade") or "").lower() != "websocket":
            with contextlib.suppress(BlockingIOError):
                self._sock.send(wire.http_response(400, body=b"this is a WebSocket server\n", reason="Bad Request"))
            raise _Ended("not an upgrade request")
        self._control += wire.accept_response(key, self._extensions(request))
        lane = self._claim()
        now = time.monotonic_ns()
        lane.begin(now)
        with self._lock:
            self._lane = lane
            self._record["lane"] = lane.number
        if self._ping_interval is not None:
            self._next_ping = now + self._ping_interval
        self._take_in(rest)

    def _extensions(self, request: wire.Request) -> list[tuple[str, str]]:
        """The answer to the offer of compression; without an offer, a feed that is compressed has nothing to send."""
        if self._compression is None:
            return []
        if "permessage-deflate" not in (request.header("Sec-WebSocket-Extensions") or ""):
            with contextlib.suppress(BlockingIOError):
                self._sock.send(wire.http_response(
                    400, body=b"this feed is compressed; offer permessage-deflate\n", reason="Bad Request"))
            raise _Ended("permessage-deflate was not offered")
        parameter = "; server_no_context_takeover" if self._compression == "no_context_takeover" else ""
        return [("Sec-WebSocket-Extensions", "permessage-deflate" + parameter)]

    def _turn(self) -> None:
        self._take_in(self._receive())
        self._obey()
        now = time.monotonic_ns()
        self._ping_if_due(now)
        control, data = self._next_bytes(now)
        if data:
            if not self._send(control, data):
                self._wait(select.POLLIN | select.POLLOUT, "blocked")
        elif self._last is not None:
            self._half_close(self._last)
        else:
            self._wait(select.POLLIN, "idle", self._next_due())

    def _next_bytes(self, now: int) -> tuple[bool, memoryview]:
        """What to send, and whether it is control frames. Those go between messages; neither is cut by the other."""
        assert self._lane is not None
        if self._control_cut or (self._control and not self._lane.offset):
            return True, memoryview(bytes(self._control))
        if self._control or self._last is not None:
            return False, self._lane.rest()
        return False, self._lane.take(now)

    def _send(self, control: bool, data: memoryview) -> bool:
        """Send what the kernel takes at once; return whether that was all."""
        assert self._lane is not None
        now = time.monotonic_ns()  # before: the client may have a ping, and wait, before we are back here
        with self._lock:  # so that nobody sees a count without bytes that are already on the wire
            try:
                sent = self._sock.send(data)
            except BlockingIOError:
                return False
            self._record["bytes_written"] += sent
            if not control:
                before = self._lane.sequence
                self._lane.advance(sent)
                if self._lane.sequence > before:
                    self._record["messages"] += self._lane.sequence - before
                    if self._record["first_sequence"] is None:
                        self._record["first_sequence"] = before
                return sent == len(data)
        del self._control[:sent]
        self._control_cut = bool(self._control)
        if not self._control:
            self._pings_sent.update((number.to_bytes(8, "big"), now) for number in self._pings_leaving)
            self._pings_leaving.clear()
        return sent == len(data)

    def _next_due(self) -> int | None:
        assert self._lane is not None
        times = [due for due in (self._lane.next_due(), self._next_ping) if due is not None]
        return min(times, default=None)

    def _ping_if_due(self, now: int) -> None:
        if self._next_ping is None or self._ping_interval is None or now < self._next_ping or self._last is not None:
            return
        number = len(self._pings_sent) + len(self._pings_leaving)
        self._control += wire.build_server_frame(wire.PING, number.to_bytes(8, "big"))
        self._pings_leaving.append(number)
        self._next_ping = max(self._next_ping + self._ping_interval, now)

    def _wait(self, events: int, kind: str, until: int | None = None) -> None:
        """Wait for the socket, an order, or `until` (ns), whichever comes first; counts the time as `kind`."""
        start = time.monotonic_ns()
        with self._lock:
            self._waiting = kind, start
        left = None if until is None else max(0, until - start)
        if self._tls is not None:
            if not self._tls.flush():
                events |= select.POLLOUT
            if self._tls.pending():
                left = 0  # poll knows nothing of what TLS holds
        if left is not None and left < _SLEEP_BELOW:
            time.sleep(left / 1e9)
        else:
            self._poll.modify(self._sock, events)
            self._poll.poll(None if left is None else left // 1_000_000)
        with self._lock:
            self._waits[kind] += time.monotonic_ns() - start
            self._waiting = None

    def _receive(self) -> bytes:
        """What has arrived, b"" if nothing has."""
        try:
            data = self._sock.recv(65536)
        except BlockingIOError:
            return b""
        if not data:
            raise _Ended(self._last or "client ended without Close")
        return data

    def _take_in(self, data: bytes) -> None:
        now = time.monotonic_ns()
        for frame in self._frames.feed(data) if data else ():
            if frame.opcode == wire.PING:
                with self._lock:
                    self._record["pings"].append([now, frame.payload])
                if self._last is None:
                    self._control += wire.build_server_frame(wire.PONG, frame.payload)
            elif frame.opcode == wire.PONG:
                self._note_pong(frame.payload, now)
            elif frame.opcode == wire.CLOSE:
                self._note_close(frame.payload)
            elif frame.fin:
                with self._lock:
                    self._record["client_messages"] += 1

    def _note_pong(self, payload: bytes, now: int) -> None:
        sent = self._pings_sent.get(payload)
        with self._lock:
            self._record["pongs"].append([now, None if sent is None else (now - sent) / 1e9])

    def _note_close(self, payload: bytes) -> None:
        with self._lock:
            self._record["close_code"] = struct.unpack("!H", payload[:2])[0] if len(payload) > 1 else 1005
            self._record["close_reason"] = payload[2:].decode("utf-8", "replace")
        if self._last is None:
            self._control += wire.build_server_frame(wire.CLOSE, payload)
            self._last = "closed by client"

    def _obey(self) -> None:
        order = self._order
        if order == "reset":
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            raise _Ended("reset")
        if order == "stop":
            self._say_going_away()
            raise _Ended("stopped")
        if order == "cut":
            # Once: the byte in the pipe would keep poll awake, and how it ends must not change with the client's Close.
            with self._lock:
                os.read(self._wake, 64)
                self._order = None
            self._last = "cut"

    def _say_going_away(self) -> None:
        if self._lane is None or self._lane.offset or self._control_cut or self._last is not None:
            return
        with contextlib.suppress(OSError):
            self._sock.send(wire.build_server_frame(wire.CLOSE, wire.close_payload(1001, "the feed is stopped")))

    def _half_close(self, ended: str) -> None:
        """Send FIN, and read on to the client's: closing with bytes unread sends RST, and takes back what was sent."""
        self._release_lane()
        while self._tls is not None and not self._tls.flush():
            self._wait(select.POLLOUT, "blocked")
            self._obey()
        self._sock.shutdown(socket.SHUT_WR)
        until = time.monotonic_ns() + int(_CLOSE_GRACE * 1e9) if ended != "cut" else None
        while until is None or time.monotonic_ns() < until:
            self._take_in(self._receive())
            self._obey()
            self._wait(select.POLLIN, "idle", until)
        raise _Ended(ended)

    def _release_lane(self) -> None:
        with self._lock:
            lane, self._lane = self._lane, None
        if lane is not None:
            self._release(lane)

    def _finish(self, ended: str) -> None:
        self._release_lane()
        self._sock.close()
        with self._lock:
            self._record["ended"], self._record["ended_ns"] = ended, time.monotonic_ns()
            assert self._order_pipe is not None
            for end in self._order_pipe:
                os.close(end)
            self._order_pipe = None
