"""The tap of `tail --trace`: a layer under the connection through which its bytes go, and which shows them on the way.

The engine's reader takes bytes off a descriptor and tells messages; it has no frames to hand out. So with a trace the
connection is dialed as ever, by any scheme and proxy and with all of its TLS, and then goes the way that TLS path B goes
anyway: its pump (wsengine.websocket.pump) moves the bytes between the reader and this layer, which passes them to the layer
that was dialed, an unencrypted socket among them. Here they are in clear, in the order of the wire. What is found in them
stands in frames.py.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from dataclasses import replace
from typing import TYPE_CHECKING

from wsengine.websocket.tls import TlsLayer

if TYPE_CHECKING:
    from collections.abc import Callable

    from wsengine.websocket.dial import Dialed
    from wsengine.websocket.tls import Layer

__all__ = ["tapped"]


def tapped(dialed: Dialed, received: Callable[[bytes], None], sent: Callable[[memoryview], None]) -> Dialed:
    """The same connection, which shows its bytes: `received` before the reader gets them, `sent` when the system has taken
    them. Both are called in the pump's thread, and must not raise; `received` at once with what came behind the 101."""
    if dialed.leftover:
        received(dialed.leftover)
    return replace(dialed, layer=_Tap(dialed.layer, received, sent), tls_path="B", tls_reason="its frames are traced")


class _Tap(TlsLayer):
    """What the pump asks of a layer, over any layer. Used by the pump's thread."""

    def __init__(self, below: Layer, received: Callable[[bytes], None], sent: Callable[[memoryview], None]) -> None:
        self.below = below
        self._received = received
        self._sent = sent

    def recv(self, size: int) -> bytes:
        try:
            data = self.below.recv(size)
        except BlockingIOError:  # as TLS says it
            raise ssl.SSLWantReadError(ssl.SSL_ERROR_WANT_READ, "the socket has nothing to read") from None
        self._received(data)
        return data

    def send(self, data: bytes | memoryview, flags: int = 0) -> int:
        try:
            taken = self.below.send(data, flags)
        except BlockingIOError:
            raise ssl.SSLWantWriteError(ssl.SSL_ERROR_WANT_WRITE, "the socket takes no more") from None
        self._sent(memoryview(data)[:taken])
        return taken

    def unwrap(self) -> None:
        """Tell the server that nothing more comes; waits for nothing."""
        if isinstance(self.below, (TlsLayer, ssl.SSLSocket)):
            self.below.unwrap()
        else:
            with contextlib.suppress(OSError):
                self.below.shutdown(socket.SHUT_WR)
