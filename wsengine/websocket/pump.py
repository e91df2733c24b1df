"""The TLS pump (path B): a thread that moves bytes between a TLS layer and a socket pair, the reader at its other end.

So the reader sees a plain descriptor and never waits for the GIL, which the pump needs for each move: while a handler holds
it, nothing comes and no ping goes (README, "What the GIL promise is"). Here belongs the moving and how the ends are told
to each other. Why a connection goes this way does not (dial, engine.tls), nor the layer itself (tls).

::

    the layer has bytes          decrypted, sent to the reader; not read on before the reader has taken them
    the reader has bytes         encrypted, sent to the server; not read on before the server has taken them
    the layer ends, or fails     the reader sees the end of its stream; `error` says what failed
    the reader ends its side     close_notify, once and without waiting; what still comes is of no interest to it
    both have ended              the thread ends
    stop()                       the same; what the reader had sent goes out before, as far as that does not wait
    anything else is raised      the reader sees the end of its stream, and `error` is that
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import time
from typing import TYPE_CHECKING

from wsengine.engine.threads import unstarted
from wsengine.websocket.tls import is_end

if TYPE_CHECKING:
    import threading

    from wsengine.websocket.tls import TlsLayer

__all__ = ["Pump"]

#: Bytes moved at a time at the most, each way; as many may wait for the other side.
CHUNK = 256 * 1024


class Pump:
    """Moves the bytes of one connection. `start` and `stop` belong to one thread, the supervisor.

    Args:
        name: of the thread.
        layer: its handshake is done, and nobody else uses it any more. It stays open: whoever opened it closes it, behind
            `stop`.

    Attributes:
        near: the reader's end, a non-blocking socket.
        error: how the layer failed; None while it has not, and where it has ended properly. Written by the pump before
            the reader can see the end.
    """

    def __init__(self, name: str, layer: ssl.SSLSocket | TlsLayer) -> None:
        self.error: BaseException | None = None
        self._name = name
        self._layer = layer
        self.near, self._far = socket.socketpair()
        self._bell, self._rope = socket.socketpair()
        for one in (self.near, self._far, self._bell, self._rope):
            one.setblocking(False)
        self._inward = memoryview(b"")  # decrypted, and not yet taken by the reader; the pump's, as all below
        self._outward = memoryview(b"")  # of the reader, and not yet taken by the layer
        self._inward_over = False  # nothing more comes from the layer
        self._outward_over = False  # nothing more comes from the reader
        self._told = False  # the reader has been told that nothing more comes
        self._read_wants = self._write_wants = 0  # what the layer's last read and write wait for, 0: nothing
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread. Raises RuntimeError if the system has none to give."""
        self._thread = unstarted(self._name, self._run)
        try:
            self._thread.start()
        except RuntimeError:
            self._thread = None
            raise

    def stop(self) -> None:
        """End the thread, wherever it is, and release the descriptors but the layer's. The reader is off its end."""
        self._rope.close()
        if self._thread is not None:
            while self._thread.ident is None:    # a signal's handler raised within `start`
                time.sleep(0.001)
            self._thread.join()
        for one in (self.near, self._far, self._bell):
            one.close()

    # ---------------------------------------------------------------------------------------------------- the thread

    def _run(self) -> None:
        try:
            self._move()
        except BaseException as error:  # no memory, or a callback of the context's: the reader sees an end all the same
            self.error = error
            with contextlib.suppress(OSError):
                self._far.shutdown(socket.SHUT_RDWR)

    def _move(self) -> None:
        while True:
            self._read_layer()
            self._send_reader()
            self._read_reader()
            self._send_layer()
            over = self._inward_over and self._outward_over and not (self._inward or self._outward)
            if over:
                return
            if self._wait():
                self._send_last()
                return

    def _wait(self) -> bool:
        """Wait until something can be moved; whether to stop."""
        poller = select.poll()
        poller.register(self._bell, select.POLLIN)
        layer = (0 if self._inward or self._inward_over else self._read_wants) | (self._write_wants if self._outward else 0)
        reader = (select.POLLOUT if self._inward else 0) | (
            0 if self._outward or self._outward_over else select.POLLIN)
        if layer:
            poller.register(self._layer.fileno(), layer)
        if reader:
            poller.register(self._far, reader)
        at_once = not (self._inward or self._inward_over or self._read_wants)  # the layer has more, inside
        return any(fd == self._bell.fileno() for fd, _ in poller.poll(0 if at_once else None))

    # From the server to the reader

    def _read_layer(self) -> None:
        """Take what the layer has, over as many records as there are."""
        if self._inward or self._inward_over:
            return
        pieces, size = [], 0
        self._read_wants = 0
        while size < CHUNK and not self._read_wants and not self._inward_over:
            piece = self._decrypt()
            pieces.append(piece)
            size += len(piece)
        self._inward = memoryview(b"".join(pieces))

    def _decrypt(self) -> bytes:
        try:
            piece = self._layer.recv(CHUNK)
            self._inward_over = not piece
            return piece
        except ssl.SSLWantReadError:
            self._read_wants = select.POLLIN
        except ssl.SSLWantWriteError:
            self._read_wants = select.POLLOUT
        except OSError as error:
            self.error = None if is_end(error) else error  # without close_notify or with: the Close tells a proper end
            self._inward_over = True
        return b""

    def _send_reader(self) -> None:
        try:
            if self._inward:
                self._inward = self._inward[self._far.send(self._inward):]
            if self._inward_over and not self._inward and not self._told:
                self._told = True
                self._far.shutdown(socket.SHUT_WR)
        except BlockingIOError:
            pass
        except OSError:  # the reader's end is gone
            self._inward, self._inward_over = memoryview(b""), True

    # From the reader to the server

    def _read_reader(self) -> None:
        if self._outward or self._outward_over:
            return
        try:
            data = self._far.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._outward = memoryview(data)
        if not data:
            self._outward_over = True
            self._end_layer()

    def _send_layer(self) -> None:
        self._write_wants = 0
        try:
            while self._outward:
                self._outward = self._outward[self._layer.send(self._outward):]
        except ssl.SSLWantReadError:
            self._write_wants = select.POLLIN
        except ssl.SSLWantWriteError:
            self._write_wants = select.POLLOUT
        except OSError:  # the server has gone: what it sent before is still read, and tells why
            self._outward, self._outward_over = memoryview(b""), True

    def _send_last(self) -> None:
        """What the reader sent before it let go, its Close most likely, as far as the layer takes it at once."""
        while True:
            self._send_layer()
            self._read_reader()              # nothing, where the layer has not taken all
            if self._write_wants:
                return
            if not self._outward:
                self._end_layer()
                return

    def _end_layer(self) -> None:
        with contextlib.suppress(OSError, ValueError):  # it wants the other side's close_notify, or is gone: either is fine
            self._layer.unwrap()
