"""`WebSocketProducer`: the options of a WebSocket feed, and how its parts are put together in a pipeline.

Here are validation and assembly. What the parts do: dialling (dial), the connections' lives (supervisor), bytes (engine).
"""

from __future__ import annotations

import copy
import logging
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from wsengine.engine.keepalive import KeepaliveTimer
from wsengine.engine.receiver import Receiver
from wsengine.engine.ring import Parker, Ring
from wsengine.engine.sender import Sender
from wsengine.engine.threads import spawn
from wsengine.errors import ConfigurationError
from wsengine.logs import log
from wsengine.options import boolean, check_logger, function, refuse_async, reject_unknown, seconds, text, whole
from wsengine.pipeline.frame_handler import FrameHandler
from wsengine.pipeline.source import Inbox, Producer
from wsengine.websocket.attempt import Attempt
from wsengine.websocket.bootstrap import Bootstrap
from wsengine.websocket.connection import Connection
from wsengine.websocket.dial import Dialed, dial
from wsengine.websocket.events import Events
from wsengine.websocket.extensions import check_compression
from wsengine.websocket.failures import process_exception
from wsengine.websocket.handshake import Handshake
from wsengine.websocket.headers import USER_AGENT, resolve_headers
from wsengine.websocket.retry import Backoff, RetryBudget, check_retry
from wsengine.websocket.sending import Outgoing
from wsengine.websocket.sessions import ProducerSessions
from wsengine.websocket.supervisor import Supervisor, Timing
from wsengine.websocket.target import Target
from wsengine.websocket.uri import WebSocketURI
from wsengine.websocket.way import Way

if TYPE_CHECKING:
    import os
    import threading
    from collections.abc import Callable, Iterable, Sequence
    from ssl import SSLContext

    from wsengine.message import Message
    from wsengine.pipeline.dispatcher import Dispatcher
    from wsengine.pipeline.frame_handler import FrameResult
    from wsengine.pipeline.source import Host
    from wsengine.websocket.bootstrap import Upgrade
    from wsengine.websocket.deadline import Cancellation
    from wsengine.websocket.extensions import PerMessageDeflate
    from wsengine.websocket.failures import ProcessException
    from wsengine.websocket.retry import RetryPolicy
    from wsengine.websocket.socket_options import SocketOptions
    from wsengine.websocket.supplied import Supply
    from wsengine.websocket.target import ProducerHeaders

__all__ = ["WebSocketProducer"]

LARGEST = 2**32 - 1
SLAB = 2**18
#: What headers are checked against where the URL is known only at an attempt.
ANY = WebSocketURI(secure=True, host="localhost", port=443)

OPTIONS = ("path", "ws_timeout", "keepalive", "silence_pings", "pong_timeout", "headers", "telemetry_id", "concurrency",
           "transformer", "on_upgrade", "frame_handler", "frame_handler_state", "session_markers", "retry", "open_timeout",
           "close_timeout", "max_size", "write_limit", "subprotocols", "origin", "user_agent_header", "socket_options",
           "compression", "logger", "ssl", "server_hostname", "sock", "unix", "process_exception",
           "allow_plaintext_credentials", "proxy", "proxy_ssl")
#: What users of the ancestor, of gun and of other clients may write, and what it is called here.
RENAMED = {
    "await_timeout": "open_timeout (seconds)", "connect_timeout": "open_timeout (seconds)", "timeout": "open_timeout",
    "headers_fn": "headers, which may be a callable", "additional_headers": "headers", "extra_headers": "headers",
    "header": "headers", "ws_retry_opts": "retry=Backoff(...)", "ws_retry_fun": "retry, which may be a callable",
    "reconnect": "retry=Backoff(...)", "gun_opts": "the options of WebSocketProducer itself",
    "ws_opts": "keepalive and silence_pings", "http_opts": "nothing: HTTP/1.1 is the only version there is",
    "ping_interval": "keepalive", "heartbeat": "keepalive", "ping_timeout": "pong_timeout", "idle_timeout": "ws_timeout",
    "compress": "compression", "max_msg_size": "max_size", "max_message_size": "max_size", "uri": "url, the first argument",
    "min_demand": "Pipeline(processors=Processors(min_demand=...))",
    "max_demand": "Pipeline(processors=Processors(max_demand=...))", "max_queue": "Pipeline(max_queue=...)",
    "max_queue_bytes": "Pipeline(max_queue_bytes=...)", "overflow": "Pipeline(overflow=...)",
    "ssl_context": "ssl", "sslopt": "ssl=an ssl.SSLContext", "socket": "sock", "unix_socket": "unix", "uds": "unix",
    "http_proxy_host": "proxy=a URL", "https_proxy": "proxy=a URL", "on_open": "on_upgrade", "on_connect": "on_upgrade",
    "on_message": "frame_handler, or handle_message of your Pipeline",
}


class WebSocketProducer(Producer):
    """Feeds a pipeline from a WebSocket endpoint. Times are seconds; None is off.

    Args:
        url: ws://host[:port][/path][?query], or wss:// for TLS, on any port; or a callable (index) -> str that is asked at
            each attempt, in the dialer's thread and within open_timeout, with the connection's index, from 0. What it
            raises is a failed attempt; an answer that is no usable URL ends the connection.
        path: resource of the upgrade request, where the url has none.
        ws_timeout: a connection is lost when nothing at all has arrived for so long, while it was being read.
        keepalive: period of our pings; each is sent at its time, whatever the handlers do.
        silence_pings: False emits telemetry for pings and pongs. It is never a matter of liveness.
        pong_timeout: strict form of liveness: each ping must be answered within it.
        headers: of the upgrade request: a mapping, pairs, or a callable that is asked at each attempt. If it requires one
            positional argument (`inspect.signature` at construction), it gets the connection's index; if none, none.
        telemetry_id: first element of the names of this producer's events.
        concurrency: how many connections, 1 to 1024; each gets the feed.
        transformer: (data, metadata) -> Message, called on the processor for each payload, on the dispatcher where there is
            a frame_handler.
        on_upgrade: called with an `Upgrade` after each 101 and before READY, in the dialer's thread, within open_timeout. It
            may send, wait for acknowledgements, and return a list of frames (str or bytes) to send, or None. What it
            raises fails the attempt.
        frame_handler: (payload, state) -> Emit, Skip or Fail, called on the pipeline's one dispatcher thread for each
            message of a connection in order, ahead of the processors. `payload` is bytes, of a text message in UTF-8. What
            it raises fails the connection.
        frame_handler_state: the state that each generation of each connection begins with: a callable is called to make
            it, anything else is copied deeply.
        session_markers: True puts a Message with `marker` True and no data into the feed each time a connection is READY:
            behind the last message of the generation before, ahead of the first of this one, and also where none follows.
            It counts as a message held, and no overflow policy drops it. With several processors the order ends where they
            claim, as for all messages.
        retry: Backoff(...), or a callable on the RetryState that returns seconds, or None to give up.
        open_timeout: for one attempt: DNS, TCP, proxy, TLS and the opening handshake together, redirects included.
        close_timeout: for the closing handshake.
        write_limit: bytes of messages that may wait to be sent on a connection; beyond, senders wait for room.
        max_size: bytes of a message at the most, not above the pipeline's max_queue_bytes; None for no limit but 4 GiB.
        subprotocols, origin, user_agent_header: of the upgrade request.
        socket_options: SocketOptions(...), such as TCP keepalive and user time-out.
        compression: "deflate", or PerMessageDeflate(...), offers permessage-deflate (RFC 7692); None does not.
        logger: instead of "wsengine.connection".
        ssl, server_hostname, sock, unix, proxy, proxy_ssl, allow_plaintext_credentials: by which way the server is
            reached, each as for `wsengine.websocket.way.Way`. Without proxy=None the environment's proxy is taken.
            A socket given as `sock` serves one connection, and there is no attempt after it; a callable serves all.
        process_exception: (exception) -> None for another attempt, or the exception to end with, instead of
            `wsengine.process_exception`; called in the supervisor's thread, so it should return soon.

    Raises:
        ConfigurationError, InvalidURI: at construction.

    Source: OffBroadwayWebSocket.Producer (names kept), `websockets` for what it lacks.
    """

    def __init__(self, url: str | Callable[[int], str], *, path: str | None = None, ws_timeout: float | None = 60.0,
                 keepalive: float | None = 20.0, silence_pings: bool = True, pong_timeout: float | None = None,
                 headers: ProducerHeaders = None, telemetry_id: str = "websocket_producer", concurrency: int = 1,
                 transformer: Callable[[Any, dict[str, Any]], Message] | None = None,
                 on_upgrade: Callable[[Upgrade], object] | None = None,
                 frame_handler: Callable[[bytes, Any], FrameResult] | None = None, frame_handler_state: Any = None,
                 session_markers: bool = False,
                 retry: RetryPolicy | None = None,
                 open_timeout: float | None = 10.0, close_timeout: float = 5.0, max_size: int | None = 2**20,
                 write_limit: int = 2**20, subprotocols: Sequence[str] | None = None, origin: str | None = None,
                 user_agent_header: str | None = USER_AGENT, socket_options: SocketOptions | None = None,
                 compression: str | PerMessageDeflate | None = None, logger: logging.Logger | None = None,
                 ssl: SSLContext | None = None, server_hostname: str | None = None,
                 sock: Supply = None, unix: str | os.PathLike[str] | None = None,
                 proxy: str | bool | None = True, proxy_ssl: SSLContext | None = None,
                 allow_plaintext_credentials: bool = False, process_exception: ProcessException = process_exception,
                 **unknown: object) -> None:
        self._given = {name: value for name, value in locals().items() if name in OPTIONS}
        reject_unknown("producer", unknown, OPTIONS, RENAMED)
        self._target = Target(url, path, headers)
        self.uri = self._target.uri
        self._way = Way(self.uri, ssl=ssl, server_hostname=server_hostname, sock=sock, unix=unix, path="producer.",
                        socket_options=socket_options, proxy=proxy, proxy_ssl=proxy_ssl,
                        allow_plaintext_credentials=allow_plaintext_credentials)
        function("producer.process_exception", process_exception, "(exception) -> None or an exception", optional=False)
        self._decide = process_exception if not self._way.serves_once else _no_other_attempt
        self.concurrency = whole("producer.concurrency", concurrency, minimum=1, maximum=1024)
        self.max_size = LARGEST
        if max_size is not None:
            self.max_size = whole("producer.max_size", max_size, minimum=1, maximum=LARGEST)
        self._size_given = max_size is not None
        self._timing = Timing(
            seconds("producer.keepalive", keepalive) or 0.0, seconds("producer.ws_timeout", ws_timeout) or 0.0,
            seconds("producer.pong_timeout", pong_timeout) or 0.0,
            seconds("producer.close_timeout", close_timeout, optional=False) or 0.0, self.max_size)
        if pong_timeout is not None and keepalive is None:
            raise ConfigurationError("producer.pong_timeout", pong_timeout, "set keepalive, too: without pings there are "
                                     "no pongs to wait for")
        self._open_timeout = seconds("producer.open_timeout", open_timeout)
        self._write_limit = whole("producer.write_limit", write_limit, minimum=1, maximum=2**40)
        self._silent = boolean("producer.silence_pings", silence_pings)
        self.telemetry_id = text("producer.telemetry_id", telemetry_id)
        function("producer.transformer", transformer, "(data, metadata) -> Message")
        self._transformer = transformer
        _check_hooks(on_upgrade, frame_handler, frame_handler_state)
        self._on_upgrade = on_upgrade
        self._frame_handler = frame_handler
        self._frame_handler_state = frame_handler_state
        self._session_markers = boolean("producer.session_markers", session_markers)
        refuse_async("retry", retry)
        self._retry = check_retry(retry if retry is not None else Backoff())
        if self._way.serves_once and self.concurrency > 1:
            raise ConfigurationError("producer.sock", sock, "one socket serves one connection: concurrency=1, or a callable")
        self.compression = check_compression("producer.compression", compression)
        self._origin = origin
        self._subprotocols = subprotocols
        self._user_agent = user_agent_header
        known = self._target.headers_for(0)
        Handshake(self.uri or ANY, [] if callable(known) else resolve_headers(known), origin=origin,
                  subprotocols=subprotocols, user_agent_header=user_agent_header)  # checks them now, not at an attempt
        self._way.check_headers(known)
        self._way.prepare()
        self._logger = check_logger("producer.logger", logger)
        self.connections: tuple[Connection, ...] = ()
        self._dispatcher: Dispatcher | None = None
        self._threads: list[threading.Thread] = []

    def _wsengine_elsewhere(self, url: str, kept: Iterable[str], **options: Any) -> WebSocketProducer:
        """Another producer for another URL, with the options of this one that are `kept`, and those given; `wsengine tune`
        measures with it."""
        return WebSocketProducer(url, **{name: self._given[name] for name in kept} | options)

    def check_bounds(self, max_queue_bytes: int) -> None:
        """Called by the pipeline at construction: a message must fit into its bound."""
        if self._size_given and self.max_size > max_queue_bytes:
            raise ConfigurationError("producer.max_size", self.max_size, f"give at most the pipeline's max_queue_bytes="
                                     f"{max_queue_bytes}, or raise that")

    def run(self, inbox: Inbox) -> None:
        """Not used: this producer's sources are filled by its reader."""
        raise TypeError("a WebSocketProducer has a reader of its own")

    # -------------------------------------------------------------------------------------------------------- assembly

    def attach(self, host: Host) -> None:
        """Put reader, timer and supervisor together, and bring the ring into the pipeline."""
        self._host = host
        self._name = f"wsengine:{host.name}:producer_{host.index}"
        account = host.account
        slab = min(SLAB, max(4096, 1 << (account.max_bytes // 8).bit_length() - 1 if account.max_bytes >= 8 else 4096))
        dispatched = self._frame_handler is not None or self._session_markers
        dispatcher = self._dispatcher = host.open_dispatcher() if dispatched else None
        ring = Ring(max(account.max_messages, 2), account, host.parker if dispatcher is None else dispatcher.parker,
                    slab_bytes=slab)
        self._most_kept = account.max_bytes
        parker, timer_parker = Parker(), Parker()
        self.connections = tuple(Connection(i, self.uri, RetryBudget(self._retry, decide=self._decide))
                                 for i in range(self.concurrency))
        self._receiver = Receiver(ring, parker, timer_parker, loud=not self._silent, overflow=host.overflow,
                                  controls=[c._control for c in self.connections])
        self._timer = KeepaliveTimer(self._receiver, [c._control for c in self.connections], timer_parker)
        for one in self.connections:
            one._bind(Outgoing(Sender(one._control, self._receiver, self._write_limit), self._timing.close_timeout,
                               one._why_full, partial(self._abandon, one.index), self.compression),
                      partial(self._receiver.close, one.index))
        self._events = Events(self.telemetry_id, host.name, self._logger, loud=not self._silent)
        self._supervisor = Supervisor(
            self._name, self.connections, parker, self._receiver, self._timer, self._events, self._timing, self._dial,
            lambda error: host.finished(self, error), (account.max_messages, account.max_bytes))
        origin = Origin(self.connections, self._supervisor)
        if dispatcher is not None and self._session_markers:
            self._supervisor.introduce = partial(dispatcher.open, ring)
        if dispatcher is None:
            host.add_ring(ring, origin, self._transformer)
        else:
            sessions = ProducerSessions(self.connections, self._supervisor)
            dispatcher.add_ring(ring, origin, FrameHandler(self._frame_handler, self._frame_handler_state, sessions),
                                self._transformer, self._session_markers, host.overflow == "drop_oldest")

    def _abandon(self, index: int, epoch: int) -> None:
        """A message was begun and will not be completed: nothing can follow it."""
        self._receiver.close(index, epoch, 1011, b"incomplete message")

    def _dial(self, index: int, epoch: int, cancellation: Cancellation) -> Dialed:
        """One attempt, in a dialer thread."""
        attempt = Attempt("the server", self._open_timeout, cancellation)
        attempt.phase = "the url callable"
        attempt.check()  # attempts that waited for a dialer ask nobody once a stop has begun
        uri = self._target.uri_for(index)
        attempt.check()
        attempt.peer = uri.authority
        self.connections[index]._uri = uri
        bootstrap = None
        if self._on_upgrade is not None:
            bootstrap = Bootstrap(self._on_upgrade, index, epoch, uri.redacted, self.max_size, self._most_kept)
        return dial(uri, self._way, headers=self._target.headers_for(index), origin=self._origin,
                    subprotocols=self._subprotocols, user_agent_header=self._user_agent, compression=self.compression,
                    bootstrap=bootstrap, attempt=attempt)

    def start(self) -> None:
        started: list[threading.Thread] = []
        try:
            for part, body in (("reader", self._receiver.run), ("timer", self._timer.run), ("supervisor", self._supervise)):
                started.append(spawn(f"{self._name}:{part}", body, deaf=part != "supervisor"))
        except BaseException:                    # the system gives no more threads: none of these shall stay
            self._receiver.stop()
            self._timer.stop()
            for thread in started:
                thread.join(1)
            self.release()
            raise
        self._threads = started

    def _supervise(self) -> None:
        """The supervisor's thread; a fault in it ends the pipeline, visibly."""
        try:
            self._supervisor.run()
        except BaseException as error:
            try:
                log(self._logger, logging.CRITICAL, "the supervisor of %s died; the pipeline stops", self._name, error=error)
            finally:
                self._host.finished(self, error)

    def drain(self) -> None:
        self._supervisor.drain()

    def release(self) -> None:
        """Give the descriptors back, unless a thread that uses them has not ended."""
        if not any(thread.is_alive() for thread in self._threads):
            self._receiver.dispose()
            self._supervisor.release()

    @property
    def quiet(self) -> bool:
        return not self._threads or self._supervisor.quiet or not self._threads[2].is_alive()

    def stop(self, deadline: float) -> None:
        """Close the connections with 1000, then end the threads."""
        if not self._threads:
            return
        self._supervisor.stop(deadline)
        reader, timer, supervisor = self._threads
        supervisor.join(max(deadline - time.monotonic(), 0) + 1)
        dropped = [(c, c.counts()["discarded"]) for c in self.connections]
        self._receiver.stop()
        self._timer.stop()
        reader.join(1)
        timer.join(1)
        if not (supervisor.is_alive() or reader.is_alive()):
            self._supervisor.end_rest()
        for connection, count in dropped:
            if count:
                self._events.dropped(connection, count, "the pipeline was stopping")
        self._supervisor.tell_overflow()

    # --------------------------------------------------------------------------------------------------------- figures

    def alive(self) -> list[str]:
        own = [thread.name for thread in self._threads if thread.is_alive()]
        return own + self._supervisor.dialing if self._threads else own

    @property
    def discarded(self) -> int:
        return sum(connection.counts()["discarded"] for connection in self.connections)

    def stats(self) -> dict[str, Any]:
        ring = self._receiver.ring
        figures: dict[str, Any] = {"name": type(self).__name__, "url": self._target.name, "depth": ring.depth,
                                   "slabs": ring.slabs, "connections": [c.stats() for c in self.connections]}
        if self._dispatcher is not None:
            figures["frame_handler"] = self._dispatcher.figures(ring)
        return figures

    def __repr__(self) -> str:
        return f"<WebSocketProducer {self._target.name}>"


def _no_other_attempt(error: BaseException) -> BaseException:
    """The decision where the user's one socket is used up."""
    return error


def _check_hooks(on_upgrade: object, frame_handler: object, state: object) -> None:
    function("producer.on_upgrade", on_upgrade, "(upgrade) -> None or a list of frames")
    function("producer.frame_handler", frame_handler, "(payload, state) -> Emit, Skip or Fail")
    refuse_async("producer.frame_handler_state", state)
    if frame_handler is None and state is not None:
        raise ConfigurationError("producer.frame_handler_state", state, "give a frame_handler, too, or leave it out")
    if not callable(state):
        try:
            copy.deepcopy(state)
        except BaseException as error:
            raise ConfigurationError("producer.frame_handler_state", type(state).__name__, "each generation of a connection "
                                     "begins with a deep copy, and this cannot be copied; give a callable that makes it"
                                     ) from error


class Origin:
    """Where the messages of one producer come from: what a Message asks for its connection and metadata."""

    def __init__(self, connections: Sequence[Connection], supervisor: Supervisor) -> None:
        self._connections = connections
        self._supervisor = supervisor

    def fail(self, index: int, epoch: int, error: BaseException) -> None:
        """Have the connection closed and told as failed, if it is still that generation: there is no room for what it
        brings."""
        self._supervisor.fail(index, epoch, error)

    def connection(self, index: int) -> Connection:
        return self._connections[index]

    def metadata(self, message: Message) -> dict[str, Any]:
        """The first metadata of a message (reference W-24)."""
        connection = self._connections[message.connection_index]
        return {"url": connection.url, "connection_index": message.connection_index, "epoch": message.epoch,
                "seq": message.seq, "opcode": message.opcode, "received_ns": message.received_ns}
