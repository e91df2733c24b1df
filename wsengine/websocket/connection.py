"""`Connection`: one place for a connection of a producer, through all its generations, as users see it.

Here are the facts of the present and the last generation. Who changes them is the supervisor; bytes are the reader's.
"""

from __future__ import annotations

import time
from ssl import SSLSocket
from typing import TYPE_CHECKING, Any

from wsengine.engine.control import ControlBlock
from wsengine.engine.stream import Stream
from wsengine.websocket.lifecycle import Lifecycle, State
from wsengine.websocket.outcome import closed
from wsengine.websocket.pump import Pump
from wsengine.websocket.sending import check_close
from wsengine.websocket.tls import TlsLayer

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterable

    from wsengine.engine.inflate import DeflateParameters
    from wsengine.engine.receiver import Note
    from wsengine.websocket.dial import Dialed
    from wsengine.websocket.pings import Pong
    from wsengine.websocket.response import Response
    from wsengine.websocket.retry import RetryBudget
    from wsengine.websocket.sending import Data, Outgoing, Timeout
    from wsengine.websocket.uri import WebSocketURI

__all__ = ["Connection"]


class Connection:
    """One connection of a WebSocketProducer. Attributes may be read from any thread.

    Attributes:
        index: which of the producer's connections, from 0.
        epoch: its generation, from 1; 0 before the first attempt. Each attempt is a new one.
        response: of the last successful opening handshake, None before it.
        subprotocol: that the server chose, None for none.
        deflate: what was agreed on about compression, None for none.
        close_code, close_reason: how the last generation ended (RFC 6455 §7.4; 1006 without a Close frame), or None.
        local_address, remote_address: of the present or last socket.
        tls_path: of the present or last socket: None without TLS, "A" where it is read without the GIL, else "B".
        tls_reason: why "B", a sentence; else None.
        reconnects: successful handshakes after the first.
    """

    def __init__(self, index: int, uri: WebSocketURI | None, budget: RetryBudget) -> None:
        self.index = index
        self.epoch = 0
        self.response: Response | None = None
        self.subprotocol: str | None = None
        self.deflate: DeflateParameters | None = None
        self.close_code: int | None = None
        self.close_reason: str | None = None
        self.local_address: Any = None
        self.remote_address: Any = None
        self.tls_path: str | None = None
        self.tls_reason: str | None = None
        self.opened = 0
        self._uri = uri  # the dialer, where a callable says it, at each attempt; there is one at a time
        self._control = ControlBlock()
        self._lifecycle = Lifecycle()
        self._budget = budget
        self._sock: socket.socket | None = None
        self._pump: Pump | None = None
        self._fault: BaseException | None = None  # of the present generation, by its frame handler; the supervisor
        self._attempt_at = 0.0
        self._opened_at = 0.0
        self._told_dropped = 0
        self._close_asked: tuple[int, int, bytes] | None = None  # by close(), any thread, before it tells the reader
        self._counts: dict[str, int] = {}
        self._outgoing: Outgoing
        self._begin_close: Callable[[int, int, bytes], None]

    @property
    def url(self) -> str:
        """The URL without credentials and query; where a callable says it, that of the newest attempt, "" before it has."""
        uri = self._uri
        return "" if uri is None else uri.redacted

    @property
    def state(self) -> str:
        """"dialing", "ready", "backoff", "closing" or "stopped"."""
        return self._lifecycle.state.value

    @property
    def latency(self) -> float | None:
        """Seconds from the newest answered ping to its pong, None if there was none."""
        return self._control.round_trip

    @property
    def paused(self) -> bool:
        """Whether the socket is not read at the moment, because the pipeline is full."""
        return self._control.paused

    @property
    def reconnects(self) -> int:
        return max(self.opened - 1, 0)

    @property
    def queued_bytes(self) -> int:
        """Bytes of messages that wait for the socket to take them."""
        return self._outgoing.queued

    # ------------------------------------------------------------------------------------------ anybody, from any thread

    def send(self, message: Data | Iterable[Data], text: bool | None = None, *, epoch: int | None = None,
             timeout: Timeout = "close_timeout") -> None:
        """Send a message. Thread-safe, also in a handler; messages of several threads do not mix.

        Returns when it is queued, masked: the reader sends it. Nothing tells whether the server got it.

        Args:
            message: str goes as text, bytes-like as binary; an iterable of one of them goes in fragments, each as it comes.
            text: True sends bytes as text (they are to be UTF-8), False sends str as binary.
            epoch: send in this generation or not at all; None takes the present one.
            timeout: seconds to wait for room, where `write_limit` bytes wait to be sent.

        Raises:
            ConnectionClosed: the connection is not open, or the generation has ended; it says how.
            TimeoutError: no room came, as the server does not read; a message that was begun ends the connection (1011).
                Or another thread's message was in the making all the time.
            ConfigurationError: the message is something else.
            EngineError: this thread is in the middle of a message: a signal's handler, or an iterable that sends.
        """
        self._outgoing.send(message, text, epoch, timeout)

    def ping(self, data: str | bytes | None = None) -> Pong:
        """Send a ping, at most 125 bytes; random ones by default. Returns at once, with the pong to wait for. Thread-safe.

        Raises ConnectionClosed if the connection is not open, ConfigurationError for what is no payload, TimeoutError where
        256 pings have no answer yet.
        """
        return self._outgoing.ping(data)

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Begin the closing handshake of the present generation, if there is one; returns at once. Thread-safe.

        What was sent before goes out first; what is sent from here on raises ConnectionClosed with this code.
        The retry policy decides about the next generation. `close_timeout` bounds the wait for the server's Close.
        """
        number, text = check_close(code, reason)
        self._shut(number, reason)
        self._close_asked = self.epoch, number, text
        self._begin_close(*self._close_asked)

    def _heard_pong(self, note: Note) -> None:
        """The thread that takes the reader's notes: a pong of this generation; where it answers a user's ping, that one was
        measured, too."""
        round_trip = self._outgoing.pongs.heard(note.text, note.detail / 1e9)
        if round_trip is not None:
            self._control.measured(round_trip)

    def repeat_close(self) -> None:
        """The supervisor only, once the reader has this generation: a close() that came before found nobody there."""
        asked = self._close_asked
        if asked is not None and asked[0] == self.epoch:
            self._begin_close(*asked)

    def _shut(self, code: int, reason: str) -> None:
        """Nothing is sent any more behind our Close."""
        self._outgoing.shut(closed(code, reason))

    def _why_full(self) -> str:
        """Why a sender finds no room, for the text of its error."""
        full = ", as it may wait for us: reading is paused while the pipeline is full" if self.paused else ""
        return f"the server does not read{full}"

    def _bind(self, outgoing: Outgoing, begin_close: Callable[[int, int, bytes], None]) -> None:
        """The producer, before there are threads."""
        self._outgoing = outgoing
        self._begin_close = begin_close

    # ------------------------------------------------------------------------------------------------------------ figures

    def counts(self) -> dict[str, int]:
        """Messages, payload bytes, frames and the like over all generations."""
        return self._control.counts()

    def take(self, dialed: Dialed, name: str) -> None:
        """The supervisor only: a generation begins; `name` is the producer's, for threads."""
        self.opened += 1
        self.response = dialed.response
        self.subprotocol = dialed.subprotocol
        self.deflate = dialed.deflate
        self.local_address = dialed.local_address
        self.remote_address = dialed.remote_address
        self.close_code = self.close_reason = None
        self.tls_path, self.tls_reason = dialed.tls_path, dialed.tls_reason
        self._sock = dialed.sock
        if dialed.tls_path == "B":
            assert isinstance(dialed.layer, (SSLSocket, TlsLayer))
            self._pump = Pump(f"{name}:tls_pump_{self.index}", dialed.layer)
            self._pump.start()
        self._fault = None
        self._opened_at = time.monotonic()
        self._counts = self._control.counts()
        self._outgoing.open(self.epoch, dialed.deflate)

    def stream(self, dialed: Dialed, max_size: int) -> Stream:
        """The supervisor only: what the reader gets, behind `take`."""
        fd = dialed.sock.fileno() if self._pump is None else self._pump.near.fileno()
        tls = dialed.sock if self._pump is None and isinstance(dialed.sock, SSLSocket) else None
        return Stream(fd, self._control, self.index, self.epoch, max_size, dialed.leftover, dialed.consumed, tls=tls,
                      deflate=dialed.deflate)

    @property
    def pump_error(self) -> BaseException | None:
        """How TLS failed behind a pump, which the reader sees as the end of its stream."""
        return None if self._pump is None else self._pump.error

    def let_go(self) -> dict[str, int]:
        """The supervisor only: the reader is off the socket, so it may be closed; what the generation counted."""
        self._control.end()
        if self._pump is not None:
            self._pump.stop()
            self._pump = None
        if self._sock is not None:
            self._sock.close()
            self._sock = None
        now = self._control.counts()
        return {name: now[name] - self._counts.get(name, 0) for name in ("messages", "bytes", "frames")}

    def stats(self) -> dict[str, Any]:
        """Figures of this connection, for `Pipeline.stats`."""
        return {"index": self.index, "state": self.state, "epoch": self.epoch, "reconnects": self.reconnects,
                "latency": self.latency, "paused": self.paused, **self.counts()}

    def __repr__(self) -> str:
        return f"<Connection {self.index} to {self.url} {self.state}, generation {self.epoch}>"

    @property
    def is_ready(self) -> bool:
        return self._lifecycle.state is State.READY
