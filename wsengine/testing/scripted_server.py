"""The process of the scripted server: `python -m wsengine.testing.scripted_server`, started by `ScriptedServer`.

Here each step of steps.py is done, on a blocking socket in a thread of its connection, and what the client sent is
recorded. Nothing here decides what is right: the script does.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import struct
import threading
import time
from itertools import count
from typing import Any

from wsengine.testing import wire
from wsengine.testing.child import serve
from wsengine.testing.feed_server import allow_many_files, listen
from wsengine.testing.tls import ServerSocket, server_context

__all__ = ["ScriptedConnection", "ScriptedListener", "main"]

#: A FIN of the client, seen without reading; elsewhere than on Linux only a reset is.
_HANGUP = getattr(select, "POLLRDHUP", 0)


class _Ended(Exception):
    """The connection is over; the argument says how."""


class ScriptedConnection:
    """Goes through a script on one connection. `run` belongs to its thread; `snapshot` may be called from any."""

    def __init__(self, index: int, sock: socket.socket, script: list[list[Any]], context: ssl.SSLContext | None) -> None:
        self._plain = sock
        self._sock: socket.socket | ServerSocket = sock  # the same, or TLS on it
        self._context = context
        self._script = script
        self._frames = wire.ClientFrames()
        self._unseen: list[wire.ClientFrame] = []  # read, but not yet looked at by a step
        self._request: wire.Request | None = None
        self._deflate: wire.ServerDeflate | None = None
        self._lock = threading.Lock()  # guards the record, and the socket against being closed while it is looked at
        self._record: dict[str, Any] = {
            "index": index, "opened_ns": time.monotonic_ns(), "ended_ns": None, "ended": None, "step": None,
            "request_line": None, "headers": [], "frames": [], "tls": None,
        }

    def present(self) -> bool:
        """Whether both sides hold the connection open, as the kernel knows it; no step needs to have noticed an end."""
        with self._lock:
            if self._record["ended"] is not None:
                return False
            poller = select.poll()
            poller.register(self._sock, _HANGUP)
            return not poller.poll(0)

    def snapshot(self) -> dict[str, Any]:
        """The record as of now."""
        with self._lock:
            return {**self._record, "frames": list(self._record["frames"])}

    def run(self) -> None:
        """Do the steps in order; closes the socket."""
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        ended = "server error"
        try:
            self._go_through()
        except _Ended as end:
            ended = str(end)
        except ssl.SSLError as error:
            ended = f"connection lost ({error.reason or error})"
        except OSError as error:
            ended = f"connection lost ({error.strerror or error})"
        finally:
            with self._lock:
                self._sock.close()
                self._record["ended"], self._record["ended_ns"] = ended, time.monotonic_ns()

    def _go_through(self) -> None:
        first = self._script[0][0] if self._script else None
        if self._context is not None and first != "skip_tls":
            self._begin_tls(self._context)
        if first not in ("skip_request", "skip_tls"):
            self._read_request()
        for action, arguments in self._script:
            with self._lock:
                self._record["step"] = action
            getattr(self, f"_do_{action}")(**arguments)
        self._do_cut(5.0, "script done")

    # -- TLS ----------------------------------------------------------------------------------------------------------

    def _begin_tls(self, context: ssl.SSLContext) -> None:
        tls = ServerSocket(self._plain, context)
        tls.tls.server_name = None  # type: ignore[attr-defined]  # `_note_name` sets it
        try:
            tls.do_handshake()
        except OSError as error:
            self._let_the_alert_arrive()
            raise _Ended(f"TLS handshake failed ({getattr(error, 'reason', None) or error})") from None
        certificate: Any = tls.tls.getpeercert() or {}
        names = dict(pair for part in certificate.get("subject", ()) for pair in part)
        with self._lock:
            self._sock = tls
            self._record["tls"] = {"version": tls.tls.version(), "alpn": tls.tls.selected_alpn_protocol(),
                                   "server_name": getattr(tls.tls, "server_name", None), "client": names.get("commonName")}

    def _let_the_alert_arrive(self) -> None:
        """A close with bytes unread would become RST, and take back the alert that says why the handshake failed."""
        with contextlib.suppress(OSError):
            self._plain.shutdown(socket.SHUT_WR)
            self._plain.settimeout(2)
            while self._plain.recv(65536):
                pass

    # -- steps, each named as in steps.py -----------------------------------------------------------------------------

    def _do_skip_request(self) -> None:
        """Its work is done by `_go_through`."""

    def _do_skip_tls(self) -> None:
        """Its work is done by `_go_through`."""

    def _do_accept(
        self, headers: list[list[str]], without: list[str], glued: bytes, chunk: int | None, interval: float,
        accept: str | None,
    ) -> None:
        key = self._request.header("Sec-WebSocket-Key") if self._request is not None else None
        if key is None:
            raise _Ended("no Sec-WebSocket-Key to accept")
        data = wire.accept_response(key, headers, without, accept) + glued
        self._do_drip(data, chunk or len(data), interval)

    def _do_accept_deflate(self, answer: str, takeover: bool, window_bits: int, level: int) -> None:
        self._deflate = wire.ServerDeflate(takeover=takeover, window_bits=window_bits, level=level)
        self._do_accept([["Sec-WebSocket-Extensions", answer]], [], b"", None, 0.0, None)

    def _do_compressed(self, opcode: int, payload: bytes, fragment: int | None) -> None:
        if self._deflate is None:
            raise _Ended("compressed without accept_deflate")
        self._do_send(self._deflate.frames(opcode, payload, fragment))

    def _do_send(self, data: bytes) -> None:
        self._sock.settimeout(None)
        self._sock.sendall(data)

    def _do_drip(self, data: bytes, chunk: int, interval: float) -> None:
        for at in range(0, len(data), chunk):
            if at:
                time.sleep(interval)
            self._do_send(data[at : at + chunk])

    def _do_receive(self, count: int, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        for _ in range(count):
            while (frame := self._next_frame(deadline, "receive timed out")).opcode >= wire.CLOSE:
                if frame.opcode == wire.PING:
                    self._do_send(wire.build_server_frame(wire.PONG, frame.payload))

    def _do_serve(self, seconds: float | None, answer: bool, echo: bool) -> None:
        deadline = None if seconds is None else time.monotonic() + seconds
        while True:
            try:
                frame = self._next_frame(deadline, None)
            except TimeoutError:
                return
            if answer and frame.opcode == wire.PING:
                self._do_send(wire.build_server_frame(wire.PONG, frame.payload))
            elif answer and frame.opcode == wire.CLOSE:
                self._do_send(wire.build_server_frame(wire.CLOSE, frame.payload))
                self._do_cut(5.0, "closed by client")
            elif echo and frame.opcode < wire.CLOSE:
                self._do_send(wire.build_server_frame(frame.opcode, frame.payload, frame.fin, frame.rsv))

    def _do_await_close(self, timeout: float, answer: bool) -> None:
        deadline = time.monotonic() + timeout
        while (frame := self._next_frame(deadline, "no Close in time")).opcode != wire.CLOSE:
            pass
        if answer:
            self._do_send(wire.build_server_frame(wire.CLOSE, frame.payload))

    def _do_until_eof(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while True:
            self._next_frame(deadline, "no EOF in time")

    def _do_stall(self, seconds: float | None) -> None:
        poller = select.poll()
        poller.register(self._sock, _HANGUP)
        if poller.poll(None if seconds is None else seconds * 1000):
            raise _Ended("ended by client")

    def _do_truncate(self, linger: float) -> None:
        self._do_cut(linger, "truncated", notify=False)

    def _do_cut(self, linger: float, ended: str = "cut", notify: bool = True) -> None:
        (self._sock if notify else self._plain).shutdown(socket.SHUT_WR)  # that of TLS says close_notify before
        deadline = time.monotonic() + linger
        # A close with bytes unread would become RST, and take back what the client has not read yet.
        with contextlib.suppress(_Ended, OSError):
            while True:
                self._next_frame(deadline, None)
        raise _Ended(ended)

    def _do_reset(self) -> None:
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raise _Ended("reset")

    # -- reading ------------------------------------------------------------------------------------------------------

    def _read_request(self) -> None:
        received = b""
        while (parsed := wire.parse_request(received)) is None:
            received += self._receive(None)
        self._request, rest = parsed
        with self._lock:
            self._record["request_line"] = self._request.line
            self._record["headers"] = list(self._request.headers)
        self._take_in(rest)

    def _next_frame(self, deadline: float | None, late: str | None) -> wire.ClientFrame:
        """The next frame. At the deadline: the connection ends as `late` says, or TimeoutError if it says nothing."""
        while not self._unseen:
            try:
                self._take_in(self._receive(deadline))
            except TimeoutError:
                if late is None:
                    raise
                raise _Ended(late) from None
        return self._unseen.pop(0)

    def _receive(self, deadline: float | None) -> bytes:
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            raise TimeoutError
        self._sock.settimeout(left)
        data = self._sock.recv(65536)
        if not data:
            raise _Ended("ended by client")
        return data

    def _take_in(self, data: bytes) -> None:
        now = time.monotonic_ns()
        frames = self._frames.feed(data)
        self._unseen += frames
        with self._lock:
            self._record["frames"] += [[now, *frame] for frame in frames]


class ScriptedListener:
    """Accepts connections and gives each its script: the n-th the n-th, and the last script to all that follow."""

    def __init__(self, settings: dict[str, Any]) -> None:
        allow_many_files()
        threading.stack_size(256 * 1024)
        self._scripts: list[list[list[Any]]] = settings["scripts"]
        self._context = None if settings["tls"] is None else server_context(settings["tls"])
        if self._context is not None:
            self._context.sni_callback = _note_name
        self._lock = threading.Lock()  # guards the next two
        self._connections: list[ScriptedConnection] = []
        self._most_live = 0
        self._listener = listen(settings["port"])
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, name="scripted:accept", daemon=True).start()

    def snapshot(self) -> dict[str, Any]:
        """All records in order, and how many connections are and at most were open at the same time."""
        with self._lock:
            connections, most = list(self._connections), self._most_live
        return {
            "connections": [one.snapshot() for one in connections],
            "live": sum(one.present() for one in connections),
            "most_live": most,
        }

    def _accept(self) -> None:
        for index in count():
            sock, _ = self._listener.accept()
            script = self._scripts[min(index, len(self._scripts) - 1)]
            connection = ScriptedConnection(index, sock, script, self._context)
            with self._lock:
                self._connections.append(connection)
                self._most_live = max(self._most_live, sum(one.present() for one in self._connections))
            threading.Thread(target=connection.run, name=f"scripted:{index}", daemon=True).start()


def _note_name(tls: ssl.SSLObject | ssl.SSLSocket, name: str | None, _: ssl.SSLContext) -> None:
    tls.server_name = name  # type: ignore[union-attr]


def main() -> None:
    """Serve as the parent says, to the end of its pipe; the threads and sockets end with the process."""
    listener: ScriptedListener

    def start(settings: dict[str, Any]) -> dict[str, int]:
        nonlocal listener
        listener = ScriptedListener(settings)
        return {"port": listener.port}

    serve(start, {"snapshot": lambda: listener.snapshot(), "stop": lambda: listener.snapshot()})


if __name__ == "__main__":
    main()
