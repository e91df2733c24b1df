"""`tail --trace`: a line on standard error for each event of a connection and for each frame, with its time.

Frames are told as they were on the wire, in both directions, at the moment when their last byte passes the tap (tap.py):

    > frame text, FIN, masked, 19 bytes            of ours
    < frame text, no FIN, RSV1 (compressed), 512 bytes
    < frame close, FIN, 8 bytes: 1011 'broken'

Payloads are shown only where that is asked for, and no more than the beginning: they may hold secrets, as may the headers
that are hidden here. The reason of a Close is always shown.
"""

from __future__ import annotations

import codecs
import sys
import threading
import time
from typing import TYPE_CHECKING

from wsengine.cli.frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, Frame, FrameFinder
from wsengine.cli.harmless import one_line
from wsengine.cli.table import milliseconds
from wsengine.cli.tap import tapped
from wsengine.websocket.response import HIDDEN, shown_headers
from wsengine.websocket.uri import parse_uri

if TYPE_CHECKING:
    from wsengine.cli.server import Server
    from wsengine.websocket.client import ClientConnection
    from wsengine.websocket.dial import Dialed

__all__ = ["Trace"]

OPCODES = {CONTINUATION: "continuation", TEXT: "text", BINARY: "binary", CLOSE: "close", PING: "ping", PONG: "pong"}
#: Characters of a text, and bytes of anything else, that are shown of a payload.
SHOWN_TEXT, SHOWN_BYTES = 64, 32


class Trace:
    """Tells what happens, if it is `on`; `payloads`: with the beginning of each. Used in one thread, and by a pump's."""

    def __init__(self, *, on: bool, payloads: bool = False) -> None:
        self._on = on and sys.stderr is not None
        self._payloads = payloads
        self._lock = threading.Lock()  # of standard error: a line is the main thread's or the pump's
        self._started = self._dialed = time.monotonic()
        self._finders: dict[str, FrameFinder] = {}  # by direction; the pump's, before and behind it the main thread's
        self._latency: float | None = None
        self._failed: OSError | None = None  # by the pump's thread, which could not tell a frame; read by the main one

    def _tell(self, text: str) -> None:
        with self._lock:
            print(f"{time.monotonic() - self._started:9.3f} s  {one_line(text)}\n", end="", file=sys.stderr, flush=True)

    def connecting(self, server: Server) -> None:
        """An attempt begins."""
        self._dialed = time.monotonic()
        if not self._on:
            return
        self._tell(f"connecting to {parse_uri(server.url).redacted}")
        for name, _ in server.headers:
            self._tell(f"  > {name}: {HIDDEN}")
        if server.origin is not None:
            self._tell(f"  > Origin: {server.origin}")
        if server.subprotocols:
            self._tell(f"  > Sec-WebSocket-Protocol: {', '.join(server.subprotocols)}")

    def opened(self, dialed: Dialed) -> Dialed:
        """The server has accepted; the connection to go on with, whose frames are told."""
        if not self._on:
            return dialed
        self._latency = None
        tls = "no TLS" if dialed.tls_path is None else f"TLS path {dialed.tls_path}"
        if dialed.tls_reason:
            tls += f" ({dialed.tls_reason})"
        self._tell(f"open after {milliseconds(time.monotonic() - self._dialed)}: HTTP {dialed.response.status_code} from "
                   f"{_address(dialed.remote_address)}, {tls}, subprotocol {dialed.subprotocol or 'none'}, "
                   f"compression {'permessage-deflate' if dialed.deflate else 'none'}")
        for name, value in shown_headers(dialed.response):
            self._tell(f"  < {name}: {value}")
        self._finders = {"<": FrameFinder(), ">": FrameFinder()}
        return tapped(dialed, lambda data: self._passed("<", data), lambda data: self._passed(">", data))

    def _passed(self, direction: str, data: bytes | memoryview) -> None:
        """Bytes have passed the tap; the pump's thread, which has to go on whatever becomes of standard error."""
        for frame in self._finders[direction].feed(data):
            try:
                self._tell(f"{direction} frame {_frame(frame, payload=self._payloads)}")
            except OSError as error:
                self._failed = error

    def look(self, connection: ClientConnection) -> None:
        """Tell of the round trip of a ping since the last look. Raises OSError if frames cannot be told any more."""
        if self._failed is not None:
            raise self._failed
        latency = connection.latency
        if self._on and latency is not None and latency != self._latency:
            self._latency = latency
            self._tell(f"round trip {milliseconds(latency)}, of our last ping")

    def ended(self, connection: ClientConnection | None, error: Exception | None) -> None:
        """The connection is over, or there has been none; `error` is how."""
        if not self._on:
            return
        if connection is None:
            self._tell(f"failed after {milliseconds(time.monotonic() - self._dialed)}")
            return
        self.look(connection)
        self._tell_unfinished()
        counts = connection.counts()
        by = "closed by us" if error is None else "ended"
        reason = f" ({connection.close_reason})" if connection.close_reason else ""
        self._tell(f"{by} with {connection.close_code}{reason}; received {_times(counts['messages'], 'message')}, "
                   f"{_bytes(counts['bytes'])}, in {_times(counts['frames'], 'frame')} of "
                   f"{_bytes(counts['wire_bytes'])} on the wire")

    def _tell_unfinished(self) -> None:
        for direction, finder in self._finders.items():
            begun = finder.unfinished()
            if isinstance(begun, Frame):
                self._tell(f"{direction} frame {_frame(begun, payload=self._payloads)}, cut off after {_bytes(begun.came)}")
            elif begun is not None:
                self._tell(f"{direction} frame cut off within its head, after {_bytes(begun)}")


def _frame(frame: Frame, *, payload: bool) -> str:
    """A frame in words; with the beginning of its payload, if `payload`."""
    words = [OPCODES.get(frame.opcode, f"of unknown opcode {frame.opcode}"), "FIN" if frame.fin else "no FIN"]
    words += [name for bit, name in ((4, "RSV1 (compressed)"), (2, "RSV2"), (1, "RSV3")) if frame.rsv & bit]
    words += ["masked"] * frame.masked + [_bytes(frame.size)]
    if frame.opcode == CLOSE:
        said = _close(frame)
    else:
        said = _beginning(frame) if payload else ""
    return ", ".join(words) + (f": {said}" if said else "")


def _close(frame: Frame) -> str:
    """Code and reason (RFC 6455 §5.5.1)."""
    if len(frame.beginning) < 2:
        return ""
    reason = frame.beginning[2:].decode("utf-8", "backslashreplace")
    return f"{int.from_bytes(frame.beginning[:2], 'big')}" + (f" {reason!r}" if reason else "")


def _beginning(frame: Frame) -> str:
    if not frame.readable:
        return frame.beginning[:SHOWN_BYTES].hex() + ("…" if frame.size > SHOWN_BYTES else "")
    text = codecs.getincrementaldecoder("utf-8")("replace").decode(frame.beginning)  # what is cut in two is left out
    shown = text[:SHOWN_TEXT]
    return (repr(shown) if shown else "") + ("…" if shown != text or frame.size > len(frame.beginning) else "")


def _address(address: object) -> str:
    if not isinstance(address, tuple):
        return str(address)
    return f"[{address[0]}]:{address[1]}" if ":" in str(address[0]) else f"{address[0]}:{address[1]}"


def _times(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' if count != 1 else ''}"


def _bytes(count: int) -> str:
    return _times(count, "byte")
