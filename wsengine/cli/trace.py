"""`tail --trace`: a line on standard error for each event of a connection, with its time and without secrets.

Messages are told as they are taken. Pings and pongs are the engine's, which counts them: they are told when `tail` next
looks, after a message or a tenth of a second.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from wsengine.cli.harmless import one_line
from wsengine.cli.table import milliseconds
from wsengine.websocket.response import HIDDEN, shown_headers
from wsengine.websocket.uri import parse_uri

if TYPE_CHECKING:
    from wsengine.cli.server import Server
    from wsengine.websocket.client import ClientConnection

__all__ = ["Trace"]


class Trace:
    """Tells what happens, if it is `on`. Used in one thread."""

    def __init__(self, *, on: bool) -> None:
        self._on = on and sys.stderr is not None
        self._started = self._dialed = time.monotonic()
        self._sent_pings = self._heard_pings = 0
        self._latency: float | None = None

    def _tell(self, text: str) -> None:
        print(f"{time.monotonic() - self._started:9.3f} s  {one_line(text)}", file=sys.stderr, flush=True)

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

    def opened(self, connection: ClientConnection) -> None:
        """The server has accepted."""
        self._sent_pings = self._heard_pings = 0
        self._latency = None
        if not self._on:
            return
        response = connection.response
        assert response is not None
        tls = "no TLS" if connection.tls_path is None else f"TLS path {connection.tls_path}"
        if connection.tls_reason:
            tls += f" ({connection.tls_reason})"
        self._tell(f"open after {milliseconds(time.monotonic() - self._dialed)}: HTTP {response.status_code} from "
                   f"{_address(connection.remote_address)}, {tls}, subprotocol {connection.subprotocol or 'none'}, "
                   f"compression {'permessage-deflate' if connection.deflate else 'none'}")
        for name, value in shown_headers(response):
            self._tell(f"  < {name}: {value}")

    def sent(self, text: str) -> None:
        """A message of ours is queued."""
        if self._on:
            self._tell(f"sent text, {_bytes(len(text.encode('utf-8', 'replace')))}")

    def received(self, message: str | bytes) -> None:
        """A message is taken."""
        if self._on:
            kind = "text" if isinstance(message, str) else "binary"
            self._tell(f"received {kind}, {_bytes(len(message.encode() if isinstance(message, str) else message))}")

    def look(self, connection: ClientConnection) -> None:
        """Tell of pings and pongs since the last look."""
        if not self._on:
            return
        counts, latency = connection.counts(), connection.latency
        sent, self._sent_pings = counts["pings_sent"] - self._sent_pings, counts["pings_sent"]
        heard, self._heard_pings = counts["pings_heard"] - self._heard_pings, counts["pings_heard"]
        if heard > 0:
            self._tell(f"received {_times(heard, 'ping')}, answered")
        if sent > 0:
            self._tell(f"sent {_times(sent, 'ping')}")
        if latency is not None and latency != self._latency:
            self._latency = latency
            self._tell(f"received a pong, round trip {milliseconds(latency)}")

    def ended(self, connection: ClientConnection | None, error: Exception | None) -> None:
        """The connection is over, or there has been none; `error` is how."""
        if not self._on:
            return
        if connection is None:
            self._tell(f"failed after {milliseconds(time.monotonic() - self._dialed)}")
            return
        self.look(connection)
        counts = connection.counts()
        by = "closed by us" if error is None else "ended"
        reason = f" ({connection.close_reason})" if connection.close_reason else ""
        self._tell(f"{by} with {connection.close_code}{reason}; received {_times(counts['messages'], 'message')}, "
                   f"{_bytes(counts['bytes'])}, in {_times(counts['frames'], 'frame')} of "
                   f"{_bytes(counts['wire_bytes'])} on the wire")


def _address(address: object) -> str:
    if not isinstance(address, tuple):
        return str(address)
    return f"[{address[0]}]:{address[1]}" if ":" in str(address[0]) else f"{address[0]}:{address[1]}"


def _times(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' if count != 1 else ''}"


def _bytes(count: int) -> str:
    return _times(count, "byte")
