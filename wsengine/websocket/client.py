"""`connect()`: one connection, read by whoever calls `recv`; the plain synchronous client on the engine of the pipelines.

Here are its options and its reading side. Sending, pings and figures are those of every `Connection`; where it runs is the
hub's matter. There is no second attempt here: whoever wants one calls `connect()` again, or uses a `WebSocketProducer`.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, overload

from wsengine.engine.outlet import Outlet
from wsengine.engine.receiver import Inflow
from wsengine.engine.ring import Account, Parker, Ring
from wsengine.engine.sender import Sender
from wsengine.engine.threads import check_fork
from wsengine.engine.turn import BUSY, Turn
from wsengine.errors import ConfigurationError, ConnectionClosed, ConnectionClosedOK, EngineError
from wsengine.options import OVERFLOW_POLICIES, check_logger, choice, patience, reject_unknown, seconds, whole
from wsengine.websocket.connection import Connection
from wsengine.websocket.dial import dial
from wsengine.websocket.extensions import check_compression
from wsengine.websocket.headers import USER_AGENT
from wsengine.websocket.hub import Hub
from wsengine.websocket.lifecycle import Event
from wsengine.websocket.outcome import afresh, ending, outcome
from wsengine.websocket.retry import Backoff, RetryBudget
from wsengine.websocket.sending import Data, Outgoing, Timeout, check_close
from wsengine.websocket.target import positional_arguments
from wsengine.websocket.uri import parse_uri
from wsengine.websocket.way import Way

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from ssl import SSLContext
    from types import TracebackType
    from typing import Self

    from wsengine.engine.receiver import Note
    from wsengine.websocket.dial import Dialed
    from wsengine.websocket.extensions import PerMessageDeflate
    from wsengine.websocket.headers import Headers
    from wsengine.websocket.hub import Place
    from wsengine.websocket.pings import Pong
    from wsengine.websocket.socket_options import SocketOptions
    from wsengine.websocket.supplied import Supply
    from wsengine.websocket.uri import WebSocketURI

__all__ = ["ClientConnection", "connect"]

#: Seconds that a wait of the main thread lasts before it looks for signals, whose handlers Python runs there; and those of
#: another thread, which is woken when there is something: with many of them, looks cost a core.
SLICE, ELSEWHERE = 0.1, 5.0
SLAB = 2**16
#: Messages that `recv` claims at a time.
AHEAD = 64
#: Bytes of a message at the most, whatever is asked for.
LARGEST = 2**32 - 1

_told_of_b: set[str] = set()  # reasons for TLS path B of which this process has been warned; a set's add is atomic

OPTIONS = ("path", "headers", "origin", "subprotocols", "user_agent_header", "compression", "ssl", "server_hostname", "sock",
           "unix", "proxy", "proxy_ssl", "socket_options", "allow_plaintext_credentials", "open_timeout", "close_timeout",
           "keepalive", "pong_timeout", "ws_timeout", "max_size", "max_queue", "max_queue_bytes", "overflow", "write_limit",
           "logger")
#: What users of `websockets` and other clients may write, and what it is called here.
RENAMED = {
    "additional_headers": "headers", "extra_headers": "headers", "header": "headers", "ping_interval": "keepalive",
    "heartbeat": "keepalive", "ping_timeout": "pong_timeout", "idle_timeout": "ws_timeout", "timeout": "open_timeout",
    "extensions": "compression=PerMessageDeflate(...)", "compress": "compression", "ssl_context": "ssl", "sslopt": "ssl",
    "max_msg_size": "max_size", "uri": "url, the first argument", "unix_socket": "unix", "uds": "unix",
    "retry": "a WebSocketProducer, which connects again", "concurrency": "a WebSocketProducer",
    "proxy_server_hostname": "proxy, with the name that the proxy's certificate has", "source_address": "sock",
    "create_connection": "connect() itself: what it returns is complete",
}


def connect(
    url: str, *, path: str | None = None, headers: Headers = None, origin: str | None = None,
    subprotocols: Sequence[str] | None = None, user_agent_header: str | None = USER_AGENT,
    compression: str | PerMessageDeflate | None = None, ssl: SSLContext | None = None, server_hostname: str | None = None,
    sock: Supply = None, unix: str | os.PathLike[str] | None = None, proxy: str | bool | None = True,
    proxy_ssl: SSLContext | None = None, socket_options: SocketOptions | None = None,
    allow_plaintext_credentials: bool = False, open_timeout: float | None = 10.0, close_timeout: float = 5.0,
    keepalive: float | None = 20.0, pong_timeout: float | None = None, ws_timeout: float | None = 60.0,
    max_size: int | None = 2**20, max_queue: int = 1024, max_queue_bytes: int = 2**24, overflow: str = "block",
    write_limit: int = 2**20, logger: logging.Logger | None = None, **unknown: object,
) -> ClientConnection:
    """Connect to a WebSocket server, and return when it has accepted. May be called from any thread.

    ::

        with wsengine.connect("wss://example.com/feed") as connection:
            connection.send("subscribe")
            for message in connection:
                ...

    All connections of a process share one reader thread and one ping timer, which never need the GIL: they are read,
    answer pings and are kept alive whatever the program does, up to `max_queue` messages and `max_queue_bytes`; from there
    the server is held back. Times are seconds; None is off.

    Args:
        url, path: ws:// or wss://, and the resource where the url has none.
        headers, origin, subprotocols, user_agent_header: of the upgrade request. `headers` may be a callable without
            arguments.
        compression: "deflate" or PerMessageDeflate(...) offers permessage-deflate.
        ssl, server_hostname, sock, unix, proxy, proxy_ssl, socket_options, allow_plaintext_credentials: by which way the
            server is reached, each as for `wsengine.websocket.way.Way`.
        open_timeout: for DNS, TCP, proxy, TLS and the opening handshake together.
        close_timeout: for the closing handshake, and for a send that finds no room.
        keepalive: period of our pings.
        pong_timeout: each of them must be answered within it.
        ws_timeout: the connection is lost when nothing at all has arrived for so long.
        max_size: bytes of a message at the most, not above max_queue_bytes; None for no limit but that.
        max_queue, max_queue_bytes: messages, and bytes of receive buffers, that wait for `recv` at the most; the first is
            rounded up to a power of two.
        overflow: what happens where there is no room. "block": the socket is not read, so the server has to wait.
            "drop_oldest", "drop_newest": it is read, and the oldest or the newest message goes; `counts()["dropped"]` tells
            how many. "error": the connection ends with 1008, and a QueueOverflow as cause.
        write_limit: bytes of messages that may wait to be sent; beyond, `send` waits for room.
        logger: instead of "wsengine.connection".

    Raises:
        ConfigurationError, InvalidURI: an option is wrong.
        TimeoutError, OSError, InvalidHandshake, HeadersError: as `wsengine.websocket.dial.dial`.
        EngineStopped: the interpreter is ending.

    Source: `websockets.sync.client.connect`, whose object has the same methods; docs/connect.md compares them.
    """
    reject_unknown("connect", unknown, OPTIONS, RENAMED)
    if callable(headers) and not isinstance(headers, Mapping):
        positional_arguments("connect.headers", headers, most=0)
    uri = parse_uri(url, path)
    way = Way(uri, ssl=ssl, server_hostname=server_hostname, sock=sock, unix=unix, proxy=proxy, proxy_ssl=proxy_ssl,
              socket_options=socket_options, allow_plaintext_credentials=allow_plaintext_credentials, path="connect.")
    settings = Settings(
        keepalive=seconds("connect.keepalive", keepalive) or 0.0,
        ws_timeout=seconds("connect.ws_timeout", ws_timeout) or 0.0,
        pong_timeout=seconds("connect.pong_timeout", pong_timeout) or 0.0,
        close_timeout=seconds("connect.close_timeout", close_timeout, optional=False) or 0.0,
        max_queue=whole("connect.max_queue", max_queue, minimum=1, maximum=2**23),
        max_queue_bytes=whole("connect.max_queue_bytes", max_queue_bytes, minimum=1, maximum=2**39),
        overflow=choice("connect.overflow", overflow, OVERFLOW_POLICIES),
        write_limit=whole("connect.write_limit", write_limit, minimum=1, maximum=2**40),
        compression=check_compression("connect.compression", compression), logger=check_logger("connect.logger", logger))
    if pong_timeout is not None and keepalive is None:
        raise ConfigurationError("connect.pong_timeout", pong_timeout, "set keepalive, too: without pings there are no "
                                 "pongs to wait for")
    settings.max_size = min(settings.max_queue_bytes, LARGEST) if max_size is None else whole(
        "connect.max_size", max_size, minimum=1, maximum=LARGEST)
    if settings.max_size > settings.max_queue_bytes:
        raise ConfigurationError("connect.max_size", max_size, f"give at most max_queue_bytes={max_queue_bytes}, or raise "
                                 "that")
    way.check_headers(headers)
    dialed = dial(uri, way, headers=headers, origin=origin, subprotocols=subprotocols, user_agent_header=user_agent_header,
                  compression=settings.compression, open_timeout=seconds("connect.open_timeout", open_timeout))
    return ClientConnection(uri, dialed, settings)


@dataclass
class Settings:
    """The checked options of a connection, apart from those of its dial."""

    keepalive: float
    ws_timeout: float
    pong_timeout: float
    close_timeout: float
    max_queue: int
    max_queue_bytes: int
    overflow: str
    write_limit: int
    compression: PerMessageDeflate | None
    logger: logging.Logger | logging.LoggerAdapter[Any]
    max_size: int = 0


@dataclass(frozen=True)
class _Past:
    """The figures of a connection that has ended, as its control block may be another's by now."""

    counts: dict[str, int]
    latency: float | None


class ClientConnection(Connection):
    """A connection made by `connect()`. Every method may be called from any thread; a `with` closes it.

    Who is blocked in `recv`, `send` or a pong's `wait` when the connection ends learns of it by ConnectionClosed. It belongs
    to the process that made it: in a forked child its methods raise ForkedProcessError.
    """

    def __init__(self, uri: WebSocketURI, dialed: Dialed, settings: Settings) -> None:
        super().__init__(0, uri, RetryBudget(Backoff(max_retries=0)))
        self._settings = settings
        self._logger = settings.logger
        self._pid = os.getpid()
        self._ending = threading.RLock()  # our Close and the end: the second changes nothing; a signal's handler may close
        self._over = threading.Event()
        self._end: ConnectionClosed | None = None  # how it ended; the hub's thread, before _over is set
        self._past: _Past | None = None  # the same, before it leaves the hub
        self._taking = Turn()  # one thread at a time takes messages
        self._place: Place | None = None
        try:
            self._prepare_queue()
            self._hub = Hub.join(self)
        except BaseException:
            dialed.sock.close()
            raise
        try:
            self._begin(dialed)
        except BaseException:
            self._fail(dialed)
            raise

    def _prepare_queue(self) -> None:
        """Where messages wait for `recv`."""
        most = self._settings.max_queue_bytes
        self._waiting = Parker()
        self._ring = Ring(1 << max(self._settings.max_queue - 1, 1).bit_length(), Account(self._settings.max_queue, most),
                          self._waiting, slab_bytes=min(SLAB, _slab(most)), guest=True)
        # what is claimed can no longer be dropped, so where the oldest are to go, they are claimed one at a time
        self._outlet = Outlet(self._ring, ahead=1 if self._settings.overflow == "drop_oldest" else AHEAD)

    def _begin(self, dialed: Dialed) -> None:
        """Take the connection to the hub."""
        settings, receiver = self._settings, self._hub.receiver
        self._place = place = self._hub.place()
        self.index, self.epoch, self._control = place.index, place.epoch, place.control
        self._bind(Outgoing(Sender(self._control, receiver, settings.write_limit), settings.close_timeout, self._why_full,
                            self._abandon, settings.compression), partial(receiver.close, place.index))
        self.take(dialed, "wsengine:connect")
        stream = self.stream(dialed, settings.max_size)
        self._lifecycle.fire(Event.OPENED)
        self._control.begin(self.epoch, keepalive=settings.keepalive, ws_timeout=settings.ws_timeout,
                            pong_timeout=settings.pong_timeout, close_timeout=settings.close_timeout)
        self._logger.info("connection to %s is open", self.url)
        if self.tls_reason is not None and self.tls_reason not in _told_of_b:
            _told_of_b.add(self.tls_reason)
            self._logger.warning("connections go over TLS path B: %s; while a thread holds the GIL, nothing of them is read "
                                 "and no ping is sent", self.tls_reason)
        self._hub.add(self, place, stream, Inflow(self._ring, self._hub.receiver, overflow=settings.overflow))

    def _fail(self, dialed: Dialed) -> None:
        """It could not be begun, or a signal came meanwhile: nobody gets to know it."""
        if self._hub.has(self._place):       # the reader is on the socket: the rest follows from its note
            self._hub.receiver.release(self.index, self.epoch)
            return
        self.let_go()
        dialed.sock.close()
        self._hub.leave(self, self._place)

    def _abandon(self, epoch: int) -> None:
        """A message was begun and will not be completed: nothing can follow it."""
        self._hub.receiver.close(self.index, epoch, 1011, b"incomplete message")

    # ------------------------------------------------------------------------------------------------------ receiving

    @overload
    def recv(self, timeout: float | None = None, decode: None = None) -> str | bytes: ...
    @overload
    def recv(self, timeout: float | None = None, *, decode: Literal[True]) -> str: ...
    @overload
    def recv(self, timeout: float | None = None, *, decode: Literal[False]) -> bytes: ...
    def recv(self, timeout: float | None = None, decode: bool | None = None) -> str | bytes:
        """The next message: str for text, bytes for binary.

        Args:
            timeout: seconds to wait; None waits for ever, 0 or less not at all.
            decode: True gives every message as str, False as bytes.

        Raises:
            TimeoutError: none has come in time.
            ConnectionClosed: the connection has ended, and everything that came before has been received.
            UnicodeDecodeError: `decode` is True, and a binary message is not UTF-8; it is taken all the same.
            ConfigurationError: the timeout is no number.
            EngineError: a signal's handler receives within a `recv` of its thread.
            ForkedProcessError: the connection belongs to the parent process.
        """
        check_fork(self._pid)
        timeout = patience("recv.timeout", timeout)
        deadline = None if timeout is None else time.monotonic() + timeout
        if self._taking.mine:
            raise EngineError("this thread is receiving already: a signal's handler cannot receive within its recv")
        message: str | bytes = self._taking.take(-1.0 if timeout is None else timeout, self._take, decode, deadline, timeout)
        if message is BUSY:
            raise TimeoutError(f"another thread has been receiving for {timeout} s")
        return message

    def _take(self, decode: bool | None, deadline: float | None, timeout: float | None) -> str | bytes:
        while True:
            over = self._over.is_set()       # looked at first: everything had been put into the ring before it was set
            message = self._outlet.take(decode)
            if message is not None:
                return message
            if over:
                assert self._end is not None
                raise afresh(self._end)
            self._wait_for_message(deadline, timeout)

    def _wait_for_message(self, deadline: float | None, timeout: float | None) -> None:
        most = SLICE if threading.get_ident() == threading.main_thread().ident else ELSEWHERE
        left = most if deadline is None else deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"no message came within {timeout} s")
        self._waiting.wait(lambda: self._outlet.waiting or self._over.is_set(), min(left, most))

    def __iter__(self) -> Iterator[str | bytes]:
        """Messages until the server, or we, close with 1000, 1001 or no code; another end raises ConnectionClosedError."""
        try:
            while True:
                yield self.recv()
        except ConnectionClosedOK:
            return

    # -------------------------------------------------------------------------------------------------------- the end

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Close the connection, and wait until it is: at most `close_timeout`. Further calls do nothing.

        What was sent before goes out first. What has been received and not yet taken can still be; what comes from here on
        is discarded.
        """
        number, text = check_close(code, reason)
        check_fork(self._pid)
        with self._ending:
            if self._over.is_set():
                return
            self._shut(number, reason)
        self._hub.receiver.close(self.index, self.epoch, number, text, discard=True)
        self._over.wait(self._settings.close_timeout + 5.0)

    def take_note(self, note: Note) -> None:
        """The hub's thread only: something has happened."""
        if note.kind == "pong":
            self._heard_pong(note)
        elif note.kind == "ended":
            self._finish(note)

    def _finish(self, note: Note) -> None:
        _, error = outcome(note, self._settings.max_size, self.pump_error)
        if note.cause == "released" and self._hub.stopping:
            error = ConnectionClosedOK(1001)     # the interpreter ends: ours, and nobody waits for the server's
        self.let_go()
        end = ending(error)
        self._past = _Past(self.counts(), self.latency)
        with self._ending:
            self.close_code, self.close_reason = end.code, end.reason if isinstance(error, ConnectionClosed) else ""
            self._outgoing.shut(end)
            self._end = end
            self._lifecycle.fire(Event.GIVEN_UP)
            self._over.set()
        self._waiting.notify_all()
        self._hub.leave(self, self._place)
        level = logging.INFO if isinstance(end, ConnectionClosedOK) else logging.WARNING
        self._logger.log(level, "connection to %s has ended: %s", self.url, end)

    # ------------------------------------------------------------------------------------------------------- figures
    # Each is read before the look at `_past`: nobody else has the control block while that is not set.

    @property
    def latency(self) -> float | None:
        """Seconds from the newest answered ping to its pong, None if there was none."""
        now, past = self._control.round_trip, self._past
        return now if past is None else past.latency

    @property
    def paused(self) -> bool:
        """Whether the socket is not read at the moment, because `max_queue` or `max_queue_bytes` wait for `recv`."""
        now = self._control.paused
        return now and self._past is None

    @property
    def queued_bytes(self) -> int:
        """Bytes of messages that wait for the socket to take them; 0 once it has ended."""
        now = self._outgoing.queued
        return now if self._past is None else 0

    def counts(self) -> dict[str, int]:
        """Messages, payload bytes, frames and the like of this connection."""
        now, past = self._control.counts(), self._past
        if past is not None:
            return dict(past.counts)
        before = {**self._counts, "pings_sent": 0}  # which the place counts anew for each
        return {name: number - before[name] for name, number in now.items()}

    # ------------------------------------------------------------------------------------- as any Connection, and a fork

    def send(self, message: Data | Iterable[Data], text: bool | None = None, *, epoch: int | None = None,
             timeout: Timeout = "close_timeout") -> None:
        check_fork(self._pid)
        super().send(message, text, epoch=epoch, timeout=timeout)

    def ping(self, data: str | bytes | None = None) -> Pong:
        check_fork(self._pid)
        return super().ping(data)

    def _why_full(self) -> str:
        full = ", as it may wait for us: reading is paused while messages wait for recv" if self.paused else ""
        return f"the server does not read{full}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if os.getpid() == self._pid:         # a child leaves the block: the connection is its parent's
            self.close(1000 if kind is None else 1011)

    def __repr__(self) -> str:
        return f"<ClientConnection to {self.url} {self.state}>"


def _slab(max_queue_bytes: int) -> int:
    """Bytes of a receive buffer, of which some must fit into the bound."""
    return int(max(4096, 1 << max((max_queue_bytes // 8).bit_length() - 1, 0)))
